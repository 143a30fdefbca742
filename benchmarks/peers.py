"""Time LightGCN as this package, RecBole, Cornac and LensKit train and evaluate it, on the same data.

    python benchmarks/peers.py --dataset amazon-book --data_path dataset --threads 2

Width, layers, batch and learning rate are the same (RecBole's); everything else is each library's own. Every epoch is
timed, and between two epochs the validation Recall@20 is computed by one function for all of them from the user and
item representations, so that epochs to the same score, and seconds to it, are comparable. The evaluation is each
library's own, of the validation part: users a second. A library that is not installed is left out, and said.

``pip install cornac lenskit torch_geometric dgl==1.1.3`` installs the others beside this package (Python 3.11):
Cornac's LightGCN needs DGL, and later versions of that do not load with today's PyTorch.
"""

from __future__ import annotations

import argparse
import os
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import timing
import torch
import workload
from workload import Candidate, Kind

SETTINGS = {"embedding_size": 64, "n_layers": 2, "train_batch_size": 2048, "learning_rate": 0.001, "reg_weight": 1e-5}
K = 20

#: Is given the seconds of an epoch and the representations of users and items, and says whether to stop.
Watch = Callable[[float, np.ndarray, np.ndarray], bool]


@dataclass(frozen=True)
class Data:
    """Training and validation; users and items are numbered in the order of ``users`` and ``items``.

    Attributes:
        place: folder of datasets, and the dataset's name.
        train: columns ``user_id`` and ``item_id``, text.
        valid: the same, of users and items that have training interactions.
        users: ids, sorted.
        items: ids, sorted.
    """

    place: tuple[Path, str]
    train: pd.DataFrame
    valid: pd.DataFrame
    users: np.ndarray
    items: np.ndarray

    @classmethod
    def read(cls, data_path: Path, name: str) -> Data:
        """Read a dataset's files."""
        paths = [data_path / name / f"{name}.{part}.inter" for part in ("train", "valid")]
        train, valid = (pd.read_csv(path, sep="\t", dtype=str).iloc[:, :2] for path in paths)
        train.columns = valid.columns = ["user_id", "item_id"]
        valid = valid[valid["user_id"].isin(train["user_id"]) & valid["item_id"].isin(train["item_id"])]
        return cls((data_path, name), train, valid, np.unique(train["user_id"]), np.unique(train["item_id"]))

    def recall(self, users: np.ndarray, items: np.ndarray) -> float:
        """Return Recall@20 of all items by the product of representations, without training items."""
        seen = self._rows(self.train["user_id"], self.users), self._rows(self.train["item_id"], self.items)
        asked, sought = self._rows(self.valid["user_id"], self.users), self._rows(self.valid["item_id"], self.items)
        scores = torch.from_numpy(users) @ torch.from_numpy(items).T
        scores[seen] = -torch.inf
        lists = scores.topk(K, dim=1).indices.numpy()
        hit = (lists[asked] == sought[:, None]).any(axis=1)
        found = np.bincount(asked, weights=hit) / np.maximum(np.bincount(asked), 1)
        return float(found[np.unique(asked)].mean())

    @staticmethod
    def _rows(ids: pd.Series, known: np.ndarray) -> np.ndarray:
        return np.searchsorted(known, ids.to_numpy(dtype=known.dtype))


class Peer(ABC):
    """A library's LightGCN.

    Attributes:
        name: for the table.
        packages: what has to be installed.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, data: Data) -> None:
        self.data = data

    @abstractmethod
    def train(self, n_epochs: int, watch: Watch) -> None:
        """Train from the beginning; ``watch`` is called after each epoch, and its time does not count."""

    @abstractmethod
    def evaluate(self) -> None:
        """Compute Recall@20 of the validation by the library's own evaluation of what was trained last."""


