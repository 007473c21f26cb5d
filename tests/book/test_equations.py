"""No labelled equation without a check, or a reason why there is nothing to check."""

import pytest
from tools import equations
from tools.chapters import Chapter, ChapterError, Entry, contents
from tools.places import EQUATIONS

ENTRIES = contents()
each_page = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.chapter.name)
CHECKED = {
    label
    for entry in ENTRIES
    if entry.chapter.is_notebook
    for check in equations.checks(entry.chapter)
    for label in check.labels
}


@each_page
def test_every_displayed_equation_has_a_label(entry):
    lines = equations.unlabelled(entry.chapter)
    assert not lines, f"{entry.chapter.path}: displayed equations without a label, lines {lines}"


@each_page
def test_every_equation_is_checked_or_excused(entry):
    labels, excused = equations.equations(entry), equations.excused(entry.chapter)
    missing = set(labels) - CHECKED - set(excused)
    assert not missing, (
        f"no cell of {entry.chapter.path} checks {sorted(missing)}: name each in a comment above "
        "what asserts it, or say in tests/book/equations/ why there is nothing to evaluate"
    )
    assert not set(excused) & CHECKED, "excused, though a cell checks it"
    assert not set(excused) - set(labels), "excused, but there is no such equation"
    for label, (_, reason) in excused.items():
        assert len(reason.split()) >= 5, f"{label}: the reason is too short: {reason!r}"


def test_no_check_names_an_equation_that_is_not_there():
    labels = {label for entry in ENTRIES for label in equations.equations(entry)}
    assert not CHECKED - labels


def test_every_table_belongs_to_a_chapter():
    stems = {entry.chapter.path.stem for entry in ENTRIES}
    assert {path.stem for path in EQUATIONS.glob("*.toml")} <= stems


def chapter_with(tmp_path, code: str, text: str = "") -> Chapter:
    path = tmp_path / "one.md"
    path.write_text(f"# One\n\n{text}\n\n```{{code-cell}} ipython3\n{code}\n```\n")
    return Chapter(path, tmp_path)


def test_a_comment_counts_only_above_an_assertion(tmp_path):
    found = equations.checks(chapter_with(tmp_path, "# eq-a-b and eq-c: equal.\nassert 1 == 1"))
    assert [check.labels for check in found] == [("eq-a-b", "eq-c")]
    with pytest.raises(ChapterError, match=r"one\.md:8: names `eq-a`, but asserts nothing below"):
        equations.checks(chapter_with(tmp_path, "assert 1 == 1\nx = 1\n# eq-a: after the fact"))
    testing = "import numpy as np\n# eq-a\nnp.testing.assert_allclose(1, 1)"
    assert equations.checks(chapter_with(tmp_path, testing))


def test_a_label_in_a_string_or_beside_code_is_no_check(tmp_path):
    code = 'assert "eq-a"  # eq-b\nx = "# eq-c"\nassert x'
    assert equations.checks(chapter_with(tmp_path, code)) == []


def test_comment_lines_are_read_as_one(tmp_path):
    code = "# eq-a: the left side\n# and the right.\n# eq-b: another.\nassert 1 == 1"
    found = equations.checks(chapter_with(tmp_path, code))
    assert [check.text for check in found] == [
        "eq-a: the left side and the right.",
        "eq-b: another.",
    ]


def test_the_table_says_what_the_cells_say(tmp_path):
    text = "$$\na = b\n$$ (eq-a)\n\n$$\nc\n$$ (eq-c)"
    chapter = chapter_with(tmp_path, "# eq-a: one | two.\nassert 1 == 1", text)
    notebook = "---\nkernelspec: {name: python3}\n---\n" + chapter.text
    chapter.path.write_text(notebook)
    chapter = Chapter(chapter.path, tmp_path)
    table = equations.table([Entry(chapter, 1)])
    assert "| {eq}`eq-a` | checked | one \\| two |" in table
    assert "| {eq}`eq-c` |  |  |" in table
    assert equations.unlabelled(chapter_with(tmp_path, "x = 1", "$$\na\n$$")) == [3]
