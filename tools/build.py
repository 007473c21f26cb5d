"""`make book`: execute the chapters that changed, then build the pages from what was executed.

`--no-execute` fails instead of executing; `--cold` builds the pages even if nothing changed. They
are always built from nothing: a warm build would hide the warnings of unchanged pages.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from nbformat import NotebookNode

from tools import executions, repository
from tools.chapters import Chapter, ChapterError
from tools.execute import execute
from tools.notebooks import Generator, notebook_path, write
from tools.places import BOOK, BUILD, CONFIG, CONTENTS, EQUATIONS, LOCK, PAGES, ROOT

STAMP = PAGES / ".built-from"  # the digest of everything that the pages were built from
LOG = BUILD / "pages.log"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TELLING = re.compile(r"\b(WARNING|ERROR|CRITICAL|[A-Z]\w*Error)\b")
_EXECUTION = re.compile(r"^.*Execut(?:ing|ed) notebook.*$", re.MULTILINE)


def pages_key(chapters: list[Chapter]) -> str:
    """A digest of all that the page build reads: the book, its settings, outputs and tools."""
    files = [path for path in BOOK.rglob("*") if path.is_file()]
    files += [path for path in (ROOT / "tools").glob("*.py")]
    files += [executions.executed_path(chapter) for chapter in chapters]
    files += EQUATIONS.glob("*.toml")
    facts = [sys.version, repository.address(), repository.commit(), repository.uncommitted()]
    digest = hashlib.sha256(repr(facts).encode())
    for path in sorted([*files, CONFIG, CONTENTS, LOCK]):
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def complaints(log: str) -> list[str]:
    """Lines of a page build's log which say that it executed a notebook."""
    return [line.strip() for line in _EXECUTION.findall(log)]


def build_pages() -> int:
    """Run Jupyter Book over the book; its exit status, or 1 if it executed anything."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(BOOK.relative_to(ROOT))]
    command += ["--path-output", ".", "--config", str(CONFIG), "--toc", str(CONTENTS)]
    command += ["-W", "-n", "--keep-going", "--all"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    LOG.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    log = _COLOUR.sub("", done.stdout)
    LOG.write_text(log, encoding="utf-8")
    executed = complaints(log)
    for line in executed:
        print(f"The page build executed a chapter: {line}", file=sys.stderr)
    if done.returncode:
        telling = [line for line in log.splitlines() if _TELLING.search(line)]
        print("\n".join(telling or log.splitlines()[-20:]), file=sys.stderr)
    return done.returncode or bool(executed)


def publish_notebooks(notebooks: dict[Chapter, NotebookNode], folder: Path = PAGES) -> None:
    """Put each chapter's notebook, with the outputs that were kept, beside its page."""
    for chapter, notebook in notebooks.items():
        executed = executions.kept(chapter)
        write(executions.with_outputs(notebook, executed), notebook_path(chapter, folder))


def build(may_execute: bool = True, cold: bool = False) -> int:
    """Bring `_build/html` up to date; an exit status."""
    start = time.monotonic()
    generator = Generator()
    chapters = generator.chapters
    address, commit = repository.address(), repository.commit()
    notebooks = {chapter: generator.notebook(chapter, address, commit) for chapter in chapters}
    stale = [chapter for chapter in chapters if executions.kept(chapter) is None]
    print(f"[1/3] Chapters: {len(chapters)}, of which {len(stale)} to execute", flush=True)
    for chapter in stale:
        print(f"      {chapter.name}", flush=True)
    if stale and not may_execute:
        print("These have not been executed as they stand: run `make test`.", file=sys.stderr)
        return 1
    if stale:
        status = execute(stale, options=["-q", "--no-header"])
        left = [chapter.name for chapter in stale if executions.kept(chapter) is None]
        if status or left:
            print(f"Not built, for these did not pass: {', '.join(left)}", file=sys.stderr)
            return status or 1
    key = pages_key(chapters)
    if not cold and STAMP.exists() and STAMP.read_text(encoding="utf-8") == key:
        print("[2/3] Pages: nothing changed, so they stand as they are", flush=True)
    else:
        print("[2/3] Pages: building all, with warnings as errors", flush=True)
        for folder in (PAGES, BUILD / ".doctrees", BUILD / "jupyter_execute"):
            shutil.rmtree(folder, ignore_errors=True)
        executions.fill_cache(chapters)
        status = build_pages()
        if status:
            print(f"The pages are not built; the log is {LOG.relative_to(ROOT)}", file=sys.stderr)
            return status
    print("[3/3] Notebooks: executed ones beside their pages", flush=True)
    publish_notebooks(notebooks)
    STAMP.write_text(key, encoding="utf-8")
    print(f"Done in {time.monotonic() - start:.0f} s. Open {PAGES.relative_to(ROOT)}/index.html")
    return 0


def main() -> int:
    """Build as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-execute", action="store_true", help="fail if a chapter would run")
    parser.add_argument(
        "--cold", action="store_true", help="build the pages even if nothing changed"
    )
    arguments = parser.parse_args()
    try:
        return build(may_execute=not arguments.no_execute, cold=arguments.cold)
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
