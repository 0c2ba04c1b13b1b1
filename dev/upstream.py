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

"""Bring the patches of docs/upstream up to Rucio's newest source, and check them: ``python dev/upstream.py RUCIO``.

RUCIO is a git repository with Rucio's source, such as a clone of its main branch. Each patch is applied to it, in a copy, and written
again with the lines and numbers that it has there; where one no longer fits, git says so. With ``--python PYTHON``, an environment that
has what Rucio requires, pytest and gunicorn, but neither Rucio nor rucio-s3, Rucio's own tests in TESTS are run before and after, on SQLite, and
`rucio s3` and the transfertool are tried without rucio-s3.pth.
"""

import argparse
import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests'))

from servers.ports import free_port
from servers.process import TIMEOUT, Process

ROOT = Path(__file__).resolve().parent.parent
PATCHES = ROOT / 'docs' / 'upstream'
# Rucio's tests of what the patches change, of those that need no FTS, no memcached and no other service than Rucio's own server
TESTS = (
    'test_conveyor_submitter',
    'test_judge_evaluator',
    'test_module_import',
    'test_preparer',
    'test_request',
    'test_rse_protocol_posix',
    'test_rule',
    'test_throttler',
    'test_transfer',
    'test_transfer_plugins',
)
ENTRY_POINTS = '[rucio.cli]\ns3 = rucio.cli.s3:s3\n\n[rucio.transfertool]\ns3 = rucio.transfertool.s3:S3Transfertool\n'
_TRAILER = re.compile(r'^Replaced-By-Plugin: (\S+)$', re.MULTILINE)
_IDENTITY = ('-c', 'user.name=rucio-s3', '-c', 'user.email=rucio-s3@localhost')


