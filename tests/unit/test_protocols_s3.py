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


"""The protocol class as Rucio uses it: names, temporary names, operations, and what they cost."""

import hashlib
import logging
import os
import re
import socket
import subprocess
import sys
import time
import zlib
from contextlib import contextmanager, nullcontext
from unittest import mock
from urllib.parse import quote

import pytest

from rucio.client import s3client
from rucio.common.exception import (
    ConfigurationError,
    DestinationNotAccessible,
    FileConsistencyMismatch,
    FileReplicaAlreadyExists,
    InputValidationError,
    MissingClientParameter,
    ResourceTemporaryUnavailable,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSEOperationNotSupported,
    ServiceUnavailable,
    SourceAccessDenied,
    SourceNotFound,
)
from rucio.common.s3 import progress
from rucio.rse import rsemanager
from rucio.rse.protocols import s3 as s3_protocol
from servers import fake_s3
from servers.fake_s3 import Answer, Lost, Stalled, error

BUCKET = 'user.alice'
CONTENT = b'content of a file'
TEMPORARY = '.rucio.upload'
SIGNATURE = 'X-Amz-Credential=AKIDHIDDEN&X-Amz-Signature=hidden'
HARD_NAMES = [
    'a b',
    'a+b',
    '100%',
    'a%20b',
    'a#b',
    'a?b',
    'a&b=c',
    'größe/日本語',
    'a//b',
    '/a',
    'https://h/davs',
    'x' * 1024,
    'f.rucio.upload',
]
SITE = 'https://s3.example.org:9000'


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'source'
    path.write_bytes(CONTENT)
    return str(path)


@pytest.fixture
def bound(rse):
    """Call it for a protocol object that is not connected; arguments are those of `rse`."""
    return lambda **arguments: rsemanager.create_protocol(rse(**arguments), 'read')


def pfn_of(bound_protocol, scope, name):
    return bound_protocol.lfns2pfns({'scope': scope, 'name': name})[f'{scope}:{name}']


def did_of(bound_protocol, pfn):
    """As stock Rucio finds a DID: `get_scope_protocol` on what `parse_pfns` says."""
    name, scope = rsemanager.get_scope_protocol()(bound_protocol.parse_pfns(pfn)[pfn])
    return scope, name


def pfn_again(bound_protocol, pfn):
    """As stock Rucio puts a parsed PFN together."""
    parsed = bound_protocol.parse_pfns([pfn])[pfn]
    return f'{parsed["scheme"]}://{parsed["hostname"]}:{parsed["port"]}{parsed["prefix"]}{parsed["path"].removeprefix("/")}{parsed["name"]}'


# DID -> PFN -> DID


@pytest.mark.parametrize('name', HARD_NAMES)
@pytest.mark.parametrize(('scope', 'bucket'), [('user.alice', 'user.alice'), ('Data_13TeV', 'x---data-013-te-v')])
def test_with_one_bucket_per_scope_rucio_finds_the_did_of_every_pfn(bound, scope, bucket, name):
    made = bound()
    pfn = pfn_of(made, scope, name)
    assert pfn == f'{SITE}/{bucket}/{quote(name, safe="/~")}'
    assert did_of(made, pfn) == (scope, name)


def test_the_bucket_prefix_is_in_the_pfn_and_not_in_the_did(bound):
    made = bound(s3={'bucket_prefix': 'cms-'})
    pfn = pfn_of(made, 'mc23', 'f')
    assert pfn == f'{SITE}/cms-mc23/f'
    assert did_of(made, pfn) == ('mc23', 'f')


@pytest.mark.parametrize('prefix', ['/bucket/', '/bucket', 'bucket', '/bucket/a/path/'])
@pytest.mark.parametrize(
    ('algorithm', 'path'),
    [('hash', f'mc23/{hashlib.md5(b"mc23:a b").hexdigest()[:2]}/{hashlib.md5(b"mc23:a b").hexdigest()[2:4]}/a%20b'), ('identity', 'mc23/a%20b')],
)
def test_with_one_bucket_per_rse_rucio_finds_the_did_of_every_pfn(bound, prefix, algorithm, path):
    made = bound(prefix=prefix, lfn2pfn_algorithm=algorithm)
    pfn = pfn_of(made, 'mc23', 'a b')
    assert pfn == f'{SITE}/{prefix.strip("/")}/{path}'
    assert did_of(made, pfn) == ('mc23', 'a b')


@pytest.mark.parametrize('lfns', [dict, lambda lfn: [lfn]], ids=['one', 'a list'])
def test_on_a_deterministic_rse_a_stored_path_is_not_heeded(bound, lfns):
    lfn = {'scope': 'user.mallory', 'name': 'mine', 'path': '/user.alice/private'}
    assert bound().lfns2pfns(lfns(lfn)) == {'user.mallory:mine': f'{SITE}/user.mallory/mine'}
    assert lfn['path'] == '/user.alice/private'


@pytest.mark.parametrize('path', ['/user.alice/private/secret', 'user.alice/secret', '//user.mallory/secret/x', 'secret', 'user/alice/secret'])
def test_nor_one_that_ends_like_the_name(bound, path):
    """Whoever stores it chooses the name, too: the reaper would delete what is there."""
    lfn = {'scope': 'user.mallory', 'name': 'secret', 'path': path}
    assert bound().lfns2pfns(lfn) == {'user.mallory:secret': f'{SITE}/user.mallory/secret'}


def test_nor_one_of_two_parts(bound):
    lfn = {'scope': 'user.secret', 'name': 'secret', 'path': 'user/secret'}
    assert bound().lfns2pfns(lfn) == {'user.secret:secret': f'{SITE}/user.secret/secret'}


def test_the_path_of_the_auditor_may_begin_with_any_letter(bound):
    lfn = {'scope': 'X', 'name': 'secret', 'path': '/X/a/secret'}
    assert bound(lfn2pfn_algorithm='identity', prefix='/bucket/').lfns2pfns(lfn) == {'X:secret': f'{SITE}/bucket/X/a/secret'}


@pytest.mark.parametrize(('scope', 'path'), [('user.alice', 'user.alice/run1/secret'), ('user.alice', '/user.alice/run1/secret'), ('mc23', 'mc23/a/b/secret')])
def test_the_path_of_what_rucios_auditor_found_is_meant(bound, scope, path):
    """Its dark reaper has scope and name of the path, and would otherwise delete another file."""
    assert bound().lfns2pfns({'scope': scope, 'name': 'secret', 'path': path}) == {f'{scope}:secret': f'{SITE}/{path.lstrip("/")}'}


@pytest.mark.parametrize('dots', ['..', '%2e%2e', '.'])
def test_a_path_that_can_be_read_in_two_ways_is_nobodys(bound, dots):
    with pytest.raises(RSEFileNameNotSupported, match='is ambiguous'):
        bound().lfns2pfns({'scope': 'user.mallory', 'name': 'secret', 'path': f'user.mallory/{dots}/user.alice/secret'})


@pytest.mark.parametrize(
    ('scope', 'path'), [('user.mallory', 'user/mallory/run1/secret'), ('user.mallory', 'user/mallory/secret'), ('group.x', 'group/x/secret')]
)
def test_a_path_in_the_bucket_user_is_not_user_mallorys(bound, scope, path):
    """Its bucket may be that of a scope `user`. To delete the file of this name in her own bucket instead would be as wrong."""
    lfn = {'scope': scope, 'name': 'secret', 'path': path}
    with pytest.raises(RSEFileNameNotSupported, match='is ambiguous'):
        bound().lfns2pfns(lfn)
    # Where Rucio makes such paths itself, it is one of them.
    assert bound(lfn2pfn_algorithm='identity', prefix='/bucket/').lfns2pfns(lfn) == {f'{scope}:secret': f'{SITE}/bucket/{path}'}


