"""Connection strings: what is resolved from where, and that no secret shows."""

from __future__ import annotations

import logging
import os
import pwd
import string
import traceback
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from bmdb import conninfo
from bmdb.errors import ConfigError

CANARY = "c4n4ry"
# What counts off this machine when nothing is said of it.
VERIFIED = {"sslmode": "verify-full", "sslrootcert": "system"}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No PG variables and an empty home directory, which is returned."""
    home = tmp_path_factory.mktemp("home")
    for variable in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv("BMDB_CONNINFO", raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home


def test_a_uri_and_key_value_pairs_mean_the_same() -> None:
    expected = {"user": "ann", "password": "s e", "host": "db1,db2", "port": "5432,5433", "dbname": "fleet"}
    expected |= {"target_session_attrs": "read-write"} | VERIFIED
    uri = "postgresql://ann:s%20e@db1:5432,db2:5433/fleet?target_session_attrs=read-write"
    pairs = "user=ann password='s e' host=db1,db2 port=5432,5433 dbname=fleet target_session_attrs=read-write"
    assert conninfo.resolve(uri) == expected
    assert conninfo.resolve(pairs) == expected


def test_without_a_string_the_variable_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMDB_CONNINFO", "host=db1 user=ann")
    assert conninfo.resolve(None) == {"host": "db1", "user": "ann"} | VERIFIED
    assert conninfo.resolve("host=db2 user=ann")["host"] == "db2"


def test_without_either_the_error_names_both() -> None:
    with pytest.raises(ConfigError, match=r"conninfo.*BMDB_CONNINFO"):
        conninfo.resolve(None)


def test_no_string_at_all_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="int"):
        conninfo.given(5432)  # type: ignore[arg-type]


def test_the_user_of_the_system_is_the_default() -> None:
    assert conninfo.resolve("host=db1")["user"] == pwd.getpwuid(os.geteuid()).pw_name


def test_pg_variables_fill_what_is_not_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in [("PGHOST", "envhost"), ("PGUSER", "envuser"), ("PGSSLMODE", "verify-full")]:
        monkeypatch.setenv(name, value)
    resolved = conninfo.resolve("host=db1")
    assert resolved == {"host": "db1", "user": "envuser", "sslmode": "verify-full"}


def test_an_empty_value_hides_a_variable_also_from_the_next_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    resolved = conninfo.resolve("host=/tmp hostaddr='' dbname='' user=ann")
    assert resolved == {"host": "/tmp", "hostaddr": "", "user": "ann"}
    assert conninfo.resolve(conninfo.compose(resolved)) == resolved


def test_the_old_variable_for_tls_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGREQUIRESSL", "1")
    assert conninfo.resolve("user=ann")["sslmode"] == "require"
    assert conninfo.resolve("user=ann sslmode=verify-ca")["sslmode"] == "verify-ca"


@pytest.mark.parametrize(
    "stated", ["host=localhost", "host=127.0.0.1", "host=/tmp", "", "host=db hostaddr=::1", "host=::1,localhost"]
)
def test_on_this_machine_nothing_is_added(stated: str) -> None:
    assert "sslmode" not in conninfo.resolve(f"{stated} user=ann")


@pytest.mark.parametrize("stated", ["host=db", "host=localhost,db", "hostaddr=192.0.2.1", "host=db sslmode=''"])
def test_off_this_machine_the_server_is_verified(stated: str) -> None:
    resolved = conninfo.resolve(f"{stated} user=ann")
    assert resolved.items() >= VERIFIED.items()
    assert conninfo.resolve(conninfo.compose(resolved)) == resolved


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
def test_what_is_said_of_encryption_counts(mode: str, monkeypatch: pytest.MonkeyPatch, bare_environment: Path) -> None:
    assert conninfo.resolve(f"host=db sslmode={mode} user=ann")["sslmode"] == mode
    monkeypatch.setenv("PGSSLMODE", mode)
    resolved = conninfo.resolve("host=db user=ann")
    assert (resolved["sslmode"], "sslrootcert" in resolved) == (mode, False)


def test_the_authorities_of_the_user_come_before_the_system_s(bare_environment: Path) -> None:
    assert conninfo.resolve("host=db user=ann sslrootcert=/ca.pem").items() >= {"sslrootcert": "/ca.pem"}.items()
    (bare_environment / ".postgresql").mkdir()
    (bare_environment / ".postgresql" / "root.crt").write_text("")
    resolved = conninfo.resolve("host=db user=ann")
    assert (resolved["sslmode"], "sslrootcert" in resolved) == ("verify-full", False)


SERVICES = """
# comment
[other]
host=elsewhere
[fleet]
host=svchost
port=6000
user=svcuser
"""


@pytest.mark.parametrize("by", ["keyword", "variable"])
def test_a_service_comes_between_the_string_and_the_variables(
    by: str, monkeypatch: pytest.MonkeyPatch, bare_environment: Path
) -> None:
    (bare_environment / ".pg_service.conf").write_text(SERVICES)
    monkeypatch.setenv("PGPORT", "7000")
    monkeypatch.setenv("PGDATABASE", "envdb")
    monkeypatch.setenv("PGSERVICE", "fleet" if by == "variable" else "other")
    stated = "user=ann" if by == "variable" else "service=fleet user=ann"
    assert conninfo.resolve(stated) == {
        "host": "svchost", "port": "6000", "user": "ann", "dbname": "envdb", **VERIFIED,
    }  # fmt: skip


def test_a_service_file_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "services").write_text(SERVICES)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    assert conninfo.resolve("service=other user=ann")["host"] == "elsewhere"


def test_an_unknown_service_is_an_error_that_names_the_files(bare_environment: Path) -> None:
    (bare_environment / ".pg_service.conf").write_text(SERVICES)
    with pytest.raises(ConfigError, match=r"'nowhere'.*\.pg_service\.conf"):
        conninfo.resolve("service=nowhere")


@pytest.mark.parametrize("line", ["no equals sign", "ldap://server/base", "service=fleet"])
def test_a_service_that_cannot_be_read_is_an_error(line: str, bare_environment: Path) -> None:
    (bare_environment / ".pg_service.conf").write_text(f"[fleet]\n{line}\n")
    with pytest.raises(ConfigError, match="line 2"):
        conninfo.resolve("service=fleet")


@pytest.mark.parametrize("where", ["home", "variable", "keyword"])
def test_a_password_file_is_handed_on(where: str, monkeypatch: pytest.MonkeyPatch, bare_environment: Path) -> None:
    path = bare_environment / (".pgpass" if where == "home" else "passwords")
    path.write_text("*:*:*:*:secret\n")
    path.chmod(0o600)
    if where == "variable":
        monkeypatch.setenv("PGPASSFILE", str(path))
    stated = f"user=ann passfile={path}" if where == "keyword" else "user=ann"
    assert conninfo.resolve(stated) == {"user": "ann", "passfile": str(path)}


def test_a_password_makes_the_password_file_needless(bare_environment: Path) -> None:
    path = bare_environment / ".pgpass"
    path.write_text("*:*:*:*:secret\n")
    path.chmod(0o600)
    assert conninfo.resolve("user=ann password=x") == {"user": "ann", "password": "x"}


def test_a_password_file_that_others_may_read_is_ignored_with_a_warning(
    bare_environment: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = bare_environment / ".pgpass"
    path.write_text(f"*:*:*:*:{CANARY}\n")
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING, "bmdb"):
        assert conninfo.resolve("user=ann") == {"user": "ann"}
    assert "chmod 600" in caplog.text
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        f"user=ann password={CANARY} more",
        f"user=ann password=my {CANARY}",
        f"user=ann password=my {CANARY}=x",
        f"user=ann password='{CANARY}",
        f"postgresql://ann:%zz{CANARY}@db1/fleet",
        f"postgresql://ann@[{CANARY}/fleet",
        f'postgresql://ann:"{CANARY}"[@db1:port/fleet?x=1',
        f"postgresql://db1/fleet?nonsense={CANARY}",
        f"user=ann password={CANARY}\0",
        f"user=ann password={CANARY}\udcff",
    ],
)
def test_what_cannot_be_parsed_is_refused_without_showing_any_of_it(text: str) -> None:
    with pytest.raises(ConfigError, match="conninfo") as caught:
        conninfo.resolve(text)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert CANARY not in conninfo.redact(text)


@drawn(password=st.text(string.printable, min_size=1).map(lambda text: text + CANARY))
def test_no_password_survives_redaction(password: str) -> None:
    composed = conninfo.compose({"user": "ann", "password": password, "host": "db1"})
    assert conninfo.resolve(composed)["password"] == password
    redacted = conninfo.redact(composed)
    assert CANARY not in redacted
    assert conninfo.resolve(redacted) == {"user": "ann", "password": "***", "host": "db1"} | VERIFIED


def test_embedded_servers_are_told_from_others() -> None:
    assert conninfo.is_embedded("embedded:")
    assert conninfo.is_embedded("embedded:/var/lib/bmdb")
    assert not conninfo.is_embedded("postgresql://embedded:x@db1/fleet")
    assert not conninfo.is_embedded(None)
    assert conninfo.embedded_path("embedded:") is None
    assert conninfo.embedded_path("embedded:/var/lib/bmdb") == "/var/lib/bmdb"
    assert conninfo.redact("embedded:/var/lib/bmdb") == "embedded:/var/lib/bmdb"
