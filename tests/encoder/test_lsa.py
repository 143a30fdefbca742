"""LSA against a plain TF-IDF and a dense singular value decomposition."""

from __future__ import annotations

import itertools
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.encoder.base import EncoderSettings, make_encoder
from recbole_rlmrec.encoder.encode import encode_texts
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.sides import Side

TEXTS = [
    "space opera space opera robots",
    "robots in space",
    "cooking with garlic and garlic bread",
    "garlic bread at home",
    "a space cooking programme",
    "home robots programme",
]


def plain_tf_idf(texts: list[str]) -> np.ndarray:
    """Words and pairs in at least two texts; (1 + ln tf) * (1 + ln((1 + n) / (1 + df))), rows of length 1."""
    stop_words = {"in", "with", "and", "at", "a"}
    counts: list[dict[str, int]] = []
    for text in texts:
        words = [word for word in re.findall(r"\w\w+", text) if word not in stop_words]
        terms = words + [f"{first} {second}" for first, second in itertools.pairwise(words)]
        counts.append({term: terms.count(term) for term in terms})
    terms = sorted({term for row in counts for term in row})
    frequency = {term: sum(term in row for row in counts) for term in terms}
    terms = [term for term in terms if frequency[term] >= 2]
    assert "garlic bread" in terms and "opera" not in terms
    table = np.zeros((len(texts), len(terms)))
    for row, found in zip(table, counts):
        for column, term in enumerate(terms):
            if term in found:
                idf = 1 + np.log((1 + len(texts)) / (1 + frequency[term]))
                row[column] = (1 + np.log(found[term])) * idf
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def fitted(dimension: int, texts: list[str] = TEXTS) -> Any:
    encoder = make_encoder("lsa", EncoderSettings(dimension=dimension))
    encoder.fit(texts)
    return encoder


@pytest.mark.parametrize("dimension", [2, 4])
def test_similarities_are_those_of_the_dense_decomposition(dimension: int) -> None:
    u, s, _ = np.linalg.svd(plain_tf_idf(TEXTS), full_matrices=False)
    exact = u[:, :dimension] * s[:dimension]
    vectors = fitted(dimension).encode(TEXTS)
    assert vectors.shape == (6, dimension) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors @ vectors.T, exact @ exact.T, atol=1e-5)
    np.testing.assert_allclose(np.abs(vectors), np.abs(exact), atol=1e-4)


def test_same_bytes_every_time_and_block_by_block() -> None:
    vectors = fitted(3).encode(TEXTS)
    assert vectors.tobytes() == fitted(3).encode(TEXTS).tobytes()
    encoder = fitted(3)
    parts = [encoder.encode(TEXTS[:1]), encoder.encode(TEXTS[1:4]), encoder.encode(TEXTS[4:])]
    assert vectors.tobytes() == np.concatenate(parts).tobytes()
    components = encoder._components
    leading = np.abs(components).argmax(axis=0)
    assert (components[leading, np.arange(3)] > 0).all()


def test_users_and_items_share_a_space(tmp_path: Path) -> None:
    texts: dict[Side, dict[str, str]] = {
        "user": {"astronaut": "likes space and robots", "chef": "likes garlic bread", "nobody": "likes qwertz"},
        "item": {str(number): text for number, text in enumerate(TEXTS)},
    }
    encoder = make_encoder("lsa", EncoderSettings(dimension=4))
    summary = encode_texts(tmp_path, "x", texts, encoder, progress=False)
    user, item = (SemanticEmbedding.load([tmp_path], "x", side) for side in ("user", "item"))
    nearest = item.vectors @ user.vectors.T
    by_user = {token: nearest[:, row] for row, token in enumerate(user.tokens.tolist())}
    assert set(by_user["astronaut"].argsort()[-2:]) == {0, 1} and set(by_user["chef"].argsort()[-2:]) == {2, 3}
    assert by_user["astronaut"][[2, 3]].max() < 0.5
    assert summary.zero["user"] == () and summary.rows["user"] == 3  # all three like something
    texts["user"]["nobody"] = "qwertz"
    summary = encode_texts(tmp_path, "x", texts, make_encoder("lsa", EncoderSettings()), overwrite=True, progress=False)
    assert summary.zero == {"user": ("nobody",), "item": ()}
    assert summary.encoder == "lsa:256, seed 2023"


def test_no_more_components_than_texts_or_words(caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        assert fitted(50).encode(TEXTS).shape == (6, 6)
    assert "6 components instead of 50, as there are 6 texts" in caplog.text
    assert fitted(50, ["red tea", "tea cup", "black tea", "blue cup"]).encode(["tea"]).shape == (1, 2)


def test_texts_that_share_no_word_are_refused() -> None:
    for texts, n_words in ((["alpha", "beta"], 0), (["the", "and"], 0), (["red tea", "cold tea"], 1)):
        with pytest.raises(DataError, match=f"lsa finds {n_words} words that two of the 2 texts share"):
            fitted(2, texts)


def test_wrong_use_is_said() -> None:
    with pytest.raises(ValueError, match="needs fit"):
        make_encoder("lsa", EncoderSettings()).encode(["a"])
    with pytest.raises(SettingError, match="lsa cannot use prompt"):
        make_encoder("lsa", EncoderSettings(prompt="Represent: "))
    for name, value in (("device", "cpu"), ("base_url", "http://localhost/v1"), ("batch_size", 8)):
        with pytest.raises(SettingError, match=f"lsa cannot use {name}"):
            make_encoder("lsa", EncoderSettings(**{name: value}))  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="dimension is 0"):
        EncoderSettings(dimension=0)
    with pytest.raises(
        SettingError, match=r"no encoder 'word2vec'. Expected one of openai, sentence-transformers, lsa"
    ):
        make_encoder("word2vec", EncoderSettings())
