"""Items withheld from training: what ranks them, and whether they get their share of the lists.

For datasets whose items of the test only are withheld ones (``recbole-rlmrec split --cold-items``), and trained models.
Recall@20 of each way over the withheld items alone, averaged over the users who have some, with a paired t-test against
the package's default; and the share of withheld items in lists of all items, divided by their share of the test.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.stats
import torch
from torch import Tensor
from torch.nn.functional import normalize

from recbole_rlmrec import load_model
from recbole_rlmrec.data.provenance import versions
from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.arrays import tables_of
from recbole_rlmrec.model.backbone.contract import flags_of
from recbole_rlmrec.model.scores import evaluating
from recbole_rlmrec.profile.newcomers import open_text_space
from recbole_rlmrec.recommend.new_items import as_new
from recbole_rlmrec.recommend.text_map import known_nodes, text_map_of
from recbole_rlmrec.text.load import known_items

K, N_NEIGHBOURS, AT_ONCE = 20, 10, 1000


class Data(NamedTuple):
    """A dataset with withheld items.

    Attributes:
        training: interactions by user and item, as the two other parts.
        valid: of validation.
        test: of the test.
        vectors: directions of the items' semantic embeddings, ``[items, D]``; zeros where there is none.
        known: ids of the items with text and training interactions.
        cold: ids of those with text and test interactions only.
        genres: genres by item.
    """

    training: Any
    valid: Any
    test: Any
    vectors: Tensor
    known: np.ndarray
    cold: np.ndarray
    genres: list[tuple[str, ...]]


def data_of(dataset: Any) -> Data:
    """Return what is measured on."""
    parts = []
    for part in dataset.parts:
        users, items = (part.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
        shape = dataset.user_num, dataset.item_num
        parts.append(scipy.sparse.csr_matrix((np.ones(len(users)), (users, items)), shape=shape) > 0)
    training, valid, test = (part.astype(np.float32) for part in parts)
    joined = dataset.semantic_embedding("item")
    n_training, n_test = (np.asarray(part.sum(axis=0)).ravel() for part in (training, test))
    cold = np.flatnonzero((n_training == 0) & (n_test > 0) & joined.covered)
    known = np.flatnonzero((n_training > 0) & joined.covered)
    texts = known_items(dataset.config)
    genres = [
        texts[str(token)].attributes.get("genres", ()) if str(token) in texts else ()
        for token in dataset.field2id_token[dataset.iid_field]
    ]
    return Data(training, valid, test, normalize(torch.from_numpy(joined.matrix())), known, cold, genres)


def recalls(scores: Callable[[np.ndarray], Tensor], relevant: Any, chosen: np.ndarray) -> dict[int, float]:
    """Return Recall@20 over some items by user, of the users who have some of them.

    Args:
        scores: of users, ``[B]``, by the chosen items, ``[B, n]``.
        relevant: interactions by user and item.
        chosen: ids of the items.
    """
    wanted = relevant[:, chosen]
    users = np.flatnonzero(np.asarray(wanted.sum(axis=1)).ravel())
    found = {}
    for first in range(0, len(users), AT_ONCE):
        block = users[first : first + AT_ONCE]
        hits = wanted[block].toarray()
        places = scores(block).topk(K, dim=1).indices.numpy()
        found.update(zip(block.tolist(), np.take_along_axis(hits, places, 1).sum(1) / hits.sum(1)))
    return found


def share_of_lists(users: Tensor, items: Tensor, data: Data) -> float:
    """Return the share of withheld items in lists of all items, divided by their share of the test."""
    is_cold = np.zeros(len(items), dtype=bool)
    is_cold[data.cold] = True
    listed = np.union1d(data.known, data.cold)
    seen = data.training + data.valid
    places = n_lists = 0
    for first in range(1, len(users), AT_ONCE):
        scores = users[first : first + AT_ONCE] @ items.T
        left_out = np.ones(len(items), dtype=bool)
        left_out[listed] = False
        scores[:, torch.from_numpy(left_out)] = -torch.inf
        rows, columns = seen[first : first + AT_ONCE].nonzero()
        scores[rows, columns] = -torch.inf
        top = scores.topk(K, dim=1).indices.numpy()
        places, n_lists = places + int(is_cold[top].sum()), n_lists + len(top)
    wanted = data.test[:, data.cold].sum() / data.test[:, listed].sum()
    return float(places / (K * n_lists) / wanted)


def by_products(ways: dict[str, dict[int, float]], users: Tensor, data: Data, way: str, rows: Tensor) -> None:
    """Add the recalls of products of users' representations and those of the withheld items, ``[n, d]``."""
    ways[way] = recalls(lambda block: users[block] @ rows.T, data.test, data.cold)


def neighbours(data: Data, vectors: Tensor, table: Tensor) -> Tensor:
    """Return the means of the representations of the known items nearest by text, ``[n, d]``."""
    nearest = (vectors @ data.vectors[data.known].T).topk(N_NEIGHBOURS, dim=1).indices
    return table[torch.from_numpy(data.known)[nearest]].mean(dim=1)


def by_genre(data: Data) -> Tensor:
    """Return, of each withheld item, the mean training popularity of its genres' items, ``[n]``."""
    popularity = np.asarray(data.training.sum(axis=0)).ravel()
    of_genre: dict[str, list[float]] = {}
    for item in data.known:
        for genre in data.genres[item]:
            of_genre.setdefault(genre, []).append(popularity[item])
    means = {genre: float(np.mean(values)) for genre, values in of_genre.items()}
    everything = float(popularity[data.known].mean())
    found = [[means[genre] for genre in data.genres[item] if genre in means] or [everything] for item in data.cold]
    return torch.tensor([float(np.mean(values)) for values in found])


