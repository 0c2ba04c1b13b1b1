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

"""The reconciler's daemon with a real S3 server and a real Rucio server: other clients write, `rucio-s3-reconciler` runs, stock commands read."""

import contextlib
import gzip
import json
import os
import signal
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers import postgres
from servers.cli import RucioCli, add_s3_rse, add_user, s3_keys
from servers.process import TIMEOUT, until
from servers.rucio_server import RECONCILER, RucioServer
from servers.seaweedfs import SeaweedFS

SLOW = {'etag_is_md5': False, 'checksum_readers': 1}  # a request for each new object


@dataclass
class Place:
    """An RSE of its own with the buckets of its accounts' scopes, of which each begins with `prefix`."""

    server: RucioServer
    storage: SeaweedFS
    user: RucioCli
    rse: str
    prefix: str
    scopes: list[str]

    def put(self, scope, **objects):
        self.put_all(scope, {name.replace('__', '/'): body for name, body in objects.items()})

    def put_all(self, scope, objects):
        client = self.storage.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=self.prefix + scope)
        for key, body in objects.items():
            client.put_object(Bucket=self.prefix + scope, Key=key, Body=body)

    def reconcile(self, *options):
        return self.server.run_daemon(*RECONCILER, '--run-once', '--rses', self.rse, *options)

    def running(self, log: Path, *options):
        return self.server.running(log, *RECONCILER, '--rses', self.rse, *options)

    def rows(self, query, *values):
        """What is in Rucio's database."""
        with contextlib.closing(sqlite3.connect(f'file:{self.server.directory}/rucio.db?mode=ro', uri=True, timeout=60)) as database:
            return [row[0] for row in database.execute(query, values)]

    def heartbeats(self, process):
        return self.rows('SELECT pid FROM heartbeats WHERE pid = ?', process.pid)

    def progress(self):
        """How far the open spans of rounds have come."""
        return [
            row
            for row in self.rows("SELECT value FROM configs WHERE section LIKE ? AND opt LIKE 'span:%'", f's3-bucket:{self.rse}:%')
            if '"after":""' not in row
        ]

    def names(self, scope):
        return sorted(self.rows('SELECT name FROM replicas WHERE scope = ?', scope))

    def downloaded(self, did):
        folder = self.user.directory / 'got' / os.urandom(4).hex()
        done = self.user.rucio('download', '--dir', str(folder), did)
        return sorted(path.read_text() for path in folder.rglob('*') if path.is_file()), done.stdout + done.stderr


def make_place(root, server, storage, directory, unique, count, settings):
    rse, prefix = f'REC_{unique.upper()}', f'{unique}-'
    scopes = [f'{unique}.{number:02}' for number in range(count)]
    user = add_user(root, directory, unique, scopes=scopes, config=s3_keys(rse, storage))
    rse_id = add_s3_rse(root, rse, storage, accounts=('root', unique), settings={'bucket_prefix': prefix, **settings})
    server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
    return Place(server, storage, user, rse, prefix, scopes)


@pytest.fixture
def place(root, rucio_server, plain, tmp_path, unique):
    """Call it for a place with so many scopes."""

    def make(count=1, **settings):
        return make_place(root, rucio_server, plain, tmp_path / 'user', unique, count, settings)

    return make


@pytest.mark.smoke
def test_what_others_wrote_can_be_downloaded(place):
    here = place()
    (scope,) = here.scopes
    here.put(scope, run1__a='first', run1__b='second', run2__deep__c='third', loose='fourth')
    log = here.reconcile()
    assert f'RSE {here.rse}, bucket {here.prefix}{scope}: 4 objects listed, 4 new, 0 changed, 0 missing, 0 failed, 4 registered in ' in log
    assert here.downloaded(f'{scope}:run1')[0] == ['first', 'second']
    assert here.downloaded(f'{scope}:run2/deep/c')[0] == ['third']
    assert here.downloaded(f'{scope}:loose')[0] == ['fourth']
    assert '4 objects listed, 0 new, 0 changed, 0 missing, 0 failed in ' in here.reconcile()


