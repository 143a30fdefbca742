"""What a language model reads of users and items: their profiles, and titles of what is around them in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.files import require_id
from recbole_rlmrec.text.json_lines import JsonLines
from recbole_rlmrec.text.load import load_items

#: Titles of each hop that are read at most: the best known first.
N_TITLES = 10
#: Nodes whose neighbours are looked for at a time.
_AT_ONCE = 1024


def texts_of(dataset: Any, n_hops: int) -> list[str]:
    """Return the text of each node, users first, ``[PAD]`` included: its profile, then titles around it.

    A user's 1-hop titles are those of the training items, an item's 2-hop titles those of the items that its users
    took, and a user's 2-hop titles those of the items that users of the same items took; the most frequent first.

    Args:
        dataset: of the training.
        n_hops: hops of which titles are read: 0, 1 or 2.

    Raises:
        DataError: there is no profile of any user or item, or a file is malformed.
    """
    tokens = {side: dataset.field2id_token[field] for side, field in zip(SIDES, (dataset.uid_field, dataset.iid_field))}
    profiles = {side: _profiles(dataset, side) for side in SIDES}
    if not any(profiles.values()):
        raise DataError(
            f"'{dataset.dataset_name}' has no profiles ({dataset.dataset_name}.userprf.jsonl, .itemprf.jsonl) for the "
            "language model to read. Write them with build-semantics, or leave language_model at 'frozen'."
        )
    titles = np.full(len(tokens["item"]), "", dtype=object)
    if n_hops:
        known = load_items(dataset.config, [str(token) for token in tokens["item"][1:]])
        for row, token in enumerate(tokens["item"]):
            titles[row] = known[token].title if row and token in known else ""
    users, items = (dataset.inter_feat[name].numpy() for name in (dataset.uid_field, dataset.iid_field))
    shape = (len(tokens["user"]), len(tokens["item"]))
    taken = scipy.sparse.csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)), shape=shape)
    taken.data[:] = 1
    found = []
    for side in SIDES:
        lines = [profiles[side].get(str(token), "") if row else "" for row, token in enumerate(tokens[side])]
        for said, left, right in _hops(taken, side, n_hops):
            _add_titles(lines, left, right, titles, said)
        found += lines
    return found


def _profiles(dataset: Any, side: Side) -> dict[str, str]:
    name = f"{dataset.dataset_name}.{side}prf.jsonl"
    path = dataset.config.find_data_file(name)
    if path is None:
        return {}
    records = JsonLines(path, max_malformed=0).records(lambda record: (require_id(record, "token"), record))
    return {token: str(record.get("profile") or "") for _, (token, record) in records}


def _hops(taken: Any, side: Side, n_hops: int) -> list[tuple[str, Any, Any]]:
    """Return what is said before the titles of each hop, and two sparse matrices whose product is nodes by items."""
    itself = scipy.sparse.identity(taken.shape[1], dtype=np.float32, format="csr")
    if side == "user":
        return [("Chose", taken, itself), ("Others with the same choose", taken, (taken.T @ taken).tocsr())][:n_hops]
    return [("Whoever takes it chooses", taken.T.tocsr(), taken)] if n_hops == 2 else []


def _add_titles(lines: list[str], left: Any, right: Any, titles: np.ndarray, said: str) -> None:
    """Add to each text the titles of the items with the largest numbers in its row of ``left @ right``."""
    for first in range(0, len(lines), _AT_ONCE):
        hop = (left[first : first + _AT_ONCE] @ right).tocsr()
        for place in range(hop.shape[0]):
            columns = hop.indices[hop.indptr[place] : hop.indptr[place + 1]]
            weights = hop.data[hop.indptr[place] : hop.indptr[place + 1]]
            best = columns[np.lexsort((columns, -weights))]
            found = [titles[column] for column in best if titles[column]][:N_TITLES]
            if found:
                lines[first + place] = f"{lines[first + place]} {said}: {'; '.join(found)}.".strip()
