"""Search spaces: RecBole's format, read without running it, and the spaces that come with the package."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recbole.trainer import HyperTuning

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.contract import ModelFlags, flags_of
from recbole_rlmrec.model.registry import get_model, names
from recbole_rlmrec.resources import resource_folder
from recbole_rlmrec.tuning.journal import Trial
from recbole_rlmrec.tuning.proposal import Proposals
from recbole_rlmrec.tuning.search import _budget
from recbole_rlmrec.tuning.space import find_space, read_space

PROVIDED = resource_folder("properties") / "tune"

#: Classes that others extend: their files are parts of spaces.
BASES = {"ContrastiveAlignment", "GenerativeAlignment", "ProMaxAlignment", "GeneralRecommender"}

TRAINED = [name for name in names() if not flags_of(get_model(name)).nothing_to_train]


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "a.hyper") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def values_of(text: str, written: Callable[..., Path]) -> list[Any]:
    return [settings["x"] for settings in read_space(written(f"x {text}\n")).grid()]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("choice [1, 2.5, 1e-3]", [1, 2.5, 0.001]),
        ("choice 1,2", [1, 2]),
        ("choice ['a','b c']", ["a", "b c"]),
        ("choice (True, False, None, 1, 0)", [True, False, None, 1, 0]),
        ("choice ['[64,32]', [128, 64], (1,)]", [[64, 32], [128, 64], [1]]),
        ("choice [{'split': {'RS': [0.8]}}]", [{"split": {"RS": [0.8]}}]),
        ("quniform 1,4,1", [1, 2, 3, 4]),
        ("quniform 1, 4, 2", [2, 4]),
        ("quniform 0.05,0.45,0.1", [0.1, 0.2, 0.3, 0.4]),
        ("quniform 0,0.3,0.1", [0.0, 0.1, 0.2, 0.3]),
        ("quniform 16,64,16.0", [16, 32, 48, 64]),
    ],
)
def test_values(text: str, values: list[Any], written: Callable[..., Path]) -> None:
    found = values_of(text, written)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_intervals(written: Callable[..., Path]) -> None:
    space = read_space(written("# a comment of more than three words\n\nx uniform -1.5,2\ny loguniform -8,0\n"))
    assert space.dimensions["x"].samples == [-1.5, 2.0]
    assert space.dimensions["y"].samples == [math.exp(-8), 1.0]
    assert space.size is None
    assert space.texts == {"x": "uniform -1.5,2", "y": "loguniform -8,0"}


def test_recbole_reads_the_same(written: Callable[..., Path]) -> None:
    """RecBole's parser is the oracle: with the same random numbers both draw the same settings."""
    from hyperopt.pyll.stochastic import sample

    lines = ["a choice [0.1,0.2,0.5]", "b uniform 0,2", "c loguniform -8,0", "d quniform 2,9,1", "e choice ['x','y']"]
    path = written("".join(f"{line}\n" for line in lines))
    ours, theirs = read_space(path), HyperTuning._build_space_from_file(path)
    for seed in range(20):
        drawn = sample(ours.expressions(), np.random.default_rng(seed))
        assert ours.decode(drawn) == sample(theirs, np.random.default_rng(seed))


def test_decoding_and_encoding(written: Callable[..., Path]) -> None:
    space = read_space(written("a choice [[1], True, 1]\nb quniform 0,1,0.1\nc quniform 1,3,1\nd loguniform -3,0\n"))
    for drawn in ({"a": 2, "b": 0.30000000000000004, "c": 2.0, "d": 0.1}, {"a": 0, "b": 1.0, "c": 3.0, "d": 0.9}):
        settings = space.decode(drawn)
        assert space.decode(space.encode(settings)) == settings
    assert space.decode({"a": 2, "b": 0.30000000000000004, "c": 2.0, "d": 0.1}) == {"a": 1, "b": 0.3, "c": 2, "d": 0.1}
    assert space.decode({"a": 1, "b": -0.0, "c": 4.0, "d": 0.1})["c"] == 3  # never outside
    assert space.encode({"a": 1, "b": 0.3, "c": 2, "d": 0.1})["a"] == 2  # True is another option


