"""The contract of backbones and alignments as test cases, which a class from outside gets by one line.

    class TestMine(ModelContract):
        names = ("Mine", "Mine_RLMRecCon", "Mine_RLMRecGen")

Every test runs for each of the names, on a small dataset with users and items that have no text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.distributed as dist
from recbole.utils import init_seed
from torch import Tensor, nn
from worlds import World

from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.backbone.base import GraphBackbone
from recbole_rlmrec.model.registry import base_of, get_model
from recbole_rlmrec.quick_start import load_model, run
from recbole_rlmrec.training.launch import Processes, run_in_processes
from recbole_rlmrec.training.trainer import trainer_class

HOLES = ({"u3", "u8", "u21"}, {"i0", "i5", "i11"})


def holed_world(root: Path) -> World:
    world = World(root)
    world.forget_texts(*HOLES)
    world.write()
    return world


def spread(model: nn.Module) -> nn.Module:
    """Give all parameters values large enough for terms to differ."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def prepared(world: World, name: str, **settings: Any) -> tuple[Any, Any]:
    """Return a model in training mode with its parameters spread, and the first batch of its training data."""
    config = world.config(name, **settings)
    _, train_data, _, _ = world.loaders(config)
    batch = next(iter(train_data))
    init_seed(config["seed"], config["reproducibility"])
    model = config.model_class(config, train_data._dataset)
    return spread(model).train(), batch


