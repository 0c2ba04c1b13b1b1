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

"""A catalogue of twins: two VOs, in each two RSEs and two scopes, and in each scope the same names; with their buckets in a fake S3.

Whatever is done to one of them must not change a row or an object of another one.
"""

from dataclasses import dataclass
from datetime import datetime
from itertools import product
from types import SimpleNamespace

from sqlalchemy import select, update

from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account, account_limit, did, replica, rse, rule, scope
from rucio.core.s3 import storages
from rucio.core.s3.auth import grants
from rucio.core.s3.catalogue import registration, updates
from rucio.core.s3.catalogue.records import NewFile
from rucio.core.s3.reconciler import listings
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla import models, s3
from rucio.db.sqla import session as rucio_session
from rucio.db.sqla.constants import AccountType, BadFilesStatus, DatabaseOperationType, DIDType, ReplicaState

VOS, RSES, OWNERS = ('def', 'two'), ('TWIN_A', 'TWIN_B'), ('alice', 'bob')
PAST = datetime(2020, 1, 1)  # noqa: DTZ001 - as Rucio's tables have times
SUM = 'd41d8cd98f00b204e9800998ecf8427e'
SECTIONS = {f's3:{name}': {'access_key': 'AKIDOFTHETESTS', 'secret_key': 'a-secret/that+nobody%may=see'} for name in RSES}
BELOW_A = ('run1/file', 'run1/other', 'run11/file', 'lone', 'loose/cached', 'loose/marked')
ON_BOTH = ('shared/both', 'shared/half', 'shared/cached')
BELOW_B = ('there/file',)


def prefix(vo, name):
    """Of the buckets of an RSE: all are on one storage."""
    return {('def', 'TWIN_A'): '', ('def', 'TWIN_B'): 'b.', ('two', 'TWIN_A'): 'two.', ('two', 'TWIN_B'): 'two.b.'}[vo, name]


@dataclass
class One:
    """One of the twins."""

    storage: storages.Storage
    scope: InternalScope
    account: InternalAccount
    subtree: Subtree

    @property
    def rse_id(self):
        return self.storage.rse_id

    def seen(self, *names):
        """Replicas, as the reconciler sees them."""
        found = [each for each in listings.replicas(self.subtree) if each.name in names]
        assert len(found) == len(names)
        return found

    @staticmethod
    def write(act, *arguments, **options):
        """Call a function in a transaction."""
        with Twins.writing() as session:
            return act(*arguments, **options, session=session)

    @staticmethod
    def read(act, *arguments, **options):
        with Twins.reading() as session:
            return act(*arguments, **options, session=session)


class Twins:
    """All of them, seen as one of them: ``.of('def', 'user.alice', 'TWIN_A')``."""

    def __init__(self, fake):
        self.fake = fake

    @staticmethod
    def writing():
        return rucio_session.db_session(DatabaseOperationType.WRITE)

    @staticmethod
    def reading():
        return rucio_session.db_session(DatabaseOperationType.READ)

    def of(self, vo='def', owner='alice', rse='TWIN_A', name=''):
        with self.reading() as session:
            storage = storages.get_storage(rse, vo, session=session)
        own = InternalScope(f'user.{owner}', vo=vo)
        return One(storage, own, InternalAccount(owner, vo=vo), Subtree.of(storage, own, name))

    def change(self, model, where, **values):
        with self.writing() as session:
            session.execute(update(model).filter_by(**where).values(**values).execution_options(synchronize_session=False))

    def rows(self, model, **values):
        with self.reading() as session:
            return [SimpleNamespace(**row) for row in session.execute(select(model.__table__).filter_by(**values)).mappings()]

    def everything(self):
        """Each row of each table, and each object."""
        found = set()
        with self.reading() as session:
            for table in [*models.BASE.metadata.sorted_tables, *s3.S3Base.metadata.sorted_tables]:
                for row in session.execute(select(table)).mappings():
                    found.add((table.name, *((key, _hashable(value)) for key, value in row.items())))
        for bucket, each in self.fake.buckets.items():
            found |= {('bucket', ('bucket', bucket))} | {('object', ('bucket', bucket), ('key', key)) for key in each}
            found.add(('policy', ('bucket', bucket), ('policy', repr(self.fake.policies.get(bucket)))))
        return found


def _hashable(value):
    return repr(value) if isinstance(value, (dict, list)) else value


# The catalogue


def build():
    """Write all rows, into an empty catalogue that is Rucio's."""
    with Twins.writing() as session:
        for vo in VOS:
            session.add(models.VO(vo=vo, description='', email=''))
            session.flush()
            for name in ('root', *OWNERS):
                account.add_account(InternalAccount(name, vo=vo), AccountType.USER, 'nobody@localhost', session=session)
            for name in OWNERS:
                scope.add_scope(InternalScope(f'user.{name}', vo=vo), InternalAccount(name, vo=vo), session=session)
            for name in RSES:
                _add_rse(vo, name, session)
    twins = Twins(None)
    for vo, owner in product(VOS, OWNERS):
        _fill(twins, vo, owner)


