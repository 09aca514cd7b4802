"""What a disk image is, by its name, and what in it is not followed."""

import os
import struct
from pathlib import Path

import pytest

from utilityvm.compute.qemu.images import Format, Image, inspect, open_image
from utilityvm.kit.errors import HostError, InvalidOptions, NotFound, Unsupported, UtilityVMError


def qcow2(*, backing: int = 0, crypt: int = 0, features: int = 0, version: int = 3) -> bytes:
    header = b"QFI\xfb" + struct.pack(">IQIIQI", version, backing, 0, 16, 1 << 20, crypt)
    return header.ljust(72, b"\0") + struct.pack(">Q", features) + bytes(100)


def vhd(kind: int, size: int = 2048) -> bytes:
    footer = b"conectix".ljust(60, b"\0") + struct.pack(">I", kind)
    return bytes(size) + footer.ljust(512, b"\0")


def look(name: str, content: bytes) -> Image:
    return inspect(name, len(content), lambda size, offset: content[offset : offset + size], device=False)


@pytest.mark.parametrize(
    ("name", "content", "format_", "size"),
    [
        ("d.img", bytes(1024), Format.RAW, 0),
        ("d", bytes(512), Format.RAW, 0),
        ("d.QCOW2", qcow2(), Format.QCOW2, 0),
        ("d.qcow2", qcow2(version=2, features=4), Format.QCOW2, 0),
        ("d.vhd", vhd(2), Format.RAW, 2048),
        ("d.VHD", vhd(3), Format.VHD, 0),
        ("d.vhdx", b"vhdxfile" + bytes(100), Format.VHDX, 0),
    ],
)
def test_the_name_says_the_format(name: str, content: bytes, format_: Format, size: int) -> None:
    assert look(name, content) == Image(name, format_, size, device=False)


def test_what_a_guest_writes_does_not_make_an_image_of_a_raw_disk() -> None:
    assert look("d.img", qcow2(backing=104).ljust(1024, b"\0")).format is Format.RAW


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("d.qcow2", qcow2(backing=104), Unsupported, "backing file"),
        ("d.qcow2", qcow2(features=4), Unsupported, "data in another file"),
        ("d.qcow2", qcow2(crypt=2), Unsupported, "encrypted"),
        ("d.qcow2", bytes(1024), InvalidOptions, "no qcow2 image"),
        ("d.qcow2", b"QFI\xfb", InvalidOptions, "no qcow2 image"),
        ("d.vhd", vhd(4), Unsupported, "differencing"),
        ("d.vhd", bytes(1024), InvalidOptions, "no VHD image"),
        ("d.vhd", b"", InvalidOptions, "no VHD image"),
        ("d.vhdx", bytes(1024), InvalidOptions, "no VHDX image"),
        ("d.img", b"", InvalidOptions, "0 bytes are not a number of sectors"),
        ("d.img", bytes(513), InvalidOptions, "513 bytes are not a number of sectors"),
    ],
)
def test_an_image_that_is_not_itself_or_leads_elsewhere_is_refused(
    name: str, content: bytes, error: type[UtilityVMError], words: str
) -> None:
    with pytest.raises(error, match=words):
        look(name, content)


def test_only_regular_files_are_opened_and_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "odd.img").write_bytes(b"x")
    os.mkfifo(tmp_path / "fifo")
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 (names are what is compared)
    for name, error, words in (
        ("none", NotFound, "no such file"),
        ("fifo", InvalidOptions, "is not a regular file"),
        ("", HostError, "cannot be opened for writing as a disk: Is a directory"),
        ("odd.img", InvalidOptions, "sectors"),
    ):
        with pytest.raises(error, match=words):
            open_image(str(tmp_path / name), read_only=False, device=False)
    with pytest.raises(InvalidOptions, match="a block device" if Path("/dev/loop0").is_block_device() else "block device"):
        open_image(str(tmp_path / "odd.img"), read_only=True, device=True)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
