"""What was taken for a container, and how each is given back: the last first, whichever of them fails."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import final

import msgspec

from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, NotFound, UtilityVMError
from utilityvm.kit.trace import event

Rest = Callable[[], Awaitable[None]]
Release = Callable[[], Awaitable[Rest | None]]
"""Gives something back to the VM; what it returns is the rest of that, for which nobody has to wait."""


class _Taken(msgspec.Struct, frozen=True, eq=False):
    what: str
    release: Release
    close: Callable[[], None]


@final
class Releases:
    """What one container has taken from the VM `vm_id`, in whose `scope` the rest of giving it back goes on.

    When the VM `is_over`, what could not be given back is nothing to tell of: it has gone with the VM.
    """

    def __init__(self, vm_id: str, scope: Scope, is_over: Callable[[], bool]) -> None:
        self._vm_id, self._scope, self._is_over = vm_id, scope, is_over
        self._taken: list[_Taken] = []
        self._leaving: dict[_Taken, asyncio.Task[None]] = {}

    @property
    def done(self) -> bool:
        """Whether nothing is left to be given back."""
        return not self._taken and not self._leaving

    def push(self, what: str, release: Release, close: Callable[[], None] = lambda: None) -> None:
        """Remember how `what` is given back to the VM, and what is then closed on the host."""
        self._taken.append(_Taken(what, release, close))

    async def release(self) -> UtilityVMError | None:
        """Give all of it back; return the first failure. What failed stays, and the next call tries it again."""
        await self.settled()
        first: UtilityVMError | None = None
        for one in reversed([*self._taken]):
            rest: Rest | None = None
            try:
                with suppress(NotFound):  # somebody else has given it back
                    rest = await one.release()
            except UtilityVMError as error:
                self._kept(one, error)
                first = first or error
                continue
            if one in self._taken:  # else the VM is over
                self._taken.remove(one)
                if rest is None:
                    one.close()
                else:
                    self._leave(_Taken(one.what, rest, one.close))
        return first

    async def settled(self) -> None:
        """Wait until none of it is on its way out."""
        if self._leaving:
            await asyncio.wait([*self._leaving.values()])

    def abandon(self) -> None:
        """Close what is open on the host: the VM is over, and all that it had with it."""
        there, self._taken, self._leaving = [*self._taken, *self._leaving], [], {}
        for one in reversed(there):
            one.close()

    def _leave(self, one: _Taken) -> None:
        async def leave() -> None:
            failure: UtilityVMError | None = None
            try:
                with suppress(NotFound):
                    await one.release()
            except UtilityVMError as error:
                failure = error
            if self._leaving.pop(one, None) is None:
                return  # the VM is over
            if failure is None:
                one.close()
            else:
                self._kept(one, failure)
                self._taken.insert(0, one)

        self._leaving[one] = self._scope.start(f"release {one.what}", leave())

    def _kept(self, one: _Taken, error: UtilityVMError) -> None:
        if not self._is_over() and not isinstance(error, ConnectionLost):  # that is how its end is heard of here first
            event("container.kept", level=logging.WARNING, vm=self._vm_id, resource=one.what, error=error.message)
