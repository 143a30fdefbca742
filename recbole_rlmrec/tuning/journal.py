"""What a search leaves in its folder: conditions, trials, the best settings and weights. A stopped search goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.files import atomic_path, open_no_link, try_lock
from recbole_rlmrec.reading.documents import Format, parse_json
from recbole_rlmrec.reading.shape import AtLeast, Count, value_of
from recbole_rlmrec.tuning.space import key_of

#: Of the trials that run; whatever is in a folder of this name is this package's, and is removed in the end.
_CHECKPOINTS = ".checkpoints-of-trials"


@dataclass(frozen=True)
class Point:
    """A validation with a better score than those before it.

    Attributes:
        steps: training steps up to it.
        score: the ``valid_metric``.
    """

    steps: Count
    score: float


@dataclass(frozen=True)
class Pruned:
    """Where a trial was ended because it lay behind others.

    Attributes:
        epoch: the last one, counted from 0.
        steps: training steps up to there.
        score: the best ``valid_metric`` up to there.
    """

    epoch: Count
    steps: Count
    score: float


@dataclass(frozen=True)
class Trial:
    """One training of a search and what came of it.

    Attributes:
        number: counted from 1.
        parameters: what the search chose.
        settings: what the user or the search set to something else than the defaults; empty unless it finished.
        score: the ``valid_metric`` at the best epoch; None unless it finished.
        best_epoch: counted from 0.
        valid_result: all metrics on the validation split at that epoch.
        test_result: all metrics on the test split with that epoch's weights; no choice is made by them.
        seconds: wall-clock time, loading of data included.
        error: why the trial failed.
        pruned: where it was ended, if it was.
        curve: how its best score grew, for trials that are compared by it.
    """

    number: Annotated[int, AtLeast(1)]
    parameters: dict[str, Any]
    seconds: Annotated[float, AtLeast(0)]
    settings: dict[str, Any]
    score: float | None = None
    best_epoch: Count | None = None
    valid_result: dict[str, float] | None = None
    test_result: dict[str, float] | None = None
    error: str | None = None
    pruned: Pruned | None = None
    curve: list[Point] | None = None

    @property
    def key(self) -> str:
        """A text that trials of the same parameters share."""
        return key_of(self.parameters)


_TRIALS = Format("record of a trial", "Remove the line, or the folder.", longest_line=2**20)
_CONDITIONS = Format("record of a search's conditions", "Remove the folder.")


class Journal:
    """The folder of one search.

    ``conditions.json`` says what was searched how; ``trials.jsonl`` holds one finished trial a line, and is only
    appended to; ``best.yaml`` and ``best.pth`` are the best one's settings and checkpoint.

    Args:
        folder: made if missing.
        conditions: what must be the same when a search goes on; plain values.
        is_bigger_better: of the score.
        check_parameters: raises a ValueError, whose message is a clause, for parameters that no trial can have.

    Raises:
        SettingError: the folder holds a search under other conditions, or one that is running.
        DataError: a record is damaged.
    """

    def __init__(
        self,
        folder: Path,
        conditions: Mapping[str, Any],
        *,
        is_bigger_better: bool = True,
        check_parameters: Callable[[Mapping[str, Any]], object] = key_of,
    ) -> None:
        self.folder = folder
        self._check_parameters = check_parameters
        self.trials: list[Trial] = []
        self._is_bigger_better = is_bigger_better
        self._conditions = json.loads(json.dumps(conditions))

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the folder while the context lasts, with the trials recorded before in ``trials``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Not emptied: whatever is in a file of this name stays.
        with open(self.folder / "lock", "a", opener=open_no_link) as lock:
            if not try_lock(lock.fileno()):
                raise SettingError(f"Another search is running in '{self.folder}'. Give --tune_output=FOLDER.")
            self._check_conditions()
            self.trials = self._read()
            self.drop_leftovers()
            yield
            self.drop_leftovers()

    @property
    def best(self) -> Trial | None:
        """The trial of the best score, the first of several; None while none succeeded."""
        done = [trial for trial in sorted(self.trials, key=lambda trial: trial.number) if trial.score is not None]
        return max(done, key=lambda trial: self.gain(trial.score), default=None)

    def free_number(self, running: Collection[int] = ()) -> int:
        """Return the least number of a trial that neither is recorded nor runs: a killed search may leave gaps."""
        used = {trial.number for trial in self.trials}.union(running)
        return next(number for number in range(1, len(used) + 2) if number not in used)

    def gain(self, score: float | None) -> float:
        """Return a score so that more is better."""
        if score is None:
            return -float("inf")
        return score if self._is_bigger_better else -score

    def checkpoint_folder(self, number: int) -> Path:
        """Return where a trial leaves its checkpoint."""
        return self.folder / _CHECKPOINTS / str(number)

    def add(self, trial: Trial, checkpoint: str | None = None) -> None:
        """Record a finished trial; keep its checkpoint if it is the best, and drop it if not."""
        before = self.best
        if checkpoint and (before is None or self.gain(trial.score) > self.gain(before.score)):
            # Before the record: a search that is killed in between repeats the trial, and finds the same.
            os.replace(checkpoint, self.folder / "best.pth")
        shutil.rmtree(self.checkpoint_folder(trial.number), ignore_errors=True)
        with (self.folder / "trials.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(trial), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.trials.append(trial)

    def drop_leftovers(self) -> None:
        """Remove the checkpoints of trials that never ended."""
        shutil.rmtree(self.folder / _CHECKPOINTS, ignore_errors=True)

    def write_best(self, comments: list[str]) -> Path:
        """Write the best trial's settings as YAML under comments, and return the file."""
        best = self.best
        assert best is not None, "there is a best trial"
        settings = {**best.settings, **best.parameters}
        path = self.folder / "best.yaml"
        text = "".join(f"# {line}\n" for line in comments) + yaml.safe_dump(settings, allow_unicode=True)
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path

    def _check_conditions(self) -> None:
        path = self.folder / "conditions.json"
        if not path.is_file():
            if (self.folder / "trials.jsonl").exists():
                raise DataError(f"'{self.folder}' holds trials without conditions.json: remove the folder.")
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(self._conditions, indent=1) + "\n", encoding="utf-8")
            return
        try:
            recorded = value_of(dict[str, Any], parse_json(_CONDITIONS.content(path)))
        except ValueError as error:
            raise _CONDITIONS.fault(path, error) from error
        there, here = _flat(recorded), _flat(self._conditions)
        differing = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
        if differing:
            shown = "; ".join(f"{key} was {there.get(key)!r} and is {here.get(key)!r}" for key in differing)
            raise SettingError(
                f"'{self.folder}' holds a search under other conditions: {shown}. Give another folder with "
                "--tune_output=FOLDER, or remove this one."
            )

    def _read(self) -> list[Trial]:
        path = self.folder / "trials.jsonl"
        if not path.is_file():
            return []
        trials: dict[int, Trial] = {}
        whole = 0
        for number, line in enumerate(_TRIALS.lines(path), start=1):
            if not line.endswith(b"\n"):
                os.truncate(path, whole)  # the search was killed while it wrote this line
                break
            whole += len(line)
            try:
                trial = _TRIALS.parse(line, Trial)
                if trial.number in trials:
                    raise ValueError(f"trial {trial.number} stands in the file twice")
                self._check_parameters(trial.parameters)
            except ValueError as error:
                raise _TRIALS.fault(path, error, number) from error
            trials[trial.number] = trial
        return list(trials.values())


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a mapping of mappings as one, with names such as ``settings.epochs``."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
