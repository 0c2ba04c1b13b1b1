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

"""The conformance suite: what Rucio relies on, for any S3 storage.

A test file for a storage subclasses :class:`ProtocolConformance` and gives it a fixture ``backend``::

    class TestMyStorage(ProtocolConformance):
        @pytest.fixture(scope='class')
        @classmethod
        def backend(cls):
            return Backend('https', 'localhost', 9000, provider='minio', access_key='...', secret_key='...')

What the storage cannot do stands in ``Backend.cannot`` with a reason: the suite then tests what has to happen instead, and
skips where nothing is left to test. :class:`PresignedConformance` is the same for clients that have no keys and are given
PFNs that a Rucio server signed.
"""

import hashlib
import json
import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from rucio.common.exception import (
    DestinationNotAccessible,
    FileConsistencyMismatch,
    FileReplicaAlreadyExists,
    RSEAccessDenied,
    RSEFileNameNotSupported,
    RSEOperationNotSupported,
    RucioException,
    ServiceUnavailable,
    SourceAccessDenied,
    SourceNotFound,
)
from rucio.rse import rsemanager

from .rig import CAPACITY, THRESHOLD, Backend, MiB, Rig

WRITERS = 16
LAYOUTS = ('s3_bucket', 'hash', 'identity')
SIZES = {
    'empty': 0,
    'one_byte': 1,
    'small': 1000,
    'below_threshold': THRESHOLD - 1,
    'at_threshold': THRESHOLD,
    'above_threshold': THRESHOLD + 1,
    'three_parts': 2 * THRESHOLD + 1,
}


class EdgeKey(NamedTuple):
    """A key that something between Rucio and a storage could get wrong; ``limit``: what storages may be unable to do."""

    key: str
    limit: str | None = None


EDGE_KEYS = {
    'space': EdgeKey('with space/and  two'),
    'spaces_around': EdgeKey(' around '),
    'plus': EdgeKey('a+b/c+'),
    'percent': EdgeKey('100%/a%20b%2Fc%zz'),
    'hash': EdgeKey('a#b/#'),
    'question_mark': EdgeKey('a?b=c&d=e/f?'),
    'signature': EdgeKey('a?X-Amz-Signature=0&X-Amz-Expires=1'),
    'equals_and_ampersand': EdgeKey('a=b/&c=d&amp;'),
    'unicode': EdgeKey('Ωμέγα/日本語/é-e\u0301/😀'),
    'quotes': EdgeKey('it\'s "quoted"/`<x>'),
    'delimiters': EdgeKey('a:b;c,d@e/[f]{g}(h)|i*$!^'),
    'unreserved': EdgeKey('-_.~/~user/.hidden/...'),
    'https': EdgeKey('https/https:davs/davs.https'),
    'url': EdgeKey('https://davs.example.org:443/x', 'empty_segments'),
    'double_slash': EdgeKey('a//b///c', 'empty_segments'),
    'leading_slash': EdgeKey('/leading', 'leading_slash'),
    'dots': EdgeKey('a/../b', 'dot_segments'),
    'leading_dots': EdgeKey('../../b', 'dot_segments'),
    'dot': EdgeKey('a/./b', 'dot_segments'),
    'temporary': EdgeKey('a.rucio.upload'),
    'bytes_1024': EdgeKey('/'.join(['n' * 254] * 4) + '/end1', 'long_keys'),
    'bytes_1024_in_one': EdgeKey('n' * 1024, 'long_segments'),
    'bytes_1024_unicode': EdgeKey('/'.join(['é' * 127] * 4) + '/end1', 'long_keys'),
}


class Local(NamedTuple):
    """A local file."""

    path: Path
    content: bytes

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def folder(self) -> str:
        return str(self.path.parent)

    @property
    def md5(self) -> str:
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()

    @property
    def adler32(self) -> str:
        return f'{zlib.adler32(self.content):08x}'

    def lfn(self, rig: Rig, name: str, **more: Any) -> dict[str, Any]:
        """The LFN as ``rsemanager.upload`` takes it."""
        facts = {'filename': self.name, 'filesize': len(self.content), 'md5': self.md5, 'adler32': self.adler32}
        return rig.lfn(name, **(facts | more))


