"""Where everything stands, said once, for the tools and the tests."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

BOOK = ROOT / "book"
CONFIG = ROOT / "_config.yml"
CONTENTS = ROOT / "_toc.yml"
REFERENCES = BOOK / "references.bib"
SOURCES = ROOT / "src"
EXPERIMENTS = ROOT / "experiments"
LOCK = ROOT / "requirements.txt"
EQUATIONS = ROOT / "tests" / "book" / "equations"

BUILD = ROOT / "_build"
NOTEBOOKS = BUILD / "notebooks"  # generated from book/, without outputs; what nbval runs
EXECUTED = BUILD / "executed"  # the same notebooks with outputs, only those that passed
CACHE = BUILD / ".jupyter_cache"  # Jupyter Book's cache, filled from EXECUTED before each build
REPORT = BUILD / "chapters.json"  # seconds and memory of each chapter
PAGES = BUILD / "html"
