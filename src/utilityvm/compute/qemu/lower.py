"""Document and host facts to QEMU's command line. Pure: what must be opened is named, not opened."""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from utilityvm.compute.plan9.spec import wrong_plan9
from utilityvm.compute.qemu.adapters import MAX_ADAPTERS
from utilityvm.compute.qemu.facts import Accel, HostFacts
from utilityvm.compute.qemu.graphics import screen_path, screen_words, wrong_screen
from utilityvm.compute.qemu.modify import SLOTS, pmem_place
from utilityvm.compute.qemu.present import assigned, present, root_slot, wrong_present
from utilityvm.compute.qemu.qos import group_words, is_bounded, wrong_qos
from utilityvm.compute.qemu.savable import BACKEND, GENERATION, Basis, check_savable, memory_words, template_of
from utilityvm.compute.qemu.services import rules_of, wrong_rule
from utilityvm.compute.qemu.share import Share, share_of, wrong_share
from utilityvm.compute.qemu.treatment import LACKS, NOT_YET, TREATMENT
from utilityvm.kit.errors import InvalidOptions, Problem, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.schema.devices import HvSocketServiceConfig, Plan9Share, Scsi
from utilityvm.schema.document import ComputeSystem, LinuxKernelDirect, Memory, Processor, VirtualMachine
from utilityvm.schema.node import Node
from utilityvm.schema.requests import ModifySettingRequest

PORT_NAME: Final = "org.utilityvm.hvsocket"
"""Name of the virtio-serial port that carries the guest's sockets."""

SHARES_PORT_NAME: Final = "org.utilityvm.shares"
"""Name of the one that carries the connections to shares of files: who serves them in the guest must wait for nothing else."""

PORTS: Final = "virtio-serial-pci,max_ports=3"
"""Room for those two, and for the first, which QEMU keeps for a console. Of its own accord it has room for 31: 64 queues, each of which the
guest sets up when it boots, and QEMU whenever the guest runs on."""

MAX_SCSI_CONTROLLERS: Final = 4
OTHER_DEVICES: Final = 24
"""Devices besides persistent memory that can be plugged in while a machine runs."""

ROOM_MB: Final = 256 << 10
"""MiB of addresses for memory that comes while a machine runs."""

MAX_PROCESSORS: Final = 255
"""Beyond this the guest needs an interrupt-remapping IOMMU, which the machine does not have."""

_MIB: Final = 1 << 20
_FIRST_BRIDGE: Final = 0x10  # PCI slot; those below are for what is there from the start
_BELOW_4G_MB: Final = 4 << 10
_LOWEST_MB: Final = 1 << 10  # memory that stays below 4 GiB, whatever the hole there
_HIGH_GAP_MB: Final = 32 << 10  # QEMU's own choice
_RESERVED_START, _RESERVED_END = 1012 << 30, 1 << 40  # on AMD's processors, which TCG's model is; what does not fit below begins above

FIRMWARE: Final = "qboot.rom"
"""QEMU's firmware for guests that are handed a kernel: it finds tables and starts it. The other one spends 0.1 s on disks and menus."""

SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""QEMU's seccomp filter of itself, on with all that it can deny."""


class Fd(StrEnum):
    """What QEMU gets from its owner: open descriptors, and files by a name that is known only when it starts."""

    MEMORY = "memory"
    CONSOLE = "console"
    SOCKETS = "sockets"
    SHARES = "shares"
    MONITOR = "monitor"
    KERNEL = "kernel"
    INITRD = "initrd"


class FdWord(msgspec.Struct, frozen=True):
    """A word of the command line in which a descriptor's number stands, or a file's name."""

    before: str
    fd: Fd
    after: str = ""

    def __str__(self) -> str:
        return f"{self.before}<{self.fd}>{self.after}"


