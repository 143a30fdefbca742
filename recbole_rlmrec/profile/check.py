"""What there is of a dataset's profiles and embeddings, how good it looks, and whether anything held out is in it.

A profile must tell of training interactions only: one that mentions a validation or test item hands the answer to the
model. Four things are looked at: the hash of the training split that profiles and embeddings were made from, the
interactions that each profile is recorded to tell of, the prompts as they would be built now, and titles of held-out
items in the texts themselves. A profile of an id without a vector reaches no model, so it is counted and not judged.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Callable, Collection, Iterable, Iterator, Mapping, Optional, Sequence, Union

import numpy as np

from recbole_rlmrec.data.corpus import Corpus, load_corpus
from recbole_rlmrec.data.semantic_embedding import (
    BLOCK_BYTES,
    PAD_TOKEN,
    SIDES,
    JoinedEmbedding,
    SemanticEmbedding,
    Side,
    check_metadata,
    metadata_path,
    read_metadata,
)
from recbole_rlmrec.encoder.encode import profiles_sha256
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.profile.prompt import PromptSettings, item_prompts, known_title, user_prompts
from recbole_rlmrec.profile.record import (
    Profile,
    failures_path,
    iter_profiles,
    profiles_path,
    read_failures,
    read_profiles,
)
from recbole_rlmrec.profile.template import natural_title

_N_EXAMPLES = 3
_N_POPULAR = 3
_N_DRAWN = 2
_N_NEIGHBOURS = 3
_N_COMPARED = 1000
#: Above this mean cosine of random pairs, vectors hardly tell ids apart.
_COLLAPSED = 0.95
_LABEL_CHARACTERS = 60
_SHORTEST_TITLE = 8  # of a title of one word, since short words stand in any text


@dataclass(frozen=True)
class ProfileReport:
    """What there is of one side's profiles.

    Attributes:
        side: "user" or "item".
        path: the file; None where there is none, and then nothing but the failures is known.
        ids: users or items of the dataset.
        holes: tokens of the dataset without a profile, or with an empty one, in order.
        strangers: tokens with a profile that the dataset does not have.
        failures: token -> why its profile could not be written.
        writers: writer -> number of profiles.
        words: number of words of each profile that is not empty.
        empty: tokens whose profile is empty.
        identical: number of profiles whose text another one has too.
    """

    side: Side
    path: Optional[Path]
    ids: int
    holes: tuple[str, ...]
    strangers: tuple[str, ...]
    failures: Mapping[str, str]
    writers: Mapping[str, int]
    words: tuple[int, ...]
    empty: tuple[str, ...]
    identical: int

    def __str__(self) -> str:
        if self.path is None:
            return "\n".join([f"{self.side} profiles: none", *self._failures()])
        lines = [
            f"{self.side} profiles: {self.path}",
            f"  coverage: {_share(self.ids - len(self.holes), self.ids)}",
            *_found("  without a profile", self.holes),
            *self._failures(),
            *_found("  empty profiles", self.empty),
            *_found("  profiles of ids that the dataset does not have", self.strangers),
            f"  writers: {', '.join(f'{name} ({count:,})' for name, count in sorted(self.writers.items()))}",
        ]
        if self.words:
            middle = f"{median(self.words):g}"
            lines.append(f"  length in words: {min(self.words)} to {max(self.words)}, median {middle}")
        if self.identical:
            lines.append(f"  identical texts: {self.identical:,} profiles have the text of another")
        return "\n".join(lines)

    def _failures(self) -> list[str]:
        """Say how many could not be written and why, the most frequent reasons first."""
        if not self.failures:
            return []
        reasons = Counter(self.failures.values()).most_common(_N_EXAMPLES)
        lines = [f"  failed: {len(self.failures):,}; the next run of build-semantics tries them again"]
        return lines + [f"    {count:,}: {reason}" for reason, count in reasons]


@dataclass(frozen=True)
class EmbeddingReport:
    """What there is of one side's semantic embeddings.

    Attributes:
        side: "user" or "item".
        source: the file; None where there is none.
        problem: why the embeddings cannot be used; empty where they can.
        ids: users or items of the dataset.
        holes: tokens of the dataset without a vector, or with an all-zero one, in order.
        zeros: ids with an all-zero vector.
        dimension: length of a vector.
        dtype: its type.
        encoder: what made them, as recorded; empty where it is not.
        mean_cosine: mean cosine of random pairs of ids; None for fewer than two vectors.
        neighbours: some ids, and the nearest of each with their cosines, all as they are printed.
    """

    side: Side
    source: Optional[str]
    problem: str = ""
    ids: int = 0
    holes: tuple[str, ...] = ()
    zeros: int = 0
    dimension: int = 0
    dtype: str = ""
    encoder: str = ""
    mean_cosine: Optional[float] = None
    neighbours: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()

    def __str__(self) -> str:
        if self.problem:
            return f"{self.side} embeddings cannot be used: {self.problem}"
        if self.source is None:
            return f"{self.side} embeddings: none"
        lines = [
            f"{self.side} embeddings: {self.source}",
            f"  dimension {self.dimension:,}, {self.dtype}, encoder: {self.encoder or 'not recorded'}",
            f"  coverage: {_share(self.ids - len(self.holes), self.ids)}",
            *_found("  without a vector", self.holes),
        ]
        if self.zeros:
            lines.append(f"  all-zero vectors: {self.zeros:,}")
        if self.mean_cosine is not None:
            alike = "; the encoder hardly tells them apart" if self.mean_cosine > _COLLAPSED else ""
            lines.append(f"  mean cosine of random pairs: {self.mean_cosine:.3f}{alike}")
        for label, nearest in self.neighbours:
            lines.append(f"  nearest to {label}")
            lines += [f"    {cosine:.3f} {neighbour}" for neighbour, cosine in nearest]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Embedded:
    """What one side's embeddings hold.

    Attributes:
        ids: tokens of the dataset that have a vector.
        record: what is recorded beside the embeddings; empty where nothing is.
    """

    ids: frozenset[str]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class LeakReport:
    """Whether validation or test interactions stand in profiles that are used.

    Attributes:
        unused: "user" and "item" -> tokens whose profile no embedding can hold, in order; they are not judged.
        told: interactions that the profiles are recorded to tell of.
        told_held_out: those of them that are held out, as (user, item); each is a leak.
        told_unknown: those of them that are no interaction of the dataset, as (user, item).
        prompts: prompts that can be built now.
        prompts_held_out: held-out interactions in these, as (user, item); each is a leak.
        other_split: what was made from another training split and may tell of held-out interactions; sentences.
        harmless_split: what was made from another training split but tells of nothing held out; sentences.
        mentions: user -> titles of held-out items in the user's profile that are no titles of training items.
        stale: the records of embeddings that were made from other profiles than there are now.
        unknown: sides whose profiles or embeddings may be made from anything, as far as is recorded.
    """

    unused: Mapping[Side, tuple[str, ...]] = field(default_factory=dict)
    told: int = 0
    told_held_out: tuple[tuple[str, str], ...] = ()
    told_unknown: tuple[tuple[str, str], ...] = ()
    prompts: int = 0
    prompts_held_out: tuple[tuple[str, str], ...] = ()
    other_split: tuple[str, ...] = ()
    harmless_split: tuple[str, ...] = ()
    mentions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stale: tuple[Path, ...] = ()
    unknown: tuple[Side, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether a held-out interaction is told."""
        return bool(self.told_held_out or self.prompts_held_out)

    def __str__(self) -> str:
        lines = [
            "leakage:",
            *(
                f"  {_count(len(tokens), f'{side} profile')} {'is' if len(tokens) == 1 else 'are'} not used: "
                f"no vector, or not in the dataset, such as {', '.join(tokens[:_N_EXAMPLES])}"
                for side, tokens in self.unused.items()
                if tokens
            ),
            f"  interactions that profiles are recorded to tell of: {self.told:,}",
            *_found("  of these held out (validation or test)", self.told_held_out),
            *_found("  of these no interaction of the dataset", self.told_unknown),
            f"  prompts built from the training split now: {self.prompts:,}",
            *_found("  held-out interactions in these", self.prompts_held_out),
            *(f"  {sentence}" for sentence in (*self.other_split, *self.harmless_split)),
            *(
                f"  the embeddings were made from other profiles than these; run build-semantics ({path})"
                for path in self.stale
            ),
        ]
        if self.mentions:
            lines.append(
                f"  hint: {_count(len(self.mentions), 'user profile')} with the title of a held-out item; no proof, "
                "since titles may be common words or guesses of the writer"
            )
            for user, titles in islice(self.mentions.items(), _N_EXAMPLES):
                lines.append(f"    user {user}: {'; '.join(titles[:_N_EXAMPLES])}")
        else:
            lines.append("  titles of held-out items in user profiles: none found")
        return "\n".join([*lines, self._verdict()])

    def _verdict(self) -> str:
        if self.is_proven:
            count = len(self.told_held_out) + len(self.prompts_held_out)
            return f"verdict: LEAK. {_count(count, 'held-out interaction')} told; write the profiles again."
        if self.other_split:
            return (
                "verdict: SUSPECTED LEAK. Made from another training split, with no record that clears it; make it "
                "again from this split, or train on the split it was made from."
            )
        if self.unknown:
            sides = " and ".join(self.unknown)
            return (
                f"verdict: unknown: nothing recorded says what the {sides} embeddings or their profiles were made "
                "from. Make them with build-semantics, or record the hash of their training split as train_sha256, in "
                "each profile and in the .semantic.json beside the embeddings."
            )
        return "verdict: no leak found."


