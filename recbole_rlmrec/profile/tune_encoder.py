"""From the profiles of a dataset and its training interactions to an encoder that is tuned on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recbole_rlmrec.data.frozen import other_split, write_again
from recbole_rlmrec.encoder.pairs import KINDS, draw_pairs
from recbole_rlmrec.encoder.tuning import TuningSettings, open_model, require_replaceable, tune
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.profile.encode_profiles import profiles_sha256, read_sides, training_split
from recbole_rlmrec.profile.record import Profile, profiles_path
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.corpus import Corpus
from recbole_rlmrec.text.load import load_corpus

_logger = logging.getLogger(__name__)


def tune_encoder(
    config: Any,
    settings: TuningSettings,
    output: str | Path,
    report: Callable[[str], None] = _logger.info,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Tune a sentence-transformers model on pairs of profiles that training interactions put close.

    The split is frozen first, unless something fixes it already: the model would be a leak under another one. The seed
    is the configuration's.

    Args:
        config: an :class:`~recbole_rlmrec.config.RLMRecConfig`.
        settings: which model is tuned, and how.
        output: folder of the tuned model, which ``--encoder-model`` takes.
        report: is called with each thing to know, a line or more.
        overwrite: replace a folder that an earlier call wrote.
        progress: show a progress bar.

    Raises:
        DataError: a file of the dataset is missing or malformed; there are no profiles, or none of a user and item of
            one training interaction; or the profiles, or the model itself, were made from another training split.
        SettingError: a setting cannot be used, a package is missing, or the model cannot be tuned so.
        OSError: the folder cannot be written.
    """
    require_replaceable(output, overwrite=overwrite)
    folder = _folder_of_profiles(config)
    profiles = read_sides(folder, str(config["dataset"]))
    encoder = open_model(settings)
    corpus = load_corpus(config, freeze=report)
    made_from = training_split(folder, profiles)
    if made_from not in ("", corpus.train_sha256):
        found = other_split(folder, "the profiles were written from", made_from, corpus.train_sha256)
        raise DataError(f"{found} Write what is stale again with {write_again(config, {})}.")
    if encoder.train_sha256 not in ("", corpus.train_sha256):
        found = other_split(settings.model, "the model was tuned on", encoder.train_sha256, corpus.train_sha256)
        raise DataError(f"{found} Give the model that it was tuned from.")
    texts, ends = _texts_and_interactions(corpus, profiles)
    drawn = draw_pairs(*ends, settings.pairs, settings.epochs, config["seed"])
    counts = {kind: len(epochs[0]) for kind, epochs in drawn.items()}
    report(f"pairs of an epoch: {', '.join(f'{kind} {number:,}' for kind, number in counts.items())}")
    tune(
        encoder,
        settings,
        {
            kind: _texts_of_pairs(texts, KINDS[kind], np.concatenate(epochs))
            for kind, epochs in drawn.items()
            if counts[kind]
        },
        output,
        {
            "dataset": corpus.dataset,
            "train_sha256": corpus.train_sha256,
            "profiles_sha256": profiles_sha256(profiles["user"].values(), profiles["item"].values()),
            "base_model": encoder.name,
            "pairs_of_an_epoch": counts,
        },
        report,
        seed=config["seed"],
        progress=progress,
    )


def _folder_of_profiles(config: Any) -> Path:
    """Return the first folder of the dataset's that holds profiles; the first of all, where none does."""
    folders = [Path(folder) for folder in config.data_folders]
    dataset = str(config["dataset"])
    with_profiles = (each for each in folders if any(profiles_path(each, dataset, side).is_file() for side in SIDES))
    return next(with_profiles, folders[0])


def _texts_and_interactions(
    corpus: Corpus, profiles: Mapping[Side, Mapping[str, Profile]]
) -> tuple[dict[Side, list[str]], tuple[np.ndarray, np.ndarray]]:
    """Return the texts of each side, and the training interactions whose user and item have one, as positions there.

    Raises:
        DataError: there is no such interaction.
    """
    known = {
        side: {token: each.profile for token, each in profiles[side].items() if each.profile.strip()} for side in SIDES
    }
    place = {side: {token: position for position, token in enumerate(known[side])} for side in SIDES}
    ends = np.array(
        [
            (place["user"][review.user], place["item"][review.item])
            for review in corpus.training
            if review.user in place["user"] and review.item in place["item"]
        ],
        dtype=np.int64,
    ).reshape(-1, 2)
    if not len(ends):
        raise DataError(
            f"No training interaction of '{corpus.dataset}' has a profile of both its user and its item, so there is "
            "nothing to tune on. Write profiles of users and items of this dataset, with build-semantics."
        )
    return {side: list(known[side].values()) for side in SIDES}, (ends[:, 0], ends[:, 1])


def _texts_of_pairs(
    texts: Mapping[Side, list[str]], sides: tuple[Side, Side], pairs: np.ndarray
) -> tuple[list[str], list[str]]:
    """Return the texts of the left and of the right ends of pairs ``[n, 2]``."""
    left, right = ([texts[side][row] for row in column.tolist()] for side, column in zip(sides, pairs.T))
    return left, right