class Launch(msgspec.Struct, frozen=True):
    """How to start QEMU. `memory_bytes` is the size of the file behind `Fd.MEMORY`; `files` are those that QEMU reads, by what
    stands for their names in the command line; `console_path` is the socket that offers the console, ``""`` for none; `share` is what
    it may use of the host's processors; `locked` says that its memory is to be locked before it starts, `bounded` that its
    disks are held to common bounds; `folders` are those of the host that its guest may mount from the start; `rules` are those
    of hvsocket services; `screen_path` is the socket that offers the screen, ``""`` for a machine without; `present` is to be plugged in
    before the guest runs, for which QEMU waits; `root` is the slot of the device that the guest's root file system is on, ``""`` for none;
    `assigned` are the addresses of the host's devices among those, by their paths in the document; `savable` says that the machine may
    be saved as a template, `template` is the id of what it goes on from, ``""`` for a machine that boots; `own_memory` that the file behind
    `Fd.MEMORY` is the machine's own, and not one that it changes for itself alone.
    """

    argv: tuple[str | FdWord, ...]
    memory_bytes: int
    files: Mapping[Fd, str]
    console_path: str
    share: Share
    rules: Mapping[str, HvSocketServiceConfig]
    locked: bool = False
    bounded: bool = False
    folders: tuple[Plan9Share, ...] = ()
    screen_path: str = ""
    present: tuple[ModifySettingRequest, ...] = ()
    root: str = ""
    assigned: Mapping[str, str] = msgspec.field(default_factory=dict)
    savable: bool = False
    template: str = ""
    own_memory: bool = True

    def words(self, numbers: Mapping[Fd, int | str]) -> list[str]:
        """Return the command line with the descriptors' numbers and the files' names in it."""
        return [word if isinstance(word, str) else f"{word.before}{numbers[word.fd]}{word.after}" for word in self.argv]


def check(document: ComputeSystem, address_bits: int | None = None) -> None:
    """Refuse a document that cannot be honoured, with everything that is wrong with it in one error.

    The bound on memory is checked only where `address_bits` are known.

    Raises:
        Unsupported: fields that are not carried out, each with its path.
        InvalidOptions: the same, when a field among them makes no sense for any driver.
    """
    problems = [*_refused(document, "$", "$"), *_wrong_values(document, address_bits)]
    if not problems:
        return
    message = "\n".join(["the QEMU driver cannot carry out this document:", *(f"  {p.path}: {p.message}" for p in problems)])
    if any(problem.rule == "invalid" for problem in problems):
        raise InvalidOptions(message, problems=problems)
    raise Unsupported(message)


def lower(system_id: VmId, document: ComputeSystem, facts: HostFacts, *, savable: bool = False, basis: Basis | None = None) -> Launch:
    """Return how to start QEMU for `document`; `savable` is for a machine that may become a template; `basis` None: that of such a
    machine, of a template's clone, or of one that boots, whichever it is.

    Raises:
        Unsupported, InvalidOptions: see `check`.
    """
    check(document, facts.address_bits)
    vm = _vm(document)
    kernel, memory, processor = _needed(vm)
    devices = tuple(request for _, request in present(vm))
    template = template_of(document)
    basis = basis or Basis(generation=savable or bool(template), own_memory=not template)
    files = {Fd.KERNEL: kernel.kernel_file_path} | ({Fd.INITRD: kernel.init_rd_path} if kernel.init_rd_path else {})
    argv: list[str | FdWord] = [
        facts.qemu,
        *("-name", system_id),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", SANDBOX),
        *_machine(memory, devices),
        *_cpu(facts, processor.count),
        *_memory(vm, memory, facts, basis),
        *_identity(vm, template, basis, savable=savable),
        *_boot(files, kernel.kernel_cmd_line),
        *("-chardev", FdWord("socket,id=monitor,fd=", Fd.MONITOR), "-mon", "chardev=monitor,mode=control"),
        *("-chardev", FdWord("socket,id=console,fd=", Fd.CONSOLE), "-serial", "chardev:console"),
        *_devices(document, memory),
    ]
    return Launch(
        argv=tuple(argv),
        memory_bytes=memory.size_in_mb * _MIB,
        files=files,
        console_path=_console_path(vm),
        share=share_of(processor),
        rules=rules_of(vm),
        locked=not memory.allow_overcommit,
        bounded=is_bounded(vm.storage_qos),
        folders=_folders(vm),
        screen_path=screen_path(document),
        present=devices,
        root=root_slot(vm),
        assigned=assigned(vm),
        savable=savable,
        template=template,
        own_memory=basis.own_memory,
    )


def _identity(vm: VirtualMachine, template: str, basis: Basis, *, savable: bool) -> list[str]:
    """Return the words about the firmware, and who the machine is where there are others like it."""
    if savable or template or basis.generation:
        check_savable(vm, savable=savable)
    firmware = ("-device", GENERATION) if basis.generation else ("-bios", FIRMWARE)
    return [*firmware, *(("-incoming", "defer") if template else ())]


