"""The data of the benchmarks, and the trainers of this package, of RecBole and of the reference on it."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import recbole.data
import reference
import torch
from recbole.model.general_recommender import SGL, LightGCN
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_rlmrec.config import RLMRecConfig, read_yaml
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.resources import resource_folder
from recbole_rlmrec.training.trainer import trainer_class

PARTS = ("train", "valid", "test")
Kind = Literal["ours", "recbole", "reference"]
RECBOLE_MODELS = {"LightGCN": LightGCN, "SGL": SGL}


def zipf_interactions(
    n_users: int,
    n_items: int,
    n_interactions: int,
    user_exponent: float = 0.6,
    item_exponent: float = 0.5,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw distinct user-item pairs; the k-th user or item is drawn with a probability that falls as ``k^-exponent``.

    Every user and every item has an interaction. With the default exponents and the size of amazon-book a batch of
    4,096 names about as many different users (2,980) and items (3,040) as one of amazon-book does.

    Returns:
        Users and items, int64 ``[n_interactions]``, counted from 0, in random order.
    """
    rng = np.random.default_rng(seed)
    longest = max(n_users, n_items)
    # A first pair for everyone, the popular among the shorter side taking turns with the longer.
    keys = (np.arange(longest) % n_users) * n_items + np.arange(longest) % n_items
    n_sure = len(keys)
    if not n_sure <= n_interactions <= n_users * n_items // 2:
        raise ValueError(f"{n_interactions} interactions: expected {n_sure} to {n_users * n_items // 2}")
    draw_user, draw_item = (_zipf(rng, *side) for side in ((n_users, user_exponent), (n_items, item_exponent)))
    others = np.empty(0, dtype=np.int64)
    while len(others) < n_interactions - n_sure:
        drawn = draw_user(n_interactions) * n_items + draw_item(n_interactions)
        others = np.setdiff1d(np.concatenate([others, drawn]), keys)
    keys = np.concatenate([keys, rng.permutation(others)[: n_interactions - n_sure]])
    users, items = np.divmod(rng.permutation(keys), n_items)
    # Ids in order of popularity would lie better in caches than anyone's do.
    return rng.permutation(n_users)[users], rng.permutation(n_items)[items]


def many_interactions(
    n_users: int, n_items: int, n_interactions: int, item_exponent: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs as :func:`zipf_interactions`, quickly: pairs drawn twice are left out, so there are somewhat fewer."""
    rng = np.random.default_rng(0)
    users, items = (
        _zipf(rng, n, exponent)(n_interactions) for n, exponent in ((n_users, 0.6), (n_items, item_exponent))
    )
    users, items = np.divmod(np.unique(users * n_items + items), n_items)
    return rng.permutation(n_users)[users], rng.permutation(n_items)[items]


def _zipf(rng: np.random.Generator, n: int, exponent: float) -> Callable[[int], np.ndarray]:
    cumulated = np.cumsum(np.arange(1, n + 1) ** -exponent)
    return lambda size: np.searchsorted(cumulated, rng.random(size) * cumulated[-1])


def write_pairs(path: Path, users: np.ndarray, items: np.ndarray) -> None:
    """Write interactions as one of RecBole's ``.inter`` files."""
    frame = pd.DataFrame({"user_id:token": users, "item_id:token": items})
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, sep="\t", index=False)


