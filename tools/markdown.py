"""MyST Markdown made plain, for Colab and every other notebook reader.

There is a rule for each directive and role that chapters use, and an error that names file and
line for any other: a reader of the notebook never meets raw MyST.
"""

import base64
import mimetypes
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import yaml

from tools import citations
from tools.blocks import ADMONITIONS, Block, blocks
from tools.chapters import Chapter, ChapterError
from tools.labels import Label

KIND_NAMES = {"figure": "Figure", "table": "Table"}

_INLINE = re.compile(
    r"""
      (?P<escape>\\[^a-zA-Z0-9\s])
    | \{(?P<role>[\w:.-]+)\}(?P<ticks>`+)(?P<content>.+?)(?P=ticks)(?!`)
    | (?P<code>(?<!`)(?P<mark>`+)(?!`).+?(?<!`)(?P=mark)(?!`))
    | (?P<math>\$\$.+?\$\$|(?<![\\$])\$(?!\s)(?:\\.|[^$\\])+?\$(?!\d))
    | (?P<image>!\[(?P<alt>[^\]]*)\]\((?P<source>[^)\s]+)\))
    | (?P<footnote>\[\^[^\]]+\])
    | \[(?P<text>(?:`[^`]*`|\$[^$]*\$|[^\[\]])*)\]\((?P<address>[^)\s]+)\)
    """,
    re.VERBOSE | re.DOTALL,
)
_DEFINITION = re.compile(r"^:\s+(?P<definition>\S.*)$")


