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

"""Storing more than an account may: the limits are Rucio's, and hold before anything is in the catalogue.

The server signs for accounts of its own here: `quinn` has a limit, and `rosa` may write to a collection of his.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from http.client import HTTPConnection
from typing import Any

import pytest

from servers.cli import RucioCli, add_user
from servers.granted import Granted
from servers.rest import Answer, Rest
from servers.rucio_server import RucioServer
from servers.signer import headers_of

KB = 1000
FIVE, TEN = b'12345', b'1234567890'


@dataclass
class Limited:
    """An account with a limit on an RSE, and another that may write to a collection of it."""

    granted: Granted
    server: RucioServer
    owner: Rest
    friend: Rest
    account: str
    rse_id: str

    @property
    def bucket(self) -> str:
        return f'user.{self.account}'

    def limit(self, number: int | None) -> None:
        """Set the limit in bytes. Nothing is stored and nothing was signed yet."""
        where = {'account': self.account, 'rse': self.rse_id}
        self.server.rows('DELETE FROM s3_pending')
        for table in ('account_usage', 'updated_account_counters'):
            self.server.rows(f'DELETE FROM {table} WHERE account = :account', account=self.account)
        self.server.rows('DELETE FROM account_limits WHERE account = :account AND rse_id = :rse', **where)
        if number is not None:
            self.server.rows(
                'INSERT INTO account_limits (account, rse_id, bytes, created_at, updated_at) VALUES (:account, :rse, :bytes, :now, :now)',
                bytes=number,
                now='2026-01-01 00:00:00.000000',
                **where,
            )

    def sign(self, path: str, length: object = None, body: bytes = b'', by: Rest | None = None, **headers: str) -> Answer:
        """Ask for the signature of a PUT, which has to be of this body."""
        sent = {'x-amz-content-sha256': hashlib.sha256(body).hexdigest(), **headers, **({} if length is None else {'Content-Length': str(length)})}
        request = {'method': 'PUT', 'uri': f'{self.granted.storage.url}/{self.bucket}/{path}', 'headers': {name: [value] for name, value in sent.items()}}
        return (by or self.owner)('POST', '/sign', {'rse': self.granted.rse, 'requests': [request]})

    def need(self, path: str, length: object = None, body: bytes = b'', **more: Any) -> dict[str, str]:
        answer = self.sign(path, length, body, **more)
        assert answer.status == 200, answer
        return headers_of(answer.content['responses'][0])

    def refused(self, path: str, length: object = None, **more: Any) -> str:
        """What is said to an account that is over its limit."""
        answer = self.sign(path, length, **more)
        assert (answer.status, answer.error) == (409, 'InsufficientAccountLimit'), answer
        return str(answer.message)

    def put(self, path: str, headers: dict[str, str], *chunks: bytes, **more: str) -> int:
        """Send a PUT as no library makes it: the headers that are not signed are ``more``, and several chunks have no length."""
        storage = self.granted.storage
        with closing(HTTPConnection(storage.hostname, storage.port, timeout=30)) as connection:
            connection.putrequest('PUT', f'/{self.bucket}/{path}', skip_accept_encoding=True)
            for name, value in {**headers, **{name.replace('_', '-'): value for name, value in more.items()}}.items():
                connection.putheader(name, value)
            connection.endheaders(b''.join(chunks))
            return connection.getresponse().status

    def stored(self) -> int:
        """The bytes in the bucket."""
        pages = self.granted.operator.get_paginator('list_objects_v2').paginate(Bucket=self.bucket)
        return sum(each['Size'] for page in pages for each in page.get('Contents', []))


def made(root: RucioCli, directory: Any, granted: Granted, names: tuple[str, str]) -> Limited:
    users = [add_user(root, directory(name), name, scopes=[f'user.{name}'], attributes=()) for name in names]
    (rse_id,) = root.server.rows('SELECT id FROM rses WHERE rse = :rse', rse=granted.rse)[0]
    found = Limited(granted, root.server, Rest(users[0]), Rest(users[1]), names[0], rse_id)
    found.limit(-1)
    assert found.owner('POST', '/buckets', {'rse': granted.rse, 'scope': found.bucket, 'name': 'desk'}).status == 201
    grant = {'scope': found.bucket, 'name': 'desk', 'account': names[1], 'write': True}
    assert found.owner('POST', '/grants', grant).status == 201
    return found


@pytest.fixture(scope='module')
def seaweedfs_limited(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, on_seaweedfs: Granted) -> Limited:
    return made(team_root, tmp_path_factory.mktemp, on_seaweedfs, ('quinn', 'rosa'))


@pytest.fixture(scope='module')
def ceph_limited(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, on_ceph: Granted) -> Limited:
    return made(team_root, tmp_path_factory.mktemp, on_ceph, ('quincy', 'roger'))


@pytest.fixture(params=['seaweedfs_limited', 'ceph_limited'])
def limited(request: pytest.FixtureRequest) -> Iterator[Limited]:
    """With an empty bucket."""
    found: Limited = request.getfixturevalue(request.param)
    yield found
    for each in found.granted.operator.list_objects_v2(Bucket=found.bucket).get('Contents', []):
        found.granted.operator.delete_object(Bucket=found.bucket, Key=each['Key'])


def test_many_puts_at_once(limited: Limited) -> None:
    """Signatures at once from all processes of the server, each of which fits alone, and no two together."""
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            limited.limit(100 * KB)
            answers = list(pool.map(lambda number: limited.sign(f'many/{number}', 60 * KB), range(4)))
            assert sorted(each.status for each in answers) == [200, 409, 409, 409]
    refusal = next(each for each in answers if each.status == 409)
    assert refusal.message == (
        f'Account {limited.account}: 60.000 kB of 100.000 kB allowed at RSE {limited.granted.rse} are used (60.000 kB of them signed in the last half '
        'hour), 120.000 kB with this. Delete files or rules, or ask the operator for a higher limit (rucio account limit).'
    )


def test_several_in_one_call(limited: Limited) -> None:
    """A thousand requests in one call to sign: all of them count together, and none is signed if they do not fit."""
    limited.limit(999 * KB)
    headers = {'x-amz-content-sha256': ['ab' * 32], 'content-length': ['1000']}
    asked = [{'method': 'PUT', 'uri': f'{limited.granted.storage.url}/{limited.bucket}/{number}', 'headers': headers} for number in range(1000)]
    assert limited.owner('POST', '/sign', {'rse': limited.granted.rse, 'requests': asked}).status == 409
    assert limited.owner('POST', '/sign', {'rse': limited.granted.rse, 'requests': asked[:999]}).status == 200
    limited.refused('one', 1)


def test_another_length_than_was_signed(limited: Limited) -> None:
    """A signature for 5 bytes, and a body of 10: with its length, in chunks, or with both headers. The storage refuses it, as the length is signed."""
    limited.limit(400 * KB)
    chunked = b'a\r\n' + TEN + b'\r\n0\r\n\r\n'
    for number, (body, more) in enumerate(
        [
            (TEN, {'Content_Length': '10'}),
            (chunked, {'Transfer_Encoding': 'chunked'}),
            (chunked, {'Content_Length': '5', 'Transfer_Encoding': 'chunked'}),
            (TEN, {'Content_Length': '10', 'X_Amz_Decoded_Content_Length': '5'}),
        ]
    ):
        path = f'longer/{number}'
        assert limited.put(path, limited.need(path, 5, TEN), body, **more) in (400, 403)
    assert limited.stored() == 0
    assert limited.put('right', limited.need('right', 5, FIVE), FIVE, Content_Length='5') == 200
    assert limited.stored() == 5


def test_no_length_or_one_that_is_none(limited: Limited) -> None:
    """Without Content-Length nothing says how much is stored: SeaweedFS stores more than x-amz-decoded-content-length says. A negative one makes room."""
    limited.limit(400 * KB)
    decoded = {'x-amz-decoded-content-length': '5', 'content-encoding': 'aws-chunked'}
    for headers in ({}, decoded, {**decoded, 'transfer-encoding': 'chunked'}):
        answer = limited.sign('nothing', **headers)
        assert (answer.status, answer.error) == (403, 'AccessDenied'), answer
        assert 'is signed for accounts with a limit only together with its Content-Length' in answer.message
    for length in ('-1000000', '+5', '5, 5', '0x5', '1e3', '05', '\u0665', '', '9' * 30):
        assert limited.sign('odd', length).status == 400, length
    limited.refused('odd', 10**17)
    limited.limit(-1)
    assert limited.sign('nothing').status == 200


def test_parts_of_uploads_that_are_never_completed(limited: Limited) -> None:
    """Parts take room on the storage, whatever becomes of them: of one upload, of several for the same key, and one of the largest size."""
    limited.limit(400 * KB)
    for upload in ('first', 'second'):
        for part in (1, 2):
            limited.need(f'large?partNumber={part}&uploadId={upload}', 100 * KB)
            limited.need(f'large?partNumber={part}&uploadId={upload}', 100 * KB)  # sent again
    assert '500.000 kB with this' in limited.refused('large?partNumber=3&uploadId=second', 100 * KB)
    limited.refused('large?partNumber=1&uploadId=third', 5 * 1024**3)
    limited.refused('other', 1)


def test_a_large_object_in_place_of_a_small_one(limited: Limited) -> None:
    """Sign a large object, then a small one of the same name: the first signature is still valid. To sign the same once more costs nothing."""
    limited.limit(400 * KB)
    large = limited.need('same', 300 * KB, b'x' * 300 * KB)
    for _ in range(3):
        limited.need('same', 1)
        limited.need('same', 300 * KB)
    assert '300.000 kB of 400.000 kB' in limited.refused('another', 101 * KB)
    assert limited.put('same', large, b'x' * 300 * KB, Content_Length=f'{300 * KB}') == 200
    assert '300.000 kB of 400.000 kB' in limited.refused('another', 101 * KB)


def test_copies(limited: Limited) -> None:
    """A copy is as large as its source is when it is sent: sign many copies of a small object, and overwrite it. Only ranges are signed, and count."""
    limited.limit(400 * KB)
    limited.granted.operator.put_object(Bucket=limited.bucket, Key='source', Body=b'x')
    source = {'x-amz-copy-source': f'/{limited.bucket}/source'}
    for path, more in (('copy', {}), ('copy', {'Content-Length': '0'}), ('copy?partNumber=1&uploadId=u', {})):
        answer = limited.sign(path, **source, **more)
        assert (answer.status, 'would copy whatever is there by then' in answer.message) == (403, True), answer
    limited.need('copy?partNumber=1&uploadId=u', **source, **{'x-amz-copy-source-range': f'bytes=0-{300 * KB - 1}'})
    limited.refused('copy?partNumber=2&uploadId=u', **source, **{'x-amz-copy-source-range': f'bytes=0-{100 * KB}'})
    for span in ('bytes=5-2', 'bytes=0-', 'bytes=-5', 'bytes=0-1,2-300000', 'nothing'):
        assert limited.sign('copy?partNumber=3&uploadId=u', **source, **{'x-amz-copy-source-range': span}).status == 403, span


def test_somebody_else_fills_it(limited: Limited) -> None:
    """Who may write to a collection stores at the expense of its owner: his limit counts, not that of the friend, who has none."""
    limited.limit(400 * KB)
    limited.need('desk/mine', 300 * KB, by=limited.friend)
    assert f'Account {limited.account}: 300.000 kB of 400.000 kB' in limited.refused('desk/more', 200 * KB, by=limited.friend)
    limited.refused('run1/mine', 200 * KB)


def test_without_a_limit(limited: Limited) -> None:
    """As for Rucio's rules, an account has room only where the operator gave it some. It may still read and delete."""
    limited.limit(None)
    assert f'Account {limited.account}: no limit is set at RSE {limited.granted.rse}, so nothing can be stored there' in limited.refused('x', 0)
    for method in ('GET', 'DELETE'):
        request = {'method': method, 'uri': f'{limited.granted.storage.url}/{limited.bucket}/x', 'headers': {}}
        assert limited.owner('POST', '/sign', {'rse': limited.granted.rse, 'requests': [request]}).status == 200