def _add_rse(vo, name, session):
    rse_id = rse.add_rse(name, vo=vo, session=session)
    operations = {'read': 1, 'write': 1, 'delete': 1}
    protocol = {
        'scheme': 'http',
        'hostname': '127.0.0.1',
        'port': 1,
        'prefix': '/',
        'impl': 'rucio.rse.protocols.s3.Default',
        'domains': {'lan': operations, 'wan': operations},
        'extended_attributes': {'s3': {'provider': 'seaweedfs', 'bucket_prefix': prefix(vo, name)}},
    }
    rse.add_protocol(rse_id, protocol, session=session)
    rse.add_rse_attribute(rse_id, 'lfn2pfn_algorithm', 's3_bucket', session=session)
    for owner in OWNERS:
        account_limit.set_local_account_limit(InternalAccount(owner, vo=vo), rse_id, -1, session=session)


def _fill(twins, vo, owner):
    a, b = (twins.of(vo, owner, name) for name in RSES)
    etag = f'{owner}{vo}-2'
    with twins.writing() as session:
        did.add_did(a.scope, 'all', DIDType.CONTAINER, a.account, session=session)
        for name in ('loose', 'shared'):
            did.add_did(a.scope, name, DIDType.DATASET, a.account, session=session)
    registration.register(a.subtree, [NewFile(name, 10, SUM, etag=etag) for name in (*BELOW_A, *ON_BOTH)])
    registration.register(b.subtree, [NewFile(name, 10, SUM, etag=etag) for name in BELOW_B])
    with twins.writing() as session:
        did.attach_dids(a.scope, 'all', [{'scope': a.scope, 'name': 'run1'}], a.account, session=session)
        for name in ('run1/file', 'run11/file'):
            settings = {'copies': 1, 'grouping': 'DATASET', 'weight': None, 'lifetime': None, 'locked': False, 'subscription_id': None}
            rule.add_rule([{'scope': a.scope, 'name': name}], a.account, rse_expression=a.storage.rse, ignore_account_limit=True, session=session, **settings)
        replica.add_replicas(b.rse_id, [{'scope': b.scope, 'name': name, 'bytes': 10, 'md5': SUM} for name in ON_BOTH], b.account, session=session)
        did.add_dids_to_followed([{'scope': a.scope, 'name': 'lone'}, {'scope': a.scope, 'name': 'loose/cached'}], a.account, session=session)
        marked = [{'scope': a.scope, 'name': 'loose/marked', 'rse_id': a.rse_id}]
        replica.declare_bad_file_replicas(marked, '', InternalAccount('root', vo=vo), BadFilesStatus.SUSPICIOUS, session=session)
        for name in ('run1', 'shared'):
            for kind in ('bob' if owner == 'alice' else 'alice', grants.EVERYBODY):
                grants.add_grant(a.scope, name, kind, False, owner, None, [a.rse_id, b.rse_id] if kind == '*' else (), session=session)
    judge(twins)
    for name in ('loose/cached', 'loose/marked', 'shared/cached', 'shared/half'):
        twins.change(models.RSEFileAssociation, {'scope': a.scope, 'name': name}, tombstone=PAST)
    twins.change(models.RSEFileAssociation, {'scope': a.scope, 'name': 'shared/half'}, state=ReplicaState.COPYING)
    with twins.writing() as session:
        did.set_status(a.scope, 'run1', open=False, session=session)
    for each in (a, b):
        updates.note_etags(each.subtree, dict.fromkeys(ON_BOTH, etag))


def judge(catalogue):
    """What Rucio's judge-evaluator and abacus for collection replicas do."""
    with catalogue.writing() as session:
        for row in session.execute(select(models.UpdatedDID)).scalars().all():
            rule.re_evaluate_did(row.scope, row.name, row.rule_evaluation_action, session=session)
            session.delete(row)
    with catalogue.writing() as session:
        for each in replica.get_cleaned_updated_collection_replicas(1, 0, session=session):
            replica.update_collection_replica(each, session=session)


def move_in(fake):
    """Put the objects of a catalogue that was built into a fake S3.

    :returns: The twins.
    """
    twins = Twins(fake)
    twins.change(models.RSEProtocol, {}, port=fake.port)
    for vo, owner, name in product(VOS, OWNERS, RSES):
        bucket = f'{prefix(vo, name)}user.{owner}'
        fake.make_bucket(bucket)
        for key in (*ON_BOTH, *(BELOW_A if name == 'TWIN_A' else BELOW_B)):
            fake.store(bucket, key, b'0123456789')
    return twins
