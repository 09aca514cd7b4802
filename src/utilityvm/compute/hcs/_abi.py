"""Windows' libraries as they are called: one line a function, raw values in and out. The one module that touches ctypes.

Text is UTF-16 with two-byte units on every host, so that the same code runs against a library of our own where there is no Windows.
What vmcompute returns as text belongs to us and is given back to COM's allocator. A function is looked up when it is first called: an
older Windows lacks some that most VMs never need.
"""

import ctypes
import sys
import threading
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from itertools import count
from typing import Any, Final, final

import msgspec

from utilityvm.kit.errors import InvalidOptions, Unsupported

LONGEST_ANSWER: Final = 16 * 1024 * 1024
"""UTF-16 units of an answer; one without an end must not be read for ever."""

Notified = Callable[[int, int, str], None]
"""Takes a notification: its number, its status as an unsigned HRESULT, its data. Called on a thread of the service."""


class In(Enum):
    """What is passed."""

    TEXT = ctypes.c_char_p  # UTF-16 with its zero; None is a null pointer
    HANDLE = ctypes.c_void_p
    NUMBER = ctypes.c_uint32


class Out(Enum):
    """What comes back through a pointer."""

    TEXT = 1
    HANDLE = 2
    PROCESS = 3


class ProcessInformation(msgspec.Struct, frozen=True):
    """``HCS_PROCESS_INFORMATION``: the process id, and the handles of the host's ends of its streams (0: none)."""

    process_id: int
    std_input: int
    std_output: int
    std_error: int


class Returned(msgspec.Struct, frozen=True):
    """What a call returned: its HRESULT as an unsigned number, and what came back, in the order of the signature."""

    hresult: int
    outs: tuple[Any, ...] = ()


class _ProcessInformation(ctypes.Structure):
    _fields_ = (
        ("process_id", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("std_input", ctypes.c_void_p),
        ("std_output", ctypes.c_void_p),
        ("std_error", ctypes.c_void_p),
    )


_CALLBACK: Final = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)(None, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p)

_T, _H, _N = In.TEXT, In.HANDLE, In.NUMBER
_Signature = tuple[tuple[In, ...], tuple[Out, ...]]
_CHANGE: Final[_Signature] = ((_H, _T), (Out.TEXT,))

VMCOMPUTE: Final[Mapping[str, _Signature]] = {
    "HcsEnumerateComputeSystems": ((_T,), (Out.TEXT, Out.TEXT)),
    "HcsCreateComputeSystem": ((_T, _T, _H), (Out.HANDLE, Out.TEXT)),
    "HcsOpenComputeSystem": ((_T,), (Out.HANDLE, Out.TEXT)),
    "HcsCloseComputeSystem": ((_H,), ()),
    "HcsStartComputeSystem": _CHANGE,
    "HcsShutdownComputeSystem": _CHANGE,
    "HcsTerminateComputeSystem": _CHANGE,
    "HcsPauseComputeSystem": _CHANGE,
    "HcsResumeComputeSystem": _CHANGE,
    "HcsSaveComputeSystem": _CHANGE,
    "HcsModifyComputeSystem": _CHANGE,
    "HcsGetComputeSystemProperties": ((_H, _T), (Out.TEXT, Out.TEXT)),
    "HcsUnregisterComputeSystemCallback": ((_H,), ()),
    "HcsCreateProcess": ((_H, _T), (Out.PROCESS, Out.HANDLE, Out.TEXT)),
    "HcsOpenProcess": ((_H, _N), (Out.HANDLE, Out.TEXT)),
    "HcsCloseProcess": ((_H,), ()),
    "HcsTerminateProcess": ((_H,), (Out.TEXT,)),
    "HcsSignalProcess": _CHANGE,
    "HcsGetProcessInfo": ((_H,), (Out.PROCESS, Out.TEXT)),
    "HcsGetProcessProperties": ((_H,), (Out.TEXT, Out.TEXT)),
    "HcsModifyProcess": _CHANGE,
    "HcsUnregisterProcessCallback": ((_H,), ()),
    "HcsGetServiceProperties": ((_T,), (Out.TEXT, Out.TEXT)),
    "HcsModifyServiceSettings": ((_T,), (Out.TEXT,)),
    "GrantVmAccess": ((_T, _T), ()),
    "HNSCall": ((_T, _T, _T), (Out.TEXT,)),
}
"""The compute service. Those that register a callback are called by `Abi.register`."""

