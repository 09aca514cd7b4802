"""What a container has of this host: looked at before its VM has booted."""

import os
from pathlib import Path

import pytest

from utilityvm.kit.errors import HostError, NotFound, Unsupported
from utilityvm.sandbox.opening import at_hand, real_path
from utilityvm.wire.oci import Mount, Spec


def bound(source: str) -> Spec:
    return Spec(oci_version="1.0.2", mounts=[Mount(destination="/a", type="bind", source=source)])


def test_a_path_from_where_we_are_becomes_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    assert at_hand(bound("./src")) == bound(os.path.realpath(tmp_path / "src"))


def test_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert at_hand(bound(str(tmp_path / "link"))) == bound(os.path.realpath(tmp_path / "file"))


def test_what_is_not_of_this_host_is_left_as_it_is() -> None:
    mounts = [Mount(destination="/a", type="volume", source="kept"), Mount(destination="/b", type="none", source="/no/such")]
    spec = Spec(oci_version="1.0.2", mounts=mounts)
    assert at_hand(spec) == spec


def test_what_is_not_there_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nothing")
    for name in ("missing", "dangling"):
        with pytest.raises(NotFound, match=f"^mount /a: .*/{name}: no such file or folder$"):
            at_hand(bound(str(tmp_path / name)))


def test_a_circle_of_links_is_told(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(HostError, match="^mount /a: .*/loop: cannot be looked at: Too many levels of symbolic links$"):
        at_hand(bound(str(tmp_path / "loop")))


def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unsupported, match="^mount /a: .*/pipe: is neither a file nor a folder"):
        real_path(str(tmp_path / "pipe"), "/a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(HostError, match="^mount /a: .*/closed: may not be read by this user$"):
        real_path(str(tmp_path / "closed"), "/a")
