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

"""
Grants that strangers write, read or delete, by what stock Rucio lets every account do.

On SQLite, where Rucio's JSON metadata do not work, and on PostgreSQL, where they do. Erin (or alice) owns the scope, fritz (or bob) was granted
something, marvin has an account and nothing else.
"""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from rucio.common.s3.dates import from_text, to_text
from servers import postgres
from servers.cli import Keywords, RucioCli, RucioError, add_user
from servers.granted import Granted
from servers.seaweedfs import SeaweedFS
from servers.site import PostgresSite
from servers.team import Team, ok, refused, rows

REASON = postgres.missing()
KEY = 's3_grants'  # where grants were


READ = """
import sys
from rucio.client.s3client import S3Client
s3, did = S3Client(), sys.argv[1]
place = s3.locate(*did.split(':'))[0]
print(s3.boto3_client(did).get_object(Bucket=place['bucket'], Key=place['key'].rstrip('/') + '/file')['Body'].read())
"""


class Victim(NamedTuple):
    """A site, what its owner shares there, and the stranger."""

    root: RucioCli
    owner: RucioCli
    friend: RucioCli
    marvin: RucioCli
    rse: str
    shared: str  # with the friend; a file is in it
    mocked: str  # the same in the scope mock, shared with nobody
    has_metadata: bool

    @classmethod
    def make(cls, site: Team | PostgresSite, directory: Callable[[str], Path], prefix: str, storage: SeaweedFS) -> 'Victim':
        owner, friend, rse = (site.owner, site.other, site.rse) if isinstance(site, Team) else (site.alice, site.bob, site.rse)
        name = f't{uuid4().hex[:12]}'
        shared, mocked = f'user.{owner.account}:{name}', f'mock:{name}/run1'
        site.root.calls(('add_scope', 'root', 'mock'), ('set_local_account_limit', 'root', rse, -1))  # as in Rucio's documentation
        marvin = add_user(site.root, directory('marvin'), 'marvin', attributes=())
        ok(owner.rucio('s3', 'make-bucket', shared))
        ok(owner.rucio('s3', 'share', shared, '--with', friend.account))
        ok(site.root.rucio('s3', 'make-bucket', mocked, '--rse', rse))
        for did in (shared, mocked):
            scope, name = did.split(':')
            storage.client().put_object(Bucket=f'{prefix}{scope}', Key=f'{name}/file', Body=b'secret')
        return cls(site.root, owner, friend, marvin, rse, shared, mocked, isinstance(site, PostgresSite))

    def attempt(self, *call: object) -> bool:
        """Whether a call of the stranger's stock client worked."""
        try:
            self.marvin.calls(call)
        except RucioError:
            return False
        return True


def forgery(by: str) -> dict[str, object]:
    """Metadata by which marvin would be let in."""
    return {KEY: {'marvin': {'write': True, 'by': by, 'at': '2026-01-02T03:04:05Z'}}}


def reads(user: RucioCli, did: str) -> bool:
    """Whether the server's signature lets somebody read what is in a collection."""
    done = user.python(READ, did)
    return 'secret' in done.stdout


@pytest.fixture(scope='module')
def on_sqlite(signed_team: Team, tmp_path_factory: pytest.TempPathFactory, plain: SeaweedFS) -> Victim:
    return Victim.make(signed_team, tmp_path_factory.mktemp, '', plain)


@pytest.fixture(scope='module')
def on_postgres(postgres_site: PostgresSite, tmp_path_factory: pytest.TempPathFactory, plain: SeaweedFS) -> Victim:
    return Victim.make(postgres_site, tmp_path_factory.mktemp, 'postgres-', plain)


@pytest.fixture(params=['on_sqlite', pytest.param('on_postgres', marks=[pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=REASON or '')])])
def victim(request: pytest.FixtureRequest) -> Victim:
    return request.getfixturevalue(request.param)


def test_nobody_else_sees_with_whom_something_is_shared(victim: Victim) -> None:
    """`GET /dids/SCOPE/NAME/meta?plugin=JSON` tells every account who was let in, and by whom."""
    scope, name = victim.shared.split(':')
    plugins = ('DID_COLUMN', *(('JSON', 'ALL') if victim.has_metadata else ()))
    for found in victim.marvin.calls(*(('get_metadata', scope, name, Keywords(plugin=plugin)) for plugin in plugins)):
        assert victim.friend.account not in str(found)
    refused(victim.marvin.rucio('s3', 'grants', victim.shared))


