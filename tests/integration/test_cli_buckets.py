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


"""`rucio s3 make-bucket`, `remove-bucket`, `ls` and `du`, by users who hold no key."""

import pytest
import requests

from servers.cli import RucioCli, add_s3_rse
from servers.team import Team, ok, refused, rows


@pytest.fixture(params=['vended', 'signed'])
def team(request: pytest.FixtureRequest) -> Team:
    return request.getfixturevalue(f'{request.param}_team')


@pytest.mark.smoke
def test_make_bucket_says_what_it_did(team: Team, unique: str) -> None:
    did = f'{team.scope}:{unique}'

    first = ok(team.owner.rucio('s3', 'make-bucket', did))
    again = ok(team.owner.rucio('s3', 'make-bucket', did))

    assert f'Registered the dataset {did}.' in first
    assert f'Added a rule that keeps {did} on {team.rse}.' in first
    assert f'The bucket {team.scope} already exists on {team.rse}.' in again
    assert f'The dataset {did} is already registered.' in again
    assert f'There is already a rule that keeps {did} on {team.rse}.' in again
    assert f'Its URL is {team.storage.url}/{team.scope}/{unique}' in again
    assert team.scope in team.buckets()
    assert [rule['rse_expression'] for rule in team.owner.call('list_did_rules', team.scope, unique)] == [team.rse]


def test_make_bucket_for_programs(team: Team, unique: str) -> None:
    team.owner.rucio('s3', 'make-bucket', team.scope)
    made = rows(team.owner.rucio('s3', '-R', 'make-bucket', f'{team.scope}:{unique}'))
    assert ['bucket', team.rse, team.scope, 'there'] in made
    assert ['dataset', team.rse, team.scope, 'made'] in made
    assert ['rule', team.rse, team.scope, 'made'] in made


def answer_to_a_browser(url: str, origin: str) -> 'str | None':
    """What the storage says to a page that wants to read an object with short-lived keys: its origin, or nothing."""
    asked = {'Origin': origin, 'Access-Control-Request-Method': 'GET', 'Access-Control-Request-Headers': 'x-amz-security-token'}
    return requests.options(url, headers=asked, timeout=20).headers.get('Access-Control-Allow-Origin')


@pytest.mark.parametrize('storage', ['sts', 'ceph'])
def test_pages_of_the_operators_origins_use_a_bucket(request: pytest.FixtureRequest, team_root: RucioCli, unique: str, storage: str) -> None:
    there, rse = request.getfixturevalue(storage), f'{unique}_S3'.upper()
    origins = ['https://notebooks.example.org', 'https://*.site.example.org']
    rse_id = add_s3_rse(team_root, rse, there, settings={'cors_origins': origins, 'bucket_prefix': f'{unique}-'})
    team_root.server.set_rse_keys(rse_id, there.access_key, there.secret_key)
    team_root.call('add_scope', 'root', f's.{unique}')
    url = f'{there.url}/{unique}-s.{unique}/run7/file'

    first = ok(team_root.rucio('s3', 'make-bucket', f's.{unique}', '--rse', rse))
    again = ok(team_root.rucio('s3', 'make-bucket', f's.{unique}', '--rse', rse))

    assert "Pages of the operator's origins can use it in browsers." in first
    assert "Pages of the operator's origins" not in again
    asked = ('https://notebooks.example.org', 'https://a.site.example.org', 'https://other.example.org')
    assert [answer_to_a_browser(url, origin) for origin in asked] == [*asked[:2], None]


def test_the_bucket_of_somebody_else(team: Team, unique: str) -> None:
    said = refused(team.other.rucio('s3', 'make-bucket', f'{team.scope}:{unique}'))
    assert team.scope in said
    assert team.owner.call('list_dids', team.scope, [{'name': unique}], did_type='all') == []
    assert 'may not' in said


def test_ls(team: Team, unique: str) -> None:
    ok(team.owner.rucio('s3', 'make-bucket', f'{team.scope}:{unique}'))
    team.upload(f'{unique}/known', b'12345', dataset=unique)
    team.upload(f'{unique}/gone', b'1')
    client = team.storage.client()
    client.put_object(Bucket=team.scope, Key=f'{unique}/by another tool', Body=b'123')
    client.put_object(Bucket=team.scope, Key=f'{unique}/unknown', Body=b'12')
    client.put_object(Bucket=team.scope, Key=f'{unique}-alone', Body=b'1234')
    client.put_object(Bucket=team.scope, Key=f'{unique}/known2', Body=b'')

    buckets = rows(team.owner.rucio('s3', '-R', 'ls', '--rse', team.rse))  # others have RSEs at the same storage
    collections = {row[0]: row[1:] for row in rows(team.owner.rucio('s3', '-R', 'ls', team.scope))}
    keys = {row[0]: row[1:] for row in rows(team.owner.rucio('s3', '-R', 'ls', f'{team.scope}:{unique}'))}
    human = ok(team.owner.rucio('s3', 'ls', f'{team.scope}:{unique}'))
    names = ok(team.owner.rucio('s3', 'ls', '--short', f'{team.scope}:{unique}')).splitlines()
    one = rows(team.owner.rucio('s3', '-R', 'ls', f'{team.scope}:{unique}/known'))
    client.delete_object(Bucket=team.scope, Key=f'{unique}/known')
    client.put_object(Bucket=team.scope, Key=f'{unique}/gone', Body=b'larger')
    broken = {row[0]: row[1:] for row in rows(team.owner.rucio('s3', '-R', 'ls', f'{team.scope}:{unique}'))}

    assert [row[:3] for row in buckets] == [[team.scope, team.scope, team.rse]]
    did = f'{team.scope}:{unique}'
    assert collections[did] == ['5', '11', 'DATASET']
    assert collections[f'{did}-alone'] == ['1', '4', 'no']
    assert keys == {
        f'{did}/by another tool': ['3', 'no'],
        f'{did}/gone': ['1', 'AVAILABLE'],
        f'{did}/known': ['5', 'AVAILABLE'],
        f'{did}/known2': ['0', 'no'],
        f'{did}/unknown': ['2', 'no'],
    }
    assert '| SCOPE:NAME' in human
    assert '5.000 B' in human
    assert names == sorted(keys)
    assert one == [[f'{did}/known', '5', 'AVAILABLE']]
    assert broken[f'{did}/known'] == ['', 'AVAILABLE, but missing']
    assert broken[f'{did}/gone'] == ['6', 'AVAILABLE, but 1 bytes']


