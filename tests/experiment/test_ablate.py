"""Ablations on a small dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from worlds import World

from recbole_rlmrec.cli import main
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.experiment.ablate import SWEEPS, ablate, require_known
from recbole_rlmrec.experiment.compare import STAMP, compare
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
    models = [*MODELS, "LightGCN_RLMRecGen"]
    options = {"settings": small, "quick": True, "report": lambda text: None}
    found = compare(models, world.name, (1,), world.root / "out", **options)
    assert ablate(["weight"], found, models, world.name, (1,), **options)[1] == 0
    for ending, name in (("Con", "alignment_weight"), ("Gen", "reconstruction_weight")):
        path = world.root / f"out/ablations/weight/1/cells/LightGCN_RLMRec{ending}-1.json"
        assert json.loads(path.read_text())["settings"][name] == 1.0


def test_the_settings_of_all_levels_exist() -> None:
    for sweep in SWEEPS.values():
        for settings in sweep.levels.values():
            assert settings.keys() <= SETTINGS.keys()


@pytest.mark.parametrize(
    ("names", "models", "message"),
    [
        (["nois"], MODELS, "no ablation 'nois': choose among noise, withheld"),
        (["withheld"], ["LightGCN", "BPR"], "'withheld' concerns texts, and no model of LightGCN, BPR reads any"),
    ],
)
def test_what_cannot_be_taken(names: list[str], models: list[str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        require_known(names, models)


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
    assert ", ".join(SWEEPS) in printed
