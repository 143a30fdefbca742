"""DMRec on a dataset with holes, against loops over users in float64 with gradients."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of
from test_baselines import semantic_row
from torch import Tensor

from recbole_rlmrec.errors import DataError

SIZES: dict[str, Any] = {"mlp_hidden_size": [9], "latent_dimension": 6, "dropout_prob": 0.0}


@pytest.fixture
def holed(world: World) -> World:
    world.forget_texts(["u3"], ["i5"])
    world.train = np.concatenate([world.train, world.train[:3]])  # repeated interactions
    world.write()
    return world


def layers_of(stack: Any, row: Tensor) -> Tensor:
    for layer in stack:
        row = layer(row)
    return row


def slow_gaussians(world: World, model: Any, dataset: Any, user: int) -> tuple[Tensor, list[Tensor]]:
    """Interactions, and means and log variances from them and from texts."""
    row = torch.zeros(dataset.item_num, dtype=torch.float64)
    pairs = zip(*(dataset.inter_feat[field].tolist() for field in ("user_id", "item_id")))
    taken = sorted({item for u, item in pairs if u == user})
    row[taken] = 1
    text = semantic_row(world, dataset, "user", user)
    for item in taken:
        text = text + semantic_row(world, dataset, "item", item)
    found = [layers_of(model.encoder, row), layers_of(model.text_encoder, torch.from_numpy(text))]
    return row, [half for each in found for half in (each[:3], each[3:])]


def slow_divergence(mean: Tensor, log_variance: Tensor, of_mean: Any, of_log_variance: Any) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for m, v, n, w in zip(mean, log_variance.exp(), of_mean, of_log_variance.exp()):
        total = total + ((w / v).log() + (v + (m - n) ** 2) / w - 1) / 2
    return total


@pytest.mark.parametrize("matching", ["mddm", "godm", "cpdm"])
def test_the_loss_is_the_slow_one_with_its_gradients(
    holed: World, matching: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, train_data = holed.model("DMRec", matching=matching, matching_weight=0.3, **SIZES)
    dataset, users = train_data._dataset, [3, 7, 1, 12]
    slow = copy.deepcopy(model).double()
    noise = torch.randn(len(users), 3)
    monkeypatch.setattr(torch, "randn_like", lambda rows: noise.to(rows))
    expected, zeros = torch.zeros((), dtype=torch.float64), torch.zeros(3).double()
    for user, draw in zip(users, noise.double()):
        row, (m, v, text_m, text_v) = slow_gaussians(holed, slow, dataset, user)
        mean, log_variance = m + text_m, v + text_v
        logits = layers_of(slow.decoder, mean + draw * (log_variance / 2).exp())
        loss = -(row * (logits - logits.exp().sum().log())).sum()
        prior = slow_divergence(mean, log_variance, zeros, zeros)
        if matching == "mddm":
            loss = loss + 0.3 * prior + 0.7 * slow_divergence(mean, log_variance, text_m, text_v)
        elif matching == "godm":
            apart = ((m - text_m) ** 2).sum() + (((v / 2).exp() - (text_v / 2).exp()) ** 2).sum()
            loss = loss + prior + 0.3 * apart.sqrt()
        else:
            average = (mean + text_m) / 2, (log_variance + text_v) / 2
            match = slow_divergence(mean, log_variance, *average) + slow_divergence(text_m, text_v, *average)
            loss = loss + prior + 0.3 * match
        expected = expected + loss / len(users)
    losses = model.calculate_loss(batch_of(users, users, users))
    assert model.loss_names == ("rebuilding", "matching") and sum(losses).item() == pytest.approx(
        expected.item(), rel=1e-5
    )
    sum(losses).backward()
    expected.backward()
    for (name, parameter), leaf in zip(model.named_parameters(), slow.parameters()):
        scale = leaf.grad.abs().max()
        assert scale > 0, name
        torch.testing.assert_close(parameter.grad.double() / scale, leaf.grad / scale, rtol=0, atol=1e-4, msg=name)


def test_scores_are_of_the_means(holed: World) -> None:
    model, train_data = holed.model("DMRec", **SIZES)
    model.eval()
    users, items = [3, 7, 1], [4, 2, 9]
    batch, slow = batch_of(users, items, items), copy.deepcopy(model).double()
    rows = []
    for user in users:
        _, (mean, _, text_mean, _) = slow_gaussians(holed, slow, train_data._dataset, user)
        rows.append(layers_of(slow.decoder, mean + text_mean))
    expected = torch.stack(rows)
    whole = model.full_sort_predict(batch).view(len(users), -1)
    torch.testing.assert_close(whole.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.predict(batch), whole[range(3), items])


def test_layers_start_as_pytorchs(world: World) -> None:
    model, _ = world.model("DMRec", mlp_hidden_size=[50], latent_dimension=40)
    for layer in (model.encoder[0], model.text_encoder[0], model.decoder[0]):
        bound = 1 / math.sqrt(layer.in_features)
        for part in (layer.weight, layer.bias):
            assert 0.8 * bound < part.abs().max() <= bound


def test_texts_reach_the_scores_and_dropout_takes_both(holed: World) -> None:
    """What the dropout takes from a row, it takes from the sum of the texts."""
    model, _ = holed.model("DMRec", **{**SIZES, "dropout_prob": 0.5})
    user = torch.tensor([3])
    rows = model.get_rating_matrix(user)
    seen: list[Tensor] = []
    for stack in (model.encoder, model.text_encoder):
        stack.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.train().gaussians(user, rows)
    kept, texts = seen
    assert set(kept.unique().tolist()) == {0.0, 2.0} and int((kept > 0).sum()) < int(rows.sum())
    items = model.semantic.vectors[model.n_users :]
    torch.testing.assert_close(texts, kept @ items + model.semantic(user))


def test_a_side_without_texts_is_refused(world: World) -> None:
    for token in world.semantic[0]:
        world.semantic[0][token] = np.zeros(12)
    world.write()
    with pytest.raises(DataError, match=r"s row in .* is zero"):
        world.model("DMRec")
