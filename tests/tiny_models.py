"""Language models of a few words, made on the spot: what takes a real one runs with them in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch


def write_bert(folder: Path, words: Sequence[str], *packages: str) -> str:
    """Write a BERT, 16 wide, that knows some words; skip the test where a package is not installed.

    Args:
        folder: new; without a pooling, as Hugging Face has it.
        words: what it knows.
        packages: that the test needs beside transformers.
    """
    transformers = pytest.importorskip("transformers")
    for package in packages:
        pytest.importorskip(package)
    folder.mkdir()
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(known) + "\n")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(known), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)
