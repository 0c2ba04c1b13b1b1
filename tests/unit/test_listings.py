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

"""The listing of a bucket, complete or not at all, and the catalogue's files, in the order of bytes."""

import hashlib
import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import event
from sqlalchemy.dialects import mysql, oracle, postgresql, sqlite

from rucio.common.exception import RSEAccessDenied, RSEOperationNotSupported, ServiceUnavailable, SourceNotFound
from rucio.common.s3.settings import Secrets
from rucio.common.types import InternalAccount, InternalScope
from rucio.core.s3 import storages
from rucio.core.s3.catalogue.records import ETAGS_KEY
from rucio.core.s3.reconciler import listings
from rucio.core.s3.reconciler.listings import Entry, Unsorted
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, DIDType, ReplicaState
from rucio.db.sqla.session import db_session
from servers import fake_s3

BUCKET = 'user.alice'
SCOPE, OTHER = InternalScope('user.alice'), InternalScope('user.bob')
RSE_ID, OTHER_RSE_ID = 32 * 'a', 32 * 'b'
ODD = ('run1/a b+c%20&<>"\'#?', 'run1/\u00e9\u4e2d\U0001f600', 'run1//x', 'run1/../y', 'run1/\\', ' ', '~')


@pytest.fixture
def subtree(endpoint, rse, s3):
    """Call it for what lies below a name of user.alice."""

    def make(name='', more=None, **settings):
        described = rse(s3.url, **settings)
        storage = storages.Storage(
            'X', RSE_ID, 'def', endpoint(**{'secrets': Secrets('key', 'secret'), 'sorted_listing': True} | (more or {})), described, described['protocols'][0]
        )
        return Subtree.of(storage, SCOPE, name) if described['deterministic'] else Subtree.imported(storage, SCOPE, name, BUCKET, '')

    return make


def keys(entries):
    return [entry.key for entry in entries]


# The bucket


def test_an_entry(subtree, s3):
    s3.store(BUCKET, 'run1/a', b'abc', modified=1_750_000_000.25)
    s3.store(BUCKET, 'run1/b', b'', etag='ab-2', modified=1_750_000_000)
    assert list(listings.entries(subtree())) == [
        Entry('run1/a', 3, '900150983cd24fb0d6963f7d28e17f72', 1_750_000_000.25),
        Entry('run1/b', 0, 'ab-2', 1_750_000_000),
    ]


@pytest.mark.parametrize(
    ('given', 'kept'),
    [
        ('"e"', 'e'),
        ('W/"e"', 'e'),
        ('', ''),
        ('x' * 128, 'x' * 128),
        ('x' * 129, hashlib.sha256(b'x' * 129).hexdigest()),
        ('\udcff' * 129, hashlib.sha256(b'?' * 129).hexdigest()),
    ],
)
def test_an_entry_fits_into_databases(given, kept):
    when = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert listings.entry_of('k', 2**50, given, when) == Entry('k', 2**50, kept, when.timestamp(), False)
    assert listings.entry_of('k', 2**70, given, when, True) == Entry('k', 2**50 + 1, kept, when.timestamp(), True)


def test_pages_and_ranges(subtree, s3):
    s3.page = 3
    names = [f'run1/{number}' for number in range(8)]
    for key in ['run0/x', *names, 'run10/x', 'run2']:
        s3.store(BUCKET, key, b'')
    assert keys(listings.entries(subtree('run1'))) == names
    assert s3.operations() == 3 * ['ListObjectsV2']
    assert keys(listings.entries(subtree('run1'), 'run1/2', 'run1/5')) == names[3:6]
    assert keys(listings.entries(subtree(), 'run1/zzz')) == ['run10/x', 'run2']


def test_a_range_asks_for_no_page_behind_it(subtree, s3):
    s3.page = 3
    for number in range(9):
        s3.store(BUCKET, f'run1/{number}', b'')
    s3.requests.clear()
    assert keys(listings.entries(subtree(), 'run1/2', 'run1/4')) == ['run1/3', 'run1/4']
    assert len(s3.requests) == 1
    assert s3.requests[0].query['start-after'] == 'run1/2'


def test_odd_keys(subtree, s3):
    for key in ODD:
        s3.store(BUCKET, key, b'')
    assert keys(listings.entries(subtree())) == sorted(ODD, key=str.encode)
    for key in ODD:
        assert listings.stat(subtree(), key).key == key


