"""A running VM is forked, on a fake service: who is made of what, and what is left when it fails."""

import asyncio
from collections.abc import Callable

import pytest

from utilityvm.kit.errors import HostError, InvalidOptions, Unsupported
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.testing.compute import FakeComputeService
from utilityvm.vm.fork import MOST_CHILDREN
from utilityvm.vm.life import State

from .fake import create, service


async def test_children_go_on_from_a_copy_that_is_let_go_of_and_are_told_that_they_are_others() -> None:
    of, guests = service()
    async with await create(of) as vm:
        await vm.start()
        async with await vm.fork(2) as forked:
            assert (forked.pause, forked.technique) == (0.01, "copy")
            parent, *machines = of.machines
            assert [machine.frozen for machine in machines] == parent.copies * 2
            assert [machine.forkable for machine in machines] == [False, False]
            assert parent.copies[0].closed, "the copy is still held"
            first, second = forked.children
            assert len({vm.id, first.id, second.id}) == 3
            assert isinstance(first.options, OptionsLCOW)
            assert first.options.template_config is not None
            assert first.options.template_config.uvm_id == vm.id
            assert [first.state, second.state, vm.state] == [State.CREATED, State.CREATED, State.RUNNING]
            await first.start()
            ((_, request),) = guests[1].modified
            assert isinstance(request, dict)
            assert request["ResourceType"] == "VirtualMachineIdentity"
            assert request["Settings"]["Hostname"] == first.id
        assert [child.state for child in forked.children] == [State.CLOSED, State.CLOSED]
        assert vm.state is State.RUNNING


async def test_a_child_is_forked_as_its_parent_was_and_its_options_do_not_grow() -> None:
    of, _ = service()
    async with await create(of) as vm:
        await vm.start()
        async with await vm.fork(forkable=True) as forked:
            assert of.machines[1].forkable
            child = forked.children[0]
            await child.start()
            async with await child.fork() as again:
                options = again.children[0].options
                assert isinstance(options, OptionsLCOW)
                assert options.template_config is not None
                assert options.template_config.uvm_id == child.id
                assert options.template_config.create_options.template_config is None
                assert not options.forkable


@pytest.mark.parametrize("count", [0, -1, MOST_CHILDREN + 1])
async def test_a_fork_has_a_bounded_number_of_children(count: int) -> None:
    of, _ = service()
    async with await create(of) as vm:
        await vm.start()
        with pytest.raises(InvalidOptions, match=f"^{count} children: a fork has 1 to {MOST_CHILDREN}$"):
            await vm.fork(count)
        assert of.machines[0].copies == []


async def test_a_vm_whose_options_no_child_could_have_is_refused_by_their_names_before_it_stands_still() -> None:
    of, _ = service()
    async with await create(of, enable_cold_discard_hint=True, console_pipe="/run/c") as vm:
        await vm.start()
        with pytest.raises(Unsupported, match="^vm fake: cannot be forked: enable_cold_discard_hint: must be false .*console_pipe: not in"):
            await vm.fork()
        assert of.machines[0].copies == []


async def fails(of: FakeComputeService) -> None:
    of.machines[0].freeze_fails = HostError("no memory")


async def a_child_fails(of: FakeComputeService) -> None:
    real, made = of.create, 0

    async def create_one(*words: object, **more: object) -> object:
        nonlocal made
        made += 1
        if made == 2:
            raise HostError("no memory")
        return await real(*words, **more)  # type: ignore[arg-type]

    of.create = create_one  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("failure", [fails, a_child_fails])
async def test_a_fork_that_fails_leaves_no_child_and_the_vm_running(failure: Callable[[FakeComputeService], object]) -> None:
    of, _ = service()
    async with await create(of) as vm:
        await vm.start()
        await failure(of)  # type: ignore[misc]
        with pytest.raises(HostError, match="no memory"):
            await vm.fork(3)
        assert vm.state is State.RUNNING
        assert all(copy.closed for copy in of.machines[0].copies)
        assert [machine.state for machine in of.machines[1:]] == ["closed"] * (len(of.machines) - 1)


async def test_a_fork_that_is_given_up_at_any_step_leaves_no_child_and_the_vm_running() -> None:
    for steps in range(40):
        of, _ = service()
        async with await create(of) as vm:
            await vm.start()
            async with asyncio.TaskGroup() as group:
                work = group.create_task(vm.fork(2))
                for _ in range(steps):
                    await asyncio.sleep(0)
                if done := work.done():
                    await work.result().close()
                work.cancel()
            assert vm.state is State.RUNNING
            assert all(copy.closed for copy in of.machines[0].copies)
            assert {machine.state for machine in of.machines[1:]} <= {"closed"}
            if done:
                return
    raise AssertionError("a fork takes longer than this test looks at")
