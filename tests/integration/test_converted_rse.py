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

"""An RSE that was made for gfal with `sign_url = s3` works when only its impl is changed."""

import os
from pathlib import Path

import pytest

from servers.cli import IMPL, RucioCli
from servers.seaweedfs import SeaweedFS
from servers.site import SCOPE, Site

MiB = 1024**2
RSE = 'CONVERTED_S3'
BUCKET = 'converted'


@pytest.fixture(scope='module')
def bob(site: Site, tls: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> RucioCli:
    """A user without keys. In Rucio 38 the generic policy lets nobody but root have URLs signed."""
    tls.client().create_bucket(Bucket=BUCKET)
    site.add_rse(
        RSE,
        tls,
        prefix=f'/{BUCKET}/rucio/',
        impl='rucio.rse.protocols.gfal.NoRename',
        attributes={'lfn2pfn_algorithm': None, 'skip_upload_stat': None, 'sign_url': 's3'},
    )
    protocol = site.root.call('get_protocols', RSE)[0]
    assert protocol['impl'] == 'rucio.rse.protocols.gfal.NoRename'
    site.root.call('update_protocols', RSE, 'https', data={'impl': IMPL, 'extended_attributes': None}, hostname=tls.hostname, port=tls.port)
    site.root.server.set_rse_keys(site.ids[RSE], tls.access_key, tls.secret_key)
    site.root.call('add_scope', 'root', 'user.bob')
    return RucioCli.root(tmp_path_factory.mktemp('bob'), site.root.server, {'s3': {'ca_bundle': str(tls.ca_bundle)}})


@pytest.mark.smoke
@pytest.mark.parametrize('size', [1000, 20 * MiB])
def test_upload_and_download_with_signatures(site: Site, bob: RucioCli, unique: str, tmp_path: Path, size: int) -> None:
    file = tmp_path / 'file'
    file.write_bytes(os.urandom(size))

    upload = bob.rucio('upload', '--rse', RSE, '--scope', 'user.bob', '--lfn', unique, str(file))
    download = bob.rucio('download', '--dir', str(tmp_path / 'back'), f'user.bob:{unique}')

    assert list(site.objects(RSE, 'rucio/user/bob', BUCKET).values()).count(size) >= 1, upload.stderr
    assert (tmp_path / 'back' / 'user.bob' / unique).read_bytes() == file.read_bytes(), download.stderr
    assert bob.call('list_replicas', [{'scope': 'user.bob', 'name': unique}], all_states=True)[0]['states'] == {RSE: 'AVAILABLE'}


def test_an_empty_file_with_signatures(site: Site, bob: RucioCli, unique: str, tmp_path: Path) -> None:
    # Without it Rucio's client asks for 63 seconds whether the file has not come after all.
    site.root.call('add_rse_attribute', RSE, 'skip_upload_stat', True)
    (tmp_path / 'file').touch()

    upload = bob.rucio('-v', 'upload', '--rse', RSE, '--scope', 'user.bob', '--lfn', unique, str(tmp_path / 'file'))
    download = bob.rucio('download', '--dir', str(tmp_path / 'back'), f'user.bob:{unique}')

    assert 'Successfully uploaded file' in upload.stderr
    assert 'retrying in' not in upload.stderr
    assert (tmp_path / 'back' / 'user.bob' / unique).read_bytes() == b'', download.stderr


def test_register_after_upload_replaces_a_leftover_with_signatures(site: Site, bob: RucioCli, unique: str, tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.write_bytes(os.urandom(1000))
    pfn = bob.call('lfns2pfns', RSE, [f'user.bob:{unique}'])[f'user.bob:{unique}']
    key = pfn.partition(f'/{BUCKET}/')[2]
    client = site.storages[RSE].client()
    client.put_object(Bucket=BUCKET, Key=key, Body=b'the leftover of an upload that was not registered')

    upload = bob.rucio('upload', '--register-after-upload', '--rse', RSE, '--scope', 'user.bob', '--lfn', unique, str(file))

    assert client.get_object(Bucket=BUCKET, Key=key)['Body'].read() == file.read_bytes(), upload.stderr


def test_keys_lift_the_limit_to_one_put(site: Site, unique: str, tmp_path: Path) -> None:
    storage = site.storages['TLS_S3']
    file = tmp_path / 'file'
    file.write_bytes(os.urandom(40 * MiB))
    site.alice.configure({f's3:{RSE}': {'access_key': storage.access_key, 'secret_key': storage.secret_key, 'ca_bundle': str(storage.ca_bundle)}})

    upload = site.alice.rucio('upload', '--rse', RSE, '--scope', SCOPE, '--lfn', unique, str(file))
    download = site.alice.rucio('download', '--dir', str(tmp_path / 'back'), f'{SCOPE}:{unique}')

    pfn = site.alice.call('lfns2pfns', RSE, [f'{SCOPE}:{unique}'])[f'{SCOPE}:{unique}']
    etag = storage.client().head_object(Bucket=BUCKET, Key=pfn.partition(f'/{BUCKET}/')[2])['ETag']
    assert etag.strip('"').endswith('-3'), upload.stderr  # three parts
    assert (tmp_path / 'back' / SCOPE / unique).read_bytes() == file.read_bytes(), download.stderr
