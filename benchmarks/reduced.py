"""Time training steps that read reduced semantic embeddings beside steps that read whole ones.

    python benchmarks/reduced.py --dataset amazon-book --data_path dataset --threads 1

`products` are the bare matrix products of a step that take in the embeddings, of Gen all of the reconstruction, which
is computed in another order where that is less work; they are timed with `torch.mm`.
A time is the least of the rounds, in which all candidates take turns: the machine may do other work.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import timing
import torch
import workload
from limits import Product
from workload import Candidate

#: Models, and whose settings of the paper they are measured with.
MODELS = {
    "LightGCN_RLMRecCon": "LightGCN_RLMRecCon",
    "LightGCN_RLMRecGen": "LightGCN_RLMRecGen",
    "LightGCN_KAR": "LightGCN",
    "AlphaRec": "",
}


def products_over_profiles(model: Any, batch: Any) -> list[Product]:
    """Return the products of a step that take in what the model reads, of Gen all of the reconstruction."""
    n_nodes = model.n_users + model.n_items
    if hasattr(model, "adaptor"):
        experts = model.adaptor
        n_experts = experts.n_shared + len(experts.own[0].first_bias)
        hidden, width = experts.shared.first_weight.shape[1:]
        return _of_rows(n_nodes, width, n_experts * hidden)
    if hasattr(model, "language"):
        return _of_rows(n_nodes, model.language.shape[1], model.first_layer.out_features)
    width, hidden = model.semantic.dimension, model.projector[0].out_features
    if hasattr(model, "node_mask"):
        return _of_reconstruction(model.node_mask.n_masked, width, hidden)
    items = torch.cat([batch[name] for name in (model.ITEM_ID, model.NEG_ITEM_ID)]).unique()
    return [*_of_rows(model.n_users - 1, width, hidden), *_of_rows(len(items), width, hidden)]


def _of_rows(rows: int, width: int, hidden: int) -> list[Product]:
    return [Product(rows, width, hidden), Product(hidden, rows, width)]


def _of_reconstruction(rows: int, width: int, hidden: int) -> list[Product]:
    """Return products as :func:`~recbole_rlmrec.ops.info_nce.reconstruction_loss` orders them."""
    layer = _of_rows(rows, width, hidden)
    if width < hidden:  # rows are rebuilt, and contrasted with constants
        return [*layer, Product(rows, width, hidden), Product(rows, width, rows), Product(rows, rows, width)]
    of_layer = [*_of_rows(hidden, width, hidden), *(Product(rows, hidden, hidden) for _ in range(3))]
    return [*layer, *of_layer, *(Product(rows, hidden, rows) for _ in range(3))]


def bare(products: Sequence[Product], dtype: torch.dtype) -> Callable[[], object]:
    """Return a call that computes products of tables of ones."""
    sides = [(torch.ones(each.m, each.k, dtype=dtype), torch.ones(each.k, each.n, dtype=dtype)) for each in products]
    results = [left @ right for left, right in sides]

    def run() -> None:
        for (left, right), result in zip(sides, results):
            torch.mm(left, right, out=result)

    return run


def measured(candidate: Candidate, dimension: int, arguments: argparse.Namespace) -> list[str]:
    """Time steps and products with whole and with reduced embeddings and return the line of the table."""
    works: dict[str, Callable[[], object]] = {}
    is_cast = candidate.settings["enable_amp"]
    for name, settings in (("whole", {}), ("reduced", {"semantic_dimension": dimension})):
        given = Candidate(**{**vars(candidate), "settings": {**candidate.settings, **settings}})
        config = given.config()
        train_data = given.loaders(config)[0]
        trainer = given.trainer(config, train_data)
        products = products_over_profiles(trainer.model, next(iter(train_data)))
        works[f"step, {name}"] = partial(trainer._train_epoch, workload.FirstSteps(train_data, 1), 0)
        works[f"products, {name}"] = bare(products, torch.bfloat16 if is_cast else torch.float32)
    least = {name: min(seconds) for name, seconds in timing.alternate(works, arguments.rounds).items()}
    line = [f"{candidate.model}{', enable_amp' if is_cast else ''}"]
    for what in ("step", "products"):
        whole, reduced = (least[f"{what}, {name}"] for name in ("whole", "reduced"))
        line += [timing.number(1e3 * whole), timing.number(1e3 * reduced), timing.times(whole / reduced)]
    return line


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=5)
    workload.add_arguments(parser)
    parser.add_argument("--dimension", type=int, default=256, help="that the embeddings are reduced to")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, metavar="MODEL")
    arguments = timing.parse(parser, given)
    rows = []
    with workload.prepared(arguments) as data_path:
        for model in arguments.models:
            for is_cast in (False, True):
                settings = {
                    **(workload.official_settings(MODELS[model]) if MODELS[model] else {}),
                    "train_batch_size": arguments.batch,
                    "enable_amp": is_cast,
                }
                candidate = Candidate("ours", model, data_path, arguments.dataset, settings=settings)
                rows.append(measured(candidate, arguments.dimension, arguments))
                print(" | ".join(rows[-1]), flush=True)
    header = ["model", *(f"{what}, {name}" for what in ("step", "products") for name in ("ms", "reduced, ms", "ratio"))]
    explanation = f"Embeddings of {arguments.semantic_dim:,} values, reduced to {arguments.dimension}."
    title = f"Reduced semantic embeddings: {arguments.dataset}"
    timing.report(__file__, title, [explanation, timing.table(header, rows)], arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
