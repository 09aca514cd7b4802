"""A kernel of our own, compiled from the distribution's source package with our configuration, and kept.

A kept kernel is a folder named by the digest of all that goes into it: the source package, the configuration, the compiler and linker,
the steps and their environment. So a second build finds the first one's, and a change of any of these compiles anew.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from utilityvm.boot import kernel
from utilityvm.boot.compile import COMPILE, CONFIGURE, ENVIRONMENT, Progress, Toolchain, compile_kernel
from utilityvm.boot.manifest import CompiledRecord
from utilityvm.boot.modules import GROUPS, load_order, module_name
from utilityvm.boot.pick import Kernel
from utilityvm.kit.files import FileLock, make_folder, replace, swap_folder

KEPT: Final = 3
"""So many kernels are kept, those used last."""

_PREFIX = ".compile-"
_IMAGE, _CONFIG, _BUILT_IN, _RECORD = "kernel", "config", "modules.builtin", "record.json"


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    release: str
    files: dict[str, str]


def our_config() -> str:
    """Return the configuration of our kernel: every option that is on, the reason beside it."""
    return resources.files("utilityvm.boot").joinpath("kernel.config").read_text()


def key_of(source_sha256: str, config: str, toolchain: Toolchain) -> str:
    """Return the digest of all that goes into a kernel, in hexadecimal."""
    recipe = {"configure": CONFIGURE, "compile": COMPILE, "environment": dict(ENVIRONMENT)}
    inputs = {"source": source_sha256, "config": config, "toolchain": msgspec.structs.asdict(toolchain), "recipe": recipe}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def source_kernel(
    source_sha256: str, toolchain: Toolchain, unpack: Callable[[Path], Path], cache: Path, say: Callable[[str], None], progress: Progress
) -> tuple[Kernel, CompiledRecord]:
    """Return our kernel of the source package with the digest `source_sha256`, kept or compiled now, and what it was compiled with.

    `toolchain` is what `find_toolchain` has found. `unpack` is called when it is compiled, with a new folder: it unpacks the package there
    and returns the path of the source archive.
    Kernels are kept in the folder `cache`, which is made when missing. `say` gets a line a step, `progress` each compiled file.

    Raises:
        Exhausted: there is not enough room in `cache`.
        NotFound: the kernel lacks a module that the guest loads.
        Unsupported: this kernel does not have an option of our configuration.
        HostError: a step failed.
    """
    config = our_config()
    key = key_of(source_sha256, config, toolchain)
    record = CompiledRecord(
        key=key, config_sha256=hashlib.sha256(config.encode()).hexdigest(), compiler=toolchain.compiler, linker=toolchain.linker
    )
    make_folder(cache)
    with _lock(cache, say) as lock:
        for left in cache.glob(f"{_PREFIX}*"):  # by a build that was killed: it, and all that it started, held the lock
            shutil.rmtree(left)
        kept = _read(cache / key)
        if kept is not None:
            say(f"the kernel is there, compiled before: {kept.release}")
        else:
            kept = _compile(cache / key, unpack, config, say, progress, lock)
        os.utime(cache / key)
        for old in sorted(_kernels(cache), key=lambda path: path.stat().st_mtime_ns, reverse=True)[KEPT:]:
            shutil.rmtree(old)
    return kept, record


def _compile(
    place: Path, unpack: Callable[[Path], Path], config: str, say: Callable[[str], None], progress: Progress, lock: FileLock
) -> Kernel:
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=_PREFIX) as temporary:
        folder = Path(temporary)
        work, new = folder / "work", folder / "new"
        work.mkdir()
        new.mkdir()
        say("compiling the kernel, with every processor of this host")
        compiled = compile_kernel(unpack(folder / "package"), config, work, progress, lock=lock.descriptor)
        contents = {_IMAGE: compiled.image, _CONFIG: compiled.config, _BUILT_IN: compiled.built_in, **compiled.modules}
        found = _kernel(compiled.release, contents)
        record = _Record(release=compiled.release, files={name: hashlib.sha256(data).hexdigest() for name, data in contents.items()})
        for name, data in {**contents, _RECORD: msgspec.json.encode(record)}.items():
            replace(new / name, data)
        if place.exists():  # damaged, or it would have been read
            shutil.rmtree(place)
        swap_folder(new, place)
    return found


def _read(place: Path) -> Kernel | None:
    """Return the kept kernel at `place`; None when there is none, or it is not as it was written."""
    try:
        record = msgspec.json.decode((place / _RECORD).read_bytes(), type=_Record)
        contents = {name: (place / name).read_bytes() for name in record.files}
        if any(hashlib.sha256(data).hexdigest() != record.files[name] for name, data in contents.items()):
            return None
        return _kernel(record.release, contents)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _kernel(release: str, contents: Mapping[str, bytes]) -> Kernel:
    built_in = frozenset(module_name(line) for line in contents[_BUILT_IN].decode().splitlines())
    files = {module_name(name): PurePosixPath(name) for name in contents if name.endswith(".ko")}
    groups = load_order(GROUPS, files, built_in, lambda path: contents[path.name])
    return Kernel(release, contents[_IMAGE], kernel.vmlinux(contents[_IMAGE], "the compiled kernel"), groups)


def _kernels(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if (path / _RECORD).is_file()]


def _lock(cache: Path, say: Callable[[str], None]) -> FileLock:
    lock = FileLock(cache)
    if not lock.acquire(wait=False):
        say(f"waiting for another build of a kernel in {cache}")
        lock.acquire()
    return lock
