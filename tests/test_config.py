"""Settings: which layer wins, what each class starts from, and what is refused in which words."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import World
from recbole.data.dataset import Dataset

from recbole_rlmrec import config as config_module
from recbole_rlmrec.config import RLMRecConfig, parse_value, read_yaml
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.registry import ALIGNMENTS, BACKBONES, get_model, names
from recbole_rlmrec.resources import resource_folder
from recbole_rlmrec.settings import SETTINGS, Settings, known

Configure = Callable[..., RLMRecConfig]

TUNED_FOLDER = resource_folder("properties") / "tuned"
DATASETS = ("amazon-book", "yelp", "steam")
DOMAINS = dict(zip(DATASETS, ("books", "businesses", "games")))

#: A Python expression and what YAML needs to run one; each makes the file `canary` where it is evaluated.
EXPRESSIONS = ("__import__('os').system('touch canary')", "open('canary', 'w')", "[open('canary', 'w')][0]")


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Build a configuration in an empty folder; `files` are texts, written as one.yaml, two.yaml, ..."""
    monkeypatch.chdir(tmp_path)

    def call(
        model: Any = "LightGCN_RLMRecCon",
        dataset: str = "tiny",
        files: tuple[str, ...] = (),
        command_line: Any = None,
        **config_dict: Any,
    ) -> RLMRecConfig:
        paths = [tmp_path / name for name, _ in zip(("one.yaml", "two.yaml", "three.yaml"), files)]
        for path, text in zip(paths, files):
            path.write_text(text, encoding="utf-8")
        return RLMRecConfig(model, dataset, [path.name for path in paths], config_dict, command_line)

    return call


@pytest.fixture
def refused(configure: Configure) -> Callable[..., str]:
    """Build a configuration, expect a SettingError and return its message."""

    def call(*arguments: Any, **settings: Any) -> str:
        with pytest.raises(SettingError) as caught:
            configure(*arguments, **settings)
        return str(caught.value)

    return call


def given_by(origin: str, **settings: Any) -> tuple[dict[str, Any], str]:
    """Return the arguments of `configure` that give settings from an origin, and how messages name it."""
    if origin == "command line":
        return {"command_line": settings}, "the command line"
    if origin == "config_dict":
        return settings, "config_dict"
    return {"files": (yaml.safe_dump(settings),)}, "'one.yaml'"


ORIGINS = ("command line", "config_dict", "file")


def with_origins(cases: Any) -> list[Any]:
    """Return cases with the origins in turn: each case once, each origin many times."""
    return [(*(case if isinstance(case, tuple) else (case,)), origin) for case, origin in zip(cases, cycle(ORIGINS))]


# ---------------------------------------------------------------------- layers

#: Lowest first. The user's layers follow: one.yaml, two.yaml, config_dict, command line.
INTERNAL_LAYERS = (
    "overall.yaml",
    "model/GraphBackbone.yaml",
    "model/SGL.yaml",
    "model/ContrastiveAlignment.yaml",
    "model/SGL_RLMRecCon.yaml",
    "the declared default",
    "model/Layered.yaml",
    "the declared published value",
    "dataset/tiny.yaml",
    "protocol/paper.yaml",
    "tuned/tiny/Layered.yaml",
)
N_LAYERS = len(INTERNAL_LAYERS) + 4


