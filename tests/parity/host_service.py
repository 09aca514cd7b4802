"""The host service of the vectors: our driver calls it as it would call Windows', and what each call comes to is the vector's."""

import socket
from collections.abc import Callable
from typing import Any, cast

from utilityvm.compute.hcs._abi import Notified, Returned
from utilityvm.compute.hcs.calls import Hcs
from utilityvm.compute.hcs.service import HcsService
from utilityvm.compute.hcs.system import Notice
from utilityvm.compute.hcs.timeouts import Timeouts
from utilityvm.schema.json import encode
from utilityvm.testing.compute import RUNTIME_ID

_RESULT = Returned(0, ("",))
_ANSWERS = {
    "HcsCreateComputeSystem": Returned(0, (1, "")),
    "HcsGetComputeSystemProperties": Returned(0, (encode({"RuntimeId": RUNTIME_ID}), "")),
    "HcsStartComputeSystem": _RESULT,
    "HcsTerminateComputeSystem": _RESULT,
    "HcsCloseComputeSystem": Returned(0),
    "HcsUnregisterComputeSystemCallback": Returned(0),
}
"""What any VM needs of it, of which the vectors say nothing."""


class HostCalls:
    """The functions of the host service, in the place of its library. `asked` is told of each change of a system that is not in `_ANSWERS`,
    its name and its text, on another thread; what it raises comes of the change.
    """

    def __init__(self, asked: Callable[[str, str], None]) -> None:
        self._asked, self._notified = asked, dict[int, Notified]()

    def call(self, name: str, *given: str | int | None) -> Returned:
        if name in _ANSWERS:
            if name == "HcsTerminateComputeSystem":
                self._notified[1](Notice.EXITED, 0, "")
            return _ANSWERS[name]
        self._asked(name, str(given[1] or ""))
        return _RESULT

    def register(self, _name: str, _handle: int, notified: Notified) -> tuple[Returned, int]:
        self._notified[1] = notified
        return Returned(0, (2,)), 1

    def forget(self, context: int) -> None:
        self._notified.pop(context, None)


class NoSockets:
    """Hvsockets that nobody dials."""

    def listen(self, _runtime_id: str, _service_id: str) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("")
        listening.listen()
        return listening


def windows_service(asked: Callable[[str, str], None]) -> HcsService:
    """Return our driver on such a service; see `HostCalls`."""
    unused = cast("Any", object())
    return HcsService(Hcs(cast("Any", HostCalls(asked))), NoSockets(), unused, unused, timeouts=Timeouts(), environ={})
