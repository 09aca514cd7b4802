"""Archives of images, as they come: which kind one is, and where in it an image's parts are.

Nothing of an archive is ever unpacked: an image's parts are found by name among its entries and read where they lie.
"""

import io
import os
import stat
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Final, Protocol, final

import msgspec

from utilityvm.images.formats import MAX_JSON, MAX_LAYERS, Descriptor, Index, decode
from utilityvm.images.names import Reference, parse
from utilityvm.images.outer import Place, entries, follow
from utilityvm.kit.errors import BadArchive, InvalidOptions, Problem
from utilityvm.kit.text import printable

OCI_INDEX_FILE: Final = "index.json"
OCI_LAYOUT_FILE: Final = "oci-layout"
DOCKER_MANIFEST_FILE: Final = "manifest.json"
REF_NAME: Final = "org.opencontainers.image.ref.name"
CONTAINERD_NAME: Final = "io.containerd.image.name"
"""Annotations of an archive's index that name an image: a tag or a name, and a whole name."""

_MAX_IMAGES: Final = 1000


class Kind(StrEnum):
    """What an archive is: an OCI layout, what ``docker save`` writes, or the files of a root file system."""

    OCI = "oci"
    DOCKER = "docker"
    ROOTFS = "rootfs"


class Archive(Protocol):
    """Something that has files by name."""

    @property
    def what(self) -> str:
        """What it is called in errors."""

    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    def open(self, name: str) -> tuple[IO[bytes], int]:
        """Return a stream of its content, and its size."""


class _DockerImage(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_LAYERS)]
    repo_tags: list[str] | None = None


class _DockerImages(msgspec.Struct, frozen=True):
    images: Annotated[list[_DockerImage], msgspec.Meta(max_length=_MAX_IMAGES)]


class DockerImage(msgspec.Struct, frozen=True):
    """An image of docker's archive: the names of its files there, and the names that it had."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


@final
class TarArchive:
    """A tar archive in an open file that can seek."""

    def __init__(self, file: IO[bytes], what: str, found: Mapping[str, Place]) -> None:
        self.what, self._file, self._found = what, file, found

    def has(self, name: str) -> bool:
        """See `Archive`."""
        return follow(self._found, name, self.what) is not None

    def open(self, name: str) -> tuple[IO[bytes], int]:
        """See `Archive`."""
        place = follow(self._found, name, self.what)
        if place is None:
            raise BadArchive(f"{self.what}: has no entry {printable(name, 200)}")
        return io.BufferedReader(_Slice(self._file, place.offset, place.size), 1 << 20), place.size


@final
class FolderArchive:
    """An image's layout as a folder."""

    def __init__(self, folder: Path) -> None:
        self.what, self._folder = str(folder), folder

    def has(self, name: str) -> bool:
        """See `Archive`."""
        return (self._folder / name).is_file()

    def open(self, name: str) -> tuple[IO[bytes], int]:
        """See `Archive`."""
        try:
            fd = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would keep us waiting
        except FileNotFoundError as error:
            raise BadArchive(f"{self.what}: has no file {printable(name, 200)}") from error
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            os.close(fd)
            raise BadArchive(f"{self.what}: {printable(name, 200)} is not a file")
        return os.fdopen(fd, "rb"), about.st_size


