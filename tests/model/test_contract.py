"""Every registered backbone with every alignment keeps the contract; so does what is made of RecBole's models."""

from __future__ import annotations

from typing import Any, ClassVar

from contract import ModelContract

from recbole_rlmrec.model.registry import ALIGNMENTS, BACKBONES


class TestOurs(ModelContract):
    names = tuple(backbone + ending for backbone in BACKBONES for ending in ("", *ALIGNMENTS))
    settings: ClassVar[dict[str, Any]] = {"seed_num": 3}


class TestRecBoles(ModelContract):
    names = tuple(f"{backbone}{ending}" for backbone in ("BPR", "NGCF", "SimpleX") for ending in ALIGNMENTS)
    settings: ClassVar[dict[str, Any]] = {"node_dropout": 0.0, "message_dropout": 0.0}
