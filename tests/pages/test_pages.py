"""The built pages in a real browser: at two widths, light and dark, without the network."""

import threading
from urllib.parse import urlparse

import pytest
from tools.chapters import contents
from tools.labels import book_labels
from tools.places import PAGES
from tools.serve import server

pytestmark = pytest.mark.skipif(
    not (PAGES / "index.html").exists(), reason="no book: run `make book`"
)

VIEWS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
ENTRIES = contents()
NAMES = [entry.chapter.name for entry in ENTRIES]
CHAPTERS = [entry.chapter for entry in ENTRIES if entry.chapter.is_notebook]

MATH_IS_SET = """async () => {
  if (!document.querySelector(".math")) return true;
  while (!(window.MathJax && MathJax.startup && MathJax.startup.promise)) {
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  await MathJax.startup.promise;
  return true;
}"""

# Everything that is drawn, as a reader would notice it.
LOOK = r"""() => {
  const article = document.querySelector("article.bd-article");
  const clone = article.cloneNode(true);
  clone.querySelectorAll("pre, code, script, style, mjx-container").forEach(n => n.remove());
  const images = [...document.querySelectorAll("article.bd-article img")];
  const wide = [...article.querySelectorAll("*")].filter(node => {
    const box = node.getBoundingClientRect();
    if (box.width === 0 || box.right <= document.documentElement.clientWidth + 1) return false;
    for (let n = node.parentElement; n && n !== document.body; n = n.parentElement) {
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(n).overflowX)) return false;
    }
    return true;
  });
  return {
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    wide: wide.slice(0, 3).map(node => node.outerHTML.slice(0, 120)),
    theme: document.documentElement.dataset.theme,
    background: getComputedStyle(document.body).backgroundColor,
    math: article.querySelectorAll(".math").length,
    set: article.querySelectorAll("mjx-container").length,
    failed: [...document.querySelectorAll("mjx-merror")].map(n => n.textContent),
    text: clone.textContent,
    broken: images.filter(i => !i.complete || i.naturalWidth === 0).map(i => i.src.slice(0, 120)),
    speechless: images.filter(i => !(i.alt || "").trim()).map(i => i.src.slice(0, 120)),
    imageFilters: images.map(i => getComputedStyle(i).filter).filter(f => f !== "none"),
    imageCards: images.map(i => getComputedStyle(i).backgroundColor)
      .filter(colour => colour !== "rgba(0, 0, 0, 0)"),
    svgErrors: article.querySelectorAll(".error, .system-message").length,
  };
}"""


@pytest.fixture(scope="module")
def site():
    """The address of the built book, served from this machine."""
    running = server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


class Visit:
    """A page in one view, with everything that it asked for and complained of."""

    def __init__(self, browser, address: str, width: int = 1280, scheme: str = "light"):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda r: self.complaints.append(f"failed: {r.url}"))
        self.page.on("response", self._response)
        self.page.goto(address, wait_until="networkidle")
        self.page.evaluate(MATH_IS_SET)
        self.page.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
        self.page.evaluate("Promise.all([...document.images].map(i => i.decode().catch(() => 0)))")

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _response(self, response):
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.context.close()

    def strangers(self) -> list[str]:
        """Requests that left the site."""
        home = urlparse(self.page.url).netloc
        away = [url for url in self.requests if urlparse(url).scheme not in ("data", "blob")]
        return [url for url in away if urlparse(url).netloc != home]


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
@pytest.mark.parametrize("name", NAMES)
def test_a_page_reads_well(browser, site, name, width, scheme):
    with Visit(browser, f"{site}/{name}.html", width, scheme) as visit:
        look = visit.page.evaluate(LOOK)
        assert visit.complaints == []
        assert visit.strangers() == []
        assert look["overflow"] <= 0, look["wide"]
        assert look["wide"] == []
        assert look["theme"] == scheme
        assert look["failed"] == []
        assert look["set"] >= look["math"]
        for raw in ("|---", "\\(", "\\[", "$$", "{eq}", "{ref}", "{cite}", "{numref}"):
            assert raw not in look["text"], f"raw {raw} on the page"
        assert look["broken"] == []
        assert look["speechless"] == []
        assert look["imageFilters"] == []  # nor does the theme dim figures or put cards
        assert look["imageCards"] == []  # behind them in dark mode
        assert look["svgErrors"] == 0


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)
def test_equations_have_the_same_numbers_on_the_page_and_in_the_notebook(browser, site, chapter):
    labels = {
        name: label.number
        for name, label in book_labels(ENTRIES).items()
        if label.kind == "equation" and label.chapter == chapter
    }
    with Visit(browser, f"{site}/{chapter.name}.html") as visit:
        for name, number in labels.items():
            shown = visit.page.locator(f"[id='equation-{name}'] .eqno").first.text_content()
            assert shown.strip(" ()#¶\n") == number, name


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)
def test_the_executed_notebook_stands_beside_its_page(browser, site, chapter):
    import nbformat

    notebook = nbformat.read(PAGES / f"{chapter.name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code)
    assert not any(o.output_type == "error" for cell in code for o in cell.outputs)
    with Visit(browser, f"{site}/{chapter.name}.html") as visit:
        button = visit.page.locator(f"a[href='{chapter.path.stem}.ipynb']").first
        with visit.page.expect_popup() as _popup, visit.page.expect_download() as download:
            button.click()
        assert download.value.suggested_filename == f"{chapter.path.stem}.ipynb"
