"""Tables that cannot fit are refused with numbers, before they are made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import World

from recbole_rlmrec import quick_start
from recbole_rlmrec.data import preparation
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.recbole_settings import memory


def test_embeddings_of_all_nodes(world: World) -> None:
    config = world.config("LightGCN", embedding_size=10**9)
    dataset = preparation.create_dataset(config)
    with pytest.raises(SettingError) as caught:
        quick_start._built(config, dataset)
    # 41 + 31 rows, [PAD] among them; 4 bytes; weights, gradients and two averages.
    assert "embedding_size=1000000000 (from config_dict): 72 users and items take 1,072.9 GiB" in str(caught.value)


@pytest.mark.parametrize("make", [lambda n: torch.empty(n, 3), lambda n: torch.zeros((n, 3)), torch.nn.Linear])
def test_any_other_tensor(make: Any) -> None:
    guard = memory.within_memory({"n_experts": 10**12, "n_layers": 2}, {"n_experts": "a file"})
    with pytest.raises(SettingError, match=r"11,175\.9 GiB.*Lower n_experts=1000000000000 \(from a file\)"), guard:
        make(*((3, 10**12) if make is torch.nn.Linear else (10**12,)))


def test_what_fits_is_made() -> None:
    with memory.within_memory({}, {}):
        assert torch.zeros(3, 2).shape == torch.nn.Embedding(3, 2).weight.shape == (3, 2)
    assert memory.free_memory(torch.device("cpu")) > 0
