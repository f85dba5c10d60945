"""What a run is judged by, and what it leaves: scores while it trains, final scores, summary, a sample of embeddings."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from lsc.data import open_dataset
from lsc.data.base import Dataset
from lsc.encoders import parameter_count
from lsc.errors import UserError
from lsc.files import written_whole
from lsc.provenance import process_age, provenance
from lsc.training import records
from lsc.training.agreement import loading_together
from lsc.training.code import code_digest
from lsc.training.evaluation import center_cosines, embed, evaluate, neighbour_accuracy, novelty
from lsc.training.monitoring import peak_memory_mb, refuse_not_finite
from lsc.training.neighbours import neighbour_scores
from lsc.training.phases import Phase, class_groups
from lsc.training.progress import Progress
from lsc.training.run import Run
from lsc.training.task import Task


def scored_split(dataset: Dataset) -> str:
    """The split that a run is scored on as it goes: ``valid`` where the data set has one."""
    return next(split for split in ("valid", "test", "train") if split in dataset.splits)


def final_split(dataset: Dataset) -> str:
    """The split that a trained run is judged by: ``test`` where the data set has one."""
    return "test" if "test" in dataset.splits else scored_split(dataset)


def final_scores(
    task: Task,
    dataset: Dataset,
    judged: Dataset | None,
    run: Run,
    progress: Progress,
    fabric: Fabric,
    again: bool = False,
) -> dict[str, Any]:
    """Accuracy of the trained task on the final split and, on ``judged`` if there is one, of nearest neighbours.

    The last epoch's evaluation serves where it was of that split, unless the task has changed since (``again``).
    """
    split, last = final_split(dataset), progress.rows[-1]
    found: dict[str, Any] = last
    if again or split != scored_split(dataset):
        size = run.training.evaluation_batch_size
        found = dict(evaluate(task, dataset, split, fabric=fabric, batch_size=size))
    scores = {f"final_{key}": found[key] for key in ("top1", "top5") if key in found}
    if judged is not None:
        scores |= transfer_scores(task, judged, run, fabric)
        scores["neighbour_on"] = f"{judged.num_classes:,} classes of {judged.name}"
        own = "what the instances are of" if judged is not dataset else "the run's own set"
        scores["neighbour_set"] = own if run.training.transfer is None else "another set"
    return {"final_on": split, "final_images": dataset.size(split)} | scores


def transfer_scores(task: Task, judged: Dataset, run: Run, fabric: Fabric) -> dict[str, Any]:
    """Accuracy of nearest neighbours on a data set, by the protocol that the run names."""
    options = run.training
    if options.neighbour_protocol == "weighted":
        return neighbour_scores(
            task, judged, final_split(judged), k=options.neighbours, per_class=options.neighbour_images,
            device=fabric.device, batch_size=options.evaluation_batch_size,
        )  # fmt: skip
    counts = {"train": 10_000, final_split(judged): 2_000}
    samples = [embed(task, judged, name, count=count, device=fabric.device) for name, count in counts.items()]
    return {"neighbour_top1": neighbour_accuracy(samples[0], samples[-1], options.neighbours)}


def transfer_set(run: Run, dataset: Dataset) -> Dataset | None:
    """The set on which nearest neighbours are judged; None where the run does not want them.

    The run's ``training.transfer``, else for instances the set that they were made of, with its labels and its test
    images, else the run's own.

    Raises:
        UserError: its images are of another shape.
    """
    if not run.training.neighbours:
        return None
    options = run.training.transfer
    judged: Dataset = getattr(dataset, "underlying", dataset) if options is None else open_dataset(options)
    if judged.image_shape != dataset.image_shape:
        raise UserError(
            f"training.transfer: images of {judged.name} have shape {judged.image_shape}, those of the run "
            f"{dataset.image_shape}; make them alike"
        )
    if final_split(judged) == "train":
        raise UserError(
            f"training.neighbours: {judged.name} has training images alone, and each would be its own neighbour; give it a "
            "test split or name another set as training.transfer"
        )
    return judged


def measure(task: Task, dataset: Dataset, run: Run, phase: Phase, fabric: Fabric) -> dict[str, Any]:
    """Accuracies; on a fixed sample, cosines to the centers, or in lifelong learning how well new classes are noticed."""
    split = scored_split(dataset)
    result: dict[str, Any] = dict(
        evaluate(
            task,
            dataset,
            split,
            fabric=fabric,
            batch_size=run.training.evaluation_batch_size,
            subset=phase.test_subset(dataset.labels(split)),
            groups=class_groups(dataset.num_classes, run.lifelong, dataset.group_sizes) if run.lifelong else None,
        )
    )
    if run.training.embeddings:
        with loading_together(fabric):
            sample = embed(task, dataset, split, count=min(run.training.embeddings, 500), device=fabric.device)
        result |= novelty(task, sample, phase.num_classes) if run.lifelong else center_cosines(task, sample)
    return result


def save_embeddings(out: Path, task: Task, dataset: Dataset, run: Run, fabric: Fabric) -> None:
    """Write ``embeddings.npz``: a fixed sample of test embeddings, and the centers where they are few."""
    sample = embed(task, dataset, final_split(dataset), count=run.training.embeddings, device=fabric.device)
    arrays = {key: value.numpy() for key, value in vars(sample).items()}
    with torch.no_grad():
        arrays["predictions"] = task.objective.predict(sample.embeddings.to(fabric.device), 1)[:, 0].cpu().numpy()
    centers = task.centers
    if centers is not None and centers.num_classes <= 1000:
        arrays["centers"] = centers.vectors(torch.arange(centers.num_classes, device=fabric.device)).cpu().numpy()
    refuse_not_finite({"an embedding": float(np.abs(arrays["embeddings"]).max(initial=0))}, run.name)
    with written_whole(out / records.EMBEDDINGS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def summarise(
    run: Run, dataset: Dataset, task: Task, fabric: Fabric, progress: Progress, startup_seconds: float
) -> dict[str, Any]:
    """The content of ``summary.json`` but for the final scores.

    ``seconds`` are of training, over all starts; ``startup_seconds`` passed from the birth of the last process to its
    first step, and ``process_seconds`` until now, evaluations and checkpoints included.
    """
    left_out = sum(row.get("steps_left_out", 0) for row in progress.rows)
    name = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else "CPU"
    return {
        "run": run.name,
        "digest": run.digest,
        "code": code_digest(run),
        "seed": run.seed,
        "objective": run.objective.name,
        "scored_on": scored_split(dataset),
        "best_top1": progress.best,
        "best_step": progress.best_step,
        "steps": progress.step,
        "num_classes": dataset.num_classes,
        "dim": task.encoder.dim,
        "encoder_parameters": parameter_count(task.encoder),
        "objective_parameters": task.objective.trained_values,
        "peak_memory_mb": peak_memory_mb(fabric.device),
        "seconds": progress.seconds,
        "startup_seconds": startup_seconds,
        "process_seconds": process_age(),
        "starts": progress.starts,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": name,
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
        **provenance(),
        **({"steps_left_out": left_out} if left_out else {}),
    }
