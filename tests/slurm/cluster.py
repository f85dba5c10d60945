"""A SLURM of our own on this machine: munged, slurmctld and two slurmd on loopback, all of it in one temporary folder.

Each node has stand-in GPUs (empty files named in gres.conf), more slots than there are cores, and no accounting.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
NODES = ("n1", "n2")

SLURM_CONF = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
# What needs cgroups, root or a database on a real cluster is left out here.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
# Reacts within a second or two instead of half a minute.
SchedulerParameters=batch_sched_delay=1,sched_interval=2,sched_min_interval=0
SchedulerType=sched/backfill
KillWait=20
MinJobAge=900
ReturnToService=2
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=120 State=UP
"""


def missing() -> list[str]:
    """The programs of SLURM and munge that this machine lacks."""
    return [name for name in NEEDED if shutil.which(name, path=SEARCH) is None]


class Cluster:
    """Two nodes of ``cpus`` slots and ``gpus`` stand-in GPUs each, up within the ``with`` block."""

    def __init__(self, cpus: int = 16, gpus: int = 8, memory_mb: int = 32000):
        # In /tmp and short, since a socket's path has at most 108 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self._cpus, self._gpus, self._memory_mb = cpus, gpus, memory_mb
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._configure()
            self._start("munged", "--foreground", "--force", *self._munge_files())
            self._wait(lambda: (self.folder / "munge.socket").exists(), "munged")
            self._start("slurmctld", "-D", "-f", str(self.conf))
            for node in NODES:
                self._start("slurmd", "-D", "-N", node, "-f", str(self.conf))
            self._wait(lambda: self.call("sinfo", "-h", "-o", "%t %D").split() == ["idle", "2"], "the nodes")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Everything that was started here, jobs and daemons, carries the folder in its environment or its command line.
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for daemon in self._daemons:
            daemon.wait()
        if value is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which SLURM's commands speak to this cluster."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return outside | {"SLURM_CONF": str(self.conf), "PATH": f"{self.folder}/bin:{SEARCH}"}

    def call(self, *words: str) -> str:
        """The output of one of SLURM's commands; empty if it failed."""
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60).stdout

    def jobs(self) -> dict[str, dict[str, str]]:
        """By id: what ``scontrol show job`` says of every job, the ended ones included."""
        lines = self.call("scontrol", "show", "job", "-o").splitlines()
        shown = [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in lines]
        return {job["JobId"]: job for job in shown if "JobId" in job}

    def _processes(self) -> Iterator[int]:
        mark = f"{self.folder}/".encode()
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (place / "environ").read_bytes() + (place / "cmdline").read_bytes():
                    yield int(place.name)

    def _configure(self) -> None:
        for name in ("bin", "state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        ports = free_ports(1 + len(NODES))
        # CPUs and memory are announced, not found: a small machine plays a larger one.
        nodes = [
            f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs={self._cpus} "
            f"RealMemory={self._memory_mb} Gres=gpu:standin:{self._gpus} State=UNKNOWN"
            for node, port in zip(NODES, ports[1:], strict=True)
        ]
        self.conf.write_text(
            SLURM_CONF.format(
                host=socket.gethostname(),
                controller_port=ports[0],
                user=getpass.getuser(),
                folder=self.folder,
                nodes="\n".join(nodes),
            )
        )
        devices = []
        for node in NODES:
            for number in range(self._gpus):
                (self.folder / f"{node}-gpu{number}").touch()
            devices.append(f"NodeName={node} Name=gpu Type=standin File={self.folder}/{node}-gpu[0-{self._gpus - 1}]")
        # Snakemake drops SLURM_CONF from a job's environment; real clusters keep the file where srun looks for it.
        srun = self.folder / "bin" / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.conf} exec {shutil.which("srun", path=SEARCH)} "$@"\n')
        srun.chmod(0o755)
        (self.folder / "gres.conf").write_text("\n".join(devices) + "\n")

    def _munge_files(self) -> list[str]:
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        return [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]

    def _start(self, name: str, *words: str) -> None:
        program = shutil.which(name, path=SEARCH)
        assert program is not None
        with open(self.folder / f"{name}.out", "ab") as out:
            self._daemons.append(
                subprocess.Popen(
                    [program, *words], env=self.environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
                )
            )

    def _wait(self, condition: object, what: str, seconds: float = 40) -> None:
        assert callable(condition)
        ends = time.monotonic() + seconds
        while not condition():
            for daemon in self._daemons:
                if daemon.poll() is not None:
                    raise RuntimeError(f"{daemon.args} ended: {self._last_words()}")
            if time.monotonic() > ends:
                raise RuntimeError(f"{what} did not come up within {seconds} s: {self._last_words()}")
            time.sleep(0.2)

    def _last_words(self) -> str:
        paths = [*self.folder.glob("*.out"), *self.folder.glob("*.log")]
        return "\n".join(f"{path.name}: {path.read_text()[-800:]}" for path in paths)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
