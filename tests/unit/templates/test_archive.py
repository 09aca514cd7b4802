"""Templates as archives: what is written is read again, holes included, and what is anything else is refused with what is wrong."""

import hashlib
import io
import os
import random
import shutil
import tarfile
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.unit.templates.kept import MACHINE, SIZE, STATE, keep, manifest
from utilityvm.images.header import BLOCK
from utilityvm.kit.errors import BadArchive, Corrupt, Exists, HostError, InvalidOptions, NotFound, Unsupported, UtilityVMError
from utilityvm.kit.files import digest, identity
from utilityvm.kit.proc import run_tool
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.store.devices import Devices, DiskRecord, FileRecord, PmemRecord
from utilityvm.store.layout import Layout
from utilityvm.store.templates import MAX_MANIFEST, Draft, Manifest, opened, read, remove
from utilityvm.templates import archive
from utilityvm.templates.archive import DIGESTS, MAX_SPARSE, MAX_STATE, SMALLEST_HOLE, joined, read_template, write_template
from utilityvm.templates.template import Template, import_template


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of templates, with one in it."""
    return keep(tmp_path / "templates", tmp_path)


def exported(folder: Path) -> bytes:
    out = io.BytesIO()
    write_template(folder, "warm", out)
    return out.getvalue()


HERE = Layout(Path("/nowhere"), Path("/nowhere"), Path("/boot/files/of/this/host"))


def bring(folder: Path, data: bytes, name: str = "other") -> str:
    return read_template(folder, io.BytesIO(data), name, HERE)


def members(data: bytes) -> dict[str, bytes]:
    """The archive's files as they lie in it, each with its headers."""
    found, at = {}, 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            end = member.offset_data + member.size if not member.sparse else tar.offset
            end += -end % BLOCK
            found[member.name] = data[at:end]
            at = end
    return found


def test_a_template_comes_back_from_its_archive_with_its_holes(folder: Path) -> None:
    data = exported(folder)
    assert len(data) < 256 << 10
    assert bring(folder, data) == "other"
    assert bring(folder / "elsewhere", data, "") == "warm"
    was, now = read(folder, "warm"), read(folder, "other")
    assert now == structs.replace(was, id="other", options=structs.replace(was.options, id="other"))
    assert read(folder / "elsewhere", "warm") == was
    with opened(folder, "warm") as first, opened(folder, "other") as second:
        assert os.pread(first.memory, SIZE, 0) == os.pread(second.memory, SIZE, 0)
        assert os.pread(second.state, 1 << 20, 0) == STATE
        assert os.fstat(second.memory).st_blocks * 512 <= 4 * SMALLEST_HOLE
    assert (folder / "other" / "memory").stat().st_mode & 0o777 == 0o444


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar")
def test_tar_unpacks_it_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "warm.tar").write_bytes(exported(folder))
    assert run_tool(["tar", "-tf", str(tmp_path / "warm.tar")], within=30).split() == ["manifest.json", "state", "memory", DIGESTS]
    (out := tmp_path / "out").mkdir()
    run_tool(["tar", "-C", str(out), "-xSf", str(tmp_path / "warm.tar")], within=30)
    assert (out / "memory").read_bytes() == (folder / "warm" / "memory").read_bytes()
    assert (out / "state").read_bytes() == STATE


def test_where_its_boot_files_are_elsewhere_those_of_this_host_take_their_place(folder: Path) -> None:
    data = exported(folder)
    bring(folder, data, "here")
    shutil.move(folder, moved := folder.parent / "moved")
    options = read(moved, "warm").options
    assert Path(options.boot_files_path).is_dir()
    with Draft(moved, "away") as draft:
        os.ftruncate(draft.memory, SIZE)
        draft.keep(manifest(moved / "nowhere", id="away", state_sha256=hashlib.sha256(b"").hexdigest()))
    out = io.BytesIO()
    write_template(moved, "away", out)
    bring(moved, out.getvalue(), "back")
    assert read(moved, "back").options.boot_files_path == "/boot/files/of/this/host"


def test_a_template_that_is_not_there_cannot_be_written(folder: Path) -> None:
    with pytest.raises(NotFound, match="^template absent: there is none in "):
        write_template(folder, "absent", io.BytesIO())


# -- what is refused ----------------------------------------------------------------------------------------------------


def refused(folder: Path, data: bytes, kind: type[UtilityVMError], said: str, name: str = "other") -> None:
    """Refused in these words, and nothing is left of it."""
    with pytest.raises(kind, match=said):
        bring(folder, data, name)
    assert [path.name for path in folder.iterdir()] == ["warm"]


