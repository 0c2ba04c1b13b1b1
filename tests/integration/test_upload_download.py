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

"""The stock `rucio upload` and `rucio download`, as a user runs them, on a real S3 server."""

import os
from pathlib import Path

import pytest

from servers.site import SCOPE, Site

MiB = 1024**2


def make(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


@pytest.mark.smoke
@pytest.mark.parametrize('rse', [pytest.param('PLAIN_S3', marks=pytest.mark.long), 'TLS_S3'])
def test_files_of_all_sizes_go_there_and_back(site: Site, unique: str, tmp_path: Path, rse: str) -> None:
    files = [make(tmp_path / f'{unique}.{size}', size) for size in (0, 1, 1024, 16 * MiB, 40 * MiB + 1)]

    upload = site.alice.rucio('-v', 'upload', '--rse', rse, '--scope', SCOPE, *map(str, files))
    download = site.alice.rucio('download', '--dir', str(tmp_path / 'back'), *(f'{SCOPE}:{file.name}' for file in files))

    # Rucio asks for 63 seconds whether an empty file has not come after all, unless skip_upload_stat is set.
    assert 'retrying in' not in upload.stderr

    assert site.objects(rse, unique) == {file.name: file.stat().st_size for file in files}, upload.stderr
    for file in files:
        assert (tmp_path / 'back' / SCOPE / file.name).read_bytes() == file.read_bytes(), download.stderr


def test_a_name_with_slashes_is_the_key(site: Site, unique: str, tmp_path: Path) -> None:
    file = make(tmp_path / 'file.root', 1000)
    name = f'{unique}/sub/file.root'

    upload = site.alice.rucio('upload', '--rse', 'PLAIN_S3', '--scope', SCOPE, '--lfn', name, str(file))
    download = site.alice.rucio('download', '--dir', str(tmp_path / 'back'), f'{SCOPE}:{name}')

    assert site.objects('PLAIN_S3', unique) == {name: 1000}, upload.stderr
    assert (tmp_path / 'back' / SCOPE / name).read_bytes() == file.read_bytes(), download.stderr


@pytest.mark.smoke
def test_a_directory_becomes_a_dataset(site: Site, unique: str, tmp_path: Path) -> None:
    files = [make(tmp_path / 'data' / f'{unique}.{number}', 100 + number) for number in range(5)]

    site.alice.rucio('upload', '--rse', 'TLS_S3', '--scope', SCOPE, f'{SCOPE}:{unique}', str(tmp_path / 'data'))
    site.alice.rucio('download', '--dir', str(tmp_path / 'back'), f'{SCOPE}:{unique}')

    back = {path.name: path.read_bytes() for path in (tmp_path / 'back' / unique).iterdir()}
    assert back == {file.name: file.read_bytes() for file in files}


def test_an_object_that_is_there_stays_as_it_is(site: Site, unique: str, tmp_path: Path) -> None:
    site.storages['PLAIN_S3'].client().put_object(Bucket=SCOPE, Key=unique, Body=b'somebody else wrote this')

    site.alice.rucio('upload', '--rse', 'PLAIN_S3', '--scope', SCOPE, '--lfn', unique, str(make(tmp_path / 'file', 10)))

    assert site.storages['PLAIN_S3'].client().get_object(Bucket=SCOPE, Key=unique)['Body'].read() == b'somebody else wrote this'


def test_register_after_upload_replaces_a_leftover(site: Site, unique: str, tmp_path: Path) -> None:
    site.storages['PLAIN_S3'].client().put_object(Bucket=SCOPE, Key=unique, Body=b'the leftover of an upload that was not registered')
    file = make(tmp_path / 'file', 3000)

    upload = site.alice.rucio('upload', '--register-after-upload', '--rse', 'PLAIN_S3', '--scope', SCOPE, '--lfn', unique, str(file))

    assert site.objects('PLAIN_S3', unique) == {unique: 3000}, upload.stderr
    assert site.states(unique) == {'PLAIN_S3': 'AVAILABLE'}


def test_one_bucket_for_an_rse(site: Site, unique: str, tmp_path: Path) -> None:
    storage = site.storages['PLAIN_S3']
    storage.client().create_bucket(Bucket=unique)
    rse = site.add_rse(f'{unique}_S3'.upper(), storage, prefix=f'/{unique}/some/path/', attributes={'lfn2pfn_algorithm': 'identity'})
    site.alice.configure({f's3:{rse}': {'access_key': storage.access_key, 'secret_key': storage.secret_key}})
    file = make(tmp_path / 'file', 1000)

    upload = site.alice.rucio('upload', '--rse', rse, '--scope', SCOPE, '--lfn', f'{unique}/file', str(file))
    download = site.alice.rucio('download', '--dir', str(tmp_path / 'back'), f'{SCOPE}:{unique}/file')

    assert site.objects(rse, bucket=unique) == {f'some/path/user/alice/{unique}/file': 1000}, upload.stderr
    assert (tmp_path / 'back' / SCOPE / unique / 'file').read_bytes() == file.read_bytes(), download.stderr


def test_the_reaper_deletes(site: Site, unique: str, tmp_path: Path) -> None:
    file = make(tmp_path / 'file', 1000)
    site.alice.rucio('upload', '--rse', 'TLS_S3', '--scope', SCOPE, '--lfn', unique, str(file))
    assert site.objects('TLS_S3', unique)
    storage = site.storages['TLS_S3']
    site.root.server.set_rse_keys(site.ids['TLS_S3'], storage.access_key, storage.secret_key)

    rules = site.alice.call('list_did_rules', SCOPE, unique)
    site.alice.calls(*(('update_replication_rule', rule['id'], {'lifetime': -1, 'purge_replicas': True}) for rule in rules))
    server = site.root.server
    server.run('rucio-judge-cleaner', '--run-once')
    reaper = server.run('rucio-reaper', '--run-once', '--greedy', '--rses', 'TLS_S3')

    assert site.objects('TLS_S3', unique) == {}, reaper.stdout + reaper.stderr
    assert site.states(unique) == {}
