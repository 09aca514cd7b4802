"""What a pool needs of others."""

from typing import Protocol

from utilityvm.options.network import NetworkWish
from utilityvm.vm.uvm import UtilityVM


class Source(Protocol):
    """Where a pool's VMs come from: a `Template`."""

    @property
    def id(self) -> str:
        """What it is called."""

    async def clone(
        self, vm_id: str = "", *, require_kvm: bool = False, require_jail: bool = False, network: NetworkWish | None = None
    ) -> UtilityVM:
        """See `Template.clone`. A cancelled call leaves nothing."""
