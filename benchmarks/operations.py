"""Time and peak memory of each operation against its plain formula or RecBole's own.

    python benchmarks/operations.py --dataset amazon-book --data_path dataset --threads 2

Bare matrix products and copies, propagation, InfoNCE, Gen's reconstruction, an epoch's negatives and batches, full-sort
evaluation; ``--only`` picks some.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import limits
import numpy as np
import reference
import timing
import torch
import workload
from limits import Product
from torch import Tensor
from torch.utils.data import DataLoader
from workload import Candidate

from recbole_rlmrec.model.layers import Projector
from recbole_rlmrec.ops.info_nce import info_nce, reconstruction_loss

Build = Callable[[], Callable[[], object]]

TEMPERATURE = 0.2


@dataclass(frozen=True)
class Case:
    """One operation computed in two ways; both are picklable, so that another process can measure their memory."""

    name: str
    plain: Build
    ours: Build


# ---------------------------------------------------------------------- propagation


def forward_and_backward(forward: Callable[[], Tensor]) -> Callable[[], object]:
    """Return a call that computes ``forward`` and the gradients of a random direction in its result."""
    direction = torch.randn_like(forward())
    return lambda: forward().backward(direction)


def model_propagation(candidate: Candidate) -> Callable[[], object]:
    """Build a model, ours or RecBole's, and return its whole propagation."""
    config = candidate.config()
    train_data, _, _ = candidate.loaders(config)
    model = config.model_class(config, train_data._dataset).to(config["device"]).train()
    return forward_and_backward(lambda: torch.cat(model()))


def reference_propagation(candidate: Candidate) -> Callable[[], object]:
    """Build the reference and return its propagation with edges dropped."""
    config = candidate.config()
    users, items, shape = workload.without_padding(candidate.loaders(config)[0]._dataset)
    model = reference.build("LightGCN", (users, items), shape, config, device=candidate.device).backbone
    return forward_and_backward(lambda: model.encode(model.ego()))


def propagation_cases(arguments: argparse.Namespace, place: dict[str, Any]) -> list[Case]:
    """Return three layers, forward and backward, with the whole graph and with a fifth of its edges dropped."""
    size = {"embedding_size": 32, "n_layers": 3, "train_batch_size": arguments.batch}
    ours, theirs = (Candidate(kind, "LightGCN", **place, settings=size) for kind in ("ours", "recbole"))
    dropped = Candidate("ours", "LightGCN", **place, settings={**size, "edge_keep_rate": 0.8})
    return [
        Case(
            "propagation, whole graph; plain is RecBole's",
            partial(model_propagation, theirs),
            partial(model_propagation, ours),
        ),
        Case(
            "propagation, a fifth of the edges dropped",
            partial(reference_propagation, dropped),
            partial(model_propagation, dropped),
        ),
    ]


# ---------------------------------------------------------------------- InfoNCE


def contrast(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], rows: np.ndarray, n: int, width: int, *, amp: bool, device: str
) -> Callable[[], object]:
    """Return InfoNCE, forward and backward, of two random tables.

    Args:
        loss: of the rows, the anchors' table and the candidates' table.
        rows: ``[B]`` the anchors.
        n: rows of a table.
        width: of a row.
        amp: under autocast, as RecBole's trainer has it with ``enable_amp``.
        device: where.
    """
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(n, width, generator=generator).to(device).requires_grad_() for _ in range(2))
    ids = torch.from_numpy(rows).to(device)

    def run() -> None:
        first.grad = second.grad = None
        with torch.autocast(device, enabled=amp):
            value = loss(ids, first, second)
        value.backward()

    return run


