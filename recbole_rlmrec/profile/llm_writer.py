"""Profiles of both sides of a dataset by a language model, asked directly or by the Batch API.

A profile of an older prompt stays where it was written from this training split, unless the user asks for another.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from recbole_rlmrec.errors import ServiceError, SettingError
from recbole_rlmrec.profile.batch import collect, requests_under_way, submit
from recbole_rlmrec.profile.cost import shown_cost
from recbole_rlmrec.profile.llm import (
    LLMSettings,
    PromptWriter,
    WriteSummary,
    is_refused,
    note_of_left_out,
    recorded_profile,
)
from recbole_rlmrec.profile.prompt import Prompt
from recbole_rlmrec.profile.record import Failure, Profile, ProfileLog, commonest_reason, read_failures
from recbole_rlmrec.profile.trial import items_shown, stand_ins
from recbole_rlmrec.profile.writer import Task, Writer
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.wording import count

#: Seconds between two looks at batches that are waited for.
BATCH_POLL_SECONDS = 60.0


class PromptedWriter(Writer):
    """What is the same however a language model is asked: the prompts, the plan, the limit and the budget.

    Args:
        settings: which model, how, and for how much; the budget is that of both sides together, the limit one of users,
            with the items that their prompts show.

    Attributes:
        share_of_price: what a request costs, in prices of direct ones.
        price_note: what the plan says of it.
    """

    settings_class: ClassVar[type] = LLMSettings
    share_of_price: ClassVar[float] = 1.0
    price_note: ClassVar[str] = ""

    def __init__(self, settings: LLMSettings) -> None:
        super().__init__(settings)
        if settings.limit == 0:
            raise SettingError("--limit 0 asks for nothing; give at least 1, or --dry-run.")
        self._limit = settings.limit
        self._chosen: frozenset[str] = frozenset()  # the users that a limit leaves
        self._left = replace(settings, limit=None)  # with what is left of its budget
        self._dialect = settings.dialect()  # what is found out of the server holds for both sides
        self._has_tried_encoder = False

    @abstractmethod
    def ask(self, task: Task, side: Side, prompts: Sequence[Prompt]) -> bool:
        """Ask for what is not recorded; return whether everyone was asked and nothing is under way."""

    def write(self, task: Task, side: Side, item_profiles: Mapping[str, str]) -> dict[str, Profile] | None:
        """Ask for the profiles of one side that are not recorded; see :meth:`Writer.write`."""
        prompts, without = task.prompts.of(side, item_profiles)
        task.report_without(side, without)
        task.report(f"{side}s:")
        with ProfileLog(task.profiles_path(side)) as log:
            kept = self._older(task, side, prompts, log)
            for profile in kept.values():
                log.make_last(profile)
        task.report_older(side, kept.values())
        to_write = [prompt for prompt in prompts if prompt.token not in kept]
        if self._limit is None:
            is_done = self.ask(task, side, to_write)
        elif side == "item":
            is_done = self._ask_for_items_of_trial(task, to_write, kept)
        else:
            is_done = self.ask(task, side, [prompt for prompt in to_write if prompt.token in self._chosen])
        if not is_done:
            return None
        written = {**kept, **self._recorded(task, side, to_write)}
        if prompts and not written:
            raise self._nothing_written(task, side, prompts)
        if self._limit is not None and side == "user" and self._has_left(task, item_profiles, to_write):
            return None
        return {prompt.token: written[prompt.token] for prompt in prompts if prompt.token in written}

    def _recorded(self, task: Task, side: Side, prompts: Sequence[Prompt]) -> dict[str, Profile]:
        """Return token -> profile, of the prompts whose very answer is recorded."""
        with ProfileLog(task.profiles_path(side), read_only=True) as log:
            found = {prompt.token: log.find(*self._key(prompt)) for prompt in prompts}
        return {token: profile for token, profile in found.items() if profile is not None}

    def _older(self, task: Task, side: Side, prompts: Sequence[Prompt], log: ProfileLog) -> dict[str, Profile]:
        """Return token -> profile that stays though the prompt is another now, so that nobody is asked."""
        train_sha256 = task.corpus.train_sha256
        found = {
            prompt.token: task.kept(log, recorded_profile(prompt, self._left.writer, train_sha256), side)
            for prompt in prompts
        }
        return {token: profile for token, profile in found.items() if profile is not None}

    def _ask_for_items_of_trial(self, task: Task, prompts: Sequence[Prompt], kept: Mapping[str, Profile]) -> bool:
        """Choose the users that the limit leaves, and ask for the items that their prompts show.

        How many interactions a prompt has room for depends on the items' profiles, so more items may be shown once the
        first are written: it goes on until none is missing, and the users' prompts are those of a run without a limit.
        """
        known = {**kept, **self._recorded(task, "item", prompts)}
        profiles = {token: profile.profile for token, profile in known.items()}
        self._chosen = self._first_users(task, profiles)
        shown = items_shown(task, self._chosen, {**stand_ins(task), **profiles})
        asked: set[str] = set()
        while True:
            to_ask = [prompt for prompt in prompts if prompt.token in shown.difference(profiles, asked)]
            if not to_ask:
                return True
            task.report(
                f"--limit: {count(len(self._chosen), 'user')}, and {count(len(to_ask), 'item')} that their prompts "
                f"show{' too' if asked else ''}."
            )
            if not self.ask(task, "item", to_ask):
                return False
            asked.update(prompt.token for prompt in to_ask)
            written = self._recorded(task, "item", to_ask)
            profiles.update({token: profile.profile for token, profile in written.items()})
            shown = items_shown(task, self._chosen, profiles)

    def _first_users(self, task: Task, item_profiles: Mapping[str, str]) -> frozenset[str]:
        """Return the tokens of as many users as the limit says whose profile is to be written next."""
        busy = requests_under_way(self._left, task.batches_path("user"))
        if busy:  # in batches of a trial that goes on
            return frozenset(token for token, _, _ in busy)
        prompts, _ = task.prompts.of_users(item_profiles)
        failures = read_failures(task.failures_path("user"))
        with ProfileLog(task.profiles_path("user"), read_only=True) as log:
            older = self._older(task, "user", prompts, log)
            to_write = [
                prompt.token
                for prompt in prompts
                if prompt.token not in older and self._key(prompt) not in log and not self.is_left_out(failures, prompt)
            ]
        to_write.sort(key=lambda token: token in failures)  # what never was tried comes first
        return frozenset(to_write[: self._limit])

    def _has_left(self, task: Task, item_profiles: Mapping[str, str], users: Sequence[Prompt]) -> bool:
        """Report what the limit has left to later runs; return whether it has left anything."""
        sides = {"user": users, "item": [p for p in task.prompts.of_items[0] if p.token not in item_profiles]}
        n_left = {}
        for side in SIDES:
            recorded, failures = self._recorded(task, side, sides[side]), read_failures(task.failures_path(side))
            n_left[side] = sum(prompt.token not in recorded and prompt.token not in failures for prompt in sides[side])
        self.has_reached_limit = any(n_left.values())
        if self.has_reached_limit:
            task.report(
                f"{count(n_left['user'], 'user')} and {count(n_left['item'], 'item')} are left; the same command goes "
                "on with the next, and without --limit with all of them."
            )
        return self.has_reached_limit

    def _nothing_written(self, task: Task, side: Side, prompts: Sequence[Prompt]) -> ServiceError:
        failures, writer = read_failures(task.failures_path(side)), self._left.writer
        of_prompts = [failures[prompt.token] for prompt in prompts if prompt.token in failures]
        n_asked = len(of_prompts) or len(prompts)
        reason = commonest_reason(failure for failure in of_prompts if failure.writer == writer)
        return ServiceError(
            f"None of the {count(n_asked, side)} got a profile from {writer}. {reason.rstrip('.')}. All reasons "
            f"are in {task.failures_path(side)}. Correct the cause and run the same command again, with "
            "--retry-failed where prompts were refused."
        )

    def is_left_out(self, failures: Mapping[str, Failure], prompt: Prompt) -> bool:
        """Whether a prompt is not asked again, because of how it failed before."""
        return not self._left.retry_failed and is_refused(prompt, failures, self._left.writer)

    def plan(self, task: Task) -> None:
        """Report what would be asked, and for how much; users' prompts with stand-ins for items' missing profiles."""
        writer, total, is_exact = PromptWriter(self._left), 0.0, True
        shown_profiles = stand_ins(task)
        for side in reversed(SIDES):
            prompts, without = task.prompts.of(side, shown_profiles)
            task.report_without(side, without)
            with ProfileLog(task.profiles_path(side), read_only=True) as log:
                kept = self._older(task, side, prompts, log)
            task.report_older(side, kept.values())
            prompts = [prompt for prompt in prompts if prompt.token not in kept]
            if side == "item":
                known = {**kept, **self._recorded(task, side, prompts)}
                is_exact = len(known) == len(prompts) + len(kept)
                shown_profiles.update({token: profile.profile for token, profile in known.items()})
            if self._limit is not None and side == "item":
                self._chosen = self._first_users(task, shown_profiles)
                shown = items_shown(task, self._chosen, shown_profiles)
                prompts = [prompt for prompt in prompts if prompt.token in shown]
            elif self._limit is not None:
                prompts = [prompt for prompt in prompts if prompt.token in self._chosen]
            busy = requests_under_way(self._left, task.batches_path(side))
            open_prompts = [prompt for prompt in prompts if self._key(prompt) not in busy]
            failures = read_failures(task.failures_path(side))
            with ProfileLog(task.profiles_path(side), read_only=True) as log:
                to_plan = [
                    prompt
                    for prompt in open_prompts
                    if self._key(prompt) in log or not self.is_left_out(failures, prompt)
                ]
                plan = writer.plan(to_plan, log)
            about = (
                "" if side == "item" or is_exact else " (with template texts for the item profiles that are missing)"
            )
            n_busy = len(prompts) - len(open_prompts)
            under_way = f" {n_busy} more are in batches." if n_busy else ""
            left_out = " ".join(["", *note_of_left_out(len(open_prompts) - len(to_plan))])
            task.report(f"{side}s{about}: {plan}{under_way}{left_out}")
            total += self.share_of_price * (plan.cost or 0.0)
        if self._left.prices.known:
            task.report(f"Together: {shown_cost(total)}{self.price_note}.")

    def spend(self, cost: float | None) -> None:
        """Take what was used from the budget.

        Args:
            cost: US dollars; None if unknown.
        """
        if self._left.budget is not None:
            self._left = replace(self._left, budget=max(0.0, self._left.budget - (cost or 0.0)))

    def note_end(self, task: Task, side: Side, n_left: int) -> bool:
        """Report how many are left of one side; return whether none is.

        Args:
            task: what is written.
            side: whose profiles.
            n_left: prompts that nobody was asked.
        """
        if n_left:
            task.report(f"{n_left} {side}s are left; the same command goes on with them.")
        return not n_left

    def try_encoder(self, task: Task, prompts: Sequence[Prompt], log: ProfileLog) -> None:
        """Find out before profiles are paid for, not after, that the encoder's model or key is no good."""
        if not self._has_tried_encoder and any(self._key(prompt) not in log for prompt in prompts):
            task.try_encoder()
            self._has_tried_encoder = True

    def _key(self, prompt: Prompt) -> tuple[str, str, str]:
        return prompt.token, self._left.writer, prompt.sha256


