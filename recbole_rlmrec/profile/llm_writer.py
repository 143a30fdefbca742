"""Profiles of both sides of a dataset by a language model, asked directly or by the Batch API."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.profile.batch import collect, requests_under_way, submit
from recbole_rlmrec.profile.cost import shown_cost
from recbole_rlmrec.profile.llm import LLMSettings, PromptWriter, WriteSummary
from recbole_rlmrec.profile.prompt import Prompt
from recbole_rlmrec.profile.record import Failure, Profile, ProfileLog, read_failures
from recbole_rlmrec.profile.template import TemplateWriter
from recbole_rlmrec.profile.writer import Task, Writer
from recbole_rlmrec.sides import SIDES, Side

#: Seconds between two looks at batches that are waited for.
BATCH_POLL_SECONDS = 60.0


class PromptedWriter(Writer):
    """What is the same however a language model is asked: the prompts, the plan, the limit and the budget.

    Args:
        settings: which model, how, and for how much; limit and budget are those of both sides together.

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
        self._left = settings  # with what is left of its limit and its budget
        self._has_tried_encoder = False

    @abstractmethod
    def ask(self, task: Task, side: Side, prompts: Sequence[Prompt]) -> bool:
        """Ask for what is not recorded; return whether everyone was asked and nothing is under way."""

    def write(self, task: Task, side: Side, item_profiles: Mapping[str, str]) -> dict[str, Profile] | None:
        """Ask for the profiles of one side that are not recorded; see :meth:`Writer.write`."""
        prompts, without = task.prompts.of(side, item_profiles)
        task.report_without(side, without)
        task.report(f"{side}s:")
        if not self.ask(task, side, prompts):
            return None
        with ProfileLog(task.profiles_path(side), read_only=True) as log:
            found = {prompt.token: log.find(prompt.token, self._left.writer, prompt.sha256) for prompt in prompts}
        return {token: profile for token, profile in found.items() if profile is not None}

    def plan(self, task: Task) -> None:
        """Report what would be asked, and for how much; users' prompts with stand-ins for items' missing profiles."""
        writer, total, is_exact = PromptWriter(self._left), 0.0, True
        stand_ins = {profile.token: profile.profile for profile in TemplateWriter().profiles(task, "item", {})[0]}
        for side in reversed(SIDES):
            prompts, without = task.prompts.of(side, stand_ins)
            task.report_without(side, without)
            busy = requests_under_way(self._left, task.batches_path(side))
            free = [prompt for prompt in prompts if (prompt.token, writer.name, prompt.sha256) not in busy]
            with ProfileLog(task.profiles_path(side), read_only=True) as log:
                plan = writer.plan(free, log)
                for prompt in prompts if side == "item" else ():
                    known = log.find(prompt.token, writer.name, prompt.sha256)
                    is_exact = is_exact and known is not None
                    if known is not None:
                        stand_ins[prompt.token] = known.profile
            about = (
                "" if side == "item" or is_exact else " (with template texts for the item profiles that are missing)"
            )
            under_way = f" {len(prompts) - len(free)} more are in batches." if len(free) < len(prompts) else ""
            task.report(f"{side}s{about}: {plan}{under_way}")
            total += self.share_of_price * (plan.cost or 0.0)
        if self._left.prices.known:
            task.report(f"Together: {shown_cost(total)}{self.price_note}.")

    def spend(self, n_asked: int, cost: float | None) -> None:
        """Take what was used from limit and budget.

        Args:
            n_asked: prompts that were asked.
            cost: US dollars; None if unknown.
        """
        llm = self._left
        limit = None if llm.limit is None else max(0, llm.limit - n_asked)
        budget = None if llm.budget is None else max(0.0, llm.budget - (cost or 0.0))
        self._left = replace(llm, limit=limit, budget=budget)

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
            if side == "item" and summary.n_failed and not summary.n_left:
                # Users' prompts hold items' profiles, and would have to be asked again when these come later.
                task.report(f"Once more, for the {summary.n_failed} that failed:")
                summary = self._ask_once(task, side, prompts, log)
        if summary.n_failed:
            task.report(f"What failed is listed in {task.failures_path(side)}; the next run tries it again.")
            if side == "item":
                task.report("If an item succeeds then, the users whose prompts show it are asked again.")
        if summary.n_left:
            task.report(f"{summary.n_left} {side}s are left; the same command goes on with them.")
        return not summary.n_left

    def _ask_once(self, task: Task, side: Side, prompts: Sequence[Prompt], log: ProfileLog) -> WriteSummary:
        train_sha256, failures = task.corpus.train_sha256, task.failures_path(side)
        summary = PromptWriter(self._left).write(prompts, log, failures, train_sha256, progress=task.progress)
        self.spend(summary.n_written + summary.n_failed, summary.cost)
        task.report(str(summary))
        return summary


@dataclass(frozen=True)
class BatchSettings(LLMSettings):
    """Which model is asked by the Batch API, and how; see :class:`~recbole_rlmrec.profile.llm.LLMSettings`.

    Attributes:
        wait: look at running batches again until they end.
        retry_failed: submit prompts again that failed in an earlier batch.
    """

    wait: bool = False
    retry_failed: bool = False


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
        self._wait, self._retry_failed = settings.wait, settings.retry_failed

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
        if n_left:
            task.report(f"{n_left} {side}s are left; the same command goes on with them.")
        return not n_left

    def _collect(self, task: Task, log: ProfileLog, side: Side) -> int:
        """Record what batches have answered; return how many prompts they did not come to."""
        if not task.batches_path(side).is_file():
            return 0
        collected = collect(log, self._left, task.batches_path(side), task.failures_path(side))
        task.report(str(collected))
        return collected.n_released

    def _submit(self, task: Task, log: ProfileLog, side: Side, prompts: Sequence[Prompt]) -> int:
        """Submit what is neither recorded nor running, nor, unless it is to be tried again, has failed.

        Returns:
            How many prompts are left, for the limit or the budget.
        """
        failures = task.failures_path(side)
        failed = {} if self._retry_failed else read_failures(failures)
        writer = self._left.writer
        wanted = [
            prompt for prompt in prompts if self._key(prompt) in log or not _is_failure_of(failed, prompt, writer)
        ]
        submitted = submit(wanted, log, self._left, task.batches_path(side), task.corpus.train_sha256, failures)
        task.report(str(submitted))
        self.spend(submitted.n_submitted + bool(submitted.n_submitted), submitted.cost)  # one was asked at once
        return submitted.n_left


def _is_failure_of(failed: Mapping[str, Failure], prompt: Prompt, writer: str) -> bool:
    """Whether this writer was asked this very prompt in vain."""
    failure = failed.get(prompt.token)
    return failure is not None and (failure.prompt_sha256, failure.writer) == (prompt.sha256, writer)
