"""When a training ends: patience in validations and in steps, which does not count on the plateau of popularity."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from recbole_rlmrec.reading.shape import Count
from recbole_rlmrec.run_settings import StoppingSettings

#: Standard errors of a difference, and share of the popularity ranking's score, that count as noise.
_NOISE_ERRORS = 2.0
_NOISE_SHARE = 0.02


@dataclass(frozen=True)
class Margin:
    """How far a score lies from that of the popularity ranking, user by user.

    Attributes:
        reference: mean over the users of the popularity ranking's score.
        difference: mean over the users of the score minus the popularity ranking's.
        error: standard error of that mean.
    """

    reference: float
    difference: float
    error: float

    @property
    def noise(self) -> float:
        """Differences up to this one count as none: two standard errors, and at least 2 % of the reference."""
        return max(_NOISE_ERRORS * self.error, _NOISE_SHARE * abs(self.reference))

    @property
    def is_above(self) -> bool:
        """Whether the score lies above the popularity ranking's by more than noise."""
        return self.difference > self.noise

    @property
    def is_below(self) -> bool:
        """Whether the score lies below the popularity ranking's by more than noise."""
        return self.difference < -self.noise


@dataclass
class Progress:
    """What :class:`EarlyStopping` remembers, as a checkpoint of the best validation stores it."""

    steps: Count = 0
    epochs: Count = 0
    has_left: bool = False


@dataclass(frozen=True)
class Validation:
    """What a training says of a validation to whoever watches it.

    Attributes:
        epoch: after which it was, counted from 0.
        steps: training steps so far.
        best: the best score so far, this one's included.
        is_on_plateau: whether the training stands on the plateau of popularity, see :class:`EarlyStopping`.
        is_last: whether the training ends after it.
    """

    epoch: int
    steps: int
    best: float
    is_on_plateau: bool
    is_last: bool = False


class EarlyStopping:
    """Says after each validation whether a training may go on.

    A training ends when ``stopping_step`` validations and ``patience_steps`` training steps have passed without a
    better score. Many models rank by popularity first, while their embeddings are short: validation stands still and
    the loss falls. On that plateau patience does not count, until the training has had ``plateau_steps`` steps or
    ``plateau_epochs`` epochs. It counts for good once a validation lies above the popularity ranking's score by more
    than noise (:class:`Margin`); below it by more than noise it counts as well, from the training's own best score.

    Args:
        settings: the rule's settings. With ``early_stopping: recbole`` only ``stopping_step`` matters.
        steps_per_epoch: training steps in an epoch.

    Attributes:
        is_on_plateau: whether the training stands on that plateau and has not stood there too long, also where
            patience counts in any case (``early_stopping: recbole``).
        waits: whether patience does not count at the moment.
        has_left: whether a validation lay above the popularity ranking's score by more than noise.
    """

    def __init__(self, settings: StoppingSettings, steps_per_epoch: int) -> None:
        self.settings = settings
        self._steps_per_epoch = max(steps_per_epoch, 1)
        self._now = Progress()
        self._at_best = Progress()
        self._misses = 0
        self._best: float | None = None
        self.is_on_plateau = False
        self.waits = False

    @property
    def has_left(self) -> bool:
        """Whether a validation lay above the popularity ranking's score by more than noise."""
        return self._now.has_left

    @property
    def steps(self) -> int:
        """Training steps up to the latest validation."""
        return self._now.steps

    @property
    def validations_left(self) -> int:
        """Validations without a better score after which patience ends, beside :attr:`steps_left`; 0 where it has."""
        return max(0, self.settings.stopping_step + 1 - self._misses)

    @property
    def steps_left(self) -> int:
        """Training steps without a better score after which patience ends; 0 where only validations count."""
        if self.settings.early_stopping == "recbole":
            return 0
        return max(0, self.settings.patience_steps - (self._now.steps - self._at_best.steps))

    def observe(self, epochs: int, score: float, margin: Margin | None = None) -> bool:
        """Take note of a validation and return whether the training has to end.

        Args:
            epochs: training epochs so far.
            score: the validation's; larger is better, and an equal one counts as better, as in RecBole.
            margin: how far it lies from the popularity ranking's; None where that is unknown, which is no plateau.
        """
        self._now.epochs, self._now.steps = epochs, epochs * self._steps_per_epoch
        self._now.has_left |= margin is not None and margin.is_above
        if self._best is None or score >= self._best:
            self._best, self._misses, self._at_best = score, 0, Progress(**asdict(self._now))
        else:
            self._misses += 1
        self.is_on_plateau = self._is_at_popularity(margin) and not self._has_waited_long()
        if self.settings.early_stopping == "recbole":
            return self._misses > self.settings.stopping_step
        self.waits = self.is_on_plateau
        is_patience_over = self._now.steps - self._at_best.steps >= self.settings.patience_steps
        return self._misses > self.settings.stopping_step and is_patience_over and not self.waits

    def _is_at_popularity(self, margin: Margin | None) -> bool:
        return margin is not None and not self.has_left and not margin.is_below

    def _has_waited_long(self) -> bool:
        settings = self.settings
        return self._now.steps >= settings.plateau_steps or self._now.epochs >= settings.plateau_epochs

    def state(self) -> dict[str, Any]:
        """Return what has to be known of the best validation so far to go on after it."""
        return asdict(self._at_best)

    def restore(self, state: dict[str, Any], score: float) -> None:
        """Go on after the validation that had ``score`` and left ``state``."""
        self._now, self._at_best = Progress(**state), Progress(**state)
        self._best, self._misses = score, 0
