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

"""The stock reaper: what it deletes, what it says of what is missing, and that it leaves the catalogue alone where a storage does not do what it asks.

The keys are in rse-accounts.cfg and nowhere else, and nothing is signed.
"""

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import pytest

from faults.proxy import FaultProxy, answer, break_after
from servers.ca import CA
from servers.ceph import CephRGW
from servers.cli import RucioCli, add_s3_rse, s3_protocol
from servers.memcached import Memcached
from servers.ports import free_port
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

pytestmark = pytest.mark.slow

# What is deleted, and what looks like it: nobody may touch that.
FILES = {'run1/a.root': b'content', 'run1/a': b'a', 'run1/a/below': b'below', 'run1/empty': b'', 'run1/https-davs.1': b'1'}
NEIGHBOURS = {'run1/a.root.bak': b'kept', 'run1/a/b': b'kept', 'run1/A.root': b'kept', 'other': b'kept'}


class Where(NamedTuple):
    """An endpoint as an RSE names it: perhaps a proxy in front of the storage."""

    scheme: str
    port: int
    hostname: str = '127.0.0.1'
    region: str = 'us-east-1'


class Message(NamedTuple):
    """What the reaper tells the world."""

    event: str
    name: str
    reason: str


@dataclass
class Deletion:
    """An RSE on which files may be deleted as soon as they are registered, with one bucket, that of a scope of its own."""

    root: RucioCli
    server: RucioServer
    storage: Any
    rse: str
    rse_id: str
    scope: str
    output: str = ''  # what the reaper has logged
    _told: int = field(default=0)

    @property
    def client(self) -> Any:
        return self.storage.client()

    def put(self, files: dict[str, bytes]) -> None:
        """As another S3 client."""
        for name, body in files.items():
            self.client.put_object(Bucket=self.scope, Key=name, Body=body)

    def register(self, files: dict[str, bytes]) -> None:
        self.root.call('add_replicas', self.rse, [{'scope': self.scope, 'name': name, 'bytes': len(body)} for name, body in files.items()])

    def set_keys(self, access_key: str = '', secret_key: str = '') -> None:
        self.server.set_rse_keys(self.rse_id, access_key or self.storage.access_key, secret_key or self.storage.secret_key)

    def reap(self, *options: str) -> list[Message]:
        """One run; what it told, in the order of names."""
        done = self.server.run('rucio-reaper', '--run-once', '--greedy', '--rses', self.rse, '--delay-seconds', '0', *options)
        self.output = done.stdout + done.stderr
        assert done.returncode == 0, self.output
        assert not re.search('Traceback|CRITICAL', self.output), self.output
        told = [json.loads(payload) | {'event': event} for event, payload in self._rows('SELECT event_type, payload FROM messages ORDER BY created_at')]
        own = [each for each in told if each.get('rse') == self.rse]
        new, self._told = own[self._told :], len(own)
        return sorted((Message(each['event'], each['name'], each.get('reason', '')) for each in new), key=lambda message: message.name)

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(f'file:{self.server.directory}/rucio.db?mode=ro', uri=True, timeout=60)) as database:
            return list(database.execute(query, values))

    def replicas(self) -> set[str]:
        """What the catalogue has here, in whatever state."""
        return {name for (name,) in self._rows('SELECT name FROM replicas WHERE scope = ?', self.scope)}

    def objects(self) -> set[str]:
        return {each['Key'] for each in self.client.list_objects_v2(Bucket=self.scope).get('Contents', [])}

    def assert_nothing_happened(self, told: list[Message], files: dict[str, bytes], reason: str) -> None:
        """All of it was refused, the storage is to be left alone for a while, and the catalogue still has it."""
        assert [(each.event, each.name) for each in told] == [('deletion-failed', name) for name in sorted(files)]
        assert re.search(reason, told[0].reason), told[0].reason
        assert len(re.findall('Deletion NOACCESS', self.output)) == len(files), self.output
        assert 'RSE will be temporarily excluded' in self.output, self.output
        assert self.replicas() == set(files)


