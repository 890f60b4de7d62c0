"""`bmdb work` and `bmdb backoffs` on a real database."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Any
from uuid import UUID

from tests.cli.conftest import PROCESS, Answer, Documents, fail

import bmdb

HOSTILE = "\x1b[2J\u202eno\nanswer"


class TestWork:
    def test_who_works_on_what_the_oldest_first(
        self, session: bmdb.Session, machines: Any, bmdb_command: Answer, document: Documents
    ) -> None:
        first, second = machines(2)
        works = [session.work(process, lambda q, m=machine: [m]) for process, machine in (("B", second), ("A", first))]
        page = document("work")
        assert page["more"] is False
        assert [(lease["process"], lease["machine_id"]) for lease in page["work"]] == [
            ("B", str(second)),
            ("A", str(first)),
        ]
        lease = page["work"][0]
        assert datetime.fromisoformat(lease.pop("work_started_at")).tzinfo is not None
        assert "pid" in lease.pop("session_runtime_info")
        assert lease == {
            "machine_id": str(second),
            "process": "B",
            "session_id": str(session.uuid),
            "token": works[0].token,
            "session_component_name": "test",
            "session_live": True,
        }
        header, row, _ = bmdb_command("work")[1].splitlines()
        assert header.split() == ["MACHINE", "PROCESS", "SINCE", "FOR", "TOKEN", "COMPONENT", "SESSION", "STATE"]
        assert row.split()[0] == str(second)
        assert row.split()[-4:] == ["1", "test", str(session.uuid), "live"]

    def test_filters(
        self,
        session: bmdb.Session,
        connection: bmdb.Connection,
        machines: Any,
        bmdb_command: Answer,
        document: Documents,
    ) -> None:
        first, second = machines(2)
        with connection.start_session() as other:
            session.work("A", lambda q: [first])
            session.work("B", lambda q: [second])
            other.work("A", lambda q: [second])

            def found(*arguments: object) -> list[tuple[str, str]]:
                return [(lease["process"], lease["session_id"]) for lease in document("work", *arguments)["work"]]

            assert found("--process", "A") == [("A", str(session.uuid)), ("A", str(other.uuid))]
            assert found("-s", session.uuid) == [("A", str(session.uuid)), ("B", str(session.uuid))]
            assert found("-p", "B", "-s", other.uuid) == []
            assert document("work", "--limit", 2)["more"] is True
            status, output, errors = bmdb_command("work", "--limit", 2)
        assert (status, len(output.splitlines())) == (0, 3)
        assert errors == "bmdb: there are more than these 2: raise --limit, or name a process\n"

    def test_a_lease_of_an_expired_session(
        self, machines: Any, bmdb_command: Answer, document: Documents, sql: Any
    ) -> None:
        (machine,) = machines(1)
        sql.execute(
            "WITH gone AS (INSERT INTO sessions (session_component_name, session_runtime_info,"
            " session_interval_seconds, session_deadline)"
            " VALUES (%s, '', 5, clock_timestamp() - interval '1 second') RETURNING session_id)"
            " INSERT INTO work SELECT %s, %s, session_id, 1 FROM gone",
            [HOSTILE, machine, HOSTILE],
        )
        assert document("work")["work"][0]["session_live"] is False
        output = bmdb_command("work")[1]
        assert output.splitlines()[1].endswith("expired")
        assert not {mark for mark in output if unicodedata.category(mark) in {"Cc", "Cf"}} - {"\n"}


class TestBackoffs:
    def test_the_next_to_end_first_and_why(
        self, session: bmdb.Session, machines: Any, bmdb_command: Answer, document: Documents
    ) -> None:
        soon, late = machines(2)
        fail(session, late, HOSTILE, 7150)
        fail(session, soon, "busy", 600)
        page = document("backoffs")
        assert [(each["machine_id"], each["cause"]) for each in page["backoffs"]] == [
            (str(soon), "busy"),
            (str(late), HOSTILE),
        ]
        assert page["backoffs"][0]["last_interval_seconds"] == 600
        output = bmdb_command("backoffs")[1]
        header, first, second = output.splitlines()
        assert header.split() == ["MACHINE", "PROCESS", "UNTIL", "LEFT", "INTERVAL", "CAUSE"]
        assert "  10m  " in first and first.endswith("busy")
        assert "  1h 59m  " in second and second.endswith(r"\x1b[2J\u202eno")
        assert "\x1b" not in output

    def test_filters_and_those_that_have_ended(
        self, session: bmdb.Session, machines: Any, bmdb_command: Answer, document: Documents, sql: Any
    ) -> None:
        ended, active = machines(2)
        fail(session, ended, "ended")
        fail(session, active, "active")
        sql.execute(
            "UPDATE work_backoff SET until = clock_timestamp() - interval '1 hour' WHERE machine_id = %s", [ended]
        )

        def causes(*arguments: object) -> list[str]:
            return [backoff["cause"] for backoff in document("backoffs", *arguments)["backoffs"]]

        assert causes() == ["active"]
        assert causes("--expired") == ["ended", "active"]
        assert causes("--expired", "--machine", ended) == ["ended"]
        assert causes("--process", "Other") == []
        assert "  ended  " in bmdb_command("backoffs", "--expired")[1]
        assert document("backoffs", "--expired", "--limit", 1)["more"] is True

    def test_a_quarantine_has_no_end(self, machines: Any, bmdb_command: Answer, sql: Any) -> None:
        (machine,) = machines(1)
        quarantine(sql, machine)
        assert f"{machine}  {PROCESS}  released  quarantine  -  three lost" in " ".join(
            bmdb_command("backoffs")[1].splitlines()[1].split("   ")
        ).replace("   ", "  ")


def quarantine(sql: Any, machine: UUID) -> None:
    """As collection leaves a quarantine behind."""
    sql.execute(
        "INSERT INTO work_backoff VALUES (%s, %s, '9999-12-31 00:00:00Z', 'three lost', NULL)", [machine, PROCESS]
    )