@pytest.fixture
def properties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in place of our property files."""
    folder = tmp_path / "installed" / "properties"
    folder.mkdir(parents=True)
    (folder / "overall.yaml").write_text("eval_protocol: paper\ndefaults: published\ntuned: True\n")
    monkeypatch.setattr(config_module, "resource_folder", lambda name: tmp_path / "installed" / name)
    config_module._known_keys.cache_clear()
    yield folder
    config_module._known_keys.cache_clear()


def write_layer(properties: Path, name: str, **settings: Any) -> None:
    path = properties / name
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    path.write_text(before + yaml.safe_dump(settings))


def layered(configure: Configure, properties: Path, values: dict[int, float]) -> RLMRecConfig:
    """Configure a class over SGL_RLMRecCon with `learning_rate` in the layers of the given numbers."""
    user_layers = {number - len(INTERNAL_LAYERS): value for number, value in values.items()}
    declared: dict[str, Any] = {}
    for number, name in enumerate(INTERNAL_LAYERS):
        if name.startswith("the declared"):
            declared[name.split()[2]] = values.get(number, MISSING)
        elif number in values:
            write_layer(properties, name, learning_rate=values[number])

    @dataclass(frozen=True)
    class LayeredSettings(Settings):
        learning_rate: float = known("learning_rate", **declared)

    content = {"settings_classes": (LayeredSettings,), "__module__": "recbole_rlmrec.layered"}
    model = type("Layered", (get_model("SGL_RLMRecCon"),), content)
    files = tuple(f"learning_rate: {user_layers[n]}\n" if n in user_layers else "{}" for n in (0, 1))
    config_dict, command_line = ({"learning_rate": user_layers[n]} if n in user_layers else {} for n in (2, 3))
    return configure(model, files=files, command_line=command_line, **config_dict)


def test_recbole_is_the_lowest_layer(configure: Configure, properties: Path) -> None:
    config = layered(configure, properties, {})
    assert config["learning_rate"] == 0.001  # RecBole's overall.yaml
    assert config["n_layers"] == 3  # RecBole's model/SGL.yaml


@pytest.mark.parametrize("top", range(N_LAYERS))
def test_each_layer_lies_over_all_before_it(configure: Configure, properties: Path, top: int) -> None:
    config = layered(configure, properties, {number: (number + 1) / 100 for number in range(top + 1)})
    assert config["learning_rate"] == (top + 1) / 100


@pytest.mark.parametrize("only", range(N_LAYERS))
def test_each_layer_alone_lies_over_recbole(configure: Configure, properties: Path, only: int) -> None:
    assert layered(configure, properties, {only: 0.5})["learning_rate"] == 0.5


def test_overall_lies_over_the_declared_defaults_of_a_run(configure: Configure, properties: Path) -> None:
    """And published values over both, those of a base over the YAML of a class."""
    write_layer(properties, "overall.yaml", epochs=4)
    write_layer(properties, "model/SGL_RLMRecCon.yaml", ssl_weight=7.0)
    config = configure("SGL_RLMRecCon", defaults="recommended")
    assert (config["epochs"], config["stopping_step"], config["ssl_weight"]) == (4, 10, 7.0)
    config = configure("SGL_RLMRecCon")
    assert (config["epochs"], config["stopping_step"], config["ssl_weight"]) == (300, 10, 0.05)


def test_protocol_and_tuned_are_chosen_by_the_effective_value(configure: Configure, properties: Path) -> None:
    write_layer(properties, "protocol/paper.yaml", eval_step=3)
    write_layer(properties, "protocol/recbole.yaml", eval_step=1)
    write_layer(properties, "tuned/tiny/LightGCN.yaml", n_layers=7)
    assert configure("LightGCN")["eval_step"] == 3
    assert configure("LightGCN", files=("eval_protocol: recbole",))["eval_step"] == 1
    assert configure("LightGCN", eval_protocol="recbole", command_line={"eval_protocol": "paper"})["eval_step"] == 3
    assert configure("LightGCN")["n_layers"] == 7
    assert configure("LightGCN", files=("tuned: False",))["n_layers"] == 2
    write_layer(properties, "dataset/tiny.yaml", tuned=False)
    assert configure("LightGCN")["n_layers"] == 2
    assert configure("LightGCN", tuned=True)["n_layers"] == 7


def test_a_value_in_our_own_files_is_checked_too(refused: Callable[..., str], properties: Path) -> None:
    write_layer(properties, "dataset/tiny.yaml", n_layers=0)
    message = refused("LightGCN")
    assert "n_layers=0" in message and str(properties / "dataset" / "tiny.yaml") in message


def test_the_origin_of_an_ill_value_is_the_layer_it_comes_from(refused: Callable[..., str], properties: Path) -> None:
    write_layer(properties, "model/GraphBackbone.yaml", n_layers=2)
    write_layer(properties, "dataset/tiny.yaml", n_layers=0)
    assert str(properties / "dataset" / "tiny.yaml") in refused("LightGCN")


def test_process_arguments_are_ignored(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["run", "--learning_rate=5", "--nonsense=3", "--model=BPR", "positional"]
    monkeypatch.setattr("sys.argv", arguments)
    config = configure("LightGCN")
    assert config["learning_rate"] == 0.001 and config["model"] == "LightGCN" and "nonsense" not in config
    assert config.notes == []


def test_the_callers_dictionaries_are_left_alone(configure: Configure) -> None:
    config_dict, command_line = {"epochs": 3}, {"seed": 4}
    config = RLMRecConfig("LightGCN", "tiny", None, config_dict, command_line)
    config["epochs"] = 9
    assert (config_dict, command_line) == ({"epochs": 3}, {"seed": 4})


# ---------------------------------------------------------------------- defaults

COMMON = {
    "embedding_size": 64,
    "learning_rate": 0.001,
    "train_batch_size": 2048,
    "eval_batch_size": 4_194_304,
    "epochs": 1000,
    "eval_step": 1,
    "early_stopping": "popularity",
    "stopping_step": 10,
    "patience_steps": 1000,
    "plateau_steps": 20000,
    "plateau_epochs": 500,
    "base_first": True,
    "defaults": "recommended",
    "metric_decimal_place": 4,
    "weight_decay": 0.0,
    "seed": 2020,
    "topk": [5, 10, 20],
    "metrics": ["Recall", "NDCG"],
    "valid_metric": "Recall@20",
    "eval_protocol": "recbole",
    "tuned": True,
    "cold_nodes": "warn",
    "item_title_field": None,
    "item_description_field": None,
    "item_attribute_fields": None,
    "user_attribute_fields": None,
    "review_field": None,
    "text_domain": "general",
    "leakage": "error",
    "split_file": None,
    "split_field": "split",
    "result_file": None,
    "resume_from": None,
    "init_from": None,
    "semantic": None,
    "encoder_model": None,
    "noise_share": 0.0,
    "withheld_share": 0.0,
    "withheld_side": "both",
    "shuffled_profiles": False,
    "layer_combination": "mean",
    "edge_keep_rate": 1.0,
    "l2_scope": "batch",
    "require_pow": False,
}
BACKBONE_DEFAULTS: dict[str, dict[str, Any]] = {
    "LightGCN": {"n_layers": 2, "reg_weight": 1e-5, "include_ego_layer": True, "loss_reduction": "mean"},
    "GCCF": {
        "n_layers": 2,
        "reg_weight": 1e-5,
        "include_ego_layer": True,
        "loss_reduction": "mean",
        "layer_combination": "concat",
        "self_loops": True,
        "unused_layer_weights": False,
    },
    "DCCF": {
        "embedding_size": 32,
        "n_layers": 2,
        "reg_weight": 1e-4,
        "include_ego_layer": True,
        "loss_reduction": "mean",
        "layer_combination": "sum",
        "l2_scope": "all",
        "intent_num": 128,
        "ssl_weight": 0.001,
        "ssl_tau": 0.1,
        "ssl_negatives": "batch",
        "ssl_negative_items": False,
        "padding_negatives": False,
        "item_contrast_divisor": "items",
    },
    "AutoCF": {
        "embedding_size": 32,
        "n_layers": 2,
        "reg_weight": 1e-6,
        "include_ego_layer": True,
        "loss_reduction": "mean",
        "layer_combination": "sum",
        "l2_scope": "all",
        "n_decoder_layers": 1,
        "head_num": 4,
        "seed_num": 100,
        "mask_depth": 2,
        "fix_steps": 10,
        "node_keep_rate": 0.2,
        "ssl_weight": 0.01,
        "decoder_rows": "exact",
    },
    "SGL": {
        "n_layers": 3,
        "reg_weight": 1e-5,
        "include_ego_layer": True,
        "loss_reduction": "sum",
        "ssl_weight": "auto",
        "ssl_share": 0.1,
        "ssl_tau": 0.5,
        "ssl_negatives": "all",
        "ssl_negative_items": False,
        "padding_negatives": False,
        "view_edge_drop": "recbole",
        "type": "ED",
        "drop_ratio": 0.1,
    },
    "SimGCL": {
        "n_layers": 2,
        "reg_weight": 1e-4,
        "include_ego_layer": False,
        "loss_reduction": "mean",
        "ssl_weight": "auto",
        "ssl_share": 0.1,
        "ssl_tau": 0.2,
        "ssl_negatives": "batch",
        "ssl_negative_items": False,
        "padding_negatives": False,
        "eps": 0.1,
    },
}
#: Over those of SimGCL.
BACKBONE_DEFAULTS["XSimGCL"] = {**BACKBONE_DEFAULTS["SimGCL"], "n_layers": 3, "eps": 0.2, "contrast_layer": 1}
VARIANT_DEFAULTS: dict[str, dict[str, Any]] = {
    "": {},
    "_RLMRecCon": {
        "alignment_weight": "auto",
        "alignment_share": 0.1,
        "alignment_temperature": 0.2,
        "alignment_negatives": "batch",
        "semantic_storage": "memory",
        "semantic_dimension": None,
    },
    "_RLMRecGen": {
        "reconstruction_weight": "auto",
        "alignment_share": 0.1,
        "reconstruction_temperature": 0.2,
        "mask_ratio": 0.1,
        "semantic_storage": "memory",
        "semantic_dimension": None,
    },
    "_ProMax": {
        "sdr_weight": "auto",
        "alignment_share": 0.1,
        "sdr_temperature": 0.2,
        "s2dr_ratio": 0.2,
        "s2dr_temperature": 0.2,
        "whitening": "joint",
        "whitened_size": 32,
        "text_neighbours": 3,
        "text_neighbours_below": 13,
        "patience_steps": 2500,
        "semantic_dimension": None,
    },
}
#: What `defaults: published` brings back: RecBole's numbers, and those of the original papers.
PUBLISHED_DEFAULTS: dict[str, dict[str, Any]] = {
    "overall": {"early_stopping": "recbole", "epochs": 300, "base_first": False, "defaults": "published"},
    "SGL": {"ssl_weight": 0.05, "padding_negatives": True},
    "SimGCL": {"ssl_weight": 0.5},
    "XSimGCL": {"ssl_weight": 0.2},
    "AutoCF": {"ssl_weight": 1.0},
    "_RLMRecCon": {"alignment_weight": 0.01, "alignment_negatives": "all"},
    "_RLMRecGen": {"reconstruction_weight": 0.1},
    "_ProMax": {"sdr_weight": 0.5, "whitening": "separate"},
}
CLASSES = [backbone + variant for backbone in BACKBONES for variant in ("", *ALIGNMENTS)]


def parts_of(model: str) -> tuple[str, str]:
    """Return the backbone and the variant in a class's name."""
    backbone, _, variant = model.partition("_")
    return backbone, f"_{variant}" if variant else ""


