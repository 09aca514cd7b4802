"""HCS schema v2.1 as far as VMs with Linux guests need it: one struct an object, members in Go's order.

Zero, empty and ``None`` mean "not said" and are not written; an object that is present is written even when it is empty.
Names are explicit, because no mechanical renaming gives ``SizeInMB``, ``InitRdPath`` and ``LowMmioGapInMB`` together.
Unknown members are refused: a driver must never drop a wish without a word. `schema.json` encodes and decodes.
"""

from enum import StrEnum

from msgspec import Struct, field


class Node(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An object of a document."""


class Version(Node, frozen=True, kw_only=True):
    """Version of the schema that a document follows."""

    major: int = field(default=0, name="Major")
    minor: int = field(default=0, name="Minor")


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


class ComPort(Node, frozen=True, kw_only=True):
    """A serial port on a named pipe."""

    named_pipe: str = field(default="", name="NamedPipe")
    optimize_for_debugger: bool = field(default=False, name="OptimizeForDebugger")


class Attachment(Node, frozen=True, kw_only=True):
    """A disk on a SCSI controller."""

    type: str = field(default="", name="Type")
    path: str = field(default="", name="Path")
    ignore_flushes: bool = field(default=False, name="IgnoreFlushes")
    caching_mode: str = field(default="", name="CachingMode")
    no_write_hardening: bool = field(default=False, name="NoWriteHardening")
    disable_expansion_optimization: bool = field(default=False, name="DisableExpansionOptimization")
    ignore_relative_locator: bool = field(default=False, name="IgnoreRelativeLocator")
    capture_io_attribution_context: bool = field(default=False, name="CaptureIoAttributionContext")
    read_only: bool = field(default=False, name="ReadOnly")


class Scsi(Node, frozen=True, kw_only=True):
    """A SCSI controller; attachments by LUN."""

    attachments: dict[str, Attachment] = field(default_factory=dict, name="Attachments")


class ImageFormat(StrEnum):
    """Formats of a VPMem device's backing file."""

    VHD = "Vhd1"
    VHDX = "Vhdx"


class VirtualPMemDevice(Node, frozen=True, kw_only=True):
    """A file that the guest sees as persistent memory; `image_format` is one of `ImageFormat`."""

    host_path: str = field(default="", name="HostPath")
    read_only: bool = field(default=False, name="ReadOnly")
    image_format: str = field(default="", name="ImageFormat")


class VirtualPMemController(Node, frozen=True, kw_only=True):
    """Persistent memory devices by slot, and their limits."""

    devices: dict[str, VirtualPMemDevice] = field(default_factory=dict, name="Devices")
    maximum_count: int = field(default=0, name="MaximumCount")
    maximum_size_bytes: int = field(default=0, name="MaximumSizeBytes")
    backing: str = field(default="", name="Backing")


class RdpConnectionOptions(Node, frozen=True, kw_only=True):
    """Who may look at the screen, and where."""

    access_sids: list[str] = field(default_factory=list, name="AccessSids")
    named_pipe: str = field(default="", name="NamedPipe")


class VideoMonitor(Node, frozen=True, kw_only=True):
    """A screen; sizes in pixels."""

    horizontal_resolution: int = field(default=0, name="HorizontalResolution")
    vertical_resolution: int = field(default=0, name="VerticalResolution")
    connection_options: RdpConnectionOptions | None = field(default=None, name="ConnectionOptions")


class Keyboard(Node, frozen=True, kw_only=True):
    """A keyboard."""


class EnhancedModeVideo(Node, frozen=True, kw_only=True):
    """The screen in enhanced session mode."""

    connection_options: RdpConnectionOptions | None = field(default=None, name="ConnectionOptions")


class HvSocketServiceConfig(Node, frozen=True, kw_only=True):
    """Who may bind and connect to one hvsocket service."""

    bind_security_descriptor: str = field(default="", name="BindSecurityDescriptor")
    connect_security_descriptor: str = field(default="", name="ConnectSecurityDescriptor")
    allow_wildcard_binds: bool = field(default=False, name="AllowWildcardBinds")
    disabled: bool = field(default=False, name="Disabled")


class HvSocketSystemConfig(Node, frozen=True, kw_only=True):
    """Who may bind and connect to hvsockets; exceptions by service id."""

    default_bind_security_descriptor: str = field(default="", name="DefaultBindSecurityDescriptor")
    default_connect_security_descriptor: str = field(default="", name="DefaultConnectSecurityDescriptor")
    service_table: dict[str, HvSocketServiceConfig] = field(default_factory=dict, name="ServiceTable")


class HvSocket(Node, frozen=True, kw_only=True):
    """Sockets between host and guest."""

    hv_socket_config: HvSocketSystemConfig | None = field(default=None, name="HvSocketConfig")


class Plan9Share(Node, frozen=True, kw_only=True):
    """A folder of the host that the guest mounts."""

    name: str = field(default="", name="Name")
    access_name: str = field(default="", name="AccessName")
    path: str = field(default="", name="Path")
    port: int = field(default=0, name="Port")
    flags: int = field(default=0, name="Flags")
    read_only: bool = field(default=False, name="ReadOnly")
    use_share_root_identity: bool = field(default=False, name="UseShareRootIdentity")
    allowed_files: list[str] = field(default_factory=list, name="AllowedFiles")


class Plan9(Node, frozen=True, kw_only=True):
    """Folders of the host over 9p."""

    shares: list[Plan9Share] = field(default_factory=list, name="Shares")


class Devices(Node, frozen=True, kw_only=True):
    """Devices; serial ports, SCSI controllers by number."""

    com_ports: dict[str, ComPort] = field(default_factory=dict, name="ComPorts")
    scsi: dict[str, Scsi] = field(default_factory=dict, name="Scsi")
    virtual_pmem: VirtualPMemController | None = field(default=None, name="VirtualPMem")
    video_monitor: VideoMonitor | None = field(default=None, name="VideoMonitor")
    keyboard: Keyboard | None = field(default=None, name="Keyboard")
    hv_socket: HvSocket | None = field(default=None, name="HvSocket")
    enhanced_mode_video: EnhancedModeVideo | None = field(default=None, name="EnhancedModeVideo")
    plan9: Plan9 | None = field(default=None, name="Plan9")


class StorageQoS(Node, frozen=True, kw_only=True):
    """Limits of all disks together: operations and bytes per second."""

    iops_maximum: int = field(default=0, name="IopsMaximum")
    bandwidth_maximum: int = field(default=0, name="BandwidthMaximum")


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
    storage_qos: StorageQoS | None = field(default=None, name="StorageQoS")
    guest_connection: GuestConnection | None = field(default=None, name="GuestConnection")


class ComputeSystem(Node, frozen=True, kw_only=True):
    """A whole document."""

    owner: str = field(default="", name="Owner")
    schema_version: Version | None = field(default=None, name="SchemaVersion")
    virtual_machine: VirtualMachine | None = field(default=None, name="VirtualMachine")
    should_terminate_on_last_handle_closed: bool = field(default=False, name="ShouldTerminateOnLastHandleClosed")
