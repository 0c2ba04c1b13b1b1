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

"""Removal of buckets and collections: what is refused, what goes with them, and where it ends. See also test_twins.py."""

from contextlib import nullcontext
from datetime import datetime, timezone
from itertools import product
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import update

from rucio.common.exception import RSEAccessDenied, ServiceUnavailable, UnsupportedOperation
from rucio.common.s3.parsing import UnreadableAnswerError
from rucio.core import did, rule
from rucio.core.s3.auth import grants
from rucio.core.s3.buckets import publishing, removal
from rucio.core.s3.subtrees import Subtree
from rucio.db.sqla import models
from rucio.db.sqla.constants import DIDType, LockState, ReplicaState
from rucio.db.sqla.s3 import Grant
from servers.fake_s3 import error
from servers.twins import OWNERS, PAST, RSES, VOS


@pytest.fixture
def empty(monkeypatch):
    """Empty a bucket that answers each listing with the next of these lists."""
    deleted, refused = [], ['refused']
    monkeypatch.setattr(removal, 'db_session', lambda _: nullcontext())
    for name in ('_abort_uploads', '_mark'):
        monkeypatch.setattr(removal, name, lambda *_: None)
    monkeypatch.setattr(
        removal, '_delete_objects', lambda _, keys: deleted.append(keys) or {each: ServiceUnavailable(each) for each in keys if each in refused}
    )
    monkeypatch.setattr(removal, '_delete_replicas', lambda *_: 0)

    def run(*listings):
        answers = iter(listings)
        monkeypatch.setattr(removal, '_first_keys', lambda _: next(answers))
        subtree = Subtree(SimpleNamespace(rse='SITE_S3'), 'user.alice', 'user.alice', '', '')
        return removal._empty(subtree), deleted

    return run


def test_a_key_that_the_storage_refuses_stops_no_other_and_is_named(empty):
    with pytest.raises(ServiceUnavailable, match='refused'):
        empty(['a', 'refused'], ['b', 'refused'], ['refused'])


def test_until_nothing_is_listed(empty):
    assert empty(['a', 'b'], ['b', 'c'], []) == ((4, 0, True), [['a', 'b'], ['b', 'c']])


@pytest.mark.parametrize('last', [['b'], ['c', 'b'], ['b', 'b'], ['a', 'b', 'c']])
def test_keys_that_cannot_be_deleted(empty, last):
    """Ceph RGW 16 lists a key for ever that was once written with ?versionId=: deleting it again and again would never end."""
    with pytest.raises(UnsupportedOperation) as refused:
        empty(['a', 'b', 'c'], last)
    assert f"still lists '{last[0]}' in bucket 'user.alice'" in str(refused.value)


class Uploads:
    """A storage with so many unfinished uploads, which lists two at once, and some without a key or an id."""

    exceptions = SimpleNamespace(NoSuchUpload=KeyError)

    def __init__(self, count, more=()):
        self.listed = [{'Key': f'run1/{number}', 'UploadId': 'u'} for number in range(count)] + list(more)
        self.requests = 0

    def list_multipart_uploads(self, Bucket, Prefix, KeyMarker='', UploadIdMarker=''):  # noqa: N803 - boto3's names
        assert (Bucket, Prefix) in (('user.alice', 'run1/'), ('user.alice', ''))
        assert bool(KeyMarker) == bool(UploadIdMarker)
        self.requests += 1
        start = int(UploadIdMarker or 0)
        return {
            'Uploads': self.listed[start : start + 2],
            'IsTruncated': start + 2 < len(self.listed),
            'NextKeyMarker': 'k',
            'NextUploadIdMarker': str(start + 2),
        }


