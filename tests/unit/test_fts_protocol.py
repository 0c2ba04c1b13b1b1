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

"""The protocol class FTS, and what stock `rucio.core.transfer` makes of it with the plugin point: URLs, the way of copying, buckets."""

import copy
import logging
import os
from types import SimpleNamespace
from unittest import mock
from urllib.parse import quote

import pytest

import rucio_s3_seams
from rucio.common.exception import RSEFileNameNotSupported, RSEOperationNotSupported, RSEProtocolNotSupported, ServiceUnavailable
from rucio.common.s3 import address
from rucio.rse import rsemanager
from rucio.rse.protocols import s3 as s3_protocol

IMPL = 'rucio.rse.protocols.s3.FTS'
THIRD_PARTY = {'third_party_copy_read': 1, 'third_party_copy_write': 1}
NOTHING = {'read': None, 'write': None, 'delete': None}
NAMES = [
    'plain',
    'a/https/davs',
    'my-https-file',
    'davs://x',
    'a b',
    'a+b',
    '100%',
    '%41',
    'a%20b',
    'a#b',
    'a?copy_mode=pull',
    'a&b=c',
    'größe/日本語',
    'a//b',
    '/a',
    '..',
]


@pytest.fixture
def site(rse):
    """Call it for an S3 RSE that has an entry for FTS; `fts` changes that entry, the other arguments are those of `rse`."""

    def make(fts=None, **arguments):
        settings = rse(**arguments)
        main = settings['protocols'][0]
        main['domains'] = {'lan': main['domains']['lan'], 'wan': {**main['domains']['wan'], 'third_party_copy_read': None, 'third_party_copy_write': None}}
        entry = {**main, 'scheme': 'davs', 'impl': IMPL, 'domains': {'lan': dict(NOTHING), 'wan': {**NOTHING, **THIRD_PARTY}}, **(fts or {})}
        settings['protocols'] = [entry, main]  # as Rucio sorts them
        return settings

    return make


def for_fts(settings, operation='third_party_copy_write', scheme=None):
    return rsemanager.create_protocol(copy.deepcopy(settings), operation, scheme)


def url_of(protocol, scope, name, path=None):
    lfn = {'scope': scope, 'name': name} | ({'path': path} if path else {})
    return protocol.lfns2pfns(lfn)[f'{scope}:{name}']


# The class


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(('scope', 'bucket'), [('user.alice', 'user.alice'), ('Data_13TeV', 'x---data-013-te-v')])
def test_urls_are_those_of_gfal2(site, name, scope, bucket):
    # gfal2 signs the path as it stands: all but RFC 3986's unreserved characters has to be encoded, and nothing else.
    assert url_of(for_fts(site()), scope, name) == f's3s://s3.example.org:9000/{bucket}/{quote(name, safe="/~")}'


def test_the_scheme_is_that_of_the_storage(site):
    assert url_of(for_fts(site(url='http://s3.example.org:8000')), 'user.alice', 'f') == 's3://s3.example.org:8000/user.alice/f'


def test_where_files_lie_is_what_the_other_entry_says(site):
    wrong = {'prefix': '/elsewhere/', 'hostname': 'inner.example.org', 'port': 8443, 'extended_attributes': None}
    assert url_of(for_fts(site(wrong, prefix='/all/x/', lfn2pfn_algorithm='identity')), 'mc20', 'f') == 's3s://inner.example.org:8443/all/x/mc20/f'
    prefixed = {'provider': 'seaweedfs', 'bucket_prefix': 'vo-'}
    assert url_of(for_fts(site({'extended_attributes': None}, s3=prefixed)), 'user.alice', 'f') == 's3s://s3.example.org:9000/vo-user.alice/f'


def test_of_several_entries_it_is_the_one_of_the_same_host(site):
    settings = site(prefix='/right/', lfn2pfn_algorithm='identity')
    settings['protocols'].insert(0, {**settings['protocols'][1], 'scheme': 'http', 'hostname': 'a.example.org', 'prefix': '/wrong/'})
    assert url_of(for_fts(settings), 'mc20', 'f') == 's3s://s3.example.org:9000/right/mc20/f'


