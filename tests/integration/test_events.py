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

"""Events: what others do to a bucket is in the catalogue a moment later. A real Rucio server, and storages that really tell it."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest

from servers.ceph import CephRGW
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.events import EVENTS_TOKEN, record, tell
from servers.process import until
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS
from servers.team import ok

SCOPE = 'user.alice'
TOKEN = EVENTS_TOKEN
CEPH, WEED, HOOKED = 'EVENTS_CEPH', 'EVENTS_WEED', 'EVENTS_HOOKED'

Storage = SeaweedFS | CephRGW


@dataclass
class Desk:
    """Alice, who is no admin and has no keys, on a server that takes events; what vanishes is forgotten, what changes replaced."""

    server: RucioServer
    root: RucioCli
    alice: RucioCli

    def size(self, name: str) -> int | None:
        """What the catalogue says of a file."""
        found = self.alice.call('get_metadata_bulk', [{'scope': SCOPE, 'name': name}], plugin='DID_COLUMN')
        return found[0]['bytes'] if found else None

    def tell(self, rse: str, document: Any, **more: Any) -> tuple[int, Any]:
        """As a storage does: status and answer."""
        return tell(self.server, rse, document, **more)


def add_rse(desk: Desk, rse: str, storage: Storage, provider: str, **settings: str) -> None:
    rse_id = add_s3_rse(desk.root, rse, storage, accounts=('alice',), settings={'provider': provider, **settings})
    desk.server.set_rse_keys(rse_id, storage.access_key, storage.secret_key)


@pytest.fixture(scope='module')
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    section = {'events_token': TOKEN, 'max_attempts': 2, 'on_missing': 'forget', 'on_changed': 'replace'}
    config = {'api': {'endpoints_add': 's3, s3events'}, 'policy': {'package': 'rucio_s3_policy'}}
    server = RucioServer(tmp_path_factory.mktemp('rucio'), config)
    server.configure({f's3:{rse}': {**section, 'events_url': f'{server.url}/s3/{rse}/events'} for rse in (CEPH, WEED, HOOKED)})
    with server:
        root = RucioCli.root(tmp_path_factory.mktemp('root'), server)
        yield Desk(server, root, add_user(root, tmp_path_factory.mktemp('alice'), 'alice', scopes=[SCOPE], attributes=()))


# Ceph


@pytest.fixture(scope='module')
def told_by_ceph(desk: Desk, ceph: CephRGW) -> tuple[Desk, Any]:
    add_rse(desk, CEPH, ceph, 'ceph', events_endpoint=ceph.private.url)
    said = ok(desk.alice.rucio('s3', 'make-bucket', SCOPE, '--rse', CEPH))
    assert 'Subscribed to its events' in said
    assert 'Subscribed' not in ok(desk.alice.rucio('s3', 'make-bucket', SCOPE, '--rse', CEPH))
    return desk, ceph.client()


@pytest.mark.long
@pytest.mark.slow
def test_ceph_tells_of_what_others_put(told_by_ceph: tuple[Desk, Any], unique: str, tmp_path: Path) -> None:
    desk, s3 = told_by_ceph
    s3.put_object(Bucket=SCOPE, Key=f'{unique}/file.root', Body=b'12345')
    until(lambda: desk.size(f'{unique}/file.root') == 5)
    assert f'{SCOPE}:{unique}/file.root' in ok(desk.alice.rucio('did', 'content', 'list', f'{SCOPE}:{unique}'))
    desk.alice.rucio('download', '--dir', str(tmp_path), f'{SCOPE}:{unique}/file.root')
    assert tmp_path.joinpath(SCOPE, unique, 'file.root').read_bytes() == b'12345'

    s3.put_object(Bucket=SCOPE, Key=f'{unique}/file.root', Body=b'1234567')
    until(lambda: desk.size(f'{unique}/file.root') == 7)

    s3.delete_object(Bucket=SCOPE, Key=f'{unique}/file.root')
    until(lambda: desk.size(f'{unique}/file.root') is None)
    assert TOKEN not in desk.server.log.read_text()


def test_ceph_tells_of_large_files(told_by_ceph: tuple[Desk, Any], unique: str, tmp_path: Path) -> None:
    desk, s3 = told_by_ceph
    key, content = f'{unique}/large.root', bytes(range(256)) * 4096 * 10
    upload = s3.create_multipart_upload(Bucket=SCOPE, Key=key)['UploadId']
    half = len(content) // 2
    parts = []
    for number, part in enumerate((content[:half], content[half:]), 1):
        answer = s3.upload_part(Bucket=SCOPE, Key=key, UploadId=upload, PartNumber=number, Body=part)
        parts.append({'PartNumber': number, 'ETag': answer['ETag']})
    s3.complete_multipart_upload(Bucket=SCOPE, Key=key, UploadId=upload, MultipartUpload={'Parts': parts})
    until(lambda: desk.size(key) == len(content))
    desk.alice.rucio('download', '--dir', str(tmp_path), f'{SCOPE}:{key}')
    assert tmp_path.joinpath(SCOPE, key).read_bytes() == content


@pytest.mark.slow
def test_uploads_by_rucio_itself_are_not_disturbed(told_by_ceph: tuple[Desk, Any], unique: str, tmp_path: Path) -> None:
    """The event comes before the client has told the server that the upload is finished, or of the file at all."""
    desk, _ = told_by_ceph
    folder = tmp_path / 'folder'
    folder.mkdir()
    contents = {'small.root': b'12345', 'large.root': bytes(range(256)) * 4096 * 17}  # the second in parts
    for name, content in contents.items():
        folder.joinpath(name).write_bytes(content)
        done = desk.alice.rucio('upload', '--rse', CEPH, '--scope', SCOPE, '--lfn', f'{unique}/{name}', f'{SCOPE}:{unique}', str(folder / name))
        assert 'Successfully uploaded file' in done.stderr + done.stdout, done.stdout + done.stderr
    ok(desk.alice.rucio('s3', 'upload', str(folder), f'{SCOPE}:{unique}-2', '--rse', CEPH))
    keys = {f'{dataset}/{name}': content for name, content in contents.items() for dataset in (unique, f'{unique}-2')}
    desk.alice.rucio('download', '--dir', str(tmp_path / 'got'), *(f'{SCOPE}:{key}' for key in keys))
    for key, content in keys.items():
        assert tmp_path.joinpath('got', SCOPE, key).read_bytes() == content


def test_ceph_keeps_what_else_the_bucket_tells(told_by_ceph: tuple[Desk, Any], ceph: CephRGW) -> None:
    desk, s3 = told_by_ceph[0], ceph.private.client()
    scope = 'user.alice2'
    desk.root.call('add_scope', 'alice', scope)
    s3.create_bucket(Bucket=scope)
    topic = ceph.private.client('sns').create_topic(Name='mine', Attributes={'push-endpoint': 'http://127.0.0.1:1'})['TopicArn']
    mine = {'Id': 'mine', 'TopicArn': topic, 'Events': ['s3:ObjectCreated:Copy']}
    s3.put_bucket_notification_configuration(Bucket=scope, NotificationConfiguration={'TopicConfigurations': [mine]})
    assert 'Subscribed' in ok(desk.alice.rucio('s3', 'make-bucket', scope, '--rse', CEPH))
    found = s3.get_bucket_notification_configuration(Bucket=scope)['TopicConfigurations']
    assert sorted(each['Id'] for each in found) == ['mine', 'rucio-s3']
    assert mine in found


# SeaweedFS


def test_seaweedfs_tells_by_its_filer(desk: Desk, tmp_path: Path, unique: str) -> None:
    url = f'{desk.server.url}/s3/{HOOKED}/events'
    storage = SeaweedFS(tmp_path / 'weed')
    storage.directory.mkdir()
    (storage.directory / 'notification.toml').write_text(
        f'[notification.webhook]\nenabled = true\nendpoint = "{url}"\nbearer_token = "{TOKEN}"\npath_prefixes = ["/buckets/"]\n'
    )
    with storage:
        add_rse(desk, HOOKED, storage, 'seaweedfs')
        s3 = storage.client()
        s3.create_bucket(Bucket=SCOPE)
        s3.put_object(Bucket=SCOPE, Key=f'{unique}/file.root', Body=b'12345')
        until(lambda: desk.size(f'{unique}/file.root') == 5)
        s3.delete_object(Bucket=SCOPE, Key=f'{unique}/file.root')
        until(lambda: desk.size(f'{unique}/file.root') is None)

    # It is down now: what it told can only be told again.
    status, answer = desk.tell(HOOKED, {'Records': [aws(f'{unique}/other.root')]})
    assert (status, answer['ExceptionClass']) == (503, 'ServiceUnavailable')


# Records by HTTP


@pytest.fixture(scope='module')
def weed(desk: Desk, plain: SeaweedFS) -> Any:
    add_rse(desk, WEED, plain, 'seaweedfs')
    return plain.client()


def aws(key: str, name: str = 'ObjectCreated:Put', sequencer: str = '0055AED6DCD90281E5', bucket: str = SCOPE) -> dict[str, Any]:
    return record(bucket, key, name, sequencer=sequencer)


def minio(key: str, name: str = 's3:ObjectCreated:Put') -> dict[str, Any]:
    """What MinIO's webhook sends."""
    record = aws(key, name, '15CFEDF8D5304D1A') | {'eventVersion': '2.0', 'eventSource': 'minio:s3', 'awsRegion': ''}
    record['s3']['object']['key'] = quote_plus(key)
    return {'EventName': name, 'Key': f'{SCOPE}/{key}', 'Records': [record]}


