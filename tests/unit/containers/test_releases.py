"""How what a container has taken is given back."""

import asyncio
from functools import partial

import pytest

from utilityvm.containers.releases import Releases, Rest
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, HostError, UtilityVMError


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


@pytest.mark.parametrize(
    ("over", "failure", "told"),
    [(False, HostError("busy"), True), (True, HostError("busy"), False), (False, ConnectionLost("gone"), False)],
)
async def test_what_could_not_be_given_back_is_told_in_the_log_unless_it_goes_with_its_vm(
    caplog: pytest.LogCaptureFixture, over: bool, failure: UtilityVMError, told: bool
) -> None:
    async def fails() -> None:
        raise failure

    taken = Releases("vm", Scope("vm"), lambda: over)
    taken.push("disk", fails)
    assert await taken.release() is failure
    assert ("container.kept" in caplog.text, taken.done) == (told, False)
