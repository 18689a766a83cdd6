"""From a page's bytes to text.

The order is that of browsers (WHATWG, Encoding and HTML standards): byte order mark, HTTP header, meta tag, XML
declaration, detection. Four things are different, because pages are read once, by a program that can look at all
of their bytes:

- What is valid UTF-8, or nearly, is UTF-8, whatever the labels say: text in other encodings is not, by chance.
- A label that nobody knows is passed over, and one whose text makes no sense, too.
- One bad byte makes one bad character, and not another encoding of the page.
- UTF-16 is seen without a byte order mark.

Text that makes no sense in the end is found by `damage`.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import cast

import chardet
import numpy as np
from numba import njit

from crawltalk.data.filters.language import likely

_BAD = "\ufffd"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE_MARKS = tuple(mark for mark, name in _MARKS if name != "utf-8")
_ENCODINGS = """
utf-8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf8 x-unicode20utf8
cp866 866 csibm866 ibm866
iso8859-2 csisolatin2 iso-8859-2 iso-ir-101 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2
iso8859-3 csisolatin3 iso-8859-3 iso-ir-109 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3
iso8859-4 csisolatin4 iso-8859-4 iso-ir-110 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4
iso8859-5 csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso88595 iso_8859-5 iso_8859-5:1988
iso8859-6 arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6 iso-8859-6-e iso-8859-6-i
 iso-ir-127 iso88596 iso_8859-6 iso_8859-6:1987
iso8859-7 csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso88597 iso_8859-7 iso_8859-7:1987
 sun_eu_greek
iso8859-8 csiso88598e csiso88598i csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-8859-8-i iso-ir-138 iso88598
 iso_8859-8 iso_8859-8:1988 logical visual
iso8859-10 csisolatin6 iso-8859-10 iso-ir-157 iso885910 l6 latin6
iso8859-13 iso-8859-13 iso885913
iso8859-14 iso-8859-14 iso885914
iso8859-15 csisolatin9 iso-8859-15 iso885915 iso_8859-15 l9
iso8859-16 iso-8859-16
koi8-r cskoi8r koi koi8 koi8_r
koi8-u koi8-ru
mac-roman csmacintosh mac macintosh x-mac-roman
cp874 dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874
cp1250 windows-1250 x-cp1250
cp1251 windows-1251 x-cp1251
cp1252 ansi_x3.4-1968 ascii cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 iso_8859-1 iso_8859-1:1987
 l1 latin1 us-ascii windows-1252 x-cp1252
