"""The endpoints do what the rack says of them, and what has been succeeded is turned down."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bmdb.demo.endpoints import Endpoint, Endpoints
from bmdb.demo.rack import Behaviour, RackMachine


def machine(behaviour: Behaviour) -> RackMachine:
    return RackMachine("Lumen", behaviour.value, None, None, None, behaviour, delay=0.05, after=0.3)


@pytest.fixture
def endpoints() -> Iterator[Endpoints]:
    with Endpoints([machine(behaviour) for behaviour in Behaviour]) as running:
        yield running


def ask(endpoint: Endpoint, token: int, timeout: float = 5.0) -> str:
    host, port = endpoint.address.split(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        connection.sendall(f"start some-machine {token}\n".encode())
        with connection.makefile("r", encoding="ascii") as answer:
            return answer.readline().strip()


def test_one_answers_with_its_key_and_turns_down_an_older_token(endpoints: Endpoints) -> None:
    endpoint = endpoints.of(machine(Behaviour.ANSWERS))
    assert ask(endpoint, 2) == f"key {endpoint.key.hex()}"
    assert ask(endpoint, 2) == f"key {endpoint.key.hex()}"
    assert ask(endpoint, 1) == "token 1 is older than 2"
    assert ask(endpoint, 3) == f"key {endpoint.key.hex()}"
    assert endpoint.tokens == [2, 2, 3]


def test_one_refuses_always_and_one_hangs(endpoints: Endpoints) -> None:
    endpoints.begin()
    with pytest.raises(ConnectionRefusedError):
        ask(endpoints.of(machine(Behaviour.REFUSES)), 1)
    with pytest.raises(TimeoutError):
        ask(endpoints.of(machine(Behaviour.HANGS)), 1, timeout=0.6)
    with pytest.raises(ConnectionRefusedError):
        ask(endpoints.of(machine(Behaviour.REFUSES)), 1)


def test_one_refuses_until_it_recovers(endpoints: Endpoints) -> None:
    endpoint = endpoints.of(machine(Behaviour.RECOVERS))
    with pytest.raises(ConnectionRefusedError):
        ask(endpoint, 1)
    endpoints.begin()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert ask(endpoint, 1).startswith("key ")
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_makes_no_sense_is_not_answered(endpoints: Endpoints) -> None:
    host, port = endpoints.of(machine(Behaviour.ANSWERS)).address.split(":")
    for nonsense in (b"hello\n", b"start it soon\n", b"\n"):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(nonsense)
            assert connection.recv(100) == b""


def test_leaving_ends_connections_ports_and_the_thread() -> None:
    before = threading.active_count()
    with Endpoints([machine(behaviour) for behaviour in Behaviour]) as running:
        running.begin()
        addresses = [running.of(machine(behaviour)).address for behaviour in Behaviour]
        host, port = running.of(machine(Behaviour.HANGS)).address.split(":")
        hanging = socket.create_connection((host, int(port)), timeout=5)
        hanging.sendall(b"start some-machine 1\n")
    # Whether the end comes as such or as a reset depends on how far the request had got.
    with hanging, contextlib.suppress(ConnectionResetError):
        assert hanging.recv(100) == b""
    running.close()
    assert threading.active_count() == before
    for address in addresses:
        host, port = address.split(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=5)
