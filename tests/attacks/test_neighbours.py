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

"""Beside what was granted: names that begin alike, capitals, markers and delimiters. By vended keys and by signatures, on SeaweedFS and Ceph."""

from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError

from servers.granted import FOREIGN, SECRET, Granted
from servers.seaweedfs import SeaweedFS


def listed(client: Any, **more: Any) -> list[str]:
    answer = client.list_objects_v2(**more)
    return [each['Key'] for each in answer.get('Contents', [])] + [each['Prefix'] for each in answer.get('CommonPrefixes', [])]


def status(error: pytest.ExceptionInfo[ClientError]) -> int:
    return int(error.value.response['ResponseMetadata']['HTTPStatusCode'])


def test_a_listing_of_what_begins_alike(granted: Granted) -> None:
    """List with a prefix that is shorter than the grant's, or of its neighbour: ``open`` is also the beginning of ``open2/neighbour``."""
    for prefix in ('', 'o', 'open', 'open2/', 'OPEN/', 'private/', 'desk/'):
        for more in ({}, {'Delimiter': '/'}):
            with pytest.raises(ClientError) as refused:
                listed(granted.reader(), Bucket=granted.bucket, Prefix=prefix, **more)
            assert status(refused) == 403
        for path in (f'?list-type=2&prefix={quote(prefix, safe="")}', f'?delimiter=%2F&prefix={quote(prefix, safe="")}'):
            expected = 200 if prefix == 'desk/' else 403  # granted, too
            assert granted.sign('GET', f'/{granted.bucket}{path}').status == expected


def test_a_listing_that_goes_on_somewhere_else(granted: Granted) -> None:
    """The prefix of the grant, and a marker, start-after or continuation token from outside of it: storages begin there. Would show names of others."""
    client, where = granted.reader(), {'Bucket': granted.bucket, 'Prefix': 'open/'}
    for marker in ('', 'private/', 'private/deep/', 'aaa/', 'zzz', 'open2/', 'OPEN/', 'open/../private/', '/private/'):
        seen = {name for more in ({}, {'Delimiter': '/'}) for name in listed(client, StartAfter=marker, **where, **more)}
        seen |= {each['Key'] for each in client.list_objects(Marker=marker, **where).get('Contents', [])}
        if marker:
            seen |= set(listed(client, ContinuationToken=marker, **where))
        assert seen <= {'open/a', 'open/b'}, marker


def test_a_delimiter_that_is_none(granted: Granted) -> None:
    """Another delimiter than the slash cuts names elsewhere. Would show the beginnings of others."""
    for delimiter in ('p', 'open', 'n/', '%', '//'):
        seen = listed(granted.reader(), Bucket=granted.bucket, Prefix='open/', Delimiter=delimiter)
        assert all(name.startswith('open/') for name in seen), delimiter


def test_a_key_beside_the_grant(granted: Granted) -> None:
    """Read, write and delete keys that only begin like the grant, or lead out of it again."""
    keys = granted.keys('desk', write=True)
    for key in ('desk2/neighbour', 'private/secret', 'desk', 'des', 'desk%2F..%2Fprivate/secret', 'open/a'):
        for method in ('PUT', 'DELETE', 'GET'):
            path = f'/{granted.bucket}/{key}'
            # Ceph says of what is not there that it is not, to all who have keys for something in the bucket.
            assert granted.send(keys, method, path)[0] in (400, 403, 404), (method, key)
            if (method, key) != ('GET', 'open/a'):  # granted, too
                assert granted.sign(method, path).status in (400, 403), (method, key)
    assert granted.content('desk2/neighbour') == granted.content('private/secret') == granted.content('open/a') == SECRET


def test_the_buckets_of_others(granted: Granted) -> None:
    """List all buckets: their names are the scopes of all users."""
    assert granted.send(granted.keys('open'), 'GET', '/')[0] in (200, 403)
    assert FOREIGN.encode() not in granted.send(granted.keys('open'), 'GET', '/')[1]
    assert granted.sign('GET', '/').status in (400, 403)


def test_capitals(granted: Granted, unique: str) -> None:
    """SeaweedFS 4.48 does not tell capitals in policies: keys for ``run1/`` read ``RUN1/secret``, and those for writing write it.

    Where a bucket has such names, it gets no keys for a part of it, and the client has each request signed.
    """
    shared, secret = f'{unique}/run1', f'{unique}/RUN1/secret'
    granted.operator.put_object(Bucket=granted.bucket, Key=secret, Body=SECRET)
    collection = {'scope': granted.bucket, 'name': shared}
    assert granted.owner('POST', '/s3/buckets', {**collection, 'rse': granted.rse}).status == 201
    assert granted.owner('POST', '/s3/grants', {**collection, 'account': granted.name, 'write': True}).status == 201
    answer = granted.attacker('POST', '/s3/credentials', {**collection, 'rse': granted.rse, 'write': True})
    if isinstance(granted.storage, SeaweedFS):
        assert (answer.status, f'{unique}/RUN1' in answer.text) == (501, True), answer
    else:
        assert answer.status == 200
        for method in ('GET', 'PUT', 'DELETE'):
            assert granted.send(SimpleNamespace(**answer.content), method, f'/{granted.bucket}/{secret}')[0] == 403
    assert granted.sign('GET', f'/{granted.bucket}/{shared}/file').status == 200
    assert granted.sign('GET', f'/{granted.bucket}/{secret}').status == 403
    assert granted.content(secret) == SECRET
