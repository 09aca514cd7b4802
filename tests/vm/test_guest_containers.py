"""The agent's half of containers, on the real thing: their life from Create to DeleteContainerState."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from utilityvm import GuestError, UtilityVM
from utilityvm.schema.properties import PropertyType
from utilityvm.wire import gcs
from utilityvm.wire.gcs import NotificationType

from .containers import create, created, document, prepare, process, resource, root, root_of, spec, start
from .disks import erofs, ext4
from .running import LIMIT, Done, ended, line, sh, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID_ARGUMENT = 0x8007_0057
INVALID_STATE = 0x8037_0105

LEFT = """ls -d /run/crun/* /run/utilityvm/containers/* /run/gcs/c/* /sys/fs/cgroup/containers/*/ 2>/dev/null
grep -e overlay -e /run/gcs /proc/mounts; ls /proc/1/fd | wc -l"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def layers(vm: UtilityVM) -> UtilityVM:
    """The module's VM, with layers for containers."""
    await prepare(vm)
    async with created(vm, "warm", spec("true")):
        pass  # what the agent makes only once is there
    return vm


@pytest_asyncio.fixture(loop_scope="module")
async def ready(layers: UtilityVM) -> AsyncIterator[UtilityVM]:
    """The same VM, in which a test must leave nothing of its containers."""
    before = await sh(layers, LEFT)
    yield layers
    assert await sh(layers, LEFT) == before, "the test left something of a container"


async def run(vm: UtilityVM, of: dict[str, Any], name: str = "c") -> Done:
    """Run a container to its end."""
    async with created(vm, name, of) as container:
        done = await ended(await start(container))
        async with asyncio.timeout(LIMIT):
            await container.wait()
        return done


# -- the first process ----------------------------------------------------------------------------------------------


async def test_a_container_runs_to_its_end_with_its_streams_apart(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("sh", "-c", "cat; echo error >&2; exit 7")) as container:
        first = await start(container, stdin=True)
        await first.stdin.write(b"in\n")
        await first.stdin.write_eof()
        assert await ended(first) == Done(7, b"in\n", b"error\n")
        async with asyncio.timeout(LIMIT):
            told = await container.wait()
        assert (told.container_id, told.type, told.result_info) == ("c", NotificationType.UNEXPECTED_EXIT, "")


async def test_it_does_not_run_before_it_is_started(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("touch", "/ran")) as container:
        await container.start()
        assert (await sh(ready, f"ls {root_of('c')}/ran")).code != 0
        assert (await ended(await start(container))).code == 0
        assert (await sh(ready, f"ls {root_of('c')}/ran")).code == 0
        with pytest.raises(GuestError, match="container c is stopped: it cannot be started") as caught:
            await start(container)
        assert caught.value.result == INVALID_STATE


async def test_crun_runs_from_a_sealed_file_and_makes_no_copy_of_itself(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("true")):
        waiting = (await sh(ready, "ls -l /proc/[0-9]*/exe 2>/dev/null | grep -o '/memfd.*'")).out
        assert waiting == b"/memfd:sealed (deleted)\n"


async def test_its_name_is_taken_once(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("sleep", "1000")) as container:
        again = gcs.CreateRequest(container_id="c", container_config=gcs.encode_json(document("c", spec("true"))))
        with pytest.raises(GuestError, match="there is a container c already") as caught:
            await container._client.bridge.call(gcs.CREATE, again)  # which the host refuses by itself
        assert caught.value.result == 0xC037_010F


async def test_every_stream_that_nobody_asks_for_is_dropped(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("sh", "-c", "cat; head -c 3000000 /dev/zero; echo done")) as container:
        first = await container.launch(gcs.ProcessParameters())
        async with asyncio.timeout(LIMIT):
            assert await first.wait() == 0
        await first.close()


async def test_all_its_output_comes_before_its_end_is_told(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("sh", "-c", "head -c 500000 /dev/zero")) as container:
        first = await start(container)
        await asyncio.sleep(0)
        assert not first.ended
        done = await ended(first)
        assert (done.code, len(done.out)) == (0, 500_000)


async def test_what_cannot_be_run_is_told_by_its_kind(ready: UtilityVM) -> None:
    async with root(ready, "c"):
        for program, result, text in (
            ("nothing", gcs.FILE_NOT_FOUND, "executable file `nothing` not found"),
            ("/etc/passwd", gcs.ACCESS_DENIED, "open executable"),
        ):
            with pytest.raises(GuestError, match=text) as caught:
                await create(ready, "c", spec(program))
            assert caught.value.result == result


