"""Profiles written by a language model on any server that speaks OpenAI's API.

Every answer is recorded the moment it comes, so a run that is killed goes on where it was and asks again only for what
was in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recbole_rlmrec.errors import DataError, ServiceError, SettingError
from recbole_rlmrec.openai_client import MAX_CONCURRENCY, Server, is_connection_error, is_out_of_money
from recbole_rlmrec.profile.answer import (
    FORMAT_INSTRUCTION,
    Answer,
    Completion,
    InvalidAnswerError,
    RefusedError,
    read_answer,
    read_completion,
)
from recbole_rlmrec.profile.budget import estimate_tokens
from recbole_rlmrec.profile.cost import Meter, Prices, shown_cost
from recbole_rlmrec.profile.dialect import Dialect, concerns_prompt
from recbole_rlmrec.profile.prompt import Prompt
from recbole_rlmrec.profile.record import (
    Failure,
    Profile,
    ProfileLog,
    commonest_reason,
    current_version,
    read_failures,
    write_failures,
)

#: So many failures in a row, none about its prompt alone, mean that something is wrong with the server or the model.
MAX_FAILURES_IN_A_ROW = 50
#: How long a stopping run waits for the answers in flight, which are paid for.
PATIENCE = 10.0

# What a server counts beyond the texts: the schema, the roles.
_TOKENS_AROUND = 100
# A profile and its reasoning, in a plan: the paper's are about this long.
_USUAL_ANSWER_TOKENS = 200

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LLMSettings:
    """Which model is asked, how, and how much it may cost.

    Attributes:
        model: its name on the server.
        base_url: the server's address, such as ``http://localhost:8000/v1``; None for OpenAI's own.
        key_variable: environment variable that holds the key; a server given by its address needs none.
        concurrency: requests at a time.
        timeout: seconds within which a whole answer has to come; a request without one counts as failed.
        max_retries: of one request after a rate limit, a server error, a time-out or a broken connection.
        temperature: how freely the model writes.
        max_tokens: the most that it may write in an answer.
        budget: US dollars that a run may cost; needs the prices.
        limit: users that a run asks for at most, with the items that their prompts show; of a single call of
            :class:`PromptWriter`, prompts.
        input_price: US dollars per million tokens sent.
        output_price: US dollars per million tokens written.
        retry_failed: ask again what was refused in an earlier run, and, by the Batch API, whatever failed there.

    Raises:
        SettingError: a value is out of range.
    """

    model: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout: float = 60.0
    max_retries: int = 5
    temperature: float = 0.0
    max_tokens: int = 600
    budget: float | None = None
    limit: int | None = None
    input_price: float | None = None
    output_price: float | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise SettingError("No model is named; give the name that the server knows it by, such as gpt-4o-mini.")
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise SettingError(f"The concurrency is {self.concurrency}; expected 1 to {MAX_CONCURRENCY}.")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SettingError(f"The temperature is {self.temperature}; expected 0 or more.")
        if self.max_tokens < 1:
            raise SettingError(f"max_tokens is {self.max_tokens}; expected 1 or more.")
        if self.limit is not None and self.limit < 0:
            raise SettingError(f"The limit is {self.limit}; expected 0 or more profiles.")
        # These check their own values.
        Meter(self.prices, self.budget)
        _ = self.server

    @property
    def server(self) -> Server:
        """The server that is asked."""
        return Server(self.base_url, self.key_variable, self.timeout, self.max_retries)

    @property
    def prices(self) -> Prices:
        """The model's prices."""
        return Prices(self.input_price, self.output_price)

    @property
    def writer(self) -> str:
        """The name that goes into the profiles' records."""
        return f"llm:{self.model}"

    def dialect(self) -> Dialect:
        """Return how a server is asked of which nothing is known yet."""
        return Dialect(self.model, self.temperature, self.max_tokens)

    def tokens_of(self, prompt: Prompt) -> int:
        """Estimate what a server counts for a prompt."""
        return estimate_tokens(prompt.system) + estimate_tokens(prompt.text) + _TOKENS_AROUND


