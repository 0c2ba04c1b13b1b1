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

"""`rucio s3 ls` and `du`: what the storage does not tell is not left out silently."""

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from rucio.cli.s3 import buckets
from rucio.common.exception import ServiceUnavailable
from rucio.common.s3 import clients, credentials
from servers.fake_s3 import Answer

BROKEN_OFF = Answer(200, b'<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>run1/a</Key><Size>1</Size></Contents></ListBucketResult>')


@pytest.mark.parametrize('command', [buckets.du, buckets.ls], ids=['du', 'ls'])
def test_a_listing_that_breaks_off_is_not_taken_for_the_end(s3, endpoint, monkeypatch, command):
    connection = clients.connect(endpoint(), credentials.Static('AKIDOFTHETESTS', 'secret'))
    place = {'rse': 'X', 'bucket': 'user.alice', 'key': ''}
    server = SimpleNamespace(account='alice', locate=lambda *_: [place], list_buckets=lambda *_: [], bucket_client=lambda *_, **__: connection.client)
    monkeypatch.setattr(buckets, 's3_client', lambda _: server)
    s3.store('user.alice', 'run1/a', b'1')
    s3.fail('ListObjectsV2', BROKEN_OFF)
    result = CliRunner().invoke(command, ['user.alice'], obj=SimpleNamespace(client=server))
    assert isinstance(result.exception, ServiceUnavailable)
    assert 'an incomplete listing that cannot be continued' in str(result.exception)
    assert not result.stdout