def plain_info_nce(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the plain formula over every row."""
    return reference.info_nce(first[rows], second[rows], second, TEMPERATURE).mean()


def our_info_nce(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return ours over every row."""
    return info_nce(first[rows], second[rows], second, TEMPERATURE)


def our_weighted_info_nce(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return ours as the models call it: every distinct row once, with its multiplicity."""
    ids, counts = torch.unique(rows, return_counts=True)
    return info_nce(first[ids], second[ids], second, TEMPERATURE, counts.float())


def info_nce_cases(arguments: argparse.Namespace, batch_users: np.ndarray) -> list[Case]:
    """Return distinct anchors against tables of several sizes, and the users of a real batch."""
    rng = np.random.default_rng(0)
    n_users = arguments.users
    shapes = [(n_users, 32), *((n, d) for n in arguments.candidates for d in arguments.widths)]
    cases = []
    for amp in (False, True):
        for n, width in dict.fromkeys(shapes):
            rows = rng.permutation(n)[: arguments.batch]
            name = f"InfoNCE, {len(rows):,} distinct anchors, N = {n:,}, d = {width}{_under(amp=amp)}"
            timed = partial(contrast, rows=rows, n=n, width=width, amp=amp, device=arguments.device)
            cases.append(Case(name, partial(timed, plain_info_nce), partial(timed, our_info_nce)))
        distinct = len(np.unique(batch_users))
        anchors = f"{len(batch_users):,} anchors of a batch, {distinct:,} distinct"
        name = f"InfoNCE, {anchors}, N = {n_users:,}, d = 32{_under(amp=amp)}"
        timed = partial(contrast, rows=batch_users, n=n_users, width=32, amp=amp, device=arguments.device)
        cases.append(Case(name, partial(timed, plain_info_nce), partial(timed, our_weighted_info_nce)))
    return cases


def _under(*, amp: bool) -> str:
    return ", autocast" if amp else ""


# ---------------------------------------------------------------------- Gen's reconstruction


def our_reconstruction(projector: Projector, rows: Tensor, target: Tensor) -> Tensor:
    """Return ours, as the models call it: the rebuilt profiles are never computed."""
    last = projector[2]
    return reconstruction_loss(projector.hidden(rows), last.weight, last.bias, target, TEMPERATURE)


def plain_reconstruction(projector: Projector, rows: Tensor, target: Tensor) -> Tensor:
    """Return the plain formula."""
    return reference.reconstruction_loss(projector(rows), target, TEMPERATURE)


def reconstruction(
    loss: Callable[[Projector, Tensor, Tensor], Tensor],
    target_dtype: torch.dtype,
    masked: int,
    semantic_dim: int,
    *,
    amp: bool,
    device: str,
) -> Callable[[], object]:
    """Return projector and reconstruction, forward and backward, of ``masked`` random representations.

    Args:
        loss: of the projector, the representations ``[M, 32]`` and the targets ``[M, D]``, which have length 1.
        target_dtype: of the targets; ours hold them in bfloat16 under autocast.
        masked: M.
        semantic_dim: D.
        amp: under autocast.
        device: where.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(masked, 32, generator=generator).to(device).requires_grad_()
    target = torch.nn.functional.normalize(torch.randn(masked, semantic_dim, generator=generator), dim=1)
    target = target.to(device, target_dtype)
    projector = Projector(32, semantic_dim, seed=0).to(device)

    def run() -> None:
        rows.grad = None
        projector.zero_grad()
        with torch.autocast(device, enabled=amp):
            value = loss(projector, rows, target)
        value.backward()

    return run


def reconstruction_cases(arguments: argparse.Namespace) -> list[Case]:
    """Return the reconstruction in float32 and under autocast."""
    cases = []
    for amp in (False, True):
        timed = partial(
            reconstruction,
            masked=arguments.masked,
            semantic_dim=arguments.semantic_dim,
            amp=amp,
            device=arguments.device,
        )
        name = f"reconstruction, {arguments.masked:,} masked, D = {arguments.semantic_dim:,}{_under(amp=amp)}"
        plain = partial(timed, plain_reconstruction, torch.float32)
        held = torch.bfloat16 if amp else torch.float32
        cases.append(Case(name, plain, partial(timed, our_reconstruction, held)))
    return cases


# ---------------------------------------------------------------------- tables


def case_table(cases: Sequence[Case], arguments: argparse.Namespace) -> str:
    """Time each case's two ways in alternation and return the table."""
    header = ["operation", "plain, ms", "ours, ms", "ratio"]
    if not arguments.no_memory:
        header += ["plain, extra MiB", "ours, extra MiB", "share"]
    rows = []
    for case in cases:
        seconds = timing.alternate({"plain": case.plain(), "ours": case.ours()}, arguments.rounds)
        plain, ours = seconds["plain"], seconds["ours"]
        row = [case.name, timing.spread(plain), timing.spread(ours), timing.times(timing.ratio(plain, ours))]
        if not arguments.no_memory:
            peaks = [timing.peak_memory(build, arguments.device) / timing.MIB for build in (case.plain, case.ours)]
            row += [*map(timing.number, peaks), f"{peaks[1] / peaks[0]:.1%}"]
        rows.append(row)
    return timing.table(header, rows)


def loader_table(arguments: argparse.Namespace, place: dict[str, Any]) -> str:
    """Draw the negatives of an epoch and build its batches: ours, RecBole's and the reference's."""
    settings = {"train_batch_size": arguments.batch}
    loaders = {}
    for kind in ("ours", "recbole"):
        candidate = Candidate(kind, "LightGCN", **place, settings=settings)
        loaders[kind] = candidate.loaders(candidate.config())[0]
    users, items, shape = workload.without_padding(loaders["ours"]._dataset)
    rows = reference.PairwiseRows(users, items, shape)

    def plain() -> None:
        rows.draw_negatives(range(len(rows)))
        exhaust(DataLoader(rows, batch_size=arguments.batch, shuffle=True))

    candidates = {kind: partial(exhaust, loader) for kind, loader in loaders.items()}
    seconds = timing.alternate({**candidates, "reference": plain}, arguments.rounds)
    return _ratios(f"negatives and batches of an epoch ({len(rows):,} interactions)", seconds)


def exhaust(loader: Any) -> None:
    """Build every batch."""
    for _ in loader:
        pass


def evaluation_table(arguments: argparse.Namespace, place: dict[str, Any]) -> str:
    """Rank all items for the users of the test split: ours, RecBole's as it comes and with larger batches."""
    ours = Candidate("ours", "LightGCN", **place, settings={"embedding_size": 32})
    large = ours.config()["eval_batch_size"]
    candidates = {
        "ours": ours,
        "RecBole, eval_batch_size 4096 (its default)": Candidate(
            "recbole", "LightGCN", **place, settings={"embedding_size": 32, "eval_batch_size": 4096}
        ),
        f"RecBole, eval_batch_size {large} (ours)": Candidate(
            "recbole", "LightGCN", **place, settings={"embedding_size": 32, "eval_batch_size": large}
        ),
    }
    seconds = timing.alternate(
        {name: evaluation(candidate) for name, candidate in candidates.items()}, arguments.rounds
    )
    return _ratios("full-sort evaluation of the test split", seconds)


def evaluation(candidate: Candidate) -> Callable[[], object]:
    """Build model and loaders and return the evaluation of the test split."""
    config = candidate.config()
    train_data, _, test_data = candidate.loaders(config)
    trainer = candidate.trainer(config, train_data)
    trainer.eval_collector.data_collect(train_data)
    return lambda: trainer.evaluate(test_data, load_best_model=False, show_progress=False)


def _ratios(what: str, seconds: dict[str, list[float]]) -> str:
    rows = [
        [name, timing.spread(values), timing.times(timing.ratio(values, seconds["ours"]))]
        for name, values in seconds.items()
    ]
    return timing.table([what, "ms", "ours is faster by"], rows)


def machine_table(arguments: argparse.Namespace) -> str:
    """Return the rates of bare matrix products and of a copy in memory."""
    hidden = (arguments.semantic_dim + 32) // 2
    shapes = [Product(arguments.square, arguments.square, arguments.square)]
    shapes += [
        Product(arguments.users, arguments.semantic_dim, hidden),
        Product(hidden, arguments.users, arguments.semantic_dim),
    ]
    dtypes = ("float32", "bfloat16")
    rows = []
    for shape in shapes:
        rates = [shape.flops / limits.product_seconds(shape, dtype, arguments.device) / 1e9 for dtype in dtypes]
        rows.append([f"[{shape.m:,}, {shape.k:,}] @ [{shape.k:,}, {shape.n:,}]", *map(timing.number, rates)])
    rate = limits.bandwidth(arguments.device) / 1e9
    rows.append(["a large copy, GB/s read and written", timing.number(rate), "-"])
    return timing.table(["bare rate, GFLOP/s", *dtypes], rows)


SECTIONS = ("machine", "propagation", "info_nce", "reconstruction", "loader", "evaluation")


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=7)
    timing.add_device_arguments(parser)
    workload.add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument("--candidates", nargs="+", type=int, default=[11_000, 50_000], help="table sizes of InfoNCE")
    parser.add_argument("--widths", nargs="+", type=int, default=[32, 96], help="widths of InfoNCE")
    parser.add_argument("--masked", type=int, default=3049, help="nodes that Gen masks")
    parser.add_argument("--square", type=int, default=2048, help="size of the square matrix product")
    arguments = timing.parse(parser, given)
    parts = []
    with workload.prepared(arguments) as data_path:
        place = {"data_path": data_path, "dataset": arguments.dataset, "device": arguments.device}
        candidate = Candidate("ours", "LightGCN", **place)
        training = candidate.loaders(candidate.config())[0]._dataset
        users, _, (arguments.users, arguments.items) = workload.without_padding(training)
        batch_users = np.random.default_rng(0).permutation(users)[: arguments.batch]
        if "machine" in arguments.only:
            parts.append(machine_table(arguments))
        cases = []
        if "propagation" in arguments.only:
            cases += propagation_cases(arguments, place)
        if "info_nce" in arguments.only:
            cases += info_nce_cases(arguments, batch_users)
        if "reconstruction" in arguments.only:
            cases += reconstruction_cases(arguments)
        if cases:
            parts.append(case_table(cases, arguments))
        if "loader" in arguments.only:
            parts.append(loader_table(arguments, place))
        if "evaluation" in arguments.only:
            parts.append(evaluation_table(arguments, place))
    title = f"Operations: {arguments.dataset}, {arguments.device}"
    if set(arguments.only) != set(SECTIONS):
        title += f" ({', '.join(arguments.only)})"
    timing.report(__file__, title, parts, arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
