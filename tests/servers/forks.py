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

"""Python programs as processes of their own, of which none has to import what takes most of its time: one process has, and forks."""

import functools
import json
import math
import os
import selectors
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO

from .files import clean_environment, command_path

# What code of the tests uses.
CLIENT = ('rucio.client.s3client', 'rucio.client')
# Most of the start of Rucio's commands. None of them is Rucio's, which reads its configuration when it is imported, or reads the environment then.
LIBRARIES = (
    *('argcomplete', 'asyncio', 'attr', 'boto3.s3.inject', 'boto3.session', 'botocore.client', 'botocore.httpsession', 'click', 'cryptography.x509'),
    *('dogpile.cache.backends.memcached', 'dogpile.cache.backends.memory', 'packaging.specifiers', 'paramiko', 'pydoc', 'requests', 'rich.columns'),
    *('rich.console', 'rich.logging', 'rich.progress', 'rich.syntax', 'rich.table', 'rich.traceback', 'rich.tree', 's3transfer.manager', 'tabulate'),
    *('alembic.context', 'flask', 'geoip2.database', 'jsonschema', 'oic.oic', 'sqlalchemy.dialects.postgresql'),  # a server's
    *('sqlalchemy.dialects.sqlite', 'sqlalchemy.ext.declarative', 'sqlalchemy.orm'),
)

# The start of a program that forks and becomes another one: `become` it at the end.
FORKING = """
import atexit, contextlib, gc, importlib, json, os, runpy, signal, socket, sys

ended = []  # the exit code, where there is one


@atexit.register  # the first, so it is called when all others have been
def leave():
    if ended:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # the end that Python makes says so
            return
        os._exit(ended[0])  # all that would follow is to free memory, which is shared until somebody writes to it


def keep_imported():
    gc.collect()
    gc.freeze()  # what was imported is no garbage, and to look at it would copy it


def become(program):
    try:
        program()
        ended.append(0)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            ended.append((end.code or 0) & 0xFF)
        raise
"""

_PARENT = (
    FORKING
    + """
control = socket.socket(fileno=int(sys.argv[1]))
for module in sys.argv[2:]:
    with contextlib.suppress(ImportError):  # a client's Rucio has fewer
        importlib.import_module(module)
keep_imported()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
while True:
    message, descriptors, _, _ = socket.recv_fds(control, 1, 4)
    if not message:
        ended.append(0)
        sys.exit()
    if not os.fork():
        break
    for each in descriptors:
        os.close(each)

# A child, which waits for its own child and tells how that ended.
control.close()
connection, streams = socket.socket(fileno=descriptors[0]), descriptors[1:]
with connection.makefile() as lines:
    request = json.load(lines)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
child = os.fork()
if child:
    late = []
    signal.signal(signal.SIGALRM, lambda *_: late.append(os.kill(child, signal.SIGKILL)))
    signal.alarm(request['seconds'])
    for each in streams:
        os.close(each)
    status = os.waitpid(child, 0)[1]
    connection.sendall(json.dumps([os.waitstatus_to_exitcode(status), bool(late)]).encode())
    os._exit(0)

# The rest is the child of the child, at the end of this program: it ends as a Python program does.
connection.close()
for descriptor, stream in enumerate(streams):
    os.dup2(stream, descriptor)
    os.close(stream)
os.environ.clear()
os.environ.update(request['environment'])
os.chdir(request['directory'])
sys.argv = request['arguments']
if 'rucio.common.config' in sys.modules:
    sys.modules['rucio.common.config'].clean_cached_config()
if 'rucio_s3_plugin' in sys.modules:
    sys.path.remove('')  # which comes later
    importlib.reload(sys.modules['rucio_s3_plugin'])  # which runs whenever Python starts
    sys.path.insert(0, '')
if request['code']:
    become(lambda: exec(compile(request['code'], '<string>', 'exec'), {'__name__': '__main__'}))
elif sys.argv[0] == '-m':
    del sys.argv[0]
    become(lambda: runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True))
else:
    sys.path[0] = os.path.dirname(sys.argv[0])
    become(lambda: runpy.run_path(sys.argv[0], run_name='__main__'))
"""
)


