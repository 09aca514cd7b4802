"""How what a container has taken is given back."""

import asyncio
from functools import partial

import pytest

from utilityvm.containers.releases import Releases, Rest
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import HostError


async def at_once() -> None:
    """Give something back that nobody has to wait for."""


@pytest.mark.parametrize("outcome", ["it is given back", "the rest is for nobody to wait for", "it fails"])
async def test_a_vm_that_is_over_while_something_is_given_back_has_all_of_it_closed_once(outcome: str) -> None:
    scope, closed, begun, over = Scope("vm"), list[str](), asyncio.Event(), asyncio.Event()

    async def slowly() -> Rest | None:
        begun.set()
        await over.wait()
        if outcome == "it fails":
            raise HostError("gone")
        return at_once if "rest" in outcome else None

    taken = Releases("vm", scope, lambda: True)
    for name, release in (("first", at_once), ("slow", slowly), ("last", at_once)):
        taken.push(name, release, partial(closed.append, name))
    async with asyncio.TaskGroup() as group:
        group.create_task(taken.release())
        await begun.wait()
        assert (taken.done, closed) == (False, ["last"])
        taken.abandon()
        over.set()
    assert (taken.done, closed) == (True, ["last", "slow", "first"])
    await scope.aclose()
