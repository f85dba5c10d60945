"""Pictures of iterated function systems (IFS), drawn by a chaos game that is the same on every machine.

An IFS is a few contracting affine maps of the plane; its attractor is the fractal. After FractalDB (Kataoka et al.,
"Pre-training without natural images", ACCV 2020) a class is an IFS, and after Anderson and Farrell ("Improving fractal
pre-training", WACV 2022) the singular values of its maps are drawn so that their weighted sum lies in a narrow range,
which keeps the attractor between dust and a filled blob.

Two things are our own. The mean and the covariance of an attractor solve linear equations in its maps, so every system
is moved to mean 0 and covariance 1 beforehand: none is nearly empty, and none leaves the frame. And the chaos game is
stratified: points lie in blocks, a block goes through one map, and a fixed permutation mixes the points between steps,
which needs no random numbers per point and a few vector operations per step.

Of 100,000 classes at 32x32 pixels none covers less than 3% or more than 60% of the picture, and one in 300 has a twin
among the others (blurred pictures with a cosine above 0.97; two images of one class have 0.69 in the median).
"""

import math
from functools import cache

import torch
from torch import Tensor

from lsc.hashing import random_bits, random_uniform

NUM_MAPS = 4
NUM_JITTER = 6 * NUM_MAPS  # random numbers that deform the maps of an instance
NUM_VIEW = 5  # random numbers that place it: rotation, zoom, stretch, shift in x and in y

_SLOTS = 16  # blocks of points; a map gets a share of them by its area
_WARM_UP = 10  # steps that bring the points to the attractor
_STEPS = 12  # steps that are drawn
_FRAME = 2.3  # half the side of the picture in standard deviations of the attractor

_SHAPE, _COLOR = 201, 202  # first counters of the random streams


def class_maps(seed: int, classes: Tensor) -> Tensor:
    """(B, NUM_MAPS, 2, 3) float64: two, three or four random affine maps of each of the (B,) ``classes``.

    A system of fewer maps is padded with maps of zeros, which :func:`complete` replaces.
    """
    u = random_uniform(seed, _SHAPE, classes[:, None], torch.arange(1 + 7 * NUM_MAPS, device=classes.device))
    count = 2 + (u[:, :1] * 3).long()
    turn, lean, larger, ratio, mirror, x, y = u[:, 1:].view(-1, 7, NUM_MAPS).unbind(1)
    used = torch.arange(NUM_MAPS, device=classes.device) < count
    # Anderson and Farrell: sum over the maps of (larger + 2 smaller singular value) between (5 + N)/2 and (6 + N)/2.
    larger, smaller = 0.7 + 0.3 * larger, (0.7 + 0.3 * larger) * (0.25 + 0.7 * ratio)
    target = 0.5 * (5 + count) + 0.5 * u[:, :1]
    scale = target / ((larger + 2 * smaller) * used).sum(1, keepdim=True)
    larger, smaller = (larger * scale).clamp(max=0.92), (smaller * scale).clamp(max=0.9)
    matrix = _product(_rotation(turn) * torch.stack([larger, smaller], -1)[:, :, None, :], _rotation(lean))
    matrix = matrix * torch.stack([torch.ones_like(mirror), torch.where(mirror < 0.5, 1.0, -1.0)], -1)[:, :, None, :]
    shift = 2 * torch.stack([x, y], -1) - 1
    return torch.cat([matrix, shift[..., None]], -1) * used[:, :, None, None]


