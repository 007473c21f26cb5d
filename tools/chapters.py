"""Chapters as they are written: MyST Markdown notebooks, split into cells, with line numbers.

Nothing is executed or rendered here. Line numbers count from 1 in the chapter's file, so that
every complaint can name the place.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tools.places import BOOK, CONTENTS

FENCE = re.compile(r"^(?P<indent>\s*)(?P<mark>`{3,}|~{3,}|:{3,})(?P<info>.*)$")
DIRECTIVE = re.compile(r"^\{(?P<name>[^}\s]+)\}\s*(?P<argument>.*)$")


class ChapterError(Exception):
    """Something in a chapter that the tools have no rule for, with its file and line."""

    def __init__(self, path: Path, line: int, message: str):
        """Say `message` about line `line` (counted from 1) of the file at `path`."""
        super().__init__(f"{path}:{line}: {message}")


@dataclass(frozen=True)
class Cell:
    """One cell: Markdown or code, its text, its metadata and where the text starts."""

    kind: str  # "markdown" or "code"
    source: str
    line: int  # of the first line of `source`
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def tags(self) -> list[str]:
        """The cell's tags, as Jupyter knows them."""
        return list(self.metadata.get("tags", []))

    @property
    def figure(self) -> dict[str, Any] | None:
        """Caption, name and alternative text, if the cell's output is a figure."""
        settings = self.metadata.get("mystnb", {})
        if "figure" not in settings:
            return None
        return {**settings["figure"], "alt": settings.get("image", {}).get("alt")}


@dataclass(frozen=True)
class Chapter:
    """One file of the book."""

    path: Path
    root: Path = BOOK

    @property
    def name(self) -> str:
        """Its name in the table of contents, such as `foundations/elbo`."""
        return self.path.relative_to(self.root).with_suffix("").as_posix()

    @cached_property
    def text(self) -> str:
        """The file's text."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def _body(self) -> tuple[dict[str, Any], int]:
        """The front matter, and the index of the first line after it."""
        lines = self.text.splitlines()
        if not lines or lines[0].rstrip() != "---":
            return {}, 0
        for end in range(1, len(lines)):
            if lines[end].rstrip() == "---":
                return yaml.safe_load("\n".join(lines[1:end])) or {}, end + 1
        raise ChapterError(self.path, 1, "the front matter has no closing `---`")

    @property
    def is_notebook(self) -> bool:
        """Whether the page has a kernel, and so becomes a notebook."""
        return "kernelspec" in self._body[0]

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells in order."""
        return split_cells(self.path, self.text.splitlines(), self._body[1])

    @property
    def code_cells(self) -> list[Cell]:
        """The code cells in order."""
        return [cell for cell in self.cells if cell.kind == "code"]

    @property
    def title(self) -> str:
        """The first heading."""
        for cell in self.cells:
            match = re.search(r"^# (.+)$", cell.source, re.MULTILINE)
            if cell.kind == "markdown" and match:
                return match[1].strip()
        raise ChapterError(self.path, 1, "no title: the chapter needs one line `# Title`")

    def error(self, line: int, message: str) -> ChapterError:
        """An error at a line of this chapter."""
        return ChapterError(self.path, line, message)

    def with_sources(self, sources: dict[int, str]) -> str:
        """The file's text with the code cells that start at these lines given new sources."""
        lines = self.text.splitlines()
        for cell in sorted(self.code_cells, key=lambda cell: cell.line, reverse=True):
            if cell.line in sources:
                start = cell.line - 1
                old = cell.source.splitlines()
                lines[start : start + len(old)] = sources[cell.line].rstrip("\n").splitlines()
        return "\n".join(lines) + "\n"


