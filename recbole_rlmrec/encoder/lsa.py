"""Latent semantic analysis: TF-IDF and a truncated SVD, fitted on the profiles themselves. No model to download."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from recbole_rlmrec.encoder.base import Encoder, EncoderSettings, require_unset
from recbole_rlmrec.errors import DataError

_logger = logging.getLogger(__name__)

DEFAULT_DIMENSION = 256

# A word of one text alone links it to no other.
_MIN_TEXTS = 2
_MIN_WORDS = 2  # what scikit-learn decomposes
# Word pairs distinguish "Half-Life" from a life and a half, but their number has no bound; the most frequent are kept.
_MAX_WORDS = 200_000
# What is counted; the same whenever texts are fitted or encoded.
_COUNTING: Mapping[str, Any] = {"ngram_range": (1, 2), "stop_words": "english", "dtype": np.float32}


class LSAEncoder(Encoder):
    """TF-IDF of words and word pairs of users' and items' texts together, projected onto the leading components.

    Both sides share the words and the components, so a user is near the items whose words its profile has. Words are
    runs of letters and digits, without English stop words; languages that write no spaces are not cut into words. A
    text without a word that another text has too gets a zero vector.
    """

    known_as = "lsa"
    learns_from_texts = True

    def __init__(self, settings: EncoderSettings) -> None:
        require_unset("lsa", settings, "model", "prompt", "device", "base_url", "batch_size")
        self.dimension = settings.dimension or DEFAULT_DIMENSION
        self.seed = settings.seed
        self.name = f"lsa:{self.dimension}, seed {self.seed}"
        self.settings = settings
        self._words: list[str] = []
        self._weights = np.empty(0, dtype=np.float32)
        self._components: np.ndarray | None = None

    def fit(self, texts: Sequence[str]) -> None:
        """Learn words and components from all texts.

        Raises:
            DataError: hardly a word occurs in two texts.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=_MIN_TEXTS, max_features=_MAX_WORDS, **_COUNTING)
        try:
            table = vectorizer.fit_transform(texts)
        except ValueError:  # an empty vocabulary, or every word is pruned
            table = np.empty((len(texts), 0), dtype=np.float32)
        if table.shape[1] < _MIN_WORDS:
            raise DataError(
                f"lsa finds {table.shape[1]} words that two of the {len(texts)} texts share, and needs {_MIN_WORDS}. "
                "It compares texts by their words: give it more or longer texts, or take the encoder "
                "sentence-transformers."
            )
        n_components = min(self.dimension, *table.shape)
        if n_components < self.dimension:
            _logger.info(
                f"lsa: {n_components} components instead of {self.dimension}, as there are {table.shape[0]} texts and "
                f"{table.shape[1]} words."
            )
        components = TruncatedSVD(n_components, random_state=self.seed).fit(table).components_
        # A singular vector's sign is arbitrary: scikit-learn's choice has changed between its releases.
        leading = np.abs(components).argmax(axis=1)
        signs = np.sign(components[np.arange(n_components), leading])
        self._components = (components * signs[:, None]).T.astype(np.float32)
        self._words, self._weights = vectorizer.get_feature_names_out().tolist(), vectorizer.idf_

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the texts' coordinates on the components, float32 ``[n, D]``; the texts need not be those of ``fit``.

        Raises:
            ValueError: ``fit`` was not called.
        """
        if self._components is None:
            raise ValueError("LSAEncoder.encode needs fit(texts) first.")
        from sklearn.preprocessing import normalize

        # As TfidfVectorizer does it, which can be given words, but not their weights in single precision.
        table = self._counter.transform(texts)
        table.data = (np.log(table.data) + 1) * self._weights[table.indices]
        return np.asarray(normalize(table, copy=False) @ self._components, dtype=np.float32)

    @cached_property
    def _counter(self) -> Any:
        """What counts the words that were learned."""
        from sklearn.feature_extraction.text import CountVectorizer

        return CountVectorizer(vocabulary=self._words, **_COUNTING)

    def learned(self) -> Mapping[str, np.ndarray]:
        """Return ``words`` (UTF-8, one a line, ``[bytes]``), their ``weights``, ``[n]``, and the ``basis``, ``[n, D]``.

        Raises:
            ValueError: ``fit`` was not called.
        """
        if self._components is None:
            raise ValueError("LSAEncoder.learned needs fit(texts) first.")
        words = np.frombuffer("\n".join(self._words).encode("utf-8"), dtype=np.uint8)
        return {"words": words, "weights": self._weights, "basis": self._components}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take what an earlier ``fit`` learned.

        Raises:
            ValueError: the arrays are not those of :meth:`learned`; the message is a clause.
        """
        words, weights, basis = (arrays.get(name, np.empty(0)) for name in ("words", "weights", "basis"))
        if words.dtype != np.uint8 or words.ndim != 1 or weights.dtype != np.float32 or basis.dtype != np.float32:
            raise ValueError("it does not hold words, weights and a basis")
        known = words.tobytes().decode("utf-8").split("\n")  # what is no UTF-8 is a ValueError
        if len(set(known)) != len(known) or weights.shape != (len(known),) or basis.shape[:-1] != weights.shape:
            raise ValueError(f"it has {len(known):,} words, {weights.shape} weights and a basis {basis.shape}")
        if not (np.isfinite(weights).all() and np.isfinite(basis).all()):
            raise ValueError("it holds a value that is not finite")
        self._words, self._weights, self._components = known, weights, basis