@dataclass
class Plain:
    """Turns the Markdown of one chapter into plain Markdown."""

    chapter: Chapter
    labels: dict[str, Label]
    titles: dict[str, str]  # title of each page, by its name
    cited: list[str] = field(default_factory=list)

    def convert(self, source: str, line: int) -> str:
        """Plain Markdown for `source`, which starts at `line` of the chapter."""
        parts = [self._block(block) for block in blocks(self.chapter.path, source, line)]
        text = "\n".join(part for part in parts if part is not None)
        return re.sub(r"\n{3,}", "\n\n", text).strip("\n")

    # Blocks

    def _block(self, block: Block) -> str | None:
        if block.kind in ("target", "comment"):
            return None
        if block.kind == "fence":
            return block.raw
        if block.kind == "heading":
            hashes = block.raw.split(maxsplit=1)[0]
            return f"{hashes} {self.inline(block.text, block.line)}"
        if block.kind == "math":
            return self._indented(self._math(block.text, block.label), block.indent)
        if block.kind == "directive":
            return self._indented(self._directive(block), block.indent)
        return self._text(block)

    @staticmethod
    def _indented(text: str, indent: str) -> str:
        return "\n".join(indent + line if line else line for line in text.splitlines())

    def _text(self, block: Block) -> str:
        for offset, line in enumerate(block.text.splitlines()):
            here = block.line + offset
            if re.match(r"^\s*\\begin\{", line):
                raise self._error(here, "write this environment between `$$` and `$$`")
            if re.match(r"^\[\^[^\]]+\]:", line):
                raise self._error(here, "no rule for footnotes")
        converted = self.inline(block.text, block.line).split("\n")
        result: list[str] = []
        for line in converted:
            match = _DEFINITION.match(line)
            if match and result:
                term = result.pop()
                while not term and result:
                    term = result.pop()
                line = f"- **{term}**: {match['definition']}"
            result.append(line)
        return "\n".join(result)

    def _math(self, tex: str, label: str | None) -> str:
        aligned = re.search(r"\\\\|(?<!\\)&", tex) and r"\begin{" not in tex
        if aligned:
            tex = f"\\begin{{aligned}}\n{tex}\n\\end{{aligned}}"
        if label:
            tex = f"{tex} \\tag{{{self._number(label)}}}"
        return f"\n$$\n{tex}\n$$\n"

    def _number(self, label: str) -> str:
        return self.labels[label].number

    def _directive(self, block: Block) -> str:
        if block.name in ADMONITIONS:
            return self._admonition(block)
        rule = self._RULES.get(block.name)
        if rule is None:
            raise self._error(
                block.line,
                f"no rule for the directive `{{{block.name}}}`; there are rules for "
                + ", ".join(sorted(ADMONITIONS | set(self._RULES))),
            )
        return rule(self, block)

    def _admonition(self, block: Block) -> str:
        known = {"class", "name"}
        if set(block.options) - known:
            raise self._error(block.line, f"no rule for {set(block.options) - known}")
        title, body = block.name.capitalize(), block.text
        if block.name == "admonition":
            title = self.inline(block.argument, block.line)
            if not title:
                raise self._error(block.line, "an admonition needs a title")
        elif block.argument:
            body = f"{block.argument}\n{body}"
        content = self.convert(body, block.text_line - (body != block.text))
        if "dropdown" in str(block.options.get("class", "")).split():
            return f"\n<details><summary><b>{title}</b></summary>\n\n{content}\n\n</details>\n"
        stop = "" if title.endswith(("?", "!", ".", ":")) else "."
        # Inside a quotation, display math has to stand on one line: readers take `>` for TeX.
        content = re.sub(
            r"\$\$\n(.+?)\n\$\$",
            lambda match: f"$$ {' '.join(match[1].split())} $$",
            content,
            flags=re.DOTALL,
        )
        quoted = [f"**{title}{stop}**", "", *content.splitlines()]
        return "\n" + "\n".join(f"> {line}".rstrip() for line in quoted) + "\n"

    def _math_directive(self, block: Block) -> str:
        return self._math(block.text.strip(), block.label)

    def _figure(self, block: Block) -> str:
        alt = str(block.options.get("alt") or "")
        if len(alt.split()) < 3:
            raise self._error(block.line, "a figure needs alternative text (:alt:) in words")
        image = self._image(block.argument, alt, block.line)
        caption = self.convert(block.text, block.text_line)
        number = self._number(block.label) if block.label else None
        return f"\n{image}\n\n{self.caption('figure', number, caption)}\n"

    def _picture(self, block: Block) -> str:
        return f"\n{self._image(block.argument, str(block.options.get('alt', '')), block.line)}\n"

    @staticmethod
    def caption(kind: str, number: str | None, text: str) -> str:
        """A caption as the pages have it: `**Figure 1.2.** Text.`"""
        lead = f"**{KIND_NAMES[kind]} {number}.** " if number else ""
        return f"{lead}{text}"

    def _image(self, source: str, alt: str, line: int) -> str:
        if not re.match(r"^https?://", source):
            path = (self.chapter.path.parent / source).resolve()
            if not path.exists():
                raise self._error(line, f"there is no image {source}")
            kind = mimetypes.guess_type(path.name)[0] or "file without a known suffix"
            if not kind.startswith("image/"):
                raise self._error(
                    line,
                    f"no rule for a picture that is a {kind}: {source}; what moves is made in a "
                    "cell, by `vae.figures.animate`",
                )
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            source = f"data:{kind};base64,{data}"
        return f"![{alt}]({source})"

    def _code_block(self, block: Block) -> str:
        return f"```{block.argument}\n{block.text}\n```"

    def _list_table(self, block: Block) -> str:
        try:
            rows = yaml.safe_load(_quoted_items(block.text))
        except yaml.YAMLError as error:
            raise self._error(block.line, f"not a list of lists: {error}") from error
        widths = {len(row) for row in rows}
        if len(widths) != 1:
            raise self._error(block.line, f"rows of different lengths: {sorted(widths)}")
        cells = [
            [
                " ".join(self.inline(str(cell), block.text_line).split()).replace("|", "\\|")
                for cell in row
            ]
            for row in rows
        ]
        if int(block.options.get("header-rows", 0)) != 1:
            cells.insert(0, [""] * len(cells[0]))
        lines = [f"| {' | '.join(row)} |" for row in cells]
        lines.insert(1, "|" + " --- |" * len(cells[0]))
        return self._titled_table(block, "\n".join(lines))

    def _table(self, block: Block) -> str:
        return self._titled_table(block, self.convert(block.text, block.text_line))

    def _titled_table(self, block: Block, table: str) -> str:
        if not block.argument:
            return f"\n{table}\n"
        number = self._number(block.label) if block.label else None
        title = self.inline(block.argument, block.line)
        return f"\n{self.caption('table', number, title)}\n\n{table}\n"

    def _bibliography(self, block: Block) -> str:
        works = [f"- {citations.full(key)}" for key in sorted(set(self.cited))]
        return "\n".join(["", *works, ""])

    _RULES: ClassVar[dict[str, Callable[["Plain", Block], str]]] = {
        "math": _math_directive,
        "figure": _figure,
        "image": _picture,
        "code-block": _code_block,
        "list-table": _list_table,
        "table": _table,
        "bibliography": _bibliography,
    }

    # Inline

    def inline(self, text: str, line: int) -> str:
        """Plain Markdown for running text, which starts at `line` of the chapter."""

        def replace(match: re.Match) -> str:
            here = line + text.count("\n", 0, match.start())
            if match["role"]:
                return self._role(match["role"], " ".join(match["content"].split()), here)
            if match["image"]:
                return self._image(match["source"], match["alt"], here)
            if match["footnote"]:
                raise self._error(here, "no rule for footnotes")
            if match["address"]:
                return self._link(match["text"], match["address"], here)
            return match[0]

        return _INLINE.sub(replace, text)

    def _role(self, role: str, content: str, line: int) -> str:
        named = re.fullmatch(r"(?P<text>.*?)\s*<(?P<target>[^<>]+)>", content)
        text, target = named.group("text", "target") if named else (None, content)
        if role == "math":
            return f"${content}$"
        if role == "eq":
            label = self._label(target, line, "equation")
            return f"({label.number}){self._elsewhere(label)}"
        if role == "numref":
            label = self._label(target, line, "figure", "table")
            text = text or f"{KIND_NAMES[label.kind]} %s"
            return text.replace("%s", label.number).replace("{number}", label.number)
        if role == "ref":
            label = self._label(target, line, "section", "figure", "table")
            if not text and label.title == self.titles[label.chapter.name]:
                return f"*{label.title}*"
            return f"{text or self.inline(label.title, line)}{self._elsewhere(label)}"
        if role == "doc":
            return f"*{text or self._title(target, line)}*"
        if role in ("cite", "cite:p", "cite:t"):
            return self._cite(role, content, line)
        raise self._error(
            line,
            f"no rule for the role `{{{role}}}`; there are rules for "
            "math, eq, numref, ref, doc, cite, cite:p, cite:t",
        )

    def _cite(self, role: str, content: str, line: int) -> str:
        keys = [key.strip() for key in content.split(",")]
        try:
            works = [citations.cite(key, textual=role == "cite:t") for key in keys]
        except KeyError as error:
            raise self._error(line, f"references.bib has no {error}") from error
        self.cited += keys
        return ", ".join(works) if role == "cite:t" else f"({'; '.join(works)})"

    def _link(self, text: str, address: str, line: int) -> str:
        text = self.inline(text, line)
        if re.match(r"^(https?:|mailto:)", address):
            return f"[{text}]({address})"
        if address.startswith("#"):
            label = self._label(address[1:], line)
            if text:
                return f"{text}{self._elsewhere(label)}"
            return label.title or f"({label.number})"
        page, _, _anchor = address.partition("#")
        if page.endswith(".md"):
            title = self._title(page.removesuffix(".md"), line)
            return f"{text} (*{title}*)" if text and text != title else f"*{title}*"
        raise self._error(line, f"no rule for a link to {address}")

    def _title(self, target: str, line: int) -> str:
        path = target.removesuffix(".md")
        if path.startswith("/"):
            name = path[1:]
        else:
            root = self.chapter.root.resolve()
            full = (self.chapter.path.parent.resolve() / path).resolve()
            name = full.relative_to(root).as_posix() if full.is_relative_to(root) else path
        if name not in self.titles:
            raise self._error(line, f"the table of contents has no page {name}")
        return self.titles[name]

    def _label(self, name: str, line: int, *kinds: str) -> Label:
        label = self.labels.get(name)
        if label is None:
            raise self._error(line, f"nothing in the book has the label `{name}`")
        if kinds and label.kind not in kinds:
            raise self._error(line, f"`{name}` is a {label.kind}, not a {' or '.join(kinds)}")
        return label

    def _elsewhere(self, label: Label) -> str:
        if label.chapter.name == self.chapter.name:
            return ""
        return f" of *{self.titles[label.chapter.name]}*"

    def _error(self, line: int, message: str) -> ChapterError:
        return ChapterError(Path(self.chapter.path), line, message)


def _quoted_items(text: str) -> str:
    """A list-table's `* - cell` lists as YAML, each cell a literal block."""
    lines: list[str] = []
    for line in text.splitlines():
        match = re.match(r"^(?P<lead>\s*(?:[*-]\s+)?-)(?:\s+(?P<cell>.*))?$", line)
        if match:
            lead = match["lead"].replace("*", "-")
            lines += [f"{lead} |-", f"{' ' * (len(lead) + 1)}{match['cell'] or ''}"]
        elif line.strip():
            lines.append(line if lines else f"- {line}")
    return "\n".join(lines)
