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

"""Whether the catalogue says what is in the bucket, and is consistent in itself. Everything is counted anew from single rows."""

import hashlib
import re
import time
import zlib
from collections import Counter, defaultdict
from datetime import timezone

from sqlalchemy import select

from rucio.db.sqla import models
from rucio.db.sqla.constants import BadFilesStatus, DIDAvailability, DIDType, LockState, ReplicaState, RuleState

from .rucio_acts import ALICE, BAD, RSE, SCOPE, read, rse_id

DAY = 86400
NAME = re.compile(r'[/A-Za-z0-9][/A-Za-z0-9.\-_]*')


class Catalogue:
    """All rows that matter, as they are now."""

    def __init__(self, scope=SCOPE, rse=RSE):
        here = rse_id(rse)
        with read() as session:

            def rows(model, *where):
                found = session.execute(select(model).where(*where)).scalars().all()
                session.expunge_all()
                return found

            self.dids = {each.name: each for each in rows(models.DataIdentifier, models.DataIdentifier.scope == scope)}
            self.every_replica = rows(models.RSEFileAssociation, models.RSEFileAssociation.scope == scope)
            self.contents = rows(models.DataIdentifierAssociation, models.DataIdentifierAssociation.scope == scope)
            self.locks = rows(models.ReplicaLock, models.ReplicaLock.scope == scope)
            self.rules = {each.id: each for each in rows(models.ReplicationRule, models.ReplicationRule.scope == scope)}
            self.bad = rows(models.BadReplica, models.BadReplica.scope == scope)
            self.collection_replicas = rows(models.CollectionReplica, models.CollectionReplica.scope == scope)
            self.account_usage = rows(models.AccountUsage)
            self.rse_usage = rows(models.RSEUsage, models.RSEUsage.source == 'rucio')
            self.waiting = sum(len(rows(each)) for each in (models.UpdatedDID, models.UpdatedCollectionReplica, models.UpdatedRSECounter))
        self.here, self.rse = here, rse
        self.replicas = {each.name: each for each in self.every_replica if each.rse_id == here}
        self.parents = defaultdict(list)
        for each in self.contents:
            self.parents[each.child_name].append(each)

    def collections(self):
        return {name for name, each in self.dids.items() if each.did_type != DIDType.FILE}

    def excused(self, key):
        """Why the catalogue cannot have this object, or an empty text."""
        known = self.dids.get(key)
        if key.endswith('/'):
            return 'marker'
        if key.endswith('.rucio.upload'):
            return 'leftover'
        if not NAME.fullmatch(key) or len(key) > 250:
            return 'unnameable'
        if known and (known.did_type != DIDType.FILE or known.availability == DIDAvailability.LOST):
            return 'conflict'
        home = max((name for name in self.collections() if key.startswith(f'{name}/')), key=len, default=None)
        if home and not known and not self.dids[home].is_open:
            return 'closed'
        return ''


def differences(objects, catalogue, *, reported=(), exempt=(), lasting=()):
    """What is not as it should be, in words; nothing if all is well.

    :param objects: Key -> object with body and etag.
    :param reported: The names that the reconciler named as a person's affair.
    :param exempt: Names whose object and replica need not agree.
    :param lasting: Names whose object was there since the beginning.
    """
    return [
        *_of_objects(objects, catalogue, reported, exempt),
        *_of_replicas(objects, catalogue, exempt),
        *_of_members(catalogue),
        *_of_locks(catalogue),
        *_of_rules(catalogue),
        *_of_counters(catalogue),
        *_of_fate(catalogue),
        *_of_lasting(catalogue, lasting),
    ]


def _of_objects(objects, catalogue, reported, exempt):
    for key, each in objects.items():
        if key in exempt:
            continue
        reason = catalogue.excused(key)
        if reason and reason not in ('marker', 'leftover') and key not in reported:
            yield f'{key}: {reason}, but nobody was told'
        if not reason:
            yield from _of_object(key, each, catalogue)


