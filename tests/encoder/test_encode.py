"""Texts become files, block by block, and a stopped run gives the same bytes as one that was not."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
import pytest

from recbole_rlmrec.data.semantic_embedding import SIDES, SemanticEmbedding, check_metadata, read_metadata
from recbole_rlmrec.encoder import encode as module
from recbole_rlmrec.encoder.base import Encoder, TextRefusedError
from recbole_rlmrec.encoder.encode import EncodeSummary, encode_profiles, encode_texts, profiles_sha256
from recbole_rlmrec.errors import DataError, ServiceError
from recbole_rlmrec.profile.record import Profile, write_profiles

NAME = "books"
ROOT = Path(__file__).parents[2]
OUTPUTS = [f"{NAME}.{side}emb.{suffix}" for side in SIDES for suffix in ("npy", "tokens")] + [f"{NAME}.semantic.json"]


class Letters(Encoder):
    """Counts the letters a to e of a text; fails at the n-th block where asked to."""

    block_size = 3

    def __init__(self, name: str = "letters", fails_at: int = 0, scale: float = 1.0) -> None:
        self.name = name
        self.fails_at, self.scale = fails_at, scale
        self.blocks: list[list[str]] = []
        self.fitted: list[str] = []

    def fit(self, texts: Sequence[str]) -> None:
        self.fitted = list(texts)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.blocks.append(list(texts))
        if len(self.blocks) == self.fails_at:
            raise ServiceError("the server is gone")
        return self.scale * np.array([[text.count(letter) for letter in "abcde"] for text in texts], dtype=np.float32)

    def notes(self) -> tuple[str, ...]:
        return ("letters were counted",)


def profile(token: str, text: str, split: str = "s" * 64, writer: str = "template") -> Profile:
    return Profile(token, text, "", writer, "p" * 64, split)


USERS = [profile(f"u{number}", "abcde"[number % 5] * (number + 1) + "a") for number in range(8)]
ITEMS = [profile(f"i{number}", "ae" + "bcd"[number % 3] * number) for number in range(5)]


def folder_of(path: Path, users: Sequence[Profile] = USERS, items: Sequence[Profile] = ITEMS) -> Path:
    path.mkdir(exist_ok=True)
    write_profiles(path / f"{NAME}.userprf.jsonl", users)
    write_profiles(path / f"{NAME}.itemprf.jsonl", items)
    return path


def encoded(folder: Path, encoder: Encoder, **options: Any) -> EncodeSummary:
    return encode_profiles(folder, NAME, encoder, progress=False, **options)


def output_bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "data")


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """What a run without an interruption writes."""
    other = folder_of(tmp_path / "whole")
    encoded(other, Letters())
    return output_bytes(other)


# ---------------------------------------------------------------------- what is written


def test_vectors_tokens_and_description_are_written(tmp_path: Path) -> None:
    users = [profile("u9", "old"), profile("u1", "aab"), profile("u9", "ddd"), profile("x y", "é e", writer="llm:m")]
    folder = folder_of(tmp_path, users, [profile("7", "c"), profile("3", "ab")])
    summary = encoded(folder, Letters())
    user = SemanticEmbedding.load([folder], NAME, "user")
    item = SemanticEmbedding.load([folder], NAME, "item")
    assert user.tokens.tolist() == ["u9", "u1", "x y"] and item.tokens.tolist() == ["7", "3"]
    root = np.sqrt(np.array([0.8, 0.2, 0.5]))
    np.testing.assert_allclose(user.vectors, [[0, 0, 0, 1, 0], [root[0], root[1], 0, 0, 0], [0, 0, 0, 0, 1]], rtol=1e-7)
    np.testing.assert_allclose(item.vectors, [[0, 0, 1, 0, 0], [root[2], root[2], 0, 0, 0]], rtol=1e-7)
    metadata = read_metadata([folder], NAME)
    assert metadata == {
        "encoder": "letters",
        "dimension": 5,
        "normalized": True,
        "writer": "llm:m, template",
        "profiles_sha256": profiles_sha256([users[2], users[1], users[3]], [profile("7", "c"), profile("3", "ab")]),
        "train_sha256": "s" * 64,
    }
    check_metadata(metadata, user, "metadata")
    assert (summary.rows, summary.dimension, summary.encoded, summary.resumed) == ({"user": 3, "item": 2}, 5, 5, 0)
    assert "3 users and 2 items, dimension 5, float32, normalized, by letters" in str(summary)
    assert "letters were counted" in str(summary)
    assert leftovers(folder) == []


@pytest.mark.parametrize("float16", [False, True])
def test_bytes_are_those_of_save(folder: Path, tmp_path: Path, float16: bool) -> None:
    encoder = Letters()
    encoded(folder, encoder, float16=float16, normalize=False)
    assert [len(block) for block in encoder.blocks] == [3, 3, 2, 3, 2]
    assert encoder.fitted == [each.profile for each in USERS + ITEMS]
    dtype = np.float16 if float16 else np.float32
    for side, profiles in (("user", USERS), ("item", ITEMS)):
        table = Letters().encode([each.profile for each in profiles]).astype(dtype)
        SemanticEmbedding.from_arrays([each.token for each in profiles], table).save(tmp_path / "saved", NAME, side)
        for suffix in ("npy", "tokens"):
            name = f"{NAME}.{side}emb.{suffix}"
            assert (folder / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()


def test_normalized_float16_is_rounded_once(folder: Path) -> None:
    encoded(folder, Letters(), float16=True)
    vectors = SemanticEmbedding.load([folder], NAME, "user").vectors
    exact = Letters().encode([each.profile for each in USERS]).astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_array_equal(vectors, exact.astype(np.float32).astype(np.float16))


def test_hash_of_profiles_is_that_of_their_files(folder: Path) -> None:
    told = [*USERS, Profile("é", "text", "why", "llm:m", "p", "s", ("i1", "i2"))]
    folder_of(folder, told)
    files = b"".join((folder / f"{NAME}.{side}prf.jsonl").read_bytes() for side in SIDES)
    assert profiles_sha256(told, ITEMS) == hashlib.sha256(files).hexdigest()


def test_hash_of_the_shipped_profiles(tmp_path: Path) -> None:
    shipped = ROOT / "dataset" / "ml-100k"
    spec = importlib.util.spec_from_file_location("ml100k_make_for_hash", shipped / "make.py")
    assert spec is not None and spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, make)
        spec.loader.exec_module(make)
    data = make.load_movielens()
    records = make.make_profiles(data, make.make_split(data.ratings["user_id"], data.ratings["item_id"]))
    users, items = ([Profile(**record) for record in records[side]] for side in SIDES)
    metadata = json.loads((shipped / "ml-100k.semantic.json").read_text())
    assert profiles_sha256(users, items) == metadata["profiles_sha256"]


def test_any_texts_can_be_encoded(tmp_path: Path) -> None:
    texts = {"user": {"1": "ab"}, "item": {"9": "c"}}
    encode_texts(tmp_path / "new", NAME, texts, Letters(), origin={"writer": "somebody"}, progress=False)
    metadata = json.loads((tmp_path / "new" / f"{NAME}.semantic.json").read_text())
    lines = b'{"token": "1", "profile": "ab"}\n{"token": "9", "profile": "c"}\n'
    assert metadata["profiles_sha256"] == hashlib.sha256(lines).hexdigest()
    assert metadata["writer"] == "somebody" and "train_sha256" not in metadata


def test_profiles_without_a_split_leave_it_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [profile("u", "a", split="")], [profile("i", "a", split="")])
    encoded(folder, Letters())
    assert "train_sha256" not in (read_metadata([folder], NAME) or {})


# ---------------------------------------------------------------------- holes


def test_empty_profiles_and_zero_vectors_are_holes(tmp_path: Path) -> None:
    users = [profile("u0", "a"), profile("u1", " \n"), profile("u2", "zzz"), profile("u3", "b"), profile("u4", "xyz")]
    folder = folder_of(tmp_path, users, [profile("i0", ""), profile("i1", "c")])
    encoder = Letters()
    summary = encoded(folder, encoder)
    assert encoder.blocks == [["a", "zzz", "b"], ["xyz"], ["c"]]
    assert SemanticEmbedding.load([folder], NAME, "user").tokens.tolist() == ["u0", "u3"]
    assert SemanticEmbedding.load([folder], NAME, "item").tokens.tolist() == ["i1"]
    assert summary.empty == {"user": ("u1",), "item": ("i0",)} and summary.zero == {"user": ("u2", "u4"), "item": ()}
    assert summary.rows == {"user": 2, "item": 1}
    assert "holes: 1 users with an empty profile, such as 'u1'" in str(summary)
    assert "holes: 2 users with a vector of zeros only, such as 'u2', 'u4'" in str(summary)
    again = encoded(folder, Letters())
    assert again.up_to_date and (again.empty, again.zero, again.rows) == (summary.empty, summary.zero, summary.rows)


# ---------------------------------------------------------------------- stopping and going on


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4, 5])
def test_stopped_run_goes_on_with_the_next_block(folder: Path, whole: dict[str, bytes], fails_at: int) -> None:
    with pytest.raises(ServiceError, match="the server is gone"):
        encoded(folder, Letters(fails_at=fails_at))
    assert not any((folder / name).exists() for name in OUTPUTS)
    # A block that was being written when the process ended is cut off again.
    with (folder / f".{NAME}.useremb.part.npy").open("ab") as part:
        part.write(b"torn")
    encoder = Letters()
    summary = encoded(folder, encoder)
    done = [0, 3, 6, 8, 11][fails_at - 1]
    assert (summary.resumed, summary.encoded) == (done, 13 - done)
    assert [text for block in encoder.blocks for text in block] == [each.profile for each in USERS + ITEMS][done:]
    assert output_bytes(folder) == whole
    assert leftovers(folder) == []


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_encode import NAME, Letters, encode_profiles

class Killed(Letters):
    def encode(self, texts):
        if len(self.blocks) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(texts)

replace, names = os.replace, []
def killed_replace(source, target):
    names.append(str(target))
    if sum(name.endswith((".npy", ".tokens")) for name in names) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

if sys.argv[3] == "renaming":
    os.replace = killed_replace
encode_profiles(Path(sys.argv[2]), NAME, {"encoding": Killed, "renaming": Letters}[sys.argv[3]](), progress=False)
"""