def _rotation(turns: Tensor) -> Tensor:
    """(..., 2, 2) rotations by ``turns`` full circles."""
    cosine, sine = torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns)
    return torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product of (..., 2, 2) and (..., 2, n), without the overhead of a batched one."""
    return (left[..., :, :, None] * right[..., None, :, :]).sum(-2)


def complete(maps: Tensor) -> Tensor:
    """The same attractors with exactly NUM_MAPS maps each.

    Two maps a, b become ab, aa, ba, bb, which have the same attractor; three become a, b, c, c.
    """
    count = (maps.abs().sum((2, 3)) > 0).sum(1)
    three = torch.cat([maps[:, :3], maps[:, 2:3]], 1)
    a, b = maps[:, 0], maps[:, 1]  # not by a list of indexes, which would be copied to the device
    first, second = torch.stack([a, a, b, b], 1), torch.stack([a, b, a, b], 1)
    matrix = _product(first[..., :2], second[..., :2])
    shift = _product(first[..., :2], second[..., 2:]) + first[..., 2:]
    pairs = torch.cat([matrix, shift], -1)
    choose = count[:, None, None, None]
    return torch.where(choose == 2, pairs, torch.where(choose == 3, three, maps))


def normalise(maps: Tensor, weights: Tensor) -> Tensor:
    """Move (B, M, 2, 3) systems to mean 0 and covariance (nearly) 1 of their invariant measures.

    With map i taken with probability w_i, mean and covariance satisfy m = sum w_i (A_i m + b_i) and
    C = sum w_i (A_i C A_i' + d_i d_i'), d_i = A_i m + b_i - m. A thin attractor is widened, but not without limit.
    Everything is written out for the plane: LAPACK and its threads cost more than these few operations.
    """
    a, b, e, c, d, f = maps.flatten(2).unbind(2)

    def average(values: Tensor) -> Tensor:
        return (weights * values).sum(1)

    top, left, right, bottom = 1 - average(a), -average(b), -average(c), 1 - average(d)
    x, y = _solve(top, left, right, bottom, average(e), average(f))
    x, y = x[:, None], y[:, None]
    e, f = a * x + b * y + e - x, c * x + d * y + f - y
    columns = (
        torch.stack([1 - average(a * a), -average(a * c), -average(c * c)], 1),
        torch.stack([-2 * average(a * b), 1 - average(a * d + b * c), -2 * average(c * d)], 1),
        torch.stack([-average(b * b), -average(b * d), 1 - average(d * d)], 1),
    )
    xx, xy, yy = _solve_three(*columns, torch.stack([average(e * e), average(e * f), average(f * f)], 1))
    # One system in some hundred thousand does not contract on average, and its covariance is none: any frame will do.
    xx, yy = xx.clamp(min=1e-6), yy.clamp(min=1e-6)
    floor = 0.01 * (xx + yy)
    xx, yy = xx + floor, yy + floor
    # The symmetric square root of the covariance, by Cayley and Hamilton.
    root = (xx * yy - xy * xy).clamp(min=0).sqrt()
    size = (xx + yy + 2 * root).sqrt()
    xx, xy, yy = (((xx + root) / size)[:, None], (xy / size)[:, None], ((yy + root) / size)[:, None])
    moved = (a * xx + b * xy, a * xy + b * yy, e, c * xx + d * xy, c * xy + d * yy, f)
    rows = [_solve(xx, xy, xy, yy, moved[i], moved[i + 3]) for i in range(3)]
    return torch.stack([part for axis in zip(*rows, strict=True) for part in axis], -1).view_as(maps)


def _solve(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """x, y with a x + b y = e and c x + d y = f, elementwise."""
    determinant = a * d - b * c
    return (e * d - b * f) / determinant, (a * f - c * e) / determinant


def _solve_three(first: Tensor, second: Tensor, third: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, y, z with x first + y second + z third = right, all (B, 3); Cramer's rule."""

    def volume(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return (u * torch.linalg.cross(v, w)).sum(1)

    whole = volume(first, second, third)
    return (
        volume(right, second, third) / whole,
        volume(first, right, third) / whole,
        volume(first, second, right) / whole,
    )


def allot(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Which map each block of points takes: more blocks for a map that covers more area.

    Returns:
        (B, _SLOTS) int64 map of each slot, and (B, M) float64 share of the slots that each map got.
    """
    area = (maps[..., 0, 0] * maps[..., 1, 1] - maps[..., 0, 1] * maps[..., 1, 0]).abs()
    share = area / area.sum(1, keepdim=True).clamp(min=1e-12)
    share = 0.5 * share + 0.5 / NUM_MAPS  # no map goes without blocks
    places = (torch.arange(_SLOTS, device=maps.device) + 0.5) / _SLOTS
    # Not cumsum: on CUDA its deterministic form may take much memory, and there are few terms here.
    ends = torch.stack([share[:, :count].sum(1) for count in range(1, NUM_MAPS)], 1)
    slots = (places[None, :, None] > ends[:, None, :]).sum(-1)
    weights = (slots[:, :, None] == torch.arange(NUM_MAPS, device=maps.device)).to(maps.dtype).mean(1)
    return slots, weights


@cache
def _shuffles(points: int, device: torch.device) -> tuple[Tensor, ...]:
    orders = [random_bits(0, step, torch.arange(points)).argsort() for step in range(_WARM_UP + _STEPS)]
    return tuple(order.to(device) for order in orders)


@cache
def _start(points: int, device: torch.device) -> tuple[Tensor, Tensor]:
    places = random_uniform(0, torch.arange(2)[:, None], torch.arange(points)).float() * 2 - 1
    return places[0].to(device), places[1].to(device)


def counts(maps: Tensor, view: Tensor, image_size: int, points: int, *, by_map: bool) -> Tensor:
    """Play the chaos game and count the points in each pixel.

    Args:
        maps: (B, NUM_MAPS, 2, 3) complete systems, not yet normalised.
        view: (B, 2, 3) affine map from attractor coordinates to the frame, in which the picture spans -1 to 1.
        points: in play at a time; a multiple of 64.
        by_map: count separately for each map that put the points there.

    Returns:
        (B, NUM_MAPS or 1, image_size, image_size) int64.
    """
    size, device, side = len(maps), maps.device, image_size + 2  # a border collects what falls outside
    slots, weights = allot(maps)
    pixels = view * (image_size / 2)
    pixels[:, :, 2] += image_size / 2 + 1
    systems = _conjugate(normalise(maps, weights), pixels)
    chosen = systems.gather(1, slots[:, :, None, None].expand(-1, -1, 2, 3)).float()
    a, b, e, c, d, f = (_spread(part, points) for part in chosen.flatten(2).unbind(2))
    start_x, start_y = _start(points, device)
    pa, pb, pe, pc, pd, pf = pixels.float().flatten(1)[..., None].unbind(1)
    x, y = pa * start_x + pb * start_y + pe, pc * start_x + pd * start_y + pf
    layers = NUM_MAPS if by_map else 1
    layer = torch.arange(size, device=device)[:, None] * layers + (slots if by_map else 0 * slots)
    base = _spread(layer * side**2, points)
    hits = []
    for step, order in enumerate(_shuffles(points, device)):
        x, y = x.index_select(1, order), y.index_select(1, order)
        x, y = torch.addcmul(e, a, x).addcmul_(b, y), torch.addcmul(f, c, x).addcmul_(d, y)
        if step >= _WARM_UP:
            column, row = x.clamp(0, side - 1).floor_(), y.clamp(0, side - 1).floor_()
            hits.append(column.add_(row, alpha=side).long().add_(base))
    total = _counted(torch.stack(hits).flatten(), size * layers * side**2)
    return total.view(size, layers, side, side)[:, :, 1:-1, 1:-1]


def _counted(places: Tensor, size: int) -> Tensor:
    """(size,) int64, or int32 on a GPU: how often each number below ``size`` is among ``places`` (N,).

    A GPU's own ``bincount`` waits for the largest of them. Sums of whole numbers come out the same in any order, so the
    fast way, which torch would refuse or replace where runs have to repeat, is as good.
    """
    if places.device.type == "cpu":
        return torch.bincount(places, minlength=size)
    deterministic, only_warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(False)
    try:
        one = torch.ones((), dtype=torch.int32, device=places.device)
        return torch.zeros(size, dtype=torch.int32, device=places.device).scatter_add_(0, places, one.expand_as(places))
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)


def _conjugate(maps: Tensor, change: Tensor) -> Tensor:
    """(B, M, 2, 3) maps in the coordinates that the affine (B, 2, 3) ``change`` leads to."""
    a, b, e, c, d, f = change[:, None].flatten(2).unbind(2)
    determinant = a * d - b * c
    inverse = torch.stack([d, -b, -c, a], -1).div(determinant[..., None]).view(-1, 1, 2, 2)
    forward, shift = change[:, None, :, :2], torch.stack([e, f], -1)[..., None]
    matrix = _product(_product(forward, maps[..., :2]), inverse)
    return torch.cat([matrix, _product(forward, maps[..., 2:]) + shift - _product(matrix, shift)], -1)


def _spread(slots: Tensor, points: int) -> Tensor:
    """(B, points): the value of each slot for all the points of its block."""
    return slots[:, :, None].expand(-1, -1, points // _SLOTS).reshape(len(slots), points)


def render(seed: int, classes: Tensor, jitter_draws: Tensor, *, image_size: int, color: bool, jitter: float) -> Tensor:
    """Pictures of instances of fractal classes.

    Args:
        seed: of the classes.
        classes: (B,) int64 class ids, any non-negative numbers; their device does the work.
        jitter_draws: (B, NUM_JITTER + NUM_VIEW) uniform in [0, 1): one instance each.
        jitter: how far an instance may lie from its class; 0 makes all instances of a class equal.

    Returns:
        (B, 3 or 1, image_size, image_size) uint8.
    """
    part = _images_at_a_time(image_size, classes.device)
    if len(classes) > part:
        pieces = zip(torch.split(classes, part), torch.split(jitter_draws, part), strict=True)
        return torch.cat(
            [render(seed, few, draws, image_size=image_size, color=color, jitter=jitter) for few, draws in pieces]
        )
    deform, place = (2 * jitter_draws - 1).double().mul(jitter).tensor_split([NUM_JITTER], 1)
    maps = class_maps(seed, classes)
    maps = maps + 0.09 * deform.view(-1, NUM_MAPS, 2, 3) * (maps.abs().sum((2, 3), keepdim=True) > 0)
    density = counts(complete(maps), _view(place), image_size, points_for(image_size), by_map=color)
    total = density.sum(1, keepdim=True).float()
    typical = total.sum((1, 2, 3)) / (total > 0).sum((1, 2, 3)).clamp(min=1)
    brightness = 1 - torch.exp(-1.2 * total / typical[:, None, None, None])
    if not color:
        return (255 * brightness).round().to(torch.uint8)
    shares = density.float() / total.clamp(min=1)
    tint = (shares[:, :, None] * _palette(seed, classes)[..., None, None]).sum(1)
    return (255 * brightness * tint).round().to(torch.uint8)


def _images_at_a_time(image_size: int, device: torch.device) -> int:
    """Few enough that a core works in its cache.

    Where torch may use several threads it starts them from 32,768 numbers on; for operations as short as these that
    costs more than it brings, above all when the cores have other work too.
    """
    if device.type == "cpu":
        numbers = 65_536 if torch.get_num_threads() == 1 else 32_767
    else:
        numbers = 1 << 23
    return max(1, numbers // points_for(image_size))


def points_for(image_size: int) -> int:
    """Points in play for a picture: about 6 drawn points per pixel at 32 pixels, fewer per pixel for larger ones."""
    return max(128, 64 * round(image_size**1.75 / 64 * 512 / 32**1.75))


def _view(place: Tensor) -> Tensor:
    """(B, 2, 3) random placements in the frame out of (B, NUM_VIEW) numbers in [-1, 1]."""
    turn, zoom, stretch, x, y = place.unbind(1)
    scale = torch.stack([1 + 0.18 * zoom + 0.12 * stretch, 1 + 0.18 * zoom - 0.12 * stretch], -1) / _FRAME
    return torch.cat([_rotation(turn * 22.5 / 360) * scale[:, None], 0.15 * torch.stack([x, y], -1)[..., None]], -1)


def _palette(seed: int, classes: Tensor) -> Tensor:
    """(B, NUM_MAPS, 3) float32 colours of the maps: hues around the one of the class."""
    u = random_uniform(seed, _COLOR, classes[:, None], torch.arange(1 + NUM_MAPS, device=classes.device))
    hue = (u[:, :1] + 0.35 * (u[:, 1:] - 0.5))[..., None]
    rgb = ((hue + _phases(hue.device)) % 1 * 6 - 3).abs().sub(1).clamp(0, 1)
    return (0.3 + 0.7 * rgb).float()


@cache
def _phases(device: torch.device) -> Tensor:
    """(3,) float64: where red, green and blue stand on the circle of hues."""
    return torch.tensor([0.0, 1 / 3, 2 / 3], dtype=torch.float64, device=device)
