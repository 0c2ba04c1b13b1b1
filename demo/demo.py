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
See rucio-s3 at work: an S3 server, a stock Rucio server, and stock commands that use them. `make demo` runs it.

The storage is SeaweedFS, or with `make demo STORAGE=ceph` a Ceph that `make ceph` unpacks.

Everything lives in a temporary directory and on free ports of 127.0.0.1; at the end nothing is left.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests'))

from fourth_act import FourthAct
from second_act import SecondAct
from stage import DemoError, Stage, terminal_environment
from third_act import ThirdAct

from servers import ceph
from servers.ca import CA
from servers.cli import RucioCli, Storage, add_user, s3_keys, s3_protocol
from servers.files import clean_environment, write_private
from servers.rucio_server import RucioServer
from servers.seaweedfs import SeaweedFS

MIB = 1024**2
BIG = 1024 * MIB
SMALL_FILES = 200
# The 1 GiB file three times: before, in the storage, and downloaded.
NEEDED = 4 * BIG

STORAGES = ('seaweedfs', 'ceph')
RSE = 'DEMO_S3'
ACCOUNT = 'alice'
SCOPE = BUCKET = 'user.alice'
DATASET = f'{SCOPE}:events'
BIG_DID = f'{SCOPE}:run7/raw.dat'
EMPTY_DID = f'{SCOPE}:empty.log'
# Ceph 18 must not vend keys: see docs/operators.md.
CEPH = ceph.unpacked('sid')
LOCAL = {'read': 1, 'write': 1, 'delete': 1}
# What stock `rucio download` says at its end.
SUMMARY = '^(DID |Downloaded files)'