def terms_and_gradients(model: Any, batch: Any, amp: bool = False) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the loss terms of a batch by name, and the gradients of their sum by parameter."""
    init_seed(5, True)
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        losses = model.calculate_loss(batch)
    losses = losses if isinstance(losses, tuple) else (losses,)
    model.zero_grad()
    torch.stack([loss.reshape(()) for loss in losses]).sum().backward()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    names = model.loss_names or tuple(map(str, range(len(losses))))
    return {name: float(loss.detach()) for name, loss in zip(names, losses)}, gradients


def in_two_processes(
    join: Callable[[Any], Any], root: Path, names: tuple[str, ...], settings: Mapping[str, Any]
) -> dict[str, tuple[dict[str, float], dict[str, np.ndarray]]]:
    """Return the sums over the processes of what each adds, by model."""
    torch.set_num_threads(1)
    world = holed_world(root)
    found = {}
    with join(world.config("LightGCN")):
        for name in names:
            terms, gradients = terms_and_gradients(*prepared(world, name, **settings))
            values = torch.tensor(list(terms.values()), dtype=torch.float64)
            for each in (values, *gradients.values()):
                dist.all_reduce(each)
            summed = {key: gradient.numpy() for key, gradient in gradients.items()}
            found[name] = (dict(zip(terms, values.tolist())), summed)
    return found


#: What two processes found, by class of tests.
_IN_TWO_PROCESSES: dict[type, dict[str, Any]] = {}


class ModelContract:
    """What every backbone and every alignment keeps to.

    Attributes:
        names: the models.
        settings: that all of them are made with.
    """

    names: ClassVar[tuple[str, ...]]
    settings: ClassVar[dict[str, Any]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test once for each of the models, or for each of those that are aligned."""
        names = type(self).names
        if "model_name" in metafunc.fixturenames:
            metafunc.parametrize("model_name", names)
        if "aligned_name" in metafunc.fixturenames:
            metafunc.parametrize("aligned_name", [name for name in names if issubclass(get_model(name), Alignment)])

    @pytest.fixture
    def contract_world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
        monkeypatch.chdir(tmp_path)
        return holed_world(tmp_path / "dataset")

    @pytest.fixture
    def two_processes(self, tmp_path: Path) -> dict[str, Any]:
        """Start them once for all models of the class."""
        if type(self) not in _IN_TWO_PROCESSES:
            arguments = (tmp_path / "two", type(self).names, type(self).settings)
            _IN_TWO_PROCESSES[type(self)] = run_in_processes(Processes(nproc=2), in_two_processes, *arguments)
        return _IN_TWO_PROCESSES[type(self)]

    def test_off_means_off(self, contract_world: World, aligned_name: str) -> None:
        """At weight 0 an aligned model is its backbone: the same parameters, losses and gradients, bit for bit."""
        base, aligned = base_of(get_model(aligned_name)), get_model(aligned_name)
        off = {aligned.weight_setting: 0.0, **self.settings}
        model, batch = prepared(contract_world, aligned_name, **off)
        backbone, _ = prepared(contract_world, base, **self.settings)
        assert aligned.calculate_loss is Alignment.calculate_loss
        (terms, gradients), (expected, expected_gradients) = (
            terms_and_gradients(each, batch) for each in (model, backbone)
        )
        assert list(terms.values()) == list(expected.values())
        assert gradients.keys() == expected_gradients.keys()
        assert all(torch.equal(gradient, expected_gradients[name]) for name, gradient in gradients.items())

    def test_two_processes_are_one(self, contract_world: World, two_processes: Any, model_name: str) -> None:
        """What two processes add to losses and gradients is what one process has."""
        terms, gradients = terms_and_gradients(*prepared(contract_world, model_name, **self.settings))
        found, found_gradients = two_processes[model_name]
        assert found == pytest.approx(terms, rel=2e-5, abs=1e-7)
        assert found_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            scale = max(float(gradient.abs().max()), 1e-6)
            np.testing.assert_allclose(found_gradients[name] / scale, gradient.numpy() / scale, atol=5e-5, err_msg=name)

    def test_terms_are_named_and_finite(self, contract_world: World, model_name: str) -> None:
        model, batch = prepared(contract_world, model_name, **self.settings)
        losses = model.calculate_loss(batch)
        if isinstance(losses, tuple):
            assert len(model.loss_names) == len(losses) == len(set(model.loss_names))
            assert all(loss.shape == () and bool(loss.isfinite()) for loss in losses)
            if isinstance(model, Alignment):
                assert model.loss_names[-1] == model.term_name

    def test_the_alignment_reaches_its_own_parameters_and_the_backbones(
        self, contract_world: World, aligned_name: str
    ) -> None:
        """The last term has a gradient by all that the alignment added, and the other terms have none by it."""
        model_class = get_model(aligned_name)
        fixed = {model_class.weight_setting: 1.0}  # with auto, a term alone has no gradient to be bounded by
        model, batch = prepared(contract_world, aligned_name, **fixed, **self.settings)
        init_seed(5, True)
        *others, term = model.calculate_loss(batch)
        named = dict(model.named_parameters())
        added = [parameter for name, parameter in named.items() if name not in model.backbone_parameters]
        # A mask token stands in for ego embeddings, so it has a part in every term.
        of_its_own = [each for each in added if not (model.masks and each is model.node_mask.token)]
        reached = torch.autograd.grad(term, added, retain_graph=True, allow_unused=True) if added else ()
        assert all(gradient is not None and bool((gradient != 0).any()) for gradient in reached)
        backbone = [named[name] for name in model.backbone_parameters]
        by_backbone = torch.autograd.grad(term, backbone, retain_graph=True, allow_unused=True)
        reaches = any(gradient is not None and bool((gradient != 0).any()) for gradient in by_backbone)
        assert reaches or (model.masks and not model.sees_neighbours)
        rest = torch.stack([other.reshape(()) for other in others]).sum()
        if has_l2_of_the_batch(model) and of_its_own:
            unused = torch.autograd.grad(rest, of_its_own, allow_unused=True)
            assert all(gradient is None or not bool((gradient != 0).any()) for gradient in unused)

    def test_nodes_without_an_embedding_have_no_part(self, contract_world: World, aligned_name: str) -> None:
        """Whatever stands in the rows of ``semantic`` without an embedding, losses and gradients are the same."""
        model, batch = prepared(contract_world, aligned_name, **self.settings)
        terms, gradients = terms_and_gradients(model, batch)
        changed, _ = prepared(contract_world, aligned_name, **self.settings)
        table = changed.semantic.vectors
        uncovered = ~changed.semantic.covered
        assert int(uncovered.sum()) == sum(map(len, HOLES)) + 2  # and both [PAD]
        table[uncovered] = torch.randn(int(uncovered.sum()), table.shape[1]) * 20
        found, found_gradients = terms_and_gradients(changed, batch)
        assert found == pytest.approx(terms, rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-4, atol=1e-6)

    def test_every_layer_combination_runs(self, contract_world: World, model_name: str) -> None:
        if not issubclass(get_model(model_name), GraphBackbone):
            assert "layer_combination" not in contract_world.config(model_name, **self.settings).internal_config_dict
            return
        for combination in ("mean", "sum", "concat"):
            settings = {**self.settings, "layer_combination": combination}
            model, batch = prepared(contract_world, model_name, **settings)
            assert sum(terms_and_gradients(model, batch)[0].values()) != 0
            scores = model.eval().full_sort_predict(batch)
            assert scores.shape == (len(batch) * model.n_items,) and bool(scores.isfinite().all())

    def test_predict_is_full_sort_predict(self, contract_world: World, model_name: str) -> None:
        model, batch = prepared(contract_world, model_name, **self.settings)
        model.eval()
        with torch.no_grad():
            table = model.full_sort_predict(batch).view(len(batch), -1)
            pairs = model.predict(batch)
        torch.testing.assert_close(pairs, table[torch.arange(len(batch)), batch[model.ITEM_ID]], rtol=1e-4, atol=1e-6)

    def test_bfloat16_is_finite(self, contract_world: World, model_name: str) -> None:
        model, batch = prepared(contract_world, model_name, enable_amp=True, **self.settings)
        terms, gradients = terms_and_gradients(model, batch, amp=True)
        assert np.isfinite(list(terms.values())).all()
        assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())

    def test_trained_saved_and_loaded(self, contract_world: World, model_name: str, tmp_path: Path) -> None:
        """A checkpoint is found by the model's name and scores as the model did."""
        config = contract_world.config(model_name, epochs=1, checkpoint_dir=str(tmp_path / "saved"), **self.settings)
        result = run(model_name, contract_world.name, config_dict=config.external_config_dict)
        assert result is not None
        loaded = load_model(result.checkpoint)
        assert type(loaded.model).__name__ == model_name
        trainer = trainer_class(loaded.config)(loaded.config, loaded.model)
        trainer.eval_collector.data_collect(loaded.train_data)
        scores = trainer.evaluate(loaded.test_data, load_best_model=False)
        trainer.tensorboard.close()
        assert dict(scores) == result.test_result


def has_l2_of_the_batch(model: Any) -> bool:
    """Return whether the backbone's L2 term leaves the alignment's parameters out."""
    return getattr(getattr(model, "graph_settings", None), "l2_scope", "batch") == "batch"
