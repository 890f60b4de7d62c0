"""One entry, measured once and printed: for trying an adapter out.

trial.py NAME COUNT
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.peers.arena import Arena
from benches.peers.contract import entry
from benches.peers.throughput import measure
from benches.python.server import running

if __name__ == "__main__":
    *names, count = sys.argv[1:]
    with running() as server, Arena.on(server) as arena:
        for name in names:
            try:
                print(name, measure(arena, entry(name), int(count)), flush=True)
            except Exception as error:
                print(name, "failed:", error, flush=True)
