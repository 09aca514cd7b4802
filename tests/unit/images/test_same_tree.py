"""What others make of the same archives: tar, umoci, fsck.erofs, and Linux, which mounts our images. Most of it needs root."""

import os
import shutil
import stat
import subprocess  # noqa: TID251 (the tools that people use)
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from utilityvm.images.layer import convert

from .tars import Item, archive, folder, hard_link, link

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks owners, devices and attributes")
needs_fsck = pytest.mark.skipif(shutil.which("fsck.erofs") is None, reason="fsck.erofs is not installed")
needs_umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")

Facts = dict[bytes, tuple[Any, ...]]

CAPABILITY = bytes.fromhex("0100000202040000000000000000000000000000").decode("latin-1")

LOWER = (
    folder("./"),
    folder("etc"),
    Item("etc/passwd", b"root:x:0:0::/root:/bin/sh\n", mtime=1_700_000_000),
    Item("etc/shadow", b"root:*\n", mode=0o640, gid=42),
    folder("tmp", 0o1777),
    folder("usr/bin"),
    Item("usr/bin/passwd", b"\x7fELF" + bytes(range(256)) * 40, mode=0o4755),
    hard_link("usr/bin/also", "usr/bin/passwd"),
    link("bin", "usr/bin"),
    link("absolute", "/usr/bin/passwd"),
    link("dangling", "no/where"),
    Item("bin/by-link", b"lies in usr/bin"),
    Item("usr/bin/ping", b"ping", pax={"SCHILY.xattr.security.capability": CAPABILITY, "SCHILY.xattr.user.note": "a=b"}),
    folder("dev"),
    Item("dev/null", type=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
    Item("dev/disk", type=tarfile.BLKTYPE, device=(259, 70_000), mode=0o660, gid=6),
    Item("dev/pipe", type=tarfile.FIFOTYPE),
    Item("odd/名前\nzwei", b"odd", uid=1000, gid=1000),
    Item("odd/" + "n" * 255, b"long"),
    Item("odd/*?[\\ ", b"globs"),
    Item("empty"),
    Item("exact", bytes(4096)),
    Item("large", os.urandom(3_000_001)),
    Item("twice", b"first", mode=0o600),
    Item("twice", b"second", mode=0o755),
    folder("was-folder"),
    Item("was-folder/inside", b"gone"),
    Item("was-folder", b"a file now"),
    Item("was-file", b"a file"),
    folder("was-file", 0o700),
    Item("was-file/inside", b"new"),
    folder("replaced"),
    Item("replaced/old", b"old"),
    folder("deep"),
    Item("deep/a/b/c/d/e/f", b"deep"),
    Item("old", b"x", mtime=-1),
)
UPPER = (
    folder("etc", 0o750),
    Item("etc/.wh.shadow"),
    Item("etc/hosts", b"127.0.0.1 localhost\n"),
    Item(".wh.large"),
    Item(".wh.bin"),
    folder("bin"),
    Item("bin/new", b"a folder where a link was"),
    folder("replaced", 0o711),
    Item("replaced/.wh..wh..opq"),
    Item("replaced/new", b"new"),
    folder("deep/a"),
    folder("deep/a/b", 0o500),
    Item("deep/a/b/.wh.c"),
    Item("twice", b"third"),
    Item("exact", b"no longer"),
    Item(".wh.never-was"),
)


def run(*argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)


def facts_of(root: Path) -> Facts:
    """What is known of each file below a folder, its own included; the time of folders that archives only imply is not."""
    found: Facts = {}
    first: dict[tuple[int, int], bytes] = {}
    for place, folders, files in os.walk(os.fsencode(root)):
        for name in [b"", *folders, *files] if place == os.fsencode(root) else [*folders, *files]:
            path = os.path.join(place, name) if name else place  # noqa: PTH118 (names are bytes)
            known = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(known.st_mode):
                content = Path(os.fsdecode(path)).readlink()
            elif stat.S_ISREG(known.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
            is_folder = stat.S_ISDIR(known.st_mode)
            key = os.path.relpath(path, os.fsencode(root))
            found[key] = (
                oct(known.st_mode),
                (known.st_uid, known.st_gid),
                known.st_rdev,
                None if is_folder else known.st_mtime_ns,
                None if is_folder else known.st_nlink,
                xattrs,
                content,
                key if is_folder else first.setdefault((known.st_dev, known.st_ino), key),
            )
    return found


def image_of(data: bytes, path: Path) -> Path:
    with (path.parent / "layer.tar").open("w+b") as tar, path.open("w+b") as out:
        tar.write(data)
        tar.seek(0)
        convert(tar, out)
    return path


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[Path]:
    at.mkdir()
    done = run("mount", *arguments, str(at))
    if done.returncode != 0:
        pytest.skip(f"this host does not mount it: {done.stderr.strip()}")
    try:
        yield at
    finally:
        assert run("umount", str(at)).returncode == 0


@contextmanager
def overlaid(folder: Path, *layers: bytes) -> Iterator[Path]:
    """Mount the images of layers, the lowest first, and their union."""
    with ExitStack() as stack:
        places = []
        for number, data in enumerate(layers):
            image = image_of(data, folder / f"{number}.erofs")
            places.append(stack.enter_context(mounted("-t", "erofs", "-o", "ro,loop", str(image), at=folder / f"m{number}")))
        below = ":".join(str(place) for place in reversed(places))
        yield stack.enter_context(mounted("-t", "overlay", "-o", f"ro,lowerdir={below}", "overlay", at=folder / "union"))


def unpacked_by_umoci(folder: Path, *layers: bytes) -> Path:
    def umoci(*words: str) -> None:
        done = run("umoci", *words, cwd=folder)
        assert done.returncode == 0, done.stderr

    umoci("init", "--layout", "oci")
    umoci("new", "--image", "oci:x")
    for number, data in enumerate(layers):
        (folder / f"umoci{number}.tar").write_bytes(data)
        umoci("raw", "add-layer", "--image", "oci:x", f"umoci{number}.tar")
    umoci("unpack", "--image", "oci:x", "bundle")
    return folder / "bundle" / "rootfs"


@needs_root
def test_linux_shows_what_tar_unpacks(tmp_path: Path) -> None:
    data = archive(*(item for item in LOWER if not item.name.startswith("was-")))  # tar replaces no folder that has something in it
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / "x.tar").write_bytes(data)
    umask = os.umask(0o022)
    try:
        argv = ["tar", "-C", str(theirs), "--xattrs", "--xattrs-include=*", "--numeric-owner", "--keep-directory-symlink"]
        done = run(*argv, "-xpf", str(tmp_path / "x.tar"))
        assert done.returncode == 0, done.stderr
    finally:
        os.umask(umask)
    image = image_of(data, tmp_path / "image")
    with mounted("-t", "erofs", "-o", "ro,loop", str(image), at=tmp_path / "ours") as ours:
        assert facts_of(ours) == facts_of(theirs)


@needs_root
@needs_umoci
def test_linux_shows_of_one_layer_what_umoci_unpacks(tmp_path: Path) -> None:
    data = archive(*LOWER)
    image = image_of(data, tmp_path / "image")
    theirs = facts_of(unpacked_by_umoci(tmp_path, data))
    with mounted("-t", "erofs", "-o", "ro,loop", str(image), at=tmp_path / "ours") as ours:
        assert facts_of(ours) == theirs


@needs_root
@needs_umoci
def test_overlayfs_shows_of_two_layers_what_umoci_unpacks(tmp_path: Path) -> None:
    lower, upper = archive(*LOWER), archive(*UPPER)
    theirs = facts_of(unpacked_by_umoci(tmp_path, lower, upper))
    with overlaid(tmp_path, lower, upper) as union:
        ours = facts_of(union)
    assert b"etc/shadow" not in ours
    assert b"replaced/old" not in ours
    assert ours == theirs


@needs_fsck
def test_fsck_finds_nothing_wrong(tmp_path: Path) -> None:
    many = [Item(f"many/{number:05}" + "x" * (number % 90), b"%d" % number) for number in range(2000)]
    for name, data in (("lower", archive(*LOWER)), ("upper", archive(*UPPER)), ("many", archive(*many))):
        image = image_of(data, tmp_path / name)
        done = run("fsck.erofs", "-d3", str(image))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "<E>" not in done.stdout + done.stderr
