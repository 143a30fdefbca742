"""Encode texts of users and items into the files of semantic embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recbole_rlmrec.encoder.base import Encoder
from recbole_rlmrec.encoder.job import Job, SideTexts
from recbole_rlmrec.encoder.summary import EncodeSummary
from recbole_rlmrec.files import json_line
from recbole_rlmrec.sides import SIDES, Side


def encode_texts(
    folder: Path,
    dataset: str,
    texts: Mapping[Side, Mapping[str, str]],
    encoder: Encoder,
    *,
    origin: Mapping[str, str] | None = None,
    float16: bool = False,
    normalize: bool = True,
    overwrite: bool = False,
    progress: bool = True,
) -> EncodeSummary:
    """Encode texts of users and items into ``.useremb``, ``.itememb`` and ``.semantic.json`` files.

    If the files are there already, made by the same encoder from the same texts, nothing is done. If some texts are
    the same, their vectors are taken over, unless the encoder learns from all texts.

    Args:
        folder: folder to write to.
        dataset: RecBole's dataset name.
        texts: "user" and "item" -> original id -> text.
        encoder: what turns texts into vectors.
        origin: further keys of ``.semantic.json``: where the texts come from. They, too, must be the same for the
            files to count as made. Without a ``profiles_sha256`` the texts themselves are hashed.
        float16: store half precision.
        normalize: scale each vector to length 1.
        overwrite: replace embeddings of other texts or another encoder; not needed where all that are there are
            taken over.
        progress: show a progress bar.

    Raises:
        DataError: there are other embeddings and ``overwrite`` is False, a token cannot be one, a side has no text, a
            value is no finite number or too large, the disk is full, or another process encodes the same dataset.
        ServiceError: a server refuses a text, or cannot be reached. What is done is kept, and the next run goes on.
        SettingError: the encoder's model cannot be loaded.
    """
    sides = {side: SideTexts.of(side, texts[side]) for side in SIDES}
    texts_sha256 = _texts_sha256(sides)
    description = {
        "encoder": encoder.name,
        "normalized": normalize,
        "profiles_sha256": texts_sha256,
        **({"encoder_train_sha256": encoder.train_sha256} if encoder.train_sha256 else {}),
        **(origin or {}),
    }
    dtype = np.dtype(np.float16 if float16 else np.float32)
    job = Job(Path(folder), dataset, sides, encoder, description, dtype, texts_sha256)
    with job.locked():
        job.files.overtaken()  # what was stopped there is said before anything is paid for
        state = job.read_state()
        # Otherwise the files are half replaced, with leave, and nobody else has replaced them since.
        if state is None or not (state.replacing and job.files.is_unfinished):
            made = job.made_summary(overwrite=overwrite)
            if made is not None:
                return made
            state = job.encode_missing(progress=progress)
        job.replace_files(state)
        return job.summary(state)


def _texts_sha256(sides: Mapping[Side, SideTexts]) -> str:
    """Hash the texts, the users' first: one JSON line for each, with the keys token and profile."""
    digest = hashlib.sha256()
    for side in SIDES:
        for token, text in zip(sides[side].tokens, sides[side].texts):
            digest.update(json_line({"token": token, "profile": text}))
    return digest.hexdigest()
