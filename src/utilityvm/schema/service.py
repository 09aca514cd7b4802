"""The host service itself: what it tells of the host, and what can be changed there."""

from typing import Annotated

from msgspec import Meta, Raw, field

from utilityvm.schema.node import Answer, Node


class ServiceProperties(Answer, frozen=True, kw_only=True):
    """The answer to a query: one property of its own shape for each that was asked for."""

    properties: list[Raw] = field(default_factory=list, name="Properties")


class LogicalProcessor(Answer, frozen=True, kw_only=True):
    """One of the host's logical processors."""

    lp_index: int = field(default=0, name="LpIndex")
    node_number: int = field(default=0, name="NodeNumber")
    package_id: int = field(default=0, name="PackageId")
    core_id: int = field(default=0, name="CoreId")
    root_vp_index: int = field(default=0, name="RootVpIndex")


class ProcessorTopology(Answer, frozen=True, kw_only=True):
    """The host's logical processors, all of them whatever this process may use."""

    logical_processor_count: Annotated[int, Meta(ge=0, le=2**32 - 1)] = field(default=0, name="LogicalProcessorCount")
    logical_processors: list[LogicalProcessor] = field(default_factory=list, name="LogicalProcessors")


class CacheQueryStatsResponse(Answer, frozen=True, kw_only=True):
    """Use of the third-level cache and of memory's bandwidth, in bytes."""

    l3_occupancy_bytes: int = field(default=0, name="L3OccupancyBytes")
    l3_total_bw_bytes: int = field(default=0, name="L3TotalBwBytes")
    l3_local_bw_bytes: int = field(default=0, name="L3LocalBwBytes")


class CpuGroupAffinity(Answer, frozen=True, kw_only=True):
    """The logical processors of a CPU group."""

    logical_processor_count: int = field(default=0, name="LogicalProcessorCount")
    logical_processors: list[int] = field(default_factory=list, name="LogicalProcessors")


class CpuGroupProperty(Answer, frozen=True, kw_only=True):
    """A property of a CPU group, by its number: 65536 is the cap, of 65536."""

    property_code: int = field(default=0, name="PropertyCode")
    property_value: int = field(default=0, name="PropertyValue")


class CpuGroupConfig(Answer, frozen=True, kw_only=True):
    """One CPU group."""

    group_id: str = field(default="", name="GroupId")
    affinity: CpuGroupAffinity | None = field(default=None, name="Affinity")
    group_properties: list[CpuGroupProperty] = field(default_factory=list, name="GroupProperties")
    hypervisor_group_id: int = field(default=0, name="HypervisorGroupId")


class CpuGroupConfigurations(Answer, frozen=True, kw_only=True):
    """All CPU groups."""

    cpu_groups: list[CpuGroupConfig] = field(default_factory=list, name="CpuGroups")


class ModificationRequest(Node, frozen=True, kw_only=True):
    """A change of the host service; `settings` by `property_type`."""

    property_type: str = field(default="", name="PropertyType")
    settings: object = field(default=None, name="Settings")


class HostProcessorModificationRequest(Node, frozen=True, kw_only=True):
    """A change of CPU groups: `operation` is ``CreateGroup``, ``DeleteGroup`` or ``SetProperty``."""

    operation: str = field(default="", name="Operation")
    operation_details: object = field(default=None, name="OperationDetails")


class CreateGroupOperation(Node, frozen=True, kw_only=True):
    """Make a CPU group of logical processors."""

    group_id: str = field(default="", name="GroupId")
    logical_processor_count: int = field(default=0, name="LogicalProcessorCount")
    logical_processors: list[int] = field(default_factory=list, name="LogicalProcessors")


class DeleteGroupOperation(Node, frozen=True, kw_only=True):
    """Remove a CPU group."""

    group_id: str = field(default="", name="GroupId")


class SetPropertyOperation(Node, frozen=True, kw_only=True):
    """Change a property of a CPU group; see `CpuGroupProperty`."""

    group_id: str = field(default="", name="GroupId")
    property_code: int = field(default=0, name="PropertyCode")
    property_value: int = field(default=0, name="PropertyValue")