class ProtocolConformance:
    """The tests, for clients that have keys."""

    signed = False
    losers: tuple[type[Exception], ...] = (FileReplicaAlreadyExists,)  # what those are told who write one name at the same moment, and do not win

    # What the tests stand on

    @pytest.fixture(scope='class')
    @classmethod
    def rig(cls, backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
        with Rig(backend, tmp_path_factory.mktemp('rucio'), signed=cls.signed).installed() as rig:
            yield rig

    @pytest.fixture(autouse=True)
    def nothing_left_behind(self, rig: Rig, tmp_path: Path) -> Iterator[None]:
        """After no test there is a multipart upload that costs space, or a part of a file."""
        yield
        assert rig.uploads() == []
        assert [path for path in tmp_path.rglob('*') if 'rucio-s3' in path.name] == []

    @pytest.fixture
    def name(self, request: pytest.FixtureRequest) -> str:
        """A name of the test's own."""
        return f'{request.node.name.partition("[")[0]}/{os.urandom(3).hex()}/file'

    @pytest.fixture
    def local(self, tmp_path: Path) -> Callable[..., Local]:
        """Call it for a local file of so many random bytes."""

        def make(size: int = 1000, name: str = 'local file') -> Local:
            path = tmp_path / name
            content = os.urandom(size)
            path.write_bytes(content)
            return Local(path, content)

        return make

    @pytest.fixture
    def dest(self, tmp_path: Path) -> Path:
        return tmp_path / 'destination'

    # Files of all sizes, there and back

    @pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
    def test_put_then_get(self, rig, name, local, dest, size):
        file = local(size)
        rig.protocol('write').put(file.name, rig.pfn(name, 'write'), file.folder)
        assert rig.stored(rig.key(name)) == file.content
        rig.protocol('read').get(rig.pfn(name, 'read'), str(dest))
        assert dest.read_bytes() == file.content

    @pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
    def test_stat(self, rig, name, local, size):
        file = local(size)
        rig.protocol('write').put(str(file.path), rig.pfn(name, 'write'))
        stat = rig.protocol('read').stat(rig.pfn(name, 'read'))
        assert type(stat['filesize']) is int
        assert stat['filesize'] == size
        # Rucio compares what is there: no checksum is better than that of something else.
        assert stat.get('md5', file.md5) == file.md5
        assert stat.get('adler32', file.adler32) == file.adler32

    @pytest.mark.parametrize('size', [SIZES['one_byte'], SIZES['at_threshold'], SIZES['three_parts']])
    def test_get_what_another_client_wrote(self, rig, name, local, dest, size):
        file = local(size)
        rig.client.upload_file(str(file.path), rig.bucket, rig.key(name))
        protocol = rig.protocol('read')
        stat = protocol.stat(rig.pfn(name, 'read'))
        assert stat['filesize'] == size
        assert stat.get('md5', file.md5) == file.md5
        protocol.get(rig.pfn(name, 'read'), str(dest))
        assert dest.read_bytes() == file.content

    def test_multipart_above_the_threshold(self, rig, name, local):
        protocol = rig.protocol('write')
        for size, parts in ((THRESHOLD - 1, None), (2 * THRESHOLD + 1, 3)):
            protocol.put(str(local(size).path), rig.pfn(f'{name}{size}', 'write'))
            etag = rig.client.head_object(Bucket=rig.bucket, Key=rig.key(f'{name}{size}'))['ETag'].strip('"')
            assert etag.endswith(f'-{parts}') if parts and 'etag_of_parts' not in rig.backend.cannot else '-' not in etag

    def test_put_after_an_empty_file(self, rig, name, local, caplog):
        """A storage answers an empty PUT at once. That answer must not be taken for the one to the next PUT on this connection."""
        empty, file = local(0, 'empty'), local(1000)
        protocol = rig.protocol('write', rig.rse(read_timeout=30))  # a connection of its own, and a failure need not take a minute
        with caplog.at_level(logging.WARNING, 'urllib3'):
            for number in range(2):
                protocol.put(str(empty.path), rig.pfn(f'{name}{number} empty', 'write'))
                protocol.put(str(file.path), rig.pfn(f'{name}{number}', 'write'))
        assert [record.getMessage() for record in caplog.records if record.name.startswith('urllib3')] == []
        assert [rig.stored(rig.key(f'{name}{number}')) for number in range(2)] == [file.content] * 2

    # put

    def test_put_leaves_an_existing_object_as_it_is(self, rig, name, local):
        rig.store(rig.key(name), b'mine')
        for size in (4, THRESHOLD + 1):
            with pytest.raises(FileReplicaAlreadyExists) as error:
                rig.protocol('write').put(str(local(size).path), rig.pfn(name, 'write'))
            self.is_clear(rig, error.value, name)
            assert rig.stored(rig.key(name)) == b'mine'

    def test_put_leaves_an_identical_object_as_it_is(self, rig, name, local):
        file = local(100)
        rig.store(rig.key(name), file.content)
        with pytest.raises(FileReplicaAlreadyExists):
            rig.protocol('write').put(str(file.path), rig.pfn(name, 'write'))

    def test_put_of_a_missing_file(self, rig, name, tmp_path):
        with pytest.raises(SourceNotFound, match='nobody made this'):
            rig.protocol('write').put('nobody made this', rig.pfn(name, 'write'), str(tmp_path))
        assert rig.stored(rig.key(name)) is None

    def test_put_of_a_directory(self, rig, name, tmp_path):
        with pytest.raises(SourceNotFound, match=tmp_path.name):
            rig.protocol('write').put(str(tmp_path), rig.pfn(name, 'write'))

    @pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
    def test_put_of_an_unreadable_file(self, rig, name, local):
        file = local()
        file.path.chmod(0)
        with pytest.raises(SourceAccessDenied, match=file.name):
            rig.protocol('write').put(str(file.path), rig.pfn(name, 'write'))

    @pytest.mark.parametrize('size', [1, THRESHOLD + 1])
    def test_put_into_a_missing_bucket(self, rig, name, local, size):
        if reason := rig.backend.cannot.get('missing_bucket'):
            pytest.skip(reason)
        with pytest.raises(DestinationNotAccessible) as error:
            rig.protocol('write').put(str(local(size).path), rig.pfn(name, 'write', scope=rig.missing_scope))
        self.is_clear(rig, error.value, rig.missing_scope)
        with pytest.raises(ClientError, match='404'):
            rig.client.head_bucket(Bucket=rig.missing_scope)

    def test_transfer_timeout_may_be_text_or_nothing(self, rig, name, local, dest):
        file = local()
        for number, timeout in enumerate(('60', 60, 60.0, '0', None)):
            rig.protocol('write').put(str(file.path), rig.pfn(f'{name}{number}', 'write'), transfer_timeout=timeout)
            rig.protocol('read').get(rig.pfn(f'{name}{number}', 'read'), str(dest), transfer_timeout=timeout)
        assert dest.read_bytes() == file.content

    # get

    def test_get_makes_missing_directories(self, rig, name, dest):
        rig.store(rig.key(name), b'content')
        rig.protocol('read').get(rig.pfn(name, 'read'), str(dest / 'of a' / 'name with slashes'))
        assert (dest / 'of a' / 'name with slashes').read_bytes() == b'content'

    def test_get_writes_over_a_local_file(self, rig, name, dest):
        rig.store(rig.key(name), b'new')
        dest.write_bytes(b'the older one')
        rig.protocol('read').get(rig.pfn(name, 'read'), str(dest))
        assert dest.read_bytes() == b'new'

    @pytest.mark.parametrize('there_before', [None, b'the older one'])
    def test_get_of_a_missing_object(self, rig, name, dest, there_before):
        if there_before:
            dest.write_bytes(there_before)
        with pytest.raises(SourceNotFound) as error:
            rig.protocol('read').get(rig.pfn(name, 'read'), str(dest))
        self.is_clear(rig, error.value, name)
        assert (dest.read_bytes() if dest.exists() else None) == there_before

    def test_get_from_a_missing_bucket(self, rig, name, dest):
        with pytest.raises(SourceNotFound) as error:
            rig.protocol('read').get(rig.pfn(name, 'read', scope=rig.missing_scope), str(dest))
        self.is_clear(rig, error.value, rig.missing_scope)
        assert not dest.exists()

    def test_get_to_where_nothing_can_be_written(self, rig, name, dest):
        rig.store(rig.key(name))
        dest.write_bytes(b'a file, no directory')
        for path in (dest / 'below a file', dest.parent):
            with pytest.raises(DestinationNotAccessible, match=path.name):
                rig.protocol('read').get(rig.pfn(name, 'read'), str(path))
        assert dest.read_bytes() == b'a file, no directory'

    # stat and exists

    def test_stat_of_a_missing_object(self, rig, name):
        with pytest.raises(SourceNotFound) as error:
            rig.protocol('read').stat(rig.pfn(name, 'read'))
        self.is_clear(rig, error.value, name)
        with pytest.raises(SourceNotFound):
            rig.protocol('read').stat(rig.pfn(name, 'read', scope=rig.missing_scope))

    def test_exists(self, rig, name):
        rig.store(rig.key(name), b'')
        protocol = rig.protocol('read')
        assert protocol.exists(rig.pfn(name, 'read')) is True
        assert protocol.exists(rig.pfn(f'{name}2', 'read')) is False
        assert protocol.exists(rig.pfn(name.rpartition('/')[0], 'read')) is False
        assert protocol.exists(rig.pfn(name, 'read', scope=rig.missing_scope)) is False

    # delete

    def test_delete(self, rig, name):
        rig.store(rig.key(name))
        rig.store(rig.key(f'{name}2'))
        rig.protocol('delete').delete(rig.pfn(name, 'delete'))
        assert rig.stored(rig.key(name)) is None
        assert rig.stored(rig.key(f'{name}2')) == b'content'

    def test_delete_of_a_missing_object(self, rig, name):
        with pytest.raises(SourceNotFound) as error:
            rig.protocol('delete').delete(rig.pfn(name, 'delete'))
        self.is_clear(rig, error.value, name)

    def test_a_missing_bucket_is_no_deleted_file(self, rig, name):
        """With a mistyped prefix Rucio's reaper would forget all files of the RSE; it backs off from what is not available."""
        with pytest.raises(ServiceUnavailable, match=rig.missing_scope):
            rig.protocol('delete').delete(rig.pfn(name, 'delete', scope=rig.missing_scope))

    def test_bulk_delete(self, rig, name):
        """More than S3 takes in one request, keys that XML has to escape, and some that are not there."""
        names = [f'{name}{number}' for number in range(1016)] + [f'{name}<&>"\'%20+é']
        rig.store_many([rig.key(each) for each in (*names[::20], *names[-5:])])
        rig.store(rig.key(f'{name} stays'))
        protocol = rig.protocol('delete')
        pfns = [rig.pfn(each) for each in names[-3:]] + list(protocol.lfns2pfns([rig.lfn(each) for each in names[:-3]]).values())
        assert protocol.bulk_delete(pfns) == dict.fromkeys(pfns)
        assert rig.listing(name) == [f'{name} stays']

    def test_bulk_delete_tells_what_failed(self, rig, name):
        rig.store(rig.key(name))
        protocol = rig.protocol('delete')
        there, elsewhere = rig.pfn(name), rig.pfn(name, scope=rig.missing_scope)
        result = protocol.bulk_delete(iter([there, elsewhere]))
        assert result[there] is None
        assert isinstance(result[elsewhere], RucioException)
        assert rig.stored(rig.key(name)) is None
        assert protocol.bulk_delete([]) == {}

    # rename

    @pytest.mark.parametrize('size', [0, 1000, THRESHOLD + 1])
    def test_rename(self, rig, name, size):
        content = os.urandom(size)
        rig.store(rig.key(name), content)
        rig.protocol('write').rename(rig.pfn(name, 'write'), rig.pfn(f'{name} #2', 'write'))
        assert rig.stored(rig.key(f'{name} #2')) == content
        assert rig.stored(rig.key(name)) is None

    def test_rename_of_a_missing_object(self, rig, name):
        with pytest.raises(SourceNotFound):
            rig.protocol('write').rename(rig.pfn(name), rig.pfn(f'{name}2'))
        assert rig.stored(rig.key(f'{name}2')) is None

    def test_rename_leaves_an_existing_object_as_it_is(self, rig, name):
        rig.store(rig.key(name), b'first')
        rig.store(rig.key(f'{name}2'), b'second')
        with pytest.raises(FileReplicaAlreadyExists):
            rig.protocol('write').rename(rig.pfn(name), rig.pfn(f'{name}2'))
        assert rig.stored(rig.key(name)) == b'first'
        assert rig.stored(rig.key(f'{name}2')) == b'second'

    def test_rename_to_itself_changes_nothing(self, rig, name):
        rig.store(rig.key(name))
        rig.protocol('write').rename(rig.pfn(name), rig.pfn(name))
        assert rig.stored(rig.key(name)) == b'content'

    # ls and get_space_usage

    def test_ls(self, rig, name):
        rig.store_many([f'{name}/{each}' for each in ('a b', 'c%20d', 'folder/x', 'folder/y')])
        protocol = rig.protocol('read')
        found = protocol.ls(rig.pfn(name))
        assert sorted(found) == sorted([rig.pfn(f'{name}/a b'), rig.pfn(f'{name}/c%20d'), rig.pfn(f'{name}/folder/')])
        assert protocol.exists(rig.pfn(f'{name}/a b')) is True
        assert sorted(protocol.ls(rig.pfn(f'{name}/folder/'))) == [rig.pfn(f'{name}/folder/x'), rig.pfn(f'{name}/folder/y')]
        assert protocol.ls(rig.pfn(f'{name}/nothing')) == []
        bucket = rig.pfn('x').removesuffix('/x')
        assert f'{bucket}/{name.partition("/")[0]}/' in protocol.ls(bucket)

    def test_ls_of_a_missing_bucket(self, rig):
        with pytest.raises(SourceNotFound) as error:
            rig.protocol('read').ls(rig.pfn('x', scope=rig.missing_scope).removesuffix('/x'))
        self.is_clear(rig, error.value, rig.missing_scope)

    def test_get_space_usage(self, rig, name):
        rse = rig.rse('identity')
        before = rsemanager.get_space_usage(rse)
        rig.store(f'some/path/{name}', b'x' * 1000)
        rig.store(f'some/other path/{name}', b'x' * 500)
        after = rsemanager.get_space_usage(rig.rse('identity'))
        assert [before[0], after[0]] == [True, True]
        assert before[1]['totalsize'] == after[1]['totalsize'] == CAPACITY
        assert before[1]['unusedsize'] - after[1]['unusedsize'] == 1000

    def test_get_space_usage_without_capacity(self, rig):
        success, error = rsemanager.get_space_usage(rig.rse('identity', capacity=None))
        assert success is False
        assert isinstance(error, RSEOperationNotSupported)
        assert 'capacity' in str(error)

    # Names

    @pytest.mark.parametrize('edge', EDGE_KEYS.values(), ids=EDGE_KEYS)
    def test_edge_keys(self, rig, edge, local, dest):
        """The whole life of a name that is hard to transport."""
        if len(rig.key(edge.key).encode()) > 1024:  # the stock signer makes 3 bytes of one
            with pytest.raises(RSEFileNameNotSupported, match='1024'):
                rig.protocol('write').put(str(local().path), rig.pfn(edge.key, 'write'))
            return
        if edge.limit in rig.backend.cannot:
            self.refuses_name(rig, edge.key, local())
            return
        file = local(200)
        if edge.limit == 'dot_segments' or '//' in edge.key:  # Rucio's download could not bring it back
            with pytest.raises(RSEFileNameNotSupported, match='do not come back'):
                rig.protocol('write').put(str(file.path), rig.pfn(edge.key, 'write'))
            rig.store(rig.key(edge.key), file.content)
        else:
            self.upload(rig, rig.rse(), file.lfn(rig, edge.key), file.folder)
        assert rig.stored(rig.key(edge.key)) == file.content
        assert rsemanager.exists(rig.rse(), rig.lfn(edge.key)) is True
        pfn = rig.pfn(edge.key)
        parsed = rig.protocol('read').parse_pfns(pfn)[pfn]
        assert (parsed['path'], parsed['name']) == (f'/{rig.scope}/', edge.key)
        if edge.limit == 'dot_segments':  # Rucio's download would write it elsewhere
            with pytest.raises(RSEFileNameNotSupported, match='leave the directory'):
                rig.protocol('read').get(rig.pfn(edge.key, 'read'), str(dest))
        else:
            rig.protocol('read').get(rig.pfn(edge.key, 'read'), str(dest))
            assert dest.read_bytes() == file.content
        rsemanager.delete(rig.rse(), rig.lfn(edge.key))
        assert rig.stored(rig.key(edge.key)) is None

    def test_a_name_that_ends_in_a_slash_is_refused(self, rig, local):
        """SeaweedFS takes it for a directory and drops the content, and no download could write it."""
        self.refuses_name(rig, 'folder/', local(200))

    def refuses_name(self, rig: Rig, name: str, file: Local) -> None:
        """A storage that cannot have a key says so: nothing is lost silently, nothing is stored elsewhere."""
        before = rig.listing()
        with pytest.raises(RucioException) as error:
            rig.protocol('write').put(str(file.path), rig.pfn(name, 'write'))
        self.is_clear(rig, error.value, name[:30])
        assert rig.listing() == before

    def test_one_slash_more_is_another_name(self, rig, name, local):
        """Some storages take it for the same, and a download for the same file: it is refused."""
        first, second = local(10, 'first'), local(10, 'second')
        rig.protocol('write').put(str(first.path), rig.pfn(name, 'write'))
        with pytest.raises(RSEFileNameNotSupported, match='do not come back'):
            rig.protocol('write').put(str(second.path), rig.pfn(name.replace('/', '//'), 'write'))
        assert rig.stored(rig.key(name)) == first.content

    def test_an_object_below_another(self, rig, name, local, dest):
        """`a` and `a/b` are two objects, not a file and a directory."""
        first, second = local(10, 'first'), local(10, 'second')
        rig.protocol('write').put(str(first.path), rig.pfn(name, 'write'))
        if 'below_another' in rig.backend.cannot:
            self.refuses_name(rig, f'{name}/below', second)
            assert rig.stored(rig.key(name)) == first.content
            return
        rig.protocol('write').put(str(second.path), rig.pfn(f'{name}/below', 'write'))
        for file, each in ((first, name), (second, f'{name}/below')):
            rig.protocol('read').get(rig.pfn(each, 'read'), str(dest))
            assert dest.read_bytes() == file.content

    def test_a_key_that_is_too_long(self, rig, local):
        with pytest.raises(RSEFileNameNotSupported, match='1024'):
            rig.protocol('write').put(str(local().path), rig.pfn('n' * 1025, None))

    @pytest.mark.parametrize('layout', LAYOUTS)
    def test_life_of_a_file(self, rig, name, local, dest, layout):
        """One bucket for each scope, and one bucket for an RSE, with a folder in it and Rucio's own algorithms."""
        file, rse = local(), rig.rse(layout)
        lfn = rig.lfn(f'{name} 100%')
        self.upload(rig, rse, file.lfn(rig, lfn['name']), file.folder)
        (key,) = [key for key in rig.listing() if name in key]
        assert key.startswith('some/path/') is (layout != 's3_bucket')
        assert rig.stored(key) == file.content
        assert rsemanager.exists(rig.rse(layout), lfn) is True
        rig.protocol('read', rig.rse(layout)).get(rig.pfn(lfn['name'], 'read', rse=rse), str(dest))
        assert dest.read_bytes() == file.content
        pfn = rig.pfn(lfn['name'], rse=rse)
        parsed = rsemanager.parse_pfns(rse, [pfn])[pfn]
        assert pfn.startswith(f'{parsed["scheme"]}://{parsed["hostname"]}:{parsed["port"]}{parsed["prefix"]}')
        assert rsemanager.delete(rig.rse(layout), lfn) is True
        assert rig.stored(key) is None

    def test_a_pfn_of_another_storage(self, rig, local, name):
        elsewhere = rig.pfn(name).replace('://', '://elsewhere.')
        with pytest.raises(RSEFileNameNotSupported, match='elsewhere'):
            rig.protocol('write').put(str(local().path), elsewhere)
        with pytest.raises(RSEFileNameNotSupported, match='elsewhere'):
            rig.protocol('read').parse_pfns(elsewhere)

    # As rsemanager has it: single and in bulk, by LFN and by PFN

    def upload(self, rig: Rig, rse: dict[str, Any], lfns: Any, folder: str, **more: Any) -> Any:
        """``rsemanager.upload`` as Rucio's callers call it."""
        if rse['sign_url'] and 'force_pfn' not in more:
            more['sign_service'] = rse['sign_url']
        return rsemanager.upload(rse, lfns, source_dir=folder, **more)

    def test_rsemanager_upload(self, rig, name, local):
        file = local()
        answer = self.upload(rig, rig.rse(), file.lfn(rig, name), file.folder)
        assert answer['success'] is True
        assert answer[0] is True
        assert answer[1] == {f'{rig.scope}:{name}': True}
        assert answer['pfn'].partition('?')[0] == rig.pfn(name)
        assert rig.stored(rig.key(name)) == file.content
        assert rig.listing(f'{rig.key(name)}.') == []

    def test_rsemanager_upload_by_pfn(self, rig, name, local):
        file = local()
        answer = self.upload(rig, rig.rse(), file.lfn(rig, 'not this'), file.folder, force_pfn=rig.pfn(name))
        assert answer['success'] is True
        assert rig.stored(rig.key(name)) == file.content

    def test_rsemanager_upload_in_bulk(self, rig, name, local):
        good, other, unverified = local(10, 'good'), local(20, 'other'), local(30, 'unverified')
        rig.store(rig.key(f'{name}3'), b'mine')
        lfns = [
            good.lfn(rig, f'{name}1'),
            other.lfn(rig, f'{name}2'),
            good.lfn(rig, f'{name}3'),
            good.lfn(rig, f'{name}4', filename='nobody made this'),
            unverified.lfn(rig, f'{name}5', filesize=31, md5='0' * 32, adler32='0' * 8),
        ]
        answer = self.upload(rig, rig.rse(), lfns, good.folder)
        said = [answer[1][f'{rig.scope}:{name}{number}'] for number in range(1, 6)]
        assert answer['success'] is answer[0] is False
        assert said[:2] == [True, True]
        assert [type(each) for each in said[2:]] == [FileReplicaAlreadyExists, SourceNotFound, FileConsistencyMismatch]
        assert rig.stored(rig.key(f'{name}1')) == good.content
        assert rig.stored(rig.key(f'{name}2')) == other.content
        assert rig.stored(rig.key(f'{name}3')) == b'mine'
        assert rig.stored(rig.key(f'{name}4')) is None
        assert rig.stored(rig.key(f'{name}5')) is None

    def test_rsemanager_upload_of_an_existing_target(self, rig, name, local):
        rig.store(rig.key(name), b'mine')
        file = local()
        with pytest.raises(FileReplicaAlreadyExists):
            self.upload(rig, rig.rse(), file.lfn(rig, name), file.folder)
        assert rig.stored(rig.key(name)) == b'mine'

    def test_rsemanager_upload_deletes_what_is_there_when_told_so(self, rig, name, local):
        rig.store(rig.key(name), b'the older one')
        file = local()
        assert self.upload(rig, rig.rse(), file.lfn(rig, name), file.folder, delete_existing=True)['success'] is True
        assert rig.stored(rig.key(name)) == file.content

    def test_rsemanager_upload_of_a_missing_file(self, rig, name, local):
        file = local()
        with pytest.raises(SourceNotFound):
            self.upload(rig, rig.rse(), file.lfn(rig, name, filename='nobody made this'), file.folder)

    def test_rsemanager_upload_into_a_missing_bucket(self, rig, name, local):
        if reason := rig.backend.cannot.get('missing_bucket'):
            pytest.skip(reason)
        file = local()
        with pytest.raises(DestinationNotAccessible):
            self.upload(rig, rig.rse(), file.lfn(rig, name, scope=rig.missing_scope), file.folder)

    @pytest.mark.parametrize('wrong', [{'filesize': 999}, {'filesize': 1001}, {'filesize': 0}])
    def test_rsemanager_upload_with_wrong_size(self, rig, name, local, wrong):
        file = local(1000)
        lfn = file.lfn(rig, name, **wrong)
        del lfn['md5']  # Rucio looks at the size where there is no checksum to compare
        with pytest.raises(RucioException, match='corrupted'):
            self.upload(rig, rig.rse(), lfn, file.folder)

    def test_rsemanager_upload_with_wrong_checksum_and_size(self, rig, name, local):
        file = local()
        with pytest.raises(FileConsistencyMismatch, match='changed after its checksums were computed'):
            self.upload(rig, rig.rse(), file.lfn(rig, name, md5='0' * 32, adler32='0' * 8, filesize=1), file.folder)
        assert rig.stored(rig.key(name)) is None

    def test_wrong_checksum_is_seen_in_stat(self, rig, name, local):
        """Rucio compares with its catalogue: the md5 of a single PUT is what is stored, not what was once written."""
        file = local()
        rig.protocol('write').put(str(file.path), rig.pfn(name))
        rig.store(rig.key(name), bytes(reversed(file.content)))
        assert rig.protocol('read').stat(rig.pfn(name)).get('md5') != file.md5

    def test_rsemanager_upload_without_checksum_or_size(self, rig, name, local):
        file = local()
        for missing in (('md5', 'adler32'), ('filesize',)):
            lfn = {key: value for key, value in file.lfn(rig, name).items() if key not in missing}
            with pytest.raises(RucioException, match='Missing'):
                self.upload(rig, rig.rse(), lfn, file.folder)
        assert rig.stored(rig.key(name)) is None

    def test_rsemanager_exists(self, rig, name):
        rig.store(rig.key(name))
        there, missing = rig.pfn(name), rig.pfn(f'{name}2')
        assert rsemanager.exists(rig.rse(), rig.lfn(name)) is True
        assert rsemanager.exists(rig.rse(), rig.lfn(f'{name}2')) is False
        assert rsemanager.exists(rig.rse(), {'name': there}) is True
        assert rsemanager.exists(rig.rse(), {'name': missing}) is False
        assert rsemanager.exists(rig.rse(), there) is True
        assert rsemanager.exists(rig.rse(), [rig.lfn(name), {'name': missing}]) == [False, {f'{rig.scope}:{name}': True, missing: False}]
        assert rsemanager.exists(rig.rse(), [rig.lfn(name), {'name': there}]) == [True, {f'{rig.scope}:{name}': True, there: True}]

    def test_rsemanager_delete(self, rig, name):
        rig.store(rig.key(name))
        assert rsemanager.delete(rig.rse(), rig.lfn(name)) is True
        assert rig.stored(rig.key(name)) is None

    def test_rsemanager_delete_of_a_missing_object(self, rig, name):
        with pytest.raises(SourceNotFound):
            rsemanager.delete(rig.rse(), rig.lfn(name))

    def test_rsemanager_delete_in_bulk(self, rig, name):
        names = [f'{name}{number}' for number in range(3)]
        for each in names:
            rig.store(rig.key(each))
        success, said = rsemanager.delete(rig.rse(), [rig.lfn(each) for each in [*names, f'{name} is missing']])
        assert success is False
        assert [said[f'{rig.scope}:{each}'] for each in names] == [True] * 3
        assert isinstance(said[f'{rig.scope}:{name} is missing'], SourceNotFound)
        assert rig.listing(rig.key(name)) == []

    def test_rsemanager_rename(self, rig, name):
        rig.store(rig.key(name))
        assert rsemanager.rename(rig.rse(), rig.lfn(name, new_name=f'{name}2')) is True
        assert rsemanager.rename(rig.rse(), {'name': rig.pfn(f'{name}2'), 'new_name': rig.pfn(f'{name}3')}) is True
        assert rig.stored(rig.key(f'{name}3')) == b'content'
        assert rig.listing(rig.key(name)) == [rig.key(f'{name}3')]

    def test_rsemanager_rename_refuses(self, rig, name):
        rig.store(rig.key(name), b'first')
        rig.store(rig.key(f'{name}2'), b'second')
        with pytest.raises(FileReplicaAlreadyExists):
            rsemanager.rename(rig.rse(), rig.lfn(name, new_name=f'{name}2'))
        with pytest.raises(SourceNotFound):
            rsemanager.rename(rig.rse(), {'name': rig.pfn(f'{name}3'), 'new_name': rig.pfn(f'{name}4')})
        assert rig.stored(rig.key(f'{name}2')) == b'second'

    def test_rsemanager_rename_in_bulk(self, rig, name):
        rig.store(rig.key(f'{name}1'))
        rig.store(rig.key(f'{name}2'))
        files = [
            rig.lfn(f'{name}1', new_name=f'{name}3'),
            {'name': rig.pfn(f'{name}2'), 'new_name': rig.pfn(f'{name}4')},
            rig.lfn(f'{name}5', new_name=f'{name}6'),
        ]
        success, said = rsemanager.rename(rig.rse(), files)
        assert success is False
        assert said.pop(f'{rig.scope}:{name}1') is said.pop(rig.pfn(f'{name}2')) is True
        assert isinstance(said.pop(f'{rig.scope}:{name}5'), SourceNotFound)
        assert said == {}

    # Many at once

    def race(self, rig: Rig, name: str, files: list[Local]) -> list[Exception | None]:
        """All of them put to one name at the same moment; what each was told."""
        start = threading.Barrier(len(files))
        told: list[Exception | None] = [None] * len(files)
        pfn = rig.pfn(name, 'write')

        def write(number: int) -> None:
            protocol = rig.protocol('write')
            start.wait()
            try:
                protocol.put(str(files[number].path), pfn)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
                told[number] = error

        threads = [threading.Thread(target=write, args=(number,)) for number in range(len(files))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return told

    def one_wins(self, rig: Rig, name: str, files: list[Local], limit: str) -> None:
        told = self.race(rig, name, files)
        winners = [file for file, error in zip(files, told, strict=True) if error is None]
        assert {type(error) for error in told if error} <= set(self.losers)
        # Where the storage lets several win, it is at least one of them whose object is there, whole.
        assert len(winners) == 1 or (winners and limit in rig.backend.cannot), told
        assert rig.stored(rig.key(name)) in [file.content for file in winners]

    def test_one_of_many_writers_wins(self, rig, name, local):
        self.one_wins(rig, name, [local(1000, f'writer {number}') for number in range(WRITERS)], 'conditional_put')

    def test_one_of_many_writers_wins_in_parts(self, rig, name, local):
        files = [local(THRESHOLD + 1 + number, f'writer {number}') for number in range(WRITERS)]
        self.one_wins(rig, name, files, 'conditional_multipart')

    def test_many_files_at_once(self, rig, name, local, tmp_path):
        """As Rucio's downloader does: several threads, one protocol object for each file."""
        files = [local(number * MiB // 2, f'file {number}') for number in range(WRITERS)]
        failed: list[Exception] = []

        def there_and_back(number: int) -> None:
            try:
                rig.protocol('write').put(files[number].name, rig.pfn(f'{name}{number}', 'write'), files[number].folder)
                rig.protocol('read').get(rig.pfn(f'{name}{number}', 'read'), str(tmp_path / f'{number} back'))
            except Exception as error:  # noqa: BLE001
                failed.append(error)

        threads = [threading.Thread(target=there_and_back, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert [(tmp_path / f'{number} back').read_bytes() for number in range(WRITERS)] == [file.content for file in files]

    # Being authorised

    def test_wrong_keys(self, rig, name, local, dest):
        if reason := rig.backend.cannot.get('access_control'):
            pytest.skip(reason)
        rig.store(rig.key(name))
        secret = 'wrongsecretofthetests'
        calls: list[Callable[[], Any]] = [
            lambda: rig.protocol('read').get(rig.pfn(name), str(dest)),
            lambda: rig.protocol('read').stat(rig.pfn(name)),
            lambda: rig.protocol('read').exists(rig.pfn(name)),
            lambda: rig.protocol('write').put(str(local().path), rig.pfn(f'{name}2')),
            lambda: rig.protocol('write').put(str(local(THRESHOLD + 1).path), rig.pfn(f'{name}3')),
            lambda: rig.protocol('delete').delete(rig.pfn(name)),
            lambda: rig.protocol('write').rename(rig.pfn(name), rig.pfn(f'{name}4')),
            lambda: rig.protocol('read').ls(rig.pfn(name)),
        ]
        with rig.configured(access_key=rig.backend.access_key, secret_key=secret):
            for call in calls:
                with pytest.raises(RSEAccessDenied) as error:
                    call()
                self.is_clear(rig, error.value, rig.bucket)
                assert secret not in str(error.value)
        assert rig.listing(rig.key(name)) == [rig.key(name)]
        assert not dest.exists()

    def test_no_keys(self, rig, name, local):
        with rig.configured(), pytest.raises(RSEAccessDenied, match='access_key'):
            rig.protocol('write').put(str(local().path), rig.pfn(name))

    def test_anonymous_reads_what_is_public(self, rig, name, local, dest):
        if reason := rig.backend.cannot.get('public_objects'):
            pytest.skip(reason)
        rig.store(name, b'for everybody')
        rig.store(f'{name} is private')
        statement = {'Effect': 'Allow', 'Principal': '*', 'Action': ['s3:GetObject'], 'Resource': [f'arn:aws:s3:::{rig.bucket}/{name}']}
        self.allow(rig, statement)
        try:
            rse = rig.rse(auth='anonymous')
            protocol = rig.protocol('read', rse)
            assert protocol.exists(rig.pfn(name)) is True
            assert protocol.stat(rig.pfn(name))['filesize'] == len(b'for everybody')
            protocol.get(rig.pfn(name), str(dest))
            assert dest.read_bytes() == b'for everybody'
            if 'access_control' not in rig.backend.cannot:
                with pytest.raises(RSEAccessDenied):
                    protocol.get(rig.pfn(f'{name} is private'), str(dest))
                with pytest.raises(RSEAccessDenied):
                    rig.protocol('write', rse).put(str(local().path), rig.pfn(f'{name} by nobody'))
        finally:
            rig.client.delete_bucket_policy(Bucket=rig.bucket)

    def allow(self, rig: Rig, statement: dict[str, Any]) -> None:
        policy = json.dumps({'Version': '2012-10-17', 'Statement': [statement]}, separators=(',', ':'))
        try:
            rig.client.put_bucket_policy(Bucket=rig.bucket, Policy=policy)
        except ClientError as error:
            pytest.skip(f'the storage takes no public policy: {error}')

    # Messages

    def is_clear(self, rig: Rig, error: RucioException, what: str) -> None:
        """A message names the RSE and the thing, and has no secret in it."""
        text = str(error)
        assert rig.rse()['rse'] in text
        assert what in text
        assert rig.backend.secret_key not in text
        assert 'signature=' not in text.lower()


class PresignedConformance(ProtocolConformance):
    """The same for clients without keys: a stock Rucio server signs their PFNs (``sign_url = s3``).

    Each test here stands in for one of the same name: an expected difference, and its reason.
    """

    signed = True

    def test_multipart_above_the_threshold(self, rig, name, local):
        """A signed URL is for one PUT."""
        rig.protocol('write').put(str(local(2 * THRESHOLD + 1).path), rig.pfn(name, 'write'))
        assert '-' not in rig.client.head_object(Bucket=rig.bucket, Key=rig.key(name))['ETag']

    def test_one_of_many_writers_wins_in_parts(self, rig, name, local):
        """A signed URL is for one PUT: it is as with small files."""
        pytest.skip('signed URLs: no multipart upload')

    def test_delete_of_a_missing_object(self, rig, name):
        """S3's DELETE does not tell of missing objects, and a URL that is signed for DELETE refuses HEAD."""
        rig.protocol('delete').delete(rig.pfn(name, 'delete'))

    def test_rsemanager_delete_of_a_missing_object(self, rig, name):
        """As test_delete_of_a_missing_object."""
        assert rsemanager.delete(rig.rse(), rig.lfn(name)) is True

    def test_rsemanager_delete_in_bulk(self, rig, name):
        """As test_delete_of_a_missing_object."""
        names = [f'{name}{number}' for number in range(3)]
        for each in names:
            rig.store(rig.key(each))
        success, said = rsemanager.delete(rig.rse(), [rig.lfn(each) for each in [*names, f'{name} is missing']])
        assert success is True
        assert len(said) == 4
        assert rig.listing(rig.key(name)) == []

    def test_rsemanager_upload_deletes_what_is_there_when_told_so(self, rig, name, local):
        """Rucio asks whether the file exists by the URL that is signed for PUT: no storage answers that."""
        rig.store(rig.key(name), b'the older one')
        file = local()
        with pytest.raises(RSEAccessDenied):
            self.upload(rig, rig.rse(), file.lfn(rig, name), file.folder, delete_existing=True)
        assert rig.stored(rig.key(name)) == b'the older one'

    def test_signed_in_the_older_way(self, rig, name, local, dest):
        """rse-accounts.cfg may say ``signature_version: s3``: such a signature also covers Content-MD5 and Content-Type."""
        file = local()
        older = rig.backend.client(signature_version='s3')
        signed = {
            operation: older.generate_presigned_url(method, Params={'Bucket': rig.bucket, 'Key': name}, ExpiresIn=600)
            for operation, method in (('read', 'get_object'), ('write', 'put_object'), ('delete', 'delete_object'))
        }
        assert 'AWSAccessKeyId=' in signed['write']
        rig.protocol('write').put(str(file.path), signed['write'])
        assert rig.stored(name) == file.content
        assert rig.protocol('read').stat(signed['read'])['filesize'] == len(file.content)
        rig.protocol('read').get(signed['read'], str(dest))
        assert dest.read_bytes() == file.content
        rig.protocol('delete').delete(signed['delete'])
        assert rig.stored(name) is None

    def test_signed_urls_cannot_list_copy_or_delete_in_bulk(self, rig, name):
        """They are for GET, PUT and DELETE of one object. The error says what to do: configure keys."""
        rig.store(rig.key(name))
        calls: list[Callable[[], Any]] = [
            lambda: rig.protocol('delete').bulk_delete([rig.pfn(name)]),
            lambda: rig.protocol('write').rename(rig.pfn(name), rig.pfn(f'{name}2')),
            lambda: rig.protocol('read').ls(rig.pfn(name)),
            lambda: rig.protocol('read').get_space_usage(),
            lambda: rsemanager.rename(rig.rse(), rig.lfn(name, new_name=f'{name}2')),
        ]
        for call in calls:
            with pytest.raises(RSEOperationNotSupported, match='keys'):
                call()
        assert rig.listing(rig.key(name)) == [rig.key(name)]

    # What it says stands in the test above.
    test_bulk_delete = test_bulk_delete_tells_what_failed = None
    test_rename = test_rename_of_a_missing_object = test_rename_leaves_an_existing_object_as_it_is = None
    test_ls = test_ls_of_a_missing_bucket = test_get_space_usage = None
    test_rsemanager_rename = test_rsemanager_rename_in_bulk = test_rsemanager_rename_refuses = None

    # These are about keys, which these clients do not have.
    test_wrong_keys = test_no_keys = None
