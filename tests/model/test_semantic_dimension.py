"""Models that read reduced semantic embeddings: the loss of whole rows, under weights that lie in the basis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of
from torch import Tensor, nn

from recbole_rlmrec.data.semantic_basis import SemanticBasis
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.layers import Projector, Reduction, SemanticTable
from recbole_rlmrec.ops.info_nce import info_nce, reconstruction_loss
from recbole_rlmrec.ops.mixture import perceptron_mixture

MODELS = ("LightGCN_RLMRecCon", "LightGCN_RLMRecGen", "LightGCN_KAR", "AlphaRec")
WIDTH, RANK = 12, 5


def nothing() -> None:
    pass


@pytest.fixture
def spanned() -> tuple[Tensor, Reduction]:
    """Rows of rank 5, of length 1 in float64, and their space."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, RANK)) @ rng.normal(size=(RANK, WIDTH))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    directions = np.linalg.svd(rows, full_matrices=False)[2][:RANK].T
    return torch.from_numpy(rows), Reduction(SemanticBasis(directions, 1.0), nothing)


def gradients(loss: Tensor, *layers: nn.Linear) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [each for layer in layers for each in (layer.weight, layer.bias)]))


def test_at_the_rank_a_projected_contrast_is_that_of_whole_rows(spanned: tuple[Tensor, Reduction]) -> None:
    rows, reduction = spanned
    anchors = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = Projector(WIDTH, 3, seed=0).double()
    reduced = Projector(WIDTH, 3, seed=0).double()
    reduced.replace(first=reduction.reading(reduced[0]))
    found = []
    for projector, table in ((whole, rows), (reduced, reduction(rows))):
        profiles = projector(table)
        loss = info_nce(anchors, profiles, profiles, 0.2)
        found.append((loss, gradients(loss, projector[0], projector[2])))
    (expected, of_whole), (loss, of_reduced) = found
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    of_whole[0] = of_whole[0] @ reduction.vectors  # what changes the weights, mapped as they are
    torch.testing.assert_close(of_reduced, of_whole, rtol=1e-9, atol=1e-12)
    assert reduced[0].out_features == (WIDTH + 3) // 2 and reduced.widths == (RANK, 3)


@pytest.mark.parametrize("dimension", [3, RANK])
def test_a_reconstruction_is_that_of_whole_rows(spanned: tuple[Tensor, Reduction], dimension: int) -> None:
    """For weights that rebuild within the basis, also where that is less than the space of the rows."""
    rows, reduction = spanned
    reduction = Reduction(SemanticBasis(reduction.vectors[:, :dimension].numpy(), 1.0), nothing)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 7, dtype=torch.float64, generator=generator)
    shapes = ((dimension, 7), (dimension,))
    weight, bias = (torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes)
    of_whole = [(reduction.vectors @ each).detach().requires_grad_() for each in (weight, bias)]
    expected = reconstruction_loss(hidden, *of_whole, rows, 0.2)
    loss = reconstruction_loss(hidden, weight, bias, reduction(rows), 0.2)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    mapped = [reduction.vectors.T @ each for each in torch.autograd.grad(expected, of_whole)]
    torch.testing.assert_close(list(torch.autograd.grad(loss, (weight, bias))), mapped, rtol=1e-9, atol=1e-12)


def test_at_the_rank_perceptrons_are_those_of_whole_rows(spanned: tuple[Tensor, Reduction]) -> None:
    """KAR's experts and AlphaRec's perceptron."""
    rows, reduction = spanned
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 7, WIDTH), (2, 7), (2, 3, 7), (2, 3)]
    first, *others = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)
    gate = torch.rand(40, 2, dtype=torch.float64, generator=generator)
    direction = torch.randn(40, 3, dtype=torch.float64, generator=generator)
    found = []
    for table, weight in ((rows, first), (reduction(rows), first @ reduction.vectors)):
        weights = [each.clone().requires_grad_() for each in (weight, *others)]
        value = perceptron_mixture(table, gate, *weights)
        found.append((value, list(torch.autograd.grad(value, weights, direction))))
    (expected, of_whole), (value, of_reduced) = found
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    of_whole[0] = of_whole[0] @ reduction.vectors
    torch.testing.assert_close(of_reduced, of_whole, rtol=1e-9, atol=1e-12)


def losses_of(model: Any) -> Tensor:
    rng = np.random.default_rng(1)
    torch.manual_seed(0)
    return torch.stack(model.calculate_loss(batch_of(*(rng.integers(1, n, 50) for n in (41, 31, 31)))))


MAPPED = {"semantic_storage": "memory_map"}
CASES = [
    *((name, {}) for name in MODELS),
    ("LightGCN_RLMRecCon", {**MAPPED, "alignment_negatives": "batch"}),
    ("LightGCN_RLMRecGen", MAPPED),
]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_with_all_dimensions_a_model_begins_as_without_the_setting(
    world: World, name: str, settings: dict[str, str]
) -> None:
    losses = [losses_of(world.model(name, semantic_dimension=n, **settings)[0]) for n in (None, WIDTH)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_fewer_dimensions_are_read_by_layers_of_the_same_hidden_width(world: World, name: str) -> None:
    shapes = [
        {key: tuple(value.shape) for key, value in world.model(name, semantic_dimension=n)[0].state_dict().items()}
        for n in (None, 4)
    ]
    changed = {key: (shape, shapes[1][key]) for key, shape in shapes[0].items() if shapes[1][key] != shape}
    assert changed
    for before, after in changed.values():
        assert before.count(WIDTH) == 1 and after == tuple(4 if width == WIDTH else width for width in before)
    (basis,) = shapes[1].keys() - shapes[0].keys()
    assert shapes[1][basis] == (WIDTH, 4)


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_reads_by_the_basis_of_its_training(world: World, name: str) -> None:
    """Another machine may find the basis turned; weights of coordinates would mean nothing then."""
    model, train_data = world.model(name, semantic_dimension=4)
    expected = losses_of(model)
    found = train_data._dataset.basis
    turned = SemanticBasis(found.vectors[:, [1, 2, 3, 0]], found.energy)
    other = world.config(name, semantic_dimension=4)
    dataset = world.loaders(other)[1]._dataset
    dataset.basis, dataset._basis_dimension = turned, 4
    loaded = other.model_class(other, dataset).train()
    loaded.load_state_dict(model.state_dict())
    torch.testing.assert_close(losses_of(loaded), expected, rtol=1e-6, atol=1e-7)


def test_the_rows_are_filled_again_only_for_another_basis(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = world.model("LightGCN_RLMRecCon", semantic_dimension=4)
    monkeypatch.setattr(SemanticTable, "_finished", lambda *arguments: pytest.fail("filled again"))
    model.load_state_dict(model.state_dict())


def test_texts_are_projected_as_they_are_encoded(world: World) -> None:
    model, _ = world.model("LightGCN_RLMRecCon", semantic_dimension=4)
    rows = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    assert model.text_projector.widths == (WIDTH, 8)
    expected = model.projector(model.semantic.reduction(rows))
    torch.testing.assert_close(model.text_projector(rows), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [0, WIDTH + 1])
def test_a_wrong_number_of_dimensions_is_one_error(world: World, wrong: int) -> None:
    with pytest.raises(SettingError, match=f"semantic_dimension={wrong}"):
        world.model("LightGCN_RLMRecCon", semantic_dimension=wrong)
