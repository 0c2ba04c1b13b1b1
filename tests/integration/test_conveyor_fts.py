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
Rules with FTS: Rucio's own submitter, poller, finisher, judge and reaper, an FTS of the tests that moves real bytes with gfal2, two S3
storages (http and https) and two disks, which Rucio uses as directories and FTS by WebDAV. RUCIO_S3_TEST_FTS names a real FTS to be used instead.
"""

import contextlib
import hashlib
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from servers import fts as gfal
from servers.ca import CA
from servers.cli import RucioCli, add_user, s3_protocol
from servers.fts import FTS, S3Keys
from servers.fts_real import PROXY, REAL, RealFTS
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS
from servers.webdav import WebDAV

DISK, A, B, DISK_2 = 'DISK', 'S3_A', 'S3_B', 'DISK_2'
SCOPE = 'nina'
MiB = 1024**2
SMALL, LARGE = 1024, 1024 * MiB
# The same daemons, which wait 10 s for others of their kind when they are started as commands, at once and in one process.
_DAEMONS = """
import sys
from rucio.common.logging import setup_logging
from rucio.daemons.conveyor.finisher import finisher
from rucio.daemons.conveyor.poller import poller
from rucio.daemons.conveyor.submitter import submitter
from rucio.daemons.judge import evaluator
setup_logging(process_name='daemons')
daemons = {
    'evaluator': lambda: evaluator.re_evaluator(once=True, sleep_time=30, did_limit=100),
    'submitter': lambda: submitter(once=True, partition_wait_time=0, group_bulk=10),
    'poller': lambda: poller(once=True, older_than=0, partition_wait_time=0),
    'finisher': lambda: finisher(once=True, partition_wait_time=0),
}
for name in sys.argv[1:]:
    daemons[name]()
