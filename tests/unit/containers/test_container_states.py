"""All pairs of state and event of a container, and every public call in every state."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.lives import moves_or_is_refused
from utilityvm.containers.container import Container
from utilityvm.containers.life import LIFE, ContainerState, Do
from utilityvm.kit.errors import StateError

from .rig import a_vm, spec

CALLS: dict[Do, Any] = {
    Do.START: lambda container: container.start(),
    Do.EXEC: lambda container: container.exec(["say"]),
    Do.KILL: lambda container: container.kill(),
    Do.PAUSE: lambda container: container.pause(),
    Do.RESUME: lambda container: container.resume(),
    Do.UPDATE: lambda container: container.update({}),
    Do.STATS: lambda container: container.stats(),
    Do.PIDS: lambda container: container.pids(),
    Do.DELETE: lambda container: container.delete(),
    Do.CLOSE: lambda container: container.close(),
}
"""Every public call that says nothing of the end; `wait` is allowed in every state."""


@pytest.mark.parametrize("state", ContainerState)
@pytest.mark.parametrize("event", Do)
def test_each_pair_moves_or_is_refused(state: ContainerState, event: Do) -> None:
    moves_or_is_refused(LIFE, state, event, "container c")


def test_closing_and_the_end_are_never_refused() -> None:
    for state in ContainerState:
        assert LIFE[state, Do.CLOSE] is ContainerState.DELETED
        assert LIFE[state, Do.EXIT] is (ContainerState.DELETED if state is ContainerState.DELETED else ContainerState.STOPPED)
        assert LIFE[state, Do.WAIT] is state


async def in_state(container: Container, state: ContainerState) -> None:
    if state in {ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.STOPPED}:
        await container.start()
    if state is ContainerState.PAUSED:
        await container.pause()
    if state is ContainerState.STOPPED:
        await container.kill()
        await container.wait()
    if state is ContainerState.DELETED:
        await container.delete()
    assert container.state is state


@pytest.mark.parametrize("state", ContainerState)
@pytest.mark.parametrize("call", CALLS)
async def test_every_call_in_every_state_is_carried_out_or_refused_and_a_refusal_changes_nothing(
    tmp_path: Path, state: ContainerState, call: Do
) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        await in_state(container, state)
        there, asked = dict(world.agent.containers), len(world.agent.modified)
        if (state, call) in LIFE:
            await CALLS[call](container)
            assert container.state is LIFE[state, call] or call is Do.KILL
        else:
            with pytest.raises(StateError, match=f"container c: cannot {call.value} while {state.value}"):
                await CALLS[call](container)
            assert (container.state, world.agent.containers, len(world.agent.modified)) == (state, there, asked)
        await container.close()
        assert world.agent.containers == {}
