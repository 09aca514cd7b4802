"""Running VMs are forked: children go on from a copy of one, which runs on."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, final

import msgspec
from msgspec import structs

from utilityvm.compute.ports import Frozen, Machine
from utilityvm.kit.errors import InvalidOptions, Problem, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.kit.trace import event
from utilityvm.options import builds
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.options.network import NetworkWish
from utilityvm.options.rule import broken_rules
from utilityvm.options.rules_clone import TEMPLATE_LCOW
from utilityvm.options.shared import Options
from utilityvm.vm.given import Given

if TYPE_CHECKING:
    from utilityvm.vm.uvm import UtilityVM

MOST_CHILDREN: Final = 256
"""Children of one fork."""

Bear = Callable[[OptionsLCOW, Frozen, NetworkWish | None], Awaitable["UtilityVM"]]
"""Creates a VM of these options that goes on from a copy, with a network of its own or none."""


async def barren(options: OptionsLCOW, frozen: Frozen, network: NetworkWish | None) -> "UtilityVM":  # noqa: ARG001 (a `Bear`)
    """Refuse to create any: nobody knows how.

    Raises:
        Unsupported: always.
    """
    raise Unsupported("only a VM with a Linux guest can be forked")


@final
class Forked:
    """What came of a fork. Use it as an async context, or close its `children`, which are created and not started, by themselves.

    `pause` is how long the parent stood still, in seconds. `technique` is how its memory was taken: ``copy``, or ``migrate`` where only
    QEMU had all of it, which takes longer; `forkable` of the options avoids that.
    """

    children: "tuple[UtilityVM, ...]"
    pause: float
    technique: str

    def __init__(self, children: "tuple[UtilityVM, ...]", pause: float, technique: str) -> None:
        self.children, self.pause, self.technique = children, pause, technique

    async def close(self) -> None:
        """Close all children, those that run too. May be called again."""
        async with AsyncExitStack() as undo:
            for child in self.children:
                undo.push_async_callback(child.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class Wish(msgspec.Struct, frozen=True):
    """What a fork is to make: `count` children, `forkable` quickly themselves or not, each with this `network` (None: without one)."""

    count: int
    forkable: bool
    network: NetworkWish | None


async def fork(vm_id: VmId, options: Options, system: Machine, bear: Bear, wish: Wish, given: Given) -> Forked:
    """See `UtilityVM.fork`; `given` is what the VM has been given."""
    if not 1 <= wish.count <= MOST_CHILDREN:
        said = f"{wish.count} children: a fork has 1 to {MOST_CHILDREN}"
        raise InvalidOptions(said, problems=[Problem("$.count", "between", said)])
    of_child = structs.replace(going_on(of_its_own(vm_id, options, "forked")), forkable=wish.forkable)
    await given.settled()
    async with AsyncExitStack() as undo:
        frozen = await system.freeze(given)
        with closing(frozen):
            event("vm.forked", vm=vm_id, us=round(frozen.pause * 1e6), how=frozen.technique)
            children: list[UtilityVM] = []
            for _ in range(wish.count):
                children.append(await bear(of_child, frozen, wish.network))
                undo.push_async_callback(children[-1].close)
        undo.pop_all()
        return Forked(tuple(children), frozen.pause, frozen.technique)


def of_its_own(vm_id: VmId, options: Options, done: str) -> OptionsLCOW:
    """Return the VM's options as if it had booted by itself, for what goes on from it; `done` is what is to be done to it.

    Raises:
        Unsupported: they are such that nothing can.
    """
    if not isinstance(options, OptionsLCOW):
        raise Unsupported(f"vm {vm_id}: only a VM with a Linux guest can be {done}")
    alone = structs.replace(options, id=vm_id, is_template=False, is_clone=False, template_config=None)
    if told := broken_rules(structs.replace(alone, forkable=True), builds.EVERYTHING, TEMPLATE_LCOW):
        raise Unsupported(f"vm {vm_id}: cannot be {done}: {'; '.join(problem.message for problem in told)}")
    return alone


def going_on(original: OptionsLCOW) -> OptionsLCOW:
    """Return the options of a VM, without an id, that goes on from the one whose options these are."""
    config = TemplateConfig(uvm_id=original.id, create_options=original)
    return structs.replace(original, id="", is_clone=True, template_config=config)
