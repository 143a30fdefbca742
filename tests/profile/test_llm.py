"""The language-model writer, against a real HTTP server that fails in every way servers fail."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from loopback_server import FAULTS, LoopbackServer, Reply, n_tokens, profile_content, user_text

from recbole_rlmrec.errors import DataError, ServiceError, SettingError
from recbole_rlmrec.profile import llm
from recbole_rlmrec.profile.budget import estimate_tokens
from recbole_rlmrec.profile.llm import LLMSettings, PromptWriter, WriteSummary
from recbole_rlmrec.profile.prompt import Prompt
from recbole_rlmrec.profile.record import Failure, Profile, ProfileLog, iter_profiles, read_failures, write_failures

KEY = "sk-loopback-0123456789abcdef"
SYSTEM = "Say what it is."


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def make_prompts(n: int) -> list[Prompt]:
    return [Prompt("item", f"i{number}", SYSTEM, f"item number {number}", (f"u{number}",)) for number in range(n)]


class Desk:
    """A folder, a server and what is written there."""

    def __init__(self, folder: Path, server: LoopbackServer) -> None:
        self.folder, self.server = folder, server
        self.path, self.failures_path = folder / "tiny.itemprf.jsonl", folder / "tiny.itemprf.failed.jsonl"

    def settings(self, **settings: Any) -> LLMSettings:
        return LLMSettings(**{"model": "m", "base_url": self.server.base_url, "timeout": 5.0, **settings})

    def write(self, prompts: list[Prompt], **settings: Any) -> WriteSummary:
        writer = PromptWriter(self.settings(**settings))
        with ProfileLog(self.path) as log:
            return writer.write(prompts, log, self.failures_path, "train", progress=False)

    def profiles(self) -> dict[str, Profile]:
        lines = list(iter_profiles(self.path))
        assert len({line.token for line in lines}) == len(lines), "an id has several lines"
        return {line.token: line for line in lines}

    def failures(self) -> dict[str, Failure]:
        return read_failures(self.failures_path)

    def errors(self) -> dict[str, str]:
        return {token: failure.error for token, failure in self.failures().items()}


@pytest.fixture
def desk(tmp_path: Path) -> Any:
    """Make a desk with a server of given faults and answers."""
    open_servers = []

    def make(*arguments: Any, **server_settings: Any) -> Desk:
        server = LoopbackServer(*arguments, **server_settings)
        server.__enter__()
        open_servers.append(server)
        return Desk(tmp_path, server)

    yield make
    for server in open_servers:
        server.__exit__()


Make = Callable[..., Desk]


def by_text(replies: Mapping[str, Reply]) -> Callable[[Mapping[str, Any]], Reply | None]:
    return lambda body: replies.get(user_text(body))


# ---------------------------------------------------------------------- one run


def test_profiles_and_requests(desk: Make) -> None:
    at = desk()
    prompts = make_prompts(3)
    summary = at.write(prompts, temperature=0.5, max_tokens=77, input_price=1_000_000, output_price=2_000_000)
    assert at.profiles() == {
        prompt.token: Profile(
            token=prompt.token,
            profile=f"Profile of {prompt.text}",
            reasoning=f"Because of {prompt.text}",
            writer="llm:m",
            prompt_sha256=prompt.sha256,
            train_sha256="train",
            interacted=prompt.interacted,
            version=2,
        )
        for prompt in prompts
    }
    body = next(request.body for request in at.server.requests if request.text == "item number 1")
    assert body["messages"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "item number 1"}]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.5, 77)
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == list(schema["properties"]) == ["reasoning", "summarization"], "it thinks first"
    n_input = 3 * n_tokens(f"{SYSTEM}item number 1")
    n_output = 3 * n_tokens(profile_content("item number 1"))
    assert (summary.n_prompts, summary.n_recorded, summary.n_written, summary.n_failed, summary.n_left) == (
        (3, 0, 3, 0, 0)
    )
    assert (summary.input_tokens, summary.output_tokens, summary.estimated) == (n_input, n_output, False)
    assert summary.cost == n_input + 2 * n_output
    assert f"${n_input + 2 * n_output}.00" in str(summary)
    assert not at.failures_path.exists()


def test_every_fault(desk: Make) -> None:
    """2,000 prompts, of whose requests a fifth goes wrong: each id ends with a profile or in the failures file."""
    faults = {"rate_limit": 0.05, "server_error": 0.05, "hang": 0.05, "broken_json": 0.05, "cut": 0.01}
    at = desk(faults, seed=3, delay=0.002, key=KEY)
    prompts = make_prompts(2000)
    summary = at.write(prompts, concurrency=32, timeout=1.0)
    profiles, failures = at.profiles(), at.failures()
    assert set(profiles) | set(failures) == {prompt.token for prompt in prompts}
    assert not set(profiles) & set(failures)
    assert all(profile.profile == f"Profile of item number {token[1:]}" for token, profile in profiles.items())
    assert (summary.n_written, summary.n_failed, summary.n_left) == (len(profiles), len(failures), 0)
    assert at.server.in_flight_max <= 32
    # A broken answer is corrected once; whose second answer is broken too fails, and nobody else.
    texts = at.server.texts()
    broken = [request.text for request in at.server.requests if request.fault == "broken_json"]
    twice = {text for text in broken if broken.count(text) > 1}
    assert {f"item number {token[1:]}" for token in failures} == twice
    counts = at.server.fault_counts()
    assert all(counts[fault] == pytest.approx(len(texts) * share, rel=0.35) for fault, share in faults.items())
    # Each fault costs one request more; so does a time-out that a busy machine adds.
    assert 0 <= len(texts) - (2000 + sum(counts.values()) - len(twice)) <= 20
    # The next run asks for what failed, and for nothing else.
    at.server.faults = {}
    assert at.write(prompts).n_written == len(twice)
    assert set(at.server.texts()[len(texts) :]) == twice
    assert set(at.profiles()) == {prompt.token for prompt in prompts}
    assert not at.failures_path.exists()


@pytest.mark.parametrize("concurrency", [1, 3, 20])
def test_concurrency_is_bounded_and_used(desk: Make, concurrency: int) -> None:
    at = desk(delay=0.02)
    at.write(make_prompts(40), concurrency=concurrency)
    assert at.server.in_flight_max == concurrency


def test_retries_run_out(desk: Make) -> None:
    at = desk({"server_error": 1.0})
    summary = at.write(make_prompts(2), max_retries=2)
    assert len(at.server.requests) == 6
    assert summary.n_failed == 2
    assert at.errors() == dict.fromkeys(("i0", "i1"), "HTTP 500: The server is tired.")


# ---------------------------------------------------------------------- answers


GOOD = '{"summarization": "A map.", "reasoning": "It says so."}'


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Here you are:\n{GOOD}\nAnything else?",
        f'<think>Perhaps {{"a": 1}} or {{this}}?</think>{GOOD}',
        '{"reasoning": "It says so.", "summarization": "  A map.\\n", "more": 1}',
    ],
)
def test_answers_in_wrappings(desk: Make, content: str) -> None:
    at = desk(answer=lambda _: Reply(content, finish_reason="length"))  # what was cut is not the object
    at.write(make_prompts(1))
    profile = at.profiles()["i0"]
    assert (profile.profile, profile.reasoning) == ("A map.", "It says so.")
    assert len(at.server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(""), "no JSON object: it is empty"),
        (Reply(None), "no JSON object: it is empty"),
        (Reply("I am a map."), "no JSON object: I am a map."),
        (Reply("[1, 2]"), "no JSON object"),
        (Reply('{"summarization": "  ", "reasoning": "x"}'), "'summarization' is empty"),
        (Reply('{"summary": "x"}'), "'summarization' and 'reasoning' are not both texts"),
        (Reply('{"summarization": ["x"], "reasoning": "y"}'), "not both texts"),
        (Reply('{"summarization": "x", "reasoning": null}'), "not both texts"),
        (Reply(json.dumps({"summarization": "x" * 4001, "reasoning": ""})), "4001 characters, more than 4000"),
        (Reply('{"summarization": "A m', finish_reason="length"), "cut at max_tokens"),
    ],
)
def test_an_invalid_answer_is_mended_once(desk: Make, reply: Reply, problem: str) -> None:
    at = desk(answer=lambda body: None if len(body["messages"]) > 2 else reply)
    at.write(make_prompts(1))
    # Without a text there is nothing to correct: the same is asked again.
    if not reply.content:
        assert at.errors()["i0"].count(problem) == 2
        assert [request.body for request in at.server.requests] == [at.server.requests[0].body] * 2
        return
    first, second = (request.body["messages"] for request in at.server.requests)
    assert second[:2] == first
    assert second[2] == {"role": "assistant", "content": reply.content[:4000]}
    assert problem in second[3]["content"]
    assert at.profiles()["i0"].profile == "Profile of item number 0"
    at.server.answer = lambda _: reply
    at.write([Prompt("item", "i1", SYSTEM, "another")])
    assert len(at.server.requests) == 4
    assert at.failures()["i1"].attempts == 2
    assert at.errors()["i1"].count(problem) == 2


def test_no_json_at_all(desk: Make) -> None:
    at = desk({"no_json": 1.0})
    at.write(make_prompts(1))
    reason = "the server's answer is no JSON: A proxy is tired."
    assert at.errors() == {"i0": f"no valid answer: {reason}; then {reason}"}
    assert len(at.server.requests) == 2


def test_half_a_surrogate_pair(desk: Make) -> None:
    at = desk(answer=lambda _: Reply('{"summarization": "a \\ud83d map", "reasoning": ""}'))
    at.write([Prompt("item", "i\ud83d", SYSTEM, "half \ud83d")])
    assert at.profiles()["i\ud83d"].profile == "a \N{REPLACEMENT CHARACTER} map"
    assert at.server.texts() == ["half \N{REPLACEMENT CHARACTER}"]


def test_what_only_concerns_one_prompt(desk: Make) -> None:
    filtered = {"message": "The response was filtered by the content management policy.", "code": "content_filter"}
    replies = {
        "item number 0": Reply(None, refusal="I cannot speak of this."),
        "item number 1": Reply("", finish_reason="content_filter"),
        "item number 2": Reply(status=400, error=filtered),
    }
    at = desk(answer=by_text(replies), max_characters=100)
    prompts = [*make_prompts(4), Prompt("item", "long", SYSTEM, "x" * 101)]
    summary = at.write(prompts)
    assert (summary.n_written, summary.n_failed) == (1, 4)
    assert len(at.server.requests) == 5, "asking again would not help"
    assert at.errors() == {
        "i0": "refused: I cannot speak of this.",
        "i1": "stopped by the provider's content filter",
        "i2": "HTTP 400: The response was filtered by the content management policy.",
        "long": "HTTP 400: This model's maximum context length is 100 characters.",
    }


def test_many_refusals_do_not_stop_the_run(desk: Make) -> None:
    at = desk(answer=lambda body: Reply(refusal="No.") if int(user_text(body).split()[-1]) < 80 else None)
    summary = at.write(make_prompts(90))
    assert (summary.n_written, summary.n_failed) == (10, 80)


def test_without_usage_tokens_are_estimated(desk: Make) -> None:
    at = desk(answer=lambda body: Reply(profile_content(user_text(body)), usage=False))
    settings = at.settings()
    prompts = make_prompts(2)
    summary = at.write(prompts)
    assert summary.estimated
    assert summary.input_tokens == sum(map(settings.tokens_of, prompts))
    assert summary.output_tokens == sum(estimate_tokens(profile_content(prompt.text)) for prompt in prompts)
    assert "about" in str(summary)
    assert "unknown" in str(summary)


# ---------------------------------------------------------------------- servers that know less


def test_servers_that_know_fewer_parameters(desk: Make, caplog: pytest.LogCaptureFixture) -> None:
    at = desk(unsupported=frozenset(["json_schema", "json_object", "max_tokens", "temperature"]), delay=0.005)
    at.write(make_prompts(20), concurrency=4, max_tokens=55)
    assert len(at.profiles()) == 20
    last = at.server.requests[-1].body
    assert set(last) == {"model", "messages", "max_completion_tokens"}
    assert last["max_completion_tokens"] == 55
    assert '"summarization"' in last["messages"][0]["content"], "without a schema, words say what is asked"
    assert len(at.server.requests) <= 20 + 4 * 4, "each step back is made once, by the four requests in flight"
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "The server does not take max_tokens",
        "The server does not take this temperature",
        "The server does not take the response_format json_schema",
        "The server does not take the response_format json_object",
    ]


def test_a_server_without_a_system_role_that_answers_500_to_a_schema(
    desk: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """As chat templates of Gemma and Mistral do, and llama-cpp-python's server."""

    def answer(body: Mapping[str, Any]) -> Reply | None:
        if body.get("response_format", {}).get("type") == "json_schema":
            return Reply(status=500, error={"message": "[{'msg': \"Input should be 'text' or 'json_object'\"}]"})
        if body["messages"][0]["role"] == "system":
            return Reply(status=400, error={"message": "System role not supported"})
        return None

    at = desk(answer=answer)
    prompts = make_prompts(6)
    at.write(prompts, concurrency=3, max_retries=0)
    assert {token: line.prompt_sha256 for token, line in at.profiles().items()} == {
        prompt.token: prompt.sha256 for prompt in prompts
    }
    (message,) = at.server.requests[-1].body["messages"]
    assert message["role"] == "user"
    assert message["content"].startswith(f"{SYSTEM}\n")
    assert message["content"].endswith(f"\n\n{prompts[-1].text}")
    assert at.server.requests[-1].body["response_format"] == {"type": "json_object"}
    assert len(caplog.records) == 2, "each step is said once"
    assert len(at.server.requests) <= 6 + 2 * 3


