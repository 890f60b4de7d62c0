"""`bmdb explain` and `bmdb processes` on a real database; which clause is made when, tests/behaviour tells."""

from __future__ import annotations

import os
import subprocess
import unicodedata
import uuid
from typing import Any

import pytest
from tests.cli.conftest import PROCESS, Answer, Documents, fail

import bmdb
from bmdb.cli import questions
from bmdb.unseen import visible

HOSTILE = "\x1b[31mits disk\u202e"


def kinds(document: Any, process: str) -> list[str]:
    (explanation,) = (each for each in document["explanations"] if each["process"] == process)
    assert explanation["leasable"] is not any(clause["blocks"] for clause in explanation["clauses"])
    return [clause["kind"] for clause in explanation["clauses"]]


class TestExplain:
    def test_what_keeps_workers_away_and_the_way_out(
        self, session: bmdb.Session, machines: Any, bmdb_command: Answer, document: Documents
    ) -> None:
        """Each command that is offered ends what it is offered for."""
        (machine,) = machines(1)
        fail(session, machine, "no answer")
        assert bmdb_command("hold", machine, "--reason", HOSTILE, "--owner", "ada")[0] == 0
        assert bmdb_command("hold", machine, "--process", PROCESS, "--reason", "mine", "--owner", "ada")[0] == 0
        assert kinds(document("explain", machine, PROCESS), PROCESS).count("hold") == 2
        status, output, errors = bmdb_command("explain", machine, PROCESS)
        assert (status, errors) == (0, "")
        first, *clauses = output.splitlines()
        assert first == f"machine {machine} cannot be leased for {PROCESS} now"
        assert any("no answer" in line for line in clauses)
        assert any("ada keeps" in line and r"\x1b[31mits disk\u202e" in line for line in clauses)
        assert not {mark for mark in output if unicodedata.category(mark) in {"Cc", "Cf"}} - {"\n"}
        offered = [line.split() for line in clauses if line.startswith("    bmdb ")]
        assert [line[1] for line in offered] == ["release", "release", "clear-backoff"] or len(offered) == 3
        for line in offered:
            arguments = ["seen to" if word == "…" else word for word in line[1:]]
            assert bmdb_command(*arguments)[0] == 0, line
        assert not {"hold", "backoff"} & set(kinds(document("explain", machine, PROCESS), PROCESS))

    def test_a_lease_and_its_way_out(
        self, session: bmdb.Session, machines: Any, bmdb_command: Answer, document: Documents
    ) -> None:
        (machine,) = machines(1)
        session.connection.register(bmdb.Process("Paint it", excludes=("Other",)))
        session.work("Paint it", lambda q: [machine])
        assert kinds(document("explain", machine, "Paint it"), "Paint it")[0] == "lease"
        assert "exclusion" in kinds(document("explain", machine, "Other"), "Other")
        way = f"    bmdb force-release {machine} 'Paint it' --reason …"
        for process in ("Paint it", "Other"):
            assert way in bmdb_command("explain", machine, process)[1].splitlines()

    def test_every_process_that_is_known(
        self, session: bmdb.Session, machines: Any, bmdb_command: Answer, document: Documents
    ) -> None:
        (machine,) = machines(1)
        assert document("explain", machine) == {"machine_id": str(machine), "explanations": []}
        assert bmdb_command("explain", machine)[1].startswith("no process is known here")
        fail(session, machine, "no answer")
        session.connection.register(bmdb.Process("Inspect", quarantine_after=3))
        told = document("explain", machine)
        assert [each["process"] for each in told["explanations"]] == ["Inspect", PROCESS]
        assert "backoff" in kinds(told, PROCESS)
        assert bmdb_command("explain", machine)[1].count(f"machine {machine} ") >= 2

    def test_an_answer_is_status_0_unless_it_is_the_status(
        self, session: bmdb.Session, machines: Any, bmdb_command: Answer
    ) -> None:
        free, waiting = machines(2)
        wants_all = bmdb.Process(PROCESS, eligible=bmdb.eligible(having=(), lacking=("provided",)))
        session.work_many(wants_all, 1)[0].cancel()
        fail(session, waiting, "no")
        assert bmdb_command("explain", free, PROCESS, "--exit-code")[0] == 0
        assert bmdb_command("explain", waiting, PROCESS)[0] == 0
        assert bmdb_command("explain", waiting, PROCESS, "--exit-code")[0] == 1
        assert "  + eligible now" in bmdb_command("explain", free, PROCESS)[1]

    def test_a_machine_that_is_not_there(self, bmdb_command: Answer) -> None:
        nobody = uuid.uuid4()
        refused = f"bmdb: there is no machine {nobody}: `bmdb machines` lists those there are\n"
        assert bmdb_command("explain", nobody, PROCESS) == (1, "", refused)
        assert bmdb_command("explain", nobody) == (1, "", refused)


