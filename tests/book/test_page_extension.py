"""The Sphinx extension takes out what would ask a third party, and nothing else."""

from docutils import nodes
from matplotlib._animation_data import JS_INCLUDE
from tools import pages


def test_the_icon_sheet_of_an_animation_is_dropped():
    assert "https://" in JS_INCLUDE
    document = nodes.raw("", JS_INCLUDE + "<script>play()</script>", format="html")
    root = nodes.section("", document)
    pages.drop_icon_sheets(None, root, "one")
    assert "https://" not in document.astext()
    assert "play()" in document.astext()


def test_other_links_stay():
    html = '<link rel="stylesheet" href="_static/book.css"><a href="https://example.org">x</a>'
    node = nodes.raw("", html, format="html")
    pages.drop_icon_sheets(None, nodes.section("", node), "one")
    assert node.astext() == html


def test_mathjax_is_where_the_extension_looks():
    for name in pages._MATHJAX:
        assert (pages._mathjax_folder() / name).exists()