@dataclass(frozen=True)
class CheckReport:
    """What ``recbole-rlmrec check`` prints.

    Attributes:
        heading: the dataset and its size.
        profiles: users, then items.
        embeddings: users, then items.
        leaks: whether anything held out leaked.
    """

    heading: str
    profiles: tuple[ProfileReport, ...]
    embeddings: tuple[EmbeddingReport, ...]
    leaks: LeakReport

    @property
    def has_leak(self) -> bool:
        """Whether a held-out interaction is told, or something was made from another split and nothing clears it."""
        return self.leaks.is_proven or bool(self.leaks.other_split)

    def __str__(self) -> str:
        return "\n".join(map(str, [self.heading, *self.profiles, *self.embeddings, self.leaks]))


def check(config: Any, settings: Optional[PromptSettings] = None) -> CheckReport:
    """Check the profiles and embeddings of the dataset of a configuration.

    Args:
        config: an :class:`~recbole_rlmrec.config.RLMRecConfig`.
        settings: how prompts are built; the configuration's domain and otherwise defaults if not given.

    Raises:
        DataError: there is neither a profile nor an embedding, or a file is malformed.
    """
    corpus = load_corpus(config)
    separators = {key: config[key] for key in ("field_separator", "seq_separator")}
    settings = settings or PromptSettings(domain=config["text_domain"] or "general")
    return check_corpus(corpus, config.data_folders, settings, separators)


