"""Every loss term, gradient and score against the official RLMRec code; see tests/golden/README.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import batch_of, write_dataset

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.preparation import create_dataset, data_preparation

GOLDEN = Path(__file__).parents[1] / "golden"
VARIANTS = {"": "", "_plus": "_RLMRecCon", "_gene": "_RLMRecGen"}
BACKBONES = {"lightgcn": "LightGCN", "sgl": "SGL", "simgcl": "SimGCL"}

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
}
OUR_TERM = {
    "bpr_loss": "bpr",
    "reg_loss": "reg",
    "cl_loss": "ssl",
    "kd_loss": "alignment",
    "recon_loss": "reconstruction",
}
OFFICIAL = {"layer_combination": "sum", "l2_scope": "all", "loss_reduction": "mean"}
OFFICIAL_SSL = {
    "LightGCN": {},
    "SGL": {"view_edge_drop": "independent", "ssl_negative_items": True, "padding_negatives": False},
    "SimGCL": {"include_ego_layer": True, "ssl_negatives": "all", "ssl_negative_items": False},
}


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
    settings = {OUR_NAME[key]: value for key, value in hyper.items() if key in OUR_NAME}
    name = BACKBONES[backbone]

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
            "topk": [5],
            "valid_metric": "Recall@5",
            **settings,
            **OFFICIAL,
            **OFFICIAL_SSL[name],
        },
    )
    dataset = create_dataset(config)
    train_data, _, _ = data_preparation(config, dataset)
    model = config.model_class(config, train_data._dataset)
    # RecBole numbers tokens by first appearance and keeps row 0 for [PAD].
    user_row = torch.tensor([dataset.token2id("user_id", str(row)) for row in range(model.n_users - 1)])
    item_row = torch.tensor([dataset.token2id("item_id", str(row)) for row in range(model.n_items - 1)])

    ours = {
        "user_embeds": (model.user_embedding.weight, user_row),
        "item_embeds": (model.item_embedding.weight, item_row),
    }
    if variant:
        for layer in (0, 2):
            for part in ("weight", "bias"):
                ours[f"mlp.{layer}.{part}"] = (getattr(model.projector[layer], part), slice(None))
    if variant == "_gene":
        ours["masker.mask_token"] = (model.node_mask.token, slice(None))
        masked = torch.as_tensor(golden["mask_nodes"]).long()
        n_users = len(user_row)
        stacked = torch.cat([user_row, item_row + model.n_users])
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
    batch = batch_of(user_row[golden["batch_user"]], item_row[golden["batch_pos"]], item_row[golden["batch_neg"]])
    losses = model.calculate_loss(batch)
    total = sum(losses)
    total.backward()

    terms = dict(zip(model.loss_names, losses))
    golden_terms = {key[5:] for key in golden.files if key.startswith("part/")}
    assert {OUR_TERM[key] for key in golden_terms} == set(terms)
    for key in golden_terms:
        assert_close(terms[OUR_TERM[key]], golden[f"part/{key}"], key)
    assert_close(total, golden["loss"], "loss")
    for key, (parameter, rows) in ours.items():
        assert_close(parameter.grad[rows], golden[f"grad/{key}"], f"gradient of {key}")
    model.eval()
    users = batch_of(user_row, user_row * 0, user_row * 0)
    scores = model.full_sort_predict(users).view(len(user_row), -1)[:, item_row]
    assert_close(scores, golden["scores"], "scores")
