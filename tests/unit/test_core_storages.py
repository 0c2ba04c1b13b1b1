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

"""Where DIDs lie on the storages that the server knows, and of which DID a key is. No server, no database."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from rucio.common.exception import (
    AccessDenied,
    InvalidObject,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSENotFound,
    RSEOperationNotSupported,
    ServiceUnavailable,
)
from rucio.common.s3 import clients, layout
from rucio.common.s3.credentials import Static
from rucio.common.s3.endpoint import SERVER, Endpoint
from rucio.common.s3.settings import Secrets
from rucio.core.s3 import storages
from rucio.core.s3.buckets import lookup
from servers.fake_s3 import Answer, FakeS3, Stalled


def storage(algorithm='s3_bucket', prefix='/', deterministic=True, **endpoint):
    domain = {'read': 1, 'write': 1, 'delete': 1}
    settings = {'s3': {'bucket_prefix': endpoint['bucket_prefix']}} if 'bucket_prefix' in endpoint else {}
    protocol = {
        'scheme': 'https',
        'hostname': 's3.example.org',
        'port': 443,
        'prefix': prefix,
        'impl': 'rucio.rse.protocols.s3.Default',
        'domains': {'wan': domain, 'lan': domain},
        'extended_attributes': settings,
    }
    rse = {'rse': 'SITE_S3', 'id': 'a' * 32, 'deterministic': deterministic, 'lfn2pfn_algorithm': algorithm, 'protocols': [protocol]}
    return storages.Storage('SITE_S3', 'a' * 32, 'def', Endpoint('SITE_S3', 'a' * 32, 'https://s3.example.org', **endpoint), rse, protocol)


@pytest.mark.parametrize(
    ('of', 'did', 'place'),
    [
        (storage(), ('user.alice', 'run1/file.root'), ('user.alice', 'run1/file.root')),
        (storage(), ('user.alice', 'run1/'), ('user.alice', 'run1/')),
        (storage(), ('user.alice', ''), ('user.alice', '')),
        (storage(), ('Data_13TeV', 'a b+%2F'), ('x---data-013-te-v', 'a b+%2F')),
        (storage(bucket_prefix='vo1.'), ('user.alice', 'file'), ('vo1.user.alice', 'file')),
        (storage('identity', '/common/rucio'), ('data.x', 'run1/file'), ('common', 'rucio/data.x/run1/file')),
        (storage('identity', '/common/rucio/'), ('data.x', ''), ('common', 'rucio/data.x/')),
        (storage('hash', '/common/'), ('user.alice', 'a/b'), ('common', 'user/alice/2c/7a/a/b')),
        (storage('hash', '/common/'), ('data', 'file'), ('common', 'data/0f/4d/file')),
    ],
)
def test_place_of_and_back(of, did, place):
    if of.settings['lfn2pfn_algorithm'] == 'hash':
        place = of.layout.place_of(*did)
    assert of.layout.place_of(*did) == place
    assert of.layout.dids_of(*place) == [did]


@pytest.mark.parametrize(
    ('of', 'bucket', 'key'),
    [
        (storage(), 'Not_A_Bucket', 'key'),
        (storage(), 'x--', 'key'),
        (storage(bucket_prefix='vo1.'), 'user.alice', 'key'),
        (storage('identity', '/common/rucio'), 'common', 'elsewhere/user.alice/file'),
        (storage('identity', '/common/rucio'), 'common', 'rucioelse/user.alice/file'),
        (storage('identity', '/common/rucio'), 'other', 'rucio/user.alice/file'),
        (storage('identity', '/common/rucio'), 'common', ''),
        (storage('hash', '/common/'), 'common', 'user/alice/00/00/file'),
        (storage('hash', '/common/'), 'common', 'user/alice/'),
        (storage('something else', '/common/'), 'common', 'user.alice/file'),
        (storage(deterministic=False), 'user.alice', 'file'),
    ],
)
def test_places_of_nobody(of, bucket, key):
    assert of.layout.dids_of(bucket, key) == []


@given(
    st.sampled_from([storage(), storage(bucket_prefix='p.'), storage('identity', '/common/x'), storage('hash', '/common/x')]),
    st.from_regex(r'[a-zA-Z_\-.0-9]{1,25}', fullmatch=True),
    st.from_regex(r'[/A-Za-z0-9][/A-Za-z0-9.\-_]{0,40}', fullmatch=True),
)
def test_a_key_is_of_one_did(of, scope, name):
    """Or of none that the server would say: never of another one."""
    try:
        place = of.layout.place_of(scope, name)
    except (RSEFileNameNotSupported, RSEOperationNotSupported):
        return
    found = of.layout.dids_of(*place)
    assert all(of.layout.place_of(*did) == place for did in found)
    if of.settings['lfn2pfn_algorithm'] == 's3_bucket':
        assert found == [(scope, name)]


def test_a_key_that_several_dids_share():
    of = storage('identity', '/common/')
    assert of.layout.dids_of('common', 'user/alice/run1/file') == [('user', 'alice/run1/file'), ('user.alice', 'run1/file'), ('user.alice.run1', 'file')]


def test_a_scope_inside_another_has_no_prefix():
    of = storage('identity', '/common/')
    for scope in ('user.alice', 'user', 'group.phys'):
        with pytest.raises(RSEOperationNotSupported, match='no common prefix'):
            of.layout.place_of(scope, 'run1/')
    assert of.layout.dids_of('common', 'user/alice/') == []
    assert of.layout.bucket_of('user.alice') == 'common'


def test_names_that_are_scattered_have_no_prefix():
    with pytest.raises(RSEOperationNotSupported, match='no common prefix'):
        storage('hash', '/common/').layout.place_of('user.alice', 'run1/')
    with pytest.raises(RSEOperationNotSupported, match='not deterministic'):
        storage(deterministic=False).layout.place_of('user.alice', 'file')


def test_ways():
    keys = Secrets('AKID', 'a-secret-that-nobody-may-see')
    assert storage().ways == []
    assert storage(secrets=keys).ways == ['remote']
    assert storage(secrets=keys, role_arn='arn:aws:iam::1:role/x').ways == ['vended', 'remote']
    assert storage('hash', '/common/', secrets=keys, role_arn='arn:aws:iam::1:role/x').ways == ['remote']
    assert storage(secrets=keys, role_arn='arn:aws:iam::1:role/x', sts_endpoint='http://sts.example.org').ways == ['remote']
    # What clients shall do is not what the server does.
    of = storage(secrets=keys, auth='remote', region='eu-1')
    assert of.ways == ['remote']
    assert of.credentials().access_key == 'AKID'
    assert of.region == 'eu-1'
    assert 'nobody' not in repr(of)


def test_without_keys():
    for use in (storage().connection, storage().credentials):
        with pytest.raises(RSEAccessDenied, match=r'rse-accounts\.cfg'):
            use()


def test_what_is_known_is_kept_for_some_seconds(monkeypatch):
    asked = []
    monkeypatch.setattr(storages, '_storages', {})
    monkeypatch.setattr(storages, '_load', lambda rse, *_: asked.append(rse) or (storage() if rse == 'SITE_S3' else None))
    now = 1000.0
    monkeypatch.setattr(storages.time, 'monotonic', lambda: now)
    first = storages.get_storage('SITE_S3', 'def', session=None)
    assert storages.get_storage('SITE_S3', 'def', session=None) is first
    for _ in range(2):
        with pytest.raises(RSENotFound, match='NOWHERE'):
            storages.get_storage('NOWHERE', 'def', session=None)
    assert asked == ['SITE_S3', 'NOWHERE', 'NOWHERE'], 'an RSE that is made now is there now'
    now += storages.CACHE_SECONDS + 1
    assert storages.get_storage('SITE_S3', 'def', session=None) is not first


@pytest.mark.parametrize(
    ('of', 'bucket', 'answer'),
    [
        (storage(), 'anything', True),
        (storage(bucket_prefix='vo1.'), 'vo1.user.alice', True),
        (storage(bucket_prefix='vo1.'), 'vo2.user.alice', False),
        (storage('hash', '/common/x'), 'common', True),
        (storage('hash', '/common/x'), 'user.alice', False),
    ],
)
def test_buckets_beside_an_rse_are_none_of_its_business(of, bucket, answer):
    assert of.layout.may_have(bucket) is answer


@pytest.mark.parametrize(
    ('of', 'answer'),
    [
        (storage(), True),
        (storage(bucket_prefix='vo1.'), True),
        (storage(prefix='/common/'), False),
        (storage('identity'), False),
        (storage(deterministic=False), False),
    ],
)
def test_only_buckets_of_scopes_are_made(of, answer):
    assert of.layout.has_bucket_for_each_scope is answer


class Asked:
    """A storage that lists these buckets, or fails."""

    ways, layout, endpoint = ['remote'], SimpleNamespace(common_bucket='', deterministic=True), SimpleNamespace(bucket_prefix='', auth='auto')

    def __init__(self, *names, rse='SITE_S3'):
        self.names, self.rse = names, rse

    def connection(self, *_):
        if not self.names:
            raise ServiceUnavailable(f'RSE {self.rse}: nobody answers.')
        client = SimpleNamespace(list_buckets=lambda: {'Buckets': [{'Name': name} for name in self.names]})
        return SimpleNamespace(client=client, endpoint=SimpleNamespace(rse=self.rse))


def test_a_storage_that_does_not_answer_has_not_no_buckets():
    up, down = Asked('user.alice', 'user.bob'), Asked(rse='DOWN_S3')
    for asked in ([up, down], [down, up]):
        found, missing = lookup.list_buckets(asked, {'user.alice'})
        assert [each['bucket'] for each in found] == ['user.alice']
        assert {rse: error.args[0] for rse, error in missing.items()} == {'DOWN_S3': 'RSE DOWN_S3: nobody answers.'}


class Place:
    """A storage that has the bucket of a scope (True), has not (False), does not answer (None), or refuses to say it (names that it lists)."""

    layout = SimpleNamespace(common_bucket='', bucket_of=lambda scope: scope)
    endpoint = SimpleNamespace(rse='X')
    ways = ('remote',)

    def __init__(self, rse, has):
        self.rse, self.has = rse, has

    def connection(self, _):
        def list_buckets():
            if not self.has:
                raise ClientError({'Error': {'Code': 'InvalidAccessKeyId'}, 'ResponseMetadata': {'HTTPStatusCode': 403}}, 'ListBuckets')
            return {'Buckets': [{'Name': name} for name in self.has]}

        return SimpleNamespace(client=SimpleNamespace(list_buckets=list_buckets), endpoint=self.endpoint)


@pytest.mark.parametrize(
    ('places', 'own', 'server', 'expected'),
    [
        ({'A': False}, '', 'Z', 'A'),
        ({'A': False, 'B': True}, 'A', 'A', 'B'),  # where the bucket is comes before any default
        ({'A': False, 'B': False}, 'B', 'A', 'B'),  # the user's default before the server's
        ({'A': False, 'B': False}, 'Z', 'A', 'A'),
        ({'A': True, 'B': True, 'C': False}, 'C', 'B', 'B'),  # a default where the bucket is not makes no second one
        ({'A': True, 'B': True}, '', 'Z', None),
        ({'A': False, 'B': False}, '', '', None),
        ({'A': False, 'B': None}, 'A', '', None),  # it may be on the one that is silent
        ({'A': True, 'B': None}, '', '', None),
        ({'A': True, 'B': None}, 'A', '', 'A'),
        ({'A': True, 'B': None}, 'B', 'A', None),  # the user's own default is down: the server's must not take its place
        ({'A': True, 'B': None, 'C': None}, 'C', 'A', None),
        ({'A': ['others'], 'B': True}, '', '', 'B'),  # on A it is somebody else's
        ({'A': ['user.alice'], 'B': False}, '', 'B', 'A'),  # a policy keeps the server out
        ({'A': [], 'B': False}, '', 'B', None),  # the server's keys are wrong
    ],
)
def test_which_rse_is_meant(monkeypatch, places, own, server, expected):
    def exists(storage, bucket):
        if storage.has is None:
            raise ServiceUnavailable('nobody answers')
        if isinstance(storage.has, list):
            raise AccessDenied('403')
        return storage.has

    monkeypatch.setattr(lookup, 'exists', exists)
    monkeypatch.setattr(lookup, 'of_server', {'default_rse': server}.get)
    found = [Place(rse, has) for rse, has in places.items()]
    if expected:
        assert lookup.choose_storage(found, 'user.alice', own).rse == expected
        return
    unknown = ', '.join(rse for rse, has in places.items() if has is None or has == [])
    why = f' ({unknown} could not be asked whether the bucket is there)' if unknown else ''
    with pytest.raises(InvalidObject) as error:
        lookup.choose_storage(found, 'user.alice', own)
    assert f'There are several S3 RSEs for scope user.alice{why}: name one of {", ".join(places)} (--rse).' in str(error.value)


@pytest.mark.parametrize(
    ('fault', 'is_well'), [(Answer(200), True), (Answer(403), True), (Answer(405), True), (Answer(200, b'<html>'), True), (Stalled(), False)]
)
def test_long_work_begins_on_a_storage_that_answers(fault, is_well):
    """Or reconciliations, imports and removals would hold the workers of the server four times as long as others."""
    with FakeS3() as s3:
        s3.fail('ListBuckets', fault)
        endpoint = Endpoint('X', 'x', s3.url, read_timeout=60 if is_well else 0.2, max_attempts=1)
        asked = []

        def connection(patience):
            asked.append(patience)
            return clients.connect(endpoint, Static('AKID', 'secret'), patience)

        with nullcontext() if is_well else pytest.raises(ServiceUnavailable, match=r" RSE X: ls of bucket '\*'.* does not answer"):
            lookup.need_answer(SimpleNamespace(rse='X', connection=connection))
    assert asked == [SERVER]


def test_the_protocol_that_is_read_first_from_outside_says_where_files_are():
    """Zero is no place in that order, and 'https' comes before 'http'."""

    def entry(scheme, wan, lan=1):
        return {'scheme': scheme, 'impl': 'rucio.rse.protocols.s3.Default', 'domains': {'wan': {'read': wan}, 'lan': {'read': lan}}}

    last, second, first = entry('http', 0), entry('http', 2), entry('http', 1, lan=9)
    for order in ([last, second, first], [first, last, second]):
        assert layout.main_entries(order) == [first, second, last]
    secure = entry('https', 1)
    assert layout.main_entries([first, secure]) == [secure, first]
    assert layout.main_entries([{**secure, 'domains': None}, {**secure, 'scheme': 'root'}, second]) == [second, {**secure, 'domains': None}]