def check_corpus(
    corpus: Corpus,
    folders: Sequence[Union[str, Path]],
    settings: PromptSettings,
    separators: Optional[Mapping[str, str]] = None,
) -> CheckReport:
    """Check the profiles and embeddings in some folders against a corpus; see ``check``.

    Args:
        corpus: the texts and the split.
        folders: where to look, in order.
        settings: how prompts are built, and the seed of what is drawn.
        separators: RecBole's ``field_separator`` and ``seq_separator``, for embeddings in atomic files.
    """
    paths = [Path(folder) for folder in folders]
    tokens: dict[Side, list[str]] = {"user": sorted(corpus.users), "item": sorted(corpus.items)}
    files = {side: _first_file([profiles_path(path, corpus.dataset, side) for path in paths]) for side in SIDES}
    profiles = {side: read_profiles(path) if path is not None else {} for side, path in files.items()}
    failed = {side: _first_file([failures_path(path, corpus.dataset, side) for path in paths]) for side in SIDES}
    embeddings, embedded, metadata = _check_embeddings(
        corpus, paths, tokens, profiles, settings, dict(separators or {})
    )
    if not any(profiles.values()) and all(report.source is None and not report.problem for report in embeddings):
        raise DataError(
            f"There is nothing to check: no profiles ({corpus.dataset}.userprf.jsonl, .itemprf.jsonl) and no "
            f"embeddings ({corpus.dataset}.useremb.npy, .itememb.npy) in "
            f"{' or '.join(repr(str(path)) for path in paths)}. Make them with "
            f"`recbole-rlmrec build-semantics --dataset {corpus.dataset}`."
        )
    heading = (
        f"{corpus.dataset}: {len(corpus.users):,} users, {len(corpus.items):,} items; "
        f"{len(corpus.training):,} training interactions, {len(corpus.held_out):,} pairs held out (validation and test)"
    )
    reports = tuple(_check_profiles(side, files[side], profiles[side], failed[side], tokens[side]) for side in SIDES)
    stale = [path for path, record in metadata.items() if _is_stale(record, files, profiles, tokens, embedded)]
    return CheckReport(
        heading, reports, embeddings, _check_leaks(corpus, profiles, embedded, metadata, stale, settings)
    )


