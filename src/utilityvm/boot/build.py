"""Build boot files from the distribution's packages: fetch, unpack, pick or compile, put together, swap in."""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from utilityvm.boot import busybox as image_of_busybox
from utilityvm.boot import elf, initrd, pick
from utilityvm.boot.apt import UPDATE_HINT, Apt
from utilityvm.boot.compile import Progress, Toolchain, find_toolchain
from utilityvm.boot.files import ARCHITECTURE, BUSYBOX, INITRD, KERNEL, MANIFEST, VMLINUX, BootFiles, load
from utilityvm.boot.manifest import FileRecord, KernelRecord, Manifest, PackageRecord, encode
from utilityvm.boot.packages import Archive, Package, Packages
from utilityvm.boot.source import source_kernel
from utilityvm.kit.errors import Exists, HostError, NotFound, Unsupported
from utilityvm.kit.files import FileLock, make_folder, replace, swap_folder

_KERNEL = ("linux-image-amd64", r"linux-image-\d")
_SOURCE = ("linux-source", r"linux-source-\d")
"""The package that depends on the newest kernel, or source of one, and how that one's name begins."""
_BUSYBOX = "busybox-static"
_GO_ARCHITECTURE = "amd64"  # what images call it
_CRUN = "crun"
_ELSEWHERE = "name another place: --out DIR"
_MAKE_AGENT = "build it in a source checkout: make agent"


def find_agent() -> Path:
    """Return the guest agent that belongs to this package: the wheel's, or in a source checkout the one that `make agent` built.

    A checkout's package has none inside, so the two never compete. The wheel's comes first because what lies around an installed package
    is not ours.

    Raises:
        NotFound: it has not been built.
    """
    packed = Path(__file__).with_name("agent")
    if packed.is_file():
        return packed
    path = Path(__file__).resolve().parents[3] / "build" / "agent"
    if not path.is_file():
        raise NotFound(f"{path}: the guest agent is not built", hint=f"{_MAKE_AGENT}; or name one: --agent PATH")
    return path


class OwnKernel(msgspec.Struct, frozen=True):
    """A kernel of our own, compiled from the distribution's source package: the folder where such kernels are kept, and who hears of it."""

    kept: Path
    progress: Progress


def build(
    out: Path, agent: Path, cache: Path, say: Callable[[str], None], archive: Archive | None = None, own: OwnKernel | None = None
) -> BootFiles:
    """Build boot files at `out`, replacing those that are there in one step. `say` gets a line a step.

    Packages come from `archive`, by default this host's apt, and are kept in `cache`. The kernel is the distribution's, or with `own`
    one that is compiled here, unless it is kept from before.

    Raises:
        Exists: `out` holds something else than boot files.
        NotFound: the agent, or a package, or something inside a package, is missing.
        Corrupt: the archive, or a package, is not what it says.
        DeadlineExceeded: a download or the compilation took too long.
        Exhausted: there is not enough room to compile a kernel.
        Unsupported: no archive is named and the host has no apt; the agent is no static program for the guest's architecture; a tool that
            compiling takes is missing; or the distribution's source is of a kernel that cannot be configured as ours.
        HostError: a tool failed, or a file cannot be written.
    """
    try:
        return _build(out.resolve(), _read_agent(agent), Packages(cache, archive or Apt(), say), say, own)
    except OSError as error:
        raise HostError(f"{error.filename or out}: {error.strerror}") from error


def _build(out: Path, agent: bytes, packages: Packages, say: Callable[[str], None], own: OwnKernel | None) -> BootFiles:
    make_folder(out.parent)
    prefix = f".{out.name}.uvm-build-"
    with _lock(out, say):
        _refuse_strangers(out)
        for left in out.parent.glob(f"{prefix}*"):  # by a build that was killed: a live one would hold the lock
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=prefix) as temporary:
            new = Path(temporary, "new")
            new.mkdir()
            _write(new, _collect(packages, Path(temporary, "packages"), say, own), agent, say)
            load(new, digests=True)
            swap_folder(new, out)
    return load(out)


def _lock(out: Path, say: Callable[[str], None]) -> FileLock:
    lock = FileLock(out.parent)
    if not lock.acquire(wait=False):
        say(f"waiting for another build in {out.parent}")
        lock.acquire()
    return lock


