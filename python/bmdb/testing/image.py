"""Images of Python values: what can be compared of them later, when they have changed."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import operator
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from bmdb._core import Row

__all__ = ["Image", "captured", "difference", "image", "learn"]

# A value that can be hashed and compared: a plain one, or (kind, ((name, image), …)).
Image: TypeAlias = Any

_DEEPEST = 8
_MOST = 1000  # parts of one value
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
# What holds no state that a callback would change by accident.
_CODE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)


@dataclasses.dataclass(frozen=True)
class _Composite:
    kind: str
    parts: tuple[tuple[str, Image], ...]


def image(value: object, ignore: tuple[type, ...] = ()) -> Image:
    """What can be compared of a value. Values of the types ignored look alike, as do those with nothing to compare."""
    return _image(value, ignore, frozenset(), 0)


def _image(value: object, ignore: tuple[type, ...], above: frozenset[int], depth: int) -> Image:
    kind = type(value).__name__
    if isinstance(value, ignore):
        return f"<{kind}>"
    if isinstance(value, _PLAIN):
        return (kind, value)
    if id(value) in above or depth > _DEEPEST or isinstance(value, _CODE) or _ours(value):
        return f"<{kind}>"
    inner = functools.partial(_image, ignore=ignore, above=above | {id(value)}, depth=depth + 1)
    parts = _parts(value, inner)
    if parts is not None:
        return _Composite(kind, tuple(itertools.islice(parts, _MOST)))
    if isinstance(value, Iterator):
        # Looking at what is left of it would take it; how much is left can be asked of many.
        return (kind, operator.length_hint(value, -1), _text(value))
    return (kind, value) if _comparable(value) else (kind, _text(value))


def _parts(value: object, inner: Callable[[object], Image]) -> Iterator[tuple[str, Image]] | None:
    """The parts of a value by name, None if it has none that are known."""
    if isinstance(value, Row):
        return ((f".{name}", inner(part)) for name, part in zip(value._fields, value, strict=True))
    if isinstance(value, Mapping):
        return iter(sorted(((f"[{key!r}]", inner(part)) for key, part in value.items()), key=operator.itemgetter(0)))
    if isinstance(value, set | frozenset):
        return ((f"[{text}]", text) for text in sorted(map(repr, value)))
    if isinstance(value, list | tuple | deque | bytearray):
        return ((f"[{place}]", inner(part)) for place, part in enumerate(value))
    if dataclasses.is_dataclass(value):
        names: Iterable[str] = (field.name for field in dataclasses.fields(value))
        return ((f".{name}", inner(getattr(value, name, None))) for name in names)
    if not _comparable(value) and hasattr(value, "__dict__"):
        return ((f".{name}", inner(part)) for name, part in sorted(vars(value).items()))
    return None


def _ours(value: object) -> bool:
    """A session, a connection and the like: their state is not the callback's."""
    module = type(value).__module__
    return module.startswith("bmdb.") and not dataclasses.is_dataclass(value) and not isinstance(value, Row)


def _comparable(value: object) -> bool:
    if type(value).__eq__ is object.__eq__ or type(value).__hash__ is None:
        return False
    try:
        hash(value)
    except TypeError:
        return False
    return type(value).__hash__ is not object.__hash__


def _text(value: object) -> str:
    text = repr(value)
    return f"<{type(value).__name__}>" if " at 0x" in text else text


def captured(fn: Callable[..., Any], ignore: tuple[type, ...]) -> Image:
    """An image of what a callback can reach and may have changed: closure, globals that it names, its own object."""
    reached: dict[str, object] = {}
    while isinstance(fn, functools.partial):
        reached |= {"arguments": fn.args, "keywords": fn.keywords}
        fn = fn.func
    if not inspect.isroutine(fn):
        reached["the callable"] = fn
        fn = type(fn).__call__
    if isinstance(fn, types.MethodType):
        reached["self"] = fn.__self__
        fn = fn.__func__
    if isinstance(fn, types.FunctionType):
        try:
            variables = inspect.getclosurevars(fn)
            reached |= {**variables.globals, **variables.nonlocals}
        except ValueError:
            # A variable of the closure that has no value yet.
            pass
        reached["defaults"] = fn.__defaults__
    return _Composite("", tuple((f" in {name}", image(value, ignore)) for name, value in sorted(reached.items())))


def difference(one: Image, other: Image, same: Mapping[Image, Image]) -> str | None:
    """Where two images differ, and how, to end a sentence with; None if they do not. `same`: what counts as equal."""
    if one == other or same.get(one) == other:
        return None
    if isinstance(one, _Composite) and isinstance(other, _Composite) and one.kind == other.kind:
        for (name, part), (name_again, part_again) in zip(one.parts, other.parts, strict=False):
            if name != name_again:
                break
            if (found := difference(part, part_again, same)) is not None:
                return f"{name}{found}"
        else:
            if len(one.parts) == len(other.parts):
                return None
            return f": {len(other.parts)} parts instead of {len(one.parts)}"
    return f": {_shown(other)} instead of {_shown(one)}"


def learn(one: Image, other: Image, same: dict[Image, Image]) -> None:
    """Note that values at the same places count as equal: both came from the server."""
    if isinstance(one, _Composite) and isinstance(other, _Composite):
        for (_, part), (_, part_again) in zip(one.parts, other.parts, strict=False):
            learn(part, part_again, same)
    elif one != other:
        same[one] = other


def _shown(seen: Image) -> str:
    if isinstance(seen, _Composite):
        return f"{seen.kind} of {len(seen.parts)}"
    return repr(seen[-1] if isinstance(seen, tuple) else seen)
