"""What every long run shares: where it keeps its state, its results, and how it says what it is."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax

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
