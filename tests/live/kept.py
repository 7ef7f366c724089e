"""A client's connection of HTTP that is kept: one request after the other, and their answers."""

import socket


def request(host: str, target: str) -> bytes:
    return (f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\n"
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html,*/*;q=0.8\r\n\r\n").encode()


def asked(connection: socket.socket, host: str, target: str) -> int | None:
    connection.sendall(request(host, target))
    return answered(connection)


def answered(connection: socket.socket) -> int | None:
    """The status of an answer, which is read to its end; None where the connection ends or is reset."""
    got = b""
    try:
        while b"\r\n\r\n" not in got:
            more = connection.recv(65536)
            if not more:
                return None
            got += more
        head, _, body = got.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        (size,) = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")]
        while len(body) < size:
            body += connection.recv(65536)
    except OSError:
        return None
    return int(head.split()[1])
