"""What a VM asks of its driver to have another share of the host's processors, or more or less memory. Pure."""

from typing import Final

from utilityvm.kit.errors import InvalidOptions
from utilityvm.kit.ids import NULL_GUID
from utilityvm.schema.document import CpuGroup
from utilityvm.schema.requests import CPU_GROUP_PATH, CPU_LIMITS_PATH, MEMORY_PATH, ModifySettingRequest, ProcessorLimits

_MIB: Final = 1 << 20


def memory_request(size_in_bytes: int) -> ModifySettingRequest:
    """Return the request for so much memory, rounded up to an even number of MiB.

    Raises:
        InvalidOptions: it is less than nothing.
    """
    if size_in_bytes < 0:
        raise InvalidOptions(f"{size_in_bytes} bytes: a machine's memory is not less than nothing")
    mib = -(-size_in_bytes // _MIB)
    return ModifySettingRequest(resource_path=MEMORY_PATH, settings=mib + mib % 2)


def cpu_limits_request(limits: ProcessorLimits) -> ModifySettingRequest:
    """Return the request for these limits."""
    return ModifySettingRequest(resource_path=CPU_LIMITS_PATH, settings=limits)


def cpu_group_request(group_id: str) -> ModifySettingRequest:
    """Return the request to be in a CPU group, ``NULL_GUID`` in none.

    Raises:
        InvalidOptions: the id is empty.
    """
    if not group_id:
        raise InvalidOptions("must specify an ID to use when configuring a VM's cpugroup")
    return ModifySettingRequest(resource_path=CPU_GROUP_PATH, settings=CpuGroup(id=group_id))


def no_cpu_group_request() -> ModifySettingRequest:
    """Return the request to be in no CPU group."""
    return cpu_group_request(NULL_GUID)