class _OfRecBole(Peer):
    kind: ClassVar[Kind]

    def train(self, n_epochs: int, watch: Watch) -> None:
        candidate = Candidate(self.kind, "LightGCN", *self.data.place, settings={**SETTINGS, "eval_batch_size": 2**24})
        config = candidate.config()
        train_data, self._valid_data, _ = candidate.loaders(config)
        self._trainer = candidate.trainer(config, train_data)
        model, dataset = self._trainer.model, train_data._dataset
        rows = [
            torch.from_numpy(np.array([dataset.field2token_id[field][token] for token in tokens]))
            for field, tokens in ((dataset.uid_field, self.data.users), (dataset.iid_field, self.data.items))
        ]
        for epoch in range(n_epochs):
            started = perf_counter()
            self._trainer._train_epoch(train_data, epoch)
            seconds = perf_counter() - started
            model.eval()
            with torch.no_grad():
                tables = [table[ids].numpy() for table, ids in zip(model.forward(), rows)]
            model.train()
            if watch(seconds, *tables):
                return

    def evaluate(self) -> None:
        self._trainer.evaluate(self._valid_data, load_best_model=False)


class _Ours(_OfRecBole):
    name, kind = "recbole_rlmrec", "ours"


class _RecBole(_OfRecBole):
    name, kind = "RecBole", "recbole"


class _Cornac(Peer):
    name, packages = "Cornac", ("cornac", "dgl")

    def train(self, n_epochs: int, watch: Watch) -> None:
        os.environ.setdefault("DGLBACKEND", "pytorch")
        from cornac.data import Dataset
        from cornac.models import LightGCN

        users = {token: row for row, token in enumerate(self.data.users)}
        items = {token: row for row, token in enumerate(self.data.items)}
        parts = [
            Dataset.build(
                [(*pair, 1.0) for pair in part.itertuples(index=False)], global_uid_map=users, global_iid_map=items
            )
            for part in (self.data.train, self.data.valid)
        ]

        class Watched(LightGCN):  # type: ignore[misc]
            def early_stop(self, train_set: Any, val_set: Any) -> bool:
                stops = watch(perf_counter() - self.started, self.U, self.V)
                self.started = perf_counter()
                return stops

        self._parts = parts
        self._model = Watched(
            emb_size=SETTINGS["embedding_size"],
            num_epochs=n_epochs,
            learning_rate=SETTINGS["learning_rate"],
            batch_size=SETTINGS["train_batch_size"],
            num_layers=SETTINGS["n_layers"],
            lambda_reg=SETTINGS["reg_weight"],
            early_stopping={},  # calls early_stop after each epoch
        )
        self._model.started = perf_counter()
        self._model.fit(*parts)

    def evaluate(self) -> None:
        from cornac.eval_methods import ranking_eval
        from cornac.metrics import Recall

        ranking_eval(self._model, [Recall(k=K)], *self._parts)


class _LensKit(Peer):
    name, packages = "LensKit", ("lenskit", "torch_geometric")

    def train(self, n_epochs: int, watch: Watch) -> None:
        from lenskit.data import from_interactions_df
        from lenskit.graphs.lightgcn import LightGCNScorer
        from lenskit.training import TrainingOptions

        self._dataset = from_interactions_df(self.data.train)
        self._scorer = LightGCNScorer(
            embedding_size=SETTINGS["embedding_size"],
            layer_count=SETTINGS["n_layers"],
            batch_size=SETTINGS["train_batch_size"],
            learning_rate=SETTINGS["learning_rate"],
            regularization=None,
            epochs=n_epochs,
        )
        self._options = TrainingOptions(rng=0, device="cpu")
        trainer = self._scorer.create_trainer(self._dataset, self._options)
        users = trainer.user_base + self._dataset.users.numbers(self.data.users)
        items = self._dataset.items.numbers(self.data.items)
        for _ in range(n_epochs):
            started = perf_counter()
            trainer.train_epoch()
            seconds = perf_counter() - started
            with torch.no_grad():
                table = trainer.model.get_embedding(trainer.edges).numpy()
            if watch(seconds, table[users], table[items]):
                break
        trainer.finalize()

    def evaluate(self) -> None:
        from lenskit.batch import recommend
        from lenskit.data import ItemListCollection
        from lenskit.metrics import Recall, RunAnalysis
        from lenskit.pipeline import topn_pipeline

        pipeline = topn_pipeline(self._scorer, n=K)
        for name in ("candidate-selector", "history-lookup"):
            component = pipeline.node(name).component
            if hasattr(component, "train"):
                component.train(self._dataset, self._options)
        sought = ItemListCollection.from_df(self.data.valid, ["user_id"])
        lists = recommend(pipeline, list(sought.keys()), n=K, n_jobs=1)
        analysis = RunAnalysis()
        analysis.add_metric(Recall(K))
        analysis.measure(lists, sought)


