"""Whether anything held out is in profiles or embeddings."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from recbole_rlmrec.check.embeddings import Embedded
from recbole_rlmrec.check.lines import found_line
from recbole_rlmrec.profile.prompt import Prompts, known_title
from recbole_rlmrec.profile.record import (
    Profile,
)
from recbole_rlmrec.profile.template import natural_title
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.corpus import Corpus
from recbole_rlmrec.wording import N_EXAMPLES, count

_SHORTEST_TITLE = 8  # of a title of one word, since short words stand in any text


@dataclass(frozen=True)
class LeakReport:
    """Whether validation or test interactions stand in profiles that are used.

    Attributes:
        unused: "user" and "item" -> tokens whose profile no embedding can hold, in order; they are not judged.
        used: interactions that the profiles are recorded to have been written from.
        used_held_out: those of them that are held out, as (user, item); each is a leak.
        used_unknown: those of them that are no interaction of the dataset, as (user, item).
        prompts: prompts that can be built now.
        prompts_held_out: held-out interactions in these, as (user, item); each is a leak.
        other_split: what was made from another training split and may show held-out interactions; sentences.
        harmless_split: what was made from another training split but shows nothing held out; sentences.
        mentions: user -> titles of held-out items in the user's profile that are no titles of training items.
        titles: items with a title, which alone can be looked for.
        stale: the records of embeddings that were made from other profiles than there are now.
        unknown: sides whose profiles or embeddings may be made from anything, as far as is recorded.
    """

    unused: Mapping[Side, tuple[str, ...]] = field(default_factory=dict)
    used: int = 0
    used_held_out: tuple[tuple[str, str], ...] = ()
    used_unknown: tuple[tuple[str, str], ...] = ()
    prompts: int = 0
    prompts_held_out: tuple[tuple[str, str], ...] = ()
    other_split: tuple[str, ...] = ()
    harmless_split: tuple[str, ...] = ()
    mentions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    titles: int = 0
    stale: tuple[Path, ...] = ()
    unknown: tuple[Side, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether a held-out interaction is used in a profile or a prompt."""
        return bool(self.used_held_out or self.prompts_held_out)

    def __str__(self) -> str:
        lines = [
            "leakage:",
            *(
                f"  {count(len(tokens), f'{side} profile')} {'is' if len(tokens) == 1 else 'are'} not used: "
                f"no vector, or not in the dataset, such as {', '.join(tokens[:N_EXAMPLES])}"
                for side, tokens in self.unused.items()
                if tokens
            ),
            f"  interactions that profiles were written from, by their record: {self.used:,}",
            *found_line("  of these held out (validation or test)", self.used_held_out),
            *found_line("  of these no interaction of the dataset", self.used_unknown),
            f"  prompts built from the training split now: {self.prompts:,}",
            *found_line("  held-out interactions in these", self.prompts_held_out),
            *(f"  {sentence}" for sentence in (*self.other_split, *self.harmless_split)),
            *(
                f"  the embeddings were made from other profiles than these; run build-semantics ({path})"
                for path in self.stale
            ),
        ]
        if self.mentions:
            lines.append(
                f"  hint: {count(len(self.mentions), 'user profile')} with the title of a held-out item; no proof, "
                "since titles may be common words or guesses of the writer"
            )
            for user, titles in islice(self.mentions.items(), N_EXAMPLES):
                lines.append(f"    user {user}: {'; '.join(titles[:N_EXAMPLES])}")
        elif self.titles:
            lines.append("  titles of held-out items in user profiles: none found")
        else:
            lines.append(
                "  titles of held-out items in user profiles: not looked for, since no title is known; they come from "
                "items.jsonl or from --item_title_field"
            )
        return "\n".join([*lines, self._verdict()])

    def _verdict(self) -> str:
        if self.is_proven:
            n_leaks = len(self.used_held_out) + len(self.prompts_held_out)
            return (
                f"verdict: LEAK. {count(n_leaks, 'held-out interaction')} used in profiles; write the profiles again, "
                "with build-semantics --overwrite and the settings of this check."
            )
        if self.other_split:
            return (
                "verdict: SUSPECTED LEAK. Made from another training split, with no record that clears it; make it "
                "again from this split, with build-semantics --overwrite and the settings of this check, or train on "
                "the split it was made from."
            )
        if self.unknown:
            sides = " and ".join(self.unknown)
            return (
                f"verdict: unknown: nothing recorded says what the {sides} embeddings or their profiles were made "
                "from. Make them with build-semantics, or record the hash of their training split as train_sha256, in "
                "each profile and in the .semantic.json beside the embeddings."
            )
        return "verdict: no leak found."


