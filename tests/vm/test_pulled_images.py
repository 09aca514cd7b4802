"""Real images, from the distribution's packages: pushed to its registry, pulled, run, and compared with what they were made of."""

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.images.debian import debian_tar
from tests.images.registry import Registry, registry

from utilityvm.boot.files import BUSYBOX, BootFiles
from utilityvm.kit.proc import run_tool

from .odd_image import base_layer
from .running import NOTHING, PIPE, UVM, Done, outcome_of

LONG = 600.0
"""Seconds in which a Debian is pulled, and all of it is read in a guest, on a slow host."""

OURS = ("dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf")
"""What a container has in the places of an image's own."""

LISTING = f"""
import hashlib, os, stat
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name)[1:] not in {OURS!r}]
    for name in folders + files:
        path = os.path.join(folder, name)
        if path[1:] in {OURS!r}:
            continue
        found = os.lstat(path)
        kind, what = stat.S_IFMT(found.st_mode), ""
        if kind == stat.S_IFREG:
            with open(path, "rb") as file:
                what = hashlib.sha256(file.read()).hexdigest()
        elif kind == stat.S_IFLNK:
            what = os.readlink(path)
        time = 0 if kind == stat.S_IFDIR and path in {{"/etc", "/"}} else int(found.st_mtime)
        print(ascii((path, kind, stat.S_IMODE(found.st_mode) * (kind != stat.S_IFLNK), found.st_uid, found.st_gid, what, time)))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Registry]:
    """A registry for one test."""
    (folder := tmp_path / "registry").mkdir()
    with registry(folder) as served:
        yield served


async def uvm(*words: str) -> Done:
    """Run `uvm` to its end, which may take long."""
    process = await asyncio.create_subprocess_exec(*UVM, *words, stdin=NOTHING, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(LONG):
        return await outcome_of(process)


def layout_of(archive: Path, folder: Path) -> str:
    """Unpack an image's archive, which skopeo itself cannot do as just any user, and return what skopeo calls it then."""
    (folder / "layout").mkdir()
    run_tool(["tar", "--no-same-owner", "-C", folder / "layout", "-xf", archive], within=LONG)
    return f"oci:{folder / 'layout'}"


def expected(archive: tarfile.TarFile) -> list[str]:
    """What `LISTING` says of an archive's tree."""
    kinds = {tarfile.DIRTYPE: 0o040000, tarfile.REGTYPE: 0o100000, tarfile.LNKTYPE: 0o100000, tarfile.SYMTYPE: 0o120000}
    lines = []
    for entry in archive:
        path = entry.name.removeprefix(".").strip("/")
        if not path or path.startswith(("dev/", "proc/", "sys/")) or path in OURS:
            continue
        what = entry.linkname if entry.issym() else ""
        if not entry.issym() and (file := archive.extractfile(entry)) is not None:
            what = hashlib.sha256(file.read()).hexdigest()
        time = 0 if path == "etc" else int(entry.mtime)
        lines.append(ascii((f"/{path}", kinds[entry.type], entry.mode * (not entry.issym()), entry.uid, entry.gid, what, time)))
    return sorted(lines)


@pytest.mark.usefixtures("boot_files")
async def test_a_debian_is_pulled_run_and_the_same_to_the_byte(hub: Registry, tmp_path: Path) -> None:
    archive, name, source = debian_tar(), f"{hub.address}/debian:12", f"localhost/debian-of-a-test:{os.getpid()}"
    assert (await uvm("import", "-q", str(archive), source)).code == 0
    try:
        assert (await uvm("export", source, str(tmp_path / "image.tar"))).code == 0
        hub.push(layout_of(tmp_path / "image.tar", tmp_path), "debian:12")
    finally:
        assert (await uvm("rmi", source)).code == 0
    try:
        flags = ["--tls-verify", "false", "-m", "256m", "--cpus", "1"]
        done = await uvm("run", *flags, name, "python3", "-c", "import platform; print(platform.freedesktop_os_release()['VERSION_ID'])")
        assert (done.code, done.out) == (0, b"12\n"), done.err
        done = await uvm("run", *flags, name, "python3", "-B", "-c", LISTING)
        assert done.code == 0, done.err
        with tarfile.open(archive) as made_of:
            assert sorted(done.out.decode().splitlines()) == expected(made_of)
    finally:
        assert (await uvm("rmi", name)).code == 0


async def test_a_busybox_is_pulled_run_and_the_same_to_the_byte(boot_files: BootFiles, hub: Registry, tmp_path: Path) -> None:
    name = f"{hub.address}/busybox:1"
    hub.push(layout_of(boot_files.folder / BUSYBOX, tmp_path), "busybox:1")
    try:
        script = "find / -xdev -type f -exec sha256sum {} + ; find / -xdev -type l -exec readlink -n {} ';' -exec echo ' ' {} ';'"
        done = await uvm("run", "--tls-verify", "false", "--memory-size-in-mb", "256", name, "sh", "-c", script)
        assert (done.code, done.err) == (0, b"")
        with tarfile.open(fileobj=io.BytesIO(base_layer(boot_files))) as layer:
            files = {f"/{entry.name.strip('./')}": entry for entry in layer}
            said = {line.split()[-1]: line.split()[0] for line in done.out.decode().splitlines()}
            for path, entry in files.items():
                if entry.isfile() and path[1:] not in OURS and (file := layer.extractfile(entry)) is not None:
                    assert said[path] == hashlib.sha256(file.read()).hexdigest(), path
                elif entry.issym():
                    assert said[path] == entry.linkname, path
    finally:
        assert (await uvm("rmi", name)).code == 0