def measured(checkpoints: list[Path], data_path: str, cache: Path) -> dict[str, Any]:
    """Measure all ways on one dataset.

    Args:
        checkpoints: of models of the dataset.
        data_path: folder of the datasets.
        cache: file of the known items' vectors as new items; made if missing.

    Returns:
        Way -> Recall@20 of each user, and "bias" of those that rank all items together.
    """
    ways: dict[str, dict[int, float]] = {}
    bias: dict[str, float] = {}
    chosen: dict[str, float] = {}
    data: Data | None = None
    for path in checkpoints:
        loaded = load_model(path, {"data_path": data_path, "use_gpu": False, "state": "ERROR"})
        model, dataset, name = loaded.model, loaded.dataset, type(loaded.model).__name__
        print(path.name, file=sys.stderr)
        if data is None:
            data = data_of(dataset)
            new = data.cold, data.vectors[data.cold]
            ways |= by_text_alone(data)
        with evaluating(model):
            users, items = (table.float().clone() for table in tables_of(model))

        put = partial(by_products, ways, users, data)
        if flags_of(type(model)).scores_semantic_embeddings:
            put(f"{name}, as it is", items[new[0]])
            bias[f"{name}, as it is"] = share_of_lists(users, items, data)
        pairs = torch.as_tensor(loaded.dataset.parts[0].inter_feat[dataset.iid_field]).long()
        if not cache.is_file():
            space, known = open_text_space(dataset.config), known_nodes(dataset, "item", pairs)[0]
            ids, vectors = as_new(space, dataset.config, dataset, known)
            np.savez(cache, ids=ids, vectors=vectors)
        with np.load(cache) as kept:
            found = kept["ids"], kept["vectors"]
        for label, text_map in (
            ("map", text_map_of(model, dataset, found)),
            ("map of profiles as they are", text_map_of(model, dataset)),
        ):
            rows = text_map.items(new[1])
            way = f"{name}, {label}"
            put(way, rows)
            bias[way] = share_of_lists(users, items.index_copy(0, torch.from_numpy(new[0]), rows), data)
            chosen[way] = text_map.factor
        put(f"{name}, neighbours", neighbours(data, new[1], items))
        if isinstance(model, Alignment) and model.text_projector is not None:
            with torch.no_grad():
                put(f"{name}, projection", normalize(model.text_projector(new[1])))
                shift = (data.vectors[found[0]] - normalize(torch.from_numpy(found[1]))).mean(dim=0)
                put(f"{name}, projection of shifted texts", normalize(model.text_projector(normalize(new[1] + shift))))
        if f"{name}, as it is" not in ways:
            put(f"{name}, untrained vectors", items[new[0]])
    return {"ways": ways, "bias": bias, "factor": chosen}


def by_text_alone(data: Data) -> dict[str, dict[int, float]]:
    """Return the ways that need no model."""
    texts = data.vectors.numpy()
    means = torch.from_numpy(np.asarray(data.training @ texts))
    cold = data.vectors[data.cold]
    popularity = by_genre(data)
    chance = torch.Generator().manual_seed(0)
    return {
        "cosine to the mean of the user's texts": recalls(lambda users: means[users] @ cold.T, data.test, data.cold),
        "popularity of the genre": recalls(lambda users: popularity.expand(len(users), -1), data.test, data.cold),
        "random": recalls(lambda users: torch.rand(len(users), len(cold), generator=chance), data.test, data.cold),
    }


def rows_of(found: dict[str, Any], default: str) -> list[dict[str, Any]]:
    """Return a row of each way, the best first; p is of the paired t-test with the default."""
    best = found["ways"].get(default)
    rows = []
    for way, values in found["ways"].items():
        row: dict[str, Any] = {"way": way, f"recall@{K}": round(float(np.mean(list(values.values()))), 4)}
        row["users"] = len(values)
        if way in found["bias"]:
            row["bias"] = round(found["bias"][way], 3)
        if way in found["factor"]:
            row["factor"] = round(found["factor"][way], 3)
        if best is not None and way != default:
            pairs = np.array([(values[user], best[user]) for user in best])
            row["p"] = float(scipy.stats.ttest_rel(pairs[:, 0], pairs[:, 1]).pvalue)
        rows.append(row)
    return sorted(rows, key=lambda row: -float(row[f"recall@{K}"]))


def main(arguments: list[str] | None = None) -> None:
    """Measure, write ``<dataset>.json`` and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="FILE", help="of models of one dataset")
    parser.add_argument("--data-path", required=True, metavar="DIR")
    parser.add_argument("--default", default="LightGCN_RLMRecCon, map", help="what the others are compared with")
    parser.add_argument("--cache", required=True, type=Path, metavar="FILE.npz", help="known items as new ones")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.json")
    given = parser.parse_args(arguments)
    rows = rows_of(measured(given.checkpoints, given.data_path, given.cache), given.default)
    record = {"rows": rows, "default": given.default, "k": K, "versions": versions()}
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("| way | Recall@20 | bias | factor | p |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        p = f"{row['p']:.1e}" if "p" in row else ""
        print(f"| {row['way']} | {row[f'recall@{K}']:.4f} | {row.get('bias', '')} | {row.get('factor', '')} | {p} |")


if __name__ == "__main__":
    main()
