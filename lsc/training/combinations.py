"""Which blocks of a run's settings do not go together. Each mistake is a ValueError that names the keys and the remedy."""

from typing import Any

from lsc.data.options import Augmentation
from lsc.objectives import CenterObjective, LayerObjective
from lsc.objectives.euclidean import Euclidean
from lsc.objectives.orbit_softmax import OrbitSoftmax

# A lsc.training.run.Run, which knows this module.
Run = Any

CHANGES_NO_RESULT = True


def refuse_what_does_not_fit(run: Run) -> None:
    """Raise a ValueError on the first two settings of a run that exclude each other."""
    for check in (_training, _readout, _centers, _self_supervised, _lifelong, _teacher):
        check(run)


def _training(run: Run) -> None:
    options, objective = run.training, run.objective_class
    if options.batch_size % options.accumulate:
        raise ValueError(
            f"training.batch_size ({options.batch_size}) must be a multiple of training.accumulate ({options.accumulate})"
        )
    if objective.trains_itself and (options.accumulate > 1 or options.optimizer != "adamw" or options.ema is not None):
        raise ValueError(
            f"objective.name {run.objective.name} trains the rows of one sample by AdamW: leave training.accumulate at 1, "
            "training.optimizer at adamw and training.ema out, or take cross_entropy"
        )
    if options.transfer is not None and not options.neighbours:
        raise ValueError("training.transfer is measured by nearest neighbours: set training.neighbours, e.g. to 5")


def _readout(run: Run) -> None:
    objective = run.objective_class
    if run.readout is not None and not issubclass(objective, CenterObjective):
        linear = issubclass(objective, LayerObjective) and objective.linear
        if not linear or run.readout.sums is not None:
            remedy = "add sums: null, which refits it once it has trained, or " if linear else ""
            raise ValueError(
                f"readout: the targets of {run.objective.name} move as its layer is trained, so the read-out has no closed "
                f"form: {remedy}leave the block out, or take an objective with centers"
            )
        if run.lifelong is not None:
            raise ValueError(
                f"readout: {run.objective.name} would be refitted to the images of the last group of classes: leave the "
                "block or lifelong out"
            )
    duration = run.training.duration
    if not duration.amount and (run.readout is None or not run.readout.refit or run.lifelong is not None):
        raise ValueError(
            f"training.duration {duration} trains nothing but a read-out in closed form: add the block readout with "
            "refit, without lifelong, or train for some steps"
        )
    if not duration.amount and run.training.ema is not None:
        raise ValueError(
            f"training.ema averages the weights of steps, and training.duration {duration} has none: leave it out"
        )


def _centers(run: Run) -> None:
    centers, objective = run.centers, run.objective_class
    if centers.system == "teacher" and run.teacher is None:
        raise ValueError("centers.system 'teacher' needs a teacher block that names the run")
    if centers.system == "codes" and issubclass(objective, OrbitSoftmax):
        raise ValueError(
            f"objective.name {run.objective.name}: cannot sum over so rich a system as codes: take center_softmax or cosine"
        )
    if centers.fit is None:
        return
    if not issubclass(objective, CenterObjective):
        raise ValueError(f"centers.fit: {run.objective.name} has no centers to move: leave the block out")
    if issubclass(objective, Euclidean):
        raise ValueError(
            "centers.fit: after a whitening small steps move embeddings far, which euclidean counts: take center_softmax "
            "or cosine, which see directions alone"
        )
    if run.teacher is not None:
        raise ValueError(
            "centers.fit moves the whole latent space, where a teacher's outputs have their places: leave it out, or the "
            "block teacher"
        )


def _self_supervised(run: Run) -> None:
    if run.self_supervised is None:
        return
    if run.lifelong is not None or run.objective_class.trains_itself:
        raise ValueError(
            "self_supervised: a start before all classes; leave lifelong out, and take another objective than partial_fc"
        )
    if getattr(run.data, "endless", False):
        raise ValueError(
            "self_supervised: two views of an endless set are two images of a class; leave data.endless out"
        )
    if getattr(run.data, "augment", None) == Augmentation():
        raise ValueError(
            "self_supervised: without data.augment both views of an image are equal; set crop_padding, say"
        )


def _lifelong(run: Run) -> None:
    if run.lifelong is None:
        return
    if run.lifelong.sums:
        if not issubclass(run.objective_class, CenterObjective):
            raise ValueError(f"lifelong.sums: {run.objective.name} has no read-out in closed form: take centers")
        if run.lifelong.replay != 0 or run.training.ema is not None:
            raise ValueError(
                "lifelong.sums remembers sums, not images or averages: leave replay at 0 and training.ema out"
            )
    if run.centers.assignment == "similarity":
        raise ValueError(
            "centers.assignment similarity looks at all classes, most of which are still to come in lifelong learning: "
            "use shuffled"
        )
    if run.start is not None:
        raise ValueError("lifelong begins with its first group of classes alone: leave start out (lsc train --from)")


def _teacher(run: Run) -> None:
    if run.teacher is None:
        return
    objective = run.objective_class
    if run.teacher.targets == "logits" and not objective.soft_logits:
        raise ValueError("teacher.targets 'logits' needs the objective cross_entropy")
    if run.teacher.labels_weight == 0:
        trained = run.teacher.targets == "logits" or not objective.learns
        if run.teacher.targets == "class_means" or not trained:
            raise ValueError(
                f"teacher.labels_weight 0 leaves the objective {run.objective.name!r} with targets "
                f"{run.teacher.targets!r} nothing to learn; give the labels a weight, or take cosine and embeddings"
            )
