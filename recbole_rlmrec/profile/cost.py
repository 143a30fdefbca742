"""What asking a language model costs: prices come from the user, because a table of them would age."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recbole_rlmrec.errors import SettingError

_PER_MILLION = 1_000_000


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens; None where the user gave no price.

    Attributes:
        input: of what is sent.
        output: of what the model writes.
    """

    input: float | None = None
    output: float | None = None

    def __post_init__(self) -> None:
        for name, price in (("input_price", self.input), ("output_price", self.output)):
            if price is not None and not (math.isfinite(price) and price >= 0):
                raise SettingError(f"{name} is {price}; expected US dollars per million tokens, 0 or more.")
        if (self.input is None) != (self.output is None):
            raise SettingError("Of input_price and output_price only one is given; give both, or neither.")

    @property
    def known(self) -> bool:
        """Whether costs can be stated."""
        return self.input is not None

    def cost(self, input_tokens: int, output_tokens: int) -> float | None:
        """Return US dollars, or None without prices.

        >>> Prices(input=2.0, output=8.0).cost(1_000_000, 500_000), Prices().cost(1_000_000, 500_000)
        (6.0, None)
        """
        if self.input is None or self.output is None:
            return None
        return (input_tokens * self.input + output_tokens * self.output) / _PER_MILLION

    def halved(self) -> Prices:
        """Return the prices of the Batch API."""
        if self.input is None or self.output is None:
            return self
        return Prices(self.input / 2, self.output / 2)


class Meter:
    """Running totals of a run, and the budget.

    Args:
        prices: of the model.
        budget: US dollars that the run may cost; None for no bound.

    Raises:
        SettingError: there is a budget without prices, or it is negative.
    """

    def __init__(self, prices: Prices, budget: float | None = None) -> None:
        if budget is not None and not prices.known:
            raise SettingError(
                "A budget needs prices: give input_price and output_price, in US dollars per million tokens, as the "
                "model's provider lists them."
            )
        if budget is not None and not budget >= 0:
            raise SettingError(f"The budget is {budget}; expected US dollars, 0 or more.")
        self.prices = prices
        self.budget = budget
        self.input_tokens = 0
        self.output_tokens = 0
        self.estimated = False
        self._reserved_input = 0
        self._reserved_output = 0

    @property
    def cost(self) -> float | None:
        """US dollars spent so far, or None without prices."""
        return self.prices.cost(self.input_tokens, self.output_tokens)

    @property
    def has_reserved(self) -> bool:
        """Whether a request is in flight."""
        return self._reserved_input + self._reserved_output > 0

    def reserve(self, input_tokens: int, output_tokens: int) -> bool:
        """Set aside what a request may take at most; return False if the budget does not have it.

        Args:
            input_tokens: estimated.
            output_tokens: the most that the model may write.
        """
        if self.budget is not None:
            total = self.prices.cost(
                self.input_tokens + self._reserved_input + input_tokens,
                self.output_tokens + self._reserved_output + output_tokens,
            )
            if total is not None and total > self.budget:
                return False
        self._reserved_input += input_tokens
        self._reserved_output += output_tokens
        return True

    def release(self, input_tokens: int, output_tokens: int) -> None:
        """Give back what was set aside for a request that ended."""
        self._reserved_input -= input_tokens
        self._reserved_output -= output_tokens

    def spend(self, input_tokens: int, output_tokens: int, *, estimated: bool = False) -> None:
        """Count what an answer took, by the server's own count or, without one, by an estimate."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.estimated = self.estimated or estimated


def shown_cost(cost: float | None) -> str:
    """Return a cost for people: more digits for less money.

    >>> shown_cost(12.345678), shown_cost(0.0123456)
    ('$12.35', '$0.0123')
    """
    if cost is None:
        return "unknown (give input_price and output_price)"
    return f"${cost:.2f}" if cost >= 1 else f"${cost:.4f}"