@pytest.mark.parametrize(("moment", "done"), [("encoding", 8), ("renaming", 13)])
def test_killed_process_goes_on(folder: Path, whole: dict[str, bytes], moment: str, done: int) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(folder), moment]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert not (folder / f"{NAME}.semantic.json").exists()
    assert (folder / f"{NAME}.useremb.npy").exists() == (moment == "renaming")
    encoder = Letters()
    summary = encoded(folder, encoder)  # half replaced files are its own: no leave needed to go on
    assert sum(map(len, encoder.blocks)) == 13 - done
    assert bool(encoder.fitted) == (done < 13)
    assert sum(summary.rows.values()) == 13
    assert output_bytes(folder) == whole
    assert leftovers(folder) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (Letters("other"), {}),
        lambda folder: (Letters(), {"float16": True}),
        lambda folder: (Letters(), {"normalize": False}),
        lambda folder: (folder_of(folder, [profile("u0", "changed"), *USERS[1:]]) and Letters(), {}),
        lambda folder: ((folder / f".{NAME}.itememb.part.npy").unlink() or Letters(), {}),
        lambda folder: ((folder / f".{NAME}.encode.json").write_text('{"job": 1, "more": 2}') and Letters(), {}),
    ],
)
def test_another_job_starts_afresh(folder: Path, tmp_path: Path, change: Callable, caplog: Any) -> None:
    with pytest.raises(ServiceError):
        encoded(folder, Letters(fails_at=5))
    encoder, options = change(folder)
    assert encoded(folder, encoder, **options).resumed == 0
    assert "starts from the first text" in caplog.text
    clean = tmp_path / "clean"
    clean.mkdir()
    for side in SIDES:
        (clean / f"{NAME}.{side}prf.jsonl").write_bytes((folder / f"{NAME}.{side}prf.jsonl").read_bytes())
    encoded(clean, Letters(encoder.name), **options)
    assert output_bytes(folder) == output_bytes(clean)


