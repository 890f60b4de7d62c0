"""The rack: the file of the repository is the one that is installed, and one that cannot be used is turned down."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from bmdb.demo.rack import COLUMNS, Behaviour, read_rack
from bmdb.errors import ConfigError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "rack.csv"
HEADER = ",".join(COLUMNS) + "\n"


def test_the_example_and_the_installed_rack_are_one() -> None:
    assert EXAMPLE.read_bytes() == resources.files("bmdb.demo").joinpath("rack.csv").read_bytes()
    assert read_rack(EXAMPLE, 240) == read_rack(None, 240)


def test_the_rack_is_large_and_mixed() -> None:
    rack = read_rack(None, 240)
    assert len({(machine.provider, machine.provider_id) for machine in rack}) == 240
    assert {machine.provider for machine in rack} == {"Equinix", "Lumen"}
    assert sum(machine.behaviour is Behaviour.ANSWERS for machine in rack) > 120
    # A small demo has all kinds, too.
    assert {machine.behaviour for machine in rack[:20]} == set(Behaviour)
    assert {machine.provider for machine in rack[:10]} == {"Equinix", "Lumen"}


def test_a_rack_too_small_is_used_again_under_new_ids(tmp_path: Path) -> None:
    path = tmp_path / "rack.csv"
    path.write_text(HEADER + "Lumen,a,,,,answers,100,\nLumen,b,,Oslo,Running,recovers,,2.5\n")
    rack = read_rack(path, 5)
    assert [machine.provider_id for machine in rack] == ["a", "b", "a.2", "b.2", "a.3"]
    assert (rack[0].delay, rack[0].location, rack[1].after, rack[3].location) == (0.1, None, 2.5, "Oslo")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no column provider"),
        ("provider,provider_id\n", "no column reservation_id"),
        (HEADER + "Lumen,,,,,answers,,\n", "line 2: provider_id is empty"),
        (HEADER + "Lumen,a,,,,explodes,,\n", "line 2: behaviour 'explodes' is not known, only answers, refuses"),
        (HEADER + "Lumen,a,,,,answers,soon,\n", "line 2: could not convert"),
        (HEADER + "Lumen,a,,,,answers,-1,\n", "line 2: delay_ms and after_s must lie"),
        (HEADER + "Lumen,a,,,,answers,nan,\n", "line 2: delay_ms and after_s must lie"),
        (HEADER + "Lumen,a,,,,answers,,\nLumen,a,,,,hangs,,\n", "line 3: Lumen has a already"),
        (HEADER + "Lumen,a,,,,hangs,,\n", "no machine that can be done"),
        (HEADER, "no machine that can be done"),
    ],
)
def test_a_rack_that_cannot_be_used_is_turned_down_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "rack.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        read_rack(path, 10)


def test_a_rack_that_is_not_there_or_no_text_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read"):
        read_rack(tmp_path / "none.csv", 10)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rack(tmp_path / "binary.csv", 10)