class LLMWriter(PromptedWriter):
    """Asks a language model and waits for its answers."""

    known_as = "llm"

    def ask(self, task: Task, side: Side, prompts: Sequence[Prompt]) -> bool:
        """Ask for what is not recorded; return whether everyone was asked.

        Raises:
            SettingError: batches under way have some of these prompts.
        """
        busy = requests_under_way(self._left, task.batches_path(side))
        n_busy = sum(self._key(prompt) in busy for prompt in prompts)
        if n_busy:
            raise SettingError(
                f"{n_busy} of these prompts are in batches under way, and would be paid for twice. Collect them with "
                "--batch."
            )
        with ProfileLog(task.profiles_path(side)) as log:
            self.try_encoder(task, prompts, log)
            summary = self._ask_once(task, side, prompts, log)
            n_once_more = summary.n_failed - summary.n_failed_refused
            if side == "item" and n_once_more and not summary.n_left:
                # Users' prompts hold items' profiles, and would have to be asked again when these come later.
                task.report(f"Once more, for the {n_once_more} that failed:")
                summary = self._ask_once(task, side, prompts, log, retry_refused=False)
        if summary.n_failed:
            task.report(f"What failed is listed in {task.failures_path(side)}; the next run tries it again.")
            if side == "item":
                task.report("If an item succeeds then, the users whose prompts show it are asked again.")
        return self.note_end(task, side, summary.n_left)

    def _ask_once(
        self, task: Task, side: Side, prompts: Sequence[Prompt], log: ProfileLog, *, retry_refused: bool = True
    ) -> WriteSummary:
        train_sha256, failures = task.corpus.train_sha256, task.failures_path(side)
        settings = replace(self._left, retry_failed=self._left.retry_failed and retry_refused)
        writer = PromptWriter(settings, self._dialect)
        summary = writer.write(prompts, log, failures, train_sha256, progress=task.progress)
        self.spend(summary.cost)
        task.report(str(summary))
        return summary


