"""Several processes for one run: torchrun on one machine, or one torchrun on each node of a SLURM job.

The processes run the very command that was typed. Those of several nodes find each other by torch's c10d rendezvous on
the first node.
"""

import logging
import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from lsc.errors import UserError

# The command in a process of its own. Nothing in the current folder can stand in for a module (-P): no queue.py, no lsc/.
LSC = (sys.executable, "-P", "-m", "lsc")


def is_worker() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this process speaks for all of a run: the only one, or the first of several."""
    return os.environ.get("RANK", "0") == "0" or not is_worker()


def lost_another(error: Exception) -> bool:
    """Whether a process of several fails since another one has ended, whose own words say why."""
    lost = ("Connection closed by", "Connection reset by peer", "ncclRemoteError")  # gloo, sockets, NCCL
    return is_worker() and any(words in str(error) for words in lost)


def launch(words: list[str], *, processes: int, nodes: int = 1, threads: int = 1, rendezvous: str | None = None) -> int:
    """Run ``lsc`` with ``words`` in ``processes`` processes, shared evenly by ``nodes`` nodes, and wait for them.

    Args:
        words: the command line without its first word; the workers get the same one.
        processes: over all nodes.
        threads: CPU threads of each node, for all its processes together.
        rendezvous: ``host:port`` of the first node, where this call is one of several, one per node. Without it several
            nodes are those of the SLURM job that this process runs in.

    Returns:
        the exit code: 0, or that of the process that failed first.

    Raises:
        UserError: the processes cannot be shared evenly, or there is no SLURM job to take the nodes from.
    """
    if processes < 1 or processes % nodes:
        raise UserError(f"--processes {processes}: must be a multiple of --nodes ({nodes}), one for each at least")
    per_node = processes // nodes
    # A warning before the time limit reaches every process of a job; it is meant for the workers alone.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if nodes > 1 and rendezvous is None:
        command = srun_command(words, nodes=nodes, per_node=per_node, threads=threads)
        sys.stdout.flush()
        os.execvp(command[0], command)
    os.environ["OMP_NUM_THREADS"] = str(max(1, threads // per_node))
    return _torchrun(words, nodes=nodes, per_node=per_node, rendezvous=rendezvous or "127.0.0.1:0")


def srun_command(words: list[str], *, nodes: int, per_node: int, threads: int) -> list[str]:
    """The command that runs ``lsc`` once on every node of this SLURM job, told where to meet."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job.isdigit() or shutil.which("srun") is None:
        raise UserError(
            f"--nodes {nodes}: there is no SLURM job here; give --rendezvous HOST:PORT and start every node"
        )
    # Jobs that share a node meet at different ports, those of one job at the same.
    port = 20000 + int(job) % 10000
    return [
        *("srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", f"--cpus-per-task={threads}"),
        *(f"--gpus-per-node={per_node}", "--kill-on-bad-exit=1"),
        *(*LSC, *words, "--rendezvous", f"{socket.gethostname()}:{port}"),
    ]


def _torchrun(words: list[str], *, nodes: int, per_node: int, rendezvous: str) -> int:
    """What the command ``torchrun`` does, but with the workers' exit code and without its long report of a failure."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from lsc.training.signals import REQUEUE_EXIT_CODE

    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=per_node,
        run_id="lsc",
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous,
        # Nobody else needs to find this node, whose name may be unknown to itself.
        local_addr="127.0.0.1" if nodes == 1 else None,
        max_restarts=0,
        signals_to_handle="SIGHUP,SIGQUIT",
    )
    # Its warnings and reports tell of every process; what failed says so itself, or it is said below.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # A request to stop goes on to the workers, which end by themselves after a checkpoint: torchrun would kill them after half a
    # minute, however long the writing takes.
    asked: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        asked.append(-number)
        workers = children()
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, number)
        if not workers:
            raise SignalException(signal.Signals(number).name, signal.Signals(number))

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        elastic_launch(config, LSC[0])("-u", *LSC[1:], *words)
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        if first.exitcode > 0:
            return first.exitcode
        if first.exitcode in asked:  # before it knew of checkpoints
            return REQUEUE_EXIT_CODE
        name = signal.Signals(-first.exitcode).name
        why = ", as the system does where memory runs out" if name == "SIGKILL" else ""
        print(f"lsc: error: process {rank} was killed by {name}{why}", file=sys.stderr)
        return 1
    except SignalException:
        return REQUEUE_EXIT_CODE
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def children() -> list[int]:
    """The processes that this one started, where the system lists them in /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            # Its number, its name in brackets, its state, its parent.
            if int(status.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(status.parent.name))
    return found
