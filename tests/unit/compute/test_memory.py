"""Memory of machines: made, copied with its holes, sealed."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from utilityvm.compute.qemu.memory import Room, copy_memory, new_memory, reopened, seal

SIZE = 1 << 20


@pytest.fixture
def source() -> Iterator[int]:
    """A memory with a page in the middle of it."""
    fd = new_memory("source", SIZE)
    os.pwrite(fd, b"page", 65536)
    yield fd
    os.close(fd)


@pytest.fixture
def target() -> Iterator[int]:
    fd = new_memory("target", SIZE)
    yield fd
    os.close(fd)


def blocks(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def test_a_copy_has_what_is_there_and_the_holes(source: int, target: int) -> None:
    copy_memory(source, target)
    assert os.pread(target, SIZE, 0) == os.pread(source, SIZE, 0)
    assert blocks(target) == blocks(source) < SIZE


def test_of_a_longer_file_its_beginning_is_copied_also_where_the_kernel_does_not_copy_itself(target: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * (SIZE + 5000))
    with path.open("rb") as file:
        copy_memory(file.fileno(), target)
    assert os.pread(target, SIZE + 1, 0) == b"a" * SIZE


def test_a_kernel_that_cannot_copy_is_no_failure_and_one_that_fails_is(source: int, target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(number: int) -> None:
        def copy(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "sendfile", copy)

    refuses(errno.EINVAL)
    copy_memory(source, target)
    assert os.pread(target, 4, 65536) == b"page"
    refuses(errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        copy_memory(source, target)


def test_room_is_made_where_there_is_something_and_nowhere_else_and_is_filled_with_what_there_is_then(source: int, target: int) -> None:
    room = Room(source, target)
    assert blocks(target) == blocks(source) > 0
    assert os.pread(target, SIZE, 0) == bytes(SIZE)
    os.pwrite(source, b"later", 200_000)
    room.copy(source)
    room.close()
    room.close()
    assert os.pread(target, SIZE, 0) == os.pread(source, SIZE, 0)
    assert blocks(target) == blocks(source) < SIZE
    seal(target)


def test_a_memory_of_several_parts_is_copied_whole() -> None:
    size = 40 << 20
    source, target = new_memory("source", size), new_memory("target", size)
    for at in (0, (16 << 20) - 4096, 16 << 20, (32 << 20) - 5000, size - 10_000):
        os.pwrite(source, os.urandom(9_999), at)
    room = Room(source, target)
    room.copy(source)
    room.close()
    assert os.pread(target, size, 0) == os.pread(source, size, 0)
    assert blocks(target) == blocks(source) < 1 << 20
    os.close(source)
    os.close(target)


def test_what_of_a_memory_cannot_be_read_is_told(source: int, target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    room = Room(source, target)
    monkeypatch.setattr(os, "preadv", fails)
    with pytest.raises(OSError, match="Input/output error"):
        room.copy(source)
    room.close()


def test_what_is_sealed_nobody_writes_and_who_reads_has_a_place_of_its_own(source: int) -> None:
    seal(source)
    with pytest.raises(PermissionError):
        os.pwrite(source, b"x", 0)
    again, other = reopened(source, 65536), reopened(source, 65537)
    assert (os.read(again, 2), os.read(other, 2), os.read(again, 2)) == (b"pa", b"ag", b"ge")
    os.close(again)
    os.close(other)
