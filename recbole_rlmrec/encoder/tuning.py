"""Tune a sentence-transformers model on pairs of texts, with the library's own trainer, into a model's folder."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_rlmrec.data.provenance import versions
from recbole_rlmrec.encoder.base import EncoderSettings
from recbole_rlmrec.encoder.sentence_transformer import SentenceTransformerEncoder
from recbole_rlmrec.encoder.tuned_file import has_record, write_record
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.extras import require_package
from recbole_rlmrec.files import atomic_folder
from recbole_rlmrec.ops.adapters import check_rank, with_adapters

_INSTALL = "'recbole-rlmrec[tune-encoder]'"
#: Share of the steps in which the learning rate rises.
_WARMUP = 0.1


@dataclass(frozen=True)
class TuningSettings:
    """How an encoder is tuned; the defaults are ours.

    Attributes:
        model: a sentence-transformers model: a name on its hub, a local folder, or a packaged model.
        epochs: how often ``pairs`` pairs of each kind are drawn and learned from.
        batch_size: pairs of a batch, 2 or more: the other pairs of the batch are the negatives of each.
        learning_rate: of AdamW, after a rise in the first tenth of the steps; it falls to 0 at the last.
        pairs: pairs of each kind that an epoch has at most.
        lora_rank: rank of the adapters that are trained, and merged into the model, instead of it; 0 trains all of it.
        max_steps: batches after which it ends at the latest; None for no such bound.

    Raises:
        SettingError: a value cannot be used.
    """

    model: str
    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 2e-5
    pairs: int = 20_000
    lora_rank: int = 0
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("pairs", 1), ("lora_rank", 0), ("max_steps", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingError(f"--{name.replace('_', '-')} is {value}, expected a whole number from {least}.")
        if not 0 < self.learning_rate < math.inf:
            raise SettingError(f"--learning-rate is {self.learning_rate}, expected a number above 0, such as 2e-5.")


def require_replaceable(output: str | Path, *, overwrite: bool) -> None:
    """Check that a model's folder may be written: that it is not there, or is one of ours that may be replaced.

    Raises:
        SettingError: it may not.
    """
    folder = Path(output)
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink() or not has_record(folder):
        raise SettingError(
            f"--output={output} is there already, and holds no model that tune-encoder wrote, so it is not replaced. "
            "Give the name of a new folder."
        )
    if not overwrite:
        raise SettingError(f"--output={output} is there already. Give another folder, or --overwrite to replace it.")


def open_model(settings: TuningSettings) -> SentenceTransformerEncoder:
    """Load the model to tune, and check that it can be tuned so.

    Raises:
        DataError: the record of what a model was tuned on cannot be read.
        SettingError: a package is not installed, the model cannot be loaded, says not how its tokens become one vector
            of a text, or is narrower than the adapters' rank.
    """
    needed = ("sentence_transformers", "datasets", "accelerate", *(("peft",) if settings.lora_rank else ()))
    for package in needed:
        require_package(package, "tune-encoder", _INSTALL)
    encoder = SentenceTransformerEncoder(EncoderSettings(model=settings.model))
    if not _has_pooling(encoder):
        raise SettingError(
            f"The model '{settings.model}' does not say how its tokens become one vector of a text: it has no "
            "modules.json, or no pooling in it. Give a model of sentence-transformers, or save this one as such: "
            "SentenceTransformer(modules=[Transformer(...), Pooling(...)]).save(FOLDER)."
        )
    if settings.lora_rank:
        model = _transformer(encoder)
        if model is None:
            raise SettingError(
                f"--lora-rank is for models with transformer layers, and '{settings.model}' has none. Leave it out."
            )
        option = f"--lora-rank={settings.lora_rank}"
        check_rank(settings.lora_rank, int(model.config.hidden_size), option, settings.model)
    return encoder


def _has_pooling(encoder: SentenceTransformerEncoder) -> bool:
    """Return whether the files of a model say how it makes one vector; else the library takes the mean unasked."""
    from sentence_transformers.util import is_sentence_transformer_model

    where = encoder.folder or encoder.settings.model
    model = encoder.model  # what cannot be loaded says so better than what follows
    if not is_sentence_transformer_model(str(where), local_files_only=encoder.folder is not None):
        return False
    try:
        return bool(np.asarray(model.encode(["A text."], show_progress_bar=False)).ndim == 2)
    except KeyError:  # no module wrote a vector of the text
        return False


def _transformer(encoder: SentenceTransformerEncoder) -> Any:
    """Return the model of ``transformers`` inside; None where there is none."""
    return getattr(encoder.model[0], "auto_model", None)


def tune(
    encoder: SentenceTransformerEncoder,
    settings: TuningSettings,
    pairs: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    output: str | Path,
    origin: Mapping[str, Any],
    report: Callable[[str], None],
    *,
    seed: int,
    progress: bool = True,
) -> None:
    """Tune a model so that the two texts of each pair are closer than those of the other pairs of a batch.

    A batch has pairs of one kind, and no text twice. The folder is written at the end, whole or not at all.

    Args:
        encoder: of :func:`open_model`; its model is changed.
        settings: how.
        pairs: kind -> texts of the left ends and of the right ends of all its pairs, in all epochs; at least one pair.
        output: folder of the tuned model.
        origin: what the record in the folder says beside the settings: of which dataset and training split.
        report: is called with each thing to know, a line or more.
        seed: of the order of the pairs, dropout and adapters.
        progress: show a progress bar.

    Raises:
        SettingError: a batch does not fit into memory, or the model's numbers are not finite any more.
        OSError: the folder cannot be written.
    """
    n_steps = sum(math.ceil(len(left) / settings.batch_size) for left, _ in pairs.values())
    n_done = min(n_steps, settings.max_steps or n_steps)
    report(f"steps: {n_done:,} of {n_steps:,}, each with {settings.batch_size} pairs of one kind")
    with atomic_folder(output) as folder:
        started = time.perf_counter()
        loss = _train(encoder, settings, pairs, n_done, folder, seed=seed, progress=progress)
        seconds = (time.perf_counter() - started) / n_done
        if not np.isfinite(encoder.encode(["A text."])).all():
            raise SettingError(
                f"The tuned model's vectors are not finite. Give a lower --learning-rate than {settings.learning_rate}."
            )
        encoder.model.save_pretrained(str(folder), create_model_card=False)
        write_record(folder, {**origin, **_settings_to_record(settings), "seed": seed, "versions": _versions(settings)})
    report(f"tuned: mean loss {loss:.4f}; {seconds:.2f} s a step, so {seconds * n_steps:,.0f} s for {n_steps:,} steps")


def _train(
    encoder: SentenceTransformerEncoder,
    settings: TuningSettings,
    pairs: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    n_steps: int,
    folder: Path,
    *,
    seed: int,
    progress: bool,
) -> float:
    """Train the encoder's model, and return the mean loss."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from transformers import PrinterCallback, set_seed

    set_seed(seed)  # before the adapters are drawn
    model = encoder.model
    adapted = with_adapters(_transformer(encoder), settings.lora_rank) if settings.lora_rank else None
    # All pairs are there, those of every epoch, so to the library it is one epoch.
    tables = {
        kind: Dataset.from_dict({"anchor": list(left), "positive": list(right)})
        for kind, (left, right) in pairs.items()
    }
    with tempfile.TemporaryDirectory(dir=folder) as unused:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=unused,
            max_steps=n_steps,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            warmup_steps=math.ceil(_WARMUP * n_steps),
            batch_sampler="no_duplicates",
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=not progress,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        loss = MultipleNegativesRankingLoss(model)
        trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=tables, loss=loss)
        trainer.remove_callback(PrinterCallback)  # what there is to say is said by ``report``
        try:
            found = float(trainer.train().training_loss)
        except torch.cuda.OutOfMemoryError as error:
            raise SettingError(
                f"A batch of {settings.batch_size} pairs does not fit into the memory of the GPU ({error}). Give a "
                "smaller --batch-size, or --lora-rank=8, which trains adapters only."
            ) from error
    if adapted is not None:
        adapted.merge_and_unload()
    return found


def _settings_to_record(settings: TuningSettings) -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if name != "model"}


def _versions(settings: TuningSettings) -> dict[str, str]:
    from importlib.metadata import version

    packages = ("sentence-transformers", "transformers", *(("peft",) if settings.lora_rank else ()))
    return {**versions(), **{package: version(package) for package in packages}}
