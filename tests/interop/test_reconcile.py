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


"""What other people's clients put into a bucket is registered by `rucio s3 reconcile`, and the stock command downloads it."""

import hashlib

import pytest

from interop.test_clients import CLIENTS, SCOPE, command


@pytest.mark.parametrize('client', CLIENTS)
def test_what_a_client_puts_is_downloaded_by_rucio(any_world, tools, unique, large, client, tmp_path):
    world, file, small = any_world, large(), tools.home / 'small'
    small.write_bytes(b'12345')
    for path, name in ((file, f'{unique}/large'), (small, f'{unique}/small')):
        done = world.with_keys(world.alice, tools, [SCOPE], command(tools, client, 'put', file=path, name=name))
        assert done.returncode == 0, done.stderr

    first = world.s3(world.alice, 'reconcile', f'{SCOPE}:{unique}')
    again = world.s3(world.alice, 'reconcile', f'{SCOPE}:{unique}')

    assert 'FAILED' not in first
    assert 'there was nothing to do' in again
    assert world.alice.call('get_metadata', SCOPE, f'{unique}/large')['md5'] == hashlib.md5(file.read_bytes()).hexdigest()
    world.alice.rucio('download', '--dir', str(tmp_path / 'got'), f'{SCOPE}:{unique}', check=True)
    got = {path.name: path.read_bytes() for path in (tmp_path / 'got').rglob('*') if path.is_file()}
    assert got == {'large': file.read_bytes(), 'small': b'12345'}
