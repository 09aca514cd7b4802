"""Files that come out of a guest, as a tar stream, written to this host.

What the guest says is not believed: no path of the stream leaves the folder, and no symbolic link is followed, neither one that was there
nor one of the stream. Owners and rights beyond the nine of a mode stay behind, as with `docker cp`.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, final

import msgspec

from utilityvm.images.feed import Feed
from utilityvm.images.tar import Entry, TarReader
from utilityvm.kit.errors import BadArchive, HostError, OutputLimitExceeded

COPY_LIMIT: Final = 16 << 30
"""Bytes of files that a copy out of a sandbox writes to this host, unless it is told otherwise."""

MOST_ENTRIES: Final = 1 << 20
"""Files, folders and links that it writes."""

_BITS: Final = 0o777
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LATEST: Final = 1 << 62  # nanoseconds; what a file system cannot hold it rounds itself


class Copied(msgspec.Struct, frozen=True):
    """What was copied: so many files, folders and links, so many bytes of files. `left_out` are devices and pipes, which stay there."""

    entries: int
    size: int
    left_out: tuple[str, ...] = ()


def unpack(blocks: Iterator[bytes], folder: Path, rename: tuple[bytes, bytes] | None, limit: int) -> Copied:
    """Write what a tar stream has into `folder`; blocks.

    `rename` is the first part of all its paths, and what it is to be here; None writes all paths as they are. What is in the way of a file
    or a link is replaced, unless it is a folder. At most `limit` bytes of files are written.

    Raises:
        BadArchive: the stream is not in its form, or has a path that it must not have.
        OutputLimitExceeded: it has more than `limit` bytes of files; what was written stays.
        HostError: something cannot be written here.
    """
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{folder} cannot be opened: {error.strerror}") from error
    try:
        return _Unpacking(root, rename, limit).all_of(TarReader(Feed(blocks)))
    finally:
        os.close(root)


@final
class _Unpacking:
    def __init__(self, root: int, rename: tuple[bytes, bytes] | None, limit: int) -> None:
        self._root, self._rename, self._limit = root, rename, limit
        self._folders: list[tuple[list[bytes], Entry]] = []
        self._size = 0

    def all_of(self, reader: TarReader) -> Copied:
        count, left_out = 0, []
        for entry in reader:
            if (count := count + 1) > MOST_ENTRIES:
                raise BadArchive(f"more than {MOST_ENTRIES} files", entry=entry.name)
            path = self._path(entry.name)
            form = stat.S_IFMT(entry.mode)
            try:
                if form in {stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO}:
                    left_out.append(os.fsdecode(entry.name))
                elif path:
                    self._one(path, entry, form, reader.data)
            except OSError as error:
                raise HostError(f"{os.fsdecode(b'/'.join(path))} cannot be written: {error.strerror}") from error
        for path, entry in reversed(self._folders):  # now that they are filled
            self._finish_folder(path, entry)
        return Copied(count - len(left_out), self._size, tuple(left_out))

    def _path(self, name: bytes) -> list[bytes]:
        """Return the parts of a path below the folder; none for the folder itself."""
        parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
        if b".." in parts or b"\0" in name:
            raise BadArchive(f"{os.fsdecode(name)!r:.200} would leave its folder", entry=name)
        if self._rename is not None:
            if not parts or parts[0] != self._rename[0]:
                raise BadArchive(f"{os.fsdecode(name)!r:.200} was not asked for", entry=name)
            parts[0] = self._rename[1]
        return parts

    def _one(self, path: list[bytes], entry: Entry, form: int, data: Callable[[], Iterator[memoryview]]) -> None:
        parent, name = self._open(path[:-1]), path[-1]
        try:
            if form == stat.S_IFDIR:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=parent)
                os.close(os.open(name, _FOLDER, dir_fd=parent))  # which a file or a link in its place is not
                self._folders.append((path, entry))
                return
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
            if form == stat.S_IFLNK:
                os.symlink(entry.target, name, dir_fd=parent)
            elif form == stat.S_IFREG:
                self._file(parent, name, entry, data)
            else:
                self._link(parent, name, entry)
        finally:
            os.close(parent)

    def _open(self, path: list[bytes]) -> int:
        """Open a folder part by part, through no link."""
        here = os.dup(self._root)
        try:
            for part in path:
                inner = os.open(part, _FOLDER, dir_fd=here)
                os.close(here)
                here = inner
        except BaseException:
            os.close(here)
            raise
        return here

    def _file(self, parent: int, name: bytes, entry: Entry, data: Callable[[], Iterator[memoryview]]) -> None:
        if entry.extents is not None:
            raise BadArchive(f"{os.fsdecode(entry.name)!r:.200} has holes, which the guest's tar never writes", entry=entry.name)
        if self._size + entry.size > self._limit:
            raise OutputLimitExceeded(
                f"more than {self._limit} bytes of files", stdout=b"", stderr=b"", hint="raise limit; what was copied so far is there"
            )
        self._size += entry.size
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            for piece in data():
                while piece:
                    piece = piece[os.write(file, piece) :]  # noqa: PLW2901 (the rest of it)
            os.fchmod(file, entry.mode & _BITS)
            os.utime(file, ns=_times(entry))
        finally:
            os.close(file)

    def _link(self, parent: int, name: bytes, entry: Entry) -> None:
        target = self._path(entry.target)
        if not target:
            raise BadArchive(f"{os.fsdecode(entry.name)!r:.200} is a link to nothing", entry=entry.name)
        there = self._open(target[:-1])
        try:
            os.link(target[-1], name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(there)

    def _finish_folder(self, path: list[bytes], entry: Entry) -> None:
        with suppress(OSError):  # it is not ours: that it was there is what matters
            folder = self._open(path)
            try:
                os.fchmod(folder, entry.mode & _BITS)
                os.utime(folder, ns=_times(entry))
            finally:
                os.close(folder)


def _times(entry: Entry) -> tuple[int, int]:
    time = max(-_LATEST, min(entry.mtime, _LATEST))
    return time, time
