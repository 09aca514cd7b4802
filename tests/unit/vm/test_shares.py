"""Shares of the host, as requests and as what is told of them: the original's words."""

import pytest

from utilityvm.compute.ports import MachineStatistics
from utilityvm.kit.errors import HostError, InvalidOptions, StateError
from utilityvm.kit.ids import NULL_GUID, VmId
from utilityvm.schema.document import CpuGroup
from utilityvm.schema.properties import MemoryInformation, Properties, VmMemory
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.vm import shares

MIB = 1 << 20


@pytest.mark.parametrize(("size", "mib"), [(0, 0), (1, 2), (MIB, 2), (2 * MIB, 2), (2 * MIB + 1, 4), (3 * MIB, 4), (5 * MIB - 1, 6)])
def test_memory_is_rounded_up_to_an_even_number_of_mib(size: int, mib: int) -> None:
    request = shares.memory(size)
    assert (request.resource_path, request.settings) == ("VirtualMachine/ComputeTopology/Memory/SizeInMB", mib)


def test_less_than_nothing_and_no_group_are_refused() -> None:
    with pytest.raises(InvalidOptions, match="-1 bytes"):
        shares.memory(-1)
    with pytest.raises(InvalidOptions, match="must specify an ID to use when configuring a VM's cpugroup"):
        shares.cpu_group("")


async def test_a_release_is_the_null_group_and_its_failure_says_what_it_was_about() -> None:
    asked: list[ModifySettingRequest] = []

    async def modify(request: ModifySettingRequest) -> None:
        asked.append(request)
        if len(asked) > 1:
            raise StateError("vm x", "stopped", "change a resource")

    await shares.release_cpu_group(modify, VmId("x"))
    assert asked[0].settings == CpuGroup(id=NULL_GUID)
    with pytest.raises(StateError, match="^failed to remove VM x from cpugroup: vm x: cannot change a resource while stopped$"):
        await shares.release_cpu_group(modify, VmId("x"))


def test_the_guests_view_is_added_where_there_is_one() -> None:
    told = MachineStatistics(processor_ns=1, working_set=2, nodes=1, memory=VmMemory(assigned_memory=3))
    view = VmMemory(available_memory=1, assigned_memory=2)
    assert shares.with_guest(told, None) == shares.with_guest(told, Properties()) == told
    assert shares.with_guest(told, Properties(memory=MemoryInformation(virtual_machine_memory=view))).guest == view
    assert shares.assigned_bytes(told, VmId("x")) == 3 * 4096
    with pytest.raises(HostError, match="assigned memory returned should not be 0 for system x"):
        shares.assigned_bytes(MachineStatistics(processor_ns=1, working_set=2, nodes=1, memory=VmMemory()), VmId("x"))