COMPUTECORE: Final[Mapping[str, _Signature]] = {"HcsRevokeVmAccess": ((_T, _T), ()), "HcsGrantVmGroupAccess": ((_T,), ())}
"""The compute service's newer library, for what the older has no documented function."""

COMPUTESTORAGE: Final[Mapping[str, _Signature]] = {
    "HcsImportLayer": ((_T, _T, _T), ()),
    "HcsExportLayer": ((_T, _T, _T, _T), ()),
    "HcsDestroyLayer": ((_T,), ()),
    "HcsInitializeWritableLayer": ((_T, _T, _T), ()),
    "HcsAttachLayerStorageFilter": ((_T, _T), ()),
    "HcsDetachLayerStorageFilter": ((_T,), ()),
}
"""Layers of Windows images."""

REGISTERING: Final = ("HcsRegisterComputeSystemCallback", "HcsRegisterProcessCallback")

_SYSTEM32: Final = 0x800  # LOAD_LIBRARY_SEARCH_SYSTEM32: a library of that name beside the interpreter is not Windows'
_LIBRARIES: Final = {"vmcompute.dll": VMCOMPUTE, "computecore.dll": COMPUTECORE, "computestorage.dll": COMPUTESTORAGE}
_FUNCTIONS: Final = {name: (library, signature) for library, names in _LIBRARIES.items() for name, signature in names.items()}


@final
class Abi:
    """The functions of the libraries that `find` returns by their names. There must be no call after the libraries are gone.

    Raises:
        Unsupported: there is no vmcompute.dll here; from each call also: its library or function is missing. The message has its name.
    """

    def __init__(self, find: Callable[[str], ctypes.CDLL]) -> None:
        self._find = find
        self._finding = threading.Lock()
        self._libraries = {"vmcompute.dll": find("vmcompute.dll")}
        self._functions: dict[str, Any] = {}
        self._free = _symbol(find("ole32.dll"), "CoTaskMemFree")
        self._free.argtypes, self._free.restype = (ctypes.c_void_p,), None
        # The service keeps this pointer; contexts are numbers and never used again, so that a late call finds nobody and nothing else.
        self._callback = _CALLBACK(self._notified)
        self._lock = threading.Lock()
        self._contexts = count(1)
        self._registered: dict[int, Notified] = {}

    def call(self, name: str, *given: str | int | None) -> Returned:
        """Call a function of `VMCOMPUTE`, `COMPUTECORE` or `COMPUTESTORAGE`. Blocks as long as it does."""
        library, signature = _FUNCTIONS[name]
        return _called(self._function(library, name, signature), signature, given, self._free)

    def register(self, name: str, handle: int, notified: Notified) -> tuple[Returned, int]:
        """Call one of `REGISTERING`. Returns the handle of the registration, and the context to `forget` it by."""
        arguments = (ctypes.c_void_p, _CALLBACK, ctypes.c_void_p)
        function = self._function("vmcompute.dll", name, ((_H, _T), (Out.HANDLE,)), arguments)
        with self._lock:
            context = next(self._contexts)
            self._registered[context] = notified
        registration = ctypes.c_void_p()
        hresult = function(handle, self._callback, context, ctypes.byref(registration))
        return Returned(hresult & 0xFFFFFFFF, (registration.value or 0,)), context

    def forget(self, context: int) -> None:
        """Pass on no notification of this registration any more."""
        with self._lock:
            self._registered.pop(context, None)

    def _function(self, library: str, name: str, signature: _Signature, arguments: tuple[Any, ...] | None = None) -> Any:
        with self._finding:
            if name not in self._functions:
                if library not in self._libraries:
                    self._libraries[library] = self._find(library)
                self._functions[name] = _bound(self._libraries[library], name, signature, arguments)
            return self._functions[name]

    def _notified(self, kind: int, context: int | None, status: int, data: int | None) -> None:
        with self._lock:
            taker = self._registered.get(context or 0)
        if taker is not None:
            taker(kind, status & 0xFFFFFFFF, _text_at(data))