def test_a_storage_that_ignores_start_after(subtree, s3, monkeypatch):
    for key in 'abc':
        s3.store(BUCKET, key, b'')
    serve = s3.ListObjectsV2
    monkeypatch.setattr(s3, 'ListObjectsV2', lambda request: serve(request._replace(query={'prefix': ''})))
    assert keys(listings.entries(subtree(), 'a')) == ['b', 'c']


def listed(*names, more='<IsTruncated>false</IsTruncated>'):
    entries = ''.join(f'<Contents><Key>{key}</Key><LastModified>2026-11-22T00:00:00Z</LastModified><Size>1</Size></Contents>' for key in names)
    return fake_s3.Answer(200, f'<ListBucketResult>{more}{entries}</ListBucketResult>'.encode())


def test_a_key_that_is_listed_twice(subtree, s3):
    more = '<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>'
    s3.fail('ListObjectsV2', listed('a', 'b', more=more), listed('b', 'b', 'c'))
    assert keys(listings.entries(subtree())) == ['a', 'b', 'c']


def test_a_listing_without_etags(subtree, s3):
    s3.fail('ListObjectsV2', listed('a'))
    assert list(listings.entries(subtree())) == [Entry('a', 1, '', datetime(2026, 11, 22, tzinfo=timezone.utc).timestamp())]


def test_a_storage_that_lists_from_the_beginning_only_does_not_sort(subtree, s3):
    """As a directory bucket of another name."""
    s3.fail('ListObjectsV2', *[fake_s3.error(501, 'NotImplemented')] * 2, fake_s3.error(501, 'Other'))
    with pytest.raises(Unsorted):
        list(listings.entries(subtree(), 'a'))
    with pytest.raises(RSEOperationNotSupported):
        list(listings.entries(subtree()))
    with pytest.raises(Exception, match='ls of bucket'):
        list(listings.entries(subtree(), 'a'))


@pytest.mark.parametrize(
    'answer',
    [
        listed('a', more='<IsTruncated>true</IsTruncated>'),
        listed('a', more='<IsTruncated>true</IsTruncated><NextContinuationToken>same</NextContinuationToken>'),
        listed('a', more=''),
        fake_s3.Answer(200),
        fake_s3.Answer(200, b'<html>Please log in</html>'),
        fake_s3.Answer(200, b'<ListBucketResult><IsTruncated>false</IsTru'),
        fake_s3.error(500, 'InternalError'),
        fake_s3.error(503, 'SlowDown'),
        fake_s3.Lost(None),
        fake_s3.Cut(),
    ],
)
def test_a_listing_that_breaks_off_is_an_error(subtree, s3, answer):
    """Also where botocore's paginator takes it for the end."""
    more = '<IsTruncated>true</IsTruncated><NextContinuationToken>same</NextContinuationToken>'
    for key in ('a', 'b'):
        s3.store(BUCKET, key, b'')
    s3.fail('ListObjectsV2', listed('0', more=more), answer)
    entries = listings.entries(subtree())
    assert next(entries).key == '0'
    with pytest.raises(Exception, match=r"RSE X: ls of bucket 'user.alice'") as caught:
        list(entries)
    assert type(caught.value).__module__ == 'rucio.common.exception'


def test_a_bucket_that_does_not_exist(subtree, s3):
    del s3.buckets[BUCKET]
    with pytest.raises(SourceNotFound, match=r"bucket 'user.alice'.*NoSuchBucket.*Make it first: rucio s3 make-bucket"):
        list(listings.entries(subtree()))


def test_no_objects(subtree):
    assert list(listings.entries(subtree())) == []


# Storages that do not sort


def test_unsorted(subtree, s3):
    s3.unsorted, s3.page = True, 4
    names = [f'run1/{number}' for number in range(20)]
    for key in names:
        s3.store(BUCKET, key, b'abc')
    for after in ('', 'run1/0'):
        with pytest.raises(Unsorted) as caught:
            list(listings.entries(subtree(), after))
    everything = list(caught.value.everything())
    assert sorted(keys(everything)) == sorted(names)
    assert keys(everything) != sorted(names)
    assert keys(listings.sorted_entries(subtree(), everything)) == sorted(names)
    assert list(listings.sorted_entries(subtree(), everything, 'run1/12', 'run1/3')) == sorted(everything)[5:14]


