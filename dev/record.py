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

"""Record the terminal sessions of the documentation: ``make record``; with ``--check``, compare them only.

A page marks what is a recording, and names the account:

    <!-- recorded: alice -->

        $ rucio s3 ls user.alice:run7
        ...
        bob$ rucio s3 ls user.alice:run7     # refused

    <!-- end -->

Commands whose output is not shown are tried only:

    <!-- tried: alice -->

        $ rucio s3 presign user.alice:run7/a.root

    <!-- end -->

One whose comment says ``until Ctrl-C`` runs in the background, until its page is done. A file is written as the page has it, and with what is there:

    <!-- file: alice .aws/config -->

        [profile alice]
        ...

    <!-- end -->

What has to be there before, and is not shown, is a line by itself:

    <!-- before: alice$ rucio s3 make-bucket user.alice:run7 -->

The commands are those of the page. They are run in order, each page against servers of its own, and what they print takes the place of
what stood there. A command whose comment says ``refused`` has to fail, every other one to succeed. A long output is cut in its middle. The
storage is called s3.example.org. Where nothing but dates, times, rates and ids is new, the page stays as it is.
"""

import argparse
import difflib
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests'))

from servers import mistakes
from servers.ca import CA
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

ROOT = Path(__file__).resolve().parent.parent
RSE = 'SITE_S3'
ACCOUNTS = ('alice', 'bob')
HOST = 'https://s3.example.org'
CA_BUNDLE = '/etc/ssl/site.pem'
TOOLS = Path(os.environ.get('RUCIO_S3_TOOLS', ROOT / '.venv' / 'interop' / 'bin'))
# a longer output is shown with its first lines and its last one; so is Rucio's own log
LONGEST, FIRST = 14, 8

_BLOCK = re.compile(r'(<!-- (recorded|tried|file): (\w+) ?(\S*) -->\n\n)(.*?)(\n<!-- end -->)', re.DOTALL)
_BEFORE = re.compile(r'<!-- before: (\w+)\$ (.+) -->')
_PROMPT = re.compile(r'^    (\w*)\$ (.*)$')
_LOG_PREFIX = re.compile(r'^(?:\x1b\[[\d;]*m)*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\t(\w+)\t', re.MULTILINE)
_COLOUR = re.compile(r'\x1b\[[\d;]*m')
_CHATTER = re.compile(r'(?:^INFO .*\n)+(^INFO .*\n)', re.MULTILINE)  # of stock commands: the last line says how it ended
_VOLATILE = re.compile(
    r'\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?'  # dates
    r'|\d+(\.\d+)? ?(s|seconds|minutes)\b|\d[\d.]* ?[kMG]?i?B(/|p)s'  # times and rates
    r'|[0-9a-f]{32}| \[request [^]]*, of the storage [^]]*\]|s3-reconciler \d+|Thread \d/\d: File .*'
)


class Refused(RuntimeError):
    """A command did not end as its page says."""


