"""The distribution's packages, fetched by apt and unpacked by dpkg-deb: nothing is installed, nothing needs root.

apt checks the archive's signature over its lists; the digest in those lists is checked here against every file that is used.
"""

import hashlib
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final
from urllib.parse import unquote

from utilityvm.kit import files
from utilityvm.kit.errors import Corrupt, HostError, NotFound, Unsupported
from utilityvm.kit.proc import run_tool

_LOOKUP_SECONDS = 60
_DOWNLOAD_SECONDS = 1200
_UNPACK_SECONDS = 300
UPDATE_HINT = "bring apt's lists up to date: apt-get update"
_ONLY_DEPENDS = ("--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", "--no-pre-depends")


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """A package as apt's lists have it: the name of its file, that file's size and digest."""

    name: str
    version: str
    file_name: str
    size: int
    sha256: str


@final
class Packages:
    """Packages of this host's distribution, kept in the folder `cache`, which is made when missing."""

    def __init__(self, cache: Path) -> None:
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise Unsupported(
                "boot files are built from Debian packages, and this host has no apt-get or no dpkg-deb",
                hint="build them on a Debian host, and copy the folder",
            )
        self._cache = cache

    def dependencies(self, name: str) -> list[str]:
        """Return the packages that `name` depends on, directly, in its own order.

        Raises:
            NotFound: apt's lists have no such package.
        """
        return parse_depends(_apt("apt-cache", "depends", *_ONLY_DEPENDS, name)).get(name, [])

    def closure(self, name: str) -> list[str]:
        """Return `name` and all that it depends on, nearest first.

        Raises:
            NotFound: apt's lists have no such package.
        """
        depends = parse_depends(_apt("apt-cache", "depends", "--recurse", *_ONLY_DEPENDS, name))
        found = [name]
        for package in found:
            found += [need for need in depends.get(package, []) if need in depends and need not in found]
        return found

    def fetch(self, names: Sequence[str]) -> list[Package]:
        """Bring the newest version of each of `names` into the cache, and return what they are.

        Raises:
            NotFound: apt's lists have no such package.
            HostError: the download failed.
            Corrupt: what came is not what the lists promise.
        """
        found = parse_uris(_apt("apt-get", "download", "--print-uris", *names))
        self._cache.mkdir(parents=True, exist_ok=True)
        missing = [package for package in found if not self._has(package)]
        if missing:
            self._download(missing)
        return found

    def unpack(self, package: Package, into: Path) -> None:
        """Unpack the files of a fetched package into the new folder `into`."""
        into.mkdir(parents=True)
        run_tool(["dpkg-deb", "--extract", self._cache / package.file_name, into], within=_UNPACK_SECONDS)

    def _has(self, package: Package) -> bool:
        path = self._cache / package.file_name
        return path.is_file() and path.stat().st_size == package.size and digest(path) == package.sha256

    def _download(self, packages: Sequence[Package]) -> None:
        with tempfile.TemporaryDirectory(dir=self._cache, prefix=".download-") as temporary:
            folder = Path(temporary)
            wanted = [f"{package.name}={package.version}" for package in packages]
            try:
                run_tool(["apt-get", "download", "--quiet", *wanted], within=_DOWNLOAD_SECONDS, cwd=folder)
            except HostError as error:
                raise HostError(error.message, hint=UPDATE_HINT) from error
            for package in packages:
                path = folder / package.file_name
                if not path.is_file() or digest(path) != package.sha256:
                    raise Corrupt(f"{package.file_name}: the download is not what apt's lists promise", hint=UPDATE_HINT)
                path.replace(self._cache / package.file_name)
        files.sync_folder(self._cache)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_depends(text: str) -> dict[str, list[str]]:
    """Read what ``apt-cache depends`` says: for each package the packages it depends on. Of alternatives the first is taken."""
    depends: dict[str, list[str]] = {}
    current: list[str] = []
    alternative = False
    for line in text.splitlines():
        kind, colon, name = line.strip().partition(": ")
        if not line.startswith(" "):
            current = depends.setdefault(line.strip(), [])
        elif colon and kind.removeprefix("|") == "Depends":
            if not alternative:
                current.append(name)
            alternative = kind.startswith("|")  # a bar says that the next line is another choice for this one
    return depends


def parse_uris(text: str) -> list[Package]:
    """Read what ``apt-get download --print-uris`` says: ``'URI' FILE SIZE SHA256:DIGEST`` a line.

    Raises:
        HostError: a line is not of this form.
    """
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"\S+ (?P<file>\S+) (?P<size>\d+) SHA256:(?P<digest>[0-9a-f]{64})", " ".join(shlex.split(line)))
        if match is None:
            raise HostError(f"apt-get: cannot be understood: {line}")
        name, version, _ = match["file"].split("_", 2)
        found.append(Package(name, unquote(version), match["file"], int(match["size"]), match["digest"]))
    return found


def _apt(*argv: str) -> str:
    try:
        return run_tool(argv, within=_LOOKUP_SECONDS)
    except HostError as error:
        if "Unable to locate package" in error.message or "No packages found" in error.message:
            raise NotFound(f"apt's lists lack a package: {error.message}", hint=UPDATE_HINT) from error
        raise
