"""A sandbox: programs and files of an image in a VM of its own."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from copy import copy
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import Final, Self, final

import msgspec
from msgspec.structs import replace

from utilityvm.containers import wish
from utilityvm.containers.container import Container
from utilityvm.containers.life import ContainerState
from utilityvm.containers.scratch import SCRATCH_SIZE
from utilityvm.containers.spec import check_wish, spec_of, vm_size
from utilityvm.containers.wish import Wish
from utilityvm.guest.collect import OUTPUT_LIMIT, Completed, run_process
from utilityvm.guest.process import Process, in_words
from utilityvm.guest.spec import check_bounds
from utilityvm.images.image import Image
from utilityvm.images.store import ImageStore
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import GuestError, InvalidOptions, NotFound, UtilityVMError
from utilityvm.kit.lifecycle import Life
from utilityvm.kit.trace import span
from utilityvm.network.publish import Published, parse_published
from utilityvm.options.network import NetworkWish, UserNetwork
from utilityvm.sandbox import helper
from utilityvm.sandbox.files import Files, encoded
from utilityvm.sandbox.life import LIFE, Do, SandboxState
from utilityvm.sandbox.opening import Opened, Plan, Pull, go_on, new_name, open_container
from utilityvm.vm.host_options import default_options_lcow
from utilityvm.vm.uvm import UtilityVM
from utilityvm.wire.gcs import FILE_NOT_FOUND, PATH_NOT_FOUND
from utilityvm.wire.oci import Spec

CLOSE_TIMEOUT: Final = 30.0
"""Seconds that closing a sandbox may take."""


class Result(msgspec.Struct, frozen=True):
    """How a program ended, what it said, and how long it took.

    `exit_code` is 128 + s when signal s killed it. `seconds` are all of the call's; `stages` says which of them were for what:
    ``start`` (until it ran) and ``run``.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float
    stages: Mapping[str, float] = msgspec.field(default_factory=dict)

    @property
    def text(self) -> str:
        """Its output as text; what is not UTF-8 is replaced."""
        return self.stdout.decode(errors="replace")


