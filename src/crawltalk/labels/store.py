"""The store of labels: one SQLite file, safe for many processes and threads at once.

    prompts     what is labelled: the messages before a reply
    candidates  replies to a prompt, each with the model and the sampling settings that made it
    batches     which prompts are to be labelled, in order
    labels      who said what, when, and under which instructions; rows are only ever added
    instructions  the text of each version

Prompts and candidates have the hash of their content as id (`rows.py`), so adding one twice changes nothing. A label
supersedes an earlier one of the same labeler, kind and subject; the earlier row stays as history. Taking a label back
is a row, too: one without a value. Every method is one transaction with a connection of its own.
"""

import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.chat.messages import Message
from crawltalk.core.errors import MissingInput, UserError
from crawltalk.labels.instructions import Instructions
from crawltalk.labels.rows import (
    Batch,
    Candidate,
    Kind,
    Label,
    NewPrompt,
    Progress,
    Prompt,
    Record,
    Snapshot,
    Thumb,
    Value,
    check_labeler,
    check_prompt,
    check_record,
    check_value,
    kind_of,
    make_candidate,
    subject_of,
    time_text,
)

NAME = "labels.sqlite"
_WAIT = 30.0
"""Seconds to wait for another process's transaction."""
_VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS prompts (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, messages TEXT NOT NULL, source TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS candidates (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, prompt TEXT NOT NULL REFERENCES prompts(id),
    reply TEXT NOT NULL, model TEXT NOT NULL, sampling TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS candidates_of ON candidates(prompt);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, prompt TEXT NOT NULL REFERENCES prompts(id),
    UNIQUE (name, prompt));
CREATE TABLE IF NOT EXISTS instructions (version TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, prompt TEXT NOT NULL REFERENCES prompts(id),
    labeler TEXT NOT NULL, time TEXT NOT NULL, instructions TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    value TEXT);
CREATE INDEX IF NOT EXISTS labels_of ON labels(prompt, labeler, kind, subject, time);
CREATE INDEX IF NOT EXISTS labels_by ON labels(labeler, time);
CREATE INDEX IF NOT EXISTS labels_at ON labels(time);
CREATE TRIGGER IF NOT EXISTS labels_stay BEFORE UPDATE ON labels
    BEGIN SELECT RAISE(ABORT, 'labels are only ever added'); END;
CREATE TRIGGER IF NOT EXISTS labels_remain BEFORE DELETE ON labels
    BEGIN SELECT RAISE(ABORT, 'labels are only ever added'); END;
CREATE VIEW IF NOT EXISTS current AS SELECT * FROM labels AS one WHERE value IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM labels AS later WHERE later.prompt = one.prompt AND later.labeler = one.labeler
    AND later.kind = one.kind AND later.subject = one.subject AND (later.time, later.id) > (one.time, one.id));
