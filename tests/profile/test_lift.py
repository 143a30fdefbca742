"""What sets users and audiences apart, against a slow count by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from recbole_rlmrec.profile import lift
from recbole_rlmrec.profile.lift import Choices

LIMIT = 4


def world(seed: int) -> tuple[list[tuple[str, str]], list[str], list[str], dict[str, list[str]]]:
    """Users with tastes: an item's first value decides how likely a user takes it."""
    draw = random.Random(seed)
    users, items = [f"u{number}" for number in range(20)], [f"i{number}" for number in range(30)]
    values = {item: draw.sample("abcdef", draw.randrange(4)) for item in items}
    tastes = {user: draw.choice("abcdef") for user in users}
    pairs = [
        (user, item)
        for user in users
        for item in items
        if draw.random() < (0.8 if tastes[user] in values[item] else 0.15)
    ]
    return [*pairs, *pairs[:7], ("u0", "stranger")], users, items, values


def best(counts: Counter[str], expected: dict[str, float], least: int) -> list[str]:
    """The highest lifts, spelled out."""
    lifts = {value: (counts[value] + 5) / (expected[value] + 5) for value in counts if counts[value] >= least}
    return sorted((v for v in lifts if lifts[v] > 1 + 1e-9), key=lambda v: (-lifts[v], -counts[v], v))[:LIMIT]


@pytest.mark.parametrize("seed", range(3))
def test_lift_against_a_slow_count(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lift, "_ROWS", 7)  # several blocks, the last one smaller
    monkeypatch.setattr(lift, "_LONGEST_HISTORY", 11)
    pairs, users, items, values = world(seed)
    choices = Choices(pairs, users, items)
    choices.count_values("kind", values)

    taken: dict[str, set[str]] = {user: {i for u, i in pairs if u == user and i in items} for user in users}
    everything = [item for user in users for item in taken[user]]

    def count(chosen: Sequence[str]) -> Counter[str]:
        return Counter(value for item in chosen for value in values[item])

    share = {value: n / len(everything) for value, n in count(everything).items()}
    expected_users = {}
    for user in users:
        expected = {value: len(taken[user]) * share[value] for value in share}
        found = best(count(sorted(taken[user])), expected, least=1)
        if found:
            expected_users[user] = {"kind": found}
    assert choices.of_users(LIMIT) == expected_users and len(expected_users) > 15
    assert choices.popularity() == {item: everything.count(item) for item in items}

    light = {user: taken[user] for user in users if len(taken[user]) <= 11}
    assert 5 < len(light) < len(users)
    known = [item for user in light for item in light[user]]
    share = {value: n / len(known) for value, n in count(known).items()}
    kinds, others = {}, {}
    for item in items:
        besides = [other for user in light if item in light[user] for other in sorted(light[user] - {item})]
        kinds[item] = best(count(besides), {value: len(besides) * share[value] for value in share}, least=2)
        named = Counter(other for other in besides if other != "i3")
        popularity = {other: len(besides) * known.count(other) / len(known) for other in named}
        others[item] = best(named, popularity, least=2)
    found = choices.of_audiences(LIMIT, is_shown=lambda token: token != "i3")
    assert {item: audience.values["kind"] for item, audience in found.items() if audience.values} == {
        item: kind for item, kind in kinds.items() if kind
    }
    assert {item: audience.items for item, audience in found.items() if audience.items} == {
        item: other for item, other in others.items() if other
    }
    assert sum(map(bool, others.values())) > 10


def test_what_everybody_chooses_is_nobodys_taste() -> None:
    pairs = [(f"u{user}", item) for user in range(9) for item in ("hit", f"niche{user % 3}")]
    items = sorted({item for _, item in pairs})
    choices = Choices(pairs, {user for user, _ in pairs}, items)
    choices.count_values("kind", {item: ["any", item] for item in items})
    found = choices.of_users(LIMIT)
    assert {user: found[user]["kind"] for user in ("u0", "u1")} == {"u0": ["niche0"], "u1": ["niche1"]}


def test_nothing_to_count() -> None:
    choices = Choices([], ["u"], ["i"])
    choices.count_values("kind", {})
    assert (choices.of_users(LIMIT), choices.of_audiences(LIMIT, is_shown=bool)) == ({}, {})
    assert choices.popularity() == {"i": 0}
