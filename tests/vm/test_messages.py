"""The guest protocol with a real guest: what the agent tells of itself, and what it refuses until it can do it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from utilityvm import GuestError, UtilityVM
from utilityvm.guest.client import GuestClient
from utilityvm.schema.properties import PropertyType
from utilityvm.wire import gcs

from .running import LIMIT, Done, sh

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOT_IMPLEMENTED = 0x8000_4001
MANY = 150

REFUSED: dict[str, Callable[[GuestClient], Coroutine[Any, Any, object]]] = {
    "ModifySettings": lambda client: client.modify(gcs.GuestRequest(request_type="Add", resource_type="SecurityPolicy", settings={})),
    "UpdateContainer": lambda client: client.update_container("c", {}),
}


def client_of(vm: UtilityVM) -> GuestClient:
    assert vm._guest is not None
    return vm._guest.client


@pytest.mark.parametrize("name", REFUSED)
async def test_what_the_agent_cannot_do_yet_it_refuses_by_name_and_serves_on(vm: UtilityVM, name: str) -> None:
    for _ in range(2):  # a container's name is free again
        with pytest.raises(
            GuestError, match="^guest RPC failure: (bridge: function not supported, header type: 0x1010|invalid Res)"
        ) as caught:
            await REFUSED[name](client_of(vm))
        assert (caught.value.call, caught.value.result) == (name, NOT_IMPLEMENTED)
    assert await sh(vm, "exit 4") == Done(4, b"")


async def test_a_container_that_is_not_there_has_already_ended(vm: UtilityVM) -> None:
    await client_of(vm).shutdown_container("c")
    await client_of(vm).terminate_container("c")
    with pytest.raises(GuestError, match='no such container: "c"'):
        await client_of(vm).properties("c", [])


async def test_many_processes_are_listed_and_none_that_has_ended(vm: UtilityVM) -> None:
    async with asyncio.timeout(LIMIT):
        processes = [await vm.create_process(["sleep", "1000"], stdout=False, stderr=False) for _ in range(MANY)]
        told = await vm.properties(PropertyType.PROCESS_LIST)
        assert [entry.process_id for entry in told.process_list or ()] == sorted(process.pid for process in processes)
        assert "loop.(*Loop).Run" in await vm.dump_stacks()
        for process in processes:
            await process.kill()
        for process in processes:
            await process.wait()
            await process.close()
        assert (await vm.properties(PropertyType.PROCESS_LIST)).process_list == []
        assert (await vm.properties()).process_list == []
