"""A template as one file: a tar archive with its manifest, its devices' state, its memory, what is on its disks, and the digests of all.

Memory and disks are sparse files in GNU's form, so that what the guest has never touched takes no room; `tar` unpacks them as well. Files
that clones only read, as layers of images, are not in it.
"""

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import field, structs

from utilityvm.images.feed import Feed
from utilityvm.images.header import BLOCK, MOST_EXTENTS, Extents
from utilityvm.images.tar import Entry, TarReader
from utilityvm.kit.errors import BadArchive, HostError, NotFound
from utilityvm.kit.files import extents, filled, pieces, settle, write_all
from utilityvm.kit.ids import check_name
from utilityvm.kit.text import printable
from utilityvm.options.rules import refuse_not_built, verify_bounds
from utilityvm.store.devices import Devices, find
from utilityvm.store.layout import Layout
from utilityvm.store.templates import MANIFEST, MAX_MANIFEST, MEMORY, STATE, Draft, Manifest, manifest_of, opened

DIGESTS: Final = "digests.json"
"""The archive's last file."""

MAX_STATE: Final = 256 << 20
"""Bytes of the devices' state in an archive."""

MAX_SPARSE: Final = 1 << 44
"""Bytes of a template's memory, or of a file of its disks, in an archive, with its holes."""

SMALLEST_HOLE: Final = 64 << 10
"""Bytes that a hole has at least; smaller ones are filled, for each takes a line of the map."""

_MAX_DIGESTS: Final = 4 << 20
_CHUNK: Final = 256 << 10
_REGULAR: Final = 0o100000


class Digests(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SHA-256 of the archive's other files as they lie in it: of the memory and each file of a disk the map, then the data."""

    manifest: str
    state: str
    memory: str
    contents: dict[str, str] = field(default_factory=dict)


def write_template(folder: Path, template_id: str, stream: IO[bytes]) -> None:
    """Write a template among those in `folder` to `stream`.

    Raises:
        NotFound, Corrupt, Unsupported: as `store.templates.opened`.
        HostError: it cannot be read. What `stream` cannot take is its own `OSError`.
    """
    with opened(folder, template_id) as template:
        manifest = msgspec.json.format(msgspec.json.encode(template.manifest)) + b"\n"
        _write(stream, MANIFEST, manifest)
        state = _read_state(template.state, template_id)
        _write(stream, STATE, state)
        memory = _write_sparse(stream, MEMORY, template.memory, template_id)
        contents = {name: _write_sparse(stream, name, fd, template_id) for name, fd in template.contents.items()}
        digests = Digests(manifest=_sha256(manifest), state=_sha256(state), memory=memory, contents=contents)
        _write(stream, DIGESTS, msgspec.json.encode(digests) + b"\n")
        stream.write(bytes(2 * BLOCK))


def export_to(folder: Path, template_id: str, path: Path) -> None:
    """Write a template as the file `path`, which is whole then, and its owner's alone, or as it was before.

    Raises:
        HostError: it cannot be written.
        UtilityVMError: as `write_template`.
    """
    try:
        fd, written = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "wb") as file:
                write_template(folder, template_id, file)
                settle(file, Path(written), path, mode=0o600)
        except BaseException:
            Path(written).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise HostError(f"template {template_id}: cannot be written to {path}: {error.strerror}") from error


def import_from(folder: Path, path: Path, name: str, layout: Layout) -> str:
    """Make a template of the file `path`; see `read_template`.

    Raises:
        NotFound: there is no such file.
        UtilityVMError: as `read_template`.
    """
    try:
        with path.open("rb") as file:
            return read_template(folder, file, name, layout)
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such file") from error
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}") from error


