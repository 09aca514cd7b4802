"""Containers that the host service runs in a VM, as a `Container` uses them: each is a system of its own, which the VM hosts."""

import asyncio
import os

import pytest

from utilityvm.compute.hcs.machine import HcsMachine
from utilityvm.compute.hcs.system import Notice
from utilityvm.kit.errors import ConnectionLost, StateError, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.schema.document import ComputeSystem, GuestConnection, VirtualMachine
from utilityvm.wire.gcs import NotificationType
from utilityvm.wire.oci import OciProcess, PidsLimit, Resources, User

from .harness import ANSWER, NOTHING, StandIn

VM = VmId("vm-1")
LINUX = '{"Id":"vm-1","RuntimeId":"A","RuntimeOsType":"Linux","Owner":"me"}'
PROCESS = OciProcess(args=["sleep", "9"], user=User(uid=0, gid=0), cwd="/")


async def connected(hcs: StandIn, told: str = LINUX) -> HcsMachine:
    hcs.script("HcsGetComputeSystemProperties", 0, told, ANSWER)
    document = ComputeSystem(owner="me", virtual_machine=VirtualMachine(guest_connection=GuestConnection(use_vsock=True)))
    machine = await hcs.service().create(VM, document)
    await machine.start()
    await machine.connect()
    return machine


async def test_a_container_is_a_system_that_the_vm_hosts_and_ends_with_its_handle(hcs: StandIn) -> None:
    machine = await connected(hcs)
    container = await machine.create_container("c1", {"OciBundlePath": "/run/gcs/c/c1"})
    assert hcs.document() == {
        "Owner": "me",
        "SchemaVersion": {"Major": 2, "Minor": 1},
        "HostingSystemId": "vm-1",
        "HostedSystem": {"OciBundlePath": "/run/gcs/c/c1"},
        "ShouldTerminateOnLastHandleClosed": True,
    }
    assert container.os == "linux"
    await container.start()
    first = await container.first(stdin=False, stdout=True, stderr=False)
    assert hcs.document("HcsCreateProcess") == {"CreateStdOutPipe": True}
    other = await container.execute(PROCESS, stdout=False, stderr=False)
    assert hcs.document("HcsCreateProcess")["OciProcess"]["args"] == ["sleep", "9"]
    os.write(hcs.end_of(first.pid, 1), b"said")
    os.close(hcs.end_of(first.pid, 1))
    assert await first.stdout.read() == b"said"
    hcs.exit(first.pid, 3)
    hcs.exit(other.pid, 4)
    assert (await first.wait(), await other.wait()) == (3, 4)
    await container.terminate()
    assert (await container.wait()).type is NotificationType.FORCED_EXIT
    await container.delete_state()
    container.close()
    for process in (first, other):
        await process.close()
    await machine.close()
    assert hcs.counts == NOTHING


async def test_it_stands_still_tells_of_itself_and_has_its_limits_changed(hcs: StandIn) -> None:
    machine = await connected(hcs)
    container = await machine.create_container("c1", {})
    await container.start()
    await container.pause()
    await container.resume()
    await container.update(Resources(pids=PidsLimit(limit=7)))
    assert hcs.document("HcsModifyComputeSystem") == {
        "GuestRequest": {"RequestType": "Update", "ResourceType": "ContainerConstraints", "Settings": {"Linux": {"pids": {"limit": 7}}}}
    }
    hcs.script("HcsGetComputeSystemProperties", 0, '{"Id":"c1","ProcessList":[{"ProcessId":5}]}', ANSWER)
    assert [one.process_id for one in (await container.properties(["ProcessList"])).process_list] == [5]
    assert hcs.document("HcsGetComputeSystemProperties") == {"PropertyTypes": ["ProcessList"]}
    first = await container.first(stdin=False, stdout=False, stderr=False)
    with pytest.raises(Unsupported, match="container c1: signal 15 to all processes: the host service can only end all of them"):
        await container.signal_all(first, 15)
    hcs.exit(first.pid, 137)
    assert await first.wait() == 137
    assert await container.signal_all(first, 9)
    assert (await container.wait()).type is NotificationType.FORCED_EXIT
    await machine.close()
    assert hcs.counts == NOTHING, "the VM's end did not let go of its container"


async def test_a_windows_guests_processes_have_a_command_line_and_it_is_asked_to_end(hcs: StandIn) -> None:
    machine = await connected(hcs, '{"Id":"vm-1","RuntimeId":"A"}')
    container = await machine.create_container("c1", {"Container": {}})
    assert container.os == "windows"
    await container.start()
    process = await container.execute(PROCESS, stdout=False, stderr=False)
    assert hcs.document("HcsCreateProcess")["CommandLine"] == "sleep 9"
    hcs.exit(process.pid, 0)
    assert await process.wait() == 0
    await container.shutdown()
    assert (await container.wait()).type is NotificationType.GRACEFUL_EXIT
    await machine.close()


async def test_without_the_services_connection_there_is_no_container_and_its_loss_is_told(hcs: StandIn) -> None:
    lone = await hcs.service().create(VM, ComputeSystem(virtual_machine=VirtualMachine()))
    await lone.start()
    with pytest.raises(StateError, match="without an internal guest connection"):
        await lone.create_container("c1", {})
    await lone.close()
    machine = await connected(hcs)
    container = await machine.create_container("c1", {})
    waiting = asyncio.ensure_future(container.wait())  # noqa: TID251 (awaited below)
    await asyncio.sleep(0)
    hcs.notify(Notice.DISCONNECTED)
    with pytest.raises(ConnectionLost, match="container c1: lost communication with compute service"):
        await waiting
    await machine.close()
