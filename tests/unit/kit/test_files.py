import fcntl
import os
import signal
from pathlib import Path

import pytest

from utilityvm.kit.files import FileLock, copy_sparse, make_folder, replace, swap_folder


def test_replace_writes_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "record"
    replace(path, b"old")
    replace(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_replace_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "record"
    (path / "child").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        replace(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", [None, [], ["kernel", "stale"]])
def test_swap_folder_replaces_what_is_there(tmp_path: Path, old: list[str] | None) -> None:
    place, new = tmp_path / "boot", tmp_path / "new"
    if old is not None:
        place.mkdir()
        for name in old:
            (place / name).write_text("old")
    new.mkdir()
    (new / "kernel").write_text("new")
    swap_folder(new, place)
    assert [(path.name, path.read_text()) for path in place.iterdir()] == [("kernel", "new")]
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_one_holder_at_a_time(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lock" if kind == "file" else tmp_path
    first, second = FileLock(path), FileLock(path)
    with first:
        assert not second.acquire(wait=False)
    assert second.acquire(wait=False)
    second.release()
    second.release()


def test_the_kernel_drops_the_lock_of_a_killed_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        held = FileLock(path)
        held.acquire()
        os.write(tell, b"x")
        signal.pause()
    os.read(ready, 1)
    assert not FileLock(path).acquire(wait=False)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    lock = FileLock(path)
    assert lock.acquire(wait=False)
    lock.release()


def test_holders_of_a_shared_lock_keep_out_only_who_wants_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    alone = FileLock(path)
    with FileLock(path, shared=True), FileLock(path, shared=True):
        assert not alone.acquire(wait=False)
    with alone:
        assert not FileLock(path, shared=True).acquire(wait=False)


def test_a_lock_on_what_must_be_there_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        FileLock(path, make=False).acquire()
    assert not path.exists()
    path.touch(mode=0o444)
    with FileLock(path, make=False):
        assert not FileLock(path, shared=True, make=False).acquire(wait=False)


def test_a_lock_that_a_program_takes_on_our_descriptor_is_ours(tmp_path: Path) -> None:
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    with lock.unheld() as fd:
        assert other.acquire(wait=False)
        other.release()
        fcntl.flock(fd, fcntl.LOCK_EX)
    assert not other.acquire(wait=False)
    lock.release()
    with pytest.raises(RuntimeError, match="given up"), lock.unheld():
        raise RuntimeError("given up")
    assert lock.descriptor == -1


@pytest.mark.parametrize("tail", [0, 1, 4095, 4096, 10_000])
def test_blocks_of_zeros_become_holes_where_that_is_asked_for(tmp_path: Path, tail: int) -> None:
    block, zeros = b"x" * 4096, bytes(4096)
    content = b"".join((zeros, block, block, zeros * 2000, b"y" + zeros[1:], zeros, block)) + b"z" * tail
    source, dense, dug = tmp_path / "source", tmp_path / "dense", tmp_path / "dug"
    source.write_bytes(content)
    with source.open("rb") as one, dense.open("wb") as other, dug.open("wb") as third:
        copy_sparse(one.fileno(), other.fileno())
        copy_sparse(one.fileno(), third.fileno(), dig=True)
    assert dense.read_bytes() == dug.read_bytes() == content
    assert dug.stat().st_blocks * 512 <= 8 * 4096
    assert dense.stat().st_blocks * 512 > 2000 * 4096


@pytest.mark.parametrize(
    ("umask", "private", "modes"), [(0, False, (0o755, 0o755)), (0, True, (0o755, 0o700)), (0o077, False, (0o700, 0o700))]
)
def test_folders_are_made_whose_owner_alone_writes_whatever_the_umask(
    tmp_path: Path, umask: int, private: bool, modes: tuple[int, int]
) -> None:
    before = os.umask(umask)
    try:
        make_folder(tmp_path / "a" / "b", private=private)
        make_folder(tmp_path / "a" / "b", private=private)
    finally:
        os.umask(before)
    assert ((tmp_path / "a").stat().st_mode & 0o7777, (tmp_path / "a" / "b").stat().st_mode & 0o7777) == modes
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")


def test_a_lock_is_not_for_others_to_hold(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"):
        assert (tmp_path / "lock").stat().st_mode & 0o077 == 0
