"""What is asked of the guest's agent beyond processes."""

import pytest

from utilityvm.guest.process import start_process
from utilityvm.guest.spec import ProcessSpec
from utilityvm.kit.errors import GuestError, ProtocolError
from utilityvm.kit.ids import NULL_GUID
from utilityvm.schema.properties import PropertyType
from utilityvm.testing.guest import MEMORY_PAGES
from utilityvm.wire import gcs

from .conftest import Connect
from .test_bridge import forever


async def test_the_guest_tells_its_memory_and_its_processes(connect: Connect) -> None:
    async with connect({"forever": forever}) as rig:
        client = await rig.client()
        process = await start_process(client, rig.stdio, ProcessSpec(argv=("forever",)), "vm t")
        told = await client.properties(NULL_GUID, [PropertyType.MEMORY, PropertyType.PROCESS_LIST])
        assert told.memory is not None
        assert told.memory.virtual_machine_memory is not None
        assert told.memory.virtual_machine_memory.assigned_memory == MEMORY_PAGES
        assert [listed.process_id for listed in told.process_list] == [process.pid]
        await process.kill()
        await process.wait()
        assert (await client.properties(NULL_GUID, [PropertyType.PROCESS_LIST])).process_list == []


async def test_what_was_not_asked_for_or_is_not_known_is_not_told(connect: Connect) -> None:
    async with connect() as rig:
        told = await (await rig.client()).properties(NULL_GUID, ["NoSuchType"])
        assert (told.memory, told.process_list) == (None, [])


@pytest.mark.parametrize("text", ['"{"', '"[]"', '"{\\"ProcessList\\":[{\\"ProcessId\\":\\"x\\"}]}"', '"\\u0000"'])
async def test_properties_that_are_none_break_the_protocol(connect: Connect, text: str) -> None:
    async with connect(answers={gcs.PROPERTIES.word: f'{{"Result":0,"Properties":{text}}}'.encode()}) as rig:
        client = await rig.client()
        with pytest.raises(ProtocolError, match=f"properties of {NULL_GUID}"):
            await client.properties(NULL_GUID, [])


async def test_the_stacks_of_the_agent_are_a_text(connect: Connect) -> None:
    async with connect() as rig:
        assert (await (await rig.client()).dump_stacks()).startswith("goroutine 1")


async def test_an_agent_that_cannot_dump_stacks_says_so(connect: Connect) -> None:
    body = b'{"Result":-2147467263,"ErrorMessage":"bridge: function not supported, header type: 0x10100c01"}'
    async with connect(answers={gcs.DUMP_STACKS.word: body}) as rig:
        with pytest.raises(GuestError, match="function not supported") as caught:
            await (await rig.client()).dump_stacks()
        assert caught.value.call == "DumpStacks"