"""
_URLS = """
import json, sys
from rucio.rse import rsemanager
rse, scope, *names = sys.argv[1:]
protocol = rsemanager.create_protocol(rsemanager.get_rse_info(rse=rse), 'third_party_copy_write', 'davs')
json.dump(protocol.lfns2pfns([{'scope': scope, 'name': name} for name in names]), sys.stdout)
"""
TPC = {'third_party_copy_read': 1, 'third_party_copy_write': 1}
LOCAL = {'read': 1, 'write': 1, 'delete': 1}

pytestmark = pytest.mark.skipif(bool(gfal.missing()), reason=gfal.missing())


@dataclass
class World:
    """Nina has a disk, and rules on three other RSEs; FTS holds the keys of the storages, and so do Rucio's daemons."""

    server: RucioServer
    root: RucioCli
    nina: RucioCli
    fts: FTS | RealFTS
    storages: dict[str, SeaweedFS]
    disks: dict[str, WebDAV]

    def upload(self, *files: tuple[str, int], dataset: str = '', scope: str = SCOPE) -> None:
        """Random files on the first disk."""
        folder = self.nina.directory / 'files'
        folder.mkdir(exist_ok=True)
        for number, (name, size) in enumerate(files):
            path = folder / str(number)
            with path.open('wb') as file:
                for _ in range(0, size, MiB):
                    file.write(os.urandom(min(size, MiB)))
            done = self.nina.rucio('upload', '--rse', DISK, '--scope', scope, '--lfn', name, str(path))
            assert 'Successfully uploaded file' in done.stdout + done.stderr, done.stdout + done.stderr
            path.unlink()
        if dataset:
            dids = [{'scope': scope, 'name': name} for name, _ in files]
            self.nina.calls(('add_dataset', scope, dataset), ('attach_dids', scope, dataset, dids))

    def add_rule(self, name: str, rse: str, *, scope: str = SCOPE, **options: Any) -> str:
        return self.nina.call('add_replication_rule', [{'scope': scope, 'name': name}], 1, rse, **options)[0]

    def rule_state(self, rule: str) -> str:
        return self.nina.call('get_replication_rule', rule)['state']

    def run(self, command: str, *options: str) -> str:
        return self.server.run_daemon(command, *options)

    def submit(self) -> str:
        return self.run('python', '-c', _DAEMONS, 'evaluator', 'submitter')

    def poll(self) -> str:
        return self.run('python', '-c', _DAEMONS, 'poller', 'finisher')

    def finish(self) -> str:
        self.fts.wait()
        return self.poll()

    def bring(self) -> None:
        """All that is to be moved, by one run of each daemon."""
        self.submit()
        self.finish()

    def bring_by_commands(self) -> None:
        """The same as an operator starts them."""
        self.run('rucio-judge-evaluator', '--run-once')
        self.run('rucio-conveyor-submitter', '--run-once')
        self.fts.wait()
        self.run('rucio-conveyor-poller', '--run-once', '--older-than', '0')
        self.run('rucio-conveyor-finisher', '--run-once')

    def end(self, *rules: str) -> None:
        """The rules' time is over."""
        self.nina.calls(*(('update_replication_rule', rule, {'lifetime': -1}) for rule in rules))
        self.run('rucio-judge-cleaner', '--run-once')

    def delete(self) -> None:
        """What no rule wants."""
        self.run('rucio-reaper', '--run-once', '--greedy', '--delay-seconds', '0', '--rses', DISK, A, B, DISK_2)

    def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """What is in Rucio's database."""
        engine = create_engine(self.server.database_url)
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(text(query), values)]
        finally:
            engine.dispose()

    def requests(self, prefix: str) -> list[tuple[Any, ...]]:
        """State, transfertool and retries of the requests of files whose names begin like this."""
        return self.rows('SELECT state, transfertool, retry_count FROM requests WHERE name LIKE :names', names=f'{prefix}%')

    def states(self, name: str, scope: str = SCOPE) -> dict[str, str]:
        """RSE -> state of the replica, of those that are there."""
        found = self.nina.call('list_replicas', [{'scope': scope, 'name': name}], all_states=True)
        return found[0]['states'] if found else {}

    def urls(self, name: str) -> list[tuple[list[str], str]]:
        """Sources and destination of a file in each of its jobs."""
        return [([copy.source for copy in job.copies], job.copies[0].destination) for job in self.fts.jobs_of(name)]

    def md5(self, rse: str, name: str) -> str | None:
        """Of what is really there, if it is."""
        if disk := self.disks.get(rse):
            path = disk.path(f'{SCOPE}/{name}')
            return _md5(path.open('rb')) if path.exists() else None
        client = self.storages[rse].client()
        try:
            return _md5(client.get_object(Bucket=SCOPE, Key=name)['Body'])
        except (client.exceptions.NoSuchKey, client.exceptions.NoSuchBucket):
            return None

    def buckets(self, rse: str) -> set[str]:
        return {each['Name'] for each in self.storages[rse].client().list_buckets()['Buckets']}


def _md5(stream: Any) -> str:
    digest = hashlib.md5()
    with contextlib.closing(stream):
        while block := stream.read(MiB):
            digest.update(block)
    return digest.hexdigest()


def trust(ca: CA, directory: Path) -> Path:
    """Certificates as gfal2 looks for them: by a hash of whom they are of."""
    done = subprocess.run(['openssl', 'x509', '-hash', '-noout', '-in', str(ca.bundle)], capture_output=True, text=True, check=True)
    (directory / f'{done.stdout.strip()}.0').write_bytes(ca.bundle.read_bytes())
    return directory


def s3_protocols(storage: SeaweedFS, hostname: str) -> list[dict[str, Any]]:
    """One for Rucio and its users, and one for FTS."""
    main = {**s3_protocol(storage), 'hostname': hostname, 'domains': {'lan': LOCAL, 'wan': LOCAL}}
    return [main, {'scheme': 'davs', 'hostname': hostname, 'port': storage.port, 'prefix': '/', 'impl': 'rucio.rse.protocols.s3.FTS', 'domains': {'wan': TPC}}]


