"""The check of the chapters' cells looks at them."""

from types import SimpleNamespace

from tools import lint


def chapter(source: str):
    cell = SimpleNamespace(source=source)
    return SimpleNamespace(name="a/b", code_cells=[cell])


def test_an_unused_import_and_a_crooked_line_are_found():
    found = "\n".join(lint.check([chapter("import os\n\nx = {  'a':1}")]))
    assert "F401" in found and "x = {" in found


def test_a_cell_in_order_is_passed():
    assert lint.check([chapter('x = {"a": 1}')]) == []
