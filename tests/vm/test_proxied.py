"""A guest whose network a proxy in another process sets up, on the real thing."""

import asyncio
import shutil
import signal
import sys

import pytest

from utilityvm import UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.kit.ids import new_guid
from utilityvm.kit.named import UnixSockets
from utilityvm.ttrpc.client import Client
from utilityvm.wire import ncproxy
from utilityvm.wire.ncproxy import NETWORK_CONFIG_PROXY, RequestType

pytestmark = pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not installed")


async def adapters(vm: UtilityVM) -> str:
    return (await vm.run(["sh", "-c", "cd /sys/class/net; echo *; ip -4 addr show | grep -o 'inet 10[^ ]*'"], timeout=60)).stdout.decode()


async def test_an_adapter_is_there_when_the_vm_has_started_and_comes_and_goes_as_the_proxy_is_asked(boot_files: BootFiles) -> None:
    address = f"@uvm-test-{new_guid()}"
    proxy = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "utilityvm", "ncproxy", address, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert proxy.stdout is not None
        await proxy.stdout.readline()
        await _comes_and_goes(boot_files, address)
        proxy.send_signal(signal.SIGTERM)
        _, said = await proxy.communicate()
        assert (proxy.returncode, said) == (0, b"")
    finally:
        if proxy.returncode is None:
            proxy.kill()
            await proxy.communicate()


async def _comes_and_goes(boot_files: BootFiles, address: str) -> None:
    options = default_options_lcow(
        boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1, network_config_proxy=address
    )
    async with await create_lcow(options) as vm:
        await vm.start()
        shim = await Client.dial(UnixSockets(), address, "proxy")

        async def configure(what: RequestType) -> None:
            request = ncproxy.ConfigureNetworking(container_id=vm.id, request_type=what)
            await shim.call(NETWORK_CONFIG_PROXY, "ConfigureNetworking", request, ncproxy.Nothing, within=60)

        for _ in range(2):
            assert (await adapters(vm)).split("\n")[:2] == ["eth0 lo", "inet 10.0.2.15/24"]
            await configure(RequestType.TEARDOWN)
            assert (await adapters(vm)).split("\n")[:2] == ["lo", ""]
            await configure(RequestType.SETUP)
        await shim.aclose()
