"""Pulling: what a registry has of an image comes to the store by skopeo, and becomes an image there."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from utilityvm.images import formats
from utilityvm.images.blobs import digest_of
from utilityvm.images.depot import Depot, Progress, Tell
from utilityvm.images.formats import Index, Manifest, Platform
from utilityvm.images.image import Image
from utilityvm.images.importing import Job, finish
from utilityvm.images.names import Reference
from utilityvm.images.skopeo import PROGRAM, Access, failure
from utilityvm.kit.aio import finish as to_the_end
from utilityvm.kit.child import Child
from utilityvm.kit.errors import Corrupt, DeadlineExceeded, HostError, NotFound
from utilityvm.kit.files import FileLock
from utilityvm.kit.trace import span

_KILL_SECONDS: Final = 5
_MISSING: Final = 127  # what a shell says of a program that is not there

T = TypeVar("T")


class Pull(msgspec.Struct, frozen=True):
    """One pull: what, how, for which platform, who hears of it. `terminal` is a descriptor that skopeo draws its progress on."""

    depot: Depot
    name: Reference
    access: Access
    platform: Platform
    tell: Tell
    terminal: int | None = None


async def pull_image(pull: Pull, timeout: float | None) -> Image:
    """Pull an image in at most `timeout` seconds, and give it its name in the store. What is there already is not fetched again.

    Raises:
        NotFound: the registry has no such image, or none for the platform; or skopeo is not installed.
        Corrupt: what the registry gave is not what was promised.
        Exhausted: the disk is full.
        Unsupported: it is no image that can be run.
        DeadlineExceeded: it took longer.
        HostError: the registry cannot be reached, or does not let us in; a file cannot be written.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _pull(pull)
    except TimeoutError as error:
        if timeout is None:  # what was to be cleaned up took too long
            raise HostError(f"pull {pull.name}: {error}") from error
        message = f"pull {pull.name}: not at its end after {timeout:g} s"
        raise DeadlineExceeded(message, hint="the next goes on where it was") from error


async def _pull(pull: Pull) -> Image:
    depot = pull.depot
    with span("image.pull"):
        async with _adding(depot) as work:
            digest, manifest = await _resolve(pull, work)
            place = depot.locks / digest.removeprefix("sha256:")
            async with _locked(FileLock(place)):
                # Another may have pulled it while we waited.
                data, config = _kept(depot, digest) or await _fetch(pull, digest, manifest, work)

                def make(tell: Tell) -> Image:
                    return finish(Job(depot, work, tell, pull.platform, pull.name, "pulled"), pull.name, data, config)

                image = await _in_thread(make, pull.tell)
                place.unlink(missing_ok=True)  # those who wait for it find the work done
                return image


async def _resolve(pull: Pull, work: Path) -> tuple[str, bytes]:
    """Return the digest of the manifest for the platform, and the manifest; empty when the registry's index only tells its digest."""
    data = await _output(pull, pull.access.inspect(pull.name), work)
    digest = digest_of(data)
    if pull.name.digest not in {"", digest}:
        raise Corrupt(f"pull {pull.name}: the registry gave a manifest with the digest {digest}")
    document = formats.decode_manifest(data, f"pull {pull.name}")
    if isinstance(document, Index):
        return formats.choose(document, pull.platform, f"pull {pull.name}").digest, b""
    return digest, data


def _kept(depot: Depot, digest: str) -> tuple[bytes, bytes] | None:
    if not depot.is_whole(digest):
        return None
    manifest = depot.blobs.read(digest, digest)
    return manifest, depot.blobs.read(depot.parts(digest, digest)[0].config.digest, digest)


