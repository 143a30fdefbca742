"""The one split of a dataset: the same whatever the seed, and refused where something else is asked for."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recbole.data.dataset as recbole_datasets

from recbole_rlmrec.cli import main
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.dataset import RLMRecDataset
from recbole_rlmrec.data.frozen import RECBOLES_SPLIT, SplitRecipe, frozen_path
from recbole_rlmrec.data.loader import EmptyLoader
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.errors import DataError, RLMRecError, SettingError
from recbole_rlmrec.text.load import load_corpus

PARTS = ("train", "valid", "test")
Row = tuple[str, str, int]
TO = {"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": None}


class Market:
    """A dataset on disk without a split: rows of user, item and time, in no order."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "market"
        self.folder.mkdir(parents=True)
        rng = np.random.default_rng(3)
        pairs = [(f"u{user}", f"i{item}") for user in range(9) for item in rng.permutation(20)[: 11 + user]]
        pairs += [("few", "i1"), ("two", "i1"), ("two", "i2")]
        # Single precision takes seconds of two minutes for one, and some are one.
        self.rows = [(*pairs[at], 1_250_000_000 + int(rng.integers(400))) for at in rng.permutation(len(pairs))]
        self.write()

    def write(self, time: str = "timestamp:float") -> None:
        lines = [f"user_id:token\titem_id:token\t{time}", *("\t".join(map(str, row)) for row in self.rows)]
        (self.folder / "market.inter").write_text("\n".join(lines) + "\n")

    @property
    def frozen(self) -> Path:
        return self.folder / "market.split.json"

    def config(self, model: Any = "BPR", **settings: Any) -> RLMRecConfig:
        return RLMRecConfig(model, "market", config_dict={"data_path": str(self.root), **settings})

    def parts(self, model: Any = "BPR", **settings: Any) -> list[set[tuple[str, str]]]:
        """Return the pairs of training, validation and test of a training."""
        config = self.config(model, **settings)
        loaders = data_preparation(config, create_dataset(seeded(config)))
        return [pairs_of(loader._dataset) for loader in loaders]

    def split(self, *options: str) -> int:
        return main(["split", "--dataset", "market", f"--data_path={self.root}", *options])

    def refused(self, *arguments: Any, **settings: Any) -> str:
        with pytest.raises(RLMRecError) as error:
            self.parts(*arguments, **settings)
        return str(error.value)


def seeded(config: RLMRecConfig) -> RLMRecConfig:
    from recbole.utils import init_seed

    init_seed(config["seed"], config["reproducibility"])
    return config


def pairs_of(part: Any) -> set[tuple[str, str]]:
    columns = (part.id2token(field, part.inter_feat[field].numpy()) for field in ("user_id", "item_id"))
    return set(zip(*(map(str, column) for column in columns)))


def by_part(rows: list[Row], part_of: dict[Row, str]) -> list[set[tuple[str, str]]]:
    return [{row[:2] for row in rows if part_of[row] == part} for part in PARTS]


def typed(message: str) -> int:
    """Run the command that a message shows in backquotes."""
    (command,) = [text for text in message.split("`")[1::2] if text.startswith("recbole-rlmrec ")]
    return main(shlex.split(command)[1:])


@pytest.fixture
def market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Market:
    monkeypatch.chdir(tmp_path)
    return Market(tmp_path / "data")


# ---------------------------------------------------------------------- the verb


def test_by_time_is_the_global_order_of_times(market: Market) -> None:
    assert market.split("--by-time", "--ratios", "6:2:2") == 0
    in_order = sorted(market.rows, key=lambda row: row[2])  # stable, as the split: equal times stay in the file's order
    n_held_out = int(0.2 * len(in_order))
    ends = {"train": len(in_order) - 2 * n_held_out, "valid": len(in_order) - n_held_out, "test": len(in_order)}
    part_of = {row: next(part for part in PARTS if at < ends[part]) for at, row in enumerate(in_order)}
    assert market.parts(seed=1) == by_part(market.rows, part_of)


