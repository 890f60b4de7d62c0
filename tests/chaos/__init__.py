"""The chaos test: workers that are stopped, killed and cut off at random, and a verdict on all that they were told.

`worker.py` works and notes in a ledger (`ledger.py`) what the library told it, `faults.py` strikes, `chaos.py` puts
them together, `verdict.py` compares the ledgers with the database (`facts.py`). `test_chaos.py` runs half a minute of
it, `soak.py` (make soak) as much as wanted: what it looks at (`gauge.py`) is judged (`trend.py`) and drawn (`plot.py`).
"""
