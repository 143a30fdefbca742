"""A language model that is trained with the recommender: a tiny one, made on the spot. Skipped without its packages."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World
from tiny_models import write_bert
from trainings import train

from recbole_rlmrec.cli import main
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.language.texts import texts_of
from recbole_rlmrec.quick_start import load_model
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import write_items

SMALL: dict[str, Any] = {
    "embedding_size": 8,
    "queue_size": 12,
    "lora_rank": 2,
    "pooling": "mean",
    "max_text_tokens": 24,
}
WORDS = ("space", "alien", "love", "war", "robot", "crime", "song", "city")


@pytest.fixture
def titled(world: World) -> World:
    """A dataset with titles and profiles by the template."""
    rng = np.random.default_rng(0)
    write_items(world.folder / "items.jsonl", [Item(f"i{n}", " ".join(rng.choice(WORDS, 2))) for n in range(30)])
    options = ["--dataset=tiny", f"--data_path={world.root}", "--benchmark_filename=[train,valid,test]"]
    assert main(["build-semantics", *options, "--encoder=lsa", "--dimension=6", "--overwrite"]) == 0
    return world


@pytest.fixture
def tiny_bert(tmp_path: Path) -> str:
    return write_bert(tmp_path / "bert", WORDS, "peft")


def test_texts_are_profiles_and_titles_around(titled: World) -> None:
    _, train_data, _, _ = titled.loaders(titled.config("GALRec"))
    dataset = train_data._dataset
    titles = {f"i{n}": line["title"] for n, line in enumerate(map(json.loads, (titled.folder / "items.jsonl").open()))}
    plain, one, two = (texts_of(dataset, n_hops) for n_hops in range(3))
    assert plain[0] == plain[dataset.user_num] == "" and len(plain) == dataset.user_num + dataset.item_num
    user = dataset.token2id("user_id", "u3")
    mine = {item for each, item in titled.train if each == "u3"}
    said = one[user].removeprefix(plain[user]).strip()
    assert said.startswith("Chose: ") and len(said.split("; ")) == min(10, len(mine))
    assert set(said.removeprefix("Chose: ").rstrip(".").split("; ")) <= {titles[item] for item in mine}
    assert "Others with the same choose: " in two[user] and one[dataset.user_num + 1] == plain[dataset.user_num + 1]
    assert "Whoever takes it chooses: " in two[dataset.user_num + 1]


@pytest.mark.parametrize("with_external", [False, True])
def test_trained_with_adapters_alone_in_the_checkpoint(
    titled: World, tiny_bert: str, tmp_path: Path, with_external: bool
) -> None:
    settings: dict[str, Any] = {"language_model": tiny_bert, "checkpoint_dir": str(tmp_path), **SMALL}
    if with_external:
        base = train(titled, "LightGCN", epochs=1, checkpoint_dir=str(tmp_path))
        assert main(["export", f"--checkpoint={base.checkpoint}", f"--output={tmp_path / 'out'}"]) == 0
        settings["external_embeddings"] = str(tmp_path / "out")
    result = train(titled, "GALRec", epochs=1, **settings)
    model = load_model(result.checkpoint)[1]
    state = model.state_dict()
    assert any("lora" in name for name in state) and not any("word_embeddings" in name for name in state)
    assert ("encoder.soft_token.weight" in state) is with_external
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert all("lora" in name or name.split(".")[1] in ("last_layer", "soft_token") for name in trained)
    # What is padded does not count: a text alone is represented as among longer ones.
    model.eval()
    with torch.no_grad():
        together = model.encoder(torch.arange(1, 20))
        alone = torch.cat([model.encoder(torch.tensor([each])) for each in range(1, 20)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        before = model.key_encoder(torch.arange(1, 5))
        model.key_encoder.follow()
    assert before.shape == (4, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "auto"}, "no file says how its tokens become one vector of a text"),
        ({"lora_rank": 17}, "lora_rank=17 is larger than the width of .*, 16"),
        ({"language_model": "no-such-folder/model"}, "cannot be opened"),
    ],
)
def test_language_models_that_cannot_be(
    titled: World, tiny_bert: str, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SettingError, match=message):
        train(titled, "GALRec", epochs=1, **{"language_model": tiny_bert, **SMALL, **settings})


def test_a_language_model_that_does_not_fit(titled: World, tiny_bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_rlmrec.model.language import text_encoder

    full = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(text_encoder, "psutil", full)
    with pytest.raises(SettingError, match=r"million weights: 0.00 GiB in float32, .* Take a smaller model\."):
        train(titled, "GALRec", epochs=1, language_model=tiny_bert, **SMALL)


def test_pooling_is_what_the_files_say(tiny_bert: str) -> None:
    from recbole_rlmrec.model.language.text_encoder import _pooling_of

    folder = Path(tiny_bert) / "1_Pooling"
    folder.mkdir()
    for content, expected in [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode": "last"}, "last"),
    ]:
        (folder / "config.json").write_text(json.dumps(content))
        assert _pooling_of(tiny_bert) == expected


def test_without_profiles_it_is_one_sentence(world: World) -> None:
    _, train_data, _, _ = world.loaders(world.config("GALRec"))
    with pytest.raises(DataError, match=r"has no profiles .* Write them with build-semantics"):
        texts_of(train_data._dataset, 2)