@pytest.mark.parametrize('extended', [None, {}, {'s3': None}, {'s3': {}}])
def test_a_protocol_without_settings_has_no_bucket_prefix(rse, extended):
    settings = rse()
    settings['protocols'][0]['extended_attributes'] = extended
    assert did_of(rsemanager.create_protocol(settings, 'read'), f'{SITE}/mc23/f') == ('mc23', 'f')


def test_a_pfn_of_another_kind_of_protocol_of_the_rse_gets_no_keys(rse, s3, rucio_cfg):
    rucio_cfg({'s3:X': {'access_key': 'A', 'secret_key': 's'}})
    settings = rse(url=SITE)
    host, _, port = s3.url.removeprefix('http://').partition(':')
    settings['protocols'].append(
        {**settings['protocols'][0], 'scheme': 'http', 'hostname': host, 'port': int(port), 'impl': 'rucio.rse.protocols.webdav.Default'}
    )
    made = rsemanager.create_protocol(settings, 'read', protocol_attr=settings['protocols'][0])
    with pytest.raises(RSEFileNameNotSupported, match='belongs to another storage'):
        made.exists(f'{s3.url}/{BUCKET}/f')
    assert not s3.requests


@pytest.mark.parametrize('path', ['/bucket/a%20b/c', 'bucket/100%25/c', 'bucket/a+b'])
def test_a_stored_path_is_a_url_path_already_and_left_as_it_is(bound, path, monkeypatch):
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', False, raising=False)  # a client asks the server
    made = bound(deterministic=False)
    lfn = {'scope': 'mc23', 'name': 'a b', 'path': path}
    assert made.lfns2pfns([lfn]) == {'mc23:a b': f'{SITE}/{path.removeprefix("/")}'}


@pytest.mark.parametrize('key', HARD_NAMES)
def test_on_a_non_deterministic_rse_a_pfn_comes_back_from_what_rucio_stores_of_it(bound, key):
    made = bound(deterministic=False, prefix='/bucket/')
    pfn = f'{SITE}/bucket/Of_no_scope/{quote(key, safe="/~")}'
    parsed = made.parse_pfns([pfn])[pfn]
    assert pfn_again(made, pfn) == pfn
    # The class's own method: that of a client's object asks the server, which has the path.
    stored = {'scope': 's', 'name': 'n', 'path': parsed['path'] + parsed['name']}
    assert type(made).lfns2pfns(made, stored) == {'s:n': pfn}


def test_many_lfns_and_pfns_at_once(bound):
    made = bound()
    lfns = [{'scope': scope, 'name': name} for scope in ('mc23', 'UP') for name in HARD_NAMES]
    pfns = made.lfns2pfns(lfns)
    assert len(set(pfns.values())) == len(lfns)
    assert set(made.parse_pfns(pfns.values())) == set(pfns.values())


def test_a_scope_without_a_bucket_is_refused(bound):
    with pytest.raises(RSEFileNameNotSupported, match='has no bucket'):
        pfn_of(bound(s3={'bucket_prefix': 'a' * 31}), 'A' * 25, 'f')


# PFNs


@pytest.mark.parametrize(('url', 'port'), [('https://h:443', 443), ('https://h', 443), ('http://h:80', 80), ('http://h', 80)])
@pytest.mark.parametrize('pfn_port', ['', ':{port}'])
def test_a_pfn_may_leave_the_default_port_out(bound, url, port, pfn_port):
    made = bound(url=url)
    pfn = f'{url.partition(":")[0]}://h{pfn_port.format(port=port)}/mc23/f'
    assert made.parse_pfns(pfn)[pfn]['port'] == port
    assert did_of(made, pfn) == ('mc23', 'f')


@pytest.mark.parametrize(
    'pfn',
    [
        'https://other.example.org:9000/mc23/f',
        'https://s3.example.org:9001/mc23/f',
        'https://s3.example.org/mc23/f',
        'http://s3.example.org:9000/mc23/f',
        'root://s3.example.org:9000//mc23/f',
        'https://s3.example.org:9000@evil.example.org/mc23/f',
        'https://s3.example.org.evil.example.org:9000/mc23/f',
        'https://s3.example.org:port/mc23/f',
        'mc23/f',
        '',
    ],
)
def test_a_pfn_of_another_storage_is_refused(bound, protocol, pfn):
    with pytest.raises(RSEFileNameNotSupported):
        bound().parse_pfns(pfn)
    other = protocol(url=SITE)
    for operation in (other.stat, other.delete, lambda path: other.get(path, 'f'), lambda path: other.put('f', path)):
        with pytest.raises(RSEFileNameNotSupported):
            operation(pfn)


def test_a_port_that_is_not_a_number_is_told(bound):
    with pytest.raises(RSEFileNameNotSupported, match="'https://h:port/mc23/f' is not a valid URL: its host or port cannot be read"):
        bound().parse_pfns('https://h:port/mc23/f')


@pytest.mark.parametrize('pfn', [f'{SITE}/other/f', f'{SITE}/bucketeer/f', f'{SITE}/bucket'])
def test_a_pfn_that_does_not_lie_below_the_prefix_is_refused(bound, pfn):
    with pytest.raises(RSEFileNameNotSupported, match="prefix '/bucket/'"):
        bound(prefix='/bucket/', lfn2pfn_algorithm='identity').parse_pfns(pfn)


def test_a_pfn_in_a_bucket_of_no_scope_is_refused(bound):
    with pytest.raises(RSEFileNameNotSupported, match="'Foreign' belongs to no scope"):
        bound().parse_pfns(f'{SITE}/Foreign/f')


def test_a_signature_is_no_part_of_the_name_and_in_no_message(bound):
    made = bound()
    pfn = f'{SITE}/mc23/f?{SIGNATURE}'
    assert did_of(made, pfn) == ('mc23', 'f')
    for wrong in (f'https://h/mc23/f?{SIGNATURE}', f'{SITE}/Foreign/f?{SIGNATURE}', f'{SITE}:x/b/f?{SIGNATURE}'):
        with pytest.raises(RSEFileNameNotSupported) as caught:
            made.parse_pfns(wrong)
        assert 'hidden' not in str(caught.value).lower()


# Being connected


def test_rucios_uploaders_leave_it_to_put_whether_there_is_an_object(bound):
    assert (bound().renaming, bound().overwrite) == (True, True)


@pytest.mark.parametrize(('service', 'times'), [(None, 1), ('s3', 0)])
def test_where_rucio_signs_the_server_is_asked_for_no_other_way(protocol, monkeypatch, service, times):
    asked = []
    monkeypatch.setattr(s3_protocol, '_server', asked.append)
    protocol(keys=None, url=SITE, sign_url=service)
    assert len(asked) == times


def test_connecting_and_closing_make_no_request(protocol, s3):
    protocol().close()
    assert not s3.requests


@pytest.mark.parametrize('client', [True, False])
def test_a_wrong_setting_is_told_when_connecting(rse, rucio_cfg, monkeypatch, client):
    """Stock `rucio download` would only say that it failed to create a protocol; daemons log it themselves."""
    rucio_cfg({})
    logged = []

    def log(level, text, *said, **_):
        logged.append((level, (text % said).removeprefix('s3.Default: ')))  # Rucio's words

    made = rsemanager.create_protocol(rse(s3={'provder': 'ceph'}), 'write', logger=log)
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', client)
    with pytest.raises(ConfigurationError, match="'provder'") as caught:
        made.connect()
    assert logged == ([(logging.ERROR, caught.value.args[0])] if client else [])


@pytest.mark.parametrize(('client', 'times'), [(True, 1), (False, 0)])
def test_users_are_told_what_looks_wrong_in_their_configuration(rse, rucio_cfg, monkeypatch, client, times):
    rucio_cfg({'s3:X': {'access_key': 'A', 'secret_key': 'b'}})
    told = []
    monkeypatch.setattr(s3_protocol.own_config, 'warn', lambda *given: told.append(given[0]))
    made = rsemanager.create_protocol(rse(), 'write')
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', client)
    for _ in range(2):
        made.connect()
    assert told == ['X'] * times


