"""What a language model is asked about an item or a user.

The paper's prompts: an item's shows title and description, or, without a description, title, attributes and some
reviews; a user's shows some of the interactions, each with the item's title and profile and the user's own review.
Unlike in the paper's, attributes stand beside a description too, and as many interactions as fit are chosen by what
they say, not at random (:func:`most_informative`). Only training interactions are used. The instructions lie in
``prompts/``, a pair for each domain and a pair of rules that all domains share.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.profile.budget import cut_fairly, estimate_tokens, token_length
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.corpus import Corpus, Review

DOMAINS = ("general", "books", "businesses", "games", "movies")

NOTHING_KNOWN_OF_ITEM = "no title, description, attribute or training review"
NO_TRAINING_INTERACTION = "no training interaction"
NOTHING_SHOWN_OF_USER = "no training interaction with a title, a profile or a review"

_FOLDER = Path(__file__).resolve().parent / "prompts"
# Field names, quotation marks and a few words of each text have to fit into the budget.
_LEAST_TOKENS = 100
_LEAST_TOKENS_PER_INTERACTION = 50
# Shown of a user in any case: texts that are too long for so many are cut. RLMRec's authors show ten.
_LEAST_INTERACTIONS = 10
# Fewer characters may be a profile that only happens to stand in the rules.
_SHORTEST_REPEATED = 15

# Also control characters, which JSON would write at length, and halves of characters, which no request can hold.
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_WORD_BORDER = re.compile(r"[_\W]+|(?<=[a-z])(?=[A-Z0-9])")
# RecBole's ml-100k spells "unknown" so.
_UNKNOWN_TITLES = frozenset(["", "unknown", "unkonwn"])
_SAYS_NOTHING = _UNKNOWN_TITLES | {"none", "other", "n/a", "na", "nan", "null", "[]", "{}"}
# What people call attributes whose names in well-known datasets are misleading.
_OTHER_NAMES = {("movies", "class"): "genres", ("movies", "genre"): "genres"}


@dataclass(frozen=True)
class PromptSettings:
    """How prompts are built.

    Attributes:
        domain: what the items are, one of ``DOMAINS``; chooses the instructions.
        token_budget: most tokens of a prompt's text, by :func:`~recbole_rlmrec.profile.budget.estimate_tokens`; the
            instruction comes on top. Texts that are too long together are cut fairly.
        reviews_per_item: how many reviews an item's prompt shows at most.
        interactions_per_user: how many interactions a user's prompt shows at most, cut fairly where they are too long;
            without it as many as fit uncut, and ten in any case.
        seed: which reviews of an item are shown, and which interactions of a user where nothing else tells them apart.

    Raises:
        SettingError: a value is out of range.
    """

    domain: str = "general"
    token_budget: int = 2000
    reviews_per_item: int = 5
    interactions_per_user: int | None = None
    seed: int = 2023

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise SettingError(f"text_domain is {self.domain!r}, expected one of {', '.join(DOMAINS)}.")
        n_interactions = _LEAST_INTERACTIONS if self.interactions_per_user is None else self.interactions_per_user
        if self.reviews_per_item < 0 or n_interactions < 1:
            raise SettingError(
                f"reviews_per_item is {self.reviews_per_item} and interactions_per_user {n_interactions}, "
                "expected at least 0 and 1."
            )
        n_shown = max(self.reviews_per_item, n_interactions)
        least = _LEAST_TOKENS + _LEAST_TOKENS_PER_INTERACTION * n_shown
        if self.token_budget < least:
            raise SettingError(
                f"token_budget is {self.token_budget}, too little to show {n_shown} interactions; expected at least "
                f"{least} ({_LEAST_TOKENS} and {_LEAST_TOKENS_PER_INTERACTION} for each). Raise it, or lower "
                "reviews_per_item and interactions_per_user."
            )


@dataclass(frozen=True)
class Prompt:
    """One request for a profile.

    Attributes:
        side: whose profile, a user's or an item's.
        token: the original id.
        system: the instruction.
        text: what is known; the user message.
        interacted: other ends of the interactions that the text shows: items for a user, the reviews' users for an
            item.
    """

    side: Side
    token: str
    system: str
    text: str
    interacted: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """SHA-256, in hexadecimal, of the instruction and the text."""
        return canonical_sha256({"system": self.system, "text": self.text})

    @property
    def tokens(self) -> int:
        """Tokens of the text, by :func:`~recbole_rlmrec.profile.budget.estimate_tokens`."""
        return estimate_tokens(self.text)


def canonical_sha256(content: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of an object written as JSON in one way only."""
    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def item_prompts(corpus: Corpus, settings: PromptSettings) -> tuple[list[Prompt], dict[str, str]]:
    """Build the prompt of every item of which something is known.

    Args:
        corpus: the texts; reviews come from its training interactions only.
        settings: how to build.

    Returns:
        The prompts, by item token, and token -> reason for the items that get none.
    """
    system = _instruction(settings.domain, "item")
    reviews = by_token(corpus.training, "item")
    prompts: list[Prompt] = []
    without: dict[str, str] = {}
    for token in sorted(corpus.items):
        item = corpus.items[token]
        description = one_line(item.description)
        shown: list[Review] = []
        if not description:
            with_text = [review for review in reviews.get(token, ()) if one_line(review.text)]
            shown = sample(with_text, "item", settings.reviews_per_item, settings.seed)
        message = {
            "title": known_title(item.title),
            "attributes": _attributes_text(readable_attributes(item.attributes, settings.domain)),
            "description": description,
            "reviews": [one_line(review.text) for review in shown],
        }
        if not any(message.values()):
            without[token] = NOTHING_KNOWN_OF_ITEM
            continue
        text = _message(message, settings.token_budget)
        prompts.append(Prompt("item", token, system, text, tuple(review.user for review in shown)))
    return prompts, without


