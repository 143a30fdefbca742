"""What is known of a comparison's data beside the lists: ids, training interactions, titles, genres, profiles."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import init_seed
from scipy.sparse import csr_matrix

from recbole_rlmrec.compat import dataset_of
from recbole_rlmrec.data.dataset import fingerprint
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.experiment.genres import Genres, genre_field, genres_of
from recbole_rlmrec.profile.prompt import known_title
from recbole_rlmrec.profile.record import profiles_path
from recbole_rlmrec.reading.regular import file_sha256
from recbole_rlmrec.recommend.explain import profiles_of
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import ITEMS_FILE
from recbole_rlmrec.text.load import known_items

_logger = logging.getLogger(__name__)


@contextmanager
def warned_before() -> Iterator[None]:
    """Load data without their warnings: every training of the comparison has them in its log."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


class KnownData:
    """The data of a comparison; each part is read when it is asked for first.

    Args:
        config: of one of the trainings, with its seed: an :class:`~recbole_rlmrec.config.RLMRecConfig`.
        hashes: of the data that the comparison is of, as a result has them.
    """

    def __init__(self, config: Any, hashes: Mapping[str, str]) -> None:
        self._config, self._hashes = config, hashes

    @cached_property
    def dataset(self) -> Any:
        """The training data.

        Raises:
            RLMRecError: the data are not there any more, damaged, or others than those of the comparison.
        """
        with warned_before():
            init_seed(self._config["seed"], self._config["reproducibility"])
            loaders = data_preparation(self._config, create_dataset(self._config))
        found = dataset_of(loaders[0])
        differing = [
            name
            for name, value in fingerprint(found, with_embeddings=False).items()
            if self._hashes.get(name, value) != value
        ]
        if differing:  # internal ids would be those of others
            raise DataError(
                f"The data of '{self._config['dataset']}' have changed since the comparison was made "
                f"({', '.join(differing)}). Restore them, or compare again with another --output."
            )
        return found

    @cached_property
    def training(self) -> csr_matrix:
        """Training interactions by internal ids, ``[U, I]``, ones."""
        users, items = (
            self.dataset.inter_feat[field].numpy() for field in (self.dataset.uid_field, self.dataset.iid_field)
        )
        shape = (self.dataset.user_num, self.dataset.item_num)
        table = csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)), shape=shape)
        table.data[:] = 1  # a pair may occur several times
        return table

    def tokens(self, side: Side) -> list[str]:
        """Return original ids by internal id, ``[PAD]`` first."""
        field = self.dataset.uid_field if side == "user" else self.dataset.iid_field
        return [str(token) for token in self.dataset.field2id_token[field]]

    @cached_property
    def items(self) -> Mapping[str, Item]:
        """Token -> what is known of an item; empty where nothing is."""
        try:
            return known_items(self._config)
        except DataError as error:
            _logger.warning(f"Titles and genres are left out: {error}")
            return {}

    @cached_property
    def genres(self) -> Genres | None:
        """The items' genres; None where nothing says them, which is known without reading the interactions."""
        return None if genre_field(self.items) is None else genres_of(self.items, self.tokens("item"))

    def title(self, token: str) -> str:
        """Return an item's title, or its id where it has none."""
        item = self.items.get(token)
        return (known_title(item.title) if item is not None else "") or token

    @cached_property
    def profiles(self) -> Mapping[str, str]:
        """Token of a user -> text of the profile; empty where there are none."""
        try:
            return profiles_of(self.dataset, "user")
        except DataError as error:
            _logger.warning(f"Profiles are left out: {error}")
            return {}

    def texts_sha256(self) -> list[str]:
        """Return hashes of the files that titles, genres and profiles are read from."""
        name = str(self._config["dataset"])
        names = [ITEMS_FILE, f"{name}.item", *(profiles_path(Path(), name, side).name for side in SIDES)]
        found = [self._config.find_data_file(each) for each in names]
        paths = [*found, Path(self._config["data_path"]) / f"{name}.item"]  # where RecBole's copy is, for its datasets
        return [file_sha256(path) for path in paths if path is not None and path.is_file()]
