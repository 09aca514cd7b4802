"""A VM becomes a template; and what one that goes on from a template tells its guest first."""

import time

from utilityvm.compute.ports import Machine
from utilityvm.devices import resources
from utilityvm.guest.connection import GuestConnection
from utilityvm.kit.errors import Unsupported
from utilityvm.kit.ids import RuntimeId, VmId
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.options.wcow import OptionsWCOW
from utilityvm.vm.failed_start import Phase


async def save_as_template(vm_id: VmId, options: OptionsLCOW | OptionsWCOW, system: Machine) -> TemplateConfig:
    """See `UtilityVM.save_as_template`."""
    if not isinstance(options, OptionsLCOW):
        raise Unsupported(f"vm {vm_id}: template config can only be created for a Linux guest")
    if not options.is_template:
        raise Unsupported(f"vm {vm_id}: was not created to become a template", hint="is_template=True")
    await system.save_as_template(options)
    return TemplateConfig(uvm_id=vm_id, create_options=options)


async def introduce(guest: GuestConnection, vm_id: VmId, options: OptionsLCOW | OptionsWCOW, runtime_id: RuntimeId, phase: Phase) -> None:
    """Tell a guest who it is, as far as it cannot know: a Windows guest its address, a Linux guest that goes on
    from a template the time and its names.

    Raises:
        GuestError, ConnectionLost: it does not take it.
    """
    if isinstance(options, OptionsWCOW):
        phase.now = "the guest to take its socket address"
        await guest.client.modify(resources.hvsocket_address(runtime_id))
    elif options.is_clone:
        phase.now = "the guest to go on as another"
        await guest.client.modify(resources.identity(time.time_ns(), vm_id))
