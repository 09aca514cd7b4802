"""A guest whose network a proxy in another process sets up, on the real thing."""

import asyncio
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from utilityvm import UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.kit.ids import new_guid
from utilityvm.kit.named import UnixSockets
from utilityvm.ttrpc.client import Client
from utilityvm.wire import ncproxy
from utilityvm.wire.ncproxy import NETWORK_CONFIG_PROXY, RequestType

from .networks import POD, WORLD, pod, serving, traces
from .running import LIMIT

NAMED = UnixSockets()


@asynccontextmanager
async def proxy(*words: str) -> AsyncIterator[str]:
    """`uvm ncproxy` in a process of its own, which must have nothing to say when it is ended."""
    address = f"@uvm-test-{new_guid()}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "utilityvm", "ncproxy", address, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield address
        process.send_signal(signal.SIGTERM)
        _, said = await process.communicate()
        assert (process.returncode, said) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def adapters(vm: UtilityVM) -> str:
    """Return the names of interfaces that are devices, some kernels have others from the start; and their addresses."""
    script = "cd /sys/class/net; echo $(ls -d */device | cut -d/ -f1); ip -4 addr show | grep -o 'inet 10[^ ]*'"
    return (await vm.run(["sh", "-c", script], timeout=LIMIT)).stdout.decode()


@pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not installed")
async def test_an_adapter_is_there_when_the_vm_has_started_and_comes_and_goes_as_the_proxy_is_asked(boot_files: BootFiles) -> None:
    async with proxy() as address, await created(boot_files, address) as vm:
        await vm.start()
        shim = await Client.dial(NAMED, address, "proxy")

        async def configure(what: RequestType) -> None:
            request = ncproxy.ConfigureNetworking(container_id=vm.id, request_type=what)
            await shim.call(NETWORK_CONFIG_PROXY, "ConfigureNetworking", request, ncproxy.Nothing, within=60)

        for _ in range(2):
            assert (await adapters(vm)).split("\n")[:2] == ["eth0", "inet 10.0.2.15/24"]
            await configure(RequestType.TEARDOWN)
            assert (await adapters(vm)).split("\n")[:2] == ["", ""]
            await configure(RequestType.SETUP)
        await shim.aclose()


@pytest.mark.root("make namespaces and taps")
@pytest.mark.skipif(shutil.which("tc") is None or not Path("/dev/net/tun").exists(), reason="no iproute2, or no /dev/net/tun")
async def test_a_proxy_gives_a_vm_the_place_in_the_namespace_of_its_name_and_nothing_of_it_is_left(boot_files: BootFiles) -> None:
    with pod() as (here, there):
        async with proxy("--endpoint", "ns:/run/netns/{id}") as address:
            async with await created(boot_files, address, id=here) as vm:
                await vm.start()
                assert (await adapters(vm)).split("\n")[:2] == ["eth0", f"inet {POD}/24"]
                async with serving(there, WORLD, 80, b"hello") as callers:
                    done = await vm.run(["sh", "-c", f"nc -w 5 {WORLD} 80 </dev/null"], timeout=LIMIT)
                assert (done.stdout, callers[0][0]) == (b"hello", POD)
                assert len(traces(here)) == 3
            assert traces(here) == []


async def created(boot_files: BootFiles, address: str, **more: object) -> UtilityVM:
    options = {"memory_size_in_mb": 256, "processor_count": 1, "network_config_proxy": address, **more}
    return await create_lcow(default_options_lcow(boot_files_path=str(boot_files.folder), **options))
