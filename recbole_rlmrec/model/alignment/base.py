"""The template of an alignment: a term beside the backbone's own, computed from the representation of a step."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_rlmrec.errors import ContractError
from recbole_rlmrec.model.backbone.contract import Backbone, Representation, SettingsClasses
from recbole_rlmrec.model.layers import DimensionSettings, Projector, SemanticTable, basis_of
from recbole_rlmrec.ops.distributed import Share, summand
from recbole_rlmrec.settings import SHARE, Settings, bound_of, number_of, setting
from recbole_rlmrec.sides import SIDES

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BoundSettings(Settings):
    """What every alignment reads beside its own settings."""

    alignment_share: float = setting(
        0.1,
        SHARE,
        "Con, Gen, ProMax: with an auto weight, how hard the term may pull at most, in gradients of the other terms",
    )


class Alignment(Backbone):
    """A mixin that stands before any backbone and adds one term to its losses.

    A subclass says the ending of its models' names, the term's name, the settings it reads (the first of
    ``settings_classes``) and which of them is the weight; :meth:`build_alignment` makes what the term needs,
    :meth:`formula` computes it. The template reads the settings once, builds nothing and draws nothing at weight 0,
    which is the backbone itself, runs the backbone's step, bounds how hard the term pulls where its weight is ``auto``,
    scales the term to the backbone's losses and names it.

    Right with several processes without knowing of them: every process sees the whole batch, and what :meth:`formula`
    returns is taken for the whole term, of which each process adds its part. A term that is computed in parts, each
    process those of its rows divided by the whole batch's number, is returned as
    :class:`~recbole_rlmrec.ops.distributed.Share`, which is no more right, but faster.
    """

    reads_semantic_embeddings = True

    #: What is appended to a backbone's name, such as ``_RLMRecCon``.
    ending: ClassVar[str]

    #: Name of the term in the log.
    term_name: ClassVar[str]

    #: The setting that is the term's weight.
    weight_setting: ClassVar[str]

    #: Whether the alignment masks ego embeddings, which not every backbone has for every node.
    masks: ClassVar[bool] = False

    settings_classes: ClassVar[SettingsClasses] = (BoundSettings, DimensionSettings)

    alignment_settings: Any

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.alignment_settings = self.settings_classes[0].from_config(config)
        self.alignment_share = BoundSettings.from_config(config).alignment_share
        self.backbone_parameters = frozenset(name for name, _ in self.named_parameters())
        self.is_aligned = getattr(self.alignment_settings, self.weight_setting) != 0
        if self.is_aligned and not any(dataset.semantic_embedding(side).covered.any() for side in SIDES):
            self.is_aligned = False
            _logger.warning(f"{type(self).__name__}: nobody has a text to align with, so this is the backbone alone.")
        if self.is_aligned:
            self.build_alignment(config, dataset)

    def build_alignment(self, config: Any, dataset: Any) -> None:
        """Make what the term needs: modules, tables. Called once, and not at weight 0.

        Random numbers come from generators of their own, or the backbone's weights would not be what they are alone.
        """

    def draw_alignment(self, interaction: Any) -> Any:
        """Return what a step draws by chance, such as the nodes to mask; None for nothing."""

    def mask_ego(self, ego: Tensor, drawn: Any) -> Tensor:
        """Return what is encoded in the place of the ego embeddings, ``[U + I, d]``, where something was drawn."""
        return ego

    def formula(self, representation: Representation, interaction: Any, drawn: Any) -> Tensor | Share:
        """Return the term, an average over the batch, without its weight.

        Args:
            representation: of the nodes at this step, ``[U + I, output_dim]``.
            interaction: the batch.
            drawn: what :meth:`draw_alignment` returned.
        """
        raise ContractError(
            f"{type(self).__name__} breaks the contract of alignments: it lacks formula(representation, interaction, "
            "drawn) -> scalar."
        )

    @property
    def text_projector(self) -> Projector | None:
        """What maps semantic embeddings, ``[n, D]``, to representations, ``[n, output_dim]``; None without one."""
        return None

    def calculate_loss(self, interaction: Any) -> Any:
        """Return the backbone's loss terms and, last, the weighted alignment term."""
        if not self.is_aligned:
            return super().calculate_loss(interaction)
        weight = getattr(self.alignment_settings, self.weight_setting)
        bound = bound_of(weight, self.alignment_share)
        drawn = self.draw_alignment(interaction)
        mask = partial(self.mask_ego, drawn=drawn) if self.masks else None
        terms, representation = self.step(interaction, mask, bound)
        if self.term_name in terms:
            raise ContractError(
                f"{type(self).__name__}: backbone and alignment both have a term '{self.term_name}'; name another one."
            )
        value = summand(self.formula(representation, interaction, drawn), f"{type(self).__name__}.formula()")
        terms[self.term_name] = number_of(weight) * self.reduced(value, len(interaction[self.USER_ID]))
        return self.named_losses(terms)

    def semantic_table(
        self, config: Any, dataset: Any, storage: str = "memory", *, unit_length: bool = False
    ) -> SemanticTable:
        """Return the semantic embeddings of users and items, in the rows of the stacked table.

        They are reduced as ``semantic_dimension`` asks for; ``dimension`` of the table says how long its rows are.

        Args:
            config: the run's configuration.
            dataset: the training data.
            storage: ``memory`` or ``memory_map``.
            unit_length: scale the rows to length 1.
        """
        sides = [dataset.semantic_embedding(side) for side in SIDES]
        # A projector's products would cast the rows to bfloat16 at each step under autocast.
        dtype = torch.bfloat16 if config["enable_amp"] else torch.float32
        basis = basis_of(config, dataset)
        return SemanticTable(sides, in_memory=storage == "memory", dtype=dtype, unit_length=unit_length, basis=basis)
