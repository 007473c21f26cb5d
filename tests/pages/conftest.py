"""The browser that the pages are looked at in."""

import shutil

import pytest


@pytest.fixture(scope="module")
def browser():
    """One headless Chromium for the tests of a module, which are skipped where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()