"""
_DONE = """(SELECT count(DISTINCT kind) FROM current WHERE current.prompt = batches.prompt AND labeler = ?
    AND kind IN (SELECT value FROM json_each(?))) = {}"""
_SKIPPED = (
    "EXISTS (SELECT 1 FROM current WHERE current.prompt = batches.prompt AND labeler = ? AND kind = 'skip')"
)
_LABEL = "id, prompt, labeler, time, instructions, kind, subject, value"


class LabelStore:
    """The labels of one run. File and folder are made when something is first written."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / NAME

    def add_prompts(self, batch: str, prompts: Sequence[NewPrompt], source: str) -> int:
        """Append prompts to a batch. Returns how many are new in it. Raises BadInput as `NewPrompt.check` does."""
        ids = [check_prompt(prompt.messages) for prompt in prompts]
        with self._writing() as db:
            before = _count(db, "SELECT count(*) FROM batches WHERE name = ?", batch)
            for id_, prompt in zip(ids, prompts, strict=True):
                _insert_prompt(db, Prompt(id_, prompt.messages, source))
                db.execute("INSERT OR IGNORE INTO batches (name, prompt) VALUES (?, ?)", (batch, id_))
                for reply in prompt.replies:
                    _insert_candidate(db, id_, make_candidate(id_, reply, prompt.model, {}))
            return _count(db, "SELECT count(*) FROM batches WHERE name = ?", batch) - before

    def add_candidates(
        self,
        prompt: str,
        replies: Sequence[list[Message]],
        model: str,
        sampling: dict[str, Any],
        *,
        below: int,
    ) -> None:
        """Add replies to a prompt, unless there are `below` or more already: of two who sample at the same time, one
        gives the replies, and both rank the same. Raises MissingInput if there is no such prompt, BadInput for a reply
        that is none.
        """
        made = [make_candidate(prompt, reply, model, sampling) for reply in replies]
        with self._writing() as db:
            _prompt(db, prompt)
            if _count(db, "SELECT count(*) FROM candidates WHERE prompt = ?", prompt) < below:
                for candidate in made:
                    _insert_candidate(db, prompt, candidate)

    def add_label(
        self, prompt: str, labeler: str, value: Value, instructions: Instructions | None = None
    ) -> str:
        """Add a label and return its id. Raises MissingInput if there is no such prompt, and BadInput for an unknown
        candidate, an empty answer or a ranking that is none.
        """
        check_labeler(labeler)
        with self._writing() as db:
            _prompt(db, prompt)
            known = {row[0] for row in db.execute("SELECT id FROM candidates WHERE prompt = ?", (prompt,))}
            check_value(value, known)
            if instructions is not None:
                _insert_instructions(db, instructions)
            version = instructions.version if instructions else ""
            return _insert_label(db, prompt, labeler, version, kind_of(value), subject_of(value), value)

    def thumb(
        self,
        messages: Sequence[Message],
        reply: Sequence[Message],
        labeler: str,
        up: bool | None,
        model: str = "",
        sampling: dict[str, Any] | None = None,
    ) -> str:
        """Add a thumb under a reply of the chat, with the conversation before it; `up` None takes it back. Returns
        the label's id.
        """
        check_labeler(labeler)
        prompt = check_prompt(messages)
        candidate = make_candidate(prompt, reply, model, sampling or {})
        with self._writing() as db:
            _insert_prompt(db, Prompt(prompt, list(messages), "chat"))
            _insert_candidate(db, prompt, candidate)
            value = None if up is None else Thumb(candidate.id, up)
            return _insert_label(db, prompt, labeler, "", "thumb", candidate.id, value)

    def undo(self, labeler: str) -> Label | None:
        """Take back the labeler's last label (thumbs of the chat apart), and return it; None if there is none."""
        query = f"""SELECT {_LABEL} FROM current WHERE labeler = ? AND kind != 'thumb'
            ORDER BY time DESC, id DESC LIMIT 1"""
        with self._writing() as db:
            row = db.execute(query, (labeler,)).fetchone()
            if row is None:
                return None
            label = _label(row)
            _insert_label(db, label.prompt, labeler, label.instructions, label.kind, label.subject, None)
            return label

    def merge(self, records: Sequence[Record]) -> int:
        """Add labels that were made elsewhere, and return how many are new. Raises BadInput as `check_record` does."""
        for record in records:
            check_record(record)
        with self._writing() as db:
            before = _count(db, "SELECT count(*) FROM labels")
            for record in records:
                _insert_prompt(db, record.prompt)
                for candidate in record.candidates:
                    _insert_candidate(db, record.prompt.id, candidate)
                row = _row(record.label)
                db.execute(f"INSERT OR IGNORE INTO labels ({_LABEL}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            return _count(db, "SELECT count(*) FROM labels") - before

    def prompt(self, id_: str) -> Prompt:
        """A prompt. Raises MissingInput if there is none of this id."""
        with self._reading() as db:
            return _prompt(db, id_)

    def candidates(self, prompt: str) -> list[Candidate]:
        """The replies to a prompt, in the order in which they came."""
        query = "SELECT id, reply, model, sampling FROM candidates WHERE prompt = ? ORDER BY number"
        with self._reading() as db:
            return [_read_candidate(*row) for row in db.execute(query, (prompt,))]

    def snapshot(self, *, history: bool = False) -> Snapshot:
        """All of it at one moment, however much is written meanwhile. The labels are those that hold; with `history`
        also superseded ones and those taken back.
        """
        replies = "SELECT prompt, id, reply, model, sampling FROM candidates ORDER BY number"
        labels = f"SELECT {_LABEL} FROM {'labels' if history else 'current'} ORDER BY time, id"
        with self._reading() as db:
            prompts = db.execute("SELECT id, messages, source FROM prompts ORDER BY number")
            snapshot = Snapshot({row[0]: _read_prompt(row) for row in prompts}, {}, [])
            for prompt, *row in db.execute(replies):
                snapshot.candidates.setdefault(prompt, {})[row[0]] = _read_candidate(*row)
            snapshot.labels.extend(_label(row) for row in db.execute(labels))
        return snapshot

    def label(self, prompt: str, labeler: str, kind: Kind) -> Label | None:
        """The last label of a kind that a labeler gave to a prompt and that holds."""
        query = f"""SELECT {_LABEL} FROM current WHERE prompt = ? AND labeler = ? AND kind = ?
            ORDER BY time DESC, id DESC LIMIT 1"""
        with self._reading() as db:
            row = db.execute(query, (prompt, labeler, kind)).fetchone()
        return None if row is None else _label(row)

    def batches(self) -> list[Batch]:
        """The batches, in the order in which they began."""
        query = "SELECT name, count(*) FROM batches GROUP BY name ORDER BY min(number)"
        with self._reading() as db:
            return [Batch(*row) for row in db.execute(query)]

    def next_prompt(
        self, labeler: str, kinds: Sequence[Kind], batch: str, *, alone: bool = False
    ) -> Prompt | None:
        """The first prompt of a batch (empty: of any) that the labeler has not skipped, and to which a label of one of
        these kinds is missing; None if there is none. `alone`: only prompts that nobody else has labelled.
        """
        query = f"""SELECT id, messages, source FROM batches JOIN prompts ON prompts.id = batches.prompt
            WHERE (? = '' OR name = ?) AND NOT ({_DONE.format(len(kinds))}) AND NOT {_SKIPPED}
            AND (NOT ? OR NOT EXISTS (SELECT 1 FROM current WHERE current.prompt = batches.prompt
                AND labeler != ? AND kind IN ('ideal', 'edit', 'ranking')))
            ORDER BY batches.number LIMIT 1"""
        kinds_json = json.dumps(kinds)
        with self._reading() as db:
            row = db.execute(query, (batch, batch, labeler, kinds_json, labeler, alone, labeler)).fetchone()
        return None if row is None else _read_prompt(row)

    def progress(self, labeler: str, kinds: Sequence[Kind], batch: str) -> Progress:
        """How many prompts of a batch (empty: of all) the labeler has given a label of each of these kinds, how many
        others skipped, and how many there are.
        """
        query = f"""SELECT coalesce(sum({_DONE.format(len(kinds))}), 0),
            coalesce(sum({_SKIPPED} AND NOT ({_DONE.format(len(kinds))})), 0), count(*)
            FROM (SELECT DISTINCT prompt FROM batches WHERE ? = '' OR name = ?) AS batches"""
        kinds_json = json.dumps(kinds)
        values = (labeler, kinds_json, labeler, labeler, kinds_json, batch, batch)
        with self._reading() as db:
            return Progress(*db.execute(query, values).fetchone())

    def counts(self) -> dict[str, int]:
        """How many labels of each kind hold."""
        with self._reading() as db:
            return dict(db.execute("SELECT kind, count(*) FROM current GROUP BY kind ORDER BY kind"))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees one state of the store; an empty one if there is no file yet."""
        if not self.path.exists():
            with contextlib.closing(sqlite3.connect(":memory:")) as db:
                db.executescript(_TABLES)
                yield db
            return
        with self._transaction("BEGIN") as db:
            yield db

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is the only one that writes; all of it is done, or nothing."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be made for labels: {error.strerror}; choose another folder"
            ) from None
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(_connect(self.path)) as db:
                db.execute(begin)
                yield db
                db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"the labels in {self.path} cannot be used: {error}; see that the file is whole, "
                "its folder may be written, and the disk has room"
            ) from error


def _connect(path: Path) -> sqlite3.Connection:
    """A connection outside a transaction, to a store with its tables. Raises UserError for that of a newer version."""
    db = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = FULL")  # what is acknowledged outlives a loss of power
        version = _count(db, "PRAGMA user_version")
        if version > _VERSION:
            raise UserError(f"{path} was made by a newer crawltalk; update this one")
        if version < _VERSION:
            _use_wal(db)
            db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


def _use_wal(db: sqlite3.Connection) -> None:
    """Readers and a writer do not wait for each other. SQLite itself does not wait for another process that does the
    same at this moment.
    """
    deadline = time.monotonic() + _WAIT
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _count(db: sqlite3.Connection, query: str, *values: str) -> int:
    return db.execute(query, values).fetchone()[0]


def _insert_prompt(db: sqlite3.Connection, prompt: Prompt) -> None:
    row = (prompt.id, msgspec.json.encode(prompt.messages).decode(), prompt.source)
    db.execute("INSERT OR IGNORE INTO prompts (id, messages, source) VALUES (?, ?, ?)", row)


def _insert_candidate(db: sqlite3.Connection, prompt: str, candidate: Candidate) -> None:
    reply, sampling = (msgspec.json.encode(one).decode() for one in (candidate.reply, candidate.sampling))
    db.execute(
        "INSERT OR IGNORE INTO candidates (id, prompt, reply, model, sampling) VALUES (?, ?, ?, ?, ?)",
        (candidate.id, prompt, reply, candidate.model, sampling),
    )


def _insert_instructions(db: sqlite3.Connection, instructions: Instructions) -> None:
    row = (instructions.version, instructions.text)
    db.execute("INSERT OR IGNORE INTO instructions (version, text) VALUES (?, ?)", row)


def _insert_label(
    db: sqlite3.Connection,
    prompt: str,
    labeler: str,
    version: str,
    kind: Kind,
    subject: str,
    value: Value | None,
) -> str:
    """Its time is later than that of every label before it, also where the machine's clock was set back."""
    now, last = datetime.now(UTC), db.execute("SELECT max(time) FROM labels").fetchone()[0]
    if last is not None:
        now = max(now, datetime.fromisoformat(last) + timedelta(microseconds=1))
    label = Label(uuid.uuid4().hex, prompt, labeler, time_text(now), version, kind, subject, value)
    db.execute(f"INSERT INTO labels ({_LABEL}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _row(label))
    return label.id


def _row(label: Label) -> tuple[str | None, ...]:
    value = None if label.value is None else msgspec.json.encode(label.value).decode()
    return (*msgspec.structs.astuple(label)[:-1], value)


def _label(row: tuple[Any, ...]) -> Label:
    value = None if row[-1] is None else msgspec.json.decode(row[-1], type=Value)
    id_, prompt, labeler, when, version, kind, subject = row[:-1]
    return Label(id_, prompt, labeler, when, version, kind, subject, value)


def _prompt(db: sqlite3.Connection, id_: str) -> Prompt:
    row = db.execute("SELECT id, messages, source FROM prompts WHERE id = ?", (id_,)).fetchone()
    if row is None:
        raise MissingInput(f"there is no prompt {id_[:40]!r} in this store; reload the page")
    return _read_prompt(row)


def _read_prompt(row: tuple[str, str, str]) -> Prompt:
    return Prompt(row[0], msgspec.json.decode(row[1], type=list[Message]), row[2])


def _read_candidate(id_: str, reply: str, model: str, sampling: str) -> Candidate:
    return Candidate(
        id_, msgspec.json.decode(reply, type=list[Message]), model, msgspec.json.decode(sampling)
    )
