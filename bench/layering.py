"""A layer's archive becomes an image: ours in one pass, the raw side by `tar -x` and `mkfs.erofs`, both from and to files in one folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from raw.initrd import CannotMeasure

from utilityvm.images.layer import convert

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES = 300 << 20
FROM = ("/usr/share", "/usr/lib", "/usr/bin")
TOOLS = {"tar": "tar", "gzip": "gzip", "mkfs.erofs": "erofs-utils"}


@dataclass(frozen=True, slots=True)
class Layering:
    """An archive of this host's files, 300 MiB of them or all, plain and packed, in a folder in which both sides write."""

    folder: Path

    @property
    def plain(self) -> Path:
        return self.folder / "layer.tar"

    @property
    def packed(self) -> Path:
        return self.folder / "layer.tar.gz"

    def make(self) -> None:
        for tool, package in TOOLS.items():
            if shutil.which(tool) is None:
                raise CannotMeasure(f"{tool} is missing: apt-get install {package}")
        names = "".join(f"{name}\0" for name in some_files())
        argv = ["tar", "-C", "/", "--no-recursion", "--null", "-T", "-", "-cf", self.plain]
        subprocess.run(argv, input=names.encode("utf-8", "surrogateescape"), check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["gzip", "-k", self.plain], check=True)

    def raw(self, archive: Path) -> float:
        tree, image = self.folder / "tree", self.folder / "raw.img"
        tree.mkdir()
        start = perf_counter()
        subprocess.run(["tar", "-C", tree, "--xattrs", "-xpf", archive], check=True)
        subprocess.run(["mkfs.erofs", "--quiet", image, tree], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = perf_counter() - start
        shutil.rmtree(tree)
        image.unlink()
        return seconds

    def ours(self, archive: Path) -> float:
        image = self.folder / "ours.img"
        start = perf_counter()
        with archive.open("rb") as stream, image.open("w+b") as out:
            convert(stream, out)
        seconds = perf_counter() - start
        image.unlink()
        return seconds


def some_files() -> list[str]:
    """Folders and files of this host, a folder before what is in it: as many bytes of each of `FROM`."""
    return ["usr", *(path[1:] for top in FROM for path in files_below(top, BYTES // len(FROM)))]


def files_below(top: str, size: int) -> Iterator[str]:
    for place, folders, files in os.walk(top):
        yield place
        folders.sort()
        for name in sorted(files):
            path = Path(place, name)
            size -= path.lstat().st_size
            if size < 0:
                return
            yield str(path)
