"""From MyST to plain notebooks: what each construct becomes, and what is refused."""

import subprocess
import sys

import nbformat
import pytest
from pybtex.database import parse_string
from tools import citations
from tools.chapters import ChapterError
from tools.notebooks import Generator

WORK = """
@inproceedings{smith2014,
  title = {A {Title}}, author = {Smith, Ada and Brown, Bob}, year = {2014}, eprint = {1234.5678},
}
"""


@pytest.fixture(autouse=True)
def bibliography(monkeypatch):
    """One work to cite, whatever the book's bibliography holds."""
    entries = dict(parse_string(WORK, bib_format="bibtex").entries)
    monkeypatch.setattr(citations, "references", lambda: entries)


@pytest.fixture
def convert(write_chapter, make_entries):
    """The Markdown that a chapter's text becomes, without the set-up."""

    def run(text, name="one"):
        chapter = write_chapter(name, f"# Title\n\n{text}")
        notebook = Generator(make_entries(chapter)).notebook(chapter, None, None)
        return "\n\n".join(cell.source for cell in notebook.cells[2:])

    return run


def test_a_labelled_equation_carries_its_number(convert):
    text = convert("$$\na = b\n$$ (eq-a)\n\nSee {eq}`eq-a`.")
    assert "a = b \\tag{1.1}" in text
    assert "See (1.1)." in text


def test_the_math_directive_is_display_math(convert):
    text = convert("```{math}\n:label: eq-a\n\na = b\n```\n\n{eq}`eq-a`")
    assert "$$\na = b \\tag{1.1}\n$$" in text


def test_lines_of_an_equation_are_aligned_as_sphinx_does(convert):
    text = convert("$$\na &= b \\\\\n &= c\n$$")
    assert "\\begin{aligned}\na &= b" in text


def test_an_aligned_equation_is_left_alone(convert):
    text = convert("$$\n\\begin{aligned}\na &= b\n\\end{aligned}\n$$")
    assert text.count("\\begin{aligned}") == 1


def test_admonitions_become_quotations_with_math_on_one_line(convert):
    text = convert(":::{warning}\nCareful:\n\n$$\na\n= b\n$$\n:::")
    assert "> **Warning.**\n>\n> Careful:" in text
    assert "> $$ a = b $$" in text


def test_a_titled_admonition_keeps_its_title(convert):
    assert "> **Exercise 1.**" in convert("```{admonition} Exercise 1\nDo it.\n```")


def test_a_dropdown_becomes_details(convert):
    text = convert("```{admonition} Answer\n:class: dropdown\n\nIt is $42$.\n```")
    assert "<details><summary><b>Answer</b></summary>\n\nIt is $42$.\n\n</details>" in text


def test_a_nested_admonition_keeps_its_own_roles(convert):
    text = convert("::::{note}\n:::{tip}\n{math}`x`\n:::\n::::")
    assert "> > **Tip.**" in text
    assert "$x$" in text


def test_a_list_table_becomes_a_table(convert):
    text = convert(
        "```{list-table} Sizes\n:header-rows: 1\n:name: tab\n\n"
        "* - Name: x\n  - $a|b$\n* - one\n  -\n```\n\n{numref}`tab`"
    )
    assert "**Table 1.1.** Sizes" in text
    assert "| Name: x | $a\\|b$ |\n| --- | --- |\n| one |  |" in text
    assert text.endswith("Table 1.1")


def test_a_figure_cell_is_followed_by_its_caption(convert):
    cell = (
        "```{code-cell}\n---\nmystnb:\n  figure:\n    name: fig-a\n    caption: A line, $x$.\n"
        "  image:\n    alt: A line.\n---\nplot()\n```\n"
    )
    text = convert(f"{cell}\nIn {{numref}}`fig-a` and {{numref}}`see %s <fig-a>`.")
    assert "plot()\n\n**Figure 1.1.** A line, $x$." in text
    assert "In Figure 1.1 and see 1.1." in text


