"""What there is of the semantic embeddings of a side, and whether they are of the profiles that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_rlmrec.check.lines import found_line, share
from recbole_rlmrec.data.embedding_files import metadata_path, read_metadata, stem_of
from recbole_rlmrec.data.semantic_embedding import BLOCK_BYTES, JoinedEmbedding, SemanticEmbedding, check_metadata
from recbole_rlmrec.encoder.text_digests import read_digests, text_digest
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.profile.encode_profiles import profiles_sha256
from recbole_rlmrec.profile.prompt import PromptSettings, known_title
from recbole_rlmrec.profile.record import (
    Profile,
    iter_profiles,
)
from recbole_rlmrec.recbole_names import PAD_TOKEN
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.corpus import Corpus

_N_POPULAR = 3
_N_DRAWN = 2
_N_NEIGHBOURS = 3
_N_COMPARED = 1000
#: Above this mean cosine of random pairs, vectors hardly distinguish ids.
_COLLAPSED = 0.95
_LABEL_CHARACTERS = 60


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
    source: str | None
    problem: str = ""
    ids: int = 0
    holes: tuple[str, ...] = ()
    zeros: int = 0
    dimension: int = 0
    dtype: str = ""
    encoder: str = ""
    mean_cosine: float | None = None
    neighbours: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()

    def __str__(self) -> str:
        if self.problem:
            return f"{self.side} embeddings cannot be used: {self.problem}"
        if self.source is None:
            return f"{self.side} embeddings: none"
        lines = [
            f"{self.side} embeddings: {self.source}",
            f"  dimension {self.dimension:,}, {self.dtype}, encoder: {self.encoder or 'not recorded'}",
            f"  coverage: {share(self.ids - len(self.holes), self.ids)}",
            *found_line("  without a vector", self.holes),
        ]
        if self.zeros:
            lines.append(f"  all-zero vectors: {self.zeros:,}")
        if self.mean_cosine is not None:
            alike = "; the encoder hardly distinguishes them" if self.mean_cosine > _COLLAPSED else ""
            lines.append(f"  mean cosine of random pairs: {self.mean_cosine:.3f}{alike}")
        for label, nearest in self.neighbours:
            lines.append(f"  nearest to {label}")
            lines += [f"    {cosine:.3f} {neighbour}" for neighbour, cosine in nearest]
        return "\n".join(lines)


@dataclass(frozen=True)
class Embedded:
    """What one side's embeddings hold.

    Attributes:
        ids: tokens of the dataset that have a vector.
        record: what is recorded beside the embeddings; empty where nothing is.
        table: the embeddings.
    """

    ids: frozenset[str]
    record: Mapping[str, Any]
    table: SemanticEmbedding


def check_embeddings(
    corpus: Corpus,
    prefix: str,
    folders: Sequence[Path],
    tokens: Mapping[Side, Sequence[str]],
    profiles: Mapping[Side, Mapping[str, Profile]],
    settings: PromptSettings,
    separators: Mapping[str, str],
) -> tuple[tuple[EmbeddingReport, ...], dict[Side, Embedded], dict[Path, dict[str, Any]]]:
    """Report on both sides; also return what they hold, and what is recorded beside them by the record's file.

    Args:
        corpus: the texts and the split.
        prefix: how the files of the embeddings begin.
        folders: where to look, in order.
        tokens: ids of the dataset.
        profiles: the last profile of each id.
        settings: how prompts are built, and the seed of what is drawn.
        separators: of atomic files.
    """
    reports: list[EmbeddingReport] = []
    embedded: dict[Side, Embedded] = {}
    recorded: dict[Path, dict[str, Any]] = {}
    dimensions: set[int] = set()
    for side in SIDES:
        stem = stem_of(prefix, side)
        names = (stem, f"{stem}.npy", f"{stem}.tokens")
        if not any((folder / name).is_file() for folder in folders for name in names):
            reports.append(EmbeddingReport(side, None))
            continue
        try:
            table = SemanticEmbedding.load(folders, prefix, side, memory_map=True, **separators)
            beside = [Path(table.source).parent]
            metadata = read_metadata(beside, prefix) or {}
            path = metadata_path(beside, prefix)
            if path is not None:
                check_metadata(metadata, table, path)
                recorded[path] = metadata
            joined = table.join([PAD_TOKEN, *tokens[side]])
        except DataError as error:
            reports.append(EmbeddingReport(side, None, problem=str(error)))
            continue
        dimensions.add(table.dimension)
        holes = tuple(token for token, covered in zip(tokens[side], joined.covered[1:]) if not covered)
        embedded[side] = Embedded(frozenset(tokens[side]).difference(holes), metadata, table)
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


def is_stale(
    path: Path,
    record: Mapping[str, Any],
    files: Mapping[Side, Path | None],
    profiles: Mapping[Side, Mapping[str, Profile]],
    embedded: Mapping[Side, Embedded],
) -> bool:
    """Return whether embeddings are of other profiles than those in the files.

    Each row's text is compared with the digest beside the table. Where there are no digests, as beside tables from
    elsewhere, the record's hash is compared with that of the profiles, as they stand or by id.

    Args:
        path: file of the record.
        record: how the embeddings were made.
        files: the files of profiles.
        profiles: the last profile of each id.
        embedded: what the embeddings hold.
    """
    wanted = record.get("profiles_sha256")
    if not isinstance(wanted, str) or not all(profiles.values()):
        return False
    digests = {
        side: read_digests(path.parent, path.name.removesuffix(".semantic.json"), side, len(found.table.tokens))
        for side, found in embedded.items()
        if Path(found.table.source).parent == path.parent
    }
    if len(digests) < len(SIDES) or None in digests.values():
        orders = (_as_they_stand, _by_token)
        return wanted not in [profiles_sha256(order(profiles["user"]), order(profiles["item"])) for order in orders]
    return any(
        _has_other_text(embedded[side].table, of_rows, record, _by_recorded_writer(files[side], record))
        for side, of_rows in digests.items()
        if of_rows is not None
    )


def _has_other_text(
    table: SemanticEmbedding, digests: Sequence[bytes], record: Mapping[str, Any], profiles: Mapping[str, Profile]
) -> bool:
    """Return whether a row of a table is of another text than its id's profile."""
    encoder, normalized = str(record.get("encoder") or ""), bool(record.get("normalized"))
    return any(
        token not in profiles or text_digest(profiles[token].profile, vector, encoder, normalized=normalized) != digest
        for token, vector, digest in zip(table.tokens.tolist(), table.vectors, digests)
    )


