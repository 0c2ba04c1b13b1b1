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


"""Vending: which policy, for how long, how often the STS is asked, and what is said when it refuses."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import (
    InputValidationError,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RSEOperationNotSupported,
    ServiceUnavailable,
    SourceNotFound,
)
from rucio.common.s3 import clients, credentials
from rucio.common.s3.endpoint import Endpoint
from rucio.core.s3.auth import rates, vending
from servers.fake_sts import FakeSTS

ROLE = 'arn:aws:iam:::role/RucioVending'
BUCKET = 'user.alice'


@pytest.fixture
def sts(monkeypatch):
    monkeypatch.setattr(vending, '_slots', type(vending._slots)())
    monkeypatch.setattr(vending, '_clients', {})
    rates.reset()
    with FakeSTS() as server:
        yield server


@pytest.fixture
def storage(sts):
    """Call it for a storage whose STS is the fake."""

    def make(**settings):
        usual = {'rse': 'X', 'rse_id': 'abc123', 'url': 'http://127.0.0.1:9', 'sts_endpoint': sts.url, 'role_arn': ROLE, 'max_attempts': 1}
        usual['policy_capitals'] = True
        endpoint = Endpoint(**usual | settings)
        connection = clients.connect(endpoint, credentials.Static('SERVERKEY', 'hidden-key'))
        return SimpleNamespace(rse='X', rse_id='abc123', vo='def', endpoint=endpoint, region='us-east-1', connection=lambda _: connection)

    return make


def vend(storage, bucket=BUCKET, prefix='', write=False, lifetime=None, who='alice'):
    return vending.vend(storage, bucket, prefix, write, lifetime, who)


# Capitals


class Names:
    """What lies in a bucket, folder by folder; counts how often it was asked."""

    def __init__(self, monkeypatch, **folders):
        self.asked = []
        self.folders = {folder.replace('_', '/'): names for folder, names in folders.items()}
        monkeypatch.setattr(vending.objects, 'list_prefix', self)

    def __call__(self, client, place):
        self.asked.append(place.key)
        return (place.key + name for name in self.folders.get(place.key, ['a/', 'run1/', 'file']))


@pytest.mark.parametrize('prefix', ['run1/', 'a/run1/', 'a/run1/file', 'new/'])
def test_keys_are_vended_where_no_name_differs_in_capitals_only(storage, sts, monkeypatch, prefix):
    names = Names(monkeypatch)
    assert vend(storage(policy_capitals=False), prefix=prefix).prefix == prefix
    assert len(names.asked) == len([part for part in prefix.split('/') if part])
    vend(storage(policy_capitals=False), prefix=prefix)
    assert len(sts.requests) == 1
    assert len(names.asked) == len([part for part in prefix.split('/') if part])


@pytest.mark.parametrize(
    ('prefix', 'folders', 'other'),
    [
        ('run1/', {'': ['RUN1/', 'run1/']}, 'RUN1'),
        ('run1/', {'': ['Run1']}, 'Run1'),  # an object
        ('a/run1/', {'a_': ['rUN1/']}, 'a/rUN1'),
        ('a/run1/', {'': ['A/']}, 'A'),
        ('a/file', {'a_': ['FILE']}, 'a/FILE'),
        ('masse/', {'': ['ma\u00dfe/']}, 'ma\u00dfe'),
        ('kelvin/', {'': ['\u212aelvin/']}, '\u212aelvin'),
        ('run1/', {'': ['b', 'c', 'd', 'e']}, 'more than 4 names'),
    ],
)
def test_no_keys_where_they_would_be_for_another_name_as_well(storage, sts, monkeypatch, prefix, folders, other):
    monkeypatch.setattr(vending, 'MAX_NAMES', 4)
    Names(monkeypatch, **folders)
    with pytest.raises(RSEOperationNotSupported) as refused:
        vend(storage(policy_capitals=False), prefix=prefix)
    assert other in str(refused.value)
    assert not sts.requests


def test_a_bucket_that_is_not_there_yet_has_no_names(storage, monkeypatch):
    monkeypatch.setattr(vending.objects, 'list_prefix', mock.Mock(side_effect=SourceNotFound('no such bucket')))
    assert vend(storage(policy_capitals=False), prefix='run1/').prefix == 'run1/'


def test_all_of_a_bucket_and_storages_that_tell_capitals_cost_no_listing(storage, monkeypatch):
    names = Names(monkeypatch)
    vend(storage(policy_capitals=False))
    vend(storage(), prefix='run1/')
    assert not names.asked


# What is asked for


def test_the_keys_are_those_of_the_role_and_nobody_sees_them(storage, sts):
    keys = vend(storage(), prefix='run1/')
    assert (keys.access_key, keys.secret_key, keys.session_token) == ('KEY1', 'hidden-1', 'hidden-token-1')
    assert (keys.bucket, keys.prefix, keys.write) == (BUCKET, 'run1/', False)
    assert timedelta(seconds=3590) < keys.expiration - datetime.now(timezone.utc) <= timedelta(seconds=3600)
    assert 'hidden' not in f'{keys!r} {vending._slots!r}'
    assert 'KEY1' not in repr(keys)
    asked = sts.requests[0]
    assert (asked['Action'], asked['RoleArn'], asked['RoleSessionName']) == ('AssumeRole', ROLE, 'rucio-alice')
    assert 'Credential=SERVERKEY/' in asked['authorization']
    assert '/us-east-1/sts/aws4_request' in asked['authorization']


def test_the_sts_is_asked_with_nothing_of_the_users_own(storage, sts, monkeypatch):
    monkeypatch.setenv('AWS_ENDPOINT_URL_STS', 'http://127.0.0.1:9')
    monkeypatch.setenv('AWS_SESSION_TOKEN', 'of another')
    monkeypatch.setenv('AWS_PROFILE', 'missing')
    assert vend(storage()).access_key == 'KEY1'


@pytest.mark.parametrize(('asked', 'given'), [(None, 1800), (60, 900), (1000, 900), (1799, 900), (99_999, 1800), (-5, 900)])
def test_the_lifetime_is_bounded_by_the_configuration(storage, sts, asked, given):
    vend(storage(credentials_lifetime=1800), lifetime=asked)
    assert sts.requests[0]['DurationSeconds'] == str(given)


@pytest.mark.parametrize(
    ('who', 'name'), [('alice', 'rucio-alice'), ('a b/ü', 'rucio-a-b--'), ('x' * 100, 'rucio-' + 'x' * 58), ('a@vo=1,+.-_', 'rucio-a@vo=1,+.-_')]
)
def test_the_session_is_named_after_the_account(storage, sts, who, name):
    vend(storage(), who=who)
    assert sts.requests[0]['RoleSessionName'] == name


def test_there_are_few_lifetimes_and_each_has_its_keys(storage, sts):
    """Forty lifetimes made forty keys."""
    of = storage(credentials_lifetime=10_000)
    for lifetime in range(900, 40_900, 1000):
        vend(of, lifetime=lifetime)
    assert [int(each['DurationSeconds']) for each in sts.requests] == [900, 1800, 3600, 7200, 10_000]


def test_an_account_gets_so_many_new_keys_a_second(storage, sts, monkeypatch):
    monkeypatch.setattr(rates, 'monotonic', lambda: 0)
    of, burst = storage(), 10 * rates.BURST
    for number in range(burst):
        vend(of, prefix=f'{number}/')
    with pytest.raises(rates.TooManyRequests, match='Account alice exceeded its rate limit: the limit of new credentials is 10 per second') as caught:
        vend(of, prefix='more/')
    assert caught.value.seconds == 1
    assert vend(of, prefix='0/').access_key == 'KEY1', 'what is there is given'
    assert vend(of, prefix='more/', who='bob')
    assert len(sts.requests) == burst + 1


def test_without_a_role_nothing_is_vended(storage, sts):
    with pytest.raises(RSEOperationNotSupported, match=r'RSE X.*role_arn'):
        vend(storage(role_arn=None))
    assert not sts.requests


def test_no_keys_come_from_an_sts_on_a_network_where_others_listen(storage, sts):
    with pytest.raises(RSEOperationNotSupported, match=r'RSE X.*unencrypted.*sts_endpoint'):
        vend(storage(sts_endpoint=sts.url.replace('127.0.0.1', 'sts.example.org')))
    assert not sts.requests


# The policy


def statements(prefix, write):
    text = vending.session_policy('X', BUCKET, prefix, write)
    assert ' ' not in text  # Ceph takes no blanks
    policy = json.loads(text)
    assert policy == {'Version': '2012-10-17', 'Statement': policy['Statement']}, 'as AWS wants it for variables such as ${*}'
    return policy['Statement']


def test_a_bucket_may_be_read_and_listed():
    assert statements('', False) == [
        {'Effect': 'Allow', 'Action': ['s3:GetObject', 's3:GetObjectTagging'], 'Resource': ['arn:aws:s3:::user.alice/*']},
        {'Effect': 'Allow', 'Action': ['s3:ListBucket'], 'Resource': ['arn:aws:s3:::user.alice']},
        {'Effect': 'Allow', 'Action': ['s3:GetBucketLocation'], 'Resource': ['arn:aws:s3:::user.alice']},
    ]


def test_unfinished_uploads_are_listed_by_who_may_write_to_the_whole_bucket():
    assert statements('', True)[-1]['Action'] == ['s3:GetBucketLocation', 's3:ListBucketMultipartUploads']
    assert statements('run1/', True)[-1]['Action'] == ['s3:GetBucketLocation']


def test_a_part_may_be_listed_only_as_such():
    objects, listing, _ = statements('run1/', False)
    assert objects['Resource'] == ['arn:aws:s3:::user.alice/run1/*']
    assert listing['Condition'] == {'StringLike': {'s3:prefix': ['run1/*']}}


def test_keys_for_one_object_are_for_no_other_and_list_nothing():
    objects, location = json.loads(vending.session_policy('X', BUCKET, 'run1', False, exact=True))['Statement']
    assert objects == {'Effect': 'Allow', 'Action': ['s3:GetObject', 's3:GetObjectTagging'], 'Resource': ['arn:aws:s3:::user.alice/run1']}
    assert location['Action'] == ['s3:GetBucketLocation']


def test_writing_is_what_an_upload_and_a_deletion_need_and_no_more():
    assert statements('', True)[0]['Action'] == [
        's3:GetObject',
        's3:GetObjectTagging',
        's3:PutObject',
        's3:DeleteObject',
        's3:AbortMultipartUpload',
        's3:ListMultipartUploadParts',
    ]
    assert statements('run1', True)[1:] == statements('run1', False)[1:]


def test_what_a_policy_would_expand_stands_for_itself():
    objects, listing, _ = statements('a*b?c$d/', False)
    assert objects['Resource'] == ['arn:aws:s3:::user.alice/a${*}b${?}c${$}d/*']
    assert listing['Condition']['StringLike']['s3:prefix'] == ['a${*}b${?}c${$}d/*']


@pytest.mark.parametrize('bucket', ['', '*', 'user.*', 'a?b', 'a/b', '${aws:username}', 'a b', 'ü' * 5, '.', 'x\n'])
def test_a_bucket_that_could_stand_for_others_is_refused(storage, sts, bucket):
    with pytest.raises(InputValidationError, match='RSE X'):
        vend(storage(), bucket=bucket)
    assert not sts.requests


def test_a_policy_that_is_too_long_is_refused_here(storage, sts):
    assert len(vending.session_policy('X', 'b' * 63, 'k' * 500, True)) <= 2048  # Rucio's names have 250 characters
    with pytest.raises(InputValidationError, match='2048'):
        vend(storage(), prefix='k' * 1024)
    assert not sts.requests


# How often


def test_the_same_keys_are_given_while_more_than_half_of_their_life_is_left(storage, sts):
    assert vend(storage()) == vend(storage())
    assert len(sts.requests) == 1


def test_vends_are_counted_by_outcome(storage, sts, monkeypatch):
    seen = []
    monkeypatch.setattr(vending.monitoring, 'vended', lambda rse, outcome: seen.append((rse, outcome)))
    vend(storage())
    vend(storage())
    with pytest.raises(InputValidationError):
        vend(storage(), bucket='*')
    monkeypatch.setattr(vending, 'assume', mock.Mock(side_effect=ServiceUnavailable('nobody answers')))
    with pytest.raises(ServiceUnavailable):
        vend(storage(), prefix='third/')
    monkeypatch.setattr(vending.rates, 'spend', mock.Mock(side_effect=vending.rates.TooManyRequests('slowly', 1)))
    with pytest.raises(vending.rates.TooManyRequests):
        vend(storage(), prefix='other/')
    assert seen == [(('X', 'abc123'), outcome) for outcome in ('new', 'cached', 'impossible', 'failed', 'limited')]


def test_new_ones_are_got_when_half_of_their_life_is_over(storage, sts, monkeypatch):
    clock = SimpleNamespace(ahead=0, now=lambda tz: datetime.now(tz) + timedelta(seconds=clock.ahead))
    first = vend(storage())
    monkeypatch.setattr(vending, 'datetime', clock)
    clock.ahead = 1790
    assert vend(storage()) == first
    clock.ahead = 1810
    assert vend(storage()).access_key == 'KEY2'


def test_where_the_sts_gives_less_time_half_of_that_counts(storage, sts):
    sts.lifetime = 60
    assert vend(storage()).access_key == 'KEY1'
    slot = next(iter(vending._slots.values()))
    assert slot.renew_at <= slot.keys.expiration


def test_another_purpose_has_other_keys(storage, sts):
    usual = {'bucket': BUCKET, 'prefix': 'a/', 'write': False, 'lifetime': 1000, 'who': 'alice'}
    others = [{}, {'bucket': 'user.bob'}, {'prefix': 'b/'}, {'write': True}, {'lifetime': 2000}, {'who': 'bob'}]
    assert len({vend(storage(), **usual | other).access_key for other in others}) == len(sts.requests) == 6
    vend(storage(role_arn=f'{ROLE}2'), **usual)
    assert sts.requests[-1]['RoleArn'] == f'{ROLE}2'


def test_sixteen_who_ask_at_once_cause_one_request(storage, sts):
    sts.gate.clear()
    there = storage()
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(vend, there) for _ in range(16)]
        sts.reached.wait(30)
        sts.gate.set()
        assert len({each.result().access_key for each in asked}) == 1
    assert len(sts.requests) == 1


def test_who_waited_for_a_failure_shares_it(storage, sts, monkeypatch):
    """Each with a time-out of its own, one after the other, they would hold the threads of the server for minutes."""
    here, stock = threading.Semaphore(0), vending._CachedKeys

    class Door:
        """The lock of a slot, and who has come to it."""

        def __init__(self):
            self._lock = threading.Lock()

        def __enter__(self):
            here.release()
            self._lock.acquire()

        def __exit__(self, *_):
            self._lock.release()

    def slot():
        made = stock()
        made.lock = Door()
        return made

    monkeypatch.setattr(vending, '_CachedKeys', slot)
    sts.gate.clear()
    sts.failures = [(500, 'InternalFailure')] * 4
    there = storage()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(vend, there) for _ in range(4)]
        for _ in range(4):
            assert here.acquire(timeout=30)
        sts.gate.set()
        for each in asked:
            with pytest.raises(ServiceUnavailable, match='STS is running'):
                each.result()
    assert len(sts.requests) == 1
    sts.failures = []
    assert vend(there).access_key


def test_what_is_remembered_is_bounded(storage, sts, monkeypatch):
    monkeypatch.setattr(vending, 'MAX_CACHED_KEYS', 2)
    for who in ('a', 'b', 'c', 'a'):
        vend(storage(), who=who)
    assert len(vending._slots) == 2
    assert len(sts.requests) == 4


def test_a_refusal_is_not_remembered(storage, sts):
    sts.failures = [(403, 'AccessDenied')]
    with pytest.raises(RSEAccessDenied):
        vend(storage())
    assert vend(storage()).access_key == 'KEY2'


# What is said


@pytest.mark.parametrize(
    ('status', 'code', 'exception', 'words'),
    [
        (403, 'AccessDenied', RSEAccessDenied, 'trust policy'),
        (403, 'InvalidClientTokenId', RSEAccessDenied, 'rse-accounts.cfg'),
        (403, 'SignatureDoesNotMatch', RSEAccessDenied, 'rse-accounts.cfg'),
        (404, 'NoSuchEntity', RSEAccessDenied, 'no such role'),
        (400, 'ValidationError', RSEAccessDenied, 'credentials_lifetime'),
        (400, 'Whatever', RSEAccessDenied, 'sts_endpoint'),
        (503, 'SlowDown', ResourceTemporaryUnavailable, 'later'),
        (500, 'InternalFailure', ServiceUnavailable, 'STS is running'),
    ],
)
def test_a_refusal_names_the_rse_the_role_and_the_remedy(storage, sts, status, code, exception, words):
    sts.failures = [(status, code)]
    with pytest.raises(exception, match=words) as caught:
        vend(storage())
    assert 'RSE X' in str(caught.value)
    assert ROLE in str(caught.value)
    assert 'hidden' not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_sts_that_is_not_there_is_named(storage):
    with pytest.raises(ServiceUnavailable, match=r'http://127\.0\.0\.1:9.*sts_endpoint'):
        vend(storage(sts_endpoint='http://127.0.0.1:9'))


# Access that ends


@pytest.mark.parametrize(('minutes', 'seconds'), [(17, 900), (30, 900), (32, 1800), (60, 1800), (62, 3600), (600, 3600), (5_000_000, 3600)])
def test_no_keys_outlive_the_access(storage, sts, minutes, seconds):
    """Also those that are cached, when the owner brings the end forward."""
    end = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(minutes=minutes)
    vending.vend(storage(), BUCKET, 'run1/', False, None, 'bob')
    keys = vending.vend(storage(), BUCKET, 'run1/', False, None, 'bob', until=end)
    assert keys.expiration.replace(tzinfo=None) <= end
    assert sts.requests[-1]['DurationSeconds'] == str(seconds)
    assert len(sts.requests) == (1 if seconds == 3600 else 2)


@pytest.mark.parametrize('minutes', [-60, 0, 14, 15])
def test_access_that_ends_before_the_shortest_keys_is_by_signatures(storage, sts, minutes):
    end = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(minutes=minutes)
    with pytest.raises(RSEOperationNotSupported, match='keys live for at least 15 minutes'):
        vending.vend(storage(), BUCKET, 'run1/', False, None, 'bob', until=end)
    assert not sts.requests


def test_keys_that_a_storage_lets_live_longer_are_not_handed_out(storage, sts, monkeypatch):
    """An STS that does not care for the lifetime it is asked for."""
    end = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(minutes=20)
    real = vending.assume
    monkeypatch.setattr(vending, 'assume', lambda storage, policy, _, who: real(storage, policy, 3600, who))
    with pytest.raises(RSEOperationNotSupported, match='as the access ends at'):
        vending.vend(storage(), BUCKET, 'run1/', False, None, 'bob', until=end)


# To the second, to the character


@pytest.fixture
def now(monkeypatch):
    """The time stands still."""
    fixed = datetime.now(timezone.utc)
    monkeypatch.setattr(vending, 'datetime', SimpleNamespace(now=lambda _: fixed))
    return fixed


@pytest.fixture
def keys_until(monkeypatch):
    """Call it with a time: keys of the STS end then, whatever it was asked for. The seconds that it was asked for are the list."""
    asked = []

    def make(end):
        keys = vending.sts.TemporaryKeys('K', 's', 't', end)
        monkeypatch.setattr(vending, 'assume', lambda *arguments: asked.append(arguments[2]) or keys)
        return asked

    return make


def naive(moment):
    return moment.replace(tzinfo=None)


def test_access_has_to_last_a_minute_longer_than_the_shortest_keys(storage, now, keys_until):
    """For the clock of the storage."""
    asked = keys_until(now + timedelta(seconds=900))
    vending.vend(storage(), BUCKET, '', False, None, 'bob', until=naive(now + timedelta(seconds=960)))
    assert asked == [900]
    with pytest.raises(RSEOperationNotSupported, match='the access ends at'):
        vending.vend(storage(), BUCKET, '', False, None, 'bob', until=naive(now + timedelta(seconds=959)))


def test_keys_may_end_with_the_access_but_not_after_it(storage, now, keys_until):
    end = now + timedelta(hours=2)
    keys_until(end)
    assert vending.vend(storage(), BUCKET, '', False, None, 'bob', until=naive(end)).expiration == end
    with pytest.raises(RSEOperationNotSupported, match='the access ends at'):
        vending.vend(storage(), BUCKET, '', False, None, 'bob', until=naive(end - timedelta(seconds=1)))


def test_keys_are_renewed_when_half_of_their_life_is_over_to_the_second(storage, sts, monkeypatch):
    vend(storage())
    (slot,) = vending._slots.values()
    for earlier, key in ((1, 'KEY1'), (0, 'KEY2')):
        at = slot.renew_at - timedelta(seconds=earlier)
        monkeypatch.setattr(vending, 'datetime', SimpleNamespace(now=lambda _, at=at: at))
        assert vend(storage()).access_key == key


def test_lifetimes_up_to_twelve_hours(storage, sts):
    of = storage(credentials_lifetime=43_200)
    for lifetime in (14_399, 14_400, 28_799, 28_800, 43_199, 43_200, None):
        vend(of, lifetime=lifetime)
    assert [int(each['DurationSeconds']) for each in sts.requests] == [7200, 14_400, 28_800, 43_200]


def test_as_much_as_fits_into_a_policy(monkeypatch):
    usual = len(vending.session_policy('X', BUCKET, '', False, exact=True))
    longest = 'k' * (vending.MAX_POLICY_LENGTH - usual)
    assert len(vending.session_policy('X', BUCKET, longest, False, exact=True)) == vending.MAX_POLICY_LENGTH == 2048
    with pytest.raises(InputValidationError, match=r"RSE X: 'k{50}\.\.\.' is too long for a policy of 2048 characters"):
        vending.session_policy('X', BUCKET, f'{longest}k', False, exact=True)


def test_as_many_names_as_can_be_looked_at(storage, monkeypatch):
    monkeypatch.setattr(vending, 'MAX_NAMES', 4)
    Names(monkeypatch, **{'': ['b', 'c', 'd']})
    assert vend(storage(policy_capitals=False), prefix='run1/').prefix == 'run1/'


def test_what_was_not_asked_for_longest_is_forgotten(storage, sts, monkeypatch):
    monkeypatch.setattr(vending, 'MAX_CACHED_KEYS', 2)
    for who in ('a', 'b', 'a', 'c', 'a'):
        vend(storage(), who=who)
    assert [each['RoleSessionName'] for each in sts.requests] == ['rucio-a', 'rucio-b', 'rucio-c']


def test_keys_for_one_object_are_not_those_for_all_that_begins_with_its_name(storage, sts):
    for exact in (False, True, False):
        vending.vend(storage(), BUCKET, 'run1', False, None, 'alice', exact)
    assert [json.loads(each['Policy'])['Statement'][0]['Resource'][0].rpartition('/')[2] for each in sts.requests] == ['run1*', 'run1']