def test_all_unfinished_uploads_are_aborted_however_many(caplog):
    subtree = Subtree(SimpleNamespace(rse='SITE_S3'), 'user.alice', 'user.alice', 'run1/', 'run1/')
    storage = Uploads(5, [{'Key': 'run1/x'}, {'UploadId': 'u'}, {'Key': 'run2/x', 'UploadId': 'u'}])
    assert list(removal._uploads(storage, subtree)) == [(f'run1/{number}', 'u') for number in range(5)]
    assert storage.requests == 4
    assert [record.getMessage().split(' the storage lists ')[1] for record in caplog.records] == [
        'a multipart upload without its key or id, which cannot be aborted. Tell its operator.'
    ] * 2
    whole = Subtree(SimpleNamespace(rse='SITE_S3'), 'user.alice', 'user.alice', '', '')
    assert list(removal._uploads(storage, whole)) == [*((f'run1/{number}', 'u') for number in range(5)), ('run2/x', 'u')]


def test_a_storage_that_lists_the_same_uploads_for_ever():
    storage = Uploads(5)
    storage.list_multipart_uploads = lambda **_: {'Uploads': [{'Key': 'run1/a', 'UploadId': 'u'}], 'IsTruncated': True, 'NextKeyMarker': 'k'}
    subtree = Subtree(SimpleNamespace(rse='SITE_S3'), 'user.alice', 'user.alice', 'run1/', 'run1/')
    assert list(removal._uploads(storage, subtree)) == [('run1/a', 'u')] * 2
    storage.list_multipart_uploads = lambda **_: {'Uploads': [{'Key': 'run1/a', 'UploadId': 'u'}], 'IsTruncated': True}
    assert list(removal._uploads(storage, subtree)) == [('run1/a', 'u')], 'and does not say where to go on'


def one_below(one, name):
    return Subtree.of(one.storage, one.scope, name)


def others(twins):
    """All but the one to which something is done."""
    return [twins.of(*each) for each in product(VOS, OWNERS, RSES) if each != ('def', 'alice', 'TWIN_A')]


def remove(one, name='', force=True):
    return removal.remove(one.storage, one.account, one.scope, name, force)['removed']


RULE = {'copies': 1, 'grouping': 'DATASET', 'weight': None, 'lifetime': None, 'locked': False, 'subscription_id': None, 'ignore_account_limit': True}


def add_rule(one, name, account=None, **options):
    settings = RULE | {'rse_expression': one.storage.rse} | options
    (made,) = one.write(rule.add_rule, [{'scope': one.scope, 'name': name}], account or one.account, **settings)
    return made


def add_content(twins, one):
    with twins.writing() as session:
        for name, kind in (('c', DIDType.CONTAINER), ('d', DIDType.DATASET)):
            did.add_did(one.scope, name, kind, one.account, session=session)
        did.attach_dids(one.scope, 'c', [{'scope': one.scope, 'name': 'd'}], one.account, session=session)


def add_replica(twins, one):
    with twins.writing() as session:
        row = {'scope': one.scope, 'name': 'c/file', 'did_type': DIDType.FILE, 'bytes': 1}
        session.add(models.DataIdentifier(account=one.account, **row))
        session.flush()
        session.add(models.RSEFileAssociation(scope=one.scope, name='c/file', rse_id=one.rse_id, bytes=1, state=ReplicaState.AVAILABLE))


def add_lock(twins, one):
    with twins.writing() as session:
        did.add_did(one.scope, 'c/kept', DIDType.DATASET, one.account, session=session)
    add_rule(one, 'c/kept')


@pytest.mark.parametrize(
    ('prepare', 'found'),
    [
        (add_content, "user.alice:c is not empty: 'd' belongs to it"),
        (add_replica, 'there is the file user.alice:c/file on RSE TWIN_A'),
        (add_lock, 'a rule keeps user.alice:c/kept there'),
        (lambda twins, one: twins.fake.store(one.subtree.bucket, 'c/object', b''), "there is the object 'c/object' in bucket 'user.alice'"),
    ],
)
def test_what_is_not_empty_needs_force(twins, prepare, found):
    one = twins.of()
    prepare(twins, one)
    before = twins.everything()
    with pytest.raises(UnsupportedOperation, match=found):
        remove(one, 'c', force=False)
    assert before == twins.everything()
    for other in others(twins):
        if prepare is not add_content or other.scope != one.scope:
            remove(other, 'c', force=False)
    for name in ('C', 'd'):
        remove(one, name, force=False)


