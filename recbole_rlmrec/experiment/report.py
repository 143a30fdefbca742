"""A comparison as one page: tables, bars, learning curves, who gains, ablations, what alignment changes.

The page is a single file and asks nothing of another host. Everything in it is read from the comparison's folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from recbole_rlmrec.experiment.charts import COLOURS, beside, chart, html_table
from recbole_rlmrec.experiment.compare import STAMP
from recbole_rlmrec.experiment.folder import read_comparison
from recbole_rlmrec.experiment.illustrations import illustrations_of
from recbole_rlmrec.experiment.report_illustrations import case_studies, lists_side_by_side, maps
from recbole_rlmrec.experiment.report_text import made_of
from recbole_rlmrec.extras import require_package
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.reading.documents import Format, parse_json

_CURVES = Format("file of learning curves", "Remove it: the page is written without them.")
_TITLES = {"recall": "Recall", "ndcg": "NDCG"}

#: Unit of metrics.
_SHARE = "(0 to 1)"


def write_report(folder: str | Path, path: str | Path | None = None) -> Path:
    """Write the page of a comparison.

    Args:
        folder: of the comparison.
        path: of the page; ``report.html`` in the folder, if not given.

    Returns:
        The page's path.

    Raises:
        SettingError: plotly is not installed.
        DataError: the folder holds no comparison, or a damaged file.
    """
    require_package("plotly", "report.html", "'recbole-rlmrec[report]'")
    from plotly.offline import get_plotlyjs

    folder = Path(folder)
    path = Path(path or folder / "report.html")
    found = read_comparison(folder)
    illustrations = illustrations_of(folder)
    sections = [
        ("Results", _table_html(folder) + beside(_bars(found))),
        ("Efficiency", _further_table(found, "Efficiency")),
        ("Learning curves", "".join(_curves(folder, found))),
        ("Who gains", beside(_gains(found))),
        ("Lists", _further_table(found, "Lists")),
        ("Ablations", "".join(_ablations(folder))),
        ("Maps of the items", "".join(maps(illustrations))),
        ("Case study: users whom alignment brings together", "".join(case_studies(illustrations))),
        ("Lists side by side", "".join(lists_side_by_side(illustrations))),
        ("How it was made", _how(found)),
    ]
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections if content)
    stamp = f"<p class='stamp'>{STAMP}</p>" if found["quick"] else ""
    page = _asset("report.html")
    parts = {
        "title": escape(found["title"]),
        "style": _asset("report.css"),
        "plotly": get_plotlyjs(),
        "script": _asset("report.js"),
        "body": stamp + body,
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], page)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _asset(name: str) -> str:
    return (files("recbole_rlmrec.experiment") / "page" / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------------- parts


def _table_html(folder: Path) -> str:
    """Return the table of the comparison, and what is said below it."""
    import csv

    from recbole_rlmrec.experiment.table import ONE_SEED, STAR

    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.reader(file) if line and not line[0].startswith("#")]
    note = STAR.replace("`*`", "*") if "p, seeds" in lines[0] else ONE_SEED if "p, users" in lines[0] else ""
    return html_table(lines) + (f"<p class='note'>{escape(note)}</p>" if note else "")


def _further_table(found: Mapping[str, Any], heading: str) -> str:
    """Return a further table of the comparison and what is said of it; empty where there is none."""
    table = found.get("tables", {}).get(heading)
    return f"<p class='note'>{escape(table['said'])}</p>{html_table(table['lines'])}" if table else ""


def _bars(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a chart of each metric: the means with standard deviations over the seeds."""
    for metric in found["rows"][0]["values"]:
        known = [row for row in found["rows"] if row["values"].get(metric)]
        values = [row["values"][metric] for row in known]
        trace = {
            "type": "bar",
            "x": [row["model"] for row in known],
            "y": [mean(each) for each in values],
            "marker": {"color": [COLOURS[number % len(COLOURS)] for number in range(len(known))]},
            "error_y": {
                "type": "data",
                "array": [_spread(each) for each in values],
                "visible": len(found["seeds"]) > 1,
            },
            "hovertemplate": "%{x}<br>%{y:.4f}<extra></extra>",
        }
        yield chart([trace], f"Test {_title(metric)}, mean over the seeds", "model", f"{_title(metric)} {_SHARE}")


