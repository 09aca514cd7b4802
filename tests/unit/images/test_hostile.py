"""What a hostile or broken archive tries: each is refused with the name of the entry, and nothing else comes out."""

import io
import tarfile

import pytest
from msgspec.structs import replace

from utilityvm.images.layer import convert
from utilityvm.images.limits import LIMITS, Limits
from utilityvm.kit.errors import BadArchive

from .tars import END, Item, archive, block, extended, folder, hard_link, link, made, padded, record, records

X = block(b"x")


def long_name(name: bytes) -> bytes:
    return block(b"././@LongLink", b"L", len(name) + 1) + padded(name + b"\0")


def sparse_1_0(text: bytes, size: int, stored: int | None = None) -> bytes:
    body = padded(text)
    told = records(GNU__sparse__major=b"1", GNU__sparse__minor=b"0", GNU__sparse__name=b"s", GNU__sparse__realsize=b"%d" % size)
    return extended(told) + block(b"GNUSparseFile.0/s", b"0", len(body) + (stored or 0)) + body + padded(bytes(stored or 0)) + END


REFUSED = {
    "a path that leaves the root": (archive(Item("a/../../etc/passwd")), r"entry a/\.\./\.\./etc/passwd: .* leaves the layer's root"),
    "a path of two dots": (archive(Item("..")), r"entry \.\.: .* leaves"),
    "a hard link out of the root": (archive(hard_link("h", "../../etc/shadow")), r"entry h: \.\./\.\./etc/shadow leaves"),
    "a hard link to what is not there": (
        archive(hard_link("h", "nothing")),
        r"entry h: a hard link to nothing, which is not in this layer",
    ),
    "a hard link to a folder": (archive(folder("d"), hard_link("h", "d")), r"entry h: .* which is a folder"),
    "a hard link to the root": (archive(hard_link("h", "/")), r"entry h: a hard link to the root"),
    "a hard link to a whiteout": (archive(Item(".wh.w"), hard_link("h", "w")), r"entry h: .* not in this layer"),
    "a hard link to what was removed": (
        archive(folder("d"), Item("d/x"), Item("d"), hard_link("h", "d/x")),
        r"entry h: a hard link to d/x, which is not in this layer",
    ),
    "something below a file": (archive(Item("f"), Item("f/x")), r"entry f/x: it lies below f, which is no folder"),
    "something below a device": (archive(Item("f", type=tarfile.CHRTYPE, device=(1, 3)), Item("f/x")), r"below f"),
    "something below a link to a file": (archive(Item("f"), link("l", "f"), Item("l/x")), r"entry l/x: it lies below f"),
    "something below a whiteout's name": (archive(Item(".wh.a/b")), r"entry \.wh\.a/b: it lies below a whiteout"),
    "links in a circle": (archive(link("a", "b"), link("b", "a"), Item("a/x")), r"entry a/x: too many symbolic links"),
    "a link to itself": (archive(link("a", "a/a/a"), Item("a/x")), r"entry a/x: too many symbolic links"),
    "the root as a file": (archive(Item("./")), r"entry \./: the layer's root is no folder"),
    "a whiteout of nothing": (archive(Item("d/.wh.")), r"entry d/\.wh\.: a whiteout that names nothing"),
    "a whiteout of the folder itself": (archive(Item("d/.wh..")), r"a whiteout that names nothing"),
    "a whiteout of the folder above": (archive(Item("d/.wh...")), r"a whiteout that names nothing"),
    "a name of 256 bytes": (archive(Item("n" * 256)), r"a name of 256 bytes"),
    "a path of 4096 bytes": (archive(Item("d/" * 2000 + "n" * 96)), r"a path of 4096 bytes"),
    "a symbolic link of 4096 bytes": (archive(link("l", "t" * 4096)), r"entry l: a symbolic link whose target has 4096 bytes"),
    "a symbolic link to nothing at all": (block(b"l", b"2") + END, r"entry l: a symbolic link whose target has 0 bytes"),
    "no name": (block(b"") + END, r"an empty path"),
    "a name with a zero byte": (extended(records(path=b"a\0b")) + block(b"x") + END, r"a zero byte in path"),
    "a zero byte in an old long name's path": (long_name(b"") + block(b"") + END, r"an empty path"),
    "an unknown type": (block(b"v", b"V") + END, r"entry v: its type is 'V'"),
    "an archive in several volumes": (block(b"v", b"M") + END, r"entry v: its type is 'M'"),
    "nothing": (b"", r"the archive is empty"),
    "a page of nonsense": (b"nonsense " * 100, r"at the archive's begin: .*(checksum|number)"),
    "an archive without its end": (X, r"entry x: behind it, the archive is cut off, after 512 bytes"),
    "an archive cut in a header": (X + block(b"y")[:100], r"entry x: behind it, the archive is cut off, after 612 bytes"),
    "an archive cut in a file": (block(b"f", size=1000) + b"abc", r"entry f: the archive is cut off, after 515 bytes"),
    "an archive cut in a file's padding": (block(b"f", size=3) + b"abc", r"entry f: the archive is cut off"),
    "an archive cut in a name": (block(b"l", b"L", 600) + bytes(512), r"cut off"),
    "two archives": (archive(Item("x")) + archive(Item("y")), r"entry x: behind it, bytes that are not zero behind the archive's end"),
    "something behind a single block of zeros": (X + bytes(512) + block(b"y") + END, r"bytes that are not zero"),
    "a changed header": (block(b"x").replace(b"x", b"y", 1) + END, r"a header whose checksum is wrong"),
    "a size that is no number": (block(b"x", size=b"nonsense\0\0\0\0") + END, r"entry x: b'nonsense' where a number"),
    "a negative size": (block(b"x", size=b"\xff" * 11 + b"\x00") + END, r"entry x: size -256, which is not from 0"),
    "a huge size": (block(b"x", size=b"\x80" + b"\x7f" * 11) + END, r"entry x: size \d+, which is not from 0"),
    "a size beyond the archive": (block(b"x", size=b"\x80\0\0\0" + b"\x7f" + b"\xff" * 7) + END, r"entry x: the archive is cut off"),
    "an owner beyond 32 bits": (extended(records(uid=b"4294967296")) + block(b"x") + END, r"entry x: owner 4294967296"),
    "an owner who is nobody": (extended(records(gid=b"4294967295")) + block(b"x") + END, r"entry x: group 4294967295"),
    "a negative owner": (block(b"x", at_108=b"\xff" * 8) + END, r"entry x: owner -1"),
    "a number of a million digits": (extended(records(size=b"9" * 1_000_000)) + block(b"x") + END, r"entry x: b'9+' where a number"),
    "a time of a million digits": (extended(records(mtime=b"9" * 1_000_000)) + block(b"x") + END, r"entry x: b'9+' where a time"),
    "a time that no file system has": (extended(records(mtime=b"9" * 20)) + block(b"x") + END, r"entry x: a time that"),
    "a device's number beyond 12 bits": (block(b"c", b"3", at_329=b"0010000\0") + END, r"entry c: device 4096"),
    "records without an end": (extended(b"99 path=a\n") + block(b"x") + END, r"an extended record that is not in its form"),
    "records without a length": (extended(b"path=a\n") + block(b"x") + END, r"not in its form"),
    "records without a line's end": (extended(b"9 path=ab") + block(b"x") + END, r"not in its form"),
    "records that do not go on": (extended(records(path=b"a") + b"no length=a\n") + block(b"x") + END, r"not in its form"),
    "records that go backwards": (extended(b"0 path=a\n") + block(b"x") + END, r"not in its form"),
    "records of many MiB": (block(b"x", b"x", 1 << 21) + bytes(1 << 21) + END, r"size of an extended header 2097152"),
    "an attribute's value of 64 KiB": (
        extended(record(b"SCHILY.xattr.user.a", bytes(65536))) + block(b"x") + END,
        r"entry x: .* 65536 bytes",
    ),
    "an attribute's name of 256 bytes": (extended(record(b"SCHILY.xattr.user." + b"a" * 251, b"")) + block(b"x") + END, r"a name of 256"),
    "attributes of 256 KiB": (
        extended(b"".join(record(b"SCHILY.xattr.user.%d" % n, bytes(60_000)) for n in range(5))) + block(b"x") + END,
        r"entry x: too many extended attributes",
    ),
    "an attribute that is not base64": (extended(record(b"LIBARCHIVE.xattr.user.a", b"!")) + block(b"x") + END, r"attribute that is not"),
    "a sparse map that goes back": (sparse_1_0(b"2\n4096\n512\n0\n512\n", 8192, 1024), r"entry s: .* does not go upwards"),
    "a sparse map with negative data": (sparse_1_0(b"1\n0\n-1\n", 8192), r"does not go upwards"),
    "a sparse map beyond the file": (sparse_1_0(b"1\n8192\n512\n", 8192, 512), r"of 8192 bytes whose map goes on to 8704"),
    "a sparse map with more than is stored": (sparse_1_0(b"1\n0\n1024\n", 8192, 512), r"map and data are not of one size"),
    "a sparse map of letters": (sparse_1_0(b"1\nx\n1\n", 8192), r"b'x' where a number"),
    "a sparse map that promises a billion pieces": (sparse_1_0(b"999999999\n", 8192), r"number of pieces 999999999"),
    "a sparse map without its end": (sparse_1_0(b"5\n0\n", 8192), r"map is not in its form"),
    "a sparse map of one endless line": (sparse_1_0(b"1" * 4096, 8192), r"map is not in its form"),
    "a negative size of a sparse file": (sparse_1_0(b"0\n", -1), r"size -1"),
    "a sparse map of an odd number": (
        extended(records(GNU__sparse__map=b"1,2,3", GNU__sparse__size=b"9")) + block(b"s") + END,
        r"map is not in its form",
    ),
    "an old sparse map cut off": (block(b"s", b"S", at_482=b"\x01") + END[:100], r"entry s: the archive is cut off"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_entrys_name(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(BadArchive, match=message):
        convert(io.BytesIO(data), io.BytesIO())


def test_the_errors_entry_is_the_name_as_it_is_and_its_sentence_steers_no_terminal() -> None:
    with pytest.raises(BadArchive) as caught:
        convert(io.BytesIO(archive(Item("f"), Item("f/\x1b[2Jx"))), io.BytesIO())
    assert caught.value.entry == b"f/\x1b[2Jx"
    assert "\x1b" not in str(caught.value)
    assert "x1b[2Jx" in str(caught.value)


SMALL = Limits(archive_bytes=1 << 20, free_bytes=1 << 16, ratio=10, image_bytes=8 << 20, entries=20, depth=5, kept_bytes=2000)
TOO_MUCH = {
    "files": (archive(*(Item(str(n)) for n in range(21))), r"entry 20: the layer has more than 20 files"),
    "implied folders": (archive(*(Item(f"{n}/{n}/{n}") for n in range(10))), r"more than 20 files"),
    "depth": (archive(Item("1/2/3/4/5/6")), r"entry 1/2/3/4/5/6: more than 5 folders"),
    "depth by links": (archive(folder("1/2/3"), link("l", "1/2/3"), Item("l/4/5/6")), r"entry l/4/5/6: more than 5 folders"),
    "names": (archive(*(Item("n" * 200 + str(n)) for n in range(11))), r"take more than 2000 bytes"),
    "links": (archive(link("l", "t" * 2001)), r"entry l: .* take more than 2000 bytes"),
    "attributes": (extended(record(b"SCHILY.xattr.user.a", bytes(2000))) + block(b"x") + END, r"entry x: .* take more than 2000 bytes"),
    "the map of a sparse file": (sparse_1_0(b"0\n", 1 << 40), r"entry s: .* take more than 2000 bytes"),
    "bytes": (archive(Item("a", bytes(1 << 20))), r"the archive has more than 1048576 bytes"),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_what_costs_too_much_is_refused(what: str) -> None:
    data, message = TOO_MUCH[what]
    with pytest.raises(BadArchive, match=message):
        convert(io.BytesIO(data), io.BytesIO(), SMALL)


def test_an_image_that_becomes_too_large_is_refused() -> None:
    limits = replace(LIMITS, image_bytes=1 << 20)
    with pytest.raises(BadArchive, match="the layer's image would have more than 1048576 bytes"):
        convert(io.BytesIO(archive(*(Item(str(n), b"x") for n in range(300)))), io.BytesIO(), limits)


def test_at_its_limits_a_layer_is_taken() -> None:
    made(archive(*(Item(str(n)) for n in range(20))), SMALL)
    made(archive(Item("1/2/3/4/5")), SMALL)
