"""An epoch of our trainer against RecBole's own; mixed precision, clipping, and losses that are no numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World
from recbole.trainer import Trainer as RecBoleTrainer
from recbole.utils import init_seed
from trainings import train

from recbole_rlmrec import cli, quick_start
from recbole_rlmrec.errors import TrainingError
from recbole_rlmrec.training.trainer import Trainer


def epochs(world: World, trainer_type: type, model_name: str, n: int = 2, **settings: Any) -> tuple[Any, list[Any]]:
    """Train a freshly seeded model; return the trainer and what each epoch returned."""
    config = world.config(model_name, learning_rate=0.01, **settings)
    _, train_data, _, _ = world.loaders(config)
    init_seed(config["seed"], config["reproducibility"])
    trainer = trainer_type(config, config.model_class(config, train_data._dataset))
    trainer.tensorboard.close()
    return trainer, [trainer._train_epoch(train_data, epoch) for epoch in range(n)]


def weights(trainer: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("learner", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("model", ["LightGCN_RLMRecCon", "SGL", "BPR"])
@pytest.mark.parametrize("clip", [None, {"max_norm": 0.02}])
def test_an_epoch_is_recboles(world: World, model: str, learner: str, clip: Any) -> None:
    settings = {"learner": learner, "clip_grad_norm": clip, "weight_decay": 0.01}
    (ours, losses), (theirs, expected) = (epochs(world, each, model, **settings) for each in (Trainer, RecBoleTrainer))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-4, atol=1e-6)
    start, _ = epochs(world, Trainer, model, n=0)
    assert not torch.allclose(weights(ours), weights(start), atol=1e-4)


MIXED = ["LightGCN_RLMRecCon", "LightGCN_RLMRecGen", "SimGCL_RLMRecCon", "SGL", "LightGCN_KAR", "AlphaRec", "AutoCF"]


@pytest.mark.parametrize("model", MIXED)
def test_mixed_precision_is_near_full(world: World, model: str) -> None:
    found = {amp: epochs(world, Trainer, model, n=3, enable_amp=amp) for amp in (True, False)}
    losses = {amp: np.array(each) for amp, (_, each) in found.items()}
    assert not np.array_equal(losses[True], losses[False]), "nothing was cast to bfloat16"
    np.testing.assert_allclose(losses[True], losses[False], rtol=0.02)
    for parameter in found[True][0].model.parameters():
        assert parameter.dtype == torch.float32 and torch.isfinite(parameter).all()


def test_the_optimiser_is_fused(world: World) -> None:
    for learner, fused in (("adam", True), ("adamw", True), ("sgd", None)):
        trainer, _ = epochs(world, Trainer, "LightGCN", n=0, learner=learner)
        assert trainer.optimizer.param_groups[0].get("fused") == fused


@pytest.mark.parametrize(("model", "named"), [("LightGCN_RLMRecCon", "alignment = nan"), ("BPR", "loss 1 = nan")])
def test_a_loss_that_is_no_number_is_named(
    world: World, model: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = world.config(model)
    original = config.model_class.calculate_loss

    def broken(self: Any, interaction: Any) -> Any:
        losses = original(self, interaction)
        return (*losses[:-1], losses[-1] * torch.nan) if isinstance(losses, tuple) else losses * torch.nan

    monkeypatch.setattr(config.model_class, "calculate_loss", broken)
    with pytest.raises(TrainingError, match=rf"loss of epoch 0 is not finite \(.*{named}.*Lower learning_rate"):
        epochs(world, Trainer, model, n=1)


def test_a_checkpoint_of_before_goes_on(world: World) -> None:
    """Without settings that did not exist, and with the state of an optimiser that was not fused."""
    result = train(world, "LightGCN_RLMRecCon", learning_rate=0.05)
    raw = torch.load(result.checkpoint, weights_only=True)
    del raw["settings"]["semantic_storage"]
    raw["optimizer"]["param_groups"][0]["fused"] = None
    torch.save(raw, result.checkpoint)
    again = train(world, "LightGCN_RLMRecCon", learning_rate=0.05, epochs=6, resume_from=result.checkpoint)
    assert again.best_epoch >= result.best_epoch
    config = world.config("LightGCN_RLMRecCon", learning_rate=0.05, epochs=6)
    _, train_data, _, _ = world.loaders(config)
    trainer = Trainer(config, config.model_class(config, train_data._dataset))
    trainer._check_settings = lambda *arguments: None
    trainer.fingerprint = {}
    trainer.resume_checkpoint(result.checkpoint)
    trainer.tensorboard.close()
    assert trainer.optimizer.param_groups[0]["fused"] is True


def test_the_command_line_starts_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(quick_start, "run", lambda *arguments, **settings: seen.update(settings))
    arguments = "--model=BPR --dataset=x --nproc=2 --world_size=4 --ip=10.0.0.1 --port=99 --group_offset=2"
    assert cli.train_main(arguments.split()) == 0
    expected = {"nproc": 2, "world_size": 4, "ip": "10.0.0.1", "port": 99, "group_offset": 2}
    assert {name: seen[name] for name in expected} == expected


def test_the_command_line_refuses_processes_that_do_not_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.train_main(["--model=BPR", "--dataset=ml-100k", "--nproc=0"]) == 2
    assert "nproc=0: expected a whole number at least 1" in capsys.readouterr().err
