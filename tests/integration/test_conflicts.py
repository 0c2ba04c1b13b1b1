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

"""What becomes of a catalogue and a bucket that contradict each other: each row of the table in docs/reconciling.md, on real servers."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from faults.proxy import FaultProxy, Stall, answer, break_before, truncate
from servers.cli import RucioCli, add_s3_rse
from servers.fake_s3 import FakeS3
from servers.team import Team, ok, rows

TESTS = Path(__file__).parent.parent
MiB = 1024**2
PART = 5 * MiB
LARGE = 2 * PART  # is uploaded in parts, by `rucio upload` and by boto3
pytestmark = pytest.mark.long
SETTINGS = {'multipart_threshold': '5 MiB', 'multipart_chunksize': '5 MiB'}


@dataclass
class Said:
    """What `rucio s3 reconcile` said."""

    counts: dict[str, int]
    problems: list[SimpleNamespace]

    def kinds(self) -> Counter[str]:
        return Counter(each.kind for each in self.problems)


class Bench:
    """A collection of gina's that no other test has, on one RSE, with the stock commands and another client."""

    def __init__(self, team: Team, rse: str, s3: Any, collection: str) -> None:
        self.team, self.rse, self.s3, self.collection = team, rse, s3, collection
        self.scope = team.scope

    @property
    def root(self) -> RucioCli:
        return self.team.root

    def key(self, name: str) -> str:
        return f'{self.collection}/{name}'

    # Another client

    def put(self, name: str, body: bytes) -> None:
        """At once, or in parts if it is large."""
        place = {'Bucket': self.scope, 'Key': self.key(name)}
        if len(body) <= PART:
            self.s3.put_object(**place, Body=body)
            return
        upload = self.s3.create_multipart_upload(**place)['UploadId']
        parts = []
        for number, start in enumerate(range(0, len(body), PART), 1):
            etag = self.s3.upload_part(**place, UploadId=upload, PartNumber=number, Body=body[start : start + PART])['ETag']
            parts.append({'PartNumber': number, 'ETag': etag})
        self.s3.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={'Parts': parts})

    def body(self, name: str) -> bytes:
        return self.s3.get_object(Bucket=self.scope, Key=self.key(name))['Body'].read()

    def next_second(self) -> None:
        """Return when what is written looks newer than what was written before: storages tell whole seconds."""
        place = {'Bucket': self.scope, 'Key': f'clock/{self.collection}'}

        def now() -> datetime:
            self.s3.put_object(**place, Body=b'')
            return self.s3.head_object(**place)['LastModified']

        first = now()
        while now() == first:
            continue
        self.s3.delete_object(**place)

    def delete(self, *names: str) -> None:
        for name in names:
            self.s3.delete_object(Bucket=self.scope, Key=self.key(name))

    # Rucio

    def upload(self, name: str, body: bytes, *, user: RucioCli | None = None) -> str:
        """The stock command, into the collection's dataset. What it said: it has exit code 0 whatever happens."""
        user = user or self.team.owner
        file = user.directory / f'upload-{name.replace("/", "-")}'
        file.write_bytes(body)
        done = user.rucio('upload', '--rse', self.rse, '--scope', self.scope, '--lfn', self.key(name), f'{self.scope}:{self.collection}', str(file))
        file.unlink()
        return done.stdout + done.stderr

    def sync(self, *options: str, fails: bool = False) -> Said:
        done = self.team.owner.rucio('--robot', 's3', 'reconcile', f'{self.scope}:{self.collection}', '--rse', self.rse, *options)
        if fails:
            assert done.returncode, done.stdout + done.stderr
            assert 'Traceback' not in done.stderr
            return Said({}, [SimpleNamespace(kind='error', found=done.stderr + done.stdout)])
        said = rows(done)
        problems = [SimpleNamespace(**dict(zip(('kind', 'did', 'key', 'found', 'remedy'), row[3:], strict=True))) for row in said if row[0] == 'problem']
        return Said({row[3]: int(row[4]) for row in said if row[0] == 'count' and int(row[4])}, problems)

    def known(self) -> dict[str, tuple[int, str | None]]:
        """What stock Rucio says is available: name -> size, MD5."""
        found = self.team.owner.call('list_replicas', [{'scope': self.scope, 'name': self.collection}], all_states=True)
        there = [each for each in found if each['states'].get(self.rse) == 'AVAILABLE']
        return {each['name'].removeprefix(f'{self.collection}/'): (each['bytes'], each['md5']) for each in there}

    def members(self) -> list[str]:
        """The files of the collection's dataset."""
        names = [each['name'] for each in self.team.owner.call('list_content', self.scope, self.collection)]
        return sorted(name.removeprefix(f'{self.collection}/') for name in names)

    def download(self, name: str) -> bytes | None:
        """With the stock command, which compares the checksum; None if it got nothing."""
        folder = self.team.owner.directory / 'back' / self.collection
        done = self.team.owner.rucio('download', '--dir', str(folder), f'{self.scope}:{self.key(name)}')
        found = [path for path in folder.rglob('*') if path.is_file()]
        assert len(found) < 2, done.stderr
        content = found[0].read_bytes() if found else None
        for path in found:
            path.unlink()
        return content

    def daemons(self) -> None:
        """All that may delete something, repair it or count it: in one process, as half of their time is for its start."""
        done = subprocess.run(
            [sys.executable, '-m', 'faults.rucio_acts', self.rse],
            env={**self.root.server.environment, 'PYTHONPATH': str(TESTS)},
            cwd=self.root.server.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def facts(body: bytes) -> tuple[int, str]:
    return len(body), hashlib.md5(body).hexdigest()


def content(size: int, seed: str) -> bytes:
    return (hashlib.sha256(seed.encode()).digest() * (size // 32 + 1))[:size]


@pytest.fixture(scope='module')
def team(team_root, tmp_path_factory, plain):
    made = Team.make(team_root, tmp_path_factory.mktemp, ('gina', 'hugo'), 'CONFLICT_S3', plain)
    plain.client().create_bucket(Bucket=made.scope)
    return made


def with_rse(team, rse, storage):
    """One more RSE for gina; the server has the keys."""
    identifier = add_s3_rse(team.root, rse, storage, accounts=('root', 'gina'), settings=SETTINGS)
    team.root.server.set_rse_keys(identifier, storage.access_key, storage.secret_key)
    return rse


@pytest.fixture(scope='module')
def parts_rse(team, plain):
    """The same storage, but objects of 10 MiB are uploaded in parts."""
    return with_rse(team, 'CONFLICT_PARTS_S3', plain)


@pytest.fixture
def bench(team, parts_rse, plain, unique):
    return made(Bench(team, parts_rse, plain.client(), unique))


def made(bench):
    """With its dataset and the rule on it."""
    ok(bench.team.owner.rucio('s3', 'make-bucket', f'{bench.scope}:{bench.collection}', '--rse', bench.rse))
    return bench


# Somebody overwrites an object that Rucio knows


@pytest.mark.parametrize(
    ('known_by', 'size', 'new_size'),
    [
        ('upload', 1000, 1000),
        ('reconcile', LARGE, LARGE),
        pytest.param('upload', 1000, LARGE, marks=pytest.mark.long),
        pytest.param('upload', LARGE, 1000, marks=pytest.mark.long),
        pytest.param('upload', LARGE, LARGE, marks=pytest.mark.long),
        pytest.param('reconcile', 1000, 1000, marks=pytest.mark.long),
    ],
)
def test_overwritten(bench, known_by, size, new_size):
    """Reported, with the command that acts; then the catalogue says what is there, and no daemon touches it."""
    old, new = content(size, 'old'), content(new_size, 'new')
    if known_by == 'upload':
        assert 'Successfully uploaded' in bench.upload('file', old)
    else:
        bench.put('file', old)
        assert bench.sync().counts['registered'] == 1
    bench.next_second()
    bench.put('file', new)

    reported = bench.sync()
    assert reported.counts['changed'] == 1
    assert 'replaced' not in reported.counts
    assert [each.key for each in reported.problems] == [bench.key('file')]
    assert '--on-changed replace' in reported.problems[0].remedy

    assert bench.sync('--on-changed', 'replace').counts['replaced'] == 1
    size, md5 = bench.known()['file']
    assert (size, md5 or facts(new)[1]) == facts(new)
    bench.daemons()
    assert bench.download('file') == new
    assert set(bench.sync().counts) == {'listed', 'same'}


def test_overwritten_with_the_same(bench):
    """The same bytes, in other parts: nothing has changed, and it is not read again and again."""
    body = content(LARGE, 'same')
    bench.upload('file', body)
    bench.s3.copy_object(Bucket=bench.scope, Key=bench.key('file'), CopySource={'Bucket': bench.scope, 'Key': bench.key('file')}, MetadataDirective='REPLACE')
    for _ in range(2):
        said = bench.sync('--on-changed', 'replace')
        assert 'replaced' not in said.counts
        assert not said.problems
    assert bench.download('file') == body


# Somebody deletes


def test_a_directory_is_deleted(bench):
    """Reported; with `forget` its files are gone from the catalogue, the dataset stays, and the names can be used again."""
    names = [f'{folder}/file{number}' for folder in ('kept', 'vanished') for number in range(3)]
    for name in names:
        bench.put(name, content(100, name))
    bench.sync()
    bench.delete(*names[3:])

    reported = bench.sync()
    assert reported.counts['missing'] == 3
    assert {each.key for each in reported.problems} == {bench.key(name) for name in names[3:]}
    assert all('--on-missing forget' in each.remedy for each in reported.problems)
    assert sorted(bench.known()) == names

    assert bench.sync('--on-missing', 'forget').counts['forgotten'] == 3
    bench.daemons()
    assert sorted(bench.known()) == bench.members() == names[:3]
    assert 'Successfully uploaded' in bench.upload(names[3], content(50, 'again'))
    assert bench.download(names[3]) == content(50, 'again')


def test_all_of_a_dataset_is_deleted(bench):
    for number in range(3):
        bench.put(f'file{number}', content(100, str(number)))
    bench.sync()
    bench.delete('file0', 'file1', 'file2')
    assert bench.sync('--on-missing', 'forget').counts['forgotten'] == 3
    bench.daemons()
    assert bench.members() == []
    bench.put('file1', b'new')
    assert bench.sync().counts['registered'] == 1
    assert bench.download('file1') == b'new'


def test_renamed(bench):
    """A copy and a delete: the new name is registered, with its checksum, and the old one reported or forgotten."""
    bench.upload('old', content(100, 'old'))
    bench.s3.copy_object(Bucket=bench.scope, Key=bench.key('new'), CopySource={'Bucket': bench.scope, 'Key': bench.key('old')})
    bench.delete('old')
    said = bench.sync()
    assert (said.counts['registered'], said.counts['missing'], said.kinds()) == (1, 1, Counter(missing=1))
    bench.sync('--on-missing', 'forget')
    assert bench.known() == {'new': facts(content(100, 'old'))}
    bench.daemons()
    assert bench.download('new') == content(100, 'old')


# `rucio upload` and another client write the same key


def test_the_other_client_was_first(bench):
    """Rucio's upload leaves the object as it is. What it had announced is not there, and could still be under way for a day."""
    bench.put('file', content(100, 'theirs'))
    said = bench.upload('file', content(120, 'ours'))
    assert 'Successfully uploaded' not in said
    assert bench.body('file') == content(100, 'theirs')
    assert bench.sync('--on-changed', 'replace').counts == {'listed': 1, 'busy': 1}
    assert bench.known() == {}
    bench.daemons()
    assert bench.body('file') == content(100, 'theirs')


def test_the_other_client_was_first_and_was_registered(bench):
    bench.put('file', content(100, 'theirs'))
    bench.sync()
    assert 'Successfully uploaded' not in bench.upload('file', content(120, 'ours'))
    assert bench.known() == {'file': facts(content(100, 'theirs'))}
    assert bench.download('file') == content(100, 'theirs')


@pytest.mark.parametrize('size', [100, LARGE])
def test_the_other_client_wins_in_the_middle(proxied, size):
    """It writes after `rucio upload` has looked and before it sends: the storage takes one of them only."""
    place, proxy = proxied
    stall = proxy.on('PutObject' if size == 100 else 'CompleteMultipartUpload', Stall())
    with ThreadPoolExecutor() as pool:
        said = pool.submit(place.upload, 'file', content(size, 'ours'))
        stall.wait()
        place.put('file', content(90, 'theirs'))
        stall.release()
        assert 'Successfully uploaded' not in said.result()
    assert place.body('file') == content(90, 'theirs')
    place.sync('--on-changed', 'replace')
    place.daemons()
    assert place.body('file') == content(90, 'theirs')


def test_rucio_was_first(bench):
    """Most other clients overwrite without asking: that is an object that changed."""
    bench.upload('file', content(100, 'ours'))
    bench.put('file', content(100, 'theirs'))
    assert bench.sync('--on-changed', 'replace').counts['replaced'] == 1
    assert bench.known() == {'file': facts(content(100, 'theirs'))}


# A bucket with versions


@pytest.mark.parametrize('storage', ['plain', pytest.param('ceph', marks=pytest.mark.long)])
def test_a_versioned_bucket(team, unique, request, storage):
    """A delete marker is a missing object; a version that is restored is the object that is there now."""
    server = request.getfixturevalue(storage)
    rse = request.getfixturevalue('parts_rse' if storage == 'plain' else 'ceph_rse')
    bench = made(Bench(team, rse, server.client(), unique))
    versioning = {'Bucket': bench.scope, 'VersioningConfiguration': {'Status': 'Enabled'}}
    bench.s3.put_bucket_versioning(**versioning)
    try:
        _versions(bench)
    finally:
        versioning['VersioningConfiguration'] = {'Status': 'Suspended'}
        bench.s3.put_bucket_versioning(**versioning)


def _versions(bench):
    place = {'Bucket': bench.scope, 'Key': bench.key('file')}
    first = bench.s3.put_object(**place, Body=content(100, 'first'))['VersionId']
    bench.put('file', content(100, 'second'))
    assert bench.sync().counts['registered'] == 1
    assert bench.known() == {'file': facts(content(100, 'second'))}

    marker = bench.s3.delete_object(**place)['VersionId']
    assert bench.sync().counts['missing'] == 1
    bench.s3.delete_object(**place, VersionId=marker)
    assert set(bench.sync().counts) == {'listed', 'same'}

    bench.s3.copy_object(**place, CopySource={**place, 'VersionId': first})
    assert bench.sync('--on-changed', 'replace').counts['replaced'] == 1
    assert bench.known() == {'file': facts(content(100, 'first'))}

    bench.s3.delete_object(**place)
    assert bench.sync('--on-missing', 'forget').counts['forgotten'] == 1
    bench.daemons()
    assert bench.s3.get_object(**place, VersionId=first)['Body'].read() == content(100, 'first'), 'no version was deleted'


@pytest.fixture(scope='module')
def ceph_rse(team, ceph):
    ceph.client().create_bucket(Bucket=team.scope)
    return with_rse(team, 'CONFLICT_CEPH_S3', ceph)


# Two reconcilers at once


@pytest.mark.long
def test_two_at_once(bench):
    """Each file once, each lock once, and the counters are right."""
    before = usage(bench)
    for number in range(60):
        bench.put(f'{number % 3}/file{number}', content(number, str(number)))
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: bench.sync(), range(2)))
    assert sum(each.counts.get('registered', 0) for each in both) == 60
    assert not any(each.counts.get('failed') for each in both)
    names = sorted(f'{number % 3}/file{number}' for number in range(60))
    assert [after - earlier for after, earlier in zip(usage(bench), before, strict=True)] == [60, sum(range(60)), 60, sum(range(60))]
    assert bench.members() == sorted(bench.known()) == names
    assert set(bench.sync().counts) == {'listed', 'same'}


def usage(bench):
    """Files and bytes of the RSE and of gina there, as Rucio counts them."""
    bench.daemons()
    of_rse = [each for each in bench.root.call('get_rse_usage', bench.rse) if each['source'] == 'rucio'] or [{'files': 0, 'used': 0}]
    of_gina = bench.root.call('get_local_account_usage', 'gina', bench.rse) or [{'files': 0, 'bytes': 0}]
    return of_rse[0]['files'], of_rse[0]['used'], of_gina[0]['files'], of_gina[0]['bytes']


# Listings that are not complete


@pytest.fixture(scope='module')
def proxy_rse(team, plain):
    """The same storage behind a proxy that fails on demand."""
    with FaultProxy(plain.hostname, plain.port) as proxy:
        address = SimpleNamespace(scheme='http', hostname='127.0.0.1', port=proxy.port, region=plain.region)
        address.access_key, address.secret_key = plain.access_key, plain.secret_key
        yield with_rse(team, 'CONFLICT_PROXY_S3', address), proxy


@pytest.fixture
def proxied(team, proxy_rse, plain, unique):
    """A place whose requests go through a proxy, and the proxy; the other client is not behind it."""
    rse, proxy = proxy_rse
    yield made(Bench(team, rse, plain.client(), unique)), proxy
    proxy.forget()


@pytest.fixture
def many(proxied):
    """More objects than a page of a listing has, registered."""
    place, proxy = proxied
    names = [f'file{number:04}' for number in range(1050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: place.put(name, name.encode()), names))
    assert place.sync().counts['registered'] == len(names)
    return place, proxy


@pytest.mark.long
@pytest.mark.parametrize('fault', [break_before, truncate(300), answer(500, 'InternalError'), answer(403, 'AccessDenied'), answer(404, 'NoSuchBucket')])
def test_the_storage_goes_away_within_a_listing(many, fault):
    """What was not listed is not missing, whatever way the listing ends."""
    place, proxy = many

    def first_page(exchange):
        exchange.respond(exchange.forward())
        proxy.on('GET bucket', fault, times=20)
        proxy.on('HEAD bucket', fault, times=20)
        proxy.on('HeadObject', fault, times=20)

    proxy.on('GET bucket', first_page)
    place.sync('--on-missing', 'forget', fails=True)
    proxy.forget()
    assert len(place.known()) == 1050
    assert set(place.sync('--on-missing', 'forget').counts) == {'listed', 'same'}


def test_a_listing_that_says_too_early_that_it_is_complete(many):
    """A HEAD finds the objects."""
    place, proxy = many

    def end(exchange):
        response = exchange.forward()
        assert b'<IsTruncated>true' in response.body
        response.body = response.body.replace(b'<IsTruncated>true', b'<IsTruncated>false')
        exchange.respond(response)

    proxy.on('GET bucket', end)
    assert 'forgotten' not in place.sync('--on-missing', 'forget').counts
    assert len(place.known()) == 1050


def test_a_listing_that_lags_behind(proxied):
    """An object that is there, but not listed, is not missing. One that is listed, but gone, is registered, and missing in the next run."""
    place, proxy = proxied
    place.put('old', b'old')
    place.sync()
    place.put('gone', b'gone')
    stale = []

    def remember(exchange):
        stale.append(exchange.forward())
        exchange.respond(stale[0])

    def replay(exchange):
        stale[0].body = re.sub(rb'<Contents>(?:(?!</Contents>).)*/old</Key>.*?</Contents>', b'', stale[0].body, flags=re.DOTALL)
        exchange.respond(stale[0])

    proxy.on('GET bucket', remember)
    place.sync('--dry-run')
    place.delete('gone')
    proxy.on('GET bucket', replay)
    assert 'forgotten' not in place.sync('--on-missing', 'forget').counts
    assert b'/gone</Key>' in stale[0].body
    assert b'/old</Key>' not in stale[0].body
    assert place.known()['old'] == facts(b'old')
    assert place.sync('--on-missing', 'forget').counts['forgotten'] == 1
    assert place.known() == {'old': facts(b'old')}


ODD_SIZES = (b'<Size>many</Size>', b'<Size>-1</Size>', b'', b'<Size>3</Size><Size>4</Size>')


def test_odd_objects_stop_neither_a_run_nor_a_listing(proxied):
    """Sizes that are none, and a HEAD without one: the others are registered, and each odd one is named, with `rucio s3 ls` as well."""
    place, proxy = proxied
    for name in 'abcde':
        place.put(name, b'123')

    def odd(exchange):
        response = exchange.forward()
        for name, size in zip(b'abcd', ODD_SIZES, strict=True):
            response.body = re.sub(rb'(?s)(/%c</Key>(?:(?!</Contents>).)*)<Size>3</Size>' % name, rb'\1' + size, response.body)
        exchange.respond(response)

    def without_size(exchange):
        response = exchange.forward()
        response.headers = [(name, value) for name, value in response.headers if name.lower() not in ('content-length', 'last-modified')]
        exchange.respond(response)

    proxy.on('GET bucket', odd, times=2)
    said = place.sync()
    assert {kind: said.counts[kind] for kind in ('listed', 'registered', 'unreadable')} == {'listed': 5, 'registered': 1, 'unreadable': 4}
    assert said.kinds() == {'unreadable': 4}
    assert place.known() == {'e': facts(b'123')}
    listed = place.team.owner.rucio('--robot', 's3', 'ls', f'{place.scope}:{place.collection}', '--rse', place.rse)
    assert (listed.returncode, listed.stdout.count('\tunknown\t')) == (1, 4)
    assert 'the size of 4 objects' in listed.stderr
    place.next_second()
    place.put('e', b'1234')
    place.put('f', b'1')
    proxy.on('HeadObject', without_size, times=2)
    done = place.team.owner.rucio('--robot', 's3', 'reconcile', f'{place.scope}:{place.collection}', '--rse', place.rse)
    assert (done.returncode, done.stdout.count('\nproblem\t')) == (1, 1)
    assert f'/e\t{place.collection}/e\t' in done.stdout
    assert set(place.known()) == set('abcdef')


def test_archived_objects_are_told_and_not_read_in_each_run(proxied):
    """SeaweedFS keeps the storage class; the proxy refuses to read, as AWS does."""
    place, proxy = proxied
    for name, body in (('one', b'123'), ('parts', content(LARGE, 'parts'))):
        place.put(name, body)
        where = {'Bucket': place.scope, 'Key': place.key(name)}
        if name == 'one':
            place.s3.put_object(**where, Body=body, StorageClass='GLACIER')
        else:
            upload = place.s3.create_multipart_upload(**where, StorageClass='GLACIER')['UploadId']
            part = place.s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=body)['ETag']
            place.s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': part}]})
    proxy.on('GetObject', answer(403, 'InvalidObjectState'), times=20)
    assert place.sync().counts == {'listed': 2, 'new': 2, 'registered': 2, 'archived': 2, 'bytes': 3 + LARGE}
    proxy.seen.clear()
    assert place.sync().counts == {'listed': 2, 'same': 1, 'no-checksum': 1, 'archived': 2}
    assert 'GetObject' not in proxy.operations()
    shown = rows(place.team.owner.rucio('--robot', 's3', 'ls', f'{place.scope}:{place.collection}', '--rse', place.rse))
    assert [row[2] for row in shown] == ['AVAILABLE, archived (GLACIER)'] * 2
    done = place.team.owner.rucio('download', '--dir', str(place.team.owner.directory / 'archived'), f'{place.scope}:{place.key("one")}')
    assert 'The object is archived: restore it first' in done.stdout + done.stderr
    assert 'Traceback' not in done.stderr