def test_two_processes_do_not_share_a_table(folder: Path, whole: dict[str, bytes]) -> None:
    pytest.importorskip("fcntl")

    class Nested(Letters):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            with pytest.raises(DataError, match="Another process encodes books"):
                encoded(folder, Letters())
            return super().encode(texts)

    encoded(folder, Nested())
    assert output_bytes(folder) == whole


# ---------------------------------------------------------------------- what is there already


def test_up_to_date_files_stay(folder: Path) -> None:
    encoded(folder, Letters())
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    encoder = Letters()
    summary = encoded(folder, encoder, overwrite=True)
    assert summary.up_to_date and "nothing was done" in str(summary)
    assert encoder.blocks == [] and {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encoder": Letters("other")}, "encoder: 'letters', would be 'other'"),
        ({"float16": True}, "type of the user embeddings: 'float32', would be 'float16'"),
        ({"normalize": False}, "normalized: True, would be False"),
    ],
)
def test_other_embeddings_are_kept(folder: Path, options: dict[str, Any], said: str) -> None:
    encoded(folder, Letters())
    kept = output_bytes(folder)
    wanted = {"encoder": Letters(), **options}
    with pytest.raises(DataError, match=said) as caught:
        encoded(folder, **wanted)
    assert "encode with overwrite" in str(caught.value)
    assert output_bytes(folder) == kept
    assert not encoded(folder, **wanted, overwrite=True).up_to_date
    assert encoded(folder, **wanted).up_to_date


