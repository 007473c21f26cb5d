"""Animations on a page: how MyST-NB, the style sheet and the script treat them, in a real browser.

The page is a small one, made here as Jupyter Book makes those of the book; the last test looks at
every animation of the book that is built.
"""

import base64
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbformat.v4 import writes as write_notebook
from tools.places import BOOK, PAGES

from vae import figures

MOST = 150_000  # bytes of H.264

CONF = f"""
extensions = ["myst_nb"]
nb_execution_mode = "off"
numfig = True
html_theme = "sphinx_book_theme"
html_static_path = [{str(BOOK / "_static")!r}]
html_css_files = ["book.css"]
html_js_files = ["animations.js"]
"""


class Videos(HTMLParser):
    """The videos of a page, with what must be around and inside them."""

    def __init__(self, text: str):
        super().__init__()
        self.videos: list[dict] = []
        self.faults: list[str] = []
        self._figures: list[dict] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "figure":
            self._figures.append({"caption": False})
        elif tag == "figcaption" and self._figures:
            self._figures[-1]["caption"] = True
        elif tag == "video":
            figure = self._figures[-1] if self._figures else {"caption": False}
            self.videos.append({"attributes": attributes, "figure": figure, "sources": []})
        elif tag == "source" and self.videos:
            self.videos[-1]["sources"].append(attributes.get("src", ""))
        elif tag == "img" and re.search(r"^data:image/gif|\.gif$", attributes.get("src", "")):
            self.faults.append("a GIF, which also moves for readers who want no motion")

    def handle_endtag(self, tag):
        if tag == "figure" and self._figures:
            self._figures.pop()


def faults(text: str) -> list[str]:
    """What is wrong with the animations of a page."""
    page = Videos(text)
    found = list(page.faults)
    for video in page.videos:
        attributes = video["attributes"]
        found += [f"no {name}" for name in ("controls", "poster") if name not in attributes]
        if "autoplay" in attributes:
            found.append("autoplay, which asks nobody")
        if len((attributes.get("aria-label") or "").split()) < 6:
            found.append("fewer than six words for those who do not see it")
        if not video["figure"]["caption"]:
            found.append("no figure with a caption around it")
        if len(video["sources"]) != 1:
            found.append(f"{len(video['sources'])} sources")
        for source in video["sources"]:
            head, _, body = source.partition(",")
            data = base64.b64decode(body)
            if head != "data:video/mp4;base64" or data[4:8] != b"ftyp" or b"avc1" not in data:
                found.append("no H.264 in an MP4 file")
            if len(data) > MOST:
                found.append(f"{len(data) / 1000:.0f} KB of H.264")
    return found


def animation(width: float, height: float) -> figures.Animation:
    """A dot that wanders."""
    figure, ax = figures.screen(width, height)
    (dot,) = ax.plot([0], [0], "o")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    alt = 'An orange dot wanders from the "left" to the right & back.'
    places = np.sin(np.linspace(0, np.pi, 15))
    return figures.animate(figure, lambda i: dot.set_data([places[i]], [0.5]), 15, alt=alt, fps=10)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A built page `moving.html` with two animations, one square, one wide."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "html"))
    filler = "\n\n".join(["Words."] * 40)
    cells = [new_markdown_cell(f"# Moving\n\n{{numref}}`fig-b` is wide.\n\n{filler}")]
    with matplotlib.rc_context():
        figures.use_style()
        for name, size in {"fig-a": (4, 4), "fig-b": (7, 3)}.items():
            shown = animation(*size)._repr_mimebundle_()
            cell = new_code_cell("animate()", execution_count=1)
            cell.metadata["mystnb"] = {"figure": {"name": name, "caption": "A dot *wanders*."}}
            cell.outputs = [new_output("execute_result", shown, execution_count=1)]
            cells += [cell, new_markdown_cell(filler)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    text = write_notebook(new_notebook(cells=cells, metadata=kernel))
    (source / "moving.ipynb").write_text(text, encoding="utf-8")
    (source / "conf.py").write_text(CONF + 'root_doc = "moving"\n', encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def text(site):
    return (site / "moving.html").read_text(encoding="utf-8")


def test_an_animation_of_a_figure_cell_is_a_numbered_figure_with_a_caption(text):
    assert faults(text) == [] and len(Videos(text).videos) == 2
    for name, number in {"fig-a": 1, "fig-b": 2}.items():
        figure = re.search(rf'<figure[^>]*id="{name}".*?</figure>', text, re.DOTALL)[0]
        assert figure.count("<video") == 1
        assert f'<span class="caption-number">Fig. {number} </span>' in figure
        assert "A dot <em>wanders</em>." in figure
    assert '<a class="reference internal" href="#fig-b"><span class="std std-numref">Fig. 2' in text


def test_the_search_index_holds_words_and_no_pictures(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "wander" in index and "base64" not in index and len(index) < 10_000


def with_data(text, change):
    """The page with the bytes of its videos changed."""

    def replace(match):
        return match[1] + base64.b64encode(change(base64.b64decode(match[2]))).decode()

    return re.sub(r"(data:video/mp4;base64,)([^\"]+)", replace, text)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda t: t.replace("<video controls", "<video"), "no controls"),
        (lambda t: re.sub(r' poster="[^"]+"', "", t), "no poster"),
        (lambda t: t.replace("<video ", "<video autoplay "), "autoplay, which asks nobody"),
        (
            lambda t: re.sub(r'aria-label="An [^"]+"', 'aria-label="A dot"', t),
            "fewer than six words",
        ),
        (lambda t: re.sub(r"</?figcaption>", "", t), "no figure with a caption"),
        (lambda t: re.sub(r"</?figure[^>]*>", "", t), "no figure with a caption"),
        (lambda t: re.sub(r"<source[^>]+>", "", t), "0 sources"),
        (lambda t: with_data(t, lambda d: d.replace(b"avc1", b"hev1")), "no H.264 in an MP4 file"),
        (lambda t: with_data(t, lambda d: d + bytes(MOST)), r"1\d\d KB of H.264"),
        (lambda t: t.replace("data:image/png", "data:image/gif"), "a GIF, which also moves"),
    ],
)
def test_the_eye_for_faults_sees_them(text, spoil, fault):
    assert any(re.match(fault, found) for found in faults(spoil(text)))


