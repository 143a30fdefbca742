"""RLMRecDataset: RecBole's dataset with ready-made splits, checks of the training split, and semantic embeddings."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction, cat_interactions
from recbole.utils import FeatureSource, FeatureType

from recbole_rlmrec import compat
from recbole_rlmrec.data.ablation import noise_pairs, without_profiles
from recbole_rlmrec.data.embedding_files import chosen_prefix, metadata_path, read_metadata, table_prefix
from recbole_rlmrec.data.file_set import require_whole
from recbole_rlmrec.data.frozen import (
    SplitRecipe,
    check_asked,
    described,
    encode_again,
    frozen_path,
    other_split,
    other_wish,
    write_again,
)
from recbole_rlmrec.data.recbole_reader import RecBoleReader
from recbole_rlmrec.data.semantic_basis import SemanticBasis, semantic_basis
from recbole_rlmrec.data.semantic_embedding import (
    JoinedEmbedding,
    SemanticEmbedding,
    check_metadata,
    check_same_dimension,
)
from recbole_rlmrec.data.split import (
    LEFT_OUT,
    SPLIT_NAMES,
    is_packed,
    numbered_pairs_sha256,
    read_split,
    split_column_codes,
    write_packed_split,
)
from recbole_rlmrec.data.table import Table
from recbole_rlmrec.errors import DataError, RLMRecError, SettingError
from recbole_rlmrec.known_datasets import DATASET_RELEASES, RELEASE_URL
from recbole_rlmrec.run_settings import AblationSettings
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.wording import N_EXAMPLES, count, examples

#: The feature fields of the semantic embeddings, by side; RecBole's suffixes of such files.
SEMANTIC_FIELDS: dict[str, Side] = {"useremb": "user", "itememb": "item"}

#: Keys of what describes embeddings that hold the hash of a training split -> what was made from it, for messages.
_MADE_FROM_SPLIT = {
    "train_sha256": "the profiles were written from",
    "encoder_train_sha256": "the encoder of the embeddings was tuned on",
}

#: Internal column of the interactions that says where each belongs; dropped when the dataset is split.
_SPLIT_COLUMN = "rlmrec_split"
#: Internal column that numbers the interactions while a split is drawn.
_ROW_COLUMN = "rlmrec_row"


#: What a dataset does about the split: takes the one a training has; does so and can freeze it; or can freeze another
#: than the frozen one.
SplitUse = Literal["take", "freeze", "renew"]


class RLMRecDataset(Dataset):
    """RecBole's dataset for general recommenders.

    Adds to it: the frozen split, or one from ``split_file`` or a ``split`` column; one warning (or error) about users
    and items without a training interaction; semantic embeddings as the feature fields ``useremb`` and ``itememb``.

    Args:
        config: the run's configuration.
        kept_columns: columns of the interactions to keep as the text they are, see ``kept_texts``; those that a file
            has not are left out.
        split_use: ``freeze`` and ``renew`` allow :meth:`draw_split`; ``renew`` does not look at the frozen split.

    Attributes:
        split_origin: where the split is from, and how it was made, for the log and the result; empty while unknown.
        recipe: how :meth:`draw_split` made it; None before.
        parts: training, validation and test as :meth:`build` returned them; empty before.
        kept_texts: for each file of interactions, in the order of reading, its ids and the columns to keep, as text
            and before any filter; the file is read once for both.

    Raises:
        DataError: the dataset or a file of it is missing or malformed.
    """

    def __init__(self, config: Any, kept_columns: Sequence[str] = (), *, split_use: SplitUse = "take") -> None:
        self._reader = RecBoleReader(config, kept_columns)
        self.kept_texts = self._reader.kept_texts
        self._split_use = split_use
        self.split_origin = ""
        self.recipe: SplitRecipe | None = None
        self.parts: tuple[Dataset, ...] = ()
        super().__init__(config)

    def _get_preset(self) -> None:
        super()._get_preset()
        self._semantic: dict[Side, JoinedEmbedding] = {}
        #: What the semantic embeddings are reduced by for a model; None where no model asked for it.
        self.basis: SemanticBasis | None = None
        self._basis_dimension: int | str = 0
        self._is_training_split = False
        self._extra_column: str | None = None
        #: Codes of the interactions that are left after filtering, once a split was drawn; None before.
        self._drawn: np.ndarray | None = None
        self._raw_ids: tuple[np.ndarray, np.ndarray] | None = None
        self._raw_rows: np.ndarray | None = None
        #: Of the training interactions that profiles were written from, where others were added; empty otherwise.
        self._profiled_sha256 = ""
        self._empty_parts: tuple[str, ...] = ()

    # ------------------------------------------------------------------ loading

    def _from_scratch(self) -> None:
        with reading(self.config):
            super()._from_scratch()

    def _remap(self, remap_list: list[Any]) -> None:
        """Number the tokens of some columns together, as RecBole does, but without making an object for each row."""
        if not remap_list or any(kind != FeatureType.TOKEN for _, _, kind in remap_list):
            super()._remap(remap_list)
            return
        columns = [feat[field] for feat, field, _ in remap_list]
        codes, distinct = pd.factorize(pd.concat(columns, ignore_index=True))
        tokens = np.array(["[PAD]", *distinct.tolist()])
        ids = {token: number for number, token in enumerate(tokens)}
        of_columns = np.split(codes + 1, np.cumsum([len(column) for column in columns])[:-1])
        for (feat, field, _), numbers in zip(remap_list, of_columns):
            self.field2id_token.setdefault(field, tokens)
            self.field2token_id.setdefault(field, ids)
            feat[field] = numbers

    def _load_data(self, token: str, dataset_path: str) -> None:
        names = [f"{token}.inter"]
        if self.benchmark_filename_list is not None:
            names = [f"{token}.{part}.inter" for part in self.benchmark_filename_list]
        require_whole(Path(dataset_path), token, [*names, f"{token}.user", f"{token}.item"])
        missing = [name for name in names if not (Path(dataset_path) / name).is_file()]
        if missing and (token in DATASET_RELEASES or Path(dataset_path).exists()):
            raise DataError(_missing_dataset_message(token, dataset_path, missing))
        if missing:
            self._download()
        for name in names:
            self._check_header(Path(dataset_path) / name)
        super()._load_data(token, dataset_path)

    def _check_header(self, path: Path) -> None:
        """Check that a file of interactions has users and items."""
        table = Table.of(self.config, path)
        for field in (self.uid_field, self.iid_field):
            if field not in table.types:
                raise DataError(
                    f"'{path}' has the columns {list(table.types)} and no '{field}'; expected a first line such as "
                    f"'{self.uid_field}:token<TAB>{self.iid_field}:token', or set USER_ID_FIELD and ITEM_ID_FIELD to "
                    "the names of yours."
                )
        table.require_ids((self.uid_field, self.iid_field))

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
        with compat.tables_read_by(self._reader):
            return super()._load_feat(filepath, source)

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        split_column = self._split_column(Path(dataset_path) / f"{token}.inter")
        self._extra_column = split_column
        super()._load_inter_feat(token, dataset_path)
        if self._split_use != "take":
            self._keep_raw()
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
        return field if field in Table.of(self.config, path).types else None

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

    def _read_split_codes(self, split_column: str | None) -> np.ndarray | None:
        """Return the code of each interaction as read, where something fixes the split; see ``split_origin``."""
        frozen = frozen_path(self.config) if self._split_use != "renew" else None
        name = self.config["split_file"]
        if self.benchmark_filename_list is not None:
            if name is not None:
                raise DataError(
                    f"split_file={name!r} and benchmark_filename={self.benchmark_filename_list} both say what is for "
                    "training; set one of them to nothing (~)."
                )
            self._refuse_two_splits(frozen, f"benchmark_filename={self.benchmark_filename_list}", "benchmark_filename")
            self.split_origin = f"the files of benchmark_filename={self.benchmark_filename_list}"
            self._warn_of_wish()
            return None
        if split_column is not None:
            self.split_origin = f"the column '{split_column}' of {self.dataset_name}.inter"
            self._refuse_two_splits(frozen, self.split_origin, "split_field")
            self.logger.info(f"Split from {self.split_origin}.")
            self._warn_of_wish()
            codes = split_column_codes(self.inter_feat[split_column].to_numpy())
            self._del_col(self.inter_feat, split_column)
            return codes
        if name is not None:
            return self._read_named_split(name, frozen)
        if frozen is None:
            return None
        return self._read_frozen_split(frozen)

    def _warn_of_wish(self) -> None:
        wish = other_wish(self.config, Path(self.split_origin), None)
        if wish:
            self.logger.warning(f"{wish} is not used to split: the split is {self.split_origin}.")

    def _refuse_two_splits(self, frozen: Path | None, other: str, setting: str) -> None:
        if frozen is not None:
            raise DataError(
                f"{other} and the frozen split '{frozen}' both say what is for training. Remove that file, or set "
                f"{setting} to nothing (~) to train on it."
            )

    def _read_frozen_split(self, path: Path) -> np.ndarray:
        recipe = SplitRecipe.of_file(path)
        check_asked(self.config, path, recipe)
        again = recipe.options() if recipe is not None else []
        remedy = self.config.command("split", *again, "--overwrite", without=["eval_args"])
        codes = self._codes_of(path, f"; or make and freeze another with `{remedy}`")
        self._empty_parts = recipe.without if recipe is not None else ()
        self.split_origin = f"the frozen one of {described(path, recipe)}"
        self.logger.info(f"split: {self.split_origin}; `recbole-rlmrec split` makes another")
        return codes

    def _read_named_split(self, name: str, frozen: Path | None) -> np.ndarray:
        path = self.config.find_data_file(name) or Path(name)
        if not path.is_file():
            looked = ", ".join(f"'{folder}'" for folder in self.config.data_folders)
            raise DataError(f"There is no split file '{name}'; looked in {looked} and at the path itself.")
        if frozen is not None and path.samefile(frozen):
            return self._read_frozen_split(path)
        recipe = SplitRecipe.of_file(path) if is_packed(path) else None
        wish = other_wish(self.config, path, recipe)
        if wish:
            raise SettingError(f"{wish} asks for another split than split_file='{name}'. Leave one of the two out.")
        self.logger.info(f"Split from {path}.")
        codes = self._codes_of(path)
        if frozen is not None and not np.array_equal(codes, self._codes_of(frozen)):
            raise DataError(
                f"split_file='{name}' is another split than the frozen one, "
                f"{described(frozen, SplitRecipe.of_file(frozen))}, which all trainings of '{self.dataset_name}' use. "
                "Leave split_file out, or freeze this file's split instead with "
                f"`{self.config.command('split', '--overwrite')}`."
            )
        self._empty_parts = recipe.without if recipe is not None else ()
        self.split_origin = described(path, recipe) if is_packed(path) else path.name
        return codes

    def _codes_of(self, path: Path, remedy: str = "") -> np.ndarray:
        users, items = (self.inter_feat[field].to_numpy() for field in (self.uid_field, self.iid_field))
        return read_split(path, users, items, self.uid_field, self.iid_field, remedy)

    # ------------------------------------------------------------------ a split that is drawn, to be frozen

    def _keep_raw(self) -> None:
        """Keep the ids of all interactions: a packed split lists those, too, that a filter removes."""
        users, items = (self.inter_feat[field].to_numpy() for field in (self.uid_field, self.iid_field))
        self._raw_ids = users, items

    def _reset_index(self) -> None:
        if self._split_use != "take":
            self._raw_rows = self.inter_feat.index.to_numpy()  # RecBole's filters keep the labels of the rows
        super()._reset_index()

    def draw_split(self, without: Sequence[str] = (), cold_items: float = 0.0) -> np.ndarray:
        """Split as a training without a frozen split would, and let :meth:`build` give these parts.

        Args:
            without: parts, ``valid`` or ``test``, whose interactions are for training.
            cold_items: share of the items, drawn by the seed, whose interactions are all for the test; those of the
                other items are split as if there were no more.

        Returns:
            ``[N]`` int8, a code of each interaction that is left after filtering.

        Raises:
            DataError: a part that is not in ``without`` is empty, there is no time to sort by, or no item is left for
                training.
        """
        self._empty_parts = tuple(without)
        is_cold = self._drawn_items(cold_items)
        if _SPLIT_COLUMN in self.field2type:
            codes = self._codes_of_column()
            self.recipe = SplitRecipe.copied(self.config["split_file"], self.config["seed"], without, cold_items)
        else:
            codes = self._codes_by_recbole(is_cold)
            self.recipe = SplitRecipe.of(self.config["eval_args"], self.config["seed"], without, cold_items)
        self.split_origin = str(self.recipe)
        codes[np.isin(codes, [SPLIT_NAMES.index(name) for name in without])] = SPLIT_NAMES.index("train")
        codes[is_cold] = SPLIT_NAMES.index("test")
        sizes = np.bincount(codes, minlength=LEFT_OUT + 1)
        for name, size in zip(SPLIT_NAMES, sizes):
            self._require_interactions(name, size)
        self._drawn = codes
        return codes

    def _drawn_items(self, share: float) -> np.ndarray:
        """Return which interactions are of the items that are withheld from training, bool ``[N]``.

        They are drawn among the items that have an interaction, in the order of their ids as text, so that the order of
        the rows does not matter.
        """
        items = np.asarray(self.inter_feat[self.iid_field])
        if not share:
            return np.zeros(len(items), dtype=bool)
        tokens = self.field2id_token[self.iid_field]
        known = sorted(np.unique(items).tolist(), key=lambda item: str(tokens[item]))
        n_cold = max(1, round(share * len(known)))
        if n_cold >= len(known):
            raise DataError(
                f"{share:.4g} of the {count(len(known), 'item')} of '{self.dataset_name}' is all of them, so that none "
                "is left for training. Withhold a smaller share."
            )
        chosen = np.random.default_rng(self.config["seed"]).choice(known, n_cold, replace=False)
        is_chosen = np.zeros(len(tokens), dtype=bool)
        is_chosen[chosen] = True
        return is_chosen[items]

    @property
    def is_split_in_data(self) -> bool:
        """Whether the interactions come in parts, or have a column that says the part."""
        return self.benchmark_filename_list is not None or self._extra_column is not None

    def is_drawn_as(self, path: Path) -> bool:
        """Return whether a split file holds what :meth:`draw_split` made."""
        assert self._raw_ids is not None, "the ids of all interactions are kept"
        try:
            codes = read_split(path, *self._raw_ids)
        except DataError:  # it is of other data
            return False
        return np.array_equal(codes, self._raw_codes())

    def _raw_codes(self) -> np.ndarray:
        """Return the drawn code of each interaction as read; those that a filter removed are left out."""
        assert self._drawn is not None and self._raw_ids is not None, "a split was drawn"
        codes = np.full(len(self._raw_ids[0]), LEFT_OUT, dtype=np.int8)
        codes[self._raw_rows] = self._drawn
        return codes

    def _codes_by_recbole(self, is_left_out: np.ndarray) -> np.ndarray:
        """Have RecBole split the numbers of the other rows, in the random numbers' order of its own datasets."""
        numbers = copy.copy(self)
        numbers.feat_name_list = ["inter_feat"]
        numbers.field2type = {**self.field2type, _ROW_COLUMN: FeatureType.TOKEN}
        columns = {field: self.inter_feat[field] for field in (self.uid_field, self.iid_field)}
        if self.config["eval_args"]["order"] == "TO":
            if self.time_field not in self.inter_feat:
                raise DataError(
                    f"'{self.dataset_name}' is to be split by time, but no column '{self.time_field}' is loaded: name "
                    "it as TIME_FIELD, and in load_col."
                )
            # RecBole sorts by single precision, in which the seconds of two minutes are one.
            columns[self.time_field] = pd.factorize(self.inter_feat[self.time_field], sort=True)[0].astype(float)
        columns[_ROW_COLUMN] = np.arange(len(self.inter_feat))
        numbers.inter_feat = pd.DataFrame(columns)
        if is_left_out.any():
            numbers.inter_feat = numbers.inter_feat[~is_left_out].reset_index(drop=True)
        codes = np.full(len(self.inter_feat), LEFT_OUT, dtype=np.int8)
        for code, part in enumerate(super(RLMRecDataset, numbers).build()):
            codes[part.inter_feat[_ROW_COLUMN].numpy()] = code
        return codes

    def write_split(self, path: Path) -> None:
        """Freeze the split that :meth:`draw_split` made.

        Raises:
            DataError: the file cannot be written.
        """
        assert self._raw_ids is not None and self.recipe is not None, "a split was drawn"
        try:
            write_packed_split(path, *self._raw_ids, self._raw_codes(), self.recipe.record())
        except OSError as error:
            raise DataError(
                f"The split cannot be frozen: '{path}' cannot be written ({error}). Without it another seed would be "
                "another split; give a data_path that is writable."
            ) from error

    def freeze_split(self, path: Path) -> bool:
        """Draw a split and freeze it, unless something fixes it already; return whether it was.

        Raises:
            DataError: see :meth:`draw_split` and :meth:`write_split`.
        """
        # Parts, a column and a file of the user's are the same whatever the seed, and so is what was frozen before.
        if self.benchmark_filename_list is not None or _SPLIT_COLUMN in self.field2type:
            return False
        self.draw_split()
        self.write_split(path)
        return True

    # ------------------------------------------------------------------ splitting

    def build(self) -> list[Dataset]:
        """Split into training, validation and test, in this order.

        Raises:
            DataError: a part is empty, unless the frozen split was made without it; or ``cold_nodes: error`` and there
                are some.
        """
        self.parts = ()  # the parts are copies of this, and have none
        if self._drawn is not None or _SPLIT_COLUMN in self.field2type:
            parts = self._build_from_codes(self._codes_of_column() if self._drawn is None else self._drawn)
        else:
            parts = super().build()
            drawn = SplitRecipe.of(self.config["eval_args"], self.config["seed"])
            self.split_origin = self.split_origin or str(drawn)
        for part, name in zip(parts, SPLIT_NAMES):
            self._require_interactions(name, len(part.inter_feat))
        parts[0]._is_training_split = True
        # What was read before there was a split has not been checked against it.
        parts[0]._semantic, parts[0].basis = {}, None
        self._add_noise(parts[0])
        self._check_cold_nodes(parts[0])
        self.parts = tuple(parts)
        return parts

    def _add_noise(self, training: RLMRecDataset) -> None:
        """Add pairs that nobody has to the training interactions, as ``noise_share`` asks for.

        What the profiles were written from stays what it was, so the hash for that comparison is taken before.
        """
        share = self.config["noise_share"]
        if not share:
            return
        training._profiled_sha256 = _training_sha256(training)
        known, own = self.inter_feat, training.inter_feat
        pairs = np.asarray(known[self.uid_field]), np.asarray(known[self.iid_field])
        users, items = noise_pairs(pairs, self.user_num, self.item_num, round(share * len(own)))
        # Further columns, such as ratings, are those of interactions that there are.
        rows = np.random.default_rng(0).integers(0, len(own), len(users))
        added = own[torch.from_numpy(rows)]
        added.update(Interaction({self.uid_field: torch.from_numpy(users), self.iid_field: torch.from_numpy(items)}))
        training.inter_feat = cat_interactions([own, added])
        _TRAINING_SHA256.pop(training, None)
        self.logger.warning(f"noise_share={share:g}: {len(users):,} training interactions that nobody had are added.")

    def _require_interactions(self, name: str, size: int) -> None:
        if size == 0 and name not in self._empty_parts:
            raise DataError(
                f"The {name} split of '{self.dataset_name}' has no interaction; training, validation and test all "
                "need some. Check split_file, the split column, benchmark_filename or eval_args."
            )

    def _codes_of_column(self) -> np.ndarray:
        """Return the code of each interaction that is left after filtering."""
        ids = np.asarray(self.inter_feat[_SPLIT_COLUMN])
        code_of = {name: code for code, name in enumerate(SPLIT_NAMES)}
        codes = np.array([code_of.get(str(name), LEFT_OUT) for name in self.field2id_token[_SPLIT_COLUMN]], np.int8)
        return codes[ids]

    def _build_from_codes(self, codes: np.ndarray) -> list[Dataset]:
        self._change_feat_format()
        rows = [torch.from_numpy(np.flatnonzero(codes == code)) for code in range(len(SPLIT_NAMES))]
        left_out = len(codes) - sum(map(len, rows))
        if left_out:
            self.logger.info(f"{left_out} interactions belong to no part of the split and are left out.")
        if _SPLIT_COLUMN in self.field2type:
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

    def semantic_basis(self, dimension: int | Literal["auto"]) -> SemanticBasis:
        """Return what reduces the semantic embeddings of both sides to some dimensions; computed once, and kept.

        Args:
            dimension: as the setting ``semantic_dimension``.

        Raises:
            SettingError: it is above the embeddings'.
            DataError: see :meth:`semantic_embedding`.
        """
        sides = [self.semantic_embedding(side) for side in SIDES]
        if self.basis is None or self._basis_dimension != dimension:
            folder = Path(sides[0].embedding.source).parent
            prefix = table_prefix(self.config)
            self.basis, self._basis_dimension = semantic_basis(sides, dimension, folder, prefix), dimension
        return self.basis

    def get_preload_weight(self, field: str) -> np.ndarray:
        """Return a preloaded feature, ``[ids, D]``: ``useremb``, ``itememb`` (zeros at holes), or RecBole's own."""
        if field in SEMANTIC_FIELDS and field not in self._preloaded_weight:
            return self.semantic_embedding(SEMANTIC_FIELDS[field]).matrix()
        weight: np.ndarray = super().get_preload_weight(field)
        return weight

    def _load_semantic_embeddings(self) -> dict[Side, JoinedEmbedding]:
        folders, name = list(self.config.data_folders), chosen_prefix(self.config)
        given = {key: self.config[key] for key in ("field_separator", "seq_separator")}
        given["command"] = self.config.command("build-semantics")
        # As a map in any case: a model that holds the table in memory fills it from the file, block by block.
        tables = {side: SemanticEmbedding.load(folders, name, side, memory_map=True, **given) for side in SIDES}
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
            self._check_leakage(metadata, path)
        fields: dict[Side, str] = {"user": self.uid_field, "item": self.iid_field}
        joined = {side: table.join(self.field2id_token[fields[side]]) for side, table in tables.items()}
        for table in tables.values():
            table.release()
        ablated = AblationSettings.from_config(self.config)
        if ablated.shuffled_profiles or ablated.withheld_share:
            self.logger.warning("Profiles are withheld or exchanged, as the settings ask for.")
        return without_profiles(joined, ablated)

    def _check_leakage(self, metadata: Mapping[str, Any], path: Path) -> None:
        """Compare the training splits that profiles and encoder are recorded to be made from with this one."""
        if not self._is_training_split:
            return
        for key, made in _MADE_FROM_SPLIT.items():
            recorded = metadata.get(key)
            if recorded is None:
                continue
            training_split = self._profiled_sha256 or _training_sha256(self)
            if recorded == training_split:
                continue
            message = other_split(path, made, recorded, training_split)
            if self.config["leakage"] != "warn":
                remedy = self._remedy_of_leakage(key, metadata)
                raise DataError(f"{message} {remedy}. `--leakage=warn` trains all the same.")
            self.logger.warning(message)

    def _remedy_of_leakage(self, key: str, metadata: Mapping[str, Any]) -> str:
        """Return how to make again what was made from another split."""
        if key == "encoder_train_sha256":
            tune = self.config.command("tune-encoder", "--encoder-model=MODEL", "--output=FOLDER")
            encode = encode_again(self.config, metadata, "FOLDER")
            return (
                f"Tune it again on this split, with `{tune}` (MODEL is what it was tuned from), and encode with "
                f"FOLDER, with {encode}"
            )
        if "writer" in metadata:  # this package's writers know which profiles are to be written again
            return f"Write what is stale again, and freeze the split, with {write_again(self.config, metadata)}"
        return "Make them again from this split's training interactions"


