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

"""docs/clients.md says what each tool can do, with keys of the storage and through the endpoint of `rucio s3 exec`: is it still so?

`make clients` writes the table; without it, only some of the tools are tried.
"""

import os
import sys
from pathlib import Path

import pytest

from interop import table
from interop.world import ALIAS, Tools, World
from servers.files import write_private

pytestmark = pytest.mark.long
BUCKET = 'user.alice'
# All of them take a quarter of an hour.
ALWAYS = {'SeaweedFS': ('aws', 'mc'), 'Ceph': ('mc', 's5cmd')}
FETCH = 'import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen(open(sys.argv[1]).read().split()[-1]).read())'


def there_before(world: World, folder: str) -> None:
    for name in ('ls/here', 'get', 'copy', 'move', 'delete', 'all/one', 'all/sub/two'):
        world.put(f'{folder}/{name}', table.CONTENT)


def done(world: World, folder: str, here: Path) -> dict[str, bool]:
    """What came of the operations, whatever the tools said."""
    client = world.storage.client()
    keys = {each['Key'].removeprefix(f'{folder}/') for each in client.list_objects_v2(Bucket=BUCKET, Prefix=f'{folder}/')['Contents']}

    def has(key: str, content: bytes = table.CONTENT) -> bool:
        return key in keys and world.get(f'{folder}/{key}') == content

    def is_local(name: str, *contents: bytes) -> bool:
        return (here / name).exists() and (here / name).read_bytes() in contents

    return {
        'ls': 'here' in (here / 'ls.log').read_text(),
        'put': has('put'),
        'get': is_local('got', table.CONTENT),
        'large put': has('large', (here / 'large').read_bytes()),
        'copy': has('copied') and has('copy'),
        'move': has('moved') and 'move' not in keys,
        'delete': 'delete' not in keys,
        'recursive delete': not {'all/one', 'all/sub/two'} & keys,
        'range': is_local('ranged', table.CONTENT[2:5], table.CONTENT[2:]),
        'presign': is_local('fetched', table.CONTENT),
        'sync': has('sync/one') and has('sync/sub/two'),
    }


def run(world: World, tools: Tools, tool: str, folder: str, way: str) -> dict[str, str]:
    """Run all operations of a tool in one way: `direct` or `endpoint`."""
    here = tools.home / way
    (here / 'tree' / 'sub').mkdir(parents=True)
    for name in ('small', 'tree/one', 'tree/sub/two'):
        (here / name).write_bytes(table.CONTENT)
    (here / 'large').write_bytes(os.urandom(1024) * 20 * 1024)
    there_before(world, folder)
    commands = table.COMMANDS[tool]
    python = sys.executable if tool == 'boto3' else tools.python(tool) if '{python}' in commands['put'] else ''
    names = {'python': python, 'steps': Path(__file__).with_name('steps.py'), 'bucket': BUCKET, 'folder': folder, 'dir': here}
    names |= {'u': f'{BUCKET}/{folder}', 's3': f's3://{BUCKET}/{folder}', 'alias': 'rucio' if way == 'endpoint' else ALIAS}
    path = python or tools.find(tool)
    lines = ['set -f', f'mkdir -p {here}/bin', f'ln -s {path} {here}/bin/{tool}', f'PATH={here}/bin:$PATH']
    for operation, command in commands.items():
        lines += [f'{{ {command.format(**names)}; }} >"{here}/{operation}.log" 2>&1 </dev/null', f'echo $? >"{here}/{operation}.rc"']
    lines.append(f'{sys.executable} -c "{FETCH}" {here}/presign.log >{here}/fetched')
    script = here / 'script'
    write_private(script, '\n'.join(lines))
    if way == 'direct':
        world.with_keys(world.alice, tools, [BUCKET], ['sh', str(script)])
    else:
        world.exec(world.alice, tools, [], ['sh', str(script)])
    came = done(world, folder, here)
    logs = {each: (here / f'{each}.log').read_text() for each in commands}
    worked = {each: came[each] and (here / f'{each}.rc').read_text().strip() == '0' for each in commands}
    return {each: 'yes' if worked[each] else table.failure(logs[each]) for each in commands}


@pytest.mark.parametrize('tool', table.COMMANDS)
def test_the_table_of_tools_is_true(any_world: World, tools: Tools, unique: str, tool: str, request: pytest.FixtureRequest) -> None:
    storage, writes = request.node.callspec.params['any_world'], bool(os.environ.get('RUCIO_S3_WRITE'))
    if not writes and tool not in ALWAYS[storage]:
        pytest.skip('only `make clients` tries this tool')
    direct, served = (run(any_world, tools, tool, f'{unique}-{way}', way) for way in ('direct', 'endpoint'))
    cells = {(tool, each): table.seen(direct[each], served[each]) if each in direct else table.NONE for each in table.OPERATIONS}
    if writes:
        table.write(storage, cells)
    written = {cell: text for cell, text in table.read(storage).items() if cell[0] == tool}
    assert written == cells, '`make clients` writes the table of docs/clients.md'