@dataclass(frozen=True)
class Plan:
    """What a run would do; ``str()`` gives it as text for the console.

    Attributes:
        n_prompts: different prompts.
        n_recorded: those whose profile is there already.
        n_to_ask: those that would be asked for.
        input_tokens: estimate of what would be sent.
        output_tokens: estimate of what the model would write.
        most_output_tokens: the most that it may write.
        cost: estimated US dollars; None without prices.
        most_cost: US dollars if every answer is as long as it may be; repairs and repetitions come on top.
    """

    n_prompts: int
    n_recorded: int
    n_to_ask: int
    input_tokens: int
    output_tokens: int
    most_output_tokens: int
    cost: float | None
    most_cost: float | None

    def __str__(self) -> str:
        cost = shown_cost(self.cost)
        if self.most_cost is not None:
            cost += f", at most {shown_cost(self.most_cost)} if no request is repeated"
        return (
            f"{self.n_prompts} prompts: {self.n_recorded} profiles are recorded, {self.n_to_ask} to ask for.\n"
            f"About {self.input_tokens} tokens to send and {self.output_tokens} to receive "
            f"(at most {self.most_output_tokens}).\n"
            f"Estimated cost: {cost}."
        )


@dataclass(frozen=True)
class WriteSummary:
    """What a run did; ``str()`` gives it as text for the console.

    Attributes:
        n_prompts: different prompts.
        n_recorded: those whose profile was there before.
        n_written: profiles written by this run.
        n_failed: prompts that were asked and got none; they stand in the failures file.
        n_failed_refused: those of them whose prompt itself was refused, so that the next run leaves them out.
        n_left: prompts that were not asked, because of a limit or the budget.
        n_refused: prompts that were not asked, because they were refused in an earlier run.
        reason: why most of those that failed did, as a sentence; empty where none did.
        input_tokens: sent.
        output_tokens: received.
        estimated: whether the server did not count all of them itself.
        cost: US dollars; None without prices.
        seconds: wall-clock time.
    """

    n_prompts: int
    n_recorded: int
    n_written: int
    n_failed: int
    n_failed_refused: int
    n_left: int
    n_refused: int
    reason: str
    input_tokens: int
    output_tokens: int
    estimated: bool
    cost: float | None
    seconds: float

    def __str__(self) -> str:
        about = "about " if self.estimated else ""
        lines = [
            f"{self.n_prompts} prompts: {self.n_recorded} profiles were there, {self.n_written} written, "
            f"{self.n_failed} failed, {self.n_left} left.",
            *note_of_left_out(self.n_refused),
            *([self.reason] if self.reason else []),
            f"{about}{self.input_tokens} tokens sent, {about}{self.output_tokens} received, in {self.seconds:.0f} s. "
            f"Cost: {shown_cost(self.cost)}.",
        ]
        return "\n".join(lines)


