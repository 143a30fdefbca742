"""The two sides of a dataset: users and items."""

from __future__ import annotations

from typing import Literal

Side = Literal["user", "item"]
SIDES: tuple[Side, ...] = ("user", "item")