@pytest.mark.parametrize(('scheme', 'wanted'), [('http', 's3'), ('https', 's3s')])
def test_the_scheme_is_that_of_the_entry_with_its_host_and_port(site, scheme, wanted):
    """Clients of the WAN may reach the storage by https, and FTS by http in its own network."""
    settings = site({'hostname': 'inner.example.org', 'port': 8000})
    wan = settings['protocols'][1]
    own = {**wan, 'scheme': scheme, 'hostname': 'inner.example.org', 'port': 8000}
    settings['protocols'].append({**own, 'domains': {'lan': wan['domains']['lan'], 'wan': dict(NOTHING)}})
    assert url_of(for_fts(settings), 'user.alice', 'f') == f'{wanted}://inner.example.org:8000/user.alice/f'


def test_without_another_entry_it_is_the_own_one(site):
    settings = site()
    del settings['protocols'][1]
    assert url_of(for_fts(settings), 'user.alice', 'f') == 's3s://s3.example.org:9000/user.alice/f'


def test_the_entry_that_rucio_keeps_is_not_changed(site):
    settings = site({'prefix': '/other/', 'extended_attributes': None})
    before = copy.deepcopy(settings)
    rsemanager.create_protocol(settings, 'third_party_copy_read')
    assert settings == before


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(('own', 'scheme'), [('https', 's3s'), ('http', 's3')])
def test_a_url_is_found_again(site, own, scheme, name):
    protocol = for_fts(site(url=f'{own}://s3.example.org:9000'))
    url = url_of(protocol, 'user.alice', name)
    parsed = protocol.parse_pfns([url])[url]
    assert (parsed['scheme'], parsed['hostname'], parsed['port']) == (scheme, 's3.example.org', 9000)
    assert (parsed['path'], parsed['name']) == ('/user.alice/', name)


def test_a_url_of_another_storage_is_refused(site):
    with pytest.raises(RSEFileNameNotSupported, match=r'another storage: expected davs://s3\.example\.org:9000'):
        for_fts(site()).parse_pfns('s3s://s3.example.com:9000/user.alice/f')


@pytest.mark.parametrize('path', ['/bucket/raw/a%20b', '/bucket/f', '/bucket/a%2541/https'])
def test_the_finisher_finds_the_path_of_a_non_deterministic_rse(site, monkeypatch, path):
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', False, raising=False)  # clients ask the server for its PFNs
    settings = site(deterministic=False)
    settings['protocols'].append({**settings['protocols'][0], 'scheme': 's3s', 'domains': {'wan': {**NOTHING, 'write': 2, **dict.fromkeys(THIRD_PARTY)}}})
    url = url_of(for_fts(settings), 'user.alice', 'f', path)
    protocol = for_fts(settings, 'write', url.partition(':')[0])  # as the finisher asks
    assert os.path.join(protocol.parse_pfns([url])[url]['path'], os.path.basename(url)) == path


@pytest.mark.parametrize(
    'use',
    [
        lambda protocol: protocol.connect(),
        lambda protocol: protocol.exists('s3s://s3.example.org:9000/user.alice/f'),
        lambda protocol: protocol.get('s3s://s3.example.org:9000/user.alice/f', 'f'),
        lambda protocol: protocol.put('f', 's3s://s3.example.org:9000/user.alice/f'),
        lambda protocol: protocol.delete('s3s://s3.example.org:9000/user.alice/f'),
    ],
)
def test_it_moves_nothing_itself(site, use):
    with pytest.raises(RSEOperationNotSupported, match=r'RSE X: its davs protocol, .*FTS, only makes URLs for FTS'):
        use(for_fts(site()))


@pytest.mark.parametrize('domain', ['lan', 'wan'])
@pytest.mark.parametrize('operation', ['read', 'write', 'delete'])
def test_clients_and_reaper_are_never_given_it(site, domain, operation):
    assert [each['scheme'] for each in rsemanager.get_protocols_ordered(site(), operation, domain=domain)] == ['https']
    with pytest.raises(RSEProtocolNotSupported):
        rsemanager.get_protocols_ordered(site(), operation, scheme='davs', domain=domain)


