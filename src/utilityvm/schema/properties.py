"""What a compute system tells of itself: HCS's `Properties`, as far as machines with Linux guests have them."""

from enum import StrEnum

from msgspec import Raw, Struct, field

from utilityvm.schema.document import Version


class PropertyType(StrEnum):
    """What can be asked for beyond what is always told. Both are the guest's view of itself."""

    MEMORY = "Memory"
    PROCESS_LIST = "ProcessList"


class GuestConnectionInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was agreed with the guest's agent; there is none without a guest connection."""

    supported_schema_versions: list[Version] | None = field(default=None, name="SupportedSchemaVersions")
    protocol_version: int = field(default=0, name="ProtocolVersion")
    guest_defined_capabilities: Raw | None = field(default=None, name="GuestDefinedCapabilities")


class VmMemory(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Memory of the machine, in pages of 4096 bytes: what the guest could still use, and what it has."""

    available_memory: int = field(default=0, name="AvailableMemory")
    assigned_memory: int = field(default=0, name="AssignedMemory")


class MemoryInformation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """HCS's `MemoryInformationForVm`."""

    virtual_machine_memory: VmMemory | None = field(default=None, name="VirtualMachineMemory")


class ProcessDetails(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process that the agent started."""

    process_id: int = field(default=0, name="ProcessId")
    image_name: str = field(default="", name="ImageName")


class Properties(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer. `state` is ``Created``, ``Running``, ``Paused`` or ``Stopped``."""

    id: str = field(default="", name="Id")
    system_type: str = field(default="", name="SystemType")
    runtime_os_type: str = field(default="", name="RuntimeOsType")
    owner: str = field(default="", name="Owner")
    runtime_id: str = field(default="", name="RuntimeId")
    state: str = field(default="", name="State")
    stopped: bool = field(default=False, name="Stopped")
    exit_type: str = field(default="", name="ExitType")
    memory: MemoryInformation | None = field(default=None, name="Memory")
    process_list: list[ProcessDetails] | None = field(default=None, name="ProcessList")
    metrics: Raw | None = field(default=None, name="LCOWMetrics")
    guest_connection_info: GuestConnectionInfo | None = field(default=None, name="GuestConnectionInfo")
