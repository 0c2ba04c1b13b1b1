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

"""Rucio's own daemons, after what users did in a bucket was brought into the catalogue: no byte of a user's is deleted, and all sums are right.

And what the other settings do, which is why they are not the default.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servers.cli import RucioCli, add_s3_rse
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS
from servers.team import Team, ok

pytestmark = pytest.mark.slow

RSE, OTHER = 'KEPT_S3', 'OTHER_S3'
# In the order in which they meet: rules are applied, bad replicas seen to, collections removed, objects deleted, sums made.
DAEMONS: tuple[tuple[str, ...], ...] = (
    ('rucio-judge-evaluator',),
    ('rucio-necromancer',),
    ('rucio-judge-repairer',),
    ('rucio-undertaker',),
    ('rucio-judge-cleaner',),
    ('rucio-reaper', '--greedy', '--rses', RSE),
    ('rucio-abacus-account',),
    ('rucio-abacus-rse',),
    ('rucio-abacus-collection-replica',),
)


@dataclass
class World:
    """Judy and her bucket, on a server of its own: its daemons take all that they find."""

    team: Team
    server: RucioServer

    @property
    def judy(self) -> RucioCli:
        return self.team.owner

    def put(self, **files: bytes) -> None:
        """As a user with another S3 client; `__` stands for a slash."""
        for name, body in files.items():
            self.team.storage.client().put_object(Bucket=self.team.scope, Key=name.replace('__', '/'), Body=body)

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.team.storage.client().delete_object(Bucket=self.team.scope, Key=key)

    def sync(self, *options: str, did: str = '') -> str:
        return ok(self.judy.rucio('s3', 'reconcile', did or self.team.scope, '--rse', RSE, *options))

    def run_daemons(self, rounds: int = 1) -> None:
        """In the second round is done what one leaves to another that was before it."""
        for command, *options in DAEMONS * rounds:
            self.run_daemon(command, *options)

    def run_daemon(self, command: str, *options: str) -> None:
        done = self.server.run(command, '--run-once', *options)
        assert done.returncode == 0, done.stdout + done.stderr

    def bucket(self, prefix: str = '') -> dict[str, tuple[int, str]]:
        """What really is there: size and MD5."""
        s3 = self.team.storage.client()
        bodies = {key: s3.get_object(Bucket=self.team.scope, Key=key)['Body'].read() for key in self.team.objects() if key.startswith(prefix)}
        return {key: (len(body), hashlib.md5(body).hexdigest()) for key, body in bodies.items()}

    def catalogue(self, prefix: str = '') -> dict[str, tuple[int, str]]:
        """What `rucio download` would get, and compare with."""
        found = self.judy.call('list_dids', self.team.scope, {}, did_type='file')
        names = [name for name in found if name.startswith(prefix)]
        replicas = self.judy.call('list_replicas', [{'scope': self.team.scope, 'name': name} for name in names]) if names else []
        return {each['name']: (each['bytes'], each['md5']) for each in replicas if RSE in each['rses']}

    def usage(self) -> dict[str, Any]:
        """Files and bytes, as Rucio counts them for the account and for the RSE."""
        account, rse = self.judy.calls(('get_local_account_usage', self.judy.account, RSE), ('get_rse_usage', RSE))
        (counted,) = [each for each in rse if each['source'] == 'rucio']
        return {'account': [(each['files'], each['bytes']) for each in account], 'rse': (counted['files'], counted['used'])}

    def states(self, name: str) -> dict[str, str]:
        found = self.judy.call('list_replicas', [{'scope': self.team.scope, 'name': name}], all_states=True)
        return found[0]['states'] if found else {}


@pytest.fixture(scope='module')
def kept(tmp_path_factory: pytest.TempPathFactory, plain: SeaweedFS) -> Iterator[World]:
    with RucioServer(tmp_path_factory.mktemp('rucio'), {'policy': {'package': 'rucio_s3_policy'}}) as server:
        root = RucioCli.root(tmp_path_factory.mktemp('root'), server)
        team = Team.make(root, tmp_path_factory.mktemp, ('judy', 'ken'), RSE, plain)
        add_s3_rse(root, OTHER, plain, settings={'bucket_prefix': 'other-'})
        root.call('set_local_account_limit', 'root', RSE, -1)
        plain.client().create_bucket(Bucket=team.scope)
        yield World(team, server)


def totals(files: dict[str, tuple[int, str]]) -> tuple[int, int]:
    return len(files), sum(size for size, _ in files.values())


@pytest.mark.long
def test_what_users_put_there_stays(kept: World, tmp_path: Path) -> None:
    kept.put(run1__kept=b'kept', run1__changed=b'before', run1__grows=b'', run1__empties=b'not empty', run1__gone=b'gone', run1__again=b'first', run1__none=b'')
    kept.put(run2__a=b'a', run2__b=b'bb', lone=b'a lone file', lone2=b'another', lone3=b'third')
    kept.sync()
    # Two rules on files themselves, and one of somebody else on a collection.
    for owner, name in ((kept.judy, 'run1/changed'), (kept.judy, 'run1/again'), (kept.team.root, 'run1')):
        owner.call('add_replication_rule', [{'scope': kept.team.scope, 'name': name}], 1, RSE)
    for daemon in ('rucio-judge-evaluator', 'rucio-abacus-account', 'rucio-abacus-rse'):
        kept.run_daemon(daemon)
    assert kept.catalogue() == kept.bucket()
    assert len(kept.bucket()) == 12
    assert kept.usage()['rse'] == totals(kept.bucket())
    before = kept.usage()['account'][0]

    # Changed and deleted, by another client.
    kept.put(run1__changed=b'after, and longer', run1__grows=b'something', run1__empties=b'', lone=b'another lone file')
    kept.delete('run1/gone', 'run1/again', 'run1/none', 'run2/a', 'run2/b', 'lone2', 'lone3')
    kept.sync('--on-changed', 'replace', '--on-missing', 'forget')
    # And written again, before any daemon knows what happened.
    again = {'run1__again': b'second', 'run1__none': b'now there is', 'run2__a': b'another a', 'lone3': b'third again'}
    kept.put(**again)
    there = kept.bucket()

    kept.run_daemons(rounds=2)
    assert kept.bucket() == there
    kept.sync('--on-changed', 'replace', '--on-missing', 'forget')
    kept.run_daemons()
    assert kept.bucket() == there
    assert kept.catalogue() == there
    assert kept.usage()['rse'] == totals(there)
    # Its rules: one for each collection and each lone file, and that on run1/changed itself. That on run1/again went with the file.
    changed = there['run1/changed'][0]
    assert kept.usage()['account'] == [(len(there) + 1, sum(size for size, _ in there.values()) + changed)]
    assert kept.usage()['account'][0] != before
    rules = kept.judy.call('list_account_rules', kept.judy.account)
    assert {(rule['name'], rule['state']) for rule in rules} == {(name, 'OK') for name in ('run1', 'run2', 'run1/changed', 'lone', 'lone3')}
    for collection in ('run1', 'run2'):
        (dataset,) = kept.judy.call('list_dataset_replicas', kept.team.scope, collection)
        files = [size for name, (size, _) in there.items() if name.startswith(f'{collection}/')]
        assert (dataset['length'], dataset['bytes'], dataset['available_length'], dataset['available_bytes']) == (
            len(files),
            sum(files),
            len(files),
            sum(files),
        )

    # Users get it by the stock command, which verifies the checksum.
    kept.judy.rucio('download', '--dir', str(tmp_path), f'{kept.team.scope}:run1/again')
    assert [path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()] == [b'second']


@pytest.mark.long
def test_bad_and_lost_delete_what_is_there(kept: World) -> None:
    """The documentation says so."""
    kept.put(bad__a=b'before', bad__copied=b'the same', lost__a=b'before', lost__empty=b'')
    kept.sync()
    kept.run_daemon('rucio-judge-evaluator')
    copied = {'scope': kept.team.scope, 'name': 'bad/copied', 'bytes': 8, 'md5': hashlib.md5(b'the same').hexdigest()}
    kept.team.root.call('add_replicas', OTHER, [copied])

    kept.put(bad__a=b'a newer one', bad__copied=b'somebody wrote this')
    kept.delete('lost/a', 'lost/empty')
    kept.sync('--on-changed', 'bad', '--on-missing', 'report', did=f'{kept.team.scope}:bad')
    said = kept.sync('--on-missing', 'lost', did=f'{kept.team.scope}:lost')
    assert re.search(r'lost/empty is empty and has no other replica', re.sub(r'\s+', ' ', said))
    kept.put(lost__a=b'put there in the meantime')
    kept.run_daemons()

    # Deleted, although a user had written it later.
    assert set(kept.bucket('bad/')) | set(kept.bucket('lost/')) == {'bad/copied'}
    # About to be overwritten with the copy from the other RSE, as soon as a transfer tool comes.
    assert kept.states('bad/copied') == {RSE: 'COPYING', OTHER: 'AVAILABLE'}
    # And the names are lost for ever.
    kept.put(bad__a=b'again', lost__a=b'again')
    said = re.sub(r'\s+', ' ', kept.sync())
    assert 'bad/a was declared lost, and Rucio never uses such a name again' in said
    assert set(kept.catalogue('lost/')) == {'lost/empty'}
