"""From the profiles of a dataset to its semantic embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from recbole_rlmrec.encoder.base import Encoder
from recbole_rlmrec.encoder.encode import encode_texts
from recbole_rlmrec.encoder.job import shown
from recbole_rlmrec.encoder.summary import EncodeSummary
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.profile.record import Profile, profile_line, profiles_path, read_profiles
from recbole_rlmrec.sides import SIDES, Side


def encode_profiles(
    folder: Path,
    dataset: str,
    encoder: Encoder,
    *,
    profiles: Mapping[Side, Mapping[str, Profile]] | None = None,
    float16: bool = False,
    normalize: bool = True,
    overwrite: bool = False,
    progress: bool = True,
) -> EncodeSummary:
    """Encode the profiles of a dataset's users and items; see :func:`encode_texts`.

    Rows are in the order in which the ids first appear in their profile file, or in that of ``profiles``; the last
    profile of an id counts.

    Args:
        folder: folder of the dataset, with ``<dataset>.userprf.jsonl`` and ``<dataset>.itemprf.jsonl``.
        dataset: RecBole's dataset name.
        encoder: what turns texts into vectors.
        profiles: "user" and "item" -> original id -> profile, instead of those in the files.
        float16: store half precision, which takes half the space.
        normalize: scale each vector to length 1.
        overwrite: replace embeddings of other profiles or another encoder.
        progress: show a progress bar.

    Raises:
        DataError: a profile file is missing or malformed, or the profiles were written from different training splits;
            and as :func:`encode_texts`.
        ServiceError: as :func:`encode_texts`.
    """
    folder = Path(folder)
    profiles = read_sides(folder, dataset) if profiles is None else profiles
    origin = {
        "writer": ", ".join(sorted({profile.writer for side in SIDES for profile in profiles[side].values()})),
        "profiles_sha256": profiles_sha256(profiles["user"].values(), profiles["item"].values()),
    }
    train_sha256 = training_split(folder, profiles)
    if train_sha256:
        origin["train_sha256"] = train_sha256
    texts = {side: {token: profile.profile for token, profile in profiles[side].items()} for side in SIDES}
    return encode_texts(
        folder,
        dataset,
        texts,
        encoder,
        origin=origin,
        float16=float16,
        normalize=normalize,
        overwrite=overwrite,
        progress=progress,
    )


def profiles_sha256(users: Iterable[Profile], items: Iterable[Profile]) -> str:
    r"""Hash profiles, the users' first.

    Returns:
        SHA-256, in hexadecimal, of one UTF-8 line a profile: a JSON object with the keys token, profile, reasoning,
        writer, prompt_sha256, train_sha256 and, unless empty or false, those of interactions and sums, in this order,
        and characters beyond ASCII as they are. That is the hash of both files, one after the other, without the
        versions, where no profile was written twice.
    """
    digest = hashlib.sha256()
    for profile in (*users, *items):
        digest.update(profile_line(replace(profile, version=1)))
    return digest.hexdigest()


def read_sides(folder: Path, dataset: str) -> dict[Side, dict[str, Profile]]:
    """Read the profiles of both sides; raise unless both are there."""
    paths = {side: profiles_path(folder, dataset, side) for side in SIDES}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise DataError(
            f"{folder} does not hold {' or '.join(missing)}. Training needs embeddings of both users and items: write "
            "the profiles of both sides first, or give another folder or dataset."
        )
    return {side: read_profiles(path) for side, path in paths.items()}


def training_split(folder: Path, profiles: Mapping[Side, Mapping[str, Profile]]) -> str:
    """Return the hash of the training split that all profiles were written from."""
    counts: dict[str, dict[Side, int]] = {}
    for side in SIDES:
        for profile in profiles[side].values():
            of_split = counts.setdefault(profile.train_sha256, dict.fromkeys(SIDES, 0))
            of_split[side] += 1
    if len(counts) > 1:
        listed = "; ".join(
            f"{shown(split)}: {of_split['user']:,} users, {of_split['item']:,} items"
            for split, of_split in sorted(counts.items())
        )
        raise DataError(
            f"The profiles in {folder} were written from {len(counts)} different training splits ({listed}). "
            "Embeddings of several would show the model interactions that it is tested on. Write the profiles of "
            "both sides again from the split you train on; those that fit already are not written twice."
        )
    return next(iter(counts), "")  # "" where the profiles do not say, as those that RLMRec released
