"""Records of WARC (ISO 28500; 0.17 and later) and ARC files, even damaged ones.

What a record's head says about its length is believed if another record or the end of the text follows there. If
not, the next head shows where the record ends. So a wrong length or an unreadable head costs no other record.
Whatever cannot be read comes out as a record with a `fault`.
"""

import mmap
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from crawltalk.data.read.pieces import Irregular, Piece, Text, behind, read_text

_MAX_HEAD = 1 << 17
_VERSION = rb"[Ww][Aa][Rr][Cc]/\d{1,2}\.\d{1,3}[ \t]*\r?\n"
# URL, IP address, date, type, in version 2 more columns, length (the Internet Archive's "Arc File Format")
_COLUMNS = (
    rb"((?:filedesc|https?|ftp|dns|file|gopher|news|mailto):[^\r\n]{0,32768}?) \S+ (\d{8,20}) (\S+)"
    rb"(?: [^\r\n]*)? (-?\w+)[ \t]*\r?\n"
)
_HEADS = {"warc": re.compile(_VERSION), "arc": re.compile(_COLUMNS)}
_LINES = {  # a head in the middle of other text; the line end in front makes the search fast
    "warc": re.compile(b"\n" + _VERSION + rb"(?=[\w-]+[ \t]*:)"),
    "arc": re.compile(b"\n" + _COLUMNS),
}
_BLANK = re.compile(rb"[\r\n \t]*")
_SEPARATOR = re.compile(rb"(?:\r?\n){1,2}\Z")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_FIELD = re.compile(rb"^WARC-[a-z-]+[ \t]*:", re.I | re.M)
_TARGET = re.compile(rb"^WARC-Target-URI[ \t]*:[ \t]*([^\r\n]{0,8192})", re.I | re.M)
TOO_LONG = "too long"
"""The fault of a record that is longer than the limit; nothing is wrong with the file."""
_TAIL = 40_000  # of text that is passed over, kept because a head may begin in it; the longest head of ARC
_LINE = 64  # the longest version line of WARC
_DIGITS = 20
_MANY = 1000  # unreadable records in a row that are counted one by one


class Record(msgspec.Struct):
    """One record. Its block is `text[start:end]`, so that large blocks are not copied."""

    kind: str
    """WARC-Type in lower case; "response" in ARC files; "" if unknown."""
    fields: dict[bytes, bytes]
    """Its head; the names are in lower case."""
    position: int
    """Where it, or its gzip member or zstd frame, begins in the file."""
    text: bytes = b""
    start: int = 0
    end: int = 0
    fault: str = ""
    """Why the block is missing or not whole."""

    def field(self, name: bytes) -> str:
        """A value of the head."""
        return self.fields.get(name, b"").decode("utf-8", "replace")

    @property
    def block(self) -> bytes:
        """A copy of the block."""
        return self.text[self.start : self.end]


def read_records(path: Path, data: mmap.mmap, max_block: int) -> Iterator[Record]:
    """All records of a file, in order. A longer block than `max_block` is passed over, with a fault."""
    reader = _Reader(read_text(path, data), max_block)
    more = True
    while more:
        yield from reader.segment()
        more = reader.resume()