class TestProcesses:
    @pytest.fixture
    def paint(self, session: bmdb.Session, machines: Any) -> bmdb.Process:
        """A process that has asked, and for which two machines wait."""
        machines(3)
        paint = bmdb.Process(
            "Paint\x1b[2J",
            backoff=bmdb.Backoff(30, 300, 2),
            excludes=("Wash",),
            quarantine_after=3,
            crash_backoff=bmdb.Backoff(60, 600, 2),
            eligible=bmdb.eligible(lacking=("provided",), where="machines.machine_id <> $1", params=(uuid.uuid4(),)),
        )
        session.work(paint)
        return paint

    def test_rules_backlog_and_what_they_ask_for(
        self, paint: bmdb.Process, bmdb_command: Answer, document: Documents
    ) -> None:
        (told,) = (each for each in document("processes")["processes"] if each["process"] == paint.name)
        assert (told["backlog"], told["excludes"], told["quarantine_after"]) == (2, ["Wash"], 3)
        (asked,) = told["eligibilities"]
        assert asked["lacking"] == ["provided"]
        assert asked["query"].lstrip().upper().startswith(("SELECT", "WITH"))
        status, output, errors = bmdb_command("processes", paint.name)
        assert (status, errors) == (0, "")
        header, row = output.splitlines()
        assert header.split()[:2] == ["PROCESS", "BACKLOG"]
        assert row.startswith(r"Paint\x1b[2J  2        20")
        assert "  30s to 5m  Wash      1m to 10m      after 3     " in row
        assert "lacking provided, where machines.machine_id <> " in row
        shown = bmdb_command("processes", "--sql")[1]
        assert r"Paint\x1b[2J, eligibility " in shown
        assert "machine_provided" in shown
        assert "\x1b" not in shown

    def test_one_that_chooses_in_a_callback(
        self, session: bmdb.Session, bmdb_command: Answer, document: Documents
    ) -> None:
        session.connection.register(bmdb.Process("Called", quarantine_after=1))
        (told,) = document("processes", "Called")["processes"]
        assert (told["backlog"], told["eligibilities"]) == (None, [])
        assert bmdb_command("processes")[1].splitlines()[1].split()[:2] == ["Called", "?"]

    def test_a_tag_that_is_gone_is_said(
        self, session: bmdb.Session, bmdb_command: Answer, machines: Any, sql: Any
    ) -> None:
        sql.execute("CREATE TABLE machine_rack (machine_id uuid PRIMARY KEY REFERENCES machines)")
        with pytest.raises(bmdb.NothingToDo):
            session.work_many(bmdb.Process("Racked", eligible=bmdb.eligible(having=("rack",))), 1)
        sql.execute("DROP TABLE machine_rack")
        status, output, errors = bmdb_command("processes", "Racked", "--sql")
        assert status == 0
        assert "having rack" in output and "(it names a tag that is not there)" in output
        assert errors.startswith("bmdb: warning: the backlog of Racked cannot be told")

    def test_one_that_nobody_registered(self, bmdb_command: Answer) -> None:
        status, output, errors = bmdb_command("processes", "No\nSuch")
        assert (status, output) == (1, "")
        assert errors == (
            "bmdb: no worker has registered a process No\\nSuch: `bmdb processes` lists those there are\n"
        )


@pytest.mark.parametrize("name", ["it's", "[/bad] pro\u202ec", "a\\b\x85'\n", "$(id) `id`", "-x", "ü"])
def test_a_name_in_a_command_is_what_a_shell_makes_of_it(name: str) -> None:
    argument = questions._argument(name)
    assert visible(argument) == argument
    done = subprocess.run(
        ["bash", "-c", f"printf %s {argument}_"],
        capture_output=True,
        timeout=60,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert done.stdout.decode() == f"{name}_"