@pytest.mark.parametrize('operation', THIRD_PARTY)
def test_third_party_copies_are_given_nothing_else(site, operation):
    assert [each['impl'] for each in rsemanager.get_protocols_ordered(site(), operation)] == [IMPL]


@pytest.mark.parametrize(
    ('given', 'wanted'), [({}, True), ({'fts_push': True}, True), ({'fts_push': False}, False), ({'fts_push': 'no'}, False), ({'fts_push': '?'}, True)]
)
def test_whether_webdav_storages_shall_push_is_a_setting(site, given, wanted):
    assert for_fts(site(s3=given)).wants_push is wanted


@pytest.mark.parametrize(('client', 'configured', 'times'), [(False, False, 1), (False, True, 0), (True, False, 0)])
def test_a_server_that_is_not_configured_for_fts_is_warned_once(site, rucio_cfg, monkeypatch, client, configured, times):
    rucio_cfg({'s3': {'fts': str(configured)}})
    monkeypatch.setattr(s3_protocol, '_warned', set())
    monkeypatch.setattr(s3_protocol, 'is_client', lambda: client)
    said = []
    for _ in range(2):
        rsemanager.create_protocol(site(), 'third_party_copy_write', logger=lambda _, text, *values, **__: said.append(text % values))
    assert len(said) == times
    assert all('RSE X has a protocol for FTS, but rucio.cfg lacks [s3] fts = True' in each for each in said)


# Stock Rucio


@pytest.fixture
def transfer(monkeypatch):
    """Stock `rucio.core.transfer` with the plugin point, and what is put back afterwards."""
    pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')
    from rucio.core import transfer  # noqa: PLC0415

    direct = transfer.DirectTransferImplementation
    for name in ('cancel_transfers', 'update_transfer_priority', 'mark_submitting'):
        monkeypatch.setattr(transfer, name, getattr(transfer, name))
    for name in (*rucio_s3_seams._REWRITES, '_generate_source_url'):
        monkeypatch.setattr(direct, name, vars(direct)[name])
    with mock.patch.dict(transfer.TRANSFERTOOL_CLASSES_BY_NAME):
        rucio_s3_seams.install(transfer, copier=True, fts=True)
        yield transfer


@pytest.fixture
def disk(rse):
    """An RSE with WebDAV."""
    settings = rse(url='davs://dav.example.org:443', prefix='/data/', lfn2pfn_algorithm='identity', rse='DISK', id='def456')
    settings['protocols'][0] |= {'impl': 'rucio.rse.protocols.webdav.Default', 'domains': {'lan': {}, 'wan': {**NOTHING, **THIRD_PARTY}}}
    return settings


def urls(transfer, source, destination, name, *, signs=(None, None), stagein=False):
    """Source and destination of the transfer of a file of `mc20`, as Rucio hands them over to FTS; `signs`: the RSEs' attribute `sign_url`."""
    from rucio.core.request import RequestSource, TransferDestination  # noqa: PLC0415
    from rucio.core.rse import RseData  # noqa: PLC0415
    from rucio.db.sqla.constants import RequestType  # noqa: PLC0415

    ends = [
        RseData(each['id'], each['rse'], {'rse_type': None}, {'sign_url': sign} if sign else {}, {**copy.deepcopy(each), 'sign_url': sign})
        for each, sign in zip((source, destination), signs, strict=True)
    ]
    kind = RequestType.STAGEIN if stagein else RequestType.TRANSFER
    rws = SimpleNamespace(scope=SimpleNamespace(external='mc20', vo='def'), name=name, attributes={}, retry_count=0, activity='', request_type=kind)
    hop = transfer.DirectTransferImplementation(
        RequestSource(ends[0], scheme='davs'),
        TransferDestination(ends[1], scheme='davs'),
        rws,
        transfer.ProtocolFactory(),
        'third_party_copy_read',
        'third_party_copy_write',
    )
    return hop.source_url(hop.src), hop.dest_url


