"""Run Snakemake and tell in a few lines how far it is: python -m lsc.study.brief snakemake --cores all.

On a terminal the number of finished jobs stands in one line that changes; elsewhere a line is written for each chapter and
for every tenth training. Errors, and whatever else is not known to be routine, are passed on as they are.
"""

import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator

CHANGES_NO_RESULT = True

_ROUTINE = re.compile(
    r"""\s*$|Select\ jobs|Execute\ \d+\ jobs|\[\w{3}\ \w{3}\s+\d+|Assuming\ |Building\ DAG|Using\ shell|Provided\ |Rules\ claiming
    |Conda\ environments|Job\ stats|job\s+count|-+\s+-+|\w+\s+\d+$|Complete\ log|Elapsed\ time|Config\ file\ .*extended
    |Using\ (workflow|profile)""",
    re.VERBOSE,
)
_FINISHED = re.compile(r"Finished jobid: \d+ \(Rule: (\w+)\)")
_STEPS = re.compile(r"(\d+) of (\d+) steps")
# Jobs of which there are many, or that are no matter of the user's.
_MANY = {"train": 10}
_UNTOLD = {"all", "report_pages"}


def told(lines: Iterable[str], terminal: bool) -> Iterator[str]:
    """What is written for the lines of Snakemake, each with its end."""
    rule, status = "", ""
    for line in lines:
        if found := _FINISHED.match(line):
            rule = found[1]
        elif (found := _STEPS.match(line)) is not None:
            done, total = int(found[1]), int(found[2])
            if terminal:
                status = f"\r\x1b[K{done} of {total} jobs done: {rule}"
                yield status
            elif rule not in _UNTOLD and done % _MANY.get(rule, 1) == 0:
                yield f"{done} of {total} jobs done: {rule}\n"
        elif not _ROUTINE.match(line):
            yield "\n" + line if status else line
            status = ""


def main(command: list[str]) -> int:
    """Run a command of Snakemake; its exit code."""
    # Ctrl-C reaches Snakemake as well, which then ends its jobs: we stay until it has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet = ["--quiet", "rules", "host", "reason"]
    restore = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    with subprocess.Popen(
        [*command, *quiet], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=restore
    ) as process:
        assert process.stdout is not None
        for text in told(process.stdout, sys.stdout.isatty()):
            print(text, end="", flush=True)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
