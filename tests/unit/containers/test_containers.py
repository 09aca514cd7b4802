"""Containers of a VM on fakes: from their creation to the giving back of all that they had."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from utilityvm import HNSEndpoint, Namespace
from utilityvm.containers.life import ContainerState
from utilityvm.kit.errors import (
    ConnectionLost,
    DeadlineExceeded,
    Exists,
    GuestError,
    HostError,
    InvalidOptions,
    NotFound,
    StateError,
    Unsupported,
    UtilityVMError,
)
from utilityvm.plan.facts import Platform
from utilityvm.testing.guest import FakeGuest, Program
from utilityvm.wire.gcs import NotificationType
from utilityvm.wire.oci import MemoryLimits, OciProcess, Resources, User, read_spec

from .rig import LAYERS, SIZE, a_vm, config, nothing_is_left, spec


async def test_a_container_runs_on_layers_and_a_scratch_disk_and_gives_all_of_it_back(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec("say", "hello"), layers=LAYERS, scratch_size_in_bytes=SIZE)
        assert (container.id, container.state, world.vm.containers) == ("c", ContainerState.CREATED, (container,))
        process = await container.start()
        assert (await process.stdout.read(), container.pid) == (b"hello", process.pid)
        ended = await container.wait()
        assert (ended.exit_code, ended.how, ended.oom_killed) == (1, NotificationType.UNEXPECTED_EXIT, False)
        assert container.state is ContainerState.STOPPED
        await container.delete()
        assert [container.state] == [ContainerState.DELETED]
        assert await container.wait() == ended, "what is known is told"
        nothing_is_left(world)


async def test_the_guest_is_told_in_the_order_that_it_needs_and_asked_back_in_the_reverse(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        async with await world.vm.create_container("c", spec(), layers=LAYERS[:1], scratch_size_in_bytes=SIZE) as container:
            await container.start()
        asked = [what.removeprefix("guest ") for what in world.asked if what.startswith("guest")]
        up, down = asked[:3], asked[3:]
        assert sorted(up[:2]) == ["Add MappedVirtualDisk", "Add VPMemDevice"]
        assert up[2] == "Add CombinedLayers"
        assert down[0] == "Remove CombinedLayers"
        assert sorted(down[1:]) == ["Remove MappedVirtualDisk", "Remove VPMemDevice"]
        nothing_is_left(world)


async def test_the_guest_is_told_where_the_root_is_and_what_is_run(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        await world.vm.create_container("c", spec("say", "x"), layers=LAYERS, scratch_size_in_bytes=SIZE)
        told = config(world, "c")
        assert told["SchemaVersion"] == {"Major": 2, "Minor": 1}
        assert told["OciBundlePath"] == "/run/gcs/c/c"
        assert told["ScratchDirPath"] == "/run/mounts/m1/scratch/c"
        assert told["OciSpecification"]["root"] == {"path": "/run/gcs/c/c/rootfs"}
        union = next(request["Settings"] for request in world.guest_requests() if request["ResourceType"] == "CombinedLayers")
        assert union == {
            "ContainerRootPath": "/run/gcs/c/c/rootfs",
            "Layers": [{"Path": "/run/layers/p0"}, {"Path": "/run/layers/p1"}],
            "ScratchPath": "/run/mounts/m1/scratch/c",
        }
        disk = next(request["Settings"] for request in world.guest_requests() if request["ResourceType"] == "MappedVirtualDisk")
        assert disk == {"MountPath": "/run/mounts/m1", "Options": ["discard"]}


async def test_without_a_scratch_disk_the_root_can_only_be_read(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=None)
        told = config(world, "c")
        assert told["OciSpecification"]["root"] == {"path": "/run/gcs/c/c/rootfs", "readonly": True}
        assert "ScratchDirPath" not in told
        assert world.vm.scsi.disks == ()


async def test_without_layers_the_root_is_a_path_of_the_guest(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        await world.vm.create_container("c", spec(root={"path": "/there", "readonly": True}))
        assert config(world, "c")["OciSpecification"]["root"] == {"path": "/there", "readonly": True}
        assert world.asked == []


async def test_a_layer_that_is_there_twice_is_mounted_once(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        await world.vm.create_container("c", spec(), layers=(*LAYERS, LAYERS[0]), scratch_size_in_bytes=None)
        assert [device.references for device in world.vm.vpmem.devices] == [1, 1]


async def test_containers_of_the_same_layers_share_them_and_the_last_gives_them_back(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        first = await world.vm.create_container("a", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        second = await world.vm.create_container("b", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        assert [device.references for device in world.vm.vpmem.devices] == [2, 2]
        assert len(world.vm.scsi.disks) == 2
        await first.close()
        assert [device.references for device in world.vm.vpmem.devices] == [1, 1]
        await second.close()
        nothing_is_left(world)


async def test_a_disk_of_the_callers_and_a_containers_can_be_shared(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        one = await world.vm.create_container("a", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        two = await world.vm.create_container("b", spec(), layers=LAYERS, scratch=one)
        assert [disk.references for disk in world.vm.scsi.disks] == [2]
        assert config(world, "b")["ScratchDirPath"] == "/run/mounts/m1/scratch/b"
        await one.close()
        with pytest.raises(InvalidOptions, match="container a has no scratch disk to be shared"):
            await world.vm.create_container("x", spec(), layers=LAYERS, scratch=one)
        three = await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        assert len({disk.host_path for disk in world.vm.scsi.disks}) == 2, "a file that is in use lost its descriptor"
        await two.close()
        await three.close()
        mine = str(tmp_path / "mine.img")
        for name in ("a", "b"):
            await world.vm.create_container(name, spec(), layers=LAYERS, scratch=mine)
        assert [(disk.host_path, disk.references) for disk in world.vm.scsi.disks] == [(mine, 2)]
        for container in world.vm.containers:
            await container.close()
        nothing_is_left(world)


async def test_scratch_disks_leave_no_file_and_no_descriptor(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        await (await world.vm.create_container("warm", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)).close()
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (names are what is counted)
        container = await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        assert list((tmp_path / "state" / "scratch").iterdir()) == []
        await container.close()
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


async def test_on_hyper_v_a_disk_of_the_callers_is_needed(tmp_path: Path) -> None:
    async with a_vm(tmp_path, Platform.HYPERV) as world:
        with pytest.raises(Unsupported, match="scratch disks are made on hosts of Linux"):
            await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        nothing_is_left(world)
        await world.vm.create_container("c", spec(), layers=LAYERS, scratch="/mine.vhdx")
        assert world.files.asked == [("grant_access", "fake", "/mine.vhdx")]


# -- its processes ------------------------------------------------------------------------------------------------------


async def test_other_processes_have_what_the_first_one_has_but_for_what_is_said(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec(process={"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 5, "soft": 5}]}))
        await container.start()
        done = await container.run(["say", "a", "b"], env={"A": "c", "B": "d"}, cwd="/tmp", user="you:us")
        assert (done.exit_code, done.stdout) == (2, b"a b")
        told = await container.run(["cat"], input=b"x" * 100_000)
        assert told.stdout == b"x" * 100_000


async def test_an_oci_process_is_run_as_it_is(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        await container.start()
        for process in (OciProcess(args=["say", "x"], user=User(uid=1, gid=2), cwd="/"), spec("say", "x")["process"]):
            assert (await container.run(process)).stdout == b"x"
            with pytest.raises(InvalidOptions, match="container c: env, cwd beside an OCI process"):
                await container.exec(process, env={}, cwd="/")
        with pytest.raises(Unsupported, match=r"process: \$: Object contains unknown field `nice`"):
            await container.exec(spec("say", process={"nice": 3})["process"])


@pytest.mark.parametrize(
    ("argv", "more", "said"),
    [
        ("say x", {}, "the process is one text: give a list of words"),
        ([], {}, "argv is empty"),
        (["a\0"], {}, "has a zero byte"),
        (["say"], {"env": {"": "x"}}, "cannot name an environment variable"),
        (["say"], {"console_size": (1, -1)}, "console_size"),
    ],
)
async def test_what_no_guest_could_start_is_refused_before_it_is_sent(tmp_path: Path, argv: Any, more: Any, said: str) -> None:  # noqa: ANN401
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        await container.start()
        with pytest.raises(InvalidOptions, match=said):
            await container.exec(argv, **more)


async def test_a_program_that_is_missing_is_told_and_the_container_is_as_it_was(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec("nothing"))
        with pytest.raises(GuestError, match="nothing: no such program"):
            await container.start()
        assert container.state is ContainerState.CREATED
        await container.close()
        nothing_is_left(world)


async def test_a_terminal_has_no_errors_of_its_own(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec("say", "x", process={"terminal": True}))
        process = await container.start()
        assert await process.stderr.read() == b""
        assert (await process.stdout.read(), (await container.wait()).exit_code) == (b"x", 1)


# -- its end ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("all_of_them", [False, True])
async def test_a_signal_reaches_one_process_or_all(tmp_path: Path, *, all_of_them: bool) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        await container.start()
        other = await container.exec(["forever"])
        assert await container.kill(15, all=all_of_them)
        assert (await container.wait()).exit_code == 137
        assert await other.wait() == 137
        assert world.agent.signals == [{"Signal": 15, "Group": True} if all_of_them else {"Signal": 15}]


async def test_memory_that_ran_out_is_told(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        await container.start()
        world.agent.containers["c"].oom_kills = 2
        await container.kill()
        ended = await container.wait()
        assert (ended.oom_killed, ended.oom_kills, ended.exit_code) == (True, 2, 137)


async def test_a_container_that_runs_is_ended_by_close_and_not_by_delete(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        await container.start()
        with pytest.raises(StateError, match="cannot delete while running"):
            await container.delete()
        await container.close()
        assert (await container.wait()).how is NotificationType.FORCED_EXIT
        await container.close()
        nothing_is_left(world)


async def test_a_container_that_never_ran_is_deleted_and_its_name_is_free(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        for _ in range(2):
            container = await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
            waiting = asyncio.ensure_future(container.wait())  # noqa: TID251 (awaited below)
            await asyncio.sleep(0)
            await container.delete()
            with pytest.raises(StateError, match="cannot wait while deleted"):
                await waiting
            nothing_is_left(world)


@pytest.mark.parametrize("started", [False, True])
async def test_closing_ends_those_who_wait(tmp_path: Path, *, started: bool) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        if started:
            await container.start()

        async def told() -> object:
            try:
                return (await container.wait()).how
            except StateError as error:
                return type(error)

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            waiting = [group.create_task(told()) for _ in range(2)]
            await asyncio.sleep(0)
            await container.close()
        assert [one.result() for one in waiting] == [NotificationType.FORCED_EXIT if started else StateError] * 2


async def test_waiting_has_an_end(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        await container.start()
        with pytest.raises(DeadlineExceeded, match="container c: still runs after 0 s"):
            await container.wait(timeout=0)
        with pytest.raises(InvalidOptions, match="timeout"):
            await container.wait(timeout=float("nan"))
        assert container.state is ContainerState.RUNNING


async def test_the_vms_close_ends_containers_without_asking_each(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        made = [await world.vm.create_container(f"c{at}", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE) for at in range(3)]
        await made[0].start()
        waiting = asyncio.ensure_future(made[0].wait())  # noqa: TID251 (awaited below)
        await asyncio.sleep(0)
        asked = len(world.asked)
        await world.vm.close()
        with pytest.raises(ConnectionLost):
            await waiting
        assert {container.state for container in made} == {ContainerState.DELETED}
        assert len(world.asked) == asked, "containers of a VM that ends were asked one by one"
        for container in made:
            await container.close()


async def test_a_vm_that_ends_by_itself_stops_its_containers_and_closing_them_is_no_error(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        await container.start()
        world.end()
        await world.vm.wait()
        with pytest.raises(ConnectionLost):
            await container.wait()
        assert container.state is ContainerState.STOPPED
        await container.close()
        assert [container.state] == [ContainerState.DELETED]


# -- pausing, limits, telling -------------------------------------------------------------------------------------------


async def test_a_container_stands_still_until_it_is_resumed(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        await container.start()
        await container.pause()
        assert (container.state, world.agent.containers["c"].paused) == (ContainerState.PAUSED, True)
        with pytest.raises(StateError, match="cannot run a process while paused"):
            await container.exec(["say"])
        await container.resume()
        assert (container.state, world.agent.containers["c"].paused) == (ContainerState.RUNNING, False)
        await container.pause()
        await container.kill()
        await container.wait()
        assert container.state is ContainerState.STOPPED


async def test_a_cancelled_pause_is_carried_out(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        await container.start()
        pausing = asyncio.ensure_future(container.pause())  # noqa: TID251 (awaited below)
        await asyncio.sleep(0)
        pausing.cancel()
        await asyncio.wait([pausing])
        assert container.state is ContainerState.PAUSED


async def test_limits_are_changed_by_what_linux_guests_know(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        for limits in (Resources(memory=MemoryLimits(limit=1 << 26)), {"memory": {"limit": 1 << 26}}):
            await container.update(limits)
        sent = [request for about, request in world.agent.modified if about == "c"]
        assert (
            sent
            == [{"RequestType": "Update", "ResourceType": "ContainerConstraints", "Settings": {"Linux": {"memory": {"limit": 1 << 26}}}}]
            * 2
        )
        with pytest.raises(Unsupported, match=r"resources: \$.memory: Object contains unknown field `max`"):
            await container.update({"memory": {"max": 1}})


async def test_a_container_tells_of_itself(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        with pytest.raises(StateError, match="cannot tell its process id while created"):
            _ = container.pid
        first = await container.start()
        other = await container.exec(["forever"])
        assert await container.pids() == (first.pid, other.pid)
        told = (await container.stats()).pids
        assert told is not None
        assert told.current == 2


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".a", "a" * 129, "a b", "ä"])
async def test_an_id_that_could_leave_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    async with a_vm(tmp_path) as world:
        with pytest.raises(InvalidOptions, match="cannot name a container"):
            await world.vm.create_container(name, spec())
        nothing_is_left(world)


async def test_two_of_one_name_are_refused_also_at_once(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        both = await asyncio.gather(*(world.vm.create_container("c", spec()) for _ in range(2)), return_exceptions=True)  # noqa: TID251
        assert [type(one).__name__ for one in both] == ["Container", "Exists"]
        with pytest.raises(Exists, match="^container c already exists$"):
            await world.vm.create_container("c", spec())


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"process": None}, InvalidOptions, "process is missing"),
        ({"root": None}, InvalidOptions, "there are no layers, and root.path is no absolute path"),
        ({"cats": 1}, Unsupported, "unknown field `cats`"),
        ({"ociVersion": 1}, InvalidOptions, r"spec: \$.ociVersion: Expected `str`"),
        ({"annotations": {"io.microsoft.virtualmachine.cats": "1"}}, InvalidOptions, "is not known"),
        (
            {"annotations": {"io.microsoft.virtualmachine.computetopology.processor.count": "7"}},
            InvalidOptions,
            "says 7, and the VM has processor_count 2",
        ),
        (
            {"annotations": {"io.kubernetes.cri.container-type": "cat"}},
            InvalidOptions,
            "container-type': 'cat'",
        ),
        (
            {"annotations": {"io.kubernetes.cri.container-type": "container"}},
            InvalidOptions,
            "unsupported '.*sandbox-id': ''",
        ),
    ],
)
async def test_a_specification_that_makes_no_sense_is_refused_before_anything_is_done(
    tmp_path: Path, change: dict[str, Any], error: type[UtilityVMError], said: str
) -> None:
    async with a_vm(tmp_path) as world:
        with pytest.raises(error, match=said):
            await world.vm.create_container("c", spec() | change)
        assert world.asked == []
        nothing_is_left(world)


@pytest.mark.parametrize("size", [0, -1, True, "1g", 1 << 60])
async def test_a_size_that_no_disk_has_is_refused(tmp_path: Path, size: Any) -> None:  # noqa: ANN401
    async with a_vm(tmp_path) as world:
        with pytest.raises(InvalidOptions, match="scratch_size_in_bytes"):
            await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=size)
        nothing_is_left(world)


async def test_a_scratch_disk_without_layers_is_refused(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        with pytest.raises(InvalidOptions, match="a scratch disk is for layers"):
            await world.vm.create_container("c", spec(), scratch="/x.img")


# -- documents, pods ----------------------------------------------------------------------------------------------------


async def test_the_originals_document_is_handed_over_as_it_is(tmp_path: Path) -> None:
    document = {"SchemaVersion": {"Major": 2, "Minor": 1}, "OciBundlePath": "/b", "OciSpecification": spec("forever"), "Extra": [1]}
    async with a_vm(tmp_path) as world:
        with pytest.raises(InvalidOptions, match="layers, scratch or pod beside a document of its own"):
            await world.vm.create_container("c", document, layers=LAYERS)
        async with await world.vm.create_container("c", document) as container:
            assert config(world, "c") == document
            await container.start()
            assert (await container.run(["say", "x"])).stdout == b"x"
        nothing_is_left(world)


async def test_of_a_document_that_is_not_ours_a_process_must_be_an_oci_process(tmp_path: Path) -> None:
    document = {"SchemaVersion": {"Major": 2, "Minor": 1}, "OciSpecification": {"process": {"args": ["forever"], "cats": 1}}}
    async with a_vm(tmp_path) as world, await world.vm.create_container("c", document) as container:
        await container.start()
        with pytest.raises(InvalidOptions, match="is not known to be like: give an OCI process"):
            await container.exec(["say"])


async def test_our_agent_gets_the_whole_specification_and_others_what_the_original_gives_them(tmp_path: Path) -> None:
    wanted = spec(
        linux={
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
            "resources": {"pids": {"limit": 5}, "memory": {"limit": 1 << 27}, "devices": [{"allow": False}]},
            "cgroupsPath": "/x",
        },
        hooks={"prestart": [{"path": "/h"}]},
        windows={"layerFolders": ["C:\\x"], "network": {"networkNamespace": "ns", "endpointList": ["e"]}},
    )
    for ours in (True, False):
        async with a_vm(tmp_path, ours=ours) as world:
            with pytest.raises(NotFound, match="network namespace ns not found") as caught:
                await world.vm.create_container("c", wanted)
            assert "has no adapter in it: add one first" in caught.value.hint
            await world.vm.network.add_namespace(Namespace(id="NS"))
            await world.vm.network.add_endpoint("ns", HNSEndpoint(id="e", mac_address="02-00-00-00-00-01"))
            await world.vm.create_container("c", wanted)
            told = config(world, "c")["OciSpecification"]
            assert told["windows"] == {"network": {"networkNamespace": "ns"}}
            assert ("seccomp" in told["linux"], "hooks" in told) == (ours, ours)
            assert told["linux"]["resources"]["memory"] == {"limit": 1 << 27}
            assert ("pids" in told["linux"]["resources"], "devices" in told["linux"]["resources"]) == (ours, ours)
            assert "cgroupsPath" not in told["linux"]


async def test_devices_of_the_host_are_named_to_the_guest_by_their_places_and_given_back(tmp_path: Path) -> None:
    devices = [{"id": "PCIP\\1", "idType": "vpci-instance-id"}, {"id": "PCIP\\2", "idType": "vpci"}]
    async with a_vm(tmp_path, Platform.HYPERV, ours=False) as world:
        container = await world.vm.create_container("c", spec(windows={"devices": devices}))
        given = {device.device_id: device.vmbus_guid for device in world.vm.vpci.devices}
        told = config(world, "c")["OciSpecification"]["windows"]["devices"]
        assert told == [{"id": given["PCIP\\1"], "idType": "vpci-instance-id"}, {"id": given["PCIP\\2"], "idType": "vpci"}]
        await container.close()
        assert world.vm.vpci.devices == ()


@pytest.mark.parametrize(
    ("platform", "kind", "said"),
    [
        (Platform.HYPERV, "gpu", "x: a GPU's own programs and hooks are not in the guest"),
        (Platform.HYPERV, "class", "specified device x has unsupported type class"),
        (Platform.QEMU, "vpci-instance-id", "x: a guest on QEMU finds no device by its place on VMBus"),
    ],
)
async def test_a_device_that_no_container_can_be_given_is_refused_by_name(tmp_path: Path, platform: Platform, kind: str, said: str) -> None:
    async with a_vm(tmp_path, platform) as world:
        with pytest.raises(Unsupported, match=rf"^\$.windows.devices\[0\]: {said}$"):
            await world.vm.create_container("c", spec(windows={"devices": [{"id": "x", "idType": kind}]}))
        assert world.asked == []


async def test_a_pods_containers_name_its_sandbox(tmp_path: Path) -> None:
    sandbox = spec(annotations={"io.kubernetes.cri.container-type": "sandbox"})
    async with a_vm(tmp_path) as world:
        pod = await world.vm.create_container("pod", sandbox)
        await world.vm.create_container("c", spec(linux={"namespaces": [{"type": "ipc"}]}), pod=pod)
        told = config(world, "c")["OciSpecification"]
        assert told["annotations"] == {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod"}
        assert told["linux"]["namespaces"] == [{"type": "ipc"}], "our agent joins them itself"
        with pytest.raises(InvalidOptions, match="workload container must not change hostname: h"):
            await world.vm.create_container("d", spec(hostname="h"), pod=pod)


async def test_other_agents_are_told_the_namespaces_of_a_pod(tmp_path: Path) -> None:
    async with a_vm(tmp_path, ours=False) as world:
        pod = await world.vm.create_container("pod", spec(annotations={"io.kubernetes.cri.container-type": "sandbox"}))
        with pytest.raises(StateError, match="tell its process id"):
            await world.vm.create_container("c", spec(), pod=pod)
        await pod.start()
        own = {"type": "uts", "path": "/mine"}
        await world.vm.create_container("c", spec(linux={"namespaces": [{"type": "ipc"}, {"type": "mount"}, own]}), pod=pod)
        told = config(world, "c")["OciSpecification"]["linux"]["namespaces"]
        assert told == [
            {"type": "ipc", "path": f"/proc/{pod.pid}/ns/ipc"},
            {"type": "mount"},
            own,
            {"type": "network", "path": f"/proc/{pod.pid}/ns/net"},
        ]


async def test_a_struct_is_as_good_as_json(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        await world.vm.create_container("c", read_spec(spec("say")))
        await world.vm.create_container("d", spec("say"))
        assert config(world, "c")["OciSpecification"] == config(world, "d")["OciSpecification"]


async def test_a_container_cannot_be_made_where_nothing_runs(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec())
        await world.vm.pause()
        for call in (world.vm.create_container("d", spec()), container.start(), container.stats(), container.close()):
            with pytest.raises(StateError, match="cannot run a process while paused"):
                await call
        await world.vm.resume()
        await container.close()
        await world.vm.terminate()
        with pytest.raises(StateError, match="cannot run a process while stopped"):
            await world.vm.create_container("d", spec())


async def test_a_failed_creation_leaves_its_name_free_for_another(tmp_path: Path) -> None:
    """The original keeps the registration of the exit, and the id can never be used again."""
    async with a_vm(tmp_path) as world:
        world.agent.containers["c"] = None  # type: ignore[assignment]  # which it will refuse
        with pytest.raises(GuestError, match="container c exists"):
            await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        del world.agent.containers["c"]
        nothing_is_left(world)
        await world.vm.create_container("c", spec())


async def stubborn(_guest: FakeGuest, _program: Program) -> int:
    """Outlive the first attempt to kill it."""
    for _ in range(2):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    return 0


async def test_a_container_that_does_not_end_is_told_and_what_it_had_is_given_back_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utilityvm.containers.container.END_TIMEOUT", 0.05)
    async with a_vm(tmp_path, programs={"stubborn": stubborn}) as world:
        container = await world.vm.create_container("c", spec("stubborn"), layers=LAYERS, scratch_size_in_bytes=SIZE)
        await container.start()
        with pytest.raises(GuestError, match="container c runs"):
            await container.close()
        assert container.state is ContainerState.DELETED
        assert (world.vm.scsi.disks, world.vm.containers) == ((), ())


async def test_what_cannot_be_given_back_is_tried_again_by_the_next_close(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        mine = str(tmp_path / "mine.img")
        container = await world.vm.create_container("c", spec(), layers=LAYERS[:1], scratch=mine)
        await container.start()
        world.host = lambda what: HostError("busy") if "Remove" in what else None
        with pytest.raises(HostError, match="container c: failed to release one or more container resources.*busy"):
            await container.close()
        assert container.state is ContainerState.DELETED
        assert {disk.state for disk in world.vm.scsi.disks} == {"half detached"}
        assert world.agent.containers == {}, "one failure kept the rest"
        world.host = lambda _: None
        await container.close()
        nothing_is_left(world)