def test_what_is_not_as_it_was_is_reported_with_the_remedy(place):
    here = place()
    (scope,) = here.scopes
    here.put(scope, run1__a='first', run1__b='second', run1__c='third')
    here.reconcile()
    client = here.storage.client()
    client.put_object(Bucket=here.prefix + scope, Key='run1/a', Body='something else')
    client.delete_object(Bucket=here.prefix + scope, Key='run1/b')
    log = here.reconcile()
    assert '2 objects listed, 0 new, 1 changed, 1 missing, 0 failed in ' in log
    assert f'rucio s3 reconcile {scope}:run1 --on-changed replace' in log
    assert f'rucio s3 reconcile {scope}:run1 --on-missing forget' in log
    assert here.names(scope) == ['run1/a', 'run1/b', 'run1/c']


def test_a_dry_run_changes_nothing(place):
    here = place()
    (scope,) = here.scopes
    here.put(scope, run1__a='first')
    assert '1 objects listed, 1 new, ' in here.reconcile('--dry-run')
    assert here.names(scope) == []
    assert here.rows('SELECT opt FROM configs WHERE section LIKE ?', f's3-bucket:{here.rse}:%') == []


@pytest.fixture
def slow(place):
    """A place that takes a while, its scope and the keys there."""
    here = place(**SLOW)
    (scope,) = here.scopes
    keys = [f'run{number // 100}/file{number:04}' for number in range(600)]
    here.put_all(scope, {key: key[-4:] for key in keys})
    return here, scope, keys


