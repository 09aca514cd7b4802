"""Build boot files from the distribution's packages: fetch, unpack, pick, put together, swap in."""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from utilityvm.boot import elf, initrd, pick
from utilityvm.boot.apt import UPDATE_HINT, Apt
from utilityvm.boot.files import ARCHITECTURE, INITRD, KERNEL, MANIFEST, VMLINUX, BootFiles, load
from utilityvm.boot.manifest import FileRecord, KernelRecord, Manifest, PackageRecord, encode
from utilityvm.boot.packages import Archive, Package, Packages
from utilityvm.kit.errors import Exists, HostError, NotFound, Unsupported
from utilityvm.kit.files import FileLock, replace, swap_folder

_META_PACKAGE = "linux-image-amd64"
_BUSYBOX = "busybox-static"
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


def build(out: Path, agent: Path, cache: Path, say: Callable[[str], None], archive: Archive | None = None) -> BootFiles:
    """Build boot files at `out`, replacing those that are there in one step. `say` gets a line a step.

    Packages come from `archive`, by default this host's apt, and are kept in `cache`.

    Raises:
        Exists: `out` holds something else than boot files.
        NotFound: the agent, or a package, or something inside a package, is missing.
        Corrupt: the archive, or a package, is not what it says.
        DeadlineExceeded: a download took too long.
        Unsupported: no archive is named and the host has no apt, or the agent is no static program for the guest's architecture.
        HostError: a tool failed, or a file cannot be written.
    """
    try:
        return _build(out.resolve(), _read_agent(agent), Packages(cache, archive or Apt(), say), say)
    except OSError as error:
        raise HostError(f"{error.filename or out}: {error.strerror}") from error


def _build(out: Path, agent: bytes, packages: Packages, say: Callable[[str], None]) -> BootFiles:
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}.uvm-build-"
    with _lock(out, say):
        _refuse_strangers(out)
        for left in out.parent.glob(f"{prefix}*"):  # by a build that was killed: a live one would hold the lock
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=prefix) as temporary:
            _assemble(out, Path(temporary), agent, packages, say)
    return load(out)


def _assemble(out: Path, work: Path, agent: bytes, packages: Packages, say: Callable[[str], None]) -> None:
    roots = _unpack(packages, work / "packages", say)
    new = work / "new"
    new.mkdir()
    _write(new, roots, agent, say)
    load(new, digests=True)
    swap_folder(new, out)


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


def _unpack(packages: Packages, folder: Path, say: Callable[[str], None]) -> dict[Package, Path]:
    kernel = next((name for name in packages.dependencies(_META_PACKAGE) if re.match(r"linux-image-\d", name)), None)
    if kernel is None:
        raise NotFound(f"package {_META_PACKAGE}: depends on no kernel", hint=UPDATE_HINT)
    names = [kernel, _BUSYBOX, *packages.closure(_CRUN)]
    say(f"fetching packages: {' '.join(names)}")
    roots = {package: folder / package.name for package in packages.fetch(names)}
    say("unpacking them")
    for package, root in roots.items():
        packages.unpack(package, root)
    return roots


def _write(new: Path, roots: Mapping[Package, Path], agent: bytes, say: Callable[[str], None]) -> None:
    by_name = {package.name: root for package, root in roots.items()}
    kernel_root = next(root for name, root in by_name.items() if name.startswith("linux-image-"))
    kernel = pick.pick_kernel(kernel_root)
    busybox = pick.pick_busybox(by_name[_BUSYBOX])
    runtime = pick.pick_runtime(by_name[_CRUN], roots.values())
    pieces = initrd.Pieces(agent, busybox.program, busybox.applets, runtime.programs, kernel.release, kernel.modules)
    contents = {VMLINUX: kernel.vmlinux, KERNEL: kernel.image, INITRD: initrd.image(pieces)}
    used = {kernel_root, by_name[_BUSYBOX], *runtime.roots}
    manifest = Manifest(
        architecture=ARCHITECTURE,
        kernel=KernelRecord(release=kernel.release),
        agent=_record(agent),
        files={name: _record(data) for name, data in contents.items()},
        packages=tuple(PackageRecord(name=p.name, version=p.version, sha256=p.sha256) for p in sorted(roots) if roots[p] in used),
    )
    for name, data in {**contents, MANIFEST: encode(manifest)}.items():
        say(f"writing {name}, {len(data)} bytes")
        replace(new / name, data)


def _record(data: bytes) -> FileRecord:
    return FileRecord(size=len(data), sha256=hashlib.sha256(data).hexdigest())
