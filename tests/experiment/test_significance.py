"""Tests of differences against SciPy, against slow sums, and on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.experiment.significance import Difference, crossed_test, holm, seeds_test, users_test

#: Recorded of LightGCN_RLMRecCon beside LightGCN on Steam (results/steam-tuned): users; the standard deviation of a
#: user's difference in Recall@20 with one seed, from the 95 % interval of seed 2024 (+.0017 to +.0079); and that of the
#: seeds' means, from the runs of 2023 to 2025 (+.0065, +.0048, +.0061). What part of a user's difference is the same
#: with every seed is not recorded.
USERS, SINGLE, SEED = 17_038, 0.206, 0.0009


def drawn(
    rng: np.random.Generator, seeds: int, users: int, user: float, seed: float, rest: float, mean: float = 0.0
) -> np.ndarray:
    """Differences of models that differ by ``mean`` on average over all users and seeds that could be drawn."""
    return (
        mean + rng.normal(0, user, (1, users)) + rng.normal(0, seed, (seeds, 1)) + rng.normal(0, rest, (seeds, users))
    )


def test_tests_over_one_of_the_two_are_scipys() -> None:
    table = drawn(np.random.default_rng(1), 4, 50, 0.1, 0.05, 0.2, mean=0.1)
    for found, values in ((users_test(table), table.mean(axis=0)), (seeds_test(table), table.mean(axis=1))):
        expected = scipy.stats.ttest_1samp(values, 0)
        low, high = expected.confidence_interval()
        assert found == Difference(
            pytest.approx(values.mean()), pytest.approx(low), pytest.approx(high), pytest.approx(expected.pvalue)
        )


def test_the_test_over_both_is_its_formula() -> None:
    table = drawn(np.random.default_rng(2), 3, 20, 0.1, 0.1, 0.1, mean=0.05)
    n_seeds, n_users = table.shape
    squares = {"users": 0.0, "seeds": 0.0, "rest": 0.0}
    for seed in range(n_seeds):
        for user in range(n_users):
            of_user, of_seed = table[:, user].mean(), table[seed].mean()
            squares["users"] += (of_user - table.mean()) ** 2
            squares["seeds"] += (of_seed - table.mean()) ** 2
            squares["rest"] += (table[seed, user] - of_user - of_seed + table.mean()) ** 2
    freedom = {"users": n_users - 1, "seeds": n_seeds - 1, "rest": (n_users - 1) * (n_seeds - 1)}
    mean_squares = {name: squares[name] / freedom[name] for name in squares}
    total = mean_squares["users"] + mean_squares["seeds"] - mean_squares["rest"]
    degrees = total**2 / sum(mean_squares[name] ** 2 / freedom[name] for name in squares)
    t = table.mean() / np.sqrt(total / (n_seeds * n_users))
    found = crossed_test(table)
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(t), degrees))
    assert found.low < table.mean() < found.high
    assert found.high - found.mean == pytest.approx(scipy.stats.t.ppf(0.975, degrees) * table.mean() / t)


def test_seeds_that_differ_less_than_the_rest_leave_the_test_over_users() -> None:
    table = drawn(np.random.default_rng(3), 3, 40, 0.3, 0.0, 0.1)
    table -= table.mean(axis=1, keepdims=True) - table.mean()
    found, expected = crossed_test(table), users_test(table)
    assert (found.p_value, found.low) == (pytest.approx(expected.p_value), pytest.approx(expected.low))


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("same", [0.05, 0.5])
def test_a_true_null_is_rejected_in_one_of_twenty_cases(seeds: int, same: float) -> None:
    """At the sizes recorded on Steam: within the 99 % binomial interval of 5 % of 400 trials.

    ``same`` is the share of the variance of users' differences that is the same with every seed.
    """
    rng, users = np.random.default_rng(seeds), 1000
    scale = SINGLE * (users / USERS) ** 0.5  # fewer users, so that it is quick; their means vary as those of all do
    tables = [drawn(rng, seeds, users, scale * same**0.5, SEED, scale * (1 - same) ** 0.5) for _ in range(400)]
    share = np.mean([crossed_test(table).p_value < 0.05 for table in tables])
    assert 0.022 <= share <= 0.078
    # The users' test takes the trainings for granted.
    assert np.mean([users_test(table).p_value < 0.05 for table in tables]) > share


def test_a_difference_is_found() -> None:
    table = drawn(np.random.default_rng(5), 5, USERS, SINGLE / 2, SEED, SINGLE, mean=0.008)
    assert crossed_test(table).p_value < 0.001


def test_nobody_differs() -> None:
    assert crossed_test(np.zeros((2, 3))) == Difference(0.0, 0.0, 0.0, 1.0)
    assert users_test(np.full((1, 3), 0.5)).p_value == 0.0


@pytest.mark.parametrize("n", [1, 2, 7])
def test_holm_is_its_definition(n: int) -> None:
    p_values = np.random.default_rng(n).uniform(0, 0.2, n)
    expected = []
    for p in p_values:
        smaller = [q for q in p_values if q <= p]
        expected.append(min(1.0, max((n - np.sum(p_values < q)) * q for q in smaller)))
    assert holm(p_values.tolist()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((1, 5)), r"shape \[1, 5\], expected .* 2 seeds and two users"),
        (np.zeros((3, 1)), r"shape \[3, 1\]"),
        (np.full((2, 2), np.nan), "no number"),
    ],
)
def test_what_cannot_be_tested(table: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        crossed_test(table)
