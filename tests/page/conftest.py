"""The page in a real headless Chromium, before a stub of the service.

CHROMIUM names the browser's program where it is not one of the usual names on the path.
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
# All that a page may keep: what is stored, and what its address says.
KEPT = """async () => [
    localStorage.length, sessionStorage.length, document.cookie, location.search, location.hash,
    (await indexedDB.databases()).length, (await caches.keys()).length,
    (await navigator.serviceWorker.getRegistrations()).length,
]"""
# What was announced, in order, however short it stood there.
SAID = """window.said = []; addEventListener("DOMContentLoaded", () => {
  for (const status of document.querySelectorAll("[role=status]")) {
    const note = () => said.push(status.textContent);
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
        found = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def visit(browser, service):
    """Opens the page; at the end looks whether it kept its promises: nothing asked of others,
    nothing stored, no error in the console."""
    opened = []

    def visit(**settings):
        context = browser.new_context(**({"viewport": {"width": 1000, "height": 900}} | settings))
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.add_init_script(SAID)
        seen = SimpleNamespace(page=page, urls=[], errors=[])
        page.on("request", lambda request: seen.urls.append(request.url))
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("console", lambda line: seen.errors.append(line.text))
        opened.append(seen)
        page.goto(service.address)
        return page

    yield visit
    for seen in opened:
        # Chromium itself writes down each reply that is a refusal.
        assert not [one for one in seen.errors if "Failed to load resource" not in one]
        assert any(url.endswith("page.css") for url in seen.urls)
        for url in seen.urls:
            assert url.removeprefix("blob:").startswith(service.address), url
            assert "?" not in url
        assert seen.page.evaluate(KEPT) == [0, 0, "", "", "", 0, 0, 0]
        seen.page.context.close()
