"""Whether two models differ, by the values that a metric has for each user with each of several seeds.

Two things are drawn by chance: the users who happen to be tested, and the random numbers of a training. A test over the
users takes the trainings for granted, and so finds differences between two seeds of the same model; a test over seeds
takes the users for granted. :func:`crossed_test` takes both as drawn: differences are modelled as

    d[s, u] = mean + user[u] + seed[s] + rest[s, u],

with random effects of variances V_u, V_s and V_r. The mean of all has the variance V_u / U + V_s / S + V_r / (S U),
which the mean squares of a two-way analysis of variance estimate: (MS_u + MS_s - MS_r) / (S U). Degrees of freedom are
Satterthwaite's (Biometrics Bulletin 2, 1946), as in Clark's quasi-F for experiments with two random factors (Journal of
Verbal Learning and Verbal Behavior 12, 1973).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from recbole_rlmrec.errors import DataError

#: Of an interval, and of what is called significant.
LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """What a test finds of differences.

    Attributes:
        mean: of the differences.
        low: of its 95 % confidence interval.
        high: of the same.
        p_value: of the null hypothesis that the mean is 0, two-sided.
    """

    mean: float
    low: float
    high: float
    p_value: float


def crossed_test(differences: np.ndarray) -> Difference:
    """Test whether the mean of differences is 0, where users and seeds are both drawn by chance.

    Args:
        differences: ``[seeds, users]``, two of each at least.

    Raises:
        DataError: there are fewer, or one is no number.
    """
    table = _checked(differences, least_seeds=2)
    n_seeds, n_users = table.shape
    mean, of_users, of_seeds = table.mean(), table.mean(axis=0), table.mean(axis=1)
    rest = table - of_users - of_seeds[:, None] + mean
    squares = n_seeds * of_users.var(ddof=1), n_users * of_seeds.var(ddof=1)
    rest_freedom = (n_seeds - 1) * (n_users - 1)
    of_rest = (rest**2).sum() / rest_freedom
    if squares[1] > of_rest:
        total = squares[0] + squares[1] - of_rest
        parts = ((squares[0], n_users - 1), (squares[1], n_seeds - 1), (of_rest, rest_freedom))
        freedom = total**2 / sum(square**2 / each for square, each in parts)
    else:  # the seeds differ by no more than the rest does: their variance is estimated as 0, never below
        total, freedom = squares[0], n_users - 1
    return _difference(float(mean), float(np.sqrt(total / (n_seeds * n_users))), float(freedom))


def users_test(differences: np.ndarray) -> Difference:
    """Test the mean over the users of what each has on average over the seeds: a paired t-test over users.

    It takes the trainings for granted: two seeds of the same model differ by it more often than one in twenty times.

    Args:
        differences: ``[seeds, users]``.

    Raises:
        DataError: there are fewer than two users, or one is no number.
    """
    return _t_test(_checked(differences).mean(axis=0))


def seeds_test(differences: np.ndarray) -> Difference:
    """Test the mean over the seeds of what each has on average over the users: a paired t-test over seeds.

    Args:
        differences: ``[seeds, users]``.

    Raises:
        DataError: there are fewer than two seeds, or one is no number.
    """
    return _t_test(_checked(differences, least_seeds=2).mean(axis=1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    n = len(order)
    corrected = np.minimum(np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * np.arange(n, 0, -1)), 1.0)
    found = np.empty(n)
    found[order] = corrected
    return [float(each) for each in found]


def _checked(differences: np.ndarray, least_seeds: int = 1) -> np.ndarray:
    table = np.asarray(differences, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < least_seeds or table.shape[1] < 2:
        raise DataError(
            f"Differences of the shape {list(table.shape)}, expected [seeds, users] with {least_seeds} seed"
            f"{'s' if least_seeds > 1 else ''} and two users at least."
        )
    if not np.isfinite(table).all():
        raise DataError("A difference is no number: a metric of a user is missing.")
    return table


def _t_test(values: np.ndarray) -> Difference:
    return _difference(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), len(values) - 1)


def _difference(mean: float, error: float, freedom: float) -> Difference:
    if error == 0:  # nobody differs, or all do by the same
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    reach = float(scipy.stats.t.ppf(1 - LEVEL / 2, freedom)) * error
    return Difference(mean, mean - reach, mean + reach, float(2 * scipy.stats.t.sf(abs(mean) / error, freedom)))
