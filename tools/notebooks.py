"""Chapters become notebooks: plain Markdown, fixed cell ids, one set-up cell.

`python -m tools.notebooks` writes `_build/notebooks/`; nbval runs these, the pages show what they
printed, and Colab opens the same cells.
"""

import ast
import copy
import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import repository
from tools.chapters import Cell, Chapter, ChapterError, Entry, contents
from tools.equations import python_of
from tools.labels import Label, book_labels
from tools.markdown import Plain
from tools.places import NOTEBOOKS

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}

# How a page may show a cell. Tags that would switch off its execution or its failure are not here.
KNOWN_TAGS = {
    "hide-cell",
    "hide-input",
    "hide-output",
    "remove-cell",
    "remove-input",
    "remove-output",
    "scroll-output",
}
KNOWN_METADATA = {"tags", "mystnb", "weave"}
SET_UP = "set-up"  # the key in the metadata of the cells that only notebooks have

_SET_UP_TEXT = (
    "The next cell is for a machine without this book's code, such as Google Colab: only if "
    "`import vae` fails, it installs the package at the exact commit this notebook was made from, "
    "and leaves an installed JAX that the package supports as it is."
)

_SET_UP_CODE = """\
try:
    import vae
except ModuleNotFoundError:
    import importlib
    import os
    import subprocess
    import sys

    address = os.environ.get("BOOK_REPOSITORY") or {address}
    commit = {commit}
    if not (address and commit):
        raise ModuleNotFoundError(
            "This notebook needs the package `vae`, and was made without a repository to install "
            "it from. Copy the folder src/vae of the book beside this notebook, or run "
            "`pip install .` in a clone of the book, and run this cell again."
        ) from None
    requirement = f"vae @ git+{{address}}@{{commit}}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        report = f"{{' '.join(command)}} failed:\\n{{done.stdout}}{{done.stderr}}"
        raise RuntimeError(report) from None
    importlib.invalidate_caches()
    import vae"""


def set_up_cells(address: str | None, commit: str | None) -> list[NotebookNode]:
    """The cells that every notebook starts with: what the set-up does, then the set-up."""
    literal = {"address": address, "commit": commit}
    quoted = {key: f'"{value}"' if value else "None" for key, value in literal.items()}
    code = _SET_UP_CODE.format(**quoted)
    metadata = {SET_UP: True, "tags": ["hide-input"]}
    return [
        new_markdown_cell(_SET_UP_TEXT, id="set-up-text", metadata={SET_UP: True}),
        new_code_cell(code, id="set-up", metadata=metadata),
    ]


def check_code_cell(chapter: Chapter, cell: Cell) -> None:
    """Refuse what would let a cell pass without running, or a figure without words."""
    unknown = set(cell.tags) - KNOWN_TAGS
    if unknown:
        raise chapter.error(cell.line, f"no rule for the tags {', '.join(sorted(unknown))}")
    unknown = set(cell.metadata) - KNOWN_METADATA
    if unknown:
        raise chapter.error(cell.line, f"no rule for the metadata {', '.join(sorted(unknown))}")
    if re.search(r"^\s*#\s*(NBVAL_|PYTEST_VALIDATE)", cell.source, re.MULTILINE):
        raise chapter.error(cell.line, "no rule for nbval's comments: every cell runs")
    if cell.figure:
        check_figure_cell(chapter, cell)


def animates(cell: Cell) -> bool:
    """Whether a cell calls `animate(..., alt=...)`, and so says there what its figure shows."""
    calls = [node for node in ast.walk(ast.parse(python_of(cell))) if isinstance(node, ast.Call)]
    return any(
        re.fullmatch(r"(.+\.)?animate", ast.unparse(call.func))
        and any(keyword.arg == "alt" for keyword in call.keywords)
        for call in calls
    )


