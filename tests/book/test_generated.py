"""Pages that are filled in when the book is built."""

import pytest
from tools import executions, generated
from tools.chapters import contents
from tools.places import BOOK


@pytest.fixture
def executed(monkeypatch):
    """Every chapter executed, in one environment; a dictionary to change the facts of some."""
    facts: dict[str, dict] = {}

    class Notebook:
        def __init__(self, name):
            same = {"machine": "abacus", "python": "3.11.9"}
            base = {
                "cells": 10,
                "seconds": 20.4,
                "peak_mib": 900.4,
                "skipped": [],
                "environment": same,
            }
            self.metadata = {"execution": base | facts.get(name, {})}

    monkeypatch.setattr(executions, "kept", lambda chapter: Notebook(chapter.name))
    return facts


def test_the_seconds_of_each_chapter_and_their_sum(executed):
    executed["foundations/elbo"] = {"seconds": 31.6, "skipped": ["no MNIST"]}
    table = generated.fill("before\n\n% generated: seconds\n\nafter", "page")
    assert table.startswith("before\n\n| chapter") and table.endswith("|\n\nafter")
    assert "| {doc}`/foundations/elbo` | 10 | 32 | 900 | 1 |" in table
    chapters = sum(entry.chapter.is_notebook for entry in contents())
    total = 20.4 * (chapters - 1) + 31.6
    assert f"| together | {10 * chapters} | {total:.0f} | | 1 |" in table


def test_one_table_for_each_environment(executed):
    assert generated.fill("% generated: environment", "page").count("all chapters") == 1
    executed["building/vae"] = {"environment": {"machine": "loom", "python": "3.13"}}
    tables = generated.fill("% generated: environment", "page")
    assert "| building/vae | |\n|---|---|\n| machine | loom |" in tables
    assert "abacus" in tables and "all chapters" not in tables


def test_a_chapter_that_has_not_been_executed_stops_the_page(monkeypatch):
    monkeypatch.setattr(executions, "kept", lambda chapter: None)
    with pytest.raises(LookupError, match="has not been executed as it stands"):
        generated.fill("% generated: seconds", "page")


def test_a_mark_that_nothing_generates_is_named():
    with pytest.raises(LookupError, match="appendix/colophon: nothing generates `weather`"):
        generated.fill("% generated: weather", "appendix/colophon")
    text = "the line % generated: weather is no mark"
    assert generated.fill(text, "page") == text


def test_the_commit_is_named_and_so_is_what_differs(monkeypatch):
    monkeypatch.setattr(generated.repository, "commit", lambda: "0" * 40)
    monkeypatch.setattr(generated.repository, "uncommitted", lambda: [])
    assert "commit `" + "0" * 40 + "`, with nothing uncommitted" in generated.commit()
    monkeypatch.setattr(generated.repository, "uncommitted", lambda: ["a", "b"])
    assert "with 2 uncommitted changes" in generated.commit()
    monkeypatch.setattr(generated.repository, "commit", lambda: None)
    assert "no commit" in generated.commit()


def test_every_mark_of_the_book_can_be_filled(executed):
    pages = [path for path in BOOK.rglob("*.md") if "% generated: " in path.read_text("utf-8")]
    assert len(pages) >= 2
    for path in pages:
        assert "% generated: " not in generated.fill(path.read_text("utf-8"), path.stem)


def test_what_ran_says_on_what_it_ran():
    environment = executions.environment()
    assert {"machine", "python", "jax", "flax", "optax", "numpy"} <= environment.keys()
    assert all(environment.values())


ROW = {
    "id": "mnist.x", "what": "a_b", "unit": "nats", "theirs": "-100.0", "source": "them",
    "ours": "-98.5", "low": "-99.0", "high": "-98.0", "seeds": "2", "examples": "1000",
    "seconds": "60", "machine": "abacus", "commit": "abc", "command": "python -m x", "note": "n",
    "better": "higher", "tolerance": "1.0", "why": "",
}  # fmt: skip


def test_the_ledger_shows_each_number_beside_the_published_one(monkeypatch):
    short = {**ROW, "id": "mnist.y", "ours": "-102.0", "why": "too few examples"}
    alone = {**ROW, "id": "circles.z", "theirs": "", "what": "seeds"}
    monkeypatch.setattr(generated.recorded, "read", lambda: [alone, ROW, short])
    page = generated.ledger()
    assert "3 numbers. For 2 of them" in page and "0 matched, 1 better, 1 short" in page
    assert r"a\_b, nats | -100.0 | -98.5 | 2: -99.0 to -98.0 | +1.50 | better (±1) |" in page
    assert "- `mnist.y` is short: too few examples" in page
    assert page.index("## MNIST") < page.index("## Circles")
    circles = page[page.index("## Circles") :]
    assert "verdict" not in circles and "| -98.5 | 2: -99.0 to -98.0 | 1,000 | 60 |" in circles
    assert "| `python -m x` | abacus | `abc` | n | them | 2 |" in page


def test_the_rows_of_the_ledger_come_in_the_order_of_their_numbers(monkeypatch):
    ids = ["mnist.nz20.x", "mnist.nz3.x", "mnist.nz200.x"]
    rows = [{**ROW, "id": id, "low": ROW["ours"], "high": ROW["ours"], "seeds": "1"} for id in ids]
    monkeypatch.setattr(generated.recorded, "read", lambda: rows)
    page = generated.ledger()
    assert page.index("nz3.") < page.index("nz20.") < page.index("nz200.")
    assert "| -98.5 | 1 | +1.50 |" in page  # one seed has no spread


@pytest.mark.parametrize(
    "id", ["fig3.n1000.mcem.30e6.test", "likelihood.vae.k1.gap", "vae.k1.nll", "iwae.k50.nll"]
)
def test_the_rows_of_experiments_that_are_to_come_have_a_part(monkeypatch, id):
    monkeypatch.setattr(generated.recorded, "read", lambda: [{**ROW, "id": id}])
    assert f"`{id}`" in generated.ledger()


def test_a_row_of_no_part_of_the_ledger_is_named(monkeypatch):
    monkeypatch.setattr(generated.recorded, "read", lambda: [{**ROW, "id": "weather.1"}])
    with pytest.raises(LookupError, match=r"weather\.1 belongs to no part"):
        generated.ledger()
