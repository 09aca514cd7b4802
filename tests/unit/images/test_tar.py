"""What the many variants of tar say of one file is read as Go's archive/tar, GNU tar and bsdtar mean it."""

import base64
import os
import subprocess  # noqa: TID251 (archives as people make them)
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .tars import END, Item, archive, block, extended, hard_link, link, made, padded, record, records

LONG = "d" * 200 + "/" + "n" * 200


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_targets_are_whole_in_each_form(form: int) -> None:
    _, image = made(archive(Item(LONG, b"x"), link("l", LONG), hard_link("h", LONG), format=form))
    assert image.files[LONG.encode()].data == b"x"
    assert image.files[b"l"].data == LONG.encode()
    assert image.files[b"h"].number == image.files[LONG.encode()].number


def test_a_name_in_two_parts_is_put_together() -> None:
    name = "d" * 120 + "/" + "n" * 99
    data = archive(Item(name, b"x"), format=tarfile.USTAR_FORMAT)
    assert data[345:465] == b"d" * 120
    assert made(data)[1].files[name.encode()].data == b"x"


def test_star_has_a_shorter_first_part() -> None:
    data = block(b"n", at_345=b"d" * 131, at_476=b"00000000001\0", at_508=b"tar\0") + END
    assert b"d" * 131 + b"/n" in made(data)[1].files


def test_what_gnu_keeps_where_others_have_the_first_part_is_no_name() -> None:
    data = block(b"n", at_257=b"ustar  \0", at_345=b"00000000001\0") + END
    assert set(made(data)[1].files) == {b"", b"n"}


def test_an_archive_older_than_posix_has_folders_by_their_slash() -> None:
    data = block(b"d/", b"\0", at_257=bytes(8)) + block(b"d/f", b"\0", 1, at_257=bytes(8)) + padded(b"x") + END
    files = made(data)[1].files
    assert files[b"d"].mode & 0o170000 == 0o040000
    assert files[b"d/f"].data == b"x"


def test_numbers_beyond_octal_digits_are_read() -> None:
    binary = b"\x80" + (3_000_000_000).to_bytes(7, "big")
    before = b"\xff" * 11 + b"\xfe"
    data = block(b"x", at_108=binary, at_116=binary, at_136=before) + END
    file = made(data)[1].files[b"x"]
    assert (file.uid, file.gid, file.mtime) == (3_000_000_000, 3_000_000_000, -2 * 10**9)


def test_a_checksum_of_signed_bytes_is_a_checksum() -> None:
    header = bytearray(block("ü".encode()))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(byte - 256 * (byte > 127) for byte in header)
    assert "ü".encode() in made(bytes(header) + END)[1].files


@pytest.mark.parametrize(
    ("told", "time"),
    [
        (b"1.5", 1_500_000_000),
        (b"1700000000.123456789", 1_700_000_000_123_456_789),
        (b"1.1234567899999", 1_123_456_789),
        (b"-1.5", -1_500_000_000),
        (b"-0.000000001", -1),
        (b"7", 7_000_000_000),
        (b"7.", 7_000_000_000),
    ],
)
def test_times_have_nanoseconds(told: bytes, time: int) -> None:
    assert made(extended(records(mtime=told)) + block(b"x") + END)[1].files[b"x"].mtime == time


def test_records_replace_what_the_header_says() -> None:
    told = records(path=b"p", uid=b"4294967294", gid=b"5", size=b"3", comment=b"none", atime=b"1")
    data = extended(told) + block(b"x", size=0) + padded(b"abc") + END
    file = made(data)[1].files[b"p"]
    assert (file.uid, file.gid, file.data) == (4_294_967_294, 5, b"abc")


def test_of_two_records_the_last_counts_and_an_empty_one_says_nothing() -> None:
    data = extended(record(b"path", b"a") + record(b"path", b"b")) + block(b"x") + extended(records(path=b"")) + block(b"y") + END
    assert set(made(data)[1].files) == {b"", b"b", b"y"}


def test_records_for_all_entries_count_until_they_are_replaced() -> None:
    everywhere = extended(records(uid=b"7", comment=b"made by git"), b"g")
    data = everywhere + block(b"x") + extended(records(uid=b"8")) + block(b"y") + block(b"z") + END
    files = made(data)[1].files
    assert [files[name].uid for name in (b"x", b"y", b"z")] == [7, 8, 7]


def test_what_has_no_data_is_not_followed_by_any_whatever_it_says() -> None:
    data = block(b"d", b"5", 512) + block(b"l", b"2", 512, at_157=b"d") + block(b"x") + END
    assert set(made(data)[1].files) == {b"", b"d", b"l", b"x"}


def test_a_single_block_of_zeros_ends_an_archive_that_ends_there() -> None:
    assert set(made(block(b"x") + bytes(512))[1].files) == {b"", b"x"}


def test_attributes_of_both_spellings_are_kept() -> None:
    capability = bytes.fromhex("0100000202040000000000000000000000000000")
    told = (
        record(b"SCHILY.xattr.security.capability", capability)
        + record(b"SCHILY.xattr.user.empty", b"")
        + record(b"SCHILY.xattr.trusted.t", b"a=b\n\0")
        + record(b"LIBARCHIVE.xattr.user.per%20cent", base64.b64encode(b"value").rstrip(b"="))
        + record(b"LIBARCHIVE.xattr.user.empty", base64.b64encode(b"not this"))
        + record(b"SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0")
        + record(b"SCHILY.xattr.user." + b"n" * 250, bytes(65535))
    )
    file = made(extended(told) + block(b"x") + END)[1].files[b"x"]
    assert file.xattrs == {
        b"security.capability": capability,
        b"user.empty": b"",
        b"trusted.t": b"a=b\n\0",
        b"user.per cent": b"value",
        b"system.posix_acl_access": b"\x02\0\0\0",
        b"user." + b"n" * 250: bytes(65535),
    }