def test_a_whole_bucket_that_is_not_empty_needs_force(twins):
    with pytest.raises(UnsupportedOperation, match=r"The bucket 'user\.alice' is not empty"):
        remove(twins.of(), force=False)


@pytest.mark.parametrize('name', ['', 'run1'])
def test_what_a_rule_of_somebody_else_protects_stays(twins, name):
    """All of it: nothing is removed by halves."""
    one, bob = twins.of(), twins.of(owner='bob')
    theirs = add_rule(one, 'run1/file', bob.account)
    before = twins.everything()
    with pytest.raises(UnsupportedOperation, match=f'user.alice:run1/file is protected by the rule {theirs} of account bob'):
        remove(one, name)
    assert before == twins.everything()
    assert remove(one, 'run11')['objects'] == 1
    for each in (twins.of(rse='TWIN_B'), bob, twins.of('two')):
        remove(each, name)


@pytest.mark.parametrize('model', [models.ReplicaLock, models.DatasetLock])
def test_a_rule_that_keeps_data_elsewhere_stays(twins, model):
    one, there = twins.of(), twins.of(rse='TWIN_B')
    (known,) = twins.rows(models.ReplicationRule, name='run11', scope=one.scope)
    twins.change(models.ReplicationRule, {'id': known.id}, rse_expression='TWIN_A|TWIN_B')
    with twins.writing() as session:
        if model is models.ReplicaLock:
            session.add(model(scope=one.scope, name='shared/both', rule_id=known.id, rse_id=there.rse_id, account=one.account, bytes=10, state=LockState.OK))
        else:
            session.add(model(scope=one.scope, name='run11', rule_id=known.id, rse_id=there.rse_id, account=one.account, state=LockState.OK))
    before = twins.everything()
    with pytest.raises(UnsupportedOperation, match=rf'The rule {known.id} \(TWIN_A.TWIN_B\) also keeps user.alice:run11 on other RSEs'):
        remove(one, 'run11')
    assert before == twins.everything()


def test_a_rule_of_several_rses_that_keeps_data_on_this_one_only_goes(twins):
    one = twins.of()
    twins.change(models.ReplicationRule, {'name': 'run11', 'scope': one.scope}, rse_expression='TWIN_A|TWIN_B')
    assert remove(one, 'run11') == {'rules': 2, 'objects': 1, 'replicas': 1, 'datasets': 1, 'bucket': False}


def test_a_rule_of_this_rse_alone_goes_wherever_its_locks_are(twins):
    """A lock that is left elsewhere, of an RSE that was renamed or a rule that was moved, keeps no bucket."""
    one, there = twins.of(), twins.of(rse='TWIN_B')
    (known,) = twins.rows(models.ReplicationRule, name='run11', scope=one.scope)
    with twins.writing() as session:
        session.add(models.DatasetLock(scope=one.scope, name='run11', rule_id=known.id, rse_id=there.rse_id, account=one.account, state=LockState.OK))
    assert remove(one, 'run11')['rules'] == 2


def test_rules_of_several_rses_elsewhere_are_not_asked_about(twins):
    one, there = twins.of(), twins.of(rse='TWIN_B')
    twins.change(models.ReplicationRule, {'name': 'there', 'scope': one.scope}, rse_expression='TWIN_B|TWIN_C')
    assert remove(one)['rules'] == 5
    assert twins.rows(models.ReplicationRule, name='there', scope=one.scope)
    assert remove(there)['rules'] == 1