def test_without_credentials_the_first_operation_says_where_they_go(protocol, s3):
    made = protocol(keys=None)
    with pytest.raises(RSEAccessDenied, match=r'RSE X: there are no credentials.*rucio\.cfg \[s3:X\].*rse-accounts\.cfg'):
        made.stat(f'{s3.url}/{BUCKET}/f')
    assert not s3.requests


def test_a_missing_aws_profile_is_told_in_rucios_terms(protocol, s3):
    with pytest.raises(RSEAccessDenied, match=r'nowhere.*AWS profile'):
        protocol(keys={'profile': 'nowhere'}).stat(f'{s3.url}/{BUCKET}/f')


def test_an_rse_with_anonymous_access_is_read_without_keys(protocol, s3):
    s3.store(BUCKET, 'f', CONTENT)
    assert protocol(keys=None, s3={'auth': 'anonymous'}).stat(f'{s3.url}/{BUCKET}/f')['filesize'] == len(CONTENT)
    assert 'authorization' not in s3.requests[0].headers


def test_a_storage_that_is_down_is_told_with_what_to_check(protocol):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))  # and nobody listens
        url = f'http://127.0.0.1:{taken.getsockname()[1]}'
        with pytest.raises(ServiceUnavailable, match=r"RSE X: exists of bucket 'b', key 'f'.*host name and port"):
            protocol(url=url).exists(f'{url}/b/f')


def test_a_storage_without_tls_is_told_from_one_that_is_down(protocol, s3):
    url = s3.url.replace('http:', 'https:')
    with pytest.raises(ServiceUnavailable, match='certificate'):
        protocol(url=url).exists(f'{url}/{BUCKET}/f')


# Temporary names


def test_what_is_put_under_a_temporary_name_is_stored_under_its_own_at_once(protocol, s3, source):
    made, pfn = protocol(), f'{s3.url}/{BUCKET}/dir/f'
    made.put(source, pfn + TEMPORARY)
    assert list(s3.buckets[BUCKET]) == ['dir/f']
    assert made.stat(pfn + TEMPORARY)['filesize'] == len(CONTENT)
    made.rename(pfn + TEMPORARY, pfn)
    assert s3.content(BUCKET, 'dir/f') == CONTENT


def test_an_upload_as_rucios_client_does_it_costs_one_request_or_two_with_a_stat(protocol, s3, source):
    made = protocol()
    assert made.renaming
    assert made.overwrite
    pfn = pfn_of(made, BUCKET, 'f')
    assert made.exists(pfn + TEMPORARY) is False
    assert not s3.requests
    made.put(source, pfn + TEMPORARY)
    made.rename(pfn + TEMPORARY, pfn)
    assert s3.operations() == ['PutObject']


def test_a_temporary_name_is_looked_up_where_no_upload_is_about_to_begin(protocol, s3):
    """It may be what another protocol class left, for Rucio to delete."""
    s3.store(BUCKET, 'f' + TEMPORARY, b'leftover')
    made = protocol()
    assert made.exists(f'{s3.url}/{BUCKET}/f{TEMPORARY}') is True
    pfn_of(made, BUCKET, 'another')
    assert made.exists(f'{s3.url}/{BUCKET}/f{TEMPORARY}') is True
    made.delete(f'{s3.url}/{BUCKET}/f{TEMPORARY}')
    assert not s3.buckets[BUCKET]


def test_a_file_whose_name_ends_like_a_temporary_one_is_a_file(protocol, s3, source, tmp_path):
    made = protocol()
    pfn = pfn_of(made, BUCKET, 'f' + TEMPORARY)
    assert made.exists(pfn) is False
    assert made.exists(pfn + TEMPORARY) is False
    made.put(source, pfn + TEMPORARY)
    made.rename(pfn + TEMPORARY, pfn)
    assert list(s3.buckets[BUCKET]) == ['f' + TEMPORARY]
    for user in (made, protocol()):
        assert user.exists(pfn) is True
        assert user.stat(pfn)['filesize'] == len(CONTENT)
        user.get(pfn, str(tmp_path / 'g'))
        assert (tmp_path / 'g').read_bytes() == CONTENT
    protocol().delete(pfn)
    assert not s3.buckets[BUCKET]


def test_two_uploads_by_one_object_are_kept_apart(protocol, s3, source):
    made = protocol()
    for name in ('one', 'two'):
        pfn = pfn_of(made, BUCKET, name)
        assert made.exists(pfn + TEMPORARY) is False
        made.put(source, pfn + TEMPORARY)
        assert made.stat(pfn + TEMPORARY)['filesize'] == len(CONTENT)
        made.rename(pfn + TEMPORARY, pfn)
    assert sorted(s3.buckets[BUCKET]) == ['one', 'two']


# Signed URLs


def test_a_signed_url_serves_the_whole_life_of_a_file(protocol, s3, source, tmp_path):
    made, pfn = protocol(keys=None), f'{s3.url}/{BUCKET}/a%20b?{SIGNATURE}'
    assert made.exists(pfn + TEMPORARY) is False  # what Rucio's client makes of it
    made.put(source, pfn + TEMPORARY)
    assert made.stat(pfn + TEMPORARY) == {'filesize': len(CONTENT)}
    made.rename(pfn + TEMPORARY, pfn)
    assert s3.operations() == ['PutObject']
    assert s3.content(BUCKET, 'a b') == CONTENT
    assert protocol(keys=None).stat(pfn)['filesize'] == len(CONTENT)
    assert made.exists(pfn) is True
    made.get(pfn, str(tmp_path / 'g'))
    assert (tmp_path / 'g').read_bytes() == CONTENT
    made.delete(pfn)
    assert not s3.buckets[BUCKET]
    assert {request.url for request in s3.requests} == {pfn.removeprefix(s3.url)}


def test_a_signed_url_is_enough_to_read(protocol, s3, tmp_path):
    s3.store(BUCKET, 'f', CONTENT)
    protocol(keys=None).get(f'{s3.url}/{BUCKET}/f?{SIGNATURE}', str(tmp_path / 'g'))
    assert (tmp_path / 'g').read_bytes() == CONTENT


def test_keys_come_before_a_signature(protocol, s3):
    s3.store(BUCKET, 'f', CONTENT)
    protocol().stat(f'{s3.url}/{BUCKET}/f?{SIGNATURE}')
    assert s3.requests[0].operation == 'HeadObject'
    assert 'hidden' not in s3.requests[0].url
    assert 'Credential=AKIDOFTHETESTS/' in s3.requests[0].headers['authorization']


def test_a_signed_url_goes_where_it_was_signed_for(protocol, s3):
    """Its host may be another than that of the RSE: an alias, or one for each bucket."""
    s3.store(BUCKET, 'f', CONTENT)
    made = protocol(keys=None, url=SITE)
    assert made.exists(f'{s3.url}/{BUCKET}/f?{SIGNATURE}') is True


def test_but_never_with_our_keys(protocol, s3):
    made = protocol(url=SITE)
    with pytest.raises(RSEFileNameNotSupported, match='another storage'):
        made.exists(f'{s3.url}/{BUCKET}/f?{SIGNATURE}')
    assert not s3.requests


@pytest.mark.parametrize('operation', ['rename', 'ls', 'bulk_delete', 'get_space_usage'])
def test_what_signed_urls_cannot_do_says_so(protocol, s3, operation):
    made, pfn = protocol(keys=None, s3={'provider': 'seaweedfs', 'capacity': '1'}), f'{s3.url}/{BUCKET}/f?{SIGNATURE}'
    arguments = {'rename': (pfn, f'{s3.url}/{BUCKET}/g?{SIGNATURE}'), 'ls': (pfn,), 'bulk_delete': ([pfn],), 'get_space_usage': ()}[operation]
    with pytest.raises(RSEOperationNotSupported, match=rf'RSE X: {operation} needs keys.*\[s3:X\]'):
        getattr(made, operation)(*arguments)
    assert not s3.requests


