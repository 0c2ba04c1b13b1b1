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

"""Other people's clients that get their keys from the STS of the Rucio server, with nothing of Rucio but a file with a token.

s5cmd is not here: it takes no address of an STS, and would send the token to the storage.
"""

import os

import pytest

from interop.test_clients import CLIENTS, SCOPE
from interop.world import ALIAS, RSE, WITHOUT_STS

PYTHON = {
    'botocore': 'from botocore.session import Session; print(Session().create_client("s3").get_object(Bucket="{}", Key="{}")["Body"].read())',
    's3fs': 'from s3fs import S3FileSystem; print(S3FileSystem().cat("{}/{}"))',
}


@pytest.fixture
def variables(tools):
    """Call it for the environment of a user and a role."""

    def make(world, user, did, rse=RSE):
        token, sts, ca = str(tools.home / 'token'), f'{user.server.url}/s3/sts', world.storage.ca_bundle
        user.rucio('s3', 'token', '--write', token, check=True)
        role = world.s3(user, 'url', did, '--for', 'role', '--rse', rse).strip()
        remote = {'TYPE': 's3', 'PROVIDER': 'Other', 'ENV_AUTH': 'true', 'ENDPOINT': world.storage.url, 'NO_CHECK_BUCKET': 'true'}
        return {
            'AWS_WEB_IDENTITY_TOKEN_FILE': token,
            'AWS_ROLE_ARN': role,
            'AWS_ENDPOINT_URL_STS': sts,
            'AWS_ENDPOINT_URL_S3': world.storage.url,
            'AWS_REGION': 'us-east-1',
            'AWS_DEFAULT_REGION': 'us-east-1',
            **{f'RCLONE_CONFIG_{ALIAS.upper()}_{name}': value for name, value in remote.items()},
            **({name: str(ca) for name in ('AWS_CA_BUNDLE', 'RCLONE_CA_CERT', 'SSL_CERT_FILE')} if ca else {}),
            f'MC_HOST_{ALIAS}': world.storage.url,
            f'MC_STS_ENDPOINT_{ALIAS}': sts,
            f'MC_WEB_IDENTITY_TOKEN_FILE_{ALIAS}': token,
            f'MC_ROLE_ARN_{ALIAS}': role,
        }

    return make


@pytest.mark.parametrize('client', ['aws', 'rclone', 'mc'])
def test_a_client_needs_a_token_and_no_keys(any_world, tools, unique, variables, client):
    file, copy = tools.home / 'file', tools.home / 'copy'
    file.write_bytes(os.urandom(1000))
    names = {'bucket': SCOPE, 'alias': ALIAS, 'file': file, 'folder': unique, 'name': f'{unique}/file', 'copy': copy}
    env = variables(any_world, any_world.alice, SCOPE)
    for verb in ('put', 'ls', 'get'):
        words = CLIENTS[client][verb].format(**names).split()
        done = tools.run([tools.find(words[0]), *words[1:]], env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert verb != 'ls' or 'file' in done.stdout
    assert copy.read_bytes() == file.read_bytes()


@pytest.mark.parametrize('library', PYTHON)
def test_a_library_needs_a_token_and_no_keys(world, tools, unique, variables, library):
    """The role is for a part that somebody else shared, so that its keys only read."""
    world.put(f'shared/{unique}', b'for bob')
    script = PYTHON[library].format(SCOPE, f'shared/{unique}')
    done = tools.run([tools.python(library), '-c', script], variables(world, world.bob, f'{SCOPE}:shared'))
    assert done.stdout.strip() == "b'for bob'", done.stderr


def test_a_client_tells_why_it_gets_no_keys(world, tools, variables):
    """And the token is in no log."""
    aws = [tools.find('aws'), 's3', 'ls', 's3://nosts-user.bob/']
    env = variables(world, world.bob, 'user.bob', WITHOUT_STS)
    assert f'RSE {WITHOUT_STS}: the Rucio server cannot make credentials for it' in tools.run(aws, env).stderr
    assert (
        'Account bob may not read the whole bucket of scope user.alice'
        in tools.run(aws, env | {'AWS_ROLE_ARN': f'arn:aws:iam::rucio:role/{RSE}/{SCOPE}'}).stderr
    )
    token = tools.home / 'token'
    log = world.bob.server.log.read_text()
    assert 'POST /s3/sts' in log
    assert token.read_text() not in log
    world.bob.rucio('s3', 'token', '--write', str(token), check=True)  # the server remembers the first one for a while
    world.bob.server.rows("UPDATE tokens SET expired_at = '2020-01-01 00:00:00' WHERE token = :token", token=token.read_text())
    assert '(ExpiredTokenException)' in tools.run(aws, env).stderr
    token.write_text('somebody-something-' + 32 * '0')
    assert 'Rucio does not know this token' in tools.run(aws, env).stderr