def test_embeddings_of_other_profiles_are_kept(folder: Path) -> None:
    encoded(folder, Letters())
    folder_of(folder, [profile("u", "b", split="t" * 64)], [profile("i", "c", split="t" * 64)])
    with pytest.raises(DataError, match=r"(?s)profiles_sha256: '\w{12}\.\.\.', would be.*train_sha256: 's{12}"):
        encoded(folder, Letters())


def test_embeddings_of_unknown_origin_are_kept(folder: Path) -> None:
    encoded(folder, Letters())
    (folder / f"{NAME}.semantic.json").unlink()
    with pytest.raises(DataError, match=r"no books.semantic.json"):
        encoded(folder, Letters())
    (folder / f"{NAME}.useremb.npy").unlink()
    with pytest.raises(DataError, match=r"useremb.tokens but not books.useremb.npy"):
        encoded(folder, Letters())
    for side in SIDES:
        for suffix in (".npy", ".tokens"):
            (folder / f"{NAME}.{side}emb{suffix}").unlink(missing_ok=True)
    (folder / f"{NAME}.useremb").write_text("uid:token\tuser_emb:float_seq\nu0\t1 2\n")
    with pytest.raises(DataError, match=r"already holds embeddings of books \(books.useremb\)"):
        encoded(folder, Letters())


# ---------------------------------------------------------------------- what is wrong with the input


def test_profiles_of_several_splits_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [profile("u", "a"), profile("v", "a", split="t" * 64)], ITEMS)
    with pytest.raises(DataError, match="2 different training splits") as caught:
        encoded(folder, Letters())
    assert "'ssssssssssss...': 1 users, 5 items; 'tttttttttttt...': 1 users, 0 items" in str(caught.value)
    # A line that a later one supersedes does not count.
    folder_of(tmp_path, [profile("v", "a", split="t" * 64), profile("u", "a"), profile("v", "a")], ITEMS)
    assert encoded(folder, Letters()).rows == {"user": 2, "item": 5}


