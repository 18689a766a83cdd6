"""Personal data: e-mail addresses and public IP addresses are replaced (FineWeb 3.5).

Letters of scripts that are written without blanks, such as Chinese, are no part of an address: a sentence may stand
right beside it.
"""

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network

EMAIL = "email@example.com"
"""Replaces every e-mail address. example.com is reserved (RFC 2606)."""
IP = "192.0.2.1"
"""Replaces every public IPv4 address: one of TEST-NET-1, which is reserved (RFC 5737)."""
IP6 = "2001:db8::1"
"""Replaces every public IPv6 address: one for documentation (RFC 3849)."""

_LETTER = "A-Za-z0-9_À-ÖØ-öø-ɏͰ-ϿЀ-ԯḀ-ỿ"  # Latin, Greek, Cyrillic
_LABEL = rf"[{_LETTER}](?:[{_LETTER}-]*[{_LETTER}])?"
_LOCAL = rf"{_LETTER}!#$%&'*+/=?^`{{|}}~\-"
_EMAIL = re.compile(
    rf"(?<![{_LOCAL}.])(\.*)[{_LOCAL}][{_LOCAL}.]*[@＠](?:{_LABEL}\.)+[^\W\d_](?:[{_LETTER}-]*[{_LETTER}])?"
)
_DOTTED = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
_BEFORE, _BEHIND = rf"(?<![{_LETTER}.])", rf"(?!\.?[{_LETTER}])"
_IP = re.compile(rf"{_BEFORE}{_DOTTED}{_BEHIND}")
_GROUP = "[0-9A-Fa-f]{1,4}"
_IP6 = re.compile(
    rf"(?<![{_LETTER}.])(?:(?:{_GROUP}:){{1,7}}:?|::)(?:{_GROUP}:){{0,6}}(?:{_DOTTED}|{_GROUP})?(?![{_LETTER}:])(?!\.[0-9])"
)
_GROUPS = re.compile(rf":{_GROUP}:{_GROUP}:")
_UNICAST = IPv6Network("2000::/3")


def public_ip(text: str) -> bool:
    """Whether this is an IP address of a machine on the internet: not a private one (192.168.0.1), one for
    examples (203.0.113.7, RFC 5737) or a multicast group. "999.1.1.1" is not an address.
    """
    try:
        address = IPv6Address(text) if ":" in text else IPv4Address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None:
            return public_ip(str(inner))
        if address not in _UNICAST:  # such as a::b, which is code
            return False
    return address.is_global and not address.is_multicast


def replace_pii(text: str) -> tuple[str, int]:
    """The text with every e-mail and public IP address replaced, and how many there were. Idempotent."""
    count = 0

    def email(match: re.Match[str]) -> str:
        nonlocal count
        count += match[0].lstrip(".") != EMAIL
        return match[1] + EMAIL

    def ip(match: re.Match[str]) -> str:
        nonlocal count
        if not public_ip(match[0]):
            return match[0]
        count += 1
        return IP6 if ":" in match[0] else IP

    if "@" in text or "＠" in text:
        text = _EMAIL.sub(email, text)
    if "::" in text or _GROUPS.search(text):
        text = _IP6.sub(ip, text)
    return _IP.sub(ip, text), count
