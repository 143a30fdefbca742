"""Charts and tables of a comparison's page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from recbole_rlmrec.experiment import space_map

#: Colours that people who see fewer can distinguish (Okabe and Ito, 2008), on light and on dark.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#999999")

#: Axes that are no categories.
_AXES: Mapping[str, Mapping[str, Any]] = {
    "epoch": {"type": "linear", "tickformat": "d"},
    space_map.AXES[0]: {"type": "linear", "zeroline": False},
}


def chart(traces: Sequence[Mapping[str, Any]], title: str, x: str, y: str, *, with_legend: bool = True) -> str:
    """Return a place for a chart with its data, which the page's script draws.

    Args:
        traces: of Plotly.
        title: above it.
        x: name of the horizontal axis.
        y: of the vertical one.
        with_legend: whether it has one of its own.
    """
    layout: dict[str, Any] = {
        "title": {"text": title, "font": {"size": 15}},
        "xaxis": {"title": {"text": x, "standoff": 12}, "automargin": True, **_AXES.get(x, {"type": "category"})},
        "yaxis": {"title": {"text": y, "standoff": 12}, "automargin": True, "exponentformat": "e"},
        "colorway": list(COLOURS),
        "margin": {"t": 40, "r": 10, "b": 80 if with_legend else 50, "l": 60},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
    if not with_legend:
        layout["showlegend"] = False
    data = json.dumps({"data": list(traces), "layout": layout}).replace("<", "\\u003c")
    return (
        f"<figure class='chart' aria-label='{escape(title)}'><script type='application/json'>{data}</script></figure>"
    )


def beside(charts: Iterable[str]) -> str:
    """Return charts beside each other, where the page is wide enough; empty without any."""
    found = "".join(charts)
    return f"<div class='beside'>{found}</div>" if found else ""


def html_table(lines: Sequence[Sequence[str]]) -> str:
    """Return a table, its header first."""
    head = "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in lines[0])
    rows = "".join(
        f"<tr><th scope='row'>{escape(line[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in line[1:])
        + "</tr>"
        for line in lines[1:]
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
