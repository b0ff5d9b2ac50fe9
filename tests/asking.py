"""How tests ask a worker's HTTP server: as a client would, or byte by byte.

Knows nothing of what is asked for.
"""

import http.client
import socket

from tests.working import LONG

from sayiir.cli.health import Address


def exchange(address: Address, sent: bytes) -> bytes:
    """What the server says until it closes."""
    assert address.host is not None
    with socket.create_connection((address.host, address.port), LONG) as connection:
        connection.sendall(sent)
        said = b""
        while more := connection.recv(65_536):
            said += more
        return said


def get(address: Address, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address.host or "127.0.0.1", address.port, LONG)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
