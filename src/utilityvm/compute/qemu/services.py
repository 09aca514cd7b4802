"""The rules of a machine's hvsocket services.

Of a rule only `Disabled` has an effect here: dials to the service's port are refused. Who may bind and connect is recorded: only the
owner's process has the guest's sockets, and there is nobody to tell apart.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, final

from utilityvm.compute.qemu.modify import settings
from utilityvm.kit.errors import InvalidOptions, NotFound, Unsupported
from utilityvm.kit.ids import is_guid
from utilityvm.schema.devices import HvSocketServiceConfig
from utilityvm.schema.document import VirtualMachine
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.wire.services import needed_for, port_of

_PATH: Final = re.compile(r"VirtualMachine/Devices/HvSocket/HvSocketConfig/ServiceTable/([^/]*)")


def rules_of(machine: VirtualMachine | None) -> dict[str, HvSocketServiceConfig]:
    """Return a machine's rules by service."""
    devices = machine.devices if machine else None
    config = devices.hv_socket.hv_socket_config if devices and devices.hv_socket else None
    return {service.lower(): rule for service, rule in config.service_table.items()} if config else {}


def wrong_rule(service: str, rule: HvSocketServiceConfig) -> str:
    """Say why a rule cannot be carried out, ``""`` when it can."""
    port = port_of(service)
    why = needed_for(port) if rule.disabled and port is not None else ""
    return f"Disabled: the VM itself needs port {port:#x}, for {why}" if why else ""


@final
class Services:
    """The rules of one machine, `name` in errors. `allow` lets dials to a port pass, or has them refused."""

    def __init__(self, rules: Mapping[str, HvSocketServiceConfig], allow: Callable[[int, bool], None], name: str) -> None:
        self._rules, self._allow, self._name = dict(rules), allow, name
        for service in self._rules:
            self._follow(service)

    def modify(self, request: ModifySettingRequest) -> bool:
        """Carry out a request for a service's rule, and say whether it was one. An Update to nothing but `Disabled` is a Remove.

        Raises:
            NotFound: there is no rule to be removed.
            InvalidOptions, Unsupported: it cannot be carried out.
        """
        match = _PATH.fullmatch(request.resource_path)
        if match is None:
            return False
        service, where = match[1].lower(), f"{self._name}: {request.resource_path}"
        if not is_guid(service):
            raise InvalidOptions(f"{where}: {match[1]!r} is no service, which is a GUID")
        if request.request_type == "Update":
            rule = settings(request, HvSocketServiceConfig)
            why = "AllowWildcardBinds: who listens here listens for one VM" if rule.allow_wildcard_binds else wrong_rule(service, rule)
            if why:
                raise Unsupported(f"{where}: {why}")
            if rule == HvSocketServiceConfig(disabled=True):
                self._rules.pop(service, None)
            else:
                self._rules[service] = rule
        elif request.request_type == "Remove":
            if self._rules.pop(service, None) is None:
                raise NotFound(f"{where}: there are no rules for it")
        else:
            raise Unsupported(f"{where}: RequestType {request.request_type!r}: only Update and Remove are carried out")
        self._follow(service)
        return True

    def _follow(self, service: str) -> None:
        port = port_of(service)
        if port is not None:  # a Linux guest can dial no other
            rule = self._rules.get(service)
            self._allow(port, rule is None or not rule.disabled)