def _needed(vm: VirtualMachine) -> tuple[LinuxKernelDirect, Memory, Processor]:
    """Return what every machine has."""
    assert vm.chipset is not None  # noqa: S101 (checked)
    assert vm.chipset.linux_kernel_direct is not None  # noqa: S101
    assert vm.compute_topology is not None  # noqa: S101
    assert vm.compute_topology.memory is not None  # noqa: S101
    assert vm.compute_topology.processor is not None  # noqa: S101
    return vm.chipset.linux_kernel_direct, vm.compute_topology.memory, vm.compute_topology.processor


def _memory(vm: VirtualMachine, memory: Memory, facts: HostFacts, basis: Basis) -> Iterator[str | FdWord]:
    size, share = f"{memory.size_in_mb}M", "share=on" if basis.own_memory else memory_words(facts.version)
    words = ("" if memory.allow_overcommit else ",prealloc=on") + (",reserve=off" if memory.enable_deferred_commit else "")
    yield from ("-m", f"{size}{_room(vm, memory.size_in_mb, facts.address_bits, memory.high_mmio_gap_in_mb)}")
    yield from ("-object", FdWord(f"{BACKEND},size={size},mem-path=/proc/self/fd/", Fd.MEMORY, f",{share}{words}"))


def _carriers() -> Iterator[str | FdWord]:
    yield from ("-chardev", FdWord("socket,id=sockets,fd=", Fd.SOCKETS), "-chardev", FdWord("socket,id=shares,fd=", Fd.SHARES))
    yield from ("-device", PORTS, "-device", f"virtserialport,chardev=sockets,name={PORT_NAME}")
    yield from ("-device", f"virtserialport,chardev=shares,name={SHARES_PORT_NAME}")


def _devices(document: ComputeSystem, memory: Memory) -> Iterator[str | FdWord]:
    vm = _vm(document)
    yield from _carriers()
    yield from _bridges(pmem_count(document))
    yield from _scsi(vm.devices.scsi if vm.devices else {})
    yield from _balloon(memory)
    yield from group_words(vm.storage_qos)
    yield from screen_words(document)


def _balloon(memory: Memory) -> Iterator[str]:
    if memory.enable_cold_discard_hint:
        yield from ("-device", "virtio-balloon-pci,free-page-reporting=on")


def _machine(memory: Memory, waits_for: tuple[ModifySettingRequest, ...]) -> Iterator[str]:
    yield from ["-S"] if waits_for else []
    low = f",max-ram-below-4g={_BELOW_4G_MB - memory.low_mmio_gap_in_mb}M" if memory.low_mmio_gap_in_mb else ""
    yield from ("-machine", f"q35,memory-backend=ram0{low}")
    if memory.high_mmio_gap_in_mb:
        yield from ("-global", f"q35-pcihost.pci-hole64-size={memory.high_mmio_gap_in_mb}M")


def _cpu(facts: HostFacts, count: int) -> list[str]:
    # With ERMS the guest copies by `rep movsb`, which TCG runs a byte at a time: without it boots are a tenth shorter, copies 2-3x faster.
    # With SMAP and UMIP what the kernel ran before it turned them on is translated again.
    model = {Accel.KVM: "host", Accel.TCG: "max,-erms,-smap,-umip"}[facts.accel]
    return ["-accel", facts.accel.value, "-cpu", model, "-smp", str(count)]


def pmem_count(document: ComputeSystem) -> int:
    """Return how many persistent memory devices the machine can have."""
    devices = _vm(document).devices
    return devices.virtual_pmem.maximum_count if devices and devices.virtual_pmem else 0


def scsi_count(document: ComputeSystem) -> int:
    """Return how many SCSI controllers the machine has."""
    devices = _vm(document).devices
    return len(devices.scsi) if devices else 0


def _boot(files: Iterable[Fd], command_line: str) -> Iterator[str | FdWord]:
    for fd in files:
        yield from (f"-{fd}", FdWord("", fd))
    if command_line:
        yield from ("-append", command_line)


