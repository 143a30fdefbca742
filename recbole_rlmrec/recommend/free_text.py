"""Scores of items for a sentence, alone or mixed with a user's."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbole_rlmrec.data.semantic_embedding import JoinedEmbedding
from recbole_rlmrec.encoder.base import unit_rows
from recbole_rlmrec.encoder.text_space import TextSpace
from recbole_rlmrec.errors import DataError, SettingError

#: How much of a mixed score is the sentence's: the weight that finds most of users' validation items of the genres that
#: sentences speak of, on average over texts with and without the genres' names (results/free-text).
WEIGHT = 0.3

#: So many items nearest to a sentence say what is meant in the model's space (results/free-text).
_N_NEAREST = 20


class FreeText:
    """Scores items by a text.

    A score is the mean of two numbers, each standardised over the items: the cosine between the text's vector and the
    item's semantic embedding; and, by the model's representations, the cosine between the item and the mean of the 20
    items that are nearest to the text. The second finds what the same people choose, whatever its text says. Of models
    without representations it is the first alone.

    Args:
        space: of the dataset's embeddings.
        embeddings: of the items, joined to their ids.
        representations: of the items by the model, ``[ids, d]``, those that were added last; None where it has none.
        added: embeddings of items that were added, float32 ``[m, D]``; None for none.
    """

    def __init__(
        self,
        space: TextSpace,
        embeddings: JoinedEmbedding,
        representations: np.ndarray | None,
        added: np.ndarray | None = None,
    ) -> None:
        self._space, self._embeddings = space, embeddings
        self._added = np.empty((0, embeddings.embedding.dimension), dtype=np.float32) if added is None else added
        self._directions = None if representations is None else unit_rows(representations)
        self._last: tuple[str, np.ndarray] | None = None

    @property
    def covered(self) -> np.ndarray:
        """Which items have an embedding, and so a score, bool ``[ids]``."""
        return np.concatenate([self._embeddings.covered, np.ones(len(self._added), dtype=bool)])

    def scores(self, text: str) -> np.ndarray:
        """Return the scores of all items by a text, float64 ``[ids]``; NaN of those without an embedding.

        Raises:
            DataError: the text is empty, too long, or says nothing to the encoder; or see ``TextSpace.vectors``.
        """
        if self._last is None or self._last[0] != text:  # the same sentence may be mixed with many users
            self._last = text, self._scores(text)
        return self._last[1]

    def _scores(self, text: str) -> np.ndarray:
        if not text.strip():
            raise DataError("The query is empty. Expected a few words, such as 'space battles and aliens'.")
        [vector] = self._space.vectors([text])
        if not vector.any():
            raise DataError(
                f"The encoder of the embeddings, {self._space.encoder_name}, knows no word of the query {text[:80]!r}. "
                "Write it in the language of the items' texts, or with other words."
            )
        cosines = np.full(len(self.covered), np.nan)
        for ids, vectors in self._embeddings.blocks():
            rows = vectors.astype(np.float32)
            cosines[ids] = rows @ vector / np.linalg.norm(rows, axis=1)
        cosines[len(self._embeddings.covered) :] = self._added @ vector / np.linalg.norm(self._added, axis=1)
        ids = np.flatnonzero(self.covered)
        found = cosines.copy()
        found[ids] = standardized(cosines[ids])
        if self._directions is not None:
            nearest = ids[np.argsort(-cosines[ids], kind="stable")[:_N_NEAREST]]
            alike = self._directions @ self._directions[nearest].mean(axis=0)
            found[ids] = (found[ids] + standardized(alike[ids])) / 2
        return found


def standardized(values: np.ndarray) -> np.ndarray:
    """Return numbers less their mean and divided by their standard deviation, float64; zeros where all are equal.

    >>> standardized(np.array([1.0, 3.0])).tolist(), standardized(np.array([0.1])).tolist()
    ([-1.0, 1.0], [0.0])
    """
    centred = values.astype(np.float64) - values.mean(dtype=np.float64)
    deviation = centred.std()
    return centred / deviation if deviation > 0 else np.zeros(len(values))


def require_weight(weight: Any) -> None:
    """Check how much of a score is the sentence's.

    Raises:
        SettingError: it is no number from 0 to 1.
    """
    if isinstance(weight, bool) or not isinstance(weight, (int, float, np.number)) or not 0 <= weight <= 1:
        raise SettingError(f"weight={weight!r}: expected a number from 0 (the user alone) to 1 (the text alone).")
