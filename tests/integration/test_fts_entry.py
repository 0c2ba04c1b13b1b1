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

"""
The protocol entry that an S3 RSE has for FTS stays between Rucio and FTS: clients work as without it, and `rucio s3` does. And its URLs are what
gfal2, which FTS moves bytes with, takes for the object that Rucio means.
"""

import copy
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rucio.common import config
from rucio.rse import rsemanager
from servers import fts
from servers.cli import IMPL, RucioCli
from servers.files import clean_environment
from servers.seaweedfs import SeaweedFS
from servers.site import Site

RSE = 'FTS_S3'
SCOPE = 'user.carol.fts'


@pytest.fixture(scope='module')
def carol(site: Site, tls: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> RucioCli:
    """Root with keys for an RSE that FTS sees, too; `sign_url` is set for others, who have none."""
    site.add_rse(RSE, tls, attributes={'sign_url': 's3'})
    third_party = {'wan': {'third_party_copy_read': 1, 'third_party_copy_write': 1}}
    entry = {'scheme': 'davs', 'hostname': tls.hostname, 'port': tls.port, 'prefix': '/', 'impl': 'rucio.rse.protocols.s3.FTS', 'domains': third_party}
    site.root.calls(('add_protocol', RSE, entry), ('add_scope', 'root', SCOPE))
    site.root.server.set_rse_keys(site.ids[RSE], tls.access_key, tls.secret_key)
    config = {'s3': {'ca_bundle': str(tls.ca_bundle)}, f's3:{RSE}': {'access_key': tls.access_key, 'secret_key': tls.secret_key}}
    return RucioCli.root(tmp_path_factory.mktemp('carol'), site.root.server, config)


@pytest.mark.smoke
def test_clients_are_not_given_the_urls_of_fts(site: Site, carol: RucioCli, tls: SeaweedFS, unique: str, tmp_path: Path) -> None:
    tls.client().create_bucket(Bucket=SCOPE)
    (tmp_path / 'file').write_bytes(b'content')
    name = f'{unique}/my-https-davs'

    upload = carol.rucio('upload', '--rse', RSE, '--scope', SCOPE, '--lfn', name, str(tmp_path / 'file'))
    download = carol.rucio('download', '--dir', str(tmp_path / 'back'), f'{SCOPE}:{name}')

    assert site.objects(RSE, unique, SCOPE) == {name: 7}, upload.stderr
    assert (tmp_path / 'back' / SCOPE / name).read_bytes() == b'content', download.stderr
    for options in ({}, {'schemes': ['https', 'davs', 's3', 's3s']}, {'domain': 'all'}, {'all_states': True}):
        pfns = carol.call('list_replicas', [{'scope': SCOPE, 'name': name}], **options)[0]['pfns']
        assert {pfn.partition('?')[0] for pfn in pfns} == {f'{tls.url}/{SCOPE}/{name}'}  # with a signature or without


def test_the_check_looks_at_the_storage_by_the_other_entry(carol: RucioCli, tls: SeaweedFS) -> None:
    done = carol.rucio('s3', 'check', RSE)
    assert f'{tls.url}/' in done.stdout, done.stdout + done.stderr
    assert 'davs://' not in done.stdout


# gfal2 makes the directory of a file first, on S3 an empty object.
NAMES = ['plain', 'my-https-davs', 'a b+c', '100%/%41', 'größe', 'a#b?copy_mode=push', "(x)!*'"]


def urls_of_fts(storage: Any, names: list[str]) -> dict[str, str]:
    """By the class itself: Rucio's generic policy would not take most of these names."""
    main = {'scheme': storage.scheme, 'hostname': storage.hostname, 'port': storage.port, 'prefix': '/gfal/', 'impl': IMPL, 'extended_attributes': None}
    entry = {**main, 'scheme': 'davs', 'impl': 'rucio.rse.protocols.s3.FTS', 'domains': {'lan': {}, 'wan': {'third_party_copy_write': 1}}}
    settings: Any = {
        'rse': 'X',
        'id': 'x',
        'deterministic': True,
        'lfn2pfn_algorithm': 'identity',
        'protocols': [entry, {**main, 'domains': {'lan': {}, 'wan': {}}}],
    }
    protocol = rsemanager.create_protocol(copy.deepcopy(settings), 'third_party_copy_write')
    return {name: protocol.lfns2pfns({'scope': 'mc', 'name': name})[f'mc:{name}'] for name in names}


def copy_by_gfal2(storage: Any, directory: Path, source: str, destination: str, *, overwrite: bool = False) -> str:
    """As FTS does it; the answer is what went wrong."""
    keys = {'ACCESS_KEY': storage.access_key, 'SECRET_KEY': storage.secret_key, 'REGION': storage.region, 'ALTERNATE': True}
    # From S3 to S3 FTS does not let gfal2 try a third party copy.
    options = {f'S3:{storage.hostname.upper()}': keys, 'HTTP PLUGIN': {'ENABLE_REMOTE_COPY': False}}
    task = {'source': source, 'destination': destination, 'options': options, 'overwrite': overwrite, 'timeout': 60, 'checksum': None}
    command = [fts.PYTHON, str(fts.COPY)]
    done = subprocess.run(command, input=json.dumps(task), env=clean_environment(directory), capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)['message']


@pytest.mark.skipif(bool(fts.missing()), reason=fts.missing())
@pytest.mark.parametrize('backend', ['plain', pytest.param('ceph', marks=pytest.mark.long)])
def test_gfal2_writes_and_reads_the_object_that_is_meant(backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Rucio, in this process, as a client without a configuration.
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', True, raising=False)
    monkeypatch.setattr(rsemanager, 'SERVER_MODE', False, raising=False)
    (tmp_path / 'rucio.cfg').write_text('[client]\n')
    monkeypatch.setenv('RUCIO_CONFIG', str(tmp_path / 'rucio.cfg'))
    config.clean_cached_config()
    request.addfinalizer(config.clean_cached_config)
    storage = request.getfixturevalue(backend)
    client = storage.client()
    client.create_bucket(Bucket='gfal')
    names = NAMES if backend == 'plain' else [*NAMES, 'a//b', './c', 'd/../e']  # SeaweedFS takes such keys for paths
    urls = urls_of_fts(storage, [*names, *(f'copy of {name}' for name in names)])
    for name in names:
        (tmp_path / 'file').write_text(name)
        assert copy_by_gfal2(storage, tmp_path, f'file://{tmp_path}/file', urls[name]) == ''
        assert copy_by_gfal2(storage, tmp_path, urls[name], urls[f'copy of {name}']) == ''
    found = {each['Key']: each['Size'] for each in client.list_objects_v2(Bucket='gfal')['Contents'] if not each['Key'].endswith('/')}
    assert found == {f'mc/{prefix}{name}': len(name.encode()) for name in names for prefix in ('', 'copy of ')}


@pytest.mark.skipif(bool(fts.missing()), reason=fts.missing())
def test_an_existing_object_is_replaced_only_on_request(plain: SeaweedFS, tmp_path: Path, unique: str) -> None:
    """The reasons are those of fts_url_copy 3.14.4."""
    client = plain.client()
    client.create_bucket(Bucket=unique)
    for key, content in (('old', b'old'), ('new', b'new')):
        client.put_object(Bucket=unique, Key=key, Body=content)
    root = f's3://{plain.hostname}:{plain.port}/{unique}'

    def content() -> bytes:
        return client.get_object(Bucket=unique, Key='old')['Body'].read()

    assert copy_by_gfal2(plain, tmp_path, f'{root}/new', f'{root}/old') == 'DESTINATION [17] Destination file exists and overwrite is not enabled'
    assert content() == b'old'
    missing = copy_by_gfal2(plain, tmp_path, f'{root}/missing', f'{root}/old', overwrite=True)
    assert missing.startswith('SOURCE [2] ')
    assert content() == b'old'
    assert copy_by_gfal2(plain, tmp_path, f'{root}/new', f'{root}/old', overwrite=True) == ''
    assert content() == b'new'


@pytest.mark.skipif(bool(fts.missing()), reason=fts.missing())
def test_the_keys_of_fts_need_to_list_the_destination(plain: SeaweedFS, tmp_path: Path, unique: str) -> None:
    """The permissions are those of docs/transfers.md: FTS looks for a directory of the file's name before it writes."""
    client, source, target = plain.client(), f'{unique}-from', f'{unique}-to'
    keys = SimpleNamespace(hostname=plain.hostname, region=plain.region, access_key=plain.user_keys[0], secret_key=plain.user_keys[1])
    root = f's3://{plain.hostname}:{plain.port}'

    def allow(bucket: str, *actions: str) -> None:
        resources = [f'arn:aws:s3:::{bucket}', f'arn:aws:s3:::{bucket}/*']
        statement = {'Effect': 'Allow', 'Principal': '*', 'Action': [f's3:{action}' for action in actions], 'Resource': resources}
        client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({'Version': '2012-10-17', 'Statement': [statement]}))

    for bucket in (source, target):
        client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=source, Key='f', Body=b'content')
    allow(source, 'GetObject')
    allow(target, 'GetObject', 'PutObject', 'DeleteObject')
    assert copy_by_gfal2(keys, tmp_path, f'{root}/{source}/f', f'{root}/{target}/d/f').startswith('DESTINATION [1] HTTP 403')
    allow(target, 'GetObject', 'PutObject', 'DeleteObject', 'ListBucket')
    for _ in range(2):  # the second one deletes what the first one has written
        assert copy_by_gfal2(keys, tmp_path, f'{root}/{source}/f', f'{root}/{target}/d/f', overwrite=True) == ''
    assert client.get_object(Bucket=target, Key='d/f')['Body'].read() == b'content'
