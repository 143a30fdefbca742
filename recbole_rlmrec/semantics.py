"""From a dataset with text to its semantic embeddings: profiles, embeddings and a check, in this order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_rlmrec.check.report import CheckReport, check_corpus
from recbole_rlmrec.encoder.base import Encoder
from recbole_rlmrec.errors import ContractError, DataError
from recbole_rlmrec.parts import failures_named
from recbole_rlmrec.profile.encode_profiles import encode_profiles
from recbole_rlmrec.profile.prompt import Prompts, PromptSettings
from recbole_rlmrec.profile.record import Profile
from recbole_rlmrec.profile.writer import Task, Writer
from recbole_rlmrec.sides import Side
from recbole_rlmrec.text.load import load_corpus

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildSettings:
    """How semantic embeddings are made, beside who writes the profiles and what encodes them.

    Attributes:
        prompts: how prompts are built; their domain is also the template's.
        dry_run: say what would be asked and what it would cost, and do nothing.
        float16: store half precision.
        normalize: scale each vector to length 1.
        overwrite: replace embeddings of other profiles or another encoder.
    """

    prompts: PromptSettings = field(default_factory=PromptSettings)
    dry_run: bool = False
    float16: bool = False
    normalize: bool = True
    overwrite: bool = False


def build_semantics(
    config: Any,
    writer: Writer,
    encoder: Encoder,
    settings: BuildSettings,
    report: Callable[[str], None] = _logger.info,
    *,
    progress: bool = True,
) -> CheckReport | None:
    """Write the profiles of a dataset, encode them, and check the result.

    Items come first, since users' prompts show their profiles. What is there already is not made again, so a call that
    was stopped goes on where it was.

    Args:
        config: an :class:`~recbole_rlmrec.config.RLMRecConfig`; its first data folder is written to.
        writer: who writes the profiles.
        encoder: what turns them into vectors.
        settings: how.
        report: is called with each thing that was done, a line or more.
        progress: show progress bars.

    Returns:
        The check; None if profiles are still to be written, and after a dry run.

    Raises:
        DataError: a file of the dataset is missing or malformed, nobody gets a profile, or embeddings of other profiles
            are in the way.
        ServiceError: a server refuses, or cannot be reached.
        SettingError: a setting is wrong, or a package is missing.
    """
    corpus = load_corpus(config)
    prompts = Prompts(corpus, settings.prompts)

    def try_encoder() -> None:
        if not encoder.learns_from_texts:
            failures_named("encoder", encoder)(encoder.encode)(["A text to try the encoder with."])

    task = Task(corpus, Path(config.data_folders[0]), settings.prompts, prompts, report, try_encoder, progress)
    if settings.dry_run:
        failures_named("writer", writer)(writer.plan)(task)
        return None
    items = _write(writer, task, "item", {})
    users = items and _write(writer, task, "user", {token: item.profile for token, item in items.items()})
    if not items or not users:
        return None
    summary = encode_profiles(
        task.folder,
        corpus.dataset,
        encoder,
        profiles={"user": users, "item": items},
        float16=settings.float16,
        normalize=settings.normalize,
        overwrite=settings.overwrite,
        progress=progress,
    )
    report(str(summary))
    separators = {key: config[key] for key in ("field_separator", "seq_separator")}
    return check_corpus(corpus, config.data_folders, settings.prompts, separators, prompts)


def _write(writer: Writer, task: Task, side: Side, item_profiles: Mapping[str, str]) -> dict[str, Profile] | None:
    """Write one side's profiles; None if some are still to come.

    Raises:
        DataError: nobody gets a profile.
        ContractError: the writer returns something else.
    """
    found = failures_named("writer", writer)(writer.write)(task, side, item_profiles)
    if found is None:
        return None
    if not isinstance(found, dict) or not all(isinstance(profile, Profile) for profile in found.values()):
        raise ContractError(
            f"{type(writer).__name__}.write() returned {found!r:.80}, expected a dictionary token -> Profile, or None."
        )
    if not found:
        raise DataError(
            f"No {side} of '{task.corpus.dataset}' has a profile, so there is nothing to encode. Texts come from "
            f"items.jsonl and reviews.jsonl in '{task.folder}', or from the columns that item_title_field, "
            "item_description_field, item_attribute_fields, user_attribute_fields and review_field name; what a "
            f"language model failed to write is listed in {task.failures_path(side).name}."
        )
    return found
