"""RecBole's own models with alignment: every one of them, by what it must have in common with RecBole's class."""

from __future__ import annotations

import copy
import importlib.util
import logging
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import recbole
import recbole.model.general_recommender as theirs
import torch
import torch.nn.functional as F  # noqa: N812
from conftest import World
from recbole.data.dataloader import TrainDataLoader, UserDataLoader
from recbole.trainer import NCLTrainer
from recbole.utils import init_seed
from torch import Tensor, nn

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model import registry
from recbole_rlmrec.model.backbone.adapter import ComputedBackbone, UserBatches, _ComputedRows
from recbole_rlmrec.model.backbone.base import _counted, distinct
from recbole_rlmrec.model.backbone.recbole_models import RECBOLE_MODELS
from recbole_rlmrec.model.registry import ALIGNMENTS, endings_of, get_model, names
from recbole_rlmrec.quick_start import load_model, run
from recbole_rlmrec.training.trainer import Trainer, trainer_class

#: Sizes that suit 40 users and 30 items.
SIZES: dict[str, dict[str, Any]] = {
    "ConvNCF": {"embedding_size": 64, "train_batch_size": 512},
    "NCL": {"num_clusters": 3},
    "GCMC": {"gcn_output_dim": 10},
    "NeuMF": {"mf_embedding_size": 6, "mlp_embedding_size": 8, "mlp_hidden_size": [8, 4]},
    "DMF": {"user_embedding_size": 8, "item_embedding_size": 8, "user_hidden_size_list": [8, 6]}
    | {"item_hidden_size_list": [9, 6]},
    "NNCF": {"ui_embedding_size": 8, "neigh_embedding_size": 4, "num_conv_kernel": 3, "mlp_hidden_size": [8]},
    "MultiDAE": {"mlp_hidden_size": [16], "latent_dimension": 8},
    "MultiVAE": {"mlp_hidden_size": [16], "latent_dimension": 8},
}
BACKBONES = [name for name in RECBOLE_MODELS if endings_of(name)]
ALIGNED = [name + ending for name in RECBOLE_MODELS for ending in endings_of(name)]
PROJECTED = [name for name in ALIGNED if not name.endswith("_ProMax")]
GEN = [name for name in ALIGNED if name.endswith("Gen")]
REFUSED = [
    name + ending
    for name in RECBOLE_MODELS
    for ending in ALIGNMENTS
    if hasattr(theirs, name) and name + ending not in ALIGNED
]


RECBOLES_CLUSTERING = theirs.NCL.run_kmeans


def settings_of(name: str) -> dict[str, Any]:
    return {"state": "ERROR", **SIZES.get(name.partition("_")[0], {})}


