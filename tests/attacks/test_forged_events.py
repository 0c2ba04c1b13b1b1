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

"""Forged events: somebody has the token of an RSE (Ceph shows it to all who hold keys), or guesses. On SeaweedFS."""

import json
from datetime import timedelta
from typing import Any

import pytest

from servers.events import EVENTS_TOKEN, record, tell
from servers.team import Team, ok

MiB = 1024**2


class Desk:
    """Where forged events go to, and what came of them: ernest's bucket on SIGNED_S3, and what the catalogue says."""

    def __init__(self, team: Team) -> None:
        self.team = team
        self.s3 = team.storage.client()

    def forge(self, *records: Any, rse: str = '', **more: Any) -> tuple[int, dict[str, int]]:
        """Status, and what was found and done."""
        status, answer = tell(self.team.root.server, rse or self.team.rse, {'Records': list(records)}, **more)
        return status, answer.get('counts', {})

    def about(self, key: str, name: str = 'ObjectCreated:Put', **more: Any) -> dict[str, Any]:
        return record(self.team.scope, key, name, **more)

    def size(self, name: str) -> int | None:
        found = self.team.root.call('get_metadata_bulk', [{'scope': self.team.scope, 'name': name}], plugin='DID_COLUMN')
        return found[0]['bytes'] if found else None

    def set(self, **settings: str) -> None:
        options = [text for name, value in settings.items() for text in (f'--{name.replace("_", "-")}', value)]
        ok(self.team.owner.rucio('s3', 'settings', self.team.scope, '--rse', self.team.rse, *options))


@pytest.fixture(scope='module')
def desk(signed_team: Team) -> Desk:
    ok(signed_team.owner.rucio('s3', 'make-bucket', signed_team.scope, '--rse', signed_team.rse))
    return Desk(signed_team)


def test_a_deletion_that_never_was(desk: Desk, unique: str) -> None:
    """He tells that all files of a bucket that forgets what is missing were deleted. Got: the catalogue forgets them."""
    keys = [f'{unique}/{number}' for number in range(3)]
    for key in keys:
        desk.s3.put_object(Bucket=desk.team.scope, Key=key, Body=b'12345')
    assert desk.forge(*map(desk.about, keys))[1]['registered'] == 3
    for name in ('ObjectRemoved:Delete', 'ObjectRemoved:DeleteMarkerCreated', 's3:LifecycleExpiration:Delete'):
        assert desk.forge(*(desk.about(key, name) for key in keys)) == (200, {'same': 3})
    assert [desk.size(key) for key in keys] == [5, 5, 5]


def test_an_object_that_never_was(desk: Desk, unique: str) -> None:
    """He tells of an object that is not there, with a size of his choice. Got: a file that nobody can download, which counts for the owner's quota."""
    status, counts = desk.forge(desk.about(f'{unique}/no', size=10**15))
    assert (status, counts) == (200, {})
    assert desk.size(f'{unique}/no') is None


def wait_for_a_later_second(desk: Desk, name: str) -> None:
    """A storage tells in seconds when an object was written: what was overwritten within one looks as it was."""

    def written(key: str) -> Any:
        return desk.s3.head_object(Bucket=desk.team.scope, Key=key)['LastModified']

    clock = f'{name}.clock'
    desk.s3.put_object(Bucket=desk.team.scope, Key=clock)
    while written(clock) <= written(name) + timedelta(seconds=1):
        desk.s3.put_object(Bucket=desk.team.scope, Key=clock)
    desk.s3.delete_object(Bucket=desk.team.scope, Key=clock)


def test_a_lie_about_the_size(desk: Desk, unique: str) -> None:
    """He overwrites a file with as many other bytes, in parts, so that no MD5 tells, and tells that it is too large to be read.
    Got: the new content is taken for the registered one, unread, and no round of the reconciler asks again.
    """
    name = f'{unique}/file'
    desk.team.upload(name, b'right', unique)
    wait_for_a_later_second(desk, name)
    upload = desk.s3.create_multipart_upload(Bucket=desk.team.scope, Key=name)['UploadId']
    part = desk.s3.upload_part(Bucket=desk.team.scope, Key=name, UploadId=upload, PartNumber=1, Body=b'wrong')
    parts = {'Parts': [{'PartNumber': 1, 'ETag': part['ETag']}]}
    desk.s3.complete_multipart_upload(Bucket=desk.team.scope, Key=name, UploadId=upload, MultipartUpload=parts)
    assert desk.forge(desk.about(name, size=10**15))[1] == {'changed': 1}


