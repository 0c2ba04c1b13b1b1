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

"""Rucio is upgraded below the plugin, and the plugin beside Rucio; and what is left when it is uninstalled. Stock Rucios come from PyPI."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import postgres
from servers.cli import RucioCli, add_s3_rse, add_user
from servers.files import Sections, clean_environment
from servers.rucio_server import RECONCILER, RucioServer
from servers.seaweedfs import SeaweedFS
from servers.team import Team, ok, refused

pytestmark = pytest.mark.long
TOO_OLD, SUPPORTED = 37, (38, 39, 40, 41)
PIP = (sys.executable, '-m', 'pip', '--disable-pip-version-check', '--quiet')


@pytest.fixture(scope='module')
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of each release of rucio-clients."""
    folder = tmp_path_factory.mktemp('stock')
    for release in (TOO_OLD, *SUPPORTED):
        fetch('rucio-clients', release, folder)
    return folder


@pytest.fixture(scope='module')
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of the oldest Rucio server."""
    folder = tmp_path_factory.mktemp('oldest')
    fetch('rucio', SUPPORTED[0], folder)
    return folder


def fetch(package: str, release: int, folder: Path) -> None:
    wanted = f'{package}>={release},<{release + 1}'
    done = subprocess.run([*PIP, 'download', '--no-deps', '--dest', folder, wanted], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f'{wanted} cannot be had from PyPI: {done.stderr.strip().splitlines()[-1]}')


class Environment:
    """A Python environment with all that Rucio requires, but neither Rucio nor the plugin."""

    def __init__(self, folder: Path, stock: Path) -> None:
        self.stock, self.bin = stock, folder / 'venv' / 'bin'
        required = folder / 'required'
        required.mkdir()
        for path in Path(sysconfig.get_path('purelib')).iterdir():
            if not path.name.startswith(('rucio', '__pycache__')) and path.suffix != '.pth':
                (required / path.name).symlink_to(path)
        subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder / 'venv'], check=True)
        where = [self.bin / 'python', '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))']
        self.site = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
        (self.site / 'required.pth').write_text(f'{required}\n')

    def pip(self, *words: 'str | Path') -> None:
        done = subprocess.run([*PIP, '--python', self.bin / 'python', *words], check=False, capture_output=True, text=True, env=clean_environment(self.site))
        assert done.returncode == 0, done.stderr

    def install(self, *what: 'str | Path') -> None:
        self.pip('install', '--no-deps', '--no-index', '--find-links', self.stock, *what)


class Machine(Environment):
    """A user's machine."""

    def __init__(self, folder: Path, stock: Path, user: RucioCli) -> None:
        super().__init__(folder, stock)
        self.user = user

    def rucio(self, *words: str, program: str = 'rucio') -> 'subprocess.CompletedProcess[str]':
        command = [self.bin / program, *words]
        return subprocess.run(command, env=self.user.environment, cwd=self.user.directory, capture_output=True, text=True, timeout=300, check=False)

    def files(self) -> set[str]:
        """All that is installed, without the byte code of stock modules that were imported."""
        found = [path.relative_to(self.bin.parent) for path in self.bin.parent.rglob('*') if not path.is_dir()]
        return {str(path) for path in found if '__pycache__' not in path.parts or 's3' in str(path)}


class UpgradedServer(RucioServer):
    """A server that runs in an older environment until that is taken away."""

    def __init__(self, directory: Path, config: Sections, database: postgres.PostgreSQL, environment: Environment) -> None:
        super().__init__(directory, config, database)
        self.older: Environment | None = environment

    @property
    def _python(self) -> str:
        return str(self.older.bin / 'python') if self.older else super()._python

    @property
    def _package(self) -> Path:
        return self.older.site / 'rucio' if self.older else super()._package

    def migrate(self) -> str:
        """By Rucio's own procedure."""
        return ok(self.run('python', '-m', 'alembic', '-c', str(self.directory / 'etc' / 'alembic.ini'), 'upgrade', 'head'))


@pytest.fixture
def team(tmp_path: Path, plain: SeaweedFS, unique: str) -> Iterator[Team]:
    with RucioServer(tmp_path / 'server', {'policy': {'package': 'rucio_s3_policy'}}) as server:
        root = RucioCli.root(tmp_path / 'root', server)
        yield Team.make(root, lambda name: tmp_path / name, (f'a{unique}', f'b{unique}'), 'UPGRADED_S3', plain)