def _of_object(key, each, catalogue):
    replica, known = catalogue.replicas.get(key), catalogue.dids.get(key)
    if replica is None or known is None:
        yield f'{key}: in the bucket, but not in the catalogue'
        return
    if replica.state == ReplicaState.COPYING and max(each.modified, replica.updated_at.replace(tzinfo=timezone.utc).timestamp()) > time.time() - DAY:
        return  # an upload may be under way
    if replica.state != ReplicaState.AVAILABLE or known.availability != DIDAvailability.AVAILABLE:
        yield f'{key}: in the bucket, but the replica is {replica.state.name} and the DID {known.availability.name}'
    members = [('contents of ' + member.name, member) for member in catalogue.parents[key]]
    for what, row in (('replica', replica), ('DID', known), *members):
        yield from _of_row(key, each, what, row)
    if not replica.lock_cnt and not key.startswith('cached/'):
        yield f'{key}: no rule keeps it'


def _of_row(key, each, what, row):
    """Size and checksums of one of the rows that have them."""
    if row.bytes != len(each.body):
        yield f'{key}: {len(each.body)} bytes, but its {what} says {row.bytes}'
    if row.md5 != hashlib.md5(each.body).hexdigest() and (row.md5 or '-' not in each.etag):
        yield f'{key}: the MD5 that its {what} has is another: {row.md5}'
    if row.adler32 and row.adler32 != f'{zlib.adler32(each.body):08x}':
        yield f'{key}: the ADLER32 that its {what} has is another: {row.adler32}'


def _of_replicas(objects, catalogue, exempt):
    for name, replica in catalogue.replicas.items():
        if name not in objects and name not in exempt and replica.state != ReplicaState.COPYING:
            yield f'{name}: in the catalogue ({replica.state.name}), but not in the bucket'
        if name not in catalogue.dids:
            yield f'{name}: a replica without a DID'
    known = {each.name for each in catalogue.every_replica}
    for name, each in catalogue.dids.items():
        if each.did_type == DIDType.FILE and name not in known and each.availability != DIDAvailability.LOST:
            yield f'{name}: a file without a replica'


def _of_members(catalogue):
    """Each file is in a dataset that it lies below, or has a rule of its own where there can be none."""
    files = [name for name, each in catalogue.dids.items() if each.did_type == DIDType.FILE and each.availability != DIDAvailability.LOST]
    datasets = {name for name in catalogue.collections() if catalogue.dids[name].did_type == DIDType.DATASET}
    ruled = {rule.name for rule in catalogue.rules.values()}
    for name in files:
        homes = {each.name for each in catalogue.parents[name]}
        above = {name[:index] for index, letter in enumerate(name) if letter == '/'}
        if name.startswith(('cached/', 'twin/')):
            continue
        if above & datasets and not homes & above & datasets:
            yield f'{name}: lies below {above & datasets}, but is in {homes or "no dataset"}'
        if not homes and name not in ruled:
            yield f'{name}: is in no dataset and has no rule'
    for each in catalogue.contents:
        if each.child_name not in catalogue.dids:
            yield f'{each.name}: has {each.child_name}, which is not there'


def _of_locks(catalogue):
    replicas = {(each.name, each.rse_id): each for each in catalogue.every_replica}
    per_replica = Counter((lock.name, lock.rse_id) for lock in catalogue.locks)
    for lock in catalogue.locks:
        replica = replicas.get((lock.name, lock.rse_id))
        if lock.rule_id not in catalogue.rules:
            yield f'{lock.name}: a lock without a rule'
        elif replica is None:
            yield f'{lock.name}: a lock without a replica'
        elif lock.bytes != replica.bytes:
            yield f'{lock.name}: the lock says {lock.bytes} bytes, the replica {replica.bytes}'
        elif (lock.state == LockState.OK) != (replica.state == ReplicaState.AVAILABLE):
            yield f'{lock.name}: the lock is {lock.state.name}, the replica {replica.state.name}'
    for place, replica in replicas.items():
        if replica.lock_cnt != per_replica[place]:
            yield f'{place[0]}: lock_cnt is {replica.lock_cnt}, but there are {per_replica[place]} locks'