def test_a_draft_is_not_the_profile(desk: Make) -> None:
    draft = '<think>{"summarization": "A mop?", "reasoning": "x"}</think>'
    at = desk(answer=by_text({"item number 0": Reply(f"{draft}{GOOD}"), "item number 1": Reply(draft)}))
    at.write(make_prompts(2))
    assert {token: line.profile for token, line in at.profiles().items()} == {"i0": "A map."}
    assert "it ends before the model's thinking came to an answer" in at.errors()["i1"]


def test_a_request_that_is_wrong_in_another_way(desk: Make) -> None:
    error = {"message": "max_tokens must be at least 1000.", "param": "max_tokens"}
    at = desk(answer=lambda _: Reply(status=400, error=error))
    at.write(make_prompts(1))
    assert at.errors() == {"i0": "HTTP 400: max_tokens must be at least 1000."}
    assert len(at.server.requests) == 1


# ---------------------------------------------------------------------- what ends a run


def stopped(at: Desk, prompts: list[Prompt], **settings: Any) -> str:
    with pytest.raises(ServiceError) as error:
        at.write(prompts, **settings)
    assert KEY not in str(error.value)
    return str(error.value)


def test_wrong_key(desk: Make) -> None:
    at = desk(key="another")
    message = stopped(at, make_prompts(100), concurrency=4)
    assert "refuses the key in the environment variable OPENAI_API_KEY" in message
    assert "0 profiles of this run are recorded" in message
    assert len(at.server.requests) <= 4


