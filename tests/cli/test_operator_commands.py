"""hold, release, holds, force-release and clear-backoff on a real database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests.cli.conftest import PROCESS, Answer, Documents, fail

import bmdb

WHY = ("--reason", "its \x1b[31mdisk", "--owner", "ada")


class TestHolds:
    def test_held_shown_and_released(
        self, session: bmdb.Session, machines: Any, bmdb_command: Answer, document: Documents
    ) -> None:
        (machine,) = machines(1)
        kept = f"every process is kept away from machine {machine}\n"
        assert bmdb_command("hold", machine, *WHY) == (0, kept, "")
        with pytest.raises(bmdb.WorkConflictError):
            session.work(PROCESS, lambda q: [machine])
        (hold,) = document("holds")["holds"]
        since = datetime.fromisoformat(hold.pop("held_at"))
        assert datetime.now(UTC) - since < timedelta(minutes=1)
        assert hold == {
            "machine_id": str(machine),
            "process": None,
            "owner": "ada",
            "reason": "its \x1b[31mdisk",
            "until": None,
        }
        table = bmdb_command("holds", machine)[1]
        assert "(all)" in table
        assert "until released" in table
        assert "\x1b" not in table
        assert bmdb_command("holds", uuid4())[1].count("\n") == 1
        assert bmdb_command("release", machine) == (0, f"every process may have machine {machine} again\n", "")
        refused = f"bmdb: every process was not kept away from machine {machine}: see `bmdb holds`\n"
        assert bmdb_command("release", machine) == (1, "", refused)
        session.work(PROCESS, lambda q: [machine]).cancel()

    @pytest.mark.parametrize(
        ("until", "seconds"), [("90m", 5400.0), ("2999-01-01T00:00:00+02:00", None), ("2999-01-01 00:00Z", None)]
    )
    def test_for_one_process_and_a_time(
        self, machines: Any, bmdb_command: Answer, document: Documents, until: str, seconds: float | None
    ) -> None:
        (machine,) = machines(1)
        assert bmdb_command("hold", machine, "-p", PROCESS, "--until", until, *WHY)[0] == 0
        (hold,) = document("holds")["holds"]
        assert hold["process"] == PROCESS
        end = datetime.fromisoformat(hold["until"])
        if seconds is None:
            assert end == datetime.fromisoformat(until)
        else:
            assert abs((end - datetime.now(UTC)).total_seconds() - seconds) < 60

    def test_your_user_is_the_owner(self, machines: Any, bmdb_command: Answer, document: Documents) -> None:
        import getpass

        (machine,) = machines(1)
        assert bmdb_command("hold", machine, "-r", "a look")[0] == 0
        assert document("holds")["holds"][0]["owner"] == getpass.getuser()

    def test_what_makes_no_sense(self, machines: Any, bmdb_command: Answer) -> None:
        (machine,) = machines(1)
        nobody = uuid4()
        unknown = f"bmdb: there is no machine {nobody}: `bmdb machines` lists those there are\n"
        assert bmdb_command("hold", nobody, *WHY) == (1, "", unknown)
        for until, complaint in (("soon", "is no duration"), ("2999-01-01", "time zone"), ("9" * 30 + "d", "longer")):
            status, _, errors = bmdb_command("hold", machine, "--until", until, *WHY)
            assert status == 2
            assert complaint in errors
        status, _, errors = bmdb_command("hold", machine, "--reason", " ")
        assert (status, errors) == (2, "bmdb: reason must say something, without NUL characters\n")


class TestForceRelease:
    def test_the_holder_is_fenced(
        self, session: bmdb.Session, machines: Any, bmdb_command: Answer, document: Documents
    ) -> None:
        (machine,) = machines(1)
        work = session.work(PROCESS, lambda q: [machine])
        status, output, errors = bmdb_command("force-release", machine, PROCESS, *WHY)
        assert (status, errors) == (0, "")
        assert output.startswith(f"process {PROCESS} does not hold machine {machine} any more: session {session.uuid}")
        with pytest.raises(bmdb.LeaseLostError):
            work.finish()
        event = document("history", machine)["events"][-1]
        assert (event["event"], event["failed_cause"]) == ("Released", "ada: its \x1b[31mdisk")
        refused = f"bmdb: nobody holds machine {machine} for process {PROCESS}: `bmdb work` lists who does\n"
        assert bmdb_command("force-release", machine, PROCESS, *WHY) == (1, "", refused)

    def test_a_reason_is_needed(self, bmdb_command: Answer) -> None:
        status, _, errors = bmdb_command("force-release", uuid4(), PROCESS)
        assert status == 2
        assert "--reason" in errors


class TestClearBackoff:
    def test_the_process_may_have_it_at_once(
        self, session: bmdb.Session, machines: Any, bmdb_command: Answer, document: Documents
    ) -> None:
        (machine,) = machines(1)
        fail(session, machine, "no\nanswer")
        status, output, errors = bmdb_command("clear-backoff", machine, PROCESS, *WHY)
        assert (status, errors) == (0, "")
        assert f"process {PROCESS} may have machine {machine} at once" in output
        assert output.count("\n") == 1
        assert document("machines")["machines"][0]["backoffs"] == []
        status, _, errors = bmdb_command("clear-backoff", machine, PROCESS, *WHY)
        assert status == 1
        assert "release-quarantine" in errors


class TestJson:
    """Each command that steps in tells what it did, for scripts."""

    def test_holds(self, machines: Any, document: Documents) -> None:
        (machine,) = machines(1)
        told = document("hold", machine, "-p", PROCESS, "--until", "2999-01-01T00:00:00Z", *WHY)
        assert told == {
            "machine_id": str(machine),
            "process": PROCESS,
            "owner": "ada",
            "reason": "its \x1b[31mdisk",
            "until": "2999-01-01T00:00:00+00:00",
        }
        assert document("release", machine, "-p", PROCESS) == {
            "machine_id": str(machine),
            "process": PROCESS,
            "released": True,
        }

    def test_leases_and_backoffs(self, session: bmdb.Session, machines: Any, document: Documents) -> None:
        leased, waiting = machines(2)
        work = session.work(PROCESS, lambda q: [leased])
        fail(session, waiting, "no answer")
        told = document("force-release", leased, PROCESS, *WHY)
        assert (told["released"]["session_id"], told["released"]["token"]) == (str(session.uuid), work.token)
        assert (told["owner"], told["reason"]) == ("ada", "its \x1b[31mdisk")
        told = document("clear-backoff", waiting, PROCESS, *WHY)
        assert (told["cleared"]["machine_id"], told["cleared"]["cause"]) == (str(waiting), "no answer")

    def test_quarantines(self, machines: Any, document: Documents, sql: Any) -> None:
        (machine,) = machines(1)
        sql.execute("INSERT INTO work_loss VALUES (%s, %s, 3, now(), now())", [machine, PROCESS])
        told = document("release-quarantine", machine, PROCESS, *WHY)
        assert told == {"machine_id": str(machine), "process": PROCESS, "released": True}
        event = document("history", machine)["events"][-1]
        assert (event["event"], event["failed_cause"]) == ("QuarantineReleased", "ada: its \x1b[31mdisk")


def test_who_ends_a_hold_and_why(machines: Any, bmdb_command: Answer, document: Documents) -> None:
    (machine,) = machines(1)
    document("hold", machine, *WHY)
    refused = "bmdb: --owner says who, and goes with --reason, which says why\n"
    assert bmdb_command("release", machine, "--owner", "bob") == (2, "", refused)
    document("release", machine, "--owner", "bob", "--reason", "a new disk")
    assert document("history", machine)["events"][-1]["failed_cause"] == "bob: a new disk"


def test_json_is_whole(machines: Any, bmdb_command: Answer) -> None:
    (machine,) = machines(1)
    bmdb_command("hold", machine, "--reason", "x" * 5000, "--owner", "ada")
    shown = json.loads(bmdb_command("holds", "--json")[1])
    assert shown["holds"][0]["reason"] == "x" * 5000
