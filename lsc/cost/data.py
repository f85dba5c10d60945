"""``lsc cost data``: how many training images per second every data set delivers per core; for files, also each stage by itself.

The sets that cannot be fetched everywhere are measured on small trees of fractals in their layout and image size.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lsc.data.base import Dataset
    from lsc.data.image_folder import ImageFolder

LONG_EPOCH = 100_000
BATCH_SIZE = 128


def data(
    out: Annotated[Path | None, typer.Option("--output", "--out", help="JSON file to write.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Measure these cases only; repeatable.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="A folder of your own images: measure them, too, as the case own.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.05, help="Time for each case.")] = 3.0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads, and loading processes of the sets of files.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda: where the training would run.")] = "cpu",
) -> None:
    """Measure training images per second of every data set, augmented and normalised on the device."""
    import torch

    from lsc.cost.timing import place_of
    from lsc.errors import UserError
    from lsc.files import refuse_unwritable
    from lsc.provenance import provenance
    from lsc.training import records

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no usable GPU; leave it out")
    if out is not None:
        refuse_unwritable(out)  # before the measurements, which would be lost
    torch.set_num_threads(threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cases = _cases(Path(folder), threads, root)
        for name in only or cases:
            if name not in cases:
                known = f"known are {', '.join(cases)}{'' if root else '; and own, with --root FOLDER'}"
                raise UserError(f"--only {name}: unknown case; {known}")
            row = {"case": name} | measure(cases[name], seconds, place_of(device)) | {"threads": threads}
            row["images_per_second_per_core"] = round(row["images_per_second"] / threads, 1)
            rows.append(row)
            print(f"{name:<22} {row['images_per_second']:>10.0f} images/s on {threads} x {device}", flush=True)
            for stage, rate in row.get("stages", {}).items():
                print(f"  {stage:<20} {rate:>10.0f} images/s on one core, alone", flush=True)
    if out is not None:
        records.write_json(out, {"batch_size": BATCH_SIZE, "device": device, "rows": rows} | provenance())


def _cases(folder: Path, workers: int, root: Path | None) -> dict[str, dict[str, Any]]:
    """Case -> name and options of a data set, whose files are not there yet; ``own`` where ``root`` holds some."""
    cinic10, imagenet = folder / "cinic10", folder / "imagenet"
    rendered = {"name": "fractals", "num_classes": 1_281_167, "train_per_class": 1, "endless": True}
    files = {"name": "imagenet", "root": str(imagenet), "workers": workers}
    cases: dict[str, dict[str, Any]] = {
        "digits": {"name": "digits"},
        "fractals_held": {"name": "fractals", "num_classes": 100, "augment": {"crop_padding": 4}},
        "fractals_32": rendered,
        "fractals_32_color": {**rendered, "color": True},
        "fractals_64": {**rendered, "image_size": 64},
        "fractals_224": {**rendered, "image_size": 224},
        "fractals_224_color": {**rendered, "image_size": 224, "color": True},
        "cinic10": {"name": "cinic10", "root": str(cinic10)},
        "imagenet_224": files,
        "instances_224": {"name": "instances", "of": files},
    }
    if root is not None:
        cases["own"] = {"name": "folder", "root": str(root), "image_size": 224, "workers": workers}
    return cases


def measure(options: dict[str, Any], seconds: float, device: "Any") -> dict[str, Any]:
    """Images per second of ``train_batches``, after one batch that is not counted; of files, those of each stage, too."""
    import torch

    _prepare(options)
    from lsc.data import open_dataset
    from lsc.data.image_folder import ImageFolder

    options = dict(options)
    dataset = open_dataset(options.pop("name"), **options)
    batches = _endless_batches(dataset, device)
    next(batches)
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        images += len(next(batches).labels)
        if device.type == "cuda":
            torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    return {
        "dataset": dataset.name,
        "image_shape": list(dataset.image_shape),
        "images": images,
        "images_per_second": round(images / elapsed, 1),
    } | ({"stages": stages(dataset, seconds)} if isinstance(dataset, ImageFolder) else {})


def stages(dataset: "ImageFolder", seconds: float) -> dict[str, float]:
    """Training images per second of one core, for each stage on the way from a file to the network, as if it were alone.

    Others are read in each round, evenly spaced; what the system has in its memory counts as it comes.
    """
    import torch

    from lsc.data.base import Request
    from lsc.data.decoding import NUM_DRAWS, decode, random_part, view

    size, images = dataset.options.image_size, dataset.size("train")
    count = min(BATCH_SIZE, images)
    draws = Request("train", torch.arange(count), positions=torch.arange(count)).draws(NUM_DRAWS).tolist()
    parts = [random_part(of_one, dataset.options.min_area) for of_one in draws]
    spent = dict.fromkeys(("read", "decode", "crop and resize", "normalise"), 0.0)
    rounds, threads = 0, torch.get_num_threads()
    torch.set_num_threads(1)
    while not rounds or sum(spent.values()) < seconds:
        views = []
        for place, part in enumerate(parts):
            index, began = (place * images // count + rounds) % images, time.perf_counter()
            content = dataset.content("train", index)
            read = time.perf_counter()
            image = decode(content, str(dataset.path("train", index)), "replace it", part, size)
            decoded = time.perf_counter()
            views.append(view(image, part, size))
            spent["crop and resize"] += time.perf_counter() - decoded
            spent["decode"] += decoded - read
            spent["read"] += read - began
        began = time.perf_counter()
        dataset.normalise(torch.stack(views))
        spent["normalise"] += time.perf_counter() - began
        rounds += 1
    torch.set_num_threads(threads)
    return {stage: round(rounds * count / used, 1) for stage, used in spent.items()}


def _endless_batches(dataset: "Dataset", device: "Any") -> "Iterator[Any]":
    """Every image many times over in each epoch, for a small tree's epochs would end as soon as their loaders are warm."""
    import torch

    size = dataset.size("train")
    images = torch.arange(size).repeat(max(1, LONG_EPOCH // size))
    epoch = 0
    while True:
        yield from dataset.train_batches(BATCH_SIZE, seed=0, epoch=epoch, device=device, subset=images)
        epoch += 1


def _prepare(options: dict[str, Any]) -> None:
    """Write the small trees that a case reads.

    The JPEG files have 448 by 432 to 448 pixels and about 75 kB; those of ImageNet are 110 kB on average, so they take
    somewhat longer to decode.
    """
    from lsc.data import trees
    from lsc.data.cinic10 import fetch_cinic10

    inner = options.get("of", options)
    root = Path(inner.get("root", "."))
    if inner["name"] == "cinic10" and not root.exists():
        trees.write_cinic10_tree(root / "tree", per_class=30)
        fetch_cinic10(root, archive=root / "tree")
    if inner["name"] == "imagenet" and not root.exists():
        prepared_imagenet(root, per_class=128)


def prepared_imagenet(root: Path, per_class: int) -> dict[str, Any]:
    """Options of a small set in the layout of ImageNet-1K, whose files it writes; loaded within this process."""
    from lsc.data import trees

    trees.write_imagenet_tree(
        root, num_classes=8, train_per_class=per_class, val_per_class=1, image_size=448, quality=100
    )
    return {"name": "imagenet", "root": str(root), "workers": 0}
