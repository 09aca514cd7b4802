"""Debian packages for the guest: brought into a cache once, checked against the digest their archive promises, and unpacked.

Nothing is installed and nothing needs root. Where packages come from is an `Archive`: this host's apt (`boot.apt`), or a mirror that is
asked over HTTP (`boot.mirror`).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, final

import msgspec

from utilityvm.boot import deb
from utilityvm.kit import files
from utilityvm.kit.errors import Corrupt


class Package(msgspec.Struct, frozen=True, order=True):
    """A package as its archive's lists have it: the name of its file in the cache, that file's size in bytes and SHA-256."""

    name: str
    version: str
    file_name: str
    size: int
    sha256: str


class Archive(Protocol):
    """Where packages come from. Whoever implements it has checked the signature over the lists; the digests in them are checked here."""

    def dependencies(self, name: str) -> list[str]:
        """Return the packages that `name` depends on, directly, in its own order. NotFound when there is no such package."""

    def closure(self, name: str) -> list[str]:
        """Return `name` and all that it depends on, nearest first. NotFound when there is no such package."""

    def find(self, names: Sequence[str]) -> list[Package]:
        """Return what is offered for each of `names`. NotFound when there is no such package."""

    def download(self, packages: Sequence[Package], folder: Path) -> Iterator[tuple[Package, Path]]:
        """Download packages to files somewhere in `folder`, and give each as it is there. A file may be moved while it is given."""


def _quiet(_line: str) -> None:
    return


@final
class Packages:
    """Packages from `archive`, kept in the folder `cache`, which is made when missing. `say` gets a line where there is a wait."""

    def __init__(self, cache: Path, archive: Archive, say: Callable[[str], None] = _quiet) -> None:
        self._cache, self._archive, self._say = cache, archive, say

    def dependencies(self, name: str) -> list[str]:
        """Return the packages that `name` depends on, directly, in its own order.

        Raises:
            NotFound: the archive has no such package.
        """
        return self._archive.dependencies(name)

    def closure(self, name: str) -> list[str]:
        """Return `name` and all that it depends on, nearest first.

        Raises:
            NotFound: the archive has no such package.
        """
        return self._archive.closure(name)

    def fetch(self, names: Sequence[str]) -> list[Package]:
        """Bring each of `names` into the cache, in the version that the archive offers, and return what they are.

        What is whole stays there when a later download fails or is interrupted.

        Raises:
            NotFound: the archive has no such package.
            HostError: the download failed.
            DeadlineExceeded: it took too long.
            Corrupt: what came is not what the archive's lists promise.
        """
        found = self._archive.find(names)
        files.make_folder(self._cache)
        with self._lock():
            missing = [package for package in found if not self._has(package)]
            for package, path in self._archive.download(missing, self._cache) if missing else ():
                if not path.is_file() or files.digest(path) != package.sha256:
                    path.unlink(missing_ok=True)
                    raise Corrupt(f"{package.file_name}: the download is not what the archive's lists promise", hint="try again")
                path.replace(self._cache / package.file_name)
            files.sync_folder(self._cache)
        return found

    def unpack(self, package: Package, into: Path) -> None:
        """Unpack the files of a fetched package into the new folder `into`.

        Raises:
            Corrupt: it is no package, or one of its files would lie outside of `into`.
            Unsupported: it is compressed in a way that this Python cannot read.
        """
        deb.unpack(self._cache / package.file_name, into)

    def _lock(self) -> files.FileLock:
        lock = files.FileLock(self._cache)
        if not lock.acquire(wait=False):
            self._say(f"waiting for another download to {self._cache}")
            lock.acquire()
        return lock

    def _has(self, package: Package) -> bool:
        path = self._cache / package.file_name
        return path.is_file() and path.stat().st_size == package.size and files.digest(path) == package.sha256
