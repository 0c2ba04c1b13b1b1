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

"""Whether two RSEs can have the same key for different DIDs. No server, no database."""

import socket

import pytest

from rucio.common.s3 import storage_areas
from rucio.common.s3.storage_areas import StorageArea


def place(url='s3.example.org:443/', algorithm='s3_bucket', bucket_prefix='', rse='X'):
    host, _, prefix = url.partition('/')
    name, _, port = host.partition(':')
    settings = {'s3': {'bucket_prefix': bucket_prefix}} if bucket_prefix else {}
    return StorageArea.of(rse, {'hostname': name, 'port': int(port or 0), 'prefix': f'/{prefix}', 'extended_attributes': settings}, algorithm)


@pytest.mark.parametrize(
    ('one', 'other', 'scope'),
    [
        (place(), place('S3.Example.ORG.'), ''),
        (place(), place(bucket_prefix='user.'), ''),
        (place(bucket_prefix='vo'), place(bucket_prefix='vo1'), ''),
        (place('h/all/'), place('h/all/x'), ''),
        (place('h/all/x/', 'hash'), place('h/all/x/'), ''),
        (place('h/all/'), place('h/'), 'all'),
        (place('h/vo-all/'), place('h/', bucket_prefix='vo-'), 'all'),
        (place('127.0.0.1:8333/'), place('127.0.0.1:8333/', bucket_prefix='a'), ''),
    ],
)
def test_places_that_overlap(one, other, scope):
    for found in (one.overlap(other), other.overlap(one)):
        assert found.scope == scope


@pytest.mark.parametrize(
    ('one', 'other', 'why'),
    [
        (place(), place(rse='Y'), 'Y uses the same keys for all files'),
        (place('h/all/'), place('h/all/', rse='Y'), 'Y uses the same keys for all files'),
        (place('h/all/'), place('h/all/', 'hash', rse='Y'), "'all/' is in 'all/' of Y, or vice versa"),
        (place('h/all/x'), place('h/all/', rse='Y'), "'all/x/' is in 'all/' of Y, or vice versa"),
        (place(bucket_prefix='vo'), place(bucket_prefix='vo1', rse='Y'), "'vo' begins like the bucket_prefix 'vo1' of Y, or vice versa"),
        (place('h/all/'), place('h/', rse='Y'), "the bucket 'all' belongs to scope all on Y, and to all scopes on X"),
        (place('h/', rse='Y'), place('h/all/'), "the bucket 'all' belongs to scope all on Y, and to all scopes on X"),
    ],
)
def test_why_places_overlap(one, other, why):
    assert one.overlap(other).why == why


@pytest.mark.parametrize(
    ('one', 'other', 'same'),
    [
        (('h', 80), ('h', 443), True),
        (('h', 0), ('h', 443), True),
        (('h', None), ('h', '80'), True),
        (('h', 8333), ('h', 443), False),
        (('h', '8333'), ('h', 8333), True),
        (('[2001:DB8::1]', 1), ('2001:db8:0:0::1', 1), True),
        (('[2001:DB8::1]', 1), ('[2001:db8::2]', 1), False),
        ((' H.example.org. ', 1), ('h.example.org', 1), True),
        (('192.0.2.1', 1), ('2001:db8::1', 1), False),
    ],
)
def test_a_storage_is_its_host_and_its_port_however_they_are_written(one, other, same):
    one, other = (StorageArea.of('X', {'hostname': host, 'port': port, 'prefix': '/'}, 's3_bucket') for host, port in (one, other))
    assert one.is_same_storage(other) is other.is_same_storage(one) is same


@pytest.mark.parametrize('more', [None, {}, {'s3': None}, {'s3': {}}, {'s3': {'bucket_prefix': None}}])
def test_an_rse_without_settings_has_no_prefix_of_buckets(more):
    protocol = {'hostname': 'h', 'port': None, 'prefix': '/common/a/b/', 'extended_attributes': more}
    assert StorageArea.of('X', protocol, None) == StorageArea('X', 'h', None, 'common', 'a/b/', '', None)


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        (place(), place('elsewhere.example.org')),
        (place(), place('s3.example.org:8443')),
        (place(bucket_prefix='vo1-'), place(bucket_prefix='vo2-')),
        (place('h/all/x/'), place('h/all/xy/')),
        (place('h/all/'), place('h/more/')),
        (place('h/all/'), place('h/', bucket_prefix='vo-')),
        (place(algorithm=None), place()),
    ],
)
def test_places_apart(one, other):
    assert one.overlap(other) is None
    assert other.overlap(one) is None


def test_a_host_by_name_and_by_address(monkeypatch):
    storage_areas._addresses.cache_clear()
    monkeypatch.setattr(socket, 'getaddrinfo', lambda name, *_, **__: [(0, 0, 0, '', ({'s3.example.org': '192.0.2.1'}.get(name, '192.0.2.9'), 0))])
    assert place('192.0.2.1').is_same_storage(place())
    assert place().is_same_storage(place('192.0.2.1'))
    assert not place('192.0.2.2').is_same_storage(place())
    assert not place('192.0.2.1').is_same_storage(place('192.0.2.3'))
    # Many may stand behind one proxy.
    assert not place('s3.example.org').is_same_storage(place('other.example.org'))


@pytest.mark.parametrize('kind', [OSError, UnicodeError])
def test_a_host_that_nobody_knows(monkeypatch, kind):
    def fail(*_, **__):
        raise kind

    storage_areas._addresses.cache_clear()
    monkeypatch.setattr(socket, 'getaddrinfo', fail)
    assert not place('192.0.2.1').is_same_storage(place())
