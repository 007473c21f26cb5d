"""What every long run shares: where it keeps its state, its results, and how it says what it is."""

import argparse
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import jax

from experiments import ledger
from vae import checkpoints

HERE = Path(__file__).parent
RESULTS = HERE / "results"  # recorded, in the repository
STATE = HERE / "runs"  # checkpoints of runs under way, not in the repository
PACKAGES = ("jax", "flax", "optax", "numpy")


def result_path(name: str) -> Path:
    """Where the result NAME is recorded: `experiments/results/NAME.npz`."""
    return RESULTS / f"{name}.npz"


def read_result(name: str) -> tuple[dict, dict]:
    """A recorded result: (a dictionary of arrays, its provenance and other metadata)."""
    return checkpoints.read(result_path(name))


def provenance() -> dict:
    """The commit, versions, device and date that a recorded number belongs to."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }


def commit() -> str:
    """The commit this code stands at, with `+changes` where the code differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(HERE.parent), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return head + (
        "+changes" if git("status", "--porcelain", "--", "src", "experiments/*.py") else ""
    )


def machine() -> str:
    """The device that JAX runs on, in words."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()} CPU, {cores} core{'s' if cores != 1 else ''}"


def command(module: str, *words: str) -> str:
    """The command that redoes a run, as one would type it."""
    return " ".join(["python", "-m", f"experiments.{module}", *words])


def say(text: str) -> None:
    """A line of progress, at once."""
    print(text, flush=True)
    sys.stdout.flush()


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Some long runs, as the command line sees them: what they are, and how one is recorded.

    `name` and `about` are the name and the docstring of the experiment's module, `cost` what all
    runs take in words, `names` those of its runs. `record(name)` runs one of them in full, resumed
    where it was stopped; `quick()` shows in a minute that the code works; `rows()` are the rows of
    the ledger once every run is recorded. A run is recorded when the result `name-run` exists,
    unless `recorded(run)` says otherwise.
    """

    name: str
    about: str
    cost: str
    names: Iterable[str]
    record: Callable[[str], None]
    quick: Callable[[], None]
    rows: Callable[[], list[dict]]
    recorded: Callable[[str], bool] | None = None

    def is_recorded(self, run: str) -> bool:
        """Whether there is nothing left to do for a run."""
        if self.recorded is not None:
            return self.recorded(run)
        return result_path(f"{self.name}-{run}").exists()

    def missing(self) -> list[str]:
        """The runs that are not recorded."""
        return [name for name in self.names if not self.is_recorded(name)]

    def main(self) -> None:
        """Run what the command line asks for."""
        parser = argparse.ArgumentParser(description=self.about.splitlines()[0])
        parser.add_argument("--full", action="store_true", help=f"the recorded runs: {self.cost}")
        parser.add_argument("--only", metavar="NAME", help="one of the runs, with --full")
        parser.add_argument("--list", action="store_true", help="the runs, and which are recorded")
        args = parser.parse_args()
        if args.only and args.only not in self.names:
            parser.error(f"no run {args.only!r}; there are: {', '.join(self.names)}")
        if args.only and not args.full:
            parser.error("--only NAME needs --full")
        missing = self.missing()
        if args.list:
            for name in self.names:
                say(name + ("" if name in missing else ": recorded"))
        elif args.full:
            for name in [args.only] if args.only else self.names:
                if name in missing:
                    self.record(name)
                else:
                    say(f"{name}: recorded")
            if not self.missing():
                ledger.add(self.rows())
                say(f"rows added to {ledger.PATH.name}")
        else:
            self.quick()