def _by_recorded_writer(path: Path | None, record: Mapping[str, Any]) -> dict[str, Profile]:
    """Return the last profile of each id by the writers that the embeddings are recorded to be of.

    Files also keep those of other writers.
    """
    writers = str(record.get("writer") or "").split(", ")
    known = iter_profiles(path) if path is not None else ()
    return {profile.token: profile for profile in known if profile.writer in writers}


def _as_they_stand(profiles: Mapping[str, Profile]) -> list[Profile]:
    return list(profiles.values())


def _by_token(profiles: Mapping[str, Profile]) -> list[Profile]:
    return sorted(profiles.values(), key=lambda profile: profile.token)


def _labels(side: Side, corpus: Corpus, profiles: Mapping[str, Profile]) -> Callable[[str], str]:
    """Return how an id is printed: with an item's title, or the start of a profile."""

    def label(token: str) -> str:
        title = known_title(corpus.items[token].title) if side == "item" else ""
        text = title or (profiles[token].profile.strip() if token in profiles else "")
        short = text if len(text) <= _LABEL_CHARACTERS else f"{text[:_LABEL_CHARACTERS]}…"
        return f"{token} ({short})" if short else token

    return label


def _mean_cosine(joined: JoinedEmbedding, seed: int) -> float | None:
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
