"""What a run found: kept as JSON, so that its parts can be measured at different times and written into one page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benches.peers.throughput import Run


@dataclass
class Record:
    """By entry: its runs, one a round; quantiles of its starts; its takeover; what became of late ends.

    `takeover`: seconds, or None when nobody took over within the limit. `late`: verdicts, first of ends that came when
    another had finished the unit, then of ends that came while another was running it.
    """

    units: int = 0
    runs: dict[str, list[Run]] = field(default_factory=dict)
    starts: dict[str, tuple[float, float, int]] = field(default_factory=dict)
    takeover: dict[str, float | None] = field(default_factory=dict)
    late: dict[str, tuple[str, str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)

    def rates(self) -> dict[str, list[float]]:
        """Units a second, by entry, one a round."""
        return {name: [run.rate for run in runs] for name, runs in self.runs.items()}

    def save(self, path: Path) -> None:
        """Write it to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read it from a file."""
        read: dict[str, Any] = json.loads(path.read_text())
        read["runs"] = {name: [Run(**run) for run in runs] for name, runs in read["runs"].items()}
        for part in ("starts", "late"):
            read[part] = {name: tuple(values) for name, values in read[part].items()}
        return cls(**read)
