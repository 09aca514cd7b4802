"""The names without await, over fakes: what they wrap, where they may be called, and what is refused."""

import asyncio
import inspect
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import pytest
from tools.sync_stubs import STUBS, stubs

import utilityvm
from tests.unit.templates.pools import Clones
from tests.unit.vm import fake
from utilityvm import sync
from utilityvm.kit.errors import GuestError, NotFound, StateError
from utilityvm.sync.handler import with_handler
from utilityvm.sync.loop import LoopThread, _making, _result, loop_thread
from utilityvm.sync.twin import synchronous, twin
from utilityvm.testing.compute import FakeComputeService
from utilityvm.testing.guest import FakeGuest, Program


async def forever(_guest: FakeGuest, _program: Program) -> int:
    await asyncio.Event().wait()
    return 0


def create(of: FakeComputeService | None = None, **keywords: object) -> sync.UtilityVM:
    """Create a fake VM as `sync.create_lcow` creates a real one."""
    service = of or fake.service({"echo": fake.echo, "forever": forever})[0]
    vm = synchronous(with_handler(fake.create))(service, **keywords)
    assert isinstance(vm, sync.UtilityVM)
    return vm


@pytest.fixture(autouse=True)
def _short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utilityvm.vm.end.EXIT_TIMEOUT", 0.05)
    monkeypatch.setattr("utilityvm.vm.uvm.DRAIN_TIMEOUT", 0.05)


# -- the names ----------------------------------------------------------------------------------------------------------


def test_all_names_are_there_and_none_has_to_be_awaited() -> None:
    assert set(utilityvm.__all__) <= set(sync.__all__)
    for name in sync.__all__:
        thing = getattr(sync, name)
        assert not inspect.iscoroutinefunction(thing)
        if name in {"UtilityVM", "Process", "Container", "GuestStream", "Scsi", "VPMem", "Layers", "Plan9", "Vsmb", "VPci", "Pipes"}:
            members = {member: value for member, value in vars(thing).items() if not member.startswith("_")}
            assert members, name
            assert not any(inspect.iscoroutinefunction(member) for member in members.values())


def test_a_container_is_used_without_await() -> None:
    spec = {"ociVersion": "1.0.2", "process": {"args": ["forever"], "cwd": "/", "user": {"uid": 0, "gid": 0}}, "root": {"path": "/r"}}
    with create() as vm:
        vm.start()
        with vm.create_container("c", spec) as container:
            assert isinstance(container, sync.Container)
            assert isinstance(container.start(), sync.Process)
            assert container.run(["echo", "x", "y"]).stdout == b"x y"
            assert container.pids() == (container.pid,)
            assert [one.id for one in vm.containers] == ["c"]
            container.kill()
            assert container.wait().exit_code == 137
        assert [container.state] == ["deleted"]


def test_the_tables_of_devices_are_asked_without_await() -> None:
    with create() as vm:
        vm.start()
        disk = vm.scsi.add("/a", "/mnt")
        assert (disk.guest_path, vm.scsi.disks) == ("/mnt", (disk,))
        share = vm.share(".", "/here")
        assert vm.plan9.shares == (share,)
        vm.scsi.remove("/a")
        for table in (vm.scsi.disks, vm.vpmem.devices, vm.vsmb.shares, vm.vpci.devices):
            assert table == ()
        with pytest.raises(NotFound, match="^not attached$"):
            vm.scsi.remove("/a")


def test_a_twin_has_the_members_and_words_of_its_class() -> None:
    for name in ("UtilityVM", "Process"):
        original, made = getattr(utilityvm, name), getattr(sync, name)
        assert {m for m in vars(original) if not m.startswith("_")} <= set(vars(made))
        assert (made.__doc__, made.wait.__doc__) == (original.__doc__, original.wait.__doc__)
        assert inspect.signature(made.wait) == inspect.signature(original.wait)


def test_type_checkers_are_told_what_is_made() -> None:
    assert STUBS.read_text() == stubs(), "run tools/sync_stubs.py"


# -- calls --------------------------------------------------------------------------------------------------------------


def test_a_vm_lives_without_await() -> None:
    with create() as vm:
        assert (type(vm), vm.id, vm.state) == (sync.UtilityVM, "fake", "created")
        vm.start()
        process = vm.create_process(["echo", "a", "b"])
        assert (type(process), process.stdout.read(), process.wait()) == (sync.Process, b"a b", 2)
        process.close()
        with pytest.raises(GuestError, match="no such program"):
            vm.create_process(["nonsense"])
        with pytest.raises(StateError, match="cannot start while running"):
            vm.start()
    assert (vm.state, vm.exit_error) == ("closed", None)


def test_many_threads_share_the_loop() -> None:
    def life(number: int) -> tuple[bytes, int]:
        with create() as vm:
            vm.start()
            process = vm.create_process(["echo", *"x" * number])
            return process.stdout.read(), process.wait()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(life, range(16))) == [(" ".join("x" * number).encode(), number) for number in range(16)]
    assert [thread.name for thread in threading.enumerate()].count("utilityvm.sync") == 1


async def test_it_may_be_called_where_another_event_loop_runs() -> None:
    with create() as vm:
        vm.start()
        assert vm.create_process(["echo"]).wait() == 0


