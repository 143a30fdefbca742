"""An aligned model's base is trained first, as its own run would, and kept where alignment validates no better."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World
from trainings import QUICK, all_scores

from recbole_rlmrec import quick_start
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.quick_start import Result, load_model, run
from recbole_rlmrec.training import trainer
from recbole_rlmrec.training.checkpoint import load_checkpoint
from recbole_rlmrec.training.comparison import (
    Outcome,
    find_record,
    record_path,
    recorded_base,
    recorded_checkpoint_of_base,
    state_of,
    table,
    write_record,
)
from recbole_rlmrec.training.stopping import Margin


def train(world: World, model: Any, **settings: Any) -> Result:
    given = {"data_path": str(world.root), **QUICK, "base_first": True, "epochs": 6, "learning_rate": 0.02, **settings}
    result = run(model, world.name, config_dict=given)
    assert result is not None
    return result


def weights(path: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(path)["state_dict"]
    return state


def forced(monkeypatch: pytest.MonkeyPatch, aligned_is_better: bool) -> None:
    monkeypatch.setattr(quick_start, "_validates_better", lambda *_: aligned_is_better)


@pytest.mark.parametrize("model", ["LightGCN_RLMRecCon", "SGL_RLMRecGen", "AutoCF_RLMRecCon", "BPR_RLMRecCon"])
def test_both_trainings_are_bit_for_bit_their_own(world: World, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"seed_num": 3} if model.startswith("AutoCF") else {}
    base = train(world, model.split("_")[0], checkpoint_dir="base", **small)
    alone = train(world, model, base_first=False, checkpoint_dir="alone", **small)
    forced(monkeypatch, aligned_is_better=True)
    both = train(world, model, checkpoint_dir="both", **small)
    assert both.kept == "model" and both.base is not None and both.base["source"] == "trained"
    for path, other in ((both.base["checkpoint"], base.checkpoint), (both.checkpoint, alone.checkpoint)):
        ours, theirs = weights(path), weights(other)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert both.base["test"] == base.test_result and both.test_result == alone.test_result


def test_a_base_that_is_kept_has_a_checkpoint_of_the_model(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base = train(world, "LightGCN", checkpoint_dir="base")
    forced(monkeypatch, aligned_is_better=False)
    with caplog.at_level("INFO"):
        result = train(world, "LightGCN_RLMRecCon", result_file="result.json")
    assert result.checkpoint.endswith("-base.pth") and f"  checkpoint    {result.checkpoint}\n" in caplog.text
    assert f"  best epoch    {base.best_epoch} (counted from 0) of the base, LightGCN, which is kept;" in caplog.text
    assert result.kept == "base" and json.loads(Path("result.json").read_text())["kept"] == "base"
    assert result.test_result == base.test_result and result.best_epoch == base.best_epoch
    assert result.aligned is not None and result.aligned["model"] == "LightGCN_RLMRecCon"
    config, model, *_ = load_model(result.checkpoint)
    assert type(model).__name__ == "LightGCN_RLMRecCon"
    config_of_base, loaded, *_ = load_model(base.checkpoint)
    assert (all_scores(model, config) == all_scores(loaded, config_of_base)).all()


@pytest.mark.parametrize("aligned_is_better", [True, False])
def test_what_a_checkpoint_is(world: World, monkeypatch: pytest.MonkeyPatch, aligned_is_better: bool) -> None:
    forced(monkeypatch, aligned_is_better)
    result = train(world, "LightGCN_RLMRecCon")
    assert ("these are the base's weights" in state_of(result.checkpoint)) is not aligned_is_better
    assert result.aligned is not None and not state_of(result.aligned["checkpoint"])
    Path(result.aligned["checkpoint"]).with_suffix(".json").unlink()
    assert "has not ended" in state_of(result.aligned["checkpoint"])


def test_what_is_kept_is_chosen_by_validation(world: World) -> None:
    result = train(world, "LightGCN_RLMRecCon")
    assert result.base is not None and result.aligned is not None
    is_better = result.aligned["valid"]["recall@20"] > result.base["valid"]["recall@20"]
    assert result.kept == ("model" if is_better else "base")
    kept = result.aligned if is_better else result.base
    assert (result.test_result, result.best_valid_result) == (kept["test"], kept["valid"])


def test_a_base_is_trained_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    train(world, "LightGCN", checkpoint_dir="saved")
    with caplog.at_level(logging.INFO):
        train(world, "LightGCN_RLMRecCon", checkpoint_dir="saved")
        assert "LightGCN, the base, was trained before: saved/LightGCN-" in caplog.text
        caplog.clear()
        train(world, "LightGCN_RLMRecCon", checkpoint_dir="saved", learning_rate=0.03)
        assert "LightGCN, the base, is trained first" in caplog.text
        caplog.clear()
        world.valid, world.test = world.test, world.valid
        world.write()
        train(world, "LightGCN_RLMRecCon", checkpoint_dir="saved")
        assert "LightGCN, the base, is trained first" in caplog.text


def test_a_base_whose_training_was_stopped_is_trained(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checkpoint goes on with the aligned model's name; the aligned model's own needs the base no more."""
    whole = train(world, "LightGCN_RLMRecCon", checkpoint_dir="whole")
    stopped = []

    def interrupt(self: Any, epoch: int, *arguments: Any, **more: Any) -> None:
        original(self, epoch, *arguments, **more)
        if type(self.model).__name__ == stopped[0]:
            stopped.append(self.saved_model_file)
            raise KeyboardInterrupt

    from recbole_rlmrec.training.trainer import SafeTrainerMixin

    original = SafeTrainerMixin._save_checkpoint
    for number, name in enumerate(("LightGCN", "LightGCN_RLMRecCon")):
        stopped[:] = [name]
        monkeypatch.setattr(SafeTrainerMixin, "_save_checkpoint", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(world, "LightGCN_RLMRecCon", checkpoint_dir=f"stopped-{number}")
        monkeypatch.setattr(SafeTrainerMixin, "_save_checkpoint", original)
        again = train(world, "LightGCN_RLMRecCon", checkpoint_dir=f"stopped-{number}", resume_from=stopped[1])
        assert again.base is not None and again.aligned is not None
        assert again.base["best_epoch"] >= 0 and whole.base is not None
        if name == "LightGCN_RLMRecCon":
            assert again.base["test"] == whole.base["test"]


def test_going_on_with_a_kept_base_goes_on_with_the_model(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    forced(monkeypatch, aligned_is_better=False)
    first = train(world, "LightGCN_RLMRecCon")
    again = train(world, "LightGCN_RLMRecCon", resume_from=first.checkpoint, epochs=9)
    assert again.aligned is not None and first.aligned is not None
    assert again.aligned["checkpoint"] == first.aligned["checkpoint"]
    assert again.base == first.base


def test_a_base_that_is_gone_is_said_and_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forced(monkeypatch, aligned_is_better=False)
    first = train(world, "LightGCN_RLMRecCon")
    assert first.aligned is not None and first.base is not None
    Path(first.base["checkpoint"]).unlink()
    again = train(world, "LightGCN_RLMRecCon", resume_from=first.aligned["checkpoint"], epochs=9)
    assert again.kept == "model" and "is not there any more" in caplog.text


@pytest.mark.parametrize("settings", [{"alignment_weight": 0}, {"base_first": False}, {"defaults": "published"}])
def test_without_alignment_or_when_unasked_no_base_is_trained(world: World, settings: dict[str, Any]) -> None:
    given = {"base_first": True, **settings}
    if "defaults" in settings:
        del given["base_first"]
    quick = {name: value for name, value in QUICK.items() if name != "base_first"}
    config = {"data_path": str(world.root), **quick, **given}
    result = run("LightGCN_RLMRecCon", world.name, config_dict=config)
    assert result is not None and (result.base, result.aligned, result.kept) == (None, None, "model")


def test_without_validations_there_is_nothing_to_choose_by(world: World, caplog: pytest.LogCaptureFixture) -> None:
    result = train(world, "LightGCN_RLMRecCon", eval_step=0)
    assert result.base is None and "nothing to choose between LightGCN_RLMRecCon and LightGCN" in caplog.text


def test_missing_embeddings_are_said_before_the_base_is_trained(world: World) -> None:
    for path in world.folder.glob("*emb*"):
        path.unlink()
    with pytest.raises(DataError):
        train(world, "LightGCN_RLMRecCon")
    assert not list(Path("saved").glob("*.pth"))


# ---------------------------------------------------------------------- what is said at the end


def test_the_end_shows_popularity_base_and_model(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        result = train(world, "LightGCN_RLMRecCon")
    (text,) = [record.getMessage() for record in caplog.records if "change from the line above" in record.getMessage()]
    head, *rows = text.splitlines()[1:5]
    assert head.split() == ["valid", "recall@20", "valid", "ndcg@20", "test", "recall@20", "test", "ndcg@20"]
    assert [row[2:].split("  ")[0] for row in rows] == ["popularity ranking", "LightGCN (base)", "LightGCN_RLMRecCon"]
    assert result.popularity is not None and result.base is not None and result.aligned is not None
    for row, found in zip(rows, (result.popularity, result.base, result.aligned)):
        shown = [cell for cell in row[20:].split() if cell[0] != "("]
        expected = [found[part][metric] for part in ("valid", "test") for metric in ("recall@20", "ndcg@20")]
        assert shown == [f"{value:.4f}" for value in expected]


def test_a_base_beside_the_result_is_shown(world: World, caplog: pytest.LogCaptureFixture) -> None:
    train(world, "LightGCN", result_file="out/base-1.json", seed=1)
    train(world, "LightGCN", result_file="out/base-2.json", seed=2)
    Path("out/broken.json").write_text("{")
    with caplog.at_level(logging.INFO):
        result = train(world, "LightGCN_RLMRecCon", result_file="out/con.json", base_first=False, seed=2)
    assert result.base is not None and result.base["source"].endswith("base-2.json")
    assert "LightGCN (base)" in caplog.text
    other = train(world, "LightGCN_RLMRecCon", result_file="out/con.json", base_first=False, seed=3)
    assert other.base is not None and other.base["seed"] == 1
    assert recorded_base("out/x.json", "LightGCN", 1, {**(result.data or {}), "item ids": "others"}) is None


def test_a_record_of_other_content_is_no_training(tmp_path: Path) -> None:
    for number, content in enumerate(
        ("{", "[]", "{}", '{"outcome": {}}', '{"outcome": 3, "data": {}, "settings": {}}')
    ):
        (tmp_path / f"LightGCN-{number}.json").write_text(content)
    assert find_record(tmp_path, "LightGCN", {}, {}, ()) is None


def test_a_record_that_is_none_is_passed_over(tmp_path: Path) -> None:
    outcome = Outcome("LightGCN", 0, 1.0, {"auc": float("nan")}, None, str(tmp_path / "LightGCN-1.pth"), None)
    write_record(outcome, {"clip": float("inf")}, {})
    assert json.loads((tmp_path / "LightGCN-1.json").read_text())["outcome"]["valid"] == {"auc": "nan"}
    assert find_record(tmp_path, "LightGCN", {"clip": float("inf")}, {}, ()) is None  # there is no such checkpoint
    (tmp_path / "LightGCN-1.pth").touch()
    found = find_record(tmp_path, "LightGCN", {"clip": float("inf")}, {}, ())
    assert found is not None and str(found.valid) == "{'auc': nan}"
    content = json.loads((tmp_path / "LightGCN-1.json").read_text())
    content["outcome"]["checkpoint"] = None
    (tmp_path / "LightGCN-1.json").write_text(json.dumps(content))
    assert find_record(tmp_path, "LightGCN", {"clip": float("inf")}, {}, ()) is None


def test_a_record_of_weights_that_went_on_is_passed_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base = train(world, "LightGCN", epochs=2)
    record = Path(base.checkpoint).with_suffix(".json")
    content = record.read_text()
    again = train(world, "LightGCN", epochs=12, resume_from=base.checkpoint)
    assert again.best_epoch > base.best_epoch and not record.exists()
    record.write_text(content)  # as if the training that went on had been stopped before it could remove it
    forced(monkeypatch, aligned_is_better=False)
    result = train(world, "LightGCN_RLMRecCon", epochs=2)
    assert result.base is not None and result.base["checkpoint"] != base.checkpoint
    assert result.best_epoch == load_checkpoint(result.checkpoint)["epoch"]


def test_a_base_is_trained_again_where_other_columns_changed(world: World) -> None:
    settings = {
        "load_col": {"inter": ["user_id", "item_id", "rating"]},
        "benchmark_filename": ["train", "valid", "test"],
    }
    found = []
    for rating in (1.0, 2.0):
        for part in ("train", "valid", "test"):
            path = world.folder / f"tiny.{part}.inter"
            rows = [line.split("\t")[:2] for line in path.read_text().splitlines()[1:]]
            lines = [
                "user_id:token\titem_id:token\trating:float",
                *(f"{user}\t{item}\t{rating}" for user, item in rows),
            ]
            path.write_text("\n".join(lines) + "\n")
        result = train(world, "LightGCN_RLMRecCon", epochs=1, **settings)
        assert result.base is not None
        found.append(result.base["checkpoint"])
    assert found[0] != found[1]


def test_a_base_of_another_protocol_is_not_compared(world: World) -> None:
    train(world, "LightGCN", result_file="out/base.json", eval_protocol="paper", eval_step=1)
    result = train(world, "LightGCN_RLMRecCon", result_file="out/con.json", base_first=False)
    assert result.base is None


def test_going_on_where_nothing_is_left_ends_as_before(world: World) -> None:
    first = train(world, "LightGCN", epochs=1)
    again = train(world, "LightGCN", epochs=1, resume_from=first.checkpoint)
    assert again.stopped == first.stopped is not None


def test_loaders_are_rewound_with_what_they_hold() -> None:
    generators = [torch.Generator() for _ in range(3)]
    inner = [SimpleNamespace(generator=generator) for generator in generators]
    loader = SimpleNamespace(general_dataloader=inner[0], kg_dataloader=inner[1])
    for each in (loader, inner[2]):
        quick_start._rewind(each, 7)
    expected = torch.rand(1, generator=torch.Generator().manual_seed(7))
    assert all(torch.equal(torch.rand(1, generator=generator), expected) for generator in generators)


def test_popularity_is_not_reported_to_boards(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[float] = []
    monkeypatch.setattr(trainer.RecBoleTrainer, "__init__", _with_a_board(trainer.RecBoleTrainer.__init__, reported))
    result = train(world, "LightGCN", epochs=1)
    assert result.test_result is not None and reported[-1] == result.test_result["recall@20"]
    assert result.popularity is not None and result.popularity["test"]["recall@20"] not in reported[1:]


def _with_a_board(original: Any, reported: list[float]) -> Any:
    def wrapped(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        self.wandblogger.log_eval_metrics = lambda metrics, head: reported.append(metrics["recall@20"])

    return wrapped


def test_the_table_leaves_out_what_is_not_known() -> None:
    text = table([("a", None), ("b", {"recall@5": 0.1, "recall@20": 0.2}), ("c", {"recall@20": 0.1, "mrr@5": 1.0})])
    assert text.splitlines() == ["   recall@20", "b  0.2000", "c  0.1000 (-50.0%)"]


def test_an_outcome_is_plain(world: World) -> None:
    outcome = Outcome("LightGCN", 1, 2.0, None, None, "", "patience")
    assert Outcome(**json.loads(json.dumps(outcome.record()))) == replace(outcome)


# ---------------------------------------------------------------------- the plateau


@pytest.mark.parametrize(
    ("margin", "where"), [(Margin(0.1, 0.01, 0.01), "within noise of"), (Margin(0.1, -0.05, 0.01), "below")]
)
@pytest.mark.parametrize("epochs", [2, 50])
def test_a_training_on_the_plateau_ends_loudly(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    margin: Margin,
    where: str,
    epochs: int,
) -> None:
    """Once, in the last line; the plateau is why it ended only where the epochs did not run out."""
    monkeypatch.setattr(trainer, "margin_over", lambda *_: margin)
    if epochs > 2:
        end_by_patience(monkeypatch)
    patience = {"stopping_step": 3, "patience_steps": 0, "plateau_epochs": 1}
    result = train(world, "LightGCN", result_file="result.json", epochs=epochs, **patience)
    stopped, advice = (
        ("epochs", "more epochs, which ran out (epochs=2)") if epochs == 2 else ("plateau", "more patience")
    )
    assert result.stopped == json.loads(Path("result.json").read_text())["stopped"] == stopped
    last = caplog.records[-1].getMessage()
    assert caplog.records[-1].levelname == "WARNING"
    assert f"LightGCN ended {where} the popularity ranking: its best validation Recall@20 is" in last
    assert "that of the most popular items 0.1000" in last and "What to try: " in last and advice in last
    assert caplog.text.count("LightGCN ended") == 1


def end_by_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first validation be the best; the margins are computed all the same."""
    scores = iter([0.5, *[0.1] * 50])

    def scripted(*_: Any, **__: Any) -> tuple[float, dict[str, float]]:
        value = next(scores)
        return value, {"recall@20": value}

    monkeypatch.setattr(trainer.RecBoleTrainer, "_valid_epoch", scripted)
    monkeypatch.setattr(trainer, "score_by_user", lambda *_: np.ones(1))


def test_a_training_above_the_plateau_ends_quietly(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the best validation is not as sure as one that the log called above popularity."""
    monkeypatch.setattr(trainer, "margin_over", lambda *_: Margin(0.1, 0.05, 0.01))
    assert train(world, "LightGCN").stopped == "epochs"
    margins = iter([Margin(0.1, 0.05, 0.01), *[Margin(0.1, 0.06, 0.1)] * 9])
    monkeypatch.setattr(trainer, "margin_over", lambda *_: next(margins))
    assert train(world, "LightGCN").stopped == "epochs" and "LightGCN ended" not in caplog.text
    monkeypatch.setattr(trainer, "margin_over", lambda *_: Margin(0.1, 0.05, 0.01))
    end_by_patience(monkeypatch)
    assert train(world, "LightGCN", stopping_step=3, patience_steps=0, epochs=50).stopped == "patience"


def test_few_validation_interactions_are_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.valid = world.valid[:12]
    world.write()
    train(world, "LightGCN")
    assert "The validation holds 12 interactions: its scores are noise" in caplog.text


def test_the_checkpoint_of_the_base_is_found_by_the_record(tmp_path: Path) -> None:
    """Where it was written, or beside the model's if both were moved; a record that says something else is none."""
    moved = tmp_path / "moved"
    moved.mkdir()
    there, base = tmp_path / "aligned.pth", tmp_path / "base.pth"
    outcome = Outcome("LightGCN_RLMRecCon", 1, 1.0, None, None, str(there), "epochs")
    assert recorded_checkpoint_of_base(there) is None
    for known in ({}, {"base": None}, {"base": {"source": "other.json"}}, {"base": {"checkpoint": ""}}):
        write_record(outcome, {}, {}, known)
        assert recorded_checkpoint_of_base(there) is None
    write_record(outcome, {}, {}, {"base": {"checkpoint": str(base)}})
    assert recorded_checkpoint_of_base(there) is None
    base.touch()
    assert recorded_checkpoint_of_base(there) == base
    for path in (base, record_path(there)):
        path.rename(moved / path.name)
    assert recorded_checkpoint_of_base(moved / there.name) == moved / "base.pth"
