"""A folder as a tar archive: what a root file system's folder becomes before it is a layer."""

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from utilityvm.kit.errors import HostError

_KINDS: Final = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
_ATTRIBUTES: Final = ("user.", "security.capability")
"""Extended attributes that belong to a file rather than to the host that it lies on."""


def pack(folder: Path, out: IO[bytes], heed: Callable[[int], None]) -> int:
    """Write all that is below `folder` to `out`, and return how many bytes that are; `heed` is told now and then how many there are.

    Owners are kept as numbers. What is mounted in the folder is not looked into, sockets are left out. The same files in the same
    folder give the same bytes.

    Raises:
        HostError: a file cannot be read, or changed while it was read.
    """
    # Its format is not told to be the host's: names that are no UTF-8 are written as they are.
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape") as archive:
        seen: dict[tuple[int, int], str] = {}
        for path, about in _walk(folder, folder.stat().st_dev):
            kind = _KINDS.get(stat.S_IFMT(about.st_mode))
            if kind is not None:
                _add(archive, folder, path, about, kind, seen)
                heed(out.tell())
    return out.tell()


def _walk(top: Path, device: int) -> Iterator[tuple[Path, os.stat_result]]:
    waiting = [top]
    while waiting:
        path = waiting.pop()
        about = path.stat() if path == top else path.lstat()
        yield path, about
        if stat.S_ISDIR(about.st_mode) and about.st_dev == device:
            waiting += sorted((path / name for name in os.listdir(path)), reverse=True)  # noqa: PTH208 (names, not paths)


def _add(archive: tarfile.TarFile, top: Path, path: Path, about: os.stat_result, kind: bytes, seen: dict[tuple[int, int], str]) -> None:
    info = tarfile.TarInfo(str(path.relative_to(top)))
    info.type, info.mode = kind, stat.S_IMODE(about.st_mode)
    info.uid, info.gid = about.st_uid, about.st_gid
    seconds, rest = divmod(about.st_mtime_ns, 1_000_000_000)
    info.mtime = seconds
    info.pax_headers = {**_attributes(path), **({"mtime": f"{seconds}.{rest:09}"} if rest else {})}
    if kind == tarfile.SYMTYPE:
        info.linkname = os.readlink(path)  # noqa: PTH115 (as it is written)
    elif kind in {tarfile.CHRTYPE, tarfile.BLKTYPE}:
        info.devmajor, info.devminor = os.major(about.st_rdev), os.minor(about.st_rdev)
    if kind != tarfile.DIRTYPE and about.st_nlink > 1:
        first = seen.setdefault((about.st_dev, about.st_ino), info.name)
        if first != info.name:
            info.type, info.linkname = tarfile.LNKTYPE, first
    if info.type != tarfile.REGTYPE:
        archive.addfile(info)
        return
    info.size = about.st_size
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        try:
            archive.addfile(info, file)
        except OSError as error:
            if error.errno is not None:
                raise
            raise HostError(f"{path}: changed while it was read") from error


def _attributes(path: Path) -> dict[str, str]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # a file system without
        return {}
    values = {name: os.getxattr(path, name, follow_symlinks=False) for name in names if name.startswith(_ATTRIBUTES)}
    return {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in values.items()}