def first_rows_as_clusters(model: Any, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Stand in for NCL's clustering where faiss is missing."""
    table = F.normalize(torch.from_numpy(rows), dim=1)
    return table[: model.k], (table @ table[: model.k].T).argmax(dim=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Data with holes that every test of this file reads."""
    folder = tmp_path_factory.mktemp("adapter")
    world = World(folder / "dataset")
    for side, holes in zip(world.semantic, (("u3", "u8"), ("i0", "i5"))):
        for token in holes:
            del side[token]
    world.write()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if importlib.util.find_spec("faiss") is None:
            patch.setattr(theirs.NCL, "run_kmeans", first_rows_as_clusters)
        yield world


def fresh(world: World, name: str, **settings: Any) -> tuple[Any, Any]:
    """Return a seeded model in training mode and a batch of its training data."""
    model, train_data = world.model(name, **{**settings_of(name), **settings})
    batch = next(iter(train_data))
    if hasattr(model, "e_step"):
        model.e_step()
    return model.train(), batch


def enlarged(model: Any) -> Any:
    """Spread the parameters, which some models start so small that nothing distinguishes their outputs."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
        if isinstance(model, theirs.SimpleX):
            model.item_emb.weight[0] = 0  # [PAD] fills the histories
    return model


def seeded() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)


def random_states() -> list[Any]:
    return [torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]


def terms_of(model: Any, batch: Any) -> dict[str, Tensor]:
    losses = model.calculate_loss(batch)
    losses = losses if isinstance(losses, tuple) else (losses,)
    return dict(zip(getattr(model, "loss_names", ()) or ("loss",), losses))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


# ---------------------------------------------------------------------- which models


def test_every_general_recommender_of_recbole_is_decided() -> None:
    all_of_them = {name for name, found in vars(theirs).items() if isinstance(found, type)}
    assert set(RECBOLE_MODELS) | {"LightGCN", "SGL"} == all_of_them | {"AsymKNN"}  # which RecBole 1.2.0 lacks
    assert not set(RECBOLE_MODELS) & set(names())


@pytest.mark.parametrize(
    "backbone",
    ["BPR", "NeuMF", "DMF", "NGCF", "DGCF", "NCL", "SpectralCF", "GCMC", "LINE", "SimpleX", "ENMF"],
)
def test_models_with_representations_have_both_alignments(backbone: str) -> None:
    assert endings_of(backbone) == tuple(ALIGNMENTS)


@pytest.mark.parametrize("name", ALIGNED)
def test_class_is_found_by_name_everywhere(name: str) -> None:
    model = get_model(name)
    backbone, _, _ = name.partition("_")
    assert issubclass(model, ALIGNMENTS[f"_{name.partition('_')[2]}"])
    assert issubclass(model, getattr(theirs, backbone))
    assert (model.__name__, model.__qualname__) == (name, name)
    assert get_model(name) is model
    assert getattr(sys.modules[model.__module__], name) is model
    assert pickle.loads(pickle.dumps(model)) is model


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_aligned_is_refused_with_the_reason(name: str) -> None:
    backbone = name.partition("_")[0]
    support = RECBOLE_MODELS[backbone]
    reason, advice = (support.no_gen, f"{backbone}_RLMRecCon") if support.adapter else (support.note, "BPR_RLMRecCon")
    with pytest.raises(SettingError) as refusal:
        get_model(name)
    assert str(refusal.value).startswith(f"{backbone} {reason}. ") and str(refusal.value).endswith(f"{advice}.")
    assert get_model(backbone) is getattr(theirs, backbone)  # without alignment it runs
    with pytest.raises(AttributeError, match=backbone):
        getattr(registry, name)


def test_model_of_a_later_recbole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_recbole_files", lambda name: [])
    with pytest.raises(SettingError, match=rf"RecBole {recbole.__version__} has no AsymKNN; RecBole 1\.2\.1 has it\."):
        get_model("AsymKNN")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SASRec", "sequential recommender"),
        ("FM", "context-aware recommender"),
        ("KGAT", "knowledge-aware recommender"),
    ],
)
def test_other_kinds_of_model_are_refused(name: str, kind: str) -> None:
    with pytest.raises(SettingError, match=f"{name} is one of RecBole's {kind}s; RLMRec aligns general recommenders"):
        get_model(f"{name}_RLMRecCon")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("bpr_rlmreccon", "BPR_RLMRecCon"),
        ("bpr_RLMRecCon", "BPR_RLMRecCon"),
        ("NGFC_RLMRecGen", "NGCF_RLMRecGen"),
        ("NeuMF_RLMRecCan", "NeuMF_RLMRecCon"),
        ("MultiVEA_RLMRecCon", "MultiVAE_RLMRecCon"),
    ],
)
def test_misspelt_names_name_the_nearest(name: str, near: str) -> None:
    with pytest.raises(SettingError, match=rf"There is no model '{name}'\. Did you mean {near}\?"):
        get_model(name)


def test_other_names_of_the_registry_are_missing() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'BPR_RLMRec'"):
        _ = registry.BPR_RLMRec


# ---------------------------------------------------------------------- settings


def test_settings_are_recboles_and_rlmrecs_and_no_graphs(tiny: World) -> None:
    config = tiny.config("NGCF_RLMRecCon")
    assert config["hidden_size_list"] == [64, 64, 64] and config["message_dropout"] == 0.1
    assert config["alignment_weight"] == "auto" and config["alignment_negatives"] == "batch"
    assert not {"layer_combination", "edge_keep_rate", "mask_ratio"} & set(config.internal_config_dict)
    assert tiny.config("SimpleX_RLMRecGen")["mask_ratio"] == 0.1


@pytest.mark.parametrize("key", ["layer_combination", "n_layers", "reconstruction_weight"])
def test_settings_that_the_model_does_not_read_are_refused(tiny: World, key: str) -> None:
    value = {"layer_combination": "sum", "n_layers": 2, "reconstruction_weight": 0.1}[key]
    with pytest.raises(SettingError, match=f"BPR_RLMRecCon does not read the setting '{key}'"):
        type(tiny.config("BPR"))("BPR_RLMRecCon", tiny.name, command_line={key: value})


def test_ill_values_are_refused(tiny: World) -> None:
    with pytest.raises(SettingError, match="alignment_weight=-1"):
        tiny.config("BPR_RLMRecCon", alignment_weight=-1)


