"""Files that a stopped run goes on with are not opened through links."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_rlmrec.data.file_access import open_no_link


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