def _of_rules(catalogue):
    per_rule, locked = defaultdict(Counter), {(lock.rule_id, lock.name) for lock in catalogue.locks}
    for lock in catalogue.locks:
        per_rule[lock.rule_id][lock.state] += 1
    for identifier, rule in catalogue.rules.items():
        said = (rule.locks_ok_cnt, rule.locks_replicating_cnt, rule.locks_stuck_cnt)
        counted = tuple(per_rule[identifier][state] for state in (LockState.OK, LockState.REPLICATING, LockState.STUCK))
        if said != counted:
            yield f'rule of {rule.name}: its counters are {said}, its locks {counted}'
        if rule.state != (RuleState.STUCK if counted[2] else RuleState.REPLICATING if counted[1] else RuleState.OK):
            yield f'rule of {rule.name}: it is {rule.state.name} with {counted}: {rule.error}'
        if rule.name not in catalogue.dids:
            yield f'rule of {rule.name}: there is no such DID'
        for each in catalogue.contents:
            if each.name == rule.name and (identifier, each.child_name) not in locked:
                yield f'rule of {rule.name}: {each.child_name} has no lock'


def _of_counters(catalogue):
    """Those that the abacus daemons keep."""
    if catalogue.waiting:
        yield f'{catalogue.waiting} updates were left by the daemons'
    locks = [lock for lock in catalogue.locks if lock.rse_id == catalogue.here and lock.account == ALICE]
    said = next(((each.files, each.bytes) for each in catalogue.account_usage if each.account == ALICE and each.rse_id == catalogue.here), (0, 0))
    if said != (len(locks), sum(lock.bytes for lock in locks)):
        yield f'the account has used {said}, its locks are {len(locks), sum(lock.bytes for lock in locks)}'
    replicas = catalogue.replicas.values()
    said = next(((each.files, each.used) for each in catalogue.rse_usage if each.rse_id == catalogue.here), (0, 0))
    if said != (len(replicas), sum(each.bytes for each in replicas)):
        yield f'the RSE has used {said}, its replicas are {len(replicas), sum(each.bytes for each in replicas)}'
    for each in catalogue.collection_replicas:
        members = [member for member in catalogue.contents if member.name == each.name]
        here = [member for member in members if member.child_name in catalogue.replicas]
        there = [member for member in here if catalogue.replicas[member.child_name].state == ReplicaState.AVAILABLE]
        # Nothing, as SQL adds it up, is None.
        said = (each.length, each.bytes, each.available_replicas_cnt, each.available_bytes or 0)
        counted = (len(members), sum(member.bytes for member in members), len(there), sum(member.bytes for member in there))
        if each.rse_id == catalogue.here and said != counted:
            yield f'the dataset replica of {each.name} is {said}, its files {counted}'


def _of_fate(catalogue):
    """Nothing was declared bad or lost, but what an operator did."""
    for each in catalogue.bad:
        if each.name != BAD and each.state in (BadFilesStatus.BAD, BadFilesStatus.LOST, BadFilesStatus.SUSPICIOUS):
            yield f'{each.name}: was declared {each.state.name}: {each.reason}'
    for name, each in catalogue.dids.items():
        if each.availability == DIDAvailability.LOST and name != BAD:
            yield f'{name}: is LOST'


def _of_lasting(catalogue, names):
    """They were never forgotten: what else Rucio has of them would have been lost."""
    for name in names:
        known = catalogue.dids.get(name)
        if known and known.created_at.replace(tzinfo=timezone.utc).timestamp() > time.time() - DAY:
            yield f'{name}: was forgotten although it was there, and registered again'