@final
class Sandbox:
    """A container of an image in a VM of its own, in which programs run one after another or side by side.

    It is opened and closed as an async context, or by `open` and `close`; nothing is left of it. `image` is its image's name, `files`
    are its files. Its own first process is a program of ours that does nothing: the image's entrypoint and command are not run.
    """

    image: str
    files: Files

    def __init__(
        self,
        image: str,
        *,
        memory: str | int | None = None,
        cpus: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
        volumes: Sequence[str] = (),
        tmpfs: Sequence[str] = (),
        read_only: bool = False,
        hostname: str = "",
        cap_add: Sequence[str] = (),
        cap_drop: Sequence[str] = (),
        scratch_size: str | int = SCRATCH_SIZE,
        pull: str = Pull.MISSING,
        network: NetworkWish | None = None,
        options: Mapping[str, object] | None = None,
        require_kvm: bool = False,
        require_jail: bool = False,
        template: bool = True,
        forkable: bool = False,
    ) -> None:
        """Say what is wanted; nothing is made before it is opened.

        `memory` (``"512MiB"``, or bytes) and `cpus` are what its programs may use together; the VM gets that and what its own kernel
        needs (None: the VM's default size, unlimited within). `env` are added to the image's variables, `cwd` and `user` replace the
        image's. `timeout` is in seconds, for each `run` that has none of its own. `volumes` are ``SOURCE:PATH[:ro]`` with a path of this
        host or the name of a volume, `tmpfs` are ``PATH[:OPTIONS]``, as in docker. What programs write is kept on a disk of
        `scratch_size` until it is closed; `read_only` lets nothing be written to the root. `pull` is ``missing``, ``always`` or
        ``never``. `network` is what its programs have (None: their loopback). `options` are fields of `OptionsLCOW`, for the VM.
        `template` False boots the VM; otherwise it goes on from the boot of one that was as it, if it can. One that is `forkable` is
        forked quickly, and opened a little slower: its VM gets its memory as a whole.

        Raises:
            InvalidOptions: some of it makes no sense.
        """
        _check_bounds(b"", timeout, OUTPUT_LIMIT)
        self.image, self._timeout = image, timeout
        self._wish = _wish(
            memory, cpus, env, volumes, tmpfs, network, cwd=cwd, user=user, read_only=read_only, name=hostname, add=cap_add, drop=cap_drop
        )
        check_wish(self._wish)
        asked = {"forkable": forkable} | dict(options or {})
        made = self._planned(asked, pull, scratch_size, network, require_kvm=require_kvm, require_jail=require_jail)
        self._plan = replace(made, template=template)
        self._ports = parse_published(network.publish if isinstance(network, UserNetwork) else ())
        self._life, self._undo = Life(f"sandbox {image}", LIFE, SandboxState.NEW), AsyncExitStack()
        self._source: Callable[[AsyncExitStack], Awaitable[Opened]] = self._of_image
        self._opened: Opened | None = None
        self._stages: dict[str, float] = {}
        self.files = Files(_Programs(self), f"sandbox {image}")

    # -- what it is -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> SandboxState:
        """Where it is in its life."""
        return self._life.state

    @property
    def vm(self) -> UtilityVM:
        """Its VM, for all that a sandbox has no call for.

        Raises:
            StateError: it is not open.
        """
        return self._use().vm

    @property
    def container(self) -> Container:
        """Its container, in the same way.

        Raises:
            StateError: it is not open.
        """
        return self._use().container

    @property
    def ports(self) -> tuple[Published, ...]:
        """What of its network's `publish` became: ports of its programs, and where each is reached on this host."""
        return self._ports

    def url(self, port: int, scheme: str = "http") -> str:
        """Return where on this host `port` of its programs is reached: ``http://127.0.0.1:8080`` for what was published as ``8080:80``.

        Raises:
            NotFound: this port was not published for TCP.
        """
        found = next((one for one in self._ports if one.guest_port == port and one.protocol == "tcp"), None)
        if found is None:
            hint = f"Sandbox(…, network=UserNetwork(publish=('8080:{port}',)))"
            raise NotFound(f"sandbox {self.image}: port {port} is not published", hint=hint)
        return f"{scheme}://{found.address}"

    @property
    def stages(self) -> Mapping[str, float]:
        """How many seconds opening it took: ``prepare`` (image, boot, container) and ``first process``; ``pause`` is how long the one
        that was forked for it stood still.
        """
        return MappingProxyType(self._stages)

    # -- what it does -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Boot its VM and make its container. An opening that fails or is cancelled leaves nothing.

        Raises:
            StateError: it was opened before.
            NotFound: there is no such image, here or in its registry; or no boot files.
            UtilityVMError: as `create_lcow`, `UtilityVM.start`, `ImageStore.pull` and `UtilityVM.create_container`.
        """
        self._life.step(Do.OPEN)
        begin = perf_counter()
        try:
            with span("sandbox.open", level=logging.DEBUG):
                async with AsyncExitStack() as undo:
                    await undo.enter_async_context(self._undo.pop_all())
                    opened = await self._source(undo)
                    ready = perf_counter()
                    if opened.container.state is ContainerState.CREATED:
                        await opened.container.start(stdout=False, stderr=False)
                    self._life.step(Do.OPENED)  # refused if it was closed meanwhile
                    self._opened, self._undo = opened, undo.pop_all()
        except BaseException:
            self._life.step(Do.CLOSE)
            raise
        self._stages |= {"prepare": ready - begin, "first process": perf_counter() - ready}

    async def close(self) -> None:
        """End all that runs in it, and its VM. May be called at any time, and again."""
        self._life.step(Do.CLOSE)
        undo, self._undo = self._undo.pop_all(), AsyncExitStack()
        self._opened = None
        await finish(undo.aclose(), within=CLOSE_TIMEOUT)

    async def run(
        self,
        *argv: str,
        input: bytes | str | None = None,  # noqa: A002 (as in subprocess)
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        limit: int = OUTPUT_LIMIT,
    ) -> Result:
        """Run a program to its end and return its exit code, output, errors and times. A program that fails is no error here.

        `input` is what it reads (None: nothing), text as UTF-8. `env` is added to the sandbox's variables; `cwd` and `user` replace
        its own. `timeout` is in seconds (None: the sandbox's), `limit` in bytes for each of output and errors. At either it is killed
        with its process group, and so it is when the caller is cancelled. What it leaves in the background goes on.

        Raises:
            StateError: the sandbox is not open.
            NotFound: it has no such program, or no folder `cwd`.
            DeadlineExceeded: it was not done in time; the error has the output so far.
            OutputLimitExceeded: it said more than `limit`; the error has the first `limit` bytes.
            InvalidOptions, GuestError: it cannot be run.
            ConnectionLost: the VM has ended.
        """
        data = b"" if input is None else encoded(input, "input")
        wait = self._timeout if timeout is None else timeout
        _check_bounds(data, wait, limit)
        moments = [perf_counter()]

        async def start() -> Process:
            process = await self._exec(argv, env, cwd, user, stdin=input is not None)
            moments.append(perf_counter())
            return process

        name = f"sandbox {self.image}: {argv[0] if argv else ''}"
        done = await run_process(start, name, data=data, limit=limit, timeout=wait)
        moments.append(perf_counter())
        begin, started, end = moments
        stages = {"start": started - begin, "run": end - started}
        return Result(done.exit_code, done.stdout, done.stderr, end - begin, stages)

    async def start(
        self,
        *argv: str,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
    ) -> Process:
        """Start a program and return it while it runs, with the streams that are wanted, which must be read. It ends with the sandbox.

        Raises:
            StateError, NotFound, InvalidOptions, GuestError, ConnectionLost: as `run`.
        """
        return await self._exec(argv, env, cwd, user, stdin=stdin, stdout=stdout, stderr=stderr)

    async def terminal(
        self,
        *argv: str,
        height: int = 24,
        width: int = 80,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
    ) -> Process:
        """Start a program on a terminal of its own: what is typed goes to `stdin`, and all that it shows comes from `stdout`.

        Raises:
            StateError, NotFound, InvalidOptions, GuestError, ConnectionLost: as `run`.
        """
        variables = {"TERM": "xterm"} | dict(env or {})
        return await self._exec(argv, variables, cwd, user, stdin=True, console_size=(height, width))

    async def fork(self, count: int = 1, *, forkable: bool = False) -> "tuple[Sandbox, ...]":
        """Fork it: `count` sandboxes are made that go on from where it is, each on its own, when they are opened; it runs on.

        A child has its programs, files and disk as they are now, copies that nobody else sees. Streams of programs that run are not a
        child's: what they say there is taken by `container.attach`. `forkable` children are forked quickly themselves. Open each as an
        async context, or close it; it may outlive its parent. A call that fails or is cancelled leaves no child.

        Raises:
            StateError: it is not open.
            Unsupported: it has what no child could have, each by its name: a network, volumes.
            UtilityVMError: as `UtilityVM.fork`.
        """
        opened = self._use(Do.FORK)
        async with AsyncExitStack() as undo:
            forked = await undo.enter_async_context(await opened.vm.fork(count, forkable=forkable))
            children = [await copy(self)._be_child(vm, opened, forked.pause) for vm in forked.children]  # noqa: SLF001 (ours)
            undo.pop_all()
        return tuple(children)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _planned(
        self,
        options: Mapping[str, object],
        pull: str,
        scratch_size: str | int,
        network: NetworkWish | None,
        *,
        require_kvm: bool,
        require_jail: bool,
    ) -> Plan:
        if pull not in set(Pull):
            raise InvalidOptions(f"pull is {pull!r}; it is one of {', '.join(Pull)}")
        return Plan(
            image=self.image,
            spec=self._spec,
            options=default_options_lcow(**(vm_size(self._wish) | dict(options))),
            container_id=new_name(),
            volumes=self._wish.volumes,
            pull=Pull(pull),
            scratch_size=wish.parse_size(str(scratch_size)),
            network=network,
            require_kvm=require_kvm,
            require_jail=require_jail,
        )

    def _spec(self, image: Image) -> Spec:
        wanted = replace(self._wish, vm_network=self._wish.vm_network or bool(self._plan.options.network_config_proxy))
        made = spec_of(image.config, wanted, self._plan.container_id)
        return replace(made, mounts=[*made.mounts, helper.MOUNT])

    async def _of_image(self, undo: AsyncExitStack) -> Opened:
        return await open_container(undo, ImageStore.of_user(), self._plan)

    async def _be_child(self, vm: UtilityVM, of: Opened, pause: float) -> "Sandbox":
        """Be no longer the copy of one that is open, but one that goes on from it. The image is held by the parent until this returns."""
        self._life, self._opened, self._stages = Life(f"sandbox {self.image}", LIFE, SandboxState.NEW), None, {"pause": pause}
        self._undo = AsyncExitStack()
        self.files = Files(_Programs(self), f"sandbox {self.image}")

        async def source(undo: AsyncExitStack) -> Opened:
            return await go_on(undo, vm, of)

        self._source = source
        held = ImageStore.of_user().hold_too(of.image)
        await finish(asyncio.to_thread(self._undo.enter_context, held), within=None)
        self._undo.push_async_callback(vm.close)
        return self

    def _use(self, do: Do = Do.USE) -> Opened:
        self._life.step(do)
        if self._opened is None:  # which it is while it is open
            raise AssertionError
        return self._opened

    async def _exec(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None,
        cwd: str | None,
        user: str | None,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        console_size: tuple[int, int] | None = None,
    ) -> Process:
        try:
            return await self._use().container.exec(
                argv, env=env, cwd=cwd, user=user, stdin=stdin, stdout=stdout, stderr=stderr, console_size=console_size
            )
        except GuestError as error:
            raise _not_run(error, argv[0], cwd or "its working directory", f"sandbox {self.image}") from error


def _not_run(error: GuestError, program: str, cwd: str, where: str) -> UtilityVMError:
    if error.result == PATH_NOT_FOUND:
        return NotFound(f"{where}: {cwd}: no such folder")
    if error.result == FILE_NOT_FOUND:
        hint = "give the words of a command one by one, or run a shell: run('sh', '-c', '…')" if " " in program else ""
        return NotFound(f"{where}: {program}: no such program", hint=hint)
    told = in_words(error, program, cwd, where)
    return error.during(f"{where}: {program}") if told is error else told


def _check_bounds(data: object, timeout: float | None, limit: object) -> None:
    check_bounds(data, timeout, limit)
    if timeout is not None and timeout < 0:
        raise InvalidOptions(f"timeout {timeout!r} is over before it begins")


def _wish(
    memory: str | int | None,
    cpus: float | None,
    env: Mapping[str, str] | None,
    volumes: Sequence[str],
    tmpfs: Sequence[str],
    network: NetworkWish | None,
    *,
    cwd: str,
    user: str,
    read_only: bool,
    name: str,
    add: Sequence[str],
    drop: Sequence[str],
) -> Wish:
    return Wish(
        entrypoint=helper.INIT,
        env=tuple((env or {}).items()),
        cwd=cwd,
        user=user,
        read_only=read_only,
        volumes=tuple(map(wish.parse_volume, volumes)),
        tmpfs=tuple(map(wish.parse_tmpfs, tmpfs)),
        hostname=wish.parse_hostname(name) if name else "",
        memory=None if memory is None else wish.parse_memory(str(memory)),
        cpus=None if cpus is None else wish.parse_cpus(str(cpus)),
        cap_add=tuple(add),
        cap_drop=tuple(drop),
        vm_network=network is not None,
    )


@final
class _Programs:
    """Programs of ours in a sandbox."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box

    async def run(self, words: Sequence[str], *, data: bytes | None, user: str | None, limit: int) -> Completed:
        done = await self._box.run(*words, input=data, cwd="/", user=user, limit=limit)
        return Completed(done.exit_code, done.stdout, done.stderr)

    async def exec(self, words: Sequence[str], *, stdin: bool, user: str | None) -> Process:
        return await self._box.start(*words, stdin=stdin, cwd="/", user=user)
