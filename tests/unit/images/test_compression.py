"""Archives packed in each way are unpacked, within limits; what is broken or becomes too large is refused."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import subprocess  # noqa: TID251 (zstd has no module)
from collections.abc import Callable
from pathlib import Path

import pytest

from utilityvm.images.compression import find_compression
from utilityvm.images.layer import convert
from utilityvm.images.limits import Limits
from utilityvm.kit.errors import BadArchive, Exhausted, HostError, Unsupported

from .tars import Item, archive

PLAIN = archive(Item("zeros", bytes(300_000)), Item("noise", os.urandom(300_000)))

needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")


def zstd(data: bytes) -> bytes:
    argv = ["zstd", "-c", "-q"]
    return subprocess.run(argv, input=data, check=True, capture_output=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "bzip2": lambda data: bz2.compress(data, 1),
    "zstd": zstd,
}
WAYS = [pytest.param(name, marks=needs_zstd) if name == "zstd" else name for name in PACKERS]


def diff_id(data: bytes, limits: Limits | None = None) -> str:
    return (convert(io.BytesIO(data), io.BytesIO(), limits) if limits else convert(io.BytesIO(data), io.BytesIO())).diff_id


DIFF_ID = "sha256:" + hashlib.sha256(PLAIN).hexdigest()


@pytest.mark.parametrize("name", WAYS)
def test_each_way_gives_the_same_layer(name: str) -> None:
    packed = PACKERS[name](PLAIN)
    assert find_compression(packed[:512]) == name
    assert diff_id(packed) == DIFF_ID == diff_id(PLAIN)


@pytest.mark.parametrize("name", WAYS)
def test_several_parts_one_behind_the_other_are_one_archive(name: str) -> None:
    parts = [PLAIN[:1000], PLAIN[1000:400_000], b"", PLAIN[400_000:]]
    assert diff_id(b"".join(map(PACKERS[name], parts))) == DIFF_ID


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz"])
def test_zeros_may_follow(name: str) -> None:
    assert diff_id(PACKERS[name](PLAIN) + bytes(300_000)) == DIFF_ID


@pytest.mark.parametrize("name", WAYS)
def test_one_that_is_cut_off_is_refused(name: str) -> None:
    packed = PACKERS[name](PLAIN)
    for length in (300, len(packed) // 2, len(packed) - 1):
        with pytest.raises(BadArchive, match=rf"cannot be unpacked \({name}\): \S"):
            diff_id(packed[:length])


@pytest.mark.parametrize("name", WAYS)
def test_one_that_was_changed_is_refused(name: str) -> None:
    packed = bytearray(PACKERS[name](PLAIN))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(BadArchive):
        diff_id(bytes(packed))


@pytest.mark.parametrize("name", WAYS)
def test_nonsense_behind_it_is_refused(name: str) -> None:
    with pytest.raises(BadArchive, match=rf"cannot be unpacked \({name}\)"):
        diff_id(PACKERS[name](PLAIN) + b"nonsense")


@pytest.mark.parametrize("name", WAYS)
def test_one_that_becomes_too_much_larger_is_refused(name: str) -> None:
    packed = PACKERS[name](archive(Item("zeros", bytes(8 << 20))))
    with pytest.raises(BadArchive, match=r"more than 5 times larger"):
        diff_id(packed, Limits(free_bytes=1 << 20, ratio=5))
    with pytest.raises(BadArchive, match=r"more than 4194304 bytes"):
        diff_id(packed, Limits(archive_bytes=4 << 20))


def test_xz_that_wants_gigabytes_of_memory_is_refused() -> None:
    packed = lzma.compress(PLAIN[:100_000], filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 28}])
    with pytest.raises(BadArchive, match="Memory usage limit"):
        diff_id(packed)


@pytest.mark.parametrize(
    ("begin", "name"),
    [(b"\x04\x22\x4d\x18", "lz4"), (b"\x1f\x9d", "compress"), (b"LZIP", "lzip"), (b"\x5d\0\0\x80", "lzma")],
)
def test_other_ways_are_refused_by_name(begin: bytes, name: str) -> None:
    with pytest.raises(Unsupported, match=f"packed with {name}") as caught:
        diff_id(begin + bytes(1000))
    assert "gzip" in caught.value.hint


def test_an_archive_whose_first_name_looks_packed_is_not() -> None:
    data = archive(Item("BZh"), Item("x"))
    assert diff_id(data) == "sha256:" + hashlib.sha256(data).hexdigest()


def test_without_zstd_the_archive_is_refused_by_what_it_was_packed_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="packed with zstd") as caught:
        diff_id(b"\x28\xb5\x2f\xfd" + bytes(600))
    assert "install" in caught.value.hint


def test_a_stream_that_cannot_be_read_is_told() -> None:
    with pytest.raises(HostError, match="the archive cannot be read: Input/output error"):
        convert(Unreadable(), io.BytesIO())


class Unreadable(io.BytesIO):
    """As a file on a broken disk."""

    def read(self, _size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "r+b", buffering=0) as out, pytest.raises(Exhausted, match="No space left") as caught:  # noqa: PTH123
        convert(io.BytesIO(PLAIN), out)
    assert "free space" in caught.value.hint


def test_an_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with (tmp_path / "x").open("rb", buffering=0) as out, pytest.raises(HostError, match="cannot be written"):
        convert(io.BytesIO(PLAIN), out)