Maker = Callable[..., Deletion]


@pytest.fixture
def deletion(root: RucioCli, rucio_server: RucioServer, unique: str) -> Iterator[Maker]:
    """Call it with a storage, and with what an RSE is to have instead of its address; at the end all has to be deleted."""
    made: list[Deletion] = []

    def make(storage: Any, where: Any = None, *, keys: bool = True, **protocol: Any) -> Deletion:
        rse = f'REAPED_{unique}'.upper()
        rse_id = add_s3_rse(root, rse, where or storage, attributes={'tombstone_delay': '-1'}, **protocol)
        root.call('add_scope', 'root', unique)
        made.append(Deletion(root, rucio_server, storage, rse, rse_id, unique))
        if keys:
            made[-1].set_keys()
        storage.client().create_bucket(Bucket=unique)
        return made[-1]

    yield make
    for each in made:
        # Fails where there are replicas left. Other tests' daemons must find no RSE whose storage is gone.
        root.call('delete_rse', each.rse)


@pytest.fixture
def proxy(plain: SeaweedFS) -> Iterator[FaultProxy]:
    with FaultProxy(plain.hostname, plain.port) as server:
        yield server


def done(files: dict[str, bytes], missing: str = '') -> list[tuple[str, str]]:
    return [('deletion-not-found' if name == missing else 'deletion-done', name) for name in sorted(files)]


def test_files_are_deleted_and_missing_ones_told(deletion: Maker, tls: SeaweedFS) -> None:
    world = deletion(tls)
    world.put({**FILES, **NEIGHBOURS})
    world.register({**FILES, 'run1/missing': b'never there'})
    told = world.reap()
    assert [(each.event, each.name) for each in told] == done({**FILES, 'run1/missing': b''}, missing='run1/missing')
    assert next(each.reason for each in told if each.name == 'run1/missing') == 'File Not Found'
    assert world.replicas() == set()
    assert world.objects() == set(NEIGHBOURS)


@pytest.mark.long
def test_over_http_a_file_costs_two_requests(deletion: Maker, plain: SeaweedFS, proxy: FaultProxy) -> None:
    world = deletion(plain, Where('http', proxy.port))
    world.put({**FILES, **NEIGHBOURS})
    world.register({**FILES, 'run1/missing': b'never there'})
    proxy.seen.clear()
    assert [(each.event, each.name) for each in world.reap()] == done({**FILES, 'run1/missing': b''}, missing='run1/missing')
    assert world.objects() == set(NEIGHBOURS)
    # That of a missing one is the bucket's: a missing bucket is no deleted file.
    assert sorted(proxy.operations()) == ['DeleteObject'] * 5 + ['HEAD bucket'] + ['HeadObject'] * 6
    # Never a GET: nothing is read, and nothing is signed.
    assert not [request for request in proxy.seen if '?' in request.path]


@pytest.mark.long
def test_sign_url_on_the_rse_changes_nothing(deletion: Maker, tls: SeaweedFS) -> None:
    """The reaper then hands over signed URLs; keys of one's own are better."""
    world = deletion(tls)
    world.root.call('add_rse_attribute', world.rse, 'sign_url', 's3')
    world.put({**FILES, **NEIGHBOURS})
    world.register({**FILES, 'run1/missing': b'never there'})
    assert [(each.event, each.name) for each in world.reap()] == done({**FILES, 'run1/missing': b''}, missing='run1/missing')
    assert world.objects() == set(NEIGHBOURS)


@pytest.mark.long
@pytest.mark.parametrize(
    ('keys', 'reason'),
    [
        (('nobody', 'secret'), r'InvalidAccessKeyId.* Check the access key and secret key of this RSE \(rucio.cfg'),
        (('admin', 'wrong'), 'SignatureDoesNotMatch.* Check the access key'),
    ],
    ids=['unknown key', 'wrong secret'],
)
def test_refused_keys_leave_the_catalogue_as_it_is(deletion: Maker, tls: SeaweedFS, keys: tuple[str, str], reason: str) -> None:
    world = deletion(tls)
    world.put(FILES)
    world.register(FILES)
    world.set_keys(*keys)
    told = world.reap('--auto-exclude-threshold', str(len(FILES)))
    world.assert_nothing_happened(told, FILES, reason)
    assert 'secret' not in world.output.replace('secret key', '').replace('secret_key', '')
    assert world.objects() == set(FILES)

    world.set_keys()
    assert [(each.event, each.name) for each in world.reap()] == done(FILES)
    assert world.objects() == set()


