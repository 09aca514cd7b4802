import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.boot import cpio

NAMES = st.text("abcdefgh.-_", min_size=1, max_size=12)
ENTRIES = st.dictionaries(NAMES, st.binary(max_size=40)).map(lambda found: [cpio.file(name, data) for name, data in found.items()])


def read(data: bytes) -> list[tuple[dict[str, int], str, bytes]]:
    """Read an archive by the format's description, independently of the writer."""
    fields = ["ino", "mode", "uid", "gid", "nlink", "mtime", "size", "devmajor", "devminor", "rdevmajor", "rdevminor", "namesize", "check"]
    found: list[tuple[dict[str, int], str, bytes]] = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        values = dict(zip(fields, (int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)), strict=True))
        name = data[at + 110 : at + 110 + values["namesize"] - 1].decode()
        at += (110 + values["namesize"] + 3) & ~3
        content = data[at : at + values["size"]]
        at += (values["size"] + 3) & ~3
        if name == "TRAILER!!!":
            assert len(data) % 512 == 0
            assert not any(data[at:])
            return found
        found.append((values, name, content))


@given(ENTRIES)
def test_what_was_written_is_read_back_sorted(entries: list[cpio.Entry]) -> None:
    assert [(name, content) for _, name, content in read(cpio.archive(entries))] == sorted((entry.path, entry.data) for entry in entries)


@given(ENTRIES)
def test_the_order_of_the_entries_does_not_matter(entries: list[cpio.Entry]) -> None:
    assert cpio.archive(entries) == cpio.archive(reversed(entries))


@pytest.mark.parametrize(
    ("entry", "kind", "permissions"),
    [
        (cpio.folder("tmp", 0o1777), stat.S_IFDIR, 0o1777),
        (cpio.file("init", b"x", 0o755), stat.S_IFREG, 0o755),
        (cpio.link("sh", "busybox"), stat.S_IFLNK, 0o777),
        (cpio.character_device("console", 5, 1, 0o600), stat.S_IFCHR, 0o600),
    ],
)
def test_each_kind_has_its_mode(entry: cpio.Entry, kind: int, permissions: int) -> None:
    ((values, _, _),) = read(cpio.archive([entry]))
    assert stat.S_IFMT(values["mode"]) == kind
    assert stat.S_IMODE(values["mode"]) == permissions


def test_a_device_has_its_number_and_a_link_its_target() -> None:
    device, target = read(cpio.archive([cpio.character_device("console", 5, 1, 0o600), cpio.link("sh", "busybox")]))
    assert (device[0]["rdevmajor"], device[0]["rdevminor"]) == (5, 1)
    assert target[2] == b"busybox"


def test_nothing_of_the_building_host_is_in_an_archive() -> None:
    for values, _, _ in read(cpio.archive([cpio.file("a", b"1"), cpio.folder("b")])):
        assert (values["uid"], values["gid"], values["mtime"], values["devmajor"], values["devminor"]) == (0, 0, 0, 0, 0)


def test_every_entry_has_a_number_of_its_own() -> None:
    numbers = [values["ino"] for values, _, _ in read(cpio.archive([cpio.file(name, b"") for name in "abc"]))]
    assert numbers == [1, 2, 3]  # two files of one number would be hard links
