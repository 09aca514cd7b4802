"""What was taken for a container, and how each is given back: the last first, whichever of them fails."""

import logging
from collections.abc import Awaitable, Callable
from typing import final

from utilityvm.kit.errors import NotFound, UtilityVMError
from utilityvm.kit.trace import event

Release = Callable[[], Awaitable[None]]


@final
class Releases:
    """What one container has taken from its VM; `vm_id` is the VM's, for the log."""

    def __init__(self, vm_id: str) -> None:
        self._vm_id = vm_id
        self._taken: list[tuple[str, Release, Callable[[], None]]] = []

    @property
    def done(self) -> bool:
        """Whether nothing is left to be given back."""
        return not self._taken

    def push(self, what: str, release: Release, close: Callable[[], None] = lambda: None) -> None:
        """Remember how `what` is given back to the VM, and what is then closed on the host."""
        self._taken.append((what, release, close))

    async def release(self) -> UtilityVMError | None:
        """Give all of it back; return the first failure. What failed stays, and the next call tries it again."""
        taken, self._taken, first = self._taken, [], None
        for what, release, close in reversed(taken):
            try:
                await release()
            except NotFound:  # somebody else has given it back
                close()
            except UtilityVMError as error:
                event("container.kept", level=logging.WARNING, vm=self._vm_id, resource=what, error=error.message)
                self._taken.insert(0, (what, release, close))
                first = first or error
            else:
                close()
        return first

    def abandon(self) -> None:
        """Close what is open on the host: the VM is over, and all that it had with it."""
        taken, self._taken = self._taken, []
        for _, _, close in reversed(taken):
            close()