def check_figure_cell(chapter: Chapter, cell: Cell) -> None:
    """Refuse a figure without name or caption, and one without words or with two sets of them."""
    if not (cell.figure.get("name") and cell.figure.get("caption")):
        raise chapter.error(cell.line, "a figure cell needs `name` and `caption`")
    in_call, in_metadata = animates(cell), bool(cell.figure.get("alt"))
    if in_call and in_metadata:
        raise chapter.error(
            cell.line,
            "an animation says what it shows once: in `animate(alt=...)`, no `image: alt`",
        )
    if not (in_call or in_metadata):
        raise chapter.error(
            cell.line, "a figure cell needs `image: alt`, or a call of `animate` with `alt=`"
        )


class Generator:
    """Makes notebooks of chapters, knowing the labels and titles of the whole book."""

    def __init__(self, entries: list[Entry] | None = None):
        """Read `entries`, the book's pages, or those in its table of contents."""
        self.entries = contents() if entries is None else entries
        self.labels: dict[str, Label] = book_labels(self.entries)
        self.titles = {entry.chapter.name: entry.chapter.title for entry in self.entries}

    @property
    def chapters(self) -> list[Chapter]:
        """The chapters that have code."""
        return [entry.chapter for entry in self.entries if entry.chapter.is_notebook]

    def notebook(self, chapter: Chapter, address: str | None, commit: str | None) -> NotebookNode:
        """The notebook of `chapter`, without outputs.

        Raises `ChapterError`, which names file and line, for what there is no rule for.
        """
        plain = Plain(chapter, self.labels, self.titles)
        cells = set_up_cells(address, commit)
        seen: Counter[str] = Counter()

        def identity(source: str) -> str:
            digest = hashlib.sha256(source.encode()).hexdigest()[:10]
            seen[digest] += 1
            suffix = f"-{seen[digest]}" if seen[digest] > 1 else ""
            return f"{chapter.path.stem[:40]}-{digest}{suffix}"

        for cell in chapter.cells:
            if cell.kind == "markdown":
                text = plain.convert(cell.source, cell.line)
                if text:
                    cells.append(new_markdown_cell(text, id=identity(cell.source)))
                continue
            check_code_cell(chapter, cell)
            metadata = json.loads(json.dumps(cell.metadata))
            cells.append(new_code_cell(cell.source, id=identity(cell.source), metadata=metadata))
            if cell.figure:
                label = self.labels[cell.figure["name"]]
                text = plain.inline(cell.figure["caption"], cell.line)
                caption = plain.caption("figure", label.number, " ".join(text.split()))
                cells.append(new_markdown_cell(caption, id=identity(f"caption {caption}")))
        return new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def notebook_path(chapter: Chapter, folder: Path = NOTEBOOKS) -> Path:
    """Where the notebook of a chapter stands in a folder of notebooks."""
    return folder / f"{chapter.name}.ipynb"


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    nbformat.validate(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    # nbformat takes apart what it writes, so it gets a copy.
    partial.write_text(nbformat.writes(copy.deepcopy(notebook)) + "\n", encoding="utf-8")
    partial.replace(path)


def generate(
    chapters: list[Chapter] | None = None, folder: Path = NOTEBOOKS
) -> list[tuple[Chapter, Path]]:
    """Write the notebooks of these chapters, or of all; remove those of chapters that are gone."""
    generator = Generator()
    address, commit = repository.address(), repository.commit()
    written = []
    for chapter in generator.chapters if chapters is None else chapters:
        path = notebook_path(chapter, folder)
        write(generator.notebook(chapter, address, commit), path)
        written.append((chapter, path))
    known = {notebook_path(chapter, folder) for chapter in generator.chapters}
    for path in folder.rglob("*.ipynb"):
        if path not in known:
            path.unlink()
    return written


def main() -> int:
    """Write every notebook and say where."""
    try:
        written = generate()
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Notebooks: {len(written)} in {NOTEBOOKS.relative_to(NOTEBOOKS.parents[1])}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
