#!/usr/bin/env python3
"""hang_up_server.py SOCKET: an NBD server of 16 MiB that closes its connection at the first write,
which it has not done by then, but goes on running."""

import os
import socket
import struct
import sys
import time

MAGIC, OPTION, REPLY = b"NBDMAGIC", b"IHAVEOPT", 0x3E889045565A9
EXPORT_NAME, UNSUPPORTED = 1, 0x80000001
HAS_FLAGS, WRITE = 1, 1


def receive(client, count):
    data = b""
    while len(data) < count:
        got = client.recv(count - len(data))
        if not got:
            sys.exit("the client has gone")
        data += got
    return data


listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1] + ".tmp")
listener.listen()
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
client, _ = listener.accept()
client.sendall(MAGIC + OPTION + struct.pack(">H", 3))
receive(client, 4)
while True:
    option, length = struct.unpack(">8xII", receive(client, 16))
    receive(client, length)
    if option == EXPORT_NAME:
        break
    client.sendall(struct.pack(">QIII", REPLY, option, UNSUPPORTED, 0))
client.sendall(struct.pack(">QH", 16 << 20, HAS_FLAGS))
while True:
    kind, handle, length = struct.unpack(">6xHQ8xI", receive(client, 28))
    if kind == WRITE:
        client.close()
        listener.close()
        time.sleep(600)
    # A read: of nothing but zeros.
    client.sendall(struct.pack(">IIQ", 0x67446698, 0, handle) + bytes(length))
