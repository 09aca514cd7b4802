"""Devices of a virtual machine: one struct an object of the document, members in Go's order."""

from enum import StrEnum

from msgspec import UNSET, UnsetType, field

from utilityvm.schema.node import Node


class ComPort(Node, frozen=True, kw_only=True):
    """A serial port on a named pipe."""

    named_pipe: str = field(default="", name="NamedPipe")
    optimize_for_debugger: bool = field(default=False, name="OptimizeForDebugger")


class Attachment(Node, frozen=True, kw_only=True):
    """A disk on a SCSI controller; `type` is ``VirtualDisk`` or ``PassThru``."""

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


class IovSettings(Node, frozen=True, kw_only=True):
    """Offloading of a network adapter; what is unset stays as it is, and 0 is said."""

    offload_weight: int | UnsetType = field(default=UNSET, name="OffloadWeight")
    queue_pairs_requested: int | UnsetType = field(default=UNSET, name="QueuePairsRequested")
    interrupt_moderation: str | UnsetType = field(default=UNSET, name="InterruptModeration")


class NetworkAdapter(Node, frozen=True, kw_only=True):
    """A network adapter on an endpoint of the host's networks."""

    endpoint_id: str = field(default="", name="EndpointId")
    mac_address: str = field(default="", name="MacAddress")
    iov_settings: IovSettings | None = field(default=None, name="IovSettings")


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


class Mouse(Node, frozen=True, kw_only=True):
    """A mouse."""


class Battery(Node, frozen=True, kw_only=True):
    """A battery."""


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


class WindowsCrashReporting(Node, frozen=True, kw_only=True):
    """Where a Windows guest's memory goes when it crashes, and how many bytes at most."""

    dump_file_name: str = field(default="", name="DumpFileName")
    max_dump_size: int = field(default=0, name="MaxDumpSize")


class GuestCrashReporting(Node, frozen=True, kw_only=True):
    """What is kept of a crash of the guest."""

    windows_crash_settings: WindowsCrashReporting | None = field(default=None, name="WindowsCrashSettings")


class VirtualSmbShareOptions(Node, frozen=True, kw_only=True):
    """How a share behaves: read-only, which locks the guest may hold, what it may keep in its caches."""

    read_only: bool = field(default=False, name="ReadOnly")
    share_read: bool = field(default=False, name="ShareRead")
    cache_io: bool = field(default=False, name="CacheIo")
    no_oplocks: bool = field(default=False, name="NoOplocks")
    take_backup_privilege: bool = field(default=False, name="TakeBackupPrivilege")
    use_share_root_identity: bool = field(default=False, name="UseShareRootIdentity")
    no_directmap: bool = field(default=False, name="NoDirectmap")
    no_locks: bool = field(default=False, name="NoLocks")
    no_dirnotify: bool = field(default=False, name="NoDirnotify")
    vm_shared_memory: bool = field(default=False, name="VmSharedMemory")
    restrict_file_access: bool = field(default=False, name="RestrictFileAccess")
    force_level_ii_oplocks: bool = field(default=False, name="ForceLevelIIOplocks")
    reparse_base_layer: bool = field(default=False, name="ReparseBaseLayer")
    pseudo_oplocks: bool = field(default=False, name="PseudoOplocks")
    non_cache_io: bool = field(default=False, name="NonCacheIo")
    pseudo_dirnotify: bool = field(default=False, name="PseudoDirnotify")
    single_file_mapping: bool = field(default=False, name="SingleFileMapping")


class VirtualSmbShare(Node, frozen=True, kw_only=True):
    """A folder of the host; with `allowed_files` and a restriction in the options only these files of it."""

    name: str = field(default="", name="Name")
    path: str = field(default="", name="Path")
    allowed_files: list[str] = field(default_factory=list, name="AllowedFiles")
    options: VirtualSmbShareOptions | None = field(default=None, name="Options")


class VirtualSmb(Node, frozen=True, kw_only=True):
    """Folders of the host for Windows guests; `direct_file_mapping_in_mb` bounds what the guest maps of their files."""

    shares: list[VirtualSmbShare] = field(default_factory=list, name="Shares")
    direct_file_mapping_in_mb: int = field(default=0, name="DirectFileMappingInMB")


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


class FlexibleIoDevice(Node, frozen=True, kw_only=True):
    """A device that a process of the host plays."""

    emulator_id: str = field(default="", name="EmulatorId")
    hosting_model: str = field(default="", name="HostingModel")
    configuration: list[str] = field(default_factory=list, name="Configuration")


class SharedMemoryRegion(Node, frozen=True, kw_only=True):
    """A section of the host's memory that the guest sees."""

    section_name: str = field(default="", name="SectionName")
    start_offset: int = field(default=0, name="StartOffset")
    length: int = field(default=0, name="Length")
    allow_guest_write: bool = field(default=False, name="AllowGuestWrite")
    hidden_from_guest: bool = field(default=False, name="HiddenFromGuest")


class SharedMemoryConfiguration(Node, frozen=True, kw_only=True):
    """Memory that host and guest share."""

    regions: list[SharedMemoryRegion] = field(default_factory=list, name="Regions")


class VirtualPciFunction(Node, frozen=True, kw_only=True):
    """A function of a device of the host."""

    device_instance_path: str = field(default="", name="DeviceInstancePath")
    virtual_function: int = field(default=0, name="VirtualFunction")


class VirtualPciDevice(Node, frozen=True, kw_only=True):
    """A device of the host that is given to the guest."""

    functions: list[VirtualPciFunction] = field(default_factory=list, name="Functions")


class Devices(Node, frozen=True, kw_only=True):
    """Devices; serial ports, SCSI controllers by number, network adapters and PCI devices by id."""

    com_ports: dict[str, ComPort] = field(default_factory=dict, name="ComPorts")
    scsi: dict[str, Scsi] = field(default_factory=dict, name="Scsi")
    virtual_pmem: VirtualPMemController | None = field(default=None, name="VirtualPMem")
    network_adapters: dict[str, NetworkAdapter] = field(default_factory=dict, name="NetworkAdapters")
    video_monitor: VideoMonitor | None = field(default=None, name="VideoMonitor")
    keyboard: Keyboard | None = field(default=None, name="Keyboard")
    mouse: Mouse | None = field(default=None, name="Mouse")
    hv_socket: HvSocket | None = field(default=None, name="HvSocket")
    enhanced_mode_video: EnhancedModeVideo | None = field(default=None, name="EnhancedModeVideo")
    guest_crash_reporting: GuestCrashReporting | None = field(default=None, name="GuestCrashReporting")
    virtual_smb: VirtualSmb | None = field(default=None, name="VirtualSmb")
    plan9: Plan9 | None = field(default=None, name="Plan9")
    battery: Battery | None = field(default=None, name="Battery")
    flexible_iov: dict[str, FlexibleIoDevice] = field(default_factory=dict, name="FlexibleIov")
    shared_memory: SharedMemoryConfiguration | None = field(default=None, name="SharedMemory")
    virtual_pci: dict[str, VirtualPciDevice] = field(default_factory=dict, name="VirtualPci")


class StorageQoS(Node, frozen=True, kw_only=True):
    """Limits of all disks together: operations and bytes per second."""

    iops_maximum: int = field(default=0, name="IopsMaximum")
    bandwidth_maximum: int = field(default=0, name="BandwidthMaximum")
