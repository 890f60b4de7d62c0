"""Where the database is: libpq's connection strings, environment, service files and password files, read as libpq does.

Strings are parsed by libpq itself (through psycopg); what it leaves unset comes from the service, the ``PG*``
variables and the usual files, in libpq's order. No function here puts a password into an error, a log or a
representation, nor any piece of a string that libpq could not parse, as that may be part of a password.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from bmdb import _core, logs
from bmdb.errors import ConfigError

__all__ = ["compose", "embedded_path", "given", "is_embedded", "redact", "resolve"]

ENVIRONMENT_VARIABLE = "BMDB_CONNINFO"
EMBEDDED = "embedded:"

_SECRET = frozenset({"password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"})
_logger = logs.logger("bmdb")


def given(conninfo: str | None) -> str:
    """The connection string to use: the argument, or else ``$BMDB_CONNINFO``.

    Raises:
        TypeError: it is no string.
        ConfigError: neither is there.
    """
    if conninfo is None:
        conninfo = os.environ.get(ENVIRONMENT_VARIABLE)
        if not conninfo:
            raise ConfigError(
                f"no database given: pass conninfo (a libpq URI or key=value string, or 'embedded:') or set "
                f"the environment variable {ENVIRONMENT_VARIABLE}"
            )
    if not isinstance(conninfo, str):
        raise TypeError(f"conninfo must be a str, not {type(conninfo).__name__}")
    return conninfo


def is_embedded(conninfo: str | None) -> bool:
    """Whether the string asks for a server of its own: ``embedded:`` or ``embedded:PATH``."""
    return (conninfo or "").startswith(EMBEDDED)


def embedded_path(conninfo: str) -> str | None:
    """The directory that ``embedded:PATH`` names; ``None`` for ``embedded:``, the throw-away server."""
    return conninfo.removeprefix(EMBEDDED) or None


def resolve(conninfo: str | None) -> dict[str, str]:
    """Every libpq keyword that has a value, from the string, the service, the environment and the usual files.

    ``passfile`` is only there if there is no password and the file may be used; the password in it is looked up
    for each host when connecting. The string itself wins over the service, which wins over the environment.

    Raises:
        ConfigError: there is no string, libpq rejects it, or the service it names cannot be found.
    """
    stated = _parse(given(conninfo))
    service = stated.pop("service", None) or os.environ.get("PGSERVICE")
    found = _environment()
    if service:
        found.update(_service(service))
    # An empty value means unset. It stays where it hides another, or whoever reads the answer would find that again.
    keywords = {keyword: value for keyword, value in (found | stated).items() if value or found.get(keyword)}
    if not keywords.get("user"):
        keywords["user"] = _system_user()
    passfile = keywords.pop("passfile", None) or str(Path("~/.pgpass").expanduser())
    if not keywords.get("sslmode") and keywords.get("sslrootcert") != "system":
        keywords.update(_default_encryption(keywords))
    if not keywords.get("password") and _usable_passfile(passfile):
        keywords["passfile"] = passfile
    return keywords


def compose(keywords: dict[str, str]) -> str:
    """The key=value string that libpq reads back as ``keywords``. It holds the password, if there is one."""
    from psycopg.conninfo import make_conninfo

    return make_conninfo("", **keywords)


def redact(conninfo: str) -> str:
    """The string fit to be shown: as key=value, with ``***`` for each secret.

    A string that libpq cannot parse is not shown at all. Never raises.
    """
    if is_embedded(conninfo):
        return conninfo
    try:
        keywords = _parse(conninfo)
    except (ConfigError, TypeError):
        return "(connection string that cannot be parsed)"
    return compose({keyword: "***" if keyword in _SECRET else value for keyword, value in keywords.items()})


def _parse(conninfo: str) -> dict[str, str]:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    if "\0" in conninfo:
        raise ConfigError("conninfo holds a NUL character: take it out")
    try:
        keywords = conninfo_to_dict(conninfo)
    except ProgrammingError as error:
        # libpq quotes what it stumbled over, which may be a piece of a password, so its words end at the quote.
        # Leaving the `except` block keeps the original, which quotes all of it, out of the traceback.
        reason = str(error).partition('"')[0].strip().rstrip(":")
    except UnicodeError:
        reason = "it is not valid text"
    else:
        return {keyword: str(value) for keyword, value in keywords.items() if value is not None}
    raise ConfigError(
        f"conninfo cannot be parsed ({reason}): write postgresql://USER@HOST:PORT/DATABASE with special characters "
        f"percent-encoded, or key=value pairs with values that hold spaces in single quotes"
    )


def _environment() -> dict[str, str]:
    """What the ``PG*`` variables say, by libpq's own list of them."""
    from psycopg.pq import Conninfo

    found: dict[str, str] = {}
    for option in Conninfo.get_defaults():
        keyword, variable = option.keyword.decode(), option.envvar
        if variable is not None and keyword != "service" and (value := os.environ.get(variable.decode())):
            found[keyword] = value
    if os.environ.get("PGREQUIRESSL", "").startswith("1"):
        found.setdefault("sslmode", "require")
    return found


def _default_encryption(keywords: dict[str, str]) -> dict[str, str]:
    """What counts when nothing is said of encryption, written out for whoever gets the string (libpq only prefers it).

    Off this machine the server must prove that it is the one that was named. That is the core's rule; the authorities
    are the core's too: the usual file, or else the system's.
    """
    if _core.only_loopback(keywords.get("host", ""), keywords.get("hostaddr", "")):
        return {}
    if keywords.get("sslrootcert") or Path("~/.postgresql/root.crt").expanduser().exists():
        return {"sslmode": "verify-full"}
    return {"sslmode": "verify-full", "sslrootcert": "system"}


def _service(name: str) -> dict[str, str]:
    """The keywords of a service, from the user's file or else the system's."""
    user_file = os.environ.get("PGSERVICEFILE") or str(Path("~/.pg_service.conf").expanduser())
    files = [user_file]
    if directory := os.environ.get("PGSYSCONFDIR"):
        files.append(str(Path(directory) / "pg_service.conf"))
    for path in files:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError):
            continue
        keywords = _section(lines, name, path)
        if keywords is not None:
            return keywords
    raise ConfigError(f"the service {name!r} is defined in none of: {', '.join(files)}")


def _section(lines: list[str], name: str, path: str) -> dict[str, str] | None:
    found: dict[str, str] | None = None
    for number, line in enumerate((line.strip() for line in lines), start=1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if found is not None:
                break
            if line == f"[{name}]":
                found = {}
        elif found is not None:
            keyword, equals, value = line.partition("=")
            if not equals or keyword.startswith("ldap:") or keyword == "service":
                raise ConfigError(f"line {number} of {path} cannot be used: write keyword=value, one a line")
            found.setdefault(keyword, value)
    return found


def _usable_passfile(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    if not os.path.isfile(path):
        _logger.warning("the password file %s is ignored: it is no plain file", path)
        return False
    if status.st_mode & 0o077:
        _logger.warning("the password file %s is ignored: others may read it (run chmod 600 on it)", path)
        return False
    return True


def _system_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ConfigError("no user to connect as: give user=… in the conninfo or set PGUSER") from None
