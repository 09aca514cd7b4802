"""Says that a VM gets other numbers than were asked for."""

import logging

from utilityvm.kit.trace import event
from utilityvm.plan.normalize import Adjusted


def warn(adjusted: Adjusted) -> None:
    """Say it as the event `plan.adjusted`; the `warn` of every plan that a user asked for."""
    event(
        "plan.adjusted",
        level=logging.WARNING,
        vm=adjusted.vm_id,
        message=adjusted.message,
        requested=adjusted.requested,
        assigned=adjusted.assigned,
    )