# Profiles


def _check_profiles(
    side: Side, path: Optional[Path], profiles: Mapping[str, Profile], failed: Optional[Path], tokens: Sequence[str]
) -> ProfileReport:
    texts = {token: profile.profile.strip() for token, profile in profiles.items()}
    filled = [text for text in texts.values() if text]
    known = set(tokens)
    failures = read_failures(failed) if failed is not None else {}
    return ProfileReport(
        side=side,
        path=path,
        ids=len(tokens),
        holes=tuple(token for token in tokens if not texts.get(token)),
        strangers=tuple(sorted(token for token in texts if token not in known)),
        failures={token: failure.error for token, failure in failures.items()},
        writers=Counter(profile.writer for profile in profiles.values()),
        words=tuple(len(text.split()) for text in filled),
        empty=tuple(sorted(token for token, text in texts.items() if not text)),
        identical=sum(count for count in Counter(filled).values() if count > 1),
    )


# Embeddings


def _check_embeddings(
    corpus: Corpus,
    folders: Sequence[Path],
    tokens: Mapping[Side, Sequence[str]],
    profiles: Mapping[Side, Mapping[str, Profile]],
    settings: PromptSettings,
    separators: Mapping[str, str],
) -> tuple[tuple[EmbeddingReport, ...], dict[Side, _Embedded], dict[Path, dict[str, Any]]]:
    """Report on both sides; also return what they hold, and what is recorded beside them by the record's file."""
    reports: list[EmbeddingReport] = []
    embedded: dict[Side, _Embedded] = {}
    recorded: dict[Path, dict[str, Any]] = {}
    dimensions: set[int] = set()
    for side in SIDES:
        stem = f"{corpus.dataset}.{side}emb"
        names = (stem, f"{stem}.npy", f"{stem}.tokens")
        if not any((folder / name).is_file() for folder in folders for name in names):
            reports.append(EmbeddingReport(side, None))
            continue
        try:
            table = SemanticEmbedding.load(folders, corpus.dataset, side, memory_map=True, **separators)
            beside = [Path(table.source).parent]
            metadata = read_metadata(beside, corpus.dataset) or {}
            path = metadata_path(beside, corpus.dataset)
            if path is not None:
                check_metadata(metadata, table, path)
                recorded[path] = metadata
            joined = table.join([PAD_TOKEN, *tokens[side]])
        except DataError as error:
            reports.append(EmbeddingReport(side, None, problem=str(error)))
            continue
        dimensions.add(table.dimension)
        holes = tuple(token for token, covered in zip(tokens[side], joined.covered[1:]) if not covered)
        embedded[side] = _Embedded(frozenset(tokens[side]).difference(holes), metadata)
        label = _labels(side, corpus, profiles[side])
        popularity = Counter(getattr(review, side) for review in corpus.training)
        reports.append(
            EmbeddingReport(
                side=side,
                source=table.source,
                problem=""
                if len(dimensions) == 1
                else "the two sides differ in dimension; encode both with one encoder.",
                ids=len(tokens[side]),
                holes=holes,
                zeros=joined.n_zero,
                dimension=table.dimension,
                dtype=str(table.vectors.dtype),
                encoder=str(metadata.get("encoder") or ""),
                mean_cosine=_mean_cosine(joined, settings.seed),
                neighbours=_neighbours(joined, tokens[side], popularity, label, settings.seed),
            )
        )
    return tuple(reports), embedded, recorded


