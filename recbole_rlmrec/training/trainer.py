"""RecBole's trainer with named loss terms, safe checkpoints, and steps that several processes can share."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector
from recbole.trainer import TraditionalTrainer
from recbole.trainer import Trainer as RecBoleTrainer
from recbole.utils import get_gpu_usage, get_trainer, set_color
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from recbole_rlmrec.compat import dataset_of
from recbole_rlmrec.data.dataset import fingerprint
from recbole_rlmrec.data.loader import FullSortLoader
from recbole_rlmrec.errors import CheckpointError, SettingError, TrainingError
from recbole_rlmrec.model.backbone.contract import flags_of
from recbole_rlmrec.model.layers import Reduction
from recbole_rlmrec.model.registry import missing_package
from recbole_rlmrec.ops.distributed import agreed, sum_gradients, this_shard
from recbole_rlmrec.recbole_names import recbole_name
from recbole_rlmrec.run_settings import StoppingSettings
from recbole_rlmrec.settings import inert
from recbole_rlmrec.training.checkpoint import (
    CHECKPOINT_FORMAT,
    check_data,
    load_checkpoint,
    load_optimizer,
    load_weights,
    pack,
    packed_ids,
    unpack,
    write_checkpoint,
)
from recbole_rlmrec.training.comparison import Outcome, drop_record
from recbole_rlmrec.training.evaluation import DIVERGED_REMEDY, ScoreCheck, TopKCollector
from recbole_rlmrec.training.folders import checkpoint_path
from recbole_rlmrec.training.machine import machine_faults_named
from recbole_rlmrec.training.popularity import PopularityRanking, is_by_user, margin_over, score_by_user
from recbole_rlmrec.training.screen import duration, losses_in_words, patience_in_words
from recbole_rlmrec.training.stopping import EarlyStopping, Margin, Validation
from recbole_rlmrec.wording import ON_SCREEN

#: What may differ between a training and its continuation; everything else shapes the model, its data or its score.
_RESUME_FREE = frozenset(
    {"epochs", "early_stopping", "stopping_step", "patience_steps", "plateau_steps", "plateau_epochs"}
    | {"resume_from", "init_from"}
    | {"result_file", "show_progress", "checkpoint_dir", "data_path", "state"}
    | {"gpu_id", "use_gpu", "worker", "eval_batch_size", "log_wandb", "wandb_project", "cold_nodes", "clip_grad_norm"}
    | {"semantic_storage", "base_first", "defaults"}
)

#: With fewer interactions than this to be found, a validation's scores are said to be noise.
LEAST_VALIDATION = 50

#: While patience does not count, the log says so once in so many epochs.
_EPOCHS_BETWEEN_NOTES = 10


class SafeTrainerMixin:
    """What this package changes about any of RecBole's trainers.

    Attributes:
        best_epoch: epoch that is tested, the one of the best validation so far, counted from 0; -1 before the first.
        fingerprint: identity of the training data, stored in checkpoints; set by :meth:`fit`.
        seconds_to_best: from the start until that epoch was validated; None before the first validation.
        stopped: why the training ended: ``epochs``, where it had as many as it may have; ``patience``; or ``plateau``,
            where patience ended it and no validation was above the popularity ranking's by more than noise. Set by
            :meth:`fit`.
        plateau_message: what to say of a training that did not get above the popularity ranking, and what to try; else
            empty.
        says_plateau: whether :meth:`fit` logs that message, or whoever calls it.
        says_progress: whether :meth:`fit` says in one line at each validation how far it is, beside what RecBole logs.
        popular_valid_result: all metrics of the popularity ranking at validation, as far as they are known.
        base_record: what is known of the base that was trained first, stored in checkpoints; None without one.
    """

    config: Any
    model: Any
    logger: Any
    optimizer: Any
    tensorboard: Any
    eval_collector: Any
    wandblogger: Any
    device: torch.device
    saved_model_file: str
    cur_step: int
    best_valid_score: float
    valid_metric_bigger: bool
    start_epoch: int
    epochs: int
    eval_step: int
    stopping_step: int
    train_loss_dict: dict[int, Any]
    best_valid_result: dict[str, float] | None
    best_epoch: int = -1
    seconds_to_best: float | None = None
    stopped: str | None = None
    plateau_message: str = ""
    says_plateau: bool = True
    says_progress: bool = False
    _validates: bool = True
    base_record: dict[str, Any] | None = None

    #: Whether the model is trained step by step, so that patience means something.
    trains_in_steps: bool = True

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)  # type: ignore[call-arg]
        if type(self.eval_collector) is Collector:
            self.eval_collector = TopKCollector(config)
            self.eval_collector.before_metrics = self._require_finite_scores
        self._scores = ScoreCheck()
        self._weights = ""
        # RecBole's trainer of Pop, ItemKNN, ... sets the only epoch after this, and would validate in none.
        self.eval_step = min(self.eval_step, self.epochs)
        self.fingerprint: dict[str, str] = {}
        self._ids: dict[str, Tensor] = {}
        self._latest_valid_result: dict[str, float] | None = None
        self._written_epoch = -1
        self._written_result: dict[str, float] | None = None
        self._stopping: EarlyStopping | None = None
        self._restored: tuple[dict[str, Any], float] | None = None
        self._popularity: PopularityRanking | None = None
        self._popular_scores: np.ndarray | None = None
        self.popular_valid_result: dict[str, float] | None = None
        self._margin: Margin | None = None
        self._best_margin: Margin | None = None
        self.saved_model_file = str(checkpoint_path(config))
        self._losses: Any = 0.0
        self._n_batches = 0
        self._started = 0.0

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train as RecBole's trainer does; remember the best epoch; say how to go on when interrupted."""
        self.fingerprint = fingerprint(dataset_of(train_data), with_embeddings=self.config.reads_semantic_embeddings)
        self._ids = packed_ids(dataset_of(train_data))
        self._require_an_end(valid_data)
        self._begin_watching(train_data, valid_data)
        ended = []

        def remember(epoch: int, score: float) -> None:
            if self.cur_step == 0:
                self.best_epoch, self._best_margin = epoch, self._margin
                self.seconds_to_best = perf_counter() - self._started
            ended.append(epoch)
            self._say_progress(epoch, score)
            if callback_fn is not None:
                callback_fn(epoch, score)

        m_step = getattr(self, "num_m_step", None)
        if m_step and self.start_epoch % m_step:
            # NCL clusters every so many epochs; one that goes on in between would have no clusters.
            self.model.e_step()
        try:
            with machine_faults_named(lambda: self._what_is_kept(saved=saved)):
                result: tuple[float, dict[str, float] | None] = super().fit(  # type: ignore[misc]
                    train_data, valid_data, verbose, saved, show_progress, remember
                )
        except KeyboardInterrupt:
            if saved and Path(self.saved_model_file).is_file():
                self.logger.warning(
                    f"Interrupted. The best epoch so far is kept; go on with --resume_from={self.saved_model_file}"
                )
            raise
        except ImportError as error:
            raise SettingError(missing_package(self.config["model"], error)) from error
        self.tensorboard.flush()  # its curves are read while the process goes on
        # A training that goes on where nothing is left to train ended before it began.
        self._say_how_it_ended(ended[-1] if ended else self.start_epoch - 1 if self.best_valid_result else None)
        score, valid = result
        return float(score), _plain_floats(valid)

    def latest_validation(self, epoch: int) -> Validation:
        """Return what there is to say of the validation after ``epoch``, while :meth:`fit` lasts."""
        assert self._stopping is not None, "a training has begun"
        is_last = epoch + self.eval_step >= self.epochs or self.stopping_step < 0
        best, is_on_plateau = float(self.best_valid_score), self._stopping.is_on_plateau
        return Validation(epoch, self._stopping.steps, best, is_on_plateau=is_on_plateau, is_last=is_last)

    def _what_is_kept(self, *, saved: bool) -> str:
        """Say what there is of a training that the machine ended."""
        if not saved or self._written_epoch < 0 or not Path(self.saved_model_file).is_file():
            return "Nothing is kept of this training."
        found = f" ({self._written_result})" if self._written_result else ""
        return (
            f"The best epoch so far, {self._written_epoch}{found}, is kept: go on with "
            f"--resume_from={self.saved_model_file}"
        )

    # ------------------------------------------------------------------ early stopping and the popularity ranking

    def _require_an_end(self, valid_data: Any) -> None:
        """Refuse to train without validation for as many epochs as early stopping would need at most.

        Raises:
            SettingError: nothing is for validation, and nobody said how many epochs there are.
        """
        if valid_data is None or valid_data or not self.trains_in_steps:
            return
        given = getattr(self.config, "external_config_dict", {}).get("epochs")
        if given is None:
            raise SettingError(
                f"The split of '{self.config['dataset']}' has no validation part, so early stopping cannot say when to "
                "end. Give the number of epochs, such as --epochs=50: a run with validation logs its best epoch, and "
                "its result holds it as best_epoch (counted from 0)."
            )
        self.logger.info(
            f"No validation part: all {self.epochs} epochs are trained, and the last one is kept.", extra=ON_SCREEN
        )

    def _begin_watching(self, train_data: Any, valid_data: Any) -> None:
        """Prepare early stopping, and the ranking that validations are compared with."""
        self._n_batches, self._started = len(train_data), perf_counter()
        self._validates = bool(valid_data) and self.eval_step > 0
        self._stopping = EarlyStopping(StoppingSettings.from_config(self.config), self._n_batches)
        if self._restored is not None:
            self._stopping.restore(*self._restored)
        training = dataset_of(train_data)
        if is_by_user(str(self.config["valid_metric"])) and training.iid_field is not None:
            items = training.inter_feat[training.iid_field]
            self._popularity = PopularityRanking(training.iid_field, items, training.item_num).to(self.device)
        n_held_out = len(dataset_of(valid_data)) if valid_data else None
        if n_held_out is not None and n_held_out < LEAST_VALIDATION:
            self.logger.warning(
                f"The validation holds {n_held_out} interactions: its scores are noise, and so is the choice of the "
                f"best epoch. With fewer than {LEAST_VALIDATION} give validation a larger share (eval_args, or a "
                "split of your own), or take more data."
            )

    def popularity_result(self, eval_data: Any) -> dict[str, float] | None:
        """Return the metrics of the popularity ranking on ``eval_data``, under the model's own protocol.

        Only after :meth:`fit` has begun; None where the ``valid_metric`` is no mean over users of hits.
        """
        if self._popularity is None or not eval_data:
            return None
        trained, self.model = self.model, self._popularity
        try:
            return self._unreported(eval_data)
        finally:
            self.model = trained

    def result_at_start(self, train_data: Any, eval_data: Any) -> dict[str, float] | None:
        """Return the metrics of the model before its first step; None where there is nothing to evaluate.

        Args:
            train_data: the training data loader, which some metrics look at.
            eval_data: of validation or test.
        """
        if not eval_data:
            return None
        self.eval_collector.data_collect(train_data)
        return self._unreported(eval_data)

    def _unreported(self, eval_data: Any) -> dict[str, float]:
        """Evaluate the model as it is, and report nothing to Weights & Biases, whose summary would end with it."""
        board, self.wandblogger = self.wandblogger, SimpleNamespace(log_eval_metrics=lambda *_, **__: None)
        try:
            return dict(self.evaluate(eval_data, load_best_model=False))
        finally:
            self.wandblogger = board

    def _scores_by_user(self) -> np.ndarray | None:
        """Return the ``valid_metric`` of each user of the latest evaluation, ``[users]``."""
        hits = getattr(self.eval_collector, "latest_hits", None)
        return score_by_user(self.config, str(self.config["valid_metric"]), hits)

    def _observe(self, score: float, margin: Margin | None) -> None:
        """Let early stopping judge a validation, and have RecBole's loop do as it says."""
        if self._stopping is None:
            return  # a validation by itself, without a training that could end
        had_left, waited = self._stopping.has_left, self._stopping.waits
        epochs = max(self.train_loss_dict, default=-1) + 1
        must_end = self._stopping.observe(epochs, score if self.valid_metric_bigger else -score, margin)
        # RecBole stops at a validation that is no better, once more than so many of them have followed each other.
        self.stopping_step = -1 if must_end else sys.maxsize
        if margin is None or self._stopping.settings.early_stopping == "recbole":
            return
        metric, popular = self.config["valid_metric"], f"{margin.reference:.4f}"
        if self._stopping.has_left and not had_left:
            self.logger.info(
                f"{metric} has risen above the popularity ranking's {popular}: patience counts from now on.",
                extra=ON_SCREEN,
            )
        elif self._stopping.waits and (not waited or epochs % _EPOCHS_BETWEEN_NOTES == 0):
            self.logger.info(
                f"{metric} is still at the popularity ranking's {popular}; patience does not count yet.",
                extra=ON_SCREEN,
            )
        elif waited and not self._stopping.waits and not self._stopping.has_left:
            self.logger.info(
                f"{metric} is not above the popularity ranking's {popular} after {self._stopping.steps} steps in "
                f"{epochs} epochs: patience counts from now on.",
                extra=ON_SCREEN,
            )

    def _say_progress(self, epoch: int, score: float | None) -> None:
        """Say how far the training is.

        Args:
            epoch: the one that has ended.
            score: the ``valid_metric`` after it; None without a validation.
        """
        if not self.says_progress or not self.trains_in_steps:
            return
        parts = [losses_in_words(self._losses, self._loss_names(self._losses), self._n_batches)]
        if score is not None:
            best = f"best {self.best_valid_score:.4f} in epoch {self.best_epoch}"
            parts.append(f"{self.config['valid_metric']} {score:.4f}, {best}")
        if score is not None and self._stopping is not None:
            parts.append(patience_in_words(self._stopping))
        pace = (perf_counter() - self._started) / (epoch + 1 - self.start_epoch)
        n_left = self.epochs - epoch - 1
        left = f", at most {duration(n_left * pace)} left" if n_left else ""
        parts.append(f"{duration(pace)} an epoch{left}")
        self.logger.info(f"epoch {epoch}: {'; '.join(parts)}", extra=ON_SCREEN)

    def _say_how_it_ended(self, last_epoch: int | None) -> None:
        """Set :attr:`stopped`, and say so where the training did not get above the popularity ranking."""
        if last_epoch is None or not self.trains_in_steps:
            return
        has_epochs_left = last_epoch + 1 < self.epochs and self.stopping_step < 0
        self.stopped = "patience" if has_epochs_left else "epochs"
        margin = self._best_margin
        if margin is None or margin.is_above or (self._stopping is not None and self._stopping.has_left):
            return  # the log has said of a validation that it lay above
        if has_epochs_left:
            self.stopped = "plateau"
        where = "below" if margin.is_below else "within noise of"
        found = (
            f"{type(self.model).__name__} ended {where} the popularity ranking: its best validation "
            f"{self.config['valid_metric']} is {margin.reference + margin.difference:.4f}, that of the most popular "
            f"items {margin.reference:.4f} (difference {margin.difference:+.4f}, standard error {margin.error:.4f}; "
            f"{last_epoch + 1} epochs). As far as this validation shows, it says no more of its users than a list "
            "of what is popular."
        )
        rate = self.config["learning_rate"]
        longer = "more patience (patience_steps, plateau_steps, plateau_epochs)"
        if not has_epochs_left:
            longer = f"more epochs, which ran out (epochs={self.epochs})"
        self.plateau_message = (
            f"{found} What to try: where the loss was still falling, {longer} or a larger learning_rate (it is "
            f"{rate}); where it was low already, a larger reg_weight; with contrast between views, a smaller "
            "ssl_weight. If nothing helps, the data may hold no more: --model=EASE and --model=ItemKNN say within a "
            "minute what other methods find."
        )
        if self.says_plateau:
            self.logger.warning(self.plateau_message)

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        if self.popular_valid_result is None:
            self.popular_valid_result = self.popularity_result(valid_data)
            self._popular_scores = self._scores_by_user() if self.popular_valid_result is not None else None
        score, result = super()._valid_epoch(valid_data, show_progress)  # type: ignore[misc]
        scores = self._scores_by_user()
        if self._popular_scores is not None and scores is not None:
            self._margin = margin_over(self._popular_scores, scores)
        if this_shard().world_size > 1:
            # A model with statistics of its own, such as those of batch normalisation, scores differently in each
            # process; they must agree on when to stop.
            score, result, self._margin = agreed((score, result, self._margin))
        score, result = float(score), {name: float(value) for name, value in result.items()}
        self._latest_valid_result = result
        self._observe(score, self._margin)
        return score, result

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        if epoch < self.best_epoch:
            # RecBole writes epoch -1 where nothing is left to train; a resumed run's checkpoint stands.
            return
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        self.best_epoch = epoch
        if this_shard().rank != 0:
            return
        state = {
            "format": CHECKPOINT_FORMAT,
            "model": type(self.model).__name__,
            "dataset": self.config["dataset"],
            "settings": self.config.settings,
            "data": self.fingerprint,
            "best_valid_result": self._latest_valid_result,
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "state_dict": self.model.state_dict(),
            "other_parameter": {key: pack(value) for key, value in self.model.other_parameter().items()},
            "optimizer": self.optimizer.state_dict(),
            "stopping": self._stopping.state() if self._stopping is not None else None,
            "margin": asdict(self._margin) if self._margin is not None else None,
            "base": self.base_record,
            "ids": self._ids,
        }
        write_checkpoint(state, path)
        self._written_epoch, self._written_result = epoch, self._latest_valid_result
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {path}")

    def resume_checkpoint(self, resume_file: str | Path, train_data: Any = None) -> None:
        """Take up training after the epoch a checkpoint was written in, the best one of its run.

        Weights, optimiser and the best score are restored; random numbers start from the seed. Later epochs write to
        the same file.

        Args:
            resume_file: the checkpoint.
            train_data: the training data loader, to check that it is the data of the checkpoint.

        Raises:
            CheckpointError: see :func:`load_checkpoint`, :func:`check_data` and :func:`load_weights`; or a setting that
                shapes the training differs.
        """
        checkpoint = load_checkpoint(resume_file, self.device)
        if checkpoint.get("aligned"):
            self.logger.info(
                f"{resume_file} holds the base that was kept; the aligned model's training goes on.", extra=ON_SCREEN
            )
            resume_file = checkpoint["aligned"]
            checkpoint = load_checkpoint(resume_file, self.device)
        if checkpoint["model"] == type(self.model).__name__:
            self._check_settings(checkpoint["settings"], resume_file)
        if train_data is not None:
            with_embeddings = self.config.reads_semantic_embeddings
            check_data(checkpoint, fingerprint(dataset_of(train_data), with_embeddings=with_embeddings), resume_file)
        load_weights(self.model, checkpoint, resume_file)
        load_optimizer(self.optimizer, checkpoint, resume_file)
        self.start_epoch = checkpoint["epoch"] + 1
        self.cur_step = checkpoint["cur_step"]
        self.best_valid_score = checkpoint["best_valid_score"]
        self.best_valid_result = self._latest_valid_result = checkpoint["best_valid_result"]
        self.best_epoch = self._written_epoch = checkpoint["epoch"]
        self._written_result = checkpoint["best_valid_result"]
        # Checkpoints of version 0.1 know neither of patience in steps nor of the popularity ranking nor of a base.
        if checkpoint.get("stopping") is not None:
            score = self.best_valid_score if self.valid_metric_bigger else -self.best_valid_score
            self._restored = (checkpoint["stopping"], score)
        if checkpoint.get("margin") is not None:
            self._best_margin = Margin(**checkpoint["margin"])
        self.saved_model_file = str(resume_file)
        if this_shard().rank == 0:
            # It speaks of weights that will not be there any more.
            drop_record(resume_file)
        self.logger.info(f"Training goes on from epoch {self.start_epoch} with {resume_file}.", extra=ON_SCREEN)

    def keep_base(self, base: Outcome) -> str:
        """Write a checkpoint of this model with the weights of its base, and return its path.

        What the base does not have (a projector, a mask token) is as it was trained; no score depends on it.

        Args:
            base: the base that was trained first.
        """
        path = str(Path(self.saved_model_file).with_suffix("")) + "-base.pth"
        if this_shard().rank != 0:
            return path
        own, stored = load_checkpoint(self.saved_model_file), load_checkpoint(base.checkpoint)
        state = {
            **own,
            **{name: stored[name] for name in ("epoch", "cur_step", "best_valid_score", "best_valid_result")},
            **{name: {**own[name], **stored[name]} for name in ("state_dict", "other_parameter")},
            "aligned": self.saved_model_file,
        }
        write_checkpoint(state, path)
        return path

    def _check_settings(self, stored: dict[str, Any], path: str | Path) -> None:
        current = self.config.settings
        # Settings without effect: checkpoints of before they existed go on.
        for key in sorted((stored.keys() | current.keys()) - _RESUME_FREE - inert(current)):
            if stored.get(key) != current.get(key):
                raise CheckpointError(
                    f"'{path}' was trained with {key}={stored.get(key)!r}, this run has {key}={current.get(key)!r}; a "
                    "training goes on with the settings it began with."
                )

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> Any:
        """Evaluate as RecBole's trainer does, with the best weights read safely where asked for.

        Raises:
            TrainingError: scores are NaN or infinite.
        """
        self._weights = f"after epoch {max(self.train_loss_dict)}" if self.train_loss_dict else "with its weights"
        if load_best_model and eval_data:
            path = model_file or self.saved_model_file
            self._weights = f"with the weights of '{path}'"
            if this_shard().rank == 0:
                checkpoint = load_checkpoint(path, self.device)
                load_weights(self.model, checkpoint, path)
                self._weights += f", epoch {checkpoint['epoch']},"
                self.logger.info(f"Best weights from {path}")
            _copy_from_first_process(self.model)
        is_shared = isinstance(eval_data, FullSortLoader)
        self._scores = ScoreCheck(self.device, is_shared=is_shared)
        if isinstance(self.eval_collector, TopKCollector):
            self.eval_collector.is_shared = is_shared
        # A bar of one step says nothing.
        shows = show_progress and bool(eval_data) and len(eval_data) > 1
        result = super().evaluate(eval_data, load_best_model=False, show_progress=shows)  # type: ignore[misc]
        if not isinstance(self.eval_collector, TopKCollector):
            self._require_finite_scores()
        return _plain_floats(result)

    def _require_finite_scores(self) -> None:
        self._scores.require_finite(type(self.model).__name__, self._weights)

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        return self._scores.full_sort(super()._full_sort_batch_eval, batched_data)  # type: ignore[misc]

    def _neg_sample_batch_eval(self, batched_data: Any) -> Any:
        evaluate = super()._neg_sample_batch_eval  # type: ignore[misc]
        return self._scores.sampled(evaluate, batched_data, self.config["ITEM_ID_FIELD"])

    def _loss_names(self, losses: Any) -> tuple[str, ...]:
        names = tuple(getattr(self.model, "loss_names", ()))
        # NCL's trainer leaves out the last term while it warms up.
        return names[: len(losses)] if isinstance(losses, tuple) and len(names) >= len(losses) else ()

    def _generate_train_loss_output(self, epoch_idx: int, s_time: float, e_time: float, losses: Any) -> str:
        self._losses = losses
        if not self._validates:
            self._say_progress(epoch_idx, None)
        line: str = super()._generate_train_loss_output(epoch_idx, s_time, e_time, losses)  # type: ignore[misc]
        for number, name in enumerate(self._loss_names(losses), start=1):
            # The colour codes around the label keep train_loss1 from matching within train_loss10.
            line = line.replace(set_color(f"train_loss{number}", "blue"), set_color(name, "blue"))
        return line

    def _add_train_loss_to_tensorboard(self, epoch_idx: int, losses: Any, tag: str = "Loss/Train") -> None:
        names = self._loss_names(losses)
        if not names:
            super()._add_train_loss_to_tensorboard(epoch_idx, losses, tag)  # type: ignore[misc]
        named = dict(zip(names, losses if names else ()))
        for name, loss in named.items():
            self.tensorboard.add_scalar(f"{tag}/{name}", loss, epoch_idx)
        if named:
            # In one row with what RecBole reports next: the terms without their names.
            losses_by_name = {f"loss/{name}": loss for name, loss in named.items()}
            self.wandblogger.log_metrics({**losses_by_name, "train_step": epoch_idx}, head="train", commit=False)