def read_template(folder: Path, stream: IO[bytes], name: str, layout: Layout) -> str:
    """Make a template of an archive that `write_template` has written, and return its id: `name`, or if that is empty the one it had.

    `layout` is this host's: its boot files take the place of those that are not here, for a clone compares their digests anyway, and its
    layers of images that of layers that are elsewhere.

    Raises:
        InvalidOptions: `name` can be none; or its options make no sense here.
        Exists: there is a template of that name.
        NotFound: a layer, or another file that its clones read, is not on this host.
        Unsupported: such a file is another one here.
        Corrupt: it is no such archive, or not as it was written; the text says where.
        Unsupported: another version of ours wrote it.
        HostError: it cannot be read or written. Nothing is left of it then.
    """
    reader = TarReader(Feed(iter(lambda: stream.read(_CHUNK), b"")))
    entries = iter(reader)
    data = _small(reader, entries, MANIFEST, MAX_MANIFEST)
    manifest = _checked(manifest_of(data, "the archive's template"), name, layout)
    with Draft(folder, manifest.id) as draft:
        try:
            state = _small(reader, entries, STATE, MAX_STATE)
            write_all(draft.state, state, 0)
            memory = _read_sparse(reader, _expected(entries, MEMORY), draft.memory, manifest.machine.memory_bytes)
            contents = {each: _read_sparse(reader, _expected(entries, each), draft.content(each)) for each in manifest.contents}
        except OSError as error:
            raise HostError(f"template {manifest.id}: cannot be written in {folder}: {error.strerror}") from error
        found = Digests(manifest=_sha256(data), state=_sha256(state), memory=memory, contents=contents)
        _check_digests(_small(reader, entries, DIGESTS, _MAX_DIGESTS), found)
        if _sha256(state) != manifest.state_sha256:
            raise BadArchive(f"{STATE}: is not that of the template", entry=STATE.encode())
        for more in entries:
            raise _out_of_place(more, "the end")
        draft.keep(manifest)
    return manifest.id


