"""A fake provider of machines, for loopback only: `python -m shepherd.provider --port 8077`.

It makes devices, boots them, starts agents on them, and every now and then says that a device is not ready. Whoever
holds a machine tells the token of its lease with each request; a token older than one it has seen is refused, so that
a worker that was stopped and went on cannot undo what its successor did.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


@dataclass
class Device:
    """One machine."""

    id: str
    address: str
    tokens: dict[str, int] = field(default_factory=dict)
    boots: int = 1
    agents: int = 0


class Provider:
    """All devices, in memory."""

    def __init__(self, seconds: float, trouble: float) -> None:
        self._devices: dict[str, Device] = {}
        self._seconds = seconds
        self._trouble = trouble
        self._counts: Counter[str] = Counter()
        self.app = Starlette(
            routes=[
                Route("/devices/{id}", self.make, methods=["PUT"]),
                Route("/devices/{id}/agent", self.agent, methods=["POST"]),
                Route("/devices/{id}/reboot", self.reboot, methods=["POST"]),
                Route("/counts", self.counts),
            ]
        )

    async def make(self, request: Request) -> Response:
        """A device of that id, whether it is there already or not."""
        name = request.path_params["id"]
        number = len(self._devices) + 1
        device = self._devices.setdefault(name, Device(name, f"10.0.{number // 250}.{number % 250 + 1}"))
        if (refusal := self._refused(device, "make", request)) is not None:
            return refusal
        await self._takes_time()
        return JSONResponse({"id": device.id, "address": device.address, "location": "ny5"})

    async def agent(self, request: Request) -> Response:
        """Starts an agent, and answers with its public key."""
        device = self._found(request)
        if (refusal := self._refused(device, "agent", request)) is not None:
            return refusal
        await self._takes_time()
        if random.random() < self._trouble:
            self._counts["not ready"] += 1
            return PlainTextResponse("the device boots", status_code=503)
        # The holder may have been succeeded while it waited.
        if (refusal := self._refused(device, "agent", request)) is not None:
            return refusal
        device.agents += 1
        self._counts["agents"] += 1
        return JSONResponse({"key": hashlib.sha256(f"{device.id} {device.boots}".encode()).hexdigest()})

    async def reboot(self, request: Request) -> Response:
        """Restarts a device; its agent is gone then."""
        device = self._found(request)
        if (refusal := self._refused(device, "reboot", request)) is not None:
            return refusal
        await self._takes_time()
        device.boots += 1
        self._counts["reboots"] += 1
        return JSONResponse({"boots": str(device.boots)})

    async def counts(self, _: Request) -> Response:
        """What was done so far."""
        return JSONResponse({**self._counts, "devices": len(self._devices)})

    def _found(self, request: Request) -> Device:
        name = request.path_params["id"]
        return self._devices.setdefault(name, Device(name, "10.1.0.1"))

    def _refused(self, device: Device, act: str, request: Request) -> Response | None:
        token = int(request.query_params["token"])
        if token < device.tokens.get(act, 0):
            self._counts["refused"] += 1
            return PlainTextResponse(f"token {token} is out of date", status_code=409)
        device.tokens[act] = token
        return None

    async def _takes_time(self) -> None:
        await asyncio.sleep(self._seconds * random.uniform(0.5, 1.5))


def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m shepherd.provider")
    parser.add_argument("--port", type=int, default=8077, help="on 127.0.0.1")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long an act takes, about")
    parser.add_argument("--trouble", type=float, default=0.1, help="how often a device is not ready, from 0 to 1")
    given = parser.parse_args()
    provider = Provider(given.seconds, given.trouble)
    uvicorn.run(provider.app, host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
