"""Who writes profiles: what a writer is given, what it must do, and which ones there are by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from recbole_rlmrec.errors import ContractError
from recbole_rlmrec.parts import Registry, checked_class
from recbole_rlmrec.profile.prompt import Prompts, PromptSettings, canonical_sha256
from recbole_rlmrec.profile.record import (
    Profile,
    ProfileLog,
    current_version,
    failures_path,
    note_of_older,
    profiles_path,
)
from recbole_rlmrec.settings import Settings
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.corpus import Corpus
from recbole_rlmrec.wording import examples

#: Ids of users and of items whose training interactions or texts are others than before.
Changed = Mapping[Side, Collection[str]]


@dataclass(frozen=True)
class Task:
    """What a writer is given.

    Attributes:
        corpus: the texts of a dataset.
        folder: folder of the profiles; made if missing.
        settings: how prompts are built; their domain says what the items are.
        prompts: the prompts of this corpus, built when they are asked for.
        report: says one thing to the user, a line or more.
        try_encoder: to be called before anything is paid for; raises where the encoder cannot be used.
        progress: whether to show progress bars.
        rewrite_older: whether profiles by an older prompt or template are written again.
        changed: whose training interactions or texts changed since the profiles were written, by side: the profiles of
            all others stay, also where another would be written of them now, since what sets a node apart depends on
            all others. None for nobody knows.
    """

    corpus: Corpus
    folder: Path
    settings: PromptSettings
    prompts: Prompts
    report: Callable[[str], None]
    try_encoder: Callable[[], None]
    progress: bool = True
    rewrite_older: bool = False
    changed: Changed | None = None

    def profiles_path(self, side: Side) -> Path:
        """Return the file of a side's profiles."""
        return profiles_path(self.folder, self.corpus.dataset, side)

    def failures_path(self, side: Side) -> Path:
        """Return the file of what could not be written."""
        return failures_path(self.folder, self.corpus.dataset, side)

    def batches_path(self, side: Side) -> Path:
        """Return the file of the batches under way."""
        return self.folder / f"{self.corpus.dataset}.{side}prf.batch.json"

    def report_without(self, side: Side, without: Mapping[str, str]) -> None:
        """Report who gets no profile.

        Args:
            side: whose profiles.
            without: token -> reason.
        """
        for reason, number in Counter(without.values()).most_common():
            tokens = [token for token, found in without.items() if found == reason]
            self.report(f"{side}s without a profile: {number} with {reason}, e.g. {examples(tokens)}.")

    def kept(self, log: ProfileLog, wanted: Profile, side: Side) -> Profile | None:
        """Return the recorded profile that stays in a wanted one's place, if there is one.

        It is one of somebody who has not changed, or one by an older prompt or template.

        Args:
            log: the side's profiles.
            wanted: its token, writer, prompt_sha256 and train_sha256 are looked for.
            side: whose profiles.
        """
        if self.changed is not None and wanted.token not in self.changed[side]:
            found = log.latest(wanted.token, wanted.writer)
            if found is not None:  # what it was written from is for training still
                return replace(found, train_sha256=wanted.train_sha256)
        is_recorded = (wanted.token, wanted.writer, wanted.prompt_sha256) in log
        if self.rewrite_older or is_recorded:
            return None
        return log.older(wanted.token, wanted.writer, wanted.train_sha256)

    def report_older(self, side: Side, profiles: Iterable[Profile]) -> None:
        """Report how many of a side's profiles are by an older prompt or template."""
        for note in note_of_older(sum(profile.is_older for profile in profiles)):
            self.report(f"{side}s: {note}.")


class Writer(ABC):
    """Writes the profiles of a dataset's items and users.

    Args:
        settings: of the class ``settings_class``.

    Attributes:
        known_as: the name by which ``--writer`` asks for it.
        has_reached_limit: whether a ``write`` that returned None stopped where the user asked it to, such as at a
            number of profiles; ``build-semantics`` then ends with status 0.
        settings_class: a subclass of :class:`~recbole_rlmrec.settings.Settings`, whose fields the user gives as
            ``--name=value``; or a dataclass whose fields have options of ``build-semantics``, as those of
            :class:`~recbole_rlmrec.profile.llm.LLMSettings`.
    """

    known_as: ClassVar[str]
    settings_class: ClassVar[type] = Settings
    has_reached_limit: bool = False

    def __init__(self, settings: Any = None) -> None:
        self.settings = self.settings_class() if settings is None else settings

    @abstractmethod
    def plan(self, task: Task) -> None:
        """Report what would be written and what it would cost; ask nobody and write nothing."""

    @abstractmethod
    def write(self, task: Task, side: Side, item_profiles: Mapping[str, str]) -> dict[str, Profile] | None:
        """Write the profiles of one side that are not recorded; the items' come first.

        Args:
            task: of what, and where to.
            side: whose profiles.
            item_profiles: item token -> profile, for the users' turn.

        Returns:
            Token -> profile, of all who have one, by token; None if some are still to come, which was reported.

        Raises:
            DataError: a file cannot be written or is damaged.
            ServiceError: a server refuses, or cannot be reached.
            SettingError: a setting cannot be used.
        """


