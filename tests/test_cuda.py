"""On a GPU: the losses of the CPU, and no step that makes the host wait. Skipped where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of, built

from recbole_rlmrec.model.backbone.autocf import MaskedGraphs
from recbole_rlmrec.ops.subgraph import undirected_graph

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("LightGCN", {}),
    ("LightGCN_RLMRecCon", {"alignment_weight": 1.0}),
    ("LightGCN_RLMRecCon", {"alignment_weight": 1.0, "alignment_negatives": "batch"}),
    ("LightGCN_RLMRecGen", {"reconstruction_weight": 1.0, "mask_ratio": 1.0}),
    ("SGL", {"view_edge_drop": "independent", "edge_keep_rate": 1.0}),
    ("SimGCL", {"eps": 0.0}),
    ("GCCF", {}),
    ("DCCF", {"ssl_weight": 1.0}),
    ("LightGCN_KAR", {}),
]


def some_batch() -> Any:
    rng = np.random.default_rng(0)
    return batch_of(*(rng.integers(1, n, 64) for n in (41, 31, 31)))


@pytest.mark.parametrize(("name", "settings"), MODELS)
def test_losses_are_those_of_the_cpu(world: World, name: str, settings: dict[str, Any]) -> None:
    expected = built(world, name, use_gpu=False, **settings)[0].calculate_loss(some_batch())
    model = built(world, name, **settings)[0].to("cuda")
    found = model.calculate_loss(some_batch().to("cuda"))
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)


def test_losses_over_drawn_graphs_are_those_of_the_cpu(world: World) -> None:
    cpu, gpu = built(world, "AutoCF", use_gpu=False)[0], built(world, "AutoCF")[0].to("cuda")
    cpu.calculate_loss(some_batch())
    drawn = cpu.masked_graphs
    gpu.masked_graphs, gpu.steps_until_draw = MaskedGraphs(*(graph.to("cuda") for graph in vars(drawn).values())), 1
    found, expected = (model.calculate_loss(some_batch().to(model.is_node.device)) for model in (gpu, cpu))
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)
    centres = torch.tensor([3, 44])
    graphs = [model.draw(centres.to(model.is_node.device)).encoder for model in (cpu, gpu)]
    torch.testing.assert_close(graphs[1].value.cpu(), graphs[0].value)


def test_graphs_of_pairs_are_those_of_the_cpu() -> None:
    first, second = torch.randint(40, (2, 300))
    looped = torch.arange(41) % 2 == 0
    expected, found = (undirected_graph(*(x.to(device) for x in (first, second, looped))) for device in ("cpu", "cuda"))
    for name in ("row_start", "column", "value", "mirror"):
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name


# Of what draws random numbers on the device, only that it does not wait.
@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize(("name", "settings"), [*MODELS, ("AlphaRec", {}), ("AutoCF", {})])
def test_a_step_does_not_make_the_host_wait(world: World, name: str, settings: dict[str, Any], amp: bool) -> None:
    model = built(world, name, enable_amp=amp, **settings)[0].to("cuda")
    batch = some_batch().to("cuda")

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=amp):
            losses = model.calculate_loss(batch)
        sum(losses).backward()

    step()  # libraries set themselves up
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