class Demo:
    """The servers, the user alice, and what she does."""

    def __init__(self, directory: Path, stage: Stage, storage: str) -> None:
        self.directory = directory
        self.stage = stage
        self.s3 = make_storage(storage, directory)
        # What the server and its daemons need to reach the storage; its keys stand in rse-accounts.cfg.
        self.trust = {'s3': {'ca_bundle': str(self.s3.ca_bundle)}}
        self.server = RucioServer(directory / 'rucio', config={**self.trust, 'policy': {'package': 'rucio_s3_policy'}})
        self.files = directory / 'alice' / 'files'
        self.downloads = directory / 'alice' / 'downloads'
        self.files.mkdir(parents=True)
        self.root: RucioCli
        self.alice: RucioCli

    def start(self) -> None:
        with self.stage.act('Start the S3 server and the Rucio server'):
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda server: server.start(), (self.s3, self.server)))
            name = f'Ceph {ceph.version(CEPH)}' if isinstance(self.s3, ceph.CephRGW) else 'SeaweedFS'
            self.stage.say(f'  {name:<11} {self.s3.url} (with a certificate of our own CA)')
            self.stage.say(f'  Rucio       {self.server.url} (SQLite)')

    def stop(self) -> None:
        self.s3.stop()
        self.server.stop()

    def set_up(self) -> None:
        """What an operator does once."""
        self.root = RucioCli.root(self.directory / 'root', self.server, self.trust)
        # By the Python client: on the command line everybody would see the password.
        self.alice = add_user(self.root, self.directory / 'alice', ACCOUNT, scopes=[SCOPE], attributes=(), config=s3_keys(RSE, self.s3))
        protocol = s3_protocol(self.s3, settings={'provider': self.s3.provider, 'role_arn': self.s3.role_arn})
        with self.stage.act('Make an S3 RSE, and a bucket'):
            self._operator('rucio', 'rse', 'add', RSE)
            self._operator('rucio', 'rse', 'attribute', 'set', RSE, '--key', 'lfn2pfn_algorithm', '--value', 's3_bucket')
            self._operator('rucio', 'rse', 'attribute', 'set', RSE, '--key', 'skip_upload_stat', '--value', 'True')
            self._operator(
                *('rucio', 'rse', 'protocol', 'add', RSE, '--impl', protocol['impl']),
                *('--scheme', protocol['scheme'], '--hostname', protocol['hostname'], '--port', str(protocol['port']), '--prefix', protocol['prefix']),
                *('--domain-json', json.dumps({'lan': LOCAL, 'wan': LOCAL})),
                *('--extended-attributes-json', json.dumps(protocol['extended_attributes'])),
            )
            self._operator('rucio', 'account', 'limit', 'set', ACCOUNT, '--rse', RSE, '--bytes', 'infinity')
            rse_id = self.root.call('get_rse', RSE)['id']
            self.server.set_rse_keys(rse_id, self.s3.access_key, self.s3.secret_key)
            self._s3('mb', f's3://{BUCKET}', last=1)
            self.stage.note('Users will get keys of their own for this storage: could they make more of them?')
            self._operator('rucio', 's3', 'check', RSE, '--bucket', BUCKET, only='role chaining|STS')

    def make_files(self) -> None:
        with self.stage.act(f'Make a 1 GiB file, {SMALL_FILES} small files and an empty one'):
            with (self.files / 'raw.dat').open('wb') as file:
                for _ in range(BIG // (16 * MIB)):
                    file.write(os.urandom(16 * MIB))
            (self.files / 'events').mkdir()
            for number in range(SMALL_FILES):
                (self.files / 'events' / f'event-{number:03}.dat').write_bytes(os.urandom(1 + 37 * number))
            (self.files / 'empty.log').touch()

    def upload(self) -> None:
        upload = ('rucio', 'upload', '--rse', RSE, '--scope', SCOPE)
        with self.stage.act('Upload the 1 GiB file') as remarks:
            with self._rate(remarks):
                self._alice(*upload, '--lfn', 'run7/raw.dat', 'raw.dat', last=1, live=True)
            self._check_stored('run7/raw.dat')
        with self.stage.act(f'Upload a directory of {SMALL_FILES} files as a dataset'):
            self._alice(*upload, DATASET, 'events', last=1)
            self._check_stored(*(f'event-{number:03}.dat' for number in range(SMALL_FILES)))
        with self.stage.act('Upload an empty file'):
            self._alice(*upload, 'empty.log', last=1)
            self._check_stored('empty.log')

    def list_files(self) -> None:
        with self.stage.act('List'):
            self._alice('rucio', 'did', 'content', 'list', '--short', DATASET, first=3)
            self._alice('rucio', 'replica', 'list', 'file', BIG_DID, first=9)

    def download(self) -> None:
        download = ('rucio', 'download', '--dir', '../downloads')
        with self.stage.act('Download the 1 GiB file') as remarks, self._rate(remarks):
            self._alice(*download, BIG_DID, only=SUMMARY, live=True)
        with self.stage.act('Download the dataset and the empty file'):
            self._alice(*download, DATASET, EMPTY_DID, only=SUMMARY)
        with self.stage.act('Compare') as remarks:
            pairs = list(self._pairs())
            different = [str(original) for original, copy in pairs if not copy.is_file() or sha256(original) != sha256(copy)]
            if different:
                raise DemoError(f'{len(different)} of {len(pairs)} files did not come back as they were, the first is {different[0]}')
            size = sum(original.stat().st_size for original, _ in pairs)
            self.stage.say(f'  {len(pairs)} files, {size / MIB:.0f} MiB: every SHA-256 sum is the same as before the upload')
            remarks.append(f'{len(pairs)} files, all the same')

    def show_objects(self) -> None:
        with self.stage.act('Look into the bucket with another S3 client (s5cmd)'):
            self._s3('ls', '--humanize', f's3://{BUCKET}/*', first=2, last=2)
            self._s3('du', '--humanize', f's3://{BUCKET}/*', first=1)

    def delete(self) -> None:
        with self.stage.act('Delete the 1 GiB file'):
            rules = self.alice.call('list_did_rules', *BIG_DID.split(':'))
            self.stage.note('The operator ends its rule now. alice could use `rucio rule remove`, which leaves an hour to think again.')
            self._operator('rucio', 'rule', 'update', rules[0]['id'], '--lifetime', '0')
            self.stage.note('Two daemons that a Rucio server runs all the time')
            self._daemon('rucio-judge-cleaner', '--run-once')
            self._daemon('rucio-reaper', '--run-once', '--greedy', '--rses', RSE)
            if 'run7/raw.dat' in self._objects():
                raise DemoError(f'run7/raw.dat is still in the bucket {BUCKET}')
            self._s3('du', '--humanize', f's3://{BUCKET}/*', first=1)

    def keep(self) -> None:
        """Leave the servers running, and say how to play with them."""
        script = self.directory / 'play.sh'
        settings = {**self._s3_environment(), 'RUCIO_CONFIG': str(self.alice.config_file)}
        own = ('PATH', 'HOME', 'TMPDIR', 'LANG')  # stay as they are
        # Your own settings of this kind would win over the demo's, or lead elsewhere.
        lines = ["unset AWS_PROFILE $(env | grep -oiE '^(AWS_|RUCIO_|SSL_CERT_|[a-z]+_proxy)[a-z0-9_]*')"]
        lines += [f'export {name}={shlex.quote(value)}' for name, value in settings.items() if name not in own]
        lines += [f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"', f'cd {shlex.quote(str(self.files))}', '']
        write_private(script, '\n'.join(lines))
        self.stage.say(f"""
The servers are running. In another terminal:

  . {script}
  echo hello > note.txt
  rucio upload --rse {RSE} --scope {SCOPE} --lfn my/note.txt note.txt
  rucio download {SCOPE}:my/note.txt
  rucio did list --filter type==all '{SCOPE}:*'
  s5cmd ls 's3://{BUCKET}/*'
  s5cmd cp note.txt s3://{BUCKET}/my/other.txt
  rucio s3 reconcile {SCOPE}:my

Press Enter or Ctrl-C here to stop them and remove everything.""")
        # Without a terminal there is no Enter: wait for a signal.
        if not sys.stdin.readline():
            signal.pause()

    def _operator(self, *command: str, only: str = '') -> None:
        self.stage.run(command, env=self.root.environment, cwd=self.directory, only=only)

    def _alice(self, *command: str, **options: 'int | bool | str') -> str:
        env = {**self.alice.environment, **terminal_environment()}
        return self.stage.run(command, env=env, cwd=self.files, reject='\tERROR\t', **options)

    def _daemon(self, *command: str) -> None:
        self.stage.run(command, env=self.server.environment, cwd=self.directory, reject='CRITICAL')

    def _s3(self, *arguments: str, **options: 'int | bool | str') -> str:
        return self.stage.run(('s5cmd', *arguments), env=self._s3_environment(), cwd=self.directory, **options)

    def _s3_environment(self) -> dict[str, str]:
        return clean_environment(
            self.directory,
            S3_ENDPOINT_URL=self.s3.url,
            SSL_CERT_FILE=str(self.s3.ca_bundle),
            AWS_REGION=self.s3.region,
            AWS_ACCESS_KEY_ID=self.s3.access_key,
            AWS_SECRET_ACCESS_KEY=self.s3.secret_key,
        )

    def _check_stored(self, *names: str) -> None:
        """Whether the catalogue has these files as available, and the bucket has an object of that size for each."""
        dids = [{'scope': SCOPE, 'name': name} for name in names]
        replicas = {replica['name']: replica for replica in self.alice.call('list_replicas', dids, all_states=True)}
        for name in names:
            states = replicas.get(name, {}).get('states', {})
            if list(states.values()) != ['AVAILABLE']:
                raise DemoError(f'{SCOPE}:{name} was not uploaded: its replica is {states or "missing"}')
        objects = self._objects()
        for name in names:
            if objects.get(name) != replicas[name]['bytes']:
                raise DemoError(f'{SCOPE}:{name} has {replicas[name]["bytes"]} bytes, its object in the bucket {BUCKET} {objects.get(name, "is missing")}')

    def _objects(self) -> dict[str, int]:
        """The keys in the bucket, and their sizes."""
        pages = self.s3.client().get_paginator('list_objects_v2').paginate(Bucket=BUCKET)
        return {entry['Key']: entry['Size'] for page in pages for entry in page.get('Contents', [])}

    def _pairs(self) -> Iterator[tuple[Path, Path]]:
        """Each file, and where `rucio download` puts it."""
        yield self.files / 'raw.dat', self.downloads / SCOPE / 'run7' / 'raw.dat'
        yield self.files / 'empty.log', self.downloads / SCOPE / 'empty.log'
        for original in sorted((self.files / 'events').iterdir()):
            yield original, self.downloads / 'events' / original.name

    @contextlib.contextmanager
    def _rate(self, remarks: list[str]) -> Iterator[None]:
        """Note how fast the 1 GiB file went."""
        start = time.monotonic()
        yield
        remarks.append(f'{BIG / MIB / (time.monotonic() - start):.0f} MiB/s, with checksums and catalogue')


def make_storage(name: str, directory: Path) -> Storage:
    """The storage with https; not started."""
    tls = CA(directory / 'ca')
    if name == 'seaweedfs':
        return SeaweedFS(directory / name, tls=tls, sts=True)
    if reason := ceph.missing(CEPH):
        raise DemoError(f'no Ceph: {reason}')
    return ceph.CephRGW(directory / name, root=CEPH, tls=tls)


def sha256(path: Path) -> str:
    """The SHA-256 sum of a file."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(4 * MIB):
            digest.update(block)
    return digest.hexdigest()


def keep_logs(directory: Path) -> Path:
    """Save the logs of a demo that failed: its directory is removed."""
    logs = Path(tempfile.mkdtemp(prefix='rucio-s3-demo-failed-'))
    for log in ('demo.log', 'seaweedfs/seaweedfs.log', 'ceph/setup.log', 'ceph/rgw.log', 'rucio/rucio-server.log'):
        with contextlib.suppress(OSError):
            shutil.copy(directory / log, logs)
    return logs


def perform(directory: Path, storage: str, *, keep: bool) -> None:
    """The whole demo."""
    stage = Stage(directory / 'demo.log')
    stage.say(f'Working in {directory}')
    free = shutil.disk_usage(directory).free
    if free < NEEDED:
        raise DemoError(f'{directory.parent} has {free // MIB} MiB free, {NEEDED // MIB} MiB are needed: set TMPDIR to a directory with more')
    demo = Demo(directory, stage, storage)
    try:
        demo.start()
        demo.set_up()
        demo.make_files()
        demo.upload()
        demo.list_files()
        demo.download()
        demo.show_objects()
        demo.delete()
        second = SecondAct(directory, stage, demo.root, demo.s3, RSE)
        second.perform()
        ThirdAct(second, demo.server).perform()
        FourthAct(directory, stage, demo.root, demo.server, demo.s3).perform()
        stage.table()
        if keep:
            demo.keep()
        else:
            stage.say('\nTo keep the servers running and play with them: make demo KEEP=1')
    finally:
        # A second Ctrl-C does not stop the clean-up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        demo.stop()


def interrupt(signum: int, frame: object) -> None:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo, and clean up whatever happens."""
    parser = argparse.ArgumentParser(description='See rucio-s3 at work.')
    parser.add_argument('--keep', action='store_true', help='keep the servers running at the end, until Enter or Ctrl-C')
    parser.add_argument('--storage', choices=STORAGES, default=STORAGES[0], help='what stores the files (default: %(default)s)')
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)

    directory = Path(tempfile.mkdtemp(prefix='rucio-s3-demo-'))
    try:
        perform(directory, arguments.storage, keep=arguments.keep)
    except KeyboardInterrupt:
        print('\nStopped; nothing is left behind.')
        return 130
    except Exception as error:  # noqa: BLE001 - whatever it was, the logs are kept and the last line says where
        logs = keep_logs(directory)
        print(f'\nThe demo failed: {error}\nThe logs are in {logs}', file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
