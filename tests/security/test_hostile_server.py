"""Whatever a peer answers that pretends to be PostgreSQL, connecting ends with an error of ours: no panic, no hang."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bmdb

TYPES = b"RSKZENCDTt1234n?A\0\xff"


class Pretender:
    """Listens on loopback and answers each connection with `answer`, a piece after each thing that it hears."""

    def __init__(self) -> None:
        self.answer: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(1)
                for piece in self.answer:
                    client.recv(4096)
                    client.sendall(piece)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def pretender() -> Iterator[Pretender]:
    made = Pretender()
    yield made
    made.close()


def message(kind: int, payload: bytes, lie: int) -> bytes:
    return bytes([kind]) + struct.pack("!i", max(-(2**31), min(2**31 - 1, len(payload) + 4 + lie))) + payload


MESSAGES = st.builds(
    message,
    st.sampled_from(TYPES),
    st.binary(max_size=40),
    st.one_of(st.just(0), st.sampled_from([-5, 1, 2**31, -(2**31)])),
)
AUTHENTICATED = b"R" + struct.pack("!ii", 8, 0)
PIECES = st.one_of(
    st.binary(max_size=60),
    st.lists(MESSAGES, max_size=4).map(b"".join),
    st.lists(MESSAGES, max_size=4).map(lambda several: AUTHENTICATED + b"".join(several)),
    st.lists(MESSAGES, max_size=3).map(lambda several: AUTHENTICATED + b"Z\0\0\0\5I" + b"".join(several)),
)


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
def test_any_answer_ends_in_an_error(mode: str, pretender: Pretender) -> None:
    conninfo = f"host=127.0.0.1 port={pretender.port} user=ann password=c4n4ry sslmode={mode} connect_timeout=2"

    @hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.lists(PIECES, min_size=1, max_size=3))
    def probe(answer: list[bytes]) -> None:
        pretender.answer = answer
        with pytest.raises(bmdb.Error) as caught:
            bmdb.connect(conninfo, component="test").close()
        assert "c4n4ry" not in str(caught.value)

    probe()