def disk_protocols(disk: WebDAV) -> list[dict[str, Any]]:
    """The directory, and the same by WebDAV for FTS."""
    local = {'scheme': 'file', 'hostname': 'localhost', 'port': 0, 'prefix': f'{disk.data}/', 'impl': 'rucio.rse.protocols.posix.Default'}
    dav = {'scheme': 'davs', 'hostname': disk.hostname, 'port': disk.port, 'prefix': '/', 'impl': 'rucio.rse.protocols.webdav.Default'}
    return [{**local, 'domains': {'lan': LOCAL, 'wan': LOCAL}}, {**dav, 'domains': {'wan': TPC}}]


def add_rse(root: RucioCli, rse: str, protocols: list[dict[str, Any]], attributes: dict[str, Any]) -> str:
    return root.calls(
        ('add_rse', rse),
        *(('add_rse_attribute', rse, key, value) for key, value in attributes.items()),
        *(('add_protocol', rse, protocol) for protocol in protocols),
        ('get_rse', rse),
    )[-1]['id']


@pytest.fixture(scope='module')
def fts_site(tmp_path_factory: pytest.TempPathFactory, ca: CA, plain: SeaweedFS, tls: SeaweedFS) -> Iterator[World]:
    make = tmp_path_factory.mktemp
    with contextlib.ExitStack() as stack:
        disks = {rse: stack.enter_context(WebDAV(make(rse), ca)) for rse in (DISK, DISK_2)}
        # FTS tells storages by their host names.
        storages, hosts = {A: plain, B: tls}, {A: '127.0.0.1', B: 'localhost'}
        keys = [S3Keys(hosts[rse], storage.access_key, storage.secret_key) for rse, storage in storages.items()]
        trusted = trust(ca, make('trust'))
        fts = stack.enter_context(RealFTS(keys, trusted) if REAL else FTS(make('fts'), keys, ca=trusted))
        config = {
            'conveyor': {'transfertool': 'fts3', **({'usercert': PROXY} if PROXY else {})},
            's3': {'ca_bundle': ca.bundle, 'fts': 'True'},
            'common': {'loglevel': 'DEBUG'},
        }
        server = stack.enter_context(RucioServer(make('rucio'), config))
        root = RucioCli.root(make('root'), server)
        for rse, disk in disks.items():
            add_rse(root, rse, disk_protocols(disk), {'lfn2pfn_algorithm': 'identity', 'skip_upload_stat': True, 'fts': fts.url})
        for rse, storage in storages.items():
            attributes = {'lfn2pfn_algorithm': 's3_bucket', 'skip_upload_stat': True, 'fts': fts.url, 'supported_checksums': 'none'}
            rse_id = add_rse(root, rse, s3_protocols(storage, hosts[rse]), attributes)
            server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
        rses = [*disks, *storages]
        nina = add_user(root, make('nina'), 'nina', scopes=[SCOPE], rses=rses)
        links = {(DISK, A), (A, B), (B, DISK_2), (B, A)}
        root.calls(*(('add_distance', source, target, {'distance': 1}) for source, target in sorted(links)))
        yield World(server, root, nina, fts, storages, disks)


@pytest.fixture(autouse=True)
def _no_faults(fts_site: World) -> None:
    fts_site.fts.forget()


