"""The command `bmdb`, also `python -m bmdb`. Needs the extra `cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

# The packages of the extra, and those that they cannot do without.
_EXTRA = frozenset({"plotext", "rich", "typer"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (by default the process's own) and returns the exit status; raises nothing on purpose."""
    try:
        # Imported here so that a missing extra ends in a line, not in a traceback.
        from bmdb.cli.run import run

        return run(list(sys.argv[1:] if arguments is None else arguments))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        print(f'bmdb: the command line needs {package}: pip install "pybmdb[cli]"', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
