"""What belongs to this process and cannot be copied."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex


class Unique:
    """An object that stands for something outside Python: neither copied nor pickled."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} belongs to this process and cannot be copied or sent elsewhere")
