"""With default settings LightGCN and SGL compute the numbers of RecBole's own classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World
from recbole.model.general_recommender.lightgcn import LightGCN as RecBoleLightGCN
from recbole.model.general_recommender.sgl import SGL as RecBoleSGL  # noqa: N811
from recbole.utils import init_seed

STEPS = 10


def train_ten_steps(world: World, model_class: Any, **settings: Any) -> tuple[list[float], torch.Tensor]:
    config = world.config(model_class, learning_rate=0.01, defaults="published", **settings)
    _, train_data, valid_data, _ = world.loaders(config)
    init_seed(config["seed"], config["reproducibility"])
    model = config.model_class(config, train_data._dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])
    losses: list[float] = []
    while len(losses) < STEPS:
        model.train()  # at each epoch, as the trainer does; SGL draws its views here
        for interaction in train_data:
            if len(losses) == STEPS:
                break
            loss = model.calculate_loss(interaction)
            loss = sum(loss) if isinstance(loss, tuple) else loss
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    users = next(iter(valid_data))[0]
    with torch.no_grad():
        return losses, model.full_sort_predict(users).view(-1)


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        ("LightGCN", RecBoleLightGCN, {}),
        ("LightGCN", RecBoleLightGCN, {"require_pow": True, "n_layers": 3, "reg_weight": 0.01}),
        ("SGL", RecBoleSGL, {}),
        ("SGL", RecBoleSGL, {"type": "ND", "drop_ratio": 0.2}),
        ("SGL", RecBoleSGL, {"type": "RW", "n_layers": 2, "reg_weight": 0.01}),
    ],
    ids=["LightGCN", "LightGCN-pow", "SGL-ED", "SGL-ND", "SGL-RW"],
)
def test_ten_steps_and_scores_agree(
    make_world: Callable[..., World], ours: str, theirs: type, settings: dict[str, Any]
) -> None:
    world = make_world(n_users=120, n_items=80)
    our_losses, our_scores = train_ten_steps(world, ours, **settings)
    their_losses, their_scores = train_ten_steps(world, theirs, **settings)
    np.testing.assert_allclose(our_losses, their_losses, rtol=1e-5)
    assert len(set(our_losses)) == STEPS
    assert (our_scores - their_scores).abs().max() <= 1e-5 * their_scores.abs().max()


@pytest.mark.parametrize("backbone", ["LightGCN", "SGL", "SimGCL"])
@pytest.mark.parametrize(
    ("variant", "off"),
    [("_RLMRecCon", {"alignment_weight": 0}), ("_RLMRecGen", {"reconstruction_weight": 0})],
    ids=["Con", "Gen"],
)
def test_weight_zero_is_the_backbone_exactly(world: World, backbone: str, variant: str, off: dict[str, Any]) -> None:
    base_losses, base_scores = train_ten_steps(world, backbone)
    losses, scores = train_ten_steps(world, backbone + variant, **off)
    assert losses == base_losses
    assert torch.equal(scores, base_scores)
    model, _ = world.model(backbone + variant, **off)
    assert not hasattr(model, "node_mask") and not hasattr(model, "semantic")
    assert sorted(dict(model.named_parameters())) == ["item_embedding.weight", "user_embedding.weight"]


@pytest.mark.parametrize("backbone", ["LightGCN", "SGL", "SimGCL"])
@pytest.mark.parametrize("variant", ["_RLMRecCon", "_RLMRecGen"])
def test_alignment_leaves_initial_weights_as_they_are(world: World, backbone: str, variant: str) -> None:
    base, _ = world.model(backbone)
    after_base = torch.rand(1)
    aligned, _ = world.model(backbone + variant)
    assert torch.equal(torch.rand(1), after_base)
    assert torch.equal(base.user_embedding.weight, aligned.user_embedding.weight)
    assert torch.equal(base.item_embedding.weight, aligned.item_embedding.weight)