def check_leaks(
    corpus: Corpus,
    profiles: Mapping[Side, Mapping[str, Profile]],
    embedded: Mapping[Side, Embedded],
    metadata: Mapping[Path, Mapping[str, Any]],
    stale: Sequence[Path],
    prompts: Prompts,
) -> LeakReport:
    """Look for validation and test interactions in profiles, prompts and embeddings.

    Args:
        corpus: the texts and the split.
        profiles: "user" and "item" -> token -> profile.
        embedded: what the embeddings of each side hold, of the sides that have some.
        metadata: what is recorded beside the embeddings, by the record's file.
        stale: the records of embeddings that were made from other profiles.
        prompts: those of the corpus.
    """
    ids: dict[Side, Collection[str]] = {"user": corpus.users, "item": corpus.items}
    ids.update({side: found.ids for side, found in embedded.items()})
    used = {side: {token: profile for token, profile in profiles[side].items() if token in ids[side]} for side in SIDES}
    training = {(review.user, review.item) for review in corpus.training}
    used_pairs = {pair for side in SIDES for profile in used[side].values() for pair in _pairs(side, profile)}
    texts = {token: profile.profile for token, profile in profiles["item"].items()}
    built = [*prompts.of_items[0], *prompts.of_users(texts)[0]]
    prompted = {pair for prompt in built for pair in _pairs(prompt.side, prompt)}
    other_split, harmless_split = _other_splits(corpus, used, metadata, training)
    return LeakReport(
        unused={side: tuple(sorted(set(profiles[side]).difference(used[side]))) for side in SIDES},
        used=len(used_pairs),
        used_held_out=tuple(sorted(used_pairs & corpus.held_out)),
        used_unknown=tuple(sorted(used_pairs - corpus.held_out - training)),
        prompts=len(built),
        prompts_held_out=tuple(sorted(prompted & corpus.held_out)),
        other_split=other_split,
        harmless_split=harmless_split,
        mentions=_mentions(corpus, used["user"]),
        titles=sum(bool(known_title(item.title)) for item in corpus.items.values()),
        stale=tuple(stale),
        unknown=tuple(
            side for side in SIDES if _is_unknown(used[side].values(), embedded.get(side), stale=bool(stale))
        ),
    )


def _is_unknown(profiles: Collection[Profile], found: Embedded | None, *, stale: bool) -> bool:
    """Return whether no record says what one side's profiles, or its embeddings, were made from."""
    if found is not None and found.record.get("train_sha256") is not None:
        return False
    if any(not profile.train_sha256 and not profile.interacted for profile in profiles):
        return True
    return found is not None and (stale or not found.ids <= {profile.token for profile in profiles})


def _pairs(side: Side, source: Any) -> list[tuple[str, str]]:
    """Return the (user, item) pairs that a profile or prompt was written from."""
    if side == "user":
        return [(source.token, item) for item in source.interacted]
    return [(user, source.token) for user in source.interacted]


def _other_splits(
    corpus: Corpus,
    profiles: Mapping[Side, Mapping[str, Profile]],
    metadata: Mapping[Path, Mapping[str, Any]],
    training: set[tuple[str, str]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Say what was made from another training split: what may leak, and what the record clears.

    A profile without a hash, as RLMRec released them, may be from this split: it is unknown, not suspected.
    """
    suspected: list[str] = []
    cleared: list[str] = []
    for side in SIDES:
        made_here = ("", corpus.train_sha256)
        other = [profile for profile in profiles[side].values() if profile.train_sha256 not in made_here]
        # An item's profile that used no interactions is made of what its catalogue says.
        clear = [
            profile
            for profile in other
            if not profile.sums
            and (profile.interacted or side == "item")
            and training.issuperset(_pairs(side, profile))
        ]
        for found, sentences, remark in (
            (len(other) - len(clear), suspected, "may show held-out interactions"),
            (len(clear), cleared, "by their record show training interactions only"),
        ):
            if found:
                sentences.append(f"{count(found, f'{side} profile')} written from another training split, {remark}")
    for path, recorded in metadata.items():
        for key, made in (
            ("train_sha256", "the embeddings were made from"),
            ("encoder_train_sha256", "the embeddings' encoder was tuned on"),
        ):
            split = recorded.get(key)
            if split is not None and split != corpus.train_sha256:
                suspected.append(
                    f"{path} says that {made} another training split ({split[:12]}... instead of "
                    f"{corpus.train_sha256[:12]}...)"
                )
    return tuple(suspected), tuple(cleared)


def _mentions(corpus: Corpus, profiles: Mapping[str, Profile]) -> dict[str, tuple[str, ...]]:
    """Find titles of held-out items, word for word, in users' profiles, outside titles of their training items."""
    held_out: dict[str, list[str]] = defaultdict(list)
    for user, item in sorted(corpus.held_out):
        held_out[user].append(item)
    chosen: dict[str, list[str]] = defaultdict(list)
    for review in corpus.training:
        chosen[review.user].append(review.item)
    spellings = {token: _spellings(item.title) for token, item in corpus.items.items()}
    mentions: dict[str, tuple[str, ...]] = {}
    for user in sorted(profiles):
        text = profiles[user].profile
        titles = {
            title
            for item in held_out.get(user, ())
            for title in spellings.get(item, ())
            if _is_distinctive(title) and title in text
        }
        if not titles:
            continue
        # The longest first, so that no title is found inside another one.
        for title in sorted({title for item in chosen[user] for title in spellings.get(item, ())}, key=len)[::-1]:
            text = text.replace(title, "\n")
        found = sorted(title for title in titles if re.search(rf"(?<!\w){re.escape(title)}(?!\w)", text))
        if found:
            mentions[user] = tuple(found)
    return mentions


def _spellings(title: str) -> list[str]:
    """Return a title as the catalogue has it and as people say it."""
    known = known_title(title)
    return list(dict.fromkeys([known, natural_title(known)])) if known else []


def _is_distinctive(title: str) -> bool:
    return len(title.split()) > 1 or len(title) >= _SHORTEST_TITLE