class RuleWriter(Writer):
    """A writer that makes all profiles of a side at once and asks nobody: it supplies ``profiles``."""

    @abstractmethod
    def profiles(
        self, task: Task, side: Side, item_profiles: Mapping[str, str]
    ) -> tuple[Sequence[Profile], Mapping[str, str]]:
        """Return one side's profiles, by token, and token -> reason for those that get none.

        Only interactions of ``task.corpus.training`` may be used; :meth:`profile_of` records which are.
        """

    def profile_of(
        self,
        corpus: Corpus,
        token: str,
        text: str,
        interacted: Iterable[str] = (),
        inputs: Mapping[str, Any] | None = None,
    ) -> Profile:
        """Return a profile with everything that is recorded of it.

        Args:
            corpus: what it was written from.
            token: original id of the user or item.
            text: the profile.
            interacted: other ends of the training interactions that it was written from.
            inputs: what it was made from, for the record's hash; the text itself, if not given.
        """
        return Profile(
            token=token,
            profile=text,
            reasoning="",
            writer=self.known_as,
            prompt_sha256=canonical_sha256({"text": text} if inputs is None else inputs),
            train_sha256=corpus.train_sha256,
            interacted=tuple(sorted(set(interacted))),
            version=current_version(self.known_as),
        )

    def _checked_profiles(
        self, task: Task, side: Side, item_profiles: Mapping[str, str]
    ) -> tuple[Sequence[Profile], Mapping[str, str]]:
        """Return what ``profiles`` returns.

        Raises:
            ContractError: it is something else.
        """
        found: Any = self.profiles(task, side, item_profiles)
        is_pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)
        if not is_pair or not isinstance(found[0], Sequence) or not all(isinstance(one, Profile) for one in found[0]):
            raise ContractError(
                f"{type(self).__name__}.profiles() returned {found!r:.60}, expected a list of Profile and a dictionary "
                "of token -> reason for those that get none."
            )
        return found

    def plan(self, task: Task) -> None:
        """Report how many profiles there would be."""
        items = self._checked_profiles(task, "item", {})
        users = self._checked_profiles(task, "user", {profile.token: profile.profile for profile in items[0]})
        for side, (profiles, without) in zip(SIDES, (users, items)):
            task.report_without(side, without)
            task.report(
                f"{side}s: {len(profiles)} profiles by {self.known_as}; nobody is asked, nothing is to be paid."
            )

    def write(self, task: Task, side: Side, item_profiles: Mapping[str, str]) -> dict[str, Profile]:
        """Record the profiles that are new or have changed; keep those of an older version unless asked not to."""
        profiles, without = self._checked_profiles(task, side, item_profiles)
        task.report_without(side, without)
        n_written = 0
        written: dict[str, Profile] = {}
        with ProfileLog(task.profiles_path(side)) as log:
            current = log.current()
            for profile in profiles:
                older = task.kept(log, profile, side)
                if older is not None:
                    log.make_last(older)
                elif current.get(profile.token) != profile:
                    log.append(profile, sync=False)  # what a power cut takes is written again
                    n_written += 1
                written[profile.token] = older or profile
        task.report(f"{side}s: {len(profiles)} profiles by {self.known_as}, {n_written} of them new.")
        task.report_older(side, written.values())
        return written


#: Writers by the names that ``--writer`` takes; ``batch`` is ``llm`` by the Batch API.
WRITERS: Registry[type[Writer]] = Registry(
    "writer",
    "recbole_rlmrec.writers",
    lambda part: checked_class(part, Writer, "writer"),
    {
        "template": "recbole_rlmrec.profile.template:TemplateWriter",
        "llm": "recbole_rlmrec.profile.llm_writer:LLMWriter",
        "batch": "recbole_rlmrec.profile.llm_writer:BatchWriter",
    },
)
