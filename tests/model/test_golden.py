"""Every loss term, gradient and score against the official RLMRec code; see tests/golden/README.md."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import batch_of, write_dataset

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.ops.subgraph import undirected_graph

GOLDEN = Path(__file__).parents[1] / "golden"
VARIANTS = {"": "", "_plus": "_RLMRecCon", "_gene": "_RLMRecGen"}
BACKBONES = {name.lower(): name for name in ("LightGCN", "SGL", "SimGCL", "GCCF", "DCCF", "AutoCF")}

OUR_NAME = {
    "layer_num": "n_layers",
    "embedding_size": "embedding_size",
    "reg_weight": "reg_weight",
    "temperature": "ssl_tau",
    "cl_temperature": "ssl_tau",
    "cl_weight": "ssl_weight",
    "kd_weight": "alignment_weight",
    "kd_temperature": "alignment_temperature",
    "recon_weight": "reconstruction_weight",
    "re_temperature": "reconstruction_temperature",
    "mask_ratio": "mask_ratio",
    "eps": "eps",
    "keep_rate": "edge_keep_rate",
    "intent_num": "intent_num",
    "gcn_layer": "n_layers",
    "gt_layer": "n_decoder_layers",
    "ssl_reg": "ssl_weight",
    **{key: key for key in ("head_num", "seed_num", "mask_depth", "fix_steps")},
}
OUR_TERM = {
    "bpr_loss": "bpr",
    "reg_loss": "reg",
    "cl_loss": "ssl",
    "kd_loss": "alignment",
    "recon_loss": "reconstruction",
    "rec_loss": "interaction",
}
OFFICIAL = {"layer_combination": "sum", "l2_scope": "all", "loss_reduction": "mean"}
OFFICIAL_OWN = {
    "LightGCN": {},
    "SGL": {"view_edge_drop": "independent", "ssl_negative_items": True, "padding_negatives": False},
    "SimGCL": {"include_ego_layer": True, "ssl_negatives": "all", "ssl_negative_items": False},
    "GCCF": {"layer_combination": "concat", "unused_layer_weights": True},
    "DCCF": {"item_contrast_divisor": "users"},
    "AutoCF": {"decoder_rows": "float32"},
}
OWN_PARAMETERS = {
    "GCCF": {f"gcnLayers.{layer}.W": f"layer_weights.{layer}" for layer in range(2)},
    "DCCF": {"user_intent": "user_intent", "item_intent": "item_intent"},
    "AutoCF": {f"gtLayers.0.{part[0]}Trans": f"decoder.0.{part}" for part in ("query", "key", "value")},
}


def official_settings(name: str, variant: str) -> dict[str, object]:
    # The official graph has self-loops for the model called gccf, not for gccf_plus and gccf_gene.
    loops = {"self_loops": not variant} if name == "GCCF" else {}
    return {**OFFICIAL, **OFFICIAL_OWN[name], **loops}


def give_graphs(model: Any, golden: Any, stacked: torch.Tensor) -> None:
    """Put the file's graphs in the place of a draw: the encoder's follows from the centres, the decoder's is random."""
    drawn = model.draw(stacked[torch.as_tensor(golden["subgraph_seeds"])])
    expected = torch.zeros(model.n_users + model.n_items, model.n_users + model.n_items)
    expected[tuple(stacked[torch.as_tensor(golden["enc_index"])])] = torch.as_tensor(golden["enc_value"])
    torch.testing.assert_close(drawn.encoder.to_dense(), expected)
    decoder = undirected_graph(*stacked[torch.as_tensor(golden["dec_index"])], model.is_node)
    assert len(decoder.column) == golden["dec_index"].shape[1]
    model.masked_graphs = replace(drawn, decoder=decoder)
    model.steps_until_draw = 1


