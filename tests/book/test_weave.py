"""Woven cells hold the package's source, and nothing else calls itself by its names."""

import importlib
import sys
import types

import pytest
from tools.chapters import Chapter, ChapterError
from tools.weave import defined_names, problems, source_of, weave

SOURCE = 'def bound(x):\n    """The bound."""\n    return -x\n'


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `tiny` with one public function, one in a submodule and one private."""
    folder = tmp_path / "src" / "tiny"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "from tiny import scores\nfrom tiny.bounds import bound\n\n"
        '__all__ = ["bound", "gone", "scores"]\n'
    )
    (folder / "bounds.py").write_text(SOURCE)
    (folder / "scores.py").write_text("def score(x):\n    return x\n\n\ndef _hidden():\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    yield importlib.import_module("tiny")
    for name in [name for name in sys.modules if name.split(".")[0] == "tiny"]:
        del sys.modules[name]


def cell(code: str, name: str | None = None) -> str:
    head = f":weave: {name}\n\n" if name else ""
    return f"```{{code-cell}} ipython3\n{head}{code}\n```\n"


def test_weave_writes_the_source_and_then_nothing_differs(package, write_chapter):
    chapter = write_chapter("one", f"# One\n\n{cell('stale', 'bound')}\nText.\n{cell('y = 1')}")
    assert "differs from the source of tiny.bound" in problems(chapter, package)[0]
    assert weave(chapter, package) == ["bound"]
    again = Chapter(chapter.path, chapter.root)
    assert [c.source for c in again.code_cells] == [SOURCE.rstrip("\n"), "y = 1"]
    assert problems(again, package) == []
    assert weave(again, package) == []


def test_a_drifted_cell_names_chapter_and_command(package, write_chapter):
    drifted = SOURCE.replace("-x", "x").rstrip("\n")
    chapter = write_chapter("one", f"# One\n\n{cell(drifted, 'bound')}")
    (problem,) = problems(chapter, package)
    assert str(chapter.path) in problem
    assert "make weave" in problem


def test_dotted_names_are_followed(package):
    assert source_of("scores.score", package) == "def score(x):\n    return x"


@pytest.mark.parametrize("name", ["none", "gone", "scores._hidden", "scores.none", "bounds.bound"])
def test_a_name_that_is_not_public_is_refused(package, write_chapter, name):
    chapter = write_chapter("one", f"# One\n\n{cell('x = 1', name)}")
    (problem,) = problems(chapter, package)
    assert "is no public name" in problem
    with pytest.raises(ChapterError, match="is no public name"):
        weave(chapter, package)


@pytest.mark.parametrize(
    "code",
    ["def bound(x):\n    return 0", "class bound:\n    pass", "bound = 1", "a, bound = 1, 2"],
)
def test_a_public_name_in_an_unmarked_cell_is_refused(package, write_chapter, code):
    chapter = write_chapter("one", f"# One\n\n{cell(code)}")
    (problem,) = problems(chapter, package)
    assert "defines `bound`, a public name of tiny" in problem
    assert f"{chapter.path}:" in problem


def test_importing_or_using_a_public_name_is_fine(package, write_chapter):
    code = "from tiny import bound\ndef naive():\n    bound = 1\n    return bound\nx = bound(1)"
    chapter = write_chapter("one", f"# One\n\n{cell(code)}")
    assert problems(chapter, package) == []


def test_defined_names_pass_over_magics():
    assert defined_names("%time x = 1\ny: int = 2") == {"y"}


def test_the_books_woven_cells_are_their_sources():
    from tools.chapters import notebook_chapters

    vae: types.ModuleType = importlib.import_module("vae")
    found = [line for chapter in notebook_chapters() for line in problems(chapter, vae)]
    assert not found, "\n".join(found)