class Visit:
    """The page in a browser; `video` 0 is square, 1 is wide."""

    def __init__(self, browser, site, width=1280, **options):
        self.context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        self.page = self.context.new_page()
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto((site / "moving.html").as_uri(), wait_until="load")

    def __enter__(self):
        if not self.page.evaluate(
            "document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.640028\"')"
        ):
            self.context.close()
            pytest.skip("this Chromium plays no H.264")
        return self

    def __exit__(self, kind, *exception):
        self.context.close()
        assert kind or self.errors == []

    def _js(self, index, code):
        return f"() => {{ const v = document.querySelectorAll('video')[{index}]; {code} }}"

    def do(self, index, code):
        return self.page.evaluate(self._js(index, code))

    def until(self, index, condition):
        self.page.wait_for_function(self._js(index, f"return {condition}"), timeout=5000)

    def show(self, index):
        self.do(index, "v.scrollIntoView({block: 'center', behavior: 'instant'})")

    def leave(self):
        self.page.evaluate("window.scrollTo({top: 0, behavior: 'instant'})")

    def rest(self):
        """Long enough for the script to do what it should not."""
        self.page.wait_for_timeout(500)

    def box(self, index):
        return self.do(
            index, "const b = v.getBoundingClientRect(); return [b.left, b.width, b.height]"
        )


def test_an_animation_plays_in_view_and_rests_out_of_it(browser, site):
    with Visit(browser, site) as visit:
        visit.rest()
        assert visit.do(0, "return v.paused && v.currentTime === 0")
        visit.show(0)
        visit.until(0, "!v.paused && v.currentTime > 0.1")
        assert visit.do(1, "return v.paused")
        visit.show(1)
        visit.until(1, "!v.paused && v.currentTime > 0.1")
        visit.until(0, "v.paused")
        visit.show(0)
        visit.until(0, "!v.paused")


def test_what_the_reader_stops_stays_stopped_until_they_start_it(browser, site):
    with Visit(browser, site) as visit:
        visit.show(0)
        visit.until(0, "!v.paused && v.currentTime > 0.1")
        visit.do(0, "v.pause()")
        visit.rest()
        visit.leave()
        visit.rest()
        visit.show(0)
        visit.rest()
        assert visit.do(0, "return v.paused")
        visit.do(0, "v.play()")
        visit.until(0, "!v.paused")
        visit.leave()
        visit.until(0, "v.paused")
        visit.show(0)
        visit.until(0, "!v.paused")


def test_nothing_starts_for_those_who_want_no_motion_but_they_may_start_it(browser, site):
    with Visit(browser, site, reduced_motion="reduce") as visit:
        visit.show(0)
        visit.rest()
        assert visit.do(0, "return v.paused && v.currentTime === 0")
        visit.do(0, "v.play()")
        visit.until(0, "!v.paused && v.currentTime > 0.1")
        visit.leave()
        visit.until(0, "v.paused")
        visit.show(0)
        visit.rest()
        assert visit.do(0, "return v.paused")
    with Visit(browser, site) as visit:
        visit.show(0)
        visit.until(0, "!v.paused")
        visit.page.emulate_media(reduced_motion="reduce")
        visit.until(0, "v.paused")
        visit.page.emulate_media(reduced_motion="no-preference")
        visit.until(0, "!v.paused")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_an_animation_fits_the_screen_and_keeps_its_shape(browser, site, width, motion):
    with Visit(browser, site, width, reduced_motion=motion) as visit:
        for index, (made, ratio) in enumerate([(400, 1), (700, 3 / 7)]):
            left, across, down = visit.box(index)
            assert left >= 0 and left + across <= width
            assert across <= made and (across > made - 20 or width == 390)
            assert across > 300
            picture = across * ratio
            room = down - picture  # for the controls, below a still that stays
            assert (60 <= room <= 90) if motion == "reduce" else abs(room) <= 3


def test_paper_gets_the_still(browser, site):
    with Visit(browser, site) as visit:
        still = visit.page.locator("figure#fig-a img")
        assert not still.is_visible() and visit.page.locator("figure#fig-a video").is_visible()
        visit.page.emulate_media(media="print")
        assert still.is_visible() and not visit.page.locator("figure#fig-a video").is_visible()
        assert still.evaluate("image => image.naturalWidth") == 520
        assert len(still.get_attribute("alt").split()) > 6


@pytest.mark.skipif(not (PAGES / "index.html").exists(), reason="no book: run `make book`")
def test_every_animation_of_the_book_is_in_order():
    found = {}
    for path in sorted(PAGES.rglob("*.html")):
        page = path.relative_to(PAGES).as_posix()
        found[page] = faults(path.read_text(encoding="utf-8"))
    assert {page: wrong for page, wrong in found.items() if wrong} == {}
    assert "base64" not in (PAGES / "searchindex.js").read_text(encoding="utf-8")
