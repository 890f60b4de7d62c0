"""Which versions were measured: what the lock files pin."""

from __future__ import annotations

import json
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def pinned(lock: str) -> dict[str, str]:
    """Versions by distribution from a file of requirements."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.M))


def required(manifest: str) -> dict[str, str]:
    """Versions by path from a go.mod."""
    return {
        path: version.removeprefix("v")
        for path, version in re.findall(r"^\s*(?:require )?(\S+\.\S+/\S+) (v\S+)", manifest, re.M)
    }


def resolved(lock: str) -> dict[str, str]:
    """Versions by package from a package-lock.json."""
    packages = json.loads(lock)["packages"]
    return {path.removeprefix("node_modules/"): entry["version"] for path, entry in packages.items() if path}


def all_versions() -> dict[str, str]:
    """Of everything that is pinned here."""
    versions = pinned((FOLDER / "requirements.lock").read_text())
    if (manifest := FOLDER / "river" / "go.mod").exists():
        versions |= required(manifest.read_text())
    if (lock := FOLDER / "graphile" / "package-lock.json").exists():
        versions |= resolved(lock.read_text())
    return versions