@pytest.fixture
def signer(monkeypatch, s3):
    """The Rucio server as a signer of URLs: what it was asked."""
    from rucio.client import credentialclient  # noqa: PLC0415

    asked = []

    class Client:
        def get_signed_url(self, rse, service, operation, url):
            asked.append((rse, service, operation, url))
            return f'{s3.url}/{url.split("/", 3)[3]}?{SIGNATURE}'

    monkeypatch.setattr(credentialclient, 'CredentialClient', Client)
    return asked


def test_where_rucio_signs_a_pfn_without_signature_is_signed_by_the_server(protocol, s3, source, signer):
    made, pfn = protocol(keys=None, url=SITE, sign_url='s3'), f'{SITE}/{BUCKET}/f'
    made.put(source, pfn)
    assert made.exists(pfn) is True
    made.delete(pfn)
    assert s3.operations() == ['PutObject', 'GetObject', 'DeleteObject']
    assert signer == [('X', 's3', operation, pfn) for operation in ('write', 'read', 'delete')]


@pytest.mark.parametrize(('client', 'scheme', 'service'), [(False, 'https', 's3'), (True, 'http', 's3'), (True, 'https', None)])
def test_nobody_signs_for_servers_for_http_or_where_rucio_does_not_sign(protocol, s3, signer, monkeypatch, client, scheme, service):
    url = SITE.replace('https', scheme)
    made = protocol(keys=None, url=url, sign_url=service)
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', client)
    with pytest.raises(RSEAccessDenied, match='there are no credentials'):
        made.stat(f'{url}/{BUCKET}/f')
    assert not signer


def test_a_signed_put_looks_before_where_the_storage_does_not_honour_the_condition(protocol, s3, source, signer, monkeypatch):
    s3.conditional_put = False
    s3.store(BUCKET, 'f', b'somebody else wrote this')
    made, pfn = protocol(keys=None, url=SITE, sign_url='s3', s3={'provider': 'generic'}), f'{SITE}/{BUCKET}/f'
    with pytest.raises(FileReplicaAlreadyExists, match='was not changed'):
        made.put(source, f'{pfn}?{SIGNATURE}.rucio.upload')
    assert s3.content(BUCKET, 'f') == b'somebody else wrote this'
    assert signer == [('X', 's3', 'read', pfn)]
    made.put(source, pfn + '2')
    assert s3.content(BUCKET, 'f2') == CONTENT
    asked = len(signer)
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', False)
    with pytest.raises(FileReplicaAlreadyExists) if s3.conditional_put else nullcontext():
        made.put(source, f'{s3.url}/{BUCKET}/f3?{SIGNATURE}')
    assert len(signer) == asked, 'a daemon does not look'


def test_a_signed_put_where_nobody_signs_for_reading_does_not_look_before(protocol, s3, source):
    protocol(keys=None, s3={'provider': 'generic'}).put(source, f'{s3.url}/{BUCKET}/f?{SIGNATURE}')
    assert s3.operations() == ['PutObject']


def test_nobody_signs_a_pfn_of_another_storage(protocol, signer):
    with pytest.raises(RSEFileNameNotSupported, match='belongs to another storage'):
        protocol(keys=None, url=SITE, sign_url='s3').stat(f'https://other.example.org/{BUCKET}/f')
    assert not signer


@pytest.mark.parametrize(('operation', 'arguments'), [('rename', (f'{SITE}/{BUCKET}/f', f'{SITE}/{BUCKET}/g')), ('ls', (f'{SITE}/{BUCKET}/f',))])
def test_nobody_signs_for_what_needs_keys(protocol, signer, operation, arguments):
    made = protocol(keys=None, url=SITE, sign_url='s3')
    with pytest.raises(RSEOperationNotSupported, match=f'RSE X: {operation} needs keys'):
        getattr(made, operation)(*arguments)
    assert not signer


def test_a_signed_url_may_name_the_bucket_in_its_host(protocol):
    made = protocol(keys=None)
    _, target = made.locate('read', f'https://bucket.s3.example.org/key?{SIGNATURE}')
    assert target == ('X', 'bucket', 'key')


def test_a_signed_put_compares_the_content_with_the_lfn(protocol, s3, source):
    made = protocol(keys=None)
    made.lfns2pfns({'scope': BUCKET, 'name': 'f', 'adler32': '00000001'})
    with pytest.raises(FileConsistencyMismatch):
        made.put(source, f'{s3.url}/{BUCKET}/f?{SIGNATURE}')
    assert not s3.buckets[BUCKET]


def test_a_pfn_of_another_protocol_of_the_rse_is_served(rse, s3, rucio_cfg, tmp_path):
    """Rucio's download client does not ask whether a PFN is for the LAN or the WAN."""
    rucio_cfg({'s3:X': {'access_key': 'A', 'secret_key': 's'}})
    settings = rse(url=SITE)
    wan = settings['protocols'][0]
    host, _, port = s3.url.removeprefix('http://').partition(':')
    lan = {**wan, 'scheme': 'http', 'hostname': host, 'port': int(port)}
    settings['protocols'].append(lan)
    s3.store(BUCKET, 'f', CONTENT)
    made = rsemanager.create_protocol(settings, 'read', protocol_attr=wan)
    made.connect()
    with pytest.raises(RSEFileNameNotSupported, match='belongs to another protocol of this RSE'):
        made.parse_pfns(f'{s3.url}/{BUCKET}/f')
    made.get(f'{s3.url}/{BUCKET}/f', str(tmp_path / 'g'))
    assert (tmp_path / 'g').read_bytes() == CONTENT


def test_nobody_is_asked_for_a_signature_where_there_are_keys(protocol, s3, source, signer):
    protocol(sign_url='s3').put(source, f'{s3.url}/{BUCKET}/f')
    protocol(sign_url='s3', s3={'provider': 'generic'}).put(source, f'{s3.url}/{BUCKET}/g')
    assert not signer


# Operations


@pytest.mark.parametrize('name', HARD_NAMES)
def test_what_is_put_comes_back_whatever_its_name(protocol, s3, source, tmp_path, name):
    made = protocol()
    pfn = pfn_of(made, BUCKET, name)
    if '//' in name:
        with pytest.raises(RSEFileNameNotSupported, match='do not come back'):
            made.put(source, pfn + TEMPORARY)
        s3.store(BUCKET, name, CONTENT)  # as an earlier version did
    else:
        made.put(source, pfn + TEMPORARY)
    assert s3.content(BUCKET, name) == CONTENT
    assert made.exists(pfn) is True
    made.get(pfn, str(tmp_path / 'to' / 'g'))
    assert (tmp_path / 'to' / 'g').read_bytes() == CONTENT
    made.delete(pfn)
    assert not s3.buckets[BUCKET]


@pytest.mark.parametrize('name', ['x/../z', './a', 'a/./b', 'a/.', '..', '//a', 'a//b', 'a/', 'a//', 'a\0b'])
@pytest.mark.parametrize('signed', [False, True])
def test_a_name_that_stock_rucio_cannot_bring_back_is_not_stored(protocol, s3, source, name, signed):
    """`rucio upload --lfn x/../z` said that it had uploaded the file, which no download brought back."""
    made = protocol(keys=None) if signed else protocol()
    pfn = pfn_of(made, BUCKET, name)
    with pytest.raises(RSEFileNameNotSupported, match='do not come back as they are'):
        made.put(source, f'{pfn}?{SIGNATURE}' if signed else pfn + TEMPORARY)
    assert s3.requests == []
    # SeaweedFS answers this to the HEAD (and the GET after it) with which stock Rucio begins.
    s3.fail('HeadObject', error(400, '400'))
    s3.fail('GetObject', error(400, 'InvalidRequest'))
    with pytest.raises(RSEFileNameNotSupported, match='do not come back as they are'):
        protocol().exists(pfn)