def _write(stream: IO[bytes], name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    stream.write(info.tobuf(tarfile.PAX_FORMAT))
    stream.write(data)
    stream.write(bytes(-len(data) % BLOCK))


def _write_sparse(stream: IO[bytes], name: str, file: int, template_id: str) -> str:
    size = os.fstat(file).st_size
    found = joined(extents(file))
    text = _map_text((*found, (size, 0)))
    info, stored = tarfile.TarInfo(f"GNUSparseFile.0/{name}"), sum(length for _, length in found)
    info.size, info.mode = len(text) + stored, 0o600
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": str(size)}
    stream.write(info.tobuf(tarfile.PAX_FORMAT))
    stream.write(text)
    digest, left = hashlib.sha256(text), stored
    for offset, length in found:
        for _, piece in pieces(file, offset, length):
            digest.update(piece)
            stream.write(piece)
            left -= len(piece)
    if left:
        raise HostError(f"template {template_id}: its {name} became shorter while it was read")
    stream.write(bytes(-stored % BLOCK))
    return digest.hexdigest()


def joined(found: Iterable[tuple[int, int]]) -> Extents:
    """Join pieces of data with the small holes between them, and with larger ones where there would be more than a map may have."""
    left, smallest = list(found), SMALLEST_HOLE
    while True:
        kept: list[tuple[int, int]] = []
        for offset, length in left:
            if kept and offset - sum(kept[-1]) < smallest:
                kept[-1] = (kept[-1][0], offset + length - kept[-1][0])
            else:
                kept.append((offset, length))
        if len(kept) < MOST_EXTENTS:
            return tuple(kept)
        left, smallest = kept, 2 * smallest


def _map_text(found: Extents) -> bytes:
    lines = [str(len(found)), *(str(number) for extent in found for number in extent)]
    text = "".join(f"{line}\n" for line in lines).encode()
    return text + bytes(-len(text) % BLOCK)


def _read_state(fd: int, template_id: str) -> bytes:
    if (size := os.fstat(fd).st_size) > MAX_STATE:
        raise HostError(f"template {template_id}: the state of its devices has {size} bytes, and an archive takes {MAX_STATE}")
    return b"".join(piece for _, piece in pieces(fd, 0, size))


def _expected(entries: Iterator[Entry], name: str) -> Entry:
    entry = next(entries, None)
    if entry is None:
        raise BadArchive(f"it ends where {name} should be: no archive of a template")
    if entry.name != name.encode() or entry.mode & 0o170000 != _REGULAR:
        raise _out_of_place(entry, name)
    return entry


def _out_of_place(entry: Entry, wanted: str) -> BadArchive:
    shown = ascii(entry.name.decode(errors="backslashreplace"))
    return BadArchive(f"{shown} stands where {wanted} should be: no archive of a template", entry=entry.name)


def _small(reader: TarReader, entries: Iterator[Entry], name: str, most: int) -> bytes:
    entry = _expected(entries, name)
    if entry.extents is not None or entry.size > most:
        raise BadArchive(f"{name}: has holes, or {entry.size} bytes, more than the {most} that it may have", entry=entry.name)
    out = io.BytesIO()
    for piece in reader.data():
        out.write(piece)
    return out.getvalue()


def _read_sparse(reader: TarReader, entry: Entry, target: int, size: int | None = None) -> str:
    """Read a file with its map, of `size` bytes, or when that is None of any."""
    if entry.extents is None or entry.size > MAX_SPARSE or size not in {None, entry.size}:
        said = f"has {entry.size} bytes{'' if entry.extents is not None else ' and no map'}"
        wanted = f"at most {MAX_SPARSE}" if size is None else size
        raise BadArchive(f"{entry.name.decode()}: {said}, where the manifest wants a map of {wanted}", entry=entry.name)
    os.ftruncate(target, entry.size)
    digest, data = hashlib.sha256(_map_text(entry.extents)), reader.data()
    places = iter(entry.extents)
    offset, left = 0, 0
    for piece in data:
        digest.update(piece)
        while piece:
            while not left:
                offset, left = next(places)
            part, piece = piece[:left], piece[left:]  # noqa: PLW2901 (what is left of it)
            for first, last in filled(part):
                write_all(target, part[first:last], offset + first)
            offset, left = offset + len(part), left - len(part)
    return digest.hexdigest()


def _checked(manifest: Manifest, name: str, layout: Layout) -> Manifest:
    """Return the manifest of the template that is made: its name, and what its options may be."""
    called = name or manifest.id
    check_name(called, f"{called!r} cannot name a template", "$.id", "id")
    if not 0 < manifest.machine.memory_bytes <= MAX_SPARSE or not manifest.options.is_template:
        raise BadArchive(f"{MANIFEST}: it is no template's", entry=MANIFEST.encode())
    options = structs.replace(manifest.options, id=called)
    if not Path(options.boot_files_path).is_dir():
        options = structs.replace(options, boot_files_path=str(layout.boot_files))
    verify_bounds(options)
    refuse_not_built(options)
    machine = structs.replace(manifest.machine, devices=_here(manifest.machine.devices, layout.layers))
    return structs.replace(manifest, id=called, options=options, machine=machine)


def _here(devices: Devices, layers: Path) -> Devices:
    """Return what its clones will have: the files that they only read, as they are on this host."""
    disks = tuple(disk if disk.content else find(disk, layers, moved=True) for disk in devices.disks)
    return structs.replace(devices, disks=disks, pmem=tuple(find(device, layers, moved=True) for device in devices.pmem))


def _check_digests(data: bytes, found: Digests) -> None:
    try:
        said = msgspec.json.decode(data, type=Digests)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadArchive(f"{DIGESTS}: {printable(str(error), 256)}", entry=DIGESTS.encode()) from error
    for name, ours in _each(found).items():
        theirs = printable(_each(said).get(name, "none"), 64)
        if ours != theirs:
            raise BadArchive(f"{name}: is not as it was written: its SHA-256 is {ours}, and {DIGESTS} has {theirs}")


def _each(digests: Digests) -> dict[str, str]:
    return {"manifest": digests.manifest, "state": digests.state, "memory": digests.memory, **digests.contents}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
