"""Checkpoints: plain, atomic, refused when they are not what they should be; the log names every loss term."""

from __future__ import annotations

import logging
import math
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World
from trainings import all_scores, train

from recbole_rlmrec.errors import CheckpointError, FolderError, MachineError
from recbole_rlmrec.model.registry import get_model
from recbole_rlmrec.quick_start import load_model
from recbole_rlmrec.training.checkpoint import load_checkpoint, write_checkpoint
from recbole_rlmrec.training.stopping import Validation
from recbole_rlmrec.training.trainer import Trainer, trainer_class


def test_checkpoints_give_identical_scores_in_another_process(world: World) -> None:
    checkpoints = {model: train(world, model).checkpoint for model in ("LightGCN", "SGL_RLMRecCon", "SimGCL_RLMRecGen")}
    script = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
from trainings import all_scores
from recbole_rlmrec.quick_start import load_model
for checkpoint in sys.argv[2:]:
    config, model, *_ = load_model(checkpoint)
    np.save(f"{config['model']}.npy", all_scores(model, config))
"""
    command = [sys.executable, "-c", script, str(Path(__file__).parents[1]), *checkpoints.values()]
    subprocess.run(command, check=True, capture_output=True)
    for model, checkpoint in checkpoints.items():
        config, loaded, _, train_data, valid_data, test_data = load_model(checkpoint)
        assert not loaded.training
        np.testing.assert_array_equal(np.load(f"{model}.npy"), all_scores(loaded, config))
        assert len(train_data._dataset) == len(world.train)
        assert len(valid_data._dataset) == len(world.valid)
        assert len(test_data._dataset) == len(world.test)

        raw = torch.load(checkpoint, weights_only=True)
        assert raw["model"] == model and raw["settings"]["embedding_size"] == 8
        state = raw["state_dict"]
        for name, parameter in loaded.named_parameters():
            assert torch.equal(parameter, state[name])
        assert not any("semantic" in name for name in state)


def test_loaded_model_repeats_the_test_result(world: World) -> None:
    result = train(world, "LightGCN_RLMRecCon")
    config, model, _, train_data, _, test_data = load_model(result.checkpoint)
    trainer = Trainer(config, model)
    trainer.eval_collector.data_collect(train_data)
    metrics = trainer.evaluate(test_data, load_best_model=False)
    assert {name: float(value) for name, value in metrics.items()} == result.test_result


def test_resumed_training_goes_on_from_weights_optimizer_and_score(world: World, caplog: Any) -> None:
    first = train(world, "LightGCN", epochs=3)
    stored = load_checkpoint(first.checkpoint)
    with caplog.at_level(logging.INFO):
        second = train(world, "LightGCN", epochs=6, resume_from=first.checkpoint)
    assert f"Training goes on from epoch {stored['epoch'] + 1}" in caplog.text
    assert f"epoch {stored['epoch'] + 1} training" in caplog.text
    assert f"epoch {stored['epoch']} training" not in caplog.text.split("Training goes on")[1]
    assert second.best_valid_score >= first.best_valid_score
    assert set(second.best_valid_result) == set(first.best_valid_result)
    assert second.checkpoint == first.checkpoint


def test_resuming_without_a_better_epoch_keeps_the_best_result(world: World) -> None:
    first = train(world, "LightGCN", epochs=4, learning_rate=0.05)
    again = train(world, "LightGCN", epochs=4, learning_rate=0.05, resume_from=first.checkpoint)
    if again.best_epoch == first.best_epoch:
        assert again.best_valid_result == first.best_valid_result
        assert again.test_result == first.test_result
    beyond = train(world, "LightGCN", epochs=again.best_epoch + 1, learning_rate=0.05, resume_from=first.checkpoint)
    assert beyond.best_valid_score == again.best_valid_score
    assert beyond.best_epoch == again.best_epoch == load_checkpoint(first.checkpoint)["epoch"]
    assert beyond.best_valid_result == again.best_valid_result


def test_resuming_with_other_settings_is_refused(world: World) -> None:
    checkpoint = train(world, "LightGCN").checkpoint
    content = Path(checkpoint).read_bytes()
    with pytest.raises(CheckpointError, match=r"trained with n_layers=2, this run has n_layers=1"):
        train(world, "LightGCN", n_layers=1, resume_from=checkpoint)
    assert Path(checkpoint).read_bytes() == content


def test_checkpoint_is_bound_to_the_ids_and_the_split(world: World) -> None:
    checkpoint = train(world, "LightGCN").checkpoint
    original = world.train
    world.train = original[::-1]
    world.write()
    with pytest.raises(CheckpointError, match=r"other data of the name 'tiny': user ids, item ids differ"):
        load_model(checkpoint)
    with pytest.raises(CheckpointError, match="other data of the name 'tiny'"):
        train(world, "LightGCN", resume_from=checkpoint, epochs=9)
    world.train, world.valid, world.test = original, world.test, world.valid
    world.write()
    load_model(checkpoint)
    world.train = np.concatenate([original, world.test])
    world.write()
    with pytest.raises(CheckpointError, match="training interactions differ"):
        load_model(checkpoint)


def test_runs_of_the_same_second_have_checkpoints_of_their_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole.trainer.trainer.get_local_time", lambda: "Nov-21-2026_00-00-00")
    first, second = train(world, "LightGCN", seed=1), train(world, "LightGCN", seed=2)
    assert first.checkpoint != second.checkpoint
    assert load_checkpoint(first.checkpoint)["settings"]["seed"] == 1


class Mine(get_model("LightGCN_RLMRecCon")):  # type: ignore[misc]
    """A model that neither we nor RecBole know by name."""


def test_a_model_of_ones_own_is_loaded_by_its_class(world: World) -> None:
    result = train(world, Mine)
    config, model, *_ = load_model(result.checkpoint, model=Mine)
    assert type(model) is Mine and config["model"] == "Mine"


def test_checkpoint_of_another_model_is_refused(world: World) -> None:
    checkpoint = train(world, "LightGCN").checkpoint
    with pytest.raises(CheckpointError, match=r"is a checkpoint of LightGCN, not of SGL"):
        train(world, "SGL", resume_from=checkpoint)


def test_checkpoint_of_another_size_is_refused(world: World) -> None:
    checkpoint = train(world, "LightGCN").checkpoint
    with pytest.raises(CheckpointError, match=r"(?s)does not fit this LightGCN.*settings it was trained with"):
        load_model(checkpoint, {"embedding_size": 4})


def test_missing_truncated_and_foreign_files_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        load_model(tmp_path / "none.pth")
    checkpoint = Path(train(world, "LightGCN").checkpoint)
    content = checkpoint.read_bytes()
    damaged = tmp_path / "damaged.pth"
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        damaged.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"damaged\.pth"):
            load_checkpoint(damaged)
    torch.save({"state_dict": {}}, damaged)
    with pytest.raises(CheckpointError, match="'format' is missing, expected one of the keys format, model, dataset"):
        load_checkpoint(damaged)
    torch.save({**torch.load(checkpoint, weights_only=True), "format": 99}, damaged)
    with pytest.raises(CheckpointError, match="'format' is the number 99, expected 1"):
        load_checkpoint(damaged)


class Touch:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("canary", "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_checkpoint_with_code_is_refused_and_not_run(world: World, tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"format": 1, "model": Touch()}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Touch()))
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        load_checkpoint(path)
    assert not Path("canary").exists()


def test_interrupted_save_keeps_the_old_checkpoint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Path(train(world, "LightGCN").checkpoint)
    before = checkpoint.read_bytes()

    def half_written(state: Any, path: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(OSError, match="disk full"):
        train(world, "LightGCN", resume_from=str(checkpoint), epochs=50)
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_checkpoint_that_finds_no_room_says_how_much_it_needs_and_what_is_kept(world: World) -> None:
    resource = pytest.importorskip("resource")
    checkpoint = Path("saved/a.pth")
    write_checkpoint({"weights": torch.zeros(10)}, checkpoint)
    before = checkpoint.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(
            MachineError, match=r"'saved/a\.pth' was not written: it needs about 400,012 bytes, and the"
        ):
            write_checkpoint({"weights": torch.zeros(1000, 100), "more": [torch.ones(3)]}, checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def failing_save(monkeypatch: pytest.MonkeyPatch, at: int) -> list[Any]:
    """Let the n-th checkpoint find a full disk, as torch says it; the epochs of those before are returned."""
    save, epochs = torch.save, []

    def until_full(state: Any, path: Any) -> None:
        if len(epochs) == at - 1:
            raise RuntimeError("[enforce fail at inline_container.cc:603] . PytorchStreamWriter failed writing file")
        epochs.append(state["epoch"])
        save(state, path)

    monkeypatch.setattr(torch, "save", until_full)
    return epochs


@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_ends_a_training_with_its_result_up_to_then(
    world: World, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    epochs = failing_save(monkeypatch, at)
    with pytest.raises(MachineError, match="PytorchStreamWriter failed writing file") as raised:
        train(world, "LightGCN", epochs=20, learning_rate=0.01)
    kept = list(Path("saved").iterdir())
    if at == 1:
        assert str(raised.value).endswith("Nothing is kept of this training.") and not kept
        return
    [checkpoint] = kept
    stored = load_checkpoint(checkpoint)
    assert [stored["epoch"]] == epochs
    assert str(raised.value).endswith(
        f"The best epoch so far, {stored['epoch']} ({stored['best_valid_result']}), is kept: go on with "
        f"--resume_from={checkpoint}"
    )


def test_a_folder_of_checkpoints_that_cannot_be_written_is_found_before_training(world: World) -> None:
    Path("file").write_text("")
    for folder in ("file", "/proc/none"):
        with pytest.raises(FolderError, match=f"The folder '{folder}' cannot be written to .*--checkpoint_dir=FOLDER"):
            train(world, "LightGCN", checkpoint_dir=folder)


@pytest.mark.parametrize("name", ["mine.json", "mine.pth.probe"])
def test_files_beside_a_checkpoint_that_is_gone_on_from_stay(world: World, name: str) -> None:
    first = train(world, "LightGCN", result_file="saved/mine.json")
    Path(first.checkpoint).rename("saved/mine.pth")
    Path("saved/mine.pth.probe").write_text("mine")
    before = Path("saved", name).read_bytes()
    train(world, "LightGCN", resume_from="saved/mine.pth", epochs=3, result_file="other.json")
    assert Path("saved", name).read_bytes() == before


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("LightGCN", ("bpr", "reg")),
        ("SGL", ("bpr", "reg", "ssl")),
        ("LightGCN_RLMRecCon", ("bpr", "reg", "alignment")),
        ("SimGCL_RLMRecGen", ("bpr", "reg", "ssl", "reconstruction")),
    ],
)
def test_log_names_every_loss_term(world: World, caplog: Any, model: str, names: tuple[str, ...]) -> None:
    with caplog.at_level(logging.INFO):
        train(world, model, epochs=1)
    (line,) = [record.getMessage() for record in caplog.records if "epoch 0 training" in record.getMessage()]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
    shown = dict(part.strip(" ]").split(": ") for part in plain.split("[")[1].split(",")[1:])
    assert tuple(shown) == names
    assert all(math.isfinite(float(value)) for value in shown.values())


def test_more_than_ten_terms_keep_their_names() -> None:
    class Logged(Trainer):
        def __init__(self) -> None:
            self.config = {"loss_decimal_place": 1}
            self.model = type("Model", (), {"loss_names": tuple("abcdefghijkl")})()

    line = Logged()._generate_train_loss_output(0, 0.0, 1.0, tuple(float(number) for number in range(12)))
    for number, name in enumerate("abcdefghijkl"):
        assert f"{name}\x1b[0m: {number}.0" in line


def test_recbole_models_keep_their_own_trainer(world: World) -> None:
    from recbole.trainer import NCLTrainer, TraditionalTrainer

    assert trainer_class(world.config("BPR")) is Trainer
    assert issubclass(trainer_class(world.config("NCL")), NCLTrainer)
    assert issubclass(trainer_class(world.config("ItemKNN")), TraditionalTrainer)


@pytest.mark.parametrize("model", ["Pop", "ItemKNN", "SemanticOnly", "BPR"])
def test_fewer_epochs_than_between_validations(world: World, model: str) -> None:
    """RecBole validates a model of one epoch never, and so tests nothing, where eval_step is more than 1."""
    result = train(world, model, eval_step=3, epochs=2)
    assert result.best_valid_score is not None and Path(result.checkpoint).is_file()


@pytest.mark.parametrize("model", ["AlphaRec", "LightGCN_KAR", "SemanticOnly"])
def test_a_model_that_scores_embeddings_refuses_others(world: World, model: str) -> None:
    checkpoint = train(world, model).checkpoint
    load_model(checkpoint)
    world.semantic = tuple({token: vector[::-1] for token, vector in table.items()} for table in world.semantic)
    world.write()
    with pytest.raises(CheckpointError, match="user embeddings, item embeddings differ"):
        load_model(checkpoint)


def test_training_does_not_go_on_with_other_embeddings(world: World) -> None:
    checkpoint = train(world, "LightGCN_RLMRecCon").checkpoint
    world.semantic = tuple({token: vector[::-1] for token, vector in table.items()} for table in world.semantic)
    world.write()
    load_model(checkpoint)  # the scores are of the weights alone
    with pytest.raises(CheckpointError, match="user embeddings, item embeddings differ"):
        train(world, "LightGCN_RLMRecCon", resume_from=checkpoint, epochs=4)


@pytest.mark.parametrize(
    "settings", [{"epochs": 3}, {"epochs": 50, "early_stopping": "recbole", "stopping_step": 1, "learning_rate": 0.1}]
)
def test_who_watches_a_training_sees_each_validation(world: World, settings: dict[str, Any]) -> None:
    seen: list[Validation] = []
    result = train(world, "LightGCN", watch=seen.append, **settings)
    assert [each.is_last for each in seen] == [False] * (len(seen) - 1) + [True]
    assert [each.epoch for each in seen] == list(range(len(seen))) and len(seen) < 50
    assert seen[0].steps > 0 and [each.steps for each in seen] == [seen[0].steps * (at + 1) for at in range(len(seen))]
    assert seen[-1].best == result.best_valid_score == max(each.best for each in seen)


def test_what_a_watcher_raises_ends_the_run(world: World) -> None:
    def watch(validation: Validation) -> None:
        if validation.epoch == 1:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        train(world, "LightGCN", watch=watch, epochs=50)
