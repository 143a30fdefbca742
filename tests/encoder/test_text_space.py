"""New texts get the vectors that the encoder of the embeddings gives; what keeps it from that is said in a sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.encoder.base import Encoder, EncoderSettings, make_encoder
from recbole_rlmrec.encoder.encode import encode_texts
from recbole_rlmrec.encoder.job import Job
from recbole_rlmrec.encoder.text_space import MAX_CHARACTERS, TextSpace
from recbole_rlmrec.errors import DataError, RLMRecError, ServiceError, SettingError
from recbole_rlmrec.sides import SIDES, Side

TEXTS: dict[Side, dict[str, str]] = {
    "user": {"u1": "likes space and robots", "u2": "likes garlic bread and space"},
    "item": {"i1": "space opera robots", "i2": "garlic bread at home", "i3": "home robots", "i4": "bread from space"},
}
LSA = EncoderSettings(dimension=3, seed=5)


class Config(dict[str, Any]):
    """What is read of a configuration."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__({"dataset": "x", "encoder_model": None, "semantic": None, **settings})
        self.data_folders = (folder,)

    def command(self, verb: str) -> str:
        return f"recbole-rlmrec {verb} --dataset=x"


def encoded(folder: Path, settings: EncoderSettings = LSA, **options: Any) -> Any:
    return encode_texts(folder, "x", TEXTS, make_encoder("lsa", settings), progress=False, **options)


def described(folder: Path, **changes: Any) -> None:
    """Change what ``x.semantic.json`` says; None removes a key."""
    path = folder / "x.semantic.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize("normalize", [True, False])
def test_texts_of_the_table_have_its_vectors(tmp_path: Path, normalize: bool) -> None:
    encoded(tmp_path, normalize=normalize)
    space = TextSpace.open(Config(tmp_path))
    assert space.dimension == 3 and space.encoder_name == "lsa:3, seed 5"
    for side in SIDES:
        table = SemanticEmbedding.load([tmp_path], "x", side)
        vectors = space.vectors([TEXTS[side][token] for token in table.tokens.tolist()])
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, table.vectors)


def test_texts_that_say_nothing_are_zeros(tmp_path: Path) -> None:
    encoded(tmp_path)
    vectors = TextSpace.open(Config(tmp_path)).vectors(["", " \n", "космос и роботы", "half of a pair \ud83d", "space"])
    assert vectors.any(axis=1).tolist() == [False, False, False, False, True]
    assert TextSpace.open(Config(tmp_path)).vectors([]).shape == (0, 3)


def test_a_text_without_end_is_refused(tmp_path: Path) -> None:
    encoded(tmp_path)
    with pytest.raises(DataError, match=r"Text 2 of those given has 10,000,000 characters, expected at most 1,000,000"):
        TextSpace.open(Config(tmp_path)).vectors(["space", "x" * (10 * MAX_CHARACTERS)])


# ---------------------------------------------------------------------- what lsa learned


def test_a_run_that_was_stopped_keeps_what_was_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(Job, "_finish", stop)
        encoded(tmp_path)
    assert not (tmp_path / "x.lsa.npz").exists()
    encoded(tmp_path)
    assert TextSpace.open(Config(tmp_path)).vectors(["space"]).any()
    assert not list(tmp_path.glob(".x.encode*"))


class Length(Encoder):
    """Encodes a text by its length."""

    known_as, name = "length", "length"

    def encode(self, texts: Any) -> np.ndarray:
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


def test_another_encoder_removes_what_was_learned(tmp_path: Path) -> None:
    encoded(tmp_path)
    assert (tmp_path / "x.lsa.npz").is_file()
    encode_texts(tmp_path, "x", TEXTS, Length(EncoderSettings()), overwrite=True, progress=False)
    assert not (tmp_path / "x.lsa.npz").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def packed(path: Path) -> None:
    np.savez_compressed(path, **dict(np.load(path)))


def objects(path: Path) -> None:
    np.savez(path, **{**np.load(path), "words": np.array([object()])})


def of_others(path: Path) -> None:
    np.savez(path, **{**np.load(path), "profiles_sha256": np.array("0" * 64)})


def of_other_settings(path: Path) -> None:
    np.savez(path, **{**np.load(path), "encoder": np.array("lsa:3, seed 6")})


def one_word_less(path: Path) -> None:
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "weights": arrays["weights"][1:]})


