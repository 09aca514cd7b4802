"""The host service call by call: blocking, one method a call. HRESULTs become errors, handles are closed once and never used afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from threading import Condition
from typing import Final, NamedTuple, final

from utilityvm.compute.hcs import hresult
from utilityvm.compute.hcs._abi import Abi, Notified, ProcessInformation, Returned, windows
from utilityvm.kit.errors import StateError, UtilityVMError

__all__ = ["PROCESS", "SYSTEM", "Change", "Handle", "Hcs", "Opened", "ProcessInformation", "Started", "windows"]

SYSTEM: Final = "HcsRegisterComputeSystemCallback"
PROCESS: Final = "HcsRegisterProcessCallback"


class Change(StrEnum):
    """What can be done to a system; the value names it in errors."""

    START = "System::Start"
    SHUTDOWN = "System::Shutdown"
    TERMINATE = "System::Terminate"
    PAUSE = "System::Pause"
    RESUME = "System::Resume"
    SAVE = "System::Save"
    MODIFY = "System::Modify"


_FUNCTIONS: Final = {
    Change.START: "HcsStartComputeSystem",
    Change.SHUTDOWN: "HcsShutdownComputeSystem",
    Change.TERMINATE: "HcsTerminateComputeSystem",
    Change.PAUSE: "HcsPauseComputeSystem",
    Change.RESUME: "HcsResumeComputeSystem",
    Change.SAVE: "HcsSaveComputeSystem",
    Change.MODIFY: "HcsModifyComputeSystem",
}


@final
class Handle:
    """A handle of the service. Calls that use it at once do not hinder each other; closing waits for them, and none begins afterwards.

    Its notifications end with it, right before.
    """

    def __init__(self, name: str, value: int, close: Callable[[int], None]) -> None:
        self._name, self._value, self._close = name, value, close
        self._unwatch: Callable[[], None] | None = None
        self._changed = Condition()
        self._users = 0
        self._closed = False

    @contextmanager
    def use(self, what: str) -> Iterator[int]:
        """Give out the handle for the length of a call, which `what` names in the error.

        Raises:
            StateError: it is closed.
        """
        with self._changed:
            if self._closed:
                raise StateError(self._name, "closed", what)
            self._users += 1
        try:
            yield self._value
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def watched(self, unwatch: Callable[[], None]) -> None:
        """Note how its notifications are ended; to be called while it is used, so that no close overlooks them."""
        self._unwatch = unwatch

    def close(self) -> None:
        """Close it when no call uses it any more. A second call does nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: self._users == 0)
        try:
            if self._unwatch is not None:
                self._unwatch()
        finally:
            self._close(self._value)


class Opened(NamedTuple):
    """A system that was created or opened; `pending`: a notification will say whether its creation succeeded."""

    handle: Handle
    pending: bool


class Started(NamedTuple):
    """A process that was created."""

    handle: Handle
    information: ProcessInformation


