"""What the harness of `make bench-peers` computes, without a peer, and what each adapter must say of its peer."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from benches.peers import counters, expected, page, replay, versions
from benches.peers.contract import ENTRIES, Contract, entry
from benches.peers.expected import EXPECTATIONS, WOKEN_LIMIT
from benches.peers.quantiles import quantile
from benches.peers.record import Record
from benches.peers.takeover import Zombie
from benches.peers.throughput import Run
from benches.python import marked

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = sorted(path.stem for path in (ROOT / "benches" / "peers" / "adapters").glob("[!_]*.py"))


def test_every_entry_has_an_adapter_and_every_adapter_an_entry() -> None:
    assert {each.module for each in ENTRIES} == set(ADAPTERS)
    assert len({each.name for each in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("each", ENTRIES, ids=lambda each: each.name)
def test_an_adapter_states_its_contract_and_its_setting(each) -> None:
    module = importlib.import_module(f"benches.peers.adapters.{each.module}")
    assert isinstance(module.CONTRACT, Contract)
    said = [*dataclasses.astuple(module.CONTRACT), module.SETTING[each.variant]]
    assert all(text and "verified" not in text for text in said)
    assert module.SETTLED.startswith("SELECT")
    assert module.TABLES
    for name in ("install", "producer", "serve"):
        assert callable(getattr(module, name))
    if module.DISTRIBUTION is not None:
        assert module.DISTRIBUTION in versions.all_versions()


def test_adapters_can_be_read_where_no_peer_is_installed() -> None:
    names = ", ".join(f"benches.peers.adapters.{name}" for name in ADAPTERS)
    done = subprocess.run(
        [sys.executable, "-c", f"import {names}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_expectations_are_about_entries_that_are_measured() -> None:
    for each in EXPECTATIONS:
        assert entry(each.ours).ours
        assert "throughput" in entry(each.ours).roles & entry(each.theirs).roles
        assert " " not in each.key


def test_ratios_are_of_the_same_round_and_told_one_a_line() -> None:
    rates = {"bmdb work_many": [200.0, 330.0, 90.0], "pgqueuer": [100.0, 110.0, 100.0]}
    found = expected.comparisons(rates)
    assert expected.lines(found) == ["work_many/pgqueuer 2.00"]
    [(_, compared)] = found
    assert (compared.ratio.low, compared.ratio.high) == (0.9, 3.0)
    assert compared.verdict == "met"
    [(_, missed)] = expected.comparisons({"bmdb work_many": [139.0], "pgqueuer": [100.0]})
    assert missed.verdict == "**missed**"


def test_without_a_peer_or_with_fewer_rounds_of_it_there_is_no_ratio() -> None:
    assert expected.comparisons({"bmdb work_many": [1.0, 2.0], "pgqueuer": [1.0]}) == []
    assert expected.comparisons({"bmdb work_many": [1.0]}) == []


def test_starts_are_held_against_their_limits() -> None:
    found = expected.starts({"bmdb woken": WOKEN_LIMIT / 2, "bmdb polling": 0.3}, 0.25)
    assert expected.lines(found) == ["woken_start_p99/limit 0.50", f"polling_start_p99/limit {0.3 / 0.254:.2f}"]
    assert [compared.verdict for _, compared in found] == ["met", "**missed**"]


def test_quantiles_are_samples() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([float(n) for n in range(100)], 0.99) == 98.0
    assert quantile([5.0], 0.99) == 5.0
    with pytest.raises(ValueError, match="no samples"):
        quantile([], 0.5)


def test_ticks_are_those_of_a_whole_tree() -> None:
    line = "42 (a (strange) name) S 7 42 42 0 -1 4194304 1 2 3 4 100 20 3 1 20 0 1 0 5 6 7"
    assert counters.parse_stat(line) == (42, 7, 124)
    stats = [(1, 0, 1000), (7, 1, 10), (42, 7, 124), (43, 42, 1), (50, 1, 500)]
    assert counters.tree_ticks(stats, 7) == 135
    assert counters.tree_ticks(stats, 99) == 0


def test_processor_time_grows_with_work() -> None:
    import os

    before = counters.cpu_seconds(os.getpid())
    sum(range(5_000_000))
    assert counters.cpu_seconds(os.getpid()) >= before


def test_versions_come_from_lock_files() -> None:
    lock = "alpha==1.2.3 \\\n    --hash=sha256:00\nbeta-x[extra]==2\ngamma==4.0 ; python_version < '4' \\\n# delta==5\n"
    assert versions.pinned(lock) == {"alpha": "1.2.3", "gamma": "4.0"}
    manifest = "module here\n\nrequire (\n\tgithub.com/one/two v0.5.1\n\tgolang.org/x/y v1.0.0 // indirect\n)\n"
    assert versions.required(manifest) == {"github.com/one/two": "0.5.1", "golang.org/x/y": "1.0.0"}
    resolved = '{"packages": {"": {}, "node_modules/graphile-worker": {"version": "0.18.0"}}}'
    assert versions.resolved(resolved) == {"graphile-worker": "0.18.0"}


def test_late_ends_are_told_apart() -> None:
    assert Zombie(accepted=True, told=True).verdict == "accepted"
    assert Zombie(accepted=False, told=True).verdict == "refused aloud"
    assert Zombie(accepted=False, told=False).verdict == "dropped in silence"


def test_a_record_survives_its_file_and_makes_a_section(tmp_path: Path) -> None:
    run = Run(rate=1500.0, client_us=12.5, server_us=3.25, wal=900.0, commits=2.0)
    record = Record(
        units=10,
        runs={"psycopg": [run, run], "bmdb one caller": [run, run]},
        starts={"psycopg": (0.001, 0.002, 50)},
        takeover={"psycopg": None, "oban": 3.25},
        late={"psycopg": ("accepted", "dropped in silence")},
        failed={"saq": "throughput: it said nothing"},
        missing=["river: left out, go is not installed"],
        machine={"cpus": "2"},
    )
    record.save(tmp_path / "found" / "peers.json")
    read = Record.load(tmp_path / "found" / "peers.json")
    assert read == record
    text = page.section(read, "make bench-peers")
    assert "| psycopg | 1,500 | 1,500 – 1,500 |" in text
    assert "| psycopg | 1.00 ms | 2.00 ms | > 90 s | accepted | dropped in silence |" in text
    assert "| oban |  |  | 3.2 s |  |  |" in text
    assert "river: left out, go is not installed" in text
    assert "| bmdb one caller beside psycopg | 1,500 a second | 1,500 a second | 1.00 × |" in text
    page.plot(read, tmp_path / "peers.svg")
    assert "<script" not in (tmp_path / "peers.svg").read_text()


def test_a_part_of_a_document_is_replaced_and_nothing_else() -> None:
    marks = ("<!-- a -->", "<!-- b -->")
    document = "before\n<!-- a -->\nold\n<!-- b -->\nafter\n"
    assert marked.replaced(document, marks, "new \\1") == "before\n<!-- a -->\nnew \\1\n<!-- b -->\nafter\n"
    assert marked.part(document, marks) == "<!-- a -->\nold\n<!-- b -->"
    assert marked.part("nothing", marks) is None
    with pytest.raises(ValueError, match="no one place"):
        marked.replaced("nothing", marks, "new")


def uuid(digit: str) -> str:
    return f"{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}"


SESSION, ON = uuid("f"), "2026-11-24 14:01:44.417 UTC [89]"


def cycle(claim: str, place: str, machine: str) -> str:
    """What a server logs of a lease and its end."""
    return f"""{ON} LOG:  statement: BEGIN ISOLATION LEVEL READ COMMITTED
{ON} LOG:  execute s25: -- A comment with $1.
\tINSERT INTO work SELECT $1::uuid, $2::text, $3::uuid
\tWHERE machine_id > $4
{ON} DETAIL:  Parameters: $1 = '{SESSION}', $2 = 'It''s', $3 = '{claim}', $4 = '{place}'
{ON} LOG:  execute s26: SELECT machine_id FROM work WHERE session_id = $1 AND claim_id = $2
{ON} DETAIL:  Parameters: $1 = '{SESSION}', $2 = '{claim}'
{ON} LOG:  statement: SELECT 1; COMMIT
{ON} LOG:  execute s27: INSERT INTO history SELECT 'Finished', $1::uuid[], $2::uuid[], $3::bigint[], $4::bool
{ON} DETAIL:  Parameters: $1 = '{{{machine}}}', $2 = '{{{SESSION}}}', $3 = '{{1}}', $4 = NULL
"""


def test_a_log_tells_the_statements_and_their_values() -> None:
    found = replay.logged(cycle(uuid("a"), uuid("b"), uuid("c")))
    assert [statement.text.split()[0] for statement in found] == ["BEGIN", "--", "SELECT", "SELECT", "INSERT"]
    assert found[1].text.endswith("WHERE machine_id > $4")
    assert found[1].values == {1: SESSION, 2: "It's", 3: uuid("a"), 4: uuid("b")}
    assert found[4].values == {1: f"{{{uuid('c')}}}", 2: f"{{{SESSION}}}", 3: "{1}"}


def test_one_cycle_is_none_to_compare_with() -> None:
    with pytest.raises(ValueError, match="no two cycles"):
        replay.last_cycles(replay.logged(cycle(uuid("a"), uuid("b"), uuid("c"))))


def test_a_script_makes_anew_what_differs_from_cycle_to_cycle() -> None:
    log = cycle(uuid("a"), uuid("b"), uuid("c")) + cycle(uuid("d"), uuid("e"), uuid("0"))
    log = log.replace("$4 = NULL", "$4 = 'f'")
    text, constants = replay.script(*replay.last_cycles(replay.logged(log)))
    assert sorted(constants.values()) == sorted([SESSION, "It's", f"{{{SESSION}}}", "f"])
    lines = text.splitlines()
    assert lines[2:4] == ["\\startpipeline", "BEGIN ISOLATION LEVEL READ COMMITTED;"]
    assert lines.index("\\endpipeline") == lines.index("COMMIT;") + 1
    ended = text.split("\\endpipeline")[1]
    assert "array_agg(claimed.machine_id)" in ended
    assert "array_agg(claimed.token)" in ended
    assert text.count(":claim::bigint") == 4
    assert text.count(":place::bigint") == 1
    assert "$" not in text
    assert all(uuid(digit) not in text for digit in "abcde0f")
