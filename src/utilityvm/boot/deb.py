"""Unpack a Debian package (deb(5)) with nothing but the standard library: an `ar` archive, and in it a compressed tar archive of its files.

Nothing is written outside of the target folder, whatever the package says. A symbolic link to an absolute path is made to point to that
path below the target folder, as it would once the package is installed there; devices are left out.
"""

import io
import os
import shutil
import tarfile
import zlib
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from utilityvm.kit.errors import Corrupt, HostError, Unsupported

MAX_UNPACKED = 4 << 30
"""Most bytes that the files of one package may have."""

_MAGIC = b"!<arch>\n"
_HEADER = 60
_READABLE = {"", "gz", "bz2", "xz"}


def unpack(path: Path, into: Path) -> None:
    """Unpack the files of the package at `path` into the new folder `into`.

    Raises:
        Corrupt: it is no package, or one of its files would lie outside of `into`.
        Unsupported: it is compressed in a way that this Python cannot read.
    """
    into.mkdir(parents=True)
    with path.open("rb") as file:
        name, member = _data(file, path.name)
        compression = name.removeprefix("data.tar").removeprefix(".")
        if compression not in _READABLE and not hasattr(tarfile.TarFile, f"{compression}open"):
            raise Unsupported(f"{path.name}: {name} is compressed in a way that this Python cannot read")
        try:
            with tarfile.open(fileobj=member, mode="r|*") as archive:
                _extract(archive, into, path.name)
        except (tarfile.TarError, LZMAError, zlib.error, EOFError, UnicodeError) as error:
            raise Corrupt(f"{path.name}: {name} cannot be unpacked: {error}") from error


class _Part(io.RawIOBase):
    """`size` bytes of a file, from where it stands."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _data(file: BinaryIO, what: str) -> tuple[str, _Part]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise Corrupt(f"{what}: not a Debian package")
    while header := file.read(_HEADER):
        # name, time, owner, group, mode, size, magic: text, filled up with blanks
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58].strip()
        if len(header) < _HEADER or header[58:] != b"`\n" or not size.isdigit():
            raise Corrupt(f"{what}: not a Debian package: a header of its ar archive is damaged")
        if name.startswith("data.tar"):
            return name, _Part(file, int(size))
        file.seek(int(size) + int(size) % 2, io.SEEK_CUR)
    raise Corrupt(f"{what}: not a Debian package: it has no data.tar")


def _extract(archive: tarfile.TarFile, into: Path, what: str) -> None:
    folders, total = {PurePosixPath()}, 0
    for member in archive:
        path = _inside(member.name, what)
        total += member.size
        if total > MAX_UNPACKED:
            raise Corrupt(f"{what}: its files have more than {MAX_UNPACKED} bytes")
        try:
            _make_folders(path if member.isdir() else path.parent, into, folders)
            _write(archive, member, into, path, what)
        except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
            raise Corrupt(f"{what}: {member.name} cannot be unpacked beside what came before it: {error.strerror}") from error
        except OSError as error:
            raise HostError(f"{into / path}: cannot be written: {error.strerror}") from error


def _make_folders(path: PurePosixPath, into: Path, folders: set[PurePosixPath]) -> None:
    """Make what is missing of a path. Only folders of ours are walked through: where a link stands instead, making the folder fails."""
    for folder in [*reversed(path.parents), path]:
        if folder not in folders:
            (into / folder).mkdir()
            folders.add(folder)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, into: Path, path: PurePosixPath, what: str) -> None:
    if member.isreg():
        content = archive.extractfile(member)
        with (into / path).open("xb") as file:
            shutil.copyfileobj(content or io.BytesIO(), file, 1 << 20)
            os.fchmod(file.fileno(), 0o600 | member.mode & 0o755)
    elif member.issym():
        (into / path).symlink_to(_target(PurePosixPath(member.linkname), path, what))
    elif member.islnk():
        os.link(into / _inside(member.linkname, what), into / path, follow_symlinks=False)


def _target(target: PurePosixPath, link: PurePosixPath, what: str) -> str:
    """Return where a symbolic link shall point. Behind a name, ``..`` is refused: the name may be a link, and lead back to elsewhere."""
    if target.is_absolute():
        return os.path.relpath(_inside(str(target.relative_to("/")), what), link.parent)
    up = next((number for number, part in enumerate(target.parts) if part != ".."), len(target.parts))
    if up > len(link.parent.parts) or ".." in target.parts[up:]:
        raise Corrupt(f"{what}: {link} would point outside of the package's folder")
    return str(target)


def _inside(name: str, what: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Corrupt(f"{what}: {name} would lie outside of the package's folder")
    return path
