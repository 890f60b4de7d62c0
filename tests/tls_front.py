"""A front that speaks TLS for a PostgreSQL server that cannot, as the embedded one cannot, and reports what it saw.

It answers by itself what the protocol puts before a session (SSLRequest, GSSENCRequest, or TLS at once) and passes on
everything after, so to its clients it is a server with certificates.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tests.certificates import Identity

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102
TLS_HANDSHAKE = 0x16

Policy = Literal["both", "encrypted only", "plain only", "no TLS"]


@dataclass(frozen=True)
class Seen:
    """One session that was passed on."""

    encrypted: bool
    version: str | None = None
    server_name: str | None = None
    client: str | None = None
    cancel: bool = False


class TlsFront:
    """Listens in threads of its own, on loopback unless told otherwise; both `policy` and certificate can change.

    `policy`: what sessions are let in; "encrypted only" and "plain only" refuse the others as pg_hba.conf would, after
    the transport is settled, while "no TLS" says so when asked for it.
    """

    def __init__(self, backend: str, address: str = "127.0.0.1") -> None:
        self.policy: Policy = "both"
        self.seen: list[Seen] = []
        self._backend = backend
        self._context: ssl.SSLContext | None = None
        self._names: dict[ssl.SSLObject | ssl.SSLSocket, str | None] = {}
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; sessions end with their clients."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def show(self, identity: Identity, *, client_authority: bytes | None = None) -> None:
        """Present this certificate from now on, and ask clients for one if an authority for them is given."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["postgresql"])
        context.sni_callback = lambda session, name, _: self._names.__setitem__(session, name)
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            Path(file.name).write_bytes(identity.certificate + identity.key)
            context.load_cert_chain(file.name)
        if client_authority is not None:
            context.load_verify_locations(cadata=client_authority.decode())
            context.verify_mode = ssl.CERT_REQUIRED
        self._context = context

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        # A client that goes away, or refuses the certificate, is what half of the tests are about.
        with contextlib.suppress(OSError), contextlib.ExitStack() as sockets:
            sockets.callback(lambda: client.close())
            client.settimeout(30)
            if client.recv(1, socket.MSG_PEEK) == bytes([TLS_HANDSHAKE]):
                client = self._encrypt(client)
            startup = _startup_message(client)
            while _code(startup) in (SSL_REQUEST, GSS_REQUEST):
                if _code(startup) == GSS_REQUEST or self.policy == "no TLS":
                    client.sendall(b"N")
                else:
                    client.sendall(b"S")
                    client = self._encrypt(client)
                startup = _startup_message(client)
            seen = replace(self._describe(client), cancel=_code(startup) == CANCEL_REQUEST)
            if self.policy == ("plain only" if seen.encrypted else "encrypted only"):
                client.sendall(_refusal())
                return
            backend = sockets.enter_context(socket.socket(socket.AF_UNIX))
            backend.connect(self._backend)
            backend.sendall(startup)
            self.seen.append(seen)
            _pass_on(client, backend)

    def _encrypt(self, client: socket.socket) -> ssl.SSLSocket:
        assert self._context is not None, "show() comes first"
        return self._context.wrap_socket(client, server_side=True)

    def _describe(self, client: socket.socket) -> Seen:
        if not isinstance(client, ssl.SSLSocket):
            return Seen(encrypted=False)
        certificate = client.getpeercert() or {}
        names = dict(pair for group in certificate.get("subject", ()) for pair in group)
        return Seen(True, client.version(), self._names.pop(client, None), names.get("commonName"))


def _startup_message(client: socket.socket) -> bytes:
    head = _exactly(client, 4)
    (length,) = struct.unpack("!i", head)
    return head + _exactly(client, length - 4)


def _exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := client.recv(count - len(data))):
            raise ConnectionResetError("the client went away")
        data += more
    return data


def _code(message: bytes) -> int:
    code: int = struct.unpack_from("!i", message, 4)[0]
    return code


def _refusal() -> bytes:
    fields = {"S": "FATAL", "V": "FATAL", "C": "28000", "M": "no pg_hba.conf entry for this kind of connection"}
    body = b"".join(f"{kind}{text}".encode() + b"\0" for kind, text in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


def _pass_on(client: socket.socket, backend: socket.socket) -> None:
    """Until either side ends."""
    client.settimeout(None)
    while True:
        waiting = isinstance(client, ssl.SSLSocket) and client.pending() > 0
        readable = [client] if waiting else select.select([client, backend], [], [])[0]
        for source, target in ((client, backend), (backend, client)):
            if source in readable:
                if not (data := source.recv(1 << 16)):
                    return
                target.sendall(data)