ANIMATION = (
    "```{code-cell}\n---\nmystnb:\n  figure:\n    name: fig-a\n    caption: Dots part.\n"
    "METADATA---\nCODE\n```\n"
)
CALL = "vae.figures.animate(figure, draw, 5,\n  alt='Dots in two colours drift slowly apart.')"


def test_an_animation_has_its_words_in_its_call_and_its_caption_below(convert):
    cell = ANIMATION.replace("METADATA", "").replace("CODE", CALL)
    text = convert(f"{cell}\nIn {{numref}}`fig-a`.")
    assert f"{CALL}\n\n**Figure 1.1.** Dots part.\n\nIn Figure 1.1." in text


@pytest.mark.parametrize(
    ("code", "metadata", "message"),
    [
        (CALL, "  image:\n    alt: Dots drift.\n", "says what it shows once"),
        ("animate(figure, draw, 5)", "", "needs `image: alt`, or a call of `animate` with `alt=`"),
        ("inanimate(alt='Dots')", "", "needs `image: alt`, or a call of `animate` with `alt=`"),
        ("plt.plot(x)", "", "needs `image: alt`, or a call of `animate` with `alt=`"),
    ],
)
def test_a_figure_cell_says_what_it_shows_once(convert, code, metadata, message):
    with pytest.raises(ChapterError) as caught:
        convert(ANIMATION.replace("METADATA", metadata).replace("CODE", code))
    assert message in str(caught.value)


def test_a_picture_file_that_is_no_picture_is_refused(convert, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"moving")
    for text in (
        "![Dots drift apart.](a.mp4)",
        "```{figure} a.mp4\n:alt: Dots drift apart.\n\nDots.\n```",
    ):
        with pytest.raises(ChapterError, match=r"a picture that is a video/mp4: a\.mp4"):
            convert(text)


def test_a_figure_file_travels_inside_the_notebook(convert, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    text = convert("```{figure} a.png\n:name: fig-a\n:alt: A small grey square.\n\nA square.\n```")
    assert "![A small grey square.](data:image/png;base64,iVBORw==)" in text
    assert "**Figure 1.1.** A square." in text


def test_citations_are_links(convert):
    text = convert("{cite:t}`smith2014` and {cite:p}`smith2014`\n\n```{bibliography}\n```")
    link = "(https://arxiv.org/abs/1234.5678)"
    assert f"[Smith and Brown (2014)]{link} and ([Smith and Brown, 2014]{link})" in text
    assert text.endswith(f"- [Smith and Brown (2014)]{link}. *A Title*.")


def test_references_to_other_chapters_name_them(write_chapter, make_entries):
    first = write_chapter("a/one", "# One\n\n$$\nx\n$$ (eq-x)\n\n(sec)=\n## Part\n")
    second = write_chapter(
        "b/two", "# Two\n\n{eq}`eq-x`, {ref}`sec`, {doc}`../a/one`, [it](#eq-x)\n"
    )
    generator = Generator(make_entries(first, second))
    text = generator.notebook(second, None, None).cells[2].source
    assert text.endswith("(1.1) of *One*, Part of *One*, *One*, it of *One*")


def test_code_spans_and_code_blocks_are_left_alone(convert):
    text = "`{eq}` and ``{eq}`nothing` `` and\n\n```python\n{eq}`nothing`\n```"
    assert convert(text).endswith(text)


def test_definitions_become_a_list(convert):
    assert "- **Bound**: it is below." in convert("Bound\n: it is below.")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("```{tabbed} A\nx\n```", 3, "no rule for the directive `{tabbed}`"),
        ("```{video} a.mp4\n```", 3, "no rule for the directive `{video}`"),
        ("```{raw} html\n<video></video>\n```", 3, "no rule for the directive `{raw}`"),
        ("a\nb {kbd}`x`", 4, "no rule for the role `{kbd}`"),
        ("{eq}`eq-none`", 3, "nothing in the book has the label `eq-none`"),
        ("(here)=\n## A\n\n{eq}`here`", 6, "is a section, not a equation"),
        ("{cite:t}`nobody1900`", 3, "references.bib has no 'nobody1900'"),
        ("text[^1]\n\n[^1]: note", 5, "no rule for footnotes"),
        ("\\begin{align}\na\n\\end{align}", 3, "write this environment between"),
        ("$$\na", 3, "display math must start with"),
        ("```{note}\nx", 3, "is never closed"),
        ("[x](other.md)", 3, "the table of contents has no page other"),
        ("```{figure} a.png\nCaption.\n```", 3, "alternative text"),
        (":::{note}\n```{code-cell}\n1\n```\n:::", 4, "inside a directive is never executed"),
        ("```{code-cell}\n:tags: [nbval-skip]\n1\n```", 5, "no rule for the tags nbval-skip"),
        ("```{code-cell}\n:tags: [raises-exception]\n1\n```", 5, "no rule for the tags raises-"),
        ("```{code-cell}\n# NBVAL_SKIP\n1\n```", 4, "every cell runs"),
        ("```{code-cell}\n:load: a.py\n1\n```", 5, "no rule for the metadata load"),
        ("$$\na\n$$ (eq-a)\n\n$$\nb\n$$ (eq-a)", 7, "the label `eq-a` is used twice"),
    ],
)
def test_what_has_no_rule_is_refused_with_file_and_line(convert, text, line, message):
    with pytest.raises(ChapterError) as caught:
        convert(text)
    # `line` counts from the title, which stands after seven lines of front matter.
    expected = line + 7
    assert f"one.md:{expected}: " in str(caught.value), str(caught.value)
    assert message in str(caught.value)