@pytest.mark.long  # a signal to end is in the next one
def test_killed_in_the_middle_of_a_round(slow, tmp_path):
    here, scope, keys = slow
    with here.running(tmp_path / 'log', '--run-once', '--save-every', '0.1') as process:
        until(here.progress, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 0 < len(here.names(scope)) < 600
    log = here.reconcile()
    assert f"bucket {here.prefix}{scope}: the round continues after 'run" in log
    assert here.names(scope) == sorted(keys)
    assert here.progress() == []
    assert here.rows('SELECT pid FROM heartbeats WHERE readable = ?', 's3-reconciler') == []  # that of the dead one, too


def test_sigterm_in_the_middle_of_a_round(slow, tmp_path):
    here, scope, keys = slow
    with here.running(tmp_path / 'log', '--run-once', '--save-every', '0.1') as process:
        until(here.progress, process)
        assert here.heartbeats(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    assert here.heartbeats(process) == []
    assert 'Traceback' not in (tmp_path / 'log').read_text()
    assert len(here.names(scope)) < 600
    here.reconcile()
    assert here.names(scope) == sorted(keys)


def test_sigint_while_nothing_is_to_do(place, tmp_path):
    here = place()
    with here.running(tmp_path / 'log', '--threads', '2') as process:
        until(lambda: len(here.heartbeats(process)) == 2, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 0
    assert here.heartbeats(process) == []
    assert 'Traceback' not in (tmp_path / 'log').read_text()


@pytest.mark.long
def test_two_instances_share_the_buckets(place, root, unique, tmp_path):
    here = place(0)
    scopes, logs = [f'{unique}.{number:02}' for number in range(12)], [tmp_path / 'one', tmp_path / 'two']
    # Ten times that without a heartbeat, and one would take the other for gone.
    with here.running(logs[0], '--sleep-time', '5') as one, here.running(logs[1], '--sleep-time', '5') as two:
        until(lambda: here.heartbeats(one) and here.heartbeats(two), one, two)
        for scope in scopes:
            here.put(scope, run1__a=scope)
        # Only now, that none of the buckets has its round while it is still empty: the next would be in an hour.
        root.calls(*(('add_scope', unique, scope) for scope in scopes))
        until(lambda: sum(log.read_text().count(' 1 registered in ') for log in logs) >= 12, one, two)
        for process in (one, two):
            process.send_signal(signal.SIGTERM)
        assert [process.wait(TIMEOUT) for process in (one, two)] == [0, 0]
    shares = [{scope for scope in scopes if f'bucket {here.prefix}{scope}: ' in log.read_text()} for log in logs]
    assert shares[0] | shares[1] == set(scopes)
    assert not shares[0] & shares[1]
    assert min(map(len, shares)) > 0


def test_a_bucket_that_is_gone(place):
    here = place(2)
    for scope in here.scopes:
        here.put(scope, run1__a='first')
    here.reconcile()
    client, bucket = here.storage.client(), here.prefix + here.scopes[0]
    client.delete_object(Bucket=bucket, Key='run1/a')
    client.delete_bucket(Bucket=bucket)
    log = here.reconcile()
    assert f"the bucket '{bucket}' does not exist. No file was declared lost." in log
    assert f'bucket {here.prefix}{here.scopes[1]}: 1 objects listed' in log
    assert here.names(here.scopes[0]) == ['run1/a']


def test_a_storage_that_refuses_the_keys(place):
    here = place()
    here.put(here.scopes[0], run1__a='first')
    (rse_id,) = here.rows('SELECT id FROM rses WHERE rse = ?', here.rse)
    here.server.set_rse_keys(rse_id.lower(), here.storage.access_key, 'another')
    done = here.server.run(*RECONCILER, '--run-once', '--rses', here.rse)
    here.server.set_rse_keys(rse_id.lower(), here.storage.access_key, here.storage.secret_key)  # others ask all storages
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert f'RSE {here.rse}' in said
    assert 'Check the access key' in said
    assert 'Traceback' not in said


def test_an_expression_without_an_s3_rse(root, rucio_server, unique):
    root.call('add_rse', f'OTHER_{unique.upper()}')
    for expression, said in ((f'OTHER_{unique.upper()}', 'There is no S3 RSE in'), ('NOWHERE', 'NOWHERE')):
        done = rucio_server.run(*RECONCILER, '--run-once', '--rses', expression)
        assert done.returncode == 1
        assert done.stderr.startswith('rucio-s3-reconciler: ')
        assert said in done.stderr
        assert 'Traceback' not in done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(postgres.missing() is not None, reason=postgres.missing() or '')
def test_workers_on_postgresql(tmp_path, plain, unique):
    with postgres.PostgreSQL(tmp_path / 'postgres') as database, RucioServer(tmp_path / 'server', postgres=database) as server:
        root = RucioCli.root(tmp_path / 'root', server)
        here = make_place(root, server, plain, tmp_path / 'user', unique, 3, SLOW)
        for scope in here.scopes:
            here.put_all(scope, {f'run{number // 40}/file{number:04}': f'{number}' for number in range(120)})
        log = here.reconcile('--threads', '3', '--save-every', '0.1')
        assert here.downloaded(f'{here.scopes[1]}:run0/file0007')[0] == ['7'], log
        assert log.count(': 120 objects listed, 120 new, ') == 3, log
        log = here.reconcile('--threads', '3')
        assert log.count(': 120 objects listed, 0 new, 0 changed, 0 missing, 0 failed in ') == 3
        (usage,) = [each for each in root.call('get_rse_usage', here.rse) if each['source'] == 'storage']
        assert (usage['files'], usage['used'], usage['free']) == (360, 3 * sum(len(f'{number}') for number in range(120)), None)


def write_inventory(made, scope, *more):
    """A report of what the bucket has now, and of some keys more, as S3 writes it."""
    client, reports, source = made.storage.client(), f'reports-{made.prefix}x', made.prefix + scope
    client.create_bucket(Bucket=reports)
    found = [(each['Key'], each['Size'], each['ETag'].strip('"')) for each in client.list_objects_v2(Bucket=source)['Contents']]
    rows = [f'"{source}","{key}","{size}","2026-11-22T01:00:00.000Z","{etag}"' for key, size, etag in (*found, *((key, 1, 'e' * 32) for key in more))]
    client.put_object(Bucket=reports, Key='data/1.csv.gz', Body=gzip.compress('\n'.join(reversed(rows)).encode()))
    manifest = {'sourceBucket': source, 'fileFormat': 'CSV', 'fileSchema': 'Bucket, Key, Size, LastModifiedDate, ETag', 'files': [{'key': 'data/1.csv.gz'}]}
    client.put_object(Bucket=reports, Key='manifest.json', Body=json.dumps(manifest).encode())
    return f'{made.rse}/{source}=s3://{reports}/manifest.json'


def test_an_inventory_in_the_place_of_a_listing(place):
    made = place(on_missing='forget')
    scope = made.scopes[0]
    made.put(scope, run1__a='a', run1__b='b')
    inventory = write_inventory(made, scope, 'run1/gone-since')
    made.put(scope, run1__c='written since')
    made.reconcile('--inventory', inventory)
    assert made.names(scope) == ['run1/a', 'run1/b']
    made.reconcile()
    made.storage.client().delete_object(Bucket=made.prefix + scope, Key='run1/b')
    made.reconcile('--inventory', inventory)
    assert made.names(scope) == ['run1/a', 'run1/b', 'run1/c']  # it does not know c, and does not know that b is gone
