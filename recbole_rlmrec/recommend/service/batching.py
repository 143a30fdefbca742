"""One thread that uses the model: what waits for it together is computed together."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from recbole_rlmrec.recommend.service.metrics import Metrics

#: So many requests are computed together at most.
MOST_TOGETHER = 256

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class _Job:
    """A request that waits.

    Attributes:
        key: requests of equal keys are one call of their work.
        work: takes the arguments, each once, and returns what was found of each, or the error of it alone.
        argument: of this request.
        future: gets what was found.
    """

    key: Hashable
    work: Callable[[Sequence[Any]], Mapping[Any, Any]]
    argument: Hashable
    future: Future[Any] = field(default_factory=Future)


class Batcher:
    """Does work in a thread of its own, in the order in which it comes.

    While the model computes, requests gather; then all of them are computed together. A request that comes alone does
    not wait for others.

    Args:
        metrics: counts the batches.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recommender", daemon=True)
        self._thread.start()

    async def together(
        self, key: Hashable, work: Callable[[Sequence[Any]], Mapping[Any, _Found]], argument: Hashable
    ) -> _Found:
        """Return what the work finds of an argument; requests of the same key share one call of the work.

        Raises:
            Exception: what the work raises.
        """
        job = _Job(key, work, argument)
        self._jobs.put(job)
        found: _Found = await asyncio.wrap_future(job.future)
        return found

    async def alone(self, work: Callable[[], _Found]) -> _Found:
        """Return what a function returns that is called between the batches.

        Raises:
            Exception: what the function raises.
        """
        return await self.together(object(), lambda _: {None: work()}, None)

    def close(self) -> None:
        """Do what waits, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            jobs = [self._jobs.get()]
            while len(jobs) < MOST_TOGETHER and jobs[-1] is not None and not self._jobs.empty():
                jobs.append(self._jobs.get())
            is_open = jobs[-1] is not None
            groups: dict[Hashable, list[_Job]] = {}
            for job in jobs:
                # A client that has gone needs no answer.
                if job is not None and job.future.set_running_or_notify_cancel():
                    groups.setdefault(job.key, []).append(job)
            for group in groups.values():
                self._metrics.count_batch(len(group))
                _do(group)


def _do(jobs: Sequence[_Job]) -> None:
    try:
        found = jobs[0].work(list(dict.fromkeys(job.argument for job in jobs)))
        answers = [found[job.argument] for job in jobs]
    except Exception as error:  # whatever a model raises is that request's, and not the thread's end
        for job in jobs:
            job.future.set_exception(error)
    else:
        for job, answer in zip(jobs, answers):
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)
