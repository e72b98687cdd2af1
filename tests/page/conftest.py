"""The page in a real headless Chromium, before a stub of the service.

CHROMIUM names the browser's program unless a usual name is on the path.
"""

import os
import shutil
from types import SimpleNamespace

import pytest
import stub
from playwright.sync_api import expect, sync_playwright

USUAL = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
).split()
PATIENCE = 15_000  # milliseconds, for a machine that is busy
# Everything that a page may store, its address included.
STORED = """async () => [
    localStorage.length, sessionStorage.length, document.cookie, location.search, location.hash,
    (await indexedDB.databases()).length, (await caches.keys()).length,
    (await navigator.serviceWorker.getRegistrations()).length,
]"""
# All announcements to screen readers, in order.
ANNOUNCED = """window.announced = []; addEventListener("DOMContentLoaded", () => {
  for (const status of document.querySelectorAll("[role=status]")) {
    const note = () => announced.push(status.textContent);
    new MutationObserver(note).observe(status, { childList: true, characterData: true });
  }
});"""

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def server():
    with stub.serving() as service:
        yield service


@pytest.fixture
def service(server):
    stub.reset(server)
    yield server
    server.open.set()


@pytest.fixture(scope="session")
def browser():
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, USUAL)), None)
    assert program, "no Chromium on the path; name its program in CHROMIUM"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, service):
    """Opens the page. At the end it must have asked no other host, stored nothing and logged no
    error."""
    opened = []

    def visit(**settings):
        context = browser.new_context(**({"viewport": {"width": 1000, "height": 900}} | settings))
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.add_init_script(ANNOUNCED)
        seen = SimpleNamespace(page=page, urls=[], errors=[])
        page.on("request", lambda request: seen.urls.append(request.url))
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("console", lambda line: seen.errors.append(line.text))
        opened.append(seen)
        page.goto(service.address)
        return page

    yield visit
    for seen in opened:
        # Chromium logs every response with an error status.
        assert not [line for line in seen.errors if "Failed to load resource" not in line]
        assert any(url.endswith("page.css") for url in seen.urls)
        for url in seen.urls:
            assert url.removeprefix("blob:").startswith(service.address), url
            assert "?" not in url
        assert seen.page.evaluate(STORED) == [0, 0, "", "", "", 0, 0, 0]
        seen.page.context.close()