def _is_stale(
    record: Mapping[str, Any],
    files: Mapping[Side, Optional[Path]],
    profiles: Mapping[Side, Mapping[str, Profile]],
    tokens: Mapping[Side, Collection[str]],
    embedded: Mapping[Side, _Embedded],
) -> bool:
    """Tell whether embeddings are recorded to be made from other profiles than those in the files."""
    wanted = record.get("profiles_sha256")
    if not isinstance(wanted, str) or not all(profiles.values()):
        return False
    return not any(
        profiles_sha256(order(chosen["user"]), order(chosen["item"])) == wanted
        for chosen in _choices(record, files, profiles, tokens, embedded)
        for order in (_by_token, list)  # as build-semantics encodes them, and as they stand in the files
    )


def _choices(
    record: Mapping[str, Any],
    files: Mapping[Side, Optional[Path]],
    profiles: Mapping[Side, Mapping[str, Profile]],
    tokens: Mapping[Side, Collection[str]],
    embedded: Mapping[Side, _Embedded],
) -> Iterator[dict[Side, list[Profile]]]:
    """Yield the profiles that may have been encoded, in the order of their files, the most probable ones first.

    Files also keep profiles that are not asked for any longer, and those of other writers. Which were encoded is not
    recorded; only their hash is.
    """
    ids = {side: set(tokens[side]) for side in SIDES}
    with_vector = {side: embedded[side].ids if side in embedded else ids[side] for side in SIDES}
    writers = str(record.get("writer") or "").split(", ")
    split = record.get("train_sha256") or ""

    def by_recorded_writer(side: Side) -> Mapping[str, Profile]:
        path = files[side]
        assert path is not None, "there are profiles"
        return {profile.token: profile for profile in iter_profiles(path) if profile.writer in writers}

    def last(side: Side) -> Mapping[str, Profile]:
        return profiles[side]

    for read in (last, by_recorded_writer):
        known = {side: [profile for token, profile in read(side).items() if token in ids[side]] for side in SIDES}
        yield known
        yield {side: [profile for profile in known[side] if profile.token in with_vector[side]] for side in SIDES}
        # An id whose vector is all zero has a profile and no row.
        yield {side: [profile for profile in known[side] if profile.train_sha256 == split] for side in SIDES}


def _by_token(profiles: Iterable[Profile]) -> list[Profile]:
    return sorted(profiles, key=lambda profile: profile.token)


def _labels(side: Side, corpus: Corpus, profiles: Mapping[str, Profile]) -> Callable[[str], str]:
    """Return how an id is printed: with an item's title, or the start of a profile."""

    def label(token: str) -> str:
        title = known_title(corpus.items[token].title) if side == "item" else ""
        text = title or (profiles[token].profile.strip() if token in profiles else "")
        short = text if len(text) <= _LABEL_CHARACTERS else f"{text[:_LABEL_CHARACTERS]}…"
        return f"{token} ({short})" if short else token

    return label


def _mean_cosine(joined: JoinedEmbedding, seed: int) -> Optional[float]:
    """Return the mean cosine of all pairs among up to a thousand ids drawn at random."""
    ids = _drawn(np.flatnonzero(joined.covered), _N_COMPARED, seed)
    if len(ids) < 2:
        return None
    total = _unit(joined.take(ids)).sum(axis=0, dtype=np.float64)
    # |sum of unit vectors|^2 counts every ordered pair once, and each vector with itself.
    return float((total @ total - len(ids)) / (len(ids) * (len(ids) - 1)))


