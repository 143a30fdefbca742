"""What a trained model knows as NumPy arrays, whose rows are named by the ids of the data files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.backbone.contract import Backbone
from recbole_rlmrec.model.registry import endings_of
from recbole_rlmrec.model.scores import Scorer, require_pairs, scorer_of
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.wording import examples, nearest

#: So many scores are computed at a time.
_BLOCK = 2**22

#: Ids that a misspelt one is compared with, at most: each takes some microseconds.
_MOST_COMPARED = 20_000


class Representations(NamedTuple):
    """Representations of users or of items.

    Attributes:
        tokens: ids as in the data files, ``[n]``, text.
        vectors: ``[n, d]``, float32.
    """

    tokens: np.ndarray
    vectors: np.ndarray


class Scores(NamedTuple):
    """Scores of all items for some users; the larger one is ranked first.

    Attributes:
        users: ids as in the data files, ``[n]``, text.
        items: the same, ``[m]``.
        values: ``[n, m]``, float32; of items that a user has already, too.
    """

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray


def representations_of(model: Any, dataset: Any, side: Side) -> Representations:
    """Return the representations of all users, or of all items, as evaluation computes them.

    RecBole's ``[PAD]`` is left out. The vectors are a copy, which belongs to the caller.

    Args:
        model: a backbone, alone or aligned; it is put into evaluation mode.
        dataset: of the model.
        side: ``user`` or ``item``.

    Raises:
        SettingError: the model has none, or there is no such side.
    """
    model.eval()
    with torch.no_grad():
        table = table_of(model, side)
    return Representations(tokens_of(dataset, side), _array(table)[1:].copy())


def table_of(model: Any, side: Side) -> Tensor:
    """Return the representations of one side as the model computes them, ``[ids, d]``; ``[PAD]`` is row 0.

    Raises:
        SettingError: the model has none, or there is no such side.
    """
    if side not in SIDES:
        raise SettingError(f"side={side!r}: expected 'user' or 'item'.")
    return tables_of(model)[SIDES.index(side)]


def tables_of(model: Any) -> tuple[Tensor, Tensor]:
    """Return the representations of users and items as the model computes them; see :func:`table_of`.

    Raises:
        SettingError: the model has none.
    """
    if not isinstance(model, Backbone):
        raise SettingError(_lacks_representations(type(model).__name__))
    return model.representation()


def scores_of(model: Any, dataset: Any, users: Sequence[str] | None = None) -> Scores:
    """Return the scores of all items for some users, or for all of them.

    RecBole's ``[PAD]`` is left out. All users times all items are four bytes each: ask for a part where that is much.

    Args:
        model: any general recommender; it is put into evaluation mode.
        dataset: of the model.
        users: ids as in the data files; all users if not given.

    Raises:
        SettingError: the model scores something else than pairs of a user and an item.
        DataError: there is no such user.
    """
    require_pairs(model)
    model.eval()
    known = tokens_of(dataset, "user")
    ids = np.arange(1, len(known) + 1) if users is None else ids_of(dataset, "user", users)
    with torch.no_grad():
        values = score_table(scorer_of(model, dataset), ids, _BLOCK)
    return Scores(known[ids - 1], tokens_of(dataset, "item"), values)


def score_table(scorer: Scorer, users: np.ndarray, at_a_time: float) -> np.ndarray:
    """Return the scores of some users by all columns of a scorer, float32 ``[n, n_columns]``.

    Args:
        scorer: what scores them; the model is in evaluation mode, without gradients.
        users: ids, int64 ``[n]``.
        at_a_time: scores that are computed at a time; those of one user at least.
    """
    values = np.empty((len(users), scorer.n_columns), dtype=np.float32)
    n_rows = max(1, int(at_a_time / max(1, scorer.n_columns)))
    for first in range(0, len(users) if scorer.n_columns else 0, n_rows):
        block = torch.from_numpy(users[first : first + n_rows])
        values[first : first + n_rows] = _array(scorer.block(block, 0, scorer.n_columns))
    return values


def _array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's numbers in float32, outside of any gradient."""
    return tensor.detach().float().cpu().numpy()


def tokens_of(dataset: Any, side: Side) -> np.ndarray:
    """Return the original ids of users or items, objects ``[n]``, in the order of their rows, without ``[PAD]``."""
    return np.asarray(dataset.field2id_token[_field(dataset, side)])[1:]


def ids_of(dataset: Any, side: Side, tokens: Iterable[str], where: Callable[[int], str] | None = None) -> np.ndarray:
    """Return the rows of users or items by their original ids, int64 ``[n]``.

    Args:
        dataset: of the model.
        side: ``user`` or ``item``.
        tokens: the original ids; a text is one of them.
        where: says of the n-th of them where it stands, for the message.

    Raises:
        DataError: there is no such id; with the nearest that there is.
    """
    rows = dataset.field2token_id[_field(dataset, side)]
    found = []
    for place, token in enumerate([tokens] if isinstance(tokens, str) else tokens):
        row = rows.get(token, 0) if isinstance(token, str) else 0
        if row == 0:
            stands = f"{where(place)}: " if where is not None else ""
            known = tokens_of(dataset, side)
            near = _near(str(token), known)
            raise DataError(
                f"{stands}The training data of '{dataset.dataset_name}' have no {side} {token!r}. Expected ids as in "
                f"the data files, as text, such as {examples(known)}." + (f" Did you mean {near!r}?" if near else "")
            )
        found.append(row)
    return np.array(found, dtype=np.int64)


def _near(token: str, known: np.ndarray) -> str | None:
    """Return the id that is most likely meant; of very many, those that begin alike are looked at."""
    if len(known) > _MOST_COMPARED:
        beginning = token[: len(token) // 2]
        known = np.array([each for each in known if str(each).startswith(beginning)][:_MOST_COMPARED], dtype=object)
    return nearest(token, map(str, known))


def _field(dataset: Any, side: Side) -> str:
    return str(dataset.uid_field if side == "user" else dataset.iid_field)


def _lacks_representations(name: str) -> str:
    endings = endings_of(name)
    remedy = (
        f"Train {name}{endings[0]} with a weight of 0, which is {name} itself, or ask for scores()."
        if endings
        else "Ask for scores()."
    )
    return f"It is not known what {name} represents users and items by. {remedy}"