def test_masks_of_two_widths_are_refused(tiny: World) -> None:
    with pytest.raises(SettingError, match="user_embedding_size=8 and item_embedding_size=4"):
        fresh(tiny, "DMF_RLMRecGen", item_embedding_size=4)
    fresh(tiny, "DMF_RLMRecCon", item_embedding_size=4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_representation_of_all_nodes_is_that_of_a_step(tiny: World, backbone: str) -> None:
    model, batch = fresh(tiny, f"{backbone}_RLMRecCon")
    enlarged(model).eval()
    users, items = batch[model.USER_ID], torch.arange(1, model.n_items)
    with torch.no_grad():
        found = model.representation()
        step = model.step(batch)[1]
        expected = [step.index_select(0, users), step.index_select(0, items + model.n_users)]
    assert [len(side) for side in found] == [model.n_users, model.n_items]
    for table, ids, rows in zip(found, (users, items), expected):
        torch.testing.assert_close(table[ids], rows)


# ---------------------------------------------------------------------- trainers and loaders


@pytest.mark.parametrize("backbone", BACKBONES)
def test_trainer_and_loader_are_those_of_recboles_model(tiny: World, backbone: str) -> None:
    plain, aligned = (tiny.config(name, **settings_of(backbone)) for name in (backbone, f"{backbone}_RLMRecCon"))
    classes = [trainer_class(config) for config in (plain, aligned)]
    assert classes[0].__mro__[1:] == classes[1].__mro__[1:] and classes[0].__name__ == classes[1].__name__
    loaders = [[type(loader) for loader in tiny.loaders(config)[1:]] for config in (plain, aligned)]
    assert loaders[0] == loaders[1]


def test_special_trainer_and_loader_are_found(tiny: World) -> None:
    assert issubclass(trainer_class(tiny.config("NCL_RLMRecGen")), NCLTrainer)
    assert trainer_class(tiny.config("BPR_RLMRecGen")) is Trainer
    assert isinstance(tiny.loaders(tiny.config("ENMF_RLMRecCon"))[1], UserDataLoader)
    assert isinstance(tiny.loaders(tiny.config("BPR_RLMRecCon"))[1], TrainDataLoader)


@pytest.mark.parametrize("name", ["ENMF_RLMRecGen", "MultiVAE_RLMRecCon", "MultiVAE"])
def test_batches_of_users_need_no_negatives(tiny: World, name: str) -> None:
    losses = []
    for negatives in ({}, {"train_neg_sample_args": None}):
        model, batch = fresh(tiny, name, **negatives)
        seeded()
        losses.append([value.item() for value in terms_of(model, batch).values()])
    assert losses[0] == losses[1]
    with pytest.raises(SettingError, match="BPR_RLMRecCon ranks an item against a sampled one"):
        tiny.config("BPR_RLMRecCon", train_neg_sample_args=None)


# ---------------------------------------------------------------------- training, saving, loading, evaluating


@pytest.mark.parametrize("name", ALIGNED)
def test_one_step_a_save_a_load_and_a_full_sort_evaluation(tiny: World, name: str) -> None:
    settings = {**settings_of(name), "train_batch_size": 4096, "cor_weight": 0.0}
    if not name.startswith("DGCF"):
        del settings["cor_weight"]
    config = tiny.config(name, **settings, epochs=1)
    result = run(name, tiny.name, config_dict=config.external_config_dict)
    assert result is not None and result.best_epoch == 0
    assert set(result.test_result) == {f"{metric}@{k}" for metric in ("recall", "ndcg") for k in (5, 10, 20)}
    assert 0 < result.test_result["recall@20"] <= 1

    config, model, _, train_data, _, test_data = load_model(result.checkpoint)
    assert type(model) is get_model(name) and not model.training
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    trainer = trainer_class(config)(config, model)
    trainer.eval_collector.data_collect(train_data)
    again = trainer.evaluate(test_data, load_best_model=False)
    trainer.tensorboard.close()
    assert {metric: float(value) for metric, value in again.items()} == result.test_result

    # The step went somewhere: weights of the model, projector and mask token are no longer the initial ones.
    init_seed(config["seed"], config["reproducibility"])
    initial = dict(config.model_class(config, train_data._dataset).named_parameters())
    moved = {key for key, parameter in model.named_parameters() if not torch.equal(parameter, initial[key])}
    assert {key for key in initial if key.startswith("projector.") or key == "node_mask.token"} <= moved
    assert any(not key.startswith(("projector", "node_mask")) for key in moved)


def test_checkpoint_is_loaded_in_another_process(tiny: World) -> None:
    config = tiny.config("NeuMF_RLMRecGen", **settings_of("NeuMF"), epochs=1)
    result = run("NeuMF_RLMRecGen", tiny.name, config_dict=config.external_config_dict)
    assert result is not None
    script = """
import sys, numpy as np, torch
from recbole.data.interaction import Interaction
from recbole_rlmrec.quick_start import load_model
config, model, *_ = load_model(sys.argv[1])
pairs = Interaction({"user_id": torch.arange(1, 31), "item_id": torch.arange(1, 31)})
np.save(sys.argv[2], model.predict(pairs).detach().numpy())
"""
    subprocess.run([sys.executable, "-c", script, result.checkpoint, "other.npy"], check=True, capture_output=True)
    _, model, *_ = load_model(result.checkpoint)
    ids = torch.arange(1, 31)
    np.testing.assert_array_equal(np.load("other.npy"), model.predict({"user_id": ids, "item_id": ids}).detach())


# ---------------------------------------------------------------------- weight 0 is RecBole's model


@pytest.mark.parametrize("name", ALIGNED)
def test_weight_0_is_recboles_model_bit_for_bit(tiny: World, name: str) -> None:
    backbone = name.partition("_")[0]
    weight = get_model(name).weight_setting
    results = []
    for model_name, settings in ((backbone, {}), (name, {weight: 0.0})):
        model, batch = fresh(tiny, model_name, **settings)
        initial = {key: value.clone() for key, value in model.state_dict().items()}
        seeded()
        losses = model.calculate_loss(batch)
        (sum(losses) if isinstance(losses, tuple) else losses).sum().backward()
        results.append((initial, batch.interaction, losses, gradients(model), random_states()))
    (initial, batch, losses, expected, states), found = results
    assert initial.keys() == found[0].keys() and all(torch.equal(initial[key], found[0][key]) for key in initial)
    assert all(torch.equal(batch[key], found[1][key]) for key in batch)
    if isinstance(losses, tuple):
        assert isinstance(found[2], tuple) and all(map(torch.equal, losses, found[2]))
    else:
        assert torch.equal(losses, found[2])
    assert expected.keys() == found[3].keys() and all(torch.equal(expected[key], found[3][key]) for key in expected)
    assert states == found[4]


@pytest.mark.parametrize("name", ALIGNED)
def test_initial_weights_and_random_numbers_are_recboles(tiny: World, name: str) -> None:
    results = []
    for model_name in (name.partition("_")[0], name):
        model, _ = tiny.model(model_name, **settings_of(name))
        results.append((model.state_dict(), random_states()))
    (expected, states), (found, own_states) = results
    assert states == own_states
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert set(found) - set(expected) == {key for key in found if key.startswith(("projector.", "node_mask."))}
    assert (set(found) != set(expected)) == (name in PROJECTED)


def test_special_losses_keep_their_names_at_weight_0(tiny: World) -> None:
    model, batch = fresh(tiny, "NCL_RLMRecCon", alignment_weight=0.0)
    assert len(model.calculate_loss(batch)) == 3 and model.loss_names == ("loss", "ssl", "proto")


# ---------------------------------------------------------------------- steps with alignment


@pytest.mark.parametrize("name", ALIGNED)
def test_own_loss_without_a_mask_is_recboles(tiny: World, name: str) -> None:
    """Con and ProMax add a term, and draw no random number; Gen's own loss is that of the masked tables."""
    plain, batch = fresh(tiny, name.partition("_")[0])
    model, _ = fresh(tiny, name)
    enlarged(plain), enlarged(model)
    seeded()
    losses = plain.calculate_loss(batch)
    losses = losses if isinstance(losses, tuple) else (losses,)
    after = random_states()
    seeded()
    terms = terms_of(model, batch)
    own = [terms[key] for key in model.own_loss_names]
    assert len(terms) == len(own) + 1
    if name not in GEN:
        assert [value.item() for value in own] == [loss.item() for loss in losses]
        assert random_states() == after
    else:
        assert any(value.item() != loss.item() for value, loss in zip(own, losses))


@pytest.mark.parametrize("name", ALIGNED)
def test_gradients_reach_projector_and_tables(tiny: World, name: str) -> None:
    model, batch = fresh(tiny, name, **{get_model(name).weight_setting: 0.1})
    terms = terms_of(enlarged(model), batch)
    assert all(term.shape == () and torch.isfinite(term) for term in terms.values())
    last = model.term_name
    terms[last].backward(retain_graph=True)
    by_alignment = gradients(model)
    projector = [key for key in dict(model.named_parameters()) if key.startswith("projector.")]
    assert len(projector) == (4 if name in PROJECTED else 0)
    for key in projector:
        assert torch.isfinite(by_alignment[key]).all() and by_alignment[key].abs().sum() > 0
    reached = {key for key, gradient in by_alignment.items() if gradient.abs().sum() > 0} - set(projector)
    if name in GEN and not model.sees_neighbours:
        assert reached == {"node_mask.token"}
    else:
        assert reached - {"node_mask.token"}
    sum(value for key, value in terms.items() if key != last).backward()
    together = gradients(model)
    assert all(torch.isfinite(gradient).all() for gradient in together.values())
    if not isinstance(model, UserBatches) or name.startswith("ENMF"):
        tables = model.ego_parameters(model.ego_embeddings()) if not name.startswith("FISM") else {}
        for key in tables:
            assert together[key].abs().sum() > 0, key


@pytest.mark.parametrize("name", ALIGNED)
def test_under_autocast_terms_are_nearly_those_of_float32(tiny: World, name: str) -> None:
    model, batch = fresh(tiny, name)
    cast, _ = fresh(tiny, name, enable_amp=True)
    seeded()
    expected = terms_of(model, batch)
    seeded()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = terms_of(cast, batch)
    sum(found.values()).backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(cast).values())
    for key, value in expected.items():
        assert found[key].item() == pytest.approx(value.item(), rel=2e-2), key


