"""New items and users: what is given of them, checked; and known items as they would be if they were new."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_rlmrec.data.atomic_file import id_fault
from recbole_rlmrec.data.embedding_files import metadata_path, read_tokens, read_vectors, table_prefix
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.encoder.learned_file import read_arrays
from recbole_rlmrec.encoder.text_space import TextSpace
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.model.arrays import tokens_of
from recbole_rlmrec.profile.newcomers import item_profiles_of
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import item_of, read_items, require_id
from recbole_rlmrec.text.json_lines import JsonLines, MalformedLineError
from recbole_rlmrec.text.load import load_items
from recbole_rlmrec.wording import count, examples

_logger = logging.getLogger(__name__)

#: So many known items, evenly chosen, are encoded as new ones at most.
N_AS_NEW = 2000


@dataclass(frozen=True)
class NewItems:
    """Items that are ranked and were not trained.

    Attributes:
        tokens: ids, objects ``[m]``.
        titles: None where unknown, objects ``[m]``.
        profiles: token -> text of the profile, of those that have one.
        vectors: semantic embeddings, float32 ``[m, D]``.
        representations: in the model's space, ``[m, d]``.
    """

    tokens: np.ndarray
    titles: np.ndarray
    profiles: Mapping[str, str]
    vectors: np.ndarray
    representations: Tensor

    def joined(self, others: NewItems) -> NewItems:
        """Return these items and, after them, others."""
        return NewItems(
            np.concatenate([self.tokens, others.tokens]),
            np.concatenate([self.titles, others.titles]),
            {**self.profiles, **others.profiles},
            np.concatenate([self.vectors, others.vectors]),
            torch.cat([self.representations, others.representations]),
        )


@dataclass(frozen=True)
class NewUser:
    """A user without training.

    Attributes:
        token: a name for the lists.
        text: of a profile; empty without one.
        items: ids of items that the user likes; where there are some, they represent the user, and not the text.
    """

    token: str
    text: str = ""
    items: tuple[str, ...] = field(default=())


def checked_items(items: Iterable[Item | Mapping[str, Any]], known: Mapping[str, Any]) -> list[Item]:
    """Return new items, each once and unknown until now.

    Args:
        items: items, or mappings with ``token`` (or ``item_id``) and any of ``title``, ``description``, ``attributes``.
        known: tokens that there are.

    Raises:
        DataError: one cannot be used; with its number.
    """
    found: dict[str, Item] = {}
    for number, each in enumerate(items, start=1):
        try:
            item = each if isinstance(each, Item) else item_of({"item_id": each.get("token"), **each})
        except MalformedLineError as error:
            raise DataError(f"Item {number} of those given {error}.") from error
        fault = id_fault(item.token)
        if fault:
            raise DataError(f"Item {number} of those given has the id {item.token!r:.80}, which {fault}.")
        if item.token in known or item.token in found:
            reason = "is known already" if item.token in known else "is given twice"
            raise DataError(f"Item {item.token!r}, number {number} of those given, {reason}. Expected new items, once.")
        found[item.token] = item
    return list(found.values())


def checked_users(users: Iterable[NewUser | Mapping[str, Any]]) -> list[NewUser]:
    """Return new users, each once.

    Raises:
        DataError: one has neither text nor items, or is given twice; with its number.
    """
    found: dict[str, NewUser] = {}
    for number, each in enumerate(users, start=1):
        try:
            user = each if isinstance(each, NewUser) else user_of(each)
        except MalformedLineError as error:
            raise DataError(f"User {number} of those given {error}.") from error
        if user.token in found:
            raise DataError(f"User {user.token!r}, number {number} of those given, is given twice.")
        found[user.token] = user
    return list(found.values())


def vectors_of(space: TextSpace, config: Any, items: Sequence[Item]) -> tuple[np.ndarray, dict[str, str]]:
    """Return the semantic embeddings of new items' profiles, float32 ``[n, D]``, and the profiles by token.

    Raises:
        DataError: see :func:`~recbole_rlmrec.profile.newcomers.item_profiles_of`.
        RLMRecError: see :meth:`~recbole_rlmrec.encoder.text_space.TextSpace.vectors`.
    """
    profiles = item_profiles_of(config, items)
    return space.vectors([profiles.get(item.token, "") for item in items]), profiles


def require_vectors(vectors: np.ndarray, items: Sequence[Item]) -> None:
    """Check that each item has a vector that says something.

    Raises:
        DataError: it has not.
    """
    if len(vectors) != len(items):
        raise DataError(f"{count(len(vectors), 'vector')} for {count(len(items), 'item')}; expected one for each.")
    bad = np.array([not np.isfinite(vector).all() for vector in vectors], dtype=bool)
    if bad.any():
        raise DataError(f"The vector of item {items[int(bad.argmax())].token!r} has values that are not finite.")
    require_texts(vectors, [item.token for item in items])


def require_texts(vectors: np.ndarray, tokens: Sequence[str]) -> None:
    """Check that no vector is zero, which is that of a text that says nothing.

    Raises:
        DataError: one is.
    """
    empty = [token for token, vector in zip(tokens, vectors) if not np.any(vector)]
    if empty:
        raise DataError(
            f"No text says anything of {examples(empty)}, {len(empty)} of {len(tokens)}: expected words that the "
            "encoder knows, or a vector that is not zero."
        )


def as_new(space: TextSpace, config: Any, dataset: Any, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings that some known items would have if they were new.

    Their profiles are written without interactions and encoded; those of up to ``N_AS_NEW`` evenly chosen items. The
    embeddings are kept in ``<dataset>.as-new.npz`` beside the dataset's, where a file can be written: with a model on
    the processor they take a minute.

    Args:
        space: of the dataset's embeddings.
        config: of the run.
        dataset: the whole one.
        ids: internal ids, ascending, int64 ``[m]``.

    Returns:
        The ids of those of which something is known, and their embeddings, float32 ``[n, D]``.

    Raises:
        DataError: nothing is known of any.
    """
    tokens = np.concatenate([[None], tokens_of(dataset, "item")])
    chosen = ids[np.unique(np.linspace(0, len(ids) - 1, min(len(ids), N_AS_NEW)).astype(np.int64))]
    items = load_items(config, [str(token) for token in tokens[chosen]])
    profiles = item_profiles_of(config, items.values())
    kept = np.array([each for each in chosen if tokens[each] in profiles], dtype=np.int64)
    if not len(kept):
        raise DataError(f"Nothing is known of the items of '{dataset.dataset_name}': there is no text of any.")
    texts = [profiles[tokens[each]] for each in kept]
    path = metadata_path(config.data_folders, table_prefix(config))
    return kept, space.vectors(texts) if path is None else _kept_vectors(space, texts, path)


