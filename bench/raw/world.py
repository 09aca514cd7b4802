"""What a guest's programs reach: port 80 sends as many bytes as it is asked for, port 81 takes as many as it is told of and says so.

usage: world.py    (in the network namespace that stands for the world; ends with its standard input)
"""

import socket
import sys
import threading

PIECE = bytes(1 << 20)


def serve(listening: socket.socket, *, takes: bool) -> None:
    room = bytearray(len(PIECE))
    while True:
        sock, _ = listening.accept()
        with sock:
            left = int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "little")
            while left:
                done = sock.recv_into(room) if takes else sock.send(PIECE[: min(left, len(PIECE))])
                if not done:
                    break
                left -= done
            else:
                if takes:
                    sock.send(b".")


def main() -> None:
    for port in (80, 81):
        listening = socket.create_server(("", port))
        threading.Thread(target=serve, args=(listening,), kwargs={"takes": port == 81}, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
