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

"""A stock Rucio server: SQLite or PostgreSQL, gunicorn, one root account."""

import contextlib
import json
import os
import secrets
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

from .files import Sections, clean_environment, command_path, config_text, merged, write_private
from .forks import LIBRARIES, run
from .ports import free_port
from .postgres import PostgreSQL
from .process import TIMEOUT, Process, ServerError, tail

# The daemons of this project as `run` takes them, also where only links to lib/ are installed (make dev).
RECONCILER = ('python', '-m', 'rucio.daemons.s3.reconciler')
COPIER = ('python', '-m', 'rucio.daemons.s3.copier')

# Two writers wait for each other with a write-ahead log; without it SQLite says "database is locked" now and then.
_BOOTSTRAP = """
import sqlite3, sys
def pragma(text):
    if sys.argv[1:]:
        database = sqlite3.connect(sys.argv[1])
        database.execute('PRAGMA ' + text)
        database.close()
pragma('journal_mode=WAL')
from rucio.db.sqla.util import build_database, create_base_vo, create_root_account
build_database()
create_base_vo()
create_root_account()
from rucio_s3_database import main
main([])
pragma('wal_checkpoint(TRUNCATE)')
"""

# Servers begin with the same root account, and their databases are copies of the first.
_PASSWORD = secrets.token_hex(20)
_new_databases: dict[str, bytes] = {}

_GUNICORN = """
import contextlib
import importlib

from sqlalchemy import event
from sqlalchemy.engine import Engine

bind = '127.0.0.1:{port}'
workers = 2
timeout = 300
graceful_timeout = 1
accesslog = '-'
control_socket_disable = True
worker_tmp_dir = {tmp!r}

# Here once, instead of in each worker: half of the time of a start.
for module in {libraries!r}:
    with contextlib.suppress(ImportError):
        importlib.import_module(module)


def pre_request(worker, request):
    # Before the answer, so that a client that has it finds its request in the file.
    with open({requests!r}, 'a') as log:
        log.write(request.method + ' ' + request.uri + chr(10))


@event.listens_for(Engine, 'connect')
def do_not_wait_for_the_disk(connection, record):
    # Half of the time of a request; nobody needs this database after a power cut.
    if type(connection).__module__ == 'sqlite3':
        connection.execute('PRAGMA synchronous = OFF')
"""

_ALEMBIC = """
[alembic]
script_location = {scripts}
sqlalchemy.url = {database}
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(levelname)s %(name)s %(message)s
"""


class Request(NamedTuple):
    """What a client asked of the server."""

    method: str
    uri: str


