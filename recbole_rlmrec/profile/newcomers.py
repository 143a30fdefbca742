"""Texts of items that a dataset does not have yet, and of those that its embeddings were made from."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from recbole_rlmrec.data.embedding_files import metadata_path, read_metadata, table_prefix
from recbole_rlmrec.encoder.text_space import Texts, TextSpace
from recbole_rlmrec.parts import failures_named
from recbole_rlmrec.profile.encode_profiles import profiles_sha256
from recbole_rlmrec.profile.prompt import Prompts, PromptSettings
from recbole_rlmrec.profile.record import Profile, profiles_path, read_profiles
from recbole_rlmrec.profile.template import TemplateWriter
from recbole_rlmrec.profile.writer import WRITERS, RuleWriter, Task, Writer
from recbole_rlmrec.settings import completed
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.corpus import Corpus, Item
from recbole_rlmrec.text.load import known_items, load_corpus

_logger = logging.getLogger(__name__)


def open_text_space(config: Any) -> TextSpace:
    """Open the space of a dataset's embeddings, see :meth:`~recbole_rlmrec.encoder.text_space.TextSpace.open`.

    An encoder that learned from the profiles, and did not keep what it learned, learns from them again.

    Args:
        config: an :class:`~recbole_rlmrec.config.RLMRecConfig`.

    Raises:
        DataError: see there.
        SettingError: see there.
    """
    return TextSpace.open(config, partial(_encoded_texts, config))


def _encoded_texts(config: Any) -> Texts | None:
    """Return the texts that a dataset's embeddings were made from; None if they are not known any more."""
    folders, dataset = config.data_folders, str(config["dataset"])
    path = metadata_path(folders, table_prefix(config))
    described = read_metadata(folders, table_prefix(config))
    if path is None or described is None:
        return None
    paths = {side: profiles_path(path.parent, dataset, side) for side in SIDES}
    found: dict[Side, dict[str, Profile]] | None = None
    if all(path.is_file() for path in paths.values()):
        found = {side: read_profiles(paths[side]) for side in SIDES}
    elif described.get("writer") == TemplateWriter.known_as:  # by rule, so it writes the same again
        corpus, settings = load_corpus(config), _prompt_settings(config)
        writer = TemplateWriter()
        written = (writer.user_profiles(corpus, settings)[0], writer.item_profiles(corpus, settings)[0])
        found = {side: {each.token: each for each in profiles} for side, profiles in zip(SIDES, written)}
    if found is None or profiles_sha256(*(found[side].values() for side in SIDES)) != described.get("profiles_sha256"):
        return None
    return {side: {token: each.profile for token, each in found[side].items()} for side in SIDES}


def item_profiles_of(config: Any, items: Iterable[Item], writer: Writer | None = None) -> dict[str, str]:
    """Write profiles of new items, as the dataset's writer writes them of items without an interaction.

    Args:
        config: an :class:`~recbole_rlmrec.config.RLMRecConfig`.
        items: as ``items.jsonl`` has them.
        writer: who writes; if not given, the one that wrote the dataset's profiles, where it goes by a rule. A language
            model is asked only if it is given: in its place the template writes, which is logged.

    Returns:
        Token -> profile, without the items of which nothing is known.

    Raises:
        DataError: a file of the dataset is malformed.
        ServiceError: a server refuses or cannot be reached, or has not answered yet.
    """
    new = {item.token: item for item in items}
    writer = _rule_of(config) if writer is None else writer
    settings = _prompt_settings(config)
    # A rule may count over all items, such as how frequent a value is; who is paid writes of the new ones only.
    known = known_items(config) if isinstance(writer, RuleWriter) else {}
    corpus = Corpus(str(config["dataset"]), {**known, **new}, {}, (), frozenset(), "")
    with TemporaryDirectory() as folder:
        prompts = Prompts(corpus, settings)
        task = Task(corpus, Path(folder), settings, prompts, _logger.info, try_encoder=lambda: None, progress=False)
        with failures_named("writer", writer):
            if isinstance(writer, RuleWriter):
                profiles = {each.token: each for each in writer.profiles(task, "item", {})[0]}
            else:
                profiles = writer.write(task, "item", {}) or {}
    return {token: profiles[token].profile for token in new if token in profiles}


def _rule_of(config: Any) -> RuleWriter:
    """Return the rule by which the dataset's profiles were written, or the template in the place of who is asked."""
    recorded = (read_metadata(config.data_folders, table_prefix(config)) or {}).get("writer") or ""
    kind = WRITERS.get(recorded)
    if kind is not None and issubclass(kind, RuleWriter):
        return kind(completed(kind.settings_class, config))
    _logger.warning(
        f"The profiles of '{config['dataset']}' are by {recorded or 'an unknown writer'}; new items get profiles by "
        "the template, as nobody is asked without settings. Give a writer, or vectors, for others."
    )
    return TemplateWriter()


def _prompt_settings(config: Any) -> PromptSettings:
    return PromptSettings(domain=config["text_domain"] or "general")
