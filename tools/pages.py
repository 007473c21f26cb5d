"""A small Sphinx extension: pages that ask nobody but their own site for anything.

MathJax is served from the site; thebe, the icon script and the icon sheet that Matplotlib's
animations link are dropped; a chapter's page offers its executed notebook, and Colab where the
repository's address is known.
"""

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from tools import generated, repository
from tools.chapters import notebook_chapters

# What tex-chtml.js loads: itself and its fonts. The rest of the distribution is never asked for.
_MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2")
_UNUSED = ("thebe", "scripts/fontawesome.js")
_ICON_SHEET = re.compile(r"<link[^>]*href=[\"']https?://[^>]*font-?awesome[^>]*>\s*", re.IGNORECASE)
_ICON_SCRIPT = re.compile(r"^.*<script[^>]*scripts/fontawesome\.js.*$\n?", re.MULTILINE)


def _mathjax_folder() -> Path:
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None:
        raise ModuleNotFoundError("sphinx-mathjax-offline is not installed: run `make .venv`")
    return Path(spec.origin).parent / "static" / "mathjax"


def set_mathjax_path(app: Sphinx, config: Any) -> None:
    """Load MathJax from the site's own `_static/`."""
    config.mathjax_path = "mathjax/tex-chtml.js"


def write_generated(app: Sphinx, docname: str, source: list[str]) -> None:
    """Fill in what a page leaves to be generated."""
    source[0] = generated.fill(source[0], docname)


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Copy MathJax and its fonts beside the pages."""
    if exception or app.builder.format != "html":
        return
    for name in _MATHJAX:
        source = _mathjax_folder() / name
        target = Path(app.outdir) / "_static" / "mathjax" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)


def drop_icon_script(app: Sphinx, exception: Exception | None) -> None:
    """Take the theme's icon script (a style sheet draws the icons already) out of every page."""
    if exception or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        without = _ICON_SCRIPT.sub("", text)
        if without != text:
            page.write_text(without, encoding="utf-8")
    for name in ("fontawesome.js", "fontawesome.js.map", "fontawesome.js.LICENSE.txt"):
        (Path(app.outdir) / "_static" / "scripts" / name).unlink(missing_ok=True)


def drop_icon_sheets(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Take the link to a third party's icon sheet out of Matplotlib's animations."""
    for node in doctree.findall(nodes.raw):
        text = node.astext()
        if _ICON_SHEET.search(text):
            without = _ICON_SHEET.sub("", text)
            node.children = [nodes.Text(without)]
            node.rawsource = without


def finish_context(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None
) -> None:
    """Drop thebe's scripts and add the buttons for the notebook and the source."""
    for key in ("script_files", "css_files"):
        context[key] = [
            file
            for file in context.get(key, [])
            if not any(name in str(getattr(file, "filename", file) or "") for name in _UNUSED)
            and "thebe" not in str(getattr(file, "attributes", {}).get("body", ""))
        ]
    buttons = context.get("header_buttons")
    if buttons is None or doctree is None:
        return
    address = repository.address()
    if pagename in app.config.book_notebooks:
        notebook = f"{pagename}.ipynb"
        colab = repository.colab_link(notebook, address)
        if colab:
            buttons.append(_button(colab, "fas fa-rocket", "Colab", "Open and run in Colab"))
        here = notebook.rsplit("/", 1)[-1]
        tooltip = "Download this chapter as an executed notebook"
        buttons.append(_button(here, "fas fa-download", ".ipynb", tooltip))
    source = repository.normalise(address)
    if source:
        buttons.append(_button(source, "fas fa-code-branch", "", "The book's repository"))


def _button(url: str, icon: str, text: str, tooltip: str) -> dict[str, str]:
    return {"type": "link", "url": url, "icon": icon, "text": text, "tooltip": tooltip}


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the above to Sphinx's events."""
    names = [chapter.name for chapter in notebook_chapters()]
    app.add_config_value("book_notebooks", names, "env")
    app.connect("config-inited", set_mathjax_path)
    app.connect("source-read", write_generated)
    app.connect("doctree-resolved", drop_icon_sheets)
    app.connect("html-page-context", finish_context, priority=600)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", drop_icon_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
