"""Images come from a real registry, whole or not at all, whatever the registry, the road or the disk does."""

import asyncio
import base64
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.images.conftest import BIG, HERE, OPEN, OTHER, SMALL
from tests.images.registry import PASSWORD, SECONDS, USER, Registry, registry, road
from tests.unit.images.samples import digest, moments_within, nobodys
from utilityvm.images.depot import Progress  # noqa: TC001 (a value, too)
from utilityvm.images.formats import parse_platform
from utilityvm.images.skopeo import Access
from utilityvm.images.store import ImageStore
from utilityvm.kit.errors import Corrupt, DeadlineExceeded, Exhausted, HostError, InvalidOptions, NotFound
from utilityvm.kit.proc import run_tool


async def test_an_image_comes_to_the_byte_as_the_registry_has_it(hub: Registry, store: ImageStore) -> None:
    heard: list[Progress] = []
    image = await store.pull(f"{hub.address}/small:1", access=OPEN, tell=heard.append)
    assert (image.name.short, image.digest, image.id) == (f"{hub.address}/small:1", SMALL.digest, digest(SMALL.config_blob))
    assert [layer.stem for layer in image.layers] == [digest(layer)[7:] for layer in reversed(SMALL.layers)]
    for data in SMALL.blobs().values():
        assert store._depot.blobs.path(digest(data)).read_bytes() == data
    assert nobodys(store) == []
    assert {progress.what for progress in heard} == {"layer 1/2", "layer 2/2"}


