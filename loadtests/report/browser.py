"""A real browser for the report: Playwright driving a Chromium that is installed already (Debian's ``chromium``).

Playwright would rather download a browser of its own; the system's is used, so nothing is fetched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from core.errors import BadInput

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def missing() -> str | None:
    """Return what is missing for a browser and how to get it, in one sentence, or None."""
    try:
        import playwright.sync_api  # noqa: F401  # only whether it is there
    except ImportError:
        return "playwright is not installed; `make install` brings it"
    return None if find_chromium() else "there is no chromium; `apt-get install chromium` brings one"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser and end it.

    Raises:
        BadInput: there is none.
    """
    if why := missing():
        raise BadInput(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without its sandbox, which neither root nor most containers may make; the page is our own file.
        browser = playwright.chromium.launch(executable_path=find_chromium(), chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()
