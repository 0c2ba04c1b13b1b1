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

"""A small catalogue of everything that a reconciler may meet, and what else works on it: Rucio's own uploads and daemons.

All of it is stock Rucio, called in this process. As a program it is a day of Rucio's daemons:

    python -m faults.rucio_acts RSE
"""

import contextlib
import functools
import hashlib
import sys
import zlib
from datetime import datetime, timedelta, timezone

from sqlalchemy import select, update

from rucio.common.types import InternalAccount, InternalScope
from rucio.core.account import add_account
from rucio.core.account_limit import set_local_account_limit
from rucio.core.did import add_did, attach_dids, set_status
from rucio.core.replica import add_replicas, declare_bad_file_replicas, update_replicas_states
from rucio.core.rse import add_protocol, add_rse, add_rse_attribute
from rucio.core.rule import add_rule
from rucio.core.s3 import storages
from rucio.core.scope import add_scope
from rucio.daemons.abacus import account as abacus_account
from rucio.daemons.abacus import collection_replica as abacus_collection_replica
from rucio.daemons.abacus import rse as abacus_rse
from rucio.daemons.badreplicas import necromancer
from rucio.daemons.common import HeartbeatHandler
from rucio.daemons.judge import cleaner, evaluator, repairer
from rucio.daemons.reaper import reaper
from rucio.daemons.undertaker import undertaker
from rucio.db.sqla import models
from rucio.db.sqla.constants import AccountType, BadFilesStatus, DatabaseOperationType, DIDType, ReplicaState
from rucio.db.sqla.session import db_session
from servers.cli import s3_protocol

RSE, OTHER = 'SITE_S3', 'OTHER'
SCOPE = InternalScope('user.alice')
ALICE, ROOT = InternalAccount('alice'), InternalAccount('root')
LONG_AGO = 3 * 86400  # seconds: when all of this was written

DATASETS = ('run1', 'run2', 'run2/deep', 'closed')
AVAILABLE = {
    **{f'run1/file{number}': (20 + number, False) for number in range(8)},
    **{f'run1/parts{number}': (13 + number, True) for number in range(3)},
    **{f'run1/sub/file{number}': (3, False) for number in range(4)},
    'run1/empty': (0, False),
    **{f'run2/file{number}': (9, False) for number in range(5)},
    **{f'run2/deep/file{number}': (9, number == 1) for number in range(3)},
    **{f'alone{number}': (30, False) for number in range(3)},
    'closed/file': (5, False),
    'twin/file0': (7, False),
    'twin/file1': (7, False),
    **{f'cached/file{number}': (40, False) for number in range(3)},
}
COPYING = {'run1/arrived': 17, 'run1/under-way': 18, 'run1/never-came': 19, 'run1/given-up': 17}
BAD = 'run1/bad'


def write():
    """A session of its own."""
    return db_session(DatabaseOperationType.WRITE)


def read():
    return db_session(DatabaseOperationType.READ)


def subtree(name=''):
    """What the reconciler is given."""
    from rucio.core.s3.subtrees import Subtree  # noqa: PLC0415 - the tests' own modules are of use without it

    with read() as session:
        return Subtree.of(storages.get_storage(RSE, 'def', session=session), SCOPE, name)


def rse_id(rse=RSE):
    with read() as session:
        return session.execute(select(models.RSE.id).where(models.RSE.rse == rse)).scalar()


# The beginning


def make(bucket, storage, **settings):
    """The catalogue, and the objects in the bucket.

    :param storage: Where it is: scheme, hostname, port, region; and more settings of the RSE.
    """
    with write() as session:
        _make_site(storage, settings, session)
    here, there = rse_id(), rse_id(OTHER)
    for name, (size, parts) in AVAILABLE.items():
        bucket.put(name, size, name, parts=parts, age=LONG_AGO)
    for name in ('run1/arrived', 'run1/under-way', BAD):
        bucket.put(name, COPYING.get(name, 21), name, age=LONG_AGO if name == 'run1/arrived' else 60)
    bucket.put('run1/given-up', 16, 'somebody else', age=LONG_AGO)
    known = {name: bucket.objects[name].body for name in (*AVAILABLE, BAD)}
    with write() as session:
        add_replicas(rse_id=here, files=[file(name, body) for name, body in known.items()], account=ALICE, session=session)
        twins = [name for name in known if name.startswith('twin/')]
        add_replicas(rse_id=there, files=[file(name, known[name]) for name in twins], account=ALICE, session=session)
        for dataset in DATASETS:
            add_did(scope=SCOPE, name=dataset, did_type=DIDType.DATASET, account=ALICE, session=session)
            attach_dids(scope=SCOPE, name=dataset, dids=[did(name) for name in known if dataset_of(name) == dataset], account=ALICE, session=session)
            _rule(dataset, RSE, session)
        for name in known:
            if '/' not in name:
                _rule(name, RSE, session)
        _rule('twin/file0', RSE, session)
        for name in twins:
            _rule(name, OTHER, session)
        set_status(scope=SCOPE, name='closed', open=False, session=session)
    for name, size in COPYING.items():
        begin_upload(name, size, name)
    with write() as session:
        replica = models.RSEFileAssociation
        then = {'created_at': _now() - timedelta(seconds=LONG_AGO), 'updated_at': _now() - timedelta(seconds=LONG_AGO)}
        session.execute(update(replica).values(then))
        session.execute(update(models.DataIdentifier).values(then))
        unlocked = replica.name.startswith('cached/') | (replica.name == 'twin/file1')
        session.execute(update(replica).where(unlocked, replica.rse_id == here).values(tombstone=_now() - timedelta(days=1), **then))
        bad = {'scope': SCOPE, 'name': BAD, 'rse_id': here}
        declare_bad_file_replicas([bad], reason='the operator says so', issuer=ROOT, status=BadFilesStatus.BAD, session=session)