@pytest.mark.parametrize("name", ["timestamp", "unixReviewTime"])
def test_leave_one_out_takes_the_last_of_each_user(market: Market, name: str) -> None:
    market.write(f"{name}:float")
    assert market.split("--leave-one-out") == 0
    part_of: dict[Row, str] = {}
    for user in {row[0] for row in market.rows}:
        of_user = sorted((row for row in market.rows if row[0] == user), key=lambda row: row[2])
        part_of.update(dict.fromkeys(of_user, "train"))
        # RecBole keeps one for training: of two, the last is for the test; of one, none.
        for row, part in zip(reversed(of_user[1:]), ("test", "valid")):
            part_of[row] = part
    assert market.parts(seed=1) == by_part(market.rows, part_of)


def test_leave_one_out_without_times_is_at_random_and_says_so(
    market: Market, capsys: pytest.CaptureFixture[str]
) -> None:
    market.write("price:float")
    assert market.split("--leave-one-out", "--seed", "7") == 0
    printed = capsys.readouterr().out
    assert "has no column of times" in printed and "leave-one-out at random, seed 7" in printed
    train, valid, test = market.parts()
    users = [sum(pair[0] == user for pair in test) for user in {row[0] for row in market.rows if row[0] != "few"}]
    assert set(users) == {1} and len(train) + len(valid) + len(test) == len(market.rows)


@pytest.mark.parametrize(
    ("options", "ratios", "seed"),
    [
        ([], [8, 1, 1], 2020),
        (["--ratios=8:1:1"], [8, 1, 1], 2020),
        (["--seed=5"], [8, 1, 1], 5),
        (["--ratios", "3:1:1", "--seed", "5"], [3, 1, 1], 5),
    ],
)
def test_at_random_is_what_a_training_of_that_seed_would_draw(
    market: Market, options: list[str], ratios: list[int], seed: int
) -> None:
    drawn = market.parts(seed=seed, eval_args={"split": {"RS": ratios}})
    assert market.parts(seed=99, eval_args={"split": {"RS": ratios}}) != drawn
    assert market.split(*options) == 0
    assert market.parts(seed=99) == drawn


def test_without_validation_and_test_all_is_for_training(market: Market, capsys: pytest.CaptureFixture[str]) -> None:
    assert market.split() == 0
    train, valid, test = market.parts()
    assert market.split("--no-valid") == 0
    assert market.parts() == [train | valid, set(), test]
    capsys.readouterr()
    assert market.split("--no-valid", "--no-test") == 0
    assert f"train {len(market.rows)}, valid 0, test 0" in capsys.readouterr().out
    assert market.parts() == [train | valid | test, set(), set()]
    config = market.config()
    loaders = data_preparation(config, create_dataset(config))
    assert [type(loader) for loader in loaders[1:]] == [EmptyLoader] * 2 and not loaders[1] and not list(loaders[1])


def test_a_share_of_nothing_leaves_the_part_out(market: Market) -> None:
    assert market.split("--ratios=8:0:2") == 0
    train, valid, test = market.parts()
    assert valid == set() and len(test) > 10 and len(train) + len(test) == len(market.rows)


def test_rows_that_a_filter_removes_are_in_no_part(market: Market, capsys: pytest.CaptureFixture[str]) -> None:
    few = {"user_inter_num_interval": "[12,inf)"}
    drawn = market.parts(**few)
    assert market.split("--user_inter_num_interval=[12,inf)") == 0
    assert sum(map(len, drawn)) < len(market.rows)
    printed = capsys.readouterr().out
    assert f"train {len(drawn[0])}, valid {len(drawn[1])}, test {len(drawn[2])}" in printed
    assert market.parts(seed=3, **few) == drawn
    assert market.parts(seed=3) == drawn  # the rows stay out where the filter is forgotten


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--ratios=8:1"], "--ratios=8:1: expected"),
        (["--ratios=0:1:1"], "--ratios=0:1:1: expected"),
        (["--ratios=8:-1:1"], "--ratios=8:-1:1: expected"),
        (["--ratios=nan:1:1"], "--ratios=nan:1:1: expected"),
        (["--leave-one-out", "--ratios=8:1:1"], "--ratios and --leave-one-out both say how to split"),
        (["--by-time", "--split_file=x.tsv"], "--by-time and split_file both say how to split"),
        (["--by-time", "--TIME_FIELD=when"], "there is no column when"),
        (["--by-time", "--TIME_FIELD=item_id"], "'item_id' is of the type token"),
        (["--by-time", "--eval_args={order: RO}"], "--by-time and eval_args both say how to split"),
        (["--eval_args={split: {LS: valid_only}}"], "expected valid_and_test"),
    ],
)
def test_what_cannot_be_made_is_refused(
    market: Market, capsys: pytest.CaptureFixture[str], options: list[str], named: str
) -> None:
    assert market.split(*options) == 2
    assert named in capsys.readouterr().err and not market.frozen.exists()


