"""Small books in temporary folders, for the tests of the tools."""

import textwrap

import pytest
from tools.chapters import Chapter, Entry

FRONT = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""


@pytest.fixture
def write_chapter(tmp_path):
    """Writes `NAME.md` into a temporary book and returns its chapter."""

    def write(name: str, text: str, front: str = FRONT) -> Chapter:
        path = tmp_path / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(front + textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return Chapter(path, tmp_path)

    return write


@pytest.fixture
def make_entries():
    """Entries of a table of contents, numbered from 1."""

    def make(*chapters: Chapter) -> list[Entry]:
        return [Entry(chapter, number) for number, chapter in enumerate(chapters, start=1)]

    return make