def test_nothing_of_an_unsorted_page_is_yielded(subtree, s3):
    s3.fail('ListObjectsV2', listed('a', 'c', 'b'))
    with pytest.raises(Unsorted):
        next(listings.entries(subtree()))


def test_a_storage_that_is_not_known_to_sort_is_not_even_asked(subtree, s3):
    with pytest.raises(Unsorted):
        next(listings.entries(subtree(more={'sorted_listing': False})))
    assert s3.requests == []


def test_a_directory_bucket_is_not_even_asked(subtree, s3):
    directory = subtree()
    object.__setattr__(directory, 'bucket', 'data--use1-az4--x-s3')
    with pytest.raises(Unsorted):
        next(listings.entries(directory))
    assert s3.requests == []


def test_sorting_keeps_odd_keys_apart_and_leaves_nothing_behind(subtree, tmp_path, monkeypatch):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    entries = [Entry(key, 2**40, 'e', 0.5) for key in (*ODD, *ODD)]
    found = listings.sorted_entries(subtree(), iter(entries))
    assert next(found) == Entry(' ', 2**40, 'e', 0.5)
    assert list(tmp_path.glob('rucio-s3-*'))
    found.close()
    assert not list(tmp_path.glob('rucio-s3-*'))
    assert keys(listings.sorted_entries(subtree(), entries)) == sorted(ODD, key=str.encode)


# One object


def test_stat(subtree, s3):
    s3.store(BUCKET, 'run1/a', b'abc', etag='ab-2', modified=1_750_000_000)
    assert listings.stat(subtree(), 'run1/a') == Entry('run1/a', 3, 'ab-2', 1_750_000_000)
    assert s3.operations() == ['HeadObject']
    assert listings.stat(subtree(), 'run1/b') is None


@pytest.mark.parametrize(('header', 'said'), [('last-modified', 'the object has no date'), ('etag', '')])
def test_stat_of_an_object_whose_answer_lacks_something(subtree, s3, monkeypatch, header, said):
    s3.store(BUCKET, 'run1/a', b'abc')
    head = listings.objects.head
    names = {'last-modified': 'LastModified', 'etag': 'ETag'}
    monkeypatch.setattr(listings.objects, 'head', lambda *given: {key: each for key, each in head(*given).items() if key != names[header]})
    if said:
        with pytest.raises(ServiceUnavailable, match=f'RSE X: stat of .*{said}'):
            listings.stat(subtree(), 'run1/a')
    else:
        assert listings.stat(subtree(), 'run1/a').etag == ''


def test_stat_of_a_missing_bucket(subtree, s3):
    del s3.buckets[BUCKET]
    with pytest.raises(SourceNotFound, match=r"bucket 'user.alice'.*Make it first: rucio s3 make-bucket"):
        listings.stat(subtree(), 'run1/a')
    with pytest.raises(SourceNotFound, match=r"RSE X: ls of bucket 'user\.alice': "):
        listings.need_bucket(subtree())


@pytest.mark.parametrize(('faults', 'exception'), [([(403, 'AccessDenied')] * 2, RSEAccessDenied), ([(500, 'InternalError')], ServiceUnavailable)])
def test_stat_without_an_answer(subtree, s3, faults, exception):
    s3.fail('HeadObject', fake_s3.error(*faults[0]))
    for fault in faults[1:]:
        s3.fail('GetObject', fake_s3.error(*fault))
    with pytest.raises(exception):
        listings.stat(subtree(), 'run1/a')


def test_no_object_where_the_bucket_is_refused(subtree, s3):
    """It may belong to somebody else by now."""
    s3.fail('HeadBucket', fake_s3.error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied):
        listings.stat(subtree(), 'run1/a')


# The catalogue

NAMES = ['-', '.x', 'A', 'Z', '_', 'a', 'run1', 'run1-', 'run1.', 'run1/A', 'run1/_', 'run1/a', 'run1/a-', 'run1/a/b', 'run10', 'run1_', 'z']


def write(*rows):
    with db_session(DatabaseOperationType.WRITE) as session:
        session.add_all(rows)


def file(name, scope=SCOPE, rse_id=RSE_ID, replica=None, **did):
    sizes = {'bytes': 3, 'md5': None, 'adler32': None} | did
    return [
        models.DataIdentifier(scope=scope, name=name, account=InternalAccount('alice'), did_type=DIDType.FILE, **sizes),
        models.RSEFileAssociation(scope=scope, name=name, rse_id=rse_id, **{'bytes': 3, 'state': ReplicaState.AVAILABLE} | (replica or {})),
    ]


