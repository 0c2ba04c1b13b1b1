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


"""The settings of a bucket, and what those are told who watch one. A database in a file, no server."""

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from rucio.common.exception import ConfigurationError
from rucio.common.types import InternalAccount, InternalScope
from rucio.core.s3.buckets import bucket_settings
from rucio.core.s3.catalogue import changes
from rucio.db.sqla import models
from rucio.db.sqla import session as rucio_session
from rucio.db.sqla.constants import DIDType, ReplicaState

SCOPE = InternalScope('user.alice')
HERE, ELSEWHERE = 'a' * 32, 'b' * 32
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc).replace(tzinfo=None)  # as Rucio keeps its dates
TABLES = (models.Config, models.ConfigHistory, models.DataIdentifier, models.RSEFileAssociation, models.DataIdentifierAssociationHistory)
MEMBER = {'did_type': DIDType.DATASET, 'child_type': DIDType.FILE}


def after(seconds):
    return NOON + timedelta(seconds=seconds)


@pytest.fixture
def session(tmp_path, monkeypatch, rucio_cfg):
    rucio_cfg({'policy': {'permission': 'generic', 'schema': 'generic'}, 'cache': {'url': '127.0.0.1:1'}})
    engine = create_engine(f'sqlite:///{tmp_path}/rucio.db')
    models.BASE.metadata.create_all(engine, tables=[kind.__table__ for kind in TABLES])
    maker = sessionmaker(bind=engine)
    monkeypatch.setattr(rucio_session, '_ENGINE', engine)
    monkeypatch.setattr(rucio_session, '_MAKER', maker)
    with maker() as made:
        yield made
    engine.dispose()


# Settings


@pytest.fixture
def storage():
    return SimpleNamespace(rse='SITE_S3', rse_id=HERE, vo='def', endpoint=SimpleNamespace(on_changed='replace', on_missing='report'))


def get(storage, session, bucket='user.alice'):
    return tuple(bucket_settings.get(storage, bucket, session=session))


def test_settings_of_a_bucket_are_over_those_of_the_rse(storage, session):
    assert get(storage, session) == ('replace', 'report', ())
    bucket_settings.set_(storage, 'user.alice', on_missing='forget', session=session)
    assert get(storage, session) == ('replace', 'forget', ('on_missing',))
    assert tuple(bucket_settings.set_(storage, 'user.alice', 'bad', 'lost', session=session)) == ('bad', 'lost', ('on_changed', 'on_missing'))
    assert get(storage, session, 'user.bob') == ('replace', 'report', ())


def test_settings_are_taken_back(storage, session):
    bucket_settings.set_(storage, 'user.alice', 'bad', 'lost', session=session)
    assert tuple(bucket_settings.set_(storage, 'user.alice', on_changed='default', session=session)) == ('replace', 'lost', ('on_missing',))
    assert tuple(bucket_settings.set_(storage, 'user.alice', 'default', 'default', session=session)) == ('replace', 'report', ())


def test_another_vo_may_have_an_rse_and_a_bucket_of_the_same_name(storage, session):
    bucket_settings.set_(storage, 'user.alice', 'bad', session=session)
    assert get(SimpleNamespace(**vars(storage) | {'vo': 'oth'}), session)[0] == 'replace'


def test_what_an_operator_mistyped_in_the_table_is_no_guess(storage, session):
    session.add(models.Config(section='s3-bucket:SITE_S3:user.alice', opt='on_missing', value='forgt'))
    with pytest.raises(ConfigurationError, match=r"s3-bucket:SITE_S3:user.alice.*'forgt'.*report, forget, lost"):
        get(storage, session)


def test_what_others_keep_in_the_section_is_no_setting(storage, session):
    session.add(models.Config(section='s3-bucket:SITE_S3:user.alice', opt='import', value='{}'))
    assert get(storage, session) == ('replace', 'report', ())


# Changes


@pytest.fixture
def add(session):
    """Call it for a file: when it was made, and when its replica and its DID were last touched; seconds after noon."""

    def call(name, made, replica=None, did=None, accessed=None, state=ReplicaState.AVAILABLE, rse=HERE, scope=SCOPE):
        first, account = after(made), InternalAccount('alice')
        read = None if accessed is None else after(accessed)
        dates = {'created_at': first, 'updated_at': first if did is None else after(did), 'accessed_at': read}
        session.add(models.DataIdentifier(scope=scope, name=name, account=account, did_type=DIDType.FILE, bytes=5, **dates))
        dates = {'created_at': first, 'updated_at': first if replica is None else after(replica)}
        session.add(models.RSEFileAssociation(scope=scope, name=name, rse_id=rse, bytes=5, state=state, **dates))

    return call


@pytest.fixture
def leave(session):
    """Call it for a file that left a collection."""

    def call(name, at, collection='run1', child_scope=SCOPE, scope=SCOPE):
        dates = {'deleted_at': after(at)}
        session.add(models.DataIdentifierAssociationHistory(scope=scope, name=collection, child_scope=child_scope, child_name=name, bytes=6, **MEMBER, **dates))

    return call


