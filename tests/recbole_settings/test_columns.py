"""Columns that settings name: the message names load_col, or the column that is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.errors import SettingError


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.inter").write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\ti\t5\t1\n")
    (folder / "shop.item").write_text("item_id:token\tprice:float\ni\t3\n")
    return tmp_path


ALL = {"inter": ["user_id", "item_id", "rating", "timestamp"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"eval_args": {"order": "TO"}},
            "the column 'timestamp', which is not loaded: load_col must name timestamp",
        ),
        (
            {"val_interval": {"rating": "[3,inf)"}},
            'load_col must name rating, e.g. --load_col="{inter: [user_id, item_id, ',
        ),
        ({"val_interval": {"price": "[3,inf)"}}, "load_col must name price"),
        ({"threshold": {"rating": 3}}, "load_col must name rating"),
        ({"normalize_field": ["rating"]}, "load_col must name rating"),
        ({"threshold": {"ratng": 3}}, "no file has the column 'ratng'. Did you mean 'rating'?"),
        ({"val_interval": {"rating": ["3"]}, "load_col": ALL}, "is of the type float; expected intervals"),
        ({"val_interval": {"user_id": "[3,inf)"}}, "is of the type token; expected a list of values"),
        (
            {"load_col": {"inter": ["user_id", "item_id", "ratng"]}},
            "the .inter file has no column 'ratng'. Did you",
        ),
        ({"load_col": {"inter": ["user_id", "rating"]}}, "load_col must name item_id"),
        ({"load_col": None, "unload_col": {"inter": ["timestamp"]}, "eval_args": {"order": "TO"}}, "out of unload_col"),
    ],
)
def test_columns_that_are_not_there(shop: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        RLMRecConfig("LightGCN", "shop", config_dict={"data_path": str(shop), **settings})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"eval_args": {"order": "TO"}, "load_col": ALL},
        {"eval_args": {"order": "TO"}, "split_file": "split.json"},
        {"eval_args": {"order": "TO"}, "load_col": None},
        {"val_interval": {"rating": "[3,inf)"}, "load_col": {"inter": "*"}},
        {
            "val_interval": {"price": "[3,inf)"},
            "load_col": {**ALL, "item": ["item_id", "price"]},
        },
    ],
)
def test_columns_that_are_there(shop: Path, settings: dict[str, Any]) -> None:
    RLMRecConfig("LightGCN", "shop", config_dict={"data_path": str(shop), **settings})