def doubled(batch: Any) -> Any:
    return type(batch)({key: torch.cat([column, column]) for key, column in batch.interaction.items()})


@pytest.mark.parametrize("backbone", BACKBONES)
def test_alignment_has_the_scale_of_the_loss(tiny: World, backbone: str) -> None:
    """A loss that is a sum doubles with its batch, and so does the alignment; a mean stays."""
    regular = {"reg_weight": 0.0, "reg_weight_1": 0.0, "reg_weight_2": 0.0, "cor_weight": 0.0}
    several = {"ConvNCF": [0.0, 0.0], "FISM": [0.0, 0.0]}
    settings = {**regular, **({"reg_weights": several[backbone]} if backbone in several else {})}
    settings["alignment_negatives"] = "batch"  # all of them would be there twice
    model, batch = fresh(tiny, f"{backbone}_RLMRecCon", **settings)
    values = []
    for rows in (batch, doubled(batch)):
        twin = copy.deepcopy(model).eval()
        random.seed(1)  # LINE: negative items, no users
        with torch.no_grad():
            values.append({key: value.item() for key, value in terms_of(twin, rows).items()})
    factor = 2 if model.sums_losses else 1
    for key in ("loss", "alignment"):
        assert values[1][key] == pytest.approx(factor * values[0][key], rel=1e-4), key
    assert abs(values[0]["alignment"]) > 0


