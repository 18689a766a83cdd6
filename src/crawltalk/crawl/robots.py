"""What a site lets a crawler do: its robots.txt (RFC 9309, read by Scrapy's parser), and the rules of single pages
in the header X-Robots-Tag and in meta tags.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from protego import Protego

TOKEN = "crawltalk"
"""What robots.txt and page rules may call this crawler."""
LONGEST_PAUSE = 300.0
"""Seconds between two requests that a robots.txt may ask for. A host that asks for more is not crawled."""
_VALUED = ("max-snippet", "max-image-preview", "max-video-preview", "unavailable_after")
"""Rules that have a value after a colon; any other word before a colon is the name of a crawler."""
_PREFIX = re.compile(r"\s*([\w.+*-]+)\s*:\s*")
_EXPIRY = re.compile(r"unavailable_after\s*:\s*([^;]*)", re.IGNORECASE)


class RobotsFile:
    """The robots.txt of a host."""

    def __init__(self, content: bytes) -> None:
        # A byte order mark is no part of the first line (RFC 9309, 2.2); Protego would not know that line.
        self._rules = Protego.parse(content.decode("utf-8-sig", "replace"))

    def can_fetch(self, url: str) -> bool:
        """Whether this crawler may fetch the URL."""
        return self._rules.can_fetch(url, TOKEN)

    def pause(self) -> float:
        """Seconds between two requests that the file asks for, by Crawl-delay or Request-rate; 0 if by neither."""
        delay = self._rules.crawl_delay(TOKEN) or 0.0
        rate = self._rules.request_rate(TOKEN)
        if rate is not None and rate.requests > 0:
            delay = max(delay, rate.seconds / rate.requests)
        return delay


def page_rules(headers: Iterable[str], metas: Iterable[tuple[str, str]]) -> set[str]:
    """The rules of a page for this crawler, a subset of {"noindex", "nofollow"}.

    `headers` are the values of X-Robots-Tag, one for each line: rules, separated by commas, after the name of the
    crawler whom they are for, if they are not for all. `metas` are (name, content) of the page's meta tags; those
    called "robots" or like this crawler count. "none" is both rules; a page whose unavailable_after is past is as
    good as noindex.
    """
    rules: set[str] = set()
    for value in headers:
        agent = "*"
        for part in value.split(","):
            prefix = _PREFIX.match(part)
            named = prefix is not None and prefix[1].lower() not in _VALUED
            agent = prefix[1].lower() if prefix and named else agent
            if agent in ("*", TOKEN):
                rules |= _words(part[prefix.end() :] if prefix and named else part)
        if agent in ("*", TOKEN) and _expired(value):
            rules.add("noindex")
    for name, content in metas:
        if name.strip().lower() in ("robots", TOKEN):
            rules |= _words(content)
            if _expired(content):
                rules.add("noindex")
    if "none" in rules:
        rules |= {"noindex", "nofollow"}
    return rules & {"noindex", "nofollow"}


def _words(text: str) -> set[str]:
    """Rules without a value. Some pages separate them by blanks or semicolons."""
    return set(re.split(r"[\s,;]+", re.sub(r"\s*:\s*", ":", text.lower())))


def _expired(text: str) -> bool:
    """Whether unavailable_after names a moment that is past; a date in no known form is no rule."""
    match = _EXPIRY.search(text)
    if not match:
        return False
    date = match[1].strip()
    for parse in (datetime.fromisoformat, parsedate_to_datetime, _first_date):
        try:
            moment = parse(date)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) < datetime.now(UTC)
    return False


def _first_date(text: str) -> datetime:
    """The date at the start of a text that goes on with other rules, such as "2020-09-21, nofollow"."""
    return datetime.fromisoformat(text.split(",", 1)[0].strip())