class PromptWriter:
    """Asks a language model for the profiles of given prompts.

    Args:
        settings: which model, how, and for how much.
        dialect: what was found out of the server before; nothing if not given.
    """

    def __init__(self, settings: LLMSettings, dialect: Dialect | None = None) -> None:
        self.settings = settings
        self.name = settings.writer
        self.dialect = dialect or settings.dialect()

    def plan(self, prompts: Sequence[Prompt], log: ProfileLog) -> Plan:
        """Say what ``write`` would do, without a key or a network.

        Args:
            prompts: of one side.
            log: its profiles; may be read-only.
        """
        unique = unique_prompts(prompts)
        to_ask = [prompt for prompt in unique if (prompt.token, self.name, prompt.sha256) not in log]
        asked = to_ask[: self.settings.limit]
        input_tokens = sum(map(self.settings.tokens_of, asked))
        most = len(asked) * self.settings.max_tokens
        usual = len(asked) * min(_USUAL_ANSWER_TOKENS, self.settings.max_tokens)
        prices = self.settings.prices
        return Plan(
            n_prompts=len(unique),
            n_recorded=len(unique) - len(to_ask),
            n_to_ask=len(asked),
            input_tokens=input_tokens,
            output_tokens=usual,
            most_output_tokens=most,
            cost=prices.cost(input_tokens, usual),
            most_cost=prices.cost(input_tokens, most),
        )

    def write(
        self, prompts: Sequence[Prompt], log: ProfileLog, failures: Path, train_sha256: str, *, progress: bool = True
    ) -> WriteSummary:
        """Ask for every profile that is not recorded, and record each answer as it comes.

        Whatever ends the run, what was answered is recorded, and the same call goes on from there.

        Args:
            prompts: of one side.
            log: the side's profiles.
            failures: file of what could not be written; rewritten at the end. The next run tries those last, and not at
                all where the prompt itself was refused, unless the settings say so.
            train_sha256: hash of the training pairs that the prompts show.
            progress: show a progress bar with tokens and money.

        Raises:
            ServiceError: the key, the model or the server is no good, so that no profile can be written.
            DataError: the log cannot be written, as when the disk is full.
            KeyboardInterrupt: the user stopped the run; a second Ctrl-C does not wait for the answers in flight.
        """
        start = time.monotonic()
        unique = unique_prompts(prompts)
        missing = [prompt for prompt in unique if not log.recall(recorded_profile(prompt, self.name, train_sha256))]
        earlier = read_failures(failures)
        to_ask = [
            prompt for prompt in missing if self.settings.retry_failed or not is_refused(prompt, earlier, self.name)
        ]
        to_ask.sort(key=lambda prompt: prompt.token in earlier)  # what never was tried comes first
        run = _Run(self.settings, self.dialect, log, train_sha256, to_ask[: self.settings.limit], earlier)
        try:
            run.run(progress=progress)
        except BaseException:
            with contextlib.suppress(DataError):  # the first error says more
                write_failures(failures, _unresolved(earlier, unique, missing, run))
            raise
        write_failures(failures, _unresolved(earlier, unique, missing, run))
        return WriteSummary(
            n_prompts=len(unique),
            n_recorded=len(unique) - len(missing),
            n_written=len(run.written),
            n_failed=len(run.failures),
            n_failed_refused=sum(failure.refused for failure in run.failures.values()),
            n_left=len(to_ask) - len(run.written) - len(run.failures),
            n_refused=len(missing) - len(to_ask),
            reason=commonest_reason(run.failures.values()),
            input_tokens=run.meter.input_tokens,
            output_tokens=run.meter.output_tokens,
            estimated=run.meter.estimated,
            cost=run.meter.cost,
            seconds=time.monotonic() - start,
        )


