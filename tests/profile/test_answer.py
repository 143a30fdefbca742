"""Which of the JSON objects that a model writes is its answer."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from recbole_rlmrec.profile.answer import (
    FORMAT_INSTRUCTION,
    MAX_ANSWER_CHARACTERS,
    SCHEMA,
    Answer,
    Completion,
    InvalidAnswerError,
    RefusedError,
    read_answer,
    read_completion,
)
from recbole_rlmrec.profile.answer_text import NothingButThinkingError, objects_of_answer

GOOD = '{"reasoning": "Four of five.", "summarization": "Likes quiet crime novels."}'
DRAFT = '{"summarization": "Perhaps horror?", "reasoning": "A first try."}'
FORM = '{"reasoning": "...", "summarization": "..."}'
ANSWER = Answer("Likes quiet crime novels.", "Four of five.")


def reason_of(completion: Completion) -> str:
    with pytest.raises(InvalidAnswerError) as error:
        read_answer(completion)
    return str(error.value)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("<think>", "</think>"),
        ("<thinking>\n", "\n</thinking>\n\n"),
        ("<THINK>", "</THINK >"),
        ("<thought>", "</thought>"),
        ("<reasoning>", "</reasoning>"),
        ("<seed:think>", "</seed:think>"),
        ("<longcat_think>", "</longcat_think>"),
        ("<think_fast>", "</think_fast>"),
        ('<think effort="high">', "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<|begin_of_thought|>", "<|end_of_thought|>\n<|begin_of_solution|>"),
        ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
        ("◁think▷", "◁/think▷"),
        ("<|channel>thought\n", "<channel|>"),
        ("Here is my thought process: ", "Here is my response: "),
        ("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]\n"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        (
            "<|channel|>commentary<|message|>",
            "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>",
        ),
        ("analysisWe need JSON. ", "assistantfinal"),
    ],
)
@pytest.mark.parametrize("form", ["{0}", "```json\n{0}\n```\nAnything else?"])
def test_the_answer_comes_after_the_thinking(begin: str, end: str, form: str) -> None:
    """Also where the opening mark is missing; what is all thinking, or cut within it, is no answer."""
    answer = form.format(GOOD)
    assert read_answer(Completion(f"{begin}First: {DRAFT} {end}{answer}")) == ANSWER
    assert read_answer(Completion(f"First: {DRAFT} {end}{answer}")) == ANSWER
    assert read_answer(Completion(f"{begin}{FORM}{end}Hm.{end}{answer}")) == ANSWER
    assert "before the model's thinking came to an answer" in reason_of(Completion(f"{begin}First: {DRAFT}"))
    cut = reason_of(Completion(f"{begin}{DRAFT}", finish_reason="length"))
    assert cut == "it was cut at max_tokens before the model's thinking came to an answer"
    assert "no JSON object" in reason_of(Completion(f"{begin}{answer}{end}I cannot say."))


@pytest.mark.parametrize("text", [f"{GOOD}</think>\n", f"<think>{GOOD}</think>", f"{GOOD} <think>Or {DRAFT}"])
def test_nothing_after_the_thinking_is_no_answer(text: str) -> None:
    assert reason_of(Completion(text)) == "it ends before the model's thinking came to an answer"


@pytest.mark.parametrize(
    "text",
    [
        f"{DRAFT} No, better: {GOOD}",
        f"{GOOD}\nThis is the form {FORM} that was asked for.",
        f'{GOOD} {{"summarization": "<summary>", "reasoning": "<why>"}}',
        f'{GOOD} {{"summarization": "", "reasoning": ""}}',
        f'{GOOD} {{"summarization": "Your summary goes here.", "reasoning": "string"}}',
        f'{GOOD} {{"summarization": "The profile, in English, as plain running text of at most 100 words.", '
        '"reasoning": "in two to four sentences, which parts of the data led you to which conclusions"}}',
        f'{GOOD} {{"summarization": "Likes it", "reasoning": "…"}}',
        f"[{GOOD}]",
        f'{{"profiles": [{GOOD}]}}',
        f'Perhaps {{"oops: {{this}}? {GOOD}',
        f'{{"summarization": {GOOD}, "reasoning": 3}}',
        json.dumps(GOOD),
        json.dumps([GOOD]),
        f"```json\n{json.dumps(GOOD)}\n```",
        f'{GOOD[:-1]}, "more": [1, {{"a": null}}, -2.5e3],}}',
        GOOD.replace("summarization", r"summari\u007aation"),
        GOOD.replace("summarization", "Summarization").replace("reasoning", " REASONING\n"),
        f"<think></think>{GOOD}",
        f"<think/>{GOOD}",
        f"<answer>{GOOD}</answer>",
    ],
)
def test_the_last_whole_object_that_is_no_placeholder(text: str) -> None:
    assert read_answer(Completion(text)) == ANSWER


def test_marks_and_braces_within_the_answers_texts_are_text() -> None:
    profile = 'For fans of "{curly}" <think> tags, } and </think> or ```; [/THINK] <|channel|>analysis'
    text = json.dumps({"reasoning": "assistantfinal {", "summarization": profile})
    assert read_answer(Completion(f"<think>{DRAFT}</think>{text}")) == Answer(profile, "assistantfinal {")


@pytest.mark.parametrize("profile", ["...", "…", "<summary of the item>", "[profile]", "{{summary}}", "the summary"])
def test_a_placeholder_alone_is_no_answer(profile: str) -> None:
    text = json.dumps({"summarization": profile, "reasoning": "Four of five."})
    assert reason_of(Completion(text)) == f"'summarization' is a placeholder: {profile}"


def test_an_object_that_was_cut_does_not_leave_the_draft_before_it() -> None:
    assert reason_of(Completion(f"{DRAFT} {GOOD[:-9]}", finish_reason="length")) == "it was cut at max_tokens"
    assert reason_of(Completion(f'{DRAFT} {{"Reasoning": "Fou', finish_reason="length")) == "it was cut at max_tokens"
    assert read_answer(Completion(f"{GOOD} Anything el", finish_reason="length")) == ANSWER


@pytest.mark.parametrize("key", ["summary", "profile", "summarization_", "summari zation", r"summari\x7aation", ""])
def test_a_key_of_another_name_is_another_key(key: str) -> None:
    text = GOOD.replace("summarization", key)
    assert reason_of(Completion(text)) == "'summarization' and 'reasoning' are not both texts"


# ---------------------------------------------------------------------- where servers put it


def completion_of(finish_reason: str = "stop", **message: Any) -> Completion:
    return read_completion({"choices": [{"message": message, "finish_reason": finish_reason}]})


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "text", "text": GOOD[:20]}, {"type": "text", "text": GOOD[20:]}]},
        {"content": [{"type": "thinking", "text": DRAFT}, {"type": "text", "text": GOOD}, {"type": "reasoning"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": DRAFT}]}, {"text": GOOD}]},
        {"content": [GOOD]},
        {"content": None, "tool_calls": [{"function": {"name": "profile", "arguments": GOOD}}]},
        {"content": GOOD, "reasoning_content": DRAFT},
        {"content": None, "reasoning_content": GOOD},
        {"content": "\n", "reasoning": f"<think>{DRAFT}</think>```json\n{GOOD}\n```<|im_end|>"},
    ],
)
def test_the_fields_of_a_message(message: dict[str, Any]) -> None:
    assert read_answer(completion_of(**message)) == ANSWER


@pytest.mark.parametrize(
    ("finish_reason", "reasoning", "reason"),
    [
        ("stop", f"{DRAFT} No, that is wrong.", "goes on after its last JSON object, which may be a draft"),
        ("length", GOOD, "was cut at max_tokens"),
        ("stop", "I am not sure.", "holds no JSON object: I am not sure."),
    ],
)
def test_an_answer_that_is_all_reasoning_is_named(finish_reason: str, reasoning: str, reason: str) -> None:
    found = reason_of(completion_of(finish_reason, content="", reasoning_content=reasoning))
    assert found == f"it is empty, and what the server gives as reasoning {reason}"


# ---------------------------------------------------------------------- work, order, terminals

N = 100_000


@pytest.mark.parametrize(
    "text",
    [
        "[" * N,
        "{" * 6 * N,
        '{"' * 3 * N,
        '{"summarization":' + "[" * N + "]" * N + "}",
        '{"a":' * (N // 5),
        '{"a":' * (N // 5) + "1" + "}" * (N // 5),
        '{":":",' * (N // 5),
        '{"a":"' * (N // 5),
        '{"a":1 ' * (N // 5),
        '{"' + '\\"' * 3 * N,
        "{" + " " * 6 * N,
        " " * 6 * N,
        '["' + "\\\\" * 3 * N,
        "```" * 2 * N,
        "<think>" * N,
        "<" + "think_" * N,
        "</think>" * N + "{",
        "<|channel|>final" * N,
    ],
    ids=lambda text: text[:20],
)
def test_hostile_texts_take_linear_work(text: str) -> None:
    start = time.perf_counter()
    try:
        found = objects_of_answer(text, ["summarization"])
    except NothingButThinkingError:
        found = []
    assert [each.text_of("summarization") for each in found if each.values] in ([], [None])
    assert time.perf_counter() - start < 5, "quadratic work would take minutes"


def test_more_than_a_model_writes_is_not_searched() -> None:
    assert "more than 1000000" in reason_of(Completion(GOOD + " " * MAX_ANSWER_CHARACTERS))


def test_the_reasoning_comes_first_wherever_the_form_is_given() -> None:
    assert list(SCHEMA["properties"]) == SCHEMA["required"] == ["reasoning", "summarization"]
    assert 0 < FORMAT_INSTRUCTION.index("reasoning") < FORMAT_INSTRUCTION.index("summarization")


def test_a_profile_keeps_no_control_characters() -> None:
    text = "A \x1b[31mred\x1b[0m\x07 map,\r\n\x1b]0;title\x07two\tlines\x00 \x9b1mé\x85 \x7f👩‍🚀"
    answer = read_answer(Completion(json.dumps({"summarization": text, "reasoning": "\x1bc"})))
    assert answer == Answer("A red map,\ntwo\tlines é 👩‍🚀", "c")


def test_what_is_shown_of_an_answer_cannot_move_the_cursor() -> None:
    assert reason_of(Completion("\x1b[2Jno\u202e")) == r"it holds no JSON object: \x1b[2Jno\u202e"
    with pytest.raises(RefusedError, match=r"^refused: \\x1b\]0;x\\x07No\.$"):
        read_answer(Completion("", refusal="\x1b]0;x\x07No."))