@pytest.mark.long
def test_a_dataset_goes_from_disk_to_bucket_to_bucket_to_disk_and_away(fts_site: World, unique: str) -> None:
    names = [f'{unique}.{number}' for number in range(3)]
    fts_site.upload(*zip(names, (SMALL, 0, LARGE), strict=True), dataset=unique)
    expected = [fts_site.md5(DISK, name) for name in names]
    rules = []
    # By their commands once, which takes a minute.
    for source, rse, bring in ((DISK, A, fts_site.bring_by_commands), (A, B, fts_site.bring), (B, DISK_2, fts_site.bring)):
        fts_site.fts.forget()
        rules.append(fts_site.add_rule(unique, rse, source_replica_expression=source))
        bring()
        assert (sum(len(fts_site.fts.jobs_of(name)) for name in names), fts_site.fts.reasons()) == (len(names), [])
        assert [fts_site.md5(rse, name) for name in names] == expected
        assert {fts_site.states(name)[rse] for name in names} == {'AVAILABLE'}
        assert fts_site.rule_state(rules[-1]) == 'OK'
        assert not fts_site.requests(unique)
    assert {job.params['verify_checksum'] for job in fts_site.fts.jobs.values()} == {'target'}
    fts_site.end(*rules)
    fts_site.delete()
    for rse in (A, B, DISK_2):
        assert [fts_site.md5(rse, name) for name in names] == [None] * 3
    assert [fts_site.md5(DISK, name) for name in names] == expected
    assert [fts_site.states(name) for name in names] == [{DISK: 'AVAILABLE'}] * 3


@pytest.mark.long
def test_the_urls_are_those_that_fts_takes(fts_site: World, unique: str) -> None:
    """Rucio's own rewriting would have put s3s for each https and davs."""
    name = f'{unique}/https/davs-https.root'
    fts_site.upload((name, SMALL))
    for source, rse in ((DISK, A), (A, B), (B, DISK_2)):
        fts_site.add_rule(name, rse, source_replica_expression=source)
        fts_site.bring()
    urls = {
        DISK: f'davs://127.0.0.1:{fts_site.disks[DISK].port}/{SCOPE}/{name}',
        A: f's3://127.0.0.1:{fts_site.storages[A].port}/{SCOPE}/{name}',
        B: f's3s://localhost:{fts_site.storages[B].port}/{SCOPE}/{name}',
        DISK_2: f'davs://127.0.0.1:{fts_site.disks[DISK_2].port}/{SCOPE}/{name}',
    }
    assert fts_site.urls(name) == [([f'{urls[DISK]}?copy_mode=push'], urls[A]), ([urls[A]], urls[B]), ([urls[B]], urls[DISK_2])]
    # Who carried it: the disk sent it, FTS streamed it, the other disk got it.
    assert fts_site.disks[DISK].copies[-1] == ('push', urls[A].replace('s3:', 'http:'))
    assert fts_site.disks[DISK_2].copies[-1] == ('pull', urls[B].replace('s3s:', 'https:'))
    assert fts_site.states(name) == dict.fromkeys((DISK, A, B, DISK_2), 'AVAILABLE')
    assert len({fts_site.md5(rse, name) for rse in (DISK, A, B, DISK_2)}) == 1
    # The key, the whole key, and nothing but the key: gfal2 marks directories with objects, too.
    keys = [each['Key'] for each in fts_site.storages[B].client().list_objects_v2(Bucket=SCOPE, Prefix=unique)['Contents']]
    assert [key for key in keys if not key.endswith('/')] == [name]