def _kept_vectors(space: TextSpace, texts: Sequence[str], metadata: Path) -> np.ndarray:
    """Return the embeddings of texts, from the file of an earlier call if it is of the same texts and encoder."""
    path = metadata.with_name(metadata.name.removesuffix(".semantic.json") + ".as-new.npz")
    made_from = sha256(json.dumps([space.encoder_name, metadata.read_text(encoding="utf-8"), *texts]).encode())
    key = made_from.hexdigest()
    try:
        arrays = read_arrays(path)
        if str(arrays["made_from"]) == key and arrays["vectors"].shape == (len(texts), space.dimension):
            return arrays["vectors"]
    except Exception as error:  # of a damaged archive NumPy raises nearly anything; it is only made again
        _logger.debug(f"'{path}' is not taken: {error}")
    vectors = space.vectors(texts)
    try:
        with atomic_path(path) as temporary:
            np.savez(temporary, vectors=vectors, made_from=np.array(key))
    except OSError as error:
        _logger.debug(f"'{path}' is not written: {error}")
    return vectors


def read_new_items(path: str | Path) -> tuple[list[Item], np.ndarray | None]:
    """Read new items from a file.

    Args:
        path: ``.npy`` for vectors, with the file of their ``.tokens`` beside it; else JSON lines as ``items.jsonl``.

    Returns:
        The items, and their vectors, float32 ``[n, D]``; None where the file has texts.

    Raises:
        DataError: the file is missing or malformed.
    """
    path = Path(path)
    if path.suffix.lower() != ".npy":
        return list(read_items(path, max_malformed=0).values()), None
    tokens = read_tokens(path.with_suffix(".tokens"))
    embedding = SemanticEmbedding(tokens, read_vectors(path, memory_map=False), str(path), "item")
    embedding.check()
    return [Item(token) for token in tokens.tolist()], np.asarray(embedding.vectors, dtype=np.float32)


def read_new_users(path: str | Path) -> list[NewUser]:
    """Read new users from JSON lines: ``{"token": "a", "text": "...", "items": ["50", "1"]}``, with text or items.

    Raises:
        DataError: the file is missing or malformed, or a token stands there twice.
    """
    users: dict[str, NewUser] = {}

    def make(record: Mapping[str, Any]) -> NewUser:
        user = user_of(record)
        if user.token in users:
            raise MalformedLineError(f"repeats the user {user.token!r}")
        return user

    for _, user in JsonLines(Path(path), max_malformed=0).records(make):
        users[user.token] = user
    return list(users.values())


def user_of(record: Mapping[str, Any]) -> NewUser:
    """Return the user that a line describes.

    Raises:
        MalformedLineError: it has neither text nor items, or a value of another type.
    """
    text, items = record.get("text") or "", record.get("items") or []
    if not isinstance(text, str) or not isinstance(items, (list, tuple)):
        raise MalformedLineError("has a 'text' that is no text, or 'items' that are no list")
    if not text.strip() and not items:
        raise MalformedLineError("has neither a 'text' nor 'items'")
    if not all(isinstance(each, str) and each for each in items):
        raise MalformedLineError("has 'items' that are no ids: expected text, such as [\"50\"]")
    return NewUser(require_id(record, "token"), text, tuple(dict.fromkeys(items)))