def test_attributes_that_steer_overlays_or_that_linux_does_not_have_are_left_out() -> None:
    names = [
        b"trusted.overlay.redirect",
        b"trusted.overlay.opaque",
        b"user.overlay.opaque",
        b"com.apple.quarantine",
        b"system.nfs4_acl",
        b"user.",
    ]
    told = b"".join(record(b"SCHILY.xattr." + name, b"/") for name in (*names, b"user.kept"))
    assert made(extended(told) + block(b"x") + END)[1].files[b"x"].xattrs == {b"user.kept": b"/"}


def test_names_are_bytes_whatever_their_encoding() -> None:
    names = [b"\xff\xfe", "é".encode("latin-1"), "名\n前".encode(), b" ", b"\\", b"*"]
    data = b"".join(extended(record(b"hdrcharset", b"BINARY") + record(b"path", name)) + block(b"x") for name in names)
    assert set(made(data + END)[1].files) == {b"", *names}


# -- sparse files -------------------------------------------------------------------------------------------------------

MIB = 1 << 20


def sparse_file(path: Path) -> bytes:
    """A file of 5 MiB and a bit, with data at its begin, across a block's edge, in the middle and at its end."""
    with path.open("wb") as file:
        for offset, data in ((0, b"begin"), (MIB - 3, b"across"), (2 * MIB, os.urandom(9000)), (5 * MIB + 5, b"end")):
            file.seek(offset)
            file.write(data)
    return path.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        *(["--format=pax", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")),
    ],
    ids=lambda options: options[-1],
)
def test_a_sparse_file_keeps_its_holes_in_each_form(options: list[str], tmp_path: Path) -> None:
    whole = sparse_file(tmp_path / "sparse")
    (tmp_path / "after").write_bytes(b"after")
    argv = ["tar", "-C", str(tmp_path), "--sparse", "--hole-detection=raw", *options, "-cf", str(tmp_path / "x.tar"), "sparse", "after"]
    subprocess.run(argv, check=True)
    files = made((tmp_path / "x.tar").read_bytes())[1].files
    assert files[b"sparse"].data == whole
    assert sum(length for _, length in files[b"sparse"].holes) > 4 * MIB
    assert files[b"after"].data == b"after"


def test_an_old_map_goes_on_behind_its_header(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        for number in range(60):
            file.seek(number * 8192)
            file.write(b"%d" % number)
    argv = ["tar", "-C", str(tmp_path), "--sparse", "--format=gnu", "-cf", str(tmp_path / "x.tar"), "sparse"]
    subprocess.run(argv, check=True)
    data = (tmp_path / "x.tar").read_bytes()
    assert data[482] == 1
    found = made(data)[1].files[b"sparse"]
    assert found.data == (tmp_path / "sparse").read_bytes()
    assert len(found.holes) >= 59


def sparse(size: int, *pieces: tuple[int, bytes]) -> bytes:
    """A sparse file ``s``, GNU's form 0.1."""
    numbers = b",".join(b"%d,%d" % (offset, len(data)) for offset, data in pieces)
    stored = b"".join(data for _, data in pieces)
    told = records(GNU__sparse__map=numbers, GNU__sparse__size=b"%d" % size, GNU__sparse__name=b"s")
    return extended(told) + block(b"GNUSparseFile.1/s", b"0", len(stored)) + padded(stored) + END


def test_a_terabyte_of_nothing_costs_a_map() -> None:
    tib = 1 << 40
    converted, image = made(sparse(tib + 1, (tib, b"!"), (tib + 1, b"")))
    file = image.files[b"s"]
    assert converted.size <= 4 * MIB
    assert file.size == tib + 1
    (start,) = file.starts
    assert image.image[start * 4096 : start * 4096 + 2] == b"!\0"
    assert sum(length for _, length in file.holes) == tib


def test_a_file_that_is_all_hole_has_its_size() -> None:
    file = made(sparse(100_000))[1].files[b"s"]
    assert (file.size, file.data, file.holes) == (
        100_000,
        bytes(100_000),
        tuple((n, min(4096, 100_000 - n)) for n in range(0, 100_000, 4096)),
    )
    assert made(sparse(0))[1].files[b"s"].size == 0


def test_pieces_that_touch_and_empty_ones_are_one_file() -> None:
    file = made(sparse(20_000, (0, b"a" * 10), (10, b"b" * 5000), (5010, b""), (8192, b"c")))[1].files[b"s"]
    assert file.data == b"a" * 10 + b"b" * 5000 + bytes(8192 - 5010) + b"c" + bytes(20_000 - 8193)
    assert [offset for offset, _ in file.holes] == [12288, 16384]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 9000)), max_size=8), st.integers(0, 10_000), st.sampled_from([0, 1 << 30]))
def test_any_map_is_kept(steps: list[tuple[int, int]], rest: int, far: int) -> None:
    """Steps over holes and data; with `far` the file is so large that its chunks are more than a block."""
    at, pieces = far, list[tuple[int, bytes]]()
    for number, (hole, length) in enumerate(steps):
        pieces.append((at + hole, bytes([number + 1]) * length))
        at += hole + length
    size = at + rest
    whole = bytearray(size - far)
    for offset, data in pieces:
        whole[offset - far : offset - far + len(data)] = data
    file = made(sparse(size, *pieces))[1].files[b"s"]
    assert file.size == size
    shown = bytearray(size - far)
    for offset, data in file.pieces.items():
        begin = max(0, far - offset)
        assert not any(data[:begin])
        shown[max(0, offset - far) : max(0, offset - far) + len(data) - begin] = data[begin:]
    assert shown == whole
