"""A Linux guest's options become a document: pure, in the original's order of steps, so that errors come in its order too."""

from collections.abc import Mapping

import msgspec

from utilityvm.kit.errors import NotFound
from utilityvm.kit.ids import guid_of
from utilityvm.options.lcow import INITRD_FILE, KERNEL_FILE, UNCOMPRESSED_KERNEL_FILE, OptionsLCOW, RootFSType
from utilityvm.options.paths import PathFlavour, extension, join
from utilityvm.options.rules import verify
from utilityvm.plan.facts import Facts, Platform
from utilityvm.plan.kernel_args import kernel_command_line
from utilityvm.plan.machine import hv_socket, storage_qos, whole
from utilityvm.plan.normalize import Warn
from utilityvm.plan.topology import plan_topology
from utilityvm.schema.devices import (
    ComPort,
    Devices,
    EnhancedModeVideo,
    ImageFormat,
    Keyboard,
    Plan9,
    RdpConnectionOptions,
    Scsi,
    VideoMonitor,
    VirtualPciDevice,
    VirtualPciFunction,
    VirtualPMemController,
    VirtualPMemDevice,
)
from utilityvm.schema.document import (
    Chipset,
    ComputeSystem,
    GuestConnection,
    LinuxKernelDirect,
    RestoreState,
    Topology,
    Uefi,
    UefiBootEntry,
    VirtualMachine,
)
from utilityvm.wire.gcs import BRIDGE_PORT, ENTROPY_PORT, LOG_PORT


class VPMemSlot(msgspec.Struct, frozen=True):
    """A persistent memory device that is there from the start; only a removable one may be taken away again."""

    host_path: str
    uvm_path: str
    removable: bool


class LcowPlan(msgspec.Struct, frozen=True):
    """What is to be created, and what the VM object begins with.

    `listen_ports` are in the order of listening; memory is in MiB; `vpmem_root` is in slot 0 when the root file system is a disk;
    `assigned` are the host's devices that the VM has from its start, by the GUID of their place.
    """

    document: ComputeSystem
    processor_count: int
    memory_size_in_mb: int
    listen_ports: tuple[int, ...]
    scsi_controller_count: int
    vpmem_max_count: int
    vpmem_max_size_bytes: int
    vpmem_root: VPMemSlot | None
    assigned: Mapping[str, str]


class BootFilePaths(msgspec.Struct, frozen=True):
    """The files that a Linux guest boots from: a kernel and a root file system.

    `loader` is the initrd that on QEMU loads a kernel's drivers for a root that is a disk, and goes on to it; ``""`` when the root is none.
    A kernel that has them built in needs no such file.
    """

    kernel: str
    root_fs: str
    loader: str = ""

    @property
    def all(self) -> frozenset[str]:
        """Every file whose existence planning asks about."""
        return frozenset(filter(None, (self.kernel, self.root_fs, self.loader)))


def boot_file_paths(options: OptionsLCOW, platform: Platform, flavour: PathFlavour) -> BootFilePaths:
    """Return the paths of which the kernel and the root must be among the facts' `files_present` for a plan to succeed.

    On QEMU a guest with a screen boots the compressed image in place of the uncompressed one, whose entry tells it of no screen.
    """
    kernel = options.kernel_file
    if platform is Platform.QEMU and options.enable_graphics_console and kernel == UNCOMPRESSED_KERNEL_FILE:
        kernel = KERNEL_FILE
    return BootFilePaths(
        kernel=join(flavour, options.boot_files_path, kernel),
        root_fs=join(flavour, options.boot_files_path, options.root_fs_file),
        loader=join(flavour, options.boot_files_path, INITRD_FILE) if platform is Platform.QEMU and _disk_root(options) else "",
    )


