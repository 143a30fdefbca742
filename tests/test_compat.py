"""RecBole's own data code and models on whatever NumPy, pandas and RecBole 1.2.x are installed: the same numbers."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World
from recbole.config import Config
from recbole.data import create_dataset as recboles_create_dataset
from recbole.data import data_preparation as recboles_data_preparation
from recbole.utils import init_seed

from recbole_rlmrec import compat
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.errors import SettingError

#: A gap in every column, a user and an item (u4, i4) without a line, and a line (u9, i9) without interactions.
FILES = {
    "inter": "user_id:token\titem_id:token\ttime:float\n"
    "u1\ti1\t1\nu1\ti2\t2\nu1\ti3\t3\nu2\ti1\t1\nu2\ti4\t2\nu3\ti2\t1\nu3\ti3\t2\nu4\ti4\t3\nu4\ti1\t4\n",
    "user": "user_id:token\tage:token\tincome:float\ttags:token_seq\tscores:float_seq\n"
    "u1\t30\t1.5\ta b\t1 3\nu2\t\t\t\t\nu3\t25\t2.5\tc\t5\nu9\t30\t\t\t\n",
    "item": "item_id:token\tkind:token\tprice:float\nu\ti\t1\ni1\t\t4\ni2\tbook\t\ni3\tgame\t8\ni9\tgame\t\n",
    "kg": "head_id:token\trelation_id:token\ttail_id:token\ne1\tr1\te2\ne2\tr2\te3\ne1\tr2\te3\n",
    "link": "item_id:token\tentity_id:token\ni1\te1\ni3\te2\n",
}
LOAD = {
    "inter": ["user_id", "item_id", "time"],
    "user": ["user_id", "age", "income", "tags", "scores"],
    "item": ["item_id", "kind", "price"],
}
SETTINGS = {
    "load_col": LOAD,
    "topk": [2],
    "valid_metric": "Recall@2",
    "filter_inter_by_user_or_item": False,
    "use_gpu": False,
}


@pytest.fixture
def gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gaps").mkdir()
    for ending, content in FILES.items():
        (tmp_path / "gaps" / f"gaps.{ending}").write_text(content)
    return tmp_path


def dataset_of(folder: Path, model: str = "BPR", **settings: Any) -> Any:
    config = RLMRecConfig(model, "gaps", config_dict={**SETTINGS, "data_path": str(folder), **settings})
    return data_preparation(config, create_dataset(config))[0]._dataset


def column(feature: Any, name: str) -> list[Any]:
    return feature[name].tolist()


def test_gaps_of_user_and_item_columns(gaps: Path) -> None:
    """By hand: a gap of a token is [PAD], one of a number the column's mean, one of a sequence an empty sequence."""
    dataset = dataset_of(gaps)
    users, items = dataset.user_feat, dataset.item_feat
    assert list(dataset.field2id_token["user_id"]) == ["[PAD]", "u1", "u2", "u3", "u4", "u9"]
    assert list(dataset.field2id_token["age"]) == ["[PAD]", "30", "25"]
    assert column(users, "age") == [0, 1, 0, 2, 0, 1]
    assert column(users, "income") == [2.0, 1.5, 2.0, 2.5, 2.0, 2.0]
    assert column(users, "tags") == [[0, 0], [1, 2], [0, 0], [3, 0], [0, 0], [0, 0]]
    assert column(users, "scores") == [[0.0, 0.0], [1.0, 3.0], [0.0, 0.0], [5.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    kinds = dict(zip(dataset.field2id_token["item_id"], column(items, "kind")))
    names = list(dataset.field2id_token["kind"])
    assert {token: names[kind] for token, kind in kinds.items()} == {
        "[PAD]": "[PAD]",
        "i1": "[PAD]",
        "i2": "book",
        "i3": "game",
        "i4": "[PAD]",
        "u": "i",
        "i9": "game",
    }
    assert dict(zip(dataset.field2id_token["item_id"], column(items, "price")))["i2"] == pytest.approx(13 / 3)


def test_gaps_in_recboles_own_dataset(gaps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repairs hold for RecBole's classes, not for ours alone."""
    monkeypatch.setattr(sys, "argv", ["test"])
    compat.apply()
    config = Config("BPR", "gaps", config_dict={**SETTINGS, "data_path": str(gaps)})
    dataset = recboles_data_preparation(config, recboles_create_dataset(config))[0]._dataset
    assert column(dataset.user_feat, "age") == [0, 1, 0, 2, 0, 1]
    assert column(dataset.user_feat, "income") == [2.0, 1.5, 2.0, 2.5, 2.0, 2.0]


def test_sequences_of_numbers_are_normalized_and_cut_into_buckets(gaps: Path) -> None:
    normalized = dataset_of(gaps, normalize_field=["scores"])
    assert column(normalized.user_feat, "scores") == [[0, 0], [0, 0.5], [0, 0], [1, 0], [0, 0], [0, 0]]
    buckets = {"scores": {"method": "ED", "bucket": 2}}
    settings = {"numerical_features": ["scores"], "discretization": buckets, "valid_metric": "AUC"}
    cut = dataset_of(gaps, "FM", **settings).user_feat["scores"].tolist()
    assert cut[1] == [[1, 1], [1, 1]] and cut[3] == [[1, 2], [0, 0]] and cut[2] == [[0, 0], [0, 0]]


def test_entities_are_merged_with_items(gaps: Path) -> None:
    """A knowledge graph: linked items come last among the items, in front of the entities without an item."""
    load = {**LOAD, "kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    dataset = dataset_of(gaps, "CKE", load_col=load)
    tokens = list(dataset.field2id_token["item_id"])
    assert tokens[0] == "[PAD]" and set(tokens[-2:]) == {"i1", "i3"}
    item, entity = dataset.field2token_id["item_id"], dataset.field2token_id["entity_id"]
    assert (item["i1"], item["i3"]) == (entity["e1"], entity["e2"]) and entity["e3"] == len(tokens)
    edges = zip(*(column(dataset.kg_feat, name) for name in ("head_id", "tail_id")))
    assert list(edges) == [(item["i1"], item["i3"]), (item["i3"], entity["e3"]), (item["i1"], entity["e3"])]
    kinds = {tokens[row]: kind for row, kind in enumerate(column(dataset.item_feat, "kind"))}
    assert kinds["i1"] == 0 and list(dataset.field2id_token["kind"])[kinds["i3"]] == "game"


def test_given_sequences_have_their_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sequential dataset whose parts are given holds lists of items; RecBole counts each."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    for part, rows in {
        "train": ["u1\ti1 i2\ti3", "u2\ti2\ti1"],
        "valid": ["u1\ti1 i2 i3\ti4"],
        "test": ["u1\ti2 i3\ti1"],
    }.items():
        (tmp_path / f"lists/lists.{part}.inter").write_text(header + "\n".join(rows) + "\n")
    settings = {
        "data_path": str(tmp_path),
        "benchmark_filename": ["train", "valid", "test"],
        "alias_of_item_id": ["item_id_list"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
        "train_neg_sample_args": None,
        "use_gpu": False,
    }
    dataset = create_dataset(RLMRecConfig("SASRec", "lists", config_dict=settings))
    assert column(dataset.inter_feat, "item_length") == [2, 1, 3, 2]


def test_movielens_has_the_same_ids_and_splits_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids, interactions and both kinds of split of ml-100k, as computed with NumPy 1.26 and pandas 2.3."""
    monkeypatch.chdir(tmp_path)
    found = {}
    for split, given in {"frozen": {}, "random": {"split_file": None}}.items():
        config = RLMRecConfig("BPR", "ml-100k", config_dict={"use_gpu": False, **given})
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        digest = hashlib.sha256()
        for field in ("user_id", "item_id"):
            digest.update("\n".join(dataset.field2id_token[field]).encode())
        for loader in data_preparation(config, dataset):
            part = loader._dataset.inter_feat
            for field in ("user_id", "item_id"):
                digest.update(part[field].numpy().astype(np.int64).tobytes())
        found[split] = digest.hexdigest()[:16]
    assert found == {"frozen": "165d6ea594e65e03", "random": "bd10b37cdd43d5fe"}


def test_ngcf_scores_without_dropout(world: World) -> None:
    """RecBole 1.2.0 drops messages at evaluation as well."""
    config = world.config("NGCF", message_dropout=0.5)
    train_data, _, _ = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train_data._dataset).eval()
    with torch.no_grad():
        first, second = (torch.cat(model.forward()) for _ in range(2))
        assert torch.equal(first, second)
        model.train()
        assert not torch.equal(torch.cat(model.forward()), first)


@pytest.mark.parametrize("name", ["DiffRec", "LDiffRec"])
def test_pairs_are_scored_as_in_the_full_ranking(world: World, name: str) -> None:
    config = world.config(name)
    train_data, _, _ = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train_data._dataset).eval()
    pairs = {"user_id": torch.tensor([1, 2, 3]), "item_id": torch.tensor([4, 4, 5])}
    torch.manual_seed(1)
    scores = model.predict(pairs)
    torch.manual_seed(1)
    assert torch.equal(scores, model.full_sort_predict(pairs)[[0, 1, 2], pairs["item_id"]])


@pytest.mark.parametrize("found", ["1.1.1", "1.3.0", "12.0"])
def test_another_recbole_is_refused(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: found)
    with pytest.raises(
        SettingError, match=rf"RecBole is {found}, and 1\.2\.x is needed: pip install 'recbole==1\.2\.0'"
    ):
        compat.require_recbole()


def test_quick_start_of_recbole_without_ray() -> None:
    """It can be imported where there is no Ray, Ray stays as absent as it is, and nothing is reported to it."""
    script = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "ray" else find(name, package)
from recbole_rlmrec import compat
compat.apply()
from recbole.quick_start import run_recbole, quick_start
assert "ray" not in sys.modules
print(quick_start.tune.report(recall=0.5))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "None\n", done.stderr


@pytest.mark.parametrize(
    ("parameters", "taken"), [("metrics, *, checkpoint=None", "metrics"), ("_metric=None, **by_name", "by_name")]
)
def test_what_recbole_reports_reaches_every_ray(parameters: str, taken: str) -> None:
    """Ray takes metrics as one dictionary since 2.7, and as keywords before."""
    script = f"""
import sys, types
from importlib.machinery import ModuleSpec, SourceFileLoader
from recbole_rlmrec import compat
compat.apply()
tune = types.ModuleType("ray.tune")
tune.__spec__ = ModuleSpec("ray.tune", SourceFileLoader("ray.tune", "tune.py"))
sys.modules["ray.tune"] = tune
exec("def report({parameters}): print({taken})", vars(tune))
from recbole.quick_start import quick_start
quick_start.tune.report(recall=0.5)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "{'recall': 0.5}\n", done.stderr


def test_exhaustive_search_of_recbole_tries_everything() -> None:
    """hyperopt asks for a Generator since 0.2.7; RecBole gives it the older RandomState."""
    pytest.importorskip("hyperopt")
    compat.apply()
    from recbole.trainer import HyperTuning

    def objective(config_dict: Any, config_file_list: Any) -> dict[str, Any]:
        score = config_dict["a"] + 10 * config_dict["b"]
        return {
            "model": "none",
            "best_valid_score": score,
            "valid_score_bigger": True,
            "best_valid_result": {},
            "test_result": {},
        }

    search = HyperTuning(objective, params_dict={"choice": {"a": [1, 2, 3], "b": [0.1, 0.2]}}, algo="exhaustive")
    search.run()
    assert sorted(search.score_list) == [2.0, 3.0, 3.0, 4.0, 4.0, 5.0]
    assert search.best_params == {"a": 3, "b": 0.2}


def test_names_of_numpy_that_recbole_sets(world: World) -> None:
    world.config("BPR")
    assert np.float is np.float64 and np.int is np.int_ and np.unicode is np.str_  # type: ignore[attr-defined]


def test_sequential_models_leave_anomaly_detection_off() -> None:
    script = """
import torch
from recbole_rlmrec.model.registry import get_model
print(get_model("SASRec").__name__, torch.is_anomaly_enabled())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "SASRec False\n", done.stderr