@pytest.mark.parametrize(
    ("name", "of", "text"),
    [
        ("c/d", spec("true"), "ContainerId must be a name"),
        ("c", {"root": {"path": "rootfs"}}, "process is missing"),
        ("c", spec("true", root={"path": "../../../.."}), r"root\.path"),
        (
            "c",
            spec("true", annotations={"io.kubernetes.cri.container-type": "cat"}),
            "unsupported 'io.kubernetes.cri.container-type': 'cat'",
        ),
        ("c", spec("true", linux={"devices": [{"path": "/dev/none"}]}), "device /dev/none"),
        ("c", spec("true", process={"args": ["true"], "cwd": "/", "user": {"username": "eve"}}), "no such user: eve"),
    ],
)
async def test_a_document_with_a_mistake_makes_nothing(ready: UtilityVM, name: str, of: dict[str, Any], text: str) -> None:
    for _ in range(2):  # the name is free again
        with pytest.raises(GuestError, match=text) as caught:
            await create(ready, name, of)
        assert caught.value.result == INVALID_ARGUMENT


# -- what it sees ---------------------------------------------------------------------------------------------------


async def test_it_has_its_own_names_and_the_folder_it_starts_in(ready: UtilityVM) -> None:
    of = spec("sh", "-c", "hostname; cat /etc/hostname; grep box /etc/hosts; pwd; cat /file", hostname="box.example")
    of["process"]["cwd"] = "/made/for/it"
    done = await run(ready, of)
    assert done == Done(0, b"box.example\nbox.example\n127.0.0.1 box.example box\n/made/for/it\ntop\n")


async def test_users_are_found_by_name_in_its_own_root(ready: UtilityVM) -> None:
    of = spec("sh", "-c", "id; echo $HOME")
    of["process"]["user"]["username"] = "ann"
    assert (await run(ready, of)).out == b"uid=1000(ann) gid=100(users) groups=10(wheel)\n/home/ann\n"
    of = spec("id", annotations={"io.microsoft.lcow.userstr": "1000:wheel"})
    assert (await run(ready, of)).out == b"uid=1000(ann) gid=10(wheel)\n"


async def test_lists_of_accounts_that_lead_out_of_its_root_do_not(ready: UtilityVM) -> None:
    async with root(ready, "c"):
        await sh(ready, f"cd {root_of('c')}/etc; rm passwd; ln -s ../../../../../../../../outside passwd; echo eve:x:66:66::/: >/outside")
        of = spec("id")
        of["process"]["user"]["username"] = "eve"
        with pytest.raises(GuestError, match="no such user: eve"):
            await create(ready, "c", of)
        await sh(ready, f"rm /outside; cd {root_of('c')}/etc; rm passwd; mkfifo passwd")
        with pytest.raises(GuestError, match="no such user: eve"):  # a pipe keeps nobody waiting
            await create(ready, "c", of)
        container = await create(ready, "c", spec("sh", "-c", "echo $HOME"))
        async with asyncio.timeout(LIMIT):
            assert (await ended(await start(container))).out == b"/\n"
        await container.delete_state()


async def test_layers_and_scratch_can_be_devices(ready: UtilityVM, tmp_path: Path) -> None:
    image, disk = erofs(tmp_path / "layer.erofs", {"from/the": b"image"}), ext4(tmp_path / "scratch.img")
    layer = await ready.layers.add(str(image))
    await ready.scsi.add(str(disk), "/run/gcs/c/c")
    await ready.layers.combine_lcow([layer.guest_path, "/run/layers/base"], "/run/gcs/c/c", root_of("c"))
    container = await create(ready, "c", spec("sh", "-c", "cat /from/the; echo written >/from/here"))
    assert await ended(await start(container)) == Done(0, b"image")
    assert (await sh(ready, "cat /run/gcs/c/c/upper/from/here")).out == b"written\n"
    await container.delete_state()
    await ready.layers.remove_combined(root_of("c"))
    await ready.scsi.remove(str(disk))
    await ready.layers.remove(layer)
    container.close()