cp1253 windows-1253 x-cp1253
cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5 latin5 windows-1254 x-cp1254
cp1255 windows-1255 x-cp1255
cp1256 windows-1256 x-cp1256
cp1257 windows-1257 x-cp1257
cp1258 windows-1258 x-cp1258
mac-cyrillic x-mac-cyrillic x-mac-ukrainian
gb18030 chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk
big5hkscs big5 big5-hkscs cn-big5 csbig5 x-x-big5
euc_jp cseucpkdfmtjapanese euc-jp x-euc-jp
iso2022_jp csiso2022jp iso-2022-jp
cp932 csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis
cp949 cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 windows-949
iso2022_kr csiso2022kr iso-2022-kr
hz hz-gb-2312
utf-16-be unicodefffe utf-16be
utf-16-le csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le
x-user-defined
"""
"""A line for each encoding of the WHATWG's Encoding standard, 4.2: Python's codec, then further labels. Browsers do
not read ISO-2022-KR and HZ, because markup can hide in them; no markup is run here.
"""
_LABELS = {
    label: names[0]
    for names in (line.split() for line in _ENCODINGS.strip().replace("\n ", " ").split("\n"))
    for label in names
}
_MEANT = {"utf-16-be": "utf-8", "utf-16-le": "utf-8", "x-user-defined": "cp1252"}
"""A meta tag that can be read is in no UTF-16 (HTML standard, 13.2.3.2)."""
_LANGUAGES = {
    "cp949": "ko",
    "euc_jp": "ja",
    "cp932": "ja",
    "gb18030": "zh",
    "big5hkscs": "zh",
    "cp1251": "ru uk be bg mk sr kk ky tg tt mn ba cv ce os",
    "koi8-r": "ru bg",
    "koi8-u": "ru uk be bg",
    "iso8859-5": "ru uk be bg mk sr",
    "cp866": "ru uk be bg",
    "mac-cyrillic": "ru uk be bg mk sr",
    "cp1253": "el",
    "iso8859-7": "el",
    "cp1255": "he yi",
    "iso8859-8": "he yi",
    "cp1256": "ar fa ur arz ckb ps ug",
    "iso8859-6": "ar arz",
    "cp874": "th",
}
"""The languages of encodings of other scripts than Latin, in the order in which they are tried."""
_EAST_ASIAN = ("cp949", "euc_jp", "cp932", "gb18030", "big5hkscs")
_CYRILLIC = {name for name, languages in _LANGUAGES.items() if languages.startswith("ru")}
_DETECTOR = {
    **{name: name for name in _LANGUAGES if name != "euc_jp"},
    **{name: name for name in ("cp1250", "cp1252", "cp1254", "cp1257", "cp1258")},
    "iso8859-2": "iso8859-2",
    "euc_jis_2004": "euc_jp",
    "shift_jis_2004": "cp932",
    "euc_kr": "cp949",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
}
"""What the detector may find, by its names; those of encodings that no browser reads are left out."""
_ODD = (0x80, 0xA0, 0xFD, 0xFE, 0xFF)
"""Bytes that begin no character of two bytes."""
_LATIN = ("cp1250", "cp1252", "cp1254", "cp1257", "cp1258", "iso8859-1", "iso8859-2", "iso8859-9")
_HEAD = 4096
"""Bytes in which a meta tag is looked for: the standard asks for 1,024, but comments stand before some."""
_SAMPLE = 6000
"""Bytes of text that are shown to the detector."""
_META = re.compile(rb"<meta[\s/][^>]{0,400}?charset\s*=\s*[\"']?\s*([^\s\"'/>;]{2,40})", re.I)
_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.S)
_XML = re.compile(rb"\s*<\?xml\s[^>]{0,200}?encoding\s*=\s*[\"']([^\"'>]{2,40})")
_TAG = re.compile(rb"<[/!a-zA-Z][^<>]*>|[\r\n]")
_QUOTE = re.compile(rb"[\r\n\"'<>]")
_HIGH = re.compile(rb"[\x80-\xff]+")
_CJK_ESCAPE = re.compile(rb"\x1b(?:\$[@B]|\$\(D|\([IJ])")
_NOT_PRINTABLE = bytes({*range(256)} - {*range(0x20, 0x7F)})
_JAPANESE = re.compile(rb"\x1b(\$@|\$B|\$\(D|\(B|\(J|\(I)")


def to_utf8(body: bytes, charset: str | None = None) -> bytes:
    """The text of a page (`decode`) in UTF-8: mostly the same bytes. NUL characters are removed.

    `charset`: the label of the HTTP header, if there is one.
    """
    if not _is_utf8(body) or b"\0" in body or b"\x1b" in body or body.startswith(codecs.BOM_UTF8):
        return decode(body, charset).encode("utf-8", "replace")
    return body


def decode(body: bytes, charset: str | None = None) -> str:
    """The text of a page. Any bytes have one; characters that cannot be read are U+FFFD. NUL characters are removed.

    `charset`: the label of the HTTP header, if there is one.
    """
    return _decode(body, encoding_of(body, charset)).removeprefix("\ufeff").replace("\0", "")


def encoding_of(body: bytes, charset: str | None = None) -> str:  # noqa: PLR0911 - one return per kind of evidence
    """The name of Python's codec for a page's encoding."""
    for mark, name in _MARKS:
        if body.startswith(mark):
            return name
    if wide := _without_mark(body):
        return wide
    valid, invalid = (1, 0) if body.isascii() else _utf8_sequences(np.frombuffer(body, np.uint8))
    labels = list(_labels(body, charset))
    if body.isascii():
        if _CJK_ESCAPE.search(body):
            return "iso2022_jp"
        return next((name for name in labels if name in ("iso2022_kr", "hz")), "utf-8")
    # a page cut in the middle of a character, or with some bytes gone wrong, is still UTF-8
    if valid >= (1 if "utf-8" in labels else 3) * invalid > 0 or not invalid:
        return "utf-8"
    if len(_CJK_ESCAPE.findall(body)) >= invalid:
        return "iso2022_jp"
    if labels and labels[0] in _LATIN and _is_latin(body):  # most pages that come here
        return labels[0]
    sample, doubtful, least = _sample(body), None, 0.0
    for name in labels:
        if name.startswith("utf-") or not _is_readable(text := _decode(sample, name)):
            continue
        if name not in _LANGUAGES:
            return name
        score = _languages(text, name)
        # KOI8 and Windows have small letters where the other has capitals
        swapped = name in _CYRILLIC and sum(map(str.isupper, text)) > sum(map(str.islower, text))
        if score > 0.5 and not swapped:
            return name
        if doubtful is None:
            doubtful, least = name, 0.0 if swapped else score
    found = detect(sample)
    if doubtful is None or (found in _LANGUAGES and _score(sample, found) > max(0.5, least + 0.3)):
        return found
    return doubtful  # such as a few signs on a page in English, whose language says nothing about the label


def is_wide(body: bytes) -> bool:
    """Whether a page is in UTF-16 or UTF-32, where ASCII has bytes of 0."""
    return body.startswith(_WIDE_MARKS) or _without_mark(body) is not None


def _labels(body: bytes, charset: str | None) -> Iterator[str]:
    """The codecs named by the HTTP header, the meta tag and the XML declaration; unknown labels are left out."""
    head = body[:_HEAD]
    if name := _LABELS.get((charset or "").strip(" \t\r\n\f'\"").lower()):
        yield "cp1252" if name == "x-user-defined" else name
    for found in (_META.search(_COMMENT.sub(b"", head)), _XML.match(head)):
        if found and (name := _LABELS.get(found[1].decode("latin-1").strip().lower())):
            yield _MEANT.get(name, name)


def _without_mark(body: bytes) -> str | None:
    """The form of UTF-16 that a page without a byte order mark is in, or None: every other byte of its markup is 0."""
    head = np.frombuffer(body[: _HEAD & ~1], np.uint8)
    if b"\0" not in body[:_HEAD] or len(head) < 4:
        return None
    even, odd = np.mean(head[: len(head) & ~1 : 2] == 0), np.mean(head[1::2] == 0)
    if max(even, odd) < 0.2 or min(even, odd) > 0.02:
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


@njit(cache=True)
def _utf8_sequences(data):
    """How many sequences of several bytes are valid in UTF-8, and how many bytes beside ASCII belong to none."""
    valid = invalid = position = 0
    while position < len(data):
        byte = data[position]
        size = 1 if byte < 0x80 else 2 if 0xC2 <= byte < 0xE0 else 3 if byte & 0xF0 == 0xE0 else 4
        position += 1
        if byte < 0x80:
            continue
        if not 0xC2 <= byte < 0xF5:
            invalid += 1
            continue
        end = position
        while end < len(data) and end < position + size - 1 and data[end] & 0xC0 == 0x80:
            end += 1
        if end == position + size - 1:
            valid += 1
            position = end
        else:
            invalid += 1
            position = end
    return valid, invalid


def _decode(body: bytes, name: str) -> str:
    if name == "iso2022_jp":
        return _decode_iso_2022_jp(body)
    try:
        return body.decode(name, "crawltalk.whatwg")
    except UnicodeError:  # Python's stateful codecs give up on some bytes
        return body.decode("ascii", "replace")


def _repair(error: UnicodeError) -> tuple[str, int]:
    """An error handler for `bytes.decode`: characters that browsers know and Python's codecs do not, else U+FFFD.

    EUC-JP has NEC's row 13 and IBM's extensions, which Python has in Shift_JIS only. GBK has the euro as one byte. Big5
    has the characters of Windows.
    """
    error = cast(UnicodeDecodeError, error)
    start = error.start
    piece = error.object[start : start + 2]
    if error.encoding == "gb18030" and piece[0] == 0x80:
        return "€", start + 1
    if len(piece) == 2 and piece[0] >= 0xA1:
        if error.encoding == "euc_jp" and piece[1] >= 0xA1:
            return _shifted(piece).decode("cp932", "replace")[:1], start + 2
        if error.encoding == "big5hkscs" and piece[1] >= 0x40:
            text = piece.decode("cp950", "replace")
            return (text, start + 2) if len(text) == 1 else (_BAD, start + 1)
    return _BAD, max(start + 1, error.end)


codecs.register_error("crawltalk.whatwg", _repair)


def _shifted(pair: bytes) -> bytes:
    """The character of a row and a cell of JIS X 0208 (EUC-JP's bytes) in Shift_JIS."""
    row, cell = pair[0] - 0xA1, pair[1] - 0xA1
    lead = row // 2 + (0x81 if row < 62 else 0xC1)
    trail = cell + 0x9F if row % 2 else cell + 0x40 + (cell >= 63)
    return bytes((lead, trail))


def _decode_iso_2022_jp(body: bytes) -> str:
    """ISO-2022-JP, with the half-width katakana and the characters of vendors that browsers read. A line break ends
    what a lost escape sequence has left open.
    """
    pieces = []
    for line in body.split(b"\n"):
        first, *rest = _JAPANESE.split(line)
        text = first.decode("ascii", "replace")
        for escape, part in zip(rest[::2], rest[1::2], strict=True):
            data = part.translate(None, _NOT_PRINTABLE)  # so that the pairs behind a bad byte stay pairs
            if escape in (b"(B", b"(J"):
                text += part.decode("ascii", "replace")
            elif escape == b"(I":
                text += bytes(byte | 0x80 for byte in data).decode("cp932", "replace")
            else:
                three = b"\x8f" if escape == b"$(D" else b""
                pairs = (data[index : index + 2] for index in range(0, len(data), 2))
                euc = b"".join(three + bytes(byte | 0x80 for byte in pair) for pair in pairs)
                text += euc.decode("euc_jp", "crawltalk.whatwg")
        pieces.append(text)
    return "\n".join(pieces)


def _sample(body: bytes) -> bytes:
    """The pieces of text with bytes beside ASCII, without tags: no byte of a tag's marks is part of a character."""
    pieces, size = [], 0
    for marks in (_TAG, _QUOTE):  # text that stands in attributes only
        for piece in marks.split(body):
            if not piece.isascii():
                pieces.append(piece[: _SAMPLE - size])
                size += len(pieces[-1])
                if size >= _SAMPLE:
                    break
        if pieces:
            break
    return b"\n".join(pieces)


def _share_bad(text: str) -> float:
    """Characters that could not be read, to those beside ASCII."""
    return text.count(_BAD) / max(1, len(text) - sum(map(str.isascii, text)))


def _languages(text: str, name: str) -> float:
    """Probability that a text is in one of the languages of an encoding, for those of `_LANGUAGES`."""
    probabilities = likely(text[:2000])
    return sum(probabilities.get(language, 0.0) for language in _LANGUAGES[name].split())


def _is_readable(text: str) -> bool:
    """Whether a label may be true, judged by the characters that it makes of the page."""
    return (text.count(_BAD) <= 1 or _share_bad(text) <= 0.05) and damage(text, lost=0.05) is None


def _score(sample: bytes, name: str) -> float:
    """Probability of the encoding's languages, or 0 if more than a few bytes cannot be read in it."""
    text = _decode(sample, name)
    return _languages(text, name) if _share_bad(text) <= 0.05 else 0.0


def _east_asian(sample: bytes, detected: str) -> str | None:
    """The encoding of East Asia in which the text is in its language, or None. `detected`: what the detector says."""
    scores = {name: round(_score(sample, name), 2) for name in sorted(_EAST_ASIAN, key=detected.__ne__)}
    best = max(scores, key=scores.__getitem__)  # among equals the detector's
    # Thai read as Chinese is taken for it; and its encoding has many bytes that it does not use
    if detected == "cp874" and _share_bad(_decode(sample, detected)) < _share_bad(_decode(sample, best)):
        return None
    return best if scores[best] >= 0.7 else None


def detect(sample: bytes) -> str:
    """The most probable encoding of a text that is neither UTF-8 nor UTF-16, as the name of Python's codec.

    The detector is chardet's. It rules an encoding out at the first byte that cannot be in it. So it is asked again
    without bytes that are rare in the text, and an encoding that only these have ruled out is taken. Those of East
    Asia, whose pairs of bytes would be torn, are judged by the language of their text, too.
    """
    name = _without(sample, _ODD, _ask_chardet(sample))
    return _east_asian(sample, name) or _without(sample, range(0x80, 0x100), name)


def _without(sample: bytes, candidates: Iterable[int], name: str) -> str:
    """The encoding that has been ruled out by rare bytes among the candidates alone, else `name`."""
    counts = np.bincount(np.frombuffer(sample, np.uint8), minlength=256)
    counts[:0x80] = 0
    rare = bytes(byte for byte in candidates if 0 < counts[byte] * 32 <= counts.sum())
    other = _ask_chardet(sample.translate(None, rare)) if rare else name
    cyrillic = {name, other} <= _CYRILLIC
    return other if not cyrillic and 0 < _share_bad(_decode(sample, other)) <= 0.05 else name


def _ask_chardet(sample: bytes) -> str:
    name = _detected(sample, _DETECTOR)
    return _detected(sample, _LATIN) if name not in _EAST_ASIAN and _is_latin(sample) else name


def _detected(sample: bytes, include: Iterable[str]) -> str:
    found = chardet.detect(
        sample, compat_names=False, include_encodings=include, empty_input_encoding="cp1252"
    )
    return _DETECTOR.get(found["encoding"] or "", "cp1252")


def _is_latin(sample: bytes) -> bool:
    """Whether the bytes beside ASCII stand alone, as accents and quotation marks do, or are next to none."""
    high = _HIGH.findall(sample)
    count = sum(map(len, high))
    return count < max(3, 1.6 * len(high))


def damage(text: str, lost: float = 0.005) -> str | None:
    """Why a text cannot be read, or None: more than a share `lost` of its characters stand for nothing, or many are
    those of another encoding read in the wrong one ("Ïðèâåò", "â€™").
    """
    if text.isascii():
        return None
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    missing, private, latin, letters, twice = _count_damage(points)
    if missing > max(2, lost * len(points)):
        return "characters that cannot be read"
    if private > 0.05 * len(points):
        return "characters without a meaning"
    if latin > 8 and latin > 0.35 * letters:
        return "letters of another encoding"
    if twice > 0.02 * len(points):
        return "UTF-8 read as another encoding"
    return None


_WINDOWS = np.zeros(0x2123, np.bool_)
"""The characters that windows-1252 has at the bytes 0x80 to 0xBF, where the later bytes of UTF-8 are."""
_WINDOWS[[ord(letter) for letter in bytes(range(0x80, 0xC0)).decode("cp1252", "ignore")]] = True
_WINDOWS[0x80:0xC0] = True


@njit(cache=True)
def _count_damage(points):
    """Of a text: characters that were lost, private ones, letters of Latin-1 beside ASCII, all letters, and characters
    that together are UTF-8 read as windows-1252.
    """
    lost = private = latin = letters = twice = position = 0
    for index in range(len(points)):
        point = points[index]
        if point < 0x80:
            letters += 97 <= point | 32 <= 122
            continue
        if point == 0xFFFD or 0x80 <= point < 0xA0:
            lost += 1
        elif 0xE000 <= point < 0xF900:
            private += 1
        elif 0xC0 <= point < 0x100:
            latin += 1
        letters += point >= 0xC0
        if 0xC2 <= point < 0xF5 and index >= position:
            size = 1 if point < 0xE0 else 2 if point < 0xF0 else 3
            end = index + 1
            while (
                end < len(points)
                and end <= index + size
                and points[end] < len(_WINDOWS)
                and _WINDOWS[points[end]]
            ):
                end += 1
            if end == index + size + 1:
                twice += size + 1
                position = end
    return lost, private, latin, letters, twice