def git(directory: Path, *arguments: object) -> str:
    """Run git, which has to succeed; what it printed."""
    done = subprocess.run(['git', '-C', str(directory), *_IDENTITY, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f'git {" ".join(map(str, arguments))} failed:\n{done.stdout}{done.stderr}')
    return done.stdout


def named() -> dict[str, str]:
    """What the patches make it unnecessary to replace in Rucio, by its name there -> the file of the patch."""
    patches = sorted(PATCHES.glob('*.patch'))
    return {name: patch.name for patch in patches for name in _TRAILER.findall(patch.read_text())}


def refresh(source: Path, tree: Path) -> None:
    """Apply the patches to a copy of the source, and write them again as they are there."""
    git(source, 'clone', '--quiet', '--shared', source, tree)
    base = git(tree, 'rev-parse', 'HEAD').strip()
    git(tree, 'am', '--quiet', '--3way', *sorted(PATCHES.glob('*.patch')))
    shutil.rmtree(PATCHES)
    options = ('--zero-commit', '--no-signature', '--no-stat', '--no-numbered', '--output-directory', PATCHES)
    print(git(tree, 'format-patch', *options, base), end='')
    print(f'They apply to {git(tree, "log", "-1", "--format=%h of %cs", base).strip()}.')


def configure(home: Path, tree: Path, port: int) -> dict[str, str]:
    """A home for Rucio's tests, with a configuration like that of Rucio's own, on SQLite; the environment that names it."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(tree / 'etc' / 'docker' / 'test' / 'extra' / 'rucio_autotests_common.cfg')
    database = f'sqlite:///{home}/rucio.db'
    config['common'].update(logdir=str(home), mailtemplatedir=str(tree / 'etc' / 'mail_templates'))
    config['database'].update(default=database)
    config['client'].update(dict.fromkeys(('rucio_host', 'auth_host'), f'http://127.0.0.1:{port}'))
    config['policy'] = {'permission': 'generic', 'schema': 'generic', 'lfn2pfn_algorithm_default': 'hash'}
    config['alembic']['cfg'] = str(home / 'alembic.ini')
    config['trace']['tracedir'] = str(home)
    etc = home / 'etc'
    etc.mkdir(parents=True)
    with etc.joinpath('rucio.cfg').open('w') as file:
        config.write(file)
    alembic = tree.joinpath('etc', 'docker', 'test', 'extra', 'alembic_sqlite.ini').read_text()
    home.joinpath('alembic.ini').write_text(re.sub(r'sqlite:\S+', database, alembic).replace('/opt/rucio', str(tree)))
    path = {'PYTHONPATH': os.pathsep.join([str(tree / 'lib'), str(tree)]), 'PATH': os.environ['PATH']}
    return {**path, 'HOME': str(home), 'RUCIO_HOME': str(home), 'RUCIO_CONFIG': str(etc / 'rucio.cfg'), 'PYTHONDONTWRITEBYTECODE': '1'}


def answers(url: str) -> bool:
    """Whether a server does."""
    with suppress(OSError):
        return bool(urlopen(url, timeout=5))  # noqa: S310 - on this machine
    return False


def run_tests(python: Path, tree: Path, home: Path) -> str:
    """Run Rucio's tests on a new database; the summary that pytest prints."""
    port = free_port()
    environment = configure(home, tree, port)
    tests = [*(f'tests/{name}.py' for name in TESTS), *(str(new) for new in tree.glob('tests/test_*.py') if added(tree, new))]
    for command in (['tools/reset_database.py', '-b'], ['-c', _ACCOUNTS]):
        subprocess.run([str(python), *command], cwd=tree, env=environment, capture_output=True, check=True)
    command = [str(python), '-m', 'gunicorn', '-b', f'127.0.0.1:{port}', 'rucio.web.rest.main:application']
    server = Process('Rucio', command, env=environment, cwd=tree, log=home / 'server.log')
    server.start()
    try:
        server.wait(lambda: answers(f'http://127.0.0.1:{port}/ping'), TIMEOUT)
        command = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist', '-o', 'addopts=', *tests]
        done = subprocess.run([str(python), *command], cwd=tree, env=environment, capture_output=True, text=True, check=False)
    finally:
        server.stop()
    failed = re.findall(r'^(?:FAILED|ERROR) .*$', done.stdout, re.MULTILINE)
    return '\n'.join([*failed, (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]])


_ACCOUNTS = """
from rucio.common.types import InternalAccount, InternalScope
from rucio.core.account import add_account, add_account_attribute
from rucio.core.scope import add_scope
from rucio.db.sqla.constants import AccountType, DatabaseOperationType
from rucio.db.sqla.session import db_session
with db_session(DatabaseOperationType.WRITE) as session:
    for name in ('jdoe', 'panda'):
        add_account(InternalAccount(name), AccountType.SERVICE, f'{name}@localhost', session=session)
    add_account_attribute(InternalAccount('root'), 'admin', True, session=session)
    add_scope(InternalScope('mock'), InternalAccount('root'), session=session)
"""


def added(tree: Path, test: Path) -> bool:
    """Whether a patch brings this test."""
    return any(f'+++ b/{test.relative_to(tree)}\n' in patch.read_text() for patch in PATCHES.glob('*.patch'))


def try_without_pth(python: Path, tree: Path, home: Path) -> None:
    """Lay lib/ over the patched Rucio, without the plugin, and see that Rucio finds the command and the transfertool."""
    environment = configure(home, tree, free_port())
    left_out = shutil.ignore_patterns('rucio_s3_plugin.py', 'rucio_s3_seams.py', 'rucio-s3.pth', 'ruff.toml', '*.egg-info', '__pycache__')
    shutil.copytree(ROOT / 'lib', tree / 'lib', dirs_exist_ok=True, ignore=left_out)
    info = tree / 'lib' / 'rucio_s3-0.dist-info'
    info.mkdir()
    info.joinpath('METADATA').write_text('Metadata-Version: 2.1\nName: rucio-s3\nVersion: 0\n')
    info.joinpath('entry_points.txt').write_text(ENTRY_POINTS)
    tried = {
        'rucio --help': (['bin/rucio', '--help'], '\n  s3 '),
        'transfertools': (['-c', 'from rucio.core.transfer import TRANSFERTOOL_CLASSES_BY_NAME as t; print(t["s3"].__name__)'], 'S3Transfertool'),
    }
    for name, (command, wanted) in tried.items():
        done = subprocess.run([str(python), *command], cwd=tree, env=environment, capture_output=True, text=True, check=False)
        print(f'{name}, without rucio-s3.pth: {"as with it" if wanted in done.stdout else "MISSING" + done.stdout + done.stderr}')


def main() -> None:
    """Refresh the patches, and try them."""
    parser = argparse.ArgumentParser(description="Bring the patches of docs/upstream up to Rucio's newest source.")
    parser.add_argument('rucio', type=Path, help="a git repository with Rucio's source")
    parser.add_argument('--python', type=Path, help="an interpreter with Rucio's requirements, pytest, gunicorn, boto3, and no Rucio")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='rucio-s3-upstream-') as directory:
        tree = Path(directory, 'rucio')
        refresh(arguments.rucio.resolve(), tree)
        if python := arguments.python:
            print(f'With the patches:\n{run_tests(python.absolute(), tree, Path(directory, "after"))}')
            try_without_pth(python.absolute(), tree, Path(directory, 'tried'))
            stock = Path(directory, 'stock')
            git(tree, 'clone', '--quiet', arguments.rucio.resolve(), stock)
            print(f'Without them:\n{run_tests(python.absolute(), stock, Path(directory, "before"))}')


if __name__ == '__main__':
    main()
