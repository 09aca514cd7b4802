"""What hcsshim's services of a node's network say to each other by ttrpc: `ComputeAgent` of a VM, `NetworkConfigProxy` of the node. Pure.

One field changed its meaning and kept its number: an endpoint was its name, and is any message (`endpoint`, `endpoint_of`).
"""

from enum import IntEnum
from typing import Annotated, Final

import msgspec

from utilityvm.kit.errors import InvalidOptions, ProtocolError, Unsupported
from utilityvm.wire.hcn import HostComputeEndpoint
from utilityvm.wire.protobuf import Field, Message, decode, encode

COMPUTE_AGENT: Final = "ComputeAgent"
"""Its messages' file names no package, so this is the whole name of the service."""

NETWORK_CONFIG_PROXY: Final = "NetworkConfigProxy"

HCN_ENDPOINT: Final = "ncproxy/hcn/HostComputeEndpoint"
"""An endpoint of the host's networks, as JSON."""

OWN_ENDPOINT: Final = "ncproxy/ncproxynetworking/Endpoint"
"""An endpoint of a network of the proxy's own, on a device of the host that was given to the VM before."""

_TYPE_URL_TAG: Final = 0x0A


class AddNIC(Message, frozen=True, kw_only=True):
    """Give the VM an adapter `nic_id` on an endpoint."""

    container_id: Annotated[str, Field(1)] = ""
    nic_id: Annotated[str, Field(2)] = ""
    endpoint: Annotated[bytes, Field(3)] = b""


class DeleteNIC(Message, frozen=True, kw_only=True):
    """Take the adapter on an endpoint out of the VM."""

    container_id: Annotated[str, Field(1)] = ""
    nic_id: Annotated[str, Field(2)] = ""
    endpoint: Annotated[bytes, Field(3)] = b""


class IovPolicy(Message, frozen=True, kw_only=True):
    """How a host's network card serves an adapter; zero is said, not left out."""

    offload_weight: Annotated[int, Field(1, bits=32, signed=False)] = 0
    queue_pairs_requested: Annotated[int, Field(2, bits=32, signed=False)] = 0
    interrupt_moderation: Annotated[int, Field(3, bits=32, signed=False)] = 0


class ModifyNIC(Message, frozen=True, kw_only=True):
    """Change the adapter on an endpoint."""

    nic_id: Annotated[str, Field(1)] = ""
    endpoint: Annotated[bytes, Field(2)] = b""
    iov_policy_settings: Annotated[IovPolicy | None, Field(3)] = None


class AssignPCI(Message, frozen=True, kw_only=True):
    """Give the VM a device of the host; with a `nic_id` it is the guest's name for it."""

    container_id: Annotated[str, Field(1)] = ""
    device_id: Annotated[str, Field(2)] = ""
    virtual_function_index: Annotated[int, Field(3, bits=32, signed=False)] = 0
    nic_id: Annotated[str, Field(4)] = ""


class Assigned(Message, frozen=True, kw_only=True):
    """Where the guest finds it: the GUID of its place."""

    id: Annotated[str, Field(1)] = ""


class RemovePCI(Message, frozen=True, kw_only=True):
    """Take a device of the host back from the VM."""

    container_id: Annotated[str, Field(1)] = ""
    device_id: Annotated[str, Field(2)] = ""
    virtual_function_index: Annotated[int, Field(3, bits=32, signed=False)] = 0


class RegisterComputeAgent(Message, frozen=True, kw_only=True):
    """Tell the proxy where the agent of a container's VM listens; it dials back."""

    agent_address: Annotated[str, Field(1)] = ""
    container_id: Annotated[str, Field(2)] = ""


class UnregisterComputeAgent(Message, frozen=True, kw_only=True):
    """Let the proxy forget an agent."""

    container_id: Annotated[str, Field(1)] = ""


class RequestType(IntEnum):
    """What is to be done with a container's network."""

    SETUP = 0
    TEARDOWN = 1


class ConfigureNetworking(Message, frozen=True, kw_only=True):
    """Let a container's network be set up or torn down; `request_type` is a `RequestType`, or a number that nobody knows."""

    container_id: Annotated[str, Field(1)] = ""
    request_type: Annotated[int, Field(2, bits=32)] = 0


class Nothing(Message, frozen=True, kw_only=True):
    """The answer of most calls."""


class Any(Message, frozen=True, kw_only=True):
    """A message of any type, and which."""

    type_url: Annotated[str, Field(1)] = ""
    value: Annotated[bytes, Field(2)] = b""


def endpoint(wanted: str | HostComputeEndpoint) -> bytes:
    """Return an endpoint as a request has it: a text is its name, as the first agents take it; an endpoint is what those of today take."""
    if isinstance(wanted, str):
        return wanted.encode()
    return encode(Any(type_url=HCN_ENDPOINT, value=msgspec.json.encode(wanted)))


def endpoint_of(field: bytes) -> HostComputeEndpoint:
    """Return the endpoint of a request, whichever of the two meanings it has: no name begins with the byte that a message begins with.

    Raises:
        InvalidOptions: it is neither.
        Unsupported: it is of a network of the proxy's own.
    """
    if field[:1] != bytes([_TYPE_URL_TAG]):
        try:
            return HostComputeEndpoint(name=field.decode())
        except UnicodeDecodeError as error:
            raise InvalidOptions("the endpoint's name is no UTF-8") from error
    try:
        said = decode(field, Any)
    except ProtocolError as error:
        raise InvalidOptions(f"the endpoint is neither a name nor a message: {error.message}") from error
    if said.type_url == OWN_ENDPOINT:
        raise Unsupported(f"{OWN_ENDPOINT}: its adapter is a device that the VM was given before, which this version does not set up")
    if said.type_url != HCN_ENDPOINT:
        raise InvalidOptions(f"invalid request endpoint type: {said.type_url!r}")
    try:
        return msgspec.json.decode(said.value, type=HostComputeEndpoint)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidOptions(f"the endpoint cannot be read: {error}") from error
