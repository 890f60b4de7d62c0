"""`python -m bmdb` is the command `bmdb`."""

import sys

from bmdb.cli import main

if __name__ == "__main__":
    sys.exit(main())
