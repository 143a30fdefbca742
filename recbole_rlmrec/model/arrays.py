"""What a trained model knows as NumPy arrays, whose rows are named by the ids of the data files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.backbone.contract import Backbone
from recbole_rlmrec.model.registry import endings_of
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.wording import examples

#: So many scores are computed at a time.
_BLOCK = 2**22


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
    if side not in SIDES:
        raise SettingError(f"side={side!r}: expected 'user' or 'item'.")
    model.eval()
    if not isinstance(model, Backbone):
        raise SettingError(_lacks_representations(type(model).__name__))
    with torch.no_grad():
        table = model.representation()[SIDES.index(side)]
    return Representations(_tokens(dataset, side), _array(table)[1:].copy())


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
    if model.type not in (ModelType.GENERAL, ModelType.TRADITIONAL):
        raise SettingError(
            f"{type(model).__name__} does not score pairs of a user and an item alone, so there is no table of its "
            "scores. Models of RecBole's general recommenders have one."
        )
    model.eval()
    known = _tokens(dataset, "user")
    ids = np.arange(1, len(known) + 1) if users is None else _ids(dataset, users)
    values = np.empty((len(ids), dataset.item_num - 1), dtype=np.float32)
    n_rows = max(1, _BLOCK // dataset.item_num)
    with torch.no_grad():
        for first in range(0, len(ids), n_rows):
            block = torch.from_numpy(ids[first : first + n_rows]).to(model.device)
            values[first : first + n_rows] = _array(_scores(model, dataset, block))[:, 1:]
    return Scores(known[ids - 1], _tokens(dataset, "item"), values)


def _scores(model: Any, dataset: Any, users: Tensor) -> Tensor:
    """Return the scores of all items, ``[B, I]``, for user ids ``[B]``."""
    n_items = dataset.item_num
    try:
        found: Tensor = model.full_sort_predict(Interaction({dataset.uid_field: users}))
    except NotImplementedError:  # a model of RecBole's that scores pairs only
        items = torch.arange(n_items, device=users.device).repeat(len(users))
        pairs = {dataset.uid_field: users.repeat_interleave(n_items), dataset.iid_field: items}
        found = model.predict(Interaction(pairs))
    return found.view(len(users), n_items)


def _array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's numbers in float32, outside of any gradient."""
    return tensor.detach().float().cpu().numpy()


def _tokens(dataset: Any, side: Side) -> np.ndarray:
    field = dataset.uid_field if side == "user" else dataset.iid_field
    return np.asarray(dataset.field2id_token[field])[1:]


def _ids(dataset: Any, users: Sequence[str]) -> np.ndarray:
    """Return the rows of users by their tokens.

    Raises:
        DataError: there is no such user.
    """
    rows = dataset.field2token_id[dataset.uid_field]
    given = [users] if isinstance(users, str) else list(users)
    unknown = [user for user in given if not isinstance(user, str) or user not in rows or rows[user] == 0]
    if unknown:
        raise DataError(
            f"The training data of '{dataset.dataset_name}' have no user {unknown[0]!r}. Expected ids as in the data "
            f"files, as text, such as {examples(_tokens(dataset, 'user'))}."
        )
    return np.array([rows[user] for user in given], dtype=np.int64)


def _lacks_representations(name: str) -> str:
    endings = endings_of(name)
    remedy = (
        f"Train {name}{endings[0]} with a weight of 0, which is {name} itself, or ask for scores()."
        if endings
        else "Ask for scores()."
    )
    return f"It is not known what {name} represents users and items by. {remedy}"
