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

"""The wheel: what is in it, and that it comes and goes beside stock Rucio."""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STOCK = ('rucio', 'rucio-clients')
PYTHON_TREES = ('lib', 'tests', 'demo', 'bench', 'dev')


def run(*command):
    """Run a command away from the developer's environment. Its exit code, and what it printed."""
    env = {'LANG': 'C.UTF-8', 'RUCIO_CLIENT_MODE': '1'}
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, env=env, cwd='/')
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def wheel():
    """The wheel of the working tree, as tox built and installed it."""
    if 'TOX_PACKAGE' not in os.environ:
        pytest.skip('tox builds the wheel: make unit')
    return Path(os.environ['TOX_PACKAGE'])


@pytest.fixture
def unpacked(wheel, tmp_path):
    """The wheel's files in a directory of their own, with no Rucio around them."""
    site = tmp_path / 'site'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def modules(names):
    return {str(name) for name in names if not str(name).split('/')[0].endswith('.dist-info')}


def stock_files():
    """The files of each stock distribution that is installed here."""
    found = {}
    for name in STOCK:
        try:
            files = importlib.metadata.files(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = {str(path) for path in files if '__pycache__' not in path.parts and not path.parts[0].endswith('.dist-info')}
    return found


def test_every_module_of_the_tree_is_named():
    """The same as the next one says, also where nobody has built a wheel."""
    said = (ROOT / 'pyproject.toml').read_text()
    for path in (each.relative_to(ROOT / 'lib') for each in (ROOT / 'lib').rglob('*.py')):
        parts = path.with_suffix('').parts
        assert any(f'"{".".join(each)}"' in said for each in (parts, parts[:-1])), path


def test_wheel_has_every_module_of_the_tree(wheel):
    tree = {path.relative_to(ROOT / 'lib') for path in ROOT.joinpath('lib').rglob('*') if path.is_file() and path.name != 'ruff.toml'}
    ours = {str(path) for path in tree if not any(part == '__pycache__' or part.endswith('.egg-info') for part in path.parts)}
    assert modules(zipfile.ZipFile(wheel).namelist()) == ours


def test_wheel_shares_no_file_with_stock_rucio(wheel):
    stock = stock_files()
    assert stock, 'neither rucio nor rucio-clients is installed here: nothing to compare with'
    for name, files in stock.items():
        assert 'rucio/common/__init__.py' in files, f'the list of {name} is not what it was'
        assert not modules(zipfile.ZipFile(wheel).namelist()) & files


def test_wheel_requires_no_rucio_unless_asked(wheel):
    (metadata,) = importlib.metadata.distributions(path=[str(wheel)])
    required = [line for line in metadata.requires if 'rucio' in line]
    assert sorted(required) == ['rucio-clients<42,>=38; extra == "client"', 'rucio<42,>=38; extra == "server"']


def test_without_rucio_one_sentence_says_so(unpacked):
    code, printed = run(sys.executable, '-I', '-S', '-c', f'import sys; sys.path.insert(0, {str(unpacked)!r}); import rucio.common.s3')
    assert code != 0
    assert printed.splitlines()[-1] == (
        "ImportError: rucio-s3 needs Rucio 38 or newer, but none is installed: pip install 'rucio-s3[client]', or 'rucio-s3[server]' on a server."
    )


@pytest.mark.parametrize('version', ['1.31.7', '37.7.1'])
def test_with_an_old_rucio_one_sentence_says_so(unpacked, version):
    unpacked.joinpath('rucio', 'version.py').write_text(f'def version_string():\n    return {version!r}\n')
    code, printed = run(sys.executable, '-I', '-S', '-c', f'import sys; sys.path.insert(0, {str(unpacked)!r}); import rucio.common.s3')
    assert code != 0
    assert printed.splitlines()[-1] == f'ImportError: rucio-s3 needs Rucio 38 or newer, but Rucio {version} is installed: upgrade it, or uninstall rucio-s3.'


@pytest.mark.parametrize('version', ['38.0.0', '41.5.1.post1', '42.0.0rc1', 'unknown'])
def test_other_versions_of_rucio_are_let_through(unpacked, version):
    unpacked.joinpath('rucio', 'version.py').write_text(f'def version_string():\n    return {version!r}\n')
    assert run(sys.executable, '-I', '-S', '-c', f'import sys; sys.path.insert(0, {str(unpacked)!r}); import rucio.common.s3') == (0, '')


@pytest.mark.parametrize(('version', 'said'), [('41.5.1', ''), ('unknown', ''), ('42.0.0', 'tested with Rucio 38 to 41, not with 42.0.0.')])
def test_what_was_not_tested_is_known(unpacked, version, said):
    unpacked.joinpath('rucio', 'version.py').write_text(f'def version_string():\n    return {version!r}\n')
    code, printed = run(
        sys.executable, '-I', '-S', '-c', f'import sys; sys.path.insert(0, {str(unpacked)!r}); import rucio.common.s3; print(rucio.common.s3.UNTESTED)'
    )
    assert (code, bool(printed.strip()), said in printed) == (0, bool(said), True)


@pytest.mark.parametrize('storage', ['cehp', ''])
def test_a_storage_that_the_demo_does_not_know_is_refused_before_anything_is_installed(storage):
    code, printed = run('make', '--no-print-directory', '-C', ROOT, 'demo', f'STORAGE={storage}')
    assert code
    said, end = printed.splitlines()
    assert said.startswith(f'STORAGE={storage} is not one')
    assert 'STORAGE=seaweedfs (the default) or STORAGE=ceph' in said
    assert end.startswith('make: ***')


def test_package_is_light():
    """Rucio's configuration loads the package early: it may cost nothing, and pull nothing of the server."""
    heavy = "('boto', 'flask', 'requests', 'rich', 'rucio.cli', 'rucio.core', 'rucio.db', 'rucio.web', 'sqlalchemy')"
    assert run(sys.executable, '-c', f'import rucio.common.s3, sys; print([name for name in sys.modules if name.startswith({heavy})])') == (0, '[]\n')


def test_protocol_needs_nothing_of_the_server():
    """``rucio.rse`` imports ``rucio.core`` where there is a server; on a client's machine there is no sqlalchemy to import."""
    server = "{name: None for name in ('rucio.core', 'rucio.db', 'rucio.web', 'sqlalchemy')}"
    assert run(sys.executable, '-c', f'import sys; sys.modules.update({server}); import rucio.rse.protocols.s3 as s3; print(s3.Default.__name__)') == (
        0,
        'Default\n',
    )


def test_every_python_file_has_the_licence_header():
    header = ROOT.joinpath('setup.py').read_text().split('\n\n')[0]
    assert 'Licensed under the Apache License, Version 2.0' in header
    files = [path for tree in PYTHON_TREES for path in ROOT.joinpath(tree).rglob('*.py')]
    assert [str(path.relative_to(ROOT)) for path in files if not path.read_text().startswith(header)] == []


@pytest.mark.parametrize('stock', stock_files())
def test_installs_beside_stock_rucio_and_leaves_no_trace(wheel, stock, tmp_path):
    venv = tmp_path / 'venv'
    python = venv / 'bin' / 'python'
    assert run(sys.executable, '-m', 'venv', '--without-pip', venv) == (0, '')
    code, site = run(python, '-c', "import sysconfig; print(sysconfig.get_path('purelib'))")
    assert code == 0
    site = Path(site.strip())
    copy_distribution(stock, site)

    pip = (sys.executable, '-m', 'pip', '--disable-pip-version-check', '--python', python)
    # pip must know the stock distribution, or it could not mind it.
    assert f'Version: {importlib.metadata.version(stock)}' in run(*pip, 'show', stock)[1]
    before = snapshot(venv)
    code, printed = run(*pip, 'install', '--no-index', '--no-deps', wheel)
    assert code == 0, printed
    with_ours = snapshot(venv)
    assert before.items() <= with_ours.items()
    assert {str(Path(site, name).relative_to(venv)) for name in modules(zipfile.ZipFile(wheel).namelist())} <= with_ours.keys()
    assert run(python, '-c', 'import rucio.common.s3') == (0, '')
    code, printed = run(*pip, 'uninstall', '--yes', 'rucio-s3')
    assert code == 0, printed
    after = snapshot(venv)
    for path in [path for path, content in after.items() if content == 'directory']:
        # pip leaves the directories of the server's parts, where rucio-clients has none, without a file in them.
        if path not in before and not any(other.startswith(f'{path}/') and content != 'directory' for other, content in after.items()):
            del after[path]
    assert after == before
    assert run(python, '-c', 'import rucio.version, importlib.util as u; print(u.find_spec("rucio.common.s3"))') == (0, 'None\n')


def copy_distribution(name, site):
    """Put an installed distribution into another environment: the stock one, without a network."""
    distribution = importlib.metadata.distribution(name)
    for path in distribution.files:
        if '..' in path.parts or '__pycache__' in path.parts:  # scripts
            continue
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(distribution.locate_file(path), target)


def snapshot(top):
    """Each file and directory with what it holds. Stock Rucio's own byte code comes with the first import: not ours to count."""
    found = {}
    for path in top.rglob('*'):
        name = str(path.relative_to(top))
        if '__pycache__' in path.parts and 's3' not in name:
            continue
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else 'directory'
    return found
