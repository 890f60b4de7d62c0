"""Encrypted connections, to a server whose certificates a local authority signs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.certificates import Authority, Identity
from tests.tls_server import CANARY, TlsServer

import bmdb


@pytest.fixture
def strange_root(tmp_path: Path) -> str:
    """The certificate of an authority that signed nothing here."""
    path = tmp_path / "strange.pem"
    path.write_bytes(Authority("somebody else").certificate)
    return str(path)


STRONG = pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])


@STRONG
def test_a_good_certificate_is_accepted(mode: str, tls: TlsServer, root: str) -> None:
    assert tls.session(sslmode=mode, sslrootcert=root).encrypted


def test_verify_full_refuses_another_name(tls: TlsServer, root: str) -> None:
    tls.front.show(tls.authority.server("db.example"))
    assert "another host name" in tls.failure(sslmode="verify-full", sslrootcert=root)
    assert tls.front.seen == []


def test_verify_ca_does_not_look_at_the_name(tls: TlsServer, root: str) -> None:
    tls.front.show(tls.authority.server("db.example"))
    assert tls.session(sslmode="verify-ca", sslrootcert=root).encrypted


def test_an_address_is_a_name_too(tls: TlsServer, root: str) -> None:
    by_address = {"sslmode": "verify-full", "sslrootcert": root, "host": "127.0.0.1", "hostaddr": ""}
    assert "another host name" in tls.failure(**by_address)
    tls.front.show(tls.authority.server("127.0.0.1"))
    assert tls.session(**by_address).encrypted


@STRONG
def test_an_unknown_authority_is_refused_wherever_a_root_is_given(mode: str, tls: TlsServer, strange_root: str) -> None:
    message = tls.failure(sslmode=mode, sslrootcert=strange_root)
    assert "not signed by a trusted authority" in message
    assert "sslrootcert" in message
    assert tls.front.seen == []


def test_the_system_s_authorities_do_not_know_ours(tls: TlsServer) -> None:
    # Refused as unknown, or for want of any authorities: a machine need not have them.
    assert "sslrootcert" in tls.failure(bmdb.Error, sslrootcert="system")
    assert tls.front.seen == []


def test_require_without_a_root_encrypts_and_trusts(tls: TlsServer) -> None:
    assert tls.session(sslmode="require").encrypted


def test_the_root_in_the_usual_place_counts(tls: TlsServer, tmp_path: Path, strange_root: str) -> None:
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").write_bytes(Path(strange_root).read_bytes())
    assert "authority" in tls.failure(sslmode="require")


@STRONG
def test_an_expired_certificate_is_refused(mode: str, tls: TlsServer, root: str) -> None:
    tls.front.show(tls.authority.server("localhost", expired=True))
    assert "expired" in tls.failure(sslmode=mode, sslrootcert=root)


def test_a_missing_root_file_is_named(tls: TlsServer) -> None:
    message = tls.failure(bmdb.ConfigError, sslmode="verify-full", sslrootcert="/nonexistent.pem")
    assert "/nonexistent.pem" in message


def test_verify_ca_needs_a_root(tls: TlsServer) -> None:
    assert "sslrootcert" in tls.failure(bmdb.ConfigError, sslmode="verify-ca")


def test_a_root_file_without_certificates_is_named(tls: TlsServer, tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    message = tls.failure(bmdb.ConfigError, sslmode="require", sslrootcert=str(tmp_path / "junk.pem"))
    assert "junk.pem" in message


@STRONG
def test_a_server_without_tls_is_refused(mode: str, tls: TlsServer, root: str) -> None:
    tls.front.policy = "no TLS"
    assert "does not speak TLS" in tls.failure(sslmode=mode, sslrootcert=root)
    assert tls.front.seen == []


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_server_without_tls_will_do_for_the_weak_modes(mode: str, tls: TlsServer) -> None:
    tls.front.policy = "no TLS"
    assert not tls.session(sslmode=mode).encrypted


@pytest.mark.parametrize(("mode", "encrypted"), [("disable", False), ("allow", False), ("prefer", True)])
def test_the_weak_modes_differ_in_what_they_try_first(mode: str, encrypted: bool, tls: TlsServer) -> None:
    assert tls.session(sslmode=mode).encrypted is encrypted


def test_allow_encrypts_when_the_server_insists(tls: TlsServer) -> None:
    tls.front.policy = "encrypted only"
    assert tls.session(sslmode="allow").encrypted


def test_prefer_does_without_when_the_server_insists(tls: TlsServer) -> None:
    tls.front.policy = "plain only"
    assert not tls.session(sslmode="prefer").encrypted


def test_disable_does_not_encrypt_even_if_the_server_insists(tls: TlsServer) -> None:
    tls.front.policy = "encrypted only"
    assert "pg_hba.conf" in tls.failure(sslmode="disable")


def test_require_does_not_do_without(tls: TlsServer) -> None:
    tls.front.policy = "plain only"
    assert "pg_hba.conf" in tls.failure(sslmode="require")


def test_tls_can_start_at_once(tls: TlsServer, root: str) -> None:
    assert tls.session(sslmode="verify-full", sslrootcert=root, sslnegotiation="direct").encrypted


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_the_protocol_version_can_be_bounded(version: str, tls: TlsServer) -> None:
    bounds = {"ssl_min_protocol_version": version, "ssl_max_protocol_version": version}
    assert tls.session(sslmode="require", **bounds).version == version


@pytest.mark.parametrize(("wish", "told"), [("1", "localhost"), ("0", None)])
def test_the_name_is_told_in_the_handshake_unless_unwanted(wish: str, told: str | None, tls: TlsServer) -> None:
    assert tls.session(sslmode="require", sslsni=wish).server_name == told


@pytest.mark.parametrize("mode", ["disable", "require"])
def test_channel_binding_refuses_a_middleman(mode: str, tls: TlsServer) -> None:
    # The front is one: the server behind it knows nothing of its certificate.
    tls.failure(sslmode=mode, channel_binding="require")


def test_a_wrong_password_is_not_shown(tls: TlsServer, root: str) -> None:
    message = tls.failure(sslmode="verify-full", sslrootcert=root, password=f"{CANARY}-wrong")
    assert '"ann"' in message


def client_files(identity: Identity, directory: Path) -> dict[str, str]:
    """The identity as files that only their owner may read, as keywords."""
    (directory / "client.crt").write_bytes(identity.certificate)
    (directory / "client.key").write_bytes(identity.key)
    (directory / "client.key").chmod(0o600)
    return {"sslcert": str(directory / "client.crt"), "sslkey": str(directory / "client.key")}


@pytest.fixture
def asking(tls: TlsServer) -> TlsServer:
    """The server, asking its clients for a certificate."""
    tls.front.show(tls.authority.server("localhost"), client_authority=tls.authority.certificate)
    return tls


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_client_certificate_is_sent(version: str, asking: TlsServer, root: str, tmp_path: Path) -> None:
    files = client_files(asking.authority.client("fleet"), tmp_path)
    bound = {"ssl_max_protocol_version": version}
    assert asking.session(sslmode="verify-full", sslrootcert=root, **files, **bound).client == "fleet"


def test_a_client_certificate_in_the_usual_place_is_sent(asking: TlsServer, root: str, tmp_path: Path) -> None:
    usual = tmp_path / ".postgresql"
    usual.mkdir()
    files = client_files(asking.authority.client("fleet"), usual)
    Path(files["sslcert"]).rename(usual / "postgresql.crt")
    Path(files["sslkey"]).rename(usual / "postgresql.key")
    assert asking.session(sslmode="verify-full", sslrootcert=root).client == "fleet"


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_missing_client_certificate_is_told(version: str, asking: TlsServer, root: str) -> None:
    message = asking.failure(sslmode="verify-full", sslrootcert=root, ssl_max_protocol_version=version)
    assert "sslcert" in message


def test_somebody_else_s_client_certificate_is_refused(asking: TlsServer, root: str, tmp_path: Path) -> None:
    files = client_files(Authority("somebody else").client("fleet"), tmp_path)
    assert "sslcert" in asking.failure(sslmode="verify-full", sslrootcert=root, **files)


def test_a_key_that_others_may_read_is_refused(tls: TlsServer, tmp_path: Path) -> None:
    files = client_files(tls.authority.client("fleet"), tmp_path)
    Path(files["sslkey"]).chmod(0o644)
    assert "chmod 600" in tls.failure(bmdb.ConfigError, sslmode="require", **files)


def test_a_certificate_without_its_key_is_refused(tls: TlsServer, tmp_path: Path) -> None:
    files = client_files(tls.authority.client("fleet"), tmp_path)
    assert "sslkey" in tls.failure(bmdb.ConfigError, sslmode="require", sslcert=files["sslcert"])
