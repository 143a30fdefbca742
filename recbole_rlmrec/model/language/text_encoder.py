"""A Hugging Face model that reads the texts of users and items, and is trained with the recommender."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.extras import require_package
from recbole_rlmrec.model.language.texts import texts_of
from recbole_rlmrec.ops.adapters import check_rank, with_adapters
from recbole_rlmrec.wording import ON_SCREEN

_logger = logging.getLogger(__name__)

_INSTALL = "'recbole-rlmrec[gal]'"
#: Copies of a trained weight in memory: itself, its gradient, Adam's two moments, and the momentum encoder's.
_COPIES = 5


class TextEncoder(nn.Module):
    """A language model with a linear layer behind it; an external representation is read as a token before the text.

    Args:
        settings: :class:`~recbole_rlmrec.model.language.galrec.GALRecSettings`.
        dataset: of the training; its profiles are read.
        external: external representations, ``[U + I, d']``; None for none.

    Raises:
        SettingError: a package is not installed, the model cannot be loaded or does not fit into memory, nothing says
            how its tokens become a text, or the adapters' rank is larger than the model's width.
        DataError: the dataset has no profiles.
    """

    tokens: Tensor
    n_tokens: Tensor
    external: Tensor | None
    #: Nodes that are represented at a time in an evaluation.
    at_once: ClassVar[int] = 256

    def __init__(self, settings: Any, dataset: Any, external: np.ndarray | None) -> None:
        super().__init__()
        name = settings.language_model
        for package in ("transformers", "peft"):
            require_package(package, f"language_model={name}", _INSTALL)
        texts = texts_of(dataset, settings.neighbour_texts)
        self._pooling = settings.pooling if settings.pooling != "auto" else _pooling_of(name)
        width = _checked_width(name, settings.lora_rank)
        self.language_model, tokenizer = _loaded(name, settings.lora_rank)
        found = tokenizer(texts, truncation=True, max_length=settings.max_text_tokens, padding=True)
        self.register_buffer("tokens", torch.tensor(found["input_ids"], dtype=torch.int32), persistent=False)
        n_tokens = torch.tensor(found["attention_mask"]).sum(dim=1).clamp(min=1)
        self.register_buffer("n_tokens", n_tokens, persistent=False)
        self.register_buffer("external", None if external is None else torch.from_numpy(external), persistent=False)
        self.soft_token = None if external is None else nn.Linear(external.shape[1], width)
        self.last_layer = nn.Linear(width, settings.embedding_size)

    def forward(self, ids: Tensor) -> Tensor:
        """Return what represents some nodes, ``[n, d]``."""
        lengths = self.n_tokens[ids]
        n_columns = int(lengths.max())
        tokens = self.tokens[ids, :n_columns].long()
        inputs = self.language_model.get_input_embeddings()(tokens)
        if self.soft_token is not None and self.external is not None:
            inputs = torch.cat([self.soft_token(self.external[ids]).unsqueeze(1).to(inputs.dtype), inputs], dim=1)
            lengths = lengths + 1
        mask = torch.arange(inputs.shape[1], device=ids.device) < lengths.unsqueeze(1)
        output = self.language_model(inputs_embeds=inputs, attention_mask=mask.long()).last_hidden_state
        represented: Tensor = self.last_layer(self._pooled(output, mask, lengths).float())
        return represented

    def _pooled(self, output: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Return one vector of each text, ``[n, h]``, from those of its tokens, ``[n, L, h]``."""
        if self._pooling == "mean":
            weights = mask.unsqueeze(2).to(output.dtype)
            return (output * weights).sum(dim=1) / weights.sum(dim=1)
        rows = torch.arange(len(output), device=output.device)
        if self._pooling == "last":
            return output[rows, lengths - 1]
        return output[:, 0 if self.soft_token is None else 1]


def _pooling_of(name: str) -> str:
    """Return the pooling that the sentence-transformers files of a model's folder name.

    Raises:
        SettingError: they are not there, or name another.
    """
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
    for path in sorted(Path(name).glob("*Pooling/config.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        asked = [each for key, each in names.items() if found.get(key)]
        asked += [found["pooling_mode"]] if found.get("pooling_mode") in names.values() else []
        if asked:
            return str(asked[0])
    raise SettingError(
        f"language_model={name}: no file says how its tokens become one vector of a text. Say it: pooling=mean, cls "
        "(encoders) or last (decoders)."
    )


def _checked_width(name: str, rank: int) -> int:
    """Return a model's width, after its memory was said and checked; nothing is loaded yet.

    Raises:
        SettingError: it cannot be opened, does not fit into memory, or is narrower than the adapters' rank.
    """
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(name)
        with torch.device("meta"):
            n_weights = sum(each.numel() for each in AutoModel.from_config(config).parameters())
    except (OSError, ValueError) as error:
        said = str(error).strip().splitlines()
        raise SettingError(
            f"language_model={name} cannot be opened: {said[0] if said else type(error).__name__}. Give the folder of "
            "a Hugging Face model, or its name where it can be downloaded."
        ) from error
    width = int(config.hidden_size)
    check_rank(rank, width, f"lora_rank={rank}", name)
    needed = 4 * n_weights * (1 if rank else _COPIES)
    free = psutil.virtual_memory().available
    said_needed = f"{name} has {n_weights / 1e6:,.1f} million weights: {needed / 2**30:.2f} GiB in float32"
    if needed > free:
        raise SettingError(
            f"language_model: {said_needed}, without what its layers compute, and {free / 2**30:.2f} GiB are free. "
            "Take a smaller model" + ("." if rank else ", or train adapters only (lora_rank=8).")
        )
    _logger.info(f"language_model: {said_needed}; {free / 2**30:.1f} GiB are free", extra=ON_SCREEN)
    return width


def _loaded(name: str, rank: int) -> tuple[Any, Any]:
    """Return a model, with adapters of a rank where it is above 0, and its tokenizer, padding on the right."""
    from transformers import AutoModel, AutoTokenizer

    try:
        model, tokenizer = AutoModel.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise SettingError(f"language_model={name} cannot be loaded: {error}") from error
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return with_adapters(model, rank) if rank else model, tokenizer
