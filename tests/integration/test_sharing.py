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


"""`rucio s3 share`, `unshare`, `grants` and `policy`: the other account can really read, and then it cannot."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from servers.team import Team, as_json, ok, refused, rows


@pytest.fixture(params=['vended', pytest.param('signed', marks=pytest.mark.long)])
def team(request: pytest.FixtureRequest) -> Team:
    return request.getfixturevalue(f'{request.param}_team')


@pytest.fixture
def shared(team: Team, unique: str) -> str:
    """A collection with a file in it, not shared yet."""
    ok(team.owner.rucio('s3', 'make-bucket', f'{team.scope}:{unique}'))
    team.upload(f'{unique}/file', b'12345', dataset=unique)
    return f'{team.scope}:{unique}'


def download(team: Team, did: str, directory: Path) -> bytes | None:
    """What the other account gets by the stock command."""
    team.other.rucio('download', '--dir', str(directory), did)
    found = [path for path in directory.rglob('*') if path.is_file()]
    return found[0].read_bytes() if found else None


@pytest.mark.smoke
def test_share_and_unshare(team: Team, shared: str, unique: str, tmp_path: Path) -> None:
    other = team.other.account
    assert download(team, f'{shared}/file', tmp_path / '1') is None

    assert f'{other} can read {shared}.' in ok(team.owner.rucio('s3', 'share', shared, '--with', other))
    assert rows(team.owner.rucio('s3', '-R', 'grants', shared))[0][:3] == [other, 'read', team.owner.account]
    assert download(team, f'{shared}/file', tmp_path / '2') == b'12345'
    assert download(team, shared, tmp_path / '3') == b'12345'
    assert rows(team.other.rucio('s3', '-R', 'ls', shared)) == [[f'{shared}/file', '5', 'AVAILABLE']]

    said = ok(team.owner.rucio('s3', 'unshare', shared, '--with', other))
    assert f'{shared} is no longer shared with {other}.' in said
    assert 'until they expire' in said
    assert rows(team.owner.rucio('s3', '-R', 'grants', shared)) == []
    assert download(team, f'{shared}/file', tmp_path / '4') is None
    assert 'may not' in refused(team.other.rucio('s3', 'ls', shared))


def test_share_reaches_no_further(team: Team, shared: str, unique: str, tmp_path: Path) -> None:
    team.upload(f'{unique}-private', b'secret')
    ok(team.owner.rucio('s3', 'share', shared, '--with', team.other.account))
    assert download(team, f'{shared}-private', tmp_path / '1') is None
    refused(team.other.rucio('s3', 'ls', f'{shared}-private'))
    for command, row in {'ls': [shared, '1', '5', 'DATASET'], 'du': [shared, '1', '5']}.items():
        seen = team.other.rucio('s3', '-R', command, team.scope)
        assert row in rows(seen)
        assert f'{shared}-private' not in seen.stdout
        assert seen.stderr == f'Only what is shared with {team.other.account} is shown of {team.scope}.\n'


def test_share_with_an_attribute(team: Team, shared: str, unique: str, tmp_path: Path) -> None:
    """Who is in the experiment need not be told where it is; who leaves it, gets nothing more."""
    owner, other = team.owner.account, team.other.account
    attribute = f'experiment={unique}'
    team.root.call('add_account_attribute', other, 'experiment', unique)
    said = ok(team.owner.rucio('s3', 'share', shared, '--attribute', attribute))
    assert f'all accounts with {attribute} can read {shared}.' in said
    row = [shared, 'read', owner, attribute, '-', team.rse]
    for user in (team.owner, team.other):
        assert row in rows(user.rucio('s3', '-R', 'ls', '--shared'))
    assert [shared, team.scope, team.rse, ''] in rows(team.other.rucio('s3', '-R', 'ls'))
    if team.storage.sts:
        keys = json.loads(ok(team.other.rucio('s3', 'credentials', '--format', 'json')))
        assert (team.scope, f'{unique}/') in [(each['bucket'], each['prefix']) for each in keys]
    assert download(team, f'{shared}/file', tmp_path / '1') == b'12345'

    team.root.call('delete_account_attribute', other, 'experiment')
    assert shared not in ok(team.other.rucio('s3', '-R', 'ls', '--shared'))
    assert download(team, f'{shared}/file', tmp_path / '2') is None
    assert f'no longer shared with all accounts with {attribute}' in ok(team.owner.rucio('s3', 'unshare', shared, '--attribute', attribute))
    assert rows(team.owner.rucio('s3', '-R', 'grants', shared)) == []


PUT = """
import sys
from rucio.client.s3client import S3Client
s3 = S3Client().boto3_client(sys.argv[1], write=True)
scope, _, name = sys.argv[1].partition(':')
s3.put_object(Bucket=scope, Key=name + '/written', Body=b'by the other')
"""


def put(team: Team, did: str) -> str:
    return team.other.python(PUT, did).stderr


def test_share_for_writing(team: Team, shared: str, unique: str) -> None:
    other = team.other.account
    ok(team.owner.rucio('s3', 'share', shared, '--with', other))
    assert 'AccessDenied' in put(team, shared)

    assert f'{other} can read and write {shared}.' in ok(team.owner.rucio('s3', 'share', shared, '--with', other, '--write'))
    assert put(team, shared) == ''

    assert team.objects()[f'{unique}/written'] == len('by the other')
    assert rows(team.owner.rucio('s3', '-R', 'grants', shared))[0][:2] == [other, 'read, write']


def status(team: Team, key: str) -> int:
    """What somebody gets who has never heard of Rucio."""
    try:
        with urllib.request.urlopen(f'{team.storage.url}/{team.scope}/{key}', timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_public(team: Team, shared: str, unique: str, tmp_path: Path) -> None:
    assert status(team, f'{unique}/file') == 403

    assert f'everybody can read {shared}.' in ok(team.owner.rucio('s3', 'share', shared, '--public'))
    assert status(team, f'{unique}/file') == 200
    assert download(team, f'{shared}/file', tmp_path / '1') == b'12345'
    assert rows(team.owner.rucio('s3', '-R', 'grants', shared))[0][:2] == ['*', 'read']
    assert unique in json.dumps(as_json(team.owner.rucio('s3', '-R', 'policy', team.scope)))

    ok(team.owner.rucio('s3', 'unshare', shared, '--public'))
    assert status(team, f'{unique}/file') == 403
    assert download(team, f'{shared}/file', tmp_path / '2') is None


SWEEP = """
from rucio.core.s3.buckets import publishing
print(*publishing.delete_ended('def'))
"""


def test_what_was_public_ends_with_the_collection(signed_team: Team, unique: str) -> None:
    """Rucio's undertaker erases it and knows nothing of policies; what is written below its name later is nobody's to read."""
    team, server, did = signed_team, signed_team.root.server, f'{signed_team.scope}:{unique}'
    ok(team.owner.rucio('s3', 'make-bucket', did))
    ok(team.owner.rucio('s3', 'share', did, '--public'))
    team.storage.client().put_object(Bucket=team.scope, Key=f'{unique}/file', Body=b'12345')
    assert status(team, f'{unique}/file') == 200

    team.owner.call('set_metadata', team.scope, unique, 'lifetime', 0)
    server.run_daemon('rucio-undertaker', '--run-once')
    swept = subprocess.run(
        [sys.executable, '-c', SWEEP], env=server.environment, cwd=server.directory, capture_output=True, text=True, check=False, timeout=300
    )
    assert (swept.stdout, status(team, f'{unique}/file')) == ('1 []\n', 403), swept.stderr
    ok(team.owner.rucio('s3', 'make-bucket', did))
    assert rows(team.owner.rucio('s3', '-R', 'grants', did)) == []


def test_only_the_owner_shares(team: Team, shared: str) -> None:
    other = team.other.account
    assert 'may not' in refused(team.other.rucio('s3', 'share', shared, '--with', other))
    ok(team.owner.rucio('s3', 'share', shared, '--with', other, '--write'))
    refused(team.other.rucio('s3', 'share', shared, '--public'))
    refused(team.other.rucio('s3', 'unshare', shared, '--with', other))


@pytest.mark.parametrize(
    ('words', 'code', 'said'),
    [
        ((), 2, 'Missing option: --with ACCOUNT, --attribute KEY=VALUE, --all-accounts or --public'),
        (('--all-accounts', '--write'), 2, '--all-accounts grants read access only'),
        (('--attribute', 'experiment=atals'), 1, "No account has the attribute 'experiment=atals'"),
        (('--attribute', 'experiment'), 1, 'as KEY=VALUE'),
        (('--public', '--write'), 2, '--public grants read access only'),
        (('--with', 'nobody.there'), 1, 'nobody.there'),
    ],
)
def test_wrong_shares_are_named(vended_team: Team, words: tuple[str, ...], code: int, said: str, unique: str) -> None:
    did = f'{vended_team.scope}:{unique}'
    ok(vended_team.owner.rucio('s3', 'make-bucket', did))
    assert said in refused(vended_team.owner.rucio('s3', 'share', did, *words), code)


def test_policy(team: Team, shared: str, unique: str, tmp_path: Path) -> None:
    reader = {'AWS': ['arn:aws:iam:::user/reader']}
    statement = {'Sid': 'own', 'Effect': 'Allow', 'Principal': reader, 'Action': ['s3:GetObject'], 'Resource': [f'arn:aws:s3:::{team.scope}/{unique}/*']}
    file = tmp_path / 'policy.json'
    file.write_text(json.dumps({'Version': '2012-10-17', 'Statement': [statement]}))

    assert 'is set' in ok(team.owner.rucio('s3', 'policy', team.scope, '--set', str(file)))
    found = as_json(team.owner.rucio('s3', '-R', 'policy', team.scope))
    refused(team.other.rucio('s3', 'policy', team.scope))
    refused(team.other.rucio('s3', 'policy', team.scope, '--remove'))
    assert 'is removed' in ok(team.owner.rucio('s3', 'policy', team.scope, '--remove'))

    assert unique in json.dumps(found)
    assert 'has no policy' in ok(team.owner.rucio('s3', 'policy', team.scope))
    file.write_text(json.dumps({'Version': '2012-10-17', 'Statement': [statement | {'Principal': '*'}]}))
    assert 'rucio s3 share' in refused(team.owner.rucio('s3', 'policy', team.scope, '--set', str(file)))
    file.write_text('nonsense')
    assert 'policy.json is not valid JSON' in refused(team.owner.rucio('s3', 'policy', team.scope, '--set', str(file)))
    refused(team.owner.rucio('s3', 'policy', team.scope, '--set', f'{file}.not'), 2)