class World:
    """A Rucio server, a storage, and two accounts without keys."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.s3 = SeaweedFS(directory / 'seaweedfs', tls=CA(directory / 'ca'), sts=True)
        storage = {'ca_bundle': self.s3.ca_bundle, 'role_arn': self.s3.role_arn}
        self.server = RucioServer(directory / 'rucio', config={'s3': storage, 'policy': {'package': 'rucio_s3_policy'}})
        self.users: dict[str, RucioCli] = {}
        self.running: list[tuple[str, subprocess.Popen[str]]] = []
        (directory / 'bin').mkdir()
        if mc := shutil.which('minio-client'):  # Debian's name of it
            (directory / 'bin' / 'mc').symlink_to(mc)

    def start(self) -> None:
        """Start the servers, make the RSE and the accounts, and give these files to upload."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.start(), (self.s3, self.server)))
        root = RucioCli.root(self.directory / 'root', self.server)
        trust = {'s3': {'ca_bundle': str(self.s3.ca_bundle)}}
        for name in ACCOUNTS:
            self.users[name] = add_user(root, self.directory / name, name, scopes=[f'user.{name}'], attributes=(), config=trust)
        rse_id = add_s3_rse(root, RSE, self.s3, accounts=ACCOUNTS)
        self.server.set_rse_keys(rse_id, self.s3.access_key, self.s3.secret_key)
        for user in self.users.values():
            make_files(user.directory)
        self.users['root'] = root

    def stop(self) -> None:
        for _, each in self.running:
            each.kill()
            each.communicate()
        self.s3.stop()
        self.server.stop()

    def run(self, account: str, command: str) -> str:
        """
        Run a command as an account would in a terminal.

        :returns: what it printed, in lines of text.
        :raises Refused: if it does not end as its comment says.
        """
        user = self.users[account]
        if command.endswith('until Ctrl-C'):
            return self._begin(account, command)
        done = subprocess.run(self._bash(command), **self._options(user), stderr=subprocess.STDOUT, check=False)
        # Stock upload and download end with 0 on every failure.
        failed = bool(done.returncode) or '\tERROR\t' in done.stdout
        if failed != command.endswith('# refused'):
            raise Refused(f'{account}$ {command}\nexit code {done.returncode}\n{done.stdout}')
        return self._shown(done.stdout, user.directory)

    def _bash(self, command: str) -> list[str]:
        return ['bash', '-c', command.replace(CA_BUNDLE, str(self.s3.ca_bundle))]

    def _options(self, user: RucioCli) -> dict[str, Any]:
        path = f'{user.environment["PATH"]}:{self.directory / "bin"}:{TOOLS}'
        environment = {**user.environment, 'PATH': path, 'COLUMNS': '120', 'TZ': 'UTC'}
        return {'env': environment, 'cwd': user.directory, 'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'text': True}

    def _begin(self, account: str, command: str) -> str:
        """Start a command that runs until the page is done, and wait until it says something."""
        running = subprocess.Popen(self._bash(f'exec {command}'), **self._options(self.users[account]), stderr=subprocess.PIPE)
        self.running.append((command, running))
        if not (said := running.stderr.readline()):  # type: ignore[union-attr]
            raise Refused(f'{account}$ {command}\nended with {running.wait()}')
        return said

    def interrupt(self) -> None:
        """
        Press Ctrl-C for what still runs.

        :raises Refused: if it does not end with 0.
        """
        while self.running:
            command, running = self.running.pop()
            running.send_signal(signal.SIGINT)
            printed = '\n'.join(running.communicate())
            if running.returncode or 'Traceback' in printed:
                raise Refused(f'{command}\nexit code {running.returncode}\n{printed}')

    def write(self, account: str, name: str, text: str) -> None:
        """Write a file in an account's home directory."""
        path = self.users[account].directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace(HOST, self.s3.url).replace(CA_BUNDLE, str(self.s3.ca_bundle)))

    def _shown(self, output: str, home: Path) -> str:
        output = _COLOUR.sub('', _LOG_PREFIX.sub(r'\1 ', output))
        return output.replace(self.s3.url, HOST).replace(str(self.s3.ca_bundle), CA_BUNDLE).replace(str(home), '~').replace('\t', ' ')


def make_files(directory: Path) -> None:
    """What a user has to upload: the same bytes each time."""
    numbers = random.Random(7)  # noqa: S311 - content of files
    sizes = {'file.root': 3_000_000, 'run7/a.root': 100, **{f'run7/event-{each}.dat': each * 1000 for each in range(4)}}
    for name, size in sizes.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(numbers.randbytes(size))


@contextmanager
def world() -> Iterator[World]:
    """A world in a directory of its own, that is gone at the end."""
    with tempfile.TemporaryDirectory(prefix='rucio-s3-record-') as directory:
        made = World(Path(directory))
        try:
            made.start()
            yield made
        finally:
            made.stop()