@pytest.mark.smoke
@pytest.mark.parametrize('wrap', [lambda key, name: {'Records': [aws(key, name)]}, lambda key, name: minio(key, f's3:{name}')], ids=['AWS', 'MinIO'])
def test_records_are_followed(desk: Desk, weed: Any, unique: str, wrap: Callable[[str, str], Any]) -> None:
    key = f'{unique}/file.root'
    weed.put_object(Bucket=SCOPE, Key=key, Body=b'12345')
    status, answer = desk.tell(WEED, wrap(key, 'ObjectCreated:Put'))
    assert (status, answer['records'], answer['counts'].get('registered')) == (200, 1, 1)
    assert desk.size(key) == 5
    # Twice without harm.
    assert desk.tell(WEED, wrap(key, 'ObjectCreated:Put'))[0] == 200
    assert desk.size(key) == 5
    weed.delete_object(Bucket=SCOPE, Key=key)
    assert desk.tell(WEED, wrap(key, 'ObjectRemoved:Delete'))[1]['counts'].get('forgotten') == 1
    assert desk.size(key) is None
    # A late one brings nothing back.
    assert desk.tell(WEED, wrap(key, 'ObjectCreated:Put'))[0] == 200
    assert desk.size(key) is None


def test_what_counts_is_what_is_there(desk: Desk, weed: Any, unique: str) -> None:
    """Put, deleted and put again; the records come in every order."""
    key = f'{unique}/file.root'
    told = [aws(key, sequencer='01'), aws(key, 'ObjectRemoved:Delete', sequencer='02'), aws(key, sequencer='03')]
    weed.put_object(Bucket=SCOPE, Key=key, Body=b'12345')
    for records in (told, told[::-1], [told[2], told[0], told[1]], told * 100):
        status, answer = desk.tell(WEED, {'Records': records})
        assert (status, answer['records']) == (200, len(records))
        assert desk.size(key) == 5
    weed.put_object(Bucket=SCOPE, Key=key, Body=b'1234567')
    assert desk.tell(WEED, {'Records': [told[1]]})[1]['counts'].get('replaced') == 1
    assert desk.size(key) == 7