def user_prompts(
    corpus: Corpus, item_profiles: Mapping[str, str], settings: PromptSettings
) -> tuple[list[Prompt], dict[str, str]]:
    """Build the prompt of every user of whom something is known.

    Args:
        corpus: the texts; only its training interactions are used.
        item_profiles: item token -> profile, of the items that have one.
        settings: how to build.

    Returns:
        The prompts, by user token, and token -> reason for the users who get none.
    """
    system = _instruction(settings.domain, "user")
    interactions = by_token(corpus.training, "user")
    # Of items that are chosen often, the texts are made ready once.
    titles = {token: known_title(item.title) for token, item in corpus.items.items()}
    profiles = {token: one_line(profile) for token, profile in item_profiles.items()}
    rating_range = _rating_range(corpus.training)
    popularity = Counter(review.item for review in corpus.training)
    tokens_of_items: dict[str, float] = {}
    tokens_of_ratings: dict[float | None, float] = {None: 0.0}
    prompts: list[Prompt] = []
    without: dict[str, str] = {}
    for token in sorted(corpus.users):
        reviews = interactions.get(token, [])
        with_text = [
            review
            for review in reviews
            if titles.get(review.item) or profiles.get(review.item) or one_line(review.text)
        ]
        if not with_text:
            without[token] = NOTHING_SHOWN_OF_USER if reviews else NO_TRAINING_INTERACTION
            continue
        chosen = most_informative(with_text, popularity, settings.seed)[: settings.interactions_per_user]
        entries: list[dict[str, Any]] = []
        left = settings.token_budget - token_length(_json({"rating_range": rating_range, "interactions": []}))
        for review in chosen:
            item, text = review.item, one_line(review.text)
            entry: dict[str, Any] = {"title": titles.get(item, ""), "profile": profiles.get(item, "")}
            rating = _rating(review) if rating_range else None
            if settings.interactions_per_user is None:
                if item not in tokens_of_items:
                    tokens_of_items[item] = token_length(_json(_without_empty(entry)) + ", ")
                if rating not in tokens_of_ratings:
                    tokens_of_ratings[rating] = token_length(f', "rating": {rating}')
                left -= tokens_of_items[item] + tokens_of_ratings[rating]
                left -= token_length(f', "review": {_json(text)}') if text else 0.0
                if left < 0 and len(entries) >= _LEAST_INTERACTIONS:
                    break
            entries.append({**entry, "review": text, **({} if rating is None else {"rating": rating})})
        shown = [review.item for review in chosen[: len(entries)]]
        # The order says nothing, as the instruction has it: a model would take it for one of preference.
        order = sorted(range(len(shown)), key=lambda place: _draw(settings.seed, "user", (token, shown[place])))
        message: dict[str, Any] = {"interactions": [entries[place] for place in order]}
        if any("rating" in entry for entry in entries):
            message = {"rating_range": rating_range, **message}
        text = _message(message, settings.token_budget)
        prompts.append(Prompt("user", token, system, text, tuple(shown[place] for place in order)))
    return prompts, without


