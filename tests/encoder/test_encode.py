"""Texts become files, block by block, and a stopped run gives the same bytes as one that was not."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed import killed_at_rename

from recbole_rlmrec.data.embedding_files import read_metadata
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding, check_metadata
from recbole_rlmrec.encoder import job as module
from recbole_rlmrec.encoder.base import Encoder, TextRefusedError
from recbole_rlmrec.encoder.encode import encode_texts
from recbole_rlmrec.encoder.summary import EncodeSummary
from recbole_rlmrec.errors import DataError, ServiceError
from recbole_rlmrec.profile.encode_profiles import encode_profiles, profiles_sha256
from recbole_rlmrec.profile.record import Profile, write_profiles
from recbole_rlmrec.sides import SIDES, Side

NAME = "books"
ROOT = Path(__file__).parents[2]
OUTPUTS = [f"{NAME}.{side}emb.{suffix}" for side in SIDES for suffix in ("npy", "tokens")] + [f"{NAME}.semantic.json"]
RECORDS = [f".{NAME}.{side}emb.texts" for side in ("item", "user")]


class Letters(Encoder):
    """Counts the letters a to e of a text; fails at the n-th block where asked to."""

    learns_from_texts = True
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


class Alone(Letters):
    """Learns nothing, so that each vector is that of its own text alone."""

    learns_from_texts = False

    @property
    def asked(self) -> list[str]:
        """All texts that it was given."""
        return [text for block in self.blocks for text in block]


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


def test_what_an_encoder_was_tuned_on_is_recorded(tmp_path: Path) -> None:
    class Tuned(Alone):
        train_sha256 = "t" * 64

    folder = folder_of(tmp_path)
    described = []
    for encoder in (Alone(), Tuned()):
        encoded(folder, encoder, overwrite=True)
        described.append(json.loads((folder / f"{NAME}.semantic.json").read_text()))
    assert described[1] == {**described[0], "encoder_train_sha256": "t" * 64} != described[0]
    assert described[1]["train_sha256"] == "s" * 64  # of the profiles


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
    assert leftovers(folder) == RECORDS


@pytest.mark.parametrize("float16", [False, True])
def test_bytes_are_those_of_save(folder: Path, tmp_path: Path, float16: bool) -> None:
    encoder = Letters()
    encoded(folder, encoder, float16=float16, normalize=False)
    assert [len(block) for block in encoder.blocks] == [3, 3, 2, 3, 2]
    assert encoder.fitted == [each.profile for each in USERS + ITEMS]
    dtype = np.float16 if float16 else np.float32
    both: dict[Side, list[Profile]] = {"user": USERS, "item": ITEMS}
    for side, profiles in both.items():
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
    profiles = [*USERS, Profile("é", "text", "why", "llm:m", "p", "s", ("i1", "i2"))]
    folder_of(folder, profiles)
    files = b"".join((folder / f"{NAME}.{side}prf.jsonl").read_bytes() for side in SIDES)
    assert profiles_sha256(profiles, ITEMS) == hashlib.sha256(files).hexdigest()


def test_any_texts_can_be_encoded(tmp_path: Path) -> None:
    texts: dict[Side, dict[str, str]] = {"user": {"1": "ab"}, "item": {"9": "c"}}
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
    assert leftovers(folder) == RECORDS


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
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
    assert leftovers(folder) == RECORDS


def test_half_replaced_tables_are_not_read(folder: Path, whole: dict[str, bytes]) -> None:
    # Before the marker, the progress file takes its name at each of five blocks and when both sides are whole.
    killed_at_rename(10, lambda: encoded(folder, Letters()))
    for side in SIDES:
        with pytest.raises(DataError, match=f"Run the same `recbole-rlmrec build-semantics --dataset {NAME}"):
            SemanticEmbedding.load([folder], NAME, side)
    encoded(folder, Letters())
    assert output_bytes(folder) == whole


def test_tables_that_somebody_else_replaced_meanwhile_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    """The rest of a stopped job would stand beside another's: it is encoded again."""
    killed_at_rename(10, lambda: encoded(folder, Letters()))
    assert (folder / f"{NAME}.useremb.npy").exists() and not (folder / f"{NAME}.itememb.npy").exists()
    with pytest.raises(DataError, match="stopped in between"):
        SemanticEmbedding.from_arrays(["u0"], [[1.0]]).save(folder, NAME, "user")
    (folder / f".{NAME}.build-semantics.unfinished.json").unlink()  # as the message says
    for side in SIDES:
        SemanticEmbedding.from_arrays([f"{side[0]}0"], [[1.0]]).save(folder, NAME, side)
    with pytest.raises(DataError, match="They may have been shipped or paid for, so they are kept"):
        encoded(folder, Letters())
    encoded(folder, Letters(), overwrite=True)
    assert SemanticEmbedding.load([folder], NAME, "user").dimension == 5


