"""Changes of a running machine's processors and memory: which request is for them, and who carries it out."""

from utilityvm.compute.qemu.growth import Growth
from utilityvm.compute.qemu.modify import settings
from utilityvm.compute.qemu.processors import Processors
from utilityvm.kit.errors import Unsupported
from utilityvm.schema.document import CpuGroup
from utilityvm.schema.requests import CPU_GROUP_PATH, CPU_LIMITS_PATH, MEMORY_PATH, ModifySettingRequest, ProcessorLimits


def modify_processors(request: ModifySettingRequest, processors: Processors, pid: int) -> bool:
    """Carry out a change of the share that a machine has of the host's processors; False when the request is about something else.

    Raises:
        UtilityVMError: as `Processors.limit` and `Processors.join`; the text begins with the resource's path.
    """
    if request.resource_path not in {CPU_LIMITS_PATH, CPU_GROUP_PATH}:
        return False
    must_be_update(request)
    if request.resource_path == CPU_LIMITS_PATH:
        processors.limit(settings(request, ProcessorLimits), pid)
    else:
        processors.join(settings(request, CpuGroup), pid)
    return True


async def modify_memory(request: ModifySettingRequest, growth: Growth) -> bool:
    """Give a machine another size of memory; False when the request is about something else.

    Raises:
        UtilityVMError: as `Growth.resize`.
    """
    if request.resource_path != MEMORY_PATH:
        return False
    must_be_update(request)
    await growth.resize(settings(request, int))
    return True


def must_be_update(request: ModifySettingRequest) -> None:
    """Refuse to add or remove what is always there.

    Raises:
        Unsupported: the request is another than an update, which is also what one without a type is.
    """
    if request.request_type not in {"", "Update"}:
        raise Unsupported(f"{request.request_type} of {request.resource_path}: it can only be updated")