@pytest.fixture
def catalogue(database):
    """Call it with names to write files of alice."""
    return lambda *names, **values: write(*(row for name in names for row in file(name, **values)))


@pytest.fixture
def database(database):
    """Without foreign keys: only the tables that are read have rows."""
    event.listen(database, 'connect', lambda connection, _: connection.execute('PRAGMA foreign_keys=OFF'))
    return database


def found(subtree, *span, **options):
    return [replica.name for replica in listings.replicas(subtree, *span, **options)]


@pytest.mark.parametrize('page', [1, 3, 1000])
def test_the_order_is_that_of_bytes(subtree, catalogue, page):
    catalogue(*NAMES)
    catalogue('run1/other', scope=OTHER)
    catalogue('run1/elsewhere', rse_id=OTHER_RSE_ID)
    assert found(subtree(), page=page) == sorted(NAMES, key=str.encode)
    assert found(subtree('run1'), page=page) == [name for name in NAMES if name.startswith('run1/')]
    assert found(subtree(), 'run1', 'run1/a', page=page) == ['run1-', 'run1.', 'run1/A', 'run1/_', 'run1/a']
    assert found(subtree('run1'), 'run1/_', page=page) == ['run1/a', 'run1/a-', 'run1/a/b']
    assert found(subtree('run'), page=page) == []


def test_what_is_read(subtree, catalogue):
    catalogue('a', bytes=7, md5='5', adler32='6', replica={'bytes': 7, 'updated_at': datetime(1970, 1, 2)})  # noqa: DTZ001
    catalogue('b', bytes=None, replica={'bytes': 8, 'md5': '1', 'state': ReplicaState.COPYING})
    write(models.DidMeta(scope=SCOPE, name='a', meta=json.dumps({ETAGS_KEY: {RSE_ID: 'ab-2', OTHER_RSE_ID: 'x'}})))
    write(models.DidMeta(scope=SCOPE, name='b', meta=json.dumps({ETAGS_KEY: {OTHER_RSE_ID: 'x'}})))
    first, second = listings.replicas(subtree())
    assert first == ('a', 7, '5', '6', 'A', 'ab-2', 86400)
    assert second[:6] == ('b', 8, '1', None, 'C', None)
    assert listings.known(subtree(), ['a', 'c']) == {'a': first}
    assert set(listings.known(subtree(), [str(number) for number in range(1200)] + ['b'])) == {'b'}


def test_a_database_that_takes_upper_and_lower_case_for_the_same(subtree, catalogue, database):
    """Nobody has looked at the object of the other name: it would be taken for missing."""
    catalogue('run1/a', 'run1/B')

    def ignore_case(connection, cursor, statement, parameters, context, executemany):
        return statement.replace('replicas.name IN', 'replicas.name COLLATE NOCASE IN'), parameters

    event.listen(database, 'before_cursor_execute', ignore_case, retval=True)
    assert set(listings.known(subtree(), ['run1/A', 'run1/B'])) == {'run1/B'}


def test_a_key_with_a_nul_goes_into_no_query(subtree, catalogue, database):
    """PostgreSQL refuses it."""
    catalogue('run1/a', 'run1/b', 'run1/c')
    asked = []
    event.listen(database, 'before_cursor_execute', lambda *args: asked.append(repr(args[3])))
    assert found(subtree('run1'), 'run1/a\0x', 'run1/b\0') == ['run1/b']
    assert '\\x00' not in ''.join(asked)


@pytest.mark.parametrize('meta', ['[]', '{"s3_etags": 3}', '{"s3_etags": {"' + RSE_ID + '": 3}}', 'no JSON', '{}', '3'])
def test_metadata_that_somebody_else_wrote(subtree, catalogue, meta):
    catalogue('a')
    write(models.DidMeta(scope=SCOPE, name='a', meta=meta))
    assert [replica.etag for replica in listings.replicas(subtree())] == [None]


def test_nothing_is_open_between_two_pages(subtree, catalogue):
    """On SQLite nobody could write then."""
    catalogue(*NAMES)
    for number, replica in enumerate(listings.replicas(subtree(), page=2)):
        write(*file(f'!{number}'))  # comes first of all
        assert replica.name in NAMES
    assert found(subtree())[0] == '!0'


