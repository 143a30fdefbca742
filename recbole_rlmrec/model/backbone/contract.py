"""The backbone contract: what a model says of itself, and what it supplies so that an alignment can be added to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor, nn

from recbole_rlmrec.errors import ContractError
from recbole_rlmrec.settings import Settings, refuse_recboles_own

#: Settings by class, see :attr:`ModelFlags.settings_classes`.
SettingsClasses = tuple[type[Settings], ...]


class Representation(Protocol):
    """What a step represents the nodes by: a ``[U + I, output_dim]`` tensor, or what computes the rows asked for."""

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the rows ``index``, ``[n]``, of the stacked nodes, ``[n, output_dim]``; ``dim`` is 0."""


class ModelFlags:
    """What a model class says of itself to the trainer, the configuration and the searches.

    Every flag is declared here, with the value that is right for a class that says nothing; :func:`flags_of` reads them
    of any class, RecBole's included.
    """

    #: Names of the loss terms in the order ``calculate_loss`` returns them; the trainer's log uses them.
    loss_names: tuple[str, ...] = ()

    #: Whether the model takes the whole batch in each process and returns this process's share of the losses. Of other
    #: models each process trains on its part of the batch, and their losses are taken for means over the rows.
    shares_losses: bool = False

    #: Whether the model has no parameters: the trainer takes no step, and a search has what the class's own file says.
    nothing_to_train: bool = False

    #: Whether semantic embeddings take part in the scores, and not in training only.
    scores_semantic_embeddings: bool = False

    #: Whether the model reads semantic embeddings at all.
    reads_semantic_embeddings: bool = False

    #: Whether tuned settings are those of the class's bases where the class has none of its own.
    inherits_tuned_settings: bool = False

    #: The settings that the class reads beside those of its bases.
    settings_classes: ClassVar[SettingsClasses] = ()

    def __init__(self, config: Any, dataset: Any) -> None:
        refuse_recboles_own(config)
        super().__init__(config, dataset)  # type: ignore[call-arg]


def flags_of(model: type) -> type[ModelFlags]:
    """Return a model class as what says the flags; a class that says nothing of itself has the defaults.

    Args:
        model: any model class, RecBole's included.
    """
    return model if issubclass(model, ModelFlags) else ModelFlags


def settings_classes_of(cls: type) -> SettingsClasses:
    """Return the settings classes that a class declares or inherits first.

    Raises:
        ContractError: what it declares is no tuple of classes.
    """
    found = getattr(cls, "settings_classes", ())
    if not isinstance(found, tuple) or not all(isinstance(each, type) and issubclass(each, Settings) for each in found):
        raise ContractError(f"{cls.__name__}.settings_classes = {found!r}: expected a tuple of subclasses of Settings.")
    return found


def settings_along(model: type) -> list[tuple[type, SettingsClasses]]:
    """Return the bases of a model class and the class, the lowest first, each with the settings classes it declares.

    Args:
        model: any model class, RecBole's included.

    Raises:
        ContractError: what one of them declares is no tuple of classes.
    """
    lowest_first = reversed(model.__mro__)
    return [(base, settings_classes_of(base) if "settings_classes" in vars(base) else ()) for base in lowest_first]


class Backbone(ModelFlags):
    """A recommender that can be aligned: ego embeddings, a step with loss terms and representation, and anchors.

    A mixin that stands before a model class of RecBole's. :class:`~recbole_rlmrec.model.backbone.base.GraphBackbone`
    is the base of graph recommenders, which supply two or three small methods;
    :class:`~recbole_rlmrec.model.backbone.adapter.RecBoleBackbone` brings RecBole's own models under this contract.

    Rows: user row 0 and item row 0 are RecBole's ``[PAD]``. Stacked tables are ``[users; items]``.
    """

    shares_losses = True

    #: Whether a node's representation holds anything of its neighbours; if not, a masked node's is the mask token.
    sees_neighbours: bool = True

    # What RecBole's model base class brings; declared here because RecBole is not typed.
    n_users: int
    n_items: int
    USER_ID: str
    ITEM_ID: str
    NEG_ITEM_ID: str
    named_parameters: Callable[[], Iterator[tuple[str, nn.Parameter]]]

    #: Names of the parameters that are the backbone's; None where it is all of them. An alignment sets it before it
    #: adds its own.
    backbone_parameters: frozenset[str] | None = None

    if TYPE_CHECKING:

        def calculate_loss(self, interaction: Any) -> Any:
            """Return the loss, or its terms."""

    @property
    def ego_dim(self) -> int:
        """Width d of a node's ego embedding, which a mask token has to replace."""
        raise ContractError(self._lacks("ego_dim, the width of a node's ego embedding"))

    @property
    def output_dim(self) -> int:
        """Width of a node's representation."""
        return self.ego_dim

    def ego_embeddings(self) -> Tensor:
        """Return the ego embeddings stacked, ``[U + I, d]``."""
        raise ContractError(self._lacks("ego_embeddings() -> [U + I, ego_dim]"))

    def representation(self) -> tuple[Tensor, Tensor]:
        """Return the representations of all users ``[U, output_dim]`` and all items ``[I, output_dim]``."""
        raise ContractError(self._lacks("representation() -> (users [U, output_dim], items [I, output_dim])"))

    def step(
        self, interaction: Any, mask: Callable[[Tensor], Tensor] | None = None, share: float | None = None
    ) -> tuple[dict[str, Tensor], Representation]:
        """Return the weighted loss terms of a batch, and the representation they were computed from.

        Args:
            interaction: the batch.
            mask: given the ego embeddings ``[U + I, d]``, returns what is encoded in their place (RLMRec-Gen).
            share: what is computed from the representation returned may pull on it at most this many times as hard as
                the terms do, see :func:`~recbole_rlmrec.ops.balance.balanced`; None for no bound.

        Returns:
            The terms by name, this process's summand of each, and the representation, ``[U + I, output_dim]``.
        """
        raise ContractError(self._lacks("step(interaction, mask, share) -> (terms by name, representation)"))

    def reduced(self, mean: Tensor, batch_size: int) -> Tensor:
        """Return an average over the batch in the scale of the backbone's losses."""
        return mean

    def alignment_anchors(self, interaction: Any) -> tuple[Tensor, list[Tensor]]:
        """Return whose representations are aligned with their profiles: the batch's users, and groups of items.

        Items of one group are contrasted with each other.

        Returns:
            User ids ``[B]`` and a list of item ids ``[B]``, duplicates included; ``[PAD]`` is no anchor.
        """
        raise ContractError(self._lacks("alignment_anchors(interaction) -> (users, groups of items)"))

    def named_losses(self, terms: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Remember the terms' names for the log and return their values."""
        self.loss_names = tuple(terms)
        return tuple(terms.values())

    def _lacks(self, what: str) -> str:
        return f"{type(self).__name__} breaks the backbone contract: it lacks {what}."