class _ProcessEntry(ctypes.Structure):
    """``PROCESSENTRY32W``."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("usage", ctypes.c_uint32),
        ("process_id", ctypes.c_uint32),
        ("heap", ctypes.c_size_t),
        ("module", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("parent", ctypes.c_uint32),
        ("priority", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("file", ctypes.c_uint16 * 260),
    )


class _MemoryCounters(ctypes.Structure):
    """``PROCESS_MEMORY_COUNTERS``."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("page_faults", ctypes.c_uint32),
        ("peak_working_set", ctypes.c_size_t),
        ("working_set", ctypes.c_size_t),
        ("quotas", ctypes.c_size_t * 4),
        ("page_file", ctypes.c_size_t),
        ("peak_page_file", ctypes.c_size_t),
    )


_P, _SIZE = ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32)
_KERNEL: Final = {
    "CreateToolhelp32Snapshot": (_P, ctypes.c_uint32, ctypes.c_uint32),
    "Process32FirstW": (ctypes.c_int, _P, ctypes.POINTER(_ProcessEntry)),
    "Process32NextW": (ctypes.c_int, _P, ctypes.POINTER(_ProcessEntry)),
    "OpenProcess": (_P, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32),
    "K32GetProcessMemoryInfo": (ctypes.c_int, _P, ctypes.POINTER(_MemoryCounters), ctypes.c_uint32),
    "CloseHandle": (ctypes.c_int, _P),
}
_ADVAPI: Final = {
    "OpenProcessToken": (ctypes.c_int, _P, ctypes.c_uint32, ctypes.POINTER(_P)),
    "GetTokenInformation": (ctypes.c_int, _P, ctypes.c_int, _P, ctypes.c_uint32, _SIZE),
    "LookupAccountSidW": (ctypes.c_int, _P, _P, _P, _SIZE, _P, _SIZE, ctypes.POINTER(ctypes.c_int)),
}
_INVALID_HANDLE: Final = ctypes.c_void_p(-1).value
_SNAPSHOT_OF_PROCESSES, _QUERY_LIMITED_INFORMATION, _TOKEN_QUERY, _TOKEN_USER = 2, 0x1000, 8, 1
_NO_MORE_FILES: Final = 18


@final
class Processes:
    """The host's processes, by the functions of the libraries that `find` returns.

    Each raises an `OSError` with Windows' number for what is refused.
    """

    def __init__(self, find: Callable[[str], ctypes.CDLL]) -> None:
        self._functions: dict[str, Any] = {}
        for library, signatures in (("kernel32.dll", _KERNEL), ("advapi32.dll", _ADVAPI)):
            for name, (result, *arguments) in signatures.items():
                self._functions[name] = function = _symbol(find(library), name)
                function.restype, function.argtypes = result, tuple(arguments)

    def names(self) -> list[tuple[int, str]]:
        """Return the id and the file's name of each process."""
        found: list[tuple[int, str]] = []
        snapshot = self._try("CreateToolhelp32Snapshot", _SNAPSHOT_OF_PROCESSES, 0)
        try:
            entry = _ProcessEntry(size=ctypes.sizeof(_ProcessEntry))
            step = "Process32FirstW"
            while True:
                try:
                    self._try(step, snapshot, ctypes.byref(entry))
                except OSError as error:
                    if error.errno == _NO_MORE_FILES:
                        return found
                    raise
                found.append((entry.process_id, _text_at(ctypes.addressof(entry) + _ProcessEntry.file.offset)))
                step = "Process32NextW"
        finally:
            self.close(snapshot)

    def open(self, process_id: int) -> int:
        """Open a process to look at it; the handle is the caller's to close."""
        handle: int = self._try("OpenProcess", _QUERY_LIMITED_INFORMATION, 0, process_id)
        return handle

    def account(self, process: int) -> tuple[str, str]:
        """Return the domain and name of the account that a process runs as."""
        token = ctypes.c_void_p()
        self._try("OpenProcessToken", process, _TOKEN_QUERY, ctypes.byref(token))
        try:
            # TOKEN_USER: a pointer to the account's SID, which follows it in the same buffer.
            user, needed = (ctypes.c_void_p * 64)(), ctypes.c_uint32()
            self._try("GetTokenInformation", token, _TOKEN_USER, user, ctypes.sizeof(user), ctypes.byref(needed))
            texts = [(ctypes.c_uint16 * 257)(), (ctypes.c_uint16 * 257)()]
            name, domain = texts
            lengths, kind = [ctypes.c_uint32(256), ctypes.c_uint32(256)], ctypes.c_int()
            found = (name, ctypes.byref(lengths[0]), domain, ctypes.byref(lengths[1]), ctypes.byref(kind))
            self._try("LookupAccountSidW", None, user[0], *found)
            return _text_at(ctypes.addressof(domain)), _text_at(ctypes.addressof(name))
        finally:
            self.close(token.value or 0)

    def working_set(self, process: int) -> int:
        """Return the bytes of memory that a process has in use."""
        counters = _MemoryCounters(size=ctypes.sizeof(_MemoryCounters))
        self._try("K32GetProcessMemoryInfo", process, ctypes.byref(counters), ctypes.sizeof(counters))
        working_set: int = counters.working_set
        return working_set

    def close(self, handle: int) -> None:
        """Close a handle."""
        self._try("CloseHandle", handle)

    def _try(self, name: str, *given: Any) -> Any:
        returned = self._functions[name](*given)
        if not returned or returned == _INVALID_HANDLE:
            number = _last_error()
            raise OSError(number, f"{name} failed with {number}")
        return returned


