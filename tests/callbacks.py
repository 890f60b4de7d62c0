"""Callbacks that are written the async way in both twins, to see what a sync method says of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4


async def coroutine_function(q: Any) -> list[UUID]:
    """A coroutine function, which must not be called."""
    raise AssertionError("ran")


async def async_generator_function(q: Any) -> AsyncIterator[UUID]:
    """A generator function of the async kind."""
    yield uuid4()


class CoroutineCall:
    """An object, and a method, that are called and awaited."""

    async def __call__(self, q: Any) -> None:
        raise AssertionError("ran")

    async def method(self, q: Any) -> None:
        raise AssertionError("ran")