async def test_a_root_without_a_scratch_folder_cannot_be_written(ready: UtilityVM) -> None:
    for paths in (["/run/layers/base"], ["/run/layers/top", "/run/layers/base"]):
        settings = {"ContainerRootPath": root_of("c"), "Layers": [{"Path": path} for path in paths]}
        assert ready._guest is not None
        await ready._guest.client.modify(resource("Add", "CombinedLayers", settings))
        container = await create(ready, "c", spec("touch", "/x", root={"path": "rootfs", "readonly": True}))
        done = await ended(await start(container))
        assert (done.code, done.err) == (1, b"touch: /x: Read-only file system\n")
        await container.delete_state()
        container.close()
        await ready.layers.remove_combined(root_of("c"))


# -- more processes -------------------------------------------------------------------------------------------------


async def test_more_processes_run_beside_the_first(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("sh", "-c", "echo up; sleep 1000")) as container:
        first = await start(container)
        await line(first)
        second = await container.execute(process("sh", "-c", "cat; id; exit 5", username="ann"), stdin=True)
        await second.stdin.write_eof()
        assert await ended(second) == Done(5, b"uid=1000(ann) gid=100(users) groups=10(wheel)\n")
        assert await ended(await container.execute(process("ps"))) != Done(0, b"")
        for args, result in ((["nothing"], gcs.FILE_NOT_FOUND), (["/etc/passwd"], gcs.ACCESS_DENIED)):
            with pytest.raises(GuestError) as caught:
                await container.execute(process(*args))
            assert caught.value.result == result
        await first.close()


async def test_a_process_that_ends_at_once_is_not_missed(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("sleep", "1000")) as container:
        first = await start(container)
        async with asyncio.timeout(LIMIT):
            codes = [(await ended(await container.execute(process("sh", "-c", f"exit {code}")))).code for code in range(5)]
        assert codes == list(range(5))
        await first.close()


async def test_terminals_of_both_kinds_have_their_size(ready: UtilityVM) -> None:
    of = spec("sh", "-c", "stty size; cat; exit 4")
    of["process"] |= {"terminal": True, "consoleSize": {"height": 7, "width": 9}}
    async with created(ready, "c", of) as container:
        first = await start(container, stdin=True, terminal=True)
        assert await line(first) == b"7 9\r\n"
        second = await container.execute(process("sh", "-c", "cat >/dev/null; stty size", terminal=True), stdin=True)
        await second.resize(height=33, width=77)
        await second.stdin.write(b"\x04")
        done = await ended(second)
        assert (done.code, done.out.splitlines()[-1]) == (0, b"33 77")
        await first.stdin.write(b"\x04")
        assert (await ended(first)).code == 4


async def test_children_that_go_on_do_not_keep_the_end_of_a_process_back(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("sleep", "1000")) as container:
        first = await start(container)
        second = await container.execute(process("sh", "-c", "sleep 1000 & echo said"))
        assert await line(second) == b"said\n"
        async with asyncio.timeout(LIMIT):
            assert await second.wait() == 0
        await first.close()
        await second.close()


# -- its end --------------------------------------------------------------------------------------------------------


async def test_its_end_says_how_it_came(ready: UtilityVM) -> None:
    trap = spec("sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done")
    for end, code, kind in (("shutdown", 3, NotificationType.GRACEFUL_EXIT), ("terminate", 137, NotificationType.FORCED_EXIT)):
        async with created(ready, "c", trap) as container:
            first = await start(container)
            await line(first)
            await getattr(container, end)()
            assert (await ended(first)).code == code
            async with asyncio.timeout(LIMIT):
                assert (await container.wait()).type == kind
            await getattr(container, end)()  # of one that has ended


async def test_one_that_is_killed_ends_though_nobody_reads_what_it_said(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("sh", "-c", "head -c 2000000 /dev/zero")) as container:
        first = await start(container)
        second = await container.execute(process("head", "-c", "2000000", "/dev/zero"))
        await container.terminate()
        async with asyncio.timeout(LIMIT):
            assert [await one.wait() for one in (first, second)] == [137, 137]
        for one in (first, second):
            await one.close()
    async with created(ready, "c", spec("sh", "-c", "head -c 1000000 /dev/zero")) as container:
        first = await start(container)
        await until(ready, "! ps | grep -q '[h]ead -c 1000000'")
        assert not first.ended, "its output has not been read"
        await container.terminate()  # of one that has ended
        async with asyncio.timeout(LIMIT):
            assert await first.wait() == 0
        await first.close()


