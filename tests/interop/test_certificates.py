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

"""What `rucio s3 exec` starts verifies certificates, whatever the environment says: a server that no CA knows takes what it is sent.

By themselves, rclone, s5cmd and s3cmd take an empty variable for none. aws and boto3 believe everybody where AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE
is empty, up to botocore 1.42, which Rucio has; newer ones (1.43.62 was seen) refuse to run. So `exec` hands no empty one on.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from interop.world import Tools
from rucio.cli.s3.serve import serve
from rucio.common.s3.formats import Access, tool_environment
from servers.ca import CA
from servers.thief import Thief

VARIABLES = ('AWS_CA_BUNDLE', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE', 'SSL_CERT_FILE', 'SSL_CERT_DIR', 'RCLONE_CA_CERT')
EMPTY = dict.fromkeys(VARIABLES, '')
COMMANDS = {
    'aws': ['s3', 'ls'],
    'rclone': ['lsd', 'x:', '--retries', '1', '--low-level-retries', '1', '--config', '/dev/null'],
    's5cmd': ['--retry-count', '0', 'ls'],
    's3cmd': ['--max-retries', '1', 'ls'],
    'python': ['-c', "import botocore.session; botocore.session.get_session().create_client('s3').list_buckets()"],
}


@pytest.fixture
def thief(tmp_path: Path) -> Iterator[Thief]:
    with Thief(CA(tmp_path / 'thief')) as server:
        yield server


def access(thief: Thief) -> Access:
    keys: Any = {'rse': 'X', 'bucket': 'b', 'prefix': '', 'write': True, 'expiration': '2030-01-01T00:00:00Z'}
    keys |= {'access_key': 'AKID', 'secret_key': 'secret', 'session_token': 'token'}
    return Access('x', keys, thief.url, 'us-east-1', 'path')


@pytest.mark.parametrize('client', [*COMMANDS, 'the boto3 of Rucio'])
def test_an_empty_variable_makes_nobody_believed(tools: Tools, thief: Thief, client: str) -> None:
    program = sys.executable if client not in COMMANDS else tools.find(client)
    command = COMMANDS.get(client, COMMANDS['python'])
    done = tools.run([program, *command], env={'AWS_MAX_ATTEMPTS': '1', **tool_environment(EMPTY, [access(thief)])})
    assert done.returncode != 0
    assert 'certificate' in done.stderr.lower()
    assert thief.seen == []


@pytest.mark.parametrize(
    ('tool', 'words'),
    [('mc', ['ls', 'rucio/']), ('aws', ['--profile', 'rucio', 's3', 'ls']), ('rclone', ['lsd', 'rucio:', '--retries', '1', '--low-level-retries', '1'])],
)
def test_who_takes_the_port_of_serve_is_not_believed(tools: Tools, thief: Thief, monkeypatch: pytest.MonkeyPatch, tool: str, words: list[str]) -> None:
    """`rucio s3 serve` has ended, and another user of the machine listens on its port, which the tools are set up for."""
    program = tools.find(tool)
    monkeypatch.setenv('HOME', str(tools.home))
    port = thief.url.rpartition(':')[2]
    done = CliRunner().invoke(serve, ['--install', tool, '--port', port])
    assert done.exit_code == 0, done.output
    ran = tools.run([program, *words], env={'AWS_MAX_ATTEMPTS': '1'})
    assert ran.returncode != 0
    assert 'certificate' in (ran.stdout + ran.stderr).lower()
    assert thief.seen == []
