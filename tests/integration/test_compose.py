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

"""The compose example: its file is valid, and what its containers run works (against SeaweedFS with STS). The containers are not run."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
import requests
import yaml

from servers import postgres
from servers.files import clean_environment
from servers.ports import free_port
from servers.process import TIMEOUT, Process, tail
from servers.seaweedfs import SeaweedFS

EXAMPLE = Path(__file__).resolve().parents[2] / 'examples' / 'compose'
FIND = ('docker-compose', 'docker')
REASON = postgres.missing()


def compose():
    """The command, where it is installed: to check a file it needs no daemon."""
    for name in FIND:
        path = shutil.which(name)
        command = [path] if name == 'docker-compose' else [path, 'compose']
        if path and subprocess.run([*command, 'version'], capture_output=True, check=False).returncode == 0:
            return command
    return None


@pytest.mark.parametrize('more', [[], ['seaweedfs.yaml']], ids=['minio', 'seaweedfs'])
def test_compose_takes_the_files(tmp_path, more):
    command = compose()
    if command is None:
        pytest.skip('neither docker compose nor docker-compose is installed (Debian: apt-get install --no-install-recommends docker-compose)')
    files = [word for name in ('compose.yaml', *more) for word in ('--file', EXAMPLE / name)] + ['--env-file', EXAMPLE / '.env.example']
    done = subprocess.run([*command, *files, 'config', '--quiet'], env=clean_environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*command, *files, 'config', '--services'], env=clean_environment(tmp_path), capture_output=True, text=True, check=False)
    assert {'storage', 'storage-user', 'postgres', 'rucio', 'reconciler'} <= set(done.stdout.split())


def test_no_old_names_of_minio():
    text = EXAMPLE.joinpath('compose.yaml').read_text()
    assert 'MINIO_ROOT_USER' in text
    assert 'MINIO_ACCESS_KEY' not in text


def program(service, *given):
    """What runs in the container of a service, on this machine. Words given to `docker compose run` replace the service's command, not its entrypoint."""
    wanted = yaml.safe_load(EXAMPLE.joinpath('compose.yaml').read_text())['services'][service]
    image = json.loads(EXAMPLE.joinpath('Dockerfile').read_text().rpartition('ENTRYPOINT ')[2])
    words = [*wanted.get('entrypoint', image), *(given or wanted['command'].split())]
    return [{'python': sys.executable, '/opt/rucio/start.py': str(EXAMPLE / 'start.py')}.get(word, word) for word in words]


