"""What each label of the book stands for, numbered as Sphinx numbers it on the pages."""

from dataclasses import dataclass

from tools.blocks import nested_blocks
from tools.chapters import Chapter, Entry


@dataclass(frozen=True)
class Label:
    """An equation, figure, table or section that can be referred to."""

    kind: str  # "equation", "figure", "table" or "section"
    chapter: Chapter
    line: int
    number: str = ""  # such as "1.2"
    title: str = ""  # of a section; of a figure or table, its caption


def chapter_labels(entry: Entry) -> dict[str, Label]:
    """The labels of one page. The same label twice is an error."""
    chapter = entry.chapter
    labels: dict[str, Label] = {}
    counts = {"equation": 0, "figure": 0, "table": 0}
    targets: list[tuple[str, int]] = []

    def number(kind: str) -> str:
        counts[kind] += 1
        return f"{entry.number}.{counts[kind]}" if entry.number else str(counts[kind])

    def add(name: str, label: Label) -> None:
        if name in labels:
            raise chapter.error(label.line, f"the label `{name}` is used twice")
        labels[name] = label

    for block in nested_blocks(chapter):
        if block.kind == "target":
            targets.append((block.label, block.line))
            continue
        kind = {"math": "equation", "figure": "figure", "figure-cell": "figure"}.get(
            block.name or block.kind
        )
        if block.name in ("list-table", "table") and block.argument:
            kind = "table"
        title = block.argument if kind == "table" else block.text
        if kind == "equation":
            if block.label:
                add(block.label, Label(kind, chapter, block.line, number(kind)))
        elif kind:
            label = Label(kind, chapter, block.line, number(kind), title)
            if block.label:
                add(block.label, label)
            for name, _ in targets:
                add(name, label)
            targets = []
        elif block.kind == "heading":
            for name, line in targets:
                add(name, Label("section", chapter, line, title=block.text))
            targets = []
    for name, line in targets:
        raise chapter.error(line, f"the target `({name})=` stands before no heading or figure")
    return labels


def book_labels(entries: list[Entry]) -> dict[str, Label]:
    """The labels of all pages."""
    labels: dict[str, Label] = {}
    for entry in entries:
        for name, label in chapter_labels(entry).items():
            if name in labels:
                raise entry.chapter.error(
                    label.line, f"the label `{name}` is used in {labels[name].chapter.name} too"
                )
            labels[name] = label
    return labels
