"""HCS schema v2.1: whole documents and the machine in them, one struct an object, members in Go's order.

Zero, empty and ``None`` mean "not said" and are not written; an object that is present is written even when it is empty.
Names are explicit, because no mechanical renaming gives ``SizeInMB``, ``InitRdPath`` and ``LowMmioGapInMB`` together.
`schema.json` encodes and decodes.
"""

from msgspec import field

from utilityvm.schema.container import Container
from utilityvm.schema.devices import Devices, StorageQoS
from utilityvm.schema.node import Node
from utilityvm.schema.registry import RegistryChanges
from utilityvm.schema.version import Version


class UefiBootEntry(Node, frozen=True, kw_only=True):
    """What the firmware starts."""

    device_type: str = field(default="", name="DeviceType")
    device_path: str = field(default="", name="DevicePath")
    disk_number: int = field(default=0, name="DiskNumber")
    optional_data: str = field(default="", name="OptionalData")
    vmb_fs_root_path: str = field(default="", name="VmbFsRootPath")


class Uefi(Node, frozen=True, kw_only=True):
    """Boot by UEFI."""

    enable_debugger: bool = field(default=False, name="EnableDebugger")
    secure_boot_template_id: str = field(default="", name="SecureBootTemplateId")
    boot_this: UefiBootEntry | None = field(default=None, name="BootThis")
    console: str = field(default="", name="Console")


class LinuxKernelDirect(Node, frozen=True, kw_only=True):
    """Boot a Linux kernel without firmware."""

    kernel_file_path: str = field(default="", name="KernelFilePath")
    init_rd_path: str = field(default="", name="InitRdPath")
    kernel_cmd_line: str = field(default="", name="KernelCmdLine")


class Chipset(Node, frozen=True, kw_only=True):
    """How the VM boots: one of `uefi` and `linux_kernel_direct`."""

    uefi: Uefi | None = field(default=None, name="Uefi")
    is_num_lock_disabled: bool = field(default=False, name="IsNumLockDisabled")
    base_board_serial_number: str = field(default="", name="BaseBoardSerialNumber")
    chassis_serial_number: str = field(default="", name="ChassisSerialNumber")
    chassis_asset_tag: str = field(default="", name="ChassisAssetTag")
    use_utc: bool = field(default=False, name="UseUtc")
    linux_kernel_direct: LinuxKernelDirect | None = field(default=None, name="LinuxKernelDirect")


class Memory(Node, frozen=True, kw_only=True):
    """The VM's memory; sizes in MiB."""

    size_in_mb: int = field(default=0, name="SizeInMB")
    allow_overcommit: bool = field(default=False, name="AllowOvercommit")
    enable_hot_hint: bool = field(default=False, name="EnableHotHint")
    enable_cold_hint: bool = field(default=False, name="EnableColdHint")
    enable_epf: bool = field(default=False, name="EnableEpf")
    enable_deferred_commit: bool = field(default=False, name="EnableDeferredCommit")
    enable_cold_discard_hint: bool = field(default=False, name="EnableColdDiscardHint")
    low_mmio_gap_in_mb: int = field(default=0, name="LowMmioGapInMB")
    high_mmio_base_in_mb: int = field(default=0, name="HighMmioBaseInMB")
    high_mmio_gap_in_mb: int = field(default=0, name="HighMmioGapInMB")


class CpuGroup(Node, frozen=True, kw_only=True):
    """The CPU group that the VM joins."""

    id: str = field(default="", name="Id")


class Processor(Node, frozen=True, kw_only=True):
    """Virtual processors: how many, how much of each (of 100 000), and their weight."""

    count: int = field(default=0, name="Count")
    limit: int = field(default=0, name="Limit")
    weight: int = field(default=0, name="Weight")
    expose_virtualization_extensions: bool = field(default=False, name="ExposeVirtualizationExtensions")
    cpu_group: CpuGroup | None = field(default=None, name="CpuGroup")


class Topology(Node, frozen=True, kw_only=True):
    """Memory and processors."""

    memory: Memory | None = field(default=None, name="Memory")
    processor: Processor | None = field(default=None, name="Processor")


class GuestState(Node, frozen=True, kw_only=True):
    """Files of the guest's firmware and running state."""

    guest_state_file_path: str = field(default="", name="GuestStateFilePath")
    runtime_state_file_path: str = field(default="", name="RuntimeStateFilePath")
    force_transient_state: bool = field(default=False, name="ForceTransientState")


class RestoreState(Node, frozen=True, kw_only=True):
    """What the machine continues: a saved state in a file, or a template by its id."""

    save_state_file_path: str = field(default="", name="SaveStateFilePath")
    template_system_id: str = field(default="", name="TemplateSystemId")


class GuestConnection(Node, frozen=True, kw_only=True):
    """The host service itself speaks to the guest."""

    use_vsock: bool = field(default=False, name="UseVsock")
    use_connected_suspend: bool = field(default=False, name="UseConnectedSuspend")


class VirtualMachine(Node, frozen=True, kw_only=True):
    """A virtual machine."""

    stop_on_reset: bool = field(default=False, name="StopOnReset")
    chipset: Chipset | None = field(default=None, name="Chipset")
    compute_topology: Topology | None = field(default=None, name="ComputeTopology")
    devices: Devices | None = field(default=None, name="Devices")
    guest_state: GuestState | None = field(default=None, name="GuestState")
    restore_state: RestoreState | None = field(default=None, name="RestoreState")
    registry_changes: RegistryChanges | None = field(default=None, name="RegistryChanges")
    storage_qos: StorageQoS | None = field(default=None, name="StorageQoS")
    guest_connection: GuestConnection | None = field(default=None, name="GuestConnection")


class ComputeSystem(Node, frozen=True, kw_only=True):
    """A whole document: a virtual machine, a container of the host, or (`hosted_system`) one in the VM `hosting_system_id`."""

    owner: str = field(default="", name="Owner")
    schema_version: Version | None = field(default=None, name="SchemaVersion")
    hosting_system_id: str = field(default="", name="HostingSystemId")
    hosted_system: object = field(default=None, name="HostedSystem")
    container: Container | None = field(default=None, name="Container")
    virtual_machine: VirtualMachine | None = field(default=None, name="VirtualMachine")
    should_terminate_on_last_handle_closed: bool = field(default=False, name="ShouldTerminateOnLastHandleClosed")
