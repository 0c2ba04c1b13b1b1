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

"""A PostgreSQL server for Rucio's catalogue, from the programs that a distribution installs."""

import contextlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .files import clean_environment, write_private
from .ports import free_port
from .process import TIMEOUT, Process, ServerError

# Where Debian and Red Hat have them, beside PATH.
PLACES = ('/usr/lib/postgresql/*/bin', '/usr/pgsql-*/bin')


def programs() -> Path | None:
    """The directory of `initdb` and `postgres`, of the newest version that is installed."""
    found = [path for place in PLACES for path in Path('/').glob(place[1:]) if (path / 'initdb').exists()]
    if found:
        return max(found, key=lambda path: [int(number) for number in re.findall(r'\d+', str(path))])
    initdb = shutil.which('initdb')
    return Path(initdb).resolve().parent if initdb else None


def missing() -> str | None:
    """Why there can be no PostgreSQL server here: the reason of a skipped test."""
    if programs() is None:
        return 'PostgreSQL is not installed: apt-get install --no-install-recommends postgresql'
    if importlib.util.find_spec('psycopg') is None:
        return "psycopg is not installed: pip install 'rucio[postgresql]'"
    return None


class PostgreSQL:
    """
    A PostgreSQL server on a free port of 127.0.0.1, with an empty database; use it in a `with`, or start() and stop() it.

    PostgreSQL refuses to run as root: it then runs as the user postgres or nobody, with its data in a directory of /tmp, as
    that user cannot reach `directory`. stop() removes the data.

    :param icu_locale: whose order of text it has, such as en-US; without, that of bytes.
    """

    def __init__(self, directory: 'str | os.PathLike[str]', icu_locale: str | None = None) -> None:
        self._locale = ['--locale-provider=icu', f'--icu-locale={icu_locale}', '--locale=C.UTF-8'] if icu_locale else ['--no-locale']
        self.directory = Path(directory).absolute()
        self.port = free_port()
        self._password = secrets.token_hex(20)
        self._data: Path | None = None
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """What Rucio's [database] default takes. It holds the password."""
        return f'postgresql+psycopg://rucio:{self._password}@127.0.0.1:{self.port}/postgres'

    @property
    def pid(self) -> int:
        """Of the server, the parent of those that serve its clients."""
        assert self._process
        return self._process.pid

    @property
    def log(self) -> Path:
        return self.directory / 'postgres.log'

    def __enter__(self) -> 'PostgreSQL':
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it takes connections."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._data = Path(tempfile.mkdtemp(prefix='rucio-s3-postgres-'))
        try:
            self._initialise()
            self._process = Process('PostgreSQL', self._command('postgres', '-D', 'db'), env=self._environment, cwd=self._data, log=self.log)
            self._process.start()
            self._process.wait(self._listens, TIMEOUT)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and remove its data."""
        if self._process:
            if self._process.running:
                # It does not wait for its clients then.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process.pid, signal.SIGINT)
            self._process.stop()
            self._process = None
        if self._data:
            shutil.rmtree(self._data)
            self._data = None

    @property
    def _environment(self) -> dict[str, str]:
        assert self._data
        return clean_environment(self._data)

    def _command(self, program: str, *arguments: str) -> list[str]:
        """A command of the user that owns the data."""
        where = programs()
        if where is None:
            raise ServerError('PostgreSQL is not installed')
        user = _other_user()
        prefix = ['setpriv', f'--reuid={user.pw_uid}', f'--regid={user.pw_gid}', '--clear-groups', '--'] if user else []
        return [*prefix, str(where / program), *arguments]

    def _initialise(self) -> None:
        data = self._data
        assert data
        environment = self._environment
        write_private(data / 'password', self._password)
        user = _other_user()
        for path in (data, data / 'password', Path(environment['TMPDIR'])):
            if user:
                os.chown(path, user.pw_uid, user.pw_gid)
        command = self._command('initdb', '-D', 'db', '-U', 'rucio', '--pwfile=password', '--auth=scram-sha-256', '--encoding=UTF8', *self._locale, '--no-sync')
        with self.log.open('ab') as log:
            done = subprocess.run(command, env=environment, cwd=data, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=TIMEOUT, check=False)
        if done.returncode:
            raise ServerError(f'The database could not be made:\n{self.log.read_text()[-2000:]}')
        settings = {
            'listen_addresses': "'127.0.0.1'",
            'port': self.port,
            'unix_socket_directories': "''",
            # Nobody needs it after a power cut.
            'fsync': 'off',
            'synchronous_commit': 'off',
            'full_page_writes': 'off',
        }
        with (data / 'db' / 'postgresql.conf').open('a') as file:
            file.writelines(f'{key} = {value}\n' for key, value in settings.items())

    def _listens(self) -> bool:
        """It listens a little before it takes connections."""
        command = self._command('pg_isready', '-q', '-h', '127.0.0.1', '-p', str(self.port), '-U', 'rucio')
        return subprocess.run(command, env=self._environment, stdin=subprocess.DEVNULL, timeout=TIMEOUT, check=False).returncode == 0


def _other_user() -> pwd.struct_passwd | None:
    """Who runs it where we are root."""
    if os.geteuid():
        return None
    try:
        return pwd.getpwnam('postgres')
    except KeyError:
        return pwd.getpwnam('nobody')
