"""RLMRecDataset: RecBole's dataset with ready-made splits, checks of the training split, and semantic embeddings."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource, FeatureType

from recbole_rlmrec import compat
from recbole_rlmrec.data.atomic_file import MISSING_TOKENS
from recbole_rlmrec.data.embedding_files import metadata_path, read_metadata
from recbole_rlmrec.data.semantic_embedding import (
    JoinedEmbedding,
    SemanticEmbedding,
    check_metadata,
    check_same_dimension,
)
from recbole_rlmrec.data.split import SPLIT_NAMES, numbered_pairs_sha256, read_split, split_column_codes
from recbole_rlmrec.errors import DataError, RLMRecError
from recbole_rlmrec.known_datasets import DATASET_RELEASES, RELEASE_URL
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.wording import N_EXAMPLES, examples

#: The feature fields of the semantic embeddings, by side; RecBole's suffixes of such files.
SEMANTIC_FIELDS: dict[str, Side] = {"useremb": "user", "itememb": "item"}

#: Internal column of the interactions that says where each belongs; dropped when the dataset is split.
_SPLIT_COLUMN = "rlmrec_split"


class RLMRecDataset(Dataset):
    """RecBole's dataset for general recommenders.

    Adds to it: a split from ``split_file`` or a ``split`` column; one warning (or error) about users and items
    without a training interaction; semantic embeddings as the feature fields ``useremb`` and ``itememb``.

    Args:
        config: the run's configuration.
        kept_columns: columns of the interactions to keep as the text they are, see ``kept_texts``; those that a file
            has not are left out.

    Attributes:
        kept_texts: for each file of interactions, in the order of reading, its ids and the columns to keep, as text
            and before any filter; the file is read once for both.

    Raises:
        DataError: the dataset or a file of it is missing or malformed.
    """

    def __init__(self, config: Any, kept_columns: Sequence[str] = ()) -> None:
        self._kept_columns = frozenset(kept_columns)
        self.kept_texts: list[pd.DataFrame] = []
        super().__init__(config)

    def _get_preset(self) -> None:
        super()._get_preset()
        self._semantic: dict[Side, JoinedEmbedding] = {}
        self._is_training_split = False
        self._extra_column: str | None = None

    # ------------------------------------------------------------------ loading

    def _from_scratch(self) -> None:
        try:
            super()._from_scratch()
        except RLMRecError:
            raise
        except (ValueError, KeyError) as error:
            raise DataError(
                f"RecBole cannot read the dataset '{self.dataset_name}' in '{self.dataset_path}': "
                f"{self.config.explained(error)} Expected UTF-8 files with a typed header such as "
                "'user_id:token<TAB>item_id:token' and at least one row."
            ) from error

    def _load_data(self, token: str, dataset_path: str) -> None:
        names = [f"{token}.inter"]
        if self.benchmark_filename_list is not None:
            names = [f"{token}.{part}.inter" for part in self.benchmark_filename_list]
        missing = [name for name in names if not (Path(dataset_path) / name).is_file()]
        if missing and (token in DATASET_RELEASES or Path(dataset_path).exists()):
            raise DataError(_missing_dataset_message(token, dataset_path, missing))
        if missing:
            self._download()
        for name in names:
            self._check_header(Path(dataset_path) / name)
        super()._load_data(token, dataset_path)

    def _check_header(self, path: Path) -> None:
        """Check the first line of an interaction file, which RecBole would fail on without naming the file."""
        columns = self._columns(path)
        if columns[0].startswith("\ufeff"):
            raise DataError(f"'{path}' starts with a byte-order mark; save it as UTF-8 without one.")
        wanted = f"expected a first line such as '{self.uid_field}:token<TAB>{self.iid_field}:token'"
        for column in columns:
            if column.count(":") != 1:
                raise DataError(f"'{path}': the header has the column {column!r} without a type; {wanted}.")
        names = [column.split(":")[0] for column in columns]
        for field in (self.uid_field, self.iid_field):
            if field not in names:
                raise DataError(
                    f"'{path}' has the columns {names} and no '{field}'; {wanted}, or set USER_ID_FIELD and "
                    "ITEM_ID_FIELD to the names of yours."
                )

    def _columns(self, path: Path) -> list[str]:
        with path.open(encoding=self.config["encoding"] or "utf-8") as lines:
            return lines.readline().rstrip("\r\n").split(self.config["field_separator"])

    def _download(self) -> None:
        """Fetch one of RecBole's own datasets, or say that there is none of this name."""
        if self._get_download_url("url", allow_none=True) is None:
            raise DataError(_missing_dataset_message(self.dataset_name, self.dataset_path, []))
        try:
            super()._download()
        except (RuntimeError, ValueError, OSError) as error:
            # After downloading, RecBole 1.2 waits for the other processes even where there is only this one.
            if not (Path(self.dataset_path) / f"{self.dataset_name}.inter").is_file():
                shutil.rmtree(self.dataset_path, ignore_errors=True)  # else the next run would find a folder
                raise DataError(
                    f"RecBole could not download '{self.dataset_name}' from {self._get_download_url('url')}: {error}"
                ) from error
            if torch.distributed.is_initialized():
                raise

    def _load_feat(self, filepath: str, source: Any) -> Any:
        if source != FeatureSource.INTERACTION or not self._kept_columns:
            return super()._load_feat(filepath, source)
        with compat.tables_read_by(self._read_and_keep):
            return super()._load_feat(filepath, source)

    def _read_and_keep(self, path: str, *, usecols: list[str], dtype: Mapping[str, type], **how: Any) -> pd.DataFrame:
        """Read a table for RecBole, as pandas would for it, and keep its ids and ``kept_columns`` as text.

        Args:
            path: the file.
            usecols: the columns that RecBole wants, with their types, as in the header.
            dtype: column -> ``str`` or ``numpy.float64``.
            how: further arguments of ``pandas.read_csv``.
        """
        header = self._columns(Path(path))
        kept = [column for column in header if column.partition(":")[0] in self._kept_columns]
        ids = [column for column in usecols if column.partition(":")[0] in (self.uid_field, self.iid_field)]
        texts = pd.read_csv(path, usecols=list({*usecols, *kept}), dtype=str, na_filter=False, **how)
        self.kept_texts.append(texts[[*ids, *(column for column in kept if column not in ids)]])
        self.kept_texts[-1].columns = [column.partition(":")[0] for column in self.kept_texts[-1].columns]
        wanted = {}
        for column in [column for column in texts.columns if column in usecols]:
            values = texts[column].where(~texts[column].isin({"", *MISSING_TOKENS}))
            try:
                wanted[column] = values if dtype[column] is str else pd.to_numeric(values).astype(dtype[column])
            except ValueError as error:
                raise ValueError(f"column {column}: {error}") from error
        return pd.DataFrame(wanted)

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        split_column = self._split_column(Path(dataset_path) / f"{token}.inter")
        self._extra_column = split_column
        super()._load_inter_feat(token, dataset_path)
        if self.benchmark_filename_list is not None:
            self._check_ids()
        codes = self._read_split_codes(split_column)
        if codes is not None:
            names = np.array([*SPLIT_NAMES, "left out"])
            self.inter_feat[_SPLIT_COLUMN] = names[codes]
            # A token field is the one kind that filters, normalisation and id maps all leave intact.
            self.set_field_property(_SPLIT_COLUMN, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)

    def _split_column(self, path: Path) -> str | None:
        """Return the ``split_field`` where the interaction file has that column and nothing else gives the split."""
        field = self.config["split_field"]
        if field is None or self.config["split_file"] is not None or self.benchmark_filename_list is not None:
            return None
        if field in (self.config["unload_col"] or {}).get("inter", ()):
            return None
        return field if field in [column.split(":")[0] for column in self._columns(path)] else None

    def _get_load_and_unload_col(self, source: Any) -> tuple[set[str] | None, set[str] | None]:
        """Return RecBole's columns to load, with the split column even where ``load_col`` does not name it."""
        load_col, unload_col = super()._get_load_and_unload_col(source)
        if source == FeatureSource.INTERACTION:
            if load_col == set():
                raise DataError(
                    f"load_col={self.config['load_col']} loads no column of the interactions; name 'inter'."
                )
            if load_col is not None and self._extra_column is not None:
                load_col = load_col | {self._extra_column}
        return load_col, unload_col

    def _check_ids(self) -> None:
        """Refuse missing ids in ready-made parts, whose rows RecBole does not filter: it would train ``[PAD]``."""
        for field in (self.uid_field, self.iid_field):
            rows = np.flatnonzero(self.inter_feat[field].isna())
            if len(rows):
                raise DataError(
                    f"{len(rows)} interactions of '{self.dataset_name}' have no {field}, the first in row {rows[0]} of "
                    f"{self.benchmark_filename_list} together. Empty fields and words such as NA, null or None are "
                    "read as missing: leave the rows out or rename the ids."
                )

    def _read_split_codes(self, split_column: str | None) -> np.ndarray | None:
        if split_column is not None:
            self.logger.info(f"Split from the column '{split_column}' of {self.dataset_name}.inter.")
            codes = split_column_codes(self.inter_feat[split_column].to_numpy())
            self._del_col(self.inter_feat, split_column)
            return codes
        name = self.config["split_file"]
        if name is None:
            return None
        if self.benchmark_filename_list is not None:
            raise DataError(
                f"split_file={name!r} and benchmark_filename={self.benchmark_filename_list} both say what is for "
                "training; set one of them to nothing (~)."
            )
        path = self.config.find_data_file(name) or Path(name)
        if not path.is_file():
            looked = ", ".join(f"'{folder}'" for folder in self.config.data_folders)
            raise DataError(f"There is no split file '{name}'; looked in {looked} and at the path itself.")
        self.logger.info(f"Split from {path}.")
        users, items = (self.inter_feat[field].to_numpy() for field in (self.uid_field, self.iid_field))
        return read_split(path, users, items, self.uid_field, self.iid_field)

    # ------------------------------------------------------------------ splitting

    def build(self) -> list[Dataset]:
        """Split into training, validation and test, in this order.

        Raises:
            DataError: a part is empty, or ``cold_nodes: error`` and there are some.
        """
        parts = self._build_from_codes() if _SPLIT_COLUMN in self.field2type else super().build()
        for part, name in zip(parts, SPLIT_NAMES):
            if len(part.inter_feat) == 0:
                raise DataError(
                    f"The {name} split of '{self.dataset_name}' has no interaction; training, validation and test all "
                    "need some. Check split_file, the split column, benchmark_filename or eval_args."
                )
        parts[0]._is_training_split = True
        parts[0]._semantic = {}  # what was read before there was a split has not been checked against it
        self._check_cold_nodes(parts[0])
        return parts

    def _build_from_codes(self) -> list[Dataset]:
        self._change_feat_format()
        ids = self.inter_feat[_SPLIT_COLUMN]
        id_of = self.field2token_id[_SPLIT_COLUMN]
        rows = [(ids == id_of[name]).nonzero().squeeze(1) if name in id_of else [] for name in SPLIT_NAMES]
        left_out = len(ids) - sum(map(len, rows))
        if left_out:
            self.logger.info(f"{left_out} interactions belong to no part of the split and are left out.")
        self._del_col(self.inter_feat, _SPLIT_COLUMN)
        self._drop_unused_col()
        return [self.copy(self.inter_feat[row]) for row in rows]

    def _check_cold_nodes(self, training: Dataset) -> None:
        findings = []
        for label, field in (("users", self.uid_field), ("items", self.iid_field)):
            seen = np.zeros(self.num(field), dtype=bool)
            seen[training.inter_feat[field].numpy()] = True
            cold = np.flatnonzero(~seen[1:]) + 1
            if len(cold):
                some = examples(self.id2token(field, cold[:N_EXAMPLES]))
                findings.append(f"{len(cold)} of {self.num(field) - 1} {label} (e.g. {some})")
        if not findings:
            return
        message = (
            f"No training interaction for {' and '.join(findings)}: their embeddings stay as initialised and their "
            "ranks are chance."
        )
        if self.config["cold_nodes"] == "error":
            raise DataError(f"{message} Filter them out, split otherwise, or set cold_nodes to warn.")
        self.logger.warning(message)

    # ------------------------------------------------------------------ semantic embeddings

    def semantic_embedding(self, side: Side) -> JoinedEmbedding:
        """Return the semantic embeddings of one side, joined to this dataset's ids by token; read once.

        Raises:
            DataError: see :class:`~recbole_rlmrec.data.semantic_embedding.SemanticEmbedding`.
        """
        if not self._semantic:
            self._semantic = self._load_semantic_embeddings()
        return self._semantic[side]

    def get_preload_weight(self, field: str) -> np.ndarray:
        """Return a preloaded feature, ``[ids, D]``: ``useremb``, ``itememb`` (zeros at holes), or RecBole's own."""
        if field in SEMANTIC_FIELDS and field not in self._preloaded_weight:
            return self.semantic_embedding(SEMANTIC_FIELDS[field]).matrix()
        weight: np.ndarray = super().get_preload_weight(field)
        return weight

    def _load_semantic_embeddings(self) -> dict[Side, JoinedEmbedding]:
        folders, name = list(self.config.data_folders), self.dataset_name
        separators = {key: self.config[key] for key in ("field_separator", "seq_separator")}
        # As a map in any case: a model that holds the table in memory fills it from the file, block by block.
        tables = {side: SemanticEmbedding.load(folders, name, side, memory_map=True, **separators) for side in SIDES}
        check_same_dimension(tables["user"], tables["item"])
        # The metadata describes the tables beside it: the embedded dataset's says nothing of a user's own.
        (source, *others) = {Path(table.source).parent for table in tables.values()}
        if others:
            raise DataError(
                f"The user embeddings are {tables['user'].source}, the item embeddings {tables['item'].source}: from "
                "different folders, hence hardly from one encoder. Put both sides into one folder."
            )
        metadata = read_metadata([source], name)
        if metadata is not None:
            path = metadata_path([source], name) or source
            for table in tables.values():
                check_metadata(metadata, table, path)
            self._check_leakage(metadata.get("train_sha256"), path)
        fields: dict[Side, str] = {"user": self.uid_field, "item": self.iid_field}
        joined = {side: table.join(self.field2id_token[fields[side]]) for side, table in tables.items()}
        for table in tables.values():
            table.release()
        return joined

    def _check_leakage(self, profiles_split: str | None, path: Path) -> None:
        if profiles_split is None or not self._is_training_split:
            return
        training_split = _training_sha256(self)
        if training_split != profiles_split:
            message = (
                f"{path}: the profiles were written from another training split ({profiles_split[:12]}...) than this "
                f"run's ({training_split[:12]}...); they may hold validation or test interactions."
            )
            if self.config["leakage"] == "error":
                raise DataError(
                    f"{message} Write them again from this split with `recbole-rlmrec build-semantics --dataset "
                    f"{self.dataset_name}`, train on the split they were written from, or set leakage to warn."
                )
            self.logger.warning(message)


