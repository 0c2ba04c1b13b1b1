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

"""An account loses a scope, by ``rucio.core.scope.update_scope``, and goes on to ask for signatures and keys.

What it already has is valid for longer; the server gives it nothing more after :data:`.access.OWNER_SECONDS`.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
import sqlalchemy.orm

from rucio.common.exception import AccessDenied
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import permission
from rucio.core.s3 import recent
from rucio.core.s3.auth import access, grants, objects, shared_keys
from rucio.core.scope import update_scope
from rucio.db.sqla import models, s3
from rucio.db.sqla.constants import AccountStatus, AccountType, DIDType

SCOPE = InternalScope('user.alice')
ALICE, MALLORY = InternalAccount('alice'), InternalAccount('mallory')
KEY = ('user.alice', 'run1/file')


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(recent, 'monotonic', lambda: now[0])
    monkeypatch.setattr(access, '_owners', recent.Recent(access.OWNER_SECONDS))
    return now


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> 'Iterator[sqlalchemy.orm.Session]':
    """Mallory still owns the scope of alice."""
    monkeypatch.setattr(permission, 'permission_modules', {'def': SimpleNamespace()})
    monkeypatch.setattr(shared_keys, 'neighbours', lambda *_, **__: [])
    engine = sqlalchemy.create_engine('sqlite://')
    kinds: tuple[Any, ...] = (models.VO, models.Account, models.AccountAttrAssociation, models.Scope, models.DataIdentifier)
    models.BASE.metadata.create_all(engine, tables=[kind.__table__ for kind in kinds])
    s3.S3Base.metadata.create_all(engine)
    with sqlalchemy.orm.Session(engine) as session:
        session.add(models.VO(vo='def', description='', email=''))
        for account in (ALICE, MALLORY):
            session.add(models.Account(account=account, account_type=AccountType.USER, status=AccountStatus.ACTIVE))
        session.add(models.Scope(scope=SCOPE, account=MALLORY))
        session.add(models.DataIdentifier(scope=SCOPE, name='run1', account=MALLORY, did_type=DIDType.DATASET))
        session.flush()
        yield session


LAYOUT = SimpleNamespace(deterministic=True, dids_of=lambda bucket, key: [(bucket, key)], may_have=lambda _: True, place_of=lambda scope, name: (scope, name))
STORAGE: Any = SimpleNamespace(rse='X', vo='def', layout=LAYOUT)


def signed(account: InternalAccount, session: Any) -> bool:
    """As each request to sign is decided."""
    return objects.may(STORAGE, account, *KEY, True, session=session, known={})


def has_keys(account: InternalAccount, session: Any) -> bool:
    """As each request for keys is decided."""
    try:
        return bool(objects.covering(STORAGE, account, *KEY, True, session=session, known={}))
    except AccessDenied:
        return False


@pytest.mark.parametrize('ask', [signed, has_keys])
def test_nothing_after_the_stated_seconds(session: Any, clock: list[float], ask: Any) -> None:
    """He asks again and again, so that what is remembered of him is never old."""
    assert ask(MALLORY, session)
    update_scope(SCOPE, ALICE, session=session)
    assert ask(ALICE, session)
    for _ in range(access.OWNER_SECONDS * 2 - 1):
        clock[0] += 0.5
        ask(MALLORY, session)
    clock[0] += 0.5
    assert not ask(MALLORY, session)
    assert ask(ALICE, session)
    assert access.OWNER_SECONDS <= 10


def test_what_else_owners_do_ends_at_once(session: Any, clock: list[float]) -> None:
    assert signed(MALLORY, session)
    update_scope(SCOPE, ALICE, session=session)
    assert not access.may(MALLORY, SCOPE, '', True, session=session)


@pytest.mark.parametrize('ask', [signed, has_keys])
def test_grants_and_admins_end_at_once(session: Any, clock: list[float], ask: Any) -> None:
    """Nobody but an owner is remembered; nor that somebody was none."""
    update_scope(SCOPE, ALICE, session=session)
    grants.add_grant(SCOPE, 'run1', 'mallory', True, 'alice', session=session)
    assert signed(MALLORY, session)
    grants.delete_grants(SCOPE, 'run1', session=session)
    assert not ask(MALLORY, session)
    admin = models.AccountAttrAssociation(account=MALLORY, key='admin', value='true')
    session.add(admin)
    session.flush()
    assert ask(MALLORY, session)
    session.delete(admin)
    session.flush()
    assert not ask(MALLORY, session)
    update_scope(SCOPE, MALLORY, session=session)
    assert ask(MALLORY, session)
