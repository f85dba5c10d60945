"""No step waits for a GPU: with a stand-in for one (tests/standin.py), and backwards on the meta device, which has no numbers.

Each work is done twice, since tables are copied to a device once, and the second time counts.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsc.centers import Centers
from lsc.centers.permutation import Permutation, _longest_walk
from lsc.data import open_dataset
from lsc.data.trees import write_imagenet_tree
from lsc.encoders import ENCODERS, build_encoder
from lsc.objectives import OBJECTIVES, LayerObjective, Objective
from lsc.systems import ExplicitSystem, System, parse_system
from lsc.training.building import task_for
from lsc.training.evaluation import evaluate
from lsc.training.optimization import Learner
from tests.conftest import tiny_run
from tests.standin import CUDA, Device, Pretended, Wait, pretended_gpu

# An exact search proves its answer and looks where the proof fails; a scan of all classes sets ties in order. Both run in
# evaluations alone, whose batches wait here, some ten times each.
SEARCH = {f"lsc/systems/{name}.py" for name in ("search", "ranking", "staircase", "scanning")}


def named(waits: list[Wait]) -> list[str]:
    return sorted({str(wait) for wait in waits})


def second(gpu: Device, work: Callable[[], object]) -> list[Wait]:
    """The waits of a work that has been done before."""
    work()
    return gpu.waits_of(work)


def made(name: str, settings: dict[str, Any], classes: int, system: System, **centers: Any) -> Objective:
    torch.manual_seed(0)
    kind = OBJECTIVES[name]
    if issubclass(kind, LayerObjective):
        return kind(classes, system.dim, **settings)
    return kind(Centers(system, classes, **centers), **settings)


CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    *((name, {}, "A", {}) for name in OBJECTIVES),
    ("orbit_softmax", {"margin": 0.1}, "V22", {}),
    ("orbit_softmax", {"normalize": False}, "V21", {}),
    ("cosine", {}, "A", {"perturbation": 0.1}),
    ("cosine", {}, "gaussian", {}),
    ("center_softmax", {"sample": 64}, "V21", {}),
    ("euclidean", {"cluster_radius": 0.1}, "A", {"assignment": "ordered"}),
    ("partial_fc", {"margin": 0.2}, "A", {}),
]
# The bound on an embedding that is not normalised has to be looked up: of all objectives, the one that may wait.
MAY_WAIT = {("orbit_softmax", "V21"): {"item in lsc/systems/partition.py"}}


@pytest.mark.parametrize("classes", [90, 5000])
@pytest.mark.parametrize(("name", "settings", "system", "centers"), CASES, ids=lambda value: str(value))
def test_no_objective_waits_and_each_gives_what_it_gives_on_the_cpu(
    name: str, settings: dict[str, Any], system: str, centers: dict[str, Any], classes: int
) -> None:
    dim = 40 if system == "gaussian" else None
    objective = made(name, settings, classes, parse_system(system, dim, classes), **centers)
    embeddings, labels = torch.randn(64, objective.dim), torch.randint(classes, (64,))
    torch.manual_seed(1)
    with torch.no_grad():
        expected, predicted = objective.loss(embeddings, labels), objective.predict(embeddings, 2)
    with pretended_gpu() as gpu:
        gpu.module(objective)
        there = embeddings.to(CUDA), labels.to(CUDA)
        losses: list[Tensor] = []

        def loss() -> None:
            torch.manual_seed(1)
            losses.append(objective.loss(*there))

        waits = second(gpu, loss)
        allowed = MAY_WAIT.get((name, system), set()) if not settings.get("normalize", True) else set()
        assert {text.partition(":")[0] for text in named(waits)} <= allowed, named(waits)
        assert torch.equal(losses[-1].held, expected)  # type: ignore[attr-defined]
        found: list[Tensor] = []
        waits = second(gpu, lambda: found.append(objective.predict(there[0], 2)))
        assert {wait.file for wait in waits} <= SEARCH, named(waits)
        assert torch.equal(found[-1].held, predicted)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "settings", "system", "centers"), CASES, ids=lambda value: str(value))
@pytest.mark.apart
def test_no_gradient_depends_on_a_look_at_numbers(
    name: str, settings: dict[str, Any], system: str, centers: dict[str, Any]
) -> None:
    """On the meta device nothing can be looked at, forwards or backwards."""
    if name == "orbit_softmax" and not settings.get("normalize", True):
        pytest.skip("it looks at the embeddings' spread")
    objective = made(name, settings, 5000, parse_system(system, 40 if system == "gaussian" else None, 5000), **centers)
    objective.to("meta")
    embeddings = torch.randn(8, objective.dim, device="meta", requires_grad=True)
    objective.loss(embeddings, torch.zeros(8, dtype=torch.int64, device="meta")).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.shape == embeddings.shape


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "given"])
@pytest.mark.parametrize("hidden", [None, 32])
@pytest.mark.apart
def test_no_encoder_waits(name: str, hidden: int | None) -> None:
    small = {"width": 24, "depth": 1} if name.startswith("vit") else {}
    encoder = build_encoder(name, (3, 16, 16), 8, hidden=hidden, **small)
    with pretended_gpu() as gpu:
        gpu.module(encoder)
        images = torch.randn(2, 3, 16, 16).to(CUDA)
        for low in (False, True):
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=low):
                assert named(second(gpu, lambda: encoder(images))) == []
    encoder = build_encoder(name, (3, 16, 16), 8, hidden=hidden, **small).to("meta")
    encoder(torch.randn(2, 3, 16, 16, device="meta")).square().sum().backward()


EVERYTHING = {
    "crop_padding": 2,
    "flip": True,
    "rotation": 10.0,
    "scale": 0.1,
    "brightness": 0.2,
    "contrast": 0.2,
    "cutout": 3,
}
FRACTALS = {"name": "fractals", "num_classes": 6, "image_size": 16, "train_per_class": 8, "augment": EVERYTHING}
SETS: dict[str, dict[str, Any]] = {
    "digits": {"name": "digits", "image_size": 8, "augment": EVERYTHING},
    "fractals held": FRACTALS,
    "fractals drawn": {**FRACTALS, "memory_mb": 0},
    "fractals endless in colour": {**FRACTALS, "endless": True, "color": True},
    "instances": {"name": "instances", "of": FRACTALS},
    "files": {"name": "imagenet", "image_size": 16, "workers": 0},
}


@pytest.mark.parametrize("case", SETS)
def test_no_batch_waits_and_each_is_what_it_is_on_the_cpu(case: str, tmp_path: Path) -> None:
    options = dict(SETS[case])
    if case == "files":
        write_imagenet_tree(tmp_path, num_classes=4, train_per_class=12, val_per_class=1, image_size=24)
        options["root"] = str(tmp_path)
    dataset = open_dataset(options.pop("name"), **options)

    def batches(device: torch.device) -> list[tuple[Tensor, ...]]:
        return [tuple(batch) for batch in dataset.train_batches(16, seed=0, epoch=0, device=device)]

    expected = batches(torch.device("cpu"))
    with pretended_gpu() as gpu:
        found: list[list[tuple[Tensor, ...]]] = []
        waits = second(gpu, lambda: found.append(batches(CUDA)))
        assert named(waits) == []
        assert all(isinstance(part, Pretended) for batch in found[-1] for part in batch)
        for here, there in zip(expected, found[-1], strict=True):
            assert all(torch.equal(a, b.held) for a, b in zip(here, there, strict=True))  # type: ignore[attr-defined]


class OneGPU:
    """What a learner and an evaluation ask of Lightning's Fabric, on the stand-in."""

    device, world_size, global_rank, is_global_zero = CUDA, 1, 0, True

    def setup(self, task: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        return task, optimizer

    def no_backward_sync(self, module: nn.Module, enabled: bool) -> Any:
        return nullcontext()

    def autocast(self) -> torch.autocast:
        return torch.autocast("cuda", dtype=torch.bfloat16)

    def all_reduce(self, value: Tensor, reduce_op: str) -> Tensor:
        return value


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": {"name": "cosine"}, "training": {"ema": 0.9}},
        {"objective": {"name": "cross_entropy"}, "training": {"optimizer": "sgd", "accumulate": 2}},
        {"objective": {"name": "partial_fc", "sample_rate": 0.5}},
        {"objective": {"name": "orbit_softmax"}, "encoder": {"norm": "batch"}},
    ],
    ids=["cosine, averaged", "cross-entropy, SGD in parts", "partial FC", "exact softmax"],
)
def test_a_whole_step_does_not_wait(changes: dict[str, Any]) -> None:
    """Optimiser, clipping, average and account of a step; the gradients are random numbers."""
    run = tiny_run(**changes)
    dataset = open_dataset(run.data)
    task = task_for(run, dataset)
    with pretended_gpu() as gpu:
        gpu.module(task)
        fabric: Any = OneGPU()

        def backward(_loss: Tensor) -> None:
            sampled = getattr(task.objective, "sampled", None)
            for parameter in [*task.parameters(), *([] if sampled is None else [sampled])]:
                parameter.grad = torch.randn(parameter.shape, device=CUDA)

        fabric.backward = backward
        learner = Learner(task, fabric, run.training)
        learner.model.train()
        batch = next(dataset.train_batches(64, seed=0, epoch=0, device=CUDA))
        assert named(second(gpu, lambda: learner.step(batch, 0.01))) == []