class _Reader:
    """Reads records from text that comes in pieces.

    The text has segments: each ends with a damage or with the file. Offsets count from `at`, where the current
    record begins, since what stands before it is forgotten now and then.
    """

    def __init__(self, text: Text, max_block: int) -> None:
        self.pieces, self.compressed, self.careful = text
        self.max_block = max_block
        self.next: Piece | None = None
        self.data, self.at = b"", 0
        self.base = 0
        """Offset of `data` in all text."""
        self.openings: deque[tuple[int, int, bool]] = deque()
        """(offset in all text, position in the file, whether a member or frame begins) of the pieces."""
        self.ended = self.finished = False
        """Whether the segment, and the file, have been read to their ends."""
        self.damage = ""
        """What ends the segment."""
        self.empty, self.after_damage = True, False
        self.form = ""
        """WARC or ARC."""

    # --- text ---

    def peek(self) -> Piece | None:
        """The next piece, which stays where it is."""
        if self.next is None:
            self.next = next(self.pieces, None)
        return self.next

    def need(self, count: int) -> bool:
        """Whether `count` bytes from `at` on are there; reads on as far as needed."""
        have = len(self.data) - self.at
        if have >= count or self.ended:
            return have >= count
        parts = [self.data[self.at :]] if have else []
        self.base += self.at
        self.at = 0
        self._forget()
        while have < count and not self.ended:
            piece = self.peek()
            if piece is None:
                self.ended = self.finished = True
            elif piece.damage and piece.opens and not piece.data and not self.empty:
                self.ended = True  # a member of which nothing is left: what comes before it is whole
            else:
                self.next, self.empty = None, False
                self.openings.append((self.base + have, piece.position, piece.opens))
                if piece.data:
                    parts.append(piece.data)
                    have += len(piece.data)
                self.ended, self.damage = bool(piece.damage), piece.damage
        self.data = parts[0] if len(parts) == 1 else b"".join(parts)
        return have >= count

    def start_again(self, offset: int) -> None:
        """Read the text again with the boundaries of its members, from this offset in all text on."""
        assert self.careful is not None
        self.pieces, self.careful = behind(self.careful(), offset), None
        self.next, self.data, self.at, self.base = None, b"", 0, offset
        self.openings.clear()
        self.ended = self.finished = False

    def must_be_careful(self) -> None:
        """Raise `Irregular` if the boundaries of members, which are needed now, are unknown."""
        if self.careful is not None:
            raise Irregular

    def resume(self) -> bool:
        """Go on behind a damage. Returns whether the file goes on."""
        self.after_damage, self.damage = bool(self.damage), ""
        self.base += len(self.data)
        self.data, self.at, self.ended, self.empty = b"", 0, False, True
        return not self.finished

    def position(self) -> int:
        """Where the text at `at` stands in the file."""
        self._forget()
        if not self.openings:
            return 0
        start, position, _ = self.openings[0]
        return position if self.compressed else position + self.base + self.at - start

    def _forget(self) -> None:
        """Forget the pieces that end before `at`."""
        while len(self.openings) > 1 and self.openings[1][0] <= self.base + self.at:
            self.openings.popleft()

    def blank(self, offset: int) -> int:
        """The offset of what is not a line end or blank, at `offset` or behind it."""
        while True:
            match = _BLANK.match(self.data, self.at + offset)
            assert match is not None
            end = match.end() - self.at
            if self.at + end < len(self.data) or end - offset > _TAIL or not self.need(end + 1):
                return end

    def text_follows(self) -> bool:
        """Go to what is not a line end or blank. Returns whether there is any."""
        while True:
            match = _BLANK.match(self.data, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.data):
                return True
            start = self.base + self.at
            try:
                if not self.need(1):
                    return False
            except Irregular:
                self.start_again(start)

    def head_at(self, offset: int) -> bool:
        """Whether a record's head, or the end of the text, is there, perhaps behind blanks."""
        head = _HEADS[self.form]
        match = _BLANK.match(self.data, self.at + offset)
        assert match is not None
        place = match.end()
        if place + _LINE < len(self.data) and head.match(self.data, place):
            return True
        if place == len(self.data) and (piece := self.peek()) and head.match(piece.data):
            return True  # saves putting the pieces together
        end, offset = offset, self.blank(offset)
        self.need(offset + (_TAIL if self.form == "arc" else _LINE))
        if self.at + offset >= len(self.data):
            return self.ended and offset - end <= len(
                b"\r\n\r\n"
            )  # more blanks: perhaps the last record's own
        return head.match(self.data, self.at + offset) is not None

    def find_head(self, start: int, end: int) -> int | None:
        """The offset of the first head between two offsets: at the beginning of a line or of a member."""
        found = _LINES[self.form].search(self.data, max(0, self.at + start - 1), self.at + end + _LINE)
        place = None if found is None or found.start() + 1 - self.at >= end else found.start() + 1 - self.at
        origin = self.base + self.at
        for offset, _, opens in self.openings:
            inside = offset - origin
            between = opens and start <= inside < (end if place is None else place)
            if between and _HEADS[self.form].match(self.data, self.at + inside):
                return inside
        return place

    # --- records ---

    def segment(self) -> Iterator[Record]:
        """The records up to the next damage or the end."""
        some = False
        more = self.text_follows()
        while more:
            start = self.base + self.at
            try:
                record = self.record()
            except Irregular:
                self.start_again(start)
                more = self.text_follows()
                continue
            if record is None:
                for record in self.rubbish(first=not some):
                    some = True
                    yield record
                more = self.text_follows()
                continue
            some = True
            more = self.text_follows()
            if not more and self.damage and not record.fault:
                record.fault = self.damage
            yield record
        if self.damage and not some:
            yield Record("", {}, self.position(), fault=self.damage)

    def find_form(self) -> None:
        """WARC or ARC: by the first head."""
        self.need(_MAX_HEAD)
        text = b"\n" + self.data[self.at : self.at + _MAX_HEAD]
        first = {name: found.start() for name, line in _LINES.items() if (found := line.search(text))}
        self.form = min(first, key=first.__getitem__, default="warc")

    def record(self) -> Record | None:
        """The record at `at`, which is behind it afterwards; None if there is no head."""
        if not self.form:
            self.find_form()
        match = _HEADS[self.form].match(self.data, self.at)
        if match is None:  # it may begin in this piece of text and end in the next
            self.need(_TAIL if self.form == "arc" else _LINE)
            match = _HEADS[self.form].match(self.data, self.at)
        if match is None:
            self.must_be_careful()
            return None
        start = match.end() - self.at
        position = self.position()
        if self.form == "arc":
            url, date, kind, length = match.groups()
            fields = {b"warc-target-uri": url, b"warc-date": _iso(date), b"content-type": kind}
            other = url.startswith((b"filedesc:", b"dns:"))
            record = Record("warcinfo" if other else "response", fields, position)
        else:
            stop = self.head_end(start)
            if stop is None:
                self.must_be_careful()
                return None
            fields = _fields(self.data[self.at + start : self.at + stop])
            start = stop
            length = fields.get(b"content-length", b"")
            kind = fields.get(b"warc-type", b"").lower().decode("ascii", "replace")
            record = Record(kind, fields, position)
        self.block(record, start, int(length) if length.isdigit() and len(length) < _DIGITS else None)
        return record

    def head_end(self, offset: int) -> int | None:
        """Where the block behind a WARC head begins; None if no blank line ends the head."""
        size = 0
        while True:
            begin = self.at + offset - 2  # the line end of the version line
            stop = max(self.at + offset + size, min(len(self.data), begin + _MAX_HEAD))
            wide = self.data.find(b"\r\n\r\n", begin, stop)
            narrow = self.data.find(b"\n\n", begin, stop if wide < 0 else wide)
            if narrow >= 0:
                return narrow + 2 - self.at
            if wide >= 0:
                return wide + 4 - self.at
            if size >= _MAX_HEAD or (size and len(self.data) - self.at < offset + size):
                return None
            size = size * 4 or 1 << 12
            self.need(offset + size)

    def block(self, record: Record, start: int, length: int | None) -> None:
        """Set the record's block, which begins at `start`, and go behind it."""
        if length is not None and length <= self.max_block and self.need(start + length):
            if self.head_at(start + length):
                self.take(record, start, start + length)
            else:
                self.must_be_careful()
                self.wrong_end(record, start, start + length)
            return
        self.must_be_careful()
        self.need(start + self.max_block)
        have = len(self.data) - self.at
        place = self.find_head(start, have)
        rest = self.lost_head(start, have if place is None else place)
        if rest is not None:
            self.take(record, start, rest, strip=True)
        elif place is not None:
            self.take(record, start, place, strip=True)
        elif not self.ended:
            record.fault = TOO_LONG
            self.at += start
            self.skip(length)
        else:
            whole = self.compressed or self.data.endswith((b"\r\n\r\n", b"\n\n"))
            self.take(record, start, have, strip=True)
            if not self.finished and not self.damage:
                record.fault = "its text breaks off"
            elif not whole and not self.damage:
                record.fault = "the file ends in the middle of the record"

    def lost_head(self, start: int, end: int) -> int | None:
        """Where the paragraph with another record's fields begins that is no readable head."""
        field = _FIELD.search(self.data, self.at + start, self.at + end)
        if field is None:
            return None
        wide = self.data.rfind(b"\r\n\r\n", self.at + start, field.start())
        narrow = self.data.rfind(b"\n\n", self.at + start, field.start())
        place = max(wide + 4 if wide >= 0 else 0, narrow + 2 if narrow >= 0 else 0) - self.at
        return place if place > start else None

    def take(self, record: Record, start: int, end: int, strip: bool = False) -> None:
        record.text, record.start, record.end = self.data, self.at + start, self.at + end
        if strip and (match := _SEPARATOR.search(self.data, max(record.start, record.end - 4), record.end)):
            record.end = match.start()
        self.at += end

    def wrong_end(self, record: Record, start: int, end: int) -> None:
        """No head follows the block as long as it says: it is shorter or longer than that, or rubbish follows."""
        inside = self.find_head(start, end)
        lost = self.lost_head(start, end if inside is None else inside)
        inside = inside if lost is None else lost
        if inside is not None:
            self.take(record, start, inside, strip=True)
            return
        if not self.data.startswith((b"\r\n\r\n", b"\n\n"), self.at + end):
            self.need(end + self.max_block)
            have = len(self.data) - self.at
            place = self.find_head(end, have)
            opening = self.next_opening(end, have if place is None else place)
            place = opening or place or (have if self.ended else end)
            place = self.lost_head(end, place) or place
            rest = self.data[self.at + end : self.at + place]
            # what has other records' heads or zeros in it is not the rest of this one
            if b"\0" not in rest and not _FIELD.search(rest):
                self.take(record, start, place, strip=True)
                return
        self.take(record, start, end)

    def skip(self, end: int | None) -> None:
        """Pass over a block that is too long and begins at `at`: up to `end` or to the next head."""
        while end is None or end > 0:
            self.need(2 * _TAIL)
            have = len(self.data) - self.at
            stop = have if end is None else min(end, have)
            place = self.find_head(0, stop)
            step = stop if self.ended or stop == end else max(1, stop - _TAIL)
            self.at += step if place is None else place
            if place is not None or self.ended:
                return
            end = None if end is None else end - step

    def rubbish(self, first: bool) -> Iterator[Record]:
        """What is no record, up to the next head: a record for each that once was there."""
        position, size, fields, zeros = self.position(), 0, False, True
        targets: list[bytes] = []
        begin, end = 1, None  # there is no head at `at`
        while end is None:
            self.need(2 * _TAIL)
            have = len(self.data) - self.at
            place = self.find_head(begin, have)
            opening = self.next_opening(begin, have if place is None else place)
            place = place if opening is None else opening
            end = have if place is None and self.ended else place
            step = max(1, have - _TAIL) if end is None else end
            part = self.data[self.at : self.at + step]
            targets += _TARGET.findall(part)[: _MANY - len(targets)]
            fields = fields or _FIELD.search(part) is not None
            zeros = zeros and not part.strip(b"\0\r\n ")
            size += step
            self.at += step
            begin = 0
        if (zeros and self.finished) or (first and self.after_damage and not fields):
            return  # padding at the end, or the rest of the damaged record
        fault = "unreadable record head" if fields else "no record"
        for target in targets or [b""]:
            yield Record("", {b"warc-target-uri": target} if target else {}, position, fault=fault)

    def next_opening(self, start: int, end: int) -> int | None:
        """The offset of the first member or frame between two offsets that begins where a record has ended."""
        origin, record_end = self.base + self.at, (b"\r\n\r\n", b"\n\n") if self.form == "warc" else (b"\n",)
        for offset, _, opens in self.openings:
            inside = offset - origin
            if opens and start <= inside < end and self.data.endswith(record_end, 0, self.at + inside):
                return inside
        return None


def _fields(head: bytes) -> dict[bytes, bytes]:
    """The fields of a head, with their names in lower case; the first one if a name stands there twice."""
    if b"\n " in head or b"\n\t" in head:
        head = _FOLD.sub(b" ", head)
    fields: dict[bytes, bytes] = {}
    for line in head.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon:
            fields.setdefault(name.rstrip().lower(), value.strip())
    return fields


def _iso(digits: bytes) -> bytes:
    """An ARC file's date in the form of a WARC file's."""
    date = digits.ljust(14, b"0")
    return b"%b-%b-%bT%b:%b:%bZ" % (date[:4], date[4:6], date[6:8], date[8:10], date[10:12], date[12:14])
