"""A browser over a dashboard that serves on loopback, and what pages must not have.

Debian's Chromium is driven by Playwright; tests are skipped where one of them is missing.
"""

import io
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from disinherit.ui.serving import Address, listen, make_server
from tests import ROOT

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SERIOUS = ("serious", "critical")
PAPER = (718, 1047)
"""What fits on A4 between margins of 10 mm, in CSS pixels."""

SIZES = {"phone": (375, 800), "desk": (1280, 900)}


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium, without a window."""
    api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def served(application: Callable[[int], Starlette]) -> Iterator[str]:
    """Serve an application on a free port of loopback."""
    address = Address(port=0)
    listener = listen(address)
    port = listener.getsockname()[1]
    server = make_server(application(port), address)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class Watched:
    """A page with all that went wrong in it.

    Attributes:
        page: Playwright's.
        problems: errors and warnings of its console, and requests to anywhere else.
    """

    def __init__(self, browser: Any, base: str, **options: Any) -> None:
        self.base = base
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.problems.append(f"asked {request.url}")

    def sign_in(self, token: str) -> None:
        self.page.goto(f"{self.base}/sign-in")
        self.page.fill("#token", token)
        self.page.click("button:has-text('Sign in')")
        self.page.wait_for_selector("nav")

    def open(self, path: str) -> None:
        self.page.goto(self.base + path)

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))


_AFAR = (64, 64)
_SHADES = 8.0
"""Mean difference of grey, of 255, from which on pictures are not alike."""

_HEIGHTS = 0.1

_AXE = (ROOT / "tests/ui/vendor/axe.min.js").read_text()
_LOOK = ("color-contrast", "scrollable-region-focusable", "target-size", "link-in-text-block")
"""Rules whose answer depends on size, colours or print."""


def findings(page: Any, rules: Sequence[str] = ()) -> list[str]:
    """Return what axe-core finds serious in a page; by all rules, or by some."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(_AXE)
    only: dict[str, Any] = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else {}
    if page.evaluate("() => matchMedia('print').matches"):
        only["rules"] = {"target-size": {"enabled": False}}  # nobody points at paper
    found = page.evaluate("options => axe.run(document, options)", only)
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
        for node in one["nodes"][:3]
    ]


def looked_at(page: Any) -> dict[str, list[str]]:
    """Return what axe-core finds at each size, light, dark and in print."""
    found = {}
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(media="screen", color_scheme=scheme)
            found[f"{size} {scheme}"] = findings(page, () if scheme == "light" else _LOOK)
        if page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
            found[f"{size} width"] = ["the page scrolls sideways"]
    page.set_viewport_size(dict(zip(("width", "height"), PAPER, strict=True)))
    page.emulate_media(media="print", color_scheme="light")
    found["print"] = findings(page)
    if page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
        found["print width"] = ["the page is wider than the paper"]
    page.emulate_media(media="screen", color_scheme="light")
    return {where: problems for where, problems in found.items() if problems}


def kept(page: Any, path: Path, *, renew: bool, **options: Any) -> None:
    """Compare a stored picture with the page as it is now, or write it anew, with few colours.

    Times and ids differ from run to run: the two are compared from afar.

    Args:
        page: Playwright's.
        path: of the picture.
        renew: whether to write it.
        options: of the screenshot.
    """
    from PIL import Image, ImageChops, ImageStat

    with Image.open(io.BytesIO(page.screenshot(**options))) as now:
        if renew:
            now.convert("RGB").quantize(64).save(path, optimize=True)
            return
        with Image.open(path) as stored:
            alike = abs(now.height - stored.height) <= _HEIGHTS * stored.height
            small = [one.convert("L").resize(_AFAR) for one in (now, stored)]
    different = ImageStat.Stat(ImageChops.difference(*small)).mean[0]
    assert alike, f"{path.name} is {stored.height} px high, not {now.height}: make pictures"
    assert different < _SHADES, f"{path.name} is not what is shown any more: make pictures"
