"""Parts of documents that a program writes, between two marks in comments."""

from __future__ import annotations

import re
from pathlib import Path


def replaced(document: str, marks: tuple[str, str], text: str) -> str:
    """The document with the text between the marks. Raises ValueError when they are not there, or more than once."""
    before, after = marks
    pattern = re.compile(re.escape(before) + ".*?" + re.escape(after), re.DOTALL)
    new, count = pattern.subn(lambda _: f"{before}\n{text}\n{after}", document)
    if count != 1:
        raise ValueError(f"there is no one place between {before} and {after}")
    return new


def part(document: str, marks: tuple[str, str]) -> str | None:
    """The marks and what is between them, or None."""
    before, after = marks
    found = re.search(re.escape(before) + ".*?" + re.escape(after), document, re.DOTALL)
    return found[0] if found else None


def write(path: Path, marks: tuple[str, str], text: str) -> None:
    """Put the text between the marks of a file. Raises ValueError."""
    path.write_text(replaced(path.read_text(), marks, text))