class Prompts:
    """The prompts of a corpus, built when they are first asked for, and kept.

    Args:
        corpus: the texts.
        settings: how to build.
    """

    def __init__(self, corpus: Corpus, settings: PromptSettings) -> None:
        self._corpus, self._settings = corpus, settings
        self._of_users: tuple[list[Prompt], dict[str, str]] | None = None
        self._item_profiles: dict[str, str] = {}

    @cached_property
    def of_items(self) -> tuple[list[Prompt], dict[str, str]]:
        """The items' prompts; see :func:`item_prompts`."""
        return item_prompts(self._corpus, self._settings)

    def of_users(self, item_profiles: Mapping[str, str]) -> tuple[list[Prompt], dict[str, str]]:
        """Return the users' prompts; see :func:`user_prompts`. With other profiles than before they are built again."""
        if self._of_users is None or self._item_profiles != item_profiles:
            self._item_profiles = dict(item_profiles)
            self._of_users = user_prompts(self._corpus, item_profiles, self._settings)
        return self._of_users

    def of(self, side: Side, item_profiles: Mapping[str, str]) -> tuple[list[Prompt], dict[str, str]]:
        """Return one side's prompts, by token, and token -> reason for those that get none."""
        return self.of_items if side == "item" else self.of_users(item_profiles)


def sample(reviews: Iterable[Review], side: Side, limit: int, seed: int) -> list[Review]:
    """Choose some interactions of one item, or of one user, at random; at most one for each other end.

    Every pair draws a number, a hash of the seed and its two ids, and the lowest numbers are chosen. So the choice
    depends neither on an order nor on other ids, and a new interaction changes a sample by one at most, which leaves
    most prompts, and the profiles paid for, as they are.

    Args:
        reviews: the interactions, all of the same user or item. Of several of one pair, the last with a text counts,
            or the last where none has.
        side: whose interactions they are.
        limit: how many at most.
        seed: another seed chooses others.

    Returns:
        The chosen interactions, in the order of their numbers.
    """
    of_pair = _one_of_each_pair(reviews)
    drawn = ((_draw(seed, side, pair), pair) for pair in of_pair)
    return [of_pair[pair] for _, pair in heapq.nsmallest(limit, drawn)]


def most_informative(reviews: Iterable[Review], popularity: Mapping[str, int], seed: int) -> list[Review]:
    """Order a user's interactions by what they say of the user; one for each item.

    First come those with the user's own words. Among them, and then among the others, those of the rarer items come
    first, in steps of a factor of two: what everybody chooses says little of anybody. Items of the same step go by
    time, the newest first, and without a time by the numbers that :func:`sample` draws. A step is seldom crossed, so a
    few new interactions leave most prompts, and the profiles paid for, as they are.

    Args:
        reviews: the interactions, all of one user; of several of one item, one counts as for :func:`sample`.
        popularity: item token -> number of training interactions.
        seed: of the draw.
    """

    def key(review: Review) -> tuple[bool, int, float, bytes]:
        newness = math.inf if review.timestamp is None else -review.timestamp
        has_words = bool(one_line(review.text))
        return (
            not has_words,
            popularity[review.item].bit_length(),
            newness,
            _draw(seed, "user", (review.user, review.item)),
        )

    return sorted(_one_of_each_pair(reviews).values(), key=key)


def _one_of_each_pair(reviews: Iterable[Review]) -> dict[tuple[str, str], Review]:
    """Return (user, item) -> the last interaction with a text, or the last where none has one."""
    of_pair: dict[tuple[str, str], Review] = {}
    for review in reviews:
        pair = (review.user, review.item)
        if pair not in of_pair or one_line(review.text) or not one_line(of_pair[pair].text):
            of_pair[pair] = review
    return of_pair


def by_token(training: Iterable[Review], side: Side) -> dict[str, list[Review]]:
    """Return user or item token -> its interactions, in their order."""
    groups: dict[str, list[Review]] = defaultdict(list)
    for review in training:
        groups[review.user if side == "user" else review.item].append(review)
    return dict(groups)


def one_line(text: str) -> str:
    """Return a text without control characters, on one line, with single blanks."""
    return _BLANK.sub(" ", text).strip()


def known_title(title: str) -> str:
    """Return a title on one line; empty where a catalogue writes "unknown"."""
    # In small letters only: "Unknown" is the title of a film.
    found = one_line(title)
    return "" if found in _UNKNOWN_TITLES else found


