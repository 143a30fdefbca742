"""The page of a comparison: what it shows is what the files say, and it asks nothing of another host."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from test_illustrations import write_texts
from torch.utils.tensorboard import SummaryWriter
from worlds import World

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.experiment.ablate import ablate
from recbole_rlmrec.experiment.compare import STAMP, compare
from recbole_rlmrec.experiment.curves import curves_of
from recbole_rlmrec.experiment.report import write_report

pytest.importorskip("plotly")
MODELS = ["LightGCN", "LightGCN_RLMRecCon"]
POINTS = [(0, 0.1), (1, 0.2)]


@pytest.fixture
def folder(world: World, cells_here: list[str], small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world.root)
    write_texts(world)
    # RecBole names a training's curves after the first file that is logged to, which here is pytest's.
    monkeypatch.setattr(
        "recbole_rlmrec.experiment.curves.curves_of", lambda log, metric: {metric: POINTS, "loss: bpr": POINTS}
    )
    options: dict[str, Any] = {"settings": small, "quick": True, "report": lambda text: None}
    found = compare(MODELS, world.name, (1, 2), world.root / "out", **options)
    ablate(["noise"], found, MODELS, world.name, (1, 2), **options)
    return found.folder


def charts_of(page: str) -> dict[str, Any]:
    """Title -> chart."""
    found = [json.loads(text) for text in re.findall(r"<script type='application/json'>(.*?)</script>", page)]
    return {
        f"{chart['layout']['title']['text']}; {chart['layout']['yaxis']['title']['text']}": chart for chart in found
    }


def test_what_it_shows_is_what_the_files_say(folder: Path) -> None:
    page = write_report(folder).read_text()
    content, charts = json.loads((folder / "comparison.json").read_text()), charts_of(page)
    bars = charts["Test Recall@5, mean over the seeds; Recall@5 (0 to 1)"]["data"][0]
    values = [row["values"]["recall@5"] for row in content["rows"]]
    assert bars["y"] == [mean(each) for each in values] and bars["x"] == MODELS
    assert bars["error_y"]["array"] == [stdev(each) for each in values]
    curve = charts["Validation score, a line a seed; validation score (0 to 1)"]["data"]
    assert len(curve) == 4 and list(zip(curve[0]["x"], curve[0]["y"])) == POINTS
    assert "Loss: bpr, a line a seed; loss: bpr (sum of an epoch)" in charts
    groups = charts["Recall by groups of users; recall (0 to 1)"]["data"][0]
    cells = [content["cells"][f"LightGCN-{seed}"]["groups"] for seed in (1, 2)]
    assert groups["y"][0] == mean(cell[0]["recall"] for cell in cells)
    sweep = json.loads((folder / "ablations.json").read_text())["noise"]["levels"]
    [title] = [title for title in charts if title.startswith("noise") and title.endswith("test Recall@5 (0 to 1)")]
    line = charts[title]["data"][1]
    assert line["x"] == ["none", "25%"] and line["y"][1] == mean(sweep["25%"][0]["values"]["recall@5"])
    for chart in charts.values():
        assert chart["layout"]["xaxis"]["title"]["text"] and chart["layout"]["yaxis"]["title"]["text"]
    assert STAMP in page and content["conditions"]["versions"]["torch"] in page
    assert f"<dt>command</dt><dd>{escape(content['command'])}</dd>" in page
    assert all(cell in page for cell in (folder / "table.csv").read_text().splitlines()[1].split(","))


def test_maps_and_lists_are_those_of_the_illustrations(folder: Path) -> None:
    page = write_report(folder).read_text()
    illustration, charts = json.loads((folder / "illustrations/LightGCN_RLMRecCon.json").read_text()), charts_of(page)
    part = illustration["map"]
    for name, title in (("text", "By their texts"), ("base", "By LightGCN"), ("aligned", "By LightGCN_RLMRecCon")):
        points = charts[f"{title}; t-SNE, second (no unit)"]["data"]
        shown = {(trace["name"], *place) for trace in points for place in zip(trace["x"], trace["y"])}
        labels = [genre or "other or unknown" for genre in part["genres"]]
        assert shown == {(label, *place) for label, place in zip(labels, part["places"][name])}
    assert f"LightGCN {part['agreement']['base']:.1%}" in page
    tables = json.loads((folder / "comparison.json").read_text())["tables"]
    for heading in ("Efficiency", "Lists"):
        assert f"<h2>{heading}</h2>" in page and all(f">{cell}<" in page for cell in tables[heading]["lines"][1])
    for user in illustration["side_by_side"]["users"]:
        hits = [item["title"] for name in ("base", "aligned") for item in user["lists"][name] if item["hit"]]
        assert hits and all(f"<li class='hit'>{escape(title)} ✓</li>" in page for title in hits)
    for pair in illustration["case_study"]["pairs"]:
        assert f"<td>{pair['similarity']['aligned']:.3f}</td><td>{pair['rank']['aligned']:,}</td>" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_it_opens_in_a_browser(folder: Path, tmp_path: Path) -> None:
    """On a desktop, light and dark, and on a phone: every chart is drawn, and nothing is wider than the page."""
    path = write_report(folder)
    with Browser(tmp_path / "profile") as browser:
        for width, dark in ((1280, False), (1280, True), (360, False)):
            browser.size(width, 800, dark=dark)
            browser.open(path.as_uri())
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            drawn = "document.querySelectorAll('.chart .main-svg .xtitle').length"
            assert browser.evaluate(drawn) == browser.evaluate("document.querySelectorAll('.chart').length") > 8
            ink = browser.evaluate("getComputedStyle(document.querySelector('.chart .xtitle')).fill")
            assert ink == ("rgb(230, 233, 236)" if dark else "rgb(28, 31, 35)")
        assert browser.faults == [] and set(browser.requests) == {path.as_uri()}


def test_curves_are_those_of_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SummaryWriter("log_tensorboard/BPR-1") as writer:
        for epoch, value in POINTS:
            writer.add_scalar("Loss/Train/bpr", value, epoch)
            writer.add_scalar("Vaild_score", 2 * value, epoch)
            writer.add_scalar("other", value, epoch)
    found = curves_of("log/BPR/BPR-1.log", "recall@20")
    assert found == {
        "loss: bpr": [(epoch, pytest.approx(value)) for epoch, value in POINTS],
        "recall@20": [(epoch, pytest.approx(2 * value)) for epoch, value in POINTS],
    }
    assert curves_of("log/BPR/BPR-2.log", "recall@20") == {} == curves_of("", "recall@20")


def test_it_is_one_file(folder: Path) -> None:
    page = write_report(folder).read_text()
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "default-src 'none'" in own and not re.search(r"(src|href)=.(?!data:)", own)


def test_damaged_curves(folder: Path) -> None:
    next((folder / "cells").glob("*.curves.json")).write_text('{"loss')
    with pytest.raises(DataError, match=r"curves.json' is no file of learning curves: .* JSON .*Remove it"):
        write_report(folder)


def test_without_a_comparison(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no comparison\.json"):
        write_report(tmp_path)


def test_a_damaged_comparison(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text('{"rows": [')
    with pytest.raises(DataError, match=r"comparison.json' is no record of a comparison: .* JSON .*Compare again"):
        write_report(tmp_path)


def test_without_plotly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_rlmrec.extras.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"report\.html needs the package 'plotly'"):
        write_report(tmp_path)
