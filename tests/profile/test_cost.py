"""Prices, running totals and budgets, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.profile.cost import Meter, Prices, shown_cost


def test_cost() -> None:
    prices = Prices(0.15, 0.6)
    assert prices.known
    assert prices.cost(2_000_000, 500_000) == pytest.approx(0.30 + 0.30)
    assert prices.halved() == Prices(0.075, 0.3)
    assert prices.cost(0, 0) == 0


def test_unknown_prices() -> None:
    assert not Prices().known
    assert Prices().cost(1, 1) is None
    assert Prices().halved().cost(1, 1) is None
    assert Meter(Prices()).cost is None


@pytest.mark.parametrize("prices", [(-1, 1), (1, float("nan")), (float("inf"), 1), (1, None), (None, 1)])
def test_prices_out_of_range(prices: Any) -> None:
    with pytest.raises(SettingError, match="price"):
        Prices(*prices)


def test_budget_needs_prices() -> None:
    with pytest.raises(SettingError, match="give input_price and output_price"):
        Meter(Prices(), 1.0)
    for budget in (-1.0, float("nan")):
        with pytest.raises(SettingError, match="expected US dollars"):
            Meter(Prices(1, 1), budget)


def test_meter() -> None:
    meter = Meter(Prices(1_000_000, 2_000_000), budget=100)  # a dollar a token sent, two a token written
    assert not meter.has_reserved
    assert meter.reserve(20, 20)  # 60
    assert meter.has_reserved
    assert not meter.reserve(1, 20)  # 41 more
    assert meter.reserve(0, 20)  # 40 more, just enough
    meter.release(20, 20)
    meter.spend(15, 5)  # 25 instead of 60
    assert meter.cost == 25
    assert meter.reserve(35, 0)
    assert not meter.reserve(1, 0)
    meter.release(35, 0)
    meter.release(0, 20)
    assert not meter.has_reserved
    assert not meter.estimated
    meter.spend(1, 1, estimated=True)
    assert (meter.input_tokens, meter.output_tokens, meter.estimated) == (16, 6, True)


def test_without_a_budget_all_may_be_spent() -> None:
    assert Meter(Prices()).reserve(10**9, 10**9)


@pytest.mark.parametrize(
    ("cost", "text"), [(0.0, "$0.0000"), (0.01234, "$0.0123"), (12.345, "$12.35"), (None, "unknown")]
)
def test_shown_cost(cost: Any, text: str) -> None:
    assert shown_cost(cost).startswith(text)
