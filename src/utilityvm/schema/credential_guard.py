"""How a container's processes act as a domain account of the host (group managed service accounts)."""

from msgspec import field

from utilityvm.schema.devices import HvSocketServiceConfig
from utilityvm.schema.node import Answer, Node


class ContainerCredentialGuardState(Node, frozen=True, kw_only=True):
    """What a container uses: a cookie, where to ask, and by which transport (``HvSocket`` or ``LRPC``)."""

    cookie: str = field(default="", name="Cookie")
    rpc_endpoint: str = field(default="", name="RpcEndpoint")
    transport: str = field(default="", name="Transport")
    credential_spec: str = field(default="", name="CredentialSpec")


class ContainerCredentialGuardHvSocketServiceConfig(Node, frozen=True, kw_only=True):
    """The hvsocket service that a container asks."""

    service_id: str = field(default="", name="ServiceId")
    service_config: HvSocketServiceConfig | None = field(default=None, name="ServiceConfig")


class ContainerCredentialGuardInstance(Answer, frozen=True, kw_only=True):
    """One container's, as the host service made it."""

    id: str = field(default="", name="Id")
    credential_guard: ContainerCredentialGuardState | None = field(default=None, name="CredentialGuard")
    hv_socket_config: ContainerCredentialGuardHvSocketServiceConfig | None = field(default=None, name="HvSocketConfig")


class ContainerCredentialGuardSystemInfo(Answer, frozen=True, kw_only=True):
    """All that the host service has."""

    instances: list[ContainerCredentialGuardInstance] = field(default_factory=list, name="Instances")


class ContainerCredentialGuardAddInstanceRequest(Node, frozen=True, kw_only=True):
    """Make one for the container `id`."""

    id: str = field(default="", name="Id")
    credential_spec: str = field(default="", name="CredentialSpec")
    transport: str = field(default="", name="Transport")


class ContainerCredentialGuardRemoveInstanceRequest(Node, frozen=True, kw_only=True):
    """Remove the one of the container `id`."""

    id: str = field(default="", name="Id")


class ContainerCredentialGuardOperationRequest(Node, frozen=True, kw_only=True):
    """An operation (``AddInstance``, ``RemoveInstance``) and its request."""

    operation: str = field(default="", name="Operation")
    operation_details: object = field(default=None, name="OperationDetails")
