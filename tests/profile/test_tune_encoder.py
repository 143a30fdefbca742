"""From profiles and the split to the pairs that an encoder is tuned on; the model itself is not needed here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import World

from recbole_rlmrec.cli import main
from recbole_rlmrec.data.split import pairs_sha256
from recbole_rlmrec.encoder.tuned_file import write_record
from recbole_rlmrec.profile import tune_encoder as module
from recbole_rlmrec.profile.record import Profile, profiles_path, write_profiles


class Tuning:
    """A dataset with profiles, whose text is the token, and what reaches the trainer."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.encoder, self.given = world, SimpleNamespace(train_sha256="", name="base"), {}
        self.split = pairs_sha256(*zip(*map(tuple, world.train.tolist())))
        self.output = world.root / "tuned"
        monkeypatch.setattr(module, "open_model", lambda settings: self.encoder)
        monkeypatch.setattr(module, "tune", self.tune)
        self.write()

    def write(self, **changes: Any) -> None:
        """Write the profiles, with changes of each."""
        for side, table in zip(("user", "item"), self.world.semantic):
            profiles = [
                replace(Profile(token, f" {token}", "", "llm:m", "p", self.split), **changes) for token in table
            ]
            write_profiles(profiles_path(self.world.folder, "tiny", side), profiles)  # type: ignore[arg-type]

    def tune(
        self, encoder: Any, settings: Any, pairs: Any, output: Any, origin: Any, *_: Any, seed: int, **__: Any
    ) -> None:
        self.given = {"settings": settings, "pairs": pairs, "output": output, "origin": origin, "seed": seed}

    def run(self, *more: str) -> int:
        options = [f"--data_path={self.world.root}", "--benchmark_filename=[train,valid,test]", "--encoder-model=base"]
        return main(["tune-encoder", "--dataset=tiny", *options, f"--output={self.output}", *more])


@pytest.fixture
def tuning(world: World, monkeypatch: pytest.MonkeyPatch) -> Tuning:
    return Tuning(world, monkeypatch)


def test_pairs_are_of_training_interactions_alone(tuning: Tuning, capsys: Any) -> None:
    assert tuning.run("--epochs=3", "--pairs=50", "--seed=7", "--lora-rank=4") == 0
    train = set(map(tuple, tuning.world.train.tolist()))
    users_of = {item: {user for user, each in train if each == item} for _, item in train}
    pairs = {kind: list(zip(*texts)) for kind, texts in tuning.given["pairs"].items()}
    assert {kind: len(found) for kind, found in pairs.items()} == dict.fromkeys(
        ("user-item", "item-item", "user-user"), 150
    )
    stripped = {kind: {(a.strip(), b.strip()) for a, b in found} for kind, found in pairs.items()}
    assert stripped["user-item"] <= train
    assert all(a != b and users_of[a] & users_of[b] for a, b in stripped["item-item"])
    assert all(a != b and any({a, b} <= users for users in users_of.values()) for a, b in stripped["user-user"])
    origin = tuning.given["origin"]
    assert (origin["dataset"], origin["train_sha256"], origin["base_model"]) == ("tiny", tuning.split, "base")
    assert origin["pairs_of_an_epoch"] == dict.fromkeys(pairs, 50)
    settings = tuning.given["settings"]
    assert (settings.model, settings.epochs, settings.lora_rank, tuning.given["seed"]) == ("base", 3, 4, 7)
    assert "pairs of an epoch: user-item 50, item-item 50, user-user 50" in capsys.readouterr().out


def test_profiles_without_a_hash_are_taken(tuning: Tuning) -> None:
    tuning.write(train_sha256="")
    assert tuning.run() == 0 and tuning.given


def refused(tuning: Tuning, capsys: Any) -> str:
    assert tuning.run() == 2 and not tuning.given
    error: str = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_what_is_of_another_split_is_refused(tuning: Tuning, capsys: Any) -> None:
    tuning.encoder.train_sha256 = "0" * 64
    assert "base: the model was tuned on another training split (000000000000...)" in refused(tuning, capsys)
    tuning.write(train_sha256="1" * 64)
    error = refused(tuning, capsys)
    assert "the profiles were written from another training split (111111111111...)" in error
    assert "`recbole-rlmrec build-semantics --dataset=tiny" in error


def test_a_dataset_without_texts_is_refused(tuning: Tuning, capsys: Any) -> None:
    tuning.write(profile=" ")
    assert "No training interaction of 'tiny' has a profile of both its user and its item" in refused(tuning, capsys)
    profiles_path(tuning.world.folder, "tiny", "item").unlink()
    assert "does not hold tiny.itemprf.jsonl" in refused(tuning, capsys)


def test_an_output_that_is_there_is_refused_first(tuning: Tuning, capsys: Any) -> None:
    Path(tuning.output).mkdir()
    profiles_path(tuning.world.folder, "tiny", "item").unlink()  # which is found out later
    assert "holds no model that tune-encoder wrote" in refused(tuning, capsys)
    write_record(tuning.output, {"train_sha256": "0"})
    assert "or --overwrite to replace it" in refused(tuning, capsys)
