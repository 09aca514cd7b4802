"""How a VM ends: at once, by itself, or because what is left of it is of no use; heard of once, by all who wait for it."""

import asyncio
from typing import Final, final

from utilityvm.compute.ports import ExitHow, ExitStatus, Machine
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, HostError, UtilityVMError
from utilityvm.kit.ids import VmId
from utilityvm.kit.lifecycle import Life
from utilityvm.kit.trace import event
from utilityvm.vm.life import Do, State

EXIT_TIMEOUT: Final = 2.0
"""Seconds in which a VM whose connections are gone ends by itself if it does: its own reason says more than their loss."""


@final
class End:
    """The end of one VM, and its tasks, which end with it: `exit` is done then. `fault` is what we ended it for, None if for nothing.

    `switching` is held while the VM pauses, runs on or is saved.
    """

    def __init__(self, vm_id: VmId, system: Machine, life: Life[State, Do], switching: asyncio.Lock) -> None:
        self._id, self._system, self._life, self._switching = vm_id, system, life, switching
        self.exit: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self.fault: UtilityVMError | None = None
        self.scope = Scope(f"vm:{vm_id}", self._broken)

    @property
    def error(self) -> UtilityVMError | None:
        """Why the VM ended, None when it ended as it should. Only once it has."""
        return self.fault or self.exit.result().error(f"vm {self._id}")

    async def watch(self) -> None:
        """Hear of it when the VM ends."""
        self.set(await self._system.wait())

    def set(self, status: ExitStatus) -> None:
        """Tell that the VM has ended so; what was told first stays."""
        if not self.exit.done():
            event("vm.exit", vm=self._id, how=status.how.value)
            self.exit.set_result(status)
            self._life.step(Do.EXIT)

    async def at_once(self) -> None:
        """End the VM as by pulling the plug."""
        await self._system.terminate()
        await self.watch()

    async def after_failed_start(self, error: BaseException) -> None:
        """End a VM whose start failed of this."""
        await self._by_itself(error)
        await self.at_once()

    def after_loss(self, reason: UtilityVMError) -> None:
        """End a VM whose agent is gone, which is of no use without, unless it is powering off by itself."""
        self.scope.start("bridge-lost", self._after_loss(reason))

    async def _after_loss(self, reason: UtilityVMError) -> None:
        await self._by_itself(reason)
        async with self._switching:  # what is being saved may lose its connections, and may stay
            over = self.exit.done() or self._life.state is State.SAVED
        if not over:
            self.fault = reason
            await self._system.terminate()

    async def _by_itself(self, error: BaseException) -> None:
        """Let a VM that is ending do so: if the loss of a connection is all that was seen of it so far."""
        if isinstance(error, ConnectionLost):
            await asyncio.wait([self.exit], timeout=EXIT_TIMEOUT)

    def _broken(self, error: Exception) -> None:
        """A watcher of ours failed: the VM may be anywhere, and nobody must wait for it for ever."""
        self.fault = self.fault or HostError(f"vm {self._id}: out of control: {error}")
        self.set(ExitStatus(ExitHow.FAILED, str(error)))
