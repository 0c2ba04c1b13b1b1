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

"""The attacker owns a bucket that a site has imported, or the storage that it is on, and chooses names, sizes and ETags.

What would be got: files outside of the dataset or of a download's directory, an import that fails for all that is beside one bad object, a
catalogue filled with rubbish. More of what a storage may answer is in test_hostile_storages.py.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from servers.fake_s3 import Answer, FakeS3
from servers.rest import Rest
from servers.team import Team, ok

RSE, BUCKET, GOOD = 'FOREIGN_S3', 'foreign', 'good/file'
DATE = '2026-11-28T00:00:00.000Z'
MD5 = hashlib.md5(b'abc').hexdigest()


class Claim(NamedTuple):
    """What a bucket says of an object."""

    key: str
    size: str = '3'
    etag: str = MD5
    date: str = DATE

    @property
    def xml(self) -> str:
        fields = f'<Size>{self.size}</Size><LastModified>{self.date}</LastModified><ETag>&quot;{self.etag}&quot;</ETag>'
        return f'<Contents><Key>{quote(self.key)}</Key>{fields}</Contents>'


class Claimed(bytes):
    """So many bytes, as far as anybody asks."""

    size: int

    def __new__(cls, size: str) -> 'Claimed':
        made = super().__new__(cls, b'')
        made.size = int(size)
        return made

    def __len__(self) -> int:
        return self.size


class Foreign(FakeS3):  # type: ignore[no-untyped-call]
    """A bucket that lists whatever its owner wants."""

    def __init__(self) -> None:
        super().__init__()
        self.make_bucket(BUCKET)
        self.claims: list[Claim] = []

    def ListObjectsV2(self, request: Any) -> Any:  # noqa: N802
        prefix = request.query.get('prefix', '')
        found = ''.join(each.xml for each in sorted(self.claims) if each.key.startswith(prefix))
        return Answer(200, f'<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{found}</ListBucketResult>'.encode())

    def HeadObject(self, request: Any) -> Any:  # noqa: N802
        found = next(each for each in self.claims if each.key == request.key)
        return Answer(200, Claimed(found.size), (('ETag', f'"{found.etag}"'), ('Last-Modified', 'Sat, 28 Nov 2026 00:00:00 GMT')))


@dataclass
class Site:
    """Ernest imports what lies below a folder of the bucket, into a dataset of the same name."""

    team: Team
    ernest: Rest
    bucket: Foreign

    def imported(self, folder: str, *claims: Claim, **wish: str) -> dict[str, Any]:
        """Beside them is something good. What was counted."""
        self.bucket.claims = [each._replace(key=f'{folder}/{each.key}') for each in (*claims, Claim(GOOD))]
        for each in self.bucket.claims:
            self.bucket.store(BUCKET, each.key, b'abc', etag=each.etag)
        answer = self.ernest('POST', '/import', {'rse': RSE, 'scope': self.team.scope, 'name': folder, 'prefix': folder, **wish})
        assert answer.status == 200, answer
        assert answer.content['after'] is None
        return {kind: count for kind, count in answer.content['counts'].items() if count}

    def files(self, folder: str) -> dict[str, int]:
        found = self.team.root.call('list_files', self.team.scope, folder)
        return {each['name'].removeprefix(f'{folder}/'): each['bytes'] for each in found}


@pytest.fixture(scope='module')
def site(signed_team: Team) -> Iterator[Site]:
    root = signed_team.root
    with Foreign() as bucket:
        more = ('--bucket', BUCKET, '--read-only', '--anonymous', '--setting', 'etag_is_md5=true')
        ok(root.rucio('s3', 'rse', 'add', RSE, '--endpoint', bucket.url, *more))
        yield Site(signed_team, Rest(signed_team.owner), bucket)
        root.call('delete_protocols', RSE, 'http')  # nobody shall ask a storage that is gone


NAMES = (
    '../../../.bashrc',
    'a/../b',
    './a',
    'a\nb',
    'a\x1b[2Jb',
    'a\u202eb',
    'a b',
    '%2e%2e/a',
    "a'; DROP TABLE dids; --",
    'a' * 251,
    'a.rucio.upload',
    'folder/',
)


def test_names(site: Site) -> None:
    """Keys that would be written elsewhere, run, shown, or taken for an upload of Rucio's."""
    counts = site.imported('names', *map(Claim, NAMES))
    assert counts['registered'] == 1
    assert counts['unnameable'] + counts['leftover'] == len(NAMES)
    assert site.files('names') == {GOOD: 3}


