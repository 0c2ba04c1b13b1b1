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

"""The random runs of tests/faults on what a site has: PostgreSQL, and a real S3 server."""

import json
import os

import pytest

from faults import seeds
from servers import postgres
from servers.files import write_private
from servers.rucio_server import RucioServer

FIRST, LAST = map(int, os.environ.get('RUCIO_S3_TEST_SEEDS', '0-8').split('-'))
REASON = postgres.missing()
pytestmark = [pytest.mark.long, pytest.mark.skipif(REASON is not None, reason=REASON or '')]


def test_the_catalogue_is_what_the_bucket_is(tmp_path_factory, plain):
    keys = {'access_key': plain.access_key, 'secret_key': plain.secret_key}
    with postgres.PostgreSQL(tmp_path_factory.mktemp('postgres')) as database:
        server = RucioServer(tmp_path_factory.mktemp('rucio'), {'s3:SITE_S3': keys}, database)
        server.prepare()
        # The S3 server is shared: other tests have the bucket user.alice.
        place = {'scheme': plain.scheme, 'hostname': plain.hostname, 'port': plain.port, 'region': plain.region, 'settings': {'bucket_prefix': 'faults-'}}
        write_private(server.directory / 's3.json', json.dumps({**place, **keys}))
        seeds.check(server, FIRST, LAST)
