# Needs: the merged configuration. Makes: the study, checked, and the one place that builds paths, resources and commands.
#
# Parsing writes nothing but the user's cache, of what sources hold and of plans. When a run begins, and the folder is locked, the
# study is written beside its results. From then on jobs read this file: what is edited while they run is for the next run.

import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import yaml

from lsc.errors import UserError
from lsc.settings import read_yaml
from lsc.source import digest_of
from lsc.study.code import reminder, runs_folder
from lsc.study.pages.contents import in_words, read_contents
from lsc.study.plan import plan_from
from lsc.training.records import RUN_FILES, write_text

try:
    PLAN = plan_from(config, "configuration")
except UserError as error:
    raise WorkflowError(str(error)) from None

FROM_REFERENCE = PLAN.records == "reference"
RESULTS = f"results/{PLAN.study}" + ("-reference" if FROM_REFERENCE else "")
STUDY_FILE = f"{RESULTS}/study.yaml"
RUNS = str(runs_folder(PLAN))
COST = f"{Path(RUNS).parent}/cost"
WORK = f"work/{PLAN.study}"

# A job's process parses the workflow anew, maybe days later.
if not workflow.is_main_process and Path(STUDY_FILE).exists():
    PLAN = plan_from(read_yaml(Path(STUDY_FILE)), STUDY_FILE)

CHAPTERS = {
    chapter.name: chapter
    for chapter in read_contents(
        Path(workflow.source_path("../chapters.yaml")), PLAN.chapters
    )
}


def run_of(wildcards):
    return PLAN.run_of(
        f"{wildcards.experiment}/{wildcards.variant}/seed_{wildcards.seed}"
    )


def resource(name):
    """A resource of the run at hand, for the ``resources`` and ``threads`` of its job."""
    return lambda wildcards: getattr(run_of(wildcards).resources, name)


def data_files(wildcards):
    return run_of(wildcards).files


def runtime(wildcards, attempt):
    return run_of(wildcards).resources.runtime_of(attempt)


def slurm_extra(wildcards, attempt):
    """Options that Snakemake has no resource for: the warning before the time limit, GPUs in equal numbers per node."""
    wanted = run_of(wildcards).resources
    options = []
    if wanted.warning:
        options.append(f"--signal=USR1@{wanted.warning_of(attempt)}")
    if wanted.nodes > 1:
        options.append(f"--gpus-per-node={wanted.gpu // wanted.nodes}")
    return " ".join(options)


def on_several_nodes(value):
    """A resource that only a run on several nodes has: ``value`` of its number of nodes."""

    def of(wildcards):
        nodes = run_of(wildcards).resources.nodes
        return value(nodes) if nodes > 1 else None

    return of


def teacher_folder(wildcards):
    teacher = run_of(wildcards).teacher
    return f"{RUNS}/{teacher}" if teacher else None


def teacher_files(wildcards):
    folder = teacher_folder(wildcards)
    return [f"{folder}/{name}" for name in RUN_FILES] if folder else []


def checkpoint_folder(run):
    """Where a run's checkpoints lie: in a folder of its settings, and of its teacher's."""
    digests = [run.digest]
    if run.teacher:
        digests.append(PLAN.run_of(run.teacher).digest)
    return f"{WORK}/checkpoints/{run.name}/{'-'.join(digests)}"


def training_words(wildcards, output, resources):
    """The options of the command that trains a run.

    Because it takes ``output`` and ``resources``, Snakemake does not compare them with those of the last training: that is
    the part of the digest alone.
    """
    run, teacher = run_of(wildcards), teacher_folder(wildcards)
    options = {
        "--study": STUDY_FILE,
        "--run": run.name,
        "--digest": run.digest,
        "--out": Path(output[0]).parent,
        "--checkpoints": checkpoint_folder(run),
        "--device": "auto" if resources.gpu else "cpu",
        "--processes": resources.gpu,
        "--nodes": resources.nodes,
        "--threads": resources.cpus_per_task,
    } | ({"--teacher": teacher} if teacher else {})
    return ["--by-code", *(str(word) for option in options.items() for word in option)]


def all_cores(wildcards):
    """On this machine all cores; on a cluster those that the job asks for."""
    wanted = PLAN.cost_resources.cpus_per_task
    return (workflow.cores or wanted) if workflow.local_exec else wanted


def growing(minutes):
    """A time limit for any job but a training: as many minutes more with each attempt."""
    return lambda wildcards, attempt: minutes * attempt


COST_RESOURCES = {
    name: getattr(PLAN.cost_resources, name)
    for name in ("gpu", "cpus_per_task", "mem_mb")
} | {"runtime": lambda wildcards, attempt: PLAN.cost_resources.runtime_of(attempt)}
COST_DEVICE = "cuda" if PLAN.cost_resources.gpu else "cpu"


def cost_records(chapter):
    """The measurements that a chapter reads; that of the workflow itself if somebody made it (lsc cost workflow)."""
    if not CHAPTERS[chapter].cost:
        return []
    by_hand = ["workflow"] if Path(f"{COST}/workflow.jsonl").exists() else []
    return ["step", "decode", "hnsw", *by_hand]


