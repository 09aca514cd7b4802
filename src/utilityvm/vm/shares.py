"""What a VM asks of its driver to have another share of the host, and what it is told that it has."""

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec.structs import replace

from utilityvm.compute.ports import MachineStatistics
from utilityvm.kit.errors import HostError, InvalidOptions, UtilityVMError
from utilityvm.kit.ids import NULL_GUID, VmId
from utilityvm.schema.document import CpuGroup
from utilityvm.schema.properties import Properties
from utilityvm.schema.requests import CPU_GROUP_PATH, CPU_LIMITS_PATH, MEMORY_PATH, ModifySettingRequest, ProcessorLimits

_MIB: Final = 1 << 20
_PAGE: Final = 4096


def memory(size_in_bytes: int) -> ModifySettingRequest:
    """Return the request for so much memory, rounded up to an even number of MiB.

    Raises:
        InvalidOptions: it is less than nothing.
    """
    if size_in_bytes < 0:
        raise InvalidOptions(f"{size_in_bytes} bytes: a machine's memory is not less than nothing")
    mib = -(-size_in_bytes // _MIB)
    return ModifySettingRequest(resource_path=MEMORY_PATH, settings=mib + mib % 2)


def cpu_limits(limits: ProcessorLimits) -> ModifySettingRequest:
    """Return the request for these limits."""
    return ModifySettingRequest(resource_path=CPU_LIMITS_PATH, settings=limits)


def cpu_group(group_id: str) -> ModifySettingRequest:
    """Return the request to be in a CPU group, ``NULL_GUID`` in none.

    Raises:
        InvalidOptions: the id is empty.
    """
    if not group_id:
        raise InvalidOptions("must specify an ID to use when configuring a VM's cpugroup")
    return ModifySettingRequest(resource_path=CPU_GROUP_PATH, settings=CpuGroup(id=group_id))


async def release_cpu_group(modify: Callable[[ModifySettingRequest], Awaitable[None]], vm_id: VmId) -> None:
    """Be in no CPU group any more.

    Raises:
        UtilityVMError: as `modify`; the text says what it was about, as the original's does.
    """
    try:
        await modify(cpu_group(NULL_GUID))
    except UtilityVMError as error:
        error.during(f"failed to remove VM {vm_id} from cpugroup")
        raise


def with_guest(told: MachineStatistics, guest: Properties | None) -> MachineStatistics:
    """Return statistics with what the guest told of its memory, if it was asked."""
    seen = guest.memory if guest else None
    return replace(told, guest=seen.virtual_machine_memory if seen else None)


def assigned_bytes(told: MachineStatistics, vm_id: VmId) -> int:
    """Return how much memory a VM has.

    Raises:
        HostError: it has none, by what is told.
    """
    if not told.memory.assigned_memory:
        raise HostError(f"assigned memory returned should not be 0 for system {vm_id}")
    return told.memory.assigned_memory * _PAGE
