"""The tests' own proxy reads anything: it either understands a stream or says that it is none."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from bmdb.testing.proxy.framing import FrameReader, FramingError, Message, error_fields, startup_parameters
from bmdb.testing.proxy.statements import BatchReader

KINDS = st.sampled_from([bytes([kind]) for kind in b"QPBECSDHXFdcfpRZTKN12"])


@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
def test_any_bytes_are_cut_or_refused(chunks: list[bytes], untyped: bool) -> None:
    reader = FrameReader(untyped=untyped)
    read: list[Message] = []
    with contextlib.suppress(FramingError):
        for chunk in chunks:
            read += reader.feed(chunk)
        assert b"".join(message.raw for message in read) + bytes(reader._buffer) == b"".join(chunks)
    for message in read:
        assert isinstance(message.starts_session, bool)
        if message.starts_session:
            startup_parameters(message)


@given(st.lists(st.builds(Message, KINDS, st.binary(max_size=40)), max_size=12))
def test_any_messages_are_grouped_or_refused(messages: list[Message]) -> None:
    reader = BatchReader()
    grouped: list[Message] = []
    try:
        for message in messages:
            if (batch := reader.add(message)) is not None:
                grouped += batch.messages
    except FramingError:
        return
    assert grouped == messages[: len(grouped)]


@given(st.binary(max_size=60))
def test_any_error_is_read(payload: bytes) -> None:
    error_fields(Message(b"E", payload))