def readable_attributes(attributes: Mapping[str, tuple[str, ...]], domain: str) -> dict[str, list[str]]:
    """Return attributes under names people can read, without values that say nothing.

    Args:
        attributes: name -> values, such as ``{"release_year": ("1995",), "class": ("unknown",)}``.
        domain: what the items are, one of ``DOMAINS``.

    Returns:
        Name -> values, at least one, such as ``{"Release year": ["1995"]}``.

    >>> readable_attributes({"release_year": ("1995",), "class": ("unknown",)}, "movies")
    {'Release year': ['1995']}
    """
    readable: dict[str, list[str]] = {}
    for name, values in attributes.items():
        known = [value for value in map(one_line, values) if value.casefold() not in _SAYS_NOTHING]
        if known:
            readable.setdefault(_readable_name(name, domain), []).extend(known)
    return readable


def _readable_name(name: str, domain: str) -> str:
    """Turn "release_year" or "releaseYear" into "Release year"."""
    words = one_line(_WORD_BORDER.sub(" ", _OTHER_NAMES.get((domain, name), name))).split()
    # Short words in capitals, such as TV, are abbreviations.
    readable = " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words)
    return readable[:1].upper() + readable[1:]


def _draw(seed: int, side: Side, pair: tuple[str, str]) -> bytes:
    # As JSON, no two pairs are written alike, whatever their ids hold.
    return hashlib.sha256(json.dumps([seed, side, *pair]).encode("ascii")).digest()


def _instruction(domain: str, side: Side) -> str:
    """Return the system prompt: what to find out in this domain, then the rules that hold in all of them."""
    parts = [(_FOLDER / f"{name}.{side}.txt").read_text(encoding="utf-8").strip() for name in (domain, "rules")]
    return "\n\n".join(parts)


def is_of_instruction(text: str) -> bool:
    """Whether a text is nothing but a part of the rules that all instructions hold, as a model repeats them.

    >>> is_of_instruction("the profile, in English, as plain running text"), is_of_instruction("the pr")
    (True, False)
    """
    words = _plain(text)
    return len(words) >= _SHORTEST_REPEATED and any(words in rules for rules in _rules())


@lru_cache(maxsize=1)
def _rules() -> tuple[str, ...]:
    return tuple(_plain((_FOLDER / f"rules.{side}.txt").read_text(encoding="utf-8")) for side in SIDES)


def _plain(text: str) -> str:
    """Return a text in small letters, on one line, without what ends a sentence."""
    return one_line(text).casefold().rstrip(".;…")


def _attributes_text(attributes: Mapping[str, Sequence[str]]) -> str:
    """Write attributes as one text, so that many of them do not take the room of everything else."""
    return "; ".join(f"{name}: {', '.join(values)}" for name, values in attributes.items())


def _rating(review: Review) -> float | None:
    """Return a rating, rounded to what is worth reading: 4 for 4.0; None where it is unknown."""
    if review.rating is None or not math.isfinite(review.rating):
        return None
    return int(review.rating) if review.rating == int(review.rating) else round(review.rating, 2)


def _rating_range(training: Iterable[Review]) -> list[float] | None:
    """Return the lowest and the highest training rating; None where all are equal or unknown."""
    ratings = [rating for rating in map(_rating, training) if rating is not None]
    return [min(ratings), max(ratings)] if ratings and min(ratings) != max(ratings) else None


def _message(fields: Mapping[str, Any], budget: int) -> str:
    """Write fields as JSON of at most ``budget`` tokens.

    Empty fields are left out. Every text gets a fair share of what the frame of field names leaves of the budget.
    """
    known = _without_empty(fields)
    whole = _json(known)
    if estimate_tokens(whole) <= budget:
        return whole
    texts = list(_texts(known))
    room = budget - estimate_tokens(_json(_with_texts(known, repeat(""))))
    while True:
        message = _json(_with_texts(known, iter(cut_fairly(texts, room))))
        # JSON writes quotation marks in a text with a backslash, so it may come out longer than the text was.
        excess = estimate_tokens(message) - budget
        if excess <= 0:
            return message
        room -= excess


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_empty(field) for name, field in value.items() if field not in ("", [])}
    return [_without_empty(entry) for entry in value] if isinstance(value, list) else value


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a value of dictionaries, lists, numbers and texts, in the order they stand in."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _texts(entry)


def _with_texts(value: Any, texts: Iterator[str]) -> Any:
    """Copy such a value with other texts in the same places."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, dict):
        return {name: _with_texts(field, texts) for name, field in value.items()}
    return [_with_texts(entry, texts) for entry in value] if isinstance(value, list) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
