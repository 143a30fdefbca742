"""Tuning an encoder: what is refused, and a tiny model, made on the spot, that learns; skipped without its packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import World
from tiny_models import write_bert

from recbole_rlmrec.cli import main
from recbole_rlmrec.encoder import tuning
from recbole_rlmrec.encoder.base import EncoderSettings, make_encoder
from recbole_rlmrec.encoder.tuned_file import tuned_on, write_record
from recbole_rlmrec.encoder.tuning import TuningSettings, open_model, require_replaceable, tune
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.profile.encode_profiles import encode_profiles
from recbole_rlmrec.profile.record import Profile, profiles_path, write_profiles
from recbole_rlmrec.sides import SIDES

WORDS = ["space", "alien", "love", "war", "robot", "crime", "song", "city"]
ORIGIN = {"dataset": "tiny", "train_sha256": "t" * 64}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "--epochs is 0, expected a whole number from 1"),
        ({"batch_size": 1}, "--batch-size is 1, expected a whole number from 2"),
        ({"pairs": 0}, "--pairs is 0"),
        ({"lora_rank": -1}, "--lora-rank is -1, expected a whole number from 0"),
        ({"max_steps": 0}, "--max-steps is 0"),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0, expected a number above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        TuningSettings("a model", **settings)


def test_only_a_folder_of_a_tuned_model_is_replaced(tmp_path: Path) -> None:
    require_replaceable(tmp_path / "new", overwrite=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    for name in ("mine", "file", "link"):
        with pytest.raises(SettingError, match=f"{name} is there already, and holds no model that tune-encoder wrote"):
            require_replaceable(tmp_path / name, overwrite=True)
    (tmp_path / "ours").mkdir()
    write_record(tmp_path / "ours", ORIGIN)
    with pytest.raises(SettingError, match=r"ours is there already\. Give another folder, or --overwrite"):
        require_replaceable(tmp_path / "ours", overwrite=False)
    require_replaceable(tmp_path / "ours", overwrite=True)


@pytest.mark.parametrize("package", ["sentence_transformers", "datasets", "accelerate", "peft"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr("recbole_rlmrec.extras.is_installed", lambda name: name != package)
    message = f"tune-encoder needs the package '{package}', .*: pip install 'recbole-rlmrec\\[tune-encoder\\]'"
    with pytest.raises(SettingError, match=message):
        open_model(TuningSettings("a/model", lora_rank=2))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ('{"dataset": "tiny"}', "train_sha256"), ('{"train_sha256": ""}', "is empty")],
)
def test_a_record_that_does_not_say_the_split_is_refused(tmp_path: Path, content: str, message: str) -> None:
    assert tuned_on(tmp_path) == ""
    (tmp_path / "recbole_rlmrec.json").write_text(content)
    with pytest.raises(DataError, match=f"no record of a tuned encoder: .*{message}"):
        make_encoder("sentence-transformers", EncoderSettings(model=str(tmp_path)))


# ---------------------------------------------------------------------- a tiny model


def transformer_of(folder: Path) -> str:
    """Write a BERT without a pooling."""
    return write_bert(folder, WORDS, "sentence_transformers", "datasets", "accelerate", "peft")


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A model of sentence-transformers."""
    bare = transformer_of(tmp_path / "bert")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    transformer = Transformer(bare)
    model = SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")
    model.save_pretrained(str(tmp_path / "tiny"), create_model_card=False)
    return str(tmp_path / "tiny")


#: The first four words belong to the last four.
PAIRS = {"user-item": (WORDS[:4] * 12, WORDS[4:] * 12), "item-item": (WORDS[4:] * 2, WORDS[:4] * 2)}


def tuned(model: str, output: Path, **settings: Any) -> list[str]:
    said: list[str] = []
    asked = TuningSettings(model, batch_size=4, **{"learning_rate": 0.02, **settings})
    tune(open_model(asked), asked, PAIRS, output, ORIGIN, said.append, seed=1, progress=False)
    return said


