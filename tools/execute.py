"""Run chapters as tests: the one execution that proves them and feeds their pages.

`python -m tools.execute` runs every chapter; with names, those. `--tests` runs the unit and
structure tests in the same pytest, as `make test` does. Further options go to pytest.
"""

import argparse
import os
import subprocess
import sys

from tools.chapters import Chapter, ChapterError, chapters_by_name
from tools.notebooks import generate
from tools.places import ROOT

CELL_SECONDS = 180  # the most that one cell may take; a whole chapter aims at 90 s

NBVAL = [
    "--nbval-lax",  # the notebooks hold no outputs to compare with: cells assert what they claim
    "--nbval-current-env",
    f"--nbval-cell-timeout={CELL_SECONDS}",
    "-n",
    "2",
    "--dist",
    "loadfile",  # a chapter's cells share a kernel, so they stay in one worker
]


def find_data() -> None:
    """Fetch what chapters load, once and before any runs, and say what there is.

    Chapters run without it too (and count the claims they cannot check as skipped), so a failure
    here is only reported.
    """
    code = "from vae import datasets; print(datasets.mnist().source)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        print(f"Data: MNIST, {done.stdout.strip()}", flush=True)
    else:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"Data: no MNIST ({reason})", flush=True)


def execute(chapters: list[Chapter], tests: bool = False, options: list[str] | None = None) -> int:
    """Run these chapters, and with `tests` all tests, under pytest; its exit status."""
    find_data()
    notebooks = [str(path.relative_to(ROOT)) for _, path in generate(chapters)]
    print(f"Executing {len(notebooks)} chapters, two at a time", flush=True)
    command = [sys.executable, "-m", "pytest", *NBVAL, *(options or [])]
    if not sys.stdout.isatty():
        command.append("--color=no")
    command += [*(["tests"] if tests else []), *notebooks]
    return subprocess.run(command, cwd=ROOT, env=os.environ, check=False).returncode


def main() -> int:
    """Run the chapters that are named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="such as foundations/elbo; all if none")
    parser.add_argument("--tests", action="store_true", help="run tests/ as well")
    arguments, options = parser.parse_known_args()
    try:
        return execute(chapters_by_name(arguments.chapters), arguments.tests, options)
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