def unique_prompts(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return one prompt for each token, the last one given."""
    return list({prompt.token: prompt for prompt in prompts}.values())


def note_of_left_out(n_prompts: int) -> list[str]:
    """Return what is said of prompts that are not asked again because they failed before; nothing of none."""
    return [f"{n_prompts} more failed or were refused before; --retry-failed asks again."] if n_prompts else []


def is_refused(prompt: Prompt, failures: Mapping[str, Failure], writer: str) -> bool:
    """Whether this writer was asked this very prompt, and the reason of its failure lies in the prompt."""
    failure = failures.get(prompt.token)
    return failure is not None and failure.refused and failure.is_of(prompt.sha256, writer)


def recorded_profile(prompt: Prompt, writer: str, train_sha256: str, answer: Answer | None = None) -> Profile:
    """Return the record of an answer to a prompt; without an answer, what such a record is looked for by."""
    return Profile(
        token=prompt.token,
        profile=answer.profile if answer else "",
        reasoning=answer.reasoning if answer else "",
        writer=writer,
        prompt_sha256=prompt.sha256,
        train_sha256=train_sha256,
        interacted=prompt.interacted,
        version=current_version(writer),
    )


def checked_body(body: Any, server: Server) -> Any:
    """Return the body of a completion, parsed, without the server's key in any of its texts.

    Raises:
        InvalidAnswerError: it is nested too deeply.
    """
    try:
        return server.secret.scrub_answer(body)
    except ValueError as error:
        raise InvalidAnswerError(str(error)) from None


def answer_without_key(completion: Completion, server: Server) -> Answer:
    """Read the answer of a completion; see ``read_answer``. One that held the server's key is none.

    Raises:
        InvalidAnswerError: there is no valid answer.
        RefusedError: the model refuses.
    """
    answer = read_answer(completion)
    if server.secret.is_in(f"{answer.profile}\n{answer.reasoning}"):
        raise InvalidAnswerError("it holds the key of the server")
    return answer


class _PromptFailedError(Exception):
    """There will be no profile for one prompt.

    Args:
        reason: for the failures file.
        attempts: how often it was asked.
        is_about_prompt: whether another prompt may well succeed.
        unreachable: the client's error, if no answer came at all.
    """

    def __init__(
        self, reason: str, attempts: int, *, is_about_prompt: bool = False, unreachable: Exception | None = None
    ) -> None:
        super().__init__(reason)
        self.attempts = attempts
        self.is_about_prompt = is_about_prompt
        self.unreachable = unreachable


class _BudgetReachedError(Exception):
    """The budget does not have what a request may cost."""


class _Run:
    """One run of an LLM writer: workers that take the next prompt as soon as they are free.

    Args:
        settings: which model, how, and for how much.
        dialect: how the server wants to be asked.
        log: the profiles.
        train_sha256: hash of the training pairs.
        prompts: what is asked, in this order.
        earlier: failures of earlier runs.
    """

    def __init__(
        self,
        settings: LLMSettings,
        dialect: Dialect,
        log: ProfileLog,
        train_sha256: str,
        prompts: Sequence[Prompt],
        earlier: Mapping[str, Failure],
    ) -> None:
        self.meter = Meter(settings.prices, settings.budget)
        self.written: set[str] = set()
        self.failures: dict[str, Failure] = {}
        self._settings, self._server, self._dialect = settings, settings.server, dialect
        self._log, self._train_sha256, self._earlier = log, train_sha256, earlier
        self._n_prompts = len(prompts)
        self._prompts = iter(prompts)
        self._n_workers = min(settings.concurrency, len(prompts))
        self._workers: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: Exception | None = None
        self._n_interrupts = 0
        self._is_stopping = False
        self._was_reached = False
        self._n_failed_in_a_row = 0

    def run(self, *, progress: bool) -> None:
        """Ask until all is done, the budget is reached, something is wrong or the user has had enough."""
        if not self._n_prompts:
            return
        self._client = self._server.async_client()
        with tqdm(total=self._n_prompts, unit="profile", disable=not progress, dynamic_ncols=True) as self._bar:
            self._run_to_end()
        if self._error is not None:
            raise self._error
        if self._n_interrupts:
            raise KeyboardInterrupt

    def _run_to_end(self) -> None:
        """Run in this thread, or, where an event loop runs here already, as in a notebook, in a thread for it."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self._run())
            return
        with ThreadPoolExecutor(1) as pool, _on_ctrl_c(self._interrupt_from_outside):
            end = pool.submit(asyncio.run, self._run())
            while not end.done():
                wait([end], timeout=1.0)  # on Windows, Ctrl-C does not end a wait
        end.result()

    def _interrupt_from_outside(self) -> None:
        """Do what Ctrl-C does, from another thread than the one that runs."""
        if self._loop is None:  # nothing was asked
            self._n_interrupts, self._is_stopping = 1, True
            return
        with contextlib.suppress(RuntimeError):  # it came to its end meanwhile
            self._loop.call_soon_threadsafe(self._interrupt)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._settled = asyncio.Event()  # set whenever a request ended
        async with self._client:
            self._workers = [asyncio.create_task(self._work()) for _ in range(self._n_workers)]
            with self._interrupts_caught():
                await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self) -> None:
        while not self._is_stopping:
            prompt = next(self._prompts, None)
            if prompt is None:
                return
            try:
                await self._write_one(prompt)
            except _BudgetReachedError:
                if not self._is_stopping:
                    _logger.warning("The budget is reached; no further profile is asked for.")
                    self._stop(patience=None)
            except ServiceError as error:
                self._stop_for(error, patience=PATIENCE if self._was_reached else 0)
            except Exception as error:  # also what nobody foresaw: the others must not go on and spend
                self._stop_for(error, patience=0)

    def _stop_for(self, error: Exception, patience: float) -> None:
        """Keep the first error, and stop."""
        if self._error is None:
            kept = f"{len(self.written)} profiles of this run are recorded; the same command goes on from there."
            self._error = type(error)(f"{error} {kept}") if isinstance(error, ServiceError) else error
        self._stop(patience)

    def _stop(self, patience: float | None) -> None:
        """Ask for nothing more; cancel what is still in flight after so many seconds, or never."""
        self._is_stopping = True
        self._settled.set()
        if patience is not None:
            asyncio.get_running_loop().call_later(patience, self._cancel)

    def _cancel(self) -> None:
        for worker in self._workers:
            worker.cancel()

    @contextlib.contextmanager
    def _interrupts_caught(self) -> Iterator[None]:
        """Let Ctrl-C stop the run gently, and a second one at once, where the platform and the thread allow it."""
        loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)
        try:
            loop.add_signal_handler(signal.SIGINT, self._interrupt)
        except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            yield
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)

    def _interrupt(self) -> None:
        self._n_interrupts += 1
        if self._n_interrupts == 1:
            _logger.warning(
                f"Stopping: waiting up to {PATIENCE:g} seconds for the answers in flight, which are paid for. Ctrl-C "
                "again stops at once."
            )
            self._stop(PATIENCE)
        else:
            self._cancel()

    async def _write_one(self, prompt: Prompt) -> None:
        try:
            answer = await self._answer(prompt)
        except _PromptFailedError as failure:
            self._note(prompt, failure)
        else:
            self._log.append(recorded_profile(prompt, self._settings.writer, self._train_sha256, answer))
            self.written.add(prompt.token)
            self._n_failed_in_a_row = 0
        self._bar.set_postfix_str(self._postfix(), refresh=False)
        self._bar.update()

    def _postfix(self) -> str:
        tokens = self.meter.input_tokens + self.meter.output_tokens
        cost = "" if self.meter.cost is None else f", {shown_cost(self.meter.cost)}"
        return f"{tokens} tokens{cost}, {len(self.failures)} failed"

    def _note(self, prompt: Prompt, failure: _PromptFailedError) -> None:
        """Keep a failure; raise if it is one of many that mean that nothing will succeed."""
        sha256, writer = prompt.sha256, self._settings.writer
        before = self._earlier.get(prompt.token)
        attempts = failure.attempts
        if before is not None and before.is_of(sha256, writer):
            attempts += before.attempts
        reason = self._server.secret.shown(str(failure))
        self.failures[prompt.token] = Failure(
            prompt.token, sha256, writer, reason, attempts, refused=failure.is_about_prompt
        )
        if failure.is_about_prompt:
            return
        self._n_failed_in_a_row += 1
        if failure.unreachable and not self._was_reached and self._n_failed_in_a_row >= self._n_workers:
            raise self._server.explain(failure.unreachable, self._settings.model)
        if self._n_failed_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise ServiceError(
                f"{self._n_failed_in_a_row} prompts in a row failed at {self._server.shown_url} with the model "
                f"'{self._settings.model}', the last one with: {reason}. Check the server and the model."
            )

    async def _answer(self, prompt: Prompt) -> Answer:
        """Ask for a profile; after an answer that is none, once more.

        Raises:
            _PromptFailedError: there is no profile.
            _BudgetReachedError: the prompt was not asked.
        """
        invalid: str | None = None
        problems: list[str] = []
        for attempt in (1, 2):
            try:
                completion = await self._ask(prompt, attempt, invalid, problems[-1] if problems else "")
                invalid = completion.text or None
                return answer_without_key(completion, self._server)
            except InvalidAnswerError as error:
                problems.append(str(error))
            except RefusedError as error:
                raise _PromptFailedError(str(error), attempt, is_about_prompt=True) from None
            except _BudgetReachedError:
                if not problems:
                    raise
                problems.append("nothing was left of the budget to ask again")
            if self._is_stopping:
                break
        raise _PromptFailedError("no valid answer: " + "; then ".join(problems), len(problems))

    async def _ask(self, prompt: Prompt, attempt: int, invalid: str | None, problem: str) -> Completion:
        """Send one request within the budget, and count what it took."""
        n_sent = self._settings.tokens_of(prompt)
        if invalid is not None:
            n_sent += estimate_tokens(invalid + problem + FORMAT_INSTRUCTION)
        most = self._settings.max_tokens
        while not self.meter.reserve(n_sent, most):
            # What is in flight may take less than was set aside for it.
            if self._is_stopping or not self.meter.has_reserved:
                raise _BudgetReachedError
            self._settled.clear()
            await self._settled.wait()
        try:
            body = await self._post(prompt, attempt, invalid, problem)
        finally:
            self.meter.release(n_sent, most)
            self._settled.set()
        completion = read_completion(body)
        n_input, n_output = completion.input_tokens, completion.output_tokens
        self.meter.spend(
            n_sent if n_input is None else n_input,
            estimate_tokens(completion.text) if n_output is None else n_output,
            estimated=n_input is None or n_output is None,
        )
        return completion

    async def _post(self, prompt: Prompt, attempt: int, invalid: str | None, problem: str) -> Any:
        """Send one request in words that the server takes, and return the answer's body, parsed."""
        from openai import APIStatusError, OpenAIError

        while True:
            body = self._dialect.request(prompt, invalid, problem)
            try:
                # Not chat.completions.create, which spends a third of the time of a request on a walk through the
                # schema, and lets through what is no completion.
                answer = await self._client.post("/chat/completions", cast_to=object, body=body)
            except OpenAIError as error:
                self._was_reached = self._was_reached or not is_connection_error(error)
                if isinstance(error, APIStatusError) and self._dialect.adapts(body, error):
                    continue
                raise self._failure_of(error, attempt) from None  # its text may hold the key
            except json.JSONDecodeError as error:
                answer = error.doc  # what it says is shown
            except (ValueError, RecursionError):
                raise InvalidAnswerError("the server's answer is no JSON") from None
            self._was_reached = True
            return checked_body(answer, self._server)

    def _failure_of(self, error: Exception, attempt: int) -> Exception:
        """Distinguish an error that ends the run from one of this prompt."""
        status = getattr(error, "status_code", None)
        is_about_prompt = status is not None and concerns_prompt(error)
        is_forbidden = status == 403 and not self.written and not is_about_prompt
        if status in (401, 404) or is_forbidden or is_out_of_money(error):
            return self._server.explain(error, self._settings.model)
        unreachable = error if is_connection_error(error) else None
        return _PromptFailedError(
            self._server.describe(error), attempt, is_about_prompt=is_about_prompt, unreachable=unreachable
        )


@contextlib.contextmanager
def _on_ctrl_c(action: Callable[[], None]) -> Iterator[None]:
    """Do something else on Ctrl-C than what is done now, where the thread allows it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _unresolved(
    earlier: Mapping[str, Failure], unique: Sequence[Prompt], missing: Sequence[Prompt], run: _Run
) -> list[Failure]:
    """Return the failures of this run and those of earlier runs whose prompts it did not come to."""
    left = {prompt.token for prompt in missing} - run.written
    resolved = {prompt.token for prompt in unique} - left
    still = {token: failure for token, failure in earlier.items() if token not in resolved}
    return list({**still, **run.failures}.values())
