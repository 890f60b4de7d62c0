"""`bmdb web`: what it refuses, what it hands on, and that it serves until it is told to end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bmdb.cli import main
from bmdb.cli.pages import is_loopback

Output = pytest.CaptureFixture[str]
TOKEN = "a token that is long enough"
MADE = "a token of this run alone"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMDB_CONNINFO", "host=127.0.0.1 port=1")
    monkeypatch.delenv("BMDB_WEB_TOKEN", raising=False)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return file


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What the pages were made of; nothing is served."""
    uvicorn = pytest.importorskip("uvicorn")
    web = pytest.importorskip("bmdb.web")
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def app(*arguments: Any, **settings: Any) -> object:
        calls.append((arguments, settings))
        return object()

    monkeypatch.setattr(web, "app", app)
    monkeypatch.setattr(web, "new_token", lambda: MADE, raising=False)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    return calls


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


class TestRefused:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "fleet.example"])
    def test_actions_for_everybody(self, host: str, capsys: Output) -> None:
        assert main(["web", "--host", host, "--allow-actions"]) == 2
        assert capsys.readouterr().err.startswith(f"bmdb: with --allow-actions on {host} anybody could free machines")

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--token-file", "/nowhere"], "the token cannot be read from /nowhere: No such file"),
            (["--provider", "Equinix"], "is not like"),
            (["--provider", "Equinix=javascript:alert(1)"], "is not like"),
            (["--provider", "Equinix=https://console.example/"], "is not like"),
            (["--port", "70000"], "--port"),
        ],
    )
    def test_what_makes_no_sense(self, arguments: list[str], complaint: str, capsys: Output) -> None:
        assert main(["web", *arguments]) == 2
        assert complaint in capsys.readouterr().err

    def test_a_token_that_can_be_guessed(self, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
        monkeypatch.setenv("BMDB_WEB_TOKEN", "secret")
        assert main(["web"]) == 2
        captured = capsys.readouterr()
        assert "$BMDB_WEB_TOKEN is shorter than 16" in captured.err
        assert "secret" not in captured.err

    def test_no_database(self, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
        monkeypatch.delenv("BMDB_CONNINFO")
        assert main(["web"]) == 2
        assert "no database given" in capsys.readouterr().err

    @pytest.mark.parametrize("package", ["uvicorn", "starlette"])
    def test_an_extra_that_is_missing(self, package: str) -> None:
        if find_spec("bmdb.web") is None:
            pytest.skip("there are no pages")
        source = f"import sys; sys.modules[{package!r}] = None; from bmdb.cli import main; sys.exit(main(['web']))"
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr == f'bmdb: the debug pages need {package}: pip install "pybmdb[web]"\n'

    def test_a_port_that_is_taken(self, served: Any, capsys: Output) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert main(["web", "--port", str(port)]) == 1
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err


class TestServed:
    def test_what_is_handed_on(self, served: Any, token_file: Path, capsys: Output) -> None:
        arguments = ["--host", "0.0.0.0", "--port", "0", "--allow-actions", "--token-file", str(token_file)]
        more = ["--trusted-header", "X-User", "--trusted-proxy", "192.0.2.7", "--allow-host", "fleet.example"]
        provider = ["--provider", "Equinix=https://console.example/{provider_id}"]
        assert main(["web", "-c", "embedded:/x", *arguments, *more, *provider]) == 0
        assert re.fullmatch(r"bmdb: the debug pages are at http://0\.0\.0\.0:\d+/\n", capsys.readouterr().err)
        assert served == [
            (
                ("embedded:/x",),
                {
                    "allow_actions": True,
                    "token": TOKEN,
                    "trusted_header": "X-User",
                    "trusted_proxies": ("192.0.2.7",),
                    "hosts": ("localhost", "127.0.0.1", "[::1]", "fleet.example"),
                    "providers": {"Equinix": "https://console.example/{provider_id}"},
                },
            )
        ]

    def test_loopback_and_nothing_allowed_unless_told(self, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BMDB_WEB_TOKEN", TOKEN)
        assert main(["web", "--port", "0"]) == 0
        ((_, settings),) = served
        assert (settings["allow_actions"], settings["token"]) == (False, TOKEN)
        assert settings["hosts"] == ("localhost", "127.0.0.1", "[::1]")

    def test_actions_on_loopback_have_a_token_of_this_run(self, served: Any, capsys: Output) -> None:
        assert main(["web", "--port", "0", "--allow-actions"]) == 0
        ((_, settings),) = served
        assert (settings["allow_actions"], settings["token"]) == (True, MADE)
        told, address = capsys.readouterr().err.splitlines()
        assert told == f"bmdb: the token for this run: {MADE}"
        assert MADE not in address

    def test_it_serves_until_sigterm(self, database: str) -> None:
        pytest.importorskip("bmdb.web")
        command = [sys.executable, "-m", "bmdb", "web", "--port", "0", "-c", database]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
            try:
                assert running.stderr is not None
                told = re.search(r"http://127\.0\.0\.1:\d+/", running.stderr.readline())
                assert told is not None
                with urllib.request.urlopen(told[0], timeout=20) as answer:
                    assert answer.status == 200
                    assert "bmdb" in answer.read().decode()
                running.send_signal(signal.SIGTERM)
                running.wait(20)
            finally:
                running.kill()
        assert running.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
