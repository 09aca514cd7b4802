"""The second layer: every function of the libraries, every sort of refusal, and what a handle is after its close."""

from collections.abc import Callable, Mapping

import pytest

from tests.hcs.harness import ANSWER, WITH_HANDLE, StandIn
from utilityvm.compute.hcs import hresult
from utilityvm.compute.hcs._abi import COMPUTECORE, COMPUTESTORAGE, REGISTERING, VMCOMPUTE, Abi
from utilityvm.compute.hcs.calls import PROCESS, SYSTEM, Change, Handle, Hcs
from utilityvm.kit.errors import Exists, HcsError, NotFound, StateError, Unsupported

ID = "vm-1"


class Fixed:
    """A system and a process in it, by whose handles calls are made."""

    def __init__(self, calls: Hcs) -> None:
        self.system = calls.create_system(ID, "{}").handle
        self.process = calls.create_process(self.system, ID, "{}").handle

    def close(self) -> None:
        self.process.close()
        self.system.close()


Call = Callable[[Hcs, Fixed], object]
REFUSABLE: Mapping[str, tuple[str, Call]] = {
    "HcsEnumerateComputeSystems": ("EnumerateComputeSystems", lambda hcs, _: hcs.enumerate("{}")),
    "HcsCreateComputeSystem": ("System::Create vm-2", lambda hcs, _: hcs.create_system("vm-2", "{}")),
    "HcsOpenComputeSystem": ("System::Open vm-1", lambda hcs, _: hcs.open_system(ID)),
    "HcsStartComputeSystem": ("System::Start vm-1", lambda hcs, at: hcs.change(Change.START, at.system, ID)),
    "HcsShutdownComputeSystem": ("System::Shutdown vm-1", lambda hcs, at: hcs.change(Change.SHUTDOWN, at.system, ID)),
    "HcsTerminateComputeSystem": ("System::Terminate vm-1", lambda hcs, at: hcs.change(Change.TERMINATE, at.system, ID)),
    "HcsPauseComputeSystem": ("System::Pause vm-1", lambda hcs, at: hcs.change(Change.PAUSE, at.system, ID)),
    "HcsResumeComputeSystem": ("System::Resume vm-1", lambda hcs, at: hcs.change(Change.RESUME, at.system, ID)),
    "HcsSaveComputeSystem": ("System::Save vm-1", lambda hcs, at: hcs.change(Change.SAVE, at.system, ID)),
    "HcsModifyComputeSystem": ("System::Modify vm-1", lambda hcs, at: hcs.change(Change.MODIFY, at.system, ID, "{}")),
    "HcsGetComputeSystemProperties": ("System::Properties vm-1", lambda hcs, at: hcs.properties(at.system, ID, "{}")),
    "HcsRegisterComputeSystemCallback": ("WatchComputeSystem vm-1", lambda hcs, at: hcs.watch(SYSTEM, at.system, ID, print)),
    "HcsCreateProcess": ("System::CreateProcess vm-1", lambda hcs, at: hcs.create_process(at.system, ID, "{}")),
    "HcsOpenProcess": ("System::OpenProcess vm-1", lambda hcs, at: hcs.open_process(at.system, ID, 100)),
    "HcsTerminateProcess": ("Process::Kill vm-1:100", lambda hcs, at: hcs.terminate_process(at.process, "vm-1:100")),
    "HcsSignalProcess": ("Process::Signal vm-1:100", lambda hcs, at: hcs.signal_process(at.process, "vm-1:100", "{}")),
    "HcsGetProcessInfo": ("Process::Info vm-1:100", lambda hcs, at: hcs.process_information(at.process, "vm-1:100")),
    "HcsGetProcessProperties": ("Process::Properties vm-1:100", lambda hcs, at: hcs.process_properties(at.process, "vm-1:100")),
    "HcsModifyProcess": ("Process::Modify vm-1:100", lambda hcs, at: hcs.modify_process(at.process, "vm-1:100", "{}")),
    "HcsRegisterProcessCallback": ("WatchProcess vm-1:100", lambda hcs, at: hcs.watch(PROCESS, at.process, "vm-1:100", print)),
    "HcsGetServiceProperties": ("GetServiceProperties", lambda hcs, _: hcs.service_properties("{}")),
    "HcsModifyServiceSettings": ("ModifyServiceSettings", lambda hcs, _: hcs.modify_service("{}")),
    "GrantVmAccess": ("GrantVmAccess vm-1 d", lambda hcs, _: hcs.grant_access(ID, "d")),
    "HcsGrantVmGroupAccess": ("HcsGrantVmGroupAccess d", lambda hcs, _: hcs.grant_group_access("d")),
    "HcsRevokeVmAccess": ("RevokeVmAccess vm-1 d", lambda hcs, _: hcs.revoke_access(ID, "d")),
    "HNSCall": ("HNSCall GET /endpoints/", lambda hcs, _: hcs.network("GET", "/endpoints/")),
    "HcsImportLayer": ("HcsImportLayer l", lambda hcs, _: hcs.layer("HcsImportLayer", "l", "s", "{}")),
    "HcsExportLayer": ("HcsExportLayer l", lambda hcs, _: hcs.layer("HcsExportLayer", "l", "t", "{}", "{}")),
    "HcsDestroyLayer": ("HcsDestroyLayer l", lambda hcs, _: hcs.layer("HcsDestroyLayer", "l")),
    "HcsInitializeWritableLayer": ("HcsInitializeWritableLayer l", lambda hcs, _: hcs.layer("HcsInitializeWritableLayer", "l", "{}", "")),
    "HcsAttachLayerStorageFilter": ("HcsAttachLayerStorageFilter l", lambda hcs, _: hcs.layer("HcsAttachLayerStorageFilter", "l", "{}")),
    "HcsDetachLayerStorageFilter": ("HcsDetachLayerStorageFilter l", lambda hcs, _: hcs.layer("HcsDetachLayerStorageFilter", "l")),
}
CLOSING = {"HcsCloseComputeSystem", "HcsCloseProcess", "HcsUnregisterComputeSystemCallback", "HcsUnregisterProcessCallback"}
CODES = {
    0x80070005: "access is denied",
    0x80004005: "the host service failed (0x80004005)",
    0x800706BA: "the host service failed (0x6ba)",
    0xC0370105: "the operation is not valid in the present state",
    0x8037010D: "the document is invalid",
    0x7F: "the procedure could not be found",
    0x490: "element not found",
}