def test_both_sides_are_needed(folder: Path) -> None:
    (folder / f"{NAME}.itemprf.jsonl").unlink()
    with pytest.raises(DataError, match=r"does not hold books.itemprf.jsonl"):
        encoded(folder, Letters())
    folder_of(folder, items=[profile("i", " ")])
    with pytest.raises(DataError, match="None of the 1 items has a text"):
        encoded(folder, Letters())
    folder_of(folder, items=[profile("i", "zz")])
    with pytest.raises(DataError, match="vectors of all 1 items are zero"):
        encoded(folder, Letters())


@pytest.mark.parametrize(
    ("token", "text", "said"), [("a\nb", "a", "line break"), ("", "a", "is empty"), ("a", "\ud800", "no valid Unicode")]
)
def test_tokens_and_texts_are_checked_before_anything_is_encoded(
    folder: Path, token: str, text: str, said: str
) -> None:
    folder_of(folder, items=[*ITEMS, profile(token, text)])
    encoder = Letters()
    with pytest.raises(DataError, match=said):
        encoded(folder, encoder)
    assert encoder.blocks == []


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.full((3, 2), np.nan), "user 'u0' by odd holds a value that is not finite"),
        (np.zeros((2, 2)), r"shape \(2, 2\) for 3 user texts; expected \(3, 2\)"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.zeros((3, 0)), r"shape \(3, 0\)"),
    ],
)
def test_unusable_vectors_are_refused(folder: Path, vectors: np.ndarray, said: str) -> None:
    class Odd(Letters):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return vectors

    with pytest.raises((DataError, ServiceError), match=said):
        encoded(folder, Odd("odd"))


def test_vectors_keep_their_length(folder: Path) -> None:
    class Growing(Letters):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.ones((len(texts), 2 if "a" in texts[0][:1] else 3), dtype=np.float32)

    with pytest.raises(ServiceError, match=r"shape \(3, 3\) for 3 user texts; expected \(3, 2\)"):
        encoded(folder, Growing())


def test_float16_overflow_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"user 'u0' by letters is too large for float16 \(65504\)"):
        encoded(folder, Letters(scale=40_000), float16=True, normalize=False)
    encoded(folder, Letters(scale=40_000), float16=True)  # of length 1 it is not


def test_refused_text_is_named(folder: Path) -> None:
    class Strict(Letters):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            if USERS[4].profile in texts:
                raise TextRefusedError(list(texts).index(USERS[4].profile), "It is too long.")
            return super().encode(texts)

    with pytest.raises(ServiceError, match=r"profile of the user 'u4' \(6 characters\) cannot be encoded. It is too"):
        encoded(folder, Strict())
    assert encoded(folder, Letters()).resumed == 3


# ---------------------------------------------------------------------- a full disk


def test_full_disk_loses_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    texts = {side: {f"{side[0]}{number}": "abc" for number in range(40)} for side in SIDES}

    class Wide(Letters):
        block_size = 10

        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return super().encode(texts).repeat(100, axis=1)  # 20,000 bytes a block

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"(?s)cannot be written in .*20 texts encoded before are kept"):
            encode_texts(tmp_path, NAME, texts, Wide(), progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    summary = encode_texts(tmp_path, NAME, texts, Wide(), progress=False)
    assert (summary.resumed, summary.encoded) == (20, 60)
    vectors = SemanticEmbedding.load([tmp_path], NAME, "item").vectors
    np.testing.assert_allclose(vectors, Wide().encode(["abc"] * 40) / np.sqrt(300), rtol=1e-6)


def test_room_is_checked_before_the_rest_is_paid_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    needed = 10 * 5 * 4  # ten of thirteen texts are to come after the first block
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(needed - 1))
    encoder = Letters()
    with pytest.raises(DataError, match="Make room"):
        encoded(folder, encoder)
    assert len(encoder.blocks) == 1
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(needed))
    assert encoded(folder, Letters()).resumed == 3


def test_importing_needs_none_of_the_encoders_packages() -> None:
    names = ["base", "encode", "lsa", "openai_encoder", "sentence_transformer"]
    script = (
        "import sys\n"
        + "".join(f"import recbole_rlmrec.encoder.{name}\n" for name in names)
        + "print({'torch', 'sklearn', 'sentence_transformers', 'openai', 'recbole'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "set()"
