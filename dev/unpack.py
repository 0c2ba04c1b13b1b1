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

"""Unpack programs of another Debian release, to run beside this system's: ``python3 dev/unpack.py trixie FOLDER radosgw ceph-mon``.

apt downloads the packages and all that they depend on, the C library included; nothing is installed, and root is not needed. Afterwards
FOLDER/programs has a starter for each program. It needs Debian's ``apt-get`` and ``dpkg``.
"""

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = ('usr/sbin', 'usr/bin')
KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'


def repository() -> str:
    """The URL of the Debian mirror that this system uses."""
    command = ['apt-get', 'indextargets', '--format', '$(REPO_URI)', 'Created-By: Packages', 'Label: Debian']
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if not found:
        sys.exit('apt-get knows no mirror of Debian (its indextargets name none): this needs a Debian.')
    return found[0]


def download(suite: str, packages: list[str], temporary: Path) -> list[Path]:
    """Download the packages with their dependencies, by an apt that knows nothing of this system's packages."""
    for folder in ('lists/partial', 'archives/partial', 'empty'):
        temporary.joinpath(folder).mkdir(parents=True)
    temporary.joinpath('sources.list').write_text(f'deb [signed-by={KEYRING}] {repository()} {suite} main\n')
    options = {
        'Dir::Etc::sourcelist': temporary / 'sources.list',
        'Dir::Etc::sourceparts': temporary / 'empty',
        'Dir::Etc::preferencesparts': temporary / 'empty',
        'Dir::State::lists': temporary / 'lists',
        'Dir::State::status': '/dev/null',
        'Dir::Cache': temporary,
        'APT::Sandbox::User': '',
        'Debug::NoLocking': 'true',
    }
    apt = ['apt-get', '-q', *(word for name, value in options.items() for word in ('-o', f'{name}={value}'))]
    run([*apt, 'update'])
    run([*apt, '--yes', '--no-install-recommends', '--download-only', 'install', *packages])
    return sorted(temporary.joinpath('archives').glob('*.deb'))


def run(command: list[str]) -> None:
    """Show what a command prints only if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f'{shlex.join(command)} failed:\n{done.stdout}')


def write_starters(root: Path) -> int:
    """Write a starter for each program and each Python script; they use the C library, Python and modules below ``root``. Return how many."""
    libraries = root / f'usr/lib/{platform.machine()}-linux-gnu'
    loader = next(path for path in [*root.glob('usr/lib*/ld-linux*.so.*'), *libraries.glob('ld-linux*.so.*')] if path.exists())
    load = f'{loader} --library-path {libraries}:{libraries}/ceph'
    python = next(iter(sorted(root.glob('usr/bin/python3.*[0-9]'))), None)
    programs = root / 'programs'
    programs.mkdir(exist_ok=True)
    for path in (path for folder in PROGRAMS for path in root.joinpath(folder).glob('*') if path.is_file() and os.access(path, os.X_OK)):
        with path.open('rb') as file:
            begin = file.readline(100)
        if begin.startswith(b'\x7fELF'):
            command = f'exec {load} {path}'
        elif begin.startswith(b'#!') and b'python3' in begin and python:
            command = f'PYTHONHOME={root}/usr PYTHONPATH={root}/usr/lib/python3/dist-packages exec {load} {python} {path}'
        else:
            continue
        starter = programs / path.name
        starter.write_text(f'#!/bin/sh\n{command} "$@"\n')
        starter.chmod(0o755)
    return len([*programs.iterdir()])


def main() -> None:
    parser = argparse.ArgumentParser(description='Unpack programs of another Debian release.')
    parser.add_argument('suite', help='trixie, sid, ...')
    parser.add_argument('folder', type=Path)
    parser.add_argument('packages', nargs='+')
    arguments = parser.parse_args()
    if absent := [program for program in ('apt-get', 'dpkg') if not shutil.which(program)]:
        sys.exit(f'{" and ".join(absent)} not found: this unpacks packages of Debian, on a Debian.')
    root = arguments.folder.absolute()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='rucio-s3-unpack-') as temporary:
        packages = download(arguments.suite, arguments.packages, Path(temporary))
        for package in packages:
            run(['dpkg', '--extract', str(package), str(root)])
    print(f'{len(packages)} packages of {arguments.suite} are in {root}, {write_starters(root)} programs in {root / "programs"}.')


if __name__ == '__main__':
    main()
