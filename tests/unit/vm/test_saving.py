"""A VM becomes a template, and a clone is told who it is; on a fake service."""

import time

import pytest

from utilityvm.kit.errors import Unsupported
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.vm.life import State

from .fake import create, service


async def test_a_vm_that_is_saved_is_over_and_its_options_are_those_of_clones() -> None:
    of, _ = service()
    async with await create(of, is_template=True) as vm:
        await vm.start()
        config = await vm.save_as_template()
        assert vm.state is State.STOPPED
        assert vm.exit_error is None
        assert isinstance(vm.options, OptionsLCOW)
        assert config == TemplateConfig(uvm_id="fake", create_options=vm.options)
        assert of.machines[0].saved == vm.options


async def test_a_vm_that_was_not_made_for_it_is_not_saved_and_runs_on() -> None:
    of, _ = service()
    async with await create(of) as vm:
        await vm.start()
        with pytest.raises(Unsupported, match="vm fake: was not created to become a template"):
            await vm.save_as_template()
        assert vm.state is State.RUNNING
        assert not of.machines[0].savable


async def test_a_clone_meets_an_agent_that_knows_its_host_and_tells_it_the_time() -> None:
    of, guests = service()
    options = OptionsLCOW(boot_files_path="/boot")
    async with await create(of, is_clone=True, template_config=TemplateConfig(uvm_id="t", create_options=options)) as vm:
        await vm.start()
        restored = of.machines[0].document.virtual_machine
        assert restored is not None
        assert restored.restore_state is not None
        assert restored.restore_state.template_system_id == "t"
        ((_, request),) = guests[0].modified
        assert isinstance(request, dict)
        told = request.pop("Settings")
        assert request == {"RequestType": "Update", "ResourceType": "VirtualMachineIdentity"}
        assert abs(told["Seconds"] - time.time()) < 60
        assert 0 <= told["Nanoseconds"] < 1_000_000_000