@pytest.mark.parametrize("model", CLASSES)
def test_effective_defaults(configure: Configure, model: str) -> None:
    backbone, variant = parts_of(model)
    config = configure(model)
    expected = {**COMMON, **BACKBONE_DEFAULTS[backbone], **VARIANT_DEFAULTS[variant]}
    assert {key: config[key] for key in expected} == expected
    # ... and nothing that belongs to another class
    assert {key for key in SETTINGS if key in config} == {key for key in expected if key in SETTINGS}
    assert config.notes == []


@pytest.mark.parametrize(("model", "origin"), with_origins(CLASSES))
def test_published_defaults(configure: Configure, model: str, origin: str) -> None:
    backbone, variant = parts_of(model)
    arguments, _ = given_by(origin, defaults="published")
    config = configure(model, **arguments)
    expected = {**COMMON, **BACKBONE_DEFAULTS[backbone], **VARIANT_DEFAULTS[variant]}
    for part in ("overall", backbone, variant):
        expected.update(PUBLISHED_DEFAULTS.get(part, {}))
    assert {key: config[key] for key in expected} == expected
    assert config.non_default_settings() == {"defaults": "published"}
    assert config.settings["defaults"] == "published"


def test_published_defaults_hold_for_models_with_metrics_of_their_own(configure: Configure) -> None:
    recommended, published = configure("FM"), configure("FM", defaults="published")
    assert (recommended["epochs"], recommended["early_stopping"]) == (1000, "popularity")
    assert (published["epochs"], published["early_stopping"], published["base_first"]) == (300, "recbole", False)
    assert published["metrics"] == recommended["metrics"] == ["AUC", "LogLoss"]
    assert published["eval_batch_size"] == recommended["eval_batch_size"] == 4096


def test_published_defaults_hold_for_recboles_own_models(configure: Configure) -> None:
    assert configure("BPR")["early_stopping"] == "popularity"
    published = configure("BPR", defaults="published")
    assert {key: published[key] for key in ("early_stopping", "epochs", "stopping_step", "train_batch_size")} == {
        "early_stopping": "recbole",
        "epochs": 300,
        "stopping_step": 10,
        "train_batch_size": 2048,
    }


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        *(
            (name, {"benchmark_filename": ["train", "valid", "test"], "split_file": None, "text_domain": domain})
            for name, domain in DOMAINS.items()
        ),
        (
            "ml-100k",
            {
                "benchmark_filename": None,
                "split_file": "ml-100k.split.json",
                "learning_rate": 0.001,
                "stopping_step": 10,
                "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
                "item_title_field": "movie_title",
                "item_attribute_fields": ["release_year", "class"],
                "user_attribute_fields": ["age", "occupation"],
                "text_domain": "movies",
            },
        ),
    ],
)
def test_dataset_defaults(configure: Configure, dataset: str, expected: dict[str, Any]) -> None:
    config = configure("LightGCN", dataset, tuned=False)
    assert {key: config[key] for key in expected} == expected


#: One of each kind of RecBole's.
RECBOLE_MODELS = ("BPR", "EASE", "MultiVAE", "GRU4Rec", "CKE", "FM")


@pytest.mark.parametrize("name", RECBOLE_MODELS)
def test_recboles_own_models_are_configured(configure: Configure, name: str) -> None:
    config = configure(name, **({"train_neg_sample_args": None} if name == "GRU4Rec" else {}))
    assert config["model"] == name and config["eval_protocol"] == "recbole"
    if name == "FM":
        assert config["metrics"] == ["AUC", "LogLoss"] and config["valid_metric"] == "AUC"
    else:
        assert config["topk"] == [5, 10, 20] and config["valid_metric"] == "Recall@20"


# ---------------------------------------------------------------------- tuned settings

