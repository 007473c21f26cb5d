"""Run the notebooks as Google Colab would: its versions, without this package, one file alone.

`python -m tools.colab [CHAPTER...]` makes `.colab/` with the versions that Colab preinstalls
(tools/colab-constraints.txt), puts each notebook alone in an empty folder, points its repository
address at this clone, and runs it from its set-up cell to its end. The unit tests run there too.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools import repository
from tools.chapters import Chapter, ChapterError, chapters_by_name, notebook_chapters
from tools.notebooks import generate
from tools.places import REPORT, ROOT

CONSTRAINTS = ROOT / "tools" / "colab-constraints.txt"
FOLDER = ROOT / ".colab"
PYTHON = FOLDER / "bin" / "python"
STAMP = FOLDER / ".installed"
TESTERS = ["pytest", "hypothesis"]
ORACLE = "numpyro"  # where it resolves with Colab's JAX; tests that need it skip otherwise
INSTALLED = ("src", "experiments", "pyproject.toml")  # what the set-up cell installs, committed

_RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.get("outputs", []):
        if output.output_type == "stream" and output.name == "stderr":
            print("stderr:", output.text.strip())
"""


def python_for_colab() -> str:
    """The Python closest to Colab's 3.13 that this machine has."""
    homes = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in ("3.13", "3.12", "3.11"):
        candidates = [shutil.which(f"python{version}")]
        candidates += [str(path) for path in sorted(homes.glob(f"{version}.*/bin/python"))]
        for candidate in filter(None, candidates):
            works = subprocess.run([candidate, "-c", ""], capture_output=True, check=False)
            if works.returncode == 0:
                return candidate
    return sys.executable


def install(*arguments: str, check: bool = True) -> bool:
    """Install into `.colab/` without changing what Colab has; whether it worked."""
    uv = shutil.which("uv")
    if uv and subprocess.run([uv, "--version"], capture_output=True, check=False).returncode:
        uv = None
    pip = (
        [uv, "pip", "install", "--python", str(PYTHON)] if uv else [PYTHON, "-m", "pip", "install"]
    )
    command = [*pip, "--quiet", "--constraint", str(CONSTRAINTS), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=not check, check=False)
    if check and done.returncode:
        raise SystemExit(f"Could not install {' '.join(arguments)} into {FOLDER.name}/.")
    return done.returncode == 0


def make_environment() -> None:
    """Make `.colab/` unless it stands already, made from the same list."""
    wanted = hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()
    if STAMP.exists() and STAMP.read_text(encoding="utf-8") == wanted:
        return
    python = python_for_colab()
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True)
    print(f"Making {FOLDER.name}/ with Colab's versions on {version.stdout.strip()}", flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(FOLDER)], check=True)
    install("-r", str(CONSTRAINTS))
    install(*TESTERS)
    if not install(ORACLE, check=False):
        print(f"{ORACLE} does not go with Colab's JAX: its tests will be skipped here", flush=True)
    STAMP.write_text(wanted, encoding="utf-8")


def changed_versions() -> list[str]:
    """Packages of the list that no longer have the version Colab has."""
    code = (
        "import sys, json\n"
        "from importlib.metadata import version\n"
        "print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
    )
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    wanted = dict(line.split("==") for line in lines if "==" in line)
    done = subprocess.run([PYTHON, "-c", code, *wanted], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return [f"{n} is {found[n]}, not {v}" for n, v in wanted.items() if found[n] != v]


def run_notebook(chapter: Chapter, path: Path) -> bool:
    """Run one notebook alone in an empty folder, without the package; whether it passed."""
    uninstall = [PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", "vae"]
    subprocess.run(uninstall, check=True, capture_output=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {
        "BOOK_REPOSITORY": ROOT.as_uri(),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JAX_PLATFORMS": "cpu",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else old ipykernel warns on stderr
    }
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(path, folder)
        done = subprocess.run(
            [PYTHON, "-c", _RUN, Path(copy).name],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    seconds = time.monotonic() - start
    changed = changed_versions()
    passed = done.returncode == 0 and not changed
    print(f"{chapter.name}: {'passed' if passed else 'FAILED'} in {seconds:.1f} s", flush=True)
    if done.stdout.strip():
        print(done.stdout.rstrip(), flush=True)
    for line in changed:
        print(f"  the set-up changed what Colab has: {line}", flush=True)
    return passed


def run_unit_tests() -> bool:
    """Run tests/unit under Colab's versions; whether they passed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit"]
    print("Unit tests under Colab's versions", flush=True)
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def shortest() -> str:
    """The name of the chapter that took the fewest seconds when it was last executed."""
    known = {chapter.name for chapter in notebook_chapters()}
    rows = json.loads(REPORT.read_text(encoding="utf-8")) if REPORT.exists() else {}
    seconds = {name: facts["seconds"] for name, facts in rows.items() if name in known}
    if not seconds:
        raise SystemExit("No chapter has been executed yet: run `make test` first.")
    return min(seconds, key=seconds.get)


def main() -> int:
    """Run the chapters that are named on the command line, or all, and the unit tests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="such as foundations/elbo; all if none")
    parser.add_argument("--shortest", action="store_true", help="only the quickest chapter")
    parser.add_argument("--no-tests", action="store_true", help="without the unit tests")
    arguments = parser.parse_args()
    if repository.commit() is None:
        print("The set-up cell installs a commit, and this is no git clone.", file=sys.stderr)
        return 1
    missing = [p for p in repository.uncommitted() if p.split("/")[0] in INSTALLED]
    if missing:
        print(
            "The notebooks install the commit, which lacks your changes to "
            f"{', '.join(missing)}. Commit them first.",
            file=sys.stderr,
        )
        return 1
    try:
        names = [shortest()] if arguments.shortest else arguments.chapters
        notebooks = generate(chapters_by_name(names))
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1
    make_environment()
    passed = [run_notebook(chapter, path) for chapter, path in notebooks]
    if not arguments.no_tests and (ROOT / "tests" / "unit").is_dir():
        passed.append(run_unit_tests())
    return not all(passed)


if __name__ == "__main__":
    sys.exit(main())
