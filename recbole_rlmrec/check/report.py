"""What there is of a dataset's profiles and embeddings, how good it looks, and whether anything held out is in it.

A profile must show training interactions only: one that mentions a validation or test item hands the answer to the
model. Four things are looked at: the hash of the training split that profiles and embeddings were made from, the
interactions that each profile is recorded to have been written from, the prompts as they would be built now, and titles
of held-out items in the texts themselves. A profile of an id without a vector reaches no model, so it is counted and
not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_rlmrec.check.embeddings import EmbeddingReport, check_embeddings, is_stale
from recbole_rlmrec.check.leakage import LeakReport, check_leaks
from recbole_rlmrec.check.profiles import ProfileReport, check_profiles
from recbole_rlmrec.data.embedding_files import chosen_prefix
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.profile.prompt import Prompts, PromptSettings
from recbole_rlmrec.profile.record import (
    failures_path,
    profiles_path,
    read_profiles,
)
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.corpus import Corpus
from recbole_rlmrec.text.load import load_corpus


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
        """Whether a held-out interaction is used, or something was made from another split and nothing clears it."""
        return self.leaks.is_proven or bool(self.leaks.other_split)

    def __str__(self) -> str:
        return "\n".join(map(str, [self.heading, *self.profiles, *self.embeddings, self.leaks]))


def check(config: Any, settings: PromptSettings | None = None) -> CheckReport:
    """Check the profiles and embeddings of the dataset of a configuration.

    Args:
        config: an :class:`~recbole_rlmrec.config.RLMRecConfig`.
        settings: how prompts are built; the configuration's domain and otherwise defaults if not given.

    Raises:
        DataError: there is neither a profile nor an embedding, or none of the name that ``semantic`` says, or a file is
            malformed.
    """
    prefix = chosen_prefix(config)
    corpus = load_corpus(config)
    separators = {key: config[key] for key in ("field_separator", "seq_separator")}
    settings = settings or PromptSettings(domain=config["text_domain"] or "general")
    return check_corpus(corpus, config.data_folders, settings, separators, prefix=prefix)


def check_corpus(
    corpus: Corpus,
    folders: Sequence[str | Path],
    settings: PromptSettings,
    separators: Mapping[str, str] | None = None,
    prompts: Prompts | None = None,
    prefix: str | None = None,
) -> CheckReport:
    """Check the profiles and embeddings in some folders against a corpus; see ``check``.

    Args:
        corpus: the texts and the split.
        folders: where to look, in order.
        settings: how prompts are built, and the seed of what is drawn.
        separators: RecBole's ``field_separator`` and ``seq_separator``, for embeddings in atomic files.
        prompts: those of this corpus and these settings, where they have been built; built if not given.
        prefix: how the files of the embeddings begin; with the dataset's name, if not given.
    """
    paths = [Path(folder) for folder in folders]
    prefix = prefix or corpus.dataset
    tokens: dict[Side, list[str]] = {"user": sorted(corpus.users), "item": sorted(corpus.items)}
    files = {side: _first_file([profiles_path(path, corpus.dataset, side) for path in paths]) for side in SIDES}
    profiles = {side: read_profiles(path) if path is not None else {} for side, path in files.items()}
    failed = {side: _first_file([failures_path(path, corpus.dataset, side) for path in paths]) for side in SIDES}
    embeddings, embedded, metadata = check_embeddings(
        corpus, prefix, paths, tokens, profiles, settings, dict(separators or {})
    )
    if not any(profiles.values()) and all(report.source is None and not report.problem for report in embeddings):
        raise DataError(
            f"There is nothing to check: no profiles ({corpus.dataset}.userprf.jsonl, .itemprf.jsonl) and no "
            f"embeddings ({prefix}.useremb.npy, .itememb.npy) in "
            f"{' or '.join(repr(str(path)) for path in paths)}. Make them with "
            f"`recbole-rlmrec build-semantics --dataset {corpus.dataset}`."
        )
    heading = (
        f"{corpus.dataset}: {len(corpus.users):,} users, {len(corpus.items):,} items; "
        f"{len(corpus.training):,} training interactions, {len(corpus.held_out):,} pairs held out (validation and test)"
    )
    reports = tuple(check_profiles(side, files[side], profiles[side], failed[side], tokens[side]) for side in SIDES)
    stale = [path for path, record in metadata.items() if is_stale(path, record, files, profiles, embedded)]
    prompts = prompts or Prompts(corpus, settings)
    return CheckReport(heading, reports, embeddings, check_leaks(corpus, profiles, embedded, metadata, stale, prompts))


def _first_file(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)