@pytest.mark.parametrize('name', ['/a', '/a/b', '...', 'a/...', '.hidden', 'a..b/c', 'a b'])
def test_a_name_that_looks_like_one_of_these_is_stored(protocol, s3, source, name):
    made = protocol()
    made.put(source, pfn_of(made, BUCKET, name))
    assert s3.content(BUCKET, name) == CONTENT


@pytest.mark.parametrize('path', [None, ''])
def test_no_path_does_not_exist(protocol, s3, path):
    assert protocol().exists(path) is False
    assert not s3.requests


def test_users_get_an_error_of_an_upload_without_the_story_behind_it(protocol, s3, monkeypatch, tmp_path):
    """Stock `rucio upload` prints all of it; daemons want it in their logs."""
    seen = []
    monkeypatch.setattr(s3_protocol.terse_logs, 'expect', lambda error, _: seen.append(error))
    made = protocol()
    for client in (True, False):
        monkeypatch.setattr(rsemanager, 'CLIENT_MODE', client)
        with pytest.raises(SourceNotFound) as caught:
            made.put(str(tmp_path / 'missing'), f'{s3.url}/{BUCKET}/f')
        assert seen == ([caught.value] if client else [])
        # What is left of it is the way from here to put().
        names = [each.name for each in caught.traceback]
        assert ('_put' in names) is not client
        assert caught.value.__suppress_context__ or not client
        seen.clear()


def test_costs_in_requests(protocol, s3, source, tmp_path):
    made, pfn = protocol(), f'{s3.url}/{BUCKET}/f'
    spent = {}
    for name, operation in {
        'put': lambda: made.put(source, pfn),
        'exists': lambda: made.exists(pfn),
        'stat': lambda: made.stat(pfn),
        'get': lambda: made.get(pfn, str(tmp_path / 'g')),
        'delete': lambda: made.delete(pfn),
    }.items():
        before = len(s3.requests)
        operation()
        spent[name] = len(s3.requests) - before
    assert spent == {'put': 1, 'exists': 1, 'stat': 1, 'get': 1, 'delete': 2}


_SMALL_FILE = f"""
import sys
from rucio.rse import rsemanager
url, place = sys.argv[1:]
scheme, host, port = url.replace('//', '').split(':')
domains = {{'wan': {{'read': 1, 'write': 1, 'delete': 1}}}}
entry = {{'scheme': scheme, 'hostname': host, 'port': int(port), 'prefix': '/', 'impl': 'rucio.rse.protocols.s3.Default', 'domains': domains}}
entry['extended_attributes'] = {{'s3': {{'provider': 'seaweedfs'}}}}
rse = {{'rse': 'X', 'id': '1', 'deterministic': True, 'lfn2pfn_algorithm': 's3_bucket', 'sign_url': None, 'protocols': [entry]}}
protocol = rsemanager.create_protocol(rse, 'write', domain='wan')
protocol.connect()
protocol.put(place, url + '/{BUCKET}/f')
protocol.stat(url + '/{BUCKET}/f')
protocol.get(url + '/{BUCKET}/f', place + '-again')
print(sorted({{'boto3', 'multiprocessing', 'rich', 's3transfer'}} & set(sys.modules)))
"""


def test_a_small_file_imports_nothing_that_only_large_ones_and_people_need(s3, source, tmp_path):
    """Rucio starts a process for it, and the imports take longer than the transfer."""
    s3.buckets[BUCKET] = {}
    config = tmp_path / 'rucio.cfg'
    config.write_text('[client]\nrucio_host = http://127.0.0.1:1\nauth_host = http://127.0.0.1:1\n[s3:X]\naccess_key = AKID\nsecret_key = secret\n')
    config.chmod(0o600)
    environment = {'PATH': '/usr/bin:/bin', 'HOME': str(tmp_path), 'RUCIO_CONFIG': str(config), 'RUCIO_CLIENT_MODE': '1'}
    words = [sys.executable, '-c', _SMALL_FILE, s3.url, source]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ('[]\n', '')
    assert (tmp_path / 'source-again').read_bytes() == CONTENT


def test_a_file_is_found_in_its_source_dir(protocol, s3, tmp_path):
    (tmp_path / 'g').write_bytes(CONTENT)
    protocol().put('g', f'{s3.url}/{BUCKET}/f', str(tmp_path))
    assert s3.content(BUCKET, 'f') == CONTENT


def test_the_exceptions_are_those_of_rucios_contract(protocol, s3, source, tmp_path):
    made, missing = protocol(), f'{s3.url}/{BUCKET}/missing'
    for operation in (made.stat, made.delete, lambda pfn: made.get(pfn, str(tmp_path / 'g')), lambda pfn: made.rename(pfn, pfn + '2')):
        with pytest.raises(SourceNotFound):
            operation(missing)
    with pytest.raises(SourceNotFound):
        made.put(str(tmp_path / 'missing'), missing)
    with pytest.raises(DestinationNotAccessible):
        made.put(source, f'{s3.url}/no.such.bucket/f')
    made.put(source, f'{s3.url}/{BUCKET}/f')
    with pytest.raises(FileReplicaAlreadyExists):
        made.put(source, f'{s3.url}/{BUCKET}/f')
    # Also without a local file, as Rucio's own tests have it; but only where it is known.
    with pytest.raises(FileReplicaAlreadyExists, match=r'was not changed.*The local file .* cannot be read'):
        made.put(str(tmp_path / 'missing'), f'{s3.url}/{BUCKET}/f')
    s3.fail('HeadObject', error(403, '403'))
    with pytest.raises(SourceNotFound, match='The local file'):
        made.put(str(tmp_path / 'missing'), f'{s3.url}/{BUCKET}/f')
    with pytest.raises(DestinationNotAccessible):
        made.get(f'{s3.url}/{BUCKET}/f', str(tmp_path))
    s3.fail('HeadObject', *[error(503, 'SlowDown')] * 4)
    with pytest.raises(ResourceTemporaryUnavailable):
        made.delete(f'{s3.url}/{BUCKET}/f')
    assert s3.content(BUCKET, 'f') == CONTENT


def test_a_storage_that_does_not_answer_is_not_asked_to_delete_one_by_one(protocol, s3, monkeypatch):
    """Rucio's reaper has a thousand files in hand, and tries all of them before it leaves an RSE alone."""
    made = protocol(s3={'provider': 'seaweedfs', 'max_attempts': 2})
    for name in ('a', 'b'):
        s3.store(BUCKET, name, CONTENT)
    s3.fail('HeadObject', *[Lost()] * 4)
    for name in ('a', 'b'):
        with pytest.raises(ServiceUnavailable, match=f"key '{name}'.*Connection was closed"):
            made.delete(f'{s3.url}/{BUCKET}/{name}')
    s3.requests.clear()
    for name in ('a', 'b'):
        with pytest.raises(ServiceUnavailable, match=f"RSE X: delete of bucket '{BUCKET}', key '{name}': not tried"):
            made.delete(f'{s3.url}/{BUCKET}/{name}')
    assert not s3.requests
    # Others try by themselves, and so does this one later.
    protocol().delete(f'{s3.url}/{BUCKET}/b')
    now = made._silent_until
    assert now - time.monotonic() <= 30
    monkeypatch.setattr(time, 'monotonic', lambda: now)
    made.delete(f'{s3.url}/{BUCKET}/a')
    assert not s3.buckets[BUCKET]


def test_a_storage_that_cannot_be_reached_is_asked_once(protocol, s3, monkeypatch):
    made = protocol(url='http://127.0.0.1:1', s3={'provider': 'seaweedfs', 'max_attempts': 1})
    for said in ('Could not connect', 'not tried'):
        with pytest.raises(ServiceUnavailable, match=said):
            made.delete(f'http://127.0.0.1:1/{BUCKET}/a')


