"""What settings of RecBole's may be: refused before anything is read, with the name, the value and an example."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.registry import names
from recbole_rlmrec.recbole_settings.declared import FORMER_NAMES, RECBOLE_SETTINGS
from recbole_rlmrec.recbole_settings.kinds import MappingOf, flaw
from recbole_rlmrec.settings import COUNT, SETTINGS


def refusal(model: str = "BPR", **settings: Any) -> str:
    with pytest.raises(SettingError) as caught:
        RLMRecConfig(model, "nosuch", config_dict=settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seed", 2**32, "a whole number in [0, 4294967295]"),
        ("topk", [], "a whole number at least 1 or a list of such numbers"),
        ("topk", 0, "a whole number at least 1 or a list"),
        ("topk", [5, -1], "a whole number at least 1 or a list"),
        ("topk", "[20", "a whole number at least 1 or a list"),
        ("topk", True, "a whole number at least 1 or a list"),
        ("metrics", [], "a name or a list of names"),
        ("metrics", 5, "a name or a list of names"),
        ("valid_metric", 5, "a metric, with @k"),
        ("worker", -1, "a whole number in [0, 256]"),
        ("learner", 5, "one of adam, adamw, sgd"),
        ("learner", "adamm", "one of adam, adamw, sgd"),
        ("epochs", -1, "a whole number at least 0"),
        ("train_batch_size", 0, "a whole number at least 1"),
        ("eval_batch_size", 0, "a whole number at least 1"),
        ("learning_rate", 0, "a number above 0"),
        ("learning_rate", math.inf, "a number above 0"),
        ("weight_decay", -1, "a number at least 0"),
        ("stopping_step", -1, "a whole number at least 0"),
        ("eval_step", -1, "a whole number at least 0"),
        ("loss_decimal_place", 0, "a whole number in [1, 16]"),
        ("metric_decimal_place", -5, "a whole number in [1, 16]"),
        ("gpu_id", "first", "GPU numbers separated by commas"),
        ("gpu_id", [0, 1], "GPU numbers separated by commas"),
        ("state", "loud", "one of info, debug"),
        ("repeatable", "yes", "True or False"),
        ("enable_amp", 1, "True or False"),
        ("checkpoint_dir", 5, "text"),
        ("embedding_size", 0, "a whole number at least 1"),
        ("train_neg_sample_args", 3, "a mapping such as {distribution: uniform"),
        ("train_neg_sample_args", {"sample_num": 0}, "sample_num=0: expected a whole number in [1, 100000]"),
        ("train_neg_sample_args", {"distribution": "zipf"}, "distribution='zipf': expected one of uniform, popularity"),
        (
            "train_neg_sample_args",
            {"distribution": "popularity", "alpha": 300},
            "alpha=300: expected a number in [0, ",
        ),
        ("train_neg_sample_args", {"samplenum": 1}, "no 'samplenum' in it, only distribution, sample_num,"),
        ("train_neg_sample_args", {"dynamic": True}, "give candidate_num"),
        ("clip_grad_norm", math.inf, "a mapping such as {max_norm: 5"),
        ("clip_grad_norm", 5, "a mapping such as {max_norm: 5"),
        ("clip_grad_norm", {"max_norm": math.inf}, "max_norm=inf: expected a number above 0"),
        ("clip_grad_norm", {"norm_type": 2}, "it lacks max_norm"),
        ("clip_grad_norm", {"max_norm": 5, "norm": 2}, "there is no 'norm' in it"),
        (
            "eval_args",
            {"splits": {}},
            "no 'splits' in it, only split, order, group_by, mode; did you mean 'split'?",
        ),
        ("eval_args", {"order": "XX"}, "order='XX': expected one of RO, TO"),
        ("eval_args", {"group_by": "item"}, "group_by='item': expected one of user, none"),
        ("eval_args", {"mode": "uni"}, "mode='uni': expected full, labeled, uniN or popN"),
        ("eval_args", {"mode": "pop0"}, "mode='pop0': expected full"),
        ("eval_args", {"mode": {"valid": 5}}, "valid=5: expected full"),
        ("eval_args", {"split": {"RS": [0.8, 0.2]}}, "three parts are needed"),
        ("eval_args", {"split": {"RS": [5, 1, 1, 1]}}, "three parts are needed"),
        ("eval_args", {"split": {"RS": [8, -1, 1]}}, "three numbers"),
        ("eval_args", {"split": {"RS": [0, 0, 0]}}, "three numbers"),
        ("eval_args", {"split": {"RS": [1e308, 1e308, 1]}}, "three numbers"),
        ("eval_args", {"split": {"LS": "test_only"}}, "expected valid_and_test"),
        ("eval_args", {"split": {"XS": [8, 1, 1]}}, "there is no 'XS' in it"),
        ("benchmark_filename", ["train", "test"], "three parts are needed"),
        ("benchmark_filename", ["a", "b", "c", "d"], "three parts are needed"),
        ("benchmark_filename", ["train"], "three names"),
        ("load_col", 5, "a mapping from kinds of files to columns"),
        ("load_col", ["user_id"], "a mapping from kinds of files to columns"),
        ("load_col", {"inter": "user_id"}, "inter='user_id': expected a list of names or *"),
        ("user_inter_num_interval", 10, "intervals as text, such as '[3,inf)'"),
        ("item_inter_num_interval", "[10", "intervals as text"),
        ("item_inter_num_interval", "[10,5]", "intervals as text"),
        ("val_interval", {"rating": 3}, "rating=3: expected intervals as text, such as '[3,inf)' or a list of values"),
        ("threshold", {"rating": "a"}, "rating='a': expected a number"),
        ("threshold", {"rating": 3, "age": 4}, "one column and a number"),
        ("rm_dup_inter", "middle", "one of first, last"),
        ("USER_ID_FIELD", 5, "a name"),
    ],
)
def test_refused_values(name: str, value: Any, expected: str) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"{name}={value!r} (from config_dict)") and expected in message
    assert f"--{name}=" in message or "candidate_num" in message


@pytest.mark.parametrize(
    ("name", "model"),
    [("n_layers", "NGCF"), ("n_layers", "SGL"), ("n_decoder_layers", "AutoCF"), ("mask_depth", "AutoCF")],
)
def test_layers_that_would_not_end(name: str, model: str) -> None:
    assert f"{name}=100000000" in refusal(model, **{name: 10**8}) and f"{name}=0" in refusal(model, **{name: 0})


@pytest.mark.parametrize(("model", "name"), [("NGCF", "message_dropout"), ("SASRec", "hidden_dropout_prob")])
@pytest.mark.parametrize("value", [1, -0.1, 1.5])
def test_what_is_dropped_is_less_than_all(model: str, name: str, value: float) -> None:
    assert "a number in [0, 1)" in refusal(model, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight_decay", math.nan),
        ("margin", math.nan),
        ("eval_args", {"split": {"RS": [8, 1, math.nan]}}),
        ("reg_weights", [0.1, math.nan]),
    ],
)
def test_nan_is_no_number(name: str, value: Any) -> None:
    """Also in settings that the table does not know, and inside of others."""
    assert f"{name}=" in refusal(**{name: value}) and "holds NaN, which is no number" in refusal(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learner", "AdamW"),
        ("topk", 20),
        ("gpu_id", ""),
        ("gpu_id", "0,1"),
        ("gpu_id", 0),
        ("state", "INFO"),
        ("clip_grad_norm", {"max_norm": 5, "norm_type": math.inf}),
        ("clip_grad_norm", None),
        ("train_neg_sample_args", {"distribution": "popularity", "alpha": 0.75}),
        ("eval_args", {"mode": {"test": "uni100"}}),
        ("eval_args", {"split": {"LS": "valid_and_test"}, "group_by": None}),
        ("user_inter_num_interval", "[1,3);(5,inf)"),
        ("load_col", {"inter": "*"}),
        ("val_interval", {"user_id": ["1", "2"]}),
        ("metrics", ["Recall"]),
    ],
)
def test_values_that_pass(name: str, value: Any) -> None:
    given = {"valid_metric": "Recall@20"} if name == "topk" else {}
    assert RLMRecConfig("BPR", "nosuch", config_dict={name: value, **given}).external_config_dict[name] == value


def test_a_package_that_a_setting_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_rlmrec.extras.find_spec", lambda name: None)
    assert refusal(log_wandb=True) == (
        "log_wandb=True needs the package 'wandb', which is not installed: pip install 'recbole-rlmrec[wandb]'."
    )


@pytest.mark.parametrize("name", ["BPR", "EASE", "MultiVAE", "NCL", "CKE", "FM", "GRU4Rec", *names()])
def test_defaults_are_what_they_may_be(name: str) -> None:
    """RecBole's own defaults, ours and the tuned ones."""
    given = {"train_neg_sample_args": None} if name == "GRU4Rec" else {}
    for dataset in ("nosuch", "amazon-book", "ml-100k"):
        assert RLMRecConfig(name, dataset, config_dict=given)["model"] == name


@pytest.mark.parametrize(("former", "name"), FORMER_NAMES.items())
def test_former_names(former: str, name: str) -> None:
    assert name in RECBOLE_SETTINGS
    assert f"Did you mean '{name}'?" in refusal(**{former: 1})


def test_settings_of_both_tables_agree() -> None:
    """What we declare of RecBole's settings is no wider than the table's."""
    for name in RECBOLE_SETTINGS.keys() & SETTINGS.keys():
        for value in (-1, 0, 0.5, 1, 10**9, "text", None):
            assert value not in SETTINGS[name].allowed or value in RECBOLE_SETTINGS[name].kind, (name, value)


def test_the_way_to_a_value_inside() -> None:
    kind = MappingOf("a mapping", {"inner": MappingOf("a mapping", {"number": COUNT})})
    assert flaw(kind, {"inner": {"number": 0}}) == "inner={'number': 0}: number=0: expected a whole number at least 1"


def test_nothing_is_read(tmp_path: Path) -> None:
    assert "learner" in refusal(learner="adamm", data_path=str(tmp_path)) and not list(tmp_path.iterdir())
