"""One VM of a pool: made, paused until it is wanted, looked after when it goes, ended."""

from typing import Final, final

import msgspec

from utilityvm.kit.errors import StateError
from utilityvm.kit.lifecycle import Life
from utilityvm.options.network import NetworkWish
from utilityvm.templates.member_life import LIFE, Do, MemberState
from utilityvm.templates.ports import Source
from utilityvm.vm.life import State
from utilityvm.vm.uvm import UtilityVM

REHEARSALS: Final = 3
"""How often a VM is woken and paused again before anybody wants it: its guest needs half a millisecond more the first time."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a pool's VMs are made: see `Template.clone`."""

    source: Source
    network: NetworkWish | None
    require_kvm: bool
    require_jail: bool


@final
class Member:
    """A place in a pool, and the VM that has it, if there is one already."""

    def __init__(self, pool: str) -> None:
        self._life = Life(f"a VM of {pool}", LIFE, MemberState.MAKING)
        self.vm: UtilityVM | None = None

    @property
    def state(self) -> MemberState:
        """Where it is in its life."""
        return self._life.state

    def step(self, do: Do) -> None:
        """Move in its life; see `LIFE`."""
        self._life.step(do)

    async def make(self, recipe: Recipe) -> None:
        """Make the VM, and let it stand still. What is there of it when this fails or is cancelled is the caller's to `close`.

        Raises:
            UtilityVMError: as `Template.clone`, `UtilityVM.start` and `UtilityVM.pause`.
        """
        vm = await recipe.source.clone(require_kvm=recipe.require_kvm, require_jail=recipe.require_jail, network=recipe.network)
        self.vm = vm  # from here on it is closed with its member
        await vm.start()
        await vm.pause()
        for _ in range(REHEARSALS):
            await self.wake()
            await vm.pause()

    async def wake(self) -> None:
        """Let the VM run on, and its guest know the time, which has stood still for it: so it is seen to answer.

        Raises:
            UtilityVMError: it has ended meanwhile, or does not answer as it should.
        """
        await self.there.resume(set_clock=True)

    def lend(self) -> UtilityVM:
        """Return the VM for somebody to have.

        Raises:
            StateError: it has ended just now.
        """
        if self.there.state is not State.RUNNING:
            raise StateError(f"vm {self.there.id}", self.there.state.value, Do.LEND.value)
        self.step(Do.LEND)
        return self.there

    @property
    def there(self) -> UtilityVM:
        """Its VM, once it has one."""
        assert self.vm is not None  # noqa: S101 (our own bug: only a member that is being made has none)
        return self.vm

    @property
    def rests(self) -> bool:
        """Whether its VM stands still, as one that nobody has used."""
        return self.vm is not None and self.vm.state is State.PAUSED

    @property
    def is_over(self) -> bool:
        """Whether nothing is left of it. The VM of a lent one that has ended by itself is its user's until it is closed."""
        return self.state is MemberState.ENDED and (self.vm is None or self.vm.state is State.CLOSED)

    async def close(self) -> None:
        """Close its VM, if it has one.

        Raises:
            UtilityVMError: as `UtilityVM.close`.
        """
        if self.vm is not None:
            await self.vm.close()