def test_a_file_in_the_place_of_a_directory(site: Site) -> None:
    """No operating system has both; nor does `a` become what lies in `a/`."""
    assert site.imported('places', Claim('a'), Claim('a/b'), Claim('A'), Claim('a//c'))['registered'] == 5
    assert set(site.files('places')) == {GOOD, 'a', 'a/b', 'A', 'a//c'}


@pytest.mark.parametrize('size', [2**31, 2**50])
def test_sizes_that_fit(site: Site, size: int) -> None:
    site.imported(f'size{size}', Claim('large', str(size)))
    assert site.files(f'size{size}') == {GOOD: 3, 'large': size}


@pytest.mark.parametrize('size', [2**50 + 1, 2**63 - 1, 2**63, 10**30])
def test_sizes_that_no_database_holds(site: Site, size: int) -> None:
    """One such object, and nothing of the bucket is ever registered, and all of it answers 500. Got before: 2**63 - 1 already was too much for a sum."""
    folder = f'size{size}'
    assert site.imported(folder, Claim('large', str(size)))['oversized'] == 1
    assert site.files(folder) == {GOOD: 3}
    site.imported(folder, Claim('large'))
    assert site.imported(folder, Claim('large', str(size)), on_changed='replace')['oversized'] == 1
    assert site.files(folder) == {GOOD: 3, 'large': 3}


@pytest.mark.parametrize(
    ('etag', 'registered', 'kept'),
    [
        ('x' * 50_000, True, True),
        ('x' * 100_000, False, False),  # no HTTP client reads such a header
        ('a\u202eb', False, False),
        ('', True, False),
        ("'; DROP TABLE dids; --", True, True),
        ('d' * 31 + '-1', True, True),
    ],
)
def test_etags(site: Site, etag: str, registered: bool, kept: bool) -> None:
    """They are kept in the catalogue: a hundred kilobytes for each object would fill it."""
    folder = f'etag{hashlib.md5(etag.encode()).hexdigest()}'
    site.imported(folder, Claim('odd', etag=etag))
    assert site.files(folder) == {GOOD: 3} | ({'odd': 3} if registered else {})
    with closing(sqlite3.connect(site.team.root.server.directory / 'rucio.db')) as database:
        found = database.execute('SELECT meta FROM did_meta WHERE name = ?', (f'{folder}/odd',)).fetchall()
    assert bool(found) == kept
    assert len(str(found)) < 1000


@pytest.mark.parametrize('date', ['0001-01-01T00:00:00Z', '9999-12-31T23:59:59Z', '1969-12-31T23:59:59Z'])
def test_dates(site: Site, date: str) -> None:
    folder = f'date{date[:4]}'
    site.imported(folder, Claim('old', date=date))
    assert site.files(folder) == {GOOD: 3, 'old': 3}


def test_another_content_at_each_look(site: Site) -> None:
    """Sizes and ETags change while they are looked at. What the catalogue says stays, or is what was seen; nothing goes on for ever."""
    for number in range(1, 4):
        claims = [Claim(f'f{each}', str(number), hashlib.md5(str(number).encode()).hexdigest()) for each in range(20)]
        before = len(site.bucket.requests)
        counts = site.imported('turns', *claims, on_changed='replace' if number == 3 else 'report')
        assert counts.get('changed', 0) == (0 if number == 1 else 20)
        assert len(site.bucket.requests) - before < 200
    assert set(site.files('turns').values()) == {3}