#: RLMRec's published settings: layers and L2; weight, temperature and eps of the contrast; then weight and temperature
#: of Con, or mask ratio, weight and temperature of Gen. SGL on Steam names 2 layers and runs 3.
TABLE = """
amazon-book LightGCN           3 1e-6
yelp        LightGCN           3 1e-6
steam       LightGCN           2 1e-6
amazon-book LightGCN_RLMRecCon 3 1e-7               0.01  0.2
yelp        LightGCN_RLMRecCon 3 1e-7               0.01  0.2
steam       LightGCN_RLMRecCon 3 1e-8               0.001 0.1
amazon-book LightGCN_RLMRecGen 2 1e-7               0.15 0.1  0.5
yelp        LightGCN_RLMRecGen 2 1e-7               0.05 0.01 0.1
steam       LightGCN_RLMRecGen 2 1e-6               0.15 0.1  0.5
amazon-book SGL                3 1e-5 0.1   0.2
yelp        SGL                3 1e-6 0.001 0.1
steam       SGL                3 1e-5 0.1   0.5
amazon-book SGL_RLMRecCon      3 1e-5 0.1   0.2     0.01 0.5
yelp        SGL_RLMRecCon      3 1e-5 0.1   0.2     0.01 1
steam       SGL_RLMRecCon      3 1e-5 0.1   0.5     0.01 1
amazon-book SGL_RLMRecGen      3 1e-5 0.1   0.2     0.2  0.1 0.2
yelp        SGL_RLMRecGen      3 1e-5 0.1   0.2     0.15 0.1 0.2
steam       SGL_RLMRecGen      3 1e-5 0.1   0.5     0.1  0.1 0.2
amazon-book SimGCL             3 1e-5 0.1   0.2 0.9
yelp        SimGCL             3 1e-5 0.1   0.2 0.9
steam       SimGCL             3 1e-5 0.1   0.5 0.2
amazon-book SimGCL_RLMRecCon   3 1e-5 0.1   0.2 0.9 0.01 0.2
yelp        SimGCL_RLMRecCon   3 1e-5 0.1   0.2 0.9 0.01 0.1
steam       SimGCL_RLMRecCon   3 1e-5 0.1   0.5 0.2 0.01 0.2
amazon-book SimGCL_RLMRecGen   3 1e-5 0.1   0.2 0.9 0.05 0.1  0.2
yelp        SimGCL_RLMRecGen   3 1e-5 0.1   0.2 0.9 0.01 0.01 0.05
steam       SimGCL_RLMRecGen   3 1e-5 0.1   0.5 0.2 0.05 0.01 0.1
amazon-book GCCF               2 1e-6
yelp        GCCF               2 1e-6
steam       GCCF               2 1e-6
amazon-book GCCF_RLMRecCon     2 1e-6 0.001 0.1
yelp        GCCF_RLMRecCon     2 1e-6 0.001 0.2
steam       GCCF_RLMRecCon     2 1e-6 0.01 0.5
amazon-book GCCF_RLMRecGen     2 1e-7 0.1 0.01 0.1
yelp        GCCF_RLMRecGen     2 1e-6 0.05 0.01 1
steam       GCCF_RLMRecGen     2 1e-6 0.1 0.01 0.1
amazon-book DCCF               2 1e-4 0.001 0.1
yelp        DCCF               2 1e-4 0.001 0.1
steam       DCCF               3 1e-3 0.001 0.1
amazon-book DCCF_RLMRecCon     2 1e-4 0.001 0.1 0.01 0.5
yelp        DCCF_RLMRecCon     2 1e-4 0.001 0.1 0.01 0.2
steam       DCCF_RLMRecCon     3 1e-3 0.001 0.1 0.01 0.5
amazon-book DCCF_RLMRecGen     2 1e-4 0.001 0.1 0.05 0.1 0.2
yelp        DCCF_RLMRecGen     2 1e-4 0.001 0.1 0.05 0.01 0.1
steam       DCCF_RLMRecGen     3 1e-3 0.001 0.1 0.1 0.01 0.2
amazon-book AutoCF             2 1e-6 5
yelp        AutoCF             3 1e-7 2
steam       AutoCF             2 1e-6 0.5
amazon-book AutoCF_RLMRecCon   2 1e-6 1 0.1 0.5
yelp        AutoCF_RLMRecCon   2 1e-8 1 0.01 0.1
steam       AutoCF_RLMRecCon   2 1e-6 0.5 0.01 0.2
amazon-book AutoCF_RLMRecGen   2 1e-6 1 0.2 1 0.5
yelp        AutoCF_RLMRecGen   2 1e-8 1 0.2 0.1 0.1
steam       AutoCF_RLMRecGen   2 1e-6 0.5 0.2 1 0.2
"""
COLUMNS = {
    "LightGCN": ("n_layers", "reg_weight"),
    "SGL": ("n_layers", "reg_weight", "ssl_weight", "ssl_tau"),
    "SimGCL": ("n_layers", "reg_weight", "ssl_weight", "ssl_tau", "eps"),
    "GCCF": ("n_layers", "reg_weight"),
    "DCCF": ("n_layers", "reg_weight", "ssl_weight", "ssl_tau"),
    "AutoCF": ("n_layers", "reg_weight", "ssl_weight"),
    "": (),
    "_RLMRecCon": ("alignment_weight", "alignment_temperature"),
    "_RLMRecGen": ("mask_ratio", "reconstruction_weight", "reconstruction_temperature"),
}
#: What all configurations of the paper share, and how the official code computes.
PAPER = {
    "defaults": "published",
    "embedding_size": 32,
    "learning_rate": 0.001,
    "weight_decay": 0.0,
    "train_batch_size": 4096,
    "epochs": 3000,
    "seed": 2023,
    "layer_combination": "sum",
    "include_ego_layer": True,
    "l2_scope": "all",
    "loss_reduction": "mean",
}
CONTRAST = {"ssl_negatives": "all", "padding_negatives": False}
PAPER_OF: dict[str, dict[str, Any]] = {
    "LightGCN": {"edge_keep_rate": 0.8},
    "SGL": {"edge_keep_rate": 0.8, "view_edge_drop": "independent", "ssl_negative_items": True, **CONTRAST},
    "SimGCL": {"edge_keep_rate": 1.0, "ssl_negative_items": False, **CONTRAST},
    "GCCF": {"edge_keep_rate": 1.0, "layer_combination": "concat", "unused_layer_weights": False},
    "DCCF": {
        "edge_keep_rate": 1.0,
        "intent_num": 128,
        "ssl_negatives": "batch",
        "ssl_negative_items": False,
        "padding_negatives": False,
        "item_contrast_divisor": "users",
    },
    "AutoCF": {
        "edge_keep_rate": 1.0,
        "n_decoder_layers": 1,
        "head_num": 4,
        "seed_num": 100,
        "mask_depth": 2,
        "fix_steps": 10,
        "node_keep_rate": 0.2,
        "decoder_rows": "float32",
    },
    "": {},
    "_RLMRecCon": {"alignment_negatives": "all"},
    "_RLMRecGen": {},
}


