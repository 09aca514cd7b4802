"""Both sides of a second container, in one VM: the library's, and `crun run` as a process of the VM with the same specification.

usage: containers.py MEMORY_MIB CPUS
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import msgspec
from raw.serving import serve_beside

import utilityvm
from utilityvm.containers.spec import spec_of
from utilityvm.containers.wish import Wish
from utilityvm.images.store import ImageStore
from utilityvm.kit.trace import span
from utilityvm.wire.oci import Root

if TYPE_CHECKING:
    from utilityvm import UtilityVM
    from utilityvm.images.image import Image

BUNDLE = "/run/bench"
numbers = count()


async def ours(vm: UtilityVM, image: Image) -> float:
    name = f"bench-{next(numbers)}"
    with span("bench.container") as measured:
        spec = spec_of(image.config, Wish(args=("/bin/busybox", "true")), name)
        async with await vm.create_container(name, spec, layers=image.layers) as container:
            process = await container.start()
            assert await process.wait() == 0
    return measured.us / 1e6


async def raw(vm: UtilityVM) -> float:
    with span("bench.crun") as measured:
        done = await vm.run(["crun", "run", "--no-pivot", "--bundle", BUNDLE, f"raw-{next(numbers)}"])
    assert done.exit_code == 0, done.stderr
    return measured.us / 1e6


async def answer(vm: UtilityVM, image: Image, command: str, number: int) -> list[float]:
    return [await (ours(vm, image) if command == "ours" else raw(vm)) for _ in range(number)]


async def main() -> None:
    memory, cpus = map(int, sys.argv[1:3])
    vm = await utilityvm.create_lcow(utilityvm.default_options_lcow(memory_size_in_mb=memory, processor_count=cpus))
    with ImageStore.of_user().hold("busybox") as image:
        async with vm:
            await vm.start()
            first = spec_of(image.config, Wish(args=("/bin/busybox", "sleep", "100000")), "first")
            container = await vm.create_container("first", first, layers=image.layers)
            await container.start(stdout=False, stderr=False)
            spec = spec_of(image.config, Wish(args=("/bin/busybox", "true")), "raw")
            spec = msgspec.structs.replace(spec, root=Root(path="/run/gcs/c/first/rootfs"))
            written = await vm.run(["sh", "-c", f"mkdir {BUNDLE} && cat > {BUNDLE}/config.json"], input=msgspec.json.encode(spec))
            assert written.exit_code == 0, written.stderr
            await serve_beside(partial(answer, vm, image))


if __name__ == "__main__":
    asyncio.run(main())
