"""What the host service answers about itself; a peer's answer, so members that we do not know are passed over."""

from typing import Annotated

from msgspec import Meta, Raw, Struct, field


class ServiceProperties(Struct, frozen=True, kw_only=True):
    """The answer to a query: one property of its own shape for each that was asked for."""

    properties: list[Raw] | None = field(default=None, name="Properties")


class ProcessorTopology(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The host's logical processors, all of them whatever this process may use."""

    logical_processor_count: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = field(default=None, name="LogicalProcessorCount")
