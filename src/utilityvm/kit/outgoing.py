"""What waits to be sent on a socket that does not block."""

import socket
from collections import deque
from itertools import islice
from typing import Final

_AT_ONCE: Final = 64  # pieces of one call; the kernel takes a thousand


def send_waiting(sock: socket.socket, waiting: deque[memoryview]) -> bool:
    """Send what waits, as far as it is taken, and drop that; say whether all of it is sent.

    Raises:
        OSError: the other end is gone.
    """
    while waiting:
        try:
            sent = sock.sendmsg(islice(waiting, _AT_ONCE))
        except BlockingIOError:
            return False
        while waiting and sent >= len(waiting[0]):
            sent -= len(waiting.popleft())
        if sent:
            waiting[0] = waiting[0][sent:]
    return True