def write_random_embeddings(folder: Path, name: str, dimension: int) -> None:
    """Write random unit vectors for every id of a dataset's ``.inter`` files: times do not depend on the values."""
    rng = np.random.default_rng(0)
    frames = [pd.read_csv(folder / f"{name}.{part}.inter", sep="\t", dtype=str) for part in PARTS]
    for number, side in enumerate(("user", "item")):
        tokens = pd.unique(pd.concat([frame.iloc[:, number] for frame in frames]))
        vectors = rng.standard_normal((len(tokens), dimension), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        SemanticEmbedding.from_arrays(tokens, vectors).save(folder, name, side)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what data is measured on."""
    parser.add_argument("--dataset", choices=["amazon-book", "generated"], default="generated")
    parser.add_argument("--data_path", type=Path, default=Path("dataset"), help="folder of the folder amazon-book")
    sizes = parser.add_argument_group("sizes of the generated dataset; by default those of amazon-book")
    sizes.add_argument("--users", type=int, default=11_000)
    sizes.add_argument("--items", type=int, default=9_332)
    sizes.add_argument("--interactions", type=int, default=120_464, help="for training; a third as many to evaluate")
    sizes.add_argument("--semantic_dim", type=int, default=1536, help="of the semantic embeddings of either dataset")
    parser.add_argument("--batch", type=int, default=4096, help="training interactions per step")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder, which is the working directory meanwhile: RecBole logs there."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        try:
            yield Path(temporary).resolve()
        finally:
            os.chdir(before)


@contextmanager
def prepared(arguments: argparse.Namespace) -> Iterator[Path]:
    """Put the data into a scratch folder and yield its folder of datasets, RecBole's ``data_path``."""
    source = (arguments.data_path / arguments.dataset).resolve()
    with scratch_folder() as root:
        folder = root / "dataset" / arguments.dataset
        folder.mkdir(parents=True)
        if arguments.dataset == "generated":
            _write_generated(folder, arguments)
        else:
            for part in PARTS:
                name = f"{arguments.dataset}.{part}.inter"
                (folder / name).symlink_to((source / name).resolve(strict=True))
        write_random_embeddings(folder, arguments.dataset, arguments.semantic_dim)
        yield root / "dataset"


def _write_generated(folder: Path, arguments: argparse.Namespace) -> None:
    n_train, n_other = arguments.interactions, arguments.interactions // 3
    train = zipf_interactions(arguments.users, arguments.items, n_train)
    drawn = zipf_interactions(arguments.users, arguments.items, n_train + 2 * n_other, seed=1)
    keys, drawn_keys = (users * arguments.items + items for users, items in (train, drawn))
    others = drawn_keys[~np.isin(drawn_keys, keys)][: 2 * n_other]
    for part, part_keys in zip(PARTS, (keys, *np.array_split(others, 2))):
        write_pairs(folder / f"generated.{part}.inter", *np.divmod(part_keys, arguments.items))


#: Runs a training epoch, or the given number of its steps where that is not 0.
Epoch = Callable[[int], object]


@dataclass(frozen=True)
class Candidate:
    """Something that trains a model; picklable, so that another process can build it.

    Attributes:
        kind: ``ours``, ``recbole`` (its class, data loader and trainer) or ``reference``.
        model: its name.
        data_path: folder of datasets.
        dataset: its name.
        device: ``cpu`` or ``cuda``.
        settings: over the defaults.
    """

    kind: Kind
    model: str
    data_path: Path
    dataset: str
    device: str = "cpu"
    settings: dict[str, Any] = field(default_factory=dict)

    def config(self) -> RLMRecConfig:
        """Return the configuration of the run."""
        place = {"use_gpu": True, "gpu_id": "0"} if self.device == "cuda" else {"use_gpu": False}
        settings = {"data_path": str(self.data_path), "show_progress": False, **place, "tuned": False, **self.settings}
        model = RECBOLE_MODELS[self.model] if self.kind == "recbole" else self.model
        return RLMRecConfig(model, self.dataset, config_dict=settings)

    def loaders(self, config: RLMRecConfig) -> tuple[Any, Any, Any]:
        """Return RecBole's own or our own data loaders of training, validation and test."""
        init_seed(config["seed"], config["reproducibility"])
        if self.kind == "recbole":
            return recbole.data.data_preparation(config, recbole.data.create_dataset(config))
        return data_preparation(config, create_dataset(config))

    def trainer(self, config: RLMRecConfig, train_data: Any) -> Any:
        """Return RecBole's own or our own trainer of the model."""
        model = config.model_class(config, train_data._dataset).to(config["device"])
        trainer = (Trainer if self.kind == "recbole" else trainer_class(config))(config, model)
        # RecBole's log for TensorBoard keeps a thread of its own, which no benchmark needs.
        trainer.tensorboard.close()
        return trainer

    def epoch(self) -> Epoch:
        """Build everything and return what runs an epoch."""
        config = self.config()
        if self.kind == "reference":
            return _reference_epoch(self.model, config, self.device)
        train_data, _, _ = self.loaders(config)
        trainer = self.trainer(config, train_data)
        return lambda steps: trainer._train_epoch(FirstSteps(train_data, steps) if steps else train_data, 0)


class FirstSteps:
    """A data loader that ends after some batches."""

    def __init__(self, loader: Any, steps: int) -> None:
        self._loader, self._steps = loader, steps

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self._loader), self._steps)

    def __len__(self) -> int:
        return min(self._steps, len(self._loader))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _reference_epoch(model_name: str, config: RLMRecConfig, device: str) -> Epoch:
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    users, items, shape = without_padding(dataset.build()[0])
    semantic = None
    if "_RLMRec" in model_name:
        semantic = tuple(dataset.semantic_embedding(side).matrix()[1:] for side in ("user", "item"))
    model = reference.build(model_name, (users, items), shape, config, semantic, device)
    rows = reference.PairwiseRows(users, items, shape)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])

    def epoch(steps: int) -> object:
        size = config["train_batch_size"]
        # Some steps need the negatives of their own rows only.
        chosen = np.random.permutation(len(rows))[: steps * size] if steps else np.arange(len(rows))
        rows.draw_negatives(chosen.tolist())
        subset = torch.utils.data.Subset(rows, chosen.tolist()) if steps else rows
        loader = torch.utils.data.DataLoader(subset, batch_size=size, shuffle=True)
        return reference.train_epoch(model, loader, optimizer, device)

    return epoch


def without_padding(training: Any) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return a training split's users and items, counted from 0, and how many there are of each."""
    users, items = (training.inter_feat[name].numpy() - 1 for name in (training.uid_field, training.iid_field))
    return users, items, (training.user_num - 1, training.item_num - 1)


def official_settings(model: str) -> dict[str, Any]:
    """Return the settings that make a model of ours the paper's: its tuned ones on amazon-book."""
    return read_yaml(resource_folder("properties") / "tuned" / "amazon-book" / f"{model}.yaml")


def prepared_epoch(candidate: Candidate, steps: int) -> Callable[[], object]:
    """Return a call that trains some steps; what a process of its own is asked for."""
    return partial(candidate.epoch(), steps)