def test_registered_objects_count_once(limited: Limited) -> None:
    """What was signed is charged until it is in the catalogue, and from then on by the catalogue: the whole limit can be used, and no more.
    An event or a reconciliation in between neither makes room nor takes it twice."""
    limited.limit(400 * KB)
    body = b'x' * 300 * KB
    assert limited.put('file', limited.need('file', len(body), body), body, Content_Length=str(len(body))) == 200
    found = limited.owner.ok('POST', '/reconcile', {'rse': limited.granted.rse, 'scope': limited.bucket, 'name': ''})
    assert found['counts'].get('new') == 1, found
    limited.refused('more', 101 * KB)
    limited.need('more', 100 * KB)
    limited.server.rows('DELETE FROM s3_pending')  # as if half an hour had passed
    limited.refused('more', 101 * KB)
    limited.need('file', 400 * KB)  # in its own place
    limited.refused('file', 401 * KB)


def test_a_limit_on_several_rses(limited: Limited) -> None:
    """The rest of a limit on all RSEs of an expression is not there once for each RSE: what is signed elsewhere counts, too."""
    limited.limit(-1)
    rses = f'{limited.granted.rse}|SIGNED_S3'
    limited.server.rows(
        'INSERT INTO account_glob_limits (account, rse_expression, bytes, created_at, updated_at) VALUES (:account, :rses, 400000, :now, :now)',
        account=limited.account,
        rses=rses,
        now='2026-01-01 00:00:00.000000',
    )
    try:
        limited.need('x', 300 * KB)
        assert f"300.000 kB of 400.000 kB allowed at the RSEs '{rses}' are used" in limited.refused('y', 101 * KB)
    finally:
        limited.server.rows('DELETE FROM account_glob_limits WHERE account = :account', account=limited.account)