def test_a_missing_time_is_refused_and_not_filled(market: Market, capsys: pytest.CaptureFixture[str]) -> None:
    path = market.folder / "market.inter"
    path.write_text(path.read_text().replace(f"\t{market.rows[2][2]}\n", "\t\n", 1))
    assert market.split("--by-time") == 2
    assert "market.inter', line 4: the column 'timestamp' is missing" in capsys.readouterr().err


def test_a_split_in_the_data_is_not_made_again(market: Market, capsys: pytest.CaptureFixture[str]) -> None:
    market.rows = [(*row[:2], part) for row, part in zip(market.rows, PARTS * len(market.rows))]  # type: ignore[misc]
    market.write("split:token")
    assert market.split("--ratios=8:1:1") == 2
    assert "is the column 'split' of market.inter; there is nothing to make" in capsys.readouterr().err
    assert market.split("--ratios=8:1:1", "--split_field=~") == 0
    assert "both say what is for training. Remove that file, or set split_field to nothing" in market.refused()
    assert len(market.parts(split_field=None)[0]) > 90


def test_a_file_of_the_users_own_is_not_replaced_unasked(market: Market, capsys: pytest.CaptureFixture[str]) -> None:
    assert market.split() == 0
    document = json.loads(market.frozen.read_text())
    del document["made"]
    market.frozen.write_text(json.dumps(document))
    assert market.split("--split_file=market.split.json") == 0  # it is the same
    assert "made" not in json.loads(market.frozen.read_text())
    assert market.split() == 0  # and can be made again
    assert market.frozen.write_text(json.dumps(document))
    capsys.readouterr()
    assert market.split("--by-time") == 2
    assert "does not say how it was made" in capsys.readouterr().err
    assert market.split("--by-time", "--overwrite") == 0


# ---------------------------------------------------------------------- trainings


def test_three_seeds_have_one_split_and_say_which(market: Market, caplog: pytest.LogCaptureFixture) -> None:
    seeds = (2020, 2021, 2022)
    assert len({str(sorted(market.parts(seed=seed)[2])) for seed in seeds}) == 3
    assert market.split() == 0
    first = market.parts(seed=seeds[0])
    caplog.set_level("INFO")
    caplog.clear()
    assert [market.parts(seed=seed) for seed in seeds] == [first] * 3
    said = "split: the frozen one of market.split.json (random 8:1:1, seed 2020); `recbole-rlmrec split` makes another"
    assert caplog.messages.count(said) == 3


@pytest.mark.parametrize("model", ["LightGCN", "ItemKNN", "FM", "KGAT"])
def test_models_of_all_kinds_use_it(market: Market, model: str) -> None:
    # RecBole drops items without a link, and links to what the graph does not have.
    links = "".join(f"i{item}\te{item}\n" for item in range(20))
    (market.folder / "market.link").write_text(f"item_id:token\tentity_id:token\n{links}")
    graph = "".join(f"e{item}\tr\te{item + 1}\n" for item in range(20))
    (market.folder / "market.kg").write_text(f"head_id:token\trelation_id:token\ttail_id:token\n{graph}")
    assert market.split("--by-time") == 0
    settings = {"load_col": None} if model == "KGAT" else {}
    config = seeded(market.config(model, seed=8, **settings))
    dataset = create_dataset(config)
    assert isinstance(dataset, RLMRecDataset)
    assert isinstance(dataset, recbole_datasets.KnowledgeBasedDataset) == (model == "KGAT")
    assert [pairs_of(part) for part in dataset.build()] == market.parts("BPR")


