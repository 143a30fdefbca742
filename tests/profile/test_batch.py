"""Batches: submitted once, collected once, killed anywhere without paying twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_server import LoopbackServer, Reply, n_tokens, profile_content, user_text

from recbole_rlmrec.errors import DataError, ServiceError, SettingError
from recbole_rlmrec.profile import batch
from recbole_rlmrec.profile.batch import CollectSummary, SubmitSummary, collect, submit
from recbole_rlmrec.profile.llm import LLMSettings
from recbole_rlmrec.profile.prompt import Prompt
from recbole_rlmrec.profile.record import Profile, ProfileLog, iter_profiles, read_failures

KEY = "sk-loopback-0123456789abcdef"
SYSTEM = "Say what it is."


class Killed(BaseException):
    """Ends a process where it stands, as far as a test can see."""


class Desk:
    """A folder, a server, and the two verbs."""

    def __init__(self, folder: Path, server: LoopbackServer) -> None:
        self.folder, self.server = folder, server
        self.path, self.failures_path = folder / "tiny.itemprf.jsonl", folder / "tiny.itemprf.failed.jsonl"
        self.state_path = folder / "tiny.itemprf.batches.json"

    def settings(self, **settings: Any) -> LLMSettings:
        return LLMSettings(**{"model": "m", "base_url": self.server.base_url, "timeout": 5.0, **settings})

    def submit(self, prompts: list[Prompt], **settings: Any) -> SubmitSummary:
        with ProfileLog(self.path) as log:
            return submit(prompts, log, self.settings(**settings), self.state_path, "train", self.failures_path)

    def collect(self, **settings: Any) -> CollectSummary:
        with ProfileLog(self.path) as log:
            return collect(log, self.settings(**settings), self.state_path, self.failures_path)

    def profiles(self) -> dict[str, Profile]:
        lines = list(iter_profiles(self.path))
        assert len({line.token for line in lines}) == len(lines), "an id has several lines"
        return {line.token: line for line in lines}

    def submitted(self) -> list[str]:
        """Return the texts of all requests in all batches, in order."""
        files = (self.server.files[created["input_file_id"]] for created in self.server.batches.values())
        return [user_text(json.loads(line)["body"]) for file in files for line in file.splitlines()]

    def names(self) -> set[str]:
        return {file.name for file in self.folder.iterdir()}


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with LoopbackServer(key=KEY) as server:
        yield Desk(tmp_path, server)


def make_prompts(n: int) -> list[Prompt]:
    return [Prompt("item", f"i{number}", SYSTEM, f"item number {number}", (f"u{number}",)) for number in range(n)]


def test_there_and_back(at: Desk) -> None:
    prompts = make_prompts(5)
    prices = {"input_price": 1_000_000, "output_price": 4_000_000}
    report = at.submit(prompts, max_tokens=50, **prices)
    assert (report.n_prompts, report.n_recorded, report.n_running, report.n_submitted, report.n_left) == (5, 1, 0, 4, 0)
    assert report.batch_ids == ("batch-0",)
    assert report.cost == sum(map(at.settings().tokens_of, prompts[1:])) / 2 + 4 * 50 * 2
    assert at.server.texts() == ["item number 0"], "the first one is asked at once"
    assert at.submitted() == [f"item number {number}" for number in range(1, 5)]
    created = at.server.batches["batch-0"]
    assert (created["endpoint"], created["completion_window"]) == ("/v1/chat/completions", "24h")
    request = json.loads(at.server.files[created["input_file_id"]].splitlines()[2])
    asked_at_once = at.server.requests[0].body
    assert request["custom_id"] == "2"
    assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
    assert {**request["body"], "messages": []} == {**asked_at_once, "messages": []}

    early = at.collect(**prices)
    assert (early.n_written, early.running) == (0, ("batch-0: in_progress",))
    at.server.finish("batch-0")
    late = at.collect(**prices)
    assert (late.n_written, late.n_failed, late.n_released, late.running) == (4, 0, 0, ())
    n_input = 4 * n_tokens(f"{SYSTEM}item number 1")
    n_output = 4 * n_tokens(profile_content("item number 1"))
    assert (late.input_tokens, late.output_tokens) == (n_input, n_output)
    assert late.cost == (n_input + 4 * n_output) / 2
    assert at.profiles() == {
        prompt.token: Profile(
            prompt.token,
            f"Profile of {prompt.text}",
            f"Because of {prompt.text}",
            "llm:m",
            prompt.sha256,
            "train",
            prompt.interacted,
            version=2,
        )
        for prompt in prompts
    }
    assert at.names() == {"tiny.itemprf.jsonl", "tiny.itemprf.batches.json"}
    assert at.collect().n_written == 0
    assert at.submit(prompts).n_recorded == 5
    assert len(at.server.batches) == 1


def test_what_runs_is_not_submitted_again(at: Desk) -> None:
    at.submit(make_prompts(5), limit=3)
    again = at.submit(make_prompts(5))
    assert (again.n_recorded, again.n_running, again.n_submitted) == (2, 2, 1)
    assert sorted(at.submitted() + at.server.texts()) == [f"item number {number}" for number in range(5)]
    third = at.submit(make_prompts(5))
    assert (third.n_running, third.n_submitted, third.batch_ids) == (3, 0, ())
    changed = [Prompt("item", "i1", SYSTEM, "item number 1, new"), Prompt("item", "i2", SYSTEM, "item number 2, new")]
    assert at.submit(changed).n_submitted == 1, "another prompt is another request"


@pytest.mark.parametrize(("bound", "sizes"), [("MAX_REQUESTS", [3, 3, 1]), ("MAX_BYTES", [3, 3, 1])])
def test_large_submissions_are_split(at: Desk, monkeypatch: pytest.MonkeyPatch, bound: str, sizes: list[int]) -> None:
    at.submit(make_prompts(3))
    length = len(at.server.files["file-0"]) // 2
    monkeypatch.setattr(batch, bound, 3 if bound == "MAX_REQUESTS" else 3 * length + length // 2)
    start = len(at.server.batches)
    report = at.submit([Prompt("item", f"j{number}", SYSTEM, f"item number {number}") for number in range(8)])
    assert len(report.batch_ids) == 3
    files = [at.server.files[created["input_file_id"]] for created in list(at.server.batches.values())[start:]]
    assert [len(file.splitlines()) for file in files] == sizes
    for batch_id in at.server.batches:
        at.server.finish(batch_id)
    assert at.collect().n_written == 2 + 7
    assert {token: line.profile for token, line in at.profiles().items() if token[0] == "j"} == {
        f"j{number}": f"Profile of item number {number}" for number in range(8)
    }


def test_failures_in_a_batch(at: Desk) -> None:
    replies = {
        "item number 1": Reply("no JSON"),
        "item number 2": Reply(refusal="No."),
        "item number 3": Reply(status=400, error={"message": f"Too long, Bearer {KEY}."}),
        "item number 4": Reply('{"summarization": "A draft.", "reasoning": ""}</think>' + profile_content("it")),
    }
    at.submit(make_prompts(5))
    at.server.answer = lambda body: replies.get(user_text(body))
    at.server.finish("batch-0")
    report = at.collect()
    assert (report.n_written, report.n_failed, report.n_released) == (1, 3, 0)
    assert at.profiles()["i4"].profile == "Profile of it"
    assert report.reason.startswith("The commonest reason (1 of 3): ")
    assert report.reason in str(report)
    assert {token: failure.refused for token, failure in read_failures(at.failures_path).items()} == {
        "i1": False,
        "i2": True,
        "i3": True,
    }
    assert {token: failure.error for token, failure in read_failures(at.failures_path).items()} == {
        "i1": "it holds no JSON object: no JSON",
        "i2": "refused: No.",
        "i3": "HTTP 400: Too long, Bearer [key]",
    }
    at.server.answer = None
    assert at.submit(make_prompts(5)).n_submitted == 2, "what failed may be submitted again"
    at.server.finish("batch-1")
    at.collect()
    assert len(at.profiles()) == 5
    assert not at.failures_path.exists()


@pytest.mark.parametrize(
    ("status", "answered", "n_written"), [("expired", 2, 2), ("cancelled", 1, 1), ("failed", 0, 0), ("expired", 0, 0)]
)
def test_batches_that_end_early(at: Desk, status: str, answered: int, n_written: int) -> None:
    at.submit(make_prompts(5))
    at.server.finish("batch-0", status, answered)
    report = at.collect()
    assert (report.n_written, report.n_failed, report.n_released) == (n_written, 0, 4 - n_written)
    assert report.problems == (("batch-0: The file is no good.",) if status == "failed" else ())
    again = at.submit(make_prompts(5))
    assert again.n_recorded == 1 + n_written + 1
    assert again.n_submitted == 4 - n_written - 1
    at.server.finish("batch-1")
    at.collect()
    assert len(at.profiles()) == 5


def test_damaged_result_lines_are_asked_again(at: Desk) -> None:
    at.submit(make_prompts(4))
    at.server.finish("batch-0")
    output_id = at.server.batches["batch-0"]["output_file_id"]
    first, second, third = at.server.files[output_id].splitlines()
    at.server.files[output_id] = b"\n".join([first, second[:50], third, b"[]", b'{"custom_id": "99"}', first]) + b"\n"
    report = at.collect()
    assert (report.n_written, report.n_failed, report.n_released) == (2, 0, 1)
    assert at.submit(make_prompts(4)).n_recorded == 4


STEPS = ["ids", "prepared", "uploaded", "noted", "created"]


@pytest.mark.parametrize("step", STEPS)
def test_killed_while_submitting(at: Desk, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Wherever it is killed, the next call leaves one batch that asks each prompt once."""
    at.submit(make_prompts(1))
    save, n_saved = batch._State._save, 0

    def save_and_die(state: Any) -> None:
        nonlocal n_saved
        if step in ("ids", "uploaded", "created") and n_saved == ("ids", "uploaded", "created").index(step):
            raise Killed  # what came before this note is done, and not noted
        save(state)
        if step in ("prepared", "noted") and n_saved == ("prepared", "noted").index(step):
            raise Killed
        n_saved += 1

    with monkeypatch.context() as patched:
        patched.setattr(batch._State, "_save", save_and_die)
        with pytest.raises(Killed):
            at.submit(make_prompts(4))
    assert len(at.server.batches) == (1 if step == "created" else 0)
    other_batches = [{"input_file_id": f"file-other-{number}", "id": f"batch-other-{number}"} for number in range(5)]
    at.server.batches.update({str(other["id"]): other for other in other_batches})
    report = at.submit(make_prompts(4))
    assert report.n_submitted + report.n_running + report.n_recorded == 4
    for other in other_batches:
        del at.server.batches[str(other["id"])]
    (batch_id,) = at.server.batches
    at.server.finish(batch_id)
    at.collect()
    assert len(at.profiles()) == 4
    assert sorted(at.server.texts() + at.submitted()) == [f"item number {number}" for number in range(4)]
    assert not [name for name in at.names() if "requests" in name or "ids" in name]