def test_vended_keys(limited: Limited) -> None:
    """Keys are not known to the server again before they end. Near the limit they end soon; at the limit, there are none to write, and no other way in
    by a collection, a prefix or the friend. Keys to read, and signatures to delete, are still to be had."""
    limited.limit(50 * 10**9)
    collection = {'rse': limited.granted.rse, 'scope': limited.bucket, 'name': 'desk'}
    asked = (collection, collection | {'name': ''}, {'rse': limited.granted.rse, 'bucket': limited.bucket, 'prefix': 'desk/'})
    soon = datetime.now(timezone.utc) + timedelta(seconds=1000)
    for each in asked:
        keys = limited.owner.ok('POST', '/credentials', each | {'write': True})
        assert datetime.fromisoformat(keys['expiration'].replace('Z', '+00:00')) < soon
        assert datetime.fromisoformat(limited.owner.ok('POST', '/credentials', each)['expiration'].replace('Z', '+00:00')) > soon
    limited.need('full', 5 * 10**10)
    for by, some in ((limited.owner, asked), (limited.friend, asked[::2])):
        for each in some:
            answer = by('POST', '/credentials', each | {'write': True})
            assert (answer.status, answer.error) == (409, 'InsufficientAccountLimit'), answer
            assert '50.000 GB of 50.000 GB allowed' in answer.message
            by.ok('POST', '/credentials', each)
    request = {'method': 'DELETE', 'uri': f'{limited.granted.storage.url}/{limited.bucket}/full', 'headers': {}}
    limited.owner.ok('POST', '/sign', {'rse': limited.granted.rse, 'requests': [request]})


def test_what_the_owner_is_told(seaweedfs_limited: Limited) -> None:
    """One line, with what is used, what is allowed, and what to do: from the commands."""
    user = seaweedfs_limited.owner.user
    seaweedfs_limited.limit(400 * KB)
    seaweedfs_limited.need('full', 400 * KB)
    (user.directory / 'more').write_bytes(b'x' * KB)
    told = f'Account quinn: 400.000 kB of 400.000 kB allowed at RSE {seaweedfs_limited.granted.rse} are used'
    upload = user.rucio('s3', 'upload', '--rse', seaweedfs_limited.granted.rse, str(user.directory / 'more'), f'{seaweedfs_limited.bucket}:run1')
    assert (upload.returncode, 'Traceback' in upload.stderr) == (1, False), upload.stdout + upload.stderr
    assert told in upload.stdout + upload.stderr
    assert '401.000 kB with this' in upload.stdout + upload.stderr
    keys = user.rucio('s3', 'credentials', '--write', '--rse', seaweedfs_limited.granted.rse, seaweedfs_limited.bucket)
    assert keys.returncode == 1
    assert told in keys.stderr
