"""From a dataset with text to its semantic embeddings: profiles, embeddings and a check, in this order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from recbole_rlmrec.check.report import CheckReport, check_corpus
from recbole_rlmrec.data.embedding_files import record_options, table_prefix
from recbole_rlmrec.encoder.base import ENCODERS, Encoder, make_encoder
from recbole_rlmrec.errors import ContractError, DataError, SettingError
from recbole_rlmrec.parts import failures_named
from recbole_rlmrec.profile.encode_profiles import encode_profiles
from recbole_rlmrec.profile.llm import LLMSettings
from recbole_rlmrec.profile.prompt import Prompts, PromptSettings
from recbole_rlmrec.profile.record import Profile
from recbole_rlmrec.profile.trial import show_prompts
from recbole_rlmrec.profile.writer import WRITERS, Changed, Task, Writer
from recbole_rlmrec.settings import Settings, completed
from recbole_rlmrec.sides import Side
from recbole_rlmrec.text.load import load_corpus
from recbole_rlmrec.wording import printable

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildSettings:
    """How semantic embeddings are made.

    Attributes:
        writer: who writes the profiles, such as ``template``, ``llm`` or ``batch``: one of
            :data:`~recbole_rlmrec.profile.writer.WRITERS`, with its settings from the configuration; or a writer.
        encoder: what turns them into vectors, such as ``lsa``: one of
            :data:`~recbole_rlmrec.encoder.base.ENCODERS`, with its settings from the configuration or their defaults;
            or an encoder, as :func:`~recbole_rlmrec.encoder.base.make_encoder` makes it.
        llm: which model a writer that is given by its name asks, and how; only for writers that ask one.
        prompts: how prompts are built; their domain is also the template's. The configuration's ``text_domain`` and
            otherwise defaults if not given.
        dry_run: say what would be asked and what it would cost, and do nothing.
        show_prompts: show the prompts of so many items and users, and do nothing.
        rewrite_older: write profiles again that are by an older prompt or template; they are kept otherwise.
        changed: whose training interactions or texts changed, by side: recorded profiles of others stay as they are;
            None for nobody knows, and profiles that would be others now are written again.
        float16: store half precision.
        normalize: scale each vector to length 1.
        overwrite: replace embeddings of other profiles or another encoder.
        options: those of ``recbole-rlmrec build-semantics`` that do the same, which are recorded beside the embeddings
            for messages; none where it is not called by the command line.
    """

    writer: str | Writer = "template"
    encoder: str | Encoder = "lsa"
    llm: LLMSettings | None = None
    prompts: PromptSettings | None = None
    dry_run: bool = False
    show_prompts: int | None = None
    rewrite_older: bool = False
    changed: Changed | None = None
    float16: bool = False
    normalize: bool = True
    overwrite: bool = False
    options: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.show_prompts is not None and self.show_prompts < 1:
            raise SettingError(f"--show-prompt is {self.show_prompts}; expected a number of prompts, 1 or more.")

    @property
    def writes_nothing(self) -> bool:
        """Whether all that is wanted is to look at what would be done."""
        return self.dry_run or self.show_prompts is not None


def build_semantics(
    config: Any,
    settings: BuildSettings,
    report: Callable[[str], None] = _logger.info,
    *,
    progress: bool = True,
) -> CheckReport | None:
    """Write the profiles of a dataset, encode them, and check the result.

    The split is frozen first, unless something fixes it already: what is written from its training interactions would
    be a leak under another one. Items come before users, whose prompts show their profiles. What is there already is
    not made again, so a call that was stopped goes on where it was. It may be called where an event loop runs, as in a
    notebook.

    Args:
        config: an :class:`~recbole_rlmrec.config.RLMRecConfig`; its first data folder is written to.
        settings: who writes, what encodes, and how.
        report: is called with each thing that was done, a line or more.
        progress: show progress bars.

    Returns:
        The check; None if profiles are still to be written, after a dry run and after showing prompts.

    Raises:
        DataError: a file of the dataset is missing or malformed, nobody gets a profile, or embeddings of other profiles
            are in the way.
        ServiceError: a server refuses, or cannot be reached.
        SettingError: a setting is wrong, or a package is missing.
    """
    writer, encoder = _writer_of(config, settings), _encoder_of(config, settings)
    corpus = load_corpus(config, freeze=None if settings.writes_nothing else report)
    prompt_settings = settings.prompts or PromptSettings(domain=config["text_domain"] or "general")
    prompts = Prompts(corpus, prompt_settings)

    def show(text: str) -> None:
        report(printable(text))

    def try_encoder() -> None:
        if not encoder.learns_from_texts:
            failures_named("encoder", encoder)(encoder.encode)(["A text to try the encoder with."])

    folder = Path(config.data_folders[0])
    task = Task(
        *(corpus, folder, prompt_settings, prompts, show, try_encoder, progress),
        rewrite_older=settings.rewrite_older,
        changed=settings.changed,
    )
    if settings.show_prompts is not None:
        show_prompts(task, settings.show_prompts)
        return None
    if settings.dry_run:
        failures_named("writer", writer)(writer.plan)(task)
        return None
    items = _write(writer, task, "item", {})
    users = items and _write(writer, task, "user", {token: item.profile for token, item in items.items()})
    if not items or not users:
        return None
    prefix = table_prefix(config)
    summary = encode_profiles(
        task.folder,
        prefix,
        encoder,
        profiles={"user": users, "item": items},
        float16=settings.float16,
        normalize=settings.normalize,
        overwrite=settings.overwrite,
        progress=progress,
    )
    record_options(task.folder, prefix, settings.options)
    show(str(summary))
    separators = {key: config[key] for key in ("field_separator", "seq_separator")}
    return check_corpus(corpus, config.data_folders, prompt_settings, separators, prompts, prefix)


def _writer_of(config: Any, settings: BuildSettings) -> Writer:
    """Return the writer that is asked for.

    Raises:
        SettingError: there is none of this name, or the settings of a language model are missing or too many.
    """
    name, llm = settings.writer, settings.llm
    if isinstance(name, Writer):
        if llm is not None:
            raise SettingError(
                "BuildSettings has a writer and llm: the writer has settings of its own, so leave out llm."
            )
        return name
    _require_name(name, "writer", "Writer")
    writer = WRITERS.find(name)
    kind: Any = writer.settings_class
    if issubclass(kind, LLMSettings):
        if llm is None:
            raise SettingError(f"The writer '{name}' needs llm=LLMSettings('gpt-4o-mini'), say, in BuildSettings.")
        given = {each.name: getattr(llm, each.name) for each in fields(llm)}
        return writer(llm if isinstance(llm, kind) else kind(**given))
    if llm is not None:
        raise SettingError(
            f"The writer '{name}' asks no language model, so it cannot use llm. Leave it out of BuildSettings."
        )
    return writer(completed(kind, config)) if issubclass(kind, Settings) else writer(kind())


def _encoder_of(config: Any, settings: BuildSettings) -> Encoder:
    """Return the encoder that is asked for.

    Raises:
        SettingError: there is none of this name, or it needs more than its name.
    """
    name = settings.encoder
    if isinstance(name, Encoder):
        return name
    _require_name(name, "encoder", "Encoder")
    kind = ENCODERS.find(name).settings_class
    return make_encoder(name, completed(kind, config) if issubclass(kind, Settings) else kind())


def _require_name(given: object, field: str, kind: str) -> None:
    if not isinstance(given, str):
        raise SettingError(
            f"BuildSettings.{field} is {given!r:.80}, expected the name of one, or an object of a {kind}."
        )


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