@pytest.mark.parametrize("n_appended", [0, 1, 3])
def test_killed_while_collecting(at: Desk, monkeypatch: pytest.MonkeyPatch, n_appended: int) -> None:
    at.submit(make_prompts(6))
    at.server.finish("batch-0")
    append, n_done = ProfileLog.append, 0

    def append_and_die(log: ProfileLog, profile: Profile, *, sync: bool = True) -> None:
        nonlocal n_done
        if n_done == n_appended:
            raise Killed
        n_done += 1
        append(log, profile, sync=sync)

    with monkeypatch.context() as patched:
        patched.setattr(ProfileLog, "append", append_and_die)
        with pytest.raises(Killed):
            at.collect()
    assert len(at.profiles()) == 1 + n_appended
    assert at.submit(make_prompts(6)).n_submitted == 0
    assert at.collect().n_written == 5 - n_appended
    assert len(at.profiles()) == 6


def test_lost_answer_to_the_creation(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server made the batch, but its answer never came: there must be no second one."""
    at.submit(make_prompts(1))
    answer = at.server._answer

    def lose(request: Any, *arguments: Any) -> tuple[int, Any]:
        status, body = answer(request, *arguments)
        return (500, {}) if (request.method, request.path) == ("POST", "/v1/batches") else (status, body)

    monkeypatch.setattr(at.server, "_answer", lose)
    assert at.submit(make_prompts(3)).batch_ids == ("batch-0",)
    assert len(at.server.batches) == 1


@pytest.mark.parametrize(("status", "n_kept"), [(400, 0), (429, 1), (503, 1)])
def test_refused_creation(at: Desk, monkeypatch: pytest.MonkeyPatch, status: int, n_kept: int) -> None:
    at.submit(make_prompts(1))
    answer = at.server._answer

    def refuse(request: Any, *arguments: Any) -> tuple[int, Any]:
        if (request.method, request.path) == ("POST", "/v1/batches"):
            return status, {"error": {"message": f"Not now, Bearer {KEY}."}}
        return answer(request, *arguments)

    monkeypatch.setattr(at.server, "_answer", refuse)
    with pytest.raises(ServiceError, match=rf"HTTP {status}: Not now, Bearer \[key\]"):
        at.submit(make_prompts(3))
    assert len(json.loads(at.state_path.read_text())["batches"]) == n_kept
    monkeypatch.setattr(at.server, "_answer", answer)
    report = at.submit(make_prompts(4))
    # What the server took before it failed is finished first; then there is one more prompt to ask at once.
    assert (report.n_running, report.n_submitted) == ((1, 0) if n_kept else (0, 1))
    assert at.server.texts() == [f"item number {number}" for number in (0, 1, 3 if n_kept else 2)]
    assert at.submitted() == ["item number 2" if n_kept else "item number 3"]


def test_the_first_prompt_finds_out_what_the_server_takes(at: Desk) -> None:
    at.server.unsupported = frozenset(["max_tokens", "temperature"])
    at.submit(make_prompts(3))
    (file,) = at.server.files.values()
    assert all("max_completion_tokens" in json.loads(line)["body"] for line in file.splitlines())
    assert not any("temperature" in json.loads(line)["body"] for line in file.splitlines())
    at.server.finish("batch-0")
    assert at.collect().n_written == 2


def test_a_wrong_key_sends_nothing(at: Desk) -> None:
    at.server.key = "another"
    with pytest.raises(ServiceError, match="refuses the key") as error:
        at.submit(make_prompts(3))
    assert KEY not in str(error.value)
    assert not at.server.files
    at.server.key = KEY
    at.submit(make_prompts(3))
    at.server.key = "another"
    with pytest.raises(ServiceError, match="refuses the key"):
        at.collect()


def test_budget(at: Desk) -> None:
    # At half the price an answer of 20 tokens costs at most 10 dollars; the first one, at the full price, 20.
    report = at.submit(make_prompts(30), budget=95, input_price=0, output_price=1_000_000, max_tokens=20)
    assert (report.n_recorded, report.n_submitted, report.n_left) == (1, 7, 22)
    assert report.cost == 70


def test_no_state(at: Desk) -> None:
    with pytest.raises(DataError, match="nothing was submitted"):
        at.collect()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": "x", "version": 1, "batches": []}'])
def test_damaged_state(at: Desk, content: str) -> None:
    at.state_path.write_text(content)
    for verb in (at.collect, lambda: at.submit(make_prompts(1))):
        with pytest.raises(DataError, match="is no list of batches"):
            verb()


def test_another_server(at: Desk) -> None:
    at.submit(make_prompts(2))
    with pytest.raises(SettingError, match=r"has batches at http://127\.0\.0\.1"):
        at.collect(base_url="http://127.0.0.1:1/v1")


def test_the_key_is_in_no_file(at: Desk) -> None:
    at.submit(make_prompts(3))
    assert at.names() == {"tiny.itemprf.jsonl", "tiny.itemprf.batches.json", "tiny.itemprf.batches.0.ids.jsonl"}
    assert not any(KEY.encode() in file.read_bytes() for file in at.folder.iterdir())


def test_full_disk_while_submitting(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    at.submit(make_prompts(1))

    def refuse(*_: Any) -> int | None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(DataError, match="No space left on device"):
            at.submit(make_prompts(3))
    assert not at.server.batches
    report = at.submit(make_prompts(4))
    assert (report.n_recorded, report.n_submitted) == (3, 1)


# ---------------------------------------------------------------------- what a server may send


def test_results_of_any_form(at: Desk) -> None:
    """Lines that are no results are passed over, and what is good beside them is recorded."""
    at.submit(make_prompts(6))
    at.server.finish("batch-0")
    file_id = at.server.batches["batch-0"]["output_file_id"]
    lines = at.server.files[file_id].splitlines()
    good = json.loads(lines[0])
    echo = json.dumps({"summarization": f"It is {KEY}", "reasoning": ""})
    bad = [
        {**good, "custom_id": [0]},
        {**good, "custom_id": "1", "response": "x"},
        {**good, "custom_id": "2", "response": {"status_code": 500, "body": [{"error": f"Tired, {KEY}"}]}},
        {**good, "custom_id": "3", "response": {"status_code": 200, "body": {"error": {"message": "No.", "code": 9}}}},
        {
            **good,
            "custom_id": "4",
            "response": {"status_code": 200, "body": {"choices": [{"message": {"content": echo}}], "usage": "many"}},
        },
    ]
    content = [lines[0], b"[" * 5000, b"\xff", *(json.dumps(each).encode() for each in bad)]
    at.server.files[file_id] = b"\r\n".join(content)
    report = at.collect()
    assert (report.n_written, report.n_failed, report.n_released) == (1, 4, 0)
    errors = {failure.error for failure in read_failures(at.failures_path).values()}
    assert errors == {
        "HTTP None: no reason given",
        "HTTP 500: Tired, [key]",
        "HTTP 400: No.",
        "it holds the key of the server",
    }


@pytest.mark.parametrize(
    ("fields", "running"),
    [
        ({"request_counts": "many"}, "in_progress"),
        ({"request_counts": {"completed": [1], "failed": None, "total": 5}}, "in_progress, 0 of 5"),
        ({"status": [1]}, "[1]"),
        ({"status": f"with {KEY}"}, "with [key]"),
    ],
)
def test_a_batch_of_any_form_goes_on(at: Desk, fields: dict[str, Any], running: str) -> None:
    at.submit(make_prompts(2))
    at.server.batches["batch-0"].update(fields)
    assert at.collect().running == (f"batch-0: {running}",)


@pytest.mark.parametrize("data", ["x", [1], [None], [{"message": f"Bad file, {KEY}"}]])
def test_problems_of_any_form(at: Desk, data: Any) -> None:
    at.submit(make_prompts(2))
    at.server.batches["batch-0"].update({"status": "failed", "errors": {"data": data}})
    report = at.collect()
    assert report.n_released == 1
    assert KEY not in str(report)


def test_a_line_without_end_is_passed_over(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    at.submit(make_prompts(3))
    at.server.finish("batch-0")
    file_id = at.server.batches["batch-0"]["output_file_id"]
    first, second = at.server.files[file_id].splitlines()
    at.server.files[file_id] = first + b"\n" + b"x" * 400_000 + b"\n" + second + b"\n"
    monkeypatch.setattr(batch, "MAX_ANSWER", 100_000)
    assert at.collect().n_written == 2


def test_a_server_that_gives_no_id(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at.server, "_add_file", lambda content: at.server.files.setdefault("f", content) and None)
    monkeypatch.setitem(at.server.files, None, b"x")  # type: ignore[misc]
    with pytest.raises(ServiceError, match="gave no 'id'"):
        at.submit(make_prompts(2))
