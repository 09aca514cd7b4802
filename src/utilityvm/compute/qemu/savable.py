"""Machines that are saved as templates, and those that go on from one: what must be alike, in QEMU's words. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from utilityvm.kit.errors import Unsupported
from utilityvm.schema.devices import Devices
from utilityvm.schema.document import ComputeSystem, VirtualMachine

BACKEND: Final = "memory-backend-file,id=ram0"
"""How the words about the guest's memory begin."""

READS_ONLY_SINCE: Final = (8, 2, 0)
"""The first QEMU that has memory of its own over a file which it can only read."""

GENERATION: Final = "vmgenid,guid=auto"
"""The device by which a guest learns that it goes on as another, in a machine that is not the only one with its memory.

Its firmware is QEMU's own choice: the one for guests that are handed a kernel cannot tell QEMU where the guest keeps its generation id, and
boots no machine that has one.
"""

_ITS_OWN: Final = {"-name": 1, "-incoming": 1, "-S": 0}  # options in which two machines of one topology differ, and how many words follow


def template_of(document: ComputeSystem) -> str:
    """Return the id of the template that the machine goes on from, ``""`` when it boots."""
    restored = document.virtual_machine.restore_state if document.virtual_machine else None
    return restored.template_system_id if restored else ""


def check_savable(vm: VirtualMachine, *, savable: bool) -> None:
    """Refuse a machine that is to be `savable`, or forked, or goes on from another, with all in its document that cannot be so.

    Raises:
        Unsupported: the text says what, by its path, and why.
    """
    machine = "$.VirtualMachine"
    why = "" if savable or vm.restore_state is None else f"{machine}.RestoreState.TemplateSystemId: "
    if lacks := [f"  {why}{path}: {reason}" for path, reason in _lacks(vm, machine, savable=savable)]:
        raise Unsupported("\n".join(["a machine that others go on from, and they, cannot have this document:", *lacks]))


def _lacks(vm: VirtualMachine, machine: str, *, savable: bool) -> Iterator[tuple[str, str]]:
    memory = vm.compute_topology.memory if vm.compute_topology else None
    if savable and vm.restore_state is not None:
        yield f"{machine}.RestoreState", "what goes on from a template has its memory for itself, and cannot become one"
    if memory is not None and memory.enable_cold_discard_hint:
        yield f"{machine}.ComputeTopology.Memory.EnableColdDiscardHint", "memory that one clone gives back would be another's too"
    if memory is not None and not memory.allow_overcommit:
        yield f"{machine}.ComputeTopology.Memory.AllowOvercommit", "false: clones share the memory that they do not write to"
    devices = vm.devices
    if devices is not None and _present(devices):
        yield f"{machine}.Devices", "what is there from the start is not in a template"


def _present(devices: Devices) -> bool:
    disks = any(scsi.attachments for scsi in devices.scsi.values()) or (devices.virtual_pmem and devices.virtual_pmem.devices)
    return bool(disks or devices.virtual_pci or devices.network_adapters or (devices.plan9 and devices.plan9.shares))


class Basis(msgspec.Struct, frozen=True):
    """How a machine is begun from which others go on, or that goes on from another: whether it has a `generation` id, by which its guest
    learns of it, and memory of its own, which is a copy, rather than another's that it changes for itself alone (`own_memory`).
    """

    generation: bool
    own_memory: bool


def memory_words(version: tuple[int, int, int]) -> str:
    """Return how memory is opened that the machine writes to for itself alone. Before `READS_ONLY_SINCE` QEMU opens it for writing too, and
    it is a seal on it that keeps it as it is.
    """
    return "share=off" + (",readonly=on,rom=off" if version >= READS_ONLY_SINCE else "")


def topology(argv: Sequence[object]) -> tuple[str, ...]:
    """Return of a command line what two machines of one topology have in common; in place of descriptors stand their names."""
    words, kept = iter([str(word) for word in argv[1:]]), list[str]()
    for word in words:
        if word in _ITS_OWN:
            for _ in range(_ITS_OWN[word]):
                next(words)
        elif word.startswith(BACKEND):
            kept.pop()  # "-object"
        else:
            kept.append(word)
    return tuple(kept)


def difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Say in what a machine's topology differs first from its template's, ``""`` when it does not."""
    before = ""
    for word, other in zip((*ours, "(nothing more)"), (*theirs, "(nothing more)"), strict=False):
        if word != other:
            return f"{before} {word}, the template's is {before} {other}".replace("  ", " ").strip()
        before = word if word.startswith("-") else ""
    return ""
