"""Profiles written through the Batch API: answers within a day, for half the price.

``submit`` sends what is not recorded as batches, ``collect`` records what came back, later and in any process. A state
file says which batches there are; it is written before and after each step, so that a process may be killed anywhere
and nothing is paid twice.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from recbole_rlmrec.errors import DataError, ServiceError, SettingError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.openai_client import Server
from recbole_rlmrec.profile.answer import Completion, InvalidAnswerError, RefusedError, read_completion
from recbole_rlmrec.profile.budget import estimate_tokens
from recbole_rlmrec.profile.cost import Meter, shown_cost
from recbole_rlmrec.profile.dialect import Dialect, is_of_prompt
from recbole_rlmrec.profile.llm import (
    LLMSettings,
    PromptWriter,
    answer_without_key,
    checked_body,
    recorded_profile,
    unique_prompts,
)
from recbole_rlmrec.profile.prompt import Prompt
from recbole_rlmrec.profile.record import (
    Failure,
    Profile,
    ProfileLog,
    commonest_reason,
    iter_profiles,
    read_failures,
    write_failures,
    write_profiles,
)
from recbole_rlmrec.reading.documents import Format
from recbole_rlmrec.reading.shape import Count
from recbole_rlmrec.server.fields import token_count
from recbole_rlmrec.server.reason import error_within, read_reason
from recbole_rlmrec.server.transport import MAX_ANSWER

if TYPE_CHECKING:
    from openai import OpenAI

#: The API's bounds of one batch.
MAX_REQUESTS = 50_000
MAX_BYTES = 200_000_000

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"

_ENDED = ("completed", "expired", "cancelled", "failed")
# So many batches are looked through for one; a server may list them without end.
_MAX_LISTED = 10_000
_MAX_STATUS = 100
# Codes of requests that a batch did not come to; they cost nothing.
_NOT_EXECUTED = ("batch_expired", "batch_cancelled")


@dataclass(frozen=True)
class Batch:
    """One batch, as the state file has it.

    Attributes:
        number: counted from 0; its requests are listed in a file of this number.
        server: address that it was sent to.
        writer: name for the profiles' records.
        file_id: the uploaded request file; None before that.
        batch_id: None before it was created.
    """

    number: Count
    server: str
    writer: str
    file_id: str | None = None
    batch_id: str | None = None


@dataclass(frozen=True)
class _Batches:
    """What the state file holds."""

    format: Literal["recbole_rlmrec batches"]
    version: Literal[1]
    batches: list[Batch]


_STATE = Format(
    "list of batches",
    "Restore it: without it, what is running is paid for and not found. If nothing is running, remove it.",
)


@dataclass(frozen=True)
class SubmitSummary:
    """What was submitted; ``str()`` gives it as text for the console.

    Attributes:
        n_prompts: different prompts.
        n_recorded: those whose profile is there, the one that was asked at once included.
        n_running: those that a batch has which was submitted before.
        n_submitted: those in the new batches.
        n_left: those that were not submitted, because of a limit or the budget.
        n_asked_at_once: 1 if the first prompt was asked directly, else 0.
        n_written_at_once: 1 if it got a profile.
        batch_ids: the new batches.
        cost: estimated US dollars of the new batches if every answer is as long as it may be; None without prices.
    """

    n_prompts: int
    n_recorded: int
    n_running: int
    n_submitted: int
    n_left: int
    n_asked_at_once: int
    n_written_at_once: int
    batch_ids: tuple[str, ...]
    cost: float | None

    def __str__(self) -> str:
        return (
            f"{self.n_prompts} prompts: {self.n_recorded} profiles are recorded, {self.n_running} were submitted "
            f"before, {self.n_submitted} submitted now, {self.n_left} left.\n"
            f"New batches: {', '.join(self.batch_ids) or 'none'}. Their cost, at half the price: at most "
            f"{shown_cost(self.cost)}."
        )


@dataclass(frozen=True)
class CollectSummary:
    """What was collected; ``str()`` gives it as text for the console.

    Attributes:
        n_written: profiles recorded.
        n_failed: prompts that were asked and got none; they stand in the failures file.
        n_released: prompts that their batch did not come to, free to be submitted again.
        running: what the batches that go on say, such as "batch_1: in_progress, 40 of 100".
        problems: why batches failed as a whole.
        reason: why most of the prompts that failed did, as a sentence; empty where none did.
        input_tokens: sent.
        output_tokens: received.
        cost: US dollars, at half the price; None without prices.
    """

    n_written: int
    n_failed: int
    n_released: int
    running: tuple[str, ...]
    problems: tuple[str, ...]
    reason: str
    input_tokens: int
    output_tokens: int
    cost: float | None

    def __str__(self) -> str:
        lines = [
            f"{self.n_written} profiles written, {self.n_failed} failed, {self.n_released} not executed.",
            f"{self.input_tokens} tokens sent, {self.output_tokens} received. Cost: {shown_cost(self.cost)}.",
            *((self.reason,) if self.reason else ()),
            *(f"Failed: {problem}" for problem in self.problems),
            *(f"Still running: {batch}" for batch in self.running),
        ]
        return "\n".join(lines)


def submit(
    prompts: Sequence[Prompt],
    log: ProfileLog,
    settings: LLMSettings,
    state_path: Path,
    train_sha256: str,
    failures: Path,
    dialect: Dialect | None = None,
) -> SubmitSummary:
    """Submit every prompt whose profile is neither recorded nor in a running batch.

    The first prompt is asked at once, at the full price: it shows that key and model are good, and which parameters
    the server takes, before thousands of requests fail for the same reason a day later.

    Args:
        prompts: of one side.
        log: the side's profiles; its lock keeps others from submitting at the same time.
        settings: which model, and how; limit and budget hold for the submission.
        state_path: the state file; files beside it list the requests of each batch.
        train_sha256: hash of the training pairs that the prompts show.
        failures: file for the first prompt, should it fail.
        dialect: what was found out of the server before; nothing if not given.

    Raises:
        ServiceError: the key, the model or the server is no good; the same call goes on where this one stopped.
        DataError: a file cannot be written, or the state file is damaged.
        SettingError: the state file has batches on another server.
    """
    state = _State(state_path, settings.server, settings.model)
    unique = unique_prompts(prompts)
    with settings.server.client() as client:
        state.resume(client)
        busy = state.requests()
        waiting = [prompt for prompt in unique if (prompt.token, settings.writer, prompt.sha256) not in busy]
        to_ask = [
            prompt for prompt in waiting if not log.recall(recorded_profile(prompt, settings.writer, train_sha256))
        ]
        earlier = read_failures(failures)
        to_ask.sort(key=lambda prompt: prompt.token in earlier)  # the first one is asked at once and had better succeed
        chosen = _affordable(to_ask[: settings.limit], settings)
        # Whoever calls this has left out what is not to be asked again.
        writer = PromptWriter(replace(settings, concurrency=1, retry_failed=True), dialect)
        first = writer.write(chosen[:1], log, failures, train_sha256, progress=False)
        submitted = [
            state.submit(client, lines, [recorded_profile(prompt, writer.name, train_sha256) for prompt in part])
            for part, lines in _parts(chosen[1:], writer.dialect)
        ]
    return SubmitSummary(
        n_prompts=len(unique),
        n_recorded=len(waiting) - len(to_ask) + first.n_written,
        n_running=len(unique) - len(waiting),
        n_submitted=len(chosen[1:]),
        n_left=len(to_ask) - len(chosen[1:]) - first.n_written - first.n_failed,
        n_asked_at_once=first.n_written + first.n_failed,
        n_written_at_once=first.n_written,
        batch_ids=tuple(str(batch.batch_id) for batch in submitted),
        cost=settings.prices.halved().cost(
            sum(map(settings.tokens_of, chosen[1:])), len(chosen[1:]) * settings.max_tokens
        ),
    )


def requests_under_way(settings: LLMSettings, state_path: Path) -> set[tuple[str, str, str]]:
    """Return (token, writer, prompt_sha256) of what batches were asked and did not answer yet, as far as is known here.

    Args:
        settings: the server.
        state_path: the state file of a side; there may be none.

    Raises:
        DataError: the state file is damaged.
        SettingError: the state file has batches on another server.
    """
    if not Path(state_path).is_file():
        return set()
    return _State(state_path, settings.server, settings.model).requests()


def collect(log: ProfileLog, settings: LLMSettings, state_path: Path, failures: Path) -> CollectSummary:
    """Record what the batches that ended have answered, and say which go on.

    May be called any number of times, and again after it was killed: what is recorded is not recorded twice.

    Args:
        log: the side's profiles.
        settings: the server and the prices.
        state_path: the state file that ``submit`` wrote.
        failures: file of what was asked and got no profile; what is recorded leaves it.

    Raises:
        ServiceError: the key or the server is no good.
        DataError: nothing was submitted, or a file cannot be written or is damaged.
        SettingError: the state file has batches on another server.
    """
    if not Path(state_path).is_file():
        raise DataError(f"There is no '{state_path}': nothing was submitted. Submit a batch first.")
    state = _State(state_path, settings.server, settings.model)
    collection = _Collection(log, settings)
    running, problems = [], []
    with settings.server.client() as client:
        state.resume(client)
        for batch in list(state.batches):
            with settings.server.explained(settings.model), _known_to_server(batch, Path(state_path)):
                found = _mapping(client.get(f"/batches/{quote(str(batch.batch_id), safe='')}", cast_to=object))
                if found.get("status") not in _ENDED:
                    running.append(f"{batch.batch_id}: {settings.server.scrub(_progress(found))}")
                    continue
                errors = _mapping(found.get("errors")).get("data")
                for error in errors if isinstance(errors, list) else []:
                    problems.append(f"{batch.batch_id}: {settings.server.scrub(read_reason(error).message)}")
                file_ids = [found.get(name) for name in ("output_file_id", "error_file_id")]
                results = itertools.chain.from_iterable(_lines(client, each) for each in file_ids if each)
                collection.add(state.requests_of(batch), results)
            collection.write_failures(failures)
            state.remove(batch)
    return CollectSummary(
        n_written=collection.n_written,
        n_failed=len(collection.failures),
        n_released=collection.n_released,
        running=tuple(running),
        problems=tuple(problems),
        reason=commonest_reason(collection.failures.values()),
        input_tokens=collection.meter.input_tokens,
        output_tokens=collection.meter.output_tokens,
        cost=collection.meter.cost,
    )


@contextlib.contextmanager
def _known_to_server(batch: Batch, state_path: Path) -> Iterator[None]:
    """Say how to go on where the server does not know a batch, or its files, any more."""
    from openai import NotFoundError

    try:
        yield
    except NotFoundError:
        raise DataError(
            f"The server does not know {batch.batch_id} of '{state_path}', or its files, any more: they were deleted, "
            f"or the key is another account's. If they are gone for good, remove '{state_path.name}' and the files "
            f"beside it whose names begin with '{state_path.stem}.': their prompts are then asked again."
        ) from None


class _Collection:
    """What ended batches answered, on its way into the log and the failures file."""

    def __init__(self, log: ProfileLog, settings: LLMSettings) -> None:
        self.n_written = 0
        self.n_released = 0
        self.failures: dict[str, Failure] = {}
        self.meter = Meter(settings.prices.halved())
        self._log, self._settings = log, settings
        self._written: set[str] = set()

    def add(self, asked: Sequence[Profile], results: Iterable[bytes]) -> None:
        """Record the answers of one batch.

        Args:
            asked: what was asked, without texts; a request's ``custom_id`` is its place here.
            results: lines of the output file and of the error file, as far as there are.
        """
        unanswered = {str(number): profile for number, profile in enumerate(asked)}
        for result in map(_parsed, results):
            wanted = unanswered.pop(str(result.get("custom_id")), None)
            if wanted is None:
                continue
            if _is_not_executed(result):
                self.n_released += 1
                continue
            try:
                answer = answer_without_key(self._counted(result), self._settings.server)
            except (InvalidAnswerError, RefusedError) as error:
                reason = self._settings.server.secret.shown(str(error))
                is_refused = isinstance(error, RefusedError)
                self.failures[wanted.token] = Failure(
                    wanted.token, wanted.prompt_sha256, wanted.writer, reason, attempts=1, refused=is_refused
                )
            else:
                self._record(replace(wanted, profile=answer.profile, reasoning=answer.reasoning))
        self.n_released += len(unanswered)

    def write_failures(self, path: Path) -> None:
        """Write the failures, with those of before whose profiles are still missing."""
        before = {token: failure for token, failure in read_failures(path).items() if token not in self._written}
        write_failures(path, {**before, **self.failures}.values())

    def _record(self, profile: Profile) -> None:
        if not self._log.recall(profile):  # a collection that was killed recorded some
            self._log.append(profile)
            self.n_written += 1
        self._written.add(profile.token)

    def _counted(self, result: Mapping[str, Any]) -> Completion:
        """Return the completion of a request, and count what it took."""
        response = _mapping(result.get("response"))
        status, body = response.get("status_code"), response.get("body")
        within = error_within(body)
        if status != 200 or within is not None:
            said = result.get("error") or body
            status, reason = within if status == 200 and within else (status, read_reason(said))
            shown = f"HTTP {status}: {self._settings.server.shown(reason.message)}"
            is_refused = is_of_prompt(status, f"{reason.code} {reason.message}")
            raise RefusedError(shown) if is_refused else InvalidAnswerError(shown)
        completion = read_completion(checked_body(body, self._settings.server))
        n_output = completion.output_tokens
        self.meter.spend(
            completion.input_tokens or 0, estimate_tokens(completion.text) if n_output is None else n_output
        )
        return completion


class _State:
    """The state file and the files beside it: which batches there are, and what each of them asks.

    Args:
        path: the state file; need not exist.
        server: where the batches are.
        model: for messages.

    Raises:
        DataError: the file is damaged.
        SettingError: it has batches on another server.
    """

    def __init__(self, path: Path, server: Server, model: str) -> None:
        self.path = Path(path)
        self.batches: list[Batch] = []
        self._server = server
        self._model = model
        if not self.path.is_file():
            return
        self.batches = _STATE.read(self.path, _Batches).batches
        elsewhere = sorted({batch.server for batch in self.batches} - {server.shown_url})
        if elsewhere:
            raise SettingError(
                f"'{self.path}' has batches at {elsewhere[0]}, and the server given is {server.shown_url}. Collect "
                "those first, with their address."
            )

    def requests(self) -> set[tuple[str, str, str]]:
        """Return (token, writer, prompt_sha256) of everything that a batch asks."""
        return {
            (asked.token, asked.writer, asked.prompt_sha256)
            for batch in self.batches
            for asked in self.requests_of(batch)
        }

    def requests_of(self, batch: Batch) -> list[Profile]:
        """Return what a batch asks, in the order of its requests, as profiles without texts."""
        return list(iter_profiles(self._ids_path(batch)))

    def submit(self, client: OpenAI, lines: Sequence[bytes], asked: Sequence[Profile]) -> Batch:
        """Send requests as one batch, and note each step."""
        number = 1 + max((batch.number for batch in self.batches), default=-1)
        batch = Batch(number, self._server.shown_url, asked[0].writer)
        requests_path = self._path_of(batch, "requests")
        try:
            write_profiles(self._ids_path(batch), asked)
            with atomic_path(requests_path) as temporary, temporary.open("wb") as file:
                file.writelines(lines)
        except OSError as error:
            self._remove_files(batch)
            raise DataError(f"The batch cannot be written beside '{self.path}': {error}. Nothing was sent.") from error
        self._put(batch)
        with self._server.explained(self._model):
            file_id = _id_of(client.files.create(file=requests_path, purpose="batch"), self._server)
        batch = self._put(replace(batch, file_id=file_id))
        requests_path.unlink()
        return self._create(client, batch)

    def resume(self, client: OpenAI) -> None:
        """Finish or undo what a process that was killed left half done."""
        for batch in list(self.batches):
            if batch.file_id is None:  # a file that was uploaded, but not noted, costs nothing
                self.remove(batch)
            elif batch.batch_id is None:
                self._path_of(batch, "requests").unlink(missing_ok=True)
                with self._server.explained(self._model):
                    found = _batch_of_file(client, batch.file_id)
                if found is None:
                    self._create(client, batch)
                else:
                    self._put(replace(batch, batch_id=found))

    def remove(self, batch: Batch) -> None:
        """Forget a batch: its prompts that are not recorded may be submitted again."""
        self.batches.remove(batch)
        self._save()
        self._remove_files(batch)

    def _create(self, client: OpenAI, batch: Batch) -> Batch:
        from openai import APIStatusError, OpenAIError

        file_id = str(batch.file_id)
        with self._server.explained(self._model):
            try:
                # The client must not repeat it: an answer that got lost would leave a second batch to pay for.
                created = client.with_options(max_retries=0).batches.create(
                    input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h"
                )
                batch_id: str | None = _id_of(created, self._server)
            except OpenAIError as error:
                status = error.status_code if isinstance(error, APIStatusError) else None
                if status is not None and 400 <= status < 500 and status not in (408, 409, 429):
                    self.remove(batch)
                    raise
                batch_id = _batch_of_file(client, file_id)
                if batch_id is None:
                    raise
        return self._put(replace(batch, batch_id=batch_id))

    def _put(self, batch: Batch) -> Batch:
        """Note a new batch, or a step of one."""
        self.batches = [*(other for other in self.batches if other.number != batch.number), batch]
        self._save()
        return batch

    def _save(self) -> None:
        document = asdict(_Batches("recbole_rlmrec batches", 1, self.batches))
        try:
            with atomic_path(self.path) as temporary:
                temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"'{self.path}' cannot be written: {error}. Make room, and run this again.") from error

    def _path_of(self, batch: Batch, kind: str) -> Path:
        return self.path.with_name(f"{self.path.stem}.{batch.number}.{kind}.jsonl")

    def _ids_path(self, batch: Batch) -> Path:
        return self._path_of(batch, "ids")

    def _remove_files(self, batch: Batch) -> None:
        for kind in ("requests", "ids"):
            self._path_of(batch, kind).unlink(missing_ok=True)


def _batch_of_file(client: OpenAI, file_id: str) -> str | None:
    """Return the batch that was created from a file, if there is one."""
    listed = itertools.islice(client.batches.list(limit=100), _MAX_LISTED)
    return next((batch.id for batch in listed if getattr(batch, "input_file_id", None) == file_id), None)


def _id_of(created: Any, server: Server) -> str:
    """Return the id of what a server made."""
    found = getattr(created, "id", None)
    if not isinstance(found, str) or not found:
        raise ServiceError(
            f"{server.shown_url} took a batch and gave no 'id' for it. Check that the server has OpenAI's Batch API; "
            "without --batch the prompts are asked one by one."
        )
    return found


def _progress(batch: Mapping[str, Any]) -> str:
    """Return what a batch that goes on says, such as "in_progress, 40 of 100"."""
    counts = _mapping(batch.get("request_counts"))
    done, failed, total = (token_count(counts.get(name)) for name in ("completed", "failed", "total"))
    so_far = f", {(done or 0) + (failed or 0)} of {total}" if total is not None else ""
    return f"{batch.get('status')}"[:_MAX_STATUS] + so_far


def _lines(client: OpenAI, file_id: Any) -> Iterator[bytes]:
    """Yield the lines of a file of the server's as they come, so that it is never in memory as a whole.

    A line longer than an answer can be is passed over.
    """
    with client.files.with_streaming_response.content(str(file_id)) as response:
        rest = b""
        is_skipping = False
        for piece in response.iter_bytes():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if not is_skipping:
                    yield line
                is_skipping = False
            if len(rest) > MAX_ANSWER:
                rest, is_skipping = b"", True
        if not is_skipping:
            yield rest


def _affordable(prompts: Sequence[Prompt], settings: LLMSettings) -> list[Prompt]:
    """Return the first prompts, as many as the budget has enough for if every answer is as long as it may be."""
    meter = Meter(settings.prices.halved(), settings.budget)
    chosen: list[Prompt] = []
    for prompt in prompts:
        times = 1 if chosen else 2  # the first one is asked at the full price
        if not meter.reserve(times * settings.tokens_of(prompt), times * settings.max_tokens):
            break
        chosen.append(prompt)
    return chosen


def _parts(prompts: Iterable[Prompt], dialect: Dialect) -> Iterator[tuple[list[Prompt], list[bytes]]]:
    """Cut prompts into batches that the API takes; yield each with the lines of its request file."""
    part: list[Prompt] = []
    lines: list[bytes] = []
    n_bytes = 0
    for prompt in prompts:
        body = dialect.request(prompt)
        line = _request_line(len(part), body)
        if part and (len(part) == MAX_REQUESTS or n_bytes + len(line) > MAX_BYTES):
            yield part, lines
            part, lines, n_bytes = [], [], 0
            line = _request_line(0, body)
        part.append(prompt)
        lines.append(line)
        n_bytes += len(line)
    if part:
        yield part, lines


def _request_line(number: int, body: Mapping[str, Any]) -> bytes:
    request = {"custom_id": str(number), "method": "POST", "url": ENDPOINT, "body": body}
    return (json.dumps(request, ensure_ascii=False) + "\n").encode("utf-8")


def _parsed(line: bytes) -> Mapping[str, Any]:
    """Return one line of a result file; empty if it is none."""
    try:
        result = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return _mapping(result)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_not_executed(result: Mapping[str, Any]) -> bool:
    error = result.get("error")
    return isinstance(error, dict) and error.get("code") in _NOT_EXECUTED