@pytest.fixture
def told(session, storage):
    """Call it for what those are told who ask since noon."""

    def call(name='run1', since=0):
        session.flush()
        found = changes.list_changes(storage, SCOPE, name, after(since), session=session)
        assert all(each.bytes == (6 if each.change == 'removed' else 5) for each in found)
        return [((each.time - NOON).total_seconds(), each.change, each.name) for each in found]

    return call


def test_new_files_are_told_in_order(add, told):
    add('run1/b', 2)
    add('run1/a', 1)
    add('run1/before', -1)
    assert told() == [(1, 'registered', 'run1/a'), (2, 'registered', 'run1/b')]


def test_only_what_is_below_the_name_on_this_rse(add, leave, told):
    add('run1', 1)
    add('run12/a', 1)
    add('run1/elsewhere', 1, rse=ELSEWHERE)
    add('run1/of-another-scope', 1, scope=InternalScope('user.bob'))
    add('run1/a_b', 1)
    leave('run12/gone', 1)
    leave('run1/of-another-scope', 1, child_scope=InternalScope('user.bob'))
    leave('run1/of-another-collection', 1, scope=InternalScope('user.bob'))
    assert told() == [(1, 'registered', 'run1/a_b')]
    assert told('run1/a%b') == told('run_') == told('run%') == []
    assert {name for _, _, name in told('')} == {'run1', 'run12/a', 'run12/gone', 'run1/a_b'}


def test_a_lock_and_a_download_are_no_change(add, told):
    add('run1/locked', -100, replica=1)
    add('run1/read', -100, replica=1, did=1.5, accessed=1.5)
    add('run1/described', -100, did=1)
    add('run1/changed-before', -100, replica=1, did=-50)
    assert told() == []


def test_dates_may_be_rounded_by_a_second(add, told):
    """The database may do so with one of them, and not with the other."""
    add('run1/made', -0.5, replica=0.5, did=0.5)
    add('run1/read', -100, replica=2, did=2, accessed=3)
    add('run1/read-before', -100, replica=2, did=2, accessed=1)
    assert told() == []
    add('run1/after', -100, replica=2, did=3)
    add('run1/at-noon', -100, replica=0, did=0)
    add('run1/read-earlier', -100, replica=4, did=4, accessed=2.5)
    add('run1/read-later', -100, replica=4, did=4, accessed=5.5)
    add('run1/not-yet', -100, replica=2, did=3.5)
    assert told() == [(0, 'updated', 'run1/at-noon'), (3, 'updated', 'run1/after'), (4, 'updated', 'run1/read-earlier'), (4, 'updated', 'run1/read-later')]


def test_new_content_is_told_also_after_a_lock(add, told):
    add('run1/a', -100, replica=1, did=1)
    add('run1/b', -100, replica=50, did=2)
    add('run1/new-and-then-changed', 3, replica=9, did=9)
    assert told() == [
        (1, 'updated', 'run1/a'),
        (2, 'updated', 'run1/b'),
        (3, 'registered', 'run1/new-and-then-changed'),
        (9, 'updated', 'run1/new-and-then-changed'),
    ]


@pytest.mark.parametrize(
    ('state', 'change'),
    [
        (ReplicaState.BAD, 'bad'),
        (ReplicaState.COPYING, 'registered'),
        (ReplicaState.BEING_DELETED, None),
        (ReplicaState.UNAVAILABLE, None),
    ],
)
def test_states(add, told, state, change):
    add('run1/a', 1, state=state)
    assert told() == ([(1, change, 'run1/a')] if change else [])


def test_what_left_all_collections_and_the_rse_is_removed_once(add, leave, told):
    leave('run1/a', 4, collection='more')
    leave('run1/a', 1)
    leave('run1/a', 2, collection='other')
    leave('run1/at-noon', 0)
    leave('run1/before', -1)
    add('run1/still', -1)
    add('run1/a', -1, scope=InternalScope('user.bob'))
    add('run1/b', -1, rse=ELSEWHERE)
    leave('run1/b', 3)
    leave('run1/still', 2)
    assert told() == [(0, 'removed', 'run1/at-noon'), (1, 'removed', 'run1/a'), (3, 'removed', 'run1/b')]


def test_an_answer_is_bounded(add, leave, told, monkeypatch):
    monkeypatch.setattr(changes, 'MAX_CHANGES', 3)
    for number in (14, 11, 10, 13, 12):
        leave(f'run1/{number}', number)
    assert [at for at, _, _ in told()] == [10, 11, 12]
    for number in (4, 1, 0, 3, 2):
        add(f'run1/{number}', number)
    assert [at for at, _, _ in told()] == [0, 1, 2]
    assert [at for at, _, _ in told(since=2)] == [2, 3, 4]
