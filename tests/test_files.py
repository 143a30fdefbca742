"""Writing: nothing is written through a link, what killed runs left goes away, and nothing of anybody else's does."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_rlmrec import files
from recbole_rlmrec.files import atomic_folder, atomic_path, open_no_link, require_writable, temporary_path

HELD = """
import sys, time
from recbole_rlmrec.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    time.sleep(60)
"""


def write(path: Path, content: str = "new") -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_link_that_is_named_like_a_temporary_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_numbers", itertools.count())
    with temporary_path(tmp_path / "a.json") as temporary:
        taken = temporary.name
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / taken).symlink_to(mine)
    monkeypatch.setattr(files, "_numbers", itertools.count())
    write(tmp_path / "a.json")
    assert mine.read_text() == "mine" and (tmp_path / taken).is_symlink()
    assert (tmp_path / "a.json").read_text() == "new"
    assert not (tmp_path / "a.json").is_symlink()


def test_what_a_killed_process_left_is_removed_and_what_a_running_one_writes_stays(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HELD, tmp_path / "a.pth"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        temporary = Path(process.stdout.readline().strip())
        write(tmp_path / "b.pth")
        assert temporary.read_text() == "half"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    write(tmp_path / "c.pth")
    assert names(tmp_path) == ["b.pth", "c.pth"]


def test_two_at_a_time_in_one_process(tmp_path: Path) -> None:
    with temporary_path(tmp_path / "a") as first:
        write(tmp_path / "a")
        assert first.exists()
    assert names(tmp_path) == ["a"]


def test_nothing_of_anybody_else_is_removed(tmp_path: Path) -> None:
    with temporary_path(tmp_path / "a.pth") as temporary:
        stale = temporary.name.replace(f"-{os.getpid()}-", "-999999999-")
    other = stale.replace(files._machine(), "0" * 8)
    kept = [stale[1:], ".a.tmp.pth", ".a.123.tmp.pth", f"{stale}.bak.txt", other, "checkpoints", "a.pth.probe"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / stale).symlink_to(tmp_path / "checkpoints")
    write(tmp_path / "a.pth")
    assert names(tmp_path) == sorted([*kept, stale, "a.pth"])
    (tmp_path / stale).unlink()
    (tmp_path / stale).write_text("half")
    week = time.time() - 8 * 24 * 3600
    os.utime(tmp_path / other, (week, week))
    write(tmp_path / "a.pth")
    assert names(tmp_path) == sorted([*(name for name in kept if name != other), "a.pth"])


def test_a_folder_takes_its_name_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    for content in ("first", "second"):
        with atomic_folder(target) as folder:
            assert names(folder) == [] and folder.parent == target.parent
            (folder / content).write_text(content)
        assert names(target) == [content] and names(target.parent) == ["model"]
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as folder:
        (folder / "third").write_text("half")
        raise KeyboardInterrupt
    assert names(target) == ["second"] and names(target.parent) == ["model"]
    left = target.with_name(folder.name.replace(f"-{os.getpid()}-", "-999999999-"))
    left.mkdir()
    (left / "half").write_text("of a killed process")
    with atomic_folder(target), atomic_folder(target.with_name("other")):
        assert not left.exists()
    assert names(target.parent) == ["model", "other"]


def test_what_cannot_be_written_is_said_before(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "x.json.probe").write_text("mine")
    for path in (tmp_path / "folder", tmp_path / "x.json.probe" / "y.json"):
        with pytest.raises(OSError, match=path.name if path.is_dir() else r"x\.json\.probe"):
            require_writable(path)
    require_writable(tmp_path / "x.json")
    assert names(tmp_path) == ["folder", "x.json.probe"]
    assert (tmp_path / "x.json.probe").read_text() == "mine"


@pytest.mark.parametrize("link", [os.symlink, os.link, lambda _, name: os.mkfifo(name)])
@pytest.mark.parametrize("mode", ["w", "a", "a+"])
def test_files_of_our_own_are_not_opened_through_links(
    tmp_path: Path, link: Callable[[Path, Path], None], mode: str
) -> None:
    (tmp_path / "mine").write_text("mine")
    link(tmp_path / "mine", tmp_path / "part")
    with (
        pytest.raises(OSError, match="part' is a link, or no file: remove it"),
        open(tmp_path / "part", mode, opener=open_no_link),
    ):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
    (tmp_path / "part").unlink()
    (tmp_path / "part").write_text("old")
    with open(tmp_path / "part", mode, opener=open_no_link) as file:
        file.write("new")
    assert (tmp_path / "part").read_text() == ("new" if mode == "w" else "oldnew")


def test_a_folder_that_cannot_take_its_name_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, rename = tmp_path / "model", Path.rename
    target.mkdir()
    (target / "old").touch()

    def fail_with_the_new_one(path: Path, to: Path) -> Path:
        if path.suffix == ".tmp":
            raise OSError("no")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fail_with_the_new_one)
    with pytest.raises(OSError, match="no"), atomic_folder(target) as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]