def _read_agent(path: Path) -> bytes:
    try:
        program = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such agent", hint=_MAKE_AGENT) from error
    elf.check_machine(program[:20], str(path))
    if loader := elf.interpreter(program):
        raise Unsupported(f"{path}: the agent must be a static program, this one asks for {loader}", hint=_MAKE_AGENT)
    return program


def _refuse_strangers(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise Exists(f"{out}: is not a folder", hint=_ELSEWHERE)
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise Exists(f"{out}: holds other things than boot files, and is left alone", hint=_ELSEWHERE)


class _Parts(msgspec.Struct, frozen=True):
    """What the boot files are made of, and the packages that it was taken from."""

    kernel: pick.Kernel
    kernel_record: KernelRecord
    busybox: pick.Busybox
    runtime: pick.Runtime
    packages: tuple[Package, ...]


def _collect(packages: Packages, folder: Path, say: Callable[[str], None], own: OwnKernel | None) -> _Parts:
    toolchain = find_toolchain() if own else None  # before anything is downloaded
    kernel_name = newest_source(packages) if own else _newest(packages, *_KERNEL)
    names = [kernel_name, _BUSYBOX, *packages.closure(_CRUN)]
    say(f"fetching packages: {' '.join(names)}")
    by_name = {package.name: package for package in packages.fetch(names)}
    kernel_package = by_name.pop(kernel_name)
    say("unpacking them")
    roots = {package: folder / package.name for package in by_name.values()}
    for package, root in roots.items():
        packages.unpack(package, root)
    if own and toolchain:
        kernel, record = _compiled(packages, kernel_package, own, toolchain, say)
    else:
        packages.unpack(kernel_package, folder / kernel_name)
        kernel = pick.pick_kernel(folder / kernel_name)
        record = KernelRecord(release=kernel.release)
    busybox_root = roots[by_name[_BUSYBOX]]
    runtime = pick.pick_runtime(roots[by_name[_CRUN]], roots.values())
    used = tuple(package for package, root in roots.items() if root in {busybox_root, *runtime.roots})
    return _Parts(kernel, record, pick.pick_busybox(busybox_root), runtime, (kernel_package, *used))


def newest_source(packages: Packages) -> str:
    """Return the name of the package that has the source of the newest kernel.

    Raises:
        NotFound: the archive has no such package.
    """
    return _newest(packages, *_SOURCE)


def _newest(packages: Packages, meta_package: str, pattern: str) -> str:
    name = next((name for name in packages.dependencies(meta_package) if re.match(pattern, name)), None)
    if name is None:
        raise NotFound(f"package {meta_package}: depends on no kernel", hint=UPDATE_HINT)
    return name


def _compiled(
    packages: Packages, package: Package, own: OwnKernel, toolchain: Toolchain, say: Callable[[str], None]
) -> tuple[pick.Kernel, KernelRecord]:
    def unpack(folder: Path) -> Path:
        packages.unpack(package, folder)
        return pick.source_archive(folder, package.name)

    kernel, compiled = source_kernel(package.sha256, toolchain, unpack, own.kept, say, own.progress)
    return kernel, KernelRecord(kind="source", release=kernel.release, compiled=compiled)


def _write(new: Path, parts: _Parts, agent: bytes, say: Callable[[str], None]) -> None:
    kernel, busybox = parts.kernel, parts.busybox
    pieces = initrd.Pieces(agent, busybox.program, busybox.applets, parts.runtime.programs, kernel.release, kernel.modules)
    contents = {VMLINUX: kernel.vmlinux, KERNEL: kernel.image, INITRD: initrd.image(pieces)}
    contents[BUSYBOX] = image_of_busybox.image(busybox.program, busybox.applets, _GO_ARCHITECTURE)
    manifest = Manifest(
        architecture=ARCHITECTURE,
        kernel=parts.kernel_record,
        agent=_record(agent),
        files={name: _record(data) for name, data in contents.items()},
        packages=tuple(PackageRecord(name=p.name, version=p.version, sha256=p.sha256) for p in sorted(parts.packages)),
    )
    for name, data in {**contents, MANIFEST: encode(manifest)}.items():
        say(f"writing {name}, {len(data)} bytes")
        replace(new / name, data)


def _record(data: bytes) -> FileRecord:
    return FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest())
