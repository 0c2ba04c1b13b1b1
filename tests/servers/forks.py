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

"""Python code that uses Rucio's client, in a process of its own for each call, of which none has to import it: one process has, and forks."""

import functools
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import IO

from .files import clean_environment

# It gets the descriptor of a connection for each call, and ends when our end of its own is closed.
_PARENT = """
import json, os, signal, socket, sys, tempfile, traceback
import rucio.client.s3client
from rucio.client import Client
from rucio.common import config


def run(connection):
    request = json.load(connection.makefile())
    signal.alarm(request['seconds'])  # nobody listens after that
    os.environ.clear()
    os.environ.update(request['environment'])
    os.chdir(request['directory'])
    files = [tempfile.TemporaryFile() for _ in range(3)]
    files[0].write(request['input'].encode())
    files[0].seek(0)
    for descriptor, file in enumerate(files):
        os.dup2(file.fileno(), descriptor)
    sys.argv = ['-c', *request['arguments']]
    config.clean_cached_config()
    code = 0
    try:
        exec(compile(request['code'], '<string>', 'exec'), {'__name__': '__main__'})
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if code and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    except BaseException:
        code = 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    for file in files:
        file.seek(0)
    said = [file.read().decode() for file in files[1:]]
    connection.sendall(json.dumps([code, *said]).encode())


control = socket.socket(fileno=int(sys.argv[1]))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
while True:
    message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
    if not message:
        break
    connection = socket.socket(fileno=descriptors[0])
    if not os.fork():
        control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            run(connection)
        finally:
            os._exit(0)
    connection.close()
"""


@functools.cache
def _parent() -> socket.socket:
    """The process that forks, started once."""
    ours, theirs = socket.socketpair()
    with theirs:
        environment = clean_environment('/', RUCIO_CLIENT_MODE='1', RUCIO_CONFIG=os.devnull)
        subprocess.Popen(
            [sys.executable, '-c', _PARENT, str(theirs.fileno())],
            env=environment,
            cwd='/',
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=_log(),
            start_new_session=True,
        )
    return ours


@functools.cache
def _log() -> IO[bytes]:
    """What the process that forks says, such as why it could not import Rucio."""
    return tempfile.TemporaryFile()


def run_code(
    code: str, *arguments: str, environment: Mapping[str, str], directory: Path, text: str = '', timeout: float = 300
) -> 'subprocess.CompletedProcess[str]':
    """
    As `python -c CODE ARGUMENTS` with this environment, in this directory, but with Rucio's client imported already.

    :param text: for its standard input.
    :raises RuntimeError: if it takes longer than `timeout` seconds, after which it is ended.
    """
    request = {'code': code, 'arguments': arguments, 'environment': dict(environment), 'directory': str(directory), 'input': text}
    request['seconds'] = math.ceil(timeout)
    ours, theirs = socket.socketpair()
    with closing(ours):
        with theirs:
            socket.send_fds(_parent(), [b'.'], [theirs.fileno()])
        ours.sendall(json.dumps(request).encode())
        ours.shutdown(socket.SHUT_WR)
        answer = b''.join(iter(functools.partial(ours.recv, 65536), b''))
    if not answer:
        said = os.pread(_log().fileno(), 10_000, 0).decode()
        raise RuntimeError(f'the process ended before it had an answer, within {timeout} seconds: {code}\n{said}')
    status, said, complained = json.loads(answer)
    return subprocess.CompletedProcess(['python', '-c', code, *arguments], status, said, complained)