def assert_close(ours: object, golden: np.ndarray, what: str) -> None:
    ours = np.asarray(ours.detach() if isinstance(ours, torch.Tensor) else ours)
    assert ours.shape == golden.shape, what
    difference, scale = np.abs(ours - golden).max(), np.abs(golden).max()
    assert difference <= 1e-4 * scale, f"{what}: {difference:.3g} against {scale:.3g}"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_agrees_with_official_code(
    backbone: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    golden = np.load(GOLDEN / f"{backbone}{variant}.npz")
    hyper = json.loads(str(golden["hyper"]))
    name = BACKBONES[backbone]
    our_name = {**OUR_NAME, "keep_rate": "node_keep_rate"} if name == "AutoCF" else OUR_NAME
    settings = {our_name[key]: value for key, value in hyper.items() if key in our_name}

    edges = np.stack([golden["user"], golden["item"]], axis=1)
    semantic = tuple(
        {str(row): vector for row, vector in enumerate(golden[f"{side}_semantic"])} for side in ("user", "item")
    )
    write_dataset(tmp_path / "dataset", "golden", edges, edges[:5], edges[:5], semantic)
    config = RLMRecConfig(
        name + VARIANTS[variant],
        "golden",
        config_dict={
            "benchmark_filename": ["train", "valid", "test"],
            "defaults": "published",
            "topk": [5],
            "valid_metric": "Recall@5",
            **settings,
            **official_settings(name, variant),
        },
    )
    dataset = create_dataset(config)
    train_data, _, _ = data_preparation(config, dataset)
    model = config.model_class(config, train_data._dataset)
    # RecBole numbers tokens by first appearance and keeps row 0 for [PAD].
    user_row = torch.tensor([dataset.token2id("user_id", str(row)) for row in range(model.n_users - 1)])
    item_row = torch.tensor([dataset.token2id("item_id", str(row)) for row in range(model.n_items - 1)])

    table = ".weight" if backbone == "dccf" else ""
    ours = {
        f"user_embeds{table}": (model.user_embedding.weight, user_row),
        f"item_embeds{table}": (model.item_embedding.weight, item_row),
    }
    named = dict(model.named_parameters())
    ours.update({key: (named[own], slice(None)) for key, own in OWN_PARAMETERS.get(name, {}).items()})
    stacked = torch.cat([user_row, item_row + model.n_users])
    if variant:
        for layer in (0, 2):
            for part in ("weight", "bias"):
                ours[f"mlp.{layer}.{part}"] = (getattr(model.projector[layer], part), slice(None))
    if variant == "_gene":
        ours[f"{'gene_' if backbone == 'autocf' else ''}masker.mask_token"] = (model.node_mask.token, slice(None))
        masked = torch.as_tensor(golden["mask_nodes"]).long()
        n_users = len(user_row)
        assert model.node_mask.n_masked == len(masked)
        assert len(model.node_mask.draw()) == len(masked)
        assert stacked.numel() == n_users + len(item_row)
        monkeypatch.setattr(model.node_mask, "draw", lambda: stacked[masked])
    assert sum(key.startswith("param/") for key in golden.files) == len(ours)
    with torch.no_grad():
        model.user_embedding.weight[0] = 37.0
        model.item_embedding.weight[0] = -41.0
        for key, (parameter, rows) in ours.items():
            parameter[rows] = torch.as_tensor(golden[f"param/{key}"])

    model.train()
    if backbone == "autocf":
        give_graphs(model, golden, stacked)
    batch = batch_of(user_row[golden["batch_user"]], item_row[golden["batch_pos"]], item_row[golden["batch_neg"]])
    losses = model.calculate_loss(batch)
    total = sum(losses)
    total.backward()

    terms = dict(zip(model.loss_names, losses))
    golden_terms = {key[5:] for key in golden.files if key.startswith("part/")}
    assert {OUR_TERM[key] for key in golden_terms} == set(terms) - {"infomax"}
    assert terms.get("infomax", 0) == 0  # no step that draws
    for key in golden_terms:
        assert_close(terms[OUR_TERM[key]], golden[f"part/{key}"], key)
    assert_close(total, golden["loss"], "loss")
    for key, (parameter, rows) in ours.items():
        assert_close(parameter.grad[rows], golden[f"grad/{key}"], f"gradient of {key}")
    model.eval()
    users = batch_of(user_row, user_row * 0, user_row * 0)
    scores = model.full_sort_predict(users).view(len(user_row), -1)[:, item_row]
    assert_close(scores, golden["scores"], "scores")
