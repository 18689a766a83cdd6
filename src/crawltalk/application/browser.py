"""A browser that shows what it is told, on this machine alone, and keeps a log of the network."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from crawltalk.core.errors import MissingInput
from crawltalk.redteam.canary import NAMES

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-sync", "--disable-popup-blocking", "--disable-dev-shm-usage"),
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE *.{NAMES}",
)
"""Nothing but this machine is reached, and names below localhost are looked up as they are. Chromium's sandbox needs a
user that is not root; the pages that are shown are our own.
"""


@contextmanager
def browser() -> Iterator[tuple["BrowserContext", Path]]:
    """Chromium with a profile of its own, since a private one looks no names up ahead, and its log of the network."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise MissingInput("the page needs a browser: pip install 'crawltalk[browser]'") from None
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise MissingInput("there is no Chromium; on Debian: apt-get install chromium")
    with (
        tempfile.TemporaryDirectory(prefix="crawltalk-", ignore_cleanup_errors=True) as folder,
        sync_playwright() as playwright,
    ):
        log = Path(folder) / "network.json"
        context = playwright.chromium.launch_persistent_context(
            str(Path(folder) / "profile"),
            executable_path=chromium,
            args=[*_FLAGS, f"--log-net-log={log}"],
            ignore_default_args=["--disable-background-networking"],
        )
        try:
            yield context, log
        finally:
            context.close()
