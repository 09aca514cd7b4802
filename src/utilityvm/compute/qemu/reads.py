"""Files that QEMU reads: shown to it read-only under their names, or given as descriptors when it is another user than its owner."""

import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec

from utilityvm.compute.qemu.jail import Jail, Layer


class Offered(msgspec.Struct, frozen=True):
    """What QEMU gets of files: their `names` for it, in the order asked for; what to show it (`shown`), and what to pass on (`fds`)."""

    names: tuple[str, ...]
    shown: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()


def offer(paths: Iterable[str], jail: Jail, held: ExitStack) -> Offered:
    """Offer files to a QEMU in `jail`; `held` closes what was opened for it.

    A descriptor can be opened once more through ``/proc/self/fd``, for writing too where the file's mode lets QEMU: so it is for a
    QEMU that is another user, who in turn may not get to the file's folder.

    Raises:
        OSError: a file cannot be read.
    """
    if Layer.OWN_USER not in jail.layers:
        names = tuple(os.path.abspath(path) for path in paths)  # noqa: PTH100 (a link's name stays)
        return Offered(names, shown=names)
    fds = tuple(held.enter_context(_readable_by_all(path)).fileno() for path in paths)
    return Offered(tuple(f"/proc/self/fd/{fd}" for fd in fds), fds=fds)


def _readable_by_all(path: str) -> BinaryIO:
    """Open the file; when its mode keeps it from others, open a copy in memory, which lasts as long as it is open."""
    file = Path(path).open("rb")  # noqa: SIM115 (the caller's)
    if os.fstat(file.fileno()).st_mode & 0o004:
        return file
    with file:
        copy = os.fdopen(os.memfd_create(Path(path).name, os.MFD_CLOEXEC), "w+b")
        shutil.copyfileobj(file, copy)
        copy.flush()
        return copy