def test_what_is_no_archive_is_refused(folder: Path) -> None:
    refused(folder, b"", BadArchive, "^at the archive's begin: the archive is cut off, after 0 bytes$")
    refused(folder, b"x" * 5000, BadArchive, "^at the archive's begin: ")
    refused(folder, bytes(2 * BLOCK), BadArchive, "^it ends where manifest.json should be: no archive of a template$")


def test_an_archive_that_is_cut_off_is_refused_wherever_it_is(folder: Path) -> None:
    data = exported(folder)
    for end in range(0, len(data) - 2 * BLOCK, 3001):
        refused(folder, data[:end], BadArchive, "cut off|not in its form")


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (["state", "manifest.json", "memory", DIGESTS], "^'state' stands where manifest.json should be: no archive of a template$"),
        (["manifest.json", "memory", "state", DIGESTS], "^'memory' stands where state should be"),
        (["manifest.json", "state", "state", "memory", DIGESTS], "^'state' stands where memory should be"),
        (["manifest.json", "state", DIGESTS], "^'digests.json' stands where memory should be"),
        (["manifest.json", "state", "memory"], "^it ends where digests.json should be"),
        (["manifest.json", "state", "memory", DIGESTS, "state"], "^'state' stands where the end should be"),
    ],
)
def test_files_that_are_not_in_their_places_are_refused(folder: Path, order: list[str], said: str) -> None:
    parts = members(exported(folder))
    refused(folder, b"".join(parts[name] for name in order) + bytes(2 * BLOCK), BadArchive, said)


def test_bytes_behind_the_end_are_refused(folder: Path) -> None:
    refused(folder, exported(folder) + b"x", BadArchive, "bytes that are not zero behind the archive's end$")


@pytest.mark.parametrize("name", ["state", "memory", "manifest"])
def test_what_is_not_as_it_was_written_is_refused(folder: Path, name: str) -> None:
    data = bytearray(exported(folder))
    place = {"state": data.index(b"of its devices"), "memory": data.index(b"\x01" * 64), "manifest": data.index(b"1.5")}[name]
    data[place] += 1
    refused(folder, bytes(data), BadArchive, f"^{name}: is not as it was written: its SHA-256 is [0-9a-f]{{64}}, and digests.json has")


def test_memory_whose_data_were_moved_is_refused(folder: Path) -> None:
    data = exported(folder)
    assert data.count(b"20971520\n") == 1
    refused(folder, data.replace(b"20971520\n", b"20971521\n"), BadArchive, "^memory: is not as it was written")