def test_one_object_of_which_nothing_is_heard_does_not_stop_the_others(protocol, s3):
    """Ceph answers nothing of what lies in an inactive placement group; the reaper would find the same object first in each of its cycles."""
    made = protocol(s3={'provider': 'seaweedfs', 'max_attempts': 1})
    for name in ('b', 'c', 'd'):
        s3.store(BUCKET, name, CONTENT)
    for name in ('b', 'c'):
        s3.fail('HeadObject', Lost())
        with pytest.raises(ServiceUnavailable, match='Connection was closed'):
            made.delete(f'{s3.url}/{BUCKET}/a')
        made.delete(f'{s3.url}/{BUCKET}/{name}')
    # An error is an answer.
    for fault in (Lost(), error(500, '500')):
        s3.fail('HeadObject', fault)
        with pytest.raises(ServiceUnavailable):
            made.delete(f'{s3.url}/{BUCKET}/a')
    made.delete(f'{s3.url}/{BUCKET}/d')
    assert not s3.buckets[BUCKET]


@pytest.mark.parametrize('fault', [error(403, 'AccessDenied'), error(503, 'SlowDown'), error(500, 'InternalError')], ids=['403', '503', '500'])
def test_a_storage_that_says_no_is_asked_for_each_file(protocol, s3, fault):
    made = protocol(s3={'provider': 'seaweedfs', 'max_attempts': 1})
    s3.store(BUCKET, 'b', CONTENT)
    for operation in ('HeadObject', 'GetObject', *(['DeleteObject'] if fault.status == 403 else [])):
        s3.fail(operation, fault)
    with pytest.raises((RSEAccessDenied, ResourceTemporaryUnavailable, ServiceUnavailable)):
        made.delete(f'{s3.url}/{BUCKET}/a')
    made.delete(f'{s3.url}/{BUCKET}/b')
    assert not s3.buckets[BUCKET]


@pytest.mark.parametrize('status', [400, 403])
def test_what_its_writer_has_hidden_is_deleted(protocol, s3, status):
    """By an access list, or by a key of his own."""
    s3.store(BUCKET, 'a', CONTENT)
    s3.fail('HeadObject', error(status, 'AccessDenied'))
    s3.fail('GetObject', error(status, 'AccessDenied'))
    protocol().delete(f'{s3.url}/{BUCKET}/a')
    assert not s3.buckets[BUCKET]


DENY = {'Statement': [{'Effect': 'Deny', 'Principal': '*', 'Action': 's3:DeleteObject'}]}


def refuse(s3, times=1, code='AccessDenied'):
    for operation in ('HeadObject', 'GetObject', 'DeleteObject'):  # the second says why
        s3.fail(operation, *[error(403, code)] * times)


@pytest.mark.parametrize('hidden', [False, True])
def test_a_bucket_that_refuses_is_not_taken_for_the_storage(protocol, s3, monkeypatch, hidden):
    """Rucio's reaper leaves all of an RSE alone after some RSEAccessDenied: whoever can close one bucket would end all deletion."""
    made = protocol(s3={'provider': 'seaweedfs', 'max_attempts': 1})
    s3.make_bucket('user.bob')
    s3.policies[BUCKET] = DENY
    if hidden:
        s3.fail('GetBucketPolicy', error(403, 'AccessDenied'))
    refuse(s3, 3)
    for _ in range(2):
        with pytest.raises(SourceAccessDenied, match='the policy of this bucket'):
            made.delete(f'{s3.url}/{BUCKET}/a')
    tried = ['HeadObject', 'GetObject', 'DeleteObject']
    assert s3.operations() == [*tried, 'ListBuckets', 'GetBucketPolicy', *(['GetBucketPolicy'] if hidden else []), *tried]
    now, (until, _) = time.monotonic(), made._closed[BUCKET]
    assert 20 < until - now <= 30
    monkeypatch.setattr(time, 'monotonic', lambda: until)
    del s3.policies[BUCKET]
    with pytest.raises(RSEAccessDenied):
        made.delete(f'{s3.url}/{BUCKET}/a')


def test_a_bucket_that_refuses_without_a_word_is_not_taken_for_the_storage_either(protocol, s3):
    s3.policies[BUCKET] = DENY
    for operation in ('HeadObject', 'GetObject', 'DeleteObject'):
        s3.fail(operation, Answer(403))
    with pytest.raises(SourceAccessDenied, match='the policy of this bucket'):
        protocol().delete(f'{s3.url}/{BUCKET}/a')


@pytest.mark.parametrize('code', ['InvalidAccessKeyId', 'SignatureDoesNotMatch', 'ExpiredToken'])
def test_keys_that_are_wrong_are_wrong_for_all_buckets(protocol, s3, code):
    made = protocol(s3={'provider': 'seaweedfs', 'max_attempts': 1})
    refuse(s3, code=code)
    with pytest.raises(RSEAccessDenied):
        made.delete(f'{s3.url}/{BUCKET}/a')
    assert 'ListBuckets' not in s3.operations()
    # With a storage that does not say so at once.
    refuse(s3)
    s3.fail('ListBuckets', error(403, code))
    with pytest.raises(RSEAccessDenied):
        made.delete(f'{s3.url}/{BUCKET}/a')


def test_keys_that_may_only_read_are_wrong_for_all_buckets(protocol, s3):
    s3.make_bucket('user.bob')
    s3.fail('GetBucketPolicy', *[error(403, 'AccessDenied')] * 2)
    refuse(s3)
    with pytest.raises(RSEAccessDenied):
        protocol().delete(f'{s3.url}/{BUCKET}/a')


def test_only_buckets_of_the_rse_are_compared_with_one_that_refuses(protocol, s3, monkeypatch):
    """Others may be anybody's."""
    for name in ('cms-user.alice', 'cms-user.bob', 'lhcb-x'):
        s3.make_bucket(name)
    made = protocol(s3={'provider': 'seaweedfs', 'bucket_prefix': 'cms-', 'max_attempts': 1})
    asked = []
    monkeypatch.setattr(s3_protocol.objects, 'closes_itself', lambda *given: asked.append(given[2:]) or True)
    refuse(s3)
    with pytest.raises(SourceAccessDenied):
        made.delete(f'{s3.url}/cms-user.alice/a')
    assert asked == [('cms-user.alice', ['cms-user.bob'])]


def test_who_has_no_keys_of_the_operator_is_refused_as_such(protocol, s3):
    refuse(s3)
    with pytest.raises(RSEAccessDenied):
        protocol(keys=None, s3={'auth': 'anonymous'}).delete(f'{s3.url}/{BUCKET}/a')
    assert 'ListBuckets' not in s3.operations()


def test_where_all_scopes_share_a_bucket_it_is_the_storage(protocol, s3):
    s3.policies[BUCKET] = DENY
    refuse(s3)
    with pytest.raises(RSEAccessDenied):
        protocol(prefix=f'/{BUCKET}/').delete(f'{s3.url}/{BUCKET}/user.alice/a')
    assert 'ListBuckets' not in s3.operations()


def test_stat_tells_a_size_that_is_a_number_and_the_md5_where_it_is_known(protocol, s3):
    s3.store(BUCKET, 'single', CONTENT)
    s3.store(BUCKET, 'multipart', CONTENT, etag=hashlib.md5(CONTENT).hexdigest() + '-2')
    made = protocol()
    assert made.stat(f'{s3.url}/{BUCKET}/single') == {'filesize': len(CONTENT), 'md5': hashlib.md5(CONTENT).hexdigest()}
    assert made.stat(f'{s3.url}/{BUCKET}/multipart') == {'filesize': len(CONTENT)}


@pytest.mark.parametrize('known', [{'adler32': '00000001'}, {'md5': hashlib.md5(b'other').hexdigest()}])
def test_a_file_that_is_not_what_its_lfn_says_is_not_stored(protocol, s3, source, known):
    """Rucio has registered that, and every download would fail."""
    made = protocol()
    pfn = made.lfns2pfns({'scope': BUCKET, 'name': 'f', 'filesize': len(CONTENT), **known})[f'{BUCKET}:f']
    with pytest.raises(FileConsistencyMismatch):
        made.put(source, pfn + TEMPORARY)
    assert not s3.buckets[BUCKET]
    made.put(source, f'{s3.url}/{BUCKET}/another')  # of which nothing was said
    assert s3.content(BUCKET, 'another') == CONTENT


