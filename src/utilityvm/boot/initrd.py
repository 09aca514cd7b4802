"""What lies where in the guest's initial RAM disk. Pure: from the pieces to the archive's bytes.

===================================  ==============================================================================
``/init``                            the agent; ``/bin/gcs`` and ``/bin/vsockexec`` are links to it
``/bin``                             busybox and a link for each of its applets, crun; also as ``/sbin``, ``/usr/bin``, ``/usr/sbin``
``/lib``, ``/lib64``                 the shared libraries of crun and their loader
``/lib/modules/RELEASE``             kernel modules, no folders below
``/etc/utilityvm/modules``           which of them belong together, see `boot.modules`
``/dev/console``                     the kernel opens it for ``/init`` before anything is mounted
===================================  ==============================================================================
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import msgspec

from utilityvm.boot import cpio
from utilityvm.boot.modules import Module

_EXECUTABLE = 0o755
_EMPTY_FOLDERS = ("dev", "mnt", "proc", "root", "run", "sys", "var")
_LINKS = {"sbin": "bin", "usr/bin": "../bin", "usr/sbin": "../bin", "bin/gcs": "/init", "bin/vsockexec": "/init", "var/run": "/run"}
_TEXTS = {
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
}


class Pieces(msgspec.Struct, frozen=True):
    """What goes into an initial RAM disk. `programs` has further files by their path in the guest, all executable."""

    agent: bytes
    busybox: bytes
    applets: Sequence[str]
    programs: Mapping[str, bytes]
    release: str
    modules: Mapping[str, Sequence[Module]]


def image(pieces: Pieces) -> bytes:
    """Return the initial RAM disk made of `pieces`; the same pieces give the same bytes."""
    entries = {entry.path: entry for entry in _entries(pieces)}
    for path in list(entries):
        for parent in PurePosixPath(path).parents:
            entries.setdefault(str(parent), cpio.folder(str(parent)))
    del entries["."]
    return cpio.archive(entries.values())


def module_list(release: str, groups: Mapping[str, Iterable[Module]]) -> str:
    """Return the content of ``/etc/utilityvm/modules``."""
    return "".join(f"{group}:{''.join(f' /{_module_path(release, module)}' for module in modules)}\n" for group, modules in groups.items())


def _entries(pieces: Pieces) -> Iterator[cpio.Entry]:
    yield cpio.character_device("dev/console", 5, 1, 0o600)
    yield cpio.folder("tmp", 0o1777)
    yield from (cpio.folder(path) for path in _EMPTY_FOLDERS)
    yield from (cpio.file(path, text.encode()) for path, text in _TEXTS.items())
    yield cpio.file("etc/utilityvm/modules", module_list(pieces.release, pieces.modules).encode())
    yield cpio.file("init", pieces.agent, _EXECUTABLE)
    yield cpio.file("bin/busybox", pieces.busybox, _EXECUTABLE)
    yield from (cpio.link(f"bin/{applet}", "busybox") for applet in pieces.applets if applet != "busybox")
    yield from (cpio.link(path, target) for path, target in _LINKS.items())
    yield from (cpio.file(path, data, _EXECUTABLE) for path, data in pieces.programs.items())
    for group in pieces.modules.values():
        yield from (cpio.file(_module_path(pieces.release, module), module.data) for module in group)


def _module_path(release: str, module: Module) -> str:
    return f"lib/modules/{release}/{module.name}.ko"
