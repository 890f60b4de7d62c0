"""Row 41: the server shows a wrong certificate, or somebody in between strips TLS.

Promised: off this machine's loopback a server is verified unless the connection string says otherwise: another
authority, another name, an expired certificate and no TLS at all are refused before the password is sent; and so it is
when a statement is called off.

The other modes, and certificates of clients, are in tests/behaviour/test_tls.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import bmdb
from tests.certificates import Authority
from tests.processes import eventually_async
from tests.tls_front import TlsFront
from tests.tls_server import CANARY, TlsServer

# Not a loopback address to anybody's rules, and yet this machine answers.
ELSEWHERE = "0.0.0.0"


@pytest.fixture
def elsewhere(tls: TlsServer) -> Iterator[TlsFront]:
    """A front that is reached by what is no loopback address, with a good certificate for it."""
    front = TlsFront(tls.socket, ELSEWHERE)
    front.show(tls.authority.server(ELSEWHERE))
    yield front
    front.close()


def away(tls: TlsServer, front: TlsFront, **parameters: str) -> str:
    """A connection string that says nothing of sslmode."""
    return tls.conninfo(host=ELSEWHERE, hostaddr="", port=str(front.port), **parameters)


def refused(connect: Callable[..., Any], conninfo: str, kind: type[bmdb.Error] = bmdb.ConnectionFailedError) -> str:
    with pytest.raises(kind) as caught:
        connect(conninfo, component="test")
    assert CANARY not in f"{caught.value} {caught.value!r}"
    return str(caught.value)


def test_who_says_nothing_gets_a_verified_server(
    connect: Callable[..., Any], tls: TlsServer, elsewhere: TlsFront, root: str
) -> None:
    opened = connect(away(tls, elsewhere, sslrootcert=root), component="test")
    try:
        assert "sslmode=verify-full" in opened.conninfo
    finally:
        opened.close()
    assert elsewhere.seen
    assert all(seen.encrypted for seen in elsewhere.seen)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("authority", "not signed by a trusted"),
        ("name", "another host name"),
        ("expired", "expired"),
        ("stripped", "TLS"),
    ],
)
def test_the_wrong_server_gets_nothing(
    wrong: str,
    said: str,
    connect: Callable[..., Any],
    tls: TlsServer,
    elsewhere: TlsFront,
    root: str,
    figure: Callable[..., None],
) -> None:
    if wrong == "authority":
        elsewhere.show(Authority("somebody else").server(ELSEWHERE))
    elif wrong == "name":
        elsewhere.show(tls.authority.server("db.example"))
    elif wrong == "expired":
        elsewhere.show(tls.authority.server(ELSEWHERE, expired=True))
    else:
        elsewhere.policy = "no TLS"
    message = refused(connect, away(tls, elsewhere, sslrootcert=root))
    assert said in message
    assert "sslmode=prefer" in message, "the remedy"
    assert elsewhere.seen == []
    figure("impostors let in", len(elsewhere.seen), of=1)


def test_without_a_root_the_system_s_authorities_decide(
    connect: Callable[..., Any], tls: TlsServer, elsewhere: TlsFront
) -> None:
    # As unknown, or for want of any authorities: a machine need not have them.
    assert "sslrootcert" in refused(connect, away(tls, elsewhere), bmdb.Error)
    assert elsewhere.seen == []


def test_who_says_so_does_without(connect: Callable[..., Any], tls: TlsServer, elsewhere: TlsFront) -> None:
    elsewhere.policy = "no TLS"
    connect(away(tls, elsewhere, sslmode="prefer"), component="test").close()
    assert elsewhere.seen


def test_loopback_is_trusted_as_libpq_does(connect: Callable[..., Any], tls: TlsServer) -> None:
    tls.front.policy = "no TLS"
    opened = connect(tls.conninfo(), component="test")
    assert "sslmode" not in opened.conninfo
    opened.close()


@pytest.mark.one_twin
def test_psycopg_gets_a_string_that_verifies_as_well(tls: TlsServer, elsewhere: TlsFront, root: str) -> None:
    with bmdb.connect(away(tls, elsewhere, sslrootcert=root), component="test") as connection:
        conninfo = connection.conninfo
        psycopg.connect(conninfo).close()
        elsewhere.show(Authority("somebody else").server(ELSEWHERE))
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            psycopg.connect(conninfo)


async def calling_off(connection: bmdb.AsyncConnection, tls: TlsServer, before: Callable[[], None]) -> bool:
    """Cancel a task amid a statement of three seconds; whether the front was asked to, in the second after."""
    async with await connection.start_session() as session:
        task = asyncio.ensure_future(session.transact(lambda q: q.fetch_value("SELECT pg_sleep(3)::text")))
        with psycopg.connect(tls.local, autocommit=True) as watching:
            running = (
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3)%' AND pid <> pg_backend_pid()"
            )
            await eventually_async(lambda: watching.execute(running).fetchone() == (1,))
        before()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with contextlib.suppress(TimeoutError):
            await eventually_async(lambda: any(seen.cancel for seen in tls.front.seen), 1)
        asked = list(tls.front.seen)
        assert all(seen.encrypted for seen in asked)
        # The session is to be ended in order.
        tls.reset()
        return any(seen.cancel for seen in asked)


@pytest.mark.one_twin
async def test_a_request_to_cancel_is_encrypted(tls: TlsServer, root: str) -> None:
    async with await bmdb.AsyncConnection.connect(
        tls.conninfo(sslmode="verify-full", sslrootcert=root), component="test", migrate=True
    ) as connection:
        assert await calling_off(connection, tls, lambda: None)


@pytest.mark.one_twin
@pytest.mark.parametrize("wrong", ["authority", "stripped"])
async def test_no_request_to_cancel_goes_to_another_server(wrong: str, tls: TlsServer, root: str) -> None:
    """It holds the key that ends statements of this session."""

    def change() -> None:
        if wrong == "authority":
            tls.front.show(Authority("somebody else").server("localhost"))
        else:
            tls.front.policy = "no TLS"

    async with await bmdb.AsyncConnection.connect(
        tls.conninfo(sslmode="verify-full", sslrootcert=root), component="test", migrate=True
    ) as connection:
        assert not await calling_off(connection, tls, change)