@contextmanager
def reading(config: Any) -> Iterator[None]:
    """Turn what RecBole raises while it reads a dataset into an error that names the dataset.

    Raises:
        DataError: RecBole cannot read it.
    """
    try:
        yield
    except RLMRecError:
        raise
    except (ValueError, KeyError) as error:
        expected = (
            "Expected UTF-8 files with a typed header such as 'user_id:token<TAB>item_id:token' and at least one row."
        )
        if "empty" in str(error):  # RecBole says so of what its filters leave, and nothing of the filters
            expected = (
                "Nothing is left of it after user_inter_num_interval, item_inter_num_interval, val_interval and the "
                "other filters that are set. Set them lower, or leave them out."
            )
        raise DataError(
            f"RecBole cannot read the dataset '{config['dataset']}' in '{config['data_path']}': "
            f"{config.explained(error)} {expected}"
        ) from error


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


def training_sha256_of(dataset: Any, codes: np.ndarray) -> str:
    """Hash the pairs of a split that was drawn and not built.

    Args:
        dataset: all interactions.
        codes: ``[N]``, of each that is left after filtering.
    """
    return _pairs_sha256(dataset, codes == SPLIT_NAMES.index("train"))


def _pairs_sha256(dataset: Any, rows: Any) -> str:
    columns = (
        (dataset.field2id_token[field], np.asarray(dataset.inter_feat[field])[rows])
        for field in (dataset.uid_field, dataset.iid_field)
    )
    (user_tokens, users), (item_tokens, items) = columns
    return numbered_pairs_sha256(user_tokens, users, item_tokens, items)


def inter_columns(config: Any) -> tuple[Path, dict[str, str]]:
    """Return the file of a dataset's interactions, and the type of each of its columns; none where it is not there."""
    path = Path(config["data_path"]) / f"{config['dataset']}.inter"
    return path, dict(Table.of(config, path).types) if path.is_file() else {}


#: Training split -> hash of its pairs. A run asks for it several times, and for millions of pairs it takes seconds.
_TRAINING_SHA256: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _training_sha256(training: Any) -> str:
    if training not in _TRAINING_SHA256:
        _TRAINING_SHA256[training] = _pairs_sha256(training, slice(None))
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
