# threat: calls a service of the host, and offers one
# expect: ok, error
# weak: network
import socket

for talk in (
    lambda: socket.create_connection(("127.0.0.1", PORT), 1).send(b"hello"),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello", ("127.0.0.1", PORT)),
    lambda: socket.create_server(("127.0.0.1", 0)).getsockname(),
):
    try:
        print(talk())
    except (OSError, AttributeError) as refusal:
        print(type(refusal).__name__)
