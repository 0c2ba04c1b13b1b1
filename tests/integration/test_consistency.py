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

"""Storage dumps and usage on real servers: Rucio's own auditor reads what `rucio s3 dump` wrote, its reaper what the reconciler's daemon told."""

import contextlib
import functools
import http.server
import re
import sqlite3
import subprocess
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from servers.cli import RucioCli, add_s3_rse, add_user
from servers.files import command_path
from servers.rucio_server import RECONCILER, RucioServer
from servers.seaweedfs import SeaweedFS
from servers.team import ok

pytest.importorskip('rucio.common.dumper', reason='rucio-clients has no auditor')

TODAY = f'dump_{datetime.now(timezone.utc):%Y%m%d}'
DOCUMENT = Path(__file__).parents[2] / 'docs' / 'consistency.md'

# The auditor's own code, as its worker calls it. It imports gfal2, which PyPI does not have, and does not use it over http.
_AUDITOR = """
import datetime, sys, types
try:
    import gfal2
except ImportError:
    sys.modules['gfal2'] = types.SimpleNamespace(GError=OSError)
from rucio.daemons import auditor
from rucio.daemons.auditor import srmdumps
rse, configuration, cache, results = sys.argv[1:]
output = auditor.consistency(rse, datetime.timedelta(days=1), srmdumps.parse_configuration([configuration]), cache, results)
print(open(output).read(), end='')
auditor.process_output(output)
"""


@dataclass
class Place:
    """An RSE with the bucket of one scope, which the reconciler has registered."""

    server: RucioServer
    user: RucioCli
    storage: object
    rse: str
    scope: str
    bucket: str

    def put(self, *keys, body=b'12345'):
        client = self.storage.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=self.bucket)
        for key in keys:
            client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def delete(self, *keys):
        for key in keys:
            self.storage.client().delete_object(Bucket=self.bucket, Key=key)

    def keys(self):
        return {each['Key'] for each in self.storage.client().list_objects_v2(Bucket=self.bucket).get('Contents', [])}

    def run(self, command, *arguments):
        done = self.server.run(command, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def reconcile(self, *options):
        return self.run(*RECONCILER, '--run-once', '--rses', self.rse, *options)

    def dump(self, *options):
        """As a cron job of the server, with its keys in rse-accounts.cfg and the account of a user."""
        environment = {'RUCIO_HOME': str(self.server.directory)}
        return self.user.run('rucio', 's3', 'dump', self.rse, *options, env=environment)

    def replicas(self, path, bucket_prefix=''):
        """The dump of the catalogue that docs/consistency.md has."""
        query = re.search(r'```sql\n(.*?)```', DOCUMENT.read_text(), re.DOTALL)[1].replace('SITE_S3', self.rse)
        rows = self.sql(query.replace('COALESCE(f.path, ', f"COALESCE(f.path, '{bucket_prefix}' || "))
        path.write_text(''.join('\t'.join('' if value is None else str(value) for value in row) + '\n' for row in rows))
        return path

    def sql(self, statement, *values):
        with contextlib.closing(sqlite3.connect(f'{self.server.directory}/rucio.db', timeout=60)) as database, database:
            return database.execute(statement, values).fetchall()

    def usage(self):
        return {each['source']: {name: each[name] for name in ('files', 'used', 'free', 'total')} for each in self.user.call('get_rse_usage', self.rse)}


@pytest.fixture
def place(root, rucio_server, plain, tmp_path, unique):
    """Call it for a place, whose RSE has these settings."""

    def make(storage=plain, **settings):
        rse, scope = f'AUDIT_{unique.upper()}', f'{unique}.a'
        user = add_user(root, tmp_path / 'user', unique, scopes=[scope], attributes=())
        rse_id = add_s3_rse(root, rse, storage, accounts=('root', unique), settings=settings)
        rucio_server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)
        return Place(rucio_server, user, storage, rse, scope, settings.get('bucket_prefix', '') + scope)

    return make


# Dumps