@pytest.mark.parametrize('name', ['run11', ''])
def test_a_rule_for_a_collection_of_another_scope_stays(twins, name):
    """Of the same name, and by the same account."""
    one, bob = twins.of(), twins.of(owner='bob')
    theirs = one.write(rule.add_rule, [{'scope': bob.scope, 'name': 'run11'}], one.account, rse_expression='TWIN_A', **RULE)
    assert remove(one, name)['rules'] == (2 if name else 5)
    assert [row.id for row in twins.rows(models.ReplicationRule, account=one.account, scope=bob.scope)] == theirs


def test_a_rule_whose_locks_are_of_another_scope_is_not_asked_about(twins):
    """A container of alice's may have datasets of bob's."""
    one, bob = twins.of(), twins.of(owner='bob')
    twins.change(models.ReplicationRule, {'name': 'there', 'scope': one.scope}, rse_expression='TWIN_A|TWIN_B')
    (known,) = twins.rows(models.ReplicationRule, name='there', scope=one.scope)
    with twins.writing() as session:
        session.add(models.DatasetLock(scope=bob.scope, name='run11', rule_id=known.id, rse_id=one.rse_id, account=one.account, state=LockState.OK))
    assert remove(one)['rules'] == 5
    assert twins.rows(models.ReplicationRule, id=known.id)


def test_a_rule_that_was_added_in_the_meantime(twins):
    one = twins.of()
    twins.change(models.RSEFileAssociation, {'name': 'run1/file', 'scope': one.scope}, lock_cnt=1)
    with pytest.raises(UnsupportedOperation, match='run1/file was protected by a new rule in the meantime'):
        one.write(lambda session: removal._mark(one.subtree, ['shared/cached', 'run1/file'], session))
    assert {row.state for row in twins.rows(models.RSEFileAssociation, name='shared/cached')} == {ReplicaState.AVAILABLE}
    one.write(lambda session: removal._mark(one.subtree, ['shared/cached'], session))
    marked = twins.rows(models.RSEFileAssociation, state=ReplicaState.BEING_DELETED)
    assert [(row.scope, row.name, row.rse_id) for row in marked] == [(one.scope, 'shared/cached', one.rse_id)]


def test_a_rule_that_is_added_in_this_moment(twins):
    one = twins.of()

    def mark(session):
        def execute(statement):
            found = session.execute(statement)
            first = found.scalar() if statement.is_select else None
            session.execute(update(models.RSEFileAssociation).where(models.RSEFileAssociation.name == 'loose/cached').values(lock_cnt=1))
            return SimpleNamespace(scalar=lambda: first)

        removal._mark(one.subtree, ['loose/cached'], SimpleNamespace(execute=execute))

    one.write(mark)
    assert not twins.rows(models.RSEFileAssociation, state=ReplicaState.BEING_DELETED)


def test_what_is_locked_again_or_on_another_rse_is_not_deleted(twins):
    one = twins.of()
    names = ['run1/file', 'loose/cached', 'there/file']
    assert one.write(lambda session: removal._delete_replicas(one.subtree, models.RSEFileAssociation.name.in_(names), session)) == 1
    assert {row.name for name in names for row in twins.rows(models.RSEFileAssociation, name=name, scope=one.scope)} == {'run1/file', 'there/file'}


def test_objects_that_cannot_be_deleted_keep_their_replicas(twins, s3, monkeypatch):
    """They are neither read nor locked from then on, and a second run deletes them."""
    one = twins.of()

    def delete_many(_, targets):
        deleted = [each for each in targets if each.key != 'run1/file' and s3.buckets[each.bucket].pop(each.key)]
        return {each: None if each in deleted else ServiceUnavailable('It is refused.') for each in targets}

    monkeypatch.setattr(removal.objects, 'delete_many', delete_many)
    with pytest.raises(ServiceUnavailable, match='It is refused'):
        remove(one, 'run1')
    (left,) = [row for row in twins.rows(models.RSEFileAssociation, scope=one.scope, rse_id=one.rse_id) if row.name.startswith('run1/')]
    assert (left.name, left.state) == ('run1/file', ReplicaState.BEING_DELETED)