@pytest.mark.long
def test_keys_arrive_as_they_are(fts_site: World, unique: str) -> None:
    """Rucio's schemas allow few of them, but a policy package may. (With `a//b`, `.` and `..` gfal2 is right as well, but not SeaweedFS.)"""
    names = [f'{unique}/{name}' for name in ('a b', 'a+b', '100%', '%41', 'a%2Fb', 'größe', 'a#b', 'a?b', 'a&b=c', "it's;(1),*!$", 'a:b@c', 'https:')]
    source = fts_site.disks[DISK].path(f'{SCOPE}/{unique}')
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(os.urandom(SMALL))
    client = fts_site.storages[A].client()
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=SCOPE)
    urls = {rse: json.loads(fts_site.nina.run('python', '-c', _URLS, rse, SCOPE, *names, check=True).stdout) for rse in (A, B)}
    for name in names:
        did, file = f'{SCOPE}:{name}', {'metadata': {}, 'checksum': None}
        way = [f'davs://127.0.0.1:{fts_site.disks[DISK].port}/{SCOPE}/{unique}?copy_mode=push', urls[A][did], urls[B][did]]
        hops = [{**file, 'sources': [source], 'destinations': [destination]} for source, destination in itertools.pairwise(way)]
        fts_site.fts.submit({'files': hops, 'params': {'multihop': True, 'overwrite': True, 's3alternate': True}})
    fts_site.fts.wait()
    assert fts_site.fts.reasons() == []
    for rse in (A, B):
        found = fts_site.storages[rse].client().list_objects_v2(Bucket=SCOPE, Prefix=f'{unique}/')['Contents']
        assert {each['Key'] for each in found if not each['Key'].endswith('/')} == set(names)
        assert {fts_site.md5(rse, name) for name in names} == {_md5(source.open('rb'))}


@pytest.mark.long
def test_sign_url_does_no_harm(fts_site: World, unique: str) -> None:
    """A site may have it for its other clients."""
    name = f'{unique}/https/davs'
    fts_site.upload((name, SMALL))
    try:
        fts_site.root.calls(*(('add_rse_attribute', rse, 'sign_url', 's3') for rse in (A, B)))
        for source, rse in ((DISK, A), (A, B)):
            fts_site.add_rule(name, rse, source_replica_expression=source)
            fts_site.bring()
    finally:
        fts_site.root.calls(*(('delete_rse_attribute', rse, 'sign_url') for rse in (A, B)))
    assert fts_site.fts.reasons() == []
    assert len({fts_site.md5(rse, name) for rse in (DISK, A, B)}) == 1


def test_the_bucket_is_there_before_fts_writes(fts_site: World, unique: str) -> None:
    scope = unique[:20]
    fts_site.root.call('add_scope', 'nina', scope)
    fts_site.upload((unique, SMALL), scope=scope)
    fts_site.add_rule(unique, A, scope=scope)
    hold = fts_site.fts.hold()
    fts_site.submit()
    hold.wait()
    # gfal2 would have made it as well, but only this one gives up parts of broken uploads.
    [lifecycle] = fts_site.storages[A].client().get_bucket_lifecycle_configuration(Bucket=scope)['Rules']
    assert 'AbortIncompleteMultipartUpload' in lifecycle
    hold.release()
    fts_site.finish()
    assert fts_site.states(unique, scope) == {DISK: 'AVAILABLE', A: 'AVAILABLE'}


@pytest.mark.long
def test_a_transfer_that_failed_is_tried_again(fts_site: World, unique: str) -> None:
    fts_site.upload((unique, SMALL))
    rule = fts_site.add_rule(unique, A)
    fts_site.fts.fail()
    fts_site.bring()
    assert fts_site.md5(A, unique) is None
    assert fts_site.rule_state(rule) == 'REPLICATING'
    assert fts_site.requests(unique) == [('Q', 'fts3', 1)]
    fts_site.bring()
    assert fts_site.md5(A, unique) == fts_site.md5(DISK, unique)
    assert fts_site.rule_state(rule) == 'OK'


@pytest.mark.long
def test_a_file_that_was_damaged_on_the_disk_is_not_taken(fts_site: World, unique: str) -> None:
    fts_site.upload((unique, SMALL))
    fts_site.disks[DISK].path(f'{SCOPE}/{unique}').write_bytes(os.urandom(SMALL))
    rule = fts_site.add_rule(unique, A)
    fts_site.bring()
    [reason] = fts_site.fts.reasons()
    assert reason.startswith('SOURCE [5] Source and user-defined ADLER32 checksum do not match')
    assert fts_site.rule_state(rule) == 'REPLICATING'
    assert fts_site.md5(A, unique) is None
    fts_site.end(rule)


