"""What a compute system tells of itself: HCS's `Properties`."""

from collections.abc import Iterable
from enum import StrEnum

from msgspec import UNSET, Raw, UnsetType, field

from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.schema.metrics import CgroupMetrics
from utilityvm.schema.node import Answer
from utilityvm.schema.statistics import ProcessDetails, Statistics
from utilityvm.schema.version import Version


class PropertyType(StrEnum):
    """What can be asked for beyond what is always told. Both are the guest's view of itself."""

    MEMORY = "Memory"
    PROCESS_LIST = "ProcessList"


def property_types(wanted: Iterable[PropertyType]) -> frozenset[PropertyType]:
    """Return what is wanted, each once; a property's word passes for it.

    Raises:
        InvalidOptions: there is no such property.
    """
    try:
        return frozenset(map(PropertyType, wanted))
    except ValueError as error:
        said = f"{error}: there are {', '.join(PropertyType)}"
        raise InvalidOptions(said, problems=[Problem("properties", "word", said)]) from error


class GuestConnectionInfo(Answer, frozen=True, kw_only=True):
    """What was agreed with the guest's agent; there is none without a guest connection."""

    supported_schema_versions: list[Version] = field(default_factory=list, name="SupportedSchemaVersions")
    protocol_version: int = field(default=0, name="ProtocolVersion")
    guest_defined_capabilities: Raw | UnsetType = field(default=UNSET, name="GuestDefinedCapabilities")


class VmMemory(Answer, frozen=True, kw_only=True):
    """Memory of the machine, in pages of 4096 bytes: what the guest could still use, and what it has."""

    available_memory: int = field(default=0, name="AvailableMemory")
    available_memory_buffer: int = field(default=0, name="AvailableMemoryBuffer")
    reserved_memory: int = field(default=0, name="ReservedMemory")
    assigned_memory: int = field(default=0, name="AssignedMemory")
    slp_active: bool = field(default=False, name="SlpActive")
    balancing_enabled: bool = field(default=False, name="BalancingEnabled")
    dm_operation_in_progress: bool = field(default=False, name="DmOperationInProgress")


class VirtualNodeInfo(Answer, frozen=True, kw_only=True):
    """One of the machine's memory nodes."""

    virtual_node_index: int = field(default=0, name="VirtualNodeIndex")
    physical_node_number: int = field(default=0, name="PhysicalNodeNumber")
    virtual_processor_count: int = field(default=0, name="VirtualProcessorCount")
    memory_usage_in_pages: int = field(default=0, name="MemoryUsageInPages")


class MemoryInformation(Answer, frozen=True, kw_only=True):
    """HCS's `MemoryInformationForVm`."""

    virtual_node_count: int = field(default=0, name="VirtualNodeCount")
    virtual_machine_memory: VmMemory | None = field(default=None, name="VirtualMachineMemory")
    virtual_nodes: list[VirtualNodeInfo] = field(default_factory=list, name="VirtualNodes")


class SharedMemoryRegionInfo(Answer, frozen=True, kw_only=True):
    """Where the guest sees memory that it shares with the host."""

    section_name: str = field(default="", name="SectionName")
    guest_physical_address: int = field(default=0, name="GuestPhysicalAddress")


class SiloProperties(Answer, frozen=True, kw_only=True):
    """Whether a container of the host has a job object, and its name."""

    enabled: bool = field(default=False, name="Enabled")
    job_name: str = field(default="", name="JobName")


class Properties(Answer, frozen=True, kw_only=True):
    """The answer. `state` is ``Created``, ``Running``, ``Paused`` or ``Stopped``."""

    id: str = field(default="", name="Id")
    system_type: str = field(default="", name="SystemType")
    runtime_os_type: str = field(default="", name="RuntimeOsType")
    name: str = field(default="", name="Name")
    owner: str = field(default="", name="Owner")
    runtime_id: str = field(default="", name="RuntimeId")
    runtime_template_id: str = field(default="", name="RuntimeTemplateId")
    state: str = field(default="", name="State")
    stopped: bool = field(default=False, name="Stopped")
    exit_type: str = field(default="", name="ExitType")
    memory: MemoryInformation | None = field(default=None, name="Memory")
    statistics: Statistics | None = field(default=None, name="Statistics")
    process_list: list[ProcessDetails] = field(default_factory=list, name="ProcessList")
    terminate_on_last_handle_closed: bool = field(default=False, name="TerminateOnLastHandleClosed")
    hosting_system_id: str = field(default="", name="HostingSystemId")
    shared_memory_region_info: list[SharedMemoryRegionInfo] = field(default_factory=list, name="SharedMemoryRegionInfo")
    guest_connection_info: GuestConnectionInfo | None = field(default=None, name="GuestConnectionInfo")
    metrics: CgroupMetrics | None = field(default=None, name="LCOWMetrics")