def published() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the published settings by dataset and class."""
    table = {}
    for line in TABLE.strip().splitlines():
        dataset, model, layers, *numbers = line.split()
        backbone, variant = parts_of(model)
        names = COLUMNS[backbone] + COLUMNS[variant]
        values = [int(layers), *map(float, numbers)]
        assert len(names) == len(values), line
        table[dataset, model] = {**PAPER, **PAPER_OF[backbone], **PAPER_OF[variant], **dict(zip(names, values))}
        if backbone == "GCCF":  # the official graph has self-loops for the class of this very name only
            table[dataset, model]["self_loops"] = not variant
    return table


PUBLISHED = published()
PAPER_CLASSES = [
    backbone + variant for backbone in COLUMNS for variant in ("", "_RLMRecCon", "_RLMRecGen") if backbone.isalpha()
]

#: One class for each dataset: a backbone alone, with Con and with Gen.
TUNED = (("amazon-book", "SimGCL"), ("yelp", "SGL_RLMRecCon"), ("steam", "AutoCF_RLMRecGen"))


def test_the_table_covers_every_class_on_three_datasets() -> None:
    assert set(PUBLISHED) == {(dataset, model) for dataset in DATASETS for model in PAPER_CLASSES}
    assert set(PAPER_CLASSES) <= set(names())


def test_tuned_files_are_the_published_table() -> None:
    for (dataset, model), expected in PUBLISHED.items():
        assert read_yaml(TUNED_FOLDER / dataset / f"{model}.yaml") == expected, (dataset, model)


def test_every_tuned_file_parses_and_has_known_keys_only() -> None:
    paths = sorted(TUNED_FOLDER.rglob("*.yaml"))
    assert len(paths) >= 3 * len(PAPER_CLASSES)
    for path in paths:
        content = read_yaml(path)
        assert path.stem in names(), path
        assert set(content) <= {*config_module._known_keys(), *SETTINGS}, path
        for key, value in content.items():
            assert key not in SETTINGS or value in SETTINGS[key].allowed, (path, key)


@pytest.mark.parametrize("model", PAPER_CLASSES)
def test_every_key_of_a_tuned_file_is_read(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """A key that neither the model nor the runner asks for would be a line without effect."""
    world = make_world(n_users=80, n_items=60)
    # By RecBole's trainer, the runner and the configuration itself.
    asked: set[str] = {"epochs", "learning_rate", "weight_decay", "seed", "defaults"}
    look_up = RLMRecConfig.__getitem__

    def recorded(self: RLMRecConfig, key: str) -> Any:
        asked.add(key)
        return look_up(self, key)

    monkeypatch.setattr(RLMRecConfig, "__getitem__", recorded)
    tuned = [read_yaml(TUNED_FOLDER / dataset / f"{model}.yaml") for dataset in DATASETS]
    built, _ = world.model(model, **tuned[0])
    assert all(set(settings) <= asked for settings in tuned)
    assert built.graph_settings.n_layers == PUBLISHED[DATASETS[0], model]["n_layers"]
    assert built.graph_settings.reg_weight == PUBLISHED[DATASETS[0], model]["reg_weight"]
    assert built.user_embedding.weight.shape == (81, 32)


@pytest.mark.parametrize(("dataset", "model"), TUNED)
def test_tuned_settings_load_where_model_and_dataset_match(configure: Configure, dataset: str, model: str) -> None:
    config = configure(model, dataset)
    expected = PUBLISHED[dataset, model]
    assert {key: config[key] for key in expected} == expected
    file = f"properties/tuned/{dataset}/{model}.yaml"
    assert config.notes == [("info", f"Tuned settings of {model} on {dataset}: {file} (off with --tuned=False).")]
    assert config.non_default_settings() == {}


@pytest.mark.parametrize(("dataset", "model"), TUNED)
def test_tuned_false_gives_the_untuned_values(configure: Configure, dataset: str, model: str) -> None:
    backbone, variant = parts_of(model)
    config = configure(model, dataset, tuned=False)
    expected = {**COMMON, **BACKBONE_DEFAULTS[backbone], **VARIANT_DEFAULTS[variant], "tuned": False}
    expected["text_domain"] = DOMAINS[dataset]
    assert {key: config[key] for key in expected} == expected
    assert config.notes == []


def test_no_tuned_settings_for_another_model_or_dataset(configure: Configure) -> None:
    assert configure("LightGCN", "tiny")["embedding_size"] == 64
    bpr = configure("BPR", "amazon-book")
    assert bpr["embedding_size"] == 64 and bpr.notes == []
    assert configure("LightGCN", "Amazon-Book")["embedding_size"] == 64


@pytest.mark.parametrize("origin", ORIGINS)
def test_user_values_lie_over_tuned_ones(configure: Configure, origin: str) -> None:
    arguments, _ = given_by(origin, n_layers=1, mask_ratio=0.5)
    config = configure("LightGCN_RLMRecGen", "amazon-book", **arguments)
    assert (config["n_layers"], config["mask_ratio"], config["reconstruction_temperature"]) == (1, 0.5, 0.5)
    assert config.non_default_settings() == {"n_layers": 1, "mask_ratio": 0.5}


# ---------------------------------------------------------------------- protocol


def test_paper_protocol(configure: Configure) -> None:
    config = configure("LightGCN", eval_protocol="paper")
    assert (config["eval_step"], config["stopping_step"], config["metric_decimal_place"]) == (3, 4, 8)
    assert config["early_stopping"] == "recbole" and config["defaults"] == "recommended"
    assert config.non_default_settings() == {"eval_protocol": "paper"}


@pytest.mark.parametrize("origin", ORIGINS)
def test_user_values_lie_over_the_protocol(configure: Configure, origin: str) -> None:
    arguments, _ = given_by(origin, eval_protocol="paper", eval_step=1, stopping_step=7)
    config = configure("LightGCN", "yelp", **arguments)
    assert (config["eval_step"], config["stopping_step"], config["metric_decimal_place"]) == (1, 7, 8)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("key", "nearest", "origin"),
    with_origins(
        [
            ("alignmnet_weight", "alignment_weight"),
            ("reconstruction_wieght", "reconstruction_weight"),
            ("learning_rat", "learning_rate"),
            ("n_layer", "n_layers"),
            ("mask_ration", "mask_ratio"),
            ("benchmark_file", "benchmark_filename"),
            ("eval_protcol", "eval_protocol"),
        ]
    ),
)
def test_unknown_key_names_origin_and_nearest(refused: Callable[..., str], key: str, nearest: str, origin: str) -> None:
    arguments, shown = given_by(origin, **{key: 1})
    assert refused(**arguments) == f"There is no setting '{key}' (from {shown}). Did you mean '{nearest}'?"


def test_unknown_key_with_nothing_near(refused: Callable[..., str]) -> None:
    message = refused(qqqqzzzz=1)
    assert message == "There is no setting 'qqqqzzzz' (from config_dict). The README lists all settings."


def test_the_last_origin_is_named(refused: Callable[..., str]) -> None:
    assert "(from 'two.yaml')" in refused(files=("mask_ratio: 0.1", "mask_ratio: 2"), model="LightGCN_RLMRecGen")
    assert "(from config_dict)" in refused("LightGCN_RLMRecGen", files=("mask_ratio: 2",), mask_ratio=3)
    command_line = {"mask_ratio": 4}
    message = refused("LightGCN_RLMRecGen", mask_ratio=3, command_line=command_line)
    assert "mask_ratio=4 (from the command line)" in message


@pytest.mark.parametrize(("line", "shown"), [("5: 3", "5"), ("on: 3", "True"), ("0.5: 1", "0.5")])
def test_a_key_that_is_no_text_is_refused(refused: Callable[..., str], line: str, shown: str) -> None:
    message = refused(files=(line,))
    assert shown in message and "'one.yaml'" in message


#: Setting, value and the range that the message has to give.
OUT_OF_RANGE: list[tuple[str, Any, str]] = [
    ("mask_ratio", 2, "a number in (0, 1]"),
    ("mask_ratio", 0, "a number in (0, 1]"),
    ("mask_ratio", -0.1, "a number in (0, 1]"),
    ("alignment_temperature", 0, "a number above 0"),
    ("alignment_temperature", "abc", "a number above 0"),
    ("reconstruction_temperature", -1, "a number above 0"),
    ("reconstruction_weight", -1e-9, "auto or a number at least 0"),
    ("ssl_tau", 0, "a number above 0"),
    ("ssl_weight", -0.1, "auto or a number at least 0"),
    ("eps", -1, "a number at least 0"),
    ("embedding_size", 0, "a whole number at least 1"),
    ("embedding_size", 32.5, "a whole number at least 1"),
    ("embedding_size", True, "a whole number at least 1"),
    ("n_layers", 0, "a whole number in [1, 100]"),
    ("n_layers", 2.0, "a whole number in [1, 100]"),
    ("n_layers", 10**8, "a whole number in [1, 100]"),
    ("edge_keep_rate", 0, "a number in (0, 1]"),
    ("edge_keep_rate", 1.01, "a number in (0, 1]"),
    ("drop_ratio", 1, "a number in [0, 1)"),
    ("alignment_weight", -1, "auto or a number at least 0"),
    ("alignment_weight", "abc", "auto or a number at least 0"),
    ("alignment_weight", True, "auto or a number at least 0"),
    ("alignment_weight", None, "auto or a number at least 0"),
    ("alignment_weight", [0.1], "auto or a number at least 0"),
    ("alignment_weight", math.nan, "auto or a number at least 0"),
    ("alignment_share", 1.01, "a number in [0, 1]"),
    ("alignment_share", -0.1, "a number in [0, 1]"),
    ("alignment_share", "auto", "a number in [0, 1]"),
    ("ssl_share", 2, "a number in [0, 1]"),
    ("patience_steps", -1, "a whole number at least 0"),
    ("plateau_steps", -1, "a whole number at least 0"),
    ("plateau_epochs", 0.5, "a whole number at least 0"),
    ("early_stopping", "never", "one of popularity, recbole"),
    ("base_first", 1, "True or False"),
    ("defaults", "mine", "one of recommended, published"),
    ("reg_weight", math.inf, "a number at least 0"),
    ("learning_rate", 0, "a number above 0"),
    ("train_batch_size", 0, "a whole number at least 1"),
    ("seed", -1, "a whole number in [0, 4294967295]"),
    ("seed", 2**32, "a whole number in [0, 4294967295]"),
    ("layer_combination", "max", "one of mean, sum, concat"),
    ("l2_scope", "some", "one of batch, all"),
    ("loss_reduction", "none", "one of mean, sum"),
    ("alignment_negatives", "some", "one of all, batch"),
    ("view_edge_drop", "never", "one of recbole, independent"),
    ("type", "XX", "one of ED, ND, RW"),
    ("include_ego_layer", 1, "True or False"),
    ("eval_protocol", "foo", "one of recbole, paper"),
    ("eval_protocol", ["paper"], "one of recbole, paper"),
    ("tuned", "maybe", "True or False"),
    ("tuned", 0, "True or False"),
    ("cold_nodes", "x", "one of warn, error"),
    ("split_file", 3, "text or nothing (~)"),
]


def model_that_reads(name: str) -> str:
    """Return a class that has the setting."""
    for model in ("SGL_RLMRecCon", "SimGCL_RLMRecGen"):
        backbone, variant = parts_of(model)
        if name in {**COMMON, **BACKBONE_DEFAULTS[backbone], **VARIANT_DEFAULTS[variant]}:
            return model
    raise AssertionError(name)


@pytest.mark.parametrize(("name", "value", "allowed", "origin"), with_origins(OUT_OF_RANGE))
def test_out_of_range(refused: Callable[..., str], name: str, value: Any, allowed: str, origin: str) -> None:
    arguments, shown = given_by(origin, **{name: value})
    message = refused(model_that_reads(name), **arguments)
    assert message.startswith(f"{name}={value!r} (from {shown})")
    assert f"expected {allowed}, e.g. --{name}={SETTINGS[name].example}." in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mask_ratio", 1),
        ("mask_ratio", 1e-9),
        ("edge_keep_rate", 1),
        ("alignment_weight", 0),
        ("reconstruction_weight", 0.0),
        ("drop_ratio", 0),
        ("eps", 0),
        ("n_layers", 1),
        ("seed", 0),
        ("split_file", None),
        ("result_file", "x.json"),
        ("reg_weight", 0),
    ],
)
def test_the_ends_of_the_ranges(configure: Configure, name: str, value: Any) -> None:
    assert configure(model_that_reads(name), **{name: value})[name] == value


def test_numpy_numbers_are_numbers(configure: Configure) -> None:
    """As hyper-parameter search gives them (hyperopt's hp.randint)."""
    config = configure(seed=np.int64(3), reg_weight=np.float32(0.5), epochs=np.int64(7))
    assert config.settings["seed"] == 3 and config.settings["reg_weight"] == 0.5 and config.settings["epochs"] == 7


def test_unknown_model_of_another_case(refused: Callable[..., str]) -> None:
    message = refused("lightgcn")
    assert message.startswith("There is no model 'lightgcn'. Did you mean LightGCN? RLMRec's models are LightGCN, SGL,")
    assert (
        "RecBole's own run as well, many of them also as <Model>_RLMRecCon, <Model>_RLMRecGen, <Model>_ProMax."
        in message
    )
    assert message.endswith("has to be registered: by recbole_rlmrec.register, or by an entry point.")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("LightGCN_RLMRecCan", "LightGCN_RLMRecCon"),
        ("lightgcn_rlmreccon", "LightGCN_RLMRecCon"),
        ("LightGCM", "LightGCN"),
        ("LightGCN.py", "LightGCN"),
    ],
)
def test_unknown_model(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, name: str, nearest: str) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    assert refused(name).startswith(f"There is no model '{name}'. Did you mean {nearest}?")


