"""Pick from unpacked packages what the guest needs: the kernel and its modules, or its source; busybox, crun and its libraries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from utilityvm.boot import kernel, modules
from utilityvm.boot.elf import without_library
from utilityvm.boot.libraries import needed_libraries
from utilityvm.boot.modules import Module
from utilityvm.kit.errors import NotFound
from utilityvm.kit.proc import run_tool

_LIST_SECONDS = 10
_LIBRARIES = "lib/x86_64-linux-gnu"
_LOADERS = "lib64"
_SYSTEMD = "libsystemd.so.0"
"""No guest has systemd. With what it links to, the library is a third of the initial RAM disk, and six files to be loaded for each crun."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel: what ``uname -r`` says, its two forms, and the modules of each group."""

    release: str
    image: bytes = field(repr=False)
    vmlinux: bytes = field(repr=False)
    modules: Mapping[str, Sequence[Module]]


@dataclass(frozen=True, slots=True)
class Busybox:
    """A static busybox and the names it answers to."""

    program: bytes = field(repr=False)
    applets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Runtime:
    """crun and its libraries, by their path in the guest, and the packages' folders that they came from."""

    programs: Mapping[str, bytes] = field(repr=False)
    roots: frozenset[Path]


def pick_kernel(root: Path) -> Kernel:
    """Read the kernel from its unpacked package.

    Raises:
        NotFound: the package has no kernel, or lacks a module.
        Unsupported: it is compressed in a way that cannot be read.
    """
    image_path = _one(root, "boot/vmlinuz-*")
    release = image_path.name.removeprefix("vmlinuz-")
    image = image_path.read_bytes()
    tree = _one(root, f"lib/modules/{release}", f"usr/lib/modules/{release}")
    files = {modules.module_name(path.name): PurePosixPath(path) for path in sorted(tree.rglob("*.ko*"))}
    built_in = frozenset(modules.module_name(line) for line in (tree / "modules.builtin").read_text().splitlines())
    groups = modules.load_order(modules.GROUPS, files, built_in, lambda path: Path(path).read_bytes())
    return Kernel(release, image, kernel.vmlinux(image, image_path.name), groups)


def source_archive(root: Path, name: str) -> Path:
    """Return the archive of a kernel's source, in the unpacked package `name` that has it.

    Raises:
        NotFound: the package has no such archive.
    """
    return _one(root, f"usr/src/{name}.tar.*")


def pick_busybox(root: Path) -> Busybox:
    """Read busybox from its unpacked package, and ask it for its applets.

    Raises:
        NotFound: the package has no busybox.
        HostError: it does not run here.
    """
    path = _one(root, "bin/busybox", "usr/bin/busybox")
    return Busybox(path.read_bytes(), tuple(run_tool([path, "--list"], within=_LIST_SECONDS).split()))


def pick_runtime(root: Path, roots: Iterable[Path]) -> Runtime:
    """Read crun from its unpacked package, and the libraries it needs from the unpacked packages `roots`.

    Raises:
        NotFound: the package has no crun, or none of the packages has a library.
    """
    program = without_library(_one(root, "usr/bin/crun").read_bytes(), _SYSTEMD)
    programs, used = {"bin/crun": program}, {root}
    for number, library in enumerate(needed_libraries(program, roots)):
        folder = _LOADERS if number == 0 else _LIBRARIES
        programs[f"{folder}/{library.name}"] = library.data
        used.add(library.root)
    return Runtime(programs, frozenset(used))


def _one(root: Path, *patterns: str) -> Path:
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if found:
            return found[0]
    raise NotFound(f"package {root.name}: has no {patterns[0]}")
