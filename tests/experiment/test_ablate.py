"""Ablations on a small dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trainings import train
from worlds import World

from recbole_rlmrec.cli import main
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.experiment import running
from recbole_rlmrec.experiment.ablate import NAMES, SWEEPS, ablate, planned, require_possible
from recbole_rlmrec.experiment.cell import Cell
from recbole_rlmrec.experiment.compare import STAMP, Comparison, compare
from recbole_rlmrec.settings import SETTINGS

MODELS = ["LightGCN", "LightGCN_RLMRecCon"]


def test_each_level_is_a_comparison(world: World, cells_here: list[str], small: dict[str, Any]) -> None:
    """Bases are trained again where the interactions change, and taken over where texts do."""
    options = {"settings": small, "quick": True, "report": lambda text: None}
    found = compare(MODELS, world.name, (1, 2), world.root / "out", **options)
    cells_here.clear()
    path, failed = ablate(["noise", "shuffled"], found, MODELS, world.name, (1, 2), **options)
    assert failed == 0, found
    assert path == world.root / "out/ablations.md"
    noisy = ["LightGCN-1", "LightGCN_RLMRecCon-1", "LightGCN-2", "LightGCN_RLMRecCon-2"]
    assert cells_here == [*noisy, "LightGCN_RLMRecCon-1", "LightGCN_RLMRecCon-2"]
    text = path.read_text()
    assert STAMP in text
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    assert [line.split(" | ")[0] for line in lines[:3]] == ["| recall@5", "| none", "| 25%"]
    base, aligned = lines[2].strip("| ").split(" | ")[1:]
    assert "±" in base and "(" not in base and "%" in aligned
    of_texts = lines[-1].strip("| ").split(" | ")
    assert of_texts[0] == "shuffled" and of_texts[1] == lines[-2].strip("| ").split(" | ")[1] and "%" in of_texts[2]


def test_models_get_the_settings_that_they_read(world: World, cells_here: list[str], small: dict[str, Any]) -> None:
    """Those that read none are not trained again."""
    models = [*MODELS, "LightGCN_RLMRecGen", "SemanticOnly"]
    options = {"settings": small, "quick": True, "report": lambda text: None}
    found = compare(models, world.name, (1,), world.root / "out", **options)
    cells_here.clear()
    path, failed = ablate(["weight"], found, models, world.name, (1,), **options)
    assert failed == 0 and cells_here == ["LightGCN_RLMRecCon-1", "LightGCN_RLMRecGen-1"]
    assert "One seed" in path.read_text() and "`*`" not in path.read_text()
    for ending, name in (("Con", "alignment_weight"), ("Gen", "reconstruction_weight")):
        path = world.root / f"out/ablations/weight/1/cells/LightGCN_RLMRec{ending}-1.json"
        assert json.loads(path.read_text())["settings"][name] == 1.0


def test_the_settings_of_all_levels_exist() -> None:
    for sweep in SWEEPS.values():
        for name in sweep.settings:
            assert all(value in sweep.allowed and value in SETTINGS[name].allowed for value in sweep.usual), name
        assert sweep.beside.keys() <= SETTINGS.keys() and (sweep.settings or sweep.beside)


@pytest.mark.parametrize(
    ("asked", "levels"),
    [
        ("noise", ["5%", "10%", "15%", "20%", "25%"]),
        ("noise:0.1+0.25", {"10%": {"noise_share": 0.1}, "25%": {"noise_share": 0.25}}),
        ("withheld", ["25%", "50%", "75%", "100%"]),
        ("withheld-items:.125", {"12.5%": {"withheld_share": 0.125, "withheld_side": "items"}}),
        ("weight", ["0.001", "0.01", "0.1", "1"]),
        ("weight:auto", {"auto": {"alignment_weight": "auto", "reconstruction_weight": "auto"}}),
        ("temperature", ["0.1", "0.2", "0.5", "1"]),
        ("shuffled", {"shuffled": {"shuffled_profiles": True}}),
        ("pretrained:a:b.pth", {"pretrained": {"init_from": "a:b.pth"}}),
    ],
)
def test_levels(asked: str, levels: Any) -> None:
    """Of the folders' names, which do not change: trainings of hours lie in them."""
    [found] = planned([asked], MODELS, "any")
    assert (list(found.levels) if isinstance(levels, list) else found.levels) == levels