def test_a_model_of_sequences_says_that_it_does_not(market: Market, caplog: pytest.LogCaptureFixture) -> None:
    assert market.split("--by-time") == 0
    create_dataset(market.config("SASRec", train_neg_sample_args=None, load_col=None))
    assert any("the frozen split of market.split.json is not used" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "same",
    [
        {"split": {"RS": [8, 1, 1]}},
        {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user", "mode": "full"},
        {"mode": {"valid": "full", "test": "uni10"}},
        {"order": "RO"},
    ],
)
def test_asking_for_the_same_split_is_fine(market: Market, same: dict[str, Any]) -> None:
    assert market.split() == 0
    assert market.parts(eval_args=same, seed=7) == market.parts()


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ({"split": {"RS": [7, 2, 1]}}, "market: random 7:2:1, seed 2020, in"),
        ({"split": {"LS": "valid_and_test"}}, "market: leave-one-out at random, seed 2020, in"),
        ({"group_by": None}, "market: random 8:1:1 over all interactions, seed 2020, in"),
        ({"order": "TO"}, "market: by time 8:1:1 within each user, in"),
    ],
)
def test_asking_for_another_names_both_and_the_remedies_work(
    market: Market, other: dict[str, Any], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert market.split() == 0
    load = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    message = market.refused(eval_args=other, **load)
    for key, value in other.items():
        assert f"{key}: {value}" in message
    assert "market.split.json (random 8:1:1, seed 2020)" in message
    assert len(market.parts(eval_args={"mode": "full"}, **load)[0]) > 0  # the first remedy
    capsys.readouterr()
    assert typed(message) == 0
    assert shown in capsys.readouterr().out
    assert market.parts(eval_args=other, seed=3, **load) == market.parts(**load)


def test_recboles_default_is_another_split_than_one_by_time(market: Market) -> None:
    assert market.split("--by-time") == 0
    assert "(by time 8:1:1)" in market.refused(eval_args=dict(RECBOLES_SPLIT))
    assert market.parts(eval_args=TO) == market.parts()


def test_another_split_file_names_both_and_the_remedy_works(market: Market) -> None:
    assert market.split() == 0
    frozen = market.parts()
    rows = {pair: part for part, pairs in zip(PARTS, frozen) for pair in pairs}
    table = market.folder / "mine.tsv"

    def write() -> None:
        lines = [f"{user}\t{item}\t{part}" for (user, item), part in rows.items()]
        table.write_text("\n".join(["user_id\titem_id\tsplit", *lines]) + "\n")

    write()
    assert market.parts(split_file="mine.tsv") == frozen  # the same split in another form
    rows[next(iter(frozen[2]))] = "train"
    write()
    message = market.refused(split_file="mine.tsv")
    assert "'mine.tsv' is another split than the frozen one, market.split.json (random 8:1:1, seed 2020)" in message
    assert typed(message) == 0
    assert market.parts(split_file="mine.tsv") == market.parts() != frozen
    assert SplitRecipe.of_file(market.frozen) == SplitRecipe.copied("mine.tsv", 2020)


def test_a_named_file_and_eval_args_are_one_too_many(market: Market) -> None:
    lines = [f"{user}\t{item}\t{part}" for (user, item, _), part in zip(market.rows, PARTS * len(market.rows))]
    (market.folder / "mine.tsv").write_text("\n".join(["user_id\titem_id\tsplit", *lines]) + "\n")
    message = market.refused(split_file="mine.tsv", eval_args={"order": "TO"})
    assert message.startswith("eval_args (order: TO) asks for another split than split_file='mine.tsv'.")


def test_files_in_parts_beside_a_frozen_split_are_one_too_many(market: Market) -> None:
    assert market.split() == 0
    for part in PARTS:
        (market.folder / f"market.{part}.inter").write_text("user_id:token\titem_id:token\nu1\ti1\n")
    message = market.refused(benchmark_filename=list(PARTS))
    assert f"and the frozen split '{market.frozen}' both say what is for training" in message


def test_eval_args_beside_files_in_parts_are_said_to_do_nothing(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    create_dataset(world.config("BPR", eval_args={"split": {"LS": "valid_and_test"}}))
    create_dataset(world.config("BPR", eval_args=dict(RECBOLES_SPLIT)))
    (said,) = [message for message in caplog.messages if "is not used to split" in message]
    assert said.startswith(
        "eval_args (split: {'LS': 'valid_and_test'}) is not used to split: the split is the files of"
    )


def test_the_embedded_split_is_frozen_and_the_remedy_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = {"eval_args": {"split": {"LS": "valid_and_test"}}, "data_path": str(tmp_path)}
    config = RLMRecConfig("BPR", "ml-100k", config_dict=other)
    with pytest.raises(SettingError, match=r"the frozen one, ml-100k\.split\.json, which") as error:
        create_dataset(config)
    assert typed(str(error.value)) == 0
    assert [len(part) for part in create_dataset(config).build()] == [100_000 - 2 * 943, 943, 943]


@pytest.mark.parametrize("made", [["--by-time"], ["--ratios=6:2:2", "--seed=9"], ["--no-test"]])
def test_a_frozen_split_of_other_data_is_one_error_whose_remedy_works(market: Market, made: list[str]) -> None:
    assert market.split(*made) == 0
    recipe = str(SplitRecipe.of_file(market.frozen))
    market.rows.append(("u1", "new", 1_250_000_200))
    market.write()
    message = market.refused()
    assert "market.split.json' splits 138 interactions, but the dataset has 139" in message
    assert typed(message) == 0
    assert sum(map(len, market.parts(seed=1))) == 139 and str(SplitRecipe.of_file(market.frozen)) == recipe


@pytest.mark.parametrize("made", [3, "x", [], {"split": {}}, {"split": {"RS": [1, float("inf")]}, "order": "RO"}])
def test_a_damaged_recipe_is_one_error(market: Market, made: Any) -> None:
    assert market.split() == 0
    document = {**json.loads(market.frozen.read_text()), "made": made}
    market.frozen.write_text(json.dumps(document))
    message = market.refused()
    assert "'made'" in message or "number of JSON" in message


def test_settings_of_a_checkpoint_ask_for_nothing(market: Market) -> None:
    """They hold RecBole's default, which nobody gave."""
    assert market.split("--by-time") == 0
    config = market.config()
    again = RLMRecConfig("BPR", "market", config_dict={k: v for k, v in config.settings.items() if k in RECBOLES})
    assert again.asked_split
    again.asked_split = {}
    assert frozen_path(again) == market.frozen
    assert [pairs_of(part) for part in create_dataset(again).build()] == market.parts()


RECBOLES = ("eval_args", "data_path", "split_file")


# ---------------------------------------------------------------------- texts


def test_texts_for_profiles_freeze_what_a_training_would_draw(market: Market) -> None:
    drawn = market.parts(seed=6)
    assert load_corpus(market.config(seed=6)).held_out == drawn[1] | drawn[2]
    assert not market.frozen.exists()  # a check, or a plan, writes nothing
    said: list[str] = []
    corpus = load_corpus(market.config(seed=6), said.append)
    assert corpus.held_out == drawn[1] | drawn[2]
    (line,) = said
    assert line.startswith(f"split: random 8:1:1, seed 6, frozen in {market.frozen}: every training of market uses it")
    assert load_corpus(market.config(seed=7), said.append) == corpus
    assert said[1] == "split: the frozen one of market.split.json (random 8:1:1, seed 6)"
    assert market.parts(seed=8) == drawn


def test_a_split_that_cannot_be_frozen_is_an_error(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recbole_rlmrec.data.dataset.write_packed_split", full)
    with pytest.raises(DataError, match=r"cannot be frozen: .*market\.split\.json.*No space left"):
        load_corpus(market.config(), lambda _: None)


def test_eval_args_that_recbole_refuses_freeze_nothing(market: Market) -> None:
    with pytest.raises((SettingError, DataError, ValueError, NotImplementedError, AssertionError)):
        load_corpus(market.config(eval_args={"split": None}), lambda _: None)
    assert not market.frozen.exists()


# ---------------------------------------------------------------------- withheld items


@pytest.mark.parametrize(
    ("options", "origin"),
    [
        ((), "random 8:1:1"),
        (("--ratios=6:2:2",), "random 3:1:1"),
        (("--by-time",), "by time 8:1:1"),
        (("--leave-one-out",), "leave-one-out by time"),
    ],
)
def test_withheld_items_are_in_the_test_only(market: Market, options: tuple[str, ...], origin: str) -> None:
    """The other items' interactions are split as those of a dataset that has no more; made again it is the same."""
    assert market.split("--cold-items=.2", "--seed=5", *options) == 0
    train, valid, test = market.parts()
    first = json.loads(market.frozen.read_text())["codes"]
    withheld = {item for _, item in test} - {item for _, item in train | valid}
    assert len(withheld) == 4  # of 20
    assert {row[:2] for row in market.rows if row[1] in withheld} <= test
    recipe = SplitRecipe.of_file(market.frozen)
    assert recipe is not None and str(recipe) == f"{origin}, 0.2 of the items in the test only, seed 5"
    market.frozen.unlink()
    assert market.split(*recipe.options()) == 0
    assert json.loads(market.frozen.read_text())["codes"] == first
    market.rows.reverse()
    market.write()
    assert market.split(*recipe.options(), "--overwrite") == 0
    train_again, valid_again, _ = market.parts()
    assert not withheld & {item for _, item in train_again | valid_again}
    market.rows = [row for row in market.rows if row[1] not in withheld]
    market.write()
    assert market.split(*options, "--overwrite") == 0
    assert recipe.order == "RO" or market.parts(topk=[5])[:2] == [train, valid]


def test_withheld_items_of_a_split_file(market: Market) -> None:
    lines = ["user_id\titem_id\tsplit", *(f"{user}\t{item}\t{PARTS[time % 3]}" for user, item, time in market.rows)]
    (market.folder / "mine.tsv").write_text("\n".join(lines) + "\n")
    given = market.parts(split_file="mine.tsv")
    assert market.split("--split_file=mine.tsv", "--cold-items=.1", "--seed=1") == 0
    parts = market.parts()
    recipe = SplitRecipe.of_file(market.frozen)
    assert recipe is not None and recipe.options() == ["--split_file=mine.tsv", "--seed=1", "--cold-items=0.1"]
    withheld = {item for _, item in parts[2]} - {item for _, item in parts[0] | parts[1]}
    assert len(withheld) == 2
    assert parts[:2] == [{pair for pair in part if pair[1] not in withheld} for part in given[:2]]


def test_a_split_without_withheld_items_does_not_record_them(market: Market) -> None:
    assert market.split("--seed=5") == 0
    assert "cold_items" not in json.loads(market.frozen.read_text())["made"]
    assert market.split("--seed=5", "--cold-items=.1") == 0
    assert "asks for another split than the frozen one" in market.refused(eval_args={"split": {"RS": [8, 1, 1]}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cold-items=0",), "--cold-items=0: expected a share of the items above 0 and below 1"),
        (("--cold-items=1",), "--cold-items=1: expected a share"),
        (("--cold-items=1.5",), "--cold-items=1.5: expected a share"),
        (("--cold-items=nan",), "--cold-items=nan: expected a share"),
        (("--cold-items=.99",), "0.99 of the 20 items of 'market' is all of them"),
        (("--cold-items=.1", "--no-test"), "withholds interactions for the test, and there is to be none"),
        (("--cold-items=.1", "--ratios=8:2:0"), "withholds interactions for the test, and there is to be none"),
    ],
)
def test_shares_of_items_that_cannot_be_withheld(
    market: Market, options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert market.split(*options) == 2
    assert message in capsys.readouterr().err and not market.frozen.exists()
