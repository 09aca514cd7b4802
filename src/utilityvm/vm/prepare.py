"""Does on the host what planning says must be done before a VM can be created."""

from collections.abc import Sequence
from typing import assert_never

from utilityvm.compute.ports import HostFiles
from utilityvm.kit.errors import HostError
from utilityvm.kit.ids import VmId
from utilityvm.plan.effects import CopyDisk, Effect, GrantAccess, MakeFolder


async def carry_out(effects: Sequence[Effect], files: HostFiles, vm_id: VmId) -> None:
    """Carry the effects out in their order. What was done before one that fails stays: it lies in the scratch folder, the caller's own.

    Raises:
        HostError: one could not be carried out; the message begins with what it was for.
    """
    for effect in effects:
        try:
            await _one(effect, files, vm_id)
        except HostError as error:
            raise HostError(f"{effect.failure}{error.message}", hint=error.hint) from error


async def _one(effect: Effect, files: HostFiles, vm_id: VmId) -> None:
    match effect:
        case MakeFolder():
            await files.make_folder(effect.path)
        case CopyDisk():
            await files.copy(effect.source, effect.target)
            try:
                await files.grant_access(vm_id, effect.target)
            except BaseException:
                await files.remove(effect.target)
                raise
        case GrantAccess():
            await files.grant_access(vm_id, effect.path)
        case _:
            assert_never(effect)
