"""On a GPU: the losses of the CPU, and no step that makes the host wait. Skipped where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of, built

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("LightGCN", {}),
    ("LightGCN_RLMRecCon", {"alignment_weight": 1.0}),
    ("LightGCN_RLMRecCon", {"alignment_weight": 1.0, "alignment_negatives": "batch"}),
    ("LightGCN_RLMRecGen", {"reconstruction_weight": 1.0, "mask_ratio": 1.0}),
    ("SGL", {"view_edge_drop": "independent", "edge_keep_rate": 1.0}),
    ("SimGCL", {"eps": 0.0}),
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


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize(("name", "settings"), MODELS)
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
