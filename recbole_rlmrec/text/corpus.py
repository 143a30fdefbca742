"""The texts of a dataset: what its items are, and what its users said about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Item:
    """What is known about an item.

    Attributes:
        token: its original id.
        title: its name; empty when unknown.
        description: prose about it; empty when unknown.
        attributes: name -> values, such as ``{"genres": ("Action", "Indie")}``.
    """

    token: str
    title: str = ""
    description: str = ""
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def has_text(self) -> bool:
        """Whether anything is known but the id.

        >>> Item("12", title="Fargo").has_text, Item("77").has_text
        (True, False)
        """
        return any(text.strip() for text in (self.title, self.description, *sum(self.attributes.values(), ())))


@dataclass(frozen=True)
class Review:
    """An interaction, with what the user said, if anything.

    Attributes:
        user: original id of the user.
        item: original id of the item.
        text: the user's words; empty when there are none.
        rating: None when unknown.
        timestamp: seconds since 1970; None when unknown.
    """

    user: str
    item: str
    text: str = ""
    rating: float | None = None
    timestamp: float | None = None


@dataclass(frozen=True)
class Corpus:
    """The texts of a dataset, split as its training is.

    Attributes:
        dataset: RecBole's name of it.
        items: token -> item, every item of the dataset, also those without text.
        users: token -> attributes of the user, every user of the dataset.
        training: training interactions only, by user token, item token and time.
        held_out: (user, item) pairs of validation and test that are no training pairs.
        train_sha256: hash of the training pairs (:func:`recbole_rlmrec.data.split.pairs_sha256`).
    """

    dataset: str
    items: Mapping[str, Item]
    users: Mapping[str, Mapping[str, tuple[str, ...]]]
    training: tuple[Review, ...]
    held_out: frozenset[tuple[str, str]]
    train_sha256: str