def hits(model: str | Path) -> int:
    """How many of four texts are closest to the one that they belong to."""
    vectors = make_encoder("sentence-transformers", EncoderSettings(model=str(model), device="cpu")).encode(WORDS)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return int(((vectors[:4] @ vectors[4:].T).argmax(axis=1) == np.arange(4)).sum())


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_what_is_tuned_is_a_plain_model_that_learned(tiny: str, tmp_path: Path, lora_rank: int) -> None:
    said = tuned(tiny, tmp_path / "out", lora_rank=lora_rank, learning_rate=0.06 if lora_rank else 0.02)
    assert said[0] == "steps: 14 of 14, each with 4 pairs of one kind" and "for 14 steps" in said[1]
    assert hits(tiny) < 4 == hits(tmp_path / "out")
    encoder: Any = make_encoder("sentence-transformers", EncoderSettings(model=str(tmp_path / "out")))
    assert encoder.train_sha256 == "t" * 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert", "out", "tiny"]
    assert {path.name for path in (tmp_path / "out").rglob("*")} >= {"modules.json", "recbole_rlmrec.json"}
    assert not [path for path in (tmp_path / "out").rglob("*") if "adapter" in path.name or path.is_symlink()]
    record = json.loads((tmp_path / "out" / "recbole_rlmrec.json").read_text())
    assert (record["dataset"], record["lora_rank"], record["seed"], record["batch_size"]) == ("tiny", lora_rank, 1, 4)
    assert set(record["versions"]) >= {"recbole_rlmrec", "torch", "sentence-transformers", "transformers"}


def test_the_seed_decides_and_steps_are_bounded(tiny: str, tmp_path: Path) -> None:
    said = tuned(tiny, tmp_path / "a", max_steps=2)
    assert said[0].startswith("steps: 2 of 14") and "for 14 steps" in said[1]
    tuned(tiny, tmp_path / "b", max_steps=2)
    first, second = (
        make_encoder("sentence-transformers", EncoderSettings(model=str(tmp_path / name), device="cpu"))
        for name in "ab"
    )
    np.testing.assert_array_equal(first.encode(WORDS), second.encode(WORDS))
    assert first.name.split("sha256 ")[1] == second.name.split("sha256 ")[1]


def test_what_is_interrupted_leaves_what_was_there(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    write_record(tmp_path / "out", ORIGIN)

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "write_record", stopped)
    with pytest.raises(KeyboardInterrupt):
        tuned(tiny, tmp_path / "out", max_steps=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert", "out", "tiny"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["recbole_rlmrec.json"]


def test_a_learning_rate_that_ruins_the_model_is_said(tiny: str, tmp_path: Path) -> None:
    settings = TuningSettings(tiny, batch_size=4, learning_rate=1e38, max_steps=4)
    with pytest.raises(SettingError, match=r"vectors are not finite\. Give a lower --learning-rate than 1e"):
        tune(open_model(settings), settings, PAIRS, tmp_path / "out", ORIGIN, print, seed=1, progress=False)
    assert not (tmp_path / "out").exists()


def test_from_the_command_line_to_a_training(world: World, tiny: str, tmp_path: Path) -> None:
    """The training takes embeddings by the tuned model on the split that it was tuned on, and on no other."""
    for side, table in zip(SIDES, world.semantic):
        profiles = [
            Profile(token, f"{WORDS[len(token)]} {WORDS[row % 8]}", "", "me", "", "") for row, token in enumerate(table)
        ]
        write_profiles(profiles_path(world.folder, "tiny", side), profiles)
    options = [f"--data_path={world.root}", "--benchmark_filename=[train,valid,test]", f"--encoder-model={tiny}"]
    output = tmp_path / "out"
    assert (
        main(["tune-encoder", "--dataset=tiny", *options, f"--output={output}", "--batch-size=8", "--max-steps=1"]) == 0
    )
    encoder = make_encoder("sentence-transformers", EncoderSettings(model=str(output), device="cpu"))
    encode_profiles(world.folder, "tiny", encoder, overwrite=True, progress=False)
    recorded = json.loads((world.folder / "tiny.semantic.json").read_text())
    assert recorded["encoder_train_sha256"] == encoder.train_sha256 and "train_sha256" not in recorded
    assert len(encoder.train_sha256) == 64
    world.model("LightGCN_RLMRecCon")
    with pytest.raises(DataError, match="the encoder of the embeddings was tuned on another training split"):
        world.model("LightGCN_RLMRecCon", benchmark_filename=["test", "valid", "train"])


def test_models_that_cannot_be_tuned(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"--lora-rank=17 is larger than the width of .*tiny, 16"):
        open_model(TuningSettings(tiny, lora_rank=17))
    no_pooling = "does not say how its tokens become one vector of a text"
    with pytest.raises(SettingError, match=no_pooling):
        open_model(TuningSettings(str(tmp_path / "bert")))
    modules = json.loads((Path(tiny) / "modules.json").read_text())
    (Path(tiny) / "modules.json").write_text(json.dumps(modules[:1]))
    with pytest.raises(SettingError, match=no_pooling):
        open_model(TuningSettings(tiny))
    (Path(tiny) / "modules.json").write_text("{")
    with pytest.raises(SettingError, match="cannot be loaded"):
        open_model(TuningSettings(tiny))
