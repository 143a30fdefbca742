"""Tuned settings are the paper's: they are not applied to other data of such a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data import paper_data
from recbole_rlmrec.data.paper_data import PAPER_DATA, PaperData, other_than_the_papers
from recbole_rlmrec.data.split import pairs_sha256

ROWS = {"train": "u1\ti1\nu2\ti2\nu1\ti2\n", "valid": "u2\ti1\n", "test": "u3\ti3\n"}
HASH = pairs_sha256(["u1", "u2", "u1"], ["i1", "i2", "i2"])


def write(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir()
    for part, rows in ROWS.items():
        (folder / f"{name}.{part}.inter").write_text(f"user_id:token\titem_id:token\n{rows}")
    return folder


def test_the_papers_numbers() -> None:
    """rlmrec.md, section 3; the hashes are those of the released matrices, with and without the map of ids."""
    numbers = {name: (data.n_users, data.n_items, data.n_training) for name, data in PAPER_DATA.items()}
    assert numbers == {
        "amazon-book": (11_000, 9_332, 120_464),
        "yelp": (11_091, 11_010, 166_620),
        "steam": (23_310, 5_237, 316_190),
    }
    assert [len(data.train_sha256) for data in PAPER_DATA.values()] == [2, 0, 0]


@pytest.mark.parametrize(
    ("paper", "difference"),
    [
        (PaperData(3, 3, 3), None),
        (PaperData(3, 3, 3, ("other", HASH)), None),
        (PaperData(3, 3, 3, ("other",)), "the training interactions in"),
        (PaperData(4, 3, 3), "3 users, 3 items and 3 training interactions, the paper's 4 users"),
        (PaperData(3, 3, 4), "and 3 training interactions, the paper's 3 users, 3 items and 4 training"),
    ],
)
def test_data_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paper: PaperData, difference: str | None
) -> None:
    monkeypatch.setitem(paper_data.PAPER_DATA, "yelp", paper)
    config = RLMRecConfig("LightGCN", "yelp", config_dict={"data_path": str(write(tmp_path, "yelp").parent)})
    said = [message for _, message in config.notes if "properties/tuned/yelp/LightGCN.yaml" in message]
    assert len(said) == 1
    if difference is None:
        assert config["embedding_size"] == 32 and said[0].startswith("Tuned settings of LightGCN on yelp")
    else:
        assert config["embedding_size"] == 64 and config["defaults"] == "recommended"
        assert "is not applied: it was tuned for the paper's data, and " in said[0] and difference in said[0]
    # What the user says goes without a word.
    untuned = {"data_path": str(tmp_path), "tuned": False}
    assert RLMRecConfig("LightGCN", "yelp", config_dict=untuned).notes == []


def test_other_shapes_of_data(tmp_path: Path) -> None:
    assert other_than_the_papers(tmp_path / "yelp", "yelp") is None  # none are there
    assert other_than_the_papers(write(tmp_path, "shop"), "shop") is None
    (tmp_path / "steam").mkdir()
    (tmp_path / "steam/steam.inter").write_text("user_id:token\titem_id:token\nu\ti\n")
    assert "has not the paper's split" in str(other_than_the_papers(tmp_path / "steam", "steam"))
    (write(tmp_path, "yelp") / "yelp.test.inter").write_bytes(b"\xff\xfe\n")
    assert "cannot be read" in str(other_than_the_papers(tmp_path / "yelp", "yelp"))
