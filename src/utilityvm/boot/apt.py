"""Packages of this host's distribution, found and downloaded by apt, which checks the archive's signature over its lists."""

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final
from urllib.parse import unquote

from utilityvm.boot.packages import Package
from utilityvm.kit.errors import HostError, NotFound, Unsupported
from utilityvm.kit.proc import run_tool

_LOOKUP_SECONDS = 60
_DOWNLOAD_SECONDS = 1200
MIRROR_HINT = "name a mirror of Debian: --mirror URL, or UVM_DEBIAN_MIRROR=URL"
"""What to do on a host whose apt cannot help."""
UPDATE_HINT = f"bring apt's lists up to date: apt-get update; where they are not Debian's, {MIRROR_HINT}"
"""What to do when apt does not know a package."""
_ONLY_DEPENDS = ("--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", "--no-pre-depends")


@final
class Apt:
    """The archive that this host's apt is set up for.

    Raises:
        Unsupported: this host has no apt.
    """

    def __init__(self) -> None:
        if shutil.which("apt-get") is None or shutil.which("apt-cache") is None:
            raise Unsupported("boot files are made from Debian packages, and this host has no apt-get", hint=MIRROR_HINT)

    def dependencies(self, name: str) -> list[str]:
        """Return the packages that `name` depends on, directly, in its own order."""
        return parse_depends(_apt("apt-cache", "depends", *_ONLY_DEPENDS, name)).get(name, [])

    def closure(self, name: str) -> list[str]:
        """Return `name` and all that it depends on, nearest first."""
        depends = parse_depends(_apt("apt-cache", "depends", "--recurse", *_ONLY_DEPENDS, name))
        found = [name]
        for package in found:
            found += [need for need in depends.get(package, []) if need in depends and need not in found]
        return found

    def find(self, names: Sequence[str]) -> list[Package]:
        """Return the newest version of each of `names` that apt's lists have."""
        return parse_uris(_apt("apt-get", "download", "--print-uris", *names))

    def download(self, packages: Sequence[Package], folder: Path) -> Iterator[tuple[Package, Path]]:
        """Download packages by one call of apt."""
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            wanted = [f"{package.name}={package.version}" for package in packages]
            try:
                run_tool(["apt-get", "download", "--quiet", *wanted], within=_DOWNLOAD_SECONDS, cwd=Path(temporary))
            except HostError as error:
                raise HostError(error.message, hint=UPDATE_HINT) from error
            for package in packages:
                yield package, Path(temporary, package.file_name)


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