@pytest.mark.parametrize("name", ["itememb.part.npy", "useremb.part.tokens", "useremb.part.texts", "encode.lock"])
def test_a_link_that_is_named_like_a_part_is_not_written_through(folder: Path, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (folder / f".{NAME}.{name}").symlink_to(mine)
    with pytest.raises(DataError, match=rf"{name}' is a link, or no file: remove it"):
        encoded(folder, Letters())
    assert mine.read_text() == "mine"


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


def test_no_other_process_comes_between_encoding_and_renaming(
    folder: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fcntl")
    replace_files, refused = module.Job.replace_files, []

    def replaced(job: Any, state: Any) -> None:
        other = {side: {f"{side}{number}": "cde" for number in range(20)} for side in SIDES}
        with pytest.raises(DataError, match="Another process encodes books") as error:
            encode_texts(folder, NAME, other, Letters(fails_at=2), progress=False)
        refused.append(error)
        replace_files(job, state)

    monkeypatch.setattr(module.Job, "replace_files", replaced)
    encoded(folder, Letters())
    assert len(refused) == 1
    assert output_bytes(folder) == whole
    assert leftovers(folder) == RECORDS


def test_lock_file_that_stayed_does_no_harm_and_one_that_is_held_stays(folder: Path, whole: dict[str, bytes]) -> None:
    fcntl = pytest.importorskip("fcntl")
    lock_path = folder / f".{NAME}.encode.lock"
    with lock_path.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="Another process encodes books"):
            encoded(folder, Letters())
        assert lock_path.exists()
    encoded(folder, Letters())
    assert output_bytes(folder) == whole
    assert leftovers(folder) == RECORDS


def test_lock_on_a_file_that_was_removed_counts_for_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl")
    lock_path, try_lock, calls = folder / f".{NAME}.encode.lock", module.try_lock, []

    def late(descriptor: int) -> bool:
        calls.append(descriptor)
        if len(calls) == 1:  # its holder removes it after it was opened here
            lock_path.unlink()
        if len(calls) == 2:  # and once more, another process being quick to make it again
            lock_path.unlink()
            lock_path.touch()
        return bool(try_lock(descriptor))

    class Nested(Letters):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            with pytest.raises(DataError, match="Another process"):
                encoded(folder, Letters())
            return super().encode(texts)

    monkeypatch.setattr(module, "try_lock", late)
    encoder = Nested()
    encoded(folder, encoder)
    assert len(calls) == 3 + len(encoder.blocks)


def test_embeddings_in_a_folder_without_leave_to_write_are_up_to_date(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded(folder, Letters())
    opened = os.open

    def refuse(path: str, flags: int, *rest: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(module.os, "access", lambda path, mode: False)
    assert encoded(folder, Letters()).up_to_date
    with pytest.raises(DataError, match="Permission denied"):
        encoded(folder, Letters("other"), overwrite=True)
    monkeypatch.setattr(module.os, "access", lambda path, mode: True)  # as where the disk is full
    with pytest.raises(DataError, match="Permission denied"):
        encoded(folder, Letters())


# ---------------------------------------------------------------------- taking over what is unchanged

MOVED = "t" * 64


def moved(profiles: Sequence[Profile], **texts: str) -> list[Profile]:
    """The same profiles after another split, some of them with other texts."""
    return [profile(each.token, texts.get(each.token, each.profile), split=MOVED) for each in profiles]


@pytest.mark.parametrize("float16", [False, True])
def test_record_holds_a_hash_of_each_row(folder: Path, float16: bool) -> None:
    encoded(folder, Alone(), float16=float16)
    assert leftovers(folder) == RECORDS
    table = SemanticEmbedding.load([folder], NAME, "item").vectors
    made = f'{{"encoder": "letters", "normalized": true, "dtype": "{"float16" if float16 else "float32"}", "text": '
    exact = b"".join(
        hashlib.blake2b(f'{made}"{each.profile}"}}\n'.encode() + row.tobytes(), digest_size=8).digest()
        for each, row in zip(ITEMS, table)
    )
    assert (folder / RECORDS[0]).read_bytes() == exact


def test_another_split_alone_rewrites_the_description_only(folder: Path) -> None:
    encoded(folder, Alone())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*emb*")}
    folder_of(folder, moved(USERS), moved(ITEMS))
    encoder = Alone()
    summary = encoded(folder, encoder)  # nothing that was paid for is lost: no leave needed
    assert encoder.blocks == []
    assert (summary.taken, summary.encoded, summary.rows) == (13, 0, {"user": 8, "item": 5})
    assert "13 are unchanged and keep their vectors" in str(summary)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*emb*")} == before
    metadata = read_metadata([folder], NAME)
    assert metadata is not None and metadata["train_sha256"] == MOVED and metadata["dimension"] == 5
    assert metadata["profiles_sha256"] == profiles_sha256(moved(USERS), moved(ITEMS))
    assert encoded(folder, Alone()).up_to_date


def test_only_changed_texts_are_encoded(folder: Path, tmp_path: Path) -> None:
    encoded(folder, Alone())
    kept = output_bytes(folder)
    changes = {"u2": "ddd", "u7": "bbe", "i1": "abc"}
    # In another order, so that rows go to other places; and with one more.
    users, items = moved(USERS[::-1], **changes), [*moved(ITEMS, **changes), profile("i9", "edd", split=MOVED)]
    folder_of(folder, users, items)
    with pytest.raises(DataError, match="overwrite, which takes over the 10 vectors whose texts are unchanged"):
        encoded(folder, Alone())
    assert output_bytes(folder) == kept
    encoder = Alone()
    summary = encoded(folder, encoder, overwrite=True)
    assert encoder.asked == ["bbe", "ddd", "abc", "edd"]
    assert (summary.taken, summary.encoded) == (10, 4)
    clean = folder_of(tmp_path / "clean", users, items)
    encoded(clean, Alone())
    assert output_bytes(folder) == output_bytes(clean)
    assert [(folder / name).read_bytes() for name in RECORDS] == [(clean / name).read_bytes() for name in RECORDS]
    assert leftovers(folder) == RECORDS


def test_more_texts_need_no_leave_and_fewer_do(folder: Path) -> None:
    encoded(folder, Alone())
    more = [profile("u8", "ec"), *USERS, profile("u9", "zz")]
    folder_of(folder, more)
    encoder = Alone()
    summary = encoded(folder, encoder)
    assert (encoder.asked, summary.taken, summary.zero["user"]) == (["ec", "zz"], 13, ("u9",))
    folder_of(folder, moved(more), moved(ITEMS))
    encoder = Alone()
    assert encoded(folder, encoder).zero["user"] == ("u9",)
    assert encoder.asked == ["zz"]  # a hole has no row to be taken over
    folder_of(folder, USERS[:7])
    with pytest.raises(DataError, match="takes over the 12 vectors"):
        encoded(folder, Alone())


@pytest.mark.parametrize("fails_at", [1, 2])
def test_stopped_run_that_takes_over_goes_on(folder: Path, tmp_path: Path, fails_at: int) -> None:
    encoded(folder, Alone())
    users = moved(USERS, u1="e", u3="d", u4="c", u6="b")
    folder_of(folder, users, moved(ITEMS))
    with pytest.raises(ServiceError):
        encoded(folder, Alone(fails_at=fails_at), overwrite=True)
    encoder = Alone()
    summary = encoded(folder, encoder, overwrite=True)
    assert encoder.asked == [["e", "d", "c", "b"], ["b"]][fails_at - 1]
    assert summary.resumed + summary.taken + summary.encoded == 13
    clean = folder_of(tmp_path / "clean", users, moved(ITEMS))
    encoded(clean, Alone())
    assert output_bytes(folder) == output_bytes(clean)


class Points(Alone):
    """A vector of sines for each number; of zeros for multiples of 7."""

    block_size = 400

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        super().encode(texts)
        numbers = np.array([int(text) for text in texts])[:, None]
        return np.sin(np.arange(1, 6) * numbers) * (numbers % 7 > 0)


@pytest.mark.parametrize("float16", [False, True])
def test_rows_of_an_unfinished_table_are_taken_as_they_are(tmp_path: Path, float16: bool) -> None:
    """None is rounded once more, and what is left out for its zeros moves no other row."""
    numbers = range(1, 801)
    texts: dict[Side, dict[str, str]] = {"user": {f"u{number}": str(number) for number in numbers}, "item": {"i": "1"}}
    options: dict[str, Any] = {"float16": float16, "progress": False}
    with pytest.raises(ServiceError):
        encode_texts(tmp_path / "a", NAME, texts, Points(fails_at=2), **options)
    texts["user"]["u1"] = "10000"
    encoder = Points()
    summary = encode_texts(tmp_path / "a", NAME, texts, encoder, **options)
    assert (summary.taken, encoder.asked) == (400, ["10000", *map(str, range(401, 801))])  # the item is a user's text
    encode_texts(tmp_path / "b", NAME, texts, Points(), **options)
    assert output_bytes(tmp_path / "a") == output_bytes(tmp_path / "b")
    assert leftovers(tmp_path / "a") == RECORDS


@pytest.mark.parametrize("rename", [1, 2, 3])  # of either side's keys, and of how far the new job is
def test_a_kill_at_the_start_of_another_job_loses_no_vector(folder: Path, tmp_path: Path, rename: int) -> None:
    with pytest.raises(ServiceError):
        encoded(folder, Alone(fails_at=5))
    users = moved(USERS, u0="e")
    folder_of(folder, users, moved(ITEMS))
    killed_at_rename(rename, lambda: encoded(folder, Alone()))
    encoder = Alone()
    encoded(folder, encoder)
    assert encoder.asked == ["e", *(each.profile for each in ITEMS[3:])]
    clean = folder_of(tmp_path / "clean", users, moved(ITEMS))
    encoded(clean, Alone())
    assert output_bytes(folder) == output_bytes(clean)


def other_row(folder: Path) -> int:
    path = folder / f"{NAME}.useremb.npy"
    vectors = np.load(path)
    vectors[2] = vectors[2][::-1]
    np.save(path, vectors)
    return 1


def other_tokens(folder: Path) -> int:
    path = folder / f"{NAME}.useremb.tokens"
    path.write_text(path.read_text().replace("u1\nu2", "u2\nu1"))
    return 2


def short_record(folder: Path) -> int:
    path = folder / f".{NAME}.useremb.texts"
    path.write_bytes(path.read_bytes()[:-1])
    return 8


def no_record(folder: Path) -> int:
    (folder / f".{NAME}.useremb.texts").unlink()
    return 8


@pytest.mark.parametrize("change", [other_row, other_tokens, short_record, no_record])
def test_rows_that_the_record_does_not_fit_are_encoded_again(
    folder: Path, tmp_path: Path, change: Callable[[Path], int]
) -> None:
    encoded(folder, Alone())
    folder_of(folder, moved(USERS), moved(ITEMS))
    n_lost = change(folder)
    with pytest.raises(DataError, match=f"takes over the {13 - n_lost} vectors"):
        encoded(folder, Alone())
    encoder = Alone()
    assert encoded(folder, encoder, overwrite=True).taken == 13 - n_lost
    assert len(encoder.asked) == n_lost
    clean = folder_of(tmp_path / "clean", moved(USERS), moved(ITEMS))
    encoded(clean, Alone())
    assert output_bytes(folder) == output_bytes(clean)


@pytest.mark.parametrize(
    ("name", "options"), [("other", {}), ("letters", {"float16": True}), ("letters", {"normalize": False})]
)
def test_vectors_made_otherwise_are_not_taken_over(folder: Path, name: str, options: dict[str, Any]) -> None:
    encoded(folder, Alone())
    with pytest.raises(DataError, match=r"or encode with --overwrite\.$"):
        encoded(folder, Alone(name), **options)
    encoder = Alone(name)
    assert encoded(folder, encoder, **options, overwrite=True).taken == 0
    assert len(encoder.asked) == 13


def test_encoder_that_learns_from_all_texts_takes_nothing_over(folder: Path) -> None:
    encoded(folder, Alone())
    folder_of(folder, moved(USERS), moved(ITEMS))
    with pytest.raises(DataError, match=r"or encode with --overwrite\.$"):
        encoded(folder, Letters())
    (folder / f".{NAME}.itememb.part.texts").touch()  # as a killed run leaves it
    encoder = Letters()
    assert encoded(folder, encoder, overwrite=True).taken == 0
    assert sum(map(len, encoder.blocks)) == len(encoder.fitted) == 13
    assert leftovers(folder) == RECORDS


def test_digests_of_tables_that_a_version_before_wrote_are_completed(folder: Path) -> None:
    """Where everything is as it would be written, so are the digests, and nothing else."""
    encoded(folder, Letters())
    digests = {name: (folder / name).read_bytes() for name in RECORDS}
    for name in RECORDS:
        (folder / name).unlink()
    encoder = Letters()
    assert encoded(folder, encoder).up_to_date and encoder.blocks == []
    assert {name: (folder / name).read_bytes() for name in RECORDS} == digests


class Longer(Alone):
    """Its vectors are twice as long."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return super().encode(texts).repeat(2, axis=1)


def test_another_model_may_have_longer_vectors(folder: Path) -> None:
    encoded(folder, Alone())
    assert encoded(folder, Longer("longer"), overwrite=True).dimension == 10


def test_job_that_began_with_vectors_of_another_length_takes_nothing_over(folder: Path) -> None:
    encoded(folder, Alone())
    records = {name: (folder / name).read_bytes() for name in RECORDS}
    folder_of(folder, moved(USERS, u2="e"), moved(ITEMS))
    for name in RECORDS:
        (folder / name).unlink()
    with pytest.raises(ServiceError):
        encoded(folder, Longer(fails_at=2), overwrite=True)
    for name, content in records.items():
        (folder / name).write_bytes(content)
    summary = encoded(folder, Longer(), overwrite=True)
    assert (summary.resumed, summary.taken, summary.encoded, summary.dimension) == (3, 0, 10, 10)
    SemanticEmbedding.load([folder], NAME, "item")


class Endless(Longer):
    """Its vectors are twice as long, and no numbers."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return super().encode(texts) * np.nan


@pytest.mark.parametrize(
    ("token", "said"), [("u0", "value that is not finite"), ("u4", r"remove .*'\.books\.encode\.\*'")]
)
def test_kept_vectors_of_another_length_end_in_an_error(folder: Path, token: str, said: str) -> None:
    with pytest.raises(ServiceError):
        encoded(folder, Alone(fails_at=2))
    folder_of(folder, moved(USERS, **{token: "e"}), moved(ITEMS))
    with pytest.raises((DataError, ServiceError), match=said):
        encoded(folder, Endless())
    for path in folder.glob(f".{NAME}.encode.*"):
        path.unlink()
    assert encoded(folder, Longer()).dimension == 10


def test_a_job_that_a_version_before_began_goes_on(folder: Path) -> None:
    with pytest.raises(ServiceError):
        encoded(folder, Alone(fails_at=3), float16=True)
    state = folder / f".{NAME}.encode.json"
    former = {key: value for key, value in json.loads(state.read_text()).items() if key not in ("encoder", "dtype")}
    state.write_text(json.dumps(former))
    assert encoded(folder, Alone(), float16=True).resumed == 6


def test_vectors_of_another_length_do_not_mix(folder: Path) -> None:
    encoded(folder, Alone())
    folder_of(folder, moved(USERS, u2="e"), moved(ITEMS))
    with pytest.raises(ServiceError, match=r"shape \(1, 10\) for 1 user texts; expected \(1, 5\).*move .* away"):
        encoded(folder, Longer(), overwrite=True)


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
    assert "encode with --overwrite" in str(caught.value)
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
        (np.zeros((2, 2)), r"shape \(2, 2\) for 3 user texts; expected \(3, D\)"),
        (np.zeros(3), r"shape \(3,\) for 3 user texts; expected \(3, D\)"),
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
    texts: dict[Side, dict[str, str]] = {side: {f"{side[0]}{number}": "abc" for number in range(40)} for side in SIDES}

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
