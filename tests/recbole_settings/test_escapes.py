"""What others raise before the first epoch is one sentence; our own faults stay what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import World

from recbole_rlmrec import quick_start
from recbole_rlmrec.data import preparation
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.recbole_settings.escapes import said_in_a_sentence


def test_the_setting_of_the_failing_line_is_named() -> None:
    config = {"width": "wide"}
    said = said_in_a_sentence("The model could not be built", {"width": "wide", "depth": 3}, {"width": "a file"})
    with pytest.raises(SettingError) as caught, said:
        torch.zeros(config["width"])
    message = str(caught.value)
    assert message.startswith("The model could not be built: TypeError: ")
    assert message.endswith("Look at width='wide' (from a file).") and isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize(
    "error", [MemoryError("much"), OSError("disk"), DataError("said"), RuntimeError("enforce fail")]
)
def test_faults_of_the_machine_and_what_is_said_already_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, said_in_a_sentence("It failed", {}, {}):
        raise error
    assert caught.value is error


def test_faults_of_this_package_keep_their_traceback() -> None:
    with pytest.raises(TypeError), said_in_a_sentence("It failed", {}, {}):
        preparation.create_dataset(None)


def test_what_a_model_of_recbole_reads_is_named(world: World) -> None:
    """Its package is not to blame for a width that is less than its kernels'."""
    settings = {"data_path": str(world.root), "embedding_size": 3, "epochs": 1, "state": "ERROR"}
    with pytest.raises(SettingError) as caught:
        quick_start.run("ConvNCF", world.name, config_dict=settings, saved=False)
    message = str(caught.value)
    assert message.startswith("The training of ConvNCF failed: RuntimeError: Calculated padded input size")
    assert "Look at the settings that convncf.py reads: embedding_size, cnn_channels, " in message


def test_each_step_before_the_first_epoch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        pd.Series([1]).loc["nosuch"]

    config = world.config("LightGCN")
    dataset = preparation.create_dataset(config)
    for owner, name, step in (
        (preparation, "_create_samplers", lambda: preparation.data_preparation(config, dataset)),
        (config.model_class, "__init__", lambda: quick_start._built(config, dataset)),
        (preparation.RLMRecDataset, "__init__", lambda: preparation.create_dataset(config)),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fail)
            with pytest.raises(SettingError, match=r"KeyError: 'nosuch'\. Look at "):
                step()


def test_a_dataset_that_recbole_cannot_read(world: World) -> None:
    settings = {"data_path": str(world.root), "alias_of_user_id": ["nosuch"]}
    with pytest.raises(DataError, match=r"nosuch.*Look at alias_of_user_id=\['nosuch'\] \(from config_dict\)\. Exp"):
        world.loaders(world.config("LightGCN", **settings))


def test_more_sampled_items_than_there_are(world: World) -> None:
    with pytest.raises(SettingError, match="ranks among 100 sampled items; 'tiny' has 30"):
        world.loaders(world.config("LightGCN", eval_args={"mode": "uni100"}))
    assert not list(Path().glob("saved/*"))