def fingerprint(training: Any, *, with_embeddings: bool) -> dict[str, str]:
    """Return what a model is trained on: hashes of a training split's ids, in their order, and of its pairs.

    Args:
        training: the dataset of a training data loader.
        with_embeddings: of its semantic embeddings as well, which the model reads.

    Raises:
        DataError: see :meth:`RLMRecDataset.semantic_embedding`.
    """
    if training.uid_field is None or training.iid_field is None:
        return {}
    hashes = {"training interactions": _training_sha256(training)}
    for name, field in (("user ids", training.uid_field), ("item ids", training.iid_field)):
        ids = "\n".join(map(str, training.field2id_token[field]))
        hashes[name] = hashlib.sha256(ids.encode("utf-8")).hexdigest()
    if with_embeddings:
        for side in SIDES:
            hashes[f"{side} embeddings"] = training.semantic_embedding(side).sha256()
    return hashes


#: Training split -> hash of its pairs. A run asks for it several times, and for millions of pairs it takes seconds.
_TRAINING_SHA256: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _training_sha256(training: Any) -> str:
    if training not in _TRAINING_SHA256:
        columns = (
            (training.field2id_token[field], training.inter_feat[field].numpy())
            for field in (training.uid_field, training.iid_field)
        )
        (user_tokens, users), (item_tokens, items) = columns
        _TRAINING_SHA256[training] = numbered_pairs_sha256(user_tokens, users, item_tokens, items)
    return _TRAINING_SHA256[training]


def _missing_dataset_message(name: str, folder: str, missing: list[str]) -> str:
    if name in DATASET_RELEASES:
        # RecBole has other datasets of some of these names and would download those.
        return (
            f"The dataset '{name}' of the RLMRec paper is not in '{folder}'. Download the authors' release from "
            f"{RELEASE_URL} (another dataset of this name in the folder is read with --benchmark_filename=~ "
            "--tuned=False), unpack it and import it with\n"
            f"    recbole-rlmrec import-release --source <unpacked>/data/{DATASET_RELEASES[name]} --dataset {name}"
        )
    if missing:
        return (
            f"The folder '{folder}' has no {' and no '.join(missing)}. A RecBole dataset is <name>/<name>.inter with a "
            "header such as 'user_id:token<TAB>item_id:token'."
        )
    return (
        f"There is no dataset '{name}': no folder '{folder}', and RecBole does not know the name. Check --dataset and "
        "--data_path (in load_model: {'data_path': ...}); the README shows how to bring your own data."
    )
