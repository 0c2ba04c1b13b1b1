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
Rucio's own tests of protocols (MgrTestCases) over our class, on a server's machine. No package has them:

git clone https://github.com/rucio/rucio && RUCIO_S3_TEST_RUCIO=rucio RUCIO_S3_TEST_LONG=1 .venv/dev/bin/python -m pytest tests/integration/test_rucio_suite.py
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from servers.site import Site

SOURCE = Path(os.environ.get('RUCIO_S3_TEST_RUCIO') or '/nonexistent', 'tests', 'rsemgr_api_test.py')
# S3 has no directories: Rucio's managers only ask for files to be deleted, and this one asks for a directory that is none.
LEFT_OUT = 'not delete_mgr_ok_dir'

# As test_rse_protocol_posix.py of Rucio does it; the account that runs it is the server.
OURS = """
import pytest
from rucio.rse import rsemanager

from .rsemgr_api_test import MgrTestCases


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    settings, folder, user = rsemanager.get_rse_info(rse='{rse}', vo='def'), tmp_path_factory.mktemp('files'), '{user}'
    for name in (*MgrTestCases.files_local, *MgrTestCases.files_local_and_remote, 'data.raw'):
        (folder / name).write_bytes(bytes(1024 * 1024))
    storage = rsemanager.create_protocol(settings, 'write')
    storage.connect()
    for name in MgrTestCases.files_remote:
        file = {{'scope': f'user.{{user}}', 'name': name}}
        storage.put(str(folder / 'data.raw'), storage.lfns2pfns([file])[f'user.{{user}}:{{name}}'])
    return dict(tmpdir=str(folder), rse_settings=settings, user=user, vo='def')


class TestS3(MgrTestCases):
    @pytest.fixture(autouse=True)
    def setup_obj(self, made):
        self.init(**made)
"""


@pytest.mark.long
@pytest.mark.skipif(not SOURCE.exists(), reason="no source of Rucio's tests: RUCIO_S3_TEST_RUCIO names a clone of it")
def test_protocol_tests(site: Site, unique: str, tmp_path: Path) -> None:
    storage = site.storages['PLAIN_S3']
    rse = site.add_rse(f'{unique}_S3'.upper(), storage)
    site.root.server.set_rse_keys(site.ids[rse], storage.access_key, storage.secret_key)
    for kind in ('user', 'group'):
        storage.client().create_bucket(Bucket=f'{kind}.{unique}')
    suite = tmp_path / 'suite'
    suite.mkdir()
    shutil.copy(SOURCE, suite)
    (suite / '__init__.py').touch()
    (suite / 'test_s3.py').write_text(OURS.format(rse=rse, user=unique))

    done = site.root.server.run('python', '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--rootdir', str(tmp_path), '-k', LEFT_OUT, str(suite), timeout=600)

    assert done.returncode == 0, done.stdout
    passed = re.search('^([0-9]+) passed, 1 deselected', done.stdout, re.MULTILINE)
    assert passed, done.stdout
    assert int(passed[1]) >= 29
