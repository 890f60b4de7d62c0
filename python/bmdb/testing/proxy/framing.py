"""Framing of the PostgreSQL protocol, version 3: bytes in, messages out, and the few messages that the proxy makes.

Pure: no sockets, no clock. A frontend's stream begins with untyped packets (encryption requests, then the startup
packet); everything after the startup packet, and everything from a backend, is a type byte, a length and a payload.
Source: the chapter "Frontend/Backend Protocol" of PostgreSQL's documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102

# The server's own limits: a longer packet means that the stream is out of step.
LONGEST_STARTUP = 10_000
LONGEST_MESSAGE = 0x3FFF_FFFF

# A name that no client prepares: binding it fails on the server, whatever state its transaction is in.
ABSENT_STATEMENT = "statement that the proxy never prepares"


class FramingError(Exception):
    """The stream is not PostgreSQL protocol version 3, or is out of step."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its type byte (empty for untyped packets) and its payload without the length."""

    type: bytes
    payload: bytes

    @property
    def raw(self) -> bytes:
        """The message as it travels."""
        return self.type + struct.pack("!i", len(self.payload) + 4) + self.payload

    @property
    def code(self) -> int:
        """Request code or protocol version of an untyped packet."""
        return int(struct.unpack_from("!i", self.payload)[0])

    @property
    def starts_session(self) -> bool:
        """Whether this is the startup packet, after which every message has a type."""
        return not self.type and self.code >> 16 == 3


class FrameReader:
    """Cuts a stream into messages, whatever the chunks in which it arrives.

    `untyped` tells whether the stream begins with untyped packets, as a frontend's does.
    """

    def __init__(self, *, untyped: bool = False) -> None:
        self._buffer = bytearray()
        self._untyped = untyped

    @property
    def pending(self) -> int:
        """Bytes of an unfinished message."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, in order. Raises FramingError when a length is impossible."""
        self._buffer += data
        messages: list[Message] = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def _next(self) -> Message | None:
        head = 0 if self._untyped else 1
        if len(self._buffer) < head + 4:
            return None
        (length,) = struct.unpack_from("!i", self._buffer, head)
        shortest, longest = (8, LONGEST_STARTUP) if self._untyped else (4, LONGEST_MESSAGE)
        if not shortest <= length <= longest:
            raise FramingError(f"impossible message length {length} after {bytes(self._buffer[:head])!r}")
        if len(self._buffer) < head + length:
            return None
        message = Message(bytes(self._buffer[:head]), bytes(self._buffer[head + 4 : head + length]))
        del self._buffer[: head + length]
        if message.starts_session:
            self._untyped = False
        return message


def startup_parameters(message: Message) -> dict[str, str]:
    """The name-value pairs of a startup packet: user, database, application_name and settings."""
    words = message.payload[4:].rstrip(b"\0").split(b"\0")
    text = [word.decode("utf-8", "replace") for word in words]
    return dict(zip(text[0::2], text[1::2], strict=False))


def query(text: str) -> Message:
    """A simple query."""
    return Message(b"Q", text.encode() + b"\0")


def sync() -> Message:
    """The end of an extended query, answered by ReadyForQuery."""
    return Message(b"S", b"")


def failing_bind() -> Message:
    """A Bind that the server must refuse (26000), which aborts its open transaction for real."""
    return Message(b"B", b"\0" + ABSENT_STATEMENT.encode() + b"\0" + struct.pack("!hhh", 0, 0, 0))


def ready_for_query(status: bytes) -> Message:
    """ReadyForQuery with a transaction status: b"I" idle, b"T" in a transaction, b"E" in a failed one."""
    return Message(b"Z", status)


# Field letters of ErrorResponse, by the names used in tests.
_ERROR_FIELDS = {
    "detail": "D",
    "hint": "H",
    "schema": "s",
    "table": "t",
    "column": "c",
    "constraint": "n",
}


def error_response(
    sqlstate: str, message: str, severity: str = "ERROR", fields: Mapping[str, str] | None = None
) -> Message:
    """An ErrorResponse. `fields` may name detail, hint, schema, table, column and constraint."""
    parts = {"S": severity, "V": severity, "C": sqlstate, "M": message}
    parts |= {_ERROR_FIELDS[name]: value for name, value in (fields or {}).items()}
    return Message(b"E", b"".join(letter.encode() + value.encode() + b"\0" for letter, value in parts.items()) + b"\0")


def error_fields(message: Message) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse by their letters ("C" is the SQLSTATE)."""
    parts = message.payload.rstrip(b"\0").split(b"\0")
    return {part[:1].decode("latin-1"): part[1:].decode("utf-8", "replace") for part in parts if part}


def command_tag(message: Message) -> str:
    """The tag of a CommandComplete, for example "COMMIT" or "INSERT 0 1"."""
    return message.payload.rstrip(b"\0").decode("utf-8", "replace")
