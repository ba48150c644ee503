"""The little of the NBD protocol that tells when a server answers, and what its disk holds."""

import socket
import struct


class Connection:
    """A connection to the default export of a server on a Unix socket. Errors: OSError."""

    def __init__(self, path: str):
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(60)
            self._socket.connect(path)
            if self._receive(16) != b"NBDMAGICIHAVEOPT":
                raise OSError(f"{path}: this is no NBD server")
            self._receive(2)
            # Fixed newstyle without zero padding; NBD_OPT_EXPORT_NAME with the empty name.
            self._socket.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))
            self.size = struct.unpack(">QH", self._receive(10))[0]
        except BaseException:
            self._socket.close()
            raise

    def read(self, offset: int, length: int) -> bytes:
        self._socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 0, offset, length))
        error = struct.unpack(">IIQ", self._receive(16))[1]
        if error != 0:
            raise OSError(error, f"the server refused to read {length} bytes at {offset}")
        return self._receive(length)

    def close(self):
        self._socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0))
        self._socket.close()

    def _receive(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            part = self._socket.recv(count - len(received))
            if not part:
                raise ConnectionError("the server hung up")
            received += part
        return bytes(received)
