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


def test_a_host_that_nobody_knows(monkeypatch):
    def fail(*_, **__):
        raise OSError

    storage_areas._addresses.cache_clear()
    monkeypatch.setattr(socket, 'getaddrinfo', fail)
    assert not place('192.0.2.1').is_same_storage(place())