def test_an_evaluation_waits_in_its_search_alone() -> None:
    run = tiny_run()
    dataset = open_dataset(run.data)
    task = task_for(run, dataset)
    groups = torch.arange(6) // 2
    expected = evaluate(task, dataset, "test", fabric=cpu_fabric(), batch_size=64, groups=groups)
    with pretended_gpu() as gpu:
        gpu.module(task)
        fabric: Any = OneGPU()
        found: list[Any] = []
        waits = second(
            gpu, lambda: found.append(evaluate(task, dataset, "test", fabric=fabric, batch_size=64, groups=groups))
        )
    # The groups go there once, and the counts come back once, at the end.
    once = [wait for wait in waits if wait.file == "lsc/training/evaluation.py"]
    assert len(once) <= 4, named(once)
    assert {wait.file for wait in waits} <= SEARCH | {"lsc/training/evaluation.py"}, named(waits)
    assert found[-1].keys() == expected.keys()


def cpu_fabric() -> Any:
    cpu = SimpleNamespace(device=torch.device("cpu"), world_size=1, global_rank=0)
    cpu.autocast = lambda: torch.autocast("cpu", enabled=False)
    cpu.all_reduce = lambda value, reduce_op: value
    return cpu


def test_the_stand_in_sees_every_kind_of_wait_and_a_mix_of_devices() -> None:
    kinds: dict[str, Callable[[Tensor], object]] = {
        "item": lambda x: bool((x > 0).any()),
        "nonzero": lambda x: x.nonzero(),
        "indexing by a mask": lambda x: x[x > 0],
        "unique": lambda x: x.unique(),
        "bincount": lambda x: x.long().abs().bincount(),
        "masked_select": lambda x: x.masked_select(x > 0),
        "copy to the host": lambda x: x.cpu(),
        "blocking copy to the device": lambda x: torch.tensor([1.0, 2.0], device=CUDA),
        "linalg": lambda x: torch.linalg.cholesky(torch.eye(3, device=CUDA)),
        "equal": lambda x: torch.equal(x, x),
    }
    with pretended_gpu() as gpu:
        x = torch.randn(5, device=CUDA)
        for kind, work in kinds.items():
            assert kind in {wait.what for wait in gpu.waits_of(lambda work=work: work(x))}, kind
        assert gpu.waits_of(lambda: (x + 1).sum() * x.topk(2).values.sum()) == []
        with pytest.raises(RuntimeError, match="CPU and of the GPU"):
            x + torch.ones(5)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 13, 48, 97, 4097, 5000, 99_999])
def test_walks_of_the_permutation_end_after_the_steps_that_are_taken_for_granted(size: int) -> None:
    for seed in range(5):
        permutation = Permutation(size, seed)
        for inverse in (False, True):
            order = list(range(6))[:: -1 if inverse else 1]
            out, steps = permutation._rounds(torch.arange(size), order, -1 if inverse else 1), 0
            while bool((outside := out >= size).any()):
                out, steps = torch.where(outside, permutation._rounds(out, order, -1 if inverse else 1), out), steps + 1
            assert steps == _longest_walk(size, seed)


def test_centers_of_a_matrix_go_to_the_device_once() -> None:
    system = ExplicitSystem(torch.randn(20, 6))
    with pretended_gpu() as gpu:
        index = torch.arange(5, device=CUDA)
        assert len(gpu.waits_of(lambda: system.vectors(index))) == 1
        assert gpu.waits_of(lambda: system.vectors(index)) == []
