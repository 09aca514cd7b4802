"""One container of a VM: its states, its processes, its end, and the giving back of all that it was made of."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, final

import msgspec
from msgspec import field

from utilityvm.compute.containers import InGuest
from utilityvm.containers.document import ContainerId
from utilityvm.containers.life import LIFE, ContainerState, Do
from utilityvm.containers.processes import another
from utilityvm.containers.releases import Releases
from utilityvm.containers.root import ScratchDisk
from utilityvm.guest.collect import OUTPUT_LIMIT, Completed, run_process
from utilityvm.guest.process import Process, in_words
from utilityvm.guest.spec import check_bounds, check_signal, check_timeout
from utilityvm.kit.aio import Scope, finish
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, GuestError, InvalidOptions, ProtocolError, StateError, UtilityVMError
from utilityvm.kit.lifecycle import Life
from utilityvm.kit.trace import event, span
from utilityvm.schema.metrics import CgroupMetrics
from utilityvm.wire.detached import ContainerPlace
from utilityvm.wire.gcs import ContainerNotification, NotificationType
from utilityvm.wire.oci import OciProcess, Resources, read_resources

END_TIMEOUT: Final = 10.0
"""Seconds that a container which is killed has to end before it is deleted."""


class _Info(msgspec.Struct, frozen=True):
    oom_kills: int = field(name="OomKills", default=0)


class OfVm(msgspec.Struct, frozen=True):
    """The VM of containers, as they need it: its `id`; `admit` raises StateError where nothing can be asked of its guest; `is_over`.

    `create` makes a container in its guest of a document, and `is_ours` says whether the guest's agent is this project's. `scope` has
    its tasks.
    """

    id: str
    admit: Callable[[], None]
    is_over: Callable[[], bool]
    create: Callable[[str, object], Awaitable[InGuest]]
    is_ours: Callable[[], bool]
    scope: Scope


class ContainerExit(msgspec.Struct, frozen=True):
    """How a container ended: its first process's exit code (128 + s when signal s killed it), and in whose way.

    `how` is ``GRACEFUL_EXIT`` when it was asked to end, ``FORCED_EXIT`` when it was made to, ``UNEXPECTED_EXIT`` when it ended by itself,
    be it well or badly. `oom_kills` counts its processes that were killed because its memory had run out.
    """

    exit_code: int
    how: NotificationType
    oom_kills: int = 0

    @property
    def oom_killed(self) -> bool:
        """Whether memory ran out for one of its processes."""
        return self.oom_kills > 0


@final
class Container:
    """A container in a utility VM. Use it as an async context: it is ended and deleted, and gives back what it had, whatever happens.

    `id` is what its creator calls it. It is made by `UtilityVM.create_container`; its first process runs from `start` on, and the
    container with it.
    """

    id: ContainerId

    def __init__(
        self,
        container_id: ContainerId,
        vm: OfVm,
        guest: InGuest,
        process: OciProcess | None,
        taken: Releases,
        scratch: ScratchDisk | None,
    ) -> None:
        self.id = container_id
        self.scratch_disk = scratch
        """The disk that it writes to, None when it writes to none or the guest alone knows of it."""
        self._vm, self._guest, self._process, self._taken = vm, guest, process, taken
        self._name = f"vm {vm.id}: container {container_id}"
        self._life = Life(self._name, LIFE, ContainerState.CREATED)
        self._scope = Scope(self._name, self._lost)
        self._first: Process | None = None
        self._exit: asyncio.Future[ContainerExit] = asyncio.get_running_loop().create_future()
        self._turn = asyncio.Lock()

    def go_on(self, told: ContainerPlace, first: Process | None) -> None:
        """Be where the guest says that a container is which was made before its VM was saved; `first` is its first process if it runs."""
        self._life = Life(self._name, LIFE, ContainerState(told.state))
        if first is not None:
            self._first = first
            self._scope.start("exit", self._watch(first))
        elif self.state is ContainerState.STOPPED:
            self._exit.set_result(ContainerExit(told.exit_code, told.type, told.oom_kills))

    # -- what it is -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ContainerState:
        """Where the container is in its life."""
        return self._life.state

    @property
    def released(self) -> bool:
        """Whether it has given back all that it was made of."""
        return self._taken.done

    @property
    def pid(self) -> int:
        """Process id in the guest of its first process.

        Raises:
            StateError: it was not started.
        """
        if self._first is None:
            raise StateError(self._name, self.state.value, "tell its process id")
        return self._first.pid

    # -- what it does -----------------------------------------------------------------------------------------------

    async def start(self, process: OciProcess | None = None, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> Process:
        """Start the container with its first process, which is returned, with the streams that are wanted.

        What it is is said by the specification; `process` says it for containers of Windows guests, and for them alone. With a terminal
        its output and errors are together on `stdout`. Streams that are wanted must be read. A start that fails leaves it as it was.

        Raises:
            StateError: it was started before, or is deleted.
            InvalidOptions: `process` is given to a Linux guest, or lacks for Windows.
            GuestError: the guest cannot start it, as when its program does not exist (`result`).
            ConnectionLost, DeadlineExceeded: the guest is gone, or does not answer.
        """
        windows = self._guest.os == "windows"
        if windows != (process is not None):
            needs = "the first process of a container in a Windows guest is given" if windows else "its specification has its first process"
            raise InvalidOptions(f"{self._name}: {needs} when it is started" if windows else f"{self._name}: {needs}")
        async with self._turn:
            self._vm.admit()
            self._life.check(Do.START)
            with span("container.start", level=logging.DEBUG, vm=self._vm.id, container=self.id):
                await self._guest.start()
                if process is not None:
                    self._first = await self._guest.execute(process, stdin=stdin, stdout=stdout, stderr=stderr)
                else:
                    terminal = self._process is not None and self._process.terminal
                    self._first = await self._guest.first(stdin=stdin, stdout=stdout, stderr=stderr and not terminal)
            self._life.step(Do.START)
            self._scope.start("exit", self._watch(self._first))
        return self._first

    async def exec(
        self,
        process: Sequence[str] | OciProcess | Mapping[str, object],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        console_size: tuple[int, int] | None = None,
    ) -> Process:
        """Run one more process in the container.

        `process` is its program with the arguments, or an OCI process (a struct or plain builtins). The former has all that the
        container's first process has, rights and limits too, but for what is said: `env` adds to its environment, `cwd` is another
        folder, `user` is ``name``, ``uid``, or either with ``:group``, and `console_size` (height, width) gives it a terminal, with
        output and errors together on `stdout`. Streams that are wanted must be read.

        Raises:
            StateError: the container does not run.
            InvalidOptions: no guest could start it; or it is an OCI process, and parts of it are given beside it.
            Unsupported: it has members that an OCI process does not have.
            GuestError: the guest cannot start it; `result` tells a missing program or folder apart.
            ConnectionLost, DeadlineExceeded: the guest is gone, or does not answer.
        """
        self._step(Do.EXEC)
        wanted = another(self._process, process, self._name, env=env, cwd=cwd, user=user, console_size=console_size)
        with span("container.exec", level=logging.DEBUG, vm=self._vm.id, container=self.id):
            try:
                return await self._guest.execute(wanted, stdin=stdin, stdout=stdout, stderr=stderr)
            except GuestError as error:
                if (told := in_words(error, wanted.args[0] if wanted.args else "", wanted.cwd, self._name)) is error:
                    raise
                raise told from error

    async def attach(self, pid: int | None = None, *, stdin: bool = True, stdout: bool = True, stderr: bool = True) -> Process:
        """Take over a process that was started in the container before its VM was saved: its first one, or that of a number.

        See `UtilityVM.attach_process` for what becomes of its streams.

        Raises:
            StateError: the container was not started, or is deleted; or, without `pid`, it had ended.
            UtilityVMError: as `UtilityVM.attach_process`.
        """
        self._step(Do.ATTACH)
        with span("process.attach", level=logging.DEBUG, vm=self._vm.id, container=self.id):
            process = await self._guest.attach(self.pid if pid is None else pid, stdin=stdin, stdout=stdout, stderr=stderr)
        if self._first is not None and self._first.pid == process.pid:
            self._first = process
        return process

    async def run(
        self,
        process: Sequence[str] | OciProcess | Mapping[str, object],
        *,
        input: bytes | None = None,  # noqa: A002 (as in subprocess)
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        limit: int = OUTPUT_LIMIT,
    ) -> Completed:
        """Run one more process in the container to its end and return its exit code, output and errors.

        See `exec` for the process, and `UtilityVM.run` for the rest.

        Raises:
            DeadlineExceeded: it was not done in time; the error has the output so far.
            OutputLimitExceeded: it said more than `limit`; the error has the first `limit` bytes.
            UtilityVMError: as `exec`.
        """
        data = b"" if input is None else input
        check_bounds(data, timeout, limit)

        async def start() -> Process:
            return await self.exec(process, env=env, cwd=cwd, user=user, stdin=input is not None)

        return await run_process(start, self._name, data=data, limit=limit, timeout=timeout)

    async def wait(self, *, timeout: float | None = None) -> ContainerExit:
        """Wait until the container has ended, and say how. May be called again, and by many. It is not deleted by its end.

        `timeout` is in seconds (None: as long as the VM lives).

        Raises:
            DeadlineExceeded: it still runs after `timeout`; nothing was done to it.
            ConnectionLost: the VM ended first.
            StateError: it was deleted without having run.
            InvalidOptions: `timeout` is no number.
        """
        check_timeout(timeout)
        self._life.step(Do.WAIT)
        await asyncio.wait([self._exit], timeout=timeout)
        if not self._exit.done():
            raise DeadlineExceeded(f"{self._name}: still runs after {timeout:g} s")
        return self._exit.result()

    async def kill(self, signal: int = 9, *, all: bool = False) -> bool:  # noqa: A002 (as the runtimes call it)
        """Send `signal` to its first process, or to all of its processes; say whether it was delivered.

        The end of the first process ends the others. An agent other than ours signals the first one alone.

        Raises:
            StateError: it does not run.
            InvalidOptions: there is no such signal.
            GuestError, ConnectionLost, DeadlineExceeded: the guest cannot.
        """
        check_signal(signal)
        self._step(Do.KILL)
        first = self._first
        if first is None:  # which runs, as the table says
            raise StateError(self._name, self.state.value, Do.KILL.value)
        return await (self._guest.signal_all(first, signal) if all else first.kill(signal))

    async def pause(self) -> None:
        """Let all its processes stand still. A cancelled call is carried out all the same.

        Raises:
            StateError: it does not run, or is paused.
            GuestError, ConnectionLost, DeadlineExceeded: the guest cannot.
        """
        with span("container.pause", level=logging.DEBUG, vm=self._vm.id, container=self.id):
            await self._switch(Do.PAUSE, self._guest.pause)

    async def resume(self) -> None:
        """Let it run on.

        Raises:
            StateError: it is not paused.
            GuestError, ConnectionLost, DeadlineExceeded: as `pause`.
        """
        with span("container.resume", level=logging.DEBUG, vm=self._vm.id, container=self.id):
            await self._switch(Do.RESUME, self._guest.resume)

    async def update(self, resources: Resources | Mapping[str, object]) -> None:
        """Change its limits: what is not said stays as it is. `resources` are those of the OCI specification, a struct or plain builtins.

        Raises:
            StateError: it has ended.
            InvalidOptions, Unsupported: these are none.
            GuestError: the guest cannot, as when less memory is asked for than is used.
            ConnectionLost, DeadlineExceeded: the guest is gone, or does not answer.
        """
        limits = read_resources(resources)
        self._step(Do.UPDATE)
        await self._guest.update(limits)

    async def stats(self) -> CgroupMetrics:
        """Say what it uses of the guest: processor time, memory, processes, disks.

        Raises:
            StateError: it has ended.
            GuestError, ProtocolError, ConnectionLost, DeadlineExceeded: the guest does not tell.
        """
        self._step(Do.STATS)
        told = (await self._guest.properties(["Statistics"])).metrics
        if told is None:
            raise ProtocolError(f"{self._name}: the guest has left its statistics out of the answer")
        return told

    async def pids(self) -> tuple[int, ...]:
        """Return the process ids in the guest of all its processes.

        Raises:
            StateError: it has ended.
            GuestError, ProtocolError, ConnectionLost, DeadlineExceeded: the guest does not tell.
        """
        self._step(Do.PIDS)
        return tuple(one.process_id for one in (await self._guest.properties(["ProcessList"])).process_list)

    # -- its end ----------------------------------------------------------------------------------------------------

    async def delete(self) -> None:
        """Let the guest forget it, and give back its root file system, mounts and disks. A cancelled call is carried out.

        Of a scratch disk of ours the guest has let go then, and the VM does so meanwhile. What cannot be given back is tried again by
        `close`, and goes with the VM at last.

        Raises:
            StateError: it runs: end it first, or `close` it.
            GuestError: the guest cannot; the container is as it was.
            HostError: something could not be given back; the container is deleted.
            ConnectionLost, DeadlineExceeded: the guest is gone, or does not answer.
        """
        self._vm.admit()
        self._life.check(Do.DELETE)
        await finish(self._delete(), within=None)

    async def close(self) -> None:
        """End it if it runs, delete it and give back what it had, whichever of these fails. May be called at any time, and again.

        Raises:
            GuestError, HostError, ConnectionLost, DeadlineExceeded: the first failure.
        """
        await finish(self._close(), within=None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self.close()
        except UtilityVMError as failure:
            if error is None:
                raise
            event("container.close.failed", level=logging.WARNING, vm=self._vm.id, container=self.id, error=failure.message)

    async def settled(self) -> None:
        """Wait until nothing that it has given back is on its way out of the VM."""
        await self._taken.settled()

    def abandon(self) -> None:
        """Let go of it: its VM is over. Whoever waits gets `ConnectionLost`."""
        self._taken.abandon()
        self._guest.close()
        self._over(ConnectionLost(f"{self._name}: its vm has ended"))
        self._life.step(Do.CLOSE)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _step(self, do: Do) -> None:
        self._vm.admit()
        self._life.step(do)

    async def _switch(self, do: Do, effect: Callable[[], Awaitable[None]]) -> None:
        """Pause or resume, one at a time: the state follows the effect, unless it has ended meanwhile."""
        self._vm.admit()
        self._life.check(do)

        async def switch() -> None:
            async with self._turn:
                self._life.check(do)
                await effect()
                with suppress(StateError):
                    self._life.step(do)

        await finish(switch(), within=None)

    async def _watch(self, first: Process) -> None:
        """Wait for the end of the first process, and for the guest's word on the container's."""
        code = await first.wait()
        if self._guest.os == "windows":  # whose containers go on without it
            await self._guest.terminate()
        self._ended(code, await self._guest.wait())

    def _ended(self, code: int, told: ContainerNotification) -> None:
        try:
            info = msgspec.json.decode(told.result_info or "{}", type=_Info)
        except msgspec.MsgspecError:  # another agent's words
            info = _Info()
        event("container.exit", vm=self._vm.id, container=self.id, how=told.type.value)
        if not self._exit.done():
            self._exit.set_result(ContainerExit(code, told.type, info.oom_kills))
        self._life.step(Do.EXIT)

    def _lost(self, error: Exception) -> None:
        """The watch has failed: with the VM, or because nobody runs our tasks any more."""
        self._over(error if isinstance(error, UtilityVMError) else ConnectionLost(f"{self._name}: {error}"))

    def _over(self, reason: UtilityVMError) -> None:
        self._tell(reason)
        self._life.step(Do.EXIT)

    def _tell(self, reason: UtilityVMError) -> None:
        """Tell those who wait for its end that they wait in vain, unless it has ended."""
        if not self._exit.done():
            self._exit.set_exception(reason)
            self._exit.exception()  # whoever waits gets it; nobody has to

    async def _delete(self) -> None:
        async with self._turn:
            self._life.check(Do.DELETE)
            if self.state is ContainerState.CREATED:
                await self._guest.terminate()
            await self._guest.delete_state()
            await self._forget(Do.DELETE)
            failure = await self._taken.release()
        if failure is not None:
            raise failure

    async def _close(self) -> None:
        failure: UtilityVMError | None = None
        async with self._turn:
            if self.state is not ContainerState.DELETED:
                if not self._vm.is_over():
                    self._vm.admit()
                    failure = await self._end_in_guest()
                await self._forget(Do.CLOSE)
            if self._vm.is_over():
                self._taken.abandon()
                return
            kept = await self._taken.release()
        if failure is not None:
            raise failure
        if kept is not None:
            raise kept.during(f"{self._name}: failed to release one or more container resources")

    async def _end_in_guest(self) -> UtilityVMError | None:
        """End the container and let the guest forget it; return the first failure."""
        try:
            if self.state is not ContainerState.STOPPED:
                await self._guest.terminate()
            if self._first is not None:
                await asyncio.wait([self._exit], timeout=END_TIMEOUT)
            await self._guest.delete_state()
        except UtilityVMError as error:
            return None if self._vm.is_over() else error
        return None

    async def _forget(self, do: Do) -> None:
        self._life.step(do)
        await self._scope.aclose()
        self._guest.close()
        if self._first is not None:
            await self._first.close()
        self._tell(StateError(self._name, ContainerState.DELETED.value, Do.WAIT.value))
