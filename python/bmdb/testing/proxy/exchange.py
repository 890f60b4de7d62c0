"""Requests and answers: applies the rules to batches on their way to the server and to what the server answers.

A rule that waits for an answer must not choose a COPY FROM STDIN: the answer is kept until it is whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from bmdb.testing.proxy import framing
from bmdb.testing.proxy.framing import FrameReader, Message
from bmdb.testing.proxy.rules import CutRule, ErrorRule, HoldRule, Rule
from bmdb.testing.proxy.statements import Batch, BatchReader, Statement
from bmdb.testing.proxy.wire import Wire, forever


@dataclass
class _Answer:
    """An answer that the server owes, with the rule that waits for it; messages are kept only for a rule."""

    rule: Rule | None = None
    statement: Statement | None = None
    kept: list[Message] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        """Whether the server did what was asked: no error, and a commit did not end in a rollback."""
        if any(message.type == b"E" for message in self.kept):
            return False
        if self.statement is None or not self.statement.commits:
            return True
        tags = [framing.command_tag(message) for message in self.kept if message.type == b"C"]
        return any(tag in ("COMMIT", "RELEASE") for tag in tags)


class Exchange:
    """The conversation of one connection after its startup packet."""

    def __init__(self, wire: Wire, frames: FrameReader) -> None:
        self._wire = wire
        self._frames = frames
        self._batches = BatchReader()
        # The first ReadyForQuery ends the startup and answers no batch.
        self._owed: deque[_Answer] = deque([_Answer()])

    async def pump_to_server(self) -> None:
        """Forward what the client asks until it leaves."""
        while data := await self._wire.receive("to_server"):
            for message in self._frames.feed(data):
                batch = self._batches.add(message)
                if batch is not None:
                    await self._forward(batch)
            await self._wire.drain("to_server")

    async def pump_to_client(self) -> None:
        """Forward what the server answers until it leaves."""
        frames = FrameReader()
        while data := await self._wire.receive("to_client"):
            for message in frames.feed(data):
                await self._answer(message)
            await self._wire.drain("to_client")
        # The server left amid an answer: what it said (57P01, say) belongs to the client.
        for answer in self._owed:
            self._wire.send("to_client", answer.kept)

    async def _forward(self, batch: Batch) -> None:
        wire, record = self._wire, self._wire.record
        statements = [
            Statement(kind, text, time.monotonic(), record.index, record.application_name)
            for _, kind, text in batch.executions
        ]
        record.statements += len(statements)
        record.batches += batch.answered
        record.executed.update(statement.text for statement in statements)
        wire.control.statements.extend(statements)
        chosen = wire.control.choose(record, statements, answered=batch.answered)
        if chosen is None:
            self._ask(batch, _Answer())
            return
        rule, index = chosen
        statement = statements[index]
        match rule:
            case CutRule(before=True):
                await wire.cut(rule.how, rule)
            case HoldRule(before=True):
                await wire.hold(rule)
                self._ask(batch, _Answer())
            case ErrorRule(before=True):
                self._ask(_failing(batch, statement, batch.executions[index][0]), _Answer(rule, statement))
            case _:
                self._ask(batch, _Answer(rule, statement))

    def _ask(self, batch: Batch, answer: _Answer) -> None:
        if batch.answered:
            self._owed.append(answer)
        self._wire.send("to_server", batch.messages)

    async def _answer(self, message: Message) -> None:
        answer = self._owed[0] if self._owed else _Answer()
        ends = message.type == b"Z"
        if ends and self._owed:
            self._owed.popleft()
        if answer.rule is None:
            self._wire.send("to_client", [message])
            return
        answer.kept.append(message)
        if not ends:
            return
        match answer.rule:
            case HoldRule() as rule:
                await self._wire.hold(rule)
                self._wire.send("to_client", answer.kept)
            case CutRule() as rule if answer.succeeded:
                await self._wire.cut(rule.how, rule)
            case ErrorRule() as rule if rule.before or answer.succeeded:
                await self._answer_error(rule, answer.kept)
            case rule:
                rule.refund()
                self._wire.send("to_client", answer.kept)

    async def _answer_error(self, rule: ErrorRule, kept: Sequence[Message]) -> None:
        if any(message.type == b"E" for message in kept):
            # Answers to what was executed before the chosen statement, in the same batch.
            earlier = list(takewhile(lambda message: message.type != b"E", kept))
        else:
            earlier = [message for message in kept if message.type in (b"A", b"S")]
        error = framing.error_response(rule.sqlstate, rule.message, rule.severity, rule.fields)
        if rule.severity == "ERROR":
            # First the strike, so that whoever sees the error sees it counted.
            rule.strike()
            self._wire.send("to_client", [*earlier, error, kept[-1]])
        else:
            self._wire.send("to_client", [*earlier, error])
            self._wire.break_off("close", rule)
            await forever()


def _failing(batch: Batch, statement: Statement, position: int) -> Batch:
    """What to send instead, so that the server's transaction ends up where the injected error would leave it."""
    if statement.commits and not statement.releases:
        return Batch([framing.query("ROLLBACK")])
    earlier = batch.messages[:position] if statement.kind == "execute" else []
    return Batch([*earlier, framing.failing_bind(), framing.sync()])
