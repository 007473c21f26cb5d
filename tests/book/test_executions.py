"""Only what ran and passed, as it stands, reaches a page."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from jupyter_cache import get_cache
from myst_nb.core.read import read_myst_markdown_notebook
from nbformat.v4 import new_output
from tools import build, executions
from tools.notebooks import Generator
from tools.places import ROOT

CELLS = {
    "good": "x = 1\nprint('fine')\nx",
    "bad": "assert 1 == 2",
    "loud": "import sys\nprint('careful', file=sys.stderr)",
    "partial": "print('SKIPPED: the data are not here')",
    "slow": "import time\ntime.sleep(60)",
    "edited": "print('as it was')",
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A small project with the real tools, whose chapters have all been run once."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "_config.yml"):
        shutil.copy(ROOT / name, root)
    (root / "requirements.txt").write_text("")
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '-ra'\n")
    (root / "experiments").mkdir()
    (root / "src" / "vae").mkdir(parents=True)
    (root / "src" / "vae" / "__init__.py").write_text("VALUE = 1\n")
    (root / "book").mkdir()
    (root / "book" / "references.bib").write_text("")
    (root / "book" / "index.md").write_text("# Index\n")
    front = "---\nkernelspec:\n  display_name: Python 3\n  name: python3\n---\n\n"
    for name, code in CELLS.items():
        last = "```{code-cell}\nassert x == 1\n```\n" if name == "bad" else ""
        text = f"{front}# {name}\n\n```{{code-cell}}\n{code}\n```\n\n{last}"
        (root / "book" / f"{name}.md").write_text(text)
    toc = {"format": "jb-book", "root": "index"}
    toc["parts"] = [{"caption": "A", "numbered": 1, "chapters": [{"file": n} for n in CELLS]}]
    (root / "_toc.yml").write_text(json.dumps(toc))
    done = run(root, "-m", "tools.notebooks")
    assert done.returncode == 0, done.stderr
    edited = root / "book" / "edited.md"
    edited.write_text(edited.read_text().replace("as it was", "as it is"))
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=2"]
    options += ["-n", "2", "--dist", "loadfile"]
    done = run(root, "-m", "pytest", "-p", "no:cacheprovider", *options, "_build/notebooks")
    return root, done.stdout


def run(root, *arguments):
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def kept(root) -> set[str]:
    return {path.stem for path in (root / "_build" / "executed").glob("*.ipynb")}


def test_only_chapters_that_passed_are_kept(scratch):
    root, output = scratch
    assert kept(root) == {"good", "partial"}, output


def test_a_chapter_edited_before_its_notebook_ran_is_not_kept(scratch):
    assert "edited: 2 cells" in scratch[1]
    assert "the chapter changed meanwhile" in scratch[1]


def test_a_failing_cell_fails(scratch):
    assert "bad.ipynb::Cell 1" in scratch[1]
    assert "bad: 3 cells" in scratch[1]
    assert "bad.ipynb::Cell 2 failed too, after Cell 1, which see" in scratch[1]


def test_a_cell_that_writes_to_stderr_fails(scratch):
    assert "The cell wrote to stderr" in scratch[1]
    assert "careful" in scratch[1]


def test_a_cell_that_takes_too_long_fails(scratch):
    assert "Timeout of 2 seconds exceeded" in scratch[1]


def test_a_claim_that_could_not_be_checked_counts_as_skipped(scratch):
    assert "the data are not here" in scratch[1]
    assert "1 skipped" in scratch[1].splitlines()[-1]
    assert "partial: 2 cells" in scratch[1]
    assert "1 claims skipped" in scratch[1]


def test_seconds_and_memory_are_reported(scratch):
    report = json.loads((scratch[0] / "_build" / "chapters.json").read_text())
    assert set(report) == {"good", "partial"}
    assert report["good"]["seconds"] > 0
    assert report["good"]["peak_mib"] > 10
    assert report["partial"]["skipped"] == ["the data are not here"]


ASK = textwrap.dedent(
    """
    from tools.chapters import notebook_chapters
    from tools.executions import kept
    print(*[c.name for c in notebook_chapters() if kept(c)])
    """
)


@pytest.mark.parametrize(
    ("path", "text", "left"),
    [
        ("src/vae/__init__.py", "VALUE = 2\n", set()),
        ("experiments/table.csv", "a,b\n", set()),
        ("requirements.txt", "numpy\n", set()),
        ("book/good.md", None, {"good", "partial"}),
    ],
)
def test_outputs_hold_only_while_what_they_depend_on_does(scratch, path, text, left):
    root, _ = scratch
    file = root / path
    before = file.read_text() if file.exists() else None
    assert set(run(root, "-c", ASK).stdout.split()) == {"good", "partial"}
    file.write_text(text if text is not None else before + "\nMore prose.\n")
    try:
        assert set(run(root, "-c", ASK).stdout.split()) == left
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before)


def test_a_change_of_code_in_one_chapter_concerns_that_chapter(scratch):
    root, _ = scratch
    file = root / "book" / "good.md"
    before = file.read_text()
    file.write_text(before.replace("x = 1", "x = 2"))
    try:
        assert run(root, "-c", ASK).stdout.split() == ["partial"]
    finally:
        file.write_text(before)


def test_a_change_of_the_data_concerns_every_chapter(scratch, tmp_path, monkeypatch):
    root, _ = scratch
    (tmp_path / "mnist.gz").write_text("digits")
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path))
    assert run(root, "-c", ASK).stdout.split() == []


def test_the_book_is_not_built_over_chapters_that_did_not_pass(scratch):
    root, _ = scratch
    done = run(root, "-m", "tools.build", "--no-execute")
    assert done.returncode == 1
    assert "not been executed as they stand" in done.stderr
    assert "bad" in done.stdout
    assert not (root / "_build" / "html").exists()


def test_jupyter_books_cache_holds_what_was_kept_without_the_set_up(
    tmp_path, write_chapter, make_entries
):
    chapter = write_chapter("one", "# One\n\n```{code-cell}\n1 + 1\n```\n")
    notebook = Generator(make_entries(chapter)).notebook(chapter, None, None)
    cell = executions.chapter_code(notebook)[0]
    cell.outputs = [new_output("execute_result", {"text/plain": "2"}, execution_count=7)]
    facts = {"code": executions.code_key(chapter), "data": executions.data_key(), "seconds": 1.0}
    executions.keep(chapter, notebook, facts, tmp_path / "executed")
    executions.fill_cache([chapter], tmp_path / "cache", tmp_path / "executed")

    page = read_myst_markdown_notebook(chapter.text)
    _, merged = get_cache(str(tmp_path / "cache")).merge_match_into_notebook(page)
    (code,) = [c for c in merged.cells if c.cell_type == "code"]
    assert code.outputs[0]["data"]["text/plain"] == "2"


def test_the_cache_is_not_filled_without_outputs(tmp_path, write_chapter):
    chapter = write_chapter("one", "# One\n\n```{code-cell}\n1 + 1\n```\n")
    with pytest.raises(LookupError, match="one has not been executed as it stands"):
        executions.fill_cache([chapter], tmp_path / "cache", tmp_path / "executed")


def test_outputs_of_other_cells_are_refused(write_chapter, make_entries):
    chapter = write_chapter("one", "# One\n\n```{code-cell}\n1\n```\n")
    first = Generator(make_entries(chapter)).notebook(chapter, None, None)
    other = write_chapter("one", "# One\n\n```{code-cell}\n2\n```\n")
    second = Generator(make_entries(other)).notebook(other, None, None)
    with pytest.raises(ValueError, match="other code cells"):
        executions.with_outputs(second, first)


def test_a_log_that_speaks_of_execution_is_a_complaint():
    log = "a.md: Using cached notebook: ID=1\nb.md: Executing notebook using local CWD [mystnb]\n"
    assert build.complaints(log) == ["b.md: Executing notebook using local CWD [mystnb]"]
    assert build.complaints("b.md: Executed notebook in 1.00 seconds") != []
    assert build.complaints("a.md: Using cached notebook: ID=1") == []