def test_key_is_withdrawn_in_between(desk: Make) -> None:
    at = desk(key=KEY, delay=0.002)

    def answer(_: Mapping[str, Any]) -> None:
        if len(at.server.requests) > 30:
            at.server.key = "another"

    at.server.answer = answer
    message = stopped(at, make_prompts(100), concurrency=4)
    n_profiles = len(at.profiles())
    assert 27 <= n_profiles <= 31
    assert f"{n_profiles} profiles of this run are recorded; the same command goes on from there." in message
    at.server.key, at.server.answer = KEY, None
    assert at.write(make_prompts(100)).n_written == 100 - n_profiles


def test_unknown_model(desk: Make) -> None:
    at = desk(models={"other"})
    assert "does not find the model 'm'" in stopped(at, make_prompts(10), concurrency=2)


@pytest.mark.parametrize("status", [402, 429])
def test_empty_account(desk: Make, status: int) -> None:
    at = desk(answer=lambda _: Reply(status=status, error={"message": "No money.", "code": "insufficient_quota"}))
    assert "nothing left to spend" in stopped(at, make_prompts(10), concurrency=2, max_retries=1)


def test_forbidden(desk: Make) -> None:
    at = desk(answer=lambda _: Reply(status=403, error={"message": f"Not in your country, {KEY}."}))
    assert "status 403 (HTTP 403: Not in your country, [key].)" in stopped(at, make_prompts(10), concurrency=2)