class Container:
    """What `docker compose` would run in a container: the same program with the same settings, on this machine."""

    def __init__(self, directory, **settings):
        self.directory = directory
        directory.mkdir()
        self.environment = clean_environment(directory, RUCIO_HOME=str(directory), **settings)

    def run(self, *command, service='client'):
        done = subprocess.run(
            program(service, *command),
            env=self.environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done.stdout + done.stderr


@pytest.fixture
def example(tmp_path):
    """The example with SeaweedFS in the place of MinIO. The containers of the users, and of the server."""
    port = free_port()
    with postgres.PostgreSQL(tmp_path / 'postgres') as database, SeaweedFS(tmp_path / 's3', sts=True) as storage:
        server = Container(
            tmp_path / 'server',
            DATABASE=database.url,
            RUCIO_PASSWORD='a%password',
            BIND=f'127.0.0.1:{port}',
            S3_ENDPOINT=storage.url,
            S3_PROVIDER='seaweedfs',
            S3_ROLE=storage.role_arn,
            S3_ACCESS_KEY=storage.access_key,
            S3_SECRET_KEY=storage.secret_key,
        )
        log = tmp_path / 'server.log'
        process = Process('The example', program('rucio'), env=server.environment, cwd=server.directory, log=log)
        settings = {'RUCIO_URL': f'http://127.0.0.1:{port}', 'RUCIO_PASSWORD': 'a%password'}
        users = [Container(tmp_path / name, RUCIO_USER=name, **settings) for name in ('alice', 'bob')]
        try:
            process.start()
            process.wait(lambda: 'alice' in users[0].run('rucio', 'whoami'), 120)
            yield [*users, server]
            assert 'Traceback' not in tail(log, 1000)
        finally:
            process.stop()


@pytest.mark.long
def test_the_command_of_seaweedfs(tmp_path):
    """As its container runs it, on other ports and in another directory."""
    storage = yaml.safe_load(EXAMPLE.joinpath('seaweedfs.yaml').read_text())['services']['storage']
    ports = {}

    def free(found):
        ports[found[1]] = free_port(twin=True)
        return f'-{found[1]}.port={ports[found[1]]} '

    script = re.sub(r'-(master|volume|filer|s3)\.port=\d+ ', free, storage['command'][0])
    script = script.replace('/data', str(tmp_path)).replace('0.0.0.0', '127.0.0.1').replace('$$', '$')
    sockets = [Path(f'/tmp/seaweedfs-{name}-grpc-{port + 10000}.sock') for name, port in ports.items()]
    sockets += [Path(f'/tmp/seaweedfs-{name}-{port}.sock') for name, port in ports.items()]
    environment = clean_environment(tmp_path, S3_ACCESS_KEY='rucio', S3_SECRET_KEY='a-secret')
    process = Process('SeaweedFS', [*storage['entrypoint'], script], env=environment, cwd=tmp_path, log=tmp_path / 'log', leftovers=sockets)
    url = f'http://127.0.0.1:{ports["s3"]}'
    client = boto3.client('s3', endpoint_url=url, region_name='us-east-1', aws_access_key_id='rucio', aws_secret_access_key='a-secret')

    def healthy():
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f'{url}{urlsplit(storage["healthcheck"]["test"][-1]).path}', timeout=10).status_code == 200

    process.start()
    try:
        process.wait(healthy, TIMEOUT)
        client.create_bucket(Bucket='user.alice')
        client.put_object(Bucket='user.alice', Key='run1/a.txt', Body=b'hello')
        assert client.get_object(Bucket='user.alice', Key='run1/a.txt')['Body'].read() == b'hello'
        with pytest.raises(client.exceptions.NoSuchBucket):
            client.put_object(Bucket='user.bob', Key='a.txt', Body=b'')
    finally:
        process.stop()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(REASON is not None, reason=REASON or '')
def test_what_its_readme_says_works(example):
    alice, bob, server = example
    (alice.directory / 'a.txt').write_text('hello\n')
    output = alice.run('rucio', 's3', 'make-bucket', 'user.alice:run1')
    output += alice.run('rucio', 'upload', '--rse', 'EXAMPLE_S3', '--scope', 'user.alice', '--lfn', 'run1/a.txt', 'user.alice:run1', 'a.txt')
    assert 'Successfully uploaded' in output, output
    assert 'a.txt' in alice.run('rucio', 's3', 'ls', 'user.alice:run1')
    output = alice.run('rucio', 's3', 'share', 'user.alice:run1', '--with', 'bob')
    output += bob.run('rucio', 'download', 'user.alice:run1/a.txt')
    assert [path.read_text() for path in bob.directory.rglob('a.txt')] == ['hello\n'], output
    put = 'import boto3; boto3.client("s3").put_object(Bucket="user.alice", Key="run1/b.txt", Body=b"hello")'
    output = alice.run('rucio', 's3', 'exec', 'user.alice', '--', 'python', '-c', put)
    output += server.run('reconciler', '--run-once', service='reconciler')
    output += alice.run('rucio', 'download', 'user.alice:run1/b.txt')
    assert [path.read_text() for path in alice.directory.rglob('b.txt')] == ['hello'], output
    assert all(os.stat(path).st_mode & 0o077 == 0 for path in alice.directory.rglob('rucio.cfg'))