def test_which_collections_can_go(twins):
    every = [twins.of(vo, owner) for vo in VOS for owner in OWNERS]

    def states(name):
        return [each.read(lambda session, each=each: removal._state(each.subtree, name, session)) for each in every]

    for each in every:
        for name in ('c', 'd'):
            each.write(did.add_did, each.scope, name, DIDType.DATASET, each.account)
    assert states('lone') == ['used'] * 4, 'a file is not one'
    assert states('all') == states('run11') == ['used'] * 4
    assert states('c') == ['unused'] * 4
    assert states('nothing') == ['erased'] * 4
    for place, each in enumerate(every):
        twins.change(models.DataIdentifier, {'scope': each.scope, 'name': 'c'}, expired_at=PAST)
        assert states('c') == ['used' if at == place else 'unused' for at in range(4)]
        twins.change(models.DataIdentifier, {'scope': each.scope, 'name': 'c'}, expired_at=None)
    for place, each in enumerate(every):
        with twins.writing() as session:
            session.query(models.DataIdentifier).filter_by(scope=each.scope, name='d').delete()
        assert states('d') == ['erased' if at <= place else 'unused' for at in range(4)]


def test_what_everybody_may_read_of_a_bucket_is_withdrawn_for_its_collections(twins, monkeypatch):
    one, asked = twins.of(), []
    rules = twins.rows(models.ReplicationRule, scope=one.scope, rse_expression='TWIN_A')
    monkeypatch.setattr(publishing, 'withdraw', lambda scope, name: asked.append((scope, name)) or {})
    remove(one)
    assert {scope for scope, _ in asked} == {one.scope}
    assert [name for _, name in asked] == sorted(row.name for row in rules)


def test_without_force_the_rules_of_the_name_alone_go(twins):
    one = twins.of()
    with twins.writing() as session:
        did.add_did(one.scope, 'c', DIDType.DATASET, one.account, session=session)
    add_rule(one, 'c')
    add_rule(one, 'c', twins.of(owner='bob').account)
    one.write(grants.add_grant, one.scope, 'c', 'bob', False, 'alice')
    assert remove(one, 'c', force=False) == {'rules': 1, 'objects': 0, 'replicas': 0, 'datasets': 0, 'bucket': False}
    assert len(twins.rows(Grant, name='c')) == 1, 'what is still used is still shared'
    twins.change(models.ReplicationRule, {'name': 'c'}, account=one.account)
    assert remove(one, 'c', force=False) == {'rules': 1, 'objects': 0, 'replicas': 0, 'datasets': 1, 'bucket': False}
    assert twins.rows(Grant, name='c') == []
    assert one.read(did.get_did, one.scope, 'c')['expired_at'] <= datetime.now(timezone.utc).replace(tzinfo=None), 'at once'
    # What ends already is not ended again.
    twins.change(models.DataIdentifier, {'name': 'c'}, expired_at=PAST)
    assert remove(one, 'c', force=False)['datasets'] == 0
    assert one.read(did.get_did, one.scope, 'c')['expired_at'] == PAST


@pytest.mark.parametrize('closed', [False, True])
def test_what_is_removed_is_neither_public_nor_shared(twins, s3, closed):
    """On any RSE; not even a dataset that is gone with its last file."""
    every = [twins.of(vo, owner) for vo in VOS for owner in OWNERS]
    for each in every:
        publishing.publish([each.storage, twins.of(each.storage.vo, each.account.external, 'TWIN_B').storage], each.scope, 'run11', 'alice')
        each.write(grants.add_grant, each.scope, 'run11', 'bob', False, 'alice')
        if closed:
            each.write(did.set_status, each.scope, 'run11', open=False)
    policies = dict(s3.policies)
    assert len(policies) == 8
    remove(every[0], 'run11')
    assert {bucket: policy for bucket, policy in policies.items() if s3.policies.get(bucket) != policy}.keys() == {'user.alice', 'b.user.alice'}
    assert 'run11' not in repr(s3.policies.get('user.alice'))
    assert {row.scope for row in twins.rows(Grant, name='run11')} == {each.scope for each in every[1:]}


