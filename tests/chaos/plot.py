"""Pictures of a soak, and its page."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median, quantiles

import pygal
from pygal.style import Style

from tests.chaos.gauge import Samples
from tests.chaos.trend import Course, Finding

# pygal leaves a finder of the old kind behind, at which others stumble that look for modules.
sys.meta_path[:] = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]

# Points of a line: more are not seen.
POINTS = 120

Line = Sequence[tuple[float, float]]


def page(
    directory: Path, head: str, report: str, findings: Sequence[Finding], samples: Samples, course: Course
) -> Path:
    """Write README.md, its pictures and samples.csv into `directory`, which is made; the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    pictures = charts(samples, course)
    for name, (title, unit, lines) in pictures.items():
        (directory / f"{name}.svg").write_text(_drawn(title, unit, lines))
    rows = [asdict(worker) for worker in samples.workers] + [
        {"name": "database", **asdict(d)} for d in samples.database
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = [",".join(columns), *(",".join(str(row.get(column, "")) for column in columns) for row in rows)]
    (directory / "samples.csv").write_text("\n".join(table) + "\n")
    verdicts = {True: "kept", False: "**broken**", None: "not decided"}
    lines = [
        "# A soak", "", head, "",
        "| what | expected | measured | verdict |", "| --- | --- | --- | --- |",
        *(f"| {f.subject} | {f.expected} | {f.measured} | {verdicts[f.kept]} |" for f in findings), "",
        "```", report, "```", "",
        *(f"![{title}]({name}.svg)" for name, (title, _, _) in pictures.items()), "",
    ]  # fmt: skip
    path = directory / "README.md"
    path.write_text("\n".join(lines))
    return path


def charts(samples: Samples, course: Course) -> dict[str, tuple[str, str, dict[str, Line]]]:
    """For each picture its title, its unit and its lines."""

    def workers(what: str) -> dict[str, Line]:
        return {name: [(s.at, float(getattr(s, what))) for s in samples.of(name)] for name in samples.names()}

    database = {
        what: [(sample.at, float(getattr(sample, what))) for sample in samples.database]
        for what in ("dead", "connections")
    }
    end = max([*course.ends, *(at for at, _ in course.acts), 1.0])
    width = max(end / POINTS, 1.0)
    ended = _grouped(((at, 1.0) for at in course.ends), width)
    took = {at: group for at, group in _grouped(course.acts, width).items() if len(group) > 1}
    return {
        "memory": ("Resident memory of workers that are never killed", "MiB", workers("resident")),
        "descriptors": ("Open file descriptors", "", workers("descriptors")),
        "connections": (
            "Connections", "", {**workers("connections"), "all workers": database["connections"]},
        ),
        "dead-tuples": ("Dead tuples in the tables of leases", "", {"dead": database["dead"]}),
        "throughput": ("Leases ended, all faults and lulls", "ends/s", {
            "ends": [(at, len(group) / width) for at, group in ended.items()],
        }),
        "latency": ("How long acts took, their callbacks' own pauses included", "ms", {
            "median": [(at, 1000 * median(group)) for at, group in took.items()],
            "99th percentile": [(at, 1000 * _percentile(group)) for at, group in took.items()],
        }),
    }  # fmt: skip


def _percentile(group: Sequence[float]) -> float:
    return quantiles(group, n=100, method="inclusive")[98]


def _grouped(values: Iterable[tuple[float, float]], width: float) -> dict[float, list[float]]:
    groups: defaultdict[float, list[float]] = defaultdict(list)
    for at, value in sorted(values):
        groups[at // width * width].append(value)
    return dict(groups)


def _drawn(title: str, unit: str, lines: dict[str, Line]) -> str:
    style = Style(background="white", plot_background="white", font_family="sans-serif", label_font_size=12)
    chart = pygal.XY(
        style=style, js=(), no_prefix=True, disable_xml_declaration=True, width=900, height=320, title=title,
        x_title="minutes", y_title=unit, show_dots=False, legend_at_bottom=True, include_x_axis=True,
        x_value_formatter=lambda minutes: f"{minutes:g}",
    )  # fmt: skip
    for name, line in lines.items():
        step = max(1, len(line) // POINTS)
        chart.add(name, [(at / 60, value) for at, value in line[::step]])
    return re.sub(r"<script.*?</script>", "", chart.render(is_unicode=True), flags=re.DOTALL) + "\n"
