"""What waits to be sent, and a socket that takes it as it likes."""

import socket
from collections import deque

import pytest

from utilityvm.kit.outgoing import send_waiting


def test_all_of_it_arrives_in_its_order_however_little_is_taken_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
        pieces = [b"", *(bytes([n & 255]) * (n * 7) for n in range(300))]
        waiting, came = deque([memoryview(piece) for piece in pieces]), b""
        while not send_waiting(ours, waiting):
            assert waiting
            came += theirs.recv(1 << 12)
        assert not waiting
        ours.close()
        while more := theirs.recv(1 << 16):
            came += more
        assert came == b"".join(pieces)


def test_an_end_that_is_gone_is_told() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(BrokenPipeError):
        send_waiting(ours, deque([memoryview(b"x")]))
