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

"""A public test-suite, Ceph's s3-tests, through `rucio s3 serve`: what the storage passes by itself, it passes through the endpoint.

RUCIO_S3_SUITE=DIRECTORY is a clone of https://github.com/ceph/s3-tests whose requirements are installed in DIRECTORY/.venv.
Only tests of objects are chosen: buckets are scopes here, and their ACLs, policies and versions are not for tools.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from interop.test_serve import serving
from interop.world import RSE
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

SUITE = os.environ.get('RUCIO_S3_SUITE', '')
BUCKETS = 300
OTHER_MARKERS = (
    'appendobject auth_aws2 bucket_policy bucket_encryption bucket_logging cloud_transition cloud_restore encryption lifecycle lifecycle_expiration '
    'lifecycle_transition object_lock object_ownership tagging versioning s3website sse_s3 iam_account iam_user iam_role storage_class delete_marker '
    'abac_test sns fails_on_rgw'
)
OTHER_WORDS = (
    'acl cors anon post_object website public grant logging torrent expiration policy raw_ versioning versioned version lock ownership lifecycle encrypt sse '
    'bucket_create buckets_create buckets_list bucket_recreate'
)
REFUSED = {
    'test_bucket_list_long_name': 'makes a bucket that is no scope',
    'test_bucket_list_return_data': 'asks for ACLs of objects',
    'test_bucket_list_unordered': "allow-unordered is Ceph's own",
    'test_bucket_listv2_unordered': "allow-unordered is Ceph's own",
    'test_bucket_listv2_fetchowner_notempty': 'owners are users of the storage, and left out',
    'test_delete_objects_if_match': 'DeleteObjects with conditions is refused',
    'test_get_multipart_object_attributes': 'GetObjectAttributes has no parts',
    'test_get_paginated_multipart_object_attributes': 'GetObjectAttributes has no parts',
    'test_get_single_multipart_object_attributes': 'GetObjectAttributes has no parts',
    'test_multipart_put_current_object_if_none_match': 'asks for versions',
    'test_put_current_object_if_none_match': 'asks for versions',
    'test_multipart_reupload_checksum_and_etag': 'the checksum of a whole multipart upload is not forwarded',
    'test_object_checksum_crc64nvme': "a checksum that is no base64 is InvalidRequest, as on AWS; Ceph's is BadDigest",
    'test_object_checksum_sha256': "a checksum that is no base64 is InvalidRequest, as on AWS; Ceph's is BadDigest",
    'test_object_write_with_chunked_transfer_encoding': 'a body without a length is refused, as on AWS',
    # The RSE has no STS. With vended keys these pass.
    **dict.fromkeys(('test_bucket_list_maxkeys_zero', 'test_bucket_listv2_maxkeys_zero'), 'the server does not sign max-keys=0'),
    **dict.fromkeys(('test_bucket_list_delimiter_dot', 'test_bucket_listv2_delimiter_dot'), 'the server does not sign "." as a name'),
    **dict.fromkeys(
        (
            *(f'test_bucket_{listing}_{field}_unreadable' for listing in ('list', 'listv2') for field in ('delimiter', 'prefix')),
            *('test_bucket_list_marker_unreadable', 'test_bucket_listv2_startafter_unreadable'),
        ),
        'the server does not sign control characters',
    ),
}
pytestmark = [pytest.mark.skipif(not SUITE, reason="RUCIO_S3_SUITE, a clone of Ceph's s3-tests, runs it"), pytest.mark.timeout(3600)]


def failures(keys: dict[str, str], buckets: list[str], directory: Path) -> set[str]:
    """The names of the tests that fail."""
    config = directory / 's3tests.conf'
    host, port = keys['url'].removeprefix('http://').split(':')
    sections = ['s3 main', 's3 alt', 's3 tenant', 'iam', 'iam root', 'iam alt root']
    fields = [
        'display_name = alice',
        'user_id = alice',
        'email = a@example.org',
        'tenant = t',
        *(f'{each} = {keys[each]}' for each in ('access_key', 'secret_key')),
    ]
    default = ['[DEFAULT]', f'host = {host}', f'port = {port}', 'is_secure = False']
    config.write_text('\n'.join([*default, *(line for section in sections for line in (f'[{section}]', *fields))]))
    report = directory / 'report'
    environment = {
        **os.environ,
        'S3TEST_CONF': str(config),
        'BUCKETS': ' '.join(buckets),
        'TOKEN': keys.get('session_token', ''),
        'PYTHONPATH': str(Path(__file__).parent),
    }
    names = ' and '.join(f'not {each}' for each in OTHER_WORDS.split())
    chosen = ['-m', f'not ({" or ".join(OTHER_MARKERS.split())})', '-k', names, 's3tests/functional/test_s3.py', 's3tests/functional/test_headers.py']
    command = [f'{SUITE}/.venv/bin/python', '-m', 'pytest', '-p', 's3tests_plugin', '-q', '--tb=short', '-rA', *chosen]
    with report.open('w') as output:
        done = subprocess.run(command, cwd=SUITE, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 1, report.read_text()[-3000:]  # some tests always fail
    sys.stdout.write(f'{directory.name}: {report.read_text().splitlines()[-1]}\n')
    return {line.split('::')[1].split()[0] for line in report.read_text().splitlines() if line.startswith(('FAILED', 'ERROR'))}


def directly(directory: Path) -> set[str]:
    with SeaweedFS(directory / 'storage') as storage:
        buckets = [f'bucket-{number:03}' for number in range(BUCKETS)]
        for bucket in buckets:
            storage.client().create_bucket(Bucket=bucket)
        return failures({'url': storage.url, 'access_key': storage.access_key, 'secret_key': storage.secret_key}, buckets, directory)


def through_serve(directory: Path) -> set[str]:
    with SeaweedFS(directory / 'storage') as storage, RucioServer(directory / 'rucio') as server:
        root = RucioCli.root(directory / 'root', server)
        server.set_rse_keys(add_s3_rse(root, RSE, storage), storage.access_key, storage.secret_key)
        scopes = [f'scope-{number:03}' for number in range(BUCKETS)]
        alice = add_user(root, directory / 'alice', 'alice', scopes=scopes, attributes=(), rses=[RSE])
        made = alice.python(
            'import sys\nfrom rucio.client.s3client import S3Client\nclient = S3Client()\nfor scope in sys.argv[1:]:\n    client.make_bucket(scope)', *scopes
        )
        assert made.returncode == 0, made.stderr
        keys = directory / 'keys.json'
        with serving(alice, '--overwrite', '--format', 'json', '--file', str(keys)):
            return failures(json.loads(keys.read_text())[0], scopes, directory)


def test_s3_tests(tmp_path):
    (tmp_path / 'direct').mkdir()
    (tmp_path / 'serve').mkdir()
    assert through_serve(tmp_path / 'serve') - directly(tmp_path / 'direct') <= REFUSED.keys()
