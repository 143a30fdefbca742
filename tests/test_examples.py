"""The examples run, shortly, and print what they promise; notebooks are committed without outputs."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import World
from trainings import train

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
METRIC = r"0\.\d{4}"

#: Arguments that make a script short, and what it prints.
SCRIPTS = {
    "compare": (
        "--epochs 1",
        r"model .*\n"
        + "".join(rf"LightGCN{ending} +{METRIC} +{METRIC} +0 .*\n" for ending in ("", "_RLMRecCon", "_RLMRecGen")),
    ),
    "from_csv": (
        "--epochs 2",
        rf"(?s)written in .*Test Recall@20 {METRIC}; .*customer000 may like(?:\n  [^\n]+\(\w+\)){{5}}\n",
    ),
    "text_to_embeddings": (
        "",
        r"(?s)verdict: no leak found.*item 50: Star Wars\..*user 1: .*\n  \d+ numbers, such as \[.*\]\n",
    ),
    "several_seeds": (
        "--epochs 1 --seeds 1",
        rf"(?s)LightGCN +seed 1 .*LightGCN_RLMRecCon +mean +Recall@20 {METRIC}\n"
        r".* over 942 users, p = \S+ \(paired t-test\)\n",
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, printed = SCRIPTS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments.split()])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    found = capsys.readouterr().out
    assert re.search(printed, found), found


def test_recall_of_several_seeds_is_that_of_the_result(world: World) -> None:
    result = train(world, "LightGCN")
    recall_by_user = runpy.run_path(str(EXAMPLES / "several_seeds.py"))["recall_by_user"]
    assert recall_by_user(result.load(), k=5).mean() == pytest.approx(result.test_result["recall@5"], abs=5e-5)


def test_script_that_registers_a_class(tmp_path: Path) -> None:
    """In a process of its own: what is registered stays."""
    command = [sys.executable, str(EXAMPLES / "own_alignment.py"), "--epochs", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert re.fullmatch(rf"(LightGCN\S* +Recall@20 {METRIC}  NDCG@20 {METRIC}\n){{2}}", done.stdout), done.stderr
    assert "LightGCN_Relational" in done.stdout


NOTEBOOKS = {
    "train_and_compare": r"LightGCN_RLMRecCon \['\d+' '\d+' '\d+'\] \(943, 64\) float32\n",
    "text_to_recommendations": r"(?s)leak found: False\n.*User 1 chose(?:\n  [^\n]+){5}\nand may like"
    r"(?:\n  [^\n]+){5}\n.*Star Wars - \[",
}


def content(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cell by cell, as a kernel does, with a kernel's arguments; Jupyter is not needed for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/lib/ipykernel_launcher.py", "-f", "/run/kernel.json", "--epochs=many"])
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = ["".join(cell["source"]) for cell in content(name)["cells"] if cell["cell_type"] == "code"]
    cells[0], n_replaced = re.subn(r"EPOCHS = \d+", "EPOCHS = 1", cells[0])
    assert n_replaced == 1
    for number, source in enumerate(cells):
        exec(compile(source, f"{name}, cell {number}", "exec"), names)
    found = capsys.readouterr().out
    assert re.search(NOTEBOOKS[name], found), found


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_valid_and_hold_no_outputs(name: str) -> None:
    notebook = content(name)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        of_code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | of_code
        assert not cell.get("outputs") and cell.get("execution_count") is None and cell["metadata"] == {}


def test_every_example_is_listed_and_run() -> None:
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\S+)\)", readme)) == files
    assert files == {f"{name}.py" for name in (*SCRIPTS, "own_alignment")} | {f"{name}.ipynb" for name in NOTEBOOKS}
