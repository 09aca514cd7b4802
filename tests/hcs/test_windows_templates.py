"""Windows VMs that become templates, and others that go on from them: a template is its VM, which stays until it is ended."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.hcs.agent import WindowsAgent
from tests.hcs.harness import HOLD, StandIn
from tests.hcs.test_windows_guests import LAYERS, windows
from utilityvm import OptionsWCOW, UtilityVM, create_wcow
from utilityvm.devices.vsmb import PREFIX
from utilityvm.kit.errors import HcsError, StateError, Unsupported
from utilityvm.options.resources import ScsiMount, VsmbOption, VsmbShare
from utilityvm.options.wcow import TemplateConfigWCOW
from utilityvm.vm.life import State
from utilityvm.wire.services import WINDOWS_BRIDGE_PORT, service_id

__all__ = ["windows"]

OTHER_SCRATCH = r"C:\scratch of a clone"
REFUSED = 0x80070005


@asynccontextmanager
async def a_running_vm(hcs: StandIn, **options: object) -> AsyncIterator[tuple[UtilityVM, asyncio.Task[None]]]:
    """A VM whose agent has dialled us, and that agent: it serves until we hang up."""

    async def dial(service: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, hcs.sockets.path(vm.runtime_id, service))
        return sock

    wish = OptionsWCOW(id="t", layer_folders=LAYERS, **options)  # type: ignore[arg-type]
    async with asyncio.timeout(20), asyncio.TaskGroup() as group, await create_wcow(wish) as vm:
        agent = group.create_task(WindowsAgent(dial).run(service_id(WINDOWS_BRIDGE_PORT)))
        await vm.start()
        yield vm, agent


def after(hcs: StandIn, name: str) -> list[str]:
    """The calls from the first one of this name on."""
    return hcs.names[hcs.names.index(name) :]


async def test_a_template_is_paused_saved_and_kept_until_it_is_closed(windows: StandIn) -> None:
    async with a_running_vm(windows, is_template=True) as (vm, agent):
        await vm.save_as_template()
        assert after(windows, "HcsPauseComputeSystem") == ["HcsPauseComputeSystem", "HcsSaveComputeSystem"]
        assert windows.document("HcsSaveComputeSystem") == {"SaveType": "AsTemplate"}
        await agent  # nobody can ask it anything more
        assert vm.state is State.SAVED
        assert (await vm.properties()).state == "Saved"
        for call in (vm.pause, vm.resume, vm.save_as_template):
            with pytest.raises(StateError, match="while saved"):
                await call()
        assert "HcsTerminateComputeSystem" not in windows.names
    assert "HcsTerminateComputeSystem" in windows.names
    assert vm.exit_error is None


async def test_its_clones_get_its_folders_and_a_disk_of_their_own(windows: StandIn, drive: Path) -> None:
    (drive / OTHER_SCRATCH).touch()
    (drive / r"C:\data").mkdir()
    (drive / r"C:\data.vhdx").write_bytes(b"more")
    async with a_running_vm(windows, is_template=True) as (vm, _):
        await vm.vsmb.add(r"C:\data")
        await vm.scsi.add(r"C:\data.vhdx", r"C:\there", read_only=True)
        config = await vm.save_as_template()
        assert isinstance(config, TemplateConfigWCOW)
        assert (config.uvm_id, config.create_options) == ("t", vm.options)
        data, scratch, disk = config.resources
        assert data == VsmbShare(
            host_path=r"C:\data",
            name="s1",
            guest_path=PREFIX + "s1",
            options=tuple(map(VsmbOption, ("ReadOnly", "ShareRead", "CacheIo", "PseudoOplocks"))),
        )
        assert scratch == ScsiMount(host_path=r"C:\scratch\sandbox.vhdx", attachment_type="VirtualDisk")
        assert disk == ScsiMount(host_path=r"C:\data.vhdx", uvm_path=r"C:\there", lun=1, read_only=True, attachment_type="VirtualDisk")
        (drive / r"C:\scratch\sandbox.vhdx").write_bytes(b"of the template")
        wish = OptionsWCOW(id="c", layer_folders=(LAYERS[0], OTHER_SCRATCH), is_clone=True, template_config=config)
        async with await create_wcow(wish) as clone:
            machine = windows.document()["VirtualMachine"]
            assert machine["RestoreState"] == {"TemplateSystemId": "t"}
            assert {share["Path"] for share in machine["Devices"]["VirtualSmb"]["Shares"]} >= {r"C:\data"}
            assert (drive / rf"{OTHER_SCRATCH}\sandbox.vhdx").read_bytes() == b"of the template"
            assert [known.host_path for known in clone.scsi.disks] == [rf"{OTHER_SCRATCH}\sandbox.vhdx", r"C:\data.vhdx"]


async def test_one_that_the_service_does_not_save_runs_on(windows: StandIn) -> None:
    async with a_running_vm(windows, is_template=True) as (vm, _):
        windows.script("HcsSaveComputeSystem", REFUSED)
        with pytest.raises(HcsError, match="System::Save t: access is denied"):
            await vm.save_as_template()
        assert after(windows, "HcsSaveComputeSystem") == ["HcsSaveComputeSystem", "HcsResumeComputeSystem"]
        assert (await vm.run(["cmd.exe"], input=b"")).stdout == b"cmd.exe"
        await vm.save_as_template()
        assert vm.state is State.SAVED


async def test_a_call_that_is_given_up_is_carried_out(windows: StandIn) -> None:
    async with a_running_vm(windows, is_template=True) as (vm, _):
        windows.script("HcsSaveComputeSystem", how=HOLD | 1)
        saving = asyncio.ensure_future(vm.save_as_template())  # noqa: TID251 (given up below)
        await windows.held()
        saving.cancel()
        windows.release()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert vm.state is State.SAVED


async def test_a_connection_that_is_lost_meanwhile_does_not_end_it(windows: StandIn) -> None:
    async with a_running_vm(windows, is_template=True) as (vm, agent):
        windows.script("HcsSaveComputeSystem", how=HOLD | 1)
        saving = asyncio.ensure_future(vm.save_as_template())  # noqa: TID251 (awaited below)
        await windows.held()
        agent.cancel()
        await asyncio.wait([agent])
        windows.release()
        await saving
        await asyncio.sleep(0)
        assert vm.state is State.SAVED
        assert "HcsTerminateComputeSystem" not in windows.names


async def test_one_that_was_not_made_for_it_or_has_what_no_clone_can_have_is_not_saved(windows: StandIn) -> None:
    async with a_running_vm(windows) as (vm, _):
        with pytest.raises(Unsupported, match="vm t: was not created to become a template"):
            await vm.save_as_template()
        assert vm.state is State.RUNNING
    async with a_running_vm(windows, is_template=True) as (vm, _):
        await vm.vpci.assign(r"PCIP\VEN_1")
        with pytest.raises(Unsupported, match=r"vm t: no clone could have the device PCIP.VEN_1"):
            await vm.save_as_template()
        assert vm.state is State.RUNNING
    assert "HcsPauseComputeSystem" not in windows.names
