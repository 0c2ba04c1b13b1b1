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

"""Buckets with object lock: what a storage says, and for how long it counts."""

from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from botocore.exceptions import ClientError

from rucio.common.exception import RSEAccessDenied
from rucio.core.s3.buckets import object_lock


class Storage:
    """Answers with these, one after the other: a setting, or a code and a status."""

    def __init__(self, *answers, rse_id='a'):
        self.rse, self.rse_id, self.answers, self.asked = 'X', rse_id, list(answers), []

    def connection(self, _):
        return SimpleNamespace(client=self)

    def get_object_lock_configuration(self, Bucket):  # noqa: N803 - boto3's
        self.asked.append(Bucket)
        answer = self.answers.pop(0)
        if isinstance(answer, tuple):
            raise ClientError({'Error': {'Code': answer[0]}, 'ResponseMetadata': {'HTTPStatusCode': answer[1]}}, 'GetObjectLockConfiguration')
        return answer


@pytest.fixture(autouse=True)
def _nothing_known():
    object_lock.forget()
    yield
    object_lock.forget()


ENABLED = {'ObjectLockConfiguration': {'ObjectLockEnabled': 'Enabled'}}


@pytest.mark.parametrize(
    ('answer', 'enabled'),
    [
        (ENABLED, True),
        ({'ObjectLockConfiguration': {'ObjectLockEnabled': 'Disabled'}}, False),
        ({'ObjectLockConfiguration': {}}, False),
        ({}, False),
        *[((code, 400), False) for code in ('ObjectLockConfigurationNotFoundError', 'NoSuchObjectLockConfiguration', 'NoSuchBucket')],
        *[((code, 400), False) for code in ('NotImplemented', 'MethodNotAllowed')],
        *[(('Whatever', status), False) for status in (404, 405, 501)],
    ],
)
def test_what_a_storage_says(answer, enabled):
    assert object_lock.is_enabled(Storage(answer), 'b') is enabled


def test_what_a_storage_does_not_say_is_not_taken_for_a_no():
    storage = Storage(('AccessDenied', 403), ENABLED)
    with pytest.raises(RSEAccessDenied, match="RSE X: sign of bucket 'b'"):
        object_lock.is_enabled(storage, 'b')
    assert object_lock.is_enabled(storage, 'b')


def test_each_bucket_of_each_rse_is_asked_once_in_a_while(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(object_lock.time, 'monotonic', lambda: now)
    one, other = Storage(ENABLED, {}, ENABLED, {}, {}), Storage({}, rse_id='b')
    assert object_lock.is_enabled(one, 'b')
    assert not object_lock.is_enabled(other, 'b'), 'a bucket of the same name'
    assert not object_lock.is_enabled(one, 'c')
    for later, count in ((0, 2), (599, 2), (600, 3), (601, 3), (1200, 4)):
        now = 1000.0 + later
        assert object_lock.is_enabled(one, 'b') is (later < 1200)
        assert len(one.asked) == count
    object_lock.forget()
    object_lock.is_enabled(one, 'b')
    assert (one.asked, other.asked) == (['b', 'c', 'b', 'b', 'b'], ['b'])


def test_not_more_than_some_are_remembered(monkeypatch):
    assert 1000 <= object_lock.MAX_CACHED <= 100_000
    monkeypatch.setattr(object_lock, 'MAX_CACHED', 2)
    storage = Storage(*[ENABLED] * 9)
    for name in ('a', 'b', 'c', 'b', 'c', 'a'):
        object_lock.is_enabled(storage, name)
    assert storage.asked == ['a', 'b', 'c', 'a'], 'the oldest one is forgotten'
