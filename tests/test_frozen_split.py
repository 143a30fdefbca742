"""From texts to trainings with one split: no seed, model, process or entrance has another."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recbole_rlmrec
from recbole_rlmrec import quick_start
from recbole_rlmrec.cli import main
from recbole_rlmrec.data.split import pairs_sha256, read_split
from recbole_rlmrec.errors import CheckpointError, SettingError
from recbole_rlmrec.profile.record import iter_profiles, read_profiles
from recbole_rlmrec.profile.template import TemplateWriter

SEEDS = (2020, 2021, 2022)
RUN = {
    "epochs": 1,
    "topk": [2],
    "valid_metric": "Recall@2",
    "embedding_size": 8,
    "show_progress": False,
    "base_first": False,
}


class Shop:
    """A dataset with titles and no split."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "shop"
        self.folder.mkdir(parents=True)
        rng = np.random.default_rng(5)
        self.rows = [(f"u{user}", f"i{item}") for user in range(12) for item in rng.permutation(15)[:8]]
        lines = ["user_id:token\titem_id:token", *("\t".join(row) for row in self.rows)]
        (self.folder / "shop.inter").write_text("\n".join(lines) + "\n")
        items = [{"item_id": f"i{item}", "title": f"Gadget number {item}"} for item in range(15)]
        (self.folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))

    def call(self, verb: str, *options: str) -> int:
        return main([verb, "--dataset=shop", f"--data_path={self.root}", *options])

    def train(self, model: str = "LightGCN_RLMRecCon", **settings: Any) -> Any:
        return quick_start.run(model, "shop", config_dict={"data_path": str(self.root), **RUN, **settings})

    def typed(self, model: str = "LightGCN_RLMRecCon", *settings: str) -> int:
        run = [f"--{name}={value}" for name, value in RUN.items()]
        return self.call("train", f"--model={model}", *run, *settings)

    @property
    def less(self) -> dict[str, Any]:
        """Settings of a run that do not say how many epochs there are."""
        return {"data_path": str(self.root), **{name: value for name, value in RUN.items() if name != "epochs"}}

    @property
    def frozen(self) -> Path:
        return self.folder / "shop.split.json"

    @property
    def train_sha256(self) -> str:
        """The hash of the frozen split's training pairs."""
        users, items = zip(*self.rows)
        codes = read_split(self.frozen, users, items)
        return pairs_sha256(*zip(*(row for row, code in zip(self.rows, codes) if code == 0)))


def run_remedy(message: str) -> int:
    """Run the command that a message shows in backquotes."""
    (command,) = [text for text in message.split("`")[1::2] if text.startswith("recbole-rlmrec ")]
    return main(shlex.split(command)[1:])


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    return Shop(tmp_path / "data")