@pytest.mark.parametrize(
    'key', ['../user.fritz/secret', 'x/../../user.fritz/secret', '/user.fritz/secret', '%2e%2e/user.fritz/secret', './secret', '?acl', '#']
)
def test_keys_that_lead_elsewhere(desk: Desk, key: str) -> None:
    """He names a key that some client or server takes for one of another bucket, or for a question about the bucket. Got: an answer about that."""
    status, counts = desk.forge(desk.about(key) | {'eventSource': 'ceph:s3'}, desk.about(key))
    assert status == 200
    assert not {*counts} - {'unnameable', 'unknown'}


def test_buckets_that_are_not_this_rses(desk: Desk, unique: str) -> None:
    """He tells of objects in a bucket of the same storage that belongs to no scope. Got: they are registered, or the answer tells whether they are there."""
    desk.s3.create_bucket(Bucket=unique)
    desk.s3.put_object(Bucket=unique, Key='there', Body=b'12345')
    for bucket in (unique, 'VENDED_S3', f'{desk.team.scope}/..', 'a' * 10_000, '\u202e', '*'):
        assert desk.forge(record(bucket, 'there'), record(bucket, 'not-there'))[1].keys() <= {'unknown'}


def test_the_token_of_another_rse(desk: Desk, unique: str) -> None:
    """He uses the token of one RSE for another one, which has none. Got: events about that."""
    for rse in ('VENDED_S3', 'NO_SUCH_RSE', 'a' * 1000):
        assert desk.forge(desk.about(unique), rse=rse)[0] == 401
    assert desk.forge(desk.about(unique), vo='abc')[0] == 401


def test_what_a_lost_bucket_would_have_lost(desk: Desk, unique: str) -> None:
    """The bucket is set to declare lost what is missing, and seems empty for an hour, as its storage is broken: the reconciler then does nothing.
    He tells of its files meanwhile. Got: each of them is lost for ever.
    """
    scope = f'user.{unique}'
    desk.team.root.call('add_scope', desk.team.owner.account, scope)
    ok(desk.team.owner.rucio('s3', 'make-bucket', scope, '--rse', desk.team.rse))
    desk.s3.put_object(Bucket=scope, Key='run1/file', Body=b'12345')
    assert desk.forge(record(scope, 'run1/file'))[1]['registered'] == 1
    ok(desk.team.root.rucio('s3', 'settings', scope, '--rse', desk.team.rse, '--on-missing', 'lost'))
    desk.s3.delete_object(Bucket=scope, Key='run1/file')
    assert desk.forge(record(scope, 'run1/file', 'ObjectRemoved:Delete'))[1] == {'missing': 1}
    desk.s3.delete_bucket(Bucket=scope)
    assert desk.forge(record(scope, 'run1/file', 'ObjectRemoved:Delete'))[1] == {'failed': 1}


HOSTILE = {
    'nothing': b'',
    'not JSON': b'\xff\xfe\x00',
    'deep': b'[' * MiB,
    'deep objects': b'{"Records":[' * 80_000,
    'wrappers': json.dumps({'Type': 'Notification', 'Message': '{"Type": "Notification", "Message": "{}"}'}).encode() * 1000,
    'a long number': b'9' * MiB,
    'a large number': b'[1e999999999]',
    'empty lists': b'[' + b'[],' * 300_000 + b'[]]',
    'numbers': b'[' + b'0,' * 500_000 + b'0]',
    '10^4 records': b'{"Records":[' + b'{"s3":{}},' * 9_999 + b'{"s3":{}}]}',
    'one key often': b'{' + b'"Records":[],' * 70_000 + b'"Records":[]}',
    'half a surrogate': json.dumps({'Records': [record('\ud800', 'KEY')]}).replace('KEY', '\\udfff').encode(),
}


@pytest.mark.parametrize('body', HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize('token', [EVENTS_TOKEN, 'another-token-altogether', None])
def test_hostile_bodies(desk: Desk, body: bytes, token: str | None) -> None:
    """He sends what a reader of JSON may choke on. Got: a worker that is busy, has no memory left, or shows a traceback; a log that fills the disk."""
    log = desk.team.root.server.log
    before = log.stat().st_size
    status, answer = tell(desk.team.root.server, desk.team.rse, None, raw=body, token=token)
    assert status in ((200, 400) if token == EVENTS_TOKEN else (401,))
    assert not {*answer.get('counts', {})} - {'unknown'}
    assert log.stat().st_size - before < 5000


def test_guesses_do_not_fill_the_log(desk: Desk) -> None:
    """He guesses tokens, and names of RSEs that are not there. Got: a line of his own making in the log for each guess."""
    log = desk.team.root.server.log
    for number in range(40):
        assert desk.forge(token=f'the-guess-number-{number:04}')[0] == 401
        assert desk.forge(rse=f'GUESS-{number}')[0] == 401
    written = log.read_text()
    assert written.count('GUESS-') < 100  # requests are logged by the front end; warnings are few
    assert 'the-guess-number' not in written
    assert written.count('the token is wrong') < 40