# Storages that are odd


@pytest.fixture
def odd(team, unique):
    """A place on an S3 that this test may break, and that S3."""
    with FakeS3() as s3:
        s3.make_bucket(team.scope)
        address = SimpleNamespace(scheme='http', hostname='127.0.0.1', port=s3.port, region='us-east-1', access_key='any', secret_key='any')
        rse = with_rse(team, f'CONFLICT_{unique.upper()}_S3', address)
        yield made(Bench(team, rse, None, unique)), s3


def test_a_listing_in_no_order(odd):
    """As of AWS's directory buckets: the server sorts it, and nothing is taken for missing."""
    place, s3 = odd
    s3.unsorted, s3.page = True, 7
    for number in range(30):
        s3.store(place.scope, place.key(f'file{number}'), str(number).encode())
    assert place.sync().counts['registered'] == 30
    assert set(place.sync('--on-missing', 'forget').counts) == {'listed', 'same'}
    del s3.buckets[place.scope][place.key('file3')]
    s3.store(place.scope, place.key('new'), b'new')
    said = place.sync('--on-missing', 'forget')
    assert (said.counts['forgotten'], said.counts['registered'], said.counts['same']) == (1, 1, 29)


def test_a_storage_that_comes_back_empty(odd):
    """A bucket with nothing in it, where there was something: that is said, and nothing is forgotten. No bucket: the same."""
    place, s3 = odd
    for number in range(5):
        s3.store(place.scope, place.key(f'file{number}'), str(number).encode())
    place.sync()
    kept = s3.buckets[place.scope]
    s3.buckets[place.scope] = {}
    done = place.team.owner.rucio('--robot', 's3', 'reconcile', place.scope, '--rse', place.rse, '--on-missing', 'forget')
    assert 'empty' in done.stdout + done.stderr
    assert len(place.known()) == 5
    del s3.buckets[place.scope]
    place.sync('--on-missing', 'forget', fails=True)
    assert len(place.known()) == 5
    s3.buckets[place.scope] = kept
    assert set(place.sync('--on-missing', 'forget').counts) == {'listed', 'same'}
