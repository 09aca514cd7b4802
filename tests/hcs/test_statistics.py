"""What a VM has used: the service's words, and the working set of the process of the host that holds its memory."""

import asyncio
import json
from contextlib import suppress

import pytest

from tests.hcs.harness import HOLD, StandIn
from tests.hcs.test_system import VM, caught
from utilityvm.compute.hcs import machine as machines
from utilityvm.compute.hcs.machine import HcsMachine
from utilityvm.compute.hcs.vmmem import MemoryProcess
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, HcsError, HostError, NotFound, StateError
from utilityvm.kit.ids import RuntimeId
from utilityvm.schema.document import ComputeSystem, Memory, Topology, VirtualMachine

ACCOUNT = "NT VIRTUAL MACHINE"
OURS = "00000000-0000-4000-8000-0000000000A0"
SERVICE = "HcsGetComputeSystemProperties"
TOLD = {
    "RuntimeId": OURS,
    "Statistics": {"Processor": {"TotalRuntime100ns": 7}},
    "Memory": {"VirtualNodeCount": 1, "VirtualMachineMemory": {"AssignedMemory": 3, "ReservedMemory": 2}},
}


async def machine(hcs: StandIn, *, physical: bool = False) -> HcsMachine:
    topology = Topology(memory=Memory(size_in_mb=16, allow_overcommit=not physical))
    made = await hcs.service().create(VM, ComputeSystem(virtual_machine=VirtualMachine(compute_topology=topology)))
    await made.start()
    return made


def others(hcs: StandIn) -> None:
    """Processes that are not the VM's, each for one reason."""
    hcs.host_process(4, "System", "NT AUTHORITY", "SYSTEM")
    hcs.host_process(8, r"not vmmem.exe", ACCOUNT, OURS, 1)
    hcs.host_process(12, "vmmem", ACCOUNT, "00000000-0000-4000-8000-0000000000A1", 2)
    hcs.host_process(16, "vmmem", "DOMAIN", OURS, 3)


@pytest.mark.parametrize(("file", "domain", "name"), [("vmmem", ACCOUNT, OURS), ("VmMem.EXE", "nt virtual machine", OURS.lower())])
async def test_memory_in_use_is_the_working_set_of_the_process_that_runs_as_the_vms_account(
    hcs: StandIn, file: str, domain: str, name: str
) -> None:
    others(hcs)
    hcs.host_process(20, file, domain, name, 5 << 32)
    made = await machine(hcs)
    for _ in range(2):
        hcs.script(SERVICE, 0, json.dumps(TOLD))
        told = await made.statistics()
        assert (told.processor_ns, told.working_set, told.nodes, told.memory.reserved_memory) == (700, 5 << 32, 1, 2)
    assert hcs.document(SERVICE) == {"PropertyTypes": ["Statistics", "Memory"]}
    assert hcs.names.count("CreateToolhelp32Snapshot") == 1, "the process was looked for twice"
    assert hcs.names.count("OpenProcess") == 3, "a process of another name was opened"
    await made.close()
    assert isinstance(await caught(made.statistics()), StateError)


async def test_memory_that_is_the_hosts_from_the_start_is_what_was_assigned(hcs: StandIn) -> None:
    made = await machine(hcs, physical=True)
    hcs.script(SERVICE, 0, json.dumps(TOLD))
    assert (await made.statistics()).working_set == 3 * 4096
    assert "CreateToolhelp32Snapshot" not in hcs.names
    await made.close()


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"Memory": None}, "^no memory properties returned for system vm-1"),
        ({"Memory": {"VirtualNodeCount": 1}}, "^no virtual memory properties returned for system vm-1"),
        ({"Statistics": None}, "^no processor statistics returned for system vm-1"),
        ({"Statistics": {"Uptime100ns": 1}}, "^no processor statistics returned for system vm-1"),
    ],
)
async def test_an_answer_without_a_part_is_an_error_and_not_a_zero(hcs: StandIn, told: dict[str, object], says: str) -> None:
    made = await machine(hcs, physical=True)
    hcs.script(SERVICE, 0, json.dumps(TOLD | told))
    with pytest.raises(HostError, match=says):
        await made.statistics()
    await made.close()


async def test_a_vm_that_does_not_run_has_none(hcs: StandIn) -> None:
    made = await hcs.service().create(VM, ComputeSystem(virtual_machine=VirtualMachine()))
    assert isinstance(await caught(made.statistics()), StateError)
    await made.start()
    hcs.script(SERVICE, 0x80070005)
    assert isinstance(await caught(made.statistics()), HcsError)
    await made.terminate()
    assert isinstance(await caught(made.statistics()), StateError)
    await made.close()


async def test_a_process_that_is_not_found_is_told_and_looked_for_again(hcs: StandIn) -> None:
    others(hcs)
    made = await machine(hcs)
    hcs.script(SERVICE, 0, json.dumps(TOLD))
    with pytest.raises(NotFound, match=f"^vm {OURS.lower()}: failed to find matching vmmem process") as refused:
        await made.statistics()
    assert "administrator" in refused.value.hint
    hcs.host_process(20, "vmmem", ACCOUNT, OURS, 6)
    hcs.script(SERVICE, 0, json.dumps(TOLD))
    assert (await made.statistics()).working_set == 6
    await made.close()


FAILURES = {
    "CreateToolhelp32Snapshot": "failed to enumerate processes: CreateToolhelp32Snapshot failed with 5",
    "Process32FirstW": "failed to enumerate processes: Process32FirstW failed with 5",
    "Process32NextW": "failed to enumerate processes: Process32NextW failed with 5",
    "OpenProcess": "failed to find matching vmmem process",
    "OpenProcessToken": "failed to find matching vmmem process",
    "GetTokenInformation": "failed to find matching vmmem process",
    "LookupAccountSidW": "failed to find matching vmmem process",
    "K32GetProcessMemoryInfo": "the working set of its vmmem process: K32GetProcessMemoryInfo failed with 5",
}


@pytest.mark.parametrize("name", FAILURES)
def test_whatever_windows_refuses_is_told_and_nothing_is_left_open(hcs: StandIn, name: str) -> None:
    hcs.host_process(20, "vmmem", ACCOUNT, OURS, 6)
    holder = MemoryProcess(hcs.processes, RuntimeId(OURS.lower()))
    hcs.script(name, 5)
    with pytest.raises((HostError, NotFound), match=FAILURES[name]):
        holder.working_set()
    assert holder.working_set() == 6
    holder.close()
    holder.close()
    with pytest.raises(StateError):
        holder.working_set()


async def test_a_look_that_does_not_return_does_not_keep_the_vm(hcs: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "CLEANUP", 0.5)
    hcs.host_process(20, "vmmem", ACCOUNT, OURS, 6)
    made = await machine(hcs)
    hcs.script(SERVICE, 0, json.dumps(TOLD))
    hcs.script("K32GetProcessMemoryInfo", how=HOLD)
    looking = asyncio.get_running_loop().create_task(made.statistics())
    await hcs.held()
    with pytest.raises(DeadlineExceeded, match="vm vm-1: the service did not let go of all of it within 1 s"):
        await made.close()
    assert "HcsCloseComputeSystem" in hcs.names
    hcs.release()
    with suppress(ConnectionLost, StateError):
        await looking
    await hcs.closed()
