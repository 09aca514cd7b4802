"""What a VM of the host service has used: hcsshim's `Stats`. Pure."""

from dataclasses import dataclass
from typing import Final

from utilityvm.kit.errors import HostError
from utilityvm.schema.properties import MemoryInformation, Properties, VmMemory

PAGE: Final = 4096
ASKED: Final = ("Statistics", "Memory")
"""What the service is asked for."""


@dataclass(frozen=True, slots=True)
class MachineStatistics:
    """What a VM has used since it was started: processor time in nanoseconds, and now: the host's memory in bytes.

    `memory` is what the service tells of the VM's own memory, in pages of 4096 bytes, over `nodes` virtual NUMA nodes.
    """

    processor_ns: int
    working_set: int
    nodes: int
    memory: VmMemory


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
    )
