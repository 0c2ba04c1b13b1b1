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

"""The examples of docs/python.md, as they stand there."""

import re
import sys
import sysconfig
from pathlib import Path

import pytest

from interop.test_clients import WRITE

PAGE = Path(__file__).parents[2] / 'docs' / 'python.md'
EXAMPLES = {
    re.findall(r'^import (\w+)', code, re.MULTILINE)[0]: code for code in re.findall(r'^```python\n(.*?)^```', PAGE.read_text(), re.DOTALL | re.MULTILINE)
}
SHOW = {
    'pandas': "list(events['energy'])",
    'pyarrow': "events['energy'].to_pylist()",
    'uproot': '[float(energy[0]), float(energy[-1])]',
    's3fs': "'user.alice/run7/s3fs.txt' in names",
    'obstore': "'obstore.txt' in names",
}
EXPECTED = {'pandas': '[1.5, 2.5]', 'pyarrow': '[1.5, 2.5]', 'uproot': '[0.0, 99999.0]', 's3fs': 'True', 'obstore': 'True'}
NEEDED = {'pandas': ('pandas', 'pyarrow', 's3fs'), 'pyarrow': ('pyarrow', 's3fs'), 'uproot': ('uproot', 's3fs')}
# A session of s3fs: its keys renew themselves. A copy in another process has keys.
COPY = "import pickle; assert 'key' not in options; files = __import__('s3fs').S3FileSystem(**pickle.loads(pickle.dumps(options))); files.ls('user.alice/run7')"


def test_there_is_an_example_of_each():
    assert EXAMPLES.keys() == SHOW.keys()


@pytest.mark.parametrize('module', SHOW)
def test_an_example_does_what_the_page_says(world, tools, module):
    """By the other clients' Python, which finds Rucio behind its own packages: these need another botocore."""
    python = tools.python(*NEEDED.get(module, (module,)))
    version = tools.run([python, '-c', 'import sys; print(sys.version_info[:2])']).stdout.strip()
    if version != str(sys.version_info[:2]):
        pytest.skip(f'{python} is another version of Python')
    if module == 'uproot':
        assert tools.run([python, '-c', WRITE, str(tools.home / 'file.root')]).returncode == 0
        world.put('run7/file.root', (tools.home / 'file.root').read_bytes())
    lines = [f'import sys; sys.path.append({sysconfig.get_paths()["purelib"]!r})', EXAMPLES[module]]
    lines += [COPY] * (module == 'pandas') + [f'print({SHOW[module]})']
    done = tools.run([python, '-c', '\n'.join(lines)], env={**world.alice.environment, 'HOME': str(tools.home)})
    assert done.stdout.strip() == EXPECTED[module], done.stderr