async def _fetch(pull: Pull, digest: str, data: bytes, work: Path) -> tuple[bytes, bytes]:
    """Bring an image's blobs to the store, and return its manifest and its configuration, to the byte as the registry has them."""
    depot, name = pull.depot, pull.name.at(digest)
    what = f"pull {name}"
    if not data:
        data = await _output(pull, pull.access.inspect(name), work)
        if digest_of(data) != digest:
            raise Corrupt(f"{what}: the registry gave a manifest with the digest {digest_of(data)}")
    manifest = formats.decode_manifest(data, what)
    if not isinstance(manifest, Manifest):
        raise Corrupt(f"{what}: its indexes do not end")
    exact = manifest.config.media_type == formats.OCI_CONFIG
    await _run(pull, pull.access.copy(name, work / "layout", depot.blobs.folder, exact=exact), pull.terminal)
    if exact:
        config = depot.blobs.read(manifest.config.digest, what)
    else:  # skopeo has written another in docker's place
        config = await _output(pull, pull.access.inspect(name, config=True), work)
        if digest_of(config) != manifest.config.digest:
            raise Corrupt(f"{what}: the registry gave a configuration with the digest {digest_of(config)}")
    for layer in manifest.layers:
        if not depot.blobs.has(layer.digest, layer.size):
            raise Corrupt(f"{what}: the registry did not give the layer {layer.digest} as the manifest describes it")
    _refuse_other_platform(pull, manifest, config)
    return data, config


def _refuse_other_platform(pull: Pull, manifest: Manifest, config: bytes) -> None:
    has = formats.decode_config(config, manifest, f"pull {pull.name}").platform
    if not formats.fits(has, pull.platform):
        raise NotFound(f"pull {pull.name}: has no image for {pull.platform}, only for {has}")


async def _output(pull: Pull, words: list[str], work: Path) -> bytes:
    path = work / "output"
    with path.open("w+b") as file:
        await _run(pull, words, file.fileno())
        file.seek(0)
        return file.read(formats.MAX_JSON + 1)


async def _run(pull: Pull, words: list[str], output: int | None) -> None:
    code, said = await _child(words, output)
    if code == _MISSING:
        raise NotFound(f"{PROGRAM}: command not found", hint=f"install the package {PROGRAM}")
    if code != 0:
        raise failure(said, code, f"pull {pull.name}")


async def _child(words: list[str], output: int | None = None, keep: tuple[int, ...] = ()) -> tuple[int, str]:
    child = Child(words, pass_fds=keep, stdout=output)
    try:
        code = await child.wait()
    except asyncio.CancelledError:
        child.kill()
        await to_the_end(child.wait(), within=_KILL_SECONDS)
        raise
    return code, child.output.data.decode(errors="replace")


@asynccontextmanager
async def _adding(depot: Depot) -> AsyncIterator[Path]:
    """As `Depot.adding`, but others of this process go on while it waits."""
    depot.make()
    async with _locked(depot.lock(shared=True)):
        with depot.work_folder() as work:
            yield work


@asynccontextmanager
async def _locked(lock: FileLock) -> AsyncIterator[None]:
    if not lock.acquire(wait=False):
        # Nothing but a blocked call tells when a lock is free: a program makes it, on a descriptor of ours. It ends with us.
        with lock.unheld() as fd:
            code, said = await _child(["flock", "--shared" if lock.shared else "--exclusive", str(fd)], keep=(fd,))
            if code != 0:
                raise HostError(f"a lock of the store of images cannot be had: flock ended with {code}: {said.strip()}")
    with lock:
        yield


async def _in_thread(work: Callable[[Tell], T], tell: Tell) -> T:
    """Run blocking work in a thread; when the caller gives up, the work ends at its next piece."""
    stop = threading.Event()

    def heed(progress: Progress) -> None:
        if stop.is_set():
            raise _Stopped
        tell(progress)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="utilityvm-images") as pool:
        future = asyncio.get_running_loop().run_in_executor(pool, work, heed)
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            stop.set()
            await to_the_end(_settled(future), within=None)  # or it would work on in a folder that is being removed
            raise
        return future.result()


async def _settled(future: "asyncio.Future[T]") -> None:
    await asyncio.wait([future])
    future.exception()  # nobody is left to hear of it


class _Stopped(Exception):
    """The caller has given up."""
