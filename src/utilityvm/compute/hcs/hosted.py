"""A process that the host service has started in a guest, as the floors above know processes."""

from asyncio import Task
from collections.abc import Callable, Coroutine
from typing import Any, Self, final

from utilityvm.compute.hcs.ports import Pipes
from utilityvm.compute.hcs.process import HcsProcess
from utilityvm.compute.hcs.system import HcsSystem
from utilityvm.guest.process import Process
from utilityvm.guest.spec import ProcessSpec, parameters
from utilityvm.kit.aio import Scope
from utilityvm.wire import gcs


@final
class HostedProcess:
    """A `guest.process.ProcessHost` of one process, with its streams."""

    def __init__(self, process: HcsProcess, scope: Scope, forget: Callable[["HostedProcess"], None], *, windows: bool) -> None:
        self._process, self._scope, self._forget, self._windows = process, scope, forget, windows
        self.connected = [process.stdin, process.stdout, process.stderr]

    @classmethod
    async def create(
        cls, system: HcsSystem, pipes: Pipes, spec: ProcessSpec, scope: Scope, forget: Callable[["HostedProcess"], None]
    ) -> Self:
        """Start a process. See `HcsProcess.create`."""
        return cls(await HcsProcess.create(system, pipes, parameters(spec)), scope, forget, windows=spec.windows)

    def process(self, name: str) -> Process:
        """Return it as the floors above know it; `name` is the VM's."""
        return Process(self, name, self._process.pid, self, windows=self._windows)

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> Task[None]:
        """See `guest.process.ProcessHost.run`."""
        return self._scope.start(f"{name} of {self._process.pid}", work)

    async def wait_process(self, process_id: int) -> int:  # noqa: ARG002 (there is only one)
        """See `guest.process.ProcessHost.wait_process`. The service keeps nothing of the process afterwards."""
        code = await self._process.wait()
        self._forget(self)
        await self._process.let_go()
        return code

    async def signal_process(self, process_id: int, signal: int | gcs.SignalOptions) -> bool:  # noqa: ARG002
        """See `guest.process.ProcessHost.signal_process`."""
        if self._process.ended:
            return False
        if signal == 0:
            return await self._process.kill()
        return await self._process.signal(gcs.SignalOptions(signal=signal) if isinstance(signal, int) else signal)

    async def resize_console(self, process_id: int, *, height: int, width: int) -> None:  # noqa: ARG002
        """See `guest.process.ProcessHost.resize_console`."""
        await self._process.resize(height=height, width=width)

    def close(self) -> None:
        """See `guest.process.Connected.close`."""
        for stream in self.connected:
            stream.close()

    async def aclose(self) -> None:
        """Let go of it: the VM is closed."""
        self._forget(self)
        await self._process.close()
