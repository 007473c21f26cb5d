"""What every chapter of the book must have."""

import ast
import re
import subprocess

import jupytext
import pytest
from tools.chapters import contents, notebook_chapters
from tools.equations import asserting_lines, python_of
from tools.notebooks import Generator, animates
from tools.places import BOOK, ROOT

CHAPTERS = notebook_chapters()
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)


def test_there_are_chapters():
    assert CHAPTERS


@each_chapter
def test_a_chapter_with_code_asserts_what_it_claims(chapter):
    assert any(asserting_lines(cell) for cell in chapter.code_cells), (
        f"{chapter.path} has code and not one assertion"
    )


@each_chapter
def test_every_figure_has_name_caption_and_words(chapter):
    for cell in chapter.code_cells:
        if cell.figure is None:
            continue
        place = f"{chapter.path}:{cell.line}"
        assert re.fullmatch(r"fig-[a-z0-9-]+", cell.figure.get("name") or ""), place
        # An animation's words are the argument `alt` of its call, which counts them itself.
        for part in ("caption",) if animates(cell) else ("caption", "alt"):
            words = str(cell.figure.get(part) or "").split()
            assert len(words) >= 6, f"{place}: the {part} needs a sentence: {' '.join(words)!r}"


@each_chapter
def test_a_chapter_becomes_a_plain_notebook(chapter):
    notebook = Generator().notebook(chapter, "https://example.org/o/r", "0" * 40)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"(`+).+?\1", "", cell.source, flags=re.DOTALL)
            assert not re.search(r"\{[\w:-]+\}`|^\s*:::|^```\{", text, re.MULTILINE), cell.source


@each_chapter
def test_jupytext_reads_the_same_code_cells(chapter):
    notebook = jupytext.reads(chapter.text, fmt="md:myst")
    theirs = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert theirs == [cell.source for cell in chapter.code_cells]


@each_chapter
def test_chapters_import_nothing_that_colab_lacks(chapter):
    missing = {"jupyter_book", "jupytext", "myst_nb", "nbval", "numpyro", "sphinx", "tools"}
    for cell in chapter.code_cells:
        for node in ast.walk(ast.parse(python_of(cell))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in missing, f"{chapter.path}:{cell.line}: {name}"


def test_every_chapter_is_in_the_table_of_contents():
    listed = {entry.chapter.path for entry in contents()}
    files = set(BOOK.rglob("*.md")) - set((BOOK / "_static").rglob("*"))
    assert files == listed


def test_no_notebook_is_in_git():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git clone")
    done = subprocess.run(
        ["git", "ls-files", "--", "*.ipynb"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "", "notebooks are generated from book/ and do not belong in git"
