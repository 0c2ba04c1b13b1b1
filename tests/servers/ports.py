# Copyright European Organization for Nuclear Research (CERN) since 2012
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#    http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Free loopback ports, also when several test processes ask at the same time."""

import random
import socket
from collections.abc import Callable
from http.server import HTTPServer
from typing import TypeVar

Server = TypeVar('Server', bound=HTTPServer)

# Below the ports that Linux gives to outgoing connections (32768 and up), also with the twin; and no port is the twin of another one.
FIRST, LAST = 10240, 20239
TWIN = 10000

# The claims of this process. They end with it, so a server that is started again finds its port again.
_claims: list[socket.socket] = []


def free_port(*, twin: bool = False) -> int:
    """A port of 127.0.0.1 that nobody listens on and no other test process is given; with `twin`, port + 10000 is free as well."""
    candidates = list(range(FIRST, LAST + 1))
    random.SystemRandom().shuffle(candidates)
    for port in candidates:
        wanted = (port, port + TWIN) if twin else (port,)
        if all(_can_listen(number) for number in wanted) and _claim(port):
            return port
    raise RuntimeError(f'no free port on 127.0.0.1 between {FIRST} and {LAST}')


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(('127.0.0.1', port))
        except OSError:
            return False
    return True


def _claim(port: int) -> bool:
    """Tell other processes that the port is taken, before its server listens: by an abstract socket, which leaves no file."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f'\0rucio-s3-tests-port-{port}')
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


# Ports of the servers of this process. What a client remembers of an address, such as that it does not answer, is not for the next server.
_had: set[int] = set()
BACKLOG = 128  # connections: of those that come at once the five of socketserver would be kept, and some of the others be reset


def listen(make: Callable[[tuple[str, int]], Server]) -> Server:
    """Make a server on a free port that no server of this process had before."""
    while True:
        server = make(('127.0.0.1', 0))
        if is_new(server.server_port):
            server.socket.listen(BACKLOG)
            return server
        server.server_close()


def is_new(port: int) -> bool:
    """Whether no server of this process had this port before; from now on, one has."""
    if port in _had:
        return False
    _had.add(port)
    return True
