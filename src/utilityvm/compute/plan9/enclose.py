"""A process makes a folder all there is: its root, without a way back, and gives up every right that it does not need there.

Python has no binding for these calls of Linux.
"""

import ctypes
import os
import struct
from typing import Final

from utilityvm.kit.errors import HostError, NotFound, Unsupported

_MS_BIND, _MS_REC = 0x1000, 0x4000
_MNT_DETACH: Final = 2
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_MS_PRIVATE: Final = 1 << 18
_MOUNT_SETATTR: Final = 442  # the same on every machine
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}

_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _CLEAR_ALL, _PR_SET_NO_NEW_PRIVS = 24, 47, 4, 38
_CAPABILITY_VERSION: Final = 0x20080522
_CHOWN, _DAC_OVERRIDE, _FOWNER, _FSETID = 0, 1, 3, 4
_LAST_CAPABILITY: Final = 63

KEPT: Final = (_CHOWN, _DAC_OVERRIDE, _FOWNER, _FSETID)
"""The capabilities of root in a share. Not DAC_READ_SEARCH: with it files are opened by number, those outside of the root too."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def make_root(path: str, *, read_only: bool) -> int:
    """Make the folder `path`, with what is mounted below it, the root of this process, which is in a mount namespace of its own.

    Returns a descriptor of it. Afterwards nothing of the host can be reached by a name.

    Raises:
        NotFound: there is no such folder.
        Unsupported: the kernel is too old.
        HostError: the folder may not be entered, or the kernel refuses.
    """
    try:
        place = os.path.realpath(path, strict=True)
        if not os.path.isdir(place):  # noqa: PTH112 (nothing more is imported)
            raise NotFound(f"{path}: not a folder", hint="share the folder that a file is in, restricted to the file")
        _bind(place, read_only=read_only)
        os.chdir(place)
        _checked("pivot_root", _libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."))
        _checked("umount", _libc.umount2(b".", _MNT_DETACH))
        os.chdir("/")
        return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such folder") from error
    except OSError as error:
        raise HostError(f"{path}: cannot be made the root of its server: {error.strerror}") from error


def _bind(place: str, *, read_only: bool) -> None:
    name = os.fsencode(place)
    _checked("bind", _libc.mount(name, name, None, _MS_BIND | _MS_REC, None))
    flags = _NOSUID | _NODEV | _NOEXEC | (_RDONLY if read_only else 0)
    how = struct.pack("QQQQ", flags, 0, _MS_PRIVATE, 0)
    if _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, name, _AT_RECURSIVE, how, len(how)) != 0:
        number = ctypes.get_errno()
        if number == 38:
            raise Unsupported("file shares need Linux 5.12 or newer: mount_setattr is not there")
        raise OSError(number, f"mount_setattr: {os.strerror(number)}")


def give_up_rights(uid: int | None = None, gid: int | None = None) -> None:
    """Keep no capability but `KEPT`, and none that is not had; with `uid` and `gid` become that user, who keeps none at all.

    Raises:
        OSError: the kernel refuses.
    """
    _checked("no_new_privs", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for number in range(_LAST_CAPABILITY + 1):
        if number not in KEPT:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # EINVAL: there is none of this number
    _libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    if uid is not None and gid is not None:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    have = ctypes.create_string_buffer(24)
    _checked("capget", _libc.capget(header, have))
    permitted = struct.unpack("6I", have.raw)[1] & sum(1 << number for number in KEPT)
    _checked("capset", _libc.capset(header, struct.pack("6I", permitted, permitted, 0, 0, 0, 0)))
