"""Counters of a service in the text format of Prometheus."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import Counter

#: Upper bounds of the classes of the histogram of times, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_PREFIX = "recbole_rlmrec"


class Metrics:
    """Counts requests, their times, batches and checkpoints of one process; every thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._times = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._batches = self._batched = 0
        self._reloads: Counter[str] = Counter()

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        with self._lock:
            self._requests[path, status] += 1
            self._times[bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds

    def count_batch(self, size: int) -> None:
        """Count requests that were computed together."""
        with self._lock:
            self._batches += 1
            self._batched += size

    def count_reload(self, outcome: str) -> None:
        """Count a newer checkpoint that was ``loaded`` or ``refused``."""
        with self._lock:
            self._reloads[outcome] += 1

    def text(self) -> str:
        """Return all counters, labelled with the number of the process: each worker has its own."""
        worker = f'worker="{os.getpid()}"'
        with self._lock:
            lines = _head("requests_total", "counter", "Answers by path and status.")
            lines += [
                f'{_PREFIX}_requests_total{{{worker},path="{path}",status="{status}"}} {number}'
                for (path, status), number in sorted(self._requests.items())
            ]
            lines += _head("request_seconds", "histogram", "Time from the request's head to the answer.")
            total = 0
            for bound, number in zip((*map(str, BUCKETS), "+Inf"), self._times):
                total += number
                lines.append(f'{_PREFIX}_request_seconds_bucket{{{worker},le="{bound}"}} {total}')
            lines.append(f"{_PREFIX}_request_seconds_sum{{{worker}}} {self._seconds:.6f}")
            lines.append(f"{_PREFIX}_request_seconds_count{{{worker}}} {total}")
            lines += _head("batches_total", "counter", "Calls of the model.")
            lines.append(f"{_PREFIX}_batches_total{{{worker}}} {self._batches}")
            lines += _head("batched_requests_total", "counter", "Requests in these calls.")
            lines.append(f"{_PREFIX}_batched_requests_total{{{worker}}} {self._batched}")
            lines += _head("reloads_total", "counter", "Newer checkpoints, loaded or refused.")
            for outcome in ("loaded", "refused"):
                lines.append(f'{_PREFIX}_reloads_total{{{worker},outcome="{outcome}"}} {self._reloads[outcome]}')
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {_PREFIX}_{name} {meaning}", f"# TYPE {_PREFIX}_{name} {kind}"]