def test_three_seeds_train_on_the_split_that_the_profiles_were_written_from(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.call("build-semantics") == 0
    frozen = f"split: random 8:1:1, seed 2020, frozen in {shop.frozen}: every training of shop uses it"
    assert frozen in capsys.readouterr().out
    results = [shop.train(model, seed=seed) for seed in SEEDS for model in ("LightGCN_RLMRecCon", "BPR")]
    assert {result.data["training interactions"] for result in results} == {shop.train_sha256}
    for part in ("training", "validation", "test"):
        assert len({result.data[f"{part} rows"] for result in results}) == 1
    assert {result.split for result in results} == {"the frozen one of shop.split.json (random 8:1:1, seed 2020)"}
    assert {profile.train_sha256 for profile in read_profiles(shop.folder / "shop.userprf.jsonl").values()} == {
        shop.train_sha256
    }
    assert shop.call("check", "--seed=77") == 0


def test_profiles_of_before_are_a_leak_whose_remedy_works(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """As they were written when no split was frozen: another seed is another split."""
    assert shop.call("build-semantics") == 0
    shop.frozen.unlink()
    assert shop.typed("LightGCN_RLMRecCon", "--seed=2020") == 0
    written = len(list(iter_profiles(shop.folder / "shop.userprf.jsonl")))
    capsys.readouterr()
    assert shop.typed("LightGCN_RLMRecCon", "--seed=2021") == 2
    message = capsys.readouterr().err
    assert "the profiles were written from another training split" in message
    assert shop.typed("LightGCN_RLMRecCon", "--seed=2021", "--leakage=warn") == 0
    assert run_remedy(message.replace("`--leakage=warn`", "")) == 0
    assert shop.typed("LightGCN_RLMRecCon", "--seed=2021") == 0
    assert len(list(iter_profiles(shop.folder / "shop.userprf.jsonl"))) == written  # nothing was stale


def test_the_remedy_holds_what_the_profiles_were_written_with(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the text columns no item would have a text, and the command would fail."""
    texts = {row["item_id"]: row["title"] for row in map(json.loads, (shop.folder / "items.jsonl").open())}
    (shop.folder / "items.jsonl").unlink()
    lines = ["item_id:token\tname:token_seq", *("\t".join(each) for each in texts.items())]
    (shop.folder / "shop.item").write_text("\n".join(lines) + "\n")
    chosen = ("--item_title_field=name", "--float16", "--dimension=4")
    assert shop.call("build-semantics", *chosen, "--encoder=lsa", "--overwrite") == 0
    recorded = json.loads((shop.folder / "shop.semantic.json").read_text())["options"]
    assert recorded == [*chosen, "--encoder=lsa"]
    shop.frozen.unlink()
    capsys.readouterr()
    assert shop.typed("LightGCN_RLMRecCon", "--seed=2021") == 2
    message = capsys.readouterr().err.replace("`--leakage=warn`", "")
    assert all(option in message for option in chosen) and message.count("--overwrite") == 1
    assert run_remedy(message) == 0
    assert json.loads((shop.folder / "shop.semantic.json").read_text())["options"] == recorded
    assert shop.typed("LightGCN_RLMRecCon", "--seed=2021") == 0


def test_another_split_makes_profiles_stale_and_what_is_said_writes_them_again(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.call("build-semantics") == 0
    before = shop.frozen.read_bytes(), shop.train_sha256
    capsys.readouterr()
    assert shop.call("split", "--ratios=2:1:1") == 2
    message = capsys.readouterr().err
    assert "shop.userprf.jsonl" in message and "shop.semantic.json" in message and "--overwrite" in message
    assert shop.frozen.read_bytes() == before[0]
    assert shop.call("split") == 0  # it is the one there is
    assert shop.frozen.read_bytes() == before[0]
    assert shop.call("split", "--ratios=2:1:1", "--overwrite") == 0
    assert "Made from another split: " in capsys.readouterr().out
    assert shop.typed() == 2
    assert shop.typed("LightGCN") == 0
    capsys.readouterr()
    assert shop.call("check") == 1
    assert "build-semantics --overwrite" in capsys.readouterr().out
    assert run_remedy(message) == 0
    assert shop.typed("LightGCN_RLMRecCon", "--seed=3") == 0 and shop.train_sha256 != before[1]


def test_a_build_that_died_after_the_split_goes_on_with_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        assert shop.frozen.is_file(), "the split is frozen before the first profile is written"
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TemplateWriter, "profiles", killed)
        assert shop.call("build-semantics", "--seed=11") == 130
    assert not (shop.folder / "shop.itemprf.jsonl").exists()
    frozen = shop.frozen.read_bytes()
    assert shop.call("build-semantics") == 0
    assert shop.frozen.read_bytes() == frozen and shop.train().split.endswith("(random 8:1:1, seed 11)")


def test_a_plan_freezes_nothing(shop: Shop) -> None:
    assert shop.call("build-semantics", "--dry-run") == 0
    assert not shop.frozen.exists()


def test_several_processes_have_it_too(shop: Shop) -> None:
    assert shop.call("build-semantics") == 0
    settings = {"data_path": str(shop.root), **RUN, "seed": 9}
    result = quick_start.run("LightGCN_RLMRecCon", "shop", config_dict=settings, nproc=2)
    assert result is not None and result.data is not None
    assert result.data["training interactions"] == shop.train_sha256


def test_a_checkpoint_is_loaded_with_it_and_refuses_another(shop: Shop) -> None:
    assert shop.call("split", "--ratios=2:1:1", "--seed=4") == 0
    result = shop.train("LightGCN", seed=9)
    loaded = recbole_rlmrec.load_model(result.checkpoint)
    assert loaded.dataset.split_origin == "the frozen one of shop.split.json (random 2:1:1, seed 4)"
    assert len(loaded.train_data._dataset) == 12 * 4
    with pytest.raises(SettingError, match="asks for another split than the frozen one"):
        recbole_rlmrec.load_model(result.checkpoint, {"eval_args": {"split": {"RS": [8, 1, 1]}}})
    assert shop.call("split", "--seed=5") == 0
    with pytest.raises(CheckpointError, match="training interactions differ"):
        recbole_rlmrec.load_model(result.checkpoint)


#: In a process of its own: RecBole stays changed where it has been registered with.
BY_RECBOLE = """
import json, sys
import recbole_rlmrec
from recbole.quick_start import run_recbole
from recbole_rlmrec.errors import SettingError

settings = json.loads(sys.argv.pop())
recbole_rlmrec.register_with_recbole()
assert run_recbole("LightGCN_RLMRecCon", "shop", config_dict=settings)["test_result"]
other = {**settings, "eval_args": {"split": {"LS": "valid_and_test"}}}
try:
    run_recbole("LightGCN_RLMRecCon", "shop", config_dict=other)
except SettingError as error:
    print(error)
"""


def test_recboles_entrance_has_it_too(shop: Shop) -> None:
    assert shop.call("build-semantics") == 0
    settings = json.dumps({"data_path": str(shop.root), **RUN, "seed": 9})
    done = subprocess.run([sys.executable, "-c", BY_RECBOLE, settings], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "asks for another split than the frozen one" in done.stdout


# ---------------------------------------------------------------------- a last training on everything


def test_a_last_training_on_everything(shop: Shop, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert shop.call("split", "--no-valid", "--no-test") == 0
    assert shop.call("build-semantics") == 0
    with pytest.raises(SettingError, match=r"has no validation part.*--epochs=50"):
        quick_start.run("LightGCN_RLMRecCon", "shop", config_dict=shop.less)
    path = tmp_path / "result.json"
    result = shop.train(epochs=3, base_first=True, result_file=str(path))
    written = json.loads(path.read_text())
    assert written["split"] == "the frozen one of shop.split.json (random 8:1:1, seed 2020, no validation, no test)"
    assert written["test_result"] is written["best_valid_result"] is written["stopped"] is None
    assert result.best_epoch == 2
    loaded = recbole_rlmrec.load_model(result.checkpoint)
    assert len(loaded.train_data._dataset) == len(shop.rows) and not loaded.test_data


@pytest.mark.parametrize(("option", "tested"), [("--no-valid", True), ("--no-test", False)])
def test_one_part_can_be_missing(shop: Shop, option: str, tested: bool) -> None:
    assert shop.call("split", option) == 0
    for settings in ({}, {"eval_args": {"mode": "uni5"}}, {"repeatable": True}):
        result = shop.train("LightGCN", epochs=2, **settings)
        assert (result.test_result is not None) == tested
        assert (result.best_valid_result is None) == tested
        assert result.best_epoch == 1 or not tested


def test_models_without_steps_need_no_number_of_epochs(shop: Shop) -> None:
    assert shop.call("split", "--no-valid") == 0
    result = quick_start.run("ItemKNN", "shop", config_dict=shop.less)
    assert result is not None and result.test_result is not None


@pytest.mark.parametrize("ratios", ["1e308:1e308:1", "1e13:1:1", "nan:1:1", "inf:1:1", "8:-1:1", "8:1"])
def test_shares_that_are_none(shop: Shop, ratios: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shop.call("split", f"--ratios={ratios}") == 2
    assert "three numbers" in capsys.readouterr().err
    assert not shop.frozen.exists()


@pytest.mark.parametrize("content", [b"", b'{"interactions": ', b"[]", b"\xff\xfe"])
def test_a_broken_split_is_replaced_when_asked(shop: Shop, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    shop.frozen.write_bytes(content)
    assert shop.call("split") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert shop.frozen.read_bytes() == content
    assert shop.call("split", "--overwrite") == 0
    assert shop.train_sha256


def test_a_seed_that_draws_nothing_is_said(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.call("split", "--leave-one-out", "--seed=3")  # at random without times
    assert "changes nothing" not in caplog.text
    text = (shop.folder / "shop.inter").read_text().splitlines()
    rows = [f"{line}\t{time}" for time, line in enumerate(text[1:])]
    (shop.folder / "shop.inter").write_text("\n".join([f"{text[0]}\ttimestamp:float", *rows]) + "\n")
    for option in ("--by-time", "--leave-one-out"):
        assert shop.call("split", option, "--seed=3", "--overwrite") == 0
        assert f"--seed 3 changes nothing: {option}" in caplog.text
