"""Comparisons on a small dataset: cells that are kept, the table, and what is refused."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainings import small_settings
from worlds import World

from recbole_rlmrec.cli import main
from recbole_rlmrec.errors import DataError, SettingError, TrainingError
from recbole_rlmrec.experiment import running
from recbole_rlmrec.experiment.cell import Cell
from recbole_rlmrec.experiment.compare import STAMP, Comparison, compare
from recbole_rlmrec.experiment.folder import locked
from recbole_rlmrec.experiment.groups import groups_of, recall_by_group, shape_of
from recbole_rlmrec.experiment.lists import BY_USER, RankedLists, recall_by_user
from recbole_rlmrec.experiment.table import Finished, cells_of, groups_table, lists_table, notes_of, rows_of
from recbole_rlmrec.quick_start import run

MODELS = ["LightGCN", "LightGCN_RLMRecCon"]


def compared(world: World, models: Any = MODELS, seeds: Any = (1, 2), **more: Any) -> Comparison:
    given = {"settings": small_settings(world), "report": lambda text: None, **more}
    return compare(models, world.name, seeds, world.root / "out", **given)


def test_a_table_of_two_models(world: World, cells_here: list[str]) -> None:
    found = compared(world)
    assert cells_here == ["LightGCN-1", "LightGCN_RLMRecCon-1", "LightGCN-2", "LightGCN_RLMRecCon-2"]
    base, aligned = found.rows
    assert base.base is None and aligned.base == "LightGCN" and not base.tests
    assert aligned.tests["recall@5"].seeds == (1, 2) and aligned.tests["recall@5"].corrected is not None
    folder = world.root / "out"
    with (folder / "table.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table == cells_of(found.rows)
    assert table[0][:7] == ["model", "seeds", "base kept", "Recall@5", "gain", "p", "p, users"]
    content = json.loads((folder / "comparison.json").read_text())
    assert content["rows"][1]["tests"]["recall@5"]["users"]["p_value"] == aligned.tests["recall@5"].users.p_value
    assert set(content["cells"]) == set(cells_here) and content["conditions"]["data"]["training interactions"]
    text = (folder / "table.md").read_text()
    assert "two-way random effects" in text and "## Who gains" in text and "## Lists" in text
    assert "genres (nats)" not in text  # of which nothing is known
    efficiency = content["tables"]["Efficiency"]["lines"]
    assert efficiency[0][1:] == ["seconds an epoch", "seconds to the best epoch", "peak memory, CPU (MB)", "parameters"]
    parameters = content["cells"]["LightGCN-1"]["efficiency"]["parameters"]
    assert efficiency[1][-1] == f"{parameters:,}" and "## Efficiency" in text
    assert r"\toprule" in (folder / "table.tex").read_text()


def test_the_lists_have_the_metrics_of_the_test(world: World, cells_here: list[str]) -> None:
    compared(world, ["LightGCN_RLMRecCon"], (1,), settings=small_settings(world, metric_decimal_place=8))
    result = json.loads((world.root / "out/cells/LightGCN_RLMRecCon-1.json").read_text())
    lists = RankedLists.read(world.root / "out/cells/LightGCN_RLMRecCon-1.npz")
    for name, by_user in BY_USER.items():
        assert by_user(lists).mean() == pytest.approx(result["test_result"][f"{name}@5"], abs=1e-7)


def test_finished_cells_are_kept_and_the_table_is_the_same(world: World, cells_here: list[str]) -> None:
    compared(world)
    path = world.root / "out/table.csv"
    table = list(csv.reader(path.read_text().splitlines()))
    (world.root / "out/cells/LightGCN_RLMRecCon-2.json").unlink()
    cells_here.clear()
    said: list[str] = []
    compared(world, report=said.append)
    assert cells_here == ["LightGCN_RLMRecCon-2"] and said[0] == "3 of 4 cells are there already."
    of_time = table[0].index("seconds")
    again = list(csv.reader(path.read_text().splitlines()))
    assert [line[:of_time] for line in again] == [line[:of_time] for line in table]


def test_a_cell_that_fails_is_in_the_table_and_tried_again(
    world: World, cells_here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here = running._run

    def fail_once(cell: Cell, jobs: int, running: Any) -> str | None:
        return "no luck" if cell.name == "LightGCN_RLMRecCon-2" else run_here(cell, jobs, running)

    monkeypatch.setattr(running, "_run", fail_once)
    found = compared(world)
    assert found.failed == 1 and found.rows[1].failed == {2: "no luck"}
    assert cells_of(found.rows)[2][1] == "1 (1 seed failed)"
    assert "LightGCN_RLMRecCon, seed 2: failed: no luck" in notes_of(found.rows)
    monkeypatch.setattr(running, "_run", run_here)
    assert compared(world).failed == 0 and cells_here.count("LightGCN-1") == 1


@pytest.mark.parametrize("file", ["LightGCN-1.json", "LightGCN-1.npz"])
def test_a_damaged_cell_runs_again(world: World, cells_here: list[str], file: str) -> None:
    found = compared(world, ["LightGCN"])
    path = world.root / "out/cells" / file
    path.write_bytes(path.read_bytes()[:-300])
    cells_here.clear()
    said: list[str] = []
    assert compared(world, ["LightGCN"], report=said.append).rows[0].values == found.rows[0].values
    assert cells_here == ["LightGCN-1"] and said[0].startswith("LightGCN-1 runs again: ") and file in said[0]


def test_a_cell_of_other_data_is_refused(world: World, cells_here: list[str]) -> None:
    compared(world, ["LightGCN"])
    path = world.root / "out/cells/LightGCN-2.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "data": {**result["data"], "training interactions": "0"}}))
    with pytest.raises(DataError, match=r"LightGCN-2.json' is of other data .*: training interactions differs"):
        compared(world, ["LightGCN"])


def test_nothing_begins_after_an_interruption(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the cell that was ended does not begin instead of it."""
    begun: list[str] = []

    def interrupted(cell: Cell, jobs: int, running: Any) -> str:
        begun.append(cell.name)
        signal.raise_signal(signal.SIGINT)  # the main thread waits for this one
        time.sleep(0.2)
        return "ended"

    monkeypatch.setattr(running, "_run", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            compared(world, seeds=(1,), jobs=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert begun == ["LightGCN-1"]


def test_a_model_that_scores_pairs_only(world: World, cells_here: list[str]) -> None:
    settings = {"mf_embedding_size": 4, "mlp_embedding_size": 4, "mlp_hidden_size": [4]}
    compared(world, ["NeuMF"], (1,), settings=small_settings(world, metric_decimal_place=8, **settings))
    result = json.loads((world.root / "out/cells/NeuMF-1.json").read_text())
    lists = RankedLists.read(world.root / "out/cells/NeuMF-1.npz")
    assert recall_by_user(lists).mean() == pytest.approx(result["test_result"]["recall@5"], abs=1e-7)


def test_nothing_that_comes_to_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_run", lambda *_: "no luck")
    with pytest.raises(TrainingError, match=r"No cell came to its end\. no luck"):
        compared(world)


def test_one_seed_has_no_star(world: World, cells_here: list[str]) -> None:
    rows = compared(world, seeds=(1,)).rows
    assert rows[1].tests["ndcg@5"].crossed is None and not rows[1].tests["ndcg@5"].star
    assert any("One seed" in note for note in notes_of(rows)) and "p, seeds" not in cells_of(rows)[0]


def test_a_result_made_elsewhere_joins(world: World, cells_here: list[str], tmp_path: Path) -> None:
    compared(world, seeds=(1,))
    made = tmp_path / "made.json"
    result = json.loads((world.root / "out/cells/LightGCN_RLMRecCon-1.json").read_text())
    made.write_text(json.dumps({**result, "model": "Theirs", "checkpoint": ""}))
    rows = compared(world, seeds=(1,), added=[made]).rows
    assert rows[2].model == "Theirs" and rows[2].values == rows[1].values and not rows[2].tests
    with pytest.raises(DataError, match="is the second result of Theirs with seed 1"):
        compared(world, seeds=(1,), added=[made, made])
    other = {**result["data"], "training interactions": "0"}
    made.write_text(json.dumps({**result, "data": other}))
    with pytest.raises(DataError, match=r"made.json' is of other data .*: training interactions differs"):
        compared(world, seeds=(1,), added=[made])
    made.write_text(json.dumps({**result, "dataset": "theirs"}))
    with pytest.raises(DataError, match=f"is a result on 'theirs', expected one on '{world.name}'"):
        compared(world, seeds=(1,), added=[made])


def test_results_made_elsewhere_are_tested_by_their_lists(world: World, cells_here: list[str], tmp_path: Path) -> None:
    """Not by those of another result of the same model and seed, which was added before."""
    settings, made = small_settings(world, metric_decimal_place=8), tmp_path / "made.json"
    for rate in (0.001, 0.1):
        given = {**settings, "seed": 1, "learning_rate": rate, "checkpoint_dir": str(tmp_path)}
        run("LightGCN_RLMRecCon", world.name, command_line=given).write(made)
        base, own = compared(world, ["LightGCN"], (1,), settings=settings, added=[made]).rows
        gain = own.values["recall@5"][0] / base.values["recall@5"][0] - 1
        assert own.tests["recall@5"].gain == pytest.approx(gain, abs=1e-6)


def test_quick_is_stamped(world: World, cells_here: list[str]) -> None:
    found = compared(world, ["LightGCN"], (1, 2, 3), quick=True)
    assert found.rows[0].best_epochs and len(cells_here) == 2
    for name in ("table.md", "table.csv", "table.tex"):
        assert STAMP in (world.root / "out" / name).read_text()


def test_settings_are_for_the_models_that_read_them(world: World, cells_here: list[str]) -> None:
    compared(world, [*MODELS, "BPR"], (1,), settings=small_settings(world, alignment_weight=0.25, n_layers=1))
    cells = {name: json.loads((world.root / f"out/cells/{name}.json").read_text())["settings"] for name in cells_here}
    assert {name: each.get("alignment_weight") for name, each in cells.items()} == {
        "LightGCN-1": None,
        "BPR-1": None,
        "LightGCN_RLMRecCon-1": 0.25,
    }
    assert {name: each.get("n_layers") for name, each in cells.items()} == {
        "LightGCN-1": 1,
        "BPR-1": None,
        "LightGCN_RLMRecCon-1": 1,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"models": ["BPR", "LightGCN"], "settings": {"alignment_weight": 1}},
            "LightGCN does not read the setting 'alignment_weight'",
        ),
        ({"settings": {"alignment_weight": -1}}, "alignment_weight=-1"),
        ({"models": ["LightGCM"]}, "LightGCM"),
        ({"models": ["LightGCN", "LightGCN"]}, "each named once"),
        ({"models": []}, "expected one or several"),
        ({"seeds": ()}, "seeds=0, expected 1 or more"),
        ({"jobs": 0}, "jobs=0, expected 1 or more"),
        ({"tune": -1}, "tune=-1, expected 0 or more"),
        ({"settings": {"learning_rat": 1}}, "learning_rat"),
        ({"settings": {"eval_args": {"mode": "uni100"}}}, r"mode is 'uni100' .*lists of all items"),
    ],
)
def test_bad_arguments(world: World, cells_here: list[str], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        compared(world, **arguments)
    assert not cells_here


def test_a_folder_holds_one_comparison(world: World, cells_here: list[str]) -> None:
    compared(world, ["LightGCN"], (1,))
    with pytest.raises(DataError, match=r"under other conditions \(settings: .*Choose another --output"):
        compared(world, ["LightGCN"], (1,), settings=small_settings(world, epochs=1))
    with pytest.raises(DataError, match=r"under other conditions \(dataset: tiny there, theirs here; "):
        compare(["LightGCN"], "theirs", (1,), world.root / "out", report=lambda text: None)
    with locked(world.root / "out"), pytest.raises(DataError, match="Another comparison works in"):
        compared(world, ["LightGCN"], (1,))
    file = world.root / "more.yaml"
    file.write_text("learning_rate: 0.1")
    conditions = json.loads((world.root / "out/conditions.json").read_text())
    stored = {**conditions, "config_files": [str(file)], "config_hashes": ["another"]}
    (world.root / "out/conditions.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match=r"config_hashes: \['another'\] there"):
        compared(world, ["LightGCN"], (1,), config_files=[str(file)])
    (world.root / "out/conditions.json").unlink()
    with pytest.raises(DataError, match="results of unknown conditions"):
        compared(world, ["LightGCN"], (1,))


def test_a_cell_ends_with_its_comparison(tmp_path: Path) -> None:
    """What starts a cell and is killed leaves no process that goes on."""
    cell = (
        "from recbole_rlmrec.experiment import cell; import os, time;"
        "cell.run_cell = lambda _: (print(os.getpid(), flush=True), time.sleep(60)); cell.main(['{}'])"
    ).replace("'{}'", repr(json.dumps(asdict(Cell("LightGCN", "any", 1, [], {}, str(tmp_path))))))
    starter = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {cell!r}])"
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline().strip().isdecimal()
        process.kill()
        begun = time.monotonic()
        assert process.stdout.read() == ""  # ends when nobody can write to it any more
    assert time.monotonic() - begun < 30