HARD = ['https/davs/my-https-davs', 'a b+c%41ü?copy_mode=pull#x']
SIGNS = [(None, None), ('s3', None), (None, 's3'), ('s3', 's3'), (None, 'gcs')]


@pytest.mark.parametrize('name', HARD)
@pytest.mark.parametrize('signs', SIGNS)
def test_from_s3_to_s3_the_urls_are_untouched(transfer, site, name, signs):
    there = site(url='https://s3.example.com:443', rse='Y', id='789')
    for url, host in zip(urls(transfer, site(), there, name, signs=signs), ('s3.example.org:9000', 's3.example.com:443'), strict=True):
        assert url == f's3s://{host}/mc20/{quote(name, safe="/~")}'
        assert address.parse_url(url)[1:3] == ('mc20', name)


@pytest.mark.parametrize('name', HARD[:1])
@pytest.mark.parametrize('signs', SIGNS)
@pytest.mark.parametrize(('setting', 'ending'), [({}, '?copy_mode=push'), ({'fts_push': False}, '')])
def test_webdav_is_asked_to_push_to_s3(transfer, site, disk, name, signs, setting, ending):
    source, destination = urls(transfer, disk, site(s3=setting), name, signs=(None, signs[1]))
    by_rucio = '?copy_mode=push' if signs[1] else ''  # with sign_url it does so itself
    assert source == f'davs://dav.example.org:443/data/mc20/{name}{ending or by_rucio}'
    assert destination == f's3s://s3.example.org:9000/mc20/{name}'


@pytest.mark.parametrize(('setting', 'ending'), [({}, 'push'), ({'fts_push': False}, 'pull')])
def test_what_webdav_storages_do_among_themselves_is_not_for_s3(transfer, site, disk, monkeypatch, setting, ending):
    """`[conveyor] webdav_transfer_mode` of the site."""
    monkeypatch.setattr(transfer, 'WEBDAV_TRANSFER_MODE', 'pull')
    assert urls(transfer, disk, site(s3=setting), 'f')[0] == f'davs://dav.example.org:443/data/mc20/f?copy_mode={ending}'
    assert urls(transfer, disk, {**disk, 'rse': 'TAPE', 'id': '012'}, 'f')[0] == 'davs://dav.example.org:443/data/mc20/f?copy_mode=pull'
    assert urls(transfer, site(), disk, 'f')[0] == 's3s://s3.example.org:9000/mc20/f'


@pytest.mark.parametrize('sign', [None, 's3'])
def test_webdav_pulls_from_s3(transfer, site, disk, sign):
    assert urls(transfer, site(), disk, 'a/f', signs=(sign, None)) == ('s3s://s3.example.org:9000/mc20/a/f', 'davs://dav.example.org:443/data/mc20/a/f')


def test_nobody_pushes_to_itself_what_comes_from_tape(transfer, site, disk):
    assert urls(transfer, disk, site(), 'f', stagein=True)[0] == 'davs://dav.example.org:443/data/mc20/f'


def test_what_is_no_s3_is_left_to_rucio(transfer, disk):
    there = {**disk, 'rse': 'TAPE', 'id': '012'}
    assert urls(transfer, disk, there, 'f') == ('davs://dav.example.org:443/data/mc20/f',) * 2
    assert urls(transfer, disk, there, 'my-https', signs=(None, 's3')) == (
        'davs://dav.example.org:443/data/mc20/my-https?copy_mode=push',
        's3s://dav.example.org:443/data/mc20/my-s3s',
    )


# Buckets


@pytest.fixture
def conveyor():
    """What the conveyor calls."""
    pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')
    from rucio.core.s3.transfers import destinations  # noqa: PLC0415

    return SimpleNamespace(destinations=destinations)


