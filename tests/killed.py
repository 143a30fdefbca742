"""A process that is killed while it gives files their names."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def killed_at_rename(number: int, work: Callable[[], Any]) -> None:
    """Do some work in a process that ends, as if it were killed, instead of its rename of a number, from 1 on."""
    process = os.fork()
    if process == 0:
        replace, calls = os.replace, []

        def replace_or_die(source: Any, target: Any) -> None:
            calls.append(target)
            if len(calls) == number:
                os._exit(9)
            replace(source, target)

        os.replace = replace_or_die
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9, "the work ended before that rename"