class RucioServer:
    """
    A Rucio server on a free port of 127.0.0.1 (plain http), all of it in one directory; use it in a `with`, or start() and stop() it.

    The account root has the userpass identity `username`, `password`.

    :param config: more sections for its rucio.cfg, over those it gets anyway.
    :param postgres: where its catalogue is; in a file of its directory (SQLite) without.
    """

    username = 'ddmlab'
    ca_bundle: Path | None = None  # where it speaks https

    def __init__(self, directory: 'str | os.PathLike[str]', config: Sections | None = None, postgres: PostgreSQL | None = None) -> None:
        self.directory = Path(directory).absolute()
        self.password = _PASSWORD
        self.port = free_port()
        self.url = f'http://127.0.0.1:{self.port}'
        self._postgres = postgres
        self._has_database = postgres is None and self._database.exists()
        self._config = merged(self._base_config(), config or {})
        self._rse_accounts: dict[str, dict[str, Any]] = {}
        self._process: Process | None = None

    @property
    def log(self) -> Path:
        return self.directory / 'rucio-server.log'

    @property
    def environment(self) -> dict[str, str]:
        """What the server, its daemons and server-side Python code run with."""
        metrics = {'PROMETHEUS_MULTIPROC_DIR': str(self.directory / 'metrics')} if 'metrics' in self._config['api']['endpoints_add'] else {}
        return clean_environment(self.directory, RUCIO_HOME=str(self.directory), **metrics)

    def __enter__(self) -> 'RucioServer':
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it answers."""
        self.prepare()
        self._process = Process(
            'The Rucio server',
            self._command(),
            env=self.environment,
            cwd=self.directory,
            log=self.log,
        )
        self._process.start()
        self._process.wait(self._answers, TIMEOUT)
        self._request_log.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        return [self._python, '-m', 'gunicorn', '-c', str(self.directory / 'gunicorn.conf.py'), 'rucio.web.rest.flaskapi.v1.main:application']

    @property
    def pid(self) -> int:
        """Of gunicorn's process, whose children answer."""
        if self._process is None:
            raise ServerError('the Rucio server is not running')
        return self._process.pid

    def prepare(self) -> None:
        """Its configuration and its database: all that a process with its environment needs to use rucio.core."""
        self._write_files()
        if not self._has_database:
            self._bootstrap()
            self._has_database = True

    def stop(self) -> None:
        if self._process:
            self._process.stop()
            self._process = None

    def configure(self, sections: Sections) -> None:
        """Add options to its rucio.cfg: daemons that are run from now on see them, the server after stop() and start()."""
        self._config = merged(self._config, sections)
        write_private(self.directory / 'etc' / 'rucio.cfg', config_text(self._config))

    def set_rse_keys(self, rse_id: str, access_key: str, secret_key: str, region: str = 'us-east-1', **more: Any) -> None:
        """Give the server and its daemons the keys of an S3 RSE, as a site does: in rse-accounts.cfg, by the RSE's id."""
        self._rse_accounts[rse_id] = {'access_key': access_key, 'secret_key': secret_key, 'signature_version': 's3v4', 'region': region, **more}
        self._write_rse_accounts()

    def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """What is in its database, or what a statement changes there."""
        from sqlalchemy import create_engine, text  # noqa: PLC0415 - a client's Rucio does not have it

        engine = create_engine(self.database_url)
        try:
            with engine.begin() as connection:
                result = connection.execute(text(query), values)
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            engine.dispose()

    def requests(self) -> list[Request]:
        """All requests since the start, in order; len() before and after an action counts what it cost."""
        if not self._request_log.exists():
            return []
        return [Request(*line.split(' ', 1)) for line in self._request_log.read_text().splitlines()]

    def run(self, command: str, *arguments: str, timeout: float = 300) -> 'subprocess.CompletedProcess[str]':
        """Run a command on the server's machine: run('rucio-reaper', '--run-once', '--greedy')."""
        return run(command, *arguments, environment=self.environment, directory=self.directory, timeout=timeout)

    def run_daemon(self, command: str, *options: str) -> str:
        """Run one of Rucio's daemons to its end, which has to be a good one; what it said."""
        done = self.run(command, *options)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert 'Traceback' not in said, said
        return said

    @contextlib.contextmanager
    def running(self, log: Path, command: str, *options: str) -> Iterator['subprocess.Popen[bytes]']:
        """A daemon as a process that goes on; its log goes to a file."""
        with log.open('w') as output:
            process = subprocess.Popen(
                [command_path(command), *options], env=self.environment, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def _database(self) -> Path:
        return self.directory / 'rucio.db'

    @property
    def _request_log(self) -> Path:
        return self.directory / 'requests.log'

    def _answers(self) -> bool:
        try:
            # No proxy: it is this machine.
            tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.ca_bundle))
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)
            with opener.open(f'{self.url}/ping', timeout=10) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _write_files(self) -> None:
        for name in ('etc', 'trace', 'templates'):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self.configure({})
        self._write_rse_accounts()
        scripts = self._package / 'db' / 'sqla' / 'migrate_repo'
        paths = {'scripts': str(scripts).replace('%', '%%'), 'database': self.database_url.replace('%', '%%')}
        write_private(self.directory / 'etc' / 'alembic.ini', _ALEMBIC.format(**paths))
        gunicorn = _GUNICORN.format(port=self.port, tmp=str(self.directory / 'tmp'), requests=str(self._request_log), libraries=LIBRARIES)
        (self.directory / 'gunicorn.conf.py').write_text(gunicorn)

    @property
    def _python(self) -> str:
        """The interpreter that runs it."""
        return sys.executable

    @property
    def _package(self) -> Path:
        """Where its Rucio is."""
        # Not by importing it: that would read the configuration of this process.
        spec = util.find_spec('rucio')
        if spec is None or not spec.submodule_search_locations:
            raise ServerError('rucio is not installed in this Python environment')
        return Path(next(iter(spec.submodule_search_locations)))

    def _write_rse_accounts(self) -> None:
        write_private(self.directory / 'etc' / 'rse-accounts.cfg', json.dumps(self._rse_accounts, indent=2))

    @property
    def database_url(self) -> str:
        """Of its catalogue, for SQLAlchemy. It may hold a password."""
        return self._postgres.url if self._postgres else f'sqlite:///{self._database}?timeout=60'

    def _base_config(self) -> Sections:
        # The server cannot be imported without these; with no brokers it sends nothing to anyone.
        messages = {'tracedir': self.directory / 'trace', 'brokers': '', 'port': 1, 'topic': 'none', 'username': 'none', 'password': 'none'}
        return {
            'common': {'loglevel': 'INFO', 'logdir': self.directory, 'mailtemplatedir': self.directory / 'templates'},
            'database': {'default': self.database_url},
            'alembic': {'cfg': self.directory / 'etc' / 'alembic.ini'},
            'bootstrap': {'userpass_identity': self.username, 'userpass_pwd': self.password, 'userpass_email': 'root@localhost'},
            'trace': messages,
            'nongrid-trace': messages,
            'policy': {'permission': 'generic', 'schema': 'generic'},
            'api': {'endpoints_add': 's3'},
            # Nobody listens there. The default is the memcached of the machine, if it has one.
            'cache': {'url': '127.0.0.1:1'},
            'monitor': {'enable_metrics': 'False'},
        }

    def _bootstrap(self) -> None:
        like = str([self._config['common'].get('multi_vo'), self._config['policy']])
        if self._postgres is None and like in _new_databases:
            self._database.write_bytes(_new_databases[like])
            return
        with self.log.open('ab') as log:
            done = subprocess.run(
                [self._python, '-c', _BOOTSTRAP, *([] if self._postgres else [str(self._database)])],
                env=self.environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=TIMEOUT,
                check=False,
            )
        if done.returncode:
            self._database.unlink(missing_ok=True)
            raise ServerError(f'The database of the Rucio server could not be made. The end of its log, {self.log}:\n{tail(self.log)}')
        if self._postgres is None:
            _new_databases[like] = self._database.read_bytes()
