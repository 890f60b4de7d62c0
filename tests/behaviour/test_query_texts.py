"""The texts of the library's queries, on a real database."""

import dataclasses
from typing import Any

from bmdb import _core, model

# The queries whose rows have a class, by name.
ROWS: dict[str, type] = {
    "agent_authenticate": model.AgentStarted,
    "agent_os_installation_of": model.OsInstallationRequest,
    "machine_new": model.Machine,
    "machine_provided": model.ProvidedMachine,
    "session_by_id": model.SessionInfo,
    "session_check": model.SessionInfo,
    "statistics_count_active_backoffs": model.ProcessCount,
    "statistics_count_active_work": model.ProcessCount,
    "statistics_machine_hardware": model.HardwareReport,
    "work_backoff_of": model.WorkBackoff,
    "work_history_of": model.HistoryEvent,
    "work_holds": model.Hold,
    "work_loss_of": model.WorkLoss,
    "work_quarantines": model.WorkLoss,
    "workflow_agent_recovery": model.ProvidedMachine,
    "workflow_agent_start": model.ProvidedMachine,
}


def test_every_query_prepares(sql: Any) -> None:
    answers = {name: sql.pgconn.prepare(b"", text.encode()) for name, text in _core.queries()}
    assert len(answers) > len(ROWS)
    assert {name: answer.error_message for name, answer in answers.items() if answer.error_message} == {}


def test_columns_are_the_attributes_of_the_row_in_order(sql: Any) -> None:
    texts = dict(_core.queries())
    for name, row in ROWS.items():
        sql.pgconn.prepare(b"", texts[name].encode())
        described = sql.pgconn.describe_prepared(b"")
        columns = [described.fname(i).decode() for i in range(described.nfields)]
        assert columns == [field.name for field in dataclasses.fields(row)], name
