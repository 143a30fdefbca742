"""The trainable tables of the backbones that RecBole does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from recbole.model.abstract_recommender import GeneralRecommender
from recbole.model.init import xavier_uniform_initialization
from recbole.utils import InputType
from torch import nn

from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.settings import COUNT, Settings, setting


@dataclass(frozen=True)
class TableSettings(Settings):
    """The size of the tables."""

    # 64 is RecBole's.
    embedding_size: int = setting(64, COUNT, "width d of the ego embeddings")


class EmbeddingTables(GeneralRecommender):
    """The two trainable tables, initialised as RecBole initialises LightGCN's."""

    input_type = InputType.PAIRWISE

    settings_classes: ClassVar[SettingsClasses] = (TableSettings,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        embedding_size = TableSettings.from_config(config).embedding_size
        self.user_embedding = nn.Embedding(self.n_users, embedding_size)
        self.item_embedding = nn.Embedding(self.n_items, embedding_size)
        self.apply(xavier_uniform_initialization)