def _neighbours(
    joined: JoinedEmbedding,
    tokens: Sequence[str],
    popularity: Mapping[str, int],
    label: Callable[[str], str],
    seed: int,
) -> tuple[tuple[str, tuple[tuple[str, float], ...]], ...]:
    """Find the nearest of the most popular ids and of some drawn at random; a block of vectors at a time."""
    ids = np.flatnonzero(joined.covered)
    ranked = sorted(ids.tolist(), key=lambda number: (-popularity.get(tokens[number - 1], 0), number))
    popular, others = ranked[:_N_POPULAR], np.array(sorted(ranked[_N_POPULAR:]), dtype=np.int64)
    queries = [*popular, *_drawn(others, _N_DRAWN, seed).tolist()]
    wanted = _unit(joined.take(np.array(queries, dtype=np.int64)))
    size = max(1, BLOCK_BYTES // (4 * joined.embedding.dimension))
    blocks = [wanted @ _unit(joined.take(ids[start : start + size])).T for start in range(0, len(ids), size)]
    found = []
    for query, cosines in zip(queries, np.concatenate(blocks, axis=1)):
        order = [column for column in np.argsort(-cosines, kind="stable")[: _N_NEIGHBOURS + 1] if ids[column] != query]
        nearest = [(label(tokens[ids[column] - 1]), float(cosines[column])) for column in order[:_N_NEIGHBOURS]]
        found.append((label(tokens[query - 1]), tuple(nearest)))
    return tuple(found)


def _drawn(ids: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Draw some ids at random."""
    draws = np.random.Generator(np.random.PCG64(seed)).random(len(ids))
    drawn: np.ndarray = ids[np.argsort(draws, kind="stable")[:limit]]
    return drawn


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length 1."""
    scaled: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


# Leakage


def _check_leaks(
    corpus: Corpus,
    profiles: Mapping[Side, Mapping[str, Profile]],
    embedded: Mapping[Side, _Embedded],
    metadata: Mapping[Path, Mapping[str, Any]],
    stale: Sequence[Path],
    settings: PromptSettings,
) -> LeakReport:
    ids: dict[Side, Collection[str]] = {"user": corpus.users, "item": corpus.items}
    ids.update({side: found.ids for side, found in embedded.items()})
    used = {side: {token: profile for token, profile in profiles[side].items() if token in ids[side]} for side in SIDES}
    training = {(review.user, review.item) for review in corpus.training}
    told = {pair for side in SIDES for profile in used[side].values() for pair in _pairs(side, profile)}
    texts = {token: profile.profile for token, profile in profiles["item"].items()}
    prompts = [*item_prompts(corpus, settings)[0], *user_prompts(corpus, texts, settings)[0]]
    prompted = {pair for prompt in prompts for pair in _pairs(prompt.side, prompt)}
    other_split, harmless_split = _other_splits(corpus, used, metadata, training)
    return LeakReport(
        unused={side: tuple(sorted(set(profiles[side]).difference(used[side]))) for side in SIDES},
        told=len(told),
        told_held_out=tuple(sorted(told & corpus.held_out)),
        told_unknown=tuple(sorted(told - corpus.held_out - training)),
        prompts=len(prompts),
        prompts_held_out=tuple(sorted(prompted & corpus.held_out)),
        other_split=other_split,
        harmless_split=harmless_split,
        mentions=_mentions(corpus, used["user"]),
        stale=tuple(stale),
        unknown=tuple(side for side in SIDES if _is_unknown(used[side].values(), embedded.get(side), bool(stale))),
    )


def _is_unknown(profiles: Collection[Profile], found: Optional[_Embedded], stale: bool) -> bool:
    """Tell whether no record says what one side's profiles, or its embeddings, were made from."""
    if found is not None and found.record.get("train_sha256") is not None:
        return False
    if any(not profile.train_sha256 and not profile.told for profile in profiles):
        return True
    return found is not None and (stale or not found.ids <= {profile.token for profile in profiles})


def _pairs(side: Side, source: Any) -> list[tuple[str, str]]:
    """Return the (user, item) pairs that a profile or prompt tells of."""
    if side == "user":
        return [(source.token, item) for item in source.told]
    return [(user, source.token) for user in source.told]


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
        # An item's profile without told interactions is made of what its catalogue says.
        clear = [
            profile
            for profile in other
            if (profile.told or side == "item") and training.issuperset(_pairs(side, profile))
        ]
        for found, sentences, remark in (
            (len(other) - len(clear), suspected, "may tell of held-out interactions"),
            (len(clear), cleared, "by their record tell of training interactions only"),
        ):
            if found:
                sentences.append(f"{_count(found, f'{side} profile')} written from another training split, {remark}")
    for path, recorded in metadata.items():
        made_from = recorded.get("train_sha256")
        if made_from is not None and made_from != corpus.train_sha256:
            suspected.append(
                f"{path} says that the embeddings were made from another training split ({made_from[:12]}... instead "
                f"of {corpus.train_sha256[:12]}...)"
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


# Words


def _first_file(paths: Iterable[Path]) -> Optional[Path]:
    return next((path for path in paths if path.is_file()), None)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)"


def _found(label: str, found: Sequence[Any]) -> list[str]:
    """Return the line that counts what was found and gives examples, or no line."""
    if not found:
        return []
    examples = ", ".join(str(example) for example in found[:_N_EXAMPLES])
    return [f"{label}: {len(found):,}, such as {examples}"]
