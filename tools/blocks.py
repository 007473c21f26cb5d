"""MyST Markdown, cut into blocks: headings, targets, display math, directives, code, text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.chapters import (
    DIRECTIVE,
    FENCE,
    Chapter,
    ChapterError,
    closing_fence,
    split_options,
)

_TARGET = re.compile(r"^\((?P<label>[^()\s]+)\)=\s*$")
_HEADING = re.compile(r"^#{1,6}\s+(?P<title>.+?)\s*#*\s*$")
_MATH = re.compile(r"^(?P<indent>\s*)\$\$(?P<rest>.*)$")
_MATH_END = re.compile(r"^(?P<body>.*?)\$\$\s*(?:\((?P<label>[^()\s]+)\))?\s*$")

# Directives whose content is Markdown again, so that labels inside are found as well.
ADMONITIONS = {
    "attention",
    "caution",
    "danger",
    "error",
    "hint",
    "important",
    "note",
    "seealso",
    "tip",
    "warning",
    "admonition",
}


@dataclass(frozen=True)
class Block:
    """A block: its kind, its text, and the line in the file where it starts."""

    kind: str  # "heading", "target", "math", "directive", "fence", "comment" or "text"
    line: int
    text: str = ""  # a heading's title, math's TeX, a directive's content, else the raw lines
    text_line: int = 0  # where a directive's content starts
    label: str | None = None  # of a target, of display math, of a directive with :name: or :label:
    name: str = ""  # of a directive
    argument: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    raw: str = ""
    indent: str = ""


def blocks(path: Path, source: str, first_line: int) -> Iterator[Block]:
    """The blocks of `source`, whose first line is line `first_line` of the file at `path`."""
    lines = source.splitlines()
    index = 0
    text_start: int | None = None

    def pending(end: int) -> Iterator[Block]:
        if text_start is not None:
            raw = "\n".join(lines[text_start:end])
            yield Block("text", first_line + text_start, raw, raw=raw)

    while index < len(lines):
        line = lines[index]
        fence, math = FENCE.match(line), _MATH.match(line)
        target, heading = _TARGET.match(line), _HEADING.match(line)
        special = fence or math or target or heading or line.startswith("%")
        if not special:
            if text_start is None:
                text_start = index
            index += 1
            continue
        yield from pending(index)
        text_start = None
        here = first_line + index
        if fence:
            end = closing_fence(path, lines, index, first_line)
            yield _fenced(path, lines, index, end, here)
            index = end + 1
        elif math:
            block, index = _display_math(path, lines, index, first_line)
            yield block
        else:
            if target:
                yield Block("target", here, label=target["label"], raw=line)
            elif heading:
                yield Block("heading", here, heading["title"], raw=line)
            else:
                yield Block("comment", here, line[1:].strip(), raw=line)
            index += 1
    yield from pending(len(lines))


def _dedent(lines: list[str], indent: str) -> list[str]:
    return [line.removeprefix(indent) if indent else line for line in lines]


def _fenced(path: Path, lines: list[str], start: int, end: int, here: int) -> Block:
    fence = FENCE.match(lines[start])
    raw = "\n".join(lines[start : end + 1])
    directive = DIRECTIVE.match(fence["info"].strip())
    if not directive:
        if fence["mark"].startswith(":"):
            raise ChapterError(path, here, f"`{lines[start].strip()}` names no directive")
        return Block("fence", here, raw, raw=raw)
    body = _dedent(lines[start + 1 : end], fence["indent"])
    try:
        options, content = split_options(body)
    except ValueError as error:
        raise ChapterError(path, here, str(error)) from error
    return Block(
        "directive",
        here,
        "\n".join(body[content:]),
        text_line=here + 1 + content,
        label=options.get("label") or options.get("name"),
        name=directive["name"],
        argument=directive["argument"].strip(),
        options=options,
        raw=raw,
        indent=fence["indent"],
    )


def _display_math(path: Path, lines: list[str], start: int, first_line: int) -> tuple[Block, int]:
    """Display math from `$$` to `$$ (label)`, on one line or several; and the index after it."""
    indent, rest = _MATH.match(lines[start]).group("indent", "rest")
    body: list[str] = []
    for index in range(start, len(lines)):
        line = rest if index == start else lines[index]
        closing = _MATH_END.match(line)
        if closing:
            body.append(closing["body"])
            tex = "\n".join(_dedent(body, indent)).strip()
            raw = "\n".join(lines[start : index + 1])
            block = Block(
                "math", first_line + start, tex, label=closing["label"], raw=raw, indent=indent
            )
            return block, index + 1
        if "$$" in line:
            break
        body.append(line)
    raise ChapterError(
        path,
        first_line + start,
        "display math must start with `$$` and end with `$$` or `$$ (label)` on a line's end",
    )


def nested_blocks(chapter: Chapter) -> Iterator[Block]:
    """Every block of a chapter in reading order, those inside admonitions too.

    A code cell with a figure comes as a directive named `figure-cell`.
    """
    for cell in chapter.cells:
        if cell.kind == "markdown":
            yield from _deep(chapter.path, cell.source, cell.line)
        elif cell.figure:
            yield Block(
                "directive",
                cell.line,
                str(cell.figure.get("caption") or ""),
                text_line=cell.line,
                label=cell.figure.get("name"),
                name="figure-cell",
                options=cell.figure,
            )


def _deep(path: Path, source: str, line: int) -> Iterator[Block]:
    for block in blocks(path, source, line):
        yield block
        if block.kind == "directive" and block.name in ADMONITIONS:
            yield from _deep(path, block.text, block.text_line)
