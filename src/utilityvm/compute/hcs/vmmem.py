"""A VM's memory as its host has it: the working set of the process that holds it, which Windows calls vmmem."""

from contextlib import suppress
from threading import Lock
from typing import Final, final

from utilityvm.compute.hcs._abi import Processes, windows_processes
from utilityvm.compute.hcs.calls import Handle
from utilityvm.kit.errors import HostError, NotFound, StateError
from utilityvm.kit.ids import RuntimeId

__all__ = ["MemoryProcess", "Processes", "windows_processes"]

_FILES: Final = frozenset({"VMMEM", "VMMEM.EXE"})
_DOMAIN: Final = "NT VIRTUAL MACHINE"


@final
class MemoryProcess:
    """The process that holds the memory of the VM of this runtime id. Its methods block; give it up with `close`.

    It is looked for when it is first needed, and kept: its id may be another process's later, its handle may not. One that is not found
    is looked for again, since there is none before the VM's start.
    """

    def __init__(self, processes: Processes, runtime_id: RuntimeId) -> None:
        self._processes, self._runtime_id = processes, runtime_id
        self._finding = Lock()
        self._found: Handle | None = None
        self._closed = False

    def working_set(self) -> int:
        """Return the bytes of the host's memory that the VM has in use.

        Raises:
            NotFound: no process holds its memory, or none that we may look at.
            HostError: Windows does not tell.
            StateError: it was closed.
        """
        with self._process().use("tell its working set") as handle:
            try:
                return self._processes.working_set(handle)
            except OSError as error:
                raise HostError(f"vm {self._runtime_id}: the working set of its vmmem process: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the process, once nobody looks at it any more. A second call does nothing."""
        with self._finding:
            self._closed = True
            if self._found is not None:
                self._found.close()

    def _process(self) -> Handle:
        with self._finding:
            if self._closed:
                raise StateError(f"the memory process of vm {self._runtime_id}", "closed", "tell its working set")
            if self._found is None:
                self._found = Handle(f"the memory process of vm {self._runtime_id}", self._look(), self._processes.close)
            return self._found

    def _look(self) -> int:
        try:
            named = [process_id for process_id, file in self._processes.names() if file.upper() in _FILES]
        except OSError as error:
            raise HostError(f"vm {self._runtime_id}: failed to enumerate processes: {error.strerror}") from error
        for process_id in named:
            with suppress(OSError):  # it has ended, or is not for us
                handle = self._processes.open(process_id)
                if self._is_ours(handle):
                    return handle
                self._processes.close(handle)
        raise NotFound(
            f"vm {self._runtime_id}: failed to find matching vmmem process",
            hint="it exists while the VM runs, and only an administrator may look at it",
        )

    def _is_ours(self, handle: int) -> bool:
        try:
            domain, name = self._processes.account(handle)
        except OSError:
            return False
        return (domain.upper(), name.upper()) == (_DOMAIN, self._runtime_id.upper())