def packed(folder: Path, name: str, data: bytes, **head: object) -> bytes:
    """The archive with another file in the place of one."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in head.items():
        setattr(info, key, value)
    parts = members(exported(folder))
    parts[name] = info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % BLOCK)
    return b"".join(parts.values()) + bytes(2 * BLOCK)


def encoded(found: Manifest) -> bytes:
    return msgspec.json.encode(found)


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        (b"{}", Corrupt, "^the archive's template: manifest.json: Object missing required field"),
        (b'{"version": 2, "id": "\xff"}', Corrupt, "^the archive's template: manifest.json: 'utf-8' codec can't decode byte"),
        (b'{"version": 2, "id": ' + b"[" * 50_000, Corrupt, "^the archive's template: manifest.json: maximum recursion depth"),
        (b'{"version": 1, "\x1b[2J": 1}', Corrupt, "^the archive's template: manifest.json: [ -~]*$"),
        (b'{"version": 99}', Unsupported, "^the archive's template: is of version 99, and this one knows version 2$"),
        (bytes(MAX_MANIFEST + 1), BadArchive, f"^manifest.json: has holes, or {MAX_MANIFEST + 1} bytes, more than"),
        ({"options": OptionsLCOW()}, BadArchive, "^manifest.json: it is no template's$"),
        ({"machine": structs.replace(MACHINE, memory_bytes=MAX_SPARSE + 1)}, BadArchive, "^manifest.json: it is no template's$"),
        (
            {"machine": structs.replace(MACHINE, memory_bytes=9)},
            BadArchive,
            "^memory: has [0-9]+ bytes, where the manifest wants a map of 9$",
        ),
        ({"options": OptionsLCOW(is_template=True, processor_count=-1)}, InvalidOptions, "processor_count"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    folder: Path, wrong: bytes | dict[str, object], kind: type[UtilityVMError], said: str
) -> None:
    data = wrong if isinstance(wrong, bytes) else encoded(structs.replace(manifest(folder.parent), **wrong))
    refused(folder, packed(folder, "manifest.json", data), kind, said)


def test_other_files_than_ours_are_refused(folder: Path) -> None:
    refused(folder, packed(folder, "memory", b"x" * 4096), BadArchive, "^memory: has 4096 bytes and no map, where the manifest wants")
    refused(folder, packed(folder, "state", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), BadArchive, "^'state' stands where state")
    refused(folder, packed(folder, "state", b"another"), BadArchive, "^state: is not as it was written")
    refused(folder, packed(folder, DIGESTS, b"[]"), BadArchive, "^digests.json: Expected `object`, got `array`")
    refused(folder, packed(folder, DIGESTS, b'{"state": "\xff"}'), BadArchive, "^digests.json: 'utf-8' codec")
    refused(
        folder,
        packed(folder, DIGESTS, bytes((4 << 20) + 1)),
        BadArchive,
        "^digests.json: has holes, or 4194305 bytes, more than the 4194304",
    )


def test_a_state_whose_template_had_another_is_refused(folder: Path) -> None:
    found = manifest(folder.parent, state_sha256="0" * 64)
    parts = members(packed(folder, "manifest.json", encoded(found)))
    digests = archive.Digests(
        manifest=hashlib.sha256(encoded(found)).hexdigest(),
        state=hashlib.sha256(STATE).hexdigest(),
        memory=msgspec.json.decode(parts[DIGESTS][BLOCK:].rstrip(b"\0"))["memory"],
    )
    info = tarfile.TarInfo(DIGESTS)
    info.size = len(data := msgspec.json.encode(digests))
    parts[DIGESTS] = info.tobuf() + data + bytes(-len(data) % BLOCK)
    refused(folder, b"".join(parts.values()) + bytes(2 * BLOCK), BadArchive, "^state: is not that of the template$")


def test_a_state_that_is_too_large_is_refused_on_both_ways(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = exported(folder)
    monkeypatch.setattr(archive, "MAX_STATE", 100)
    refused(folder, data, BadArchive, f"^state: has holes, or {len(STATE)} bytes, more than the 100 that it may have$")
    with pytest.raises(HostError, match=f"^template warm: the state of its devices has {len(STATE)} bytes, and an archive takes 100$"):
        exported(folder)
    assert MAX_STATE == 256 << 20


def test_a_name_that_is_taken_or_none_is_refused(folder: Path) -> None:
    data = exported(folder)
    refused(folder, data, Exists, "^template warm: there is one in ", name="")
    refused(folder, data, InvalidOptions, r"^'\.\./x' cannot name a template", name="../x")


def test_a_disk_that_is_full_is_told_and_nothing_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes, _offset: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "write_all", full)
    refused(folder, exported(folder), HostError, "^template other: cannot be written in .*: No space left on device$")


def test_an_archive_that_was_changed_in_any_byte_is_refused_or_still_the_same_template(folder: Path) -> None:
    data, whole = exported(folder), (folder / "warm" / "memory").read_bytes()
    print(f"seed {(seed := int.from_bytes(os.urandom(4)))}")
    chosen = random.Random(seed)  # noqa: S311 (which bytes are changed)
    for _ in range(200):
        changed = bytearray(data)
        changed[chosen.randrange(len(data))] ^= chosen.randrange(1, 256)
        try:
            bring(folder, bytes(changed))
        except UtilityVMError:
            assert not (folder / "other").exists()
        else:
            assert (folder / "other" / "memory").read_bytes() == whole
            assert (folder / "other" / "state").read_bytes() == STATE
            remove(folder, "other")
    assert [path.name for path in folder.iterdir()] == ["warm"]


# -- as files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def warm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Template:
    own = Layout(folder.parent, folder.parent / "cache", folder.parent)
    monkeypatch.setattr(Layout, "of_user", lambda: own)
    made = read(folder, "warm")
    return Template(made.id, made.options, made.created, folder / "warm")


async def test_a_template_is_a_file_and_comes_back_from_it(warm: Template, tmp_path: Path) -> None:
    await warm.export(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    other = await import_template(tmp_path / "file", "other")
    assert (other.id, other.created, other.options.memory_size_in_mb) == ("other", warm.created, warm.options.memory_size_in_mb)
    await warm.remove()
    assert await import_template(str(tmp_path / "file")) == warm


async def test_a_file_that_cannot_be_written_or_read_is_told_and_nothing_is_left(warm: Template, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="^template warm: cannot be written to .*/absent/file: No such file or directory$"):
        await warm.export(tmp_path / "absent" / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(HostError, match="^template warm: cannot be written to .*/folder: Is a directory$"):
        await warm.export(tmp_path / "folder")
    with pytest.raises(HostError, match="/folder: cannot be read: Is a directory$"):
        await import_template(tmp_path / "folder")
    with pytest.raises(NotFound, match="/absent: no such file$"):
        await import_template(tmp_path / "absent")
    assert set(os.listdir(tmp_path)) == {"templates", "folder"}  # noqa: PTH208 (their names alone)


# -- holes --------------------------------------------------------------------------------------------------------------

PIECES = st.lists(st.tuples(st.integers(0, 4 * SMALLEST_HOLE), st.integers(1, 4 * SMALLEST_HOLE)), max_size=30)


@given(PIECES)
def test_joining_keeps_all_data_and_every_hole_that_is_large_enough(gaps: list[tuple[int, int]]) -> None:
    pieces, at = [], 0
    for gap, length in gaps:
        pieces.append((at + gap, length))
        at += gap + length
    joins = joined(pieces)
    assert all(any(offset <= begin and begin + length <= offset + more for offset, more in joins) for begin, length in pieces)
    holes = [second - (first + length) for (first, length), (second, _) in pairwise(joins)]
    assert all(hole >= SMALLEST_HOLE for hole in holes)
    assert len(holes) == sum(gap >= SMALLEST_HOLE for gap, _ in gaps[1:])


def test_where_there_would_be_too_many_pieces_larger_holes_are_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_EXTENTS", 4)
    pieces = [(number * (SMALLEST_HOLE + 4096), 4096) for number in range(10)]
    assert joined(pieces) == ((0, pieces[-1][0] + 4096),)


# -- devices ------------------------------------------------------------------------------------------------------------


def with_devices(folder: Path, layer: Path) -> Manifest:
    """Make a template `warm` with a disk that is written to, and a layer."""
    record = FileRecord(sha256=digest(layer), identity=identity(layer))
    disk = DiskRecord(controller=0, lun=1, host_path="warm:scsi0-1", read_only=False, content=("scsi0-1-0.raw",))
    devices = Devices(disks=(disk,), pmem=(PmemRecord(slot=0, host_path=str(layer), file=record),))
    machine = structs.replace(MACHINE, devices=devices)
    with Draft(folder, "disks") as draft:
        os.ftruncate(draft.memory, SIZE)
        os.pwrite(draft.state, STATE, 0)
        fd = draft.content("scsi0-1-0.raw")
        os.ftruncate(fd, 1 << 40)
        os.pwrite(fd, b"on the disk", 1 << 39)
        draft.keep(kept := manifest(folder.parent, name="disks", machine=machine))
    return kept


def test_disks_are_in_an_archive_and_files_that_are_read_must_be_here(folder: Path, tmp_path: Path) -> None:
    (layer := tmp_path / "layer.erofs").write_bytes(b"layer")
    was = with_devices(folder, layer)
    out = io.BytesIO()
    write_template(folder, "disks", out)
    assert len(out.getvalue()) < 256 << 10
    remove(folder, "disks")
    bring(folder, out.getvalue())
    assert read(folder, "other").machine == was.machine
    with opened(folder, "other") as made:
        assert os.pread(made.contents["scsi0-1-0.raw"], 11, 1 << 39) == b"on the disk"
        assert os.fstat(made.contents["scsi0-1-0.raw"]).st_size == 1 << 40
    remove(folder, "other")
    (here := Layout(tmp_path / "state", tmp_path, tmp_path)).layers.mkdir(parents=True)
    layer.rename(here.layers / layer.name)
    refused(folder, out.getvalue(), NotFound, f"^{layer}, which it reads, is gone")
    assert read_template(folder, io.BytesIO(out.getvalue()), "moved", here) == "moved"
    assert read(folder, "moved").machine.devices.pmem[0].host_path == str(here.layers / layer.name)
    remove(folder, "moved")
    layer.write_bytes(b"other")
    refused(folder, out.getvalue(), Unsupported, f"^{layer}, which it reads, is not what it was$")


@pytest.mark.parametrize("name", ["../x", "memory", "scsi0-0-0.vhdx", "scsi0-1-0.raw/x", ""])
def test_a_manifest_that_calls_a_disks_file_otherwise_is_corrupt(folder: Path, name: str) -> None:
    disk = DiskRecord(controller=0, lun=1, host_path="a", read_only=False, content=(name,))
    wrong = manifest(folder.parent, machine=structs.replace(MACHINE, devices=Devices(disks=(disk,))))
    refused(folder, packed(folder, "manifest.json", encoded(wrong)), Corrupt, "a disk's files cannot be called so")


def test_an_archive_without_a_disk_that_its_manifest_names_is_refused(folder: Path) -> None:
    disk = DiskRecord(controller=0, lun=1, host_path="a", read_only=False, content=("scsi0-1-0.raw",))
    wrong = manifest(folder.parent, machine=structs.replace(MACHINE, devices=Devices(disks=(disk,))))
    refused(folder, packed(folder, "manifest.json", encoded(wrong)), BadArchive, "^'digests.json' stands where scsi0-1-0.raw should be")
