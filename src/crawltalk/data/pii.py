"""Personal data: e-mail addresses and public IPv4 addresses are replaced (FineWeb 3.5)."""

import re
from ipaddress import IPv4Address, IPv4Network

EMAIL = "email@example.com"
"""Stands for every e-mail address. example.com belongs to nobody (RFC 2606)."""
IP = "192.0.2.1"
"""Stands for every public IPv4 address: TEST-NET-1, which belongs to nobody (RFC 5737)."""

_EMAIL = re.compile(
    r"[\w!#$%&'*+/=?^`{|}~-][\w.!#$%&'*+/=?^`{|}~-]*@(?:[\w](?:[\w-]*[\w])?\.)+[^\W\d_](?:[\w-]*[\w])?"
)
_IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\w)")
_LOCAL = [
    IPv4Network(network)  # RFC 1918 and its like: they name no one's line
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/3",
    )
]


def public_ip(text: str) -> bool:
    """Whether this is an IPv4 address that may lead to somebody. "999.1.1.1" and 192.168.0.1 do not."""
    try:
        address = IPv4Address(text)
    except ValueError:
        return False
    return not any(address in network for network in _LOCAL)


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
        count += match[0] != IP
        return IP

    if "@" in text:
        text = _EMAIL.sub(email, text)
    return _IP.sub(ip, text), count
