"""Content by its digest: files that are named by their SHA-256, and streams that are checked against one."""

import errno
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, final

from utilityvm.images.formats import MAX_JSON
from utilityvm.kit.errors import Corrupt, Exhausted, HostError, NotFound
from utilityvm.kit.files import settle

CHUNK: Final = 1 << 20
"""Bytes that are copied at a time."""

_ALGORITHM: Final = "sha256"

Heed = Callable[[int], None]
"""Is told how many bytes have been read so far; what it raises ends the work."""


def digest_of(data: bytes) -> str:
    """Return the digest of some bytes as images write it."""
    return f"{_ALGORITHM}:{hashlib.sha256(data).hexdigest()}"


@final
class Checked(io.RawIOBase):
    """Reads `source` and knows the digest of all that it has read; `finish` says whether it was what was promised.

    `size` bytes are promised and no more are read than one more; None when nothing is known. `what` names it in errors.
    """

    def __init__(self, source: IO[bytes], what: str, *, size: int | None = None, heed: Heed | None = None) -> None:
        self.what, self._source, self._promised, self._heed = what, source, size, heed
        self._hash = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]  # anything that can be written to
        """Read what fits into `buffer`."""
        view = memoryview(buffer).cast("B")
        if self._promised is not None:
            view = view[: self._promised + 1 - self.size]
        data = self._source.read(len(view))
        view[: len(data)] = data
        self._hash.update(data)
        self.size += len(data)
        if self._heed is not None:
            self._heed(self.size)
        return len(data)

    @property
    def digest(self) -> str:
        """The digest of what has been read."""
        return f"{_ALGORITHM}:{self._hash.hexdigest()}"

    def finish(self, digest: str | None = None) -> None:
        """Read what is left, and compare.

        Raises:
            Corrupt: it is shorter or longer than promised, or its digest is not `digest`.
        """
        buffer = bytearray(CHUNK)
        while self.readinto(buffer):
            pass
        if self._promised is not None and self.size != self._promised:
            relation = "more than" if self.size > self._promised else f"only {self.size} of"
            raise Corrupt(f"{self.what}: has {relation} the {self._promised} bytes that were promised")
        if digest is not None and self.digest != digest:
            raise Corrupt(f"{self.what}: its content has the digest {self.digest}, {digest} was promised")


@final
class Blobs:
    """The files below `folder`; they come by way of `work`, a folder on the same file system, so that each is whole or not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = folder / _ALGORITHM

    def make(self) -> None:
        """Make the folder."""
        self._files.mkdir(parents=True, exist_ok=True)

    def files(self) -> list[Path]:
        """Return every file that is there."""
        return list(self._files.iterdir()) if self._files.is_dir() else []

    def path(self, digest: str) -> Path:
        """Return where the content of `digest` is, or would be."""
        return self._files / digest.removeprefix(f"{_ALGORITHM}:")

    def has(self, digest: str, size: int) -> bool:
        """Whether there is a file for it, of that size; its content is checked when it is read."""
        try:
            return self.path(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def read(self, digest: str, what: str) -> bytes:
        """Return a small content, after checking it; `what` names it in errors.

        Raises:
            Corrupt: it is missing, too large, or another.
        """
        try:
            with self.path(digest).open("rb") as file:
                data = file.read(MAX_JSON + 1)
        except FileNotFoundError as error:
            raise Corrupt(f"{what}: {digest} is missing") from error
        if digest_of(data) != digest:
            raise Corrupt(f"{what}: {self.path(digest)} is not what its name says")
        return data

    def add(self, data: bytes, work: Path) -> str:
        """Keep some bytes, and return their digest."""
        digest = digest_of(data)
        if not self.has(digest, len(data)):
            with tempfile.NamedTemporaryFile(dir=work, delete=False) as file:
                file.write(data)
                settle(file.file, Path(file.name), self.path(digest))
        return digest

    def add_stream(self, source: Checked, work: Path, digest: str | None = None) -> tuple[str, int]:
        """Keep all that `source` has, and return its digest and size; with `digest` that is what it must have.

        Raises:
            Corrupt: it is not what was promised.
        """
        with tempfile.NamedTemporaryFile(dir=work, delete=False) as file:
            while data := source.read(CHUNK):
                file.write(data)
            source.finish(digest)
            settle(file.file, Path(file.name), self.path(source.digest))
        return source.digest, source.size


@contextmanager
def telling_what_is_wrong(what: str) -> Iterator[None]:
    """Turn errors of the operating system into ours; a full disk is told apart."""
    try:
        yield
    except OSError as error:
        raise host_error(error, what) from error


def host_error(error: OSError, what: str) -> Exhausted | HostError | NotFound:
    """Return our error for one of the operating system; `what` says what was being done, and to what."""
    file = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else what
    where = what if file == what else f"{what}: {file}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Exhausted(f"{what}: the disk is full", hint=FULL_HINT)
    if error.errno == errno.ENOENT:
        return NotFound(f"{where}: no such file or folder")
    return HostError(f"{where}: {error.strerror or error}")


FULL_HINT: Final = "make room: uvm prune --keep SIZE removes the images used longest ago; uvm df says what is used"
"""What to do about a full disk."""
