"""Personal data: e-mail addresses and public IPv4 addresses are replaced (FineWeb 3.5)."""

import re
from ipaddress import IPv4Address

EMAIL = "email@example.com"
"""Replaces every e-mail address. example.com is reserved (RFC 2606)."""
IP = "192.0.2.1"
"""Replaces every public IPv4 address: one of TEST-NET-1, which is reserved (RFC 5737)."""

_EMAIL = re.compile(
    r"[\w!#$%&'*+/=?^`{|}~-][\w.!#$%&'*+/=?^`{|}~-]*@(?:[\w](?:[\w-]*[\w])?\.)+[^\W\d_](?:[\w-]*[\w])?"
)
_IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\w)")


def public_ip(text: str) -> bool:
    """Whether this is an IPv4 address of a machine on the internet: not a private one (192.168.0.1), one for
    examples (203.0.113.7, RFC 5737) or a multicast group. "999.1.1.1" is not an address.
    """
    try:
        address = IPv4Address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast


def replace_pii(text: str) -> tuple[str, int]:
    """The text with every e-mail and public IPv4 address replaced, and how many there were. Idempotent."""
    count = 0

    def email(match: re.Match[str]) -> str:
        nonlocal count
        count += match[0] != EMAIL
        return EMAIL

    def ip(match: re.Match[str]) -> str:
        nonlocal count
        if not public_ip(match[0]):
            return match[0]
        count += 1
        return IP

    if "@" in text:
        text = _EMAIL.sub(email, text)
    return _IP.sub(ip, text), count