def test_cell_ids_stay_when_a_cell_is_added_before(write_chapter, make_entries):
    def ids(text):
        chapter = write_chapter("one", text)
        notebook = Generator(make_entries(chapter)).notebook(chapter, None, None)
        nbformat.validate(notebook)
        return {cell.source: cell.id for cell in notebook.cells}

    cell = "```{code-cell}\nx = 1\n```\n"
    before = ids(f"# One\n\n{cell}")
    after = ids(f"# One\n\n```{{code-cell}}\ny = 2\n```\n\n{cell}")
    assert before["x = 1"] == after["x = 1"]


def test_equal_cells_have_different_ids(write_chapter, make_entries):
    cell = "```{code-cell}\nx = 1\n```\n"
    chapter = write_chapter("one", f"# One\n\n{cell}\n{cell}")
    notebook = Generator(make_entries(chapter)).notebook(chapter, None, None)
    assert len({c.id for c in notebook.cells}) == len(notebook.cells) == 5


def _run_set_up(tmp_path, chapter, entries, address, commit, **environment):
    notebook = Generator(entries).notebook(chapter, address, commit)
    code = notebook.cells[1].source + "\nprint(vae.__file__)"
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_set_up_does_nothing_where_vae_can_be_imported(tmp_path, write_chapter, make_entries):
    chapter = write_chapter("one", "# One\n")
    (tmp_path / "vae.py").write_text("")
    done = _run_set_up(tmp_path, chapter, make_entries(chapter), None, None)
    assert done.returncode == 0, done.stderr
    assert "vae.py" in done.stdout


def test_the_set_up_says_what_to_do_without_an_address(tmp_path, write_chapter, make_entries):
    chapter = write_chapter("one", "# One\n")
    done = _run_set_up(tmp_path, chapter, make_entries(chapter), None, "0" * 40)
    assert done.returncode == 1
    assert "Copy the folder src/vae" in done.stderr


def test_the_environment_overrides_the_address(tmp_path, write_chapter, make_entries):
    chapter = write_chapter("one", "# One\n")
    done = _run_set_up(
        tmp_path,
        chapter,
        make_entries(chapter),
        "https://example.org/o/r",
        "0" * 40,
        BOOK_REPOSITORY="file:///nowhere",
    )
    assert done.returncode == 1
    assert f"git+file:///nowhere@{'0' * 40} failed" in done.stderr