def test_a_storage_that_does_not_answer_is_named(twins, s3, caplog):
    one = twins.of()
    publishing.publish([one.storage], one.scope, 'run11', 'alice')
    s3.fail('DeleteBucketPolicy', *[error(403, 'AccessDenied')] * 5)
    s3.fail('PutBucketPolicy', *[error(403, 'AccessDenied')] * 5)
    assert remove(one, 'run11')['datasets'] == 1
    assert 'user.alice:run11 may still be public on RSE TWIN_A' in caplog.text


def test_uploads_below_the_collection_are_aborted(twins, s3):
    one = twins.of()
    for name in ('one', 'two', 'other'):
        one.storage.connection().client.create_multipart_upload(Bucket=one.subtree.bucket, Key=f'{"run11" if name != "other" else "run1"}/{name}')
    remove(one, 'run11')
    assert [each.key for each in s3.uploads.values()] == ['run1/other']
    s3.fail('ListMultipartUploads', error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied, match=r"RSE TWIN_A: remove-bucket of bucket 'user\.alice', key 'loose/'"):
        remove(one, 'loose')
    s3.fail('ListMultipartUploads', error(404, 'NoSuchUpload'))  # as rclone says it
    assert remove(one, 'loose')['objects'] == 2


@pytest.mark.parametrize(('status', 'code'), [(405, 'MethodNotAllowed'), (501, 'NotImplemented')])
def test_a_storage_that_lists_no_uploads(twins, s3, status, code):
    s3.fail('ListMultipartUploads', *[error(status, code)] * 5)
    assert remove(twins.of())['bucket']


@pytest.mark.parametrize('versions', ['<Version><Key>a</Key></Version>', '<DeleteMarker><Key>a</Key></DeleteMarker>'])
def test_a_bucket_with_old_versions_stays(twins, s3, versions):
    one = twins.of()
    s3.versions = versions
    with pytest.raises(UnsupportedOperation, match='was not removed, as it is not empty'):
        remove(one)
    assert 'user.alice' in s3.buckets
    assert 'DeleteBucket' not in s3.operations()
    s3.fail('ListObjectVersions', error(501, 'NotImplemented'))
    assert remove(one)['bucket']
    assert 'user.alice' not in s3.buckets


@pytest.mark.parametrize(('name', 'answer'), [('', 'NoSuchBucket'), ('nothing', 'BucketNotEmpty')])
def test_a_bucket_that_somebody_else_was_faster_with(twins, s3, name, answer):
    one = twins.of()
    remove(one, 'shared')
    for each in ('run1', 'run11', 'loose'):
        remove(one, each)
    if not name:
        remove(one)
    s3.make_bucket('user.alice')
    s3.fail('DeleteBucket', error(404 if answer == 'NoSuchBucket' else 409, answer))
    assert not remove(one, name)['bucket']


def test_a_bucket_of_all_scopes_stays(twins, s3, monkeypatch):
    one = twins.of()
    monkeypatch.setattr(type(one.storage.layout), 'common_bucket', 'user.alice')
    assert not removal._remove_bucket(one.subtree)
    assert 'user.alice' in s3.buckets


def test_a_bucket_with_objects_stays(twins, s3):
    one = twins.of()
    assert removal._remove_bucket(one_below(one, 'run1')) is False
    with pytest.raises(UnsupportedOperation, match='another client has just written to it'):
        removal._remove_bucket(one.subtree)
    assert 'DeleteBucket' not in s3.operations()
    s3.fail('DeleteBucket', error(403, 'AccessDenied'))
    s3.buckets['user.alice'].clear()
    with pytest.raises(RSEAccessDenied, match=r"RSE TWIN_A: remove-bucket of bucket 'user\.alice'"):
        removal._remove_bucket(one.subtree)