@final
class _Slice(io.RawIOBase):
    """A part of a file. It keeps its own place: several may be read in turn."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self._file, self._begin, self._place, self._end = file, offset, offset, offset + size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: self._begin, os.SEEK_CUR: self._place, os.SEEK_END: self._end}[whence]
        self._place = min(max(self._begin, base + offset), self._end)
        return self._place - self._begin

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        self._file.seek(self._place)
        data = self._file.read(min(len(buffer), self._end - self._place))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def look(file: IO[bytes], what: str) -> tuple[Kind, TarArchive]:
    """Return which kind of tar archive `file` has, and its entries. `what` names it in errors.

    Raises:
        BadArchive: it is not a tar archive, or one that cannot be read.
    """
    found: dict[str, Place] = {}
    for name, place in entries(file, what):
        if not _may_be_of_an_image(name):
            return Kind.ROOTFS, TarArchive(file, what, {})
        if place is not None:
            found[name] = place
    archive = TarArchive(file, what, found)
    return kind_of(archive) or Kind.ROOTFS, archive


def kind_of(archive: Archive) -> Kind | None:
    """Return the kind of an image's archive, None when it is none. What is both is read as OCI's, which has digests for all."""
    if archive.has(OCI_LAYOUT_FILE) and archive.has(OCI_INDEX_FILE):
        return Kind.OCI
    return Kind.DOCKER if archive.has(DOCKER_MANIFEST_FILE) else None


def _may_be_of_an_image(name: str) -> bool:
    """Whether an archive of an image may have such an entry: a root file system's first entries say otherwise."""
    first, _, rest = name.partition("/")
    if first in {".", "blobs", OCI_LAYOUT_FILE, "repositories"}:
        return True
    is_id = len(first) == 64 and not first.strip("0123456789abcdef")
    return is_id or (not rest and first.endswith((".json", ".tar")))


def read(archive: Archive, name: str) -> bytes:
    """Return a small file of an archive.

    Raises:
        BadArchive: it is not there, or too large.
    """
    file, size = archive.open(name)
    with file:
        if size > MAX_JSON:
            raise BadArchive(f"{archive.what}: {name} has more than {MAX_JSON} bytes")
        return file.read(size)


def oci_images(archive: Archive) -> Index:
    """Return what an OCI archive's index lists.

    Raises:
        BadArchive: it cannot be read.
    """
    return decode(read(archive, OCI_INDEX_FILE), Index, f"{archive.what}: {OCI_INDEX_FILE}")


def docker_images(archive: Archive) -> list[DockerImage]:
    """Return what a docker archive lists.

    Raises:
        BadArchive: it cannot be read.
    """
    data = read(archive, DOCKER_MANIFEST_FILE)
    listed = decode(b'{"images": %b}' % data, _DockerImages, f"{archive.what}: {DOCKER_MANIFEST_FILE}").images
    return [DockerImage(image.config, image.layers, tuple(image.repo_tags or ())) for image in listed]


def blob_name(digest: str) -> str:
    """Return the name of a blob in an OCI archive."""
    return f"blobs/{digest.replace(':', '/')}"


def names_of(entry: Descriptor) -> tuple[str, ...]:
    """Return the names that an entry of an OCI archive's index gives to its image."""
    said = entry.annotations or {}
    return tuple(filter(None, (said.get(CONTAINERD_NAME), said.get(REF_NAME))))


def pick(images: Sequence[Sequence[str]], name: Reference | None, what: str) -> int:
    """Return which of some images is meant, each given as its names: the only one, or the one that is called `name`.

    Raises:
        BadArchive: there is none.
        InvalidOptions: there are several, and none or more than one has that name.
    """
    if not images:
        raise BadArchive(f"{what}: has no image")
    if len(images) == 1:
        return 0
    fit = [number for number, names in enumerate(images) if name and any(_is_called(said, name) for said in names)]
    if len(fit) == 1:
        return fit[0]
    there = ", ".join(said for names in images for said in names) or "without names"
    message = f"{what}: has {len(images)} images: {printable(there, 500)}"
    raise InvalidOptions(message, problems=[Problem("$.name", "name", message)], hint="say which: import it under one of these names")


def own_name(names: Sequence[str], what: str) -> Reference:
    """Return the name that an archive gives to its image.

    Raises:
        InvalidOptions: it gives none, or only a tag.
    """
    for said in names:
        try:
            if ":" in said or "/" in said:
                return parse(said)
        except InvalidOptions:
            continue
    message = f"{what}: does not say what its image is called"
    raise InvalidOptions(message, problems=[Problem("$.name", "name", message)], hint="give it a name: uvm import FILE NAME")


def _is_called(said: str, name: Reference) -> bool:
    if said == name.tag:
        return True
    try:
        return parse(said) == name
    except InvalidOptions:
        return False