def test_a_second_try_finds_that_the_first_had_arrived(protocol, s3, source):
    """Rucio's client tries each put twice, with one object."""
    made, pfn = protocol(s3={'provider': 'seaweedfs', 'max_attempts': 1}), f'{s3.url}/{BUCKET}/f'
    s3.fail('PutObject', Lost(None))
    s3.fail('HeadObject', error(503, 'SlowDown'))
    with pytest.raises(ServiceUnavailable):
        made.put(source, pfn + TEMPORARY)
    made.put(source, pfn + TEMPORARY)
    assert made.stat(pfn + TEMPORARY)['filesize'] == len(CONTENT)


def test_a_second_try_does_not_take_the_file_of_another_for_its_own(protocol, s3, source):
    made, pfn = protocol(s3={'provider': 'seaweedfs', 'max_attempts': 1}), f'{s3.url}/{BUCKET}/f'
    s3.fail('PutObject', error(503, 'SlowDown'))
    with pytest.raises(ResourceTemporaryUnavailable):
        made.put(source, pfn)
    s3.store(BUCKET, 'f', CONTENT[::-1])
    with pytest.raises(FileReplicaAlreadyExists):
        made.put(source, pfn)
    assert s3.content(BUCKET, 'f') == CONTENT[::-1]


@pytest.mark.parametrize(('client', 'asked'), [(False, 1), (True, 2)], ids=['daemon', 'client'])
def test_a_daemon_leaves_a_silent_storage_alone(protocol, s3, monkeypatch, client, asked):
    """The reaper, for one, would wait for each file; a person does, as it may come back."""
    monkeypatch.setattr('rucio.rse.protocols.s3.is_client', lambda: client)
    monkeypatch.setattr('rucio.common.s3.breaker.MAX_DOUBT', 0.05)
    made = protocol(s3={'provider': 'seaweedfs', 'max_attempts': 1, 'read_timeout': 0.2})
    for operation in ('HeadObject', 'ListBuckets'):
        s3.fail(operation, *[Stalled()] * 9)
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            made.stat(f'{s3.url}/{BUCKET}/f')
    assert s3.operations().count('HeadObject') == asked


@pytest.mark.parametrize('timeout', [None, 0, '0', '', 30, 30.5, '30'])
def test_a_timeout_is_what_rucio_passes(protocol, s3, source, tmp_path, timeout):
    made, pfn = protocol(), f'{s3.url}/{BUCKET}/f'
    made.put(source, pfn, transfer_timeout=timeout)
    made.get(pfn, str(tmp_path / 'g'), transfer_timeout=timeout)
    assert (tmp_path / 'g').read_bytes() == CONTENT


@pytest.mark.parametrize(('timeout', 'seconds'), [(None, None), (0, None), ('0', None), ('', None), (30, 30), ('30.5', 30.5)])
def test_no_timeout_is_no_limit(protocol, s3, source, tmp_path, monkeypatch, timeout, seconds):
    given = []
    monkeypatch.setattr(s3_protocol.transfer, 'upload', lambda *arguments: given.append(arguments[3]) or 1)
    monkeypatch.setattr(s3_protocol.transfer, 'download', lambda *arguments: given.append(arguments[3]))
    made, pfn = protocol(), f'{s3.url}/{BUCKET}/f'
    made.put(source, pfn, transfer_timeout=timeout)
    made.get(pfn, str(tmp_path / 'g'), transfer_timeout=timeout)
    assert given == [seconds, seconds]


def test_a_timeout_that_is_no_number_is_refused(protocol, s3, source):
    with pytest.raises(InputValidationError, match='soon'):
        protocol().put(source, f'{s3.url}/{BUCKET}/f', transfer_timeout='soon')
    assert not s3.requests


def test_a_failed_download_is_logged_as_rucios_client_says_nothing(rse, s3, rucio_cfg, tmp_path):
    logged = []
    rucio_cfg({'s3': {'auth': 'anonymous'}})
    made = rsemanager.create_protocol(rse(url=s3.url), 'read', logger=lambda level, text, *args, **_: logged.append((level, text % args)))
    made.connect()
    with pytest.raises(SourceNotFound):
        made.get(f'{s3.url}/{BUCKET}/missing', str(tmp_path / 'g'))
    ((level, text),) = logged
    assert level == logging.WARNING
    assert re.match("(s3.Default: )?RSE X: get of bucket 'user.alice', key 'missing': ", text)


@pytest.mark.parametrize(('client', 'shown'), [(True, 'on'), (False, 'off')])
def test_progress_is_shown_by_clients_as_configured_and_never_by_daemons(protocol, s3, source, monkeypatch, client, shown):
    seen = []

    @contextmanager
    def record(setting, name, size):
        seen.append((setting, name, size))
        yield None

    monkeypatch.setattr(progress, 'meter', record)
    made = protocol(keys={'access_key': 'A', 'secret_key': 'b', 'progress': 'on'})
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', client)
    made.put(source, f'{s3.url}/{BUCKET}/f')
    assert seen == [(shown, 'source', len(CONTENT))]


# rename


@pytest.mark.parametrize('name', ['new', 'dir/a b%ä'])
def test_a_rename_moves_the_object(protocol, s3, name):
    s3.store(BUCKET, 'old name+', CONTENT)
    made = protocol()
    made.rename(pfn_of(made, BUCKET, 'old name+'), pfn_of(made, BUCKET, name))
    assert {key: each.body for key, each in s3.buckets[BUCKET].items()} == {name: CONTENT}


@pytest.mark.parametrize('provider', ['seaweedfs', 'ceph', 'generic'])
def test_a_rename_never_overwrites(protocol, s3, provider):
    s3.store(BUCKET, 'old', CONTENT)
    s3.store(BUCKET, 'new', b'first')
    with pytest.raises(FileReplicaAlreadyExists, match="key 'new'"):
        protocol(s3={'provider': provider}).rename(f'{s3.url}/{BUCKET}/old', f'{s3.url}/{BUCKET}/new')
    assert {key: each.body for key, each in s3.buckets[BUCKET].items()} == {'old': CONTENT, 'new': b'first'}


def test_a_rename_whose_copy_fails_deletes_nothing(protocol, s3):
    s3.store(BUCKET, 'old', CONTENT)
    s3.fail('CopyObject', error(403, 'AccessDenied'))
    with pytest.raises(RSEAccessDenied):
        protocol().rename(f'{s3.url}/{BUCKET}/old', f'{s3.url}/{BUCKET}/new')
    assert list(s3.buckets[BUCKET]) == ['old']


def test_a_rename_to_its_own_name_keeps_the_object(protocol, s3):
    s3.store(BUCKET, 'old', CONTENT)
    protocol().rename(f'{s3.url}/{BUCKET}/old', f'{s3.url}/{BUCKET}/old')
    with pytest.raises(FileReplicaAlreadyExists):
        protocol().rename(f'{s3.url}/{BUCKET}/o%6Cd', f'{s3.url}/{BUCKET}/old')
    assert s3.content(BUCKET, 'old') == CONTENT


# bulk_delete, ls, get_space_usage


def test_2001_files_are_deleted_by_three_requests(protocol, s3):
    for number in range(2001):
        s3.store(BUCKET, f'k {number}', b'')
    pfns = [f'{s3.url}/{BUCKET}/k%20{number}' for number in range(2001)]
    assert protocol().bulk_delete(iter(pfns)) == dict.fromkeys(pfns)
    assert s3.operations() == ['DeleteObjects'] * 3
    assert not s3.buckets[BUCKET]


def test_nothing_to_delete_costs_nothing(protocol, s3):
    assert protocol().bulk_delete([]) == {}
    assert not s3.requests


