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

"""Check a wheel that is about to be released, and its source distribution: ``make release``. Nothing is published."""

import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# a configuration that leads to no server
CONFIG = '[client]\nrucio_host = https://localhost:1\nauth_host = https://localhost:1\n'
# extra -> what must work with it. Commands of `rucio` other than its help ask a server.
TRIED = {
    'client': (['rucio', '--help'], ['python', '-c', 'import rucio.client.s3client, rucio.rse.protocols.s3, rucio.cli.s3']),
    'server': (['rucio', '--help'], ['python', '-c', 'import rucio.common.s3, rucio_s3_policy, rucio_s3_database']),
}


def changelog_says(version: str) -> None:
    """Whether the change notes are in CHANGELOG.md, below a heading of this version."""
    left = [path.name for path in ROOT.joinpath('changes').glob('*.md') if path.name != 'README.md']
    if left:
        sys.exit(f'{len(left)} change notes are still in changes/: run `make changelog`, and commit what it writes.')
    if not re.search(rf'^## {re.escape(version)} \(\d', ROOT.joinpath('CHANGELOG.md').read_text(), re.MULTILINE):
        sys.exit(f'CHANGELOG.md has no section for {version}: set the version in pyproject.toml, then run `make changelog`.')


# What the installed plugin has in common with a stock Rucio.
SHARED = """
from importlib.metadata import files
stock = {str(path) for path in files('{stock}') if '__pycache__' not in path.parts}
assert 'rucio/version.py' in stock
print(*sorted(stock & {str(path) for path in files('rucio-s3')}))
"""


def source_of(wheel: Path) -> Path:
    """Build the source distribution, which has the modules of the wheel and gives the same wheel again."""
    run([sys.executable, '-m', 'build', '--sdist', '--outdir', wheel.parent, ROOT])
    source = wheel.parent / f'{"-".join(wheel.name.split("-")[:2])}.tar.gz'
    with tarfile.open(source) as archive:
        names = {name.partition('/lib/')[2] for name in archive.getnames() if '/lib/' in name and '.egg-info' not in name}
        names = {name for name in names if '.' in name.rpartition('/')[2]}
    with tempfile.TemporaryDirectory(prefix='rucio-s3-release-') as directory:
        run([sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q', 'wheel', '--no-deps', '--wheel-dir', directory, source])
        again, first = contents(Path(directory, wheel.name)), contents(wheel)
    if differ := sorted(name for name in again.keys() | first.keys() if again.get(name) != first.get(name)):
        sys.exit(f'{source.name} gives another wheel: {", ".join(differ)}')
    if odd := sorted(names ^ {name for name in first if '.dist-info/' not in name}):
        sys.exit(f'{source.name} has other modules than the wheel: {", ".join(odd)}')
    print(f'{source.name} gives the same wheel.')
    return source


def contents(wheel: Path) -> dict[str, int]:
    """File -> CRC, without what names the program that built the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {each.filename: each.CRC for each in archive.infolist() if not each.filename.endswith(('/WHEEL', '/RECORD'))}


def install(wheel: Path, extra: str) -> None:
    """Install the wheel with an extra into a new environment, and try its commands."""
    with tempfile.TemporaryDirectory(prefix='rucio-s3-release-') as directory:
        venv.create(directory, with_pip=True)
        Path(directory, 'rucio.cfg').write_text(CONFIG)
        scripts = Path(directory, 'bin')
        pip = [scripts / 'python', '-m', 'pip', '--disable-pip-version-check', '-q']
        run([*pip, 'install', f'{wheel}[{extra}]'])
        run([*pip, 'check'])
        stock = {'client': 'rucio-clients', 'server': 'rucio'}[extra]
        if shared := run([scripts / 'python', '-c', SHARED.replace('{stock}', stock)], home=directory).strip():
            sys.exit(f'These files belong to {stock}: {shared}')
        for command in TRIED[extra]:
            output = run([scripts / command[0], *command[1:]], home=directory)
            if command == ['rucio', '--help'] and '\n  s3 ' not in output:
                sys.exit(f'`rucio --help` does not list s3:\n{output}')
    print(f'rucio-s3[{extra}] installs, and its commands start.')


def run(command: list[object], home: str = '') -> str:
    """What a command prints that has to succeed; away from the developer's own Rucio where it has a home."""
    environment = {'HOME': home, 'PATH': '/usr/bin:/bin', 'RUCIO_CONFIG': f'{home}/rucio.cfg'} if home else None
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f'{" ".join(map(str, command))} failed:\n{done.stdout}{done.stderr}')
    return done.stdout


def main() -> None:
    """Check the wheel that is named on the command line."""
    wheel = Path(sys.argv[1]).resolve()
    version = wheel.name.split('-')[1]
    changelog_says(version)
    source = source_of(wheel)
    run([sys.executable, '-m', 'twine', 'check', '--strict', wheel, source])
    for extra in TRIED:
        install(wheel, extra)
    print(f'{wheel} and {source.name} are ready. Next: git tag -s v{version}, git push --tags, and upload them (docs/releasing.md).')


if __name__ == '__main__':
    main()
