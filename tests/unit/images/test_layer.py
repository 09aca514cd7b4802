"""From an archive to an image and back: the image is read by a reader of its own, by fsck.erofs, and mounted where that is possible."""

import hashlib
import io
import stat
import tarfile

import pytest

from utilityvm.images.layer import convert

from .reader import overlaps
from .tars import END, Item, archive, folder, hard_link, link, made


def test_files_have_their_content_owner_mode_and_time() -> None:
    data = archive(
        folder("a", 0o750),
        Item("a/empty", mode=0o4755),
        Item("a/small", b"hello", uid=1000, gid=2_000_000_000, mtime=1_700_000_000),
        Item("a/block", bytes(range(256)) * 16),
        Item("a/large", bytes(range(255)) * 5000, mode=0o600),
    )
    converted, image = made(data)
    assert converted.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert image.uuid == hashlib.sha256(data).digest()[:16]
    assert converted.entries == 6
    files = image.files
    assert set(files) == {b"", b"a", b"a/empty", b"a/small", b"a/block", b"a/large"}
    assert files[b"a"].mode == stat.S_IFDIR | 0o750
    assert files[b"a/empty"].mode == stat.S_IFREG | 0o4755
    small = files[b"a/small"]
    assert (small.data, small.uid, small.gid, small.mtime) == (b"hello", 1000, 2_000_000_000, 1_700_000_000 * 10**9)
    assert files[b"a/block"].data == bytes(range(256)) * 16
    assert files[b"a/large"].data == bytes(range(255)) * 5000
    assert not overlaps(files)


def test_the_same_archive_gives_the_same_image() -> None:
    data = archive(folder("b"), Item("b/x", b"1"), link("b/l", "x"), Item("a", b"2" * 10_000))
    images = []
    for _ in range(2):
        out = io.BytesIO()
        convert(io.BytesIO(data), out)
        images.append(out.getvalue())
    assert images[0] == images[1]


def test_names_of_one_file_are_one_file() -> None:
    _, image = made(archive(Item("a", b"x"), hard_link("d/b", "a"), link("s", "a"), hard_link("t", "s")))
    assert image.files[b"a"].number == image.files[b"d/b"].number
    assert image.files[b"a"].links == 2
    assert image.files[b"s"].number == image.files[b"t"].number
    assert image.files[b"t"].data == b"a"


def test_devices_and_pipes_are_there() -> None:
    _, image = made(
        archive(
            Item("null", type=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
            Item("disk", type=tarfile.BLKTYPE, device=(4095, 0xFFFFF)),
            Item("pipe", type=tarfile.FIFOTYPE),
        )
    )
    assert (image.files[b"null"].device, image.files[b"null"].mode) == ((1, 3), stat.S_IFCHR | 0o666)
    assert (image.files[b"disk"].device, image.files[b"disk"].mode) == ((4095, 0xFFFFF), stat.S_IFBLK | 0o644)
    assert image.files[b"pipe"].mode == stat.S_IFIFO | 0o644


def test_whiteouts_are_what_overlayfs_wants() -> None:
    _, image = made(archive(folder("d"), Item("d/.wh.gone"), folder("new"), Item("new/.wh..wh..opq"), Item("new/x", b"1")))
    assert set(image.files) == {b"", b"d", b"d/gone", b"new", b"new/x"}
    gone = image.files[b"d/gone"]
    assert (gone.mode, gone.device) == (stat.S_IFCHR, (0, 0))
    assert image.files[b"new"].xattrs == {b"trusted.overlay.opaque": b"y"}
    assert image.files[b"d"].xattrs == {}


def test_a_folder_of_many_names_is_sorted_over_its_blocks() -> None:
    names = [f"{number:05}" + "x" * (number % 200) for number in range(3000)]
    _, image = made(archive(*(Item(name, name.encode()) for name in reversed(names))))
    assert {name.encode() for name in names} == set(image.files) - {b""}
    assert image.files[b""].size > 80 * 4096
    assert all(image.files[name.encode()].data == name.encode() for name in names)


def test_names_that_sort_around_the_folder_itself_are_found() -> None:
    names = ["!", "-", "..a", ".a", "...", "a", "\x7f", "ü", "\n", "a" * 255, "名" * 85]
    _, image = made(archive(*(Item(name) for name in names)))
    assert set(image.files) == {b"", *(name.encode() for name in names)}


@pytest.mark.parametrize("length", [1, 59, 3999, 4031, 4032, 4033, 4095])
def test_a_symbolic_link_has_any_target(length: int) -> None:
    _, image = made(archive(link("l", "t" * length), link("l2", "t" * length)))
    assert image.files[b"l"].data == b"t" * length
    assert image.files[b"l"].mode == stat.S_IFLNK | 0o777


def test_an_archive_with_nothing_in_it_is_an_empty_layer() -> None:
    converted, image = made(END)
    assert set(image.files) == {b""}
    assert image.files[b""].mode == stat.S_IFDIR | 0o755
    assert (converted.size, converted.entries) == (2 << 20, 1)
