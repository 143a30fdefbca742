"""From texts to the files of semantic embeddings, block by block, so that a stopped run goes on.

The vectors of each side grow in a hidden ``.npy`` beside the files to be; a hidden progress file says how many texts
are done and of which job: the texts, the encoder, the type and the normalisation. Only when both sides are whole do
they take their names, and ``<dataset>.semantic.json``, which says how they were made, comes last. A run that was killed
at any point gives the same bytes, once it is run again, as one that was not.

What the encoder had of a block that fails, and the rows of an unfinished table of other texts, are kept apart until a
job is done (``vector_cache.py``), and taken where the texts are the same.

A text that is blank, or whose vector is all zero, gets no row: its id is a hole, without an embedding.

Vectors may have been paid for, so those of unchanged texts are taken over from the files that are there. Which these
are is recorded in ``.<dataset>.useremb.texts`` and ``.itememb.texts``: for each row, in order, eight bytes of
BLAKE2b over the encoder's name, the type, the normalisation, the text and the row itself. A row that the hash does not
fit, because text, vector or file is another, is encoded again; without these files all are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from recbole_rlmrec.data.atomic_file import object_array
from recbole_rlmrec.data.embedding_files import read_metadata
from recbole_rlmrec.data.file_set import FileSet
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.encoder.base import ENCODERS, Encoder, TextRefusedError, unit_rows
from recbole_rlmrec.encoder.learned_file import learned_path, write_learned
from recbole_rlmrec.encoder.summary import EncodeSummary
from recbole_rlmrec.encoder.text_digests import digests_path, read_digests, text_digest
from recbole_rlmrec.encoder.unfinished import HEADER_BYTES, Dtype, State, read_keys, read_rows, write_keys
from recbole_rlmrec.encoder.vector_cache import RAW, Form, VectorCache, text_key
from recbole_rlmrec.errors import DataError, RLMRecError, ServiceError
from recbole_rlmrec.files import atomic_path, open_no_link, sync, try_lock
from recbole_rlmrec.parts import failures_named
from recbole_rlmrec.reading.documents import Format
from recbole_rlmrec.sides import SIDES, Side

_logger = logging.getLogger(__name__)

_PROGRESS = Format("record of an encoding", "Remove it.", largest=2**30)
# A block holds at most so many times the encoder's texts, however many of its vectors are taken over.
_MOST_TAKEN = 16


@dataclass(frozen=True)
class SideTexts:
    """The texts of one side."""

    side: Side
    tokens: list[str]
    texts: list[str]
    empty: tuple[str, ...]

    @classmethod
    def of(cls, side: Side, table: Mapping[str, str]) -> SideTexts:
        """Set blank texts aside and check the tokens, before anything is paid for."""
        kept = {token: text for token, text in table.items() if text.strip()}
        if not kept:
            raise DataError(
                f"None of the {len(table)} {side}s has a text to encode. Training needs embeddings of both sides: "
                f"write profiles of the {side}s first."
            )
        for token, text in kept.items():
            _require_unicode(side, token, text)
        tokens = object_array(list(kept))
        # A stand-in for the vectors that takes no memory: only the tokens are of interest.
        SemanticEmbedding(tokens, np.broadcast_to(np.float32(1), (len(kept), 1)), f"the {side} texts", side).check()
        return cls(side, list(kept), list(kept.values()), tuple(token for token in table if token not in kept))


@dataclass(frozen=True)
class KeptRows:
    """Rows of a table that is there and that are wanted again.

    Attributes:
        vectors: the table's vectors.
        rows: position of a text -> row of the table.
    """

    vectors: np.ndarray
    rows: Mapping[int, int]

    def is_whole(self, tokens: Sequence[str]) -> bool:
        """Whether the table is, row by row, that of all these ids."""
        return len(tokens) == len(self.vectors) == len(self.rows) and all(at == row for at, row in self.rows.items())


class Job:
    """What is encoded, how, and where to."""

    def __init__(
        self,
        folder: Path,
        dataset: str,
        sides: Mapping[Side, SideTexts],
        encoder: Encoder,
        description: Mapping[str, Any],
        dtype: np.dtype,
        texts_sha256: str,
    ) -> None:
        self.folder, self.dataset = folder, dataset
        self.sides, self.encoder = sides, encoder
        self.description, self.dtype = description, dtype
        identity = {**description, "dtype": dtype.name, "texts_sha256": texts_sha256}
        self.sha256 = hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8")).hexdigest()
        self.state_path = folder / f".{dataset}.encode.json"
        self.lock_path = folder / f".{dataset}.encode.lock"
        self.metadata_path = folder / f"{dataset}.semantic.json"
        self.learned_part = folder / f".{dataset}.encode.learned.npz"
        tables = (self.target(side, suffix).name for side in SIDES for suffix in (".npy", ".tokens"))
        self.files = FileSet(folder, dataset, "build-semantics", (*tables, self.metadata_path.name))
        self._kept: dict[Side, KeptRows] = {}
        self._dtype_name: Dtype = "float16" if dtype == np.float16 else "float32"
        # The forms of kept vectors from which this job's follow, that of the encoder first.
        forms = (RAW, *(Form(description["normalized"], name) for name in ("float32", dtype.name)))
        self._forms = list(dict.fromkeys(forms))
        self._cache: VectorCache | None = None
        self._resumed, self._taken, self._encoded, self._seconds = 0, 0, 0, 0.0

    def part(self, side: Side, suffix: str) -> Path:
        """Path of a file of the side that is not whole yet."""
        return self.folder / f".{self.dataset}.{side}emb.part{suffix}"

    def target(self, side: Side, suffix: str) -> Path:
        """Path of a file of the side that is whole."""
        return self.folder / f"{self.dataset}.{side}emb{suffix}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from the same files.

        Raises:
            DataError: another process is at work, or the folder cannot be made.
        """
        with ExitStack() as stack:
            with self._written(0):
                self.folder.mkdir(parents=True, exist_ok=True)
                is_held = self._take_lock(stack)
            try:
                yield
            finally:
                if is_held:
                    with suppress(OSError):  # Windows removes no open file; one that stays does no harm
                        self.lock_path.unlink()  # while it is held: nobody else's is removed

    def _take_lock(self, stack: ExitStack) -> bool:
        """Lock the lock file until the stack is closed; False where it cannot be made."""
        while True:
            try:
                lock = stack.enter_context(_opened(self.lock_path, "ab"))
            except OSError:
                if self.lock_path.exists() or os.access(self.folder, os.W_OK):
                    raise
                return False  # where nothing can be written, embeddings can be found up to date, and no more
            if not try_lock(lock.fileno()):
                raise DataError(
                    f"Another process encodes {self.dataset} in {self.folder} now. Wait until it has ended, or end "
                    "it: what it has done is kept."
                )
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), os.stat(self.lock_path)):
                    return True
            # Its holder removed it after it was opened here, so others may lock the next one of that name.

    # What is there

    def made_summary(self, *, overwrite: bool) -> EncodeSummary | None:
        """Return a summary if the embeddings are there; None if they are to be made.

        If they are there and only come to be described otherwise, their description is written.

        Raises:
            DataError: there are other embeddings, which may not be overwritten.
        """
        suffixes = (".npy", ".tokens", "")
        existing = [path for side in SIDES for path in (self.target(side, each) for each in suffixes) if path.exists()]
        if not existing:
            return None
        tables: dict[Side, SemanticEmbedding] = {}
        try:
            for side in SIDES:
                tables[side] = SemanticEmbedding.load([self.folder], self.dataset, side, memory_map=True)
            metadata = read_metadata([self.folder], self.dataset)
        except DataError as error:
            differences = [str(error).split("\n")[0]]
        else:
            differences = self._differences(tables, metadata)
        rows = {side: len(tables[side].tokens) for side in tables}
        if not differences:
            self._complete_digests(tables)
            added = self._encoder_settings.keys() - (metadata or {}).keys()
            if metadata is not None and added:  # a version before wrote none
                with suppress(OSError):
                    self._write_metadata({**metadata, **self._encoder_settings})
            zero = {side: self._not_in(side, tables[side].tokens) for side in SIDES}
            return self._summary(tables["user"].dimension, rows, zero, up_to_date=True)
        self._kept = self._unchanged(tables)
        if self._kept and all(self._kept[side].is_whole(self.sides[side].tokens) for side in SIDES):
            dimension = tables["user"].dimension
            with self._written(0):
                self._write_metadata(self._described(dimension))
            return self._summary(dimension, rows, dict.fromkeys(SIDES, ()), taken=sum(rows.values()))
        if overwrite or (self._kept and all(len(self._kept[side].rows) == rows[side] for side in SIDES)):
            return None
        n_kept = sum(len(kept.rows) for kept in self._kept.values())
        raise DataError(
            f"{self.folder} already holds embeddings of {self.dataset} ({', '.join(path.name for path in existing)}), "
            "and they are not those that would be written:\n"
            + "".join(f"  {difference}\n" for difference in differences)
            + "They may have been shipped or paid for, so they are kept. Move them away, or encode with --overwrite"
            + (f", which takes over the {n_kept:,} vectors whose texts are unchanged." if n_kept else ".")
        )

    def _unchanged(self, tables: Mapping[Side, SemanticEmbedding]) -> dict[Side, KeptRows]:
        """Find the rows that are the vectors of texts wanted; empty where none is known to be."""
        dimensions = {table.dimension for table in tables.values()}
        if self.encoder.learns_from_texts or len(dimensions) != 1 or any(side not in tables for side in SIDES):
            return {}
        kept = {side: KeptRows(tables[side].vectors, self._unchanged_rows(side, tables[side])) for side in SIDES}
        return kept if any(each.rows for each in kept.values()) else {}

    def _unchanged_rows(self, side: Side, table: SemanticEmbedding) -> dict[int, int]:
        """Return position of a text -> row that is its vector."""
        digests = read_digests(self.folder, self.dataset, side, len(table.tokens))
        if table.vectors.dtype != self.dtype or digests is None:
            return {}
        row_of = {token: row for row, token in enumerate(table.tokens.tolist())}
        rows: dict[int, int] = {}
        for position, (token, text) in enumerate(zip(self.sides[side].tokens, self.sides[side].texts)):
            row = row_of.get(token)
            if row is not None and digests[row] == self._digest(text, table.vectors[row]):
                rows[position] = row
        table.release()
        return rows

    def _digest(self, text: str, vector: np.ndarray) -> bytes:
        return text_digest(text, vector, self.encoder.name, normalized=self.description["normalized"])

    def _complete_digests(self, tables: Mapping[Side, SemanticEmbedding]) -> None:
        """Write the digests of tables that are of these texts, where a version before wrote none."""
        for side, table in tables.items():
            if read_digests(self.folder, self.dataset, side, len(table.tokens)) is not None:
                continue
            text_of = dict(zip(self.sides[side].tokens, self.sides[side].texts))
            digests = [self._digest(text_of[token], row) for token, row in zip(table.tokens.tolist(), table.vectors)]
            # Where nothing can be written, embeddings can be found up to date, and no more.
            with suppress(OSError), atomic_path(digests_path(self.folder, self.dataset, side)) as temporary:
                temporary.write_bytes(b"".join(digests))

    def _differences(self, tables: Mapping[Side, SemanticEmbedding], metadata: dict[str, Any] | None) -> list[str]:
        """Say in what the embeddings that are there differ from those wanted."""
        if metadata is None:
            return [f"there is no {self.dataset}.semantic.json that says how they were made"]
        found = {key: metadata.get(key) for key in self.description}
        wanted = dict(self.description)
        for side in SIDES:
            found[f"type of the {side} embeddings"] = tables[side].vectors.dtype.name
            wanted[f"type of the {side} embeddings"] = self.dtype.name
        return [
            f"{key}: {shown(found[key])}, would be {shown(value)}"
            for key, value in wanted.items()
            if found[key] != value
        ]

    def _not_in(self, side: Side, tokens: np.ndarray) -> tuple[str, ...]:
        """Tokens of the side that have a text but no row."""
        with_row = set(tokens.tolist())
        return tuple(token for token in self.sides[side].tokens if token not in with_row)

    def read_state(self) -> State | None:
        """Read how far this job is; None if it is not begun, or another one is."""
        state = self._read_any_state()
        n_texts = {side: len(self.sides[side].texts) for side in SIDES}
        if state is None or state.job != self.sha256 or not state.fits(n_texts):
            return None
        state.encoder, state.dtype = self.encoder.name, self._dtype_name  # a version before did not write them
        return state

    def _read_any_state(self) -> State | None:
        """Read how far this job or another one is."""
        try:
            return _PROGRESS.read(self.state_path, State)
        except DataError:
            return None

    def save_state(self, state: State) -> None:
        """Write how far this job is."""
        with atomic_path(self.state_path) as temporary:
            temporary.write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")

    # Encoding

    def encode_missing(self, *, progress: bool) -> State:
        """Encode what is not done yet, and make both sides whole."""
        with ExitStack() as stack:
            with self._written(0):
                parts = {side: stack.enter_context(_opened(self.part(side, ".npy"), "a+b")) for side in SIDES}
            state = self._resume(parts)
            if self._kept and state.dimension not in (None, self._kept["user"].vectors.shape[1]):
                self._kept.clear()  # this job began without them
            n_texts = {side: len(self.sides[side].texts) for side in SIDES}
            if self.encoder.learns_from_texts and (state.done != n_texts or not self.learned_part.exists()):
                self._fit()
            self._resumed = sum(state.done.values())
            started = time.perf_counter()
            with tqdm(
                total=sum(n_texts.values()), initial=self._resumed, unit="text", desc="Encode", disable=not progress
            ) as bar:
                for side in SIDES:
                    while state.done[side] < n_texts[side]:
                        bar.update(self._encode_block(parts[side], side, state))
            self._encoded = sum(state.done.values()) - self._resumed - self._taken
            self._seconds = time.perf_counter() - started
            with self._written(sum(state.done.values())):
                for side in SIDES:
                    self._finish(parts[side], side, state)
                state.replacing = True
                self.save_state(state)
        self._kept.clear()  # Windows replaces no file that is mapped
        return state

    def _fit(self) -> None:
        """Let the encoder learn from all texts, and keep what it learned."""
        with failures_named("encoder", self.encoder):
            self.encoder.fit([text for side in SIDES for text in self.sides[side].texts])
            learned = self.encoder.learned()
        with self._written(0):
            self.learned_part.unlink(missing_ok=True)
            if learned:
                made = {key: self.description[key] for key in ("encoder", "profiles_sha256")}
                write_learned(self.learned_part, learned, **made)

    def _resume(self, parts: Mapping[Side, FileIO]) -> State:
        """Return how far the job is, and cut off what a killed run wrote beyond; start afresh if that is not there."""
        state = self.read_state()
        if state is None or not self._holds_rows_of(state):
            state = self._start_afresh()
        for side in SIDES:
            parts[side].truncate(state.table_bytes(side))
        return state

    def _holds_rows_of(self, state: State) -> bool:
        """Whether the unfinished tables have the rows that a progress file speaks of."""
        return all(self.part(side, ".npy").stat().st_size >= state.table_bytes(side) for side in SIDES)

    def _start_afresh(self) -> State:
        """Keep what unfinished tables of another job hold, and return the state of this job without any row."""
        earlier = self._read_any_state()
        with self._written(sum(earlier.done.values()) if earlier else 0):
            n_kept = self._keep_unfinished(earlier) if earlier else 0
            if any(self.part(side, ".npy").stat().st_size for side in SIDES):
                what = f"its {n_kept:,} vectors are kept for texts that are the same" if n_kept else "it is dropped"
                _logger.warning(
                    f"{self.folder} holds an unfinished table of other texts or of another encoder: {what}, and "
                    "encoding starts from the first text."
                )
            # Before rows and keys of this job stand where the progress file says that another job's do.
            self.state_path.unlink(missing_ok=True)
            if not self.encoder.learns_from_texts:  # else the same text has another vector among other texts
                form = Form(self.description["normalized"], self.dtype.name)
                for side in SIDES:
                    keys = (text_key(text, form) for text in self.sides[side].texts)
                    write_keys(self.part(side, ".keys"), self.sha256, keys)
        return State(self.sha256, encoder=self.encoder.name, dtype=self._dtype_name)

    def _keep_unfinished(self, state: State) -> int:
        """Keep the rows of another job's unfinished tables, and return their number; 0 if it is not known whose."""
        keys = {side: read_keys(self.part(side, ".keys"), state.job) for side in SIDES}
        if state.dimension is None or not state.fits({side: len(keys[side]) for side in SIDES}):
            return 0
        if not self._holds_rows_of(state):
            return 0
        cache = VectorCache(self._cache_path(state.encoder))
        for side in SIDES:
            cache.add_rows(read_rows(self.part(side, ".npy"), state, side, keys[side]), state.dimension)
        return sum(state.done.values())

    def _encode_block(self, part: FileIO, side: Side, state: State) -> int:
        """Encode the side's next block, or take it over, and write it; return the number of texts."""
        start = state.done[side]
        block = self._block(side, start)
        vectors = self._block_vectors(side, block, state.dimension)
        zero = ~vectors.any(axis=1)
        first = state.dimension is None
        with self._written(sum(state.done.values())):
            _write(part, (b"" if start else bytes(HEADER_BYTES)) + vectors[~zero].tobytes())
            state.dimension = vectors.shape[1]
            state.done[side] = block.stop
            state.zero[side] += (start + np.flatnonzero(zero)).tolist()
            self.save_state(state)
        if first:
            self._require_space(state)
        return len(block)

    def _block(self, side: Side, start: int) -> range:
        """Return the positions of the next block, with as many texts to encode as the encoder is best given."""
        kept = self._kept[side].rows if self._kept else {}
        most = min(len(self.sides[side].texts), start + _MOST_TAKEN * self.encoder.block_size)
        stop, n_new = start, 0
        while stop < most and n_new < self.encoder.block_size:
            n_new += stop not in kept
            stop += 1
        return range(start, stop)

    def _block_vectors(self, side: Side, block: range, dimension: int | None) -> np.ndarray:
        """Return the vectors of a block as they are stored, ``[n, D]``: taken over, or encoded."""
        tokens, texts = self.sides[side].tokens, self.sides[side].texts
        if not self._kept:
            return self._vectors(side, tokens[block.start : block.stop], texts[block.start : block.stop], dimension)
        kept = self._kept[side]
        is_kept = np.array([position in kept.rows for position in block])
        vectors = np.empty((len(block), kept.vectors.shape[1]), dtype=self.dtype)
        vectors[is_kept] = kept.vectors[[kept.rows[position] for position in block if position in kept.rows]]
        new = [position for position in block if position not in kept.rows]
        if new:
            new_tokens, new_texts = [tokens[position] for position in new], [texts[position] for position in new]
            vectors[~is_kept] = self._vectors(side, new_tokens, new_texts, vectors.shape[1])
        self._taken += len(block) - len(new)
        return vectors

    def _vectors(self, side: Side, tokens: Sequence[str], texts: Sequence[str], dimension: int | None) -> np.ndarray:
        """Encode a block and check it; ``[n, D]`` as it is stored."""
        known = self._known(texts, dimension)
        new = [place for place in range(len(texts)) if place not in known]
        new_tokens, new_texts = [tokens[place] for place in new], [texts[place] for place in new]
        rows = {place: vector for place, (_, vector) in known.items()}
        if new:
            encoded = self._encode(side, new_tokens, new_texts)
            width = self._width(encoded, len(new), side, dimension)
            if any(len(vector) != width for vector in rows.values()):  # another model under the same name
                self._vector_cache().clear()
                self._keep(dict(zip(new_texts, encoded)))
                return self._vectors(side, tokens, texts, dimension)
            rows.update(zip(new, encoded))
        is_normalized = np.array([place in known and known[place][0].normalized for place in range(len(texts))])
        try:
            stored = self._stored(np.stack([rows[place] for place in range(len(texts))]), is_normalized, side, tokens)
        except RLMRecError:
            self._keep({texts[place]: rows[place] for place in new})
            raise
        self._taken += len(known)
        return stored

    def _width(self, encoded: np.ndarray, n_texts: int, side: Side, dimension: int | None) -> int:
        """Return the length of the vectors that the encoder made of some texts, or raise unless it is as before."""
        width = encoded.shape[1] if encoded.ndim == 2 else 0
        if not width or width != (dimension or width) or len(encoded) != n_texts:
            raise ServiceError(
                f"{self.encoder.name} returned an array of the shape {encoded.shape} for {n_texts} {side} texts; "
                f"expected ({n_texts}, {dimension or 'D'}), with as many values in each vector as before. Is it still "
                "the same model? If not, move the embeddings that are there away, and remove the hidden files "
                f"'.{self.dataset}.encode.*' in {self.folder}, which hold what a stopped run left."
            )
        return width

    def _known(self, texts: Sequence[str], dimension: int | None) -> dict[int, tuple[Form, np.ndarray]]:
        """Return place -> form and vector, float32 ``[D]``, of the texts whose vectors are kept."""
        found = ((place, self._vector_cache().find(text, self._forms)) for place, text in enumerate(texts))
        return {place: one for place, one in found if one is not None and len(one[1]) == (dimension or len(one[1]))}

    def _encode(self, side: Side, tokens: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """Return what the encoder makes of some texts, float32; of a failure, keep what it had."""
        encode = failures_named("encoder", self.encoder)(self.encoder.encode)
        try:
            return np.asarray(encode(texts), dtype=np.float32)
        except BaseException as error:  # also when the user presses Ctrl-C
            self._keep({texts[place]: row for place, row in self.encoder.answered().items()})
            if not isinstance(error, TextRefusedError):
                raise
            raise ServiceError(
                f"The profile of the {side} {tokens[error.position]!r} ({len(texts[error.position]):,} characters) "
                f"cannot be encoded. {error.reason} What was encoded before is kept; correct that profile and go on."
            ) from None

    def _cache_path(self, encoder: str) -> Path:
        name = hashlib.blake2b(encoder.encode(), digest_size=4).hexdigest()
        return self.folder / f".{self.dataset}.encode.{name}.vectors"

    def _vector_cache(self) -> VectorCache:
        if self._cache is None:
            self._cache = VectorCache(self._cache_path(self.encoder.name))
        return self._cache

    def _clear_caches(self) -> None:
        """Remove what is kept for any encoder."""
        self._vector_cache().clear()  # Windows removes no file that is mapped
        name = re.compile(rf"\.{re.escape(self.dataset)}\.encode\.[0-9a-f]{{8}}\.vectors")
        for path in self.folder.iterdir():
            if name.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _keep(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep what is known of a block that fails; the failure itself says more than that it cannot be kept."""
        if not self.encoder.learns_from_texts:  # else the same text has another vector among other texts
            finite = {text: row for text, row in vectors.items() if np.isfinite(row).all()}
            with suppress(OSError):
                self._vector_cache().add(finite)

    def _stored(self, vectors: np.ndarray, is_normalized: np.ndarray, side: Side, tokens: Sequence[str]) -> np.ndarray:
        """Check a block's values, and return them as they are stored, ``[n, D]``."""
        self._require_finite(vectors, side, tokens, "holds a value that is not finite. Encode it with another model.")
        if self.description["normalized"]:
            vectors = unit_rows(vectors, is_normalized)
        with np.errstate(over="ignore"):
            vectors = vectors.astype(self.dtype)
        self._require_finite(vectors, side, tokens, "is too large for float16 (65504). Store float32, or normalize.")
        return vectors

    def _require_finite(self, vectors: np.ndarray, side: Side, tokens: Sequence[str], what: str) -> None:
        """Raise unless all values are finite."""
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise DataError(f"The vector of the {side} {tokens[bad[0]]!r} by {self.encoder.name} {what}")

    def _require_space(self, state: State) -> None:
        """Raise if the disk has no room for the vectors to come, before they are paid for."""
        left = sum(len(self.sides[side].texts) - state.done[side] for side in SIDES)
        needed = left * (state.dimension or 0) * self.dtype.itemsize
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise DataError(
                f"The vectors still to come need {needed / 2**20:,.0f} MiB, and the disk of {self.folder} has "
                f"{free / 2**20:,.0f} MiB left. Make room and run it again, or store float16; it goes on where it was."
            )

    @contextmanager
    def _written(self, n_done: int) -> Iterator[None]:
        """Turn a failure to write into an error that says what is kept."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"The embeddings of {self.dataset} cannot be written in {self.folder}: {error.strerror or error}. "
                f"The {n_done:,} texts encoded before are kept. Make room, or allow writing there, and run it again: "
                "it goes on where it was."
            ) from error

    def _finish(self, part: FileIO, side: Side, state: State) -> None:
        """Write the side's header and tokens."""
        n_rows = state.n_rows(side)
        if not n_rows:
            raise DataError(
                f"The vectors of all {len(self.sides[side].tokens)} {side}s are zero: {self.encoder.name} finds "
                "nothing in their texts. Write other profiles, or take another encoder."
            )
        header = BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"shape": (n_rows, state.dimension), "fortran_order": False, "descr": self.dtype.str}
        )
        # Files opened to append write at their end, wherever they stand; the header's room is at the beginning.
        with _opened(self.part(side, ".npy"), "r+b") as file:
            _write(file, header.getvalue())
        left_out = set(state.zero[side])
        positions = [position for position in range(len(self.sides[side].tokens)) if position not in left_out]
        tokens = "".join(f"{self.sides[side].tokens[position]}\n" for position in positions)
        with _opened(self.part(side, ".tokens"), "wb") as file:
            _write(file, tokens.encode("utf-8"))
        vectors = np.load(self.part(side, ".npy"), mmap_mode="r")
        digests = [self._digest(self.sides[side].texts[position], row) for position, row in zip(positions, vectors)]
        with _opened(self.part(side, ".texts"), "wb") as file:
            _write(file, b"".join(digests))

    def replace_files(self, state: State) -> None:
        """Give both sides' files their names, and write how they were made; may be called again after a crash."""
        with self._written(sum(state.done.values())), self.files.unfinished():
            self.metadata_path.unlink(missing_ok=True)  # it must not stand beside vectors that it does not describe
            for side in SIDES:
                targets = {suffix: self.target(side, suffix) for suffix in (".npy", ".tokens")}
                targets[".texts"] = digests_path(self.folder, self.dataset, side)
                for suffix, target in targets.items():
                    if self.part(side, suffix).exists():  # else it was renamed before a crash
                        os.replace(self.part(side, suffix), target)
            self._replace_learned()
            self._write_metadata(self._described(state.dimension))
            sync(self.metadata_path)
        self._clear_caches()
        for side in SIDES:
            self.part(side, ".keys").unlink(missing_ok=True)
        with suppress(OSError):  # one that stays is that of a job without its parts, which begins afresh
            self.state_path.unlink()

    def _replace_learned(self) -> None:
        """Give what the encoder learned its name, and remove what another one did."""
        known_as = getattr(self.encoder, "known_as", "")
        if self.encoder.learns_from_texts and self.learned_part.exists():
            os.replace(self.learned_part, learned_path(self.folder, self.dataset, known_as))
        for name in ENCODERS:
            if name != known_as:
                learned_path(self.folder, self.dataset, name).unlink(missing_ok=True)

    @property
    def _encoder_settings(self) -> dict[str, Any]:
        """By what the encoder can be made again, as a key of the metadata; none where it has no name to ask for."""
        if not hasattr(self.encoder, "known_as"):
            return {}
        return {"encoder_settings": {"known_as": self.encoder.known_as, **self.encoder.recorded_settings()}}

    def _described(self, dimension: int | None) -> dict[str, Any]:
        """Return how the vectors were made."""
        return {**self.description, "dimension": dimension, **self._encoder_settings}

    def _write_metadata(self, metadata: Mapping[str, Any]) -> None:
        with atomic_path(self.metadata_path) as temporary:
            temporary.write_text(json.dumps(metadata, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    # What to say

    def summary(self, state: State) -> EncodeSummary:
        """Return what was done."""
        zero = {side: tuple(self.sides[side].tokens[position] for position in state.zero[side]) for side in SIDES}
        return self._summary(
            state.dimension or 0,
            {side: state.n_rows(side) for side in SIDES},
            zero,
            resumed=self._resumed,
            taken=self._taken,
            encoded=self._encoded,
            seconds=self._seconds,
            notes=self.encoder.notes(),
        )

    def _summary(
        self, dimension: int, rows: Mapping[Side, int], zero: Mapping[Side, tuple[str, ...]], **further: Any
    ) -> EncodeSummary:
        return EncodeSummary(
            dataset=self.dataset,
            folder=self.folder,
            encoder=self.encoder.name,
            dimension=dimension,
            dtype=self.dtype.name,
            normalized=self.description["normalized"],
            rows=rows,
            empty={side: self.sides[side].empty for side in SIDES},
            zero=zero,
            **further,
        )


def _require_unicode(side: Side, token: str, text: str) -> None:
    """Raise unless both can be written as UTF-8, which the tokens file and the encoders need."""
    try:
        (token + text).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"The {side} {token!r} has an id or a text that is no valid Unicode ({error.reason}): it holds half of a "
            "character. Write it again."
        ) from None


def _opened(path: Path, mode: Literal["ab", "a+b", "r+b", "wb"]) -> FileIO:
    """Open a hidden file of a job, unless a link to another file has its name."""
    return open(path, mode, buffering=0, opener=open_no_link)


def _write(file: FileIO, content: bytes) -> None:
    """Write all of it, down to the disk: the progress file must not be ahead of it, even if the power fails."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def _size(file: FileIO) -> int:
    """Size of an open file."""
    return os.fstat(file.fileno()).st_size


def shown(value: Any) -> str:
    """Show a value of the metadata, a hash by its beginning."""
    if value is None or value == "":
        return "not said"
    text = repr(value)
    return text if len(text) < 64 else f"{text[:13]}...'"
