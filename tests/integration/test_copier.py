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

"""Rules between S3 RSEs without FTS: the stock submitter, `rucio-s3-copier`, the stock poller and finisher, on real storages."""

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from faults.proxy import FaultProxy, Stall, after, break_before, corrupt_response, truncate
from servers.cli import RucioCli, add_s3_rse, add_user, s3_keys
from servers.files import command_path
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

A, A2, B = 'COPY_A', 'COPY_A2', 'COPY_B'
SCOPE = 'user.mia'
PREFIX = 'second-'  # of the buckets of A2, which is on the same storage as A
MiB = 1024**2
SMALL, LARGE = 1024, 64 * MiB
COPIER = ('-m', 'rucio.daemons.s3.copier')
TIMEOUT = 120

pytestmark = pytest.mark.long


@dataclass
class World:
    """Mia has a bucket on storage A, and RSEs on two storages. All requests pass a proxy that counts, and fails on demand."""

    server: RucioServer
    root: RucioCli
    mia: RucioCli
    storages: dict[str, SeaweedFS]
    proxies: dict[str, FaultProxy]

    def upload(self, name: str, *sizes: int) -> list[str]:
        """A dataset of random files on A; their names."""
        folder = self.mia.directory / name
        folder.mkdir()
        files = []
        for number, size in enumerate(sizes):
            files.append(folder / f'{name}.{number}')
            with files[-1].open('wb') as file:
                for _ in range(0, size, MiB):
                    file.write(os.urandom(min(size, MiB)))
        done = self.mia.rucio('upload', '--rse', A, '--scope', SCOPE, f'{SCOPE}:{name}', *map(str, files))
        assert (done.stdout + done.stderr).count('Successfully uploaded file') == len(sizes), done.stdout + done.stderr
        return [file.name for file in files]

    def add_rule(self, name: str, rse: str, **options: Any) -> str:
        return self.mia.call('add_replication_rule', [{'scope': SCOPE, 'name': name}], 1, rse, **options)[0]

    def rule_state(self, rule: str) -> str:
        return self.mia.call('get_replication_rule', rule)['state']

    def daemon(self, command: str, *options: str) -> str:
        done = self.server.run(command, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert 'Traceback' not in done.stdout + done.stderr, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submit(self) -> None:
        self.daemon('rucio-conveyor-submitter', '--run-once')

    def copy(self, *options: str) -> str:
        return self.daemon('python', *COPIER, '--run-once', *options)

    def finish(self) -> None:
        self.daemon('rucio-conveyor-poller', '--run-once', '--older-than', '0')
        self.daemon('rucio-conveyor-finisher', '--run-once')

    def bring(self) -> str:
        """All that is to be moved, by one run of each daemon; what the copier said."""
        self.submit()
        said = self.copy()
        self.finish()
        return said

    @contextlib.contextmanager
    def copier(self, log: Path, *options: str) -> 'Iterator[subprocess.Popen[bytes]]':
        """The daemon as a process that goes on."""
        with log.open('w') as output:
            command = [command_path('python'), *COPIER, '--sleep-time', '1', *options]
            process = subprocess.Popen(command, env=self.server.environment, cwd=self.server.directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What is in Rucio's database."""
        with contextlib.closing(sqlite3.connect(f'file:{self.server.directory}/rucio.db?mode=ro', uri=True, timeout=60)) as database:
            return list(database.execute(query, values))

    def requests(self, name: str) -> list[tuple[Any, ...]]:
        """State, transfertool and claim of the requests of a dataset's files."""
        return self.rows("SELECT state, transfertool, last_processed_by FROM requests WHERE name LIKE ? || '.%'", name)

    def errors(self, name: str) -> list[str]:
        """Of requests that have failed."""
        found = self.rows(
            "SELECT err_msg FROM requests WHERE name LIKE ?1 || '.%' UNION ALL SELECT err_msg FROM requests_history WHERE name LIKE ?1 || '.%'", name
        )
        return [row[0] for row in found if row[0]]

    def md5(self, rse: str, key: str) -> str:
        """Of what is really there."""
        bucket = PREFIX + SCOPE if rse == A2 else SCOPE
        with self.storages[rse].client().get_object(Bucket=bucket, Key=key)['Body'] as body:
            digest = hashlib.md5()
            while block := body.read(MiB):
                digest.update(block)
        return digest.hexdigest()

    def keys(self, rse: str) -> set[str]:
        client = self.storages[rse].client()
        if SCOPE not in {each['Name'] for each in client.list_buckets()['Buckets']}:
            return set()
        return {each['Key'] for each in client.list_objects_v2(Bucket=SCOPE).get('Contents', [])}

    def uploads(self, rse: str, name: str) -> list[str]:
        """Multipart uploads of files of a dataset that were begun and not ended."""
        found = [each['Key'] for each in self.storages[rse].client().list_multipart_uploads(Bucket=SCOPE).get('Uploads', [])]
        return [key for key in found if key.startswith(name)]

    def is_complete(self, rse: str, names: list[str]) -> bool:
        """Whether the catalogue says that the files are there, and they are, byte for byte."""
        replicas = self.mia.call('list_replicas', [{'scope': SCOPE, 'name': name} for name in names], all_states=True)
        states = [each['states'].get(rse) for each in replicas]
        return states == ['AVAILABLE'] * len(names) and all(self.md5(rse, name) == self.md5(A, name) for name in names)


@pytest.fixture(scope='module')
def world(tmp_path_factory: pytest.TempPathFactory, plain: SeaweedFS) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(SeaweedFS(tmp_path_factory.mktemp('other')))
        config = {'conveyor': {'transfertool': 's3'}, 'common': {'loglevel': 'DEBUG'}}
        server = stack.enter_context(RucioServer(tmp_path_factory.mktemp('rucio'), config))
        root = RucioCli.root(tmp_path_factory.mktemp('root'), server)
        storages = {A: plain, A2: plain, B: other}
        near, far = (stack.enter_context(FaultProxy(each.hostname, each.port)) for each in (plain, other))
        proxies = {A: near, A2: near, B: far}
        mia = add_user(root, tmp_path_factory.mktemp('mia'), 'mia', scopes=[SCOPE], config=s3_keys(A, plain))
        plain.client().create_bucket(Bucket=SCOPE)
        for rse, storage in storages.items():
            seen = SimpleNamespace(scheme='http', hostname='127.0.0.1', port=proxies[rse].port, region=storage.region)
            settings = {'bucket_prefix': PREFIX} if rse == A2 else {}
            rse_id = add_s3_rse(root, rse, seen, accounts=('root', 'mia'), settings=settings)
            server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
        root.calls(*(('add_distance', source, target, {'distance': 1}) for source in storages for target in storages if source != target))
        yield World(server, root, mia, storages, proxies)


@pytest.fixture(autouse=True)
def _no_faults(world: World) -> Iterator[None]:
    yield
    for proxy in world.proxies.values():
        proxy.forget()


def until(condition: Any, process: 'subprocess.Popen[bytes] | None' = None) -> Any:
    """Look again and again, as nobody says when another process has come so far."""
    deadline = time.monotonic() + TIMEOUT
    while not (found := condition()):
        assert time.monotonic() < deadline, 'it took too long'
        assert process is None or process.poll() is None, 'the process has ended'
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process is not None:
                process.wait(0.05)
    return found


@pytest.mark.parametrize('large', [LARGE, pytest.param(1024 * MiB, marks=pytest.mark.slow)])
def test_a_rule_brings_a_dataset_to_another_storage(world: World, unique: str, large: int) -> None:
    names = world.upload(unique, SMALL, 0, large)
    rule = world.add_rule(unique, B)
    world.submit()
    assert {row[:2] for row in world.requests(unique)} == {('S', 's3')}
    assert world.keys(B).isdisjoint(names)
    said = world.copy()
    assert said.count(': relayed, ') == 3
    world.finish()
    assert world.is_complete(B, names)
    assert world.rule_state(rule) == 'OK'
    assert not world.requests(unique)
    assert not world.uploads(B, unique)


def test_no_byte_leaves_a_storage_that_holds_both(world: World, unique: str) -> None:
    names = world.upload(unique, SMALL, 0, LARGE)
    rule = world.add_rule(unique, A2)
    world.submit()
    before = len(world.proxies[A].operations())
    said = world.copy()
    asked = [each for each in world.proxies[A].operations()[before:] if 'bucket' not in each]
    world.finish()
    assert said.count(': copied, ') == 3, said
    assert (asked.count('CopyObject'), asked.count('HeadObject')) == (3, 4 * 3)
    assert set(asked) == {'CopyObject', 'HeadObject'}
    assert world.is_complete(A2, names)
    assert world.rule_state(rule) == 'OK'


def test_what_is_somebody_elses_is_not_overwritten(world: World, unique: str) -> None:
    other, same = world.upload(unique, SMALL, SMALL)
    client = world.storages[B].client()
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=SCOPE)
    client.put_object(Bucket=SCOPE, Key=other, Body=b'x' * SMALL)
    content = world.storages[A].client().get_object(Bucket=SCOPE, Key=same)['Body'].read()
    client.put_object(Bucket=SCOPE, Key=same, Body=content)
    rule = world.add_rule(unique, B)
    said = world.bring()
    assert said.count(': found, ') == 1  # what is the file itself is taken for it
    [error] = world.errors(unique)
    assert f"key '{other}': there is an object of {SMALL} bytes already" in error
    assert 'It was left as it is: remove it, or delete the rule.' in error
    assert client.get_object(Bucket=SCOPE, Key=other)['Body'].read() == b'x' * SMALL
    assert world.is_complete(B, [same])
    # When the owner has seen to it, Rucio's next try succeeds.
    client.delete_object(Bucket=SCOPE, Key=other)
    world.bring()
    assert world.is_complete(B, [other])
    assert world.rule_state(rule) == 'OK'


def test_a_rule_that_is_deleted_stops_the_copy(world: World, unique: str, tmp_path: Path) -> None:
    [name] = world.upload(unique, LARGE)
    rule = world.add_rule(unique, B)
    world.submit()
    stall = world.proxies[B].on('UploadPart', Stall())
    with world.copier(tmp_path / 'log') as process:
        stall.wait()
        world.mia.call('update_replication_rule', rule, {'priority': 5})  # stock Rucio asks FTS to do it, for whatever was submitted
        assert world.rows('SELECT priority FROM requests WHERE name = ?', name) == [(5,)]
        world.mia.call('update_replication_rule', rule, {'lifetime': -1})
        said = world.daemon('rucio-judge-cleaner', '--run-once')
        assert 'Could not cancel' not in said
        assert not world.requests(unique)
        until(lambda: 'cancelled, so its copy is stopped' in (tmp_path / 'log').read_text(), process)
        stall.release()
        until(lambda: not world.uploads(B, unique), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    assert name not in world.keys(B)
    assert 'Traceback' not in (tmp_path / 'log').read_text()


def test_a_daemon_that_is_told_to_stop_leaves_the_transfer_to_the_next(world: World, unique: str, tmp_path: Path) -> None:
    names = world.upload(unique, LARGE)
    rule = world.add_rule(unique, B)
    world.submit()
    stall = world.proxies[B].on('UploadPart', Stall())
    with world.copier(tmp_path / 'log') as process:
        stall.wait()
        [(state, _, claim)] = world.requests(unique)
        assert (state, claim[:10]) == ('S', 's3-copier-')
        process.send_signal(signal.SIGTERM)
        stall.release()
        assert process.wait(TIMEOUT) == 0
    assert world.requests(unique) == [('S', 's3', None)]
    assert not world.uploads(B, unique)
    assert not world.keys(B).intersection(names)
    assert world.copy().count(': relayed, ') == 1
    world.finish()
    assert world.is_complete(B, names)
    assert world.rule_state(rule) == 'OK'


def test_the_destination_fails_and_comes_back(world: World, unique: str) -> None:
    names = world.upload(unique, SMALL, LARGE)
    rule = world.add_rule(unique, B)
    world.submit()
    world.proxies[B].on('UploadPart', after(world.storages[B].kill, break_before))
    try:
        said = world.copy()
    finally:
        world.storages[B].kill()
        world.storages[B].start()
    assert ': failed. RSE COPY_B: ' in said
    world.finish()
    assert {row[0] for row in world.requests(unique)} == {'Q'}  # Rucio tries again
    assert world.rule_state(rule) == 'REPLICATING'
    world.bring()
    assert world.is_complete(B, names)
    assert world.rule_state(rule) == 'OK'


def test_a_source_that_breaks_off_is_read_on(world: World, unique: str) -> None:
    names = world.upload(unique, LARGE)
    world.add_rule(unique, B)
    world.submit()
    for keep in (20 * MiB, 3 * MiB, 7):
        world.proxies[A].on('GetObject', truncate(keep))
    before = len(world.proxies[A].seen)
    assert world.copy().count(': relayed, ') == 1
    ranges = [each.headers.get('Range') for each in world.proxies[A].seen[before:] if each.operation == 'GetObject']
    assert ranges == [None, f'bytes={20 * MiB}-', f'bytes={23 * MiB}-', f'bytes={23 * MiB + 7}-']
    world.finish()
    assert world.is_complete(B, names)


def test_damaged_bytes_do_not_appear_at_the_destination(world: World, unique: str) -> None:
    names = world.upload(unique, LARGE)
    rule = world.add_rule(unique, B)
    world.submit()
    world.proxies[A].on('GetObject', corrupt_response)
    assert ': failed. RSE COPY_A: get of' in world.copy()
    assert world.keys(B).isdisjoint(names)
    assert not world.uploads(B, unique)
    world.finish()
    world.bring()
    assert world.is_complete(B, names)
    assert world.rule_state(rule) == 'OK'


def test_two_daemons_share_the_work(world: World, unique: str, tmp_path: Path) -> None:
    names = world.upload(unique, *[SMALL] * 6)
    world.add_rule(unique, B)
    world.submit()
    stalls = [world.proxies[B].on('PutObject', Stall()) for _ in range(2)]
    with world.copier(tmp_path / 'one', '--copies', '1') as one, world.copier(tmp_path / 'two', '--copies', '1') as two:
        for stall in stalls:  # each has one, as neither may have two
            stall.wait()
            stall.release()
        until(lambda: {row[0] for row in world.requests(unique)} == {'D'}, one)
        for process in (one, two):
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
    said = [(tmp_path / log).read_text().count(': relayed, ') for log in ('one', 'two')]
    assert sum(said) == len(names)
    assert min(said) > 0
    world.finish()
    assert world.is_complete(B, names)