def test_a_replica_that_lies_elsewhere_is_not_of_an_import(subtree, catalogue):
    catalogue('set/a', replica={'path': '/user.alice/a'})
    catalogue('set/b', replica={'path': '/another/b'})
    catalogue('set/c')
    imported = subtree('set', deterministic=False)
    assert found(imported) == ['set/a']
    assert set(listings.known(imported, ['set/a', 'set/b', 'set/c'])) == {'set/a'}


def test_times(subtree, catalogue):
    now = datetime.utcnow()  # noqa: DTZ003
    catalogue('a', replica={'updated_at': now - timedelta(days=1)})
    (replica,) = listings.replicas(subtree())
    assert replica.updated == pytest.approx((now - datetime(1970, 1, 1)).total_seconds() - 86400)  # noqa: DTZ001


def test_a_lock_on_a_replica_says_nothing_about_its_content(subtree, catalogue):
    """Its row is written for each lock, too: an upload takes a day at most."""
    now = datetime(2026, 11, 22)  # noqa: DTZ001 - as Rucio's tables have times
    catalogue('a', replica={'created_at': now - timedelta(days=10), 'updated_at': now})
    (replica,) = listings.replicas(subtree())
    assert replica.updated == (now - timedelta(days=9) - datetime(1970, 1, 1)).total_seconds()  # noqa: DTZ001


@pytest.mark.parametrize(
    ('dialect', 'by_bytes', 'compared', 'kind'),
    [
        (sqlite, False, 'replicas.name', str),
        (oracle, False, 'replicas.name', str),
        (postgresql, True, 'replicas.name', str),
        (postgresql, False, 'replicas.name COLLATE "C"', str),
        (mysql, False, 'CAST(replicas.name AS BINARY)', bytes),
    ],
)
def test_how_each_database_compares_bytes(subtree, monkeypatch, dialect, by_bytes, compared, kind):
    monkeypatch.setattr(listings, '_is_c', lambda _: by_bytes)
    made = dialect.dialect()
    engine = type('Engine', (), {'dialect': SimpleNamespace(name=made.name)})()
    stmt = listings._page(subtree('run1'), 'run1/a', 'run1/z', 5, SimpleNamespace(get_bind=lambda: engine)).compile(dialect=made)
    text = ' '.join(str(stmt).replace(f'({compared})', compared).split())
    for operator in ('>', '<', '<='):
        assert f'AND {compared} {operator} ' in text
    assert f'ORDER BY {compared}' in text
    values = {value for value in stmt.params.values() if str(value).startswith(('run1', "b'run1"))}
    assert values == ({'run1/a', 'run10', 'run1/z'} if kind is str else {b'run1/a', b'run10', b'run1/z'})


@pytest.mark.parametrize(
    ('column', 'of_database', 'by_bytes'),
    [
        ({'collprovider': 'c', 'collcollate': 'C'}, None, True),
        ({'collprovider': 'c', 'collcollate': 'POSIX'}, None, True),
        ({'collprovider': 'c', 'collcollate': 'C.UTF-8'}, None, True),
        ({'collprovider': 'c', 'collcollate': 'en_US.UTF-8'}, None, False),
        ({'collprovider': 'i', 'collcollate': 'C'}, None, False),
        ({'collprovider': 'b', 'collcollate': None}, None, True),
        ({'collprovider': 'd'}, {'datlocprovider': 'c', 'datcollate': 'c.utf8'}, True),
        ({'collprovider': 'd'}, {'datcollate': 'C'}, True),  # PostgreSQL 14
        ({'collprovider': 'd'}, {'datlocprovider': 'b', 'datcollate': 'x'}, True),
        ({'collprovider': 'd'}, {'datlocprovider': 'i', 'datcollate': 'C'}, False),
        ({'collprovider': 'd'}, {'datlocprovider': 'c', 'datcollate': 'de_DE.utf8'}, False),
    ],
)
def test_whether_postgresql_compares_bytes(column, of_database, by_bytes):
    """If it does not, and that is not noticed, files are taken for missing: tests/integration/test_catalogue_order.py has a real one."""
    asked = []
    answers = [column, of_database]

    class Session:
        def execute(self, statement, values=None):
            asked.append((str(statement), values))
            return SimpleNamespace(scalar_one=lambda: answers[len(asked) - 1])

    assert listings._is_c(Session()) is by_bytes
    assert asked[0][1]['name'] == 'name'
    assert asked[0][1]['table'].endswith('replicas')
    assert len(asked) == (1 if of_database is None else 2)