def benchmarks(chapter):
    """The steps of large layers that are kept for reference, which stand beside those that a study predicts."""
    kept = Path("results/reference/benchmarks/step.jsonl")
    return [str(kept)] if CHAPTERS[chapter].cost and kept.exists() else []


def records_of(chapter):
    """The files that a chapter reads: of every run of its experiments, and of measurements."""
    return [f"{COST}/{name}.jsonl" for name in cost_records(chapter)] + [
        f"{RUNS}/{run}/{name}"
        for experiment in CHAPTERS[chapter].experiments
        for run in PLAN.run_names(experiment)
        for name in CHAPTERS[chapter].records
    ]


def of_all_records(*files):
    """``files`` as the input of a target, refused where reference records are missing: Snakemake would take old files for new."""

    def of(wildcards):
        needed = [file for chapter in CHAPTERS for file in records_of(chapter)]
        missing = [file for file in needed if not Path(file).exists()]
        if missing:
            raise WorkflowError(
                f"records=reference: of {len(needed)} files {len(missing)} are missing, such as {missing[0]}; run the study without "
                f"it first, and keep its records with: make reference STUDY={PLAN.study}"
            )
        return list(files)

    return of if FROM_REFERENCE else list(files)


def code_of(chapter):
    """The files whose words, drawings, labels and colours a chapter shows, and whose numbers where no record holds them."""
    names = ["plots", "shown", "tables", "selection", "variants", "looks", "wording"]
    names += [f"pages/{name}" for name in ("blocks", "markdown", "html")]
    own = {
        "claims": [
            "claims",
            "judging",
            "chapters/closed_form",
            "chapters/million_classes",
        ],
        "centers": ["chapters/centers", "analysis", "bounds"],
        "cost": [],
        "high_dim": ["chapters/high_dim", "chapters/dimension", "chapters/closed_form"],
        "million_classes": ["chapters/million_classes", "chapters/closed_form"],
    }.get(chapter, [f"chapters/{chapter}"])
    files = [f"lsc/study/{name}.py" for name in [*names, *own]] + [
        "lsc/study/pages/style.css"
    ]
    if chapter == "cost":
        shown = ["measured", "report", "figures", "interval", "rivals"]
        named = ["step", "decode", "loss"]
        files += [f"lsc/cost/{name}.py" for name in [*shown, *named]]
    # An objective says how figures call and colour it; the chapter without runs computes what it shows.
    rooms = ["objectives"] + (["systems", "centers"] if chapter == "centers" else [])
    files += [
        str(path) for room in rooms for path in sorted(Path("lsc", room).glob("*.py"))
    ]
    return files


def category_of(chapter):
    """The part of the report that a chapter's figures and tables are in; parts are shown by the alphabet."""
    return chapter.heading if chapter.number else f"0. {chapter.title}"


# A chapter is executed by the kernel of this environment, whatever kernels of the same name its user has installed elsewhere.
os.environ.pop("JUPYTER_PATH", None)
os.environ.update(JUPYTER_PREFER_ENV_PATH="1")

# SLURM's warning before the time limit reaches every process of a job. It is meant for the training: Snakemake, and the
# shell that it starts, must live until that has written its checkpoint.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)

if workflow.is_main_process and not FROM_REFERENCE:
    _files = [os.path.relpath(path) for path in workflow.configfiles]
    _reminder = reminder(
        PLAN, Path(RUNS), shlex.quote(_files[0] if len(_files) == 1 else STUDY_FILE)
    )
    if _reminder:
        print(_reminder, file=sys.stderr)


def missing_for(jobs):
    """What this machine lacks for the jobs to come, in one line; None if they can begin."""
    if workflow.executor_plugin.name == "slurm" and not shutil.which("sbatch"):
        return (
            "sbatch is not to be found: call snakemake where jobs can be submitted to SLURM, or without --profile slurm "
            "to run them on this machine"
        )
    for job in jobs:
        if job.rule.name == "imagenet_index" and not Path(job.params.root).is_dir():
            return (
                f"{job.params.root}: there is no such folder: link ImageNet's there (docs/cluster.md), or name the chapters "
                "that do without: " + " ".join(sorted(CHAPTERS))
            )
    return None


# In the main process of a real run alone: neither in a dry run nor in a job.
onstart:
    if _missing := missing_for(workflow.dag.needrun_jobs()):
        raise WorkflowError(_missing)
    try:
        write_text(Path(STUDY_FILE), yaml.safe_dump(dict(config), sort_keys=False))
    except UserError as error:
        raise WorkflowError(str(error)) from None


_began = time.monotonic()


onsuccess:
    if Path(f"{RESULTS}/index.html").exists():
        minutes, seconds = divmod(round(time.monotonic() - _began), 60)
        print(f"Finished in {minutes} min {seconds} s. Open {RESULTS}/index.html")