@pytest.mark.parametrize(
    ("names", "models", "message"),
    [
        (["nois"], MODELS, "no ablation 'nois': choose among noise, withheld"),
        (["withheld"], ["LightGCN", "BPR"], "'withheld' concerns texts, and no model of LightGCN, BPR reads any"),
        (["weight"], ["LightGCN", "SemanticOnly"], "concerns alignment_weight, reconstruction_weight, and no model"),
        (["noise:0"], MODELS, r"noise:0: 0 is not a number in \(0, 1\]. Expected noise or noise:0.05\+0.1"),
        (["noise:1.5"], MODELS, r"1.5 is not a number in \(0, 1\]"),
        (["temperature:-1"], MODELS, "-1 is not a number above 0"),
        (["weight:high"], MODELS, "'high' is not auto or a number at least 0"),
        (["noise:"], MODELS, r"--ablate=noise:: expected noise or noise:0.05\+0.1"),
        (["noise:0.1+"], MODELS, "expected levels that differ"),
        (["noise:0.1+0.10"], MODELS, "has a level twice"),
        (["noise:0.1", "noise:0.2"], MODELS, r"names noise twice. Give it once, with all levels"),
        (["shuffled:1"], MODELS, "--ablate=shuffled:1: expected shuffled"),
        (["pretrained"], MODELS, "--ablate=pretrained: expected pretrained:CHECKPOINT"),
        (["pretrained:"], MODELS, "--ablate=pretrained:: expected pretrained:CHECKPOINT"),
        (["encoders"], MODELS, r"none but those that the comparison reads. Make others: `.* --semantic=NAME`"),
    ],
)
def test_what_cannot_be_taken(names: list[str], models: list[str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        planned(names, models, "ml-100k")


# ---------------------------------------------------------------------- encoders


def test_tables_side_by_side_are_compared(world: World, cells_here: list[str], small: dict[str, Any]) -> None:
    for name, dimension in (("large", 6), ("small", 4)):
        world.write_table(name, dimension)
    models = [*MODELS, "NGCF"]
    # The last one is for a model alone that is not trained again.
    options: dict[str, Any] = {"settings": {**small, "message_dropout": 0.2}, "report": lambda text: None}
    found = compare(models, world.name, (1,), world.root / "out", **options)
    cells_here.clear()
    path, failed = ablate(["encoders"], found, models, world.name, (1,), **options)
    assert failed == 0 and cells_here == ["LightGCN_RLMRecCon-1"] * 2
    assert "none: unnamed" in path.read_text()
    for name in ("large", "small"):
        result = json.loads((world.root / f"out/ablations/encoders/{name}/cells/LightGCN_RLMRecCon-1.json").read_text())
        assert f".{name}.itememb.npy" in result["semantic"]["file"]["item"]


def test_which_tables_are_compared(world: World, small: dict[str, Any]) -> None:
    def levels(asked: str, **settings: Any) -> dict[str, Any]:
        [found] = planned([asked], MODELS, world.name, settings={**small, **settings})
        return {name: each["semantic"] for name, each in found.levels.items()}

    world.write_table("large", 6)
    world.write_table("small", 4)
    assert levels("encoders") == {"large": "large", "small": "small"}
    assert levels("encoders:small") == {"small": "small"}
    assert levels("encoders", semantic="small") == {"large": "large", "unnamed": None}
    with pytest.raises(SettingError, match=r"no other embeddings of the name 'none'. There are large, small; those of"):
        levels("encoders:small+none")


# ---------------------------------------------------------------------- a start from elsewhere


def test_models_start_from_a_checkpoint(world: World, cells_here: list[str], small: dict[str, Any]) -> None:
    source = train(world, "LightGCN", checkpoint_dir=str(world.root / "earlier")).checkpoint
    asked = [f"pretrained:{source}"]
    options: dict[str, Any] = {"settings": small, "report": lambda text: None}
    require_possible(asked, MODELS, world.name, settings=small)
    found = compare(MODELS, world.name, (1,), world.root / "out", **options)
    cells_here.clear()
    assert ablate(asked, found, MODELS, world.name, (1,), **options)[1] == 0
    assert cells_here == ["LightGCN-1", "LightGCN_RLMRecCon-1"]
    folder = world.root / "out/ablations/pretrained/pretrained/cells"
    assert all(json.loads((folder / f"{name}.json").read_text())["start"] for name in cells_here)


def test_a_start_that_cannot_be(world: World, small: dict[str, Any]) -> None:
    source = train(world, "LightGCN", embedding_size=4, epochs=1).checkpoint
    with pytest.raises(SettingError, match=r"LightGCN cannot begin so.* is 4 wide, and this model's 8. Give"):
        require_possible([f"pretrained:{source}"], MODELS, world.name, settings=small)
    with pytest.raises(SettingError, match=r"--ablate=pretrained: LightGCN cannot begin so.*no\.pth"):
        require_possible(["pretrained:no.pth"], MODELS, world.name, settings=small)


# ---------------------------------------------------------------------- failures


def test_a_level_that_fails_leaves_the_others(
    world: World, cells_here: list[str], small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here = running._run

    def fail_with_much(cell: Cell, jobs: int, running: Any) -> str | None:
        return "no luck" if cell.settings.get("noise_share") == 0.1 else run_here(cell, jobs, running)

    monkeypatch.setattr(running, "_run", fail_with_much)
    options: dict[str, Any] = {"settings": small, "report": lambda text: None}
    found: Comparison = compare(["LightGCN"], world.name, (1,), world.root / "out", **options)
    path, failed = ablate(["noise:0.1+0.2"], found, ["LightGCN"], world.name, (1,), **options)
    assert failed == 1
    lines = path.read_text().splitlines()
    assert "| 10% | failed |" in lines and "- 10%: LightGCN, seed 1: failed: no luck" in lines
    assert [line for line in lines if line.startswith("| 20% | 0.")]


def test_the_verb_refuses_before_it_trains(
    world: World, cells_here: list[str], small: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--{name}={value}" for name, value in small.items()]
    asked = ["compare", "--models=LightGCN", f"--dataset={world.name}", f"--output={world.root}/o"]
    assert main([*asked, "--ablate=noise:2", *words]) == 2
    assert "noise:2: 2 is not a number" in capsys.readouterr().err and not cells_here


def test_the_verb(
    world: World, cells_here: list[str], small: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--{name}={value}" for name, value in small.items()]
    asked = ["--models=LightGCN,LightGCN_RLMRecCon", f"--dataset={world.name}", f"--output={world.root}/o", "--quick"]
    assert main(["compare", *asked, "--ablate=withheld", *words]) == 0
    assert "withheld 100%" in capsys.readouterr().out and Path(f"{world.root}/o/ablations.md").is_file()
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert all(name in printed for name in NAMES) and "noise:0.1+0.25" in printed