@functools.cache
def _parent(modules: tuple[str, ...]) -> socket.socket:
    """The process that has imported these modules and forks, started once."""
    ours, theirs = socket.socketpair()
    with theirs:
        environment = clean_environment('/', RUCIO_CLIENT_MODE='1', RUCIO_CONFIG=os.devnull)
        subprocess.Popen(
            [sys.executable, '-c', _PARENT, str(theirs.fileno()), *modules],
            env=environment,
            cwd='/',
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # as the children have it: Python looks at the start whether it can seek
            stderr=_log(),
            start_new_session=True,
        )
    return ours


@functools.cache
def _log() -> IO[bytes]:
    """What the processes that fork say, such as why one could not import Rucio."""
    return tempfile.TemporaryFile()


def run_code(
    code: str, *arguments: str, environment: Mapping[str, str], directory: Path, text: str = '', timeout: float = 300
) -> 'subprocess.CompletedProcess[str]':
    """
    As `python -c CODE ARGUMENTS` with this environment, in this directory, but with Rucio's client imported already.

    :param text: for its standard input.
    :raises subprocess.TimeoutExpired: if it takes longer than `timeout` seconds, after which it is ended.
    """
    return _run(CLIENT, code, ['-c', *arguments], environment, directory, text, timeout)


def run(
    command: str, *arguments: str, environment: Mapping[str, str], directory: 'str | os.PathLike[str]', timeout: float
) -> 'subprocess.CompletedProcess[str]':
    """
    Run a command of this Python environment; those of Rucio, also as `python -m`, are not slowed down by importing the libraries of others.

    :raises subprocess.TimeoutExpired: if it takes longer than `timeout` seconds, after which it is ended.
    """
    path = command_path(command)
    if command.startswith('rucio'):
        return _run(LIBRARIES, '', [path, *arguments], environment, directory, '', timeout)
    if command == 'python' and arguments[0] == '-m':
        return _run(LIBRARIES, '', arguments, environment, directory, '', timeout)
    return subprocess.run(
        [path, *arguments],
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _run(
    modules: tuple[str, ...],
    code: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    directory: 'str | os.PathLike[str]',
    text: str,
    timeout: float,
) -> 'subprocess.CompletedProcess[str]':
    request = {'code': code, 'arguments': arguments, 'environment': dict(environment), 'directory': str(directory), 'seconds': math.ceil(timeout)}
    ours, theirs = socket.socketpair()
    with ExitStack() as both, closing(ours):
        with theirs, ExitStack() as given:
            outputs = []
            entry = both.enter_context(tempfile.TemporaryFile() if text else open(os.devnull, 'rb'))  # noqa: SIM115 - the stack closes it
            if text:
                entry.write(text.encode())
                entry.seek(0)
            ends = [theirs.fileno(), entry.fileno()]
            for _ in range(2):
                reading, writing = os.pipe()
                outputs.append(both.enter_context(open(reading, 'rb', buffering=0)))
                ends.append(given.enter_context(open(writing, 'wb', buffering=0)).fileno())
            socket.send_fds(_parent(modules), [b'.'], ends)
        ours.sendall(json.dumps(request).encode())
        ours.shutdown(socket.SHUT_WR)
        said, complained = _read(outputs)
        answer = b''.join(iter(functools.partial(ours.recv, 1000), b''))
    if not answer:
        raise RuntimeError(f'{arguments} could not be run: {os.pread(_log().fileno(), 10_000, 0).decode()}')
    status, late = json.loads(answer)
    if late:
        raise subprocess.TimeoutExpired(arguments, timeout, said, complained)
    return subprocess.CompletedProcess(arguments, status, said, complained)


def _read(streams: Sequence[IO[bytes]]) -> list[str]:
    """All that comes from several pipes."""
    found = {stream: bytearray() for stream in streams}
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                if piece := key.fileobj.read(65536):
                    found[key.fileobj] += piece
                else:
                    selector.unregister(key.fileobj)
    return [found[stream].decode().replace('\r\n', '\n').replace('\r', '\n') for stream in streams]