def test_ls_of_nothing(team: Team, unique: str) -> None:
    ok(team.owner.rucio('s3', 'make-bucket', team.scope))
    assert f'There is nothing below {team.scope}:{unique} on {team.rse}' in refused(team.owner.rucio('s3', 'ls', f'{team.scope}:{unique}'))
    assert 'may not' in refused(team.other.rucio('s3', 'ls', team.scope))
    assert [row[:2] for row in rows(team.other.rucio('s3', '-R', 'ls', '--rse', team.rse)) if row[1] == team.scope] == []
    team.storage.client().put_object(Bucket=team.scope, Key=f'{unique}-alone', Body=b'1')
    assert rows(team.owner.rucio('s3', '-R', 'ls', f'{team.scope}:{unique}-alone')) == [[f'{team.scope}:{unique}-alone', '1', 'no']]


def test_ls_in_rich_mode(team: Team, unique: str) -> None:
    ok(team.owner.rucio('s3', 'make-bucket', f'{team.scope}:{unique}'))
    team.owner.configure({'experimental': {'cli': 'rich'}})
    try:
        said = ok(team.owner.rucio('s3', 'ls', team.scope))
    finally:
        team.owner.configure({'experimental': {'cli': 'tabulate'}})
    assert '┌' in said
    assert f'{team.scope}:{unique}' in said


def test_du(team: Team, unique: str) -> None:
    ok(team.owner.rucio('s3', 'make-bucket', team.scope))
    client = team.storage.client()
    for name, size in {'a/1': 10, 'a/2': 20, 'b': 5}.items():
        client.put_object(Bucket=team.scope, Key=f'{unique}/{name}', Body=bytes(size))

    below = rows(team.owner.rucio('s3', '-R', 'du', f'{team.scope}:{unique}'))
    scope = {row[0]: row[1:] for row in rows(team.owner.rucio('s3', '-R', 'du', team.scope))}
    all_buckets = rows(team.owner.rucio('s3', '-R', 'du', '--rse', team.rse))
    human = ok(team.owner.rucio('s3', 'du', f'{team.scope}:{unique}'))

    did = f'{team.scope}:{unique}'
    assert below == [[f'{did}/a', '2', '30'], [f'{did}/b', '1', '5']]
    assert scope[did] == ['3', '35']
    assert [row[0] for row in all_buckets] == [f'{team.scope} ({team.rse})']
    assert int(all_buckets[0][2]) == sum(team.objects().values())
    assert '| total' in human
    assert '35.000 B' in human


def test_remove_bucket(team: Team, unique: str) -> None:
    did = f'{team.scope}:{unique}'
    ok(team.owner.rucio('s3', 'make-bucket', did))
    team.upload(f'{unique}/file', b'12345', dataset=unique)

    full = refused(team.owner.rucio('s3', 'remove-bucket', did))
    foreign = refused(team.other.rucio('s3', 'remove-bucket', '--force', did))
    assert f'{unique}/file' in team.objects()
    forced = ok(team.owner.rucio('s3', 'remove-bucket', '--force', did))

    assert f'{did} is not empty' in full
    assert 'may not' in foreign
    assert f'Objects deleted from {team.rse}: 1.' in forced
    assert team.owner.call('list_did_rules', team.scope, unique) == []
    if team.scope in team.buckets():
        assert f'{unique}/file' not in team.objects()


def test_remove_bucket_that_is_empty(team: Team, unique: str) -> None:
    scope = f'user.{unique}'
    team.root.call('add_scope', team.owner.account, scope)
    ok(team.owner.rucio('s3', 'make-bucket', scope))
    assert scope in team.buckets()
    assert f'Removed the bucket {scope} from {team.rse}.' in ok(team.owner.rucio('s3', 'remove-bucket', scope))
    assert scope not in team.buckets()


def test_a_wrong_rse_is_named(team: Team) -> None:
    said = refused(team.owner.rucio('s3', 'make-bucket', '--rse', 'NOWHERE', team.scope))
    assert 'NOWHERE' in said