def test_a_handler_of_the_log_is_a_plain_function() -> None:
    of, _ = fake.service(log=b"a line\n")
    said: list[bytes] = []
    heard = threading.Event()

    def handler(stream: sync.GuestStream) -> None:
        said.append(stream.read(100))
        heard.set()

    with create(of, output_handler=handler) as vm:
        vm.start()
        assert heard.wait(5)
    assert said == [b"a line\n"]


def test_a_handler_that_fails_is_told_and_the_vm_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    of, _ = fake.service({"echo": fake.echo})

    def handler(_stream: sync.GuestStream) -> None:
        raise ValueError("no disk")

    with create(of, output_handler=handler) as vm:
        vm.start()
        assert vm.create_process(["echo"]).wait() == 0
    assert "no disk" in caplog.text


def test_a_calls_own_timeout_is_its_failure() -> None:
    async def fails() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        loop_thread().run(fails)


def test_a_call_may_take_longer_than_a_look_for_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utilityvm.sync.loop._LOOK", 0.001)

    async def takes_turns() -> str:
        for _ in range(100):
            await asyncio.sleep(0.0001)
        return "done"

    assert loop_thread().run(takes_turns) == "done"


def test_a_call_that_ends_with_a_look_for_signals_has_its_result() -> None:
    class Late(Future[str]):
        """It ends between the look that saw nothing and the question whether it has ended."""

        def result(self, timeout: float | None = None) -> str:
            if not self.done():
                self.set_result("made")
                raise TimeoutError
            return super().result(timeout)

    assert _result(Late()) == "made"


def test_a_signals_handler_may_call_while_its_thread_looks_for_the_loop() -> None:
    with _making:
        assert loop_thread() is loop_thread()


def test_what_its_owner_closes_is_not_kept_to_the_end_of_the_process() -> None:
    class Part:
        async def __aenter__(self) -> Self:
            return self

        async def close(self) -> None: ...

    class Whole:
        @property
        def parts(self) -> tuple[Part, ...]:
            return (Part(),)

        async def make(self) -> Part:
            return Part()

    twin(Part)
    loop = loop_thread()
    whole, kept = twin(Whole)(Whole(), loop), set(loop._open)
    (part,) = whole.parts
    assert type(part).__name__ == "Part"
    assert loop._open == kept
    made = whole.make()
    assert loop._open == kept | {made._inner}
    made.close()
    assert loop._open == kept


def test_a_pool_is_used_without_await_and_forgets_what_it_takes_back() -> None:
    kept = loop_thread()._open
    with sync.Pool(Clones(), ready=1, max=2) as pool:
        first, second = pool.acquire(), pool.acquire()
        assert (type(first), first.run(["echo", "a"]).stdout) == (sync.UtilityVM, b"a")
        assert {first._inner, second._inner, pool._inner} <= kept  # type: ignore[attr-defined]
        pool.release(first)
        pool.release(vm=second)
        assert (first.state, second.state, pool.stats().lent) == ("closed", "closed", 0)
    assert not {first._inner, second._inner, pool._inner} & kept  # type: ignore[attr-defined]


# -- what would never end -----------------------------------------------------------------------------------------------


def test_a_call_from_the_loops_own_thread_is_refused() -> None:
    with create() as vm:
        with pytest.raises(StateError, match="cannot wait for a call while inside the event loop"):
            loop_thread().call(vm.start)
        assert vm.state == "created"


def test_a_forked_child_is_refused_its_parents_vms_and_has_a_loop_of_its_own() -> None:
    with create() as vm:
        vm.start()
        child = os.fork()
        if child == 0:
            os._exit(_in_the_child(vm))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert vm.create_process(["echo"]).wait() == 0


def _in_the_child(vm: sync.UtilityVM) -> int:
    try:
        vm.create_process(["echo"])
    except StateError as error:
        if "in a forked child" not in str(error):
            return 1
    else:
        return 2
    with create() as own:
        own.start()
        return 0 if own.create_process(["echo"]).wait() == 0 else 3


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Ctrl-C counts also where our caller ignores it, as a shell does for a job that it starts with an ampersand."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_ends_the_call_that_waits_and_only_that() -> None:
    with create() as vm:
        vm.start()
        process = vm.create_process(["forever"])
        interrupter = threading.Timer(0.2, lambda: os.kill(os.getpid(), 2))
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            process.wait()
        interrupter.join()
        assert vm.create_process(["echo"]).wait() == 0


def test_at_the_end_of_the_process_open_vms_are_closed_and_later_calls_refused() -> None:
    loop = LoopThread()
    closed = threading.Event()

    class Thing:
        async def close(self) -> None:
            closed.set()

    loop.keep(Thing())
    loop._end()
    assert closed.is_set()
    with pytest.raises(StateError, match="at the end of the process"):
        loop.call(lambda: None)


def test_a_call_that_the_end_of_the_process_cuts_short_says_so() -> None:
    loop = LoopThread()
    begun = threading.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(loop.run, endless)
        assert begun.wait(5)
        loop._end()
        with pytest.raises(StateError, match="cannot finish a call while at the end of the process"):
            waiting.result(5)