async def test_an_image_of_docker_s_own_kind_keeps_its_digest_and_its_id(hub: Registry, store: ImageStore, tmp_path: Path) -> None:
    served = run_tool(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{hub.address}/docker:1"], within=SECONDS)
    image = await store.pull(f"{hub.address}/docker:1", access=OPEN)
    assert json.loads(served)["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert (image.digest, image.id) == (digest(served.encode()), json.loads(served)["config"]["digest"])
    assert image.config.cmd == ("sh",)
    store.prune()
    with (tmp_path / "exported.tar").open("wb") as file:
        store.export(str(image.name), file)
    assert ImageStore(tmp_path / "second").import_(tmp_path / "exported.tar").digest == image.digest


async def test_the_image_of_the_host_s_platform_is_pulled_or_of_another_that_is_asked_for(hub: Registry, store: ImageStore) -> None:
    assert (await store.pull(f"{hub.address}/platforms:1", access=OPEN)).digest == SMALL.digest
    image = await store.pull(f"{hub.address}/platforms:1", access=OPEN, platform=parse_platform("linux/s390x"))
    assert (image.digest, image.config.platform) == (OTHER.digest, "linux/s390x")


@pytest.mark.parametrize(
    ("name", "platform", "there"), [("platforms", "linux/arm64/v8", f"linux/{HERE}, linux/s390x"), ("other", "", "linux/s390x")]
)
async def test_a_platform_that_is_missing_is_told_with_those_there_are(
    hub: Registry, store: ImageStore, name: str, platform: str, there: str
) -> None:
    wanted = parse_platform(platform) if platform else None
    with pytest.raises(NotFound, match=f"has no image for {platform or 'linux/' + HERE}, only for {there}"):
        await store.pull(f"{hub.address}/{name}:1", access=OPEN, platform=wanted)
    assert store.list() == []


async def test_an_image_is_pulled_by_its_digest(hub: Registry, store: ImageStore) -> None:
    name = f"{hub.address}/small@{SMALL.digest}"
    assert (await store.pull(name, access=OPEN)).digest == SMALL.digest
    assert store.get(name).digest == SMALL.digest


async def test_what_is_here_is_not_fetched_again(hub: Registry, store: ImageStore) -> None:
    await store.pull(f"{hub.address}/big:1", access=OPEN)
    before = hub.asked_for("big")
    heard: list[Progress] = []
    await store.pull(f"{hub.address}/big:1", access=OPEN, tell=heard.append)
    assert hub.asked_for("big") == before
    assert heard == []


async def test_pulls_of_one_image_at_the_same_time_fetch_it_once(hub: Registry, store: ImageStore, tmp_path: Path) -> None:
    before = len(hub.asked_for("big"))
    name = f"{hub.address}/big:1"
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", PULL, tmp_path / "images", name, stdout=asyncio.subprocess.DEVNULL)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(store.pull(name, access=OPEN)) for _ in range(3)]
    assert {task.result().digest for task in tasks} == {BIG.digest}
    assert await other.wait() == 0
    assert len(hub.asked_for("big")) - before == len(BIG.layers) + 1
    assert nobodys(store) == []


async def test_a_pull_that_waits_for_another_can_be_given_up(hub: Registry, store: ImageStore) -> None:
    async with road(hub.address, after=1 << 20) as (address, blocked), asyncio.TaskGroup() as group:
        first = group.create_task(store.pull(f"{address}/big:1", access=OPEN))
        await blocked.wait()
        with pytest.raises(DeadlineExceeded, match="not at its end after 1 s"):
            await store.pull(f"{hub.address}/big:1", access=OPEN, timeout=1)
        first.cancel()
    store.prune()
    assert nobodys(store) == []


async def test_a_registry_that_stops_speaking_is_given_up_and_the_next_pull_goes_on(
    hub: Registry, store: ImageStore, tmp_path: Path
) -> None:
    begin = time.monotonic()
    await ImageStore(tmp_path / "first").pull(f"{hub.address}/big:1", access=OPEN)
    enough = 2 + 2 * (time.monotonic() - begin)  # for what comes before it stops
    async with road(hub.address, after=5 << 20) as (address, _):
        with pytest.raises(DeadlineExceeded) as caught:
            await store.pull(f"{address}/big:1", access=OPEN, timeout=enough)
    assert caught.value.hint == "the next goes on where it was"
    assert _children() == set()
    there = {path.name for path in store._depot.blobs.files()}
    before = len(hub.asked_for("big"))
    assert (await store.pull(f"{hub.address}/big:1", access=OPEN)).digest == BIG.digest
    fetched = {name.removeprefix("sha256:") for name in hub.asked_for("big")[before:]}
    assert there
    assert not fetched & there
    assert len(fetched) == len(BIG.layers) + 1 - len(there)
    assert nobodys(store) == []


@pytest.fixture(scope="session")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that wants to know who is there."""
    with registry(tmp_path_factory.mktemp("hall"), asks=True) as served:
        served.push_sample(SMALL, "small:1")
        yield served


async def test_who_is_not_let_in_is_told_how_to_log_in(hall: Registry, store: ImageStore, tmp_path: Path) -> None:
    name = f"{hall.address}/small:1"
    with pytest.raises(HostError, match=f"pull {name}: .*(unauthorized|authentication required)") as caught:
        await store.pull(name, access=OPEN)
    assert "--authfile" in caught.value.hint
    wrong, right = tmp_path / "wrong.json", tmp_path / "right.json"
    for path, password in ((wrong, "guess"), (right, PASSWORD)):
        login = base64.b64encode(f"{USER}:{password}".encode()).decode()
        path.write_text(json.dumps({"auths": {hall.address: {"auth": login}}}))
    with pytest.raises(HostError):
        await store.pull(name, access=Access(authfile=wrong, tls_verify=False))
    assert store.list() == []
    assert (await store.pull(name, access=Access(authfile=right, tls_verify=False))).digest == SMALL.digest


async def test_a_registry_without_tls_is_believed_only_when_that_is_said(hub: Registry, store: ImageStore) -> None:
    with pytest.raises(HostError, match="HTTP response to HTTPS client") as caught:
        await store.pull(f"{hub.address}/small:1")
    assert "--tls-verify=false" in caught.value.hint


async def test_a_signature_policy_is_asked(hub: Registry, store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(json.dumps({"default": [{"type": "reject"}]}))
    with pytest.raises(HostError, match="rejected by policy") as caught:
        await store.pull(f"{hub.address}/small:1", access=Access(policy=tmp_path / "policy.json", tls_verify=False))
    assert "signature policy" in caught.value.hint
    (tmp_path / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    await store.pull(f"{hub.address}/small:1", access=Access(policy=tmp_path / "policy.json", tls_verify=False))


@pytest.mark.parametrize("name", ["small:2", "nothing:1"])
async def test_an_image_that_the_registry_has_not_is_not_found(hub: Registry, store: ImageStore, name: str) -> None:
    with pytest.raises(NotFound, match=f"pull {hub.address}/{name}: .*(manifest unknown|name unknown)"):
        await store.pull(f"{hub.address}/{name}", access=OPEN)


async def test_nobody_at_the_address_is_told(store: ImageStore, unused_tcp_port: int) -> None:
    with pytest.raises(HostError, match="connection refused"):
        await store.pull(f"127.0.0.1:{unused_tcp_port}/small:1", access=OPEN)


async def test_without_skopeo_it_is_told_what_to_install(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("setpriv", "sh"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="skopeo: command not found") as caught:
        await store.pull("127.0.0.1:1/small:1")
    assert caught.value.hint == "install the package skopeo"


@pytest.mark.parametrize("part", ["layer", "configuration", "manifest"])
async def test_other_bytes_than_were_promised_make_no_image(store: ImageStore, tmp_path: Path, part: str) -> None:
    spoilt = {"layer": SMALL.layer_blobs[0], "configuration": SMALL.config_blob, "manifest": SMALL.manifest_blob}[part]
    with registry(tmp_path) as served:
        served.push_sample(SMALL, "small:1")
        path = served.stored(digest(spoilt))
        path.write_bytes(path.read_bytes().replace(b"linux", b"minix") if part == "configuration" else path.read_bytes()[:-1] + b" ")
        with pytest.raises(Corrupt if part != "manifest" else (Corrupt, HostError)):
            await store.pull(f"{served.address}/small@{SMALL.digest}", access=OPEN)
        assert store.list() == []
        store.prune()
        assert nobodys(store) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a small file system")
async def test_a_full_disk_is_told_and_what_was_there_stays(hub: Registry, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    run_tool(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", small], within=SECONDS)
    try:
        store = ImageStore(small / "images")
        await store.pull(f"{hub.address}/small:1", access=OPEN)
        with pytest.raises(Exhausted, match="no space left on device|disk is full") as caught:
            await store.pull(f"{hub.address}/big:1", access=OPEN)
        assert "uvm prune" in caught.value.hint
        assert [image.digest for image in store.list()] == [SMALL.digest]
        store.prune()
        assert nobodys(store) == []
        store.export(f"{hub.address}/small:1", io.BytesIO())
    finally:
        run_tool(["umount", small], within=SECONDS)


PULL = """
import asyncio, pathlib, sys
from utilityvm.images.skopeo import Access
from utilityvm.images.store import ImageStore
print("go", flush=True)
asyncio.run(ImageStore(pathlib.Path(sys.argv[1])).pull(sys.argv[2], access=Access(tls_verify=False)))
"""


async def test_killed_at_any_moment_it_leaves_a_whole_store_and_prune_removes_the_rest(hub: Registry, store: ImageStore) -> None:
    name, left = f"{hub.address}/big:1", list[int]()

    async def pulling() -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", PULL, store._depot.folder, name, stdout=asyncio.subprocess.PIPE)
        assert child.stdout
        assert await child.stdout.readline() == b"go\n"
        return child

    async def checked() -> int:
        """Return how much is nobody's before the store is pruned, and is not after that."""
        for image in store.list():
            assert image.digest == BIG.digest
            store.export(name, io.BytesIO())
        if not store._depot.folder.exists():
            return 0
        found = len(nobodys(store))
        await _free(store)
        store.prune(keep=0)
        assert nobodys(store) == []
        return found

    child = await pulling()
    begun = time.monotonic()
    assert await child.wait() == 0
    whole = time.monotonic() - begun
    assert await checked() == 0
    for moment in moments_within(whole, 8, enough=lambda: any(left)):
        child = await pulling()
        with suppress(TimeoutError):
            async with asyncio.timeout(moment):
                await child.wait()
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        left.append(await checked())
    assert sum(left) > 0


async def _free(store: ImageStore) -> None:
    """Wait until the killed pull's own children have gone with it: one may hold the store's lock a moment longer."""
    child = await asyncio.create_subprocess_exec("flock", store._depot.folder / "lock", "true")
    assert await child.wait() == 0


def _children() -> set[str]:
    pids = {pid for listing in Path("/proc/self/task").glob("*/children") for pid in listing.read_text().split()}
    return {pid for pid in pids if b"skopeo" in Path("/proc", pid, "cmdline").read_bytes()}


async def test_what_umoci_unpacks_is_described_by_the_same_words(hub: Registry, store: ImageStore, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    run_tool(
        ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{hub.address}/small:1", f"oci:{layout}:small"], within=SECONDS
    )
    run_tool(["umoci", "unpack", "--image", f"{layout}:small", tmp_path / "bundle"], within=SECONDS, package="umoci")
    process = json.loads((tmp_path / "bundle" / "config.json").read_text())["process"]
    config = (await store.pull(f"{hub.address}/small:1", access=OPEN)).config
    assert process["args"] == [*config.entrypoint, *config.cmd]
    assert set(config.env) <= set(process["env"])
    assert process["cwd"] == (config.working_dir or "/")


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
async def test_others_read_what_is_exported(hub: Registry, store: ImageStore, tmp_path: Path, transport: str) -> None:
    name = f"{hub.address}/small:1"
    await store.pull(name, access=OPEN)
    with (tmp_path / "exported.tar").open("wb") as file:
        store.export(name, file)
    words = ["skopeo", "inspect", "--config", f"{transport}:{tmp_path / 'exported.tar'}"]
    read = json.loads(run_tool(words, within=SECONDS))
    assert read["rootfs"]["diff_ids"] == [digest(layer) for layer in SMALL.layers]
    assert read["config"]["Cmd"] == ["sh"]


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive", "oci"])
async def test_what_others_write_is_imported(hub: Registry, store: ImageStore, tmp_path: Path, transport: str) -> None:
    source = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{hub.address}/small:1"]
    run_tool([*source, f"{transport}:{tmp_path / 'written'}:small:1"], within=SECONDS)
    image = store.import_(tmp_path / "written")
    assert image.name.short == "small:1"
    assert [layer.stem for layer in image.layers] == [digest(layer)[7:] for layer in reversed(SMALL.layers)]
    assert image.config.cmd == ("sh",)


async def test_a_name_that_is_none_is_refused_before_anything_is_asked(store: ImageStore) -> None:
    with pytest.raises(InvalidOptions):
        await store.pull("No/Such:Name:1")
    assert not store._depot.folder.exists()
