"""Text from outside, such as causes and names, with what cannot be seen in it made visible.

Terminals act on escape sequences, and browsers too turn text around at bidi marks: whoever writes a cause could make it
look like another.
"""

from __future__ import annotations

import unicodedata
from itertools import groupby

__all__ = ["SUMMARY_LENGTH", "is_seen", "said", "visible"]

SUMMARY_LENGTH = 72
# Control, format (bidi marks, zero-width characters, tags), surrogate, private, unassigned; line and paragraph ends.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks that show nothing all the same: fillers, the blank of Braille, joiners, variation selectors.
_BLANK = frozenset(
    map(
        chr,
        (
            0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, *range(0xFE00, 0xFE10),
            0xFFA0, *range(0xE0100, 0xE01F0),
        ),
    )
)  # fmt: skip
# No script puts more marks on one letter; in towers they cover the lines around.
_MOST_MARKS = 4
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def is_seen(mark: str) -> bool:
    """Whether the character shows, and does nothing else."""
    return unicodedata.category(mark) not in _UNSEEN and mark not in _BLANK


def visible(text: str, keep: str = "") -> str:
    """The text with every character that is not seen written as its escape, but for those to keep.

    So are all of more than four combining marks in a row.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = []
    for combining, run in groupby(text, _combines):
        marks = list(run)
        piled = combining and len(marks) > _MOST_MARKS
        shown += [mark if mark in keep or (is_seen(mark) and not piled) else _escaped(mark) for mark in marks]
    return "".join(shown)


def said(cause: str, length: int = SUMMARY_LENGTH) -> str:
    """The line of a cause that says most: its first, or the last of a Python traceback; neither visible nor endless."""
    lines = [line for line in cause.splitlines() if line.strip()]
    if not lines:
        return ""
    traceback = lines[0].lstrip().startswith("Traceback (most recent call last)")
    # What is cut off need not be looked at; the longest escape takes ten characters.
    return " ".join(lines[-1 if traceback else 0][: 10 * length].split())


def _combines(mark: str) -> bool:
    return unicodedata.category(mark) in ("Mn", "Me")


def _escaped(mark: str) -> str:
    code = ord(mark)
    if mark in _SHORT:
        return _SHORT[mark]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
