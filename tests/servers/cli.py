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

"""The stock `rucio` command as a user runs it, and what an operator sets up for that user."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .ceph import CephRGW
from .files import Sections, clean_environment, command_path, config_text, merged, write_private
from .forks import run, run_code
from .process import tail
from .rucio_server import RucioServer
from .seaweedfs import SeaweedFS

IMPL = 'rucio.rse.protocols.s3.Default'
Storage = SeaweedFS | CephRGW

# Calls of the stock Python client, in a process of their own: [[method, arguments, keyword arguments], ...] -> [result, ...]
_CALLS = """
import collections.abc, json, sys
from rucio.client import Client
client = Client()
results = []
for method, arguments, keywords in json.load(sys.stdin):
    result = getattr(client, method)(*arguments, **keywords)
    results.append(list(result) if isinstance(result, collections.abc.Iterator) else result)
json.dump(results, sys.stdout, default=str)
"""


class RucioError(RuntimeError):
    """A command of Rucio failed."""


class RucioCli:
    """
    A user of a Rucio server: a home directory and a rucio.cfg of their own.

    The directory is made anew, and removed by whoever made its parent. `config` holds more sections for the rucio.cfg,
    like {'s3:DEMO_S3': {'access_key': ..., 'secret_key': ...}}.
    """

    def __init__(
        self, directory: 'str | os.PathLike[str]', server: RucioServer, account: str, username: str, password: str, config: Sections | None = None
    ) -> None:
        self.directory = Path(directory).absolute()
        self.server = server
        self.account = account
        self.config_file = self.directory / 'rucio.cfg'
        self._config = merged(
            {
                'client': {
                    'rucio_host': server.url,
                    'auth_host': server.url,
                    'auth_type': 'userpass',
                    'username': username,
                    'password': password,
                    'account': account,
                    # By default all servers of a machine share one.
                    'auth_token_file_path': self.directory / 'auth_token',
                    'request_retries': 1,
                    **({'ca_cert': server.ca_bundle} if server.ca_bundle else {}),
                }
            },
            config or {},
        )
        self.configure({})

    @classmethod
    def root(cls, directory: 'str | os.PathLike[str]', server: RucioServer, config: Sections | None = None) -> 'RucioCli':
        """The server's operator."""
        return cls(directory, server, 'root', server.username, server.password, config)

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of a command of this user."""
        # RUCIO_HOME: where a client looks for rse-accounts.cfg.
        return clean_environment(self.directory, RUCIO_CONFIG=str(self.config_file), RUCIO_HOME=str(self.directory))

    def configure(self, sections: Sections) -> None:
        """Add options to the user's rucio.cfg."""
        self._config = merged(self._config, sections)
        write_private(self.config_file, config_text(self._config))

    def rucio(self, *arguments: str, check: bool = False, **options: Any) -> 'subprocess.CompletedProcess[str]':
        """
        Run `rucio ARGUMENTS`. An exit code of 0 says little: stock upload and download have it on every failure.

        :param check: raise RucioError when the exit code is not 0.
        """
        return self.run('rucio', *arguments, check=check, **options)

    def admin(self, *arguments: str, check: bool = True, **options: Any) -> 'subprocess.CompletedProcess[str]':
        """Run `rucio-admin ARGUMENTS`."""
        return self.run('rucio-admin', *arguments, check=check, **options)

    def run(
        self,
        command: str,
        *arguments: str,
        check: bool = False,
        timeout: float = 600,
        cwd: 'str | os.PathLike[str] | None' = None,
        env: Mapping[str, str] | None = None,
    ) -> 'subprocess.CompletedProcess[str]':
        """Run a command of this Python environment as the user. `env` adds to the environment; `cwd` is the user's home unless given."""
        done = run(command, *arguments, environment={**self.environment, **(env or {})}, directory=cwd or self.directory, timeout=timeout)
        if check and done.returncode:
            raise RucioError(f'{command} {" ".join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}')
        return done

    def popen(self, command: str, *arguments: str, cwd: 'str | os.PathLike[str] | None' = None, **options: Any) -> 'subprocess.Popen[str]':
        """Start a command as the user, to be killed or interrupted by the caller, who must also wait for it."""
        return subprocess.Popen(
            [command_path(command), *arguments],
            env=self.environment,
            cwd=cwd or self.directory,
            stdin=subprocess.DEVNULL,
            text=True,
            **{'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, **options},
        )

    def python(self, code: str, *arguments: str, text: str = '') -> 'subprocess.CompletedProcess[str]':
        """Run Python code as the user, with `text` for its standard input; Rucio's client is imported already."""
        return run_code(code, *arguments, environment=self.environment, directory=self.directory, text=text)

    def calls(self, *calls: tuple[Any, ...]) -> list[Any]:
        """
        Call methods of the stock Python client, all in one process: calls(('add_scope', 'root', 'data'), ('get_rse', 'X')).

        Keyword arguments are a Keywords as the last element of a call.
        """
        wire = []
        for method, *arguments in calls:
            keywords = arguments.pop() if arguments and isinstance(arguments[-1], Keywords) else {}
            wire.append([method, arguments, keywords])
        done = self.python(_CALLS, text=json.dumps(wire))
        if done.returncode:
            methods = ', '.join(method for method, _, _ in wire)
            raise RucioError(f'One of {methods} failed:\n{done.stderr}\nThe end of the server log:\n{tail(self.server.log)}')
        return json.loads(done.stdout)

    def call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """Call one method of the stock Python client."""
        return self.calls((method, *arguments, Keywords(keywords)))[0]


class Keywords(dict[str, Any]):
    """The keyword arguments of a call."""


def s3_protocol(storage: Storage, *, prefix: str = '/', impl: str = IMPL, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The protocol of an S3 RSE, as `add_protocol` takes it; `settings` adds to extended_attributes["s3"]."""
    local = {'read': 1, 'write': 1, 'delete': 1}
    return {
        'scheme': storage.scheme,
        'hostname': storage.hostname,
        'port': storage.port,
        'prefix': prefix,
        'impl': impl,
        'domains': {'lan': local, 'wan': {**local, 'third_party_copy_read': 1, 'third_party_copy_write': 1}},
        'extended_attributes': {'s3': {'provider': 'seaweedfs', 'region': storage.region, **(settings or {})}},
    }


def add_s3_rse(
    root: RucioCli,
    rse: str,
    storage: Storage,
    *,
    attributes: Mapping[str, Any] | None = None,
    accounts: Iterable[str] = ('root',),
    **protocol: Any,
) -> str:
    """
    Make an S3 RSE; the answer is its id.

    :param attributes: over {'lfn2pfn_algorithm': 's3_bucket', 'skip_upload_stat': True}; a value of None leaves one out.
    :param accounts: who may fill it, without a limit.
    :param protocol: what s3_protocol takes.
    """
    wanted = {'lfn2pfn_algorithm': 's3_bucket', 'skip_upload_stat': True, **(attributes or {})}
    results = root.calls(
        ('add_rse', rse),
        *(('add_rse_attribute', rse, key, value) for key, value in wanted.items() if value is not None),
        ('add_protocol', rse, s3_protocol(storage, **protocol)),
        *(('set_local_account_limit', account, rse, -1) for account in accounts),
        ('get_rse', rse),
    )
    return results[-1]['id']


def s3_keys(rse: str, storage: Storage) -> dict[str, dict[str, str]]:
    """The sections of a client's rucio.cfg that let it use the RSE."""
    section = {'access_key': storage.access_key, 'secret_key': storage.secret_key}
    if storage.ca_bundle:
        section['ca_bundle'] = str(storage.ca_bundle)
    return {f's3:{rse}': section}


def add_user(
    root: RucioCli,
    directory: 'str | os.PathLike[str]',
    account: str,
    *,
    scopes: Iterable[str] = (),
    attributes: Iterable[str] = ('admin', 'sign-url'),
    rses: Iterable[str] = (),
    config: Sections | None = None,
    identity: str = '',
) -> RucioCli:
    """
    Make an account with its scopes, without a limit on these RSEs, and give the user's command.

    The generic policy lets an account without the attribute `admin` upload nothing (`update_replicas_states`), and only
    one with `sign-url` gets presigned URLs.

    :param identity: the user's login, where it is not the account: all VOs of a server share them.
    """
    password = os.urandom(20).hex()
    root.calls(
        ('add_account', account, 'USER', f'{account}@localhost'),
        ('add_identity', account, identity or account, 'USERPASS', f'{account}@localhost', True, password),
        *(('add_account_attribute', account, key, 'true') for key in attributes),
        *(('add_scope', account, scope) for scope in scopes),
        *(('set_local_account_limit', account, rse, -1) for rse in rses),
    )
    return RucioCli(directory, root.server, account, identity or account, password, config)