def test_an_empty_bucket_stays_while_the_catalogue_has_more_of_the_scope(twins, s3):
    one = twins.of()
    s3.buckets['user.alice'].clear()
    found = removal.remove(one.storage, one.account, one.scope, 'run1', True)
    assert (found['rse'], found['bucket'], found['removed']['bucket']) == ('TWIN_A', 'user.alice', False)
    assert 'user.alice' in s3.buckets


def test_without_a_bucket_there_is_nothing_to_do(twins, s3):
    one = twins.of()
    del s3.buckets['user.alice']
    assert remove(one) == {'rules': 5, 'objects': 0, 'replicas': 9, 'datasets': 1, 'bucket': False}


def test_replicas_without_objects_are_deleted_however_many(twins, s3, monkeypatch):
    one = twins.of()
    monkeypatch.setattr(removal, 'BATCH_SIZE', 3)
    s3.buckets['user.alice'].clear()
    assert remove(one)['replicas'] == 9
    assert twins.rows(models.RSEFileAssociation, scope=one.scope, rse_id=one.rse_id) == []


def test_what_takes_too_long_is_continued(twins, monkeypatch):
    one = twins.of()
    assert 30 <= removal.MAX_SECONDS <= 120
    monkeypatch.setattr(removal, 'MAX_SECONDS', -1)
    found = removal.remove(one.storage, one.account, one.scope, '', True)
    assert (found['finished'], found['removed']['objects'], found['removed']['bucket'], found['removed']['datasets']) == (False, 0, False, 0)
    monkeypatch.setattr(removal, 'MAX_SECONDS', 60)
    monkeypatch.setattr(removal, 'BATCH_SIZE', 2)
    found = removal.remove(one.storage, one.account, one.scope, '', True)
    assert (found['finished'], found['removed']['objects'], found['removed']['replicas'], found['removed']['bucket']) == (True, 9, 9, True)


def test_replicas_without_objects_take_no_longer_either(twins, s3, monkeypatch):
    one, now = twins.of(), iter([0, 60, 61])
    monkeypatch.setattr(removal, 'BATCH_SIZE', 3)
    monkeypatch.setattr(removal, 'time', SimpleNamespace(monotonic=lambda: next(now)))
    s3.buckets['user.alice'].clear()
    assert removal._empty(one.subtree) == (0, 3, False)
    monkeypatch.setattr(removal, 'time', SimpleNamespace(monotonic=lambda: 0))
    monkeypatch.setattr(removal, 'MAX_SECONDS', 0)
    s3.store('user.alice', 'a', b'')
    assert removal._empty(one.subtree) == (1, 2, True), 'what takes no time is done'


def test_objects_that_all_are_refused(twins, monkeypatch):
    one = twins.of()
    refused = {name: ServiceUnavailable(name) for name in ('a', 'b')}
    monkeypatch.setattr(removal.objects, 'delete_many', lambda _, targets: {target: refused.get(target.key) for target in targets})
    with pytest.raises(ServiceUnavailable, match='a'):
        removal._delete_objects(one.subtree, ['a', 'b'])
    assert removal._delete_objects(one.subtree, ['a', 'c']) == {'a': refused['a']}


@pytest.mark.parametrize('empty', [{}, {'KeyCount': 0}])
def test_a_bucket_is_not_removed_for_a_listing_that_is_none(empty):
    """SeaweedFS deletes the objects with it."""
    storage = SimpleNamespace(list_objects_v2=lambda **_: empty, list_object_versions=lambda **_: {'IsTruncated': False})
    with pytest.raises(UnreadableAnswerError, match='whether it is complete'):
        removal._holds_something(storage, 'user.alice')
    storage.list_objects_v2 = lambda **_: {'IsTruncated': False}
    assert not removal._holds_something(storage, 'user.alice')
