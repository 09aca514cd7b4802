"""A VM's own network, whatever its kind."""

from utilityvm.kit.ids import VmId
from utilityvm.network.tap import TapUplink
from utilityvm.network.user import UserUplink
from utilityvm.options.network import NetworkWish, UserNetwork

__all__ = ["TapUplink", "Uplink", "UserUplink", "uplink_of"]

Uplink = UserUplink | TapUplink


def uplink_of(vm_id: VmId, wish: NetworkWish) -> Uplink:
    """Return the network that is wished for; nothing of it is made yet.

    Raises:
        InvalidOptions: the wish makes no sense.
    """
    return UserUplink(vm_id, wish) if isinstance(wish, UserNetwork) else TapUplink(vm_id, wish)
