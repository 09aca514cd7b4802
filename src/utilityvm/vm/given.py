"""What a VM has been given of what goes with it into a copy, a template or a file."""

from typing import final

import msgspec
from msgspec import structs

from utilityvm.containers.table import Containers
from utilityvm.devices.tables import Tables, record
from utilityvm.store.devices import Devices


@final
class Given(msgspec.Struct, frozen=True):
    """What a VM has been given, as far as it can be saved with it."""

    tables: Tables
    containers: Containers

    async def settled(self) -> None:
        """Wait until nothing that containers have given back is on its way out."""
        await self.containers.settled()

    def __call__(self) -> Devices:
        """Return what there is now.

        Raises:
            StateError: something of it is on its way in or out.
            Unsupported: the VM has what one that goes on from it could not have.
        """
        return structs.replace(record(self.tables), containers=self.containers.save())