def test_every_function_has_its_row() -> None:
    assert set(REFUSABLE) | CLOSING == {*VMCOMPUTE, *COMPUTECORE, *COMPUTESTORAGE, *REGISTERING}


@pytest.mark.parametrize("name", REFUSABLE)
def test_every_refusal_of_every_function_is_an_error_with_the_call_and_the_reason(hcs: StandIn, name: str) -> None:
    calls = Hcs(hcs.abi)
    at = Fixed(calls)
    operation, call = REFUSABLE[name]
    for code, words in CODES.items():
        hcs.script(name, code)
        with pytest.raises(HcsError) as caught:
            call(calls, at)
        assert str(caught.value).startswith(operation)
        assert words in str(caught.value)
        assert caught.value.hresult == hresult.code_of(code)
    at.close()


@pytest.mark.parametrize("name", sorted(CLOSING))
def test_a_close_that_is_refused_is_told_and_not_tried_again(hcs: StandIn, name: str) -> None:
    calls = Hcs(hcs.abi)
    at = Fixed(calls)
    calls.watch(SYSTEM, at.system, ID, print)
    calls.watch(PROCESS, at.process, "vm-1:100", print)
    hcs.script(name, 0x80070006)
    of, other = (at.process, at.system) if "Process" in name else (at.system, at.process)
    with pytest.raises(HcsError, match=r"(Close|Unwatch) vm-1.*\(0x6\)$"):
        of.close()
    of.close()
    other.close()
    assert hcs.names.count(name) == 1


def test_what_there_is_or_is_not_has_errors_of_its_own(hcs: StandIn) -> None:
    calls = Hcs(hcs.abi)
    opened = calls.create_system(ID, "{}")
    with pytest.raises(Exists, match="System::Create vm-1"):
        calls.create_system(ID, "{}")
    with pytest.raises(NotFound, match="System::Open vm-2"):
        calls.open_system("vm-2")
    opened.handle.close()


@pytest.mark.parametrize("code", [0x80070005, 0xC0370100])
def test_a_system_of_which_there_is_a_handle_although_it_could_not_be_created_is_closed(hcs: StandIn, code: int) -> None:
    hcs.script("HcsCreateComputeSystem", code, how=ANSWER | WITH_HANDLE)
    with pytest.raises(HcsError, match="System::Create vm-1"):
        Hcs(hcs.abi).create_system(ID, "{}")
    assert hcs.names == ["HcsCreateComputeSystem", "HcsCloseComputeSystem"]


@pytest.mark.parametrize("code", [1, 0x00030000])
def test_a_success_of_another_number_is_a_success(hcs: StandIn, code: int) -> None:
    hcs.script("HcsEnumerateComputeSystems", code, "[]")
    assert Hcs(hcs.abi).enumerate("{}") in {"", "[]"}


def test_no_call_uses_a_handle_after_its_close(hcs: StandIn) -> None:
    calls = Hcs(hcs.abi)
    at = Fixed(calls)
    at.close()
    before = len(hcs.names)
    for name, (_, call) in REFUSABLE.items():
        if call.__code__.co_varnames[1] == "at":
            with pytest.raises(StateError, match="vm-1"):
                call(calls, at)
            assert len(hcs.names) == before, f"{name} was called"


def test_a_handle_is_closed_once_whoever_closes_it() -> None:
    closed: list[int] = []
    handle = Handle("h", 7, closed.append)
    with handle.use("x") as value:
        assert value == 7
    handle.close()
    handle.close()
    assert closed == [7]


def test_a_function_that_this_windows_does_not_have_is_missed_when_it_is_needed(hcs: StandIn) -> None:
    """An older Windows creates VMs; only what it lacks is refused, with the function's name."""

    class Older:
        def __init__(self) -> None:
            self._whole = hcs.library

        def __getattr__(self, name: str) -> object:
            if name == "HcsModifyServiceSettings":
                raise AttributeError(name)
            return getattr(self._whole, name)

    def find(name: str) -> object:
        if name == "computestorage.dll":
            raise Unsupported(f"{name}: cannot be loaded")
        return Older()

    calls = Hcs(Abi(find))  # type: ignore[arg-type]
    assert calls.enumerate("{}") == "[]"
    with pytest.raises(Unsupported, match=r"^HcsModifyServiceSettings: this Windows is too old for it"):
        calls.modify_service("{}")
    with pytest.raises(Unsupported, match=r"^computestorage.dll"):
        calls.layer("HcsDestroyLayer", "l")
    calls.grant_access(ID, "d")