def _now():
    """As Rucio's tables have it: UTC, without saying so."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _make_site(storage, settings, session):
    add_account(ALICE, AccountType.USER, 'alice@localhost', session=session)
    add_scope(SCOPE, ALICE, session=session)
    for name in (RSE, OTHER):
        identifier = add_rse(name, vo='def', session=session)
        for account in (ALICE, ROOT):
            set_local_account_limit(account, identifier, -1, session=session)
        if name == RSE:
            for key, value in {'lfn2pfn_algorithm': 's3_bucket', 'skip_upload_stat': True}.items():
                add_rse_attribute(identifier, key, value, session=session)
            add_protocol(identifier, s3_protocol(storage, settings={'max_attempts': 2, 'checksum_readers': 2, **settings}), session=session)


def _rule(name, rse, session):
    dids = [{'scope': SCOPE, 'name': name}]
    terms = {'weight': None, 'lifetime': None, 'locked': False, 'subscription_id': None, 'ignore_account_limit': True}
    add_rule(dids, account=ALICE, copies=1, rse_expression=rse, grouping='DATASET', **terms, session=session)


def did(name):
    return {'scope': SCOPE, 'name': name}


def file(name, body, **more):
    return {**did(name), 'bytes': len(body), 'md5': hashlib.md5(body).hexdigest(), 'adler32': f'{zlib.adler32(body):08x}', **more}


def dataset_of(name):
    """The longest of the datasets that were made above, or None."""
    return max((each for each in DATASETS if name.startswith(f'{each}/')), key=len, default=None)


# What Rucio does meanwhile


def begin_upload(name, size, seed):
    """As `rucio upload` does before it sends anything."""
    from .bucket import content  # noqa: PLC0415 - a circle

    body = content(size, seed)
    with write() as session:
        files = [file(name, body, state='C')]
        add_replicas(rse_id=rse_id(), files=files, account=ALICE, session=session)
        if dataset := dataset_of(name):
            attach_dids(scope=SCOPE, name=dataset, dids=[file(name, body)], account=ALICE, rse_id=None, session=session)
        else:
            _rule(name, RSE, session)


def end_upload(name):
    """As `rucio upload` does when all was sent."""
    with write() as session:
        update_replicas_states([{**did(name), 'rse_id': rse_id(), 'state': ReplicaState.AVAILABLE}], session=session)


def judge():
    """The daemons that Rucio runs all the time and that delete nothing."""
    for _ in range(2):  # what the first leaves to be looked at again
        _run('judge-evaluator', evaluator.run_once, paused_dids={}, did_limit=1000)
    _run('judge-repairer', repairer.run_once, paused_rules={}, delta=-1)
    _run('judge-cleaner', cleaner.run_once, paused_rules={})
    _run('necromancer', necromancer.run_once, bulk=1000)


def count():
    """The daemons that bring the counters up to date."""
    _run('abacus-rse', abacus_rse.run_once)
    _run('abacus-account', abacus_account.run_once)
    while not _run('abacus-collection-replica', abacus_collection_replica.run_once, limit=1000):
        pass


def delete(rse=RSE):
    """The daemons that delete all they may."""
    _run('undertaker', undertaker.run_once, paused_dids={}, chunk_size=1000)
    reaping = {'rses': [], 'include_rses': rse, 'exclude_rses': None, 'vos': None, 'chunk_size': 1000, 'greedy': True, 'scheme': None}
    _run('reaper', reaper.run_once, **reaping, delay_seconds=0, auto_exclude_threshold=100, auto_exclude_timeout=600)


def daemons(rse=RSE):
    """A day of Rucio."""
    delete(rse)
    judge()
    delete(rse)
    judge()
    count()


def _run(name, once, **options):
    with contextlib.ExitStack() as stack:
        handler = stack.enter_context(HeartbeatHandler(executable=name, renewal_interval=59))
        return functools.partial(once, heartbeat_handler=handler, activity=None)(**options)


def main():
    daemons(sys.argv[1])


if __name__ == '__main__':
    main()