@pytest.mark.parametrize(
    ("key", "advice"),
    [("temperature", " Did you mean 'alignment_temperature'?"), ("mask_ratio", "")],
)
def test_a_key_typed_for_a_model_that_does_not_read_it_is_refused(
    refused: Callable[..., str], key: str, advice: str
) -> None:
    assert refused("LightGCN_RLMRecCon", command_line={key: 0}) == (
        f"LightGCN_RLMRecCon does not read the setting '{key}' (from the command line).{advice}"
    )


@pytest.mark.parametrize("name", ["", ".", "..", "../shop", "a/b"])
def test_dataset_is_a_plain_name(refused: Callable[..., str], name: str) -> None:
    assert refused("LightGCN", name) == (
        f"dataset={name!r}: expected the name of a folder in data_path, such as ml-100k."
    )


@pytest.mark.parametrize("negatives", [None, {"distribution": "none"}, {"distribution": "gaussian"}])
def test_a_pairwise_model_without_negatives_is_refused(refused: Callable[..., str], negatives: Any) -> None:
    assert "train_neg_sample_args" in refused("LightGCN", train_neg_sample_args=negatives)


def test_one_configuration_file_needs_no_list(configure: Configure) -> None:
    Path("one file.yaml").write_text("epochs: 7\n")
    configure("LightGCN")
    assert RLMRecConfig("LightGCN", "tiny", "one file.yaml")["epochs"] == 7


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize(
    ("model", "key"),
    [("LightGCN", "alignment_weight"), ("LightGCN_RLMRecCon", "mask_ratio"), ("BPR", "n_layers"), ("LightGCN", "eps")],
)
def test_a_key_of_another_model_is_noted(configure: Configure, model: str, key: str, origin: str) -> None:
    arguments, shown = given_by(origin, **{key: 1})
    if arguments.get("command_line") and model != "BPR":
        return  # refused, see above
    assert configure(model, **arguments).notes == [("warning", f"{model} does not use the setting '{key}' ({shown}).")]


