"""The rules and modes in force and the log of statements. Used only in the proxy's own thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from bmdb.testing.proxy.rules import ConnectionRecord, CutRule, Direction, HoldRule, Mode, Rule
from bmdb.testing.proxy.statements import Statement

LOGGED_STATEMENTS = 200_000


class Control:
    """What links ask before they forward anything."""

    def __init__(self) -> None:
        self.statements: deque[Statement] = deque(maxlen=LOGGED_STATEMENTS)
        self._rules: list[Rule] = []
        self._modes: list[Mode] = []
        self._changed = asyncio.Event()

    def add_rule(self, rule: Rule) -> None:
        """Put a rule in force, after those that are."""
        self._rules.append(rule)

    def remove_rule(self, rule: Rule) -> None:
        """Withdraw a rule and let go what it holds."""
        self._rules.remove(rule)
        rule.end()

    def add_mode(self, mode: Mode) -> None:
        """Put a mode in force."""
        self._modes.append(mode)
        self._wake()

    def remove_mode(self, mode: Mode) -> None:
        """Withdraw a mode."""
        # By identity: two equal modes may be in force.
        self._modes = [other for other in self._modes if other is not mode]
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def choose(
        self, record: ConnectionRecord, statements: Sequence[Statement], *, answered: bool
    ) -> tuple[Rule, int] | None:
        """The first rule that strikes and the index of the statement it strikes at.

        When the batch has no answer of its own (not `answered`) only rules that need none are asked.
        """
        for rule in self._rules:
            if not answered and not (rule.before and isinstance(rule, CutRule | HoldRule)):
                continue
            for index, statement in enumerate(statements):
                if rule.chooses(record, statement):
                    return rule, index
        return None

    def swallows(self, record: ConnectionRecord, direction: Direction) -> bool:
        """Whether bytes of this connection and direction are to be dropped now."""
        return any(mode.kind == "swallow" and mode.applies(record, direction) for mode in self._modes)

    async def pass_gate(self, record: ConnectionRecord, direction: Direction) -> None:
        """Wait as long as the direction is frozen, then as long as it is delayed."""
        while any(mode.kind == "freeze" and mode.applies(record, direction) for mode in self._modes):
            await self._changed.wait()
        delay = sum(mode.seconds for mode in self._modes if mode.kind == "delay" and mode.applies(record, direction))
        if delay:
            await asyncio.sleep(delay)