PEERS: tuple[type[Peer], ...] = (_Ours, _RecBole, _Cornac, _LensKit)


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=3)
    workload.add_arguments(parser)
    parser.add_argument("--epochs", type=int, default=4, help="of each round")
    parser.add_argument(
        "--target", type=float, help="validation Recall@20 up to which each is trained once; without it none is"
    )
    parser.add_argument("--most", type=int, default=300, help="epochs within which the target is to be reached")
    arguments = timing.parse(parser, given)
    with workload.prepared(arguments) as data_path:
        data = Data.read(data_path, arguments.dataset)
        present = {kind.name: kind(data) for kind in PEERS if all(map(find_spec, kind.packages))}
        seconds, evaluated = _timed(present, arguments)
        reached = (
            {} if arguments.target is None else {name: _reached(each, arguments) for name, each in present.items()}
        )
    n_users = data.valid["user_id"].nunique()
    header = ["library", "s per epoch", "times ours", "evaluation, users a second", "times ours"]
    header += ["epochs to the score", "s to the score"] if reached else []
    rows = []
    for name in present:
        row = [name, timing.spread(seconds[name], 1), timing.times(timing.ratio(seconds[name], seconds[_Ours.name]))]
        row += [timing.number(n_users / statistics.median(evaluated[name]))]
        row += [timing.times(timing.ratio(evaluated[name], evaluated[_Ours.name])), *reached.get(name, ())]
        rows.append(row)
    absent = [f"{kind.name} is not installed." for kind in PEERS if kind.name not in present]
    used = ", ".join(f"{name} {version(name)}" for each in present.values() for name in each.packages)
    said = "The validation score is Recall@20, computed in one way for all"
    said += f"; the score to reach is {arguments.target}." if reached else "."
    title = f"The same LightGCN by other libraries: {arguments.dataset}"
    timing.report(__file__, title, [timing.table(header, rows), " ".join([said, used, *absent])], arguments)
    return 0


def _timed(
    peers: dict[str, Peer], arguments: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds of an epoch, the median of each round, and of an evaluation, by library."""
    epochs: dict[str, list[float]] = {name: [] for name in peers}
    evaluations: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(arguments.rounds):
        for name, peer in peers.items():
            found: list[float] = []
            peer.train(arguments.epochs, lambda seconds, *_, found=found: found.append(seconds) or False)
            epochs[name].append(statistics.median(found))
            started = perf_counter()
            peer.evaluate()
            evaluations[name].append(perf_counter() - started)
    return epochs, evaluations


def _reached(peer: Peer, arguments: argparse.Namespace) -> list[str]:
    """Return the epochs and the seconds of training until the validation score is reached, for the table."""
    spent: list[float] = []
    scores: list[float] = []

    def watch(seconds: float, users: np.ndarray, items: np.ndarray) -> bool:
        spent.append(seconds)
        scores.append(peer.data.recall(users, items))
        return scores[-1] >= arguments.target

    peer.train(arguments.most, watch)
    if scores[-1] < arguments.target:
        return [f"not in {len(scores)} (best {max(scores):.4f})", timing.number(sum(spent))]
    return [str(len(scores)), timing.number(sum(spent))]


if __name__ == "__main__":
    raise SystemExit(main())