@pytest.mark.parametrize("n_prompts", [2, 100])
def test_unreachable(tmp_path: Path, n_prompts: int) -> None:
    with LoopbackServer() as server:
        at = Desk(tmp_path, server)
    assert "cannot be reached" in stopped(at, make_prompts(n_prompts), concurrency=3, max_retries=0)
    # As many failures as workers stop the run; the two other workers may have one prompt each in flight.
    assert 2 <= len(at.failures()) <= min(n_prompts, 3 + 2)


def test_server_that_only_fails(desk: Make) -> None:
    at = desk({"server_error": 1.0})
    message = stopped(at, make_prompts(200), concurrency=4, max_retries=0)
    assert "50 prompts in a row failed" in message
    assert "HTTP 500: The server is tired." in message
    assert 50 <= len(at.server.requests) <= 54
    assert 50 <= len(at.failures()) <= 54


def test_missing_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with ProfileLog(tmp_path / "x.jsonl") as log, pytest.raises(ServiceError, match="OPENAI_API_KEY is not set"):
        PromptWriter(LLMSettings("m")).write(make_prompts(1), log, tmp_path / "f.jsonl", "train", progress=False)


def test_full_disk(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk(delay=0.002)
    write, n_written = os.write, 0

    def write_some(descriptor: int, content: bytes) -> int:
        nonlocal n_written
        if b'"token"' not in content:  # not ours, but the event loop's
            return write(descriptor, content)
        if n_written == 25:
            return write(descriptor, content[:40])
        n_written += 1
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", write_some)
    with pytest.raises(DataError, match="Make room on the disk"):
        at.write(make_prompts(100), concurrency=4)
    assert len(at.profiles()) == 25
    assert len(at.server.requests) <= 25 + 4
    monkeypatch.undo()
    os.environ["OPENAI_API_KEY"] = KEY
    assert at.write(make_prompts(100)).n_written == 75


# ---------------------------------------------------------------------- limits and plans


def test_limit(desk: Make) -> None:
    at = desk()
    prompts = make_prompts(10)
    first = at.write(prompts, limit=4)
    assert (first.n_written, first.n_left) == (4, 6)
    assert list(at.profiles()) == ["i0", "i1", "i2", "i3"]
    second = at.write(prompts, limit=4)
    assert (second.n_recorded, second.n_written, second.n_left) == (4, 4, 2)
    assert len(at.server.requests) == 8


@pytest.mark.parametrize("concurrency", [1, 4])
def test_budget(desk: Make, concurrency: int, caplog: pytest.LogCaptureFixture) -> None:
    n_output = n_tokens(profile_content("item number 1"))
    assert n_output == 12
    at = desk(delay=0.005)
    # A dollar a token written; 20 are set aside for each request. After n answers 12 n + 20 <= 100 allows one more.
    summary = at.write(
        make_prompts(30), concurrency=concurrency, budget=100, input_price=0, output_price=1_000_000, max_tokens=20
    )
    assert summary.n_written == 7
    assert summary.cost == 84
    assert (summary.n_failed, summary.n_left) == (0, 23)
    assert "The budget is reached" in caplog.text


def test_budget_without_prices() -> None:
    with pytest.raises(SettingError, match="A budget needs prices"):
        LLMSettings("m", budget=1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": " "}, "No model is named"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"concurrency": 1001}, "expected 1 to 1000"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"limit": -1}, "limit is -1"),
        ({"timeout": -1.0}, "timeout is -1"),
        ({"base_url": "here"}, "expected an address"),
        ({"input_price": 1.0}, "only one is given"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        LLMSettings(**{"model": "m", **settings})


def test_plan_needs_neither_key_nor_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setitem(sys.modules, "openai", None)
    path = tmp_path / "tiny.itemprf.jsonl"
    prompts = make_prompts(10)
    settings = LLMSettings("m", limit=6, max_tokens=600, input_price=2.0, output_price=10.0)
    with ProfileLog(path) as log:
        for prompt in prompts[:3]:
            log.append(Profile(prompt.token, "x", "", "llm:m", prompt.sha256, "train"))
        log.append(Profile("i3", "x", "", "template", prompts[3].sha256, "train"))
    plan = PromptWriter(settings).plan([*prompts, prompts[0]], ProfileLog(path, read_only=True))
    n_input = sum(estimate_tokens(SYSTEM) + estimate_tokens(prompt.text) + 100 for prompt in prompts[3:9])
    assert (plan.n_prompts, plan.n_recorded, plan.n_to_ask) == (10, 3, 6)
    assert (plan.input_tokens, plan.output_tokens, plan.most_output_tokens) == (n_input, 6 * 200, 6 * 600)
    assert plan.cost == pytest.approx(n_input * 2e-6 + 1200 * 1e-5)
    assert plan.most_cost == pytest.approx(n_input * 2e-6 + 3600 * 1e-5)
    assert "10 prompts: 3 profiles are recorded, 6 to ask for." in str(plan)
    assert "unknown" in str(PromptWriter(LLMSettings("m")).plan(prompts, ProfileLog(path, read_only=True)))


# ---------------------------------------------------------------------- going on


def test_a_superseded_profile_is_not_asked_for_again(desk: Make) -> None:
    at = desk()
    prompts = make_prompts(2)
    at.write(prompts)
    with ProfileLog(at.path) as log:
        log.append(Profile("i0", "by rule", "", "template", "p", "train"))
    summary = at.write(prompts)
    assert (summary.n_recorded, summary.n_written) == (2, 0)
    assert len(at.server.requests) == 2
    assert ProfileLog(at.path, read_only=True).current()["i0"].writer == "llm:m"
    changed = [Prompt("item", "i0", SYSTEM, "item number 0, new"), prompts[1]]
    assert at.write(changed).n_written == 1
    assert at.write(changed, model="m2").n_written == 2


def test_failures_of_earlier_runs(desk: Make) -> None:
    at = desk(answer=by_text({"item number 0": Reply("no"), "item number 1": Reply("no")}))
    prompts = make_prompts(4)
    at.write(prompts)
    assert set(at.failures()) == {"i0", "i1"}
    write_failures(at.failures_path, [*at.failures().values(), Failure("gone", "p", "llm:m", "x", 1)])
    n_before = len(at.server.requests)
    at.write([*prompts, *make_prompts(6)[4:]], limit=3)
    tried = [request.text for request in at.server.requests[n_before:]]
    assert set(tried) == {"item number 4", "item number 5", "item number 0"}, "what never was tried comes first"
    assert {token: failure.attempts for token, failure in at.failures().items()} == {"i0": 4, "i1": 2, "gone": 1}
    at.server.answer = None
    at.write(prompts)
    assert set(at.failures()) == {"gone"}


def test_what_was_refused_is_asked_again_only_when_asked_for(desk: Make) -> None:
    filtered = Reply(status=400, error={"message": "Filtered.", "code": "content_filter"})
    replies = {"item number 0": Reply(refusal="No."), "item number 1": filtered, "item number 2": Reply("no JSON")}
    at = desk(answer=by_text(replies))
    prompts = make_prompts(4)
    first = at.write(prompts)
    assert (first.n_failed, first.n_failed_refused, first.n_refused) == (3, 2, 0)
    assert {token: failure.refused for token, failure in at.failures().items()} == {"i0": True, "i1": True, "i2": False}
    at.server.answer = None
    n_before = len(at.server.requests)
    second = at.write(prompts)
    assert at.server.texts()[n_before:] == ["item number 2"]
    assert (second.n_recorded, second.n_written, second.n_left, second.n_refused) == (1, 1, 0, 2)
    assert "2 more failed or were refused before; --retry-failed asks again." in str(second)
    assert set(at.failures()) == {"i0", "i1"}, "they stay in the file"
    changed = [Prompt("item", "i0", SYSTEM, "item number 0, new"), prompts[1]]
    assert at.write(changed).n_written == 1, "another prompt was not refused"
    assert at.write(prompts, model="m2").n_written == 4, "nor did another model refuse it"
    assert at.write(prompts, retry_failed=True).n_written == 2
    assert not at.failures_path.exists()


def test_the_summary_names_the_commonest_reason(desk: Make) -> None:
    """Also below the number of failures that ends a run, and with a limit."""

    def answer(body: Mapping[str, Any]) -> Reply:
        number = int(user_text(body).split()[-1])
        return Reply(status=400, error={"message": f"Pay {number} dollars." if number else "Something else."})

    at = desk(answer=answer)
    summary = at.write(make_prompts(9), limit=4, concurrency=1)
    assert (summary.n_failed, summary.n_left) == (4, 5)
    assert summary.reason == "The commonest reason (3 of 4): HTTP 400: Pay 1 dollars."
    assert summary.reason in str(summary)
    at.server.answer = None
    assert "reason" not in str(at.write(make_prompts(9)))


# Runs the writer in a process of its own for each line it reads; it imports once, which takes longer than a run.
RUNNER = """
import os
import sys
from pathlib import Path
import openai
from recbole_rlmrec.profile.llm import LLMSettings, PromptWriter
from recbole_rlmrec.profile.prompt import Prompt
from recbole_rlmrec.profile.record import ProfileLog
url, folder, n, concurrency = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
prompts = [Prompt("item", f"i{number}", "Say what it is.", f"item number {number}") for number in range(n)]
for _ in sys.stdin:
    process = os.fork()
    if process == 0:
        settings = LLMSettings("m", url, concurrency=concurrency, timeout=5.0)
        with ProfileLog(folder / "tiny.itemprf.jsonl") as log:
            PromptWriter(settings).write(prompts, log, folder / "tiny.itemprf.failed.jsonl", "train")
        os._exit(0)
    print(process, flush=True)
    print(os.waitpid(process, 0)[1], flush=True)
"""


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def test_killed_five_times(desk: Make) -> None:
    n_prompts, concurrency = 400, 16
    at = desk({"rate_limit": 0.05, "server_error": 0.05, "cut": 0.01}, delay=0.01, key=KEY)
    generator = random.Random(5)
    arguments = [at.server.base_url, str(at.folder), str(n_prompts), str(concurrency)]
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert runner.stdin is not None
    assert runner.stdout is not None
    asked_before: set[str] = set()
    recorded: set[str] = set()
    repeats = []
    for round_number in range(6):
        start = len(at.server.requests)
        runner.stdin.write("run\n")
        runner.stdin.flush()
        process = int(runner.stdout.readline())
        if round_number < 5:
            moment = start + generator.randint(1, 70)
            wait_for(lambda moment=moment: len(at.server.requests) >= moment)  # type: ignore[misc]
            time.sleep(generator.uniform(0, 0.02))
            os.kill(process, signal.SIGKILL)
        assert int(runner.stdout.readline()) == (signal.SIGKILL if round_number < 5 else 0)
        wait_for(lambda: at.server.connections == 0)
        asked = {request.text for request in at.server.requests[start:]}
        assert not asked & recorded, "a recorded profile was asked for again"
        repeats.append(len(asked & asked_before))
        asked_before |= asked
        assert at.path.read_bytes()[-1:] in (b"", b"\n"), "a line is torn"
        recorded = {f"item number {token[1:]}" for token in at.profiles()}
        assert len(asked_before - recorded) <= concurrency, "more was asked for than was in flight"
    output, errors = runner.communicate(timeout=20)
    assert KEY not in output + errors
    assert len(at.profiles()) == n_prompts
    assert not at.failures_path.exists()
    assert at.server.in_flight_max <= concurrency
    assert max(repeats) <= concurrency
    assert sum(repeats) > 0, "the kills came while something was in flight"
    print(f"repeats after each kill: {repeats[1:]}")


def interrupt_when(condition: Callable[[], bool]) -> threading.Thread:
    def interrupt() -> None:
        wait_for(condition)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


def test_ctrl_c_records_what_is_in_flight(desk: Make) -> None:
    at = desk(delay=0.05)
    before = signal.getsignal(signal.SIGINT)
    thread = interrupt_when(lambda: len(at.server.requests) >= 20)
    with pytest.raises(KeyboardInterrupt):
        at.write(make_prompts(400), concurrency=8)
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert 20 <= len(at.server.requests) <= 36
    assert {f"item number {token[1:]}" for token in at.profiles()} == set(at.server.texts())


def test_ctrl_c_does_not_wait_for_ever(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "PATIENCE", 0.2)
    at = desk({"hang": 1.0})
    thread = interrupt_when(lambda: len(at.server.requests) >= 4)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        at.write(make_prompts(10), concurrency=4, timeout=30.0)
    thread.join()
    assert time.monotonic() - start < 3
    assert len(at.server.requests) == 4


def test_within_a_running_event_loop(desk: Make) -> None:
    """As in a notebook's cell; Ctrl-C stops it there as it does elsewhere."""
    at = desk(delay=0.05)

    async def cell(n_prompts: int) -> WriteSummary:
        return at.write(make_prompts(n_prompts), concurrency=4)

    assert asyncio.run(cell(4)).n_written == 4
    before = signal.getsignal(signal.SIGINT)
    thread = interrupt_when(lambda: len(at.server.requests) >= 12)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(cell(400))
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert 12 <= len(at.server.requests) <= 24
    assert {f"item number {token[1:]}" for token in at.profiles()} == set(at.server.texts()), "what was paid is kept"


def test_second_ctrl_c_stops_at_once(desk: Make) -> None:
    at = desk({"hang": 1.0})
    first = interrupt_when(lambda: len(at.server.requests) >= 4)
    start = time.monotonic()
    second = interrupt_when(lambda: not first.is_alive() and time.monotonic() > start + 0.3)
    with pytest.raises(KeyboardInterrupt):
        at.write(make_prompts(10), concurrency=4, timeout=30.0)
    second.join()
    assert time.monotonic() - start < 3


# ---------------------------------------------------------------------- secrets and silence


def test_the_key_is_nowhere(desk: Make, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    echo = {"message": f"Bad header Authorization: Bearer {KEY}", "code": None}
    caplog.set_level(logging.DEBUG)
    at = desk(dict.fromkeys(FAULTS, 0.05), key=KEY, answer=by_text({"item number 7": Reply(status=400, error=echo)}))
    with ProfileLog(at.path) as log:
        writer = PromptWriter(at.settings(timeout=1.0, concurrency=30))
        writer.write(make_prompts(30), log, at.failures_path, "train", progress=True)
    assert all(request.authorization == f"Bearer {KEY}" for request in at.server.requests)
    assert at.errors()["i7"] == "HTTP 400: Bad header Authorization: Bearer [key]"
    at.server.key, at.server.faults = "another", {}
    stopped(at, make_prompts(50))
    written = b"".join(file.read_bytes() for file in at.folder.iterdir())
    output = capfd.readouterr()
    shown = "".join(record.getMessage() for record in caplog.records) + output.out + output.err
    assert KEY not in shown
    assert KEY.encode() not in written
    assert "tokens" in output.err, "the progress bar counts them"


def in_json(character: str) -> str:
    return f"\\u{ord(character):04x}"


@pytest.mark.parametrize(
    "content",
    [
        f'{{"summarization": "Likes {KEY}.", "reasoning": ""}}',
        f'{{"summarization": "A map.", "reasoning": "By {quote(KEY).replace("-", "%2d")}"}}',
        f'{{"summarization": "{"".join(map(in_json, KEY))}", "reasoning": ""}}',
        f'{{"summarization": "{base64.b64encode(KEY.encode()).decode()}", "reasoning": ""}}',
        f"{'x' * 70} {KEY} is no JSON",
        f"{KEY} " * 50,
    ],
)
def test_an_answer_with_the_key_is_no_profile(desk: Make, content: str) -> None:
    at = desk(answer=lambda _: Reply(content))
    at.write(make_prompts(1))
    assert at.profiles() == {}
    said = "it holds the key of the server" if content.startswith("{") else "it holds no JSON object"
    assert f"no valid answer: {said}" in at.errors()["i0"]
    written = "".join(file.read_text() for file in at.folder.iterdir())
    assert KEY[:9] not in written and KEY[-9:] not in written
    assert all(KEY not in str(request.body) for request in at.server.requests), "nor is it sent back as a text"


def test_a_refusal_with_the_key_is_shown_without(desk: Make) -> None:
    at = desk(answer=lambda _: Reply(refusal=f"{'x' * 60} not with {KEY}"))
    at.write(make_prompts(1))
    assert at.errors() == {"i0": f"refused: {'x' * 60} not with [key]"}


@pytest.mark.parametrize(
    "usage",
    ["12", [12], {"prompt_tokens": "12", "completion_tokens": [1]}, {"prompt_tokens": -1, "completion_tokens": True}]
    + [{"prompt_tokens": value, "completion_tokens": value} for value in (float("nan"), float("inf"), 10**400, 1e300)],
)
def test_usage_of_any_form_is_estimated(desk: Make, usage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk()
    chat = at.server._chat

    def altered(body: Mapping[str, Any], broken: bool) -> tuple[int, Any]:
        status, answer = chat(body, broken)
        return status, {**answer, "usage": usage}

    monkeypatch.setattr(at.server, "_chat", altered)
    summary = at.write(make_prompts(1), input_price=1.0, output_price=1.0, budget=1.0)
    assert (summary.n_written, summary.estimated) == (1, True)
    assert summary.input_tokens == at.settings().tokens_of(make_prompts(1)[0])


def parts(n: int) -> Any:
    content: Any = "x"
    for _ in range(n):
        content = [{"type": "text", "text": content}]
    return content


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": "x"},
        {"choices": {"0": 1}},
        {"choices": [1]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": 12, "refusal": [1]}, "finish_reason": {}}]},
        {"choices": [{"message": {"content": parts(300)}}]},
        [{"choices": []}],
        12,
        "x",
        None,
    ],
)
def test_answers_of_other_types_are_no_profile(desk: Make, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk()
    monkeypatch.setattr(at.server, "_chat", lambda body, broken: (200, answer))
    assert at.write(make_prompts(1)).n_failed == 1
    assert at.errors()["i0"].startswith("no valid answer: ")


REFUSALS = {
    "gemini": (400, [{"error": {"message": "Unknown name \"additionalProperties\" at 'response_schema'"}}]),
    "text": (400, {"error": "'response_format.type' must be 'text'"}),
    "fastapi": (422, {"detail": [{"loc": ["body", "response_format", "type"], "msg": "unexpected value"}]}),
    "in a good answer": (200, {"error": {"message": "response_format json_schema is unknown", "code": 400}}),
}


@pytest.mark.parametrize(("status", "error"), REFUSALS.values(), ids=REFUSALS)
def test_the_step_back_sees_every_reason(desk: Make, status: int, error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk()
    chat = at.server._chat
    monkeypatch.setattr(
        at.server, "_chat", lambda body, broken: (status, error) if "response_format" in body else chat(body, broken)
    )
    assert at.write(make_prompts(1)).n_written == 1
    assert len(at.server.requests) == 3, "json_schema, json_object, none"


def test_no_credits_in_a_good_answer_ends_the_run(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk()
    error = {"choices": None, "error": {"message": "Insufficient credits.", "code": 402}}
    monkeypatch.setattr(at.server, "_chat", lambda body, broken: (200, error))
    message = stopped(at, make_prompts(20), concurrency=2)
    assert "nothing left to spend (HTTP 402: Insufficient credits.)" in message
    assert len(at.server.requests) <= 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, {"error": "the request exceeds the available context size"}),
        (413, "Payload Too Large"),
        (200, {"error": {"message": "prompt is too long", "code": 400}}),
        (422, {"error": "Input validation error: `inputs` must have less than 512 tokens. Given: 900"}),
    ],
)
def test_too_long_is_the_prompts_fault(desk: Make, status: int, error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked once, and however many there are, they do not end the run."""
    at = desk()
    monkeypatch.setattr(llm, "MAX_FAILURES_IN_A_ROW", 3)
    monkeypatch.setattr(at.server, "_chat", lambda body, broken: (status, error))
    assert at.write(make_prompts(6)).n_failed == 6
    assert len(at.server.requests) == 6


def test_quiet(desk: Make, capfd: pytest.CaptureFixture[str]) -> None:
    at = desk()
    at.write(make_prompts(3))
    output = capfd.readouterr()
    assert output.out + output.err == ""


def test_importing_takes_neither_openai_nor_torch() -> None:
    code = (
        "import sys; sys.modules['openai'] = None\n"
        "import recbole_rlmrec.profile.llm, recbole_rlmrec.profile.batch, recbole_rlmrec.openai_client\n"
        "print(sorted({'torch', 'recbole', 'tqdm'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["['tqdm']"]
