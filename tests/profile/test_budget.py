"""The estimate of lengths, and that texts share a budget fairly."""

from __future__ import annotations

import random

import pytest

from recbole_rlmrec.profile.budget import cut, cut_fairly, estimate_tokens, fair_allowances


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("four", 1),
        ("eight ch", 2),
        ("eight cha", 3),
        ("ABCD", 2),
        ("1234", 3),
        ("....", 3),
        ("éééé", 6),
        ("игра", 2),
        ("好看的书", 4),
        ("😍", 3),
        ("\ud800", 1),
    ],
)
def test_estimate(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def slow_allowances(lengths: list[int], budget: int) -> list[int]:
    """Raise the level of everyone by one as long as the budget lasts."""
    level = 0
    while level < max(lengths, default=0) and sum(min(length, level + 1) for length in lengths) <= budget:
        level += 1
    return [min(length, level) for length in lengths]


def test_allowances_are_those_of_the_slow_way() -> None:
    draw = random.Random(5)
    for _ in range(500):
        lengths = [draw.choice([0, draw.randrange(6), draw.randrange(60)]) for _ in range(draw.randrange(8))]
        budget = draw.randrange(120)
        allowed = fair_allowances(lengths, budget)
        assert allowed == slow_allowances(lengths, budget)
        # Whoever is cut has no less than anybody else.
        assert all(mine >= max(allowed) for mine, length in zip(allowed, lengths) if mine < length)


@pytest.mark.parametrize(
    ("lengths", "budget", "allowed"),
    [
        ([10, 2, 7], 100, [10, 2, 7]),
        ([10, 2, 7], 19, [10, 2, 7]),
        ([10, 2, 7], 18, [9, 2, 7]),
        ([10, 2, 7], 12, [5, 2, 5]),
        ([10, 2, 7], 5, [1, 1, 1]),
        ([10, 2, 7], 2, [0, 0, 0]),
        ([], 5, []),
    ],
)
def test_allowances(lengths: list[int], budget: int, allowed: list[int]) -> None:
    assert fair_allowances(lengths, budget) == allowed


@pytest.mark.parametrize(
    ("text", "tokens", "shortened"),
    [
        ("one two three", 4, "one two three"),
        ("one two three", 3, "one two…"),  # eight quarters besides the ellipsis: "one two " fits exactly
        ("one two three", 2, "one…"),
        ("one, two three", 3, "one…"),
        ("one two three", 1, ""),
        ("one two three", 0, ""),
        ("extraordinary", 3, "extraord…"),  # no word ends there
        ("a extraordinary", 3, "a extrao…"),  # nor near enough
        ("这本书非常好看", 4, "这本书…"),
    ],
)
def test_cut(text: str, tokens: int, shortened: str) -> None:
    assert cut(text, tokens) == shortened


def test_what_is_cut_fits_and_begins_like_the_text() -> None:
    draw = random.Random(7)
    for _ in range(300):
        text = "".join(draw.choice('abc de. "\\Ée好😍9\n') for _ in range(draw.randrange(80)))
        tokens = draw.randrange(30)
        shortened = cut(text, tokens)
        assert estimate_tokens(shortened) <= tokens
        assert shortened == text or text.startswith(shortened.rstrip("…"))


def test_texts_are_cut_to_one_level_within_the_budget() -> None:
    draw = random.Random(9)
    for _ in range(200):
        texts = [" ".join("word" for _ in range(draw.randrange(40))) for _ in range(draw.randrange(1, 6))]
        budget = draw.randrange(80)
        shortened = cut_fairly(texts, budget)
        lengths = [estimate_tokens(text) for text in texts]
        level = max(slow_allowances(lengths, budget))
        assert sum(map(estimate_tokens, shortened)) <= budget
        for text, short, length in zip(texts, shortened, lengths):
            assert (short == text) == (length <= level or text == "")
    assert cut_fairly(["some text"], -3) == [""]