def test_rucio_dumper_finds_what_is_lost_and_what_is_dark(place, unique, tmp_path):
    here = place(bucket_prefix=f'{unique}-')
    here.put('run1/a', 'run1/b', 'run2/lost', 'loose')
    here.reconcile()
    assert here.usage()['storage'] == {'files': 4, 'used': 20, 'free': None, 'total': 20}
    before = here.replicas(tmp_path / 'before', f'{unique}-')
    here.delete('run2/lost')
    here.put('run1/dark', 'run1/dark, too')
    said = here.dump('-o', str(tmp_path / TODAY))
    ok(said)
    assert f'RSE {here.rse}: 5 objects, 25' in said.stderr
    after = here.replicas(tmp_path / 'after', f'{unique}-')
    (tmp_path / 'cache').mkdir()
    done = subprocess.run(
        [
            *(command_path('rucio-dumper'), '--fields', 'apparent_status,path', 'consistency-manual', '--sort-rucio-dumps'),
            *(here.rse, str(before), str(tmp_path / TODAY), str(after)),
        ],
        env=here.server.environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {tuple(line.split(',')) for line in done.stdout.splitlines() if line.startswith(('LOST', 'DARK'))}
    assert found == {('LOST', f'{here.bucket}/run2/lost'), ('DARK', f'{here.bucket}/run1/dark'), ('DARK', f'{here.bucket}/run1/dark%2C%20too')}


@contextlib.contextmanager
def web_server(folder):
    """Serves a directory, and lists it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f'http://127.0.0.1:{server.server_address[1]}'
        finally:
            server.shutdown()
            thread.join()


def audit(here, folder):
    """One check of the auditor, with dumps of the catalogue from a Hadoop that is a directory; what it found."""
    for name in ('www', 'auditor', 'bin'):
        (folder / name).mkdir(exist_ok=True)
    ok(here.dump('--scope', here.scope, '-o', str(folder / 'www' / TODAY)))
    hadoop = folder / 'bin' / 'hadoop'
    hadoop.write_text(f'#!/bin/sh\nexec cp {folder}/replicas "$4/part-0"\n')
    hadoop.chmod(0o755)
    with web_server(folder / 'www') as url:
        (folder / 'auditor' / 'site.cfg').write_text(f'[AUDIT]\n{here.rse} = {url}/dump_%Y%m%d\n')
        script = f'import os; os.environ["PATH"] = {str(folder / "bin")!r} + ":" + os.environ.get("PATH", "/usr/bin:/bin")\n{_AUDITOR}'
        done = here.server.run('python', '-c', script, here.rse, *(str(folder / name) for name in ('auditor', 'cache', 'results')))
    assert done.returncode == 0, done.stdout + done.stderr
    return {tuple(line.split(',')) for line in done.stdout.splitlines() if line.startswith(('LOST', 'DARK'))}


@pytest.mark.long
def test_the_auditor_and_the_dark_reaper(place, tmp_path):
    """What they do, and what they take for something else: docs/consistency.md says both."""
    # A storage of its own: Rucio does not tell RSEs apart by their bucket_prefix when it looks for the one of a PFN.
    with SeaweedFS(tmp_path / 'storage') as storage:
        check_the_auditor(place(storage), tmp_path)


def check_the_auditor(here, tmp_path):
    names = [f'run1/f{number:02}' for number in range(30)]
    here.put(*names, 'f07', 'lone')
    here.reconcile('--scopes', here.scope)
    here.run('rucio-abacus-rse', '--run-once')
    here.replicas(tmp_path / 'replicas')
    here.delete('run1/f07', 'lone')
    here.put('run1/dark', 'run1/f03 x', 'run1/f03x')
    lost, dark = {'run1/f07', 'lone'}, {'run1/dark', 'run1/f03%20x', 'run1/f03x'}
    found = audit(here, tmp_path)
    assert found == {*(('LOST', f'{here.bucket}/{name}') for name in lost), *(('DARK', f'{here.bucket}/{name}') for name in dark)}
    suspicious = here.sql('SELECT name FROM bad_replicas WHERE scope = ? AND state = ?', here.scope, 'S')
    assert {name for (name,) in suspicious} == {'lone', 'f07'}  # f07 is there: it is the other one that is lost
    # The reconciler registers what was dark, before the dark reaper comes (whose option --rses ends it with a TypeError).
    here.put('later')
    here.reconcile('--scopes', here.scope)
    assert ('run1/dark',) in here.sql('SELECT name FROM replicas WHERE scope = ?', here.scope)
    here.run('rucio-dark-reaper', '--run-once', '--include-rses', here.rse)
    assert here.keys() == {*names, 'f07', 'later'} - {'run1/f07'}  # deleted all the same
    assert here.sql('SELECT path FROM quarantined_replicas WHERE path LIKE ?', f'{here.bucket}/%') == []


@pytest.mark.long
def test_no_dump_of_what_cannot_be_listed(place, unique, tmp_path):
    here = place(bucket_prefix=f'{unique}-')
    for options, said in (
        (('--scope', here.scope), f"the storage has no bucket '{here.bucket}', so no dump was written"),
        ((), 'cannot list the bucket of any scope'),
    ):
        done = here.dump('-o', str(tmp_path / TODAY), *options)
        assert done.returncode == 1
        assert said in done.stdout + done.stderr
        assert 'Traceback' not in done.stdout + done.stderr
        assert not (tmp_path / TODAY).exists()
    here.put('run1/a')
    assert ok(here.dump('--scope', here.scope)) == f'{here.bucket}/run1/a\n'
    done = here.user.rucio('s3', 'dump', here.rse, '--scope', here.scope)  # signed by the server, as for any user who may not
    assert done.returncode == 0, done.stdout + done.stderr


# Usage


@pytest.mark.long
def test_usage_as_others_show_it(place, unique):
    here = place(bucket_prefix=f'{unique}-')
    here.put('run1/a', 'run1/b', 'run1/no name')
    here.reconcile()
    assert here.usage()['storage'] == {'files': 3, 'used': 15, 'free': None, 'total': 15}
    for shown in (ok(here.user.rucio('rse', 'show', here.rse)), ok(here.user.rucio('list-rse-usage', here.rse)), ok(here.user.rucio('-v', 'rse', 'list'))):
        assert 'Traceback' not in shown
    assert 'storage' in ok(here.user.rucio('rse', 'show', here.rse))
    # A part of a bucket says nothing of all of it.
    here.put('run1/c')
    ok(here.user.rucio('s3', 'reconcile', f'{here.scope}:run1', '--rse', here.rse))
    here.reconcile('--dry-run')
    assert here.usage()['storage']['files'] == 3
    here.reconcile()
    assert here.usage()['storage']['files'] == 4


def expire(here):
    """All replicas of the RSE are needed by no rule any more, since long."""
    here.sql("UPDATE replicas SET tombstone = '2020-01-01 00:00:00.000000', lock_cnt = 0 WHERE rse_id = (SELECT id FROM rses WHERE rse = ?)", here.rse)


@pytest.mark.long
@pytest.mark.parametrize('capacity', [None, '1 MiB'])
def test_the_stock_reaper_makes_room_only_where_the_free_space_is_known(place, unique, capacity):
    here = place(bucket_prefix=f'{unique}-', **({'capacity': capacity} if capacity else {}))
    here.put('run1/a', body=bytes(700 * 1024))
    here.reconcile()
    expire(here)
    root = RucioCli.root(here.user.directory.parent / 'operator', here.server)
    root.call('set_rse_limits', here.rse, 'MinFreeSpace', 512 * 1024)
    log = here.reconcile()
    assert ("Set 'capacity'" in log) is (capacity is None)
    here.run('rucio-reaper', '--run-once', '--rses', here.rse)
    assert here.keys() == (set() if capacity else {'run1/a'})


@pytest.mark.long
def test_the_quota_of_ceph(place, ceph, unique):
    here = place(ceph, provider='ceph', bucket_prefix=f'{unique}-')
    here.put('run1/a')
    here.reconcile()
    assert here.usage()['storage'] == {'files': 1, 'used': 5, 'free': None, 'total': 5}
    admin = ('radosgw-admin', '-c', str(ceph.directory / 'ceph.conf'), '-n', 'client.rgw', 'quota')
    try:
        ceph._run(*admin, 'set', '--quota-scope=user', '--uid=rucio', '--max-size=1T')
        ceph._run(*admin, 'enable', '--quota-scope=user', '--uid=rucio')
        here.reconcile()
    finally:
        ceph._run(*admin, 'disable', '--quota-scope=user', '--uid=rucio')
    assert here.usage()['storage'] == {'files': 1, 'used': 5, 'free': 1024**4 - 5, 'total': 1024**4}
