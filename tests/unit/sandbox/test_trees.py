"""Trees that are packed for a guest and unpacked from one: the same files again, and nothing of what a hostile guest would like."""

import gc
import io
import os
import socket
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from utilityvm.kit.errors import BadArchive, HostError, InvalidOptions, NotFound, OutputLimitExceeded
from utilityvm.sandbox.pack import pack
from utilityvm.sandbox.unpack import Copied, unpack

PLENTY = 1 << 30


def packed(source: Path, name: str = "top") -> bytes:
    pieces: list[bytes] = []
    pack(source, name, pieces.append)
    return b"".join(pieces)


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:  # noqa: ANN401 (fields of an entry)
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return whole.getvalue()


def in_pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def unpacked(data: bytes, into: Path, rename: tuple[bytes, bytes] | None = None, limit: int = PLENTY) -> Copied:
    return unpack(in_pieces(data), into, rename, limit)


def tree(top: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        said: object = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        said = os.readlink(path) if path.is_symlink() else said  # noqa: PTH115 (as text)
        found[str(path.relative_to(top))] = (stat.S_IFMT(status.st_mode), said, None if path.is_symlink() else stat.S_IMODE(status.st_mode))
    return found


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (made := tmp_path / "here").mkdir()
    return made


def test_a_tree_is_the_same_on_the_other_side(tmp_path: Path, here: Path) -> None:
    source = tmp_path / "source"
    (source / "a" / ("long" * 50)).mkdir(parents=True)
    (source / "a" / ("long" * 50) / ("name" * 60)).write_bytes(b"x" * 70_000)
    (source / "run").write_bytes(b"#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("/etc/passwd")
    (source / "dangling").symlink_to("nowhere")
    (source / "closed").mkdir()
    (source / "closed" / "file").write_bytes(b"1")
    (source / "closed").chmod(0o555)
    os.link(source / "run", source / "twin")
    os.utime(source / "run", ns=(0, 1_000_000_000_000_000_000))
    assert unpacked(packed(source), here, (b"top", b"copy")).left_out == ()
    assert tree(here / "copy") == tree(source)
    assert (here / "copy" / "run").stat().st_mtime == 1_000_000_000
    assert (here / "copy" / "run").samefile(here / "copy" / "twin")
    (source / "closed").chmod(0o755)
    (here / "copy" / "closed").chmod(0o755)


def test_a_name_that_is_no_text_is_the_same_on_the_other_side(tmp_path: Path, here: Path) -> None:
    (source := tmp_path / "source").mkdir()
    Path(os.fsdecode(bytes(source) + b"/\xff\n")).write_bytes(b"1")
    unpacked(packed(source), here, (b"top", b"copy"))
    assert os.listdir(os.fsencode(here / "copy")) == [b"\xff\n"]  # noqa: PTH208 (bytes)


def test_owners_sockets_and_devices_stay_behind(tmp_path: Path) -> None:
    (source := tmp_path / "source").mkdir()
    os.mkfifo(source / "pipe")
    (source / "file").write_bytes(b"")
    with tarfile.open(fileobj=io.BytesIO(packed(source))) as tar:
        found = tar.getmembers()
    assert [member.name for member in found] == ["top", "top/file"]
    assert {(member.uid, member.gid, member.uname) for member in found} == {(0, 0, "")}


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="/nothing: no such file or folder"):
        packed(tmp_path / "nothing")


def test_a_reader_that_is_gone_ends_the_packing(tmp_path: Path) -> None:
    calls = []

    def write(_: bytes) -> None:
        calls.append(1)
        raise BrokenPipeError

    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    with pytest.raises(BrokenPipeError):
        pack(tmp_path / "file", "top", write)
    before = len(calls)
    gc.collect()
    assert len(calls) == before, "what was left in a buffer was written later, by another thread"


# -- what a hostile guest sends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../out", "top/../../out", "/../out", "top/.."])
def test_a_path_that_leaves_the_folder_is_refused(here: Path, name: str) -> None:
    with pytest.raises(BadArchive, match="would leave its folder"):
        unpacked(archive(folder("top"), entry(name, b"x")), here)
    assert not (here.parent / "out").exists()


def test_an_absolute_path_is_one_below_the_folder(here: Path) -> None:
    unpacked(archive(folder("/etc"), entry("/etc/x", b"1")), here)
    assert tree(here).keys() == {"etc", "etc/x"}


@pytest.mark.parametrize("target", ["/", "..", "."])
def test_a_link_is_made_and_not_followed(here: Path, target: str) -> None:
    with pytest.raises(HostError, match=r"^top/link/out cannot be written: Not a directory|Too many levels"):
        unpacked(archive(folder("top"), link("top/link", target), entry("top/link/out", b"x")), here)
    assert not (here.parent / "out").exists()
    assert (here / "top" / "link").is_symlink()


def test_a_link_that_was_there_is_replaced_and_not_written_through(here: Path) -> None:
    (outside := here.parent / "outside").write_bytes(b"mine")
    (here / "file").symlink_to(outside)
    unpacked(archive(entry("file", b"theirs")), here)
    assert outside.read_bytes() == b"mine"
    assert (here / "file").read_bytes() == b"theirs"
    assert not (here / "file").is_symlink()


def test_a_folder_that_was_a_link_is_not_entered(here: Path) -> None:
    (outside := here.parent / "outside").mkdir()
    (here / "top").symlink_to(outside)
    with pytest.raises(HostError, match="top cannot be written"):
        unpacked(archive(folder("top"), entry("top/x", b"1")), here)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("target", ["../secret", "/../secret", "link/secret", ""])
def test_a_hard_link_leads_to_nothing_outside(here: Path, target: str) -> None:
    (here.parent / "secret").write_bytes(b"mine")
    hard = entry("top/hard", type=tarfile.LNKTYPE, linkname=target)
    with pytest.raises((BadArchive, HostError)):
        unpacked(archive(folder("top"), link("link", ".."), hard), here)
    assert not (here / "top" / "hard").exists()


def test_only_what_was_asked_for_is_written(here: Path) -> None:
    with pytest.raises(BadArchive, match="'other' was not asked for"):
        unpacked(archive(entry("top", b"1"), entry("other", b"2")), here, (b"top", b"copy"))
    assert tree(here).keys() == {"copy"}


def test_rights_beyond_the_nine_stay_behind(here: Path) -> None:
    unpacked(archive(entry("file", b"1", mode=0o6755), entry("all", b"1", mode=0o7777)), here)
    assert {stat.S_IMODE(path.stat().st_mode) for path in here.iterdir()} == {0o755, 0o777}


def test_devices_and_pipes_are_left_out_and_told(here: Path) -> None:
    device = entry("device", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
    pipe = entry("pipe", type=tarfile.FIFOTYPE)
    assert unpacked(archive(device, pipe, entry("file", b"12")), here) == Copied(1, 2, ("device", "pipe"))
    assert tree(here).keys() == {"file"}


def test_more_bytes_than_are_wanted_are_not_written(here: Path) -> None:
    with pytest.raises(OutputLimitExceeded, match="more than 10 bytes of files"):
        unpacked(archive(entry("one", b"x" * 8), entry("two", b"x" * 8)), here, limit=10)
    assert tree(here).keys() == {"one"}


def test_more_files_than_are_wanted_are_not_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utilityvm.sandbox.unpack.MOST_ENTRIES", 2)
    with pytest.raises(BadArchive, match="more than 2 files"):
        unpacked(archive(entry("one"), entry("two"), entry("three")), here)
    assert tree(here).keys() == {"one", "two"}


def test_a_file_does_not_take_the_place_of_a_folder(here: Path) -> None:
    (here / "x").mkdir()
    with pytest.raises(HostError, match="^x cannot be written: "):
        unpacked(archive(entry("x", b"1")), here)


def test_a_stream_that_is_cut_off_is_told(here: Path) -> None:
    with pytest.raises(BadArchive, match="cut off"):
        unpacked(archive(entry("file", b"x" * 5000))[:2000], here)


def test_a_time_that_no_clock_has_is_no_trouble(here: Path) -> None:
    unpacked(archive(entry("file", b"1", mtime=1 << 60)), here)
    assert (here / "file").read_bytes() == b"1"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be opened: No such file"):
        unpacked(archive(), tmp_path / "nothing")


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, bound])
def test_what_is_neither_file_nor_folder_nor_link_is_not_packed_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    with pytest.raises(InvalidOptions, match="/x is a socket, a pipe or a device: files, folders and links can be copied$"):
        packed(tmp_path / "x")
