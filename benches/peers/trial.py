"""Some entries, each measured once and printed: for trying adapters out.

trial.py {throughput,latency,takeover,zombie,zombies} COUNT NAME…
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.peers import latency, takeover, throughput, zombies
from benches.peers.arena import Arena, Failed
from benches.peers.contract import entry
from benches.python.server import running

ASKED = {
    "throughput": throughput.measure,
    "latency": lambda arena, entry, count: (lambda s: (s.p50, s.p99, s.committed[0]))(
        latency.measure(arena, entry, count)
    ),
    "takeover": lambda arena, entry, count: takeover.measure(arena, entry, float(count)),
    "zombie": lambda arena, entry, finished: takeover.zombie(arena, entry, bool(finished)),
    "zombies": zombies.measure,
}

if __name__ == "__main__":
    what, count, *names = sys.argv[1:]
    with running() as server, Arena.on(server) as arena:
        for name in names:
            try:
                print(name, ASKED[what](arena, entry(name), int(count)), flush=True)
            except Failed as error:
                print(name, "failed:", error, flush=True)