def _curves(folder: Path, found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a chart of each loss term and of the validation score: a line for each model and seed."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    models = [row["model"] for row in found["rows"]]
    for number, model in enumerate(models):
        for seed in found["seeds"]:
            path = folder / "cells" / f"{model}-{seed}.curves.json"
            if not path.is_file():
                continue
            try:
                curves = parse_json(_CURVES.content(path))
            except ValueError as error:
                raise _CURVES.fault(path, error) from error
            for name, points in curves.items():
                lines = by_name.setdefault(name, [])
                lines.append(
                    {
                        "type": "scatter",
                        "mode": "lines",
                        "x": [epoch for epoch, _ in points],
                        "y": [value for _, value in points],
                        "name": model,
                        "legendgroup": model,
                        "showlegend": all(line["name"] != model for line in lines),
                        "line": {"color": COLOURS[number % len(COLOURS)], "width": 1.5},
                        "hovertemplate": f"{model}, seed {seed}<br>epoch %{{x}}: %{{y:.4g}}<extra></extra>",
                    }
                )
    for name, lines in sorted(by_name.items(), key=lambda entry: entry[0].startswith("loss")):
        unit = "(sum of an epoch)" if name.startswith("loss") else _SHARE
        yield chart(lines, f"{name[0].upper()}{name[1:]}, a line a seed", "epoch", f"{name} {unit}")


def _gains(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a chart of each side: recall of groups of users, and of items, by their training interactions."""
    for side in ("users", "items"):
        traces = []
        for row in found["rows"]:
            cells = [cell for name, cell in found["cells"].items() if name.rpartition("-")[0] == row["model"]]
            groups = [[group for group in cell.get("groups", ()) if group["side"] == side] for cell in cells]
            groups = [each for each in groups if each]
            if groups:
                labels = [_range(group["low"], group["high"]) for group in groups[0]]
                values = [[group["recall"] for group in same if group["recall"] is not None] for same in zip(*groups)]
                heights = [mean(each) if each else None for each in values]
                traces.append({"type": "bar", "name": row["model"], "x": labels, "y": heights})
        if traces:
            yield chart(
                traces, f"Recall by groups of {side}", f"training interactions of the {side}", f"recall {_SHARE}"
            )


def _range(low: int, high: int) -> str:
    return f"{low:,} to {high:,}" if low < high else f"{low:,}"


def _ablations(folder: Path) -> Iterator[str]:
    """Yield a chart of each ablation and metric: a line for each model, with a band of a standard deviation."""
    path = folder / "ablations.json"
    if not path.is_file():
        return
    for name, found in json.loads(path.read_text(encoding="utf-8")).items():
        levels = list(found["levels"])
        metrics = list(next(iter(found["levels"].values()))[0]["values"])
        for metric in metrics:
            traces = []
            models = dict.fromkeys(row["model"] for rows in found["levels"].values() for row in rows)
            for number, model in enumerate(models):
                values = [
                    next((row["values"].get(metric) for row in found["levels"][level] if row["model"] == model), None)
                    for level in levels
                ]
                known = [(level, each) for level, each in zip(levels, values) if each]
                traces += _band(model, known, COLOURS[number % len(COLOURS)])
            yield chart(traces, f"{name}: {found['meaning']}", f"{name}, level", f"test {_title(metric)} {_SHARE}")


def _band(model: str, known: Sequence[tuple[str, list[float]]], colour: str) -> list[dict[str, Any]]:
    """Return a line of means and a band of a standard deviation around it."""
    x = [level for level, _ in known]
    means, spreads = [mean(each) for _, each in known], [_spread(each) for _, each in known]
    edges = [centre + spread for centre, spread in zip(means, spreads)]
    edges += [centre - spread for centre, spread in zip(means, spreads)][::-1]
    band = {
        "type": "scatter",
        "mode": "lines",
        "x": [*x, *x[::-1]],
        "y": edges,
        "fill": "toself",
        "fillcolor": colour,
        "opacity": 0.15,
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": model,
    }
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": means,
        "name": model,
        "legendgroup": model,
        "line": {"color": colour},
    }
    return [band, line]


def _how(found: Mapping[str, Any]) -> str:
    """Return settings, versions and hashes as a list."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in made_of(found).items())
    return f"<dl>{rows}</dl>"


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _title(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{_TITLES.get(name, name)}@{k}"