@dataclass(frozen=True)
class BatchSettings(LLMSettings):
    """Which model is asked by the Batch API, and how; see :class:`~recbole_rlmrec.profile.llm.LLMSettings`.

    Attributes:
        wait: look at running batches again until they end.
    """

    wait: bool = False


class BatchWriter(PromptedWriter):
    """Asks by the Batch API, at half the price: each call collects what is done and submits what is next.

    Args:
        settings: which model, and how.
    """

    known_as = "batch"
    settings_class: ClassVar[type] = BatchSettings
    share_of_price: ClassVar[float] = 0.5
    price_note: ClassVar[str] = " by the Batch API"

    def __init__(self, settings: BatchSettings) -> None:
        super().__init__(settings)
        self._wait = settings.wait

    def ask(self, task: Task, side: Side, prompts: Sequence[Prompt]) -> bool:
        """Collect what batches have answered and submit what none has; return whether nothing is running or left."""
        with ProfileLog(task.profiles_path(side)) as log:
            self.try_encoder(task, prompts, log)
            self._collect(task, log, side)
            n_left = self._submit(task, log, side, prompts)
        # Submitted once: what fails in a batch is not asked again and again.
        while requests_under_way(self._left, task.batches_path(side)):
            if not self._wait:
                task.report("Run the same command again to collect, or with --wait.")
                return False
            time.sleep(BATCH_POLL_SECONDS)
            with ProfileLog(task.profiles_path(side)) as log:
                n_left += self._collect(task, log, side)
        return self.note_end(task, side, n_left)

    def _collect(self, task: Task, log: ProfileLog, side: Side) -> int:
        """Record what batches have answered; return how many prompts they did not come to."""
        if not task.batches_path(side).is_file():
            return 0
        collected = collect(log, self._left, task.batches_path(side), task.failures_path(side))
        task.report(str(collected))
        return collected.n_released

    def _submit(self, task: Task, log: ProfileLog, side: Side, prompts: Sequence[Prompt]) -> int:
        """Submit what is neither recorded nor running, nor left out.

        Returns:
            How many prompts are left, for the budget.
        """
        failures = task.failures_path(side)
        failed = read_failures(failures)
        wanted = [prompt for prompt in prompts if self._key(prompt) in log or not self.is_left_out(failed, prompt)]
        state_path, train_sha256 = task.batches_path(side), task.corpus.train_sha256
        submitted = submit(wanted, log, self._left, state_path, train_sha256, failures, self._dialect)
        task.report(str(submitted))
        for note in note_of_left_out(len(prompts) - len(wanted)):
            task.report(note)
        self.spend(submitted.cost)
        return submitted.n_left

    def is_left_out(self, failures: Mapping[str, Failure], prompt: Prompt) -> bool:
        """Whether a prompt is not asked again: whatever failed in a batch, which takes hours."""
        failure = failures.get(prompt.token)
        is_failure = failure is not None and failure.is_of(prompt.sha256, self._left.writer)
        return is_failure and not self._left.retry_failed
