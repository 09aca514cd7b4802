"""What a VM of the host service has used: hcsshim's `Stats`. Pure."""

from typing import Final

from utilityvm.compute.ports import MachineStatistics
from utilityvm.kit.errors import HostError
from utilityvm.schema.properties import MemoryInformation, Properties, VmMemory

PAGE: Final = 4096
ASKED: Final = ("Statistics", "Memory")
"""What the service is asked for."""


def memory_of(system_id: str, told: Properties) -> tuple[MemoryInformation, VmMemory]:
    """Return what a system tells of its memory.

    Raises:
        HostError: nothing.
    """
    if told.memory is None:
        raise HostError(f"no memory properties returned for system {system_id}")
    if told.memory.virtual_machine_memory is None:
        raise HostError(f"no virtual memory properties returned for system {system_id}")
    return told.memory, told.memory.virtual_machine_memory


def statistics_of(system_id: str, told: Properties, working_set: int | None) -> MachineStatistics:
    """Return the statistics of a system by its answer to `ASKED`; `working_set` is None where all its memory is the host's from the start.

    Raises:
        HostError: the answer lacks a part.
    """
    whole, memory = memory_of(system_id, told)
    if told.statistics is None or told.statistics.processor is None:
        raise HostError(f"no processor statistics returned for system {system_id}")
    return MachineStatistics(
        processor_ns=100 * told.statistics.processor.total_runtime_100ns,
        working_set=PAGE * memory.assigned_memory if working_set is None else working_set,
        nodes=whole.virtual_node_count,
        memory=memory,
        uptime_ns=100 * told.statistics.uptime_100ns or None,
        unique=told.statistics.memory.memory_usage_private_working_set_bytes if told.statistics.memory else None,
        storage=told.statistics.storage,
    )