@pytest.mark.long
def test_keys_that_may_not_delete(deletion: Maker, plain: SeaweedFS) -> None:
    world = deletion(plain)
    world.put(FILES)
    world.register(FILES)
    world.set_keys(*plain.reader_keys)
    told = world.reap('--auto-exclude-threshold', str(len(FILES)))
    world.assert_nothing_happened(told, FILES, 'AccessDenied.* These credentials are not allowed to do this')
    assert world.objects() == set(FILES)

    world.set_keys()
    assert [(each.event, each.name) for each in world.reap()] == done(FILES)


@pytest.mark.long
def test_a_storage_that_refuses_is_left_alone_for_a_while(deletion: Maker, plain: SeaweedFS) -> None:
    world = deletion(plain)
    world.put(FILES)
    world.register(FILES)
    world.set_keys(*plain.reader_keys)
    with Memcached() as cache:
        world.server.configure({'cache': {'url': cache.url}})
        try:
            world.assert_nothing_happened(world.reap('--auto-exclude-threshold', str(len(FILES))), FILES, 'AccessDenied')
            world.set_keys()
            assert world.reap() == []
            assert 'RSE is temporarily excluded' in world.output
            assert world.replicas() == world.objects() == set(FILES)
            # The while is over.
            del cache.values[f'temporary_exclude_{world.rse_id}'.encode()]
            assert [(each.event, each.name) for each in world.reap()] == done(FILES)
        finally:
            world.server.configure({'cache': {'url': '127.0.0.1:1'}})
    assert world.objects() == set()


@pytest.mark.long
def test_no_keys_at_all(deletion: Maker, plain: SeaweedFS) -> None:
    world = deletion(plain, keys=False)
    world.put(FILES)
    world.register(FILES)
    told = world.reap('--auto-exclude-threshold', str(len(FILES)))
    world.assert_nothing_happened(told, FILES, 'there are no credentials.* keys into rse-accounts.cfg')
    world.set_keys()
    assert [(each.event, each.name) for each in world.reap()] == done(FILES)


@pytest.mark.long
@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_a_storage_that_is_down_is_asked_once(deletion: Maker, plain: SeaweedFS, tls: SeaweedFS, scheme: str) -> None:
    storage = tls if scheme == 'https' else plain
    world = deletion(storage, Where(scheme, free_port()))
    files = {f'run1/{number}': b'x' for number in range(40)}
    world.put(files)
    world.register(files)
    told = world.reap('--auto-exclude-threshold', str(len(files)))
    reasons = [each.reason for each in told]
    assert len([reason for reason in reasons if 'Could not connect to the endpoint URL' in reason]) == 1, reasons
    assert len([reason for reason in reasons if 'not tried, as the storage did not answer recently' in reason]) == len(files) - 1
    world.assert_nothing_happened(told, files, 'Could not connect|not tried')
    assert world.objects() == set(files)

    move(world, storage)
    assert [(each.event, each.name) for each in world.reap()] == done(files)
    assert world.objects() == set()


