"""What a frontend asks for: its messages grouped into batches, and the SQL text behind every message that executes one.

Pure. A batch is what the server answers with one ReadyForQuery: a simple query, or everything up to a Sync.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bmdb.testing.proxy.framing import FramingError, Message

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_SPACE = re.compile(r"\s+")
_COMMIT = re.compile(r"(?:^|;)\s*(?:COMMIT|END|RELEASE)\b", re.IGNORECASE)
_RELEASE = re.compile(r"(?:^|;)\s*RELEASE\b", re.IGNORECASE)


def plain(text: str) -> str:
    """SQL on one line, without comments, so that patterns need not care how a query file is laid out."""
    return _SPACE.sub(" ", _COMMENT.sub(" ", text)).strip()


@dataclass(frozen=True, slots=True)
class Statement:
    """One execution seen by the proxy.

    `kind` is "query" (simple protocol) or "execute" (extended); `text` is the SQL on one line without comments;
    `sent_at` is `time.monotonic()` when the proxy had read it; `connection` is the index of the connection.
    """

    kind: str
    text: str
    sent_at: float
    connection: int
    application_name: str | None

    @property
    def commits(self) -> bool:
        """Whether it holds COMMIT, END or RELEASE SAVEPOINT."""
        return _COMMIT.search(self.text) is not None

    @property
    def releases(self) -> bool:
        """Whether it releases a savepoint, which in CockroachDB's protocol is the commit."""
        return _RELEASE.search(self.text) is not None


@dataclass(slots=True)
class Batch:
    """Messages of the frontend up to one that makes the server act, with the executions among them.

    `executions` holds (position in `messages`, kind, text) for each.
    """

    messages: list[Message] = field(default_factory=list)
    executions: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def answered(self) -> bool:
        """Whether the server ends its answer with ReadyForQuery (else more messages follow first)."""
        return self.messages[-1].type in (b"Q", b"S", b"F")


class BatchReader:
    """Groups a frontend's messages into batches and remembers what its statement and portal names stand for."""

    # Query, Sync, FunctionCall, Flush, Terminate, CopyData, CopyDone, CopyFail, answers to authentication requests.
    _ENDS = frozenset((b"Q", b"S", b"F", b"H", b"X", b"d", b"c", b"f", b"p"))

    def __init__(self) -> None:
        self._statements: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}
        self._batch = Batch()

    def add(self, message: Message) -> Batch | None:
        """Take the next message; the batch that it completes, if it does."""
        position = len(self._batch.messages)
        self._batch.messages.append(message)
        match message.type:
            case b"Q":
                self._batch.executions.append((position, "query", _text(message.payload)))
            case b"P":
                name, _, rest = message.payload.partition(b"\0")
                self._statements[name] = _text(rest)
            case b"B":
                portal, ended, rest = message.payload.partition(b"\0")
                statement, ended_too, _ = rest.partition(b"\0")
                if not (ended and ended_too):
                    raise FramingError("a Bind message without the names of its portal and statement")
                self._portals[portal] = self._statements.get(statement, "")
            case b"E":
                portal = message.payload.partition(b"\0")[0]
                self._batch.executions.append((position, "execute", self._portals.get(portal, "")))
            case b"C":
                names = self._statements if message.payload[:1] == b"S" else self._portals
                names.pop(message.payload[1:].rstrip(b"\0"), None)
        if message.type not in self._ENDS:
            return None
        batch, self._batch = self._batch, Batch()
        return batch


def _text(payload: bytes) -> str:
    return plain(payload.partition(b"\0")[0].decode("utf-8", "replace"))
