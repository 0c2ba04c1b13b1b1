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

"""Reading an S3 Inventory report, as AWS documents it, in the place of a listing."""

import csv
import gzip
import hashlib
import io
import json

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import ConfigurationError, FileConsistencyMismatch, RSEOperationNotSupported, SourceNotFound
from rucio.common.s3.settings import Secrets
from rucio.common.types import InternalScope
from rucio.core.s3 import storages
from rucio.core.s3.reconciler import inventory
from rucio.core.s3.reconciler.listings import Entry
from rucio.core.s3.subtrees import Subtree

BUCKET, REPORTS, MANIFEST = 'user.alice', 'reports', 's3://reports/2026-11-22/manifest.json'
SCHEMA = 'Bucket, Key, Size, LastModifiedDate, ETag, StorageClass'
VERSIONS = 'Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag'
WHEN, SECONDS = '2026-11-22T12:00:00.500Z', 1795348800.5


@pytest.fixture
def subtree(endpoint, rse, s3):
    """Call it for what lies below a name of user.alice."""
    s3.make_bucket(REPORTS)

    def make(name=''):
        storage = storages.Storage('X', 'abc123', 'def', endpoint(secrets=Secrets('key', 'secret')), rse(s3.url), rse(s3.url)['protocols'][0])
        return Subtree.of(storage, InternalScope('user.alice'), name)

    return make


@pytest.fixture
def report(s3):
    """Call it with rows for each data file; keywords change the manifest."""

    def make(*files, schema=SCHEMA, **changes):
        listed = []
        for number, rows in enumerate(files):
            text = io.StringIO(newline='')
            csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator='\n').writerows(rows)
            body = gzip.compress(text.getvalue().encode())
            s3.store(REPORTS, f'data/{number}.csv.gz', body)
            listed.append({'key': f'data/{number}.csv.gz', 'size': len(body), 'MD5checksum': hashlib.md5(body).hexdigest()})
        manifest = {'sourceBucket': BUCKET, 'destinationBucket': f'arn:aws:s3:::{REPORTS}', 'version': '2016-11-30', 'fileFormat': 'CSV', 'fileSchema': schema}
        s3.store(REPORTS, '2026-11-22/manifest.json', json.dumps({**manifest, 'files': listed, **changes}).encode())

    return make


def row(key, size=1, etag='e'):
    return (BUCKET, key, size, WHEN, etag, 'STANDARD')


def keys(subtree, *span):
    return [entry.key for entry in inventory.Inventory(MANIFEST)(subtree, *span)]


def test_all_files_of_it_in_the_order_of_bytes(subtree, report):
    report([row('b/2', 7, 'two'), row('a/z')], [row('a/Z'), row('a/%C3%A4'), row('a/b')])
    found = list(inventory.Inventory(MANIFEST)(subtree()))
    assert [entry.key for entry in found] == ['a/Z', 'a/b', 'a/z', 'a/ä', 'b/2']
    assert found[-1] == Entry('b/2', 7, 'two', SECONDS)


@pytest.mark.parametrize(('written', 'key'), [('a/x+y', 'a/x y'), ('a/x%20y', 'a/x y'), ('a/x%2By%25', 'a/x+y%'), ('a/%22q%22%2C%0A', 'a/"q",\n')])
def test_keys_are_url_encoded(subtree, report, written, key):
    report([row(written)])
    assert keys(subtree()) == [key]


def test_only_the_part_and_the_span(subtree, report):
    report([row('run1/a'), row('run1/b'), row('run1/c'), row('run10/a'), row('other')])
    assert keys(subtree('run1')) == ['run1/a', 'run1/b', 'run1/c']
    assert keys(subtree('run1'), 'run1/a', 'run1/b') == ['run1/b']


def test_old_versions_and_deleted_objects_are_left_out(subtree, report):
    rows = [
        (BUCKET, 'a', 'v2', 'true', 'false', '2', WHEN, 'new'),
        (BUCKET, 'a', 'v1', 'false', 'false', '1', WHEN, 'old'),
        (BUCKET, 'gone', 'v2', 'true', 'true', '', WHEN, ''),
        (BUCKET, 'gone', 'v1', 'false', 'false', '1', WHEN, 'old'),
    ]
    report(rows, schema=VERSIONS)
    assert list(inventory.Inventory(MANIFEST)(subtree())) == [Entry('a', 2, 'new', SECONDS)]


@pytest.mark.parametrize('flag', ['IsLatest', 'IsDeleteMarker'])
def test_a_report_with_one_of_the_fields_of_versions(subtree, report, flag):
    kept, left_out = ('true', 'false') if flag == 'IsLatest' else ('false', 'true')
    report(
        [(BUCKET, 'a', kept, 1, WHEN, 'e'), (BUCKET, 'b', left_out, 1, WHEN, 'e'), (BUCKET, 'c', kept, 1, WHEN, 'e')],
        schema=f'Bucket, Key, {flag}, Size, LastModifiedDate, ETag',
    )
    assert keys(subtree()) == ['a', 'c']