def test_records_of_nothing_that_is_known_here(desk: Desk, weed: Any, unique: str) -> None:
    status, answer = desk.tell(WEED, {'Records': [aws('key', bucket='somebody-elses'), aws(f'{unique}/never-was'), {'what': 'is this'}]})
    assert (status, answer['records'], answer['skipped'], answer['counts']['unknown']) == (200, 3, 1, 1)
    test_event = {'Service': 'Amazon S3', 'Event': 's3:TestEvent', 'Bucket': SCOPE}
    assert desk.tell(WEED, test_event) == (200, {'records': 1, 'skipped': 1, 'counts': {}})


def test_who_does_not_know_the_token(desk: Desk, weed: Any, unique: str) -> None:
    key = f'{unique}/file.root'
    weed.put_object(Bucket=SCOPE, Key=key, Body=b'12345')
    document = {'Records': [aws(key)]}
    rucio_token = desk.root.directory.joinpath('auth_token').read_text()
    for token in (None, f'{TOKEN}x', rucio_token):
        assert desk.tell(WEED, document, token=token)[0] == 401
    assert desk.tell('NO_SUCH_RSE', document)[0] == 401
    assert desk.tell(WEED, {'Records': [aws(key) | {'opaqueData': 'wrong'}]}, token=None)[0] == 401
    assert desk.size(key) is None
    assert desk.tell(WEED, {'Records': [aws(key) | {'opaqueData': TOKEN}]}, token=None)[0] == 200
    assert desk.size(key) == 5
    basic = base64.b64encode(f'rucio:{TOKEN}'.encode()).decode()
    assert desk.tell(WEED, document, authorization=f'Basic {basic}')[0] == 200
    assert TOKEN not in desk.server.log.read_text()


def test_bodies_that_are_none(desk: Desk, weed: Any) -> None:
    assert desk.tell(WEED, None, raw=b'garbage')[0] == 400
    assert desk.tell(WEED, None, raw=b'garbage', token=None)[0] == 401
    assert desk.tell(WEED, None, announced=1024 * 1024 + 1)[0] == 413
    assert desk.tell(WEED, {'Records': [aws('key')] * 1001})[0] == 400
