"""Kernel modules of the guest: which groups there are, and each group's files in load order.

What a module needs is read from its own `.modinfo` section, as depmod does: `depends=` names modules, `softdep=pre: ...` names modules or
aliases. Modules that are built into the kernel need no file.

The guest reads ``/etc/utilityvm/modules``, one group a line, in this order: ``group: /path/of/first.ko /path/of/second.ko``, in load
order. The group `boot` is loaded before the guest connection is opened, with what must be there when memory comes or is given back; the
others when something asks for them. A module may be in several groups: loading it again is harmless.
"""

import lzma
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from struct import Struct
from typing import Final

import msgspec

from utilityvm.boot import elf
from utilityvm.kit.errors import NotFound, Unsupported

GROUPS: Mapping[str, tuple[str, ...]] = {
    "boot": ("virtio_pci", "virtio_console", "virtio_mem", "virtio_balloon"),
    "scsi": ("virtio_scsi", "sd_mod"),
    "pmem": ("virtio_pmem", "nd_pmem"),
    "erofs": ("erofs",),
    "ext4": ("ext4",),
    "xfs": ("xfs",),
    "overlay": ("overlay",),
    "9p": ("9p", "9pnet_fd"),
    "net": ("virtio_net",),
    "vsock": ("vsock", "vsock_loopback"),
}
"""The modules that each group is loaded for; what they need is found."""

# Soft dependencies name aliases that `depmod` would resolve with all modules' aliases at hand. Only these occur below GROUPS.
_PROVIDERS = {"crc32c": "crc32c_generic", "crypto_crc32c": "crc32c_generic"}

_SIGNED: Final = b"~Module signature appended~\n"
_SIGNATURE: Final = Struct(">BBBBB3xI")  # linux/module_signature.h: algorithm, hash, kind, lengths of signer, key and signature


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the guest: its name with underscores, and its uncompressed content."""

    name: str
    data: bytes = field(repr=False)


def load_order(
    wanted: Mapping[str, tuple[str, ...]],
    files: Mapping[str, PurePosixPath],
    built_in: frozenset[str],
    read: Callable[[PurePosixPath], bytes],
) -> dict[str, list[Module]]:
    """Return the modules of each group in `wanted`, each after what it needs.

    `files` has the path of every module that is a file, by name; `built_in` the names of those that are not; `read` returns a file's bytes.

    Raises:
        NotFound: the kernel has no such module.
        Unsupported: a module is compressed with something else than xz.
    """
    known: dict[str, Module] = {}

    def module(name: str) -> Module:
        if name not in known:
            known[name] = Module(name, bare(unsigned(_uncompressed(files[name], read(files[name])))))
        return known[name]

    def visit(name: str, order: dict[str, Module]) -> None:
        if name in built_in or name in order:
            return
        if name not in files:
            raise NotFound(f"kernel module {name}: the kernel does not have it")
        for need in _needs(module(name).data):
            if need.hard or need.name in files:
                visit(need.name, order)
        order[name] = module(name)

    groups: dict[str, list[Module]] = {}
    for group, names in wanted.items():
        order: dict[str, Module] = {}
        for name in names:
            visit(name, order)
        groups[group] = list(order.values())
    return groups


def module_name(path: str) -> str:
    """Return the name under which the kernel knows the module in the file `path`."""
    return PurePosixPath(path).name.split(".ko", 1)[0].replace("-", "_")


class _Need(msgspec.Struct, frozen=True):
    name: str
    hard: bool


def _needs(data: bytes) -> Iterator[_Need]:
    for entry in elf.section(data, ".modinfo").split(b"\0"):
        key, _, value = entry.decode(errors="replace").partition("=")
        if key == "depends":
            yield from (_Need(module_name(name), hard=True) for name in value.split(",") if name)
        elif key == "softdep" and value.startswith("pre:"):
            names = value.removeprefix("pre:").split("post:")[0].split()
            yield from (_Need(_PROVIDERS.get(name := module_name(word), name), hard=False) for word in names)


def unsigned(data: bytes) -> bytes:
    """Return a module without its signature. To check it the guest's kernel would hash the whole module at each boot.

    Nothing is lost: whoever could change the module in the initial RAM disk could change the kernel beside it. The package's signature is
    checked when it is fetched, the disk's digest is in the manifest.
    """
    if not data.endswith(_SIGNED):
        return data
    end = len(data) - len(_SIGNED) - _SIGNATURE.size
    _, _, _, signer, key, length = _SIGNATURE.unpack_from(data, end) if end >= 0 else (0, 0, 0, 0, 0, len(data))
    begin = end - length - signer - key
    return data[:begin] if begin > 0 else data


_IDLE: Final = frozenset(
    {
        ".BTF",  # types for BPF, which the kernel checks
        ".orc_unwind",  # how to unwind a stack exactly; without it that is guessed, and its lines have question marks
        ".orc_unwind_ip",  # places for that, which the kernel sorts
        "__mcount_loc",  # functions that can be traced, each of which the kernel looks up among all names of the module
        "_ftrace_events",  # tracepoints, of each of which the kernel makes seven files
        "_ftrace_eval_map",
        ".static_call_sites",  # calls that need no trampoline, each patched in three steps between two address spaces
    }
)
"""Sections of a module without which it does the same, and by which each load of it takes many times longer."""

_TRACER: Final = "__fentry__"
"""What each function calls first. The kernel takes out the calls that `__mcount_loc` lists."""


def bare(data: bytes) -> bytes:
    """Return a module without what only those need who trace the guest's kernel, and every load would pay for."""
    return elf.emptied(elf.without_calls(data, _TRACER), _IDLE)


def _uncompressed(path: PurePosixPath, data: bytes) -> bytes:
    match path.suffix:
        case ".ko":
            return data
        case ".xz":
            return lzma.decompress(data)
        case _:
            raise Unsupported(f"{path}: compressed kernel modules are read only when the compression is xz")
