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


from contextlib import nullcontext
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import ConfigurationError
from rucio.common.s3 import api, monitoring
from rucio.core.s3.reconciler.progress import Round
from rucio.gateway import s3health

A, B = monitoring.RSE('A_S3', 'a'), monitoring.RSE('B_S3', 'b')


@pytest.fixture(autouse=True)
def site(monkeypatch):
    """Two RSEs, and one whose settings are invalid."""

    def list_storages(vo, *, session, invalid):
        invalid['C_S3'] = ConfigurationError('RSE C_S3: the region is none.')
        return [SimpleNamespace(rse=each.name, rse_id=each.id) for each in (B, A)]

    rounds = {'a': {1: Round(1000, 2000), 2: Round(1500)}, 'b': {}}
    monkeypatch.setattr(monitoring, '_observed', {})
    monkeypatch.setattr(s3health.storages, 'list_storages', list_storages)
    monkeypatch.setattr(s3health.progress, 'read_rounds', lambda storage, **_: rounds[storage.rse_id])
    monkeypatch.setattr(s3health, 'db_session', lambda _: nullcontext())
    monkeypatch.setattr(s3health.access, 'is_admin', lambda account, **_: account.external == 'root')


def states():
    return {each['rse']: each['state'] for each in s3health.list_health('def', session=None)}


def test_a_storage_is_as_its_last_answer_was():
    assert states() == {'A_S3': 'unknown', 'B_S3': 'unknown', 'C_S3': 'invalid'}
    monitoring._change(A, answered=1000.0)
    monitoring._change(B, failed=1000.0, failure='refused (s3, 403)')
    assert states() == {'A_S3': 'ok', 'B_S3': 'failing', 'C_S3': 'invalid'}
    monitoring._change(A, failed=1001.0)
    monitoring._change(B, answered=1001.0)
    assert states() == {'A_S3': 'failing', 'B_S3': 'ok', 'C_S3': 'invalid'}
    monitoring.silence(B, 'sts', silent=True)
    assert states() == {'A_S3': 'failing', 'B_S3': 'silent', 'C_S3': 'invalid'}
    monitoring.silence(B, 'sts', silent=False)
    assert states()['B_S3'] == 'ok'


def test_what_is_told_of_each():
    monitoring._change(A, answered=0.0, failed=1.0, failure='failed (s3, 500)', failure_id='tx1', vended=2.0)
    told, _, invalid = s3health.list_health('def', session=None)
    assert told == {
        'rse': 'A_S3',
        'state': 'failing',
        'silent': [],
        'answered': '1970-01-01T00:00:00Z',
        'failed': '1970-01-01T00:00:01Z',
        'failure': 'failed (s3, 500)',
        'failure_id': 'tx1',
        'vended': '1970-01-01T00:00:02Z',
        'waiting_since': '1970-01-01T00:25:00Z',  # the running round, as it is longer since the start of that
    }
    assert invalid['failure'] == 'RSE C_S3: the region is none.'


def test_others_than_admins_see_no_rse():
    monitoring.silence(A, 's3', silent=True)
    for issuer in ('', 'alice'):
        assert s3health.get_health(api.GetHealth(), issuer) == {'status': 'degraded', 'version': api.version()}
    assert [each['rse'] for each in s3health.get_health(api.GetHealth(), 'root')['storages']] == ['A_S3', 'B_S3', 'C_S3']
    monitoring.silence(A, 's3', silent=False)
    assert s3health.get_health(api.GetHealth(), '')['status'] == 'ok'


def test_without_a_token_the_database_is_not_asked(monkeypatch):
    """Or anybody could keep it busy."""
    monkeypatch.setattr(s3health, 'db_session', lambda _: 1 / 0)
    assert s3health.get_health(api.GetHealth(), '')['status'] == 'ok'