def older(wheel: Path, folder: Path) -> Path:
    """The wheel as version 0.0.1, with a module that this version does not have."""
    version = wheel.name.split('-')[1]
    made, odd = folder / wheel.name.replace(version, '0.0.1'), 'rucio/common/s3/long_gone.py'
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(made, 'w') as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith('.dist-info/METADATA'):
                content = content.replace(f'\nVersion: {version}\n'.encode(), b'\nVersion: 0.0.1\n')
            if name.endswith('.dist-info/RECORD'):
                content = content.replace(f'rucio_s3-{version}'.encode(), b'rucio_s3-0.0.1') + f'{odd},,\n'.encode()
            new.writestr(name.replace(f'rucio_s3-{version}', 'rucio_s3-0.0.1'), content)
        new.writestr(odd, '')
    return made


NEEDS_WHEEL = pytest.mark.skipif('TOX_PACKAGE' not in os.environ, reason='tox builds the wheel: make test-long')


@NEEDS_WHEEL
def test_each_is_upgraded_without_the_other_and_nothing_is_left(tmp_path: Path, stock: Path, team: Team) -> None:
    machine, wheel = Machine(tmp_path, stock, team.owner), Path(os.environ['TOX_PACKAGE'])
    ok(team.owner.rucio('s3', 'make-bucket', team.scope))
    machine.install('rucio-clients==38.*')
    before = machine.files()

    machine.install(older(wheel, tmp_path))
    assert [path for path in machine.files() if 'long_gone.py' in path]
    machine.install(wheel)
    assert not [path for path in machine.files() if 'long_gone' in path or '0.0.1' in path]

    for release in SUPPORTED:
        machine.install(f'rucio-clients=={release}.*')
        assert ok(machine.rucio('--version')).startswith(f'rucio {release}.')
        assert team.scope in ok(machine.rucio('s3', 'ls'))

    machine.install(f'rucio-clients=={TOO_OLD}.*')
    for program, words in (('rucio', ('s3', 'ls')), ('rucio-s3', ('ls',))):
        # Rucio 37 itself warns before about words that only its older parser could know.
        (line,) = [each for each in refused(machine.rucio(*words, program=program)).splitlines() if 'deprecated' not in each]
        assert re.fullmatch(rf'rucio-s3 needs Rucio 38 or newer, but Rucio {TOO_OLD}\.\S+ is installed: upgrade it, or uninstall rucio-s3\.', line)

    machine.install('rucio-clients==38.*')
    machine.pip('uninstall', '--yes', 'rucio-s3')
    assert machine.files() == before


@NEEDS_WHEEL
@pytest.mark.skipif(bool(postgres.missing()), reason=postgres.missing() or '')
def test_a_server_is_upgraded_with_its_database(tmp_path: Path, oldest: Path, plain: SeaweedFS, unique: str) -> None:
    """From the oldest Rucio to this one: what was stored, shared and noted before goes on."""
    environment, config = Environment(tmp_path, oldest), {'policy': {'package': 'rucio_s3_policy'}}
    environment.install(f'rucio=={SUPPORTED[0]}.*', os.environ['TOX_PACKAGE'])
    with postgres.PostgreSQL(tmp_path / 'postgres') as database, UpgradedServer(tmp_path / 'server', config, database, environment) as server:
        root = RucioCli.root(tmp_path / 'root', server)
        assert root.call('ping')['version'].startswith(f'{SUPPORTED[0]}.')
        owner, other = (add_user(root, tmp_path / name, name, scopes=[f'user.{name}'], attributes=()) for name in (f'a{unique}', f'b{unique}'))
        team = Team(root, owner, other, 'UPGRADED_S3', plain)
        server.set_rse_keys(add_s3_rse(root, team.rse, plain, accounts=()), plain.access_key, plain.secret_key)
        # The client of Rucio 41 sets limits by a route that this server does not have.
        limit = f'from rucio.client import Client; Client().set_local_account_limit({owner.account!r}, {team.rse!r}, -1)'
        ok(subprocess.run([environment.bin / 'python', '-c', limit], env=root.environment, capture_output=True, text=True, timeout=300, check=False))
        ok(team.owner.rucio('s3', 'make-bucket', f'{team.scope}:run1'))
        ok(team.owner.rucio('s3', 'share', f'{team.scope}:run1', '--with', team.other.account))
        team.upload('run1/mine', b'x', dataset='run1')
        shared = server.rows('SELECT * FROM s3_grants')
        assert len(shared) == 1

        server.stop()
        server.older = None
        server.prepare()
        assert 'was not updated to this version of Rucio' in refused(server.run(*RECONCILER, '--run-once'))
        server.migrate()
        assert ' exist.' in ok(server.run('python', '-m', 'rucio_s3_database'))
        server.start()

        assert root.call('ping')['version'].startswith(f'{SUPPORTED[-1]}.')
        assert server.rows('SELECT * FROM s3_grants') == shared
        plain.client().put_object(Bucket=team.scope, Key='run1/theirs', Body=b'of another client')
        server.run_daemon(*RECONCILER, '--run-once')
        assert f'{team.scope}:run1/theirs' in ok(team.other.rucio('s3', 'ls', f'{team.scope}:run1'))
        ok(team.other.rucio('s3', 'download', f'{team.scope}:run1', str(tmp_path / 'down')))
        assert {path.name: path.read_bytes() for path in (tmp_path / 'down').iterdir()} == {'mine': b'x', 'theirs': b'of another client'}
        ok(team.owner.rucio('s3', 'rm', '--recursive', '--yes', f'{team.scope}:run1'))
        assert team.objects() == {}