@pytest.mark.long
def test_a_storage_whose_certificate_is_not_trusted(deletion: Maker, tls: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> None:
    world = deletion(tls)
    world.put(FILES)
    world.register(FILES)
    stranger = CA(tmp_path_factory.mktemp('stranger'))
    world.server.configure({f's3:{world.rse}': {'ca_bundle': stranger.bundle}})
    told = world.reap('--auto-exclude-threshold', str(len(FILES)))
    world.assert_nothing_happened(told, FILES, "certificate is not trusted: set 'ca_bundle'|not tried")
    world.server.configure({f's3:{world.rse}': {'ca_bundle': tls.ca_bundle}})
    assert [(each.event, each.name) for each in world.reap()] == done(FILES)


@pytest.mark.long
def test_a_busy_storage_and_lost_answers(deletion: Maker, plain: SeaweedFS, proxy: FaultProxy) -> None:
    world = deletion(plain, Where('http', proxy.port), settings={'max_attempts': 2})
    world.put(FILES)
    world.register(FILES)
    proxy.on('HeadObject', answer(503, 'SlowDown'), times=2)
    # It is deleted, and nobody says so: the second attempt finds nothing to delete, which is what S3 calls done.
    proxy.on('DeleteObject', break_after)
    told = world.reap()
    (refused,) = [each for each in told if each.event == 'deletion-failed']
    assert '503' in refused.reason
    assert 'The storage is busy' in refused.reason
    assert [(each.event, each.name) for each in told if each != refused] == done({name: b'' for name in FILES if name != refused.name})
    assert world.replicas() == world.objects() == {refused.name}

    # Deleted, and the reaper killed before the catalogue knew.
    world.client.delete_object(Bucket=world.scope, Key=refused.name)
    assert [(each.event, each.name) for each in world.reap()] == [('deletion-not-found', refused.name)]
    assert world.replicas() == set()


@pytest.mark.long
def test_the_bucket_is_gone(deletion: Maker, plain: SeaweedFS) -> None:
    world = deletion(plain)
    world.register(FILES)
    world.client.delete_bucket(Bucket=world.scope)
    told = world.reap('--auto-exclude-threshold', str(len(FILES)))
    world.assert_nothing_happened(told, FILES, f"bucket '{world.scope}'.*NoSuchBucket.*make an empty one")

    # As the message says.
    world.client.create_bucket(Bucket=world.scope)
    assert {each.event for each in world.reap()} == {'deletion-not-found'}
    assert world.replicas() == set()


@pytest.mark.long
@pytest.mark.parametrize('kind', ['plain', 'ceph'])
@pytest.mark.parametrize('lock', [False, True], ids=['versioned', 'locked'])
def test_a_bucket_that_keeps_versions(deletion: Maker, request: pytest.FixtureRequest, kind: str, *, lock: bool) -> None:
    """Deleted is what nobody sees any more; the versions are the storage's, and its lifecycle rules end them, when no lock holds them."""
    storage: SeaweedFS | CephRGW = request.getfixturevalue(kind)
    world = deletion(storage, settings={'provider': 'ceph' if kind == 'ceph' else 'seaweedfs'})
    s3, bucket = world.client, world.scope
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=lock)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={'Status': 'Enabled'})
    world.put({'run1/a': b'first', 'run1/gone': b'gone'})
    world.put({'run1/a': b'second'})
    s3.delete_object(Bucket=bucket, Key='run1/gone')
    if lock:
        until = datetime.now(timezone.utc) + timedelta(days=1)
        s3.put_object_retention(Bucket=bucket, Key='run1/a', Retention={'Mode': 'COMPLIANCE', 'RetainUntilDate': until})
    files = {'run1/a': b'second', 'run1/gone': b'gone'}
    world.register(files)
    assert [(each.event, each.name) for each in world.reap()] == done(files, missing='run1/gone')
    assert world.replicas() == world.objects() == set()
    found = s3.list_object_versions(Bucket=bucket)
    assert sorted((each['Key'], each['Size']) for each in found['Versions']) == [('run1/a', 5), ('run1/a', 6), ('run1/gone', 4)]
    # One each: a file that is missing gets no marker more.
    assert sorted(each['Key'] for each in found['DeleteMarkers']) == ['run1/a', 'run1/gone']


def move(world: Deletion, storage: Any) -> None:
    """The RSE's address is another."""
    (old,) = world.root.call('get_protocols', world.rse)
    world.root.calls(
        ('delete_protocols', world.rse, old['scheme'], old['hostname'], old['port']),
        ('add_protocol', world.rse, s3_protocol(storage)),
    )
