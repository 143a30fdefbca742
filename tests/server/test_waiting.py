"""Waits that servers ask for, in every place where they do."""

from __future__ import annotations

import email.utils
import time

import pytest

from recbole_rlmrec.server.waiting import asked_wait


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after-ms": "250"}, "", 0.25),
        ({"retry-after": "12"}, "try again in 3s", 12.0),
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after": "-3"}, "", None),
        ({"retry-after": "NaN"}, "", None),
        ({"retry-after": "1e400"}, "", None),
        ({"retry-after": "soon"}, "", None),
        ({"x-ratelimit-reset-requests": "6m0s"}, "", 360.0),
        ({"x-ratelimit-reset-tokens": "120ms", "x-ratelimit-remaining-tokens": "5"}, "", None),
        ({"x-ratelimit-reset-tokens": "120ms", "x-ratelimit-remaining-tokens": "0"}, "", 0.12),
        ({"ratelimit-reset": "30"}, "", 30.0),
        ({"ratelimit": '"default";r=0;t=40'}, "", 40.0),
        ({"x-ratelimit-reset": "x"}, "", None),
        ({}, "Rate limit reached. Please try again in 1.2s.", 1.2),
        ({}, "retryDelay: 34s", 34.0),
        ({}, "Please try again in 20ms", 0.02),
        ({}, "Please try again in 500 milliseconds.", 0.5),
        ({}, "Please try again in 1m30s. Visit our site.", 90.0),
        ({}, "Try again in 2 hours", 7200.0),
        ({}, "Retry after 1 minute and 5 seconds", 65.0),
        ({}, "Retry 3 times.", None),
        ({}, "try again in " + "9" * 400 + "s", None),
        ({}, "No.", None),
    ],
)
def test_waits(headers: dict[str, str], message: str, seconds: float | None) -> None:
    assert asked_wait(headers, message) == (None if seconds is None else pytest.approx(seconds))


def test_moments() -> None:
    moment = time.time() + 30
    for headers in (
        {"x-ratelimit-reset": f"{moment}"},
        {"x-ratelimit-reset": f"{1000 * moment:.0f}"},
        {"retry-after": email.utils.formatdate(moment, usegmt=True)},
    ):
        assert asked_wait(headers, "") == pytest.approx(30, abs=2)
    assert asked_wait({"retry-after": email.utils.formatdate(0)}, "") == 0