def test_a_client_without_the_plugin(tmp_path: Path, stock: Path, team: Team) -> None:
    """It can do all but transfer: the class of the protocol is the plugin's."""
    machine = Machine(tmp_path, stock, team.owner)
    machine.install(f'rucio-clients=={SUPPORTED[-1]}.*')
    ok(team.owner.rucio('s3', 'make-bucket', team.scope))
    team.upload('f', b'x')
    assert team.rse in ok(machine.rucio('replica', 'list', 'file', f'{team.scope}:f'))
    done = machine.rucio('download', f'{team.scope}:f')
    assert f'Failed to create protocol for PFN: {team.storage.url}/{team.scope}/f' in done.stderr
    assert 'Traceback' not in done.stdout + done.stderr


def test_the_rows_of_the_plugin_are_removed_and_no_others(team: Team, plain: SeaweedFS) -> None:
    server = team.root.server
    ok(team.owner.rucio('s3', 'make-bucket', f'{team.scope}:run1'))
    team.upload('run1/mine', b'x', dataset='run1')
    parts = plain.client().create_multipart_upload(Bucket=team.scope, Key='run1/parts')
    target = {'Bucket': team.scope, 'Key': 'run1/parts', 'UploadId': parts['UploadId']}
    etag = plain.client().upload_part(**target, PartNumber=1, Body=b'of another client')['ETag']
    plain.client().complete_multipart_upload(**target, MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': etag}]})
    server.run_daemon('python', '-m', 'rucio.daemons.s3.reconciler', '--run-once')
    tables = ('dids', 'replicas', 'rules', 'locks', 'contents', 'rse_attr_map', 'rse_protocols')

    def catalogue() -> list[object]:
        return [server.rows(f'SELECT * FROM {table} ORDER BY 1, 2, 3') for table in tables]

    before = catalogue()
    assert server.rows("SELECT name FROM did_meta WHERE meta LIKE '%s3_etags%'") == [('run1/parts',)]

    shown = ok(server.run('python', '-m', 'rucio_s3_database', '--remove', '--dry-run'))
    removed = ok(server.run('python', '-m', 'rucio_s3_database', '--remove'))

    assert removed == shown.replace('would be', 'were')
    assert {'rse_usage', 'configs', 'did_meta'} <= set(re.findall(r"^Of Rucio's table (\S+) were removed: [1-9]", removed, re.MULTILINE))
    assert removed.endswith('change the impl of the protocols of UPGRADED_S3.\n')
    assert catalogue() == before
    assert server.rows("SELECT section FROM configs WHERE section LIKE 's3-%'") == []
    assert server.rows('SELECT name FROM did_meta') == []
    assert server.rows("SELECT source FROM rse_usage WHERE source = 'storage'") == []
    assert server.rows("SELECT name FROM sqlite_master WHERE name LIKE 's3_%'") == []