@pytest.mark.parametrize(
    ('impl', 'host', 'asked'),
    [
        (IMPL, 'https://fts', True),
        ('rucio.rse.protocols.s3.Default', 'https://fts', True),
        ('rucio.rse.protocols.webdav.Default', 'https://fts', False),
        (IMPL, 'rucio-s3-copier', False),
    ],
)
def test_the_bucket_is_made_before_fts_is_told(conveyor, monkeypatch, impl, host, asked):
    done = []
    monkeypatch.setattr(conveyor.destinations, 'prepare_bucket', lambda *ends, **_: done.append(ends))
    mark = rucio_s3_seams._with_bucket(lambda _, host, **__: done.append(('marked', host)))
    protocol = SimpleNamespace(attributes={'impl': impl})
    rse, rws = SimpleNamespace(id='abc123'), SimpleNamespace(scope='user.alice')
    mark(SimpleNamespace(dest_protocol=lambda: protocol, dst=SimpleNamespace(rse=rse), rws=rws), external_host=host, logger=logging.log)
    assert done == [*([('abc123', 'user.alice')] if asked else []), ('marked', host)]


@pytest.fixture
def prepare(conveyor, monkeypatch):
    """`prepare` with a clock and storages of the test: `made` has the scopes that were asked for, `said` the log, `fails` what goes wrong."""
    made, said = [], []
    storage = SimpleNamespace(layout=SimpleNamespace(has_bucket_for_each_scope=True))
    state = SimpleNamespace(made=made, said=said, now=1000.0, fails=None, storage=storage)

    def make(storage, scope):
        made.append(scope)
        if state.fails:
            raise state.fails

    monkeypatch.setattr(conveyor.destinations, 'db_session', mock.MagicMock())
    monkeypatch.setattr(conveyor.destinations, 'get_rse_name', lambda rse_id, **_: rse_id)
    monkeypatch.setattr(conveyor.destinations.storages, 'get_storage', lambda *_, **__: storage)
    monkeypatch.setattr(conveyor.destinations.creation, 'make_bucket', make)
    monkeypatch.setattr(conveyor.destinations, '_known', {})
    monkeypatch.setattr(conveyor.destinations.time, 'monotonic', lambda: state.now)
    from rucio.common.types import InternalScope  # noqa: PLC0415

    def call(rse_id, scope):
        conveyor.destinations.prepare_bucket(rse_id, InternalScope(scope), logger=lambda level, text, *values: said.append((level, text % values)))

    state.call = call
    return state


def test_a_bucket_is_looked_for_once_an_hour(prepare):
    for scope in ('a', 'b', 'a'):
        prepare.call('X', scope)
    prepare.call('Y', 'a')
    assert prepare.made == ['a', 'b', 'a']
    prepare.now += 3600
    prepare.call('X', 'a')
    assert prepare.made == ['a', 'b', 'a', 'a']
    assert not prepare.said


def test_only_buckets_of_scopes_are_made(prepare):
    prepare.storage.layout.has_bucket_for_each_scope = False
    prepare.call('X', 'a')
    assert not prepare.made


def test_a_failure_is_a_line_and_tried_again_later(prepare):
    prepare.fails = RSEOperationNotSupported('RSE X: no.')
    prepare.call('X', 'a')
    prepare.call('X', 'a')
    prepare.call('X', 'b')
    assert prepare.made == ['a', 'b']
    assert prepare.said[0] == (logging.WARNING, 'The bucket of scope a could not be created before a transfer: RSE X: no.')
    prepare.now += 300
    prepare.fails = None
    prepare.call('X', 'a')
    prepare.call('X', 'a')
    assert prepare.made == ['a', 'b', 'a']


@pytest.mark.parametrize(('fails', 'said'), [(ValueError('odd'), 'ValueError: odd'), (RSEOperationNotSupported(), 'RSEOperationNotSupported: ')])
def test_whatever_fails_is_named_and_stops_no_transfer(prepare, fails, said):
    if not isinstance(fails, ValueError):
        fails.args = ()
    prepare.fails = fails
    prepare.call('X', 'a')
    assert prepare.said[0][1].startswith(f'The bucket of scope a could not be created before a transfer: {said}')


def test_a_storage_that_does_not_answer_is_not_asked_for_each_scope(prepare):
    prepare.fails = ServiceUnavailable('RSE X: make-bucket: no answer.')
    for scope in ('a', 'b', 'c'):
        prepare.call('X', scope)
    prepare.call('Y', 'a')
    assert prepare.made == ['a', 'a']
    assert len(prepare.said) == 2
