"""Every labelled equation of the book: where it is checked, or why there is nothing to check.

An equation is checked where a code cell names its label in a comment and asserts something below
it. One that defines something, or only rewrites another, stands with its reason in
`tests/book/equations/CHAPTER.toml`, under `[defines]` or `[rewrites]`.
"""

import ast
import io
import re
import tokenize
import tomllib
from dataclasses import dataclass

from tools.blocks import nested_blocks
from tools.chapters import Cell, Chapter, ChapterError, Entry, contents
from tools.labels import Label, chapter_labels
from tools.places import EQUATIONS

_LABEL = re.compile(r"\beq-[a-z0-9]+(?:-[a-z0-9]+)*\b")
KINDS = ("defines", "rewrites")


@dataclass(frozen=True)
class Check:
    """A comment in an asserting cell: the labels it names, its words, and where it stands."""

    labels: tuple[str, ...]
    text: str
    chapter: Chapter
    line: int


def python_of(cell: Cell) -> str:
    """The cell's source with the lines that are no Python made harmless, line for line."""
    lines = cell.source.splitlines()
    return "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines) + "\n"


def _is_assertion(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return True
    return isinstance(node, ast.Call) and bool(re.search(r"assert_\w+$", ast.unparse(node.func)))


def asserting_lines(cell: Cell) -> list[int]:
    """The lines of a cell, counted from 1, on which something is asserted."""
    return [node.lineno for node in ast.walk(ast.parse(python_of(cell))) if _is_assertion(node)]


def checks(chapter: Chapter) -> list[Check]:
    """The comments of a chapter that name an equation which the cell checks below them."""
    found = []
    for cell in chapter.code_cells:
        lines = asserting_lines(cell)
        for first, text in _comments(python_of(cell)):
            labels = tuple(dict.fromkeys(_LABEL.findall(text)))
            if not labels:
                continue
            place = cell.line + first - 1
            if not any(line >= first for line in lines):
                raise chapter.error(place, f"names `{labels[0]}`, but asserts nothing below")
            found.append(Check(labels, text, chapter, place))
    return found


def _comments(source: str) -> list[tuple[int, str]]:
    """Comments that stand on lines of their own, those that follow each other joined into one."""
    joined: list[tuple[int, int, str]] = []  # first line, last line, text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        alone = token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip()
        if not alone:
            continue
        line, text = token.start[0], token.string.lstrip("#").strip()
        new_check = bool(_LABEL.match(text))
        if joined and joined[-1][1] == line - 1 and not new_check:
            first, _, before = joined.pop()
            joined.append((first, line, f"{before} {text}"))
        else:
            joined.append((line, line, text))
    return [(first, text) for first, _, text in joined]


def excused(chapter: Chapter) -> dict[str, tuple[str, str]]:
    """Labels of a chapter with nothing to check: label to (kind, reason)."""
    path = EQUATIONS / f"{chapter.path.stem}.toml"
    if not path.exists():
        return {}
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    if set(table) - set(KINDS):
        raise ChapterError(path, 1, f"has tables {sorted(table)}; there are only {list(KINDS)}")
    found: dict[str, tuple[str, str]] = {}
    for kind in KINDS:
        for label, reason in table.get(kind, {}).items():
            if label in found:
                raise ChapterError(path, 1, f"names `{label}` twice")
            found[label] = (kind, reason)
    return found


def equations(entry: Entry) -> dict[str, Label]:
    """The labelled equations of a page, in reading order."""
    return {n: x for n, x in chapter_labels(entry).items() if x.kind == "equation"}


def unlabelled(chapter: Chapter) -> list[int]:
    """Lines of displayed equations without a label."""
    blocks = nested_blocks(chapter)
    return [b.line for b in blocks if "math" in (b.kind, b.name) and not b.label]


def table(entries: list[Entry] | None = None) -> str:
    """All equations with what checks them, one Markdown table for each chapter."""
    entries = contents() if entries is None else entries
    said: dict[str, list[Check]] = {}
    for entry in entries:
        for check in checks(entry.chapter) if entry.chapter.is_notebook else []:
            for label in check.labels:
                said.setdefault(label, []).append(check)
    parts = []
    for entry in entries:
        rows = []
        for label in equations(entry):
            if label in said:
                kind = "checked"
                words = "; ".join(_words(check) for check in said[label])
            else:
                kind, reason = excused(entry.chapter).get(label, ("", ""))
                words = _plain(reason)
            rows.append(f"| {{eq}}`{label}` | {kind} | {words} |")
        if rows:
            head = f"## {{doc}}`/{entry.chapter.name}`\n\n| equation | | what the cell says |\n"
            parts.append(head + "|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts)


def _words(check: Check) -> str:
    """A check's comment without the labels in front, safe inside a table."""
    text = re.sub(r"^(?:eq-[a-z0-9-]+(?:\s*(?:,|and)\s*)?)+[:,]?\s*", "", check.text)
    text = text or "evaluated"
    return _plain(text.rstrip(" .:"))


def _plain(text: str) -> str:
    """Words safe inside a table, in which a label becomes a link to its equation."""
    escaped = re.sub(r"([|*_<>`\[\]$\\])", r"\\\1", text)
    return _LABEL.sub(lambda label: f"{{eq}}`{label[0]}`", escaped)
