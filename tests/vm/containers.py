"""Containers in a VM, asked for as the host's upper floors do: their documents, roots and processes."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from utilityvm import Process, UtilityVM
from utilityvm.guest.container import GuestContainer
from utilityvm.wire import gcs
from utilityvm.wire.oci import OciProcess, User

from .running import sh

LAYERS = "/run/layers"
"""Folders of the VM that stand for layers: `base` has a shell and two accounts, `top` one file."""

ENVIRONMENT = ["PATH=/bin"]

APPLETS = "sh cat sleep id hostname pwd tty stty ls touch echo head tail wc ps kill grep true mkdir mknod test seq dd"
FOLDERS = "base/bin base/etc base/dev base/proc base/sys base/tmp top"

_PREPARE = f"""set -e
mkdir -p /run/scratch
mount -t tmpfs scratch /run/scratch
for name in {FOLDERS}; do mkdir -p {LAYERS}/$name; done
cp /bin/busybox {LAYERS}/base/bin
for name in {APPLETS}; do ln -s busybox {LAYERS}/base/bin/$name; done
printf 'root:x:0:0::/root:/bin/sh\\nann:x:1000:100::/home/ann:/bin/sh\\n' >{LAYERS}/base/etc/passwd
printf 'users:x:100:\\nwheel:x:10:ann\\n' >{LAYERS}/base/etc/group
echo top >{LAYERS}/top/file"""


async def prepare(vm: UtilityVM) -> None:
    """Make the layers, in the VM's memory."""
    done = await sh(vm, _PREPARE)
    assert done.code == 0, done.err


def root_of(name: str) -> str:
    return f"/run/gcs/c/{name}/rootfs"


def resource(kind: str, name: str, settings: Mapping[str, object]) -> gcs.GuestRequest:
    return gcs.GuestRequest(request_type=kind, resource_type=name, settings=settings)


def spec(*args: str, kinds: str = "pid ipc uts mount network cgroup", **members: object) -> dict[str, Any]:
    """A specification like those that people's tools write, with namespaces of these kinds."""
    capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID"]
    return {
        "ociVersion": "1.1.0",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ENVIRONMENT,
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in kinds.split()]},
        **members,
    }


def document(name: str, of: Mapping[str, object]) -> dict[str, object]:
    return {"SchemaVersion": {"Major": 2, "Minor": 1}, "OciBundlePath": f"/run/gcs/c/{name}", "OciSpecification": of}


def process(*args: str, terminal: bool = False, username: str = "") -> OciProcess:
    """One more process of a container."""
    return OciProcess(args=list(args), env=ENVIRONMENT, cwd="/", terminal=terminal, user=User(uid=0, gid=0, username=username))


async def create(vm: UtilityVM, name: str, of: Mapping[str, object]) -> GuestContainer:
    """Create a container whose root is there."""
    assert vm._guest is not None
    return await GuestContainer.create(vm._guest.client, vm._guest._stdio, name, document(name, of), vm.id)


async def start(container: GuestContainer, *, stdin: bool = False, terminal: bool = False) -> Process:
    """Let its first process go on."""
    return await container.launch(
        gcs.ProcessParameters(create_std_in_pipe=stdin, create_std_out_pipe=True, create_std_err_pipe=not terminal)
    )


@asynccontextmanager
async def root(vm: UtilityVM, name: str) -> AsyncIterator[None]:
    """A root of both layers and a folder of its own to write in, for as long as it is needed."""
    await vm.layers.combine_lcow([f"{LAYERS}/top", f"{LAYERS}/base"], f"/run/scratch/{name}", root_of(name))
    try:
        yield
    finally:
        await vm.layers.remove_combined(root_of(name))
        await sh(vm, f"rm -r /run/scratch/{name}")


@asynccontextmanager
async def created(vm: UtilityVM, name: str, of: Mapping[str, object]) -> AsyncIterator[GuestContainer]:
    """A container with a root, both of which are gone afterwards."""
    async with root(vm, name):
        container = await create(vm, name, of)
        try:
            yield container
        finally:
            await container.terminate()
            await container.delete_state()
            container.close()