def test_reconstruction_that_can_train_no_embedding_warns(tiny: World, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        fresh(tiny, "NGCF_RLMRecGen")
        fresh(tiny, "BPR_RLMRecCon")
        fresh(tiny, "BPR_RLMRecGen", reconstruction_weight=0.0)
        assert "mask token" not in caplog.text
        fresh(tiny, "BPR_RLMRecGen")
    assert "BPR_RLMRecGen: its backbone represents a node by the node's own embedding" in caplog.text


# ---------------------------------------------------------------------- representations


def by_product(model: Any, users: Tensor, items: Tensor) -> Tensor:
    return users @ items.T


def by_neumf(model: Any, users: Tensor, items: Tensor) -> Tensor:
    width = model.mf_embedding_size
    user, item = users[:, None].expand(-1, len(items), -1), items[None].expand(len(users), -1, -1)
    mlp = model.mlp_layers(torch.cat([user[..., width:], item[..., width:]], dim=-1))
    joined = torch.cat([user[..., :width] * item[..., :width], mlp], dim=-1)
    return model.predict_layer(joined).squeeze(-1).sigmoid()


def by_convolution(model: Any, users: Tensor, items: Tensor) -> Tensor:
    maps = torch.einsum("ua,ib->uiab", users, items).flatten(0, 1).unsqueeze(1)
    return model.predict_layers(model.cnn_layers(maps).sum(dim=(2, 3))).view(len(users), -1)


def by_nncf(model: Any, users: Tensor, items: Tensor) -> Tensor:
    width = model.ui_embedding_size
    user, item = users[:, None].expand(-1, len(items), -1), items[None].expand(len(users), -1, -1)
    joined = torch.cat([user[..., :width] * item[..., :width], user[..., width:], item[..., width:]], dim=-1)
    return model.out_layer(model.mlp_layers(joined)).squeeze(-1).sigmoid()


def by_decoder(model: Any, users: Tensor, items: Tensor) -> Tensor:
    weights = model.BiDecoder.weights
    basis = torch.stack([users @ weight @ items.T for weight in weights], dim=-1)
    return model.BiDecoder.dense_layer(basis)[..., 1]


#: How RecBole's model scores representations, where it is not by the inner product alone.
SCORES: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "NeuMF": by_neumf,
    "ConvNCF": by_convolution,
    "NNCF": by_nncf,
    "GCMC": by_decoder,
    "ENMF": lambda model, users, items: (users * model.H_i.weight) @ items.T,
    "DMF": lambda model, users, items: (users @ items.T).sigmoid(),
    "SimpleX": lambda model, users, items: F.normalize(users, dim=1) @ F.normalize(items, dim=1).T,
    "FISM": lambda model, users, items: users @ items.T + model.user_bias[1:, None] + model.item_bias[1:],
    "CDAE": lambda model, users, items: (users @ items.T + model.out_layer.bias[1:]).sigmoid(),
    "MultiDAE": lambda model, users, items: users @ items.T + model.decoder[-1].bias[1:],
    "MultiVAE": lambda model, users, items: users @ items.T + model.decoder[-1].bias[1:],
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_representations_are_what_the_model_scores(tiny: World, backbone: str) -> None:
    model, batch = fresh(tiny, f"{backbone}_RLMRecCon")
    enlarged(model).eval()
    users, items = torch.arange(1, model.n_users), torch.arange(1, model.n_items)
    if "item_id" not in batch.interaction:
        batch = type(batch)({"user_id": users})
    with torch.no_grad():
        _, representation = model.step(batch)
        user_rows = representation.index_select(0, users)
        item_rows = representation.index_select(0, items + model.n_users)
        pairs = {"user_id": users.repeat_interleave(len(items)), "item_id": items.repeat(len(users))}
        try:
            everything = model.full_sort_predict({"user_id": users}).view(len(users), model.n_items)[:, 1:]
        except NotImplementedError:
            everything = model.predict(pairs).view(len(users), len(items))
        scores = SCORES.get(backbone, by_product)(model, user_rows, item_rows)
    assert user_rows.shape[1] == item_rows.shape[1] == model.output_dim
    assert everything.std() > 1e-4
    torch.testing.assert_close(scores, everything, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["SimpleX", "DMF", "NNCF", "FISM"])
def test_rows_are_computed_in_any_order_and_mixture(tiny: World, backbone: str) -> None:
    model, batch = fresh(tiny, f"{backbone}_RLMRecCon")
    assert isinstance(model, ComputedBackbone)
    _, rows = model.step(batch)
    assert isinstance(rows, _ComputedRows)
    users, items = model.user_rows(torch.arange(model.n_users)), model.item_rows(torch.arange(model.n_items))
    stacked = torch.cat([users, items])
    for index in ([45, 3, 3, 70, 1, 41], [5, 2], [44, 60, 44], [0, 41]):
        asked = torch.tensor(index)
        for found in (rows.index_select(0, asked), rows.each_once(asked), rows.both_sides(asked)):
            torch.testing.assert_close(found, stacked[asked], rtol=1e-5, atol=1e-6)


def test_users_outside_of_the_batch_are_no_rows(tiny: World) -> None:
    model, batch = fresh(tiny, "CDAE_RLMRecCon")
    _, representation = model.step(type(batch)({"user_id": torch.tensor([4, 9])}))
    assert representation.index_select(0, torch.tensor([9, 4])).shape == (2, 8)
    with pytest.raises(IndexError):
        representation.index_select(0, torch.tensor([5]))


@pytest.mark.parametrize(("trained", "width"), [({"mf_train": False}, 8), ({"mlp_train": False}, 6), ({}, 14)])
def test_neumf_is_represented_by_the_branches_that_it_trains(tiny: World, trained: dict[str, bool], width: int) -> None:
    model, batch = fresh(tiny, "NeuMF_RLMRecGen", **trained)
    assert model.output_dim == model.ego_dim == width == model.node_mask.token.shape[1]
    assert all(torch.isfinite(term) for term in model.calculate_loss(batch))


# ---------------------------------------------------------------------- anchors


def test_anchors_of_a_pairwise_batch(tiny: World) -> None:
    model, batch = fresh(tiny, "BPR_RLMRecCon")
    user, items = model.alignment_anchors(batch)
    assert torch.equal(user, batch["user_id"])
    assert [torch.equal(*both) for both in zip(items, (batch["item_id"], batch["neg_item_id"]))] == [True, True]


@pytest.mark.parametrize("backbone", ["NeuMF", "DMF", "NNCF", "FISM"])
def test_anchors_of_a_pointwise_batch_are_its_positives(tiny: World, backbone: str) -> None:
    model, batch = fresh(tiny, f"{backbone}_RLMRecCon")
    rows = list(zip(batch["user_id"].tolist(), batch["item_id"].tolist(), batch["label"].tolist()))
    assert {label for *_, label in rows} == {0.0, 1.0}
    user, (item,) = model.alignment_anchors(batch)
    expected = [(user, item) for user, item, label in rows if label == 1]
    assert [pair for pair in zip(user.tolist(), item.tolist()) if pair != (0, 0)] == expected


@pytest.mark.parametrize("backbone", ["ENMF", "CDAE", "MultiDAE", "MultiVAE"])
def test_anchors_of_a_batch_of_users_are_their_histories(tiny: World, backbone: str) -> None:
    model, batch = fresh(tiny, f"{backbone}_RLMRecCon", train_batch_size=7)
    user, (items,) = model.alignment_anchors(batch)
    assert user.tolist() == batch["user_id"].tolist() and len(user) == 7
    dataset = tiny.loaders(tiny.config(backbone))[1]._dataset
    pairs = zip(dataset.inter_feat["user_id"].tolist(), dataset.inter_feat["item_id"].tolist())
    expected = sorted(item for owner, item in pairs if owner in set(user.tolist()))
    assert sorted(item for item in items.tolist() if item) == expected


def slow_contrast(model: Any, users: list[int], groups: list[list[int]], negatives: str, batch_size: int) -> float:
    """Con's alignment, anchor by anchor, of ids without [PAD]."""
    with torch.no_grad():
        profile = model.projector(model.semantic.vectors).double().numpy()
        _, rows = model.step(model.test_batch)
        nodes = [*users, *(item + model.n_users for group in groups for item in group)]
        vectors = {n: rows.index_select(0, torch.tensor([n]))[0].double().numpy() for n in set(nodes)}
    covered = model.semantic.covered.tolist()

    def loss(anchor: int, candidates: list[int]) -> float:
        def score(candidate: int) -> float:
            a, c = vectors[anchor], profile[candidate]
            return float(np.exp(a @ c / np.linalg.norm(a) / np.linalg.norm(c) / 0.5))

        return float(-np.log(score(anchor) / sum(score(candidate) for candidate in candidates)))

    def mean(anchors: list[int], candidates: list[int]) -> float:
        kept = [anchor for anchor in anchors if covered[anchor]]
        return float(np.mean([loss(a, [c for c in candidates if covered[c]]) for a in kept])) if kept else 0.0

    rows_of = [[item + model.n_users for item in group] for group in groups]
    if negatives == "batch":
        together = sorted({row for group in rows_of for row in group})
        total = mean(users, sorted(set(users))) + sum(mean(group, together) for group in rows_of)
    else:
        total = mean(users, list(range(1, model.n_users))) + sum(mean(group, group) for group in rows_of)
    return total * (batch_size if model.sums_losses else 1)


@pytest.mark.parametrize("negatives", ["all", "batch"])
@pytest.mark.parametrize("backbone", ["BPR", "NeuMF", "FISM", "ENMF", "CDAE", "SimpleX"])
def test_alignment_is_the_slow_sum(tiny: World, backbone: str, negatives: str) -> None:
    settings = {"alignment_weight": 1.0, "alignment_temperature": 0.5, "alignment_negatives": negatives}
    model, batch = fresh(tiny, f"{backbone}_RLMRecCon", **settings, train_batch_size=12)
    model.eval()
    model.test_batch = batch
    users = [user for user in model.alignment_anchors(batch)[0].tolist() if user]
    groups = [[item for item in group.tolist() if item] for group in model.alignment_anchors(batch)[1]]
    expected = slow_contrast(model, users, groups, negatives, len(batch))
    found = terms_of(model, batch)["alignment"].item()
    assert found == pytest.approx(expected, rel=1e-4) and len(users) > 4


def test_batch_without_positives_aligns_nothing(tiny: World) -> None:
    model, batch = fresh(tiny, "NeuMF_RLMRecCon")
    batch.interaction["label"] = torch.zeros_like(batch["label"])
    terms = terms_of(model, batch)
    assert terms["alignment"].item() == 0
    sum(terms.values()).backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


@pytest.mark.parametrize("n_ids", [5, 6, 9])
def test_ids_are_counted_where_they_are_many(n_ids: int) -> None:
    ids = torch.tensor([4, 0, 4, 2, 2, 4, 1])
    for found, expected in zip(distinct(ids, n_ids), torch.unique(ids, return_counts=True)):
        assert found.tolist() == expected.tolist()
    rows, counts = _counted(ids, 6)
    assert rows.tolist() == [0, 1, 2, 3, 4, 5] and counts.tolist() == [1, 1, 2, 0, 3, 0]


# ---------------------------------------------------------------------- masks


@pytest.mark.parametrize("name", GEN)
def test_ego_embeddings_of_masked_nodes_play_no_part(tiny: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = fresh(tiny, name, reconstruction_weight=1.0)
    user, item = int(batch["user_id"][-1]), int(model.alignment_anchors(batch)[1][0].max())
    masked = torch.tensor([user, model.n_users + item])
    monkeypatch.setattr(model.node_mask, "draw", lambda: masked)
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def terms_with(rows: list[int]) -> tuple[list[float], Any]:
        twin = copy.deepcopy(model)
        monkeypatch.setattr(twin.node_mask, "draw", lambda: masked)
        ego = twin.ego_embeddings().detach().clone()
        ego[rows] += 3.0
        parameters = dict(twin.named_parameters())
        with torch.no_grad():
            for key, value in twin.ego_parameters(ego).items():
                parameters[key].copy_(value)
        seeded()
        terms = terms_of(twin, batch)
        sum(terms.values()).backward()
        return [term.item() for term in terms.values()], gradients(twin)

    unchanged, given = terms_with([])
    assert terms_with(masked.tolist())[0] == unchanged
    others = [row for row in batch["user_id"].tolist() if row not in (0, user)][:1]
    assert terms_with(others)[0] != unchanged
    of_tables = model.ego_parameters(torch.zeros(len(model.ego_embeddings()), model.ego_dim))
    with torch.no_grad():
        for key in of_tables:
            dict(model.named_parameters())[key].copy_(given[key])
        assert (model.ego_embeddings()[masked] == 0).all()  # no gradient either
    assert given["node_mask.token"].abs().sum() > 0
    model.load_state_dict(before)


@pytest.mark.parametrize("name", GEN)
def test_ego_embeddings_are_taken_apart_as_they_are_put_together(tiny: World, name: str) -> None:
    model, _ = fresh(tiny, name)
    ego = model.ego_embeddings()
    assert ego.shape == (model.n_users + model.n_items, model.ego_dim)
    parameters = dict(model.named_parameters())
    found = model.ego_parameters(ego)
    assert all(torch.equal(found[key], parameters[key]) for key in found)
    assert sum(value.numel() for value in found.values()) == ego.numel()


@pytest.mark.parametrize("name", GEN)
def test_a_step_leaves_the_parameters_in_place(tiny: World, name: str) -> None:
    model, batch = fresh(tiny, name)
    before = {key: (id(parameter), parameter.detach().clone()) for key, parameter in model.named_parameters()}
    model.calculate_loss(batch)
    for key, parameter in model.named_parameters():
        assert id(parameter) == before[key][0] and torch.equal(parameter, before[key][1])
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


def test_representation_of_a_masked_step_is_that_of_the_masked_tables(tiny: World) -> None:
    model, batch = fresh(tiny, "NGCF_RLMRecGen", message_dropout=0.0)
    masked = torch.tensor([2, 7, 50])
    _, representation = model.step(batch, lambda ego: model.node_mask(ego, masked))
    with torch.no_grad():
        for row in masked.tolist():
            table = model.user_embedding if row < model.n_users else model.item_embedding
            table.weight[row % model.n_users] = model.node_mask.token[0]
        users, items = model.forward()
    torch.testing.assert_close(representation, torch.cat([users, items]))


# ---------------------------------------------------------------------- NCL


def test_ncl_leaves_out_the_prototypes_and_not_the_alignment_while_it_warms_up(tiny: World, caplog: Any) -> None:
    settings = {**settings_of("NCL"), "state": "INFO", "epochs": 2, "warm_up_step": 1}
    config = tiny.config("NCL_RLMRecCon", **settings)
    with caplog.at_level(logging.INFO):
        run("NCL_RLMRecCon", tiny.name, config_dict=config.external_config_dict)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", record.getMessage()) for record in caplog.records]
    lines = [line for line in lines if re.match(r"epoch \d+ training", line)]
    names = [[part.partition(":")[0].strip() for part in line.split("[")[1].split(",")[1:]] for line in lines]
    assert names == [["loss", "ssl", "alignment"], ["loss", "ssl", "alignment", "proto"]]


def test_ncl_with_more_clusters_than_nodes_is_refused(tiny: World) -> None:
    config = tiny.config("NCL_RLMRecCon", state="ERROR", epochs=1)
    with pytest.raises(SettingError, match=r"num_clusters=1000: .* one side has 31 .*--num_clusters=1\b"):
        run("NCL_RLMRecCon", tiny.name, config_dict=config.external_config_dict)


@pytest.mark.parametrize("name", ["NCL", "NCL_RLMRecCon"])
def test_missing_faiss_is_named_with_its_package(tiny: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theirs.NCL, "run_kmeans", RECBOLES_CLUSTERING)
    monkeypatch.setitem(sys.modules, "faiss", None)
    config = tiny.config(name, state="ERROR", epochs=1, num_clusters=3)
    with pytest.raises(SettingError, match=f"{name} needs the package 'faiss', .*: pip install faiss-cpu"):
        run(name, tiny.name, config_dict=config.external_config_dict)


@pytest.mark.parametrize("name", ["NCL", "NCL_RLMRecCon"])
def test_training_goes_on_between_two_clusterings(tiny: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(theirs.NCL, "run_kmeans", first_rows_as_clusters)
    settings = {**settings_of("NCL"), "state": "ERROR", "epochs": 2, "warm_up_step": 1, "m_step": 5}
    config = tiny.config(name, **settings)
    checkpoint = run(name, tiny.name, config_dict=config.external_config_dict).checkpoint
    again = {**config.external_config_dict, "epochs": 4, "resume_from": checkpoint}
    assert run(name, tiny.name, config_dict=again).seconds > 0


def test_dgcf_samples_no_more_nodes_than_there_are(tiny: World) -> None:
    model, batch = fresh(tiny, "DGCF_RLMRecCon", train_batch_size=2048)
    assert model.cor_batch_size == min(model.n_users, model.n_items)
    model.calculate_loss(batch)