def _room(vm: VirtualMachine, memory_mb: int, address_bits: int, high_gap_mb: int) -> str:
    """Return what is said of addresses for memory that comes later, and for persistent memory, as far as there are any."""
    pmem = vm.devices.virtual_pmem if vm.devices else None
    layers = pmem.maximum_count * (pmem.maximum_size_bytes // _MIB) if pmem else 0
    most = min(memory_mb + ROOM_MB + layers, max_memory_mb(address_bits, high_gap_mb))
    return f",maxmem={most}M" if most > memory_mb else ""


def memory_place(pmem: int) -> tuple[str, int]:
    """Return the bridge and the slot on it that is kept for memory, the last of all."""
    bridge, slot = pmem_place(pmem + OTHER_DEVICES - 1)
    return f"bridge{bridge}", slot


def assigned_places(pmem: int) -> range:
    """Return the numbers of the places behind the bridges that are kept for devices of the host."""
    return range(pmem, pmem + OTHER_DEVICES - 1 - MAX_ADAPTERS)


def adapter_places(pmem: int) -> range:
    """Return the numbers of those that are kept for network adapters."""
    after = pmem + OTHER_DEVICES - 1
    return range(after - MAX_ADAPTERS, after)


def _bridges(pmem: int) -> Iterator[str]:
    """Places for what is plugged in while the machine runs: persistent memory first, and some for others.

    Linux gives a bridge no addresses for what may come, but rounds what is there up to 1 MiB, enough for all its places: so there is
    a device without a function in the first place, which nothing is plugged into.
    """
    for number in range(-(-(pmem + OTHER_DEVICES) // SLOTS)):
        yield from ("-device", f"pci-bridge,id=bridge{number},chassis_nr={number + 1},addr={_FIRST_BRIDGE + number:#x},shpc=off")
        yield from ("-device", f"pci-testdev,bus=bridge{number},addr=0,membar=4096")


def _scsi(controllers: Mapping[str, Scsi]) -> Iterator[str]:
    for number in range(len(controllers)):
        yield from ("-device", f"virtio-scsi-pci,id=scsi{number}")


def _console_path(vm: VirtualMachine) -> str:
    port = vm.devices.com_ports.get("0") if vm.devices else None
    return port.named_pipe if port else ""


def _folders(vm: VirtualMachine) -> tuple[Plan9Share, ...]:
    return tuple(vm.devices.plan9.shares) if vm.devices and vm.devices.plan9 else ()


def _vm(document: ComputeSystem) -> VirtualMachine:
    return document.virtual_machine or VirtualMachine()


# -- what is refused ----------------------------------------------------------------------------------------------------


def _refused(node: object, path: str, pattern: str) -> Iterator[Problem]:
    """Walk what is present; a refused object is reported once, not member by member."""
    if isinstance(node, Node):
        for member in msgspec.structs.fields(node):
            name, value = f".{member.encode_name}", getattr(node, member.name)
            if not value:  # zero, empty and None mean "not said"
                continue
            if pattern + name in TREATMENT:
                yield from _refused(value, path + name, pattern + name)
            else:
                yield Problem(path + name, "unsupported", LACKS.get(pattern + name, NOT_YET))
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _refused(value, f'{path}["{key}"]', f"{pattern}[*]")


def _wrong_values(document: ComputeSystem, address_bits: int | None) -> Iterator[Problem]:
    if document.schema_version is not None and document.schema_version.major != 2:
        yield _unsupported("$.SchemaVersion.Major", f"version {document.schema_version.major}: only version 2 is known")
    if not document.should_terminate_on_last_handle_closed:
        yield _unsupported("$.ShouldTerminateOnLastHandleClosed", "false: a VM ends with the process that owns it")
    vm = document.virtual_machine
    if vm is None:
        yield _unsupported("$.VirtualMachine", "missing: only virtual machines are carried out")
        return
    if not vm.stop_on_reset:
        yield _unsupported("$.VirtualMachine.StopOnReset", "false: a guest that resets itself is ended")
    if vm.guest_connection is not None and not vm.guest_connection.use_vsock:
        yield _unsupported("$.VirtualMachine.GuestConnection", "UseVsock is false: a Linux guest dials ports of AF_VSOCK")
    yield from _wrong_boot(vm)
    yield from wrong_qos(vm.storage_qos, "$.VirtualMachine.StorageQoS")
    yield from _wrong_topology(vm, address_bits)
    yield from _wrong_devices(vm)
    yield from wrong_present(vm, scsi_count(document), pmem_count(document))


def _wrong_boot(vm: VirtualMachine) -> Iterator[Problem]:
    path = "$.VirtualMachine.Chipset.LinuxKernelDirect"
    kernel = vm.chipset.linux_kernel_direct if vm.chipset else None
    if kernel is None:
        if vm.chipset is None or vm.chipset.uefi is None:  # Uefi is refused by itself
            yield _invalid(path, "missing: the machine has nothing to boot from")
    elif not kernel.kernel_file_path:
        yield _invalid(f"{path}.KernelFilePath", "missing")


def _wrong_topology(vm: VirtualMachine, address_bits: int | None) -> Iterator[Problem]:
    path = "$.VirtualMachine.ComputeTopology"
    topology = vm.compute_topology
    memory = topology.memory if topology else None
    size = memory.size_in_mb if memory else 0
    if size <= 0:
        yield _invalid(f"{path}.Memory.SizeInMB", f"{size} MiB: a machine needs memory")
    if memory is not None:
        yield from _wrong_memory(memory, f"{path}.Memory")
    high = memory.high_mmio_gap_in_mb if memory else 0
    if address_bits is not None and size > (limit := max_memory_mb(address_bits, high)):
        reason = f"{size} MiB: at most {limit} MiB fit into the {address_bits} address bits of the guest's processor"
        yield _unsupported(f"{path}.Memory.SizeInMB", reason)
    count = topology.processor.count if topology and topology.processor else 0
    if count <= 0:
        yield _invalid(f"{path}.Processor.Count", f"{count}: a machine needs a processor")
    if count > MAX_PROCESSORS:
        yield _unsupported(f"{path}.Processor.Count", f"{count}: at most {MAX_PROCESSORS}")
    if topology and topology.processor and count > 0:
        yield from wrong_share(share_of(topology.processor), f"{path}.Processor")


def _wrong_memory(memory: Memory, path: str) -> Iterator[Problem]:
    if memory.enable_cold_discard_hint and not memory.allow_overcommit:
        yield _unsupported(
            f"{path}.EnableColdDiscardHint", "without AllowOvercommit: what is locked in the host's memory is not given back"
        )
    if memory.enable_deferred_commit and not memory.allow_overcommit:
        yield _invalid(f"{path}.EnableDeferredCommit", "without AllowOvercommit: memory is committed beforehand or later, not both")
    most = _BELOW_4G_MB - _LOWEST_MB
    if not 0 <= memory.low_mmio_gap_in_mb <= most:
        yield _unsupported(f"{path}.LowMmioGapInMB", f"{memory.low_mmio_gap_in_mb} MiB: at most {most} MiB")
    if memory.high_mmio_gap_in_mb < 0:
        yield _invalid(f"{path}.HighMmioGapInMB", f"{memory.high_mmio_gap_in_mb} MiB: is less than nothing")


def _wrong_devices(vm: VirtualMachine) -> Iterator[Problem]:
    path = "$.VirtualMachine.Devices"
    if vm.devices is None:
        return
    if len(vm.devices.virtual_pci) > (most := len(assigned_places(0))):
        yield _unsupported(f"{path}.VirtualPci", f"{len(vm.devices.virtual_pci)} devices: at most {most}")
    if len(vm.devices.scsi) > MAX_SCSI_CONTROLLERS:
        yield _unsupported(f"{path}.Scsi", f"{len(vm.devices.scsi)} controllers: at most {MAX_SCSI_CONTROLLERS}")
    names: set[str] = set()
    for at, share in enumerate(_folders(vm)):
        yield from wrong_plan9(share, f"{path}.Plan9.Shares[{at}]")
        if share.name in names:
            yield _invalid(f"{path}.Plan9.Shares[{at}].Name", f"{share.name!r}: there is another of this name")
        names.add(share.name)
    yield from wrong_screen(vm.devices, path)
    for service, rule in rules_of(vm).items():
        if why := wrong_rule(service, rule):
            yield _unsupported(f'{path}.HvSocket.HvSocketConfig.ServiceTable["{service}"]', why)
    for number, port in vm.devices.com_ports.items():
        if number != "0":
            yield _unsupported(f'{path}.ComPorts["{number}"]', "only port 0 is carried out")
        elif not port.named_pipe.startswith("/"):
            yield _unsupported(f'{path}.ComPorts["0"].NamedPipe', f"{port.named_pipe!r}: on this host it is the absolute path of a socket")


def max_memory_mb(address_bits: int, high_gap_mb: int = 0) -> int:
    """Return the memory, in MiB, that a guest with so many address bits can have beside a hole of `high_gap_mb` (0: QEMU's choice)."""
    top = 1 << address_bits
    usable = min(top, _RESERVED_START) if top <= _RESERVED_END else top - _RESERVED_END
    return max(usable // _MIB - _BELOW_4G_MB - (high_gap_mb or _HIGH_GAP_MB), 0)


def _unsupported(path: str, message: str) -> Problem:
    return Problem(path, "unsupported", message)


def _invalid(path: str, message: str) -> Problem:
    return Problem(path, "invalid", message)