def _last_error() -> int:
    if sys.platform == "win32":
        return ctypes.get_last_error()
    return ctypes.get_errno()


@cache
def windows() -> Abi:
    """Return Windows' own libraries, loaded once: a notification may come until the process ends.

    Raises:
        Unsupported: this is not Windows, or a library is missing.
    """
    return Abi(find_dll)


@cache
def windows_processes() -> Processes:
    """Return this host's processes.

    Raises:
        Unsupported: this is not Windows.
    """
    return Processes(find_dll)


def find_dll(name: str) -> ctypes.CDLL:
    """Load a library of Windows.

    Raises:
        Unsupported: there is none.
    """
    if sys.platform != "win32":
        raise Unsupported(f"{name}: a library of Windows, and this host is {sys.platform}: the Host Compute Service is not here")
    try:
        return ctypes.WinDLL(name, use_last_error=True, winmode=_SYSTEM32)
    except OSError as error:
        hint = "turn on the Windows features Containers and Hyper-V" if name in _LIBRARIES else ""
        raise Unsupported(f"{name}: cannot be loaded: {error}", hint=hint) from error


def _symbol(library: ctypes.CDLL, name: str) -> Any:
    try:
        return getattr(library, name)
    except AttributeError as error:
        raise Unsupported(f"{name}: this Windows is too old for it: its library has no such function") from error


def _bound(library: ctypes.CDLL, name: str, signature: _Signature, arguments: tuple[Any, ...] | None = None) -> Any:
    function = _symbol(library, name)
    given, outs = signature
    function.argtypes = (*(arguments or (kind.value for kind in given)), *(ctypes.c_void_p for _ in outs))
    function.restype = ctypes.c_int32
    return function


def _called(function: Any, signature: _Signature, given: tuple[str | int | None, ...], free: Any) -> Returned:
    kinds, wanted = signature
    inputs = [_utf16(value) if kind is In.TEXT and isinstance(value, str) else value for kind, value in zip(kinds, given, strict=True)]
    outs = [_ProcessInformation() if kind is Out.PROCESS else ctypes.c_void_p() for kind in wanted]
    hresult = function(*inputs, *(ctypes.byref(out) for out in outs))
    return Returned(hresult & 0xFFFFFFFF, tuple(_taken(kind, out, free) for kind, out in zip(wanted, outs, strict=True)))


def _taken(kind: Out, out: Any, free: Any) -> str | int | ProcessInformation:
    if kind is Out.PROCESS:
        return ProcessInformation(out.process_id, out.std_input or 0, out.std_output or 0, out.std_error or 0)
    if kind is Out.HANDLE:
        return out.value or 0
    try:
        return _text_at(out.value)
    finally:
        if out.value:
            free(out)


def _utf16(text: str) -> bytes:
    if "\0" in text:
        raise InvalidOptions(f"{text!r}: a zero character would end it for Windows")
    return text.encode("utf-16-le", "surrogatepass") + b"\0\0"


def _text_at(address: int | None) -> str:
    if not address:
        return ""
    units = ctypes.cast(address, ctypes.POINTER(ctypes.c_uint16))
    length = 0
    while units[length] and length < LONGEST_ANSWER:
        length += 1
    return ctypes.string_at(address, 2 * length).decode("utf-16-le", "replace")