def test_grid(written: Callable[..., Path]) -> None:
    space = read_space(written("a choice [3, 1]\nb quniform 1,2,1\n"))
    assert list(space.grid()) == [{"a": 3, "b": 1}, {"a": 3, "b": 2}, {"a": 1, "b": 1}, {"a": 1, "b": 2}]
    assert space.size == 4
    endless = read_space(written("a choice [1]\nb uniform 0,1\n"))
    with pytest.raises(SettingError, match=r"those of b \(uniform 0,1, from '.*a\.hyper', line 2\) are without end"):
        next(endless.grid())


def test_includes(written: Callable[..., Path]) -> None:
    written("a choice [1, 2]\nb choice [3]\n", "base.hyper")
    path = written("include base.hyper\nb choice [4, 5]\nc choice [6]\n")
    assert read_space(path).texts == {"a": "choice [1,2]", "b": "choice [4,5]", "c": "choice [6]"}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("x", "this is no `name kind values`"),
        ("x choice", "this is no `name kind values`"),
        ("9x choice [1]", "this is no `name kind values`"),
        ("x normal 0,1", "there is no kind 'normal'"),
        ("x choice []", "with something in it"),
        ("x choice [1", None),
        ("x choice [a, b]", None),
        ("x choice 3", "needs a list"),
        ("x choice [1, 1]", "a value stands twice"),
        ("x choice [1e999]", None),
        ("x choice [{1, 2}]", None),
        ("x choice " + "[" * 5000, None),
        ("x uniform 1", "there must be 2 numbers"),
        ("x uniform 0,1,2", "there must be 2 numbers"),
        ("x uniform a,b", "could not convert"),
        ("x uniform 2,1", "2 must be below 1"),
        ("x uniform 0,inf", "finite"),
        ("x loguniform 0,800", None),
        ("x quniform 0,1", "there must be 3 numbers"),
        ("x quniform 0,1,0", "no multiple"),
        ("x quniform 1,2,5", "no multiple"),
        ("x quniform 0,1e300,1", "more than 1,000,000,000,000 multiples"),
        ("x quniform 0,1e308,1e-308", None),
        ("x uniform -1e308,1e308", "both finite"),
        ("x choice " + "9" * 5000, None),
        ("x choice [0x" + "f" * 5000 + "]", None),
        ("x choice " + str(list(range(2000))), "a choice has 2,000 values, more than 1,000"),
        ("x choice [__import__('os').system('touch canary')]", None),
        ("x uniform __import__('os').system('touch canary'),1", None),
    ],
)
def test_malformed_lines(
    line: str, fault: str | None, written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(f"# first\n{line}\n")
    with pytest.raises(SettingError) as caught:
        read_space(path)
    message = str(caught.value)
    shown = line if len(line) <= 200 else f"{line[:200]}..."
    assert message.startswith(f"'{path}', line 2: `{shown}`: ")
    assert fault is None or fault in message
    assert "expected a line such as `ssl_tau choice [0.1, 0.2]`" in message
    assert not Path("canary").exists()


def test_a_large_space_is_counted_and_not_made(written: Callable[..., Path]) -> None:
    space = read_space(written("x quniform 1,1000000000,1\ny quniform 0,1e10,0.1\nz choice [1, 2]\n"))
    assert space.size == 2 * 10**9 * (10**11 + 1)
    grid = space.grid()
    assert [next(grid) for _ in range(3)][1:] == [{"x": 1, "y": 0.0, "z": 2}, {"x": 1, "y": 0.1, "z": 1}]
    for algorithm in ("random", "exhaustive"):
        tried: list[Trial] = []
        for number in (1, 2, 3):
            parameters = Proposals(space, algorithm, seed=0).propose(number, tried)
            assert parameters is not None
            tried.append(Trial(number, parameters, 0.0, {}, 0.5))
        assert len({trial.key for trial in tried}) == 3
    with pytest.raises(SettingError, match=r"this space takes 200,000,000,002,000,000,000 trials, more than 100,000"):
        _budget(space, "exhaustive", None)


def test_what_was_chosen_is_known_of_a_space(written: Callable[..., Path]) -> None:
    space = read_space(written("a choice [1, [2]]\nb uniform 0,1\nc loguniform -2,0\nd quniform 1,9,2\n"))
    good = {"a": [2], "b": 0.5, "c": math.exp(-2), "d": 4}
    space.check_choice(good)
    for name, value in (("a", 2), ("a", 1.0), ("b", 1.5), ("b", "0.5"), ("b", True), ("c", 1.1), ("d", 3), ("d", 10)):
        with pytest.raises(ValueError, match=f"its {name} is .*, expected one of"):
            space.check_choice({**good, name: value})
    for other in ({"a": 1}, {**good, "e": 1}):
        with pytest.raises(ValueError, match="expected a, b, c, d"):
            space.check_choice(other)


def test_files_that_include_each_other_often(written: Callable[..., Path], tmp_path: Path) -> None:
    """Each of 20 includes the next one twice: read as often as it stands there, the last would be a million times."""
    for number in range(19):
        written(f"include {number + 1}.hyper\n" * 2, f"{number}.hyper")
    written("x choice [1]\n", "19.hyper")
    assert read_space(tmp_path / "0.hyper").size == 1
    for number in range(30):
        written(f"include {number + 1}.hyper\n", f"{number}.hyper")
    with pytest.raises(SettingError, match="is included through more than 20 files"):
        read_space(tmp_path / "0.hyper")


def test_spaces_are_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.hyper")
    for path, kind in ((tmp_path / "pipe.hyper", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(SettingError, match=f"cannot be read as a search space: it is {kind}, expected a regular"):
            read_space(path)


def test_files_that_cannot_be_read(written: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"There is no search space '.*nosuch\.hyper'\. --tune takes a \.hyper file"):
        read_space(tmp_path / "nosuch.hyper")
    with pytest.raises(SettingError, match=r"no search space '.*gone\.hyper', included from '.*a\.hyper'"):
        read_space(written("include gone.hyper\n"))
    with pytest.raises(SettingError, match=r"a\.hyper', line 1: '.*a\.hyper' includes itself"):
        read_space(written("include a.hyper\n"))
    written("include b.hyper\n", "c.hyper")
    with pytest.raises(SettingError, match="includes itself"):
        read_space(written("include c.hyper\n", "b.hyper"))
    with pytest.raises(SettingError, match=r"line 3: x stands in this file twice"):
        read_space(written("x choice [1]\ny choice [2]\nx choice [3]\n"))
    (tmp_path / "latin.hyper").write_bytes(b"x choice ['\xe9']\n")
    with pytest.raises(SettingError, match="cannot be read as a search space"):
        read_space(tmp_path / "latin.hyper")
    with pytest.raises(SettingError, match=r"nothing to search for LightGCN: '.*a\.hyper' sets nothing free"):
        find_space(str(written("# nothing\n")), get_model("LightGCN"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match=r"'.*empty' holds no LightGCN\.hyper and none of a base of the class"):
        find_space(str(tmp_path / "empty"), get_model("LightGCN"))


def checked(text: str, model: str, written: Callable[..., Path]) -> None:
    read_space(written(text)).check(RLMRecConfig(model, "no-such-dataset"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alignment_weight choice [0.1]", "LightGCN does not read the setting 'alignment_weight' (from "),
        ("n_layer choice [2]", "line 1). Did you mean 'n_layers'?"),
        ("n_layers quniform 0,3,1", "n_layers=0 (from "),
        ("n_layers quniform 1,3,0.5", "n_layers=1.0 (from "),
        ("n_layers choice [2, '3 layers']", "n_layers='3 layers' (from "),
        ("reg_weight uniform -1,0", "reg_weight=-1.0 (from "),
        ("edge_keep_rate loguniform -1,1", "edge_keep_rate=2.71828"),
        ("checkpoint_dir choice ['a', 'b']", "checkpoint_dir (from "),
        ("valid_metric choice ['Recall@20', 'NDCG@20']", "scores compare only where that is the same"),
        ("topk choice [[5], [20]]", "scores compare only where that is the same"),
    ],
)
def test_spaces_that_do_not_suit_the_model(text: str, message: str, written: Callable[..., Path]) -> None:
    with pytest.raises(SettingError) as caught:
        checked(f"{text}\n", "LightGCN", written)
    assert message in str(caught.value)


def test_spaces_that_suit_the_model(written: Callable[..., Path]) -> None:
    checked(
        "n_layers quniform 1,3,1\nlearning_rate loguniform -8,0\ntrain_batch_size choice [512]\n", "LightGCN", written
    )
    checked("mask_ratio uniform 0.05,1\n", "LightGCN_RLMRecGen", written)
    # A range of ours says nothing about a setting of RecBole's own model.
    checked("reg_weight choice [-1]\n", "NGCF", written)


def test_nothing_to_search_where_nothing_is_trained() -> None:
    model = type("Untrained", (ModelFlags,), {"nothing_to_train": True})
    with pytest.raises(SettingError, match="Untrained trains nothing"):
        find_space("auto", model)


@pytest.mark.parametrize("path", sorted(PROVIDED.glob("*.hyper")), ids=lambda path: path.stem)
def test_every_file_suits_its_class(path: Path) -> None:
    if path.stem in BASES:
        assert read_space(path).dimensions
        return
    config = RLMRecConfig(path.stem, "no-such-dataset")
    space = find_space(str(path), config.model_class)
    space.check(config)
    assert space.size is not None and space.size >= 8
    assert find_space("auto", config.model_class) == space


@pytest.mark.parametrize("name", TRAINED)
def test_every_class_has_a_space_of_settings_that_it_reads(name: str, tmp_path: Path) -> None:
    """Its own file, or what the files of its bases say."""
    space = find_space("auto", get_model(name))
    read = RLMRecConfig(name, "no-such-dataset", config_dict={"data_path": str(tmp_path)}).internal_config_dict
    assert space.dimensions and set(space.texts) <= set(read)


@pytest.mark.parametrize("name", [*TRAINED, "BPR_RLMRecCon", "BPR_RLMRecGen", "NGCF_RLMRecCon", "NeuMF_RLMRecGen"])
def test_aligned_models_search_their_base_s_space_and_the_alignment_s(name: str) -> None:
    """A comparison of base and aligned is fair only where what they share is searched alike."""
    backbone, _, alignment = name.partition("_")
    space = find_space("auto", get_model(name)).texts
    base = find_space("auto", get_model(backbone)).texts
    own = {
        "RLMRecCon": "ContrastiveAlignment",
        "RLMRecGen": "GenerativeAlignment",
        "ProMax": "ProMaxAlignment",
    }.get(alignment)
    assert space == {**base, **(read_space(PROVIDED / f"{own}.hyper").texts if own else {})}


def test_a_folder_of_the_user_s_own(written: Callable[..., Path], tmp_path: Path) -> None:
    """Composed along the bases where the class has no file; a class's own file stands alone."""
    written("n_layers choice [1, 2]\n", "LightGCN.hyper")
    written("alignment_weight choice [0.1]\n", "ContrastiveAlignment.hyper")
    model = get_model("LightGCN_RLMRecCon")
    assert set(find_space(str(tmp_path), model).dimensions) == {"n_layers", "alignment_weight"}
    written("reg_weight choice [0]\n", "LightGCN_RLMRecCon.hyper")
    assert set(find_space(str(tmp_path), model).dimensions) == {"reg_weight"}
