"""Small datasets on disk and the models built from them, for tests of this repository and of others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import init_seed

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.sides import SIDES


def write_dataset(
    root: Path,
    name: str,
    train: np.ndarray,
    valid: np.ndarray,
    test: np.ndarray,
    semantic: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None = None,
) -> Path:
    """Write `[n, 2]` arrays of (user, item) tokens as benchmark files, and token -> vector maps as embeddings."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", train), ("valid", valid), ("test", test)):
        lines = ["user_id:token\titem_id:token"] + [f"{user}\t{item}" for user, item in rows]
        (folder / f"{name}.{part}.inter").write_text("\n".join(lines) + "\n")
    if semantic is not None:
        for side, table in zip(("user", "item"), semantic):
            np.save(folder / f"{name}.{side}emb.npy", np.stack(list(table.values())).astype(np.float32))
            (folder / f"{name}.{side}emb.tokens").write_text("".join(f"{token}\n" for token in table))
    return folder


def fitting(model: Any) -> dict[str, Any]:
    """Return the settings whose defaults are too large for a dataset of tests."""
    return {"seed_num": 3} if str(model).startswith("AutoCF") else {}


class World:
    """A random dataset of a given size on disk, with semantic embeddings, and what tests do with it."""

    def __init__(self, root: Path, n_users: int = 40, n_items: int = 30, semantic_dim: int = 12, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        pairs = rng.permutation(n_users * n_items)[: n_users * n_items // 4]
        users, items = np.divmod(pairs, n_items)
        # One training edge for everyone, as in RLMRec's splits.
        sure = [(user, user % n_items) for user in range(n_users)] + [(item % n_users, item) for item in range(n_items)]
        sure = sorted(set(sure))
        rest = [pair for pair in zip(users.tolist(), items.tolist()) if pair not in set(sure)]
        cut = len(rest) // 5
        self.root, self.name = root, "tiny"
        self.train = np.array([(f"u{u}", f"i{i}") for u, i in sure + rest[2 * cut :]])
        self.valid = np.array([(f"u{u}", f"i{i}") for u, i in rest[:cut]])
        self.test = np.array([(f"u{u}", f"i{i}") for u, i in rest[cut : 2 * cut]])
        self.semantic = (
            {f"u{u}": rng.normal(size=semantic_dim) for u in range(n_users)},
            {f"i{i}": rng.normal(size=semantic_dim) for i in range(n_items)},
        )
        self.write()

    def write(self) -> None:
        self.folder = write_dataset(self.root, self.name, self.train, self.valid, self.test, self.semantic)

    def forget_texts(self, users: Iterable[str] = (), items: Iterable[str] = ()) -> None:
        """Take the embeddings of some users and items away; `write` makes the files so."""
        for table, tokens in zip(self.semantic, (users, items)):
            for token in tokens:
                del table[token]

    def write_table(self, name: str, dimension: int) -> None:
        """Write embeddings with a name beside those that have none: their first columns."""
        for side, table in zip(SIDES, self.semantic):
            vectors = np.stack(list(table.values()))[:, :dimension].astype(np.float32)
            SemanticEmbedding.from_arrays(list(table), vectors).save(self.folder, f"{self.name}.{name}", side)

    def config(self, model: Any, **settings: Any) -> RLMRecConfig:
        settings = {
            "data_path": str(self.root),
            "checkpoint_dir": str(self.root / "saved"),
            "benchmark_filename": ["train", "valid", "test"],
            "embedding_size": 8,
            "train_batch_size": 64,
            "show_progress": False,
            "base_first": False,
            **fitting(model),
            **settings,
        }
        return RLMRecConfig(model, self.name, config_dict=settings)

    def loaders(self, config: RLMRecConfig) -> tuple[Any, Any, Any, Any]:
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        return (dataset, *data_preparation(config, dataset))

    def model(self, name: Any, **settings: Any) -> tuple[Any, Any]:
        """Return a freshly seeded model and its training data loader."""
        config = self.config(name, **settings)
        _, train_data, _, _ = self.loaders(config)
        init_seed(config["seed"], config["reproducibility"])
        return config.model_class(config, train_data._dataset), train_data
