"""Check the code cells of the chapters with ruff, as `make lint` does; `--fix` formats them.

The cells of a chapter are checked together, as one notebook, since later cells use what earlier
ones import. A woven cell is formatted where its source stands.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from tools.chapters import Chapter, notebook_chapters
from tools.places import ROOT

# What holds for a module but not for a notebook: imports where they are first needed, a last
# line whose value is shown, functions that the prose above documents, and names that a woven cell
# defines again after its import. In a cell that one reads, a short lambda and a plain zip are
# clearer.
_NOT_FOR_CELLS = "B018,B905,D,E402,E731,F811"


def _ruff(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    config = str(ROOT / "pyproject.toml")
    command = [sys.executable, "-m", "ruff", *arguments, "--config", config, "--no-cache", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _write(chapters: list[Chapter], folder: Path) -> None:
    for chapter in chapters:
        path = folder / f"{chapter.name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = [new_code_cell(cell.source) for cell in chapter.code_cells]
        # Without the language, ruff passes a notebook over in silence.
        metadata = {"language_info": {"name": "python"}}
        nbformat.write(new_notebook(cells=cells, metadata=metadata), path)


def check(chapters: list[Chapter]) -> list[str]:
    """What ruff says of the cells of these chapters."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(chapters, folder)
        rules = _ruff(folder, "check", "--output-format", "concise", "--ignore", _NOT_FOR_CELLS)
        form = _ruff(folder, "format", "--diff")
    found = []
    if rules.returncode:
        found.append(rules.stdout + rules.stderr)
    if form.returncode:
        found.append(form.stdout + form.stderr)
    return found


def fix(chapters: list[Chapter]) -> list[str]:
    """Format the cells of these chapters in place; the names of those that changed."""
    changed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(chapters, folder)
        _ruff(folder, "check", "--fix", "--quiet", "--ignore", _NOT_FOR_CELLS)
        _ruff(folder, "format", "--quiet")
        for chapter in chapters:
            notebook = nbformat.read(folder / f"{chapter.name}.ipynb", as_version=4)
            sources = {
                cell.line: new.source
                for cell, new in zip(chapter.code_cells, notebook.cells, strict=True)
                if new.source != cell.source and not cell.metadata.get("weave")
            }
            if sources:
                chapter.path.write_text(chapter.with_sources(sources), encoding="utf-8")
                changed.append(chapter.name)
    return changed


def main() -> int:
    """Check every chapter's cells, or format them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fix", action="store_true", help="format the cells in place")
    if parser.parse_args().fix:
        for name in fix(notebook_chapters()):
            print(f"{name}: formatted")
    found = check(notebook_chapters())
    print("\n".join(found) or "Code cells: in order")
    if found:
        print("`make format` mends what can be mended by itself.", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