def split_cells(path: Path, lines: list[str], start: int = 0) -> list[Cell]:
    """Split a chapter's lines, from index `start`, into Markdown and code cells."""
    cells: list[Cell] = []
    markdown_start = index = start

    def flush(end: int) -> None:
        first = markdown_start
        while first < end and not lines[first].strip():
            first += 1
        source = "\n".join(lines[first:end]).rstrip()
        if source:
            cells.append(Cell("markdown", source, first + 1))

    while index < len(lines):
        fence = FENCE.match(lines[index])
        if fence:
            end = closing_fence(path, lines, index)
            if fence["info"].strip().startswith("{code-cell}"):
                if fence["indent"]:
                    raise ChapterError(path, index + 1, "a code cell must not be indented")
                flush(index)
                cells.append(_code_cell(path, lines, index, end))
                markdown_start = end + 1
            else:
                for inner in range(index + 1, end):
                    if "{code-cell}" in lines[inner]:
                        raise ChapterError(
                            path, inner + 1, "a code cell inside a directive is never executed"
                        )
            index = end + 1
        elif lines[index].rstrip() == "+++":
            flush(index)
            markdown_start = index = index + 1
        elif lines[index].startswith("+++ "):
            raise ChapterError(path, index + 1, "no rule for metadata of a Markdown cell")
        else:
            index += 1
    flush(len(lines))
    return cells


def closing_fence(path: Path, lines: list[str], start: int, first_line: int = 1) -> int:
    """The index of the line that closes the fence opened at index `start`."""
    mark = FENCE.match(lines[start])["mark"]
    closing = re.compile(rf"^\s*{re.escape(mark[0])}{{{len(mark)},}}\s*$")
    for index in range(start + 1, len(lines)):
        if closing.match(lines[index]):
            return index
    raise ChapterError(path, first_line + start, f"the fence `{mark}` is never closed")


def split_options(body: list[str]) -> tuple[dict[str, Any], int]:
    """Options at the head of a directive's body, and the index at which its content starts."""
    if body and body[0].strip() == "---":
        end = next((i for i in range(1, len(body)) if body[i].strip() == "---"), None)
        if end is None:
            raise ValueError("the options have no closing `---`")
        options, content = "\n".join(body[1:end]), end + 1
    else:
        content = 0
        while content < len(body) and re.match(r"^\s*:[\w-]+:", body[content]):
            content += 1
        options = "\n".join(line.strip()[1:] for line in body[:content])
    if content < len(body) and not body[content].strip():
        content += 1
    try:
        return yaml.safe_load(options) or {}, content
    except yaml.YAMLError as error:
        raise ValueError(f"the options are not YAML: {error}") from error


def _code_cell(path: Path, lines: list[str], start: int, end: int) -> Cell:
    """The code cell whose fence stands at the indices `start` and `end`."""
    body = lines[start + 1 : end]
    try:
        metadata, content = split_options(body)
    except ValueError as error:
        raise ChapterError(path, start + 2, str(error)) from error
    source = "\n".join(body[content:])
    if not source.strip():
        raise ChapterError(path, start + 1, "an empty code cell")
    return Cell("code", source.rstrip("\n"), start + 2 + content, metadata)


@dataclass(frozen=True)
class Entry:
    """One page of the table of contents, with its number if its part is numbered."""

    chapter: Chapter
    number: int | None


def contents(path: Path = CONTENTS, root: Path = BOOK) -> list[Entry]:
    """Every page in the order of the table of contents, numbered through all parts."""
    toc = yaml.safe_load(path.read_text(encoding="utf-8"))
    entries = [Entry(Chapter(root / f"{toc['root']}.md", root), None)]
    number = 0
    for part in toc.get("parts", []):
        for item in part["chapters"]:
            if part.get("numbered"):
                number += 1
            chapter = Chapter(root / f"{item['file']}.md", root)
            entries.append(Entry(chapter, number if part.get("numbered") else None))
    for entry in entries:
        if not entry.chapter.path.exists():
            raise ChapterError(path, 1, f"names {entry.chapter.name}, but there is no such chapter")
    return entries


def notebook_chapters() -> list[Chapter]:
    """The chapters that become notebooks, in order."""
    return [entry.chapter for entry in contents() if entry.chapter.is_notebook]


def chapters_by_name(names: list[str]) -> list[Chapter]:
    """The notebook chapters of these names (`foundations/elbo`, `elbo` or a path), or all."""
    known = notebook_chapters()
    if not names:
        return known
    chosen = []
    for name in names:
        stem = name.removeprefix("book/").removesuffix(".md")
        found = [c for c in known if c.name == stem] or [c for c in known if c.path.stem == stem]
        if not found:
            raise SystemExit(
                f"No chapter {name!r}. There are: {', '.join(c.name for c in known) or 'none'}."
            )
        chosen += found
    return chosen
