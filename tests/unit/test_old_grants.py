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

"""Grants that an earlier version kept in metadata, of each of two VOs and scopes with the same names. The command: test_s3_database.py."""

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.core.s3.auth import grants, old_grants
from rucio.db.sqla import models
from rucio.db.sqla.constants import DIDType
from servers.twins import OWNERS, VOS


@pytest.fixture
def every(twins):
    """Alice and bob of each VO share `run1` and `odd`, which is a file of alice's and a dataset of bob's, as root has noted."""
    found = [twins.of(vo, owner) for vo in VOS for owner in OWNERS]
    with twins.writing() as session:
        for one in found:
            kind = DIDType.FILE if one.account.external == 'alice' else DIDType.DATASET
            session.add(models.DataIdentifier(scope=one.scope, name='odd', account=one.account, did_type=kind))
            session.flush()
            for name in ('run1', 'odd'):
                notes = {'campaign': 'mc23', 's3_grants': {grantee: {'write': False, 'by': 'root'} for grantee in ('alice', 'bob')}}
                session.add(models.DidMeta(scope=one.scope, name=name, meta=old_grants.as_column(notes, session)))
    return found


def test_each_is_one_of_its_scope(every):
    listed = every[0].read(old_grants.list_old)
    assert len(listed) == 16
    assert {(old.name, old.doubt) for old in listed if 'alice' in str(old.scope)} == {('run1', ''), ('odd', 'it is a file')}
    assert {(old.name, old.doubt) for old in listed if 'bob' in str(old.scope)} == {('run1', ''), ('odd', '')}
    assert {(old.write, old.by, old.at) for old in listed} == {(False, 'root', '')}


@pytest.mark.parametrize('act', [old_grants.take_over, old_grants.drop])
def test_one_is_moved_or_dropped(twins, every, act):
    one = every[0]
    before, (old,) = twins.everything(), [old for old in one.read(old_grants.list_old) if (old.scope, old.name, old.account) == (one.scope, 'run1', 'bob')]
    one.write(grants.delete_grants, one.scope, 'run1', 'bob')
    one.write(act, old)
    changed = before ^ twins.everything()
    assert {(dict(row)['scope'], dict(row)['name']) for _, *row in changed} == {(one.scope, 'run1')}
    assert [each for each in one.read(old_grants.list_old) if each.scope == one.scope and each.name == 'run1'] == [old._replace(account='alice')]
    assert {grant.by for grant in one.read(grants.list_grants, one.scope, 'run1') if grant.account == 'bob'} == (
        {'root'} if act is old_grants.take_over else set()
    )