def _copy_from_first_process(model: Any) -> None:
    """Give the model of each process the weights of the first one's."""
    if this_shard().world_size == 1:
        return
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, src=0)
    for module in model.modules():
        if isinstance(module, Reduction):
            module.refresh()
    others = [{key: _moved(pack(value), "cpu") for key, value in model.other_parameter().items()}]
    dist.broadcast_object_list(others, src=0)
    model.load_other_parameter({key: unpack(_moved(value, model.device)) for key, value in others[0].items()})


def _plain_floats(result: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Return metrics as Python's numbers, which print as numbers; RecBole's are NumPy's."""
    return None if result is None else {name: float(value) for name, value in result.items()}


def _moved(value: Any, device: str | torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _on_device(batch: Any, device: torch.device) -> Any:
    """Copy a batch to the device without waiting for it; RecBole's own copy waits once for each column."""
    if device.type != "cuda":
        return batch.to(device)
    columns = batch.interaction.items()
    return Interaction({name: column.pin_memory().to(device, non_blocking=True) for name, column in columns})


def _keep_freed_memory() -> None:
    """Let the next step have the memory that this one frees, where the C library is glibc.

    A step allocates and frees the same buffers as the one before. By itself glibc returns them to the system in
    between, and each page has to be fetched again: up to a sixth of the time of a step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    mallopt(m_mmap_threshold, 2**25)  # the most it takes
    mallopt(m_trim_threshold, 2**29)


class Trainer(SafeTrainerMixin, RecBoleTrainer):
    """The trainer of every model of this package, and of RecBole's models that need no trainer of their own.

    Its steps compute what RecBole's do at less cost: the optimiser's passes over the parameters are fused, and losses
    are read once an epoch instead of once a step, so a loss that is no number is found at its end. Several processes
    can share a step (:mod:`recbole_rlmrec.ops.distributed`). ``enable_amp`` takes bfloat16 wherever the device has it,
    and gradients are clipped after the scaler's factor is taken off.
    """

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        if self.device.type == "cpu":
            _keep_freed_memory()
        if this_shard().world_size > 1 and not flags_of(type(model)).shares_losses:
            self.logger.warning(
                f"{type(model).__name__} is RecBole's: each process trains on its part of a batch, and the losses of "
                "the parts are averaged. Where its loss is no mean over the batch (a norm of embeddings, batch "
                "normalisation), the result differs from that of one process."
            )

    def _build_optimizer(self, **kwargs: Any) -> Any:
        optimizer = super()._build_optimizer(**kwargs)
        if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
            return optimizer
        group = optimizer.param_groups[0]
        settings = {name: group[name] for name in ("lr", "weight_decay")}
        return type(optimizer)(group["params"], fused=True, **settings)

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: Callable[[Any], Any] | None = None,
        show_progress: bool = False,
    ) -> float | tuple[float, ...]:
        """Train for one epoch; return the sum over its steps of the loss, or of each of its terms.

        Raises:
            TrainingError: the loss became NaN or infinite.
        """
        self.model.train()
        loss_func = loss_func or self.model.calculate_loss
        batches = train_data
        if show_progress:
            label = set_color(f"Train {epoch_idx:>5}", "pink")
            batches = tqdm(train_data, total=len(train_data), ncols=100, desc=label, leave=False)
        kind = self.device.type
        scaler = torch.amp.GradScaler(kind, enabled=self.enable_scaler)
        # GPUs before Ampere emulate bfloat16, slowly.
        is_native = kind != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
        cast_to = torch.bfloat16 if is_native else torch.float16
        total: Tensor | None = None
        names: tuple[str, ...] = ()
        is_tuple = False
        for batch in batches:
            interaction, share = self._own_part(batch)
            interaction = _on_device(interaction, self.device)
            self.optimizer.zero_grad()
            with torch.autocast(device_type=kind, dtype=cast_to, enabled=self.enable_amp):
                losses = loss_func(interaction)
            is_tuple = isinstance(losses, tuple)
            terms = [share * term for term in (losses if is_tuple else (losses,))]
            names = self._loss_names(losses)
            scaler.scale(sum(terms)).backward()
            if this_shard().world_size > 1:
                terms = sum_gradients(self.model.parameters(), terms)
            if self.clip_grad_norm:
                scaler.unscale_(self.optimizer)
                clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
            scaler.step(self.optimizer)
            scaler.update()
            # Added up where they are: reading them would make the host wait for the device at each step.
            step = torch.stack([term.detach().double().reshape(()) for term in terms])
            total = step if total is None else total + step
            if self.gpu_available and show_progress:
                batches.set_postfix_str(set_color("GPU RAM: " + get_gpu_usage(self.device), "yellow"))
        sums = [] if total is None else total.tolist()
        self._check_losses(sums, names, epoch_idx)
        return tuple(sums) if is_tuple else sums[0]

    def _own_part(self, batch: Any) -> tuple[Any, float]:
        """Return what this process trains of a batch, and the weight of its loss.

        A model of ours takes the whole batch and returns its share of the loss. Of other models it is assumed that
        their loss is a mean over the rows of the batch, which holds for BPR and cross-entropy but not for RecBole's
        ``EmbLoss`` (a norm divided by the rows) nor for batch normalisation; :meth:`__init__` warns.
        """
        shard = this_shard()
        if shard.world_size == 1 or flags_of(type(self.model)).shares_losses:
            return batch, 1.0
        rows, n = shard.rows(len(batch)), len(batch)
        if rows.start == rows.stop:
            return batch[slice(0, 1)], 0.0
        return batch[rows], (rows.stop - rows.start) / n

    def _check_losses(self, sums: list[float], names: tuple[str, ...], epoch: int) -> None:
        # The scaler of float16 skips steps of infinite loss and goes on; NaN is final.
        wrong = np.isnan(sums) if self.enable_scaler else ~np.isfinite(sums)
        if not wrong.any():
            return
        labels = names or tuple(f"loss {number}" for number in range(1, len(sums) + 1))
        found = ", ".join(f"{label} = {value}" for label, value in zip(labels, sums))
        raise TrainingError(f"The training loss of epoch {epoch} is not finite ({found}). {DIVERGED_REMEDY}")


class UntrainedTrainer(Trainer):
    """Evaluates a model that has no parameters, as the outcome of one epoch in which no step is taken."""

    trains_in_steps = False

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.epochs = 1
        self.eval_step = min(self.eval_step, self.epochs)

    def _build_optimizer(self, **kwargs: Any) -> Any:
        # Checkpoints hold an optimiser's state; torch takes an empty group of parameters but not none at all.
        return torch.optim.SGD([{"params": []}], lr=self.learning_rate)

    def _train_epoch(self, *args: Any, **kwargs: Any) -> float:
        return 0.0


def trainer_class(config: Any) -> type:
    """Return the trainer of a configuration's model: ours, over whichever of RecBole's trainers the model needs."""
    return trainer_over(get_trainer(config["MODEL_TYPE"], recbole_name(config.model_class)), config.model_class)


def trainer_over(theirs: type, model: type) -> type:
    """Return our trainer of a model over one of RecBole's.

    Args:
        theirs: RecBole's trainer; one of ours is returned as it is.
        model: the model's class.

    Raises:
        SettingError: there are several processes, and the steps are RecBole's.
    """
    if issubclass(theirs, SafeTrainerMixin):
        return theirs
    if flags_of(model).nothing_to_train:
        return UntrainedTrainer
    if theirs is RecBoleTrainer:
        return Trainer
    if this_shard().world_size > 1:
        raise SettingError(
            f"{model.__name__} is trained by RecBole's {theirs.__name__}, whose steps one process takes. Leave out "
            "--nproc and --world_size."
        )
    content = {"__doc__": theirs.__doc__, "trains_in_steps": not issubclass(theirs, TraditionalTrainer)}
    return type(theirs.__name__, (SafeTrainerMixin, theirs), content)
