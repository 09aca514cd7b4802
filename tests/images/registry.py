"""The distribution's registry on loopback, and a road to it that can be blocked."""

import asyncio
import json
import re
import shutil
import socket
import subprocess  # noqa: TID251 (a server that lives as long as the tests)
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from tests.unit.images.samples import Sample, descriptor, index_of, write
from utilityvm.images import formats
from utilityvm.kit.proc import run_tool

SECONDS = 60
USER, PASSWORD = "ada", "secret"
_HTPASSWD = "ada:$2b$04$00.N6ynEwJHXG/Dlr8ILweXriCbh2wLd8kL9Uv5rjyUhqUUuXIHvu\n"


class Registry:
    """A registry that serves HTTP, with what was pushed to it, and its log."""

    def __init__(self, folder: Path, port: int, *, asks: bool) -> None:
        self.folder, self.address, self.asks = folder, f"127.0.0.1:{port}", asks

    def push(self, source: str, name: str, *words: str) -> None:
        login = ["--dest-creds", f"{USER}:{PASSWORD}"] if self.asks else []
        target = f"docker://{self.address}/{name}"
        argv = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", *login, *words, source, target]
        run_tool(argv, within=SECONDS, package="skopeo")

    def push_sample(self, sample: Sample, name: str, *words: str) -> None:
        layout = write(self.folder / "pushed" / name.replace(":", "-"), sample.layout("sample"))
        self.push(f"oci:{layout}:sample", name, *words)

    def push_platforms(self, samples: list[Sample], name: str) -> None:
        entries = [
            {**descriptor(formats.OCI_MANIFEST, sample.manifest_blob), "platform": {"os": "linux", "architecture": sample.architecture}}
            for sample in samples
        ]
        index = json.dumps({"schemaVersion": 2, "mediaType": formats.OCI_INDEX, "manifests": entries}).encode()
        outer = index_of({**descriptor(formats.OCI_INDEX, index), "annotations": {"org.opencontainers.image.ref.name": "sample"}})
        blobs = {key: data for sample in samples for key, data in sample.blobs().items()}
        name_of_index = f"blobs/sha256/{str(descriptor('', index)['digest'])[7:]}"
        layout = write(self.folder / "pushed" / name.replace(":", "-"), {**outer, **blobs, name_of_index: index})
        self.push(f"oci:{layout}:sample", name, "--all")

    def asked_for(self, repository: str) -> list[str]:
        """The digests of blobs that were fetched, in their order."""
        log = (self.folder / "log").read_text()
        return re.findall(rf'"GET /v2/{re.escape(repository)}/blobs/(sha256:[0-9a-f]+) [^"]*" 200', log)

    def stored(self, digest: str) -> Path:
        """Where the registry keeps a blob."""
        digits = digest.removeprefix("sha256:")
        return self.folder / "storage/docker/registry/v2/blobs/sha256" / digits[:2] / digits / "data"


@contextmanager
def registry(folder: Path, *, asks: bool = False) -> Iterator[Registry]:
    """A registry, with its files in `folder`; one that `asks` wants to know who is there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (folder / "htpasswd").write_text(_HTPASSWD)
    settings = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        **({"auth": {"htpasswd": {"realm": "here", "path": str(folder / "htpasswd")}}} if asks else {}),
    }
    (folder / "config.yml").write_text(json.dumps(settings))  # which YAML reads too
    program = shutil.which("docker-registry")
    assert program, "tests of images need the distribution's registry (make setup)"
    argv = [program, "serve", str(folder / "config.yml")]
    with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=subprocess.PIPE, text=True) as child:
        listening = threading.Event()
        reader = threading.Thread(target=_read, args=(child, listening))
        reader.start()
        try:
            assert listening.wait(SECONDS), "the registry did not start"
            yield Registry(folder, port, asks=asks)
        finally:
            child.terminate()
            reader.join()


def _read(child: "subprocess.Popen[str]", listening: threading.Event) -> None:
    for line in child.stderr or ():
        if "listening on" in line:
            listening.set()


@asynccontextmanager
async def road(address: str, *, after: int) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """An address that leads to another, until so many bytes have come from there: then the event is set, and nothing comes any more."""
    host, port = address.split(":")
    blocked, gone = asyncio.Event(), asyncio.Event()
    passed = 0

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool) -> None:
        nonlocal passed
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                passed += len(data) if back else 0
                if passed > after:
                    blocked.set()
                    await gone.wait()
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        their_reader, their_writer = await asyncio.open_connection(host, int(port))
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(pump(reader, their_writer, back=False))
                both.create_task(pump(their_reader, writer, back=True))
        finally:
            writer.close()
            their_writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", blocked
    finally:
        gone.set()
        server.close()
        await server.wait_closed()
