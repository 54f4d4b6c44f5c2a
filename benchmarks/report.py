"""The figures as JSON, as a page in Markdown, and drawn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

RECALL_PLOT = "recall.svg"
ROWS_PLOT = "rows.svg"

PAGE = """# Benchmarks

Written by `make bench`; `make bench QUICK=1` measures a tenth, in six minutes. Of a ratio both sides were measured in
this run, in turns and with equal threads; it is the median of the rounds' ratios, after a warm-up.

## Goals

{goals}

## The machine

{surroundings}

## Curves

{curves}

## Details

Medians of the rounds. {corpus}.

{details}
"""


def write(record: Record, json_path: Path, folder: Path) -> None:
    """Write the figures as JSON, and into ``folder`` the page with its plots."""
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(as_json(record) + "\n", encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    points = record["details"].get("curves", {})
    if "by rows" in points:
        draw(points, folder)
    (folder / "README.md").write_text(page(record), encoding="utf-8")


def as_json(record: Record) -> str:
    """The figures as JSON, each to six significant digits."""
    return json.dumps(_rounded(record), indent=2)


def page(record: Record) -> str:
    """The page in Markdown."""
    settings = record["settings"]
    surroundings = {
        **record["machine"],
        **record["versions"],
        **{name: value for name, value in settings.items() if name != "server"},
        **settings["server"],
    }
    return PAGE.format(
        goals=goals_table(record["goals"]),
        surroundings=table(("what", "value"), [(name, shown(value)) for name, value in surroundings.items()]),
        corpus=f"Up to {settings['documents']:,} documents of: {settings['corpus']}",
        curves=curves(record["details"].get("curves", {})),
        details="\n\n".join(section(*item) for item in record["details"].items() if item[0] != "curves"),
    )


def goals_table(goals: Sequence[Mapping[str, Any]]) -> str:
    """The goals as a table in Markdown: what was measured, what it should be, and whether it is."""
    rows = []
    for goal in goals:
        measured = goal["reason"] if goal["measured"] is None else f"{shown(goal['measured'])} {goal['unit']}".strip()
        rows.append((goal["goal"], measured, goal["target"], "yes" if goal["met"] else "no"))
    return table(("goal", "measured", "target", "met"), rows)


def curves(points: Mapping[str, Any]) -> str:
    """The plots, each with its figures as a table below."""
    if "by rows" not in points:
        return str(points.get("failed", "They were not measured."))
    return "\n\n".join(
        (
            f"![recall@10 against latency]({RECALL_PLOT})",
            points_table(points["by ef_search"]),
            f"![time and size against the number of documents]({ROWS_PLOT})",
            points_table(points["by rows"]),
        )
    )


def points_table(points: Sequence[Mapping[str, Any]]) -> str:
    """Points of a curve as a table, a row each."""
    return table(tuple(points[0]), [tuple(map(shown, point.values())) for point in points])


def section(name: str, details: Mapping[str, Any]) -> str:
    """A benchmark's details as a list, without the single rounds."""
    listed = {key: value for key, value in details.items() if key != "about" and not key.startswith("rounds")}
    lines = [f"- {key}: {shown(value)}" for key, value in listed.items()]
    return "\n".join([f"### {name}", "", details["about"], "", *lines])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A table in Markdown.

    >>> print(table(("a", "b"), [("1", "x | y")]))
    | a | b |
    |---|---|
    | 1 | x \| y |
    """
    lines = [" | ".join(cell.replace("|", r"\|") for cell in row) for row in (head, *rows)]
    first, *others = [f"| {line} |" for line in lines]
    return "\n".join([first, "|---" * len(head) + "|", *others])


def shown(value: Any) -> str:
    """A value for people: a number to four digits, or as many as tell it from 1.

    >>> [shown(value) for value in (1.23456, 0.9999987, 12345.6, 60000, True, ["avx2", "amx"])]
    ['1.235', '0.9999987', '12,346', '60,000', 'yes', 'avx2, amx']
    """
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float() if 0.999 < value < 1:
            return f"{value:.7f}"
        case float():
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        case list():
            return ", ".join(map(shown, value)) or "none"
        case _:
            return str(value)


def draw(points: Mapping[str, Any], folder: Path) -> None:
    """Draw both curves as SVG: the same file for the same figures."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "searchapp"
    mpl.rcParams["svg.fonttype"] = "none"
    for name, figure in (
        (RECALL_PLOT, recall_figure(points["by ef_search"])),
        (ROWS_PLOT, rows_figure(points["by rows"])),
    ):
        figure.savefig(folder / name, metadata={"Date": None})


def recall_figure(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Recall@10 to the right, the p50 of a query upwards; each point bears its ef_search."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    recalls, latencies = [point["recall@10"] for point in points], [point["p50, ms"] for point in points]
    axes.plot(recalls, latencies, marker="o")
    for point in points:
        place = (point["recall@10"], point["p50, ms"])
        axes.annotate(str(point["ef_search"]), place, xytext=(-4, 6), textcoords="offset points", ha="right")
    axes.set(title="Recall against latency, by ef_search", xlabel="recall@10", ylabel="p50 of one query, ms")
    axes.margins(y=0.1)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.4)
    return figure


def rows_figure(points: Sequence[Mapping[str, Any]]) -> Figure:
    """The rows to the right; upwards the time of loading and indexing, that of a query, and the size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    times, query, size = figure.subplots(1, 3)
    rows = [point["rows"] for point in points]
    for axes, keys, title, scale in (
        (times, ("load, s", "index, s"), "Load and index, s", "log"),
        (query, ("query p50, ms",), "Query p50, ms", "linear"),
        (size, ("size, MB",), "Size, MB", "log"),
    ):
        for key in keys:
            axes.plot(rows, [point[key] for point in points], marker="o", label=key.partition(",")[0])
        axes.grid(alpha=0.4)
        axes.set(title=title, xlabel="rows", xscale="log", yscale=scale)
        if scale == "linear":
            axes.set_ylim(bottom=0)
    times.legend()
    return figure


def _rounded(value: Any) -> Any:
    """A value with all floats in it to six significant digits."""
    match value:
        case float():
            return float(f"{value:.6g}")
        case Mapping():
            return {key: _rounded(each) for key, each in value.items()}
        case list() | tuple():
            return [_rounded(each) for each in value]
        case _:
            return value