@final
class Hcs:
    """The calls. Each raises `HcsError`, or the `NotFound` or `Exists` that it is, for what the service refuses; it may block for long."""

    def __init__(self, abi: Abi) -> None:
        self._abi = abi

    # -- the service ------------------------------------------------------------------------------------------------

    def enumerate(self, query: str) -> str:
        """Return the list of compute systems that `query` selects."""
        return self._told(self._abi.call("HcsEnumerateComputeSystems", query), "EnumerateComputeSystems", query)

    def service_properties(self, query: str) -> str:
        """Return what the service tells of the host."""
        return self._told(self._abi.call("HcsGetServiceProperties", query), "GetServiceProperties", query)

    def modify_service(self, settings: str) -> None:
        """Change the service."""
        returned = self._abi.call("HcsModifyServiceSettings", settings)
        _check(returned, "ModifyServiceSettings", settings, result=returned.outs[0])

    def grant_access(self, vm_id: str, path: str) -> None:
        """Let the account of a VM open a file."""
        _check(self._abi.call("GrantVmAccess", vm_id, path), "GrantVmAccess", f"{vm_id} {path}")

    def grant_group_access(self, path: str) -> None:
        """Let the accounts of all VMs open a file."""
        _check(self._abi.call("HcsGrantVmGroupAccess", path), "HcsGrantVmGroupAccess", path)

    def revoke_access(self, vm_id: str, path: str) -> None:
        """Take that back."""
        _check(self._abi.call("HcsRevokeVmAccess", vm_id, path), "RevokeVmAccess", f"{vm_id} {path}")

    def network(self, method: str, path: str) -> str:
        """Return what the host network service answers to a request without a body."""
        returned = self._abi.call("HNSCall", method, path, "")
        _check(returned, "HNSCall", f"{method} {path}")
        return str(returned.outs[0])

    def layer(self, name: str, *given: str) -> None:
        """Call a function of computestorage; the first of `given` is the layer's folder."""
        _check(self._abi.call(name, *given), name, given[0])

    # -- systems ----------------------------------------------------------------------------------------------------

    def create_system(self, system_id: str, document: str) -> Opened:
        """Create a system; the result is ours to close even when its creation fails later."""
        returned = self._abi.call("HcsCreateComputeSystem", system_id, document, None)
        value, result = returned.outs
        handle = self._system(system_id, value) if value else None
        try:
            pending = _check(returned, "System::Create", system_id, result=result)
            if handle is None:
                raise hresult.error_of("System::Create", system_id, hresult.INVALID_DATA, "the service returned no handle")
        except UtilityVMError:
            if handle is not None:
                handle.close()
            raise
        return Opened(handle, pending)

    def open_system(self, system_id: str) -> Opened:
        """Open a system that exists."""
        returned = self._abi.call("HcsOpenComputeSystem", system_id)
        value, result = returned.outs
        pending = _check(returned, "System::Open", system_id, result=result)
        return Opened(self._system(system_id, value), pending)

    def change(self, what: Change, handle: Handle, system_id: str, options: str | None = None) -> bool:
        """Do something to a system. Returns whether a notification will say how it went."""
        with handle.use(what.name.lower()) as value:
            returned = self._abi.call(_FUNCTIONS[what], value, options)
        return _check(returned, what.value, system_id, result=returned.outs[0])

    def discard(self, system_id: str, opened: Opened) -> None:
        """End and close a system that nobody wants any more."""
        with suppress(UtilityVMError):
            self.change(Change.TERMINATE, opened.handle, system_id)
        opened.handle.close()

    def properties(self, handle: Handle, system_id: str, query: str) -> str:
        """Return what a system tells of itself."""
        with handle.use("report properties") as value:
            returned = self._abi.call("HcsGetComputeSystemProperties", value, query)
        return self._told(returned, "System::Properties", system_id)

    # -- processes --------------------------------------------------------------------------------------------------

    def create_process(self, system: Handle, system_id: str, parameters: str) -> Started:
        """Create a process in a system; the handles of its streams are ours."""
        with system.use("create a process") as value:
            returned = self._abi.call("HcsCreateProcess", value, parameters)
        information, process, result = returned.outs
        _check(returned, "System::CreateProcess", system_id, result=result)
        return Started(self._process(f"{system_id}:{information.process_id}", process), information)

    def open_process(self, system: Handle, system_id: str, process_id: int) -> Handle:
        """Open a process that runs in a system."""
        with system.use("open a process") as value:
            returned = self._abi.call("HcsOpenProcess", value, process_id)
        process, result = returned.outs
        _check(returned, "System::OpenProcess", system_id, result=result)
        return self._process(f"{system_id}:{process_id}", process)

    def discard_process(self, name: str, started: Started, close: Callable[[int], None]) -> None:
        """End a process that nobody wants any more, and close it and what belongs to it."""
        with suppress(UtilityVMError):
            self.terminate_process(started.handle, name)
        started.handle.close()
        for stream in (started.information.std_input, started.information.std_output, started.information.std_error):
            if stream:
                close(stream)

    def process_information(self, process: Handle, name: str) -> ProcessInformation:
        """Return the process's id and handles of its streams, which are ours."""
        with process.use("report its streams") as value:
            returned = self._abi.call("HcsGetProcessInfo", value)
        information, result = returned.outs
        _check(returned, "Process::Info", name, result=result)
        assert isinstance(information, ProcessInformation)  # noqa: S101 (the signature)
        return information

    def process_properties(self, process: Handle, name: str) -> str:
        """Return how the process stands."""
        with process.use("report properties") as value:
            returned = self._abi.call("HcsGetProcessProperties", value)
        return self._told(returned, "Process::Properties", name)

    def modify_process(self, process: Handle, name: str, settings: str) -> None:
        """Change a process."""
        with process.use("modify") as value:
            returned = self._abi.call("HcsModifyProcess", value, settings)
        _check(returned, "Process::Modify", name, result=returned.outs[0])

    def signal_process(self, process: Handle, name: str, options: str) -> None:
        """Send a process a signal."""
        with process.use("signal") as value:
            returned = self._abi.call("HcsSignalProcess", value, options)
        _check(returned, "Process::Signal", name, result=returned.outs[0])

    def terminate_process(self, process: Handle, name: str) -> None:
        """End a process."""
        with process.use("kill") as value:
            returned = self._abi.call("HcsTerminateProcess", value)
        _check(returned, "Process::Kill", name, result=returned.outs[0])

    # -- notifications ----------------------------------------------------------------------------------------------

    def watch(self, register: str, handle: Handle, name: str, notified: Notified) -> None:
        """Have `notified` called, on a thread of the service, for a system (`SYSTEM`) or process (`PROCESS`) until its handle is closed."""
        with handle.use("be watched") as value:
            returned, context = self._abi.register(register, value, notified)
            try:
                _check(returned, f"Watch{register.removeprefix('HcsRegister').removesuffix('Callback')}", name)
            except UtilityVMError:
                self._abi.forget(context)
                raise
            handle.watched(lambda: self._unwatch(register, context, returned.outs[0], name))

    def _unwatch(self, register: str, context: int, registration: int, name: str) -> None:
        try:
            # Waits for a notification that is being passed on, so the handle outlives every one of them.
            _check(self._abi.call(register.replace("Register", "Unregister"), registration), "Unwatch", name)
        finally:
            self._abi.forget(context)

    def _system(self, system_id: str, value: int) -> Handle:
        return Handle(system_id, value, lambda handle: self._close("HcsCloseComputeSystem", "System::Close", system_id, handle))

    def _process(self, name: str, value: int) -> Handle:
        return Handle(name, value, lambda handle: self._close("HcsCloseProcess", "Process::Close", name, handle))

    def _close(self, function: str, operation: str, name: str, value: int) -> None:
        _check(self._abi.call(function, value), operation, name)

    @staticmethod
    def _told(returned: Returned, operation: str, subject: str) -> str:
        told, result = returned.outs
        _check(returned, operation, subject, result=result)
        assert isinstance(told, str)  # noqa: S101 (the signature)
        return told


def _check(returned: Returned, operation: str, subject: str, *, result: str = "") -> bool:
    """Return whether the call is pending; raise what it is otherwise, unless it succeeded."""
    code = hresult.code_of(returned.hresult)
    if code == hresult.PENDING:
        return True
    if returned.hresult & 0x80000000 or code in {*hresult.NOT_EXIST, *hresult.UNSUPPORTED, hresult.ACCESS_DENIED}:
        raise hresult.error_of(operation, subject, returned.hresult, result)
    return False