@pytest.mark.long
def test_a_job_that_fts_knows_nothing_of_is_submitted_again(fts_site: World, unique: str) -> None:
    fts_site.upload((unique, SMALL))
    rule = fts_site.add_rule(unique, A)
    fts_site.fts.fail()
    fts_site.submit()
    fts_site.fts.lose()
    fts_site.finish()
    assert fts_site.md5(A, unique) is None
    assert fts_site.requests(unique) == [('Q', 'fts3', 1)]
    fts_site.bring()
    assert fts_site.md5(A, unique) == fts_site.md5(DISK, unique)
    assert fts_site.rule_state(rule) == 'OK'


@pytest.mark.long
def test_a_slow_job_is_waited_for(fts_site: World, unique: str) -> None:
    fts_site.upload((unique, SMALL))
    rule = fts_site.add_rule(unique, A)
    hold = fts_site.fts.hold()
    fts_site.submit()
    hold.wait()
    fts_site.poll()
    assert fts_site.requests(unique) == [('S', 'fts3', 0)]
    fts_site.nina.call('update_replication_rule', rule, {'priority': 5})
    [job] = fts_site.fts.jobs_of(unique)
    assert job.params['priority'] == 5
    hold.release()
    fts_site.finish()
    assert fts_site.rule_state(rule) == 'OK'


@pytest.mark.long
def test_a_rule_that_is_deleted_ends_the_job(fts_site: World, unique: str) -> None:
    fts_site.upload((unique, SMALL))
    rule = fts_site.add_rule(unique, A)
    hold = fts_site.fts.hold()
    fts_site.submit()
    hold.wait()
    fts_site.end(rule)
    [job] = fts_site.fts.jobs_of(unique)
    assert job.state == 'CANCELED'
    hold.release()
    fts_site.finish()
    assert not fts_site.requests(unique)
    assert fts_site.md5(A, unique) is None


@pytest.mark.long
def test_the_next_source_is_taken_when_the_nearest_fails(fts_site: World, unique: str) -> None:
    fts_site.upload((unique, SMALL))
    fts_site.add_rule(unique, A)
    fts_site.bring()
    fts_site.fts.forget()
    fts_site.root.calls(('update_distance', A, B, {'distance': 1}), ('add_distance', DISK, B, {'distance': 5}))
    try:
        rule = fts_site.add_rule(unique, B)
        fts_site.fts.fail(f'//127.0.0.1:{fts_site.storages[A].port}/')
        fts_site.bring()
    finally:
        fts_site.root.call('delete_distance', DISK, B)
    [(sources, _)] = fts_site.urls(unique)
    assert [source.partition(':')[0] for source in sources] == ['s3', 'davs']
    [job] = fts_site.fts.jobs_of(unique)
    assert (job.state, [copy.state for copy in job.copies]) == ('FINISHED', ['FAILED', 'FINISHED'])
    assert fts_site.md5(B, unique) == fts_site.md5(DISK, unique)
    assert fts_site.rule_state(rule) == 'OK'


@pytest.mark.long
def test_a_file_goes_over_another_storage_where_there_is_no_direct_way(fts_site: World, unique: str) -> None:
    fts_site.root.call('add_rse_attribute', A, 'available_for_multihop', True)
    try:
        fts_site.upload((unique, SMALL))
        rule = fts_site.add_rule(unique, B)
        fts_site.bring()
        fts_site.poll()  # the last hop's file is done with when those of the others are
    finally:
        fts_site.root.call('delete_rse_attribute', A, 'available_for_multihop')
    [job] = fts_site.fts.jobs_of(unique)
    assert (job.kind, len(job.copies)) == ('H', 2)
    assert fts_site.md5(B, unique) == fts_site.md5(DISK, unique) is not None
    assert fts_site.states(unique) == {DISK: 'AVAILABLE', A: 'AVAILABLE', B: 'AVAILABLE'}
    assert fts_site.rule_state(rule) == 'OK'