def test_what_is_archived(subtree, report):
    report([(*row('a')[:-1], 'GLACIER'), row('b')])
    assert [each.archived for each in inventory.Inventory(MANIFEST)(subtree())] == [True, False]
    report([row('a')[:-1]], schema=SCHEMA.removesuffix(', StorageClass'))
    assert [each.archived for each in inventory.Inventory(MANIFEST)(subtree())] == [False]


def test_an_empty_bucket(subtree, report):
    report()
    assert keys(subtree()) == []


@pytest.mark.parametrize('kind', ['ORC', 'Parquet'])
def test_other_formats_are_refused(subtree, report, kind):
    report([row('a')], fileFormat=kind)
    with pytest.raises(RSEOperationNotSupported, match=f"'{MANIFEST}': its format is {kind}, but only CSV is supported"):
        keys(subtree())


def test_the_report_of_another_bucket_is_refused(subtree, report):
    report([row('a')], sourceBucket='user.bob')
    with pytest.raises(ConfigurationError, match=r"is of the bucket 'user\.bob', not of 'user\.alice'"):
        keys(subtree())


def test_a_field_that_is_lacking(subtree, report):
    report([(BUCKET, 'a', 1)], schema='Bucket, Key, Size')
    with pytest.raises(ConfigurationError, match='lacks LastModifiedDate, ETag: configure the inventory with these fields'):
        keys(subtree())


@pytest.mark.parametrize('text', [b'', b'[]', b'{"files": 1}', b'\xff'])
def test_what_is_no_manifest(subtree, s3, text):
    s3.store(REPORTS, '2026-11-22/manifest.json', text)
    with pytest.raises(ConfigurationError, match='is not the manifest of an S3 Inventory'):
        keys(subtree())


@pytest.mark.parametrize('text', ['RSE/bucket', f'RSE={MANIFEST}', f'/bucket={MANIFEST}', f'RSE/={MANIFEST}', 'RSE/bucket=', ''])
def test_what_does_not_name_an_inventory(text):
    with pytest.raises(ConfigurationError, match='is not an inventory: use RSE/BUCKET='):
        inventory.NamedInventory.parse(text)


def test_an_inventory_is_named_with_its_bucket():
    found = inventory.NamedInventory.parse(f'RSE/bucket={MANIFEST}')
    assert (found.rse, found.bucket, found.inventory._bucket) == ('RSE', 'bucket', 'reports')


@pytest.mark.parametrize('url', ['reports/manifest.json', 's3://reports', 's3:///manifest.json', 's3://reports/data.csv.gz', 'https://reports/manifest.json'])
def test_what_is_no_url_of_a_manifest(url):
    with pytest.raises(ConfigurationError, match=f"The inventory '{url}' is not a manifest"):
        inventory.Inventory(url)


def test_nothing_is_listed_of_a_report_with_a_missing_file(subtree, report, s3):
    report([row('a')], [row('b')])
    del s3.buckets[REPORTS]['data/1.csv.gz']
    with pytest.raises(SourceNotFound):
        next(inventory.Inventory(MANIFEST)(subtree()))


@pytest.mark.parametrize('lacking', [{}, {'MD5checksum': None}, {'MD5checksum': ''}])
def test_a_report_without_checksums(subtree, report, s3, lacking):
    report([row('a')], files=[{'key': 'data/0.csv.gz', **lacking}])
    assert keys(subtree()) == ['a']


def test_nothing_is_listed_of_a_report_with_a_damaged_file(subtree, report, s3):
    report([row('a')], [row('b')])
    s3.store(REPORTS, 'data/1.csv.gz', gzip.compress(b'"user.alice","c"'))
    with pytest.raises(FileConsistencyMismatch, match=r'data/1\.csv\.gz. does not match the MD5 in its manifest'):
        next(inventory.Inventory(MANIFEST)(subtree()))


@pytest.mark.parametrize(
    'body',
    [
        b'no gzip',
        gzip.compress(b'x' * 1000)[:-9],
        gzip.compress(b'"user.alice","a"'),
        gzip.compress(b'"b","a","x","y","z"'),
        gzip.compress(f'"user.alice","%ff","1","{WHEN}","e","STANDARD"'.encode()),
    ],
    ids=['no gzip', 'cut off', 'too few columns', 'no sizes', 'no UTF-8'],
)
def test_a_data_file_that_makes_no_sense(subtree, report, s3, body):
    report(files=[{'key': 'data/x.csv.gz'}])
    s3.store(REPORTS, 'data/x.csv.gz', body)
    with pytest.raises(FileConsistencyMismatch, match=r'data/x\.csv\.gz. cannot be read'):
        next(inventory.Inventory(MANIFEST)(subtree()))


def test_what_stands_in_the_report_is_asked_for_again():
    assert inventory.Inventory(MANIFEST).old