def not_finite(path: Path) -> None:
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "basis": np.full_like(arrays["basis"], np.nan)})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "not a zip file"),
        (packed, "its arrays are compressed"),
        (objects, "Object arrays cannot be loaded"),
        (of_others, "it is of other embeddings than those beside it: its profiles_sha256"),
        (of_other_settings, "its encoder is 'lsa:3, seed 6'"),
        (one_word_less, r"it has \d+ words, \(\d+,\) weights"),
        (not_finite, "a value that is not finite"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    encoded(tmp_path)
    damage(tmp_path / "x.lsa.npz")
    with pytest.raises(DataError, match=rf"x\.lsa\.npz' is not what .*{reason}.*build-semantics --overwrite"):
        TextSpace.open(Config(tmp_path)).vectors(["space"])


def test_without_the_file_lsa_learns_again_from_the_same_texts(tmp_path: Path) -> None:
    encoded(tmp_path)
    before = TextSpace.open(Config(tmp_path)).vectors(["space bread"])
    (tmp_path / "x.lsa.npz").unlink()
    np.testing.assert_allclose(
        TextSpace.open(Config(tmp_path), lambda: TEXTS).vectors(["space bread"]), before, atol=1e-5
    )
    with pytest.raises(DataError, match=r"There is no '.*x\.lsa\.npz'.*nor the profiles"):
        TextSpace.open(Config(tmp_path)).vectors(["space"])
    others = {**TEXTS, "item": dict.fromkeys(TEXTS["item"], "garlic and bread at home")}
    with pytest.raises(DataError, match="makes other vectors than those in 4 rows"):
        TextSpace.open(Config(tmp_path), lambda: others).vectors(["space"])


# ---------------------------------------------------------------------- how the encoder is opened


def test_what_is_recorded_says_how_to_open_the_encoder(tmp_path: Path) -> None:
    encoded(tmp_path)
    assert json.loads((tmp_path / "x.semantic.json").read_text())["encoder_settings"] == {
        "known_as": "lsa",
        "dimension": 3,
        "seed": 5,
    }
    given = EncoderSettings(
        "m", prompt="p: ", dimension=8, base_url="https://me:pass@host/v1?key=k", key_variable="KEY"
    )
    assert make_encoder("openai", given).recorded_settings() == {
        "model": "m",
        "prompt": "p: ",
        "dimension": 8,
        "base_url": "https://host/v1",
        "key_variable": "KEY",
    }


def test_a_file_of_a_version_before_is_read_and_completed(tmp_path: Path) -> None:
    encoded(tmp_path)
    before = TextSpace.open(Config(tmp_path)).vectors(["space"])
    described(tmp_path, encoder_settings=None)
    np.testing.assert_array_equal(TextSpace.open(Config(tmp_path)).vectors(["space"]), before)
    assert "nothing was done" in str(encoded(tmp_path))
    assert "encoder_settings" in json.loads((tmp_path / "x.semantic.json").read_text())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"encoder": None}, DataError, "Nothing says which encoder made the embeddings"),
        ({"encoder": "ada", "encoder_settings": None}, DataError, "names the encoder ada, and not how it is opened"),
        ({"encoder": "lsa:9, seed 5"}, DataError, "by lsa:9, seed 5, and what is opened now is lsa:3, seed 5"),
        ({"encoder_settings": {"known_as": "no-such"}}, SettingError, "There is no encoder 'no-such'"),
        ({"encoder_settings": {"known_as": "lsa", "colour": "red"}}, DataError, "has no 'colour'"),
        ({"encoder_settings": {"known_as": "lsa", "dimension": "many"}}, DataError, "encoder_settings in .* cannot be"),
        ({"encoder_settings": ["lsa"]}, DataError, "'encoder_settings' is a list"),
        (
            {"encoder_settings": {"known_as": "sentence-transformers", "model": "mine (sha256 01234567)"}},
            SettingError,
            "which lay in a folder. Say where it lies now: --encoder-model=FOLDER",
        ),
    ],
)
def test_a_description_that_opens_nothing(
    tmp_path: Path, changes: dict[str, Any], error: type[RLMRecError], message: str
) -> None:
    encoded(tmp_path)
    described(tmp_path, **changes)
    with pytest.raises(error, match=message):
        TextSpace.open(Config(tmp_path))


def test_embeddings_by_hand_and_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"looked for x\.itememb\.npy(.|\n)*recbole-rlmrec build-semantics --dataset=x"):
        TextSpace.open(Config(tmp_path))
    encoded(tmp_path)
    (tmp_path / "x.semantic.json").unlink()
    with pytest.raises(DataError, match=r"x\.semantic\.json does not name it, or is not there"):
        TextSpace.open(Config(tmp_path))


def test_a_model_in_a_folder_is_found_where_it_lies_now(tmp_path: Path) -> None:
    encoded(tmp_path)
    for name, content in (("model", "[]"), ("other", "[1]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "modules.json").write_text(content)
    encoder = make_encoder("sentence-transformers", EncoderSettings(model=str(tmp_path / "model")))
    recorded = encoder.recorded_settings()
    assert str(tmp_path) not in str(recorded)
    described(tmp_path, encoder=encoder.name, encoder_settings={"known_as": encoder.known_as, **recorded})
    config = Config(tmp_path)
    config["encoder_model"] = str(tmp_path / "model")
    assert TextSpace.open(config).encoder_name == encoder.name
    config["encoder_model"] = str(tmp_path / "other")
    with pytest.raises(DataError, match=r"what is opened now is sentence-transformers:other"):
        TextSpace.open(config)


def test_an_encoder_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded(tmp_path)
    recorded = {"known_as": "sentence-transformers", "model": "some/model"}
    described(tmp_path, encoder="sentence-transformers:some/model", encoder_settings=recorded)
    space = TextSpace.open(Config(tmp_path))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(SettingError, match=r"needs the package of that name .* pip install 'recbole-rlmrec\[encode\]'"):
        space.vectors(["a"])


def test_an_encoder_that_answers_otherwise_is_refused() -> None:
    with pytest.raises(ServiceError, match=r"of the shape \(1, 2\).*expected.*\(1, 3\)"):
        TextSpace(Length(EncoderSettings()), 3, normalized=True).vectors(["a"])