def test_a_bulk_delete_reports_each_pfn(protocol, s3):
    s3.store(BUCKET, 'a', b'')
    good, bad, foreign = f'{s3.url}/{BUCKET}/a', f'{s3.url}/no.such.bucket/a', 'http://elsewhere.example.org/bucket/a'
    result = protocol().bulk_delete([foreign, good, bad])
    assert result[good] is None
    assert isinstance(result[bad], ServiceUnavailable)
    assert isinstance(result[foreign], RSEFileNameNotSupported)


def test_ls_tells_pfns(protocol, s3):
    for key in ('f', 'a b/1', 'a b/c/2', 'a b2'):
        s3.store(BUCKET, key, b'')
    made, bucket = protocol(), f'{s3.url}/{BUCKET}'
    assert sorted(made.ls(bucket)) == sorted(made.ls(f'{bucket}/')) == [f'{bucket}/a%20b/', f'{bucket}/a%20b2', f'{bucket}/f']
    assert sorted(made.ls(f'{bucket}/a%20b')) == sorted(made.ls(f'{bucket}/a%20b/')) == [f'{bucket}/a%20b/1', f'{bucket}/a%20b/c/']
    assert made.ls(f'{bucket}/nothing') == []


def test_the_rucio_server_has_one_client_for_each_login(monkeypatch):
    class Client:
        pass

    monkeypatch.setattr(s3client, 'S3Client', Client)
    monkeypatch.setattr(s3_protocol, '_servers', {})
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', True)
    first = s3_protocol._server('token')
    assert isinstance(first, Client)
    assert s3_protocol._server('token') is first
    assert s3_protocol._server(None) is not first
    monkeypatch.setattr(os, 'getpid', lambda: 1)
    assert s3_protocol._server('token') is not first, 'a forked process has its own'
    monkeypatch.setattr(s3client, 'S3Client', mock.Mock(side_effect=MissingClientParameter('no account')))
    assert s3_protocol._server('another') is None
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', False)
    assert s3_protocol._server('token') is None


@pytest.mark.parametrize(
    ('url', 'expected'),
    [
        ('https://bucket.s3.example.org/key', ('https://bucket.s3.example.org', 'bucket', 'key')),
        ('https://s3.example.org/bucket/a/key', ('https://s3.example.org', 'bucket', 'a/key')),
    ],
)
def test_the_object_of_a_signed_url_of_either_style(url, expected):
    for signed in (url, f'{url}?X-Amz-Signature=a/b/c'):
        found = s3_protocol._path_style(signed)
        assert (found.endpoint, found.bucket, found.key) == expected


def test_space_is_the_capacity_less_what_is_listed(protocol, s3):
    s3.store(BUCKET, 'f', b'x' * 100)
    s3.store('x---mc', 'f', b'x' * 10)
    s3.store('Foreign_bucket', 'f', b'x' * 5)
    assert protocol(s3={'capacity': '1000'}).get_space_usage() == (1000, 890)


def test_space_of_an_rse_with_a_path_is_that_below_it(protocol, s3):
    for key in ('a/path/f', 'a/path2/f', 'f'):
        s3.store('bucket', key, b'x' * 10)
    assert protocol(prefix='/bucket/a/path/', s3={'capacity': '1000'}).get_space_usage() == (1000, 990)


def test_space_of_an_overfull_rse_is_none(protocol, s3):
    s3.store(BUCKET, 'f', b'x' * 100)
    assert protocol(s3={'capacity': '10'}).get_space_usage() == (10, 0)


@pytest.mark.parametrize(('silent', 'free', 'told'), [('ac', 900, True), ('', 700, False)])
def test_space_of_objects_whose_size_the_storage_does_not_tell(protocol, s3, monkeypatch, silent, free, told):
    for key in ('a', 'b', 'c'):
        s3.store(BUCKET, key, b'x' * 100)
    plain = fake_s3._entry
    monkeypatch.setattr(fake_s3, '_entry', lambda key, *each: re.sub('<Size>.*</Size>' if key in silent else '^$', '', plain(key, *each)))
    made = protocol(s3={'capacity': '1000'})
    said = []
    made.logger = lambda _, text, *values: said.append(text % values)
    assert made.get_space_usage() == (1000, free)
    assert said == ['RSE X: the storage lists 2 objects without size or date, which count as empty. Tell its operator.'] * told


def test_space_is_unknown_without_a_capacity(protocol):
    with pytest.raises(RSEOperationNotSupported, match="'capacity'"):
        protocol().get_space_usage()


# As rsemanager does it


@pytest.fixture
def managed(rse, s3, rucio_cfg, tmp_path):
    """The settings of an RSE on `s3`, and a file's LFN."""
    rucio_cfg({'s3:X': {'access_key': 'A', 'secret_key': 'b'}})
    tmp_path.joinpath('a b').write_bytes(CONTENT)
    lfn = {'scope': BUCKET, 'name': 'a b', 'filesize': len(CONTENT), 'adler32': f'{zlib.adler32(CONTENT):08x}'}
    return rse(url=s3.url), lfn


def test_rsemanagers_upload_and_delete(managed, s3, tmp_path):
    settings, lfn = managed
    uploaded = rsemanager.upload(settings, [lfn], source_dir=str(tmp_path))
    assert uploaded['success'] is True
    assert uploaded['pfn'] == f'{s3.url}/{BUCKET}/a%20b'
    assert s3.operations() == ['PutObject', 'HeadObject']
    assert rsemanager.exists(settings, lfn) is True
    rsemanager.delete(settings, lfn)
    assert rsemanager.exists(settings, lfn) is False


def test_rsemanagers_upload_leaves_an_object_as_it_is_unless_it_may_delete(managed, s3, tmp_path):
    settings, lfn = managed
    s3.store(BUCKET, 'a b', b'first')
    with pytest.raises(FileReplicaAlreadyExists):
        rsemanager.upload(settings, [lfn], source_dir=str(tmp_path))
    assert s3.content(BUCKET, 'a b') == b'first'
    assert rsemanager.upload(settings, [lfn], source_dir=str(tmp_path), delete_existing=True)['success'] is True
    assert s3.content(BUCKET, 'a b') == CONTENT


def test_rsemanagers_rename(managed, s3):
    settings, _ = managed
    s3.store(BUCKET, 'a b', CONTENT)
    assert rsemanager.rename(settings, {'scope': BUCKET, 'name': 'a b', 'new_name': 'c'}) is True
    assert list(s3.buckets[BUCKET]) == ['c']


def test_nothing_is_written_outside_of_where_it_belongs(protocol, s3, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(os.listdir(tmp_path)) | {'g'}
    made, pfn = protocol(), f'{s3.url}/{BUCKET}/f'
    made.put(source, pfn)
    made.get(pfn, 'g')
    assert set(os.listdir(tmp_path)) == before


@pytest.mark.parametrize('first', ['rucio.rse.protocols.posix', 'rucio.rse.translation', 'rucio.rse.rsemanager', 'rucio.rse.protocols.s3'])
def test_the_algorithm_can_be_named_in_the_configuration_whatever_is_imported_first(tmp_path, first):
    config = tmp_path / 'rucio.cfg'
    config.write_text('[client]\nrucio_host = http://127.0.0.1:9\n[policy]\nlfn2pfn_module = rucio.rse.s3translation\n')
    code = f'import {first}; from rucio.rse.translation import RSEDeterministicTranslation as T; print(T.supports("s3_bucket"))'
    done = subprocess.run([sys.executable, '-c', code], env={'RUCIO_CONFIG': str(config)}, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == 'True\n', done.stderr


@pytest.mark.parametrize('key', ['ds/../../../../x', '../x', 'a/./b', '//etc/x', 'a%00'])
def test_no_key_is_got_whose_name_leaves_the_directory_of_a_download(protocol, s3, tmp_path, key):
    """Rucio made the local path of it. Where to is the user's to say: that may have dots."""
    with pytest.raises(RSEFileNameNotSupported, match='leave the directory'):
        protocol().get(f'{s3.url}/user.alice/{key}', str(tmp_path / 'x' / '..' / 'file'))
    assert s3.requests == []
