"""The README and the pages of docs/ say what the code does: settings, models, commands, results and packages."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import re
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from recbole_rlmrec.cli import main
from recbole_rlmrec.model.registry import names
from recbole_rlmrec.settings import SETTINGS
from recbole_rlmrec.verbs._settings_table import markdown_table, plain_list

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (DOCS / "results.md").read_text(encoding="utf-8")


def script(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = script(DOCS / "generate.py")


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------------- what the pages take from the code


@pytest.mark.parametrize("name", GENERATE.REFERENCE)
def test_generated_parts_are_as_the_code_has_them(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page(name)
    assert "<!-- generated: " in text
    assert GENERATE.with_generated(text) == text, "run: python docs/generate.py"


def test_settings_table_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert plain_list().count("\n") == 2 * len(SETTINGS) - 1
    assert len(markdown_table().splitlines()) == 2 + len(SETTINGS)


def test_every_model_is_named() -> None:
    for model in names():
        assert f"`{model}`" in page("reference/models.md")


# ---------------------------------------------------------------------- listings

#: Why a listing of the README or of a tutorial is not run here.
REASONS = {"needs a paid server", "installs packages"}
#: What makes a training short; the pages show whole ones.
SHORT = ["--epochs=1", "--state=ERROR"]
PAGES = {"README.md": README, **{name: page(name) for name in GENERATE.TUTORIALS.values()}}


@pytest.mark.parametrize("name", PAGES)
def test_listings_can_be_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order, each in the state that those before it leave, with trainings of one epoch."""
    GENERATE.copy_shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["script.py"])
    n_run = 0
    for listing in GENERATE.listings(PAGES[name]):
        if listing.reason is not None:
            assert listing.reason in REASONS
            continue
        capsys.readouterr()
        if listing.language == "python":
            exec(compile(listing.text, name, "exec"), {})
        else:
            for command in listing.commands():
                run_command(shlex.split(command))
        printed = capsys.readouterr().out
        if "import-csv" in listing.text and listing.output:  # has no number that another machine changes
            assert printed.rstrip("\n") == listing.output.rstrip("\n")
        n_run += 1
    assert n_run >= 3


def run_command(words: list[str]) -> None:
    program, *rest = words
    if program == "head":  # of the shop's tables
        assert all(os.path.isfile(path) for path in rest[2:]) and rest[2:]
        return
    assert program == "recbole-rlmrec"
    if rest[0] == "train":
        rest = [*(word for word in rest if not word.startswith("--epochs=")), *SHORT]
    assert main(rest) == 0, words


def test_every_listing_of_a_shell_is_marked_or_of_a_known_language() -> None:
    for name, text in PAGES.items():
        languages = set(re.findall(r"^```(\w+)$", text, flags=re.MULTILINE))
        assert languages <= {"bash", "python", "text"}, name
        found = len(re.findall(r"^```(?:bash|python)$", text, flags=re.MULTILINE))
        assert len(list(GENERATE.listings(text))) == found, name


def test_links_between_pages_lead_somewhere() -> None:
    for path in (ROOT / "README.md", *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
            assert target.startswith("http") or (path.parent / target).is_file(), (path, target)


# ---------------------------------------------------------------------- results


def recorded(folder: str) -> dict[str, list[str]]:
    """The rows of a recorded table, by model."""
    lines = (ROOT / "results" / folder / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows if row[0] in names()}


def test_results_table_is_the_recorded_one() -> None:
    rows = recorded("ml-100k")
    assert len(rows) >= 9
    for model, (recall, ndcg, *_) in rows.items():
        assert f"| {model} | {recall} | {ndcg} |" in RESULTS


def test_bases_and_steam_are_the_recorded_ones() -> None:
    for model, (recall, ndcg, *_) in recorded("amazon-book").items():
        row = next(line for line in RESULTS.splitlines() if line.startswith(f"| {model} | {recall} |"))
        assert f"| {ndcg} |" in row
    for model, (recall, ndcg, *_) in recorded("steam-text").items():
        row = next(line for line in RESULTS.splitlines() if line.startswith(f"| {model} | {recall} "))
        assert f"| {ndcg} " in row


def test_steam_with_five_seeds_is_the_recorded_one() -> None:
    """On the page, in the folder's page, and in what the comparison wrote."""
    compared = json.loads((ROOT / "results/steam/comparison.json").read_text(encoding="utf-8"))["rows"]
    rows = recorded("steam")
    assert list(rows) == [row["model"] for row in compared]
    for row in compared:
        recall, gain, ndcg, _ = rows[row["model"]]
        assert f"| {row['model']} | {' | '.join(rows[row['model']])} |" in RESULTS
        found = [f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" for values in row["values"].values()]
        assert [recall, ndcg] == found
        tests = row["tests"].get("recall@20")
        assert gain == (f"{tests['gain']:+.1%}*" if tests else "")


def test_searched_steam_is_the_recorded_one() -> None:
    """A row for each backbone, once of the best trials and once over the seeds."""
    text = (ROOT / "results/steam-tuned/README.md").read_text(encoding="utf-8")
    one_seed, more_seeds = text.split("## More seeds")
    con, gen, kar = "RLMRecCon", "RLMRecGen", "KAR"
    for part, column, endings, backbones in ((one_seed, 2, (con, gen, kar), 7), (more_seeds, 1, (con, gen), 3)):
        found = re.findall(r"^\| (\w+) \| (.*) \|$", part, flags=re.MULTILINE)
        recalls = {model: cells.split(" | ")[column] for model, cells in found}
        rows = []
        for base in (model for model in recalls if f"{model}_{con}" in recalls):
            cells = [recalls.get(model, "-") for model in (base, *(f"{base}_{ending}" for ending in endings))]
            rows.append(f"| {base} | {' | '.join(cells)} |")
        assert len(rows) == backbones
        assert [row for row in rows if row not in RESULTS] == []


def test_recorded_table_follows_from_the_runs() -> None:
    table = (ROOT / "results/ml-100k/README.md").read_text()
    for model in recorded("ml-100k"):
        runs = [json.loads(path.read_text()) for path in sorted((ROOT / "results/ml-100k").glob(f"{model}-*.json"))]
        assert sorted(run["seed"] for run in runs) == [2020, 2021, 2022]
        recalls = [run["test_result"]["recall@20"] for run in runs]
        assert f"| {model} | {statistics.mean(recalls):.4f} ± {statistics.stdev(recalls):.4f} |" in table


def test_packages_are_all_listed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "recbole_rlmrec").rglob("__init__.py")}
    assert listed == found | {"recbole_rlmrec.properties", "recbole_rlmrec.dataset"}


def test_listings_for_contributors_are_the_files_that_tests_run() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = ("tilted.py", "cosine.py", "TiltedGCN.yaml", "hashing.py", "titles.py", "ratings.py", "describe.py")
    for name in names:
        listing = (ROOT / "tests/outside/rlmrec_outside" / name).read_text(encoding="utf-8")
        assert f"\n{listing}```" in text, name
    points = configparser.ConfigParser()
    points.read(ROOT / "tests/outside/rlmrec_outside-1.0.dist-info/entry_points.txt")
    for group in points.sections():
        lines = [
            f'    [project.entry-points."{group}"]',
            *(f'    {name} = "{value}"' for name, value in points[group].items()),
        ]
        assert "\n".join(lines) in text, group
    for path in re.findall(r"`((?:recbole_rlmrec|tests|properties/model|model)/[\w/]+\.(?:py|sh|yaml))`", text):
        assert (ROOT / path).is_file() or (ROOT / "recbole_rlmrec" / path).is_file(), path
