"""How what was plugged into QEMU is taken out again: the steps of its coming, each with its undo, backwards."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from utilityvm.kit.errors import UtilityVMError
from utilityvm.kit.trace import event

Undo = Callable[[], Awaitable[object]]


async def take_out(undo: list[Undo]) -> None:
    """Undo all of it. When that fails the rest stays in `undo`, and the same call goes on from where it stopped.

    Raises:
        UtilityVMError: as the step that fails.
    """
    while undo:
        await undo[-1]()
        undo.pop()


async def take_back(undo: Sequence[Undo], name: str, resource: str) -> None:
    """Undo what was done for a change that failed, whatever becomes of the single steps: `name` is the machine's in errors."""
    for step in reversed(undo):
        try:
            await step()
        except UtilityVMError as error:  # why the change failed says more
            event("qemu.undo.failed", level=logging.WARNING, vm=name.removeprefix("vm "), resource=resource, error=error.message)