def sessions(block: str) -> Iterator[tuple[str, str, list[str]]]:
    """The commands of a recorded block: the account at the prompt, the command, and the lines that it printed."""
    account, command, printed = '', '', []
    for line in [*block.splitlines(), '    $ ']:
        if not (found := _PROMPT.match(line)):
            printed.append(line)
            continue
        if command:
            yield account, command, printed
        account, command, printed = found[1], found[2], []


def shortened(output: str) -> list[str]:
    """The lines of an output as a page has them."""
    lines = [f'    {line}'.rstrip() for line in _CHATTER.sub(r'...\n\1', output).splitlines() if line.strip()]
    return lines if len(lines) <= LONGEST else [*lines[:FIRST], '    ...', lines[-1]]


def settled(lines: list[str]) -> str:
    """Lines without what is another each time, to compare them with others."""
    text = '\n'.join(line.strip() for line in lines if line.strip())
    return re.sub(r'[ -]{2,}', ' ', _VOLATILE.sub('#', text))


def recorded(block: str, default: str, live: World) -> str:
    """The block with what its commands print now."""
    lines: list[str] = []
    for account, command, before in sessions(block):
        now = shortened(live.run(account or default, command))
        lines += [f'    {account}$ {command}', *(before if settled(before) == settled(now) else now)]
    return '\n'.join(lines).rstrip() + '\n'


def tried(block: str, default: str, live: World) -> str:
    """The block as it is, if its commands do what their comments say. Without prompts, it is Python."""
    found = [(account, command) for account, command, _ in sessions(block)]
    for account, command in found or [('', shlex.join([sys.executable, '-c', textwrap.dedent(block)]))]:
        live.run(account or default, command)
    return block


def block(kind: str, text: str, account: str, name: str, live: World) -> str:
    """What becomes of a block."""
    if kind == 'file':
        live.write(account, name, textwrap.dedent(text))
        return text
    return (recorded if kind == 'recorded' else tried)(text, account, live)


def pages() -> list[Path]:
    """The pages that have recordings."""
    return [path for path in (ROOT / 'README.md', *sorted(ROOT.glob('docs/**/*.md'))) if _BLOCK.search(path.read_text())]


def record(path: Path, *, check: bool) -> bool:
    """Record a page, or compare it. Whether it says what the commands print."""
    before = path.read_text()
    with world() as live:
        for account, command in _BEFORE.findall(before):
            live.run(account, command)
        after = _BLOCK.sub(lambda found: f'{found[1]}{block(found[2], found[5], found[3], found[4], live)}{found[6]}', before)
        live.interrupt()
    if after == before:
        return True
    sys.stdout.writelines(difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), 'now', n=1))
    if not check:
        path.write_text(after)
    return not check


def record_mistakes() -> None:
    """Write the table of mistakes; tests/integration/test_mistakes.py compares it."""
    with tempfile.TemporaryDirectory(prefix='rucio-s3-record-') as name:
        directory = Path(name)
        stores = [SeaweedFS(directory / 'sts', sts=True), SeaweedFS(directory / 'tls', tls=CA(directory / 'ca'))]
        server = RucioServer(directory / 'rucio', config={'policy': {'package': 'rucio_s3_policy'}})
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda each: each.start(), (*stores, server)))
            root = RucioCli.root(directory / 'root', server)
            mistakes.PAGE.write_text(mistakes.record(root, lambda user: directory / user, *stores))
        finally:
            for each in (*stores, server):
                each.stop()


def main() -> int:
    """Record or compare each page."""
    parser = argparse.ArgumentParser(description='Record the terminal sessions of the documentation.')
    parser.add_argument('--check', action='store_true', help='change nothing; exit with 1 where a page is no longer true')
    parser.add_argument('page', nargs='*', type=Path, help='these pages only')
    arguments = parser.parse_args()
    wanted = [page.resolve() for page in arguments.page] or pages()
    true = [record(page, check=arguments.check) for page in wanted if page != mistakes.PAGE]
    if not arguments.check and (mistakes.PAGE in wanted or not arguments.page):
        record_mistakes()
    return int(not all(true))


if __name__ == '__main__':
    sys.exit(main())