def plan_lcow(options: OptionsLCOW, facts: Facts, *, vm_id: str, warn: Warn) -> LcowPlan:
    """Plan a utility VM with a Linux guest.

    `vm_id` is the final id, whatever the options say. `warn` gets each adjusted number, also when the plan fails after it.

    Raises:
        NotFound: the kernel or the root file system is not there.
        InvalidOptions: a rule of `options.rules.verify` is broken.
        HostError, Unsupported: as `plan.topology.plan_topology`.
    """
    paths = boot_file_paths(options, facts.platform, facts.path_flavour)
    if paths.kernel not in facts.files_present:
        raise NotFound(f"kernel: '{paths.kernel}' not found")
    if paths.root_fs not in facts.files_present:
        raise NotFound(f"boot file: '{paths.root_fs}' not found")
    verify(options, facts.build)
    memory, processor = plan_topology(options, facts, vm_id=vm_id, warn=warn)
    assigned = {guid_of(f"{vm_id} {device}"): device for device in options.assigned_devices}
    template = options.template_config if options.is_clone else None
    machine = VirtualMachine(
        stop_on_reset=True,
        chipset=_chipset(options, paths, facts, kernel_command_line(options, processor.count, facts)),
        compute_topology=Topology(memory=memory, processor=processor),
        devices=_devices(options, paths, facts.path_flavour, assigned),
        restore_state=RestoreState(template_system_id=template.uvm_id) if template else None,
        storage_qos=storage_qos(options),
        guest_connection=_guest_connection(options),
    )
    return LcowPlan(
        document=whole(options, machine),
        processor_count=processor.count,
        memory_size_in_mb=memory.size_in_mb,
        listen_ports=_listen_ports(options),
        scsi_controller_count=options.scsi_controller_count,
        vpmem_max_count=options.vpmem_device_count,
        vpmem_max_size_bytes=options.vpmem_size_bytes,
        vpmem_root=VPMemSlot(paths.root_fs, "/", removable=False) if _disk_root(options) else None,
        assigned=assigned,
    )


def _chipset(options: OptionsLCOW, paths: BootFilePaths, facts: Facts, command_line: str) -> Chipset:
    if options.kernel_direct:
        initrd = paths.root_fs if options.preferred_root_fs_type == RootFSType.INITRD else ""
        if paths.loader in facts.files_present:
            initrd = paths.loader
        return Chipset(
            linux_kernel_direct=LinuxKernelDirect(kernel_file_path=paths.kernel, init_rd_path=initrd, kernel_cmd_line=command_line)
        )
    entry = UefiBootEntry(
        device_type="VmbFs",
        device_path=f"\\{options.kernel_file}",
        optional_data=command_line,
        vmb_fs_root_path=options.boot_files_path,
    )
    return Chipset(uefi=Uefi(boot_this=entry))


def _devices(options: OptionsLCOW, paths: BootFilePaths, flavour: PathFlavour, assigned: Mapping[str, str]) -> Devices:
    graphics = options.enable_graphics_console
    return Devices(
        com_ports={"0": ComPort(named_pipe=options.console_pipe)} if options.console_pipe else {},
        scsi={"0": Scsi()} if options.scsi_controller_count > 0 else {},
        virtual_pmem=_vpmem(options, paths, flavour) if options.vpmem_device_count > 0 else None,
        video_monitor=_screen(options.graphics_pipe) if graphics else None,
        keyboard=Keyboard() if graphics else None,
        hv_socket=hv_socket(),
        enhanced_mode_video=EnhancedModeVideo() if graphics else None,
        plan9=Plan9(),
        virtual_pci={guid: VirtualPciDevice(functions=[VirtualPciFunction(device_instance_path=path)]) for guid, path in assigned.items()},
    )


def _screen(pipe: str) -> VideoMonitor:
    return VideoMonitor(connection_options=RdpConnectionOptions(named_pipe=pipe) if pipe else None)


def _vpmem(options: OptionsLCOW, paths: BootFilePaths, flavour: PathFlavour) -> VirtualPMemController:
    devices = {}
    if _disk_root(options):
        image_format = ImageFormat.VHDX if extension(flavour, paths.root_fs).lower() == ".vhdx" else ImageFormat.VHD
        devices["0"] = VirtualPMemDevice(host_path=paths.root_fs, read_only=True, image_format=image_format)
    return VirtualPMemController(devices=devices, maximum_count=options.vpmem_device_count, maximum_size_bytes=options.vpmem_size_bytes)


def _guest_connection(options: OptionsLCOW) -> GuestConnection | None:
    if options.use_guest_connection and not options.external_guest_connection:
        return GuestConnection(use_vsock=True, use_connected_suspend=True)
    return None


def _listen_ports(options: OptionsLCOW) -> tuple[int, ...]:
    log = (LOG_PORT,) if options.forward_stdout or options.forward_stderr else ()
    bridge = (BRIDGE_PORT,) if options.use_guest_connection and options.external_guest_connection else ()
    return (ENTROPY_PORT, *log, *bridge)


def _disk_root(options: OptionsLCOW) -> bool:
    return options.preferred_root_fs_type == RootFSType.VHD