async def test_one_that_was_never_started_ends_as_well(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("sleep", "1000")) as container:
        await container.terminate()
        async with asyncio.timeout(LIMIT):
            assert (await container.wait()).type == NotificationType.FORCED_EXIT


async def test_one_that_runs_is_not_deleted(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("sleep", "1000")) as container:
        first = await start(container)
        with pytest.raises(GuestError, match="container c is running: it cannot be deleted") as caught:
            await container.delete_state()
        assert caught.value.result == INVALID_STATE
        await first.close()


async def test_all_its_processes_end_with_the_first(ready: UtilityVM) -> None:
    for kinds in ("pid ipc uts mount", "ipc uts mount"):  # without a namespace for processes the kernel does not see to it
        async with created(ready, "c", spec("sh", "-c", "sleep 1000 & echo up; cat", kinds=kinds)) as container:
            first = await start(container, stdin=True)
            await line(first)
            second = await container.execute(process("sleep", "1000"))
            await first.stdin.write_eof()
            assert (await ended(first)).code == 0
            assert (await ended(second)).code == 137


async def test_running_out_of_memory_is_told_as_that(ready: UtilityVM) -> None:
    of = spec("sh", "-c", "head -c 60000000 /dev/zero | tail -n 1 | wc -c")
    of["linux"]["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    async with created(ready, "c", of) as container:
        await ended(await start(container))
        async with asyncio.timeout(LIMIT):
            assert (await container.wait()).result_info == '{"OomKills":1}'


# -- while it runs --------------------------------------------------------------------------------------------------


async def test_all_its_processes_are_listed_and_what_it_has_used_is_told(ready: UtilityVM) -> None:
    of = spec("sh", "-c", "sleep 1000 & sleep 1000 & x=$(seq 20000 | tail -n 1); echo $x; wait")
    of["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 30}}
    async with created(ready, "c", of) as container:
        first = await start(container)
        assert await line(first) == b"20000\n"
        told = await container.properties(["ProcessList", "Statistics", "Nonsense"])
        assert len(told.process_list) == 3
        assert first.pid in [entry.process_id for entry in told.process_list]
        metrics = told.metrics
        assert metrics is not None
        assert metrics.pids is not None
        assert (metrics.pids.current, metrics.pids.limit) == (3, 30)
        assert metrics.memory is not None
        assert metrics.memory.usage is not None
        assert metrics.memory.usage.limit == 64 << 20
        assert 0 < metrics.memory.usage.usage <= metrics.memory.usage.max < 64 << 20
        assert metrics.cpu is not None
        assert metrics.cpu.usage is not None
        assert metrics.cpu.usage.total > 1_000_000
        await first.close()


async def test_its_limits_change_while_it_runs(ready: UtilityVM) -> None:
    of = spec("sh", "-c", "echo up; sleep 1000")
    of["linux"]["resources"] = {"memory": {"limit": 64 << 20}}
    async with created(ready, "c", of) as container:
        first = await start(container)
        await line(first)
        await container.update({"memory": {"limit": 32 << 20}, "pids": {"limit": 7}, "cpu": {"quota": 50_000, "period": 100_000}})
        group = "/sys/fs/cgroup/containers/c"
        assert (await sh(ready, f"cd {group}; cat memory.max pids.max cpu.max")).out == b"33554432\n7\n50000 100000\n"
        with pytest.raises(GuestError, match="crun update: "):
            await container.update({"cpu": {"quota": 1, "period": 3}})
        assert (await sh(ready, f"cat {group}/memory.max")).out == b"33554432\n"
        await first.close()


async def test_it_stands_still_while_it_is_paused(ready: UtilityVM) -> None:
    async with created(ready, "c", spec("sh", "-c", "while read x; do echo $x; done")) as container:
        first = await start(container, stdin=True)
        for _ in range(2):
            await container.pause()
            await container.pause()
            assert (await sh(ready, "grep frozen /sys/fs/cgroup/containers/c/cgroup.events")).out == b"frozen 1\n"
            await first.stdin.write(b"said\n")
            with pytest.raises(GuestError, match="container c is paused: it cannot be given another process") as caught:
                await container.execute(process("true"))
            assert caught.value.result == INVALID_STATE
            await container.resume()
            assert await line(first) == b"said\n"
        await container.pause()
        await container.terminate()  # has an effect all the same
        assert (await ended(first)).code == 137


async def test_a_signal_reaches_one_process_or_all(ready: UtilityVM) -> None:
    script = "trap 'echo got' USR1; sh -c 'trap \"echo too\" USR1; echo up; while :; do sleep 0.01; done' & while :; do sleep 0.01; done"
    async with created(ready, "c", spec("sh", "-c", script)) as container:
        first = await start(container)
        assert await line(first) == b"up\n"
        assert await first.kill(10)
        assert await line(first) == b"got\n"
        assert await container.signal_all(first, 10)
        assert {await line(first), await line(first)} == {b"got\n", b"too\n"}
        with pytest.raises(GuestError, match="no such signal"):
            await container._client.inside("c").signal_process(first.pid, 65)
        await first.close()


async def test_a_privileged_container_has_the_machines_devices(ready: UtilityVM) -> None:
    device = "/dev/vport0p1"  # the agent has it, and nobody else can have it at the same time
    major, minor = (await sh(ready, f"stat -c '%t %T' {device}")).out.decode().split()
    opened = f"test -c {device} && echo there; mknod /tmp/port c {int(major, 16)} {int(minor, 16)} && head -c 0 /tmp/port"
    plain = await run(ready, spec("sh", "-c", opened))
    assert plain.out == b""
    assert b"/tmp/port: Operation not permitted" in plain.err, "a device that nobody named can be opened"
    named = spec("sh", "-c", opened)
    named["linux"]["devices"] = [{"path": device, "type": "c", "major": 1, "minor": 1}]
    privileged = spec("sh", "-c", opened, annotations={"io.microsoft.virtualmachine.lcow.privileged": "true"})
    for of in (named, privileged):
        done = await run(ready, of)
        assert done.out == b"there\n"
        assert b"busy" in done.err


async def test_many_containers_leave_nothing(ready: UtilityVM) -> None:
    async def one(name: str) -> None:
        assert (await run(ready, spec("sh", "-c", "echo up; exit 3"), name)).code == 3

    for _ in range(2):
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(one(f"many-{number}"))


# -- several --------------------------------------------------------------------------------------------------------


async def test_two_containers_know_nothing_of_each_other(ready: UtilityVM) -> None:
    async with created(ready, "a", spec("sh", "-c", "echo secret >/file; echo up; sleep 1000")) as a:
        first = await start(a)
        await line(first)
        async with created(ready, "b", spec("sh", "-c", "cat /file; ps | grep -c '[s]leep 1000'")) as b:
            with pytest.raises(GuestError, match="no such process"):
                await b._client.inside("b").wait_process(first.pid)
            assert (await ended(await start(b))).out == b"top\n0\n"
        told = await ready.properties(PropertyType.PROCESS_LIST)
        assert told.process_list == [], "a container's processes are not the machine's"
        await first.close()


async def test_a_workload_lives_in_its_sandbox(ready: UtilityVM) -> None:
    kubernetes = "io.kubernetes.cri."
    box = spec("sh", "-c", "echo up; sleep 1000", hostname="pod", annotations={f"{kubernetes}container-type": "sandbox"})
    inside = {f"{kubernetes}container-type": "container", f"{kubernetes}sandbox-id": "pod"}
    async with created(ready, "pod", box) as pod:
        first = await start(pod)
        await line(first)
        work = spec(
            "sh", "-c", "hostname; cat /etc/hostname; test $$ -gt 1 && echo joined; echo x >/shared/f", kinds="mount", annotations=inside
        )
        work["mounts"].append({"destination": "/shared", "type": "bind", "source": "sandbox://a/b", "options": ["rbind"]})
        assert await run(ready, work, "work") == Done(0, b"pod\npod\njoined\n")
        assert (await sh(ready, "cat /run/gcs/c/pod/sandboxMounts/a/b/f")).out == b"x\n"
        work["mounts"][-1]["source"] = "sandbox://../out"
        async with root(ready, "work"):
            with pytest.raises(GuestError, match="is not within sandbox's mounts dir"):
                await create(ready, "work", work)
        await first.close()
    async with root(ready, "work"):
        with pytest.raises(GuestError, match='no such container: "pod"'):
            await create(ready, "work", spec("true", kinds="mount", annotations=inside))