@pytest.mark.parametrize(
    ("key", "value", "origin"),
    with_origins(
        [
            ("save_dataset", True),
            ("dataset_save_path", "saved/x.pth"),
            ("save_dataloaders", True),
            ("dataloaders_save_path", "saved/y.pth"),
        ]
    ),
)
def test_pickle_settings_are_refused(refused: Callable[..., str], key: str, value: Any, origin: str) -> None:
    arguments, shown = given_by(origin, **{key: value})
    message = refused(**arguments)
    assert message.startswith(f"{key}={value!r} (from {shown}): RecBole saves datasets as pickles")
    assert "Leave the setting out" in message


def test_pickle_settings_that_are_off_pass(configure: Configure) -> None:
    config = configure(save_dataset=False, dataset_save_path=None, save_dataloaders=False, dataloaders_save_path=None)
    assert config["save_dataset"] is False and config["dataset_save_path"] is None


# ---------------------------------------------------------------------- files


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=r"^There is no property file 'nosuch\.yaml'\. Check the path given with"):
        RLMRecConfig("LightGCN", "tiny", ["nosuch.yaml"])


@pytest.mark.parametrize(
    ("text", "kind"), [("- learning_rate\n- 0.1\n", "list"), ("just text\n", "str"), ("5\n", "int")]
)
def test_file_that_is_no_mapping(refused: Callable[..., str], text: str, kind: str) -> None:
    assert refused(files=(text,)) == f"'one.yaml' holds {kind}; expected lines such as `learning_rate: 0.001`."


@pytest.mark.parametrize("text", ["a: [1, 2\n", "a: b: c\n", "\tlearning_rate: 1\n", "a: *nothing\n", "a: 'open\n"])
def test_broken_yaml(refused: Callable[..., str], text: str) -> None:
    message = refused(files=(text,))
    assert message.startswith("'one.yaml' is not a readable YAML file: ")
    assert "line 1" in message


@pytest.mark.parametrize("content", [b"\x93NUMPY\x01\x00\xff\xfe", b"\x80\x04\x95\x00\x00", b"a: \x00\n", b"\xff" * 9])
def test_binary_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingError) as caught:
        RLMRecConfig("LightGCN", "tiny", [path])
    assert str(caught.value).startswith(f"'{path}' is not a readable YAML file: ")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="is not a readable YAML file"):
        RLMRecConfig("LightGCN", "tiny", [tmp_path])


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~\n"])
def test_empty_file(configure: Configure, text: str) -> None:
    assert configure("LightGCN", files=(text,)).non_default_settings() == {}


def test_files_read_exponents_as_numbers(configure: Configure) -> None:
    config = configure(files=("learning_rate: 1e-4\nreg_weight: 1E-6\nalignment_weight: 5e-2\n",))
    assert (config["learning_rate"], config["reg_weight"], config["alignment_weight"]) == (1e-4, 1e-6, 0.05)


@pytest.mark.parametrize("text", ["a: " + "[" * 3000, "a: [1,", "a: 'open"])
def test_yaml_that_breaks_the_parser(refused: Callable[..., str], text: str) -> None:
    assert refused(files=(text,)).startswith("'one.yaml' is not a readable YAML file: ")


# ---------------------------------------------------------------------- nothing is evaluated


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_values_stay_text(configure: Configure, tmp_path: Path, expression: str, origin: str) -> None:
    value = parse_value(expression) if origin == "command line" else expression
    arguments, _ = given_by(origin, checkpoint_dir=value, wandb_project=value)
    config = configure("LightGCN", **arguments)
    assert config["checkpoint_dir"] == config["wandb_project"] == config.settings["wandb_project"] == value
    if not expression.startswith("["):
        assert value == expression
    assert not (tmp_path / "canary").exists()


