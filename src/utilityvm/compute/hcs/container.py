"""A container that the host service runs in a VM, as the floors above know containers."""

from collections.abc import Sequence
from typing import final

from utilityvm.compute.hcs.ending import COMMUNICATION_LOST
from utilityvm.compute.hcs.hosted import HostedProcess
from utilityvm.compute.hcs.ports import Pipes
from utilityvm.compute.hcs.process import HcsProcess
from utilityvm.compute.hcs.system import HcsSystem
from utilityvm.guest.container import container_constraints, parameters_of_another, parameters_of_first
from utilityvm.guest.process import Process
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, Unsupported
from utilityvm.schema.document import ComputeSystem
from utilityvm.schema.json import decode_answer
from utilityvm.schema.properties import Properties
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.schema.version import Version
from utilityvm.wire import gcs
from utilityvm.wire.oci import OciProcess


def container_document(hosting_system_id: str, settings: object, owner: str) -> ComputeSystem:
    """Return the service's document of a container in a VM; `settings` are the guest's."""
    return ComputeSystem(
        owner=owner,
        schema_version=Version(major=2, minor=1),
        hosting_system_id=hosting_system_id,
        hosted_system=settings,
        should_terminate_on_last_handle_closed=True,
    )


@final
class HcsContainer:
    """A `compute.containers.InGuest`: a compute system of its own, which the VM hosts. `os` is the guest's system.

    Its processes are watched in `scope`, and are among `processes` while they run.
    """

    def __init__(self, system: HcsSystem, pipes: Pipes, os: str, scope: Scope, processes: set[HostedProcess]) -> None:
        self.os = os
        self._system, self._pipes, self._scope, self._processes = system, pipes, scope, processes
        self._how = gcs.NotificationType.UNEXPECTED_EXIT

    async def start(self) -> None:
        """See `compute.containers.Runs.start`."""
        await self._system.start()

    async def wait(self) -> gcs.ContainerNotification:
        """See `compute.containers.Runs.wait`."""
        ended = await self._system.wait()
        if ended.disconnected:
            raise ConnectionLost(f"container {self._system.id}: {COMMUNICATION_LOST}")
        return gcs.ContainerNotification(container_id=self._system.id, type=self._how)

    async def shutdown(self) -> None:
        """See `compute.containers.Runs.shutdown`."""
        self._how = gcs.NotificationType.GRACEFUL_EXIT
        await self._system.shutdown()

    async def terminate(self) -> None:
        """See `compute.containers.Runs.terminate`."""
        self._how = gcs.NotificationType.FORCED_EXIT
        await self._system.terminate()

    async def first(self, *, stdin: bool, stdout: bool, stderr: bool) -> Process:
        """See `compute.containers.Executes.first`."""
        return await self._launch(parameters_of_first(stdin=stdin, stdout=stdout, stderr=stderr))

    async def execute(self, process: OciProcess, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> Process:
        """See `compute.containers.Executes.execute`."""
        return await self._launch(parameters_of_another(process, self.os, stdin=stdin, stdout=stdout, stderr=stderr))

    async def attach(self, pid: int, *, stdin: bool, stdout: bool, stderr: bool) -> Process:  # noqa: ARG002 (there is none)
        """See `compute.containers.Executes.attach`: the guest of a host service goes on from no other."""
        raise Unsupported(f"container {self._system.id}: process {pid}: attaching cannot work without external GCS connection")

    async def signal_all(self, process: Process, signal: int) -> bool:  # noqa: ARG002 (the service knows all of them)
        """See `compute.containers.Executes.signal_all`: the service knows no signal for all but the last."""
        if signal != 9:
            raise Unsupported(f"container {self._system.id}: signal {signal} to all processes: the host service can only end all of them")
        self._how = gcs.NotificationType.FORCED_EXIT
        return await self._system.terminate()

    async def properties(self, types: Sequence[str]) -> Properties:
        """See `compute.containers.Changes.properties`."""
        return decode_answer(await self._system.properties(types) or "{}", Properties)

    async def update(self, resources: object) -> None:
        """See `compute.containers.Changes.update`. The service relays it to the guest."""
        await self._system.modify(ModifySettingRequest(guest_request=container_constraints(resources, self.os)))

    async def pause(self) -> None:
        """See `compute.containers.Changes.pause`."""
        await self._system.pause()

    async def resume(self) -> None:
        """See `compute.containers.Changes.resume`."""
        await self._system.resume()

    async def delete_state(self) -> None:
        """See `compute.containers.Ends.delete_state`. The service forgets it with its last handle, which is ours."""
        await self._system.close()

    def close(self) -> None:
        """See `compute.containers.Ends.close`. The handle goes with `delete_state`, or with the VM."""

    async def aclose(self) -> None:
        """Let go of it: its VM is closed."""
        await self._system.close()

    async def _launch(self, parameters: gcs.ProcessParameters) -> Process:
        process = await HcsProcess.create(self._system, self._pipes, parameters)
        hosted = HostedProcess(process, self._scope, self._processes.discard, windows=self.os == "windows")
        self._processes.add(hosted)
        return hosted.process(f"container {self._system.id}")