def test_nobody_ends_what_others_have_shared(victim: Victim) -> None:
    """`DELETE /dids/SCOPE/NAME/meta?key=s3_grants` asks for no permission. The friend must not lose anything by it."""
    victim.attempt('delete_metadata', *victim.shared.split(':'), KEY)
    assert reads(victim.friend, victim.shared)
    assert rows(victim.owner.rucio('s3', '-R', 'grants', victim.shared))[0][:2] == [victim.friend.account, 'read']


def test_nobody_grants_herself_access_by_metadata(victim: Victim) -> None:
    """Metadata that look like a grant: written by a stranger, which Rucio refuses, or by somebody who may write metadata."""
    scope, name = victim.shared.split(':')
    forged = forgery(victim.owner.account)[KEY]
    assert not victim.attempt('set_metadata', scope, name, KEY, forged)
    if victim.has_metadata:
        victim.owner.calls(('set_metadata', scope, name, KEY, forged))
    assert not reads(victim.marvin, victim.shared)


def test_nobody_grants_herself_access_in_the_scope_mock(victim: Victim, unique: str) -> None:
    """
    In the scope mock every account may make collections, with metadata of its choice: such a grant opened all that lies below the name.

    Attaching is allowed there as well, also to collections of others: what lies in one that was shared could be had by it.
    """
    name = victim.mocked.split(':')[1]
    made = victim.attempt('add_dataset', 'mock', name.split('/')[0], Keywords(meta=forgery('root')))
    assert made is victim.has_metadata
    assert not reads(victim.marvin, victim.mocked)
    assert victim.attempt('add_container', 'mock', unique)
    assert victim.attempt('attach_dids', 'mock', unique, [{'scope': 'mock', 'name': name}])
    assert not reads(victim.marvin, victim.mocked)


def test_who_makes_a_collection_in_mock_may_not_share_it(victim: Victim, unique: str) -> None:
    """Rucio names her as its account. Grants are for the owner of the scope to give and to take."""
    assert victim.attempt('add_dataset', 'mock', unique)
    for words in (('share', '--public'), ('share', '--with', 'marvin', '--write'), ('unshare', '--with', 'root')):
        refused(victim.marvin.rucio('s3', words[0], f'mock:{unique}', *words[1:]))


def test_nobody_gives_herself_the_attribute_that_something_is_shared_with(victim: Victim, unique: str) -> None:
    """Set it by the stock client, or be called like it. Would be in every experiment; only admins of Rucio may say who is."""
    attribute = f'experiment={unique}'
    victim.root.call('add_account_attribute', victim.friend.account, 'experiment', unique)
    ok(victim.owner.rucio('s3', 'share', victim.shared, '--attribute', attribute))
    for call in (
        ('add_account_attribute', 'marvin', 'experiment', unique),
        ('add_account_attribute', 'marvin', 'admin', 'true'),
        ('add_account', attribute, 'USER', 'marvin@localhost'),
    ):
        assert not victim.attempt(*call), call
    assert not reads(victim.marvin, victim.shared)
    victim.root.call('add_account_attribute', 'marvin', 'experiment', unique)
    assert reads(victim.marvin, victim.shared)
    victim.root.call('delete_account_attribute', 'marvin', 'experiment')
    assert not reads(victim.marvin, victim.shared)


def test_no_keys_outlive_a_grant(granted: Granted) -> None:
    """Ask for keys, of the longest lifetime, shortly before the access ends; or get those that the server still has from before there was an end."""
    shared = {'scope': granted.bucket, 'name': 'open', 'account': granted.name}
    keys = {'rse': granted.rse, 'scope': granted.bucket, 'name': 'open'}
    by_prefix = {'rse': granted.rse, 'bucket': granted.bucket, 'prefix': 'open/a'}
    try:
        for asked in (keys, by_prefix):
            assert granted.attacker('POST', '/s3/credentials', asked).status == 200
        for minutes in (25, 61, 5):
            end = datetime.now(timezone.utc) + timedelta(minutes=minutes)
            assert granted.owner('POST', '/s3/grants', shared | {'until': to_text(end)}).status == 201
            for asked in (keys, by_prefix, keys | {'lifetime': 43200}):
                answer = granted.attacker('POST', '/s3/credentials', asked)
                if minutes == 5:
                    assert (answer.status, 'keys live for at least' in answer.text) == (501, True), answer
                else:
                    assert from_text(answer.content['expiration']) <= end, minutes
        for until in ('2020-01-02T03:04:05Z', '0001-01-01T00:00:00Z'):
            assert granted.owner('POST', '/s3/grants', shared | {'until': until}).status == 400
        assert granted.owner('POST', '/s3/grants', shared | {'until': '9999-12-31T23:59:59Z'}).status == 201
        assert granted.attacker('POST', '/s3/credentials', keys | {'lifetime': 43200}).status == 200
    finally:
        assert granted.owner('POST', '/s3/grants', shared).status == 201