def test_recbole_would_have_evaluated_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above would prove nothing if these were not expressions that make the file."""
    monkeypatch.chdir(tmp_path)
    for expression in EXPRESSIONS:
        super(RLMRecConfig, RLMRecConfig)._convert_config_dict(None, {"key": expression})  # type: ignore[arg-type]
        assert (tmp_path / "canary").exists(), expression
        (tmp_path / "canary").unlink()


TAGS = (
    "!!python/object/apply:os.system ['touch canary']",
    "!!python/object/new:os.system ['touch canary']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1, 2]",
    "!unknown 3",
)


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_tags_in_a_file_are_refused(refused: Callable[..., str], tmp_path: Path, tag: str) -> None:
    message = refused(files=(f"checkpoint_dir: {tag}\n",))
    assert message.startswith("'one.yaml' is not a readable YAML file: could not determine a constructor for the tag")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_tags_on_the_command_line_stay_text(configure: Configure, tmp_path: Path, tag: str) -> None:
    assert parse_value(tag) == tag
    assert configure(command_line={"checkpoint_dir": parse_value(tag)})["checkpoint_dir"] == tag
    assert not (tmp_path / "canary").exists()


# ---------------------------------------------------------------------- values on the command line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("1e+5", 100000.0),
        ("-2.5e-1", -0.25),
        ("5.e-1", 0.5),
        ("0.1", 0.1),
        (".5", 0.5),
        ("64", 64),
        ("-1", -1),
        ("[5,10]", [5, 10]),
        ("[5, 10, 20]", [5, 10, 20]),
        ("[1e-3,1]", [0.001, 1]),
        ("['Recall','NDCG']", ["Recall", "NDCG"]),
        ("[Recall,NDCG]", ["Recall", "NDCG"]),
        ("{'RS':[0.8,0.1,0.1]}", {"RS": [0.8, 0.1, 0.1]}),
        ("{split: {RS: [8, 1, 1]}, mode: full}", {"split": {"RS": [8, 1, 1]}, "mode": "full"}),
        ("True", True),
        ("False", False),
        ("true", True),
        ("None", None),
        ("~", None),
        ("null", None),
        ("", None),
        ("text", "text"),
        ("Recall@20", "Recall@20"),
        ("'64'", "64"),
        ("[0,inf)", "[0,inf)"),
        ("(0,1];[3,4)", "(0,1];[3,4)"),
        ("0,1", "0,1"),
        (" ", " "),
        ("\t", "\t"),
        (",", ","),
        (";", ";"),
        ("*", "*"),
        ("dataset/", "dataset/"),
        ("../x y/z.yaml", "../x y/z.yaml"),
        ("1e", "1e"),
        ("{broken", "{broken"),
    ],
)
def test_parse_value(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-11-21", "2026-11-21"),  # a datetime.date, on which os.path.join fails
        ("2020-13-45", "2020-13-45"),  # a ValueError
        ("12:30", "12:30"),  # 750
        ("|", "|"),  # ''
        (">", ">"),  # ''
        ("-", "-"),  # [None]
        ("::", "::"),  # {':': None}
        ("runs #2/result.json", "runs #2/result.json"),  # 'runs'
        (".5e3", 500.0),  # '.5e3'
        ("[" * 3000, "[" * 3000),  # a RecursionError
    ],
)
def test_parse_value_is_not_misled_by_yaml(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


# ---------------------------------------------------------------------- device


def test_use_gpu_false_is_the_cpu(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # RecBole sets it; this puts it back
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert configure(use_gpu=False)["device"] == torch.device("cpu")
    assert configure(use_gpu=True)["device"] == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert configure(use_gpu=True)["device"] == torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "gpu_id", "used"),
    [
        (None, None, "0"),
        (None, 3, "3"),
        (None, "0,1", "0,1"),
        ("2,3", None, "2,3"),
        ("2,3", 1, "3"),
        ("2,3", "1,0", "3,2"),
        ("2,3", "3", "3"),
        ("2,3", "", ""),
        ("GPU-ab,GPU-cd", 1, "GPU-cd"),
        ("", None, ""),
        ("", 0, ""),
    ],
)
def test_gpus_are_among_the_visible_ones(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, given: str | None, gpu_id: Any, used: str
) -> None:
    """What RecBole writes to the environment is not taken for the user's, by a second configuration or a child."""
    monkeypatch.setenv("RECBOLE_RLMREC_VISIBLE_DEVICES", "[null, null]")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given or "")
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = {} if gpu_id is None else {"gpu_id": gpu_id}
    for _ in range(2):
        config = configure(**asked)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == used
        assert config["device"].type == ("cuda" if used else "cpu")
        assert config.settings["gpu_id"] == (gpu_id if gpu_id is not None else config.internal_config_dict["gpu_id"])


def test_a_gpu_that_is_not_visible(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECBOLE_RLMREC_VISIBLE_DEVICES", "[null, null]")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert refused(gpu_id=4) == (
        "gpu_id=4: the environment shows 2 GPUs (CUDA_VISIBLE_DEVICES=2,3). Expected numbers below 2, such as "
        "--gpu_id=0."
    )


def test_workers_elsewhere_than_on_linux(
    configure: Configure, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert configure(worker=1)["worker"] == 1 or not sys.platform.startswith("linux")
    monkeypatch.setattr("sys.platform", "darwin")
    assert refused(worker=1).startswith("worker=1: loaders have processes of their own on Linux only. Leave")
    assert configure()["worker"] == 0


# ---------------------------------------------------------------------- what a checkpoint keeps


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


@pytest.mark.parametrize(
    ("model", "dataset", "protocol"),
    [
        ("LightGCN", "tiny", "recbole"),
        ("SGL_RLMRecCon", "steam", "paper"),
        ("SimGCL_RLMRecGen", "ml-100k", "paper"),
        ("AutoCF_RLMRecGen", "steam", "recbole"),
        ("BPR", "tiny", "paper"),
        ("BPR", "ml-100k", "recbole"),
    ],
)
def test_settings_alone_give_the_same_configuration(
    configure: Configure, model: str, dataset: str, protocol: str
) -> None:
    user: dict[str, Any] = {
        "eval_protocol": protocol,
        "data_path": Path("elsewhere"),
        "metrics": ("Recall",),
        "seed": 7,
    }
    config = configure(model, dataset, files=("stopping_step: 2",), command_line={"epochs": 1}, **user)
    assert is_plain(config.settings)
    assert (config.settings["model"], config.settings["dataset"]) == (model, dataset)
    assert config.settings["data_path"] == "elsewhere" and config.settings["metrics"] == ["Recall"]

    stored = json.loads(json.dumps(config.settings))
    again = RLMRecConfig(stored.pop("model"), stored.pop("dataset"), config_dict=stored)
    assert again.settings == config.settings
    assert again.final_config_dict == {**config.final_config_dict, "metrics": ["Recall"]}
    assert again.model_class is config.model_class
    assert again.data_folders == config.data_folders


def test_non_default_settings(configure: Configure) -> None:
    config = configure(
        "LightGCN",
        files=("learning_rate: 0.001\nepochs: 5\n",),  # 0.001 is the default
        command_line={"topk": [5, 10, 20], "n_layers": 4},  # as is this list
        data_path=Path("elsewhere"),
        embedding_size=64,
    )
    assert config.non_default_settings() == {"epochs": 5, "n_layers": 4}
    assert configure("LightGCN").non_default_settings() == {}


def test_settings_that_say_only_where_output_goes_are_no_part_of_a_result(configure: Configure) -> None:
    config = configure(
        result_file="x.json", checkpoint_dir="elsewhere", show_progress=False, state="ERROR", gpu_id="", seed=1
    )
    assert config.non_default_settings() == {"seed": 1}


def test_a_configuration_reads_no_data(configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Dataset, "__init__", lambda *_: pytest.fail("a dataset was built"))
    configure("LightGCN", "nosuch")
    assert list(tmp_path.iterdir()) == []


def test_notes_reach_the_log(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    config = configure()
    config.notes = [("info", "one"), ("warning", "two")]
    config.log_notes()
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert caplog.messages == ["one", "two"]


def test_prepared_data_may_have_the_name_of_a_release_in_parts(tmp_path: Path) -> None:
    folder = tmp_path / "yelp"
    folder.mkdir()
    (folder / "yelp.inter").write_text("user_id:token\titem_id:token\tsplit:token\nu\ti\ttrain\n")
    settings = {"data_path": str(tmp_path)}
    assert RLMRecConfig("LightGCN", "yelp", config_dict=settings)["benchmark_filename"] is None
    parts = ["train", "valid", "test"]
    asked = RLMRecConfig("LightGCN", "yelp", config_dict={**settings, "benchmark_filename": parts})
    assert asked["benchmark_filename"] == parts
    for part in parts:
        (folder / f"yelp.{part}.inter").write_text("user_id:token\titem_id:token\nu\ti\n")
    assert RLMRecConfig("LightGCN", "yelp", config_dict=settings)["benchmark_filename"] == parts
