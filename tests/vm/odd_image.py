"""Images of busybox and a few odd things: programs that no kernel runs, volumes, links in the places of folders."""

import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from tests.unit.images.samples import Sample, archive

from utilityvm.boot.files import BUSYBOX, BootFiles

from .running import Done, uvm

numbers = count()


@asynccontextmanager
async def image(
    folder: Path,
    boot_files: BootFiles,
    entries: Mapping[str, tuple[tarfile.TarInfo, bytes]],
    volumes: tuple[str, ...] = (),
    system: str = "linux",
) -> AsyncIterator[str]:
    """An image in the store of this user, removed afterwards: busybox and `entries`. Gives its name."""
    name = f"test/odd-{os.getpid()}-{next(numbers)}:1"
    top = io.BytesIO()
    with tarfile.open(fileobj=top, mode="w") as tar:
        for path, (info, content) in entries.items():
            info.name, info.size = path, len(content)
            tar.addfile(info, io.BytesIO(content))
    config = {"Cmd": ["sh"], "Volumes": {volume: {} for volume in volumes}}
    made = archive(folder / "odd.tar", Sample(layers=(base_layer(boot_files), top.getvalue()), config=config, os=system).docker(name))
    assert (await uvm("import", "-q", str(made))).code == 0
    try:
        yield name
    finally:
        assert (await uvm("rmi", name)).code == 0


def entry(kind: bytes = tarfile.REGTYPE, mode: int = 0o755, owner: int = 0, target: str = "") -> tarfile.TarInfo:
    """An entry of an archive, yet without its name."""
    info = tarfile.TarInfo()
    info.type, info.mode, info.uid, info.gid, info.linkname, info.mtime = kind, mode, owner, owner, target, 1_000_000_000
    return info


async def run_in(name: str, *words: str, flags: tuple[str, ...] = ()) -> Done:
    """Run a program of the image to its end."""
    return await uvm("run", "--memory-size-in-mb", "256", "--processor-count", "1", *flags, name, *words)


def base_layer(boot_files: BootFiles) -> bytes:
    """The layer of the image that comes with the boot files, an archive."""
    with tarfile.open(boot_files.folder / BUSYBOX) as shipped:

        def read(path: str) -> bytes:
            file = shipped.extractfile(path)
            assert file is not None
            return file.read()

        manifest = json.loads(read(_blob(json.loads(read("index.json"))["manifests"][0])))
        return read(_blob(manifest["layers"][0]))


def _blob(described: Mapping[str, str]) -> str:
    return "blobs/" + described["digest"].replace(":", "/")
