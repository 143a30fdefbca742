"""Settings of the models of this room, apart from these, so that the settings are known before a model is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recbole_rlmrec.settings import (
    COUNT,
    COUNT_OR_NONE,
    POSITIVE,
    SHARE,
    TEXT,
    WEIGHT,
    Choice,
    OfType,
    Range,
    Settings,
    known,
    setting,
)

Pooling = Literal["auto", "mean", "cls", "last"]

#: The value of ``language_model`` that takes the dataset's semantic embeddings for what a language model says.
FROZEN = "frozen"


@dataclass(frozen=True)
class GALRecSettings(Settings):
    """Settings of :class:`~recbole_rlmrec.model.language.galrec.GALRec`; all values are ours: none is published."""

    embedding_size: int = known("embedding_size", 64)
    language_model: str = setting(
        FROZEN,
        OfType(str, "text"),
        "GALRec: `frozen` for the dataset's semantic embeddings, or a Hugging Face model, name or folder, to train",
    )
    external_embeddings: str | None = setting(
        None,
        TEXT,
        "GALRec: folder that `recbole-rlmrec export` wrote of another model, whose representations are an input",
        "exported",
    )
    neighbour_texts: int = setting(
        2, Range(0, 2, whole=True), "GALRec: texts of neighbours up to so many hops are an input"
    )
    hidden_size: int = setting(256, COUNT, "GALRec, frozen: width of the perceptron's hidden layer")
    contrast_temperature: float = setting(0.15, POSITIVE, "GALRec: temperature of all its terms")
    hop2_self_weight: float = setting(0.1, WEIGHT, "GALRec: weight of L1, a node with one two hops away")
    hop2_hop1_weight: float = setting(0.1, WEIGHT, "GALRec: weight of L2, a neighbour with a node two hops away")
    hop1_self_weight: float = setting(0.1, WEIGHT, "GALRec: weight of L3, a node with its neighbour")
    queue_size: int = setting(4096, COUNT, "GALRec: keys of users, and of items, that serve as negatives")
    key_momentum: float = setting(0.99, SHARE, "GALRec: how much of itself the encoder of keys keeps at a step")
    lora_rank: int = setting(
        8, COUNT_OR_NONE, "GALRec, trained language model: rank of its adapters (LoRA); 0 trains all of it"
    )
    pooling: Pooling = setting(
        "auto",
        Choice.of(Pooling),
        "GALRec, trained language model: from tokens to a text; auto is what its sentence-transformers files say",
    )
    max_text_tokens: int = setting(128, COUNT, "GALRec, trained language model: tokens of a text that are read")