def test_a_search_before(world: World, cells_here: list[str]) -> None:
    """The aligned model starts from the best of its base."""
    compared(world, seeds=(1,), tune=1)
    content = json.loads((world.root / "out/comparison.json").read_text())
    base, aligned = content["tuned"]["LightGCN"], content["tuned"]["LightGCN_RLMRecCon"]
    assert len(base) == 1 and aligned[0] == base[0] and len(aligned) == 2


def test_a_cell_in_a_process_of_its_own(world: World, tmp_path: Path) -> None:
    cell = Cell("NoSuchModel", world.name, 1, [], small_settings(world), str(tmp_path))
    done = subprocess.run(cell.command(), capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "NoSuchModel" in done.stderr


def test_the_verb(world: World, cells_here: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--{name}={value}" for name, value in small_settings(world).items()]
    arguments = ["compare", "--models=LightGCN,BPR", f"--dataset={world.name}", "--seeds=2", f"--output={world.root}/o"]
    assert main([*arguments, *words]) == 0
    out = capsys.readouterr().out
    assert "LightGCN, seed 2020: test recall@5" in out and "BPR, seed 2021" in out and "table.md" in out
    assert "o/report.md" in out and (world.root / "o/report.md").is_file()
    assert main(["compare", "--models=BPR", "--dataset=x", "--seeds=0"]) == 2


# ---------------------------------------------------------------------- who gains


def lists() -> RankedLists:
    """Two users with lists of two of four items; user 2 finds both of hers."""
    return RankedLists(
        users=np.array([1, 2]),
        lists=np.array([[1, 2], [3, 4]]),
        popular=np.array([[1, 3], [1, 2]]),
        rows=np.array([0, 1, 1]),
        items=np.array([3, 3, 4]),
        user_counts=np.array([0, 5, 1]),
        item_counts=np.array([0, 4, 2, 1, 1]),
    )


def test_groups() -> None:
    found = recall_by_group(lists(), 2)
    assert [each.record() for each in found] == [
        {"side": "users", "low": 1, "high": 1, "users": 1, "recall": 1.0},
        {"side": "users", "low": 5, "high": 5, "users": 1, "recall": 0.0},
        {"side": "items", "low": 1, "high": 1, "users": 2, "recall": 0.5},
        {"side": "items", "low": 2, "high": 4, "users": 0, "recall": None},
    ]
    assert len(groups_of(np.zeros(5), 3)) == 1


def finished(model: str, seed: int, best: tuple[int, int]) -> Finished:
    result = {"test_result": {"recall@2": 0.5}, "best_epoch": 1, "seconds": 1.0}
    return Finished(model, seed, result, replace(lists(), lists=np.array([best, [3, 4]])))


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_who_gains(seeds: tuple[int, ...]) -> None:
    cells = [finished("A", seed, (1, 2)) for seed in seeds] + [finished("B", seed, (3, 1)) for seed in seeds]
    rows = rows_of(["A", "B"], {"A": None, "B": "A"}.get, cells, {})
    header, *lines = groups_table(rows, cells)
    assert header == ["model", "group", "users", "base", "model", "gain", "p"]
    assert lines[0] == ["B", "users with 1 to 1 training interactions", "1", "1.0000", "1.0000", "+0.0%", ""]
    assert lines[1] == ["B", "users with 5 to 5 training interactions", "1", "0.0000", "1.0000", "", ""]
    assert lines[2][1:6] == ["items with 1 to 1 training interactions", "2", "0.5000", "1.0000", "+100.0%"]
    assert 0 < float(lines[2][6]) <= 1
    assert lines[3][2:] == ["0", "no user", "", "", ""]
    assert [line[0] for line in lists_table(rows, cells)] == ["model", "A", "B"]


def test_a_base_that_was_kept_with_every_seed_is_said() -> None:
    kept = finished("B", 1, (1, 2))
    cells = [finished("A", 1, (1, 2)), replace(kept, result={**kept.result, "kept": "base"})]
    rows = rows_of(["A", "B"], {"A": None, "B": "A"}.get, cells, {})
    assert [line[2] for line in cells_of(rows)] == ["base kept", "", "1 of 1"]
    assert "B: the base was kept with every seed, so the row is that of A." in notes_of(rows)


def test_what_lists_look_like() -> None:
    found = shape_of(lists())
    assert found["popular"] == 0.25 and found["coverage"] == 1.0 and found["gini"] == 0.0
    assert found["novelty"] == pytest.approx(-np.mean(np.log2([4 / 8, 2 / 8, 1 / 8, 1 / 8])))


def test_damaged_lists(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match="does not hold a model's lists"):
        RankedLists.read(path)
