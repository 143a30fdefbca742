"""What an ablation adds to the data or takes from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from trainings import train
from worlds import World

from recbole_rlmrec.data.ablation import noise_pairs
from recbole_rlmrec.data.dataset import training_sha256_of
from recbole_rlmrec.errors import DataError


def loaded(world: World, **settings: Any) -> tuple[Any, Any]:
    """The whole dataset and the training part."""
    dataset, train_data, _, _ = world.loaders(world.config("LightGCN_RLMRecCon", **settings))
    return dataset, train_data._dataset


def pairs_of(dataset: Any) -> list[tuple[int, int]]:
    feat = dataset.inter_feat
    return list(zip(feat[dataset.uid_field].tolist(), feat[dataset.iid_field].tolist()))


def test_noise_is_what_nobody_has(world: World) -> None:
    whole, plain = loaded(world)
    n = len(pairs_of(plain))
    noisy = pairs_of(loaded(world, noise_share=0.25)[1])
    assert noisy[:n] == pairs_of(plain) and len(noisy) == n + round(0.25 * n)
    added = noisy[n:]
    assert len(set(added)) == len(added) and not set(added) & set(pairs_of(whole))
    assert all(user > 0 and item > 0 for user, item in added)
    assert pairs_of(loaded(world, noise_share=0.25)[1]) == noisy
    # The same pairs whatever the seed of the training, in what order it may have them.
    assert sorted(pairs_of(loaded(world, noise_share=0.25, seed=1)[1])) == sorted(noisy)


def test_noise_leaves_the_profiles_what_they_were(world: World) -> None:
    """Profiles of the true training interactions are no leak, and those of others still are one."""
    dataset, _ = loaded(world)
    codes = np.array([0] * len(world.train) + [1] * len(world.valid) + [2] * len(world.test))
    path = world.folder / f"{world.name}.semantic.json"
    path.write_text(f'{{"train_sha256": "{training_sha256_of(dataset, codes)}"}}')
    assert loaded(world, noise_share=0.1)[1].semantic_embedding("user").n_covered == 40
    path.write_text('{"train_sha256": "0"}')
    with pytest.raises(DataError, match="another training split"):
        loaded(world, noise_share=0.1)[1].semantic_embedding("user")


def test_more_noise_than_there_are_pairs() -> None:
    users, items = np.divmod(np.arange(9), 3)
    with pytest.raises(DataError, match=r"asks for 5 pairs that nobody has; of those there are 7.*Lower it"):
        noise_pairs((users + 1, items + 1), 5, 5, 5)
    found = np.stack(noise_pairs((users + 1, items + 1), 5, 5, 3))
    assert found.shape == (2, 3) and not ((found <= 3).all(axis=0)).any()


@pytest.mark.parametrize(("side", "left"), [("both", (20, 15)), ("users", (20, 30)), ("items", (40, 15))])
def test_profiles_are_withheld(world: World, side: str, left: tuple[int, int]) -> None:
    _, training = loaded(world, withheld_share=0.5, withheld_side=side)
    assert (training.semantic_embedding("user").n_covered, training.semantic_embedding("item").n_covered) == left


def test_everybody_gets_the_profile_of_another(world: World) -> None:
    _, plain = loaded(world)
    _, shuffled = loaded(world, shuffled_profiles=True)
    for side in ("user", "item"):
        before, after = plain.semantic_embedding(side).rows[1:], shuffled.semantic_embedding(side).rows[1:]
        assert sorted(before) == sorted(after) and not (before == after).any()


def test_a_training_says_what_it_was_deprived_of(world: World) -> None:
    result = train(world, "LightGCN_RLMRecCon", noise_share=0.1, withheld_share=1.0)
    assert result.settings["noise_share"] == 0.1 and result.settings["withheld_share"] == 1.0
    assert result.load().dataset.config["withheld_share"] == 1.0
