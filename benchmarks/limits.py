"""What a training step cannot do without: its matrix products and its memory traffic, timed bare.

A step takes as long as both and everything else. How near it is to its limit says whether there is anything to gain.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from timing import alternate
from torch import Tensor

from recbole_rlmrec.ops.graph import Adjacency

#: Anchors that a logits product is timed for at a time on the CPU, so that the logits never leave its caches.
_BLOCK = 256

#: Bytes that are copied to find the speed of the memory: far more than a cache holds.
COPIED_BYTES = 2**28

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Product:
    """``count`` matrix products ``[m, k] @ [k, n]``."""

    m: int
    k: int
    n: int
    count: int = 1

    @property
    def flops(self) -> float:
        """Floating-point operations of all of them."""
        return 2.0 * self.m * self.k * self.n * self.count


@dataclass(frozen=True)
class Step:
    """The sizes of one training step.

    Attributes:
        is_ours: whether it is a step of ours, which orders the products of Gen's reconstruction otherwise.
        users: anchors among the users: the batch's rows, or its distinct ones where duplicates are computed once.
        positives: the same of the positive items.
        negatives: the same of the negative items.
        n_users: U.
        n_items: I.
        projected_users: user profiles that are projected.
        projected_items: item profiles that are projected.
        alignment_candidates: how many candidates the three kinds of anchors have in the alignment.
        masked: nodes that are masked.
        semantic_dim: D.
        n_edges: entries of the graph.
    """

    is_ours: bool
    users: int
    positives: int
    negatives: int
    n_users: int
    n_items: int
    projected_users: int
    projected_items: int
    alignment_candidates: tuple[int, int, int]
    masked: int
    semantic_dim: int
    n_edges: int

    @classmethod
    def of(cls, kind: str, batch: tuple[Tensor, Tensor, Tensor], settings: Mapping[str, Any], **sizes: int) -> Step:
        """Return the sizes of a step on a batch.

        Args:
            kind: ``reference`` computes every row of the batch and projects every profile, and so does ``recbole``.
            batch: users, positive and negative items.
            settings: of the model.
            **sizes: ``n_users``, ``n_items``, ``semantic_dim``, ``n_edges``.
        """
        is_ours = kind == "ours"
        users, positives, negatives = (len(rows.unique()) if is_ours else len(rows) for rows in batch)
        items = len(torch.cat(batch[1:]).unique()) if is_ours else sizes["n_items"]
        candidates = (sizes["n_users"], positives, negatives)
        projected_users = sizes["n_users"]
        if settings["alignment_negatives"] == "batch":
            candidates, projected_users = (users, items, items), users
        masked = int((settings["mask_ratio"] or 0) * (sizes["n_users"] + sizes["n_items"]))
        return cls(
            is_ours,
            users,
            positives,
            negatives,
            **sizes,
            projected_users=projected_users,
            projected_items=items,
            alignment_candidates=candidates,
            masked=masked,
        )


def dense_products(step: Step, settings: Mapping[str, Any], device: str) -> list[Product]:
    """Return the dense matrix products of a step, forward and backward.

    - A linear layer ``[rows, a] -> [rows, b]``: the product, the weight's gradient, and the input's gradient where the
      input is no constant.
    - A contrast of A anchors with N candidates of width d: the logits ``[A, d] @ [d, N]``, the anchors' gradient
      ``[A, N] @ [N, d]`` and, where they are no constants, the candidates' ``[N, A] @ [A, d]``.
    - Gen's reconstruction: two layers and a contrast of width D with constant candidates. Ours never computes the
      rebuilt profiles: it contrasts the hidden layer with the targets mapped into it, and takes the rebuilt profiles'
      lengths from the Gram matrix ``W^T W``.
    """
    width, semantic_dim = settings["embedding_size"], step.semantic_dim
    hidden = (width + semantic_dim) // 2
    products = []
    if settings["ssl_weight"]:
        products += _contrast(step.users, step.n_users, width, device)
        products += _contrast(step.positives, step.n_items, width, device)
        if settings["ssl_negative_items"]:
            products += _contrast(step.negatives, step.n_items, width, device)
    if settings["alignment_weight"]:
        for rows in (step.projected_users, step.projected_items):
            products += _linear(rows, semantic_dim, hidden, input_gradient=False)
            products += _linear(rows, hidden, width)
        for anchors, candidates in zip((step.users, step.positives, step.negatives), step.alignment_candidates):
            products += _contrast(anchors, candidates, width, device)
    if settings["reconstruction_weight"]:
        products += _linear(step.masked, width, hidden)
        if step.is_ours:
            products += _linear(step.masked, semantic_dim, hidden, input_gradient=False)
            products += _linear(hidden, semantic_dim, hidden, input_gradient=False)
            products += _linear(step.masked, hidden, hidden)
            products += _contrast(step.masked, step.masked, hidden, device)
        else:
            products += _linear(step.masked, hidden, semantic_dim)
            products += _contrast(step.masked, step.masked, semantic_dim, device, candidate_gradient=False)
    return products


def _linear(rows: int, inputs: int, outputs: int, *, input_gradient: bool = True) -> list[Product]:
    forward, weight = Product(rows, inputs, outputs), Product(outputs, rows, inputs)
    return [forward, weight, Product(rows, outputs, inputs)] if input_gradient else [forward, weight]


def _contrast(
    anchors: int, candidates: int, width: int, device: str, *, candidate_gradient: bool = True
) -> list[Product]:
    block = min(_BLOCK, anchors) if device == "cpu" else anchors
    count = -(-anchors // block)
    logits, anchor = Product(block, width, candidates, count), Product(block, candidates, width, count)
    return [logits, anchor, Product(candidates, block, width, count)] if candidate_gradient else [logits, anchor]


def n_passes(settings: Mapping[str, Any]) -> int:
    """Return how often a step propagates: the main path and the views."""
    return 3 if settings["ssl_weight"] else 1


@cache
def product_seconds(product: Product, dtype: Dtype, device: str) -> float:
    """Return what the products take with ``torch.mm``."""
    left, right = (
        torch.ones(shape, dtype=getattr(torch, dtype), device=device)
        for shape in ((product.m, product.k), (product.k, product.n))
    )
    out = left @ right
    calls = min(product.count, 8)  # of many equal blocks, some

    def run() -> None:
        for _ in range(calls):
            torch.mm(left, right, out=out)

    seconds = alternate({"": run}, rounds=3)[""]
    return statistics.median(seconds) * product.count / calls


def sparse_seconds(graph: Adjacency, width: int) -> float:
    """Return what one product of the graph with a table of this width takes with ``torch.mm`` in CSR form."""
    n = graph.n_nodes
    matrix = torch.sparse_csr_tensor(graph.row_start, graph.column, graph.value, size=(n, n), check_invariants=False)
    dense = torch.ones(n, width, device=graph.value.device)
    return statistics.median(alternate({"": lambda: torch.mm(matrix, dense)}, rounds=5)[""])


def least_traffic(step: Step, settings: Mapping[str, Any], n_parameters: int) -> float:
    """Return the bytes that a step moves at least, if every array is read and written once.

    - Adam reads weight, gradient and two moments and writes three of them.
    - A propagation layer reads the graph (8 bytes an entry) and a table and writes a table, forward and backward.
    - Profiles that are projected, and Gen's targets, are read forward and again for the weight's gradient; 2 bytes a
      number under autocast, 4 else.
    """
    table = 4 * (step.n_users + step.n_items) * settings["embedding_size"]
    layers = 2 * n_passes(settings) * settings["n_layers"]
    total = 7 * 4 * n_parameters + layers * (8 * step.n_edges + 2 * table)
    profiles = step.projected_users + step.projected_items if settings["alignment_weight"] else step.masked
    total += 2 * (2 if settings["enable_amp"] else 4) * step.semantic_dim * profiles
    return float(total)


@cache
def bandwidth(device: str) -> float:
    """Return the bytes per second that a large copy reads and writes."""
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    seconds = statistics.median(alternate({"": lambda: target.copy_(source)}, rounds=5)[""])
    return 2 * source.nbytes / seconds
