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

"""Keys and signatures are in nothing that a run prints, also with debug logging and when it fails."""

import json
import os
import re
from pathlib import Path

import pytest

from servers.cli import RucioCli
from servers.site import SCOPE, Site
from servers.team import Team, ok

# The SigV4 signature of a request, in a header or a URL.
SIGNATURE = re.compile(r'signature=[0-9a-f]{16}', re.IGNORECASE)


def printed(user: RucioCli, *words: str) -> str:
    done = user.rucio('-v', *words)
    return done.stdout + done.stderr


@pytest.mark.parametrize('rse', ['PLAIN_S3', 'TLS_S3'])
def test_no_secret_in_what_a_debug_run_prints(site: Site, unique: str, tmp_path: Path, rse: str) -> None:
    file = tmp_path / 'file'
    file.write_bytes(os.urandom(20 * 1024**2))
    upload = ('upload', '--rse', rse, '--scope', SCOPE, '--lfn', unique, str(file))

    text = printed(site.alice, *upload)
    assert 'Successfully uploaded file' in text
    text += printed(site.alice, *upload)  # is there already
    text += printed(site.alice, 'download', '--dir', str(tmp_path / 'back'), f'{SCOPE}:{unique}')
    assert 'DEBUG' in text
    site.storages[rse].client().delete_object(Bucket=SCOPE, Key=unique)
    text += printed(site.alice, 'download', '--dir', str(tmp_path / 'again'), f'{SCOPE}:{unique}')
    assert '404' in text

    assert site.storages[rse].secret_key not in text
    assert SIGNATURE.search(text) is None


def test_no_secret_in_what_a_refused_debug_run_prints(site: Site, unique: str, tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.write_bytes(b'content')
    client = site.alice._config['client']
    keys = {'access_key': 'admin', 'secret_key': 'open-sesame-1234567890', 'session_token': 'token-token-token-0987654321'}
    alice = RucioCli(tmp_path / 'elsewhere', site.alice.server, 'alice', client['username'], client['password'], {'s3:PLAIN_S3': keys})

    text = printed(alice, 'upload', '--rse', 'PLAIN_S3', '--scope', SCOPE, '--lfn', unique, str(file))

    assert '403' in text
    assert keys['secret_key'] not in text
    assert keys['session_token'] not in text
    assert SIGNATURE.search(text) is None


@pytest.mark.parametrize('way', ['vended', 'signed'])
def test_no_secret_of_the_server_and_none_that_it_gave_is_anywhere(way: str, unique: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    team: Team = request.getfixturevalue(f'{way}_team')
    did = f'{team.scope}:{unique}'
    (tmp_path / 'files').mkdir()
    (tmp_path / 'files' / 'large').write_bytes(os.urandom(20 * 1024**2))
    (tmp_path / 'files' / 'small').write_bytes(b'content')

    text = printed(team.owner, 's3', 'make-bucket', did)
    text += printed(team.owner, 's3', 'upload', str(tmp_path / 'files'), did)
    text += printed(team.owner, 's3', 'share', did, '--with', team.other.account)
    text += printed(team.owner, 's3', 'ls', did)
    text += printed(team.owner, 's3', 'url', did, '--for', 'https')
    text += printed(team.other, 'download', '--dir', str(tmp_path / 'back'), did)
    text += printed(team.owner, 'download', '--dir', str(tmp_path / 'back'), did)
    text += printed(team.other, 's3', 'ls', team.scope)  # refused
    assert 'DEBUG' in text
    assert 'Traceback' not in text

    secrets = {team.storage.secret_key}
    if way == 'vended':  # the server gives the same keys again, as long as more than half of their life is left
        for words in ((team.scope,), (did,), (did, '--read-only')):
            given = json.loads(ok(team.owner.rucio('s3', 'credentials', *words, '--format', 'json')))
            secrets |= set(re.findall(r'"(?:secret_key|session_token|SecretAccessKey|SessionToken)": "([^"]+)"', json.dumps(given)))
        assert len(secrets) > 2
    places = [team.root.server.log, *(path for user in (team.owner, team.other) for path in user.directory.rglob('*') if path.is_file())]
    text += ''.join(path.read_text(errors='replace') for path in places)
    assert [secret[:6] for secret in secrets if secret in text] == []
    assert SIGNATURE.search(text) is None
