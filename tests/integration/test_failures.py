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

"""Uploads and downloads that cannot work: nothing is lost, and the user is told what to do."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from faults.proxy import Fault, FaultProxy, break_after, carry_out_twice
from servers.ca import CA
from servers.cli import RucioCli, s3_keys
from servers.process import TIMEOUT
from servers.seaweedfs import SeaweedFS
from servers.site import SCOPE, Site

MiB = 1024**2
PROXIED = 'PROXIED_S3'


def make(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def test_a_corrupted_object_is_not_downloaded(site: Site, unique: str, tmp_path: Path) -> None:
    file = make(tmp_path / 'file', 1000)
    site.alice.rucio('upload', '--rse', 'PLAIN_S3', '--scope', SCOPE, '--lfn', unique, str(file))
    client = site.storages['PLAIN_S3'].client()
    client.delete_object(Bucket=SCOPE, Key=unique)
    client.put_object(Bucket=SCOPE, Key=unique, Body=os.urandom(1000))

    download = site.alice.rucio('download', '--dir', str(tmp_path / 'back'), f'{SCOPE}:{unique}')

    assert f'Checksum validation failed for file: {SCOPE}:{unique}' in download.stderr
    assert [path for path in (tmp_path / 'back').rglob('*') if path.is_file()] == []


def test_a_lost_object_is_named(site: Site, unique: str, tmp_path: Path) -> None:
    site.alice.rucio('upload', '--rse', 'PLAIN_S3', '--scope', SCOPE, '--lfn', unique, str(make(tmp_path / 'file', 1000)))
    site.storages['PLAIN_S3'].client().delete_object(Bucket=SCOPE, Key=unique)

    download = site.alice.rucio('download', '--dir', str(tmp_path / 'back'), f'{SCOPE}:{unique}')

    assert f"RSE PLAIN_S3: get of bucket '{SCOPE}', key '{unique}': the storage answered 404" in download.stderr
    assert [path for path in (tmp_path / 'back').rglob('*') if path.is_file()] == []


@pytest.fixture
def alice_with(site: Site, tmp_path: Path):
    """Alice at another machine, with other settings for the RSE PLAIN_S3 or TLS_S3."""

    def make_alice(rse: str, settings: dict[str, str]) -> RucioCli:
        client = site.alice._config['client']
        return RucioCli(tmp_path / 'elsewhere', site.alice.server, 'alice', client['username'], client['password'], {f's3:{rse}': settings})

    return make_alice


@pytest.mark.parametrize(
    ('rse', 'settings', 'said', 'remedy'),
    [
        ('PLAIN_S3', {'access_key': 'admin', 'secret_key': 'not the key'}, '403', 'Check the access key and secret key'),
        ('PLAIN_S3', {'access_key': 'nobody', 'secret_key': 'not the key'}, '403', 'rucio.cfg [s3:PLAIN_S3]'),
        ('PLAIN_S3', {}, 'there are no credentials', 'Set access_key and secret_key'),
        ('PLAIN_S3', {'adressing': 'path'}, "there is no setting 'adressing'", "Did you mean 'addressing'?"),
        ('PLAIN_S3', {'profile': 'nowhere'}, 'ProfileNotFound', 'Check the AWS profile'),
        ('TLS_S3', {'access_key': 'admin', 'secret_key': 'password'}, 'SSLError', "set 'ca_bundle'"),
    ],
)
def test_a_wrong_configuration_is_named(
    site: Site, alice_with, unique: str, tmp_path: Path, rse: str, settings: dict[str, str], said: str, remedy: str
) -> None:
    alice = alice_with(rse, settings)

    upload = alice.rucio('upload', '--rse', rse, '--scope', SCOPE, '--lfn', unique, str(make(tmp_path / 'file', 10)))

    assert said in upload.stderr
    assert remedy in upload.stderr
    assert 'not the key' not in upload.stdout + upload.stderr
    assert site.objects(rse, unique) == {}


def test_a_missing_bucket_is_named(site: Site, unique: str, tmp_path: Path) -> None:
    site.root.call('add_scope', 'alice', f'user.{unique}')

    upload = site.alice.rucio('upload', '--rse', 'PLAIN_S3', '--scope', f'user.{unique}', '--lfn', unique, str(make(tmp_path / 'file', 10)))

    assert f"bucket 'user.{unique}', key '{unique}': the storage answered 404 NoSuchBucket" in upload.stderr
    assert 'rucio s3 make-bucket' in upload.stderr
    assert '--rse PLAIN_S3' in upload.stderr
    assert 'Traceback' not in upload.stderr
    assert len((upload.stdout + upload.stderr).splitlines()) < 10


def test_a_name_that_a_download_would_change_is_not_uploaded(site: Site, unique: str, tmp_path: Path) -> None:
    """It was said to be uploaded, and no `rucio download` brought it back."""
    name = f'{unique}/../z'
    upload = site.alice.rucio('upload', '--rse', 'PLAIN_S3', '--scope', SCOPE, '--lfn', name, str(make(tmp_path / 'file', 10)))

    assert 'do not come back as they are. Nothing was stored' in upload.stderr
    assert 'Successfully uploaded' not in upload.stderr
    assert 'Traceback' not in upload.stderr
    assert 'AVAILABLE' not in site.states(name).values()


def test_a_missing_ca_bundle_is_named(site: Site, alice_with, unique: str, tmp_path: Path, ca: CA) -> None:
    alice = alice_with('TLS_S3', {'access_key': 'admin', 'secret_key': 'password', 'ca_bundle': f'{ca.bundle}.not'})

    upload = alice.rucio('upload', '--rse', 'TLS_S3', '--scope', SCOPE, '--lfn', unique, str(make(tmp_path / 'file', 10)))

    assert f"'ca_bundle' is '{ca.bundle}.not', but must be the path of a readable PEM file" in upload.stderr


# Runs the stock command, which gets a signal when its first byte is sent, and once more while it cleans up.
_SIGNAL_AT_FIRST_BYTE = """
import os, runpy, sys, threading
from contextlib import contextmanager
from rucio.common.s3 import progress
from s3transfer.futures import TransferCoordinator

first, second, cancelled = [int(os.environ['SIGNAL'])], [int(os.environ['SIGNAL'])], threading.Event()
stock_cancel = TransferCoordinator.cancel

def cancel(*arguments):
    stock_cancel(*arguments)
    cancelled.set()

def press(signals):
    try:
        os.kill(os.getpid(), signals.pop())
    except IndexError:
        pass

def send(step):
    press(first)
    # The handler of Rucio takes its time: the upload must not be over before.
    cancelled.wait(60)
    press(second)

TransferCoordinator.cancel = cancel

@contextmanager
def meter(setting, name, size):
    yield send

progress.meter = meter
sys.argv = ['rucio', *sys.argv[1:]]
runpy.run_path(os.environ['RUCIO_COMMAND'], run_name='__main__')
"""


@pytest.mark.parametrize('number', [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_an_upload_that_is_interrupted_can_be_repeated(site: Site, unique: str, tmp_path: Path, number: signal.Signals) -> None:
    # Large enough that it is not over before the signal is there.
    file = make(tmp_path / 'file', 200 * MiB)
    words = ['upload', '--rse', 'PLAIN_S3', '--scope', SCOPE, '--lfn', unique, str(file)]
    command = Path(sys.executable).with_name('rucio')

    first = subprocess.run(
        [sys.executable, '-c', _SIGNAL_AT_FIRST_BYTE, *words],
        env={**site.alice.environment, 'SIGNAL': str(int(number)), 'RUCIO_COMMAND': str(command)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )

    assert site.objects('PLAIN_S3', unique) == {}, first.stdout + first.stderr
    assert first.returncode
    if number == signal.SIGINT:
        assert site.multipart_uploads('PLAIN_S3', unique) == []
        assert 'bytes-like' not in first.stdout + first.stderr
        assert 'Traceback' not in first.stdout + first.stderr
    again = site.alice.rucio(*words)
    assert site.objects('PLAIN_S3', unique) == {unique: 200 * MiB}, again.stderr
    assert site.states(unique) == {'PLAIN_S3': 'AVAILABLE'}


# Runs the stock command, and overwrites the end of its file, in place, when that is about to be sent.
_CHANGE_BEFORE_PUT = """
import os, runpy, sys
from contextlib import contextmanager
from rucio.common.s3 import progress

@contextmanager
def meter(setting, name, size):
    with open(sys.argv[-1], 'r+b') as file:
        file.seek(int(os.environ['AT']), os.SEEK_END)
        file.write(os.environ['CHANGE'].encode())
    yield None

progress.meter = meter
sys.argv = ['rucio', *sys.argv[1:]]
runpy.run_path(os.environ['RUCIO_COMMAND'], run_name='__main__')
"""


@pytest.mark.parametrize(
    ('size', 'at', 'said'),
    [
        (1000, -4, 'changed after its checksums were computed'),
        (40 * MiB, -4, 'changed after its checksums were computed'),
        (40 * MiB, 0, 'changed while it was read'),
    ],
    ids=['small', 'overwritten', 'appended to'],
)
def test_a_file_that_changes_after_it_was_registered_is_not_said_to_be_uploaded(site: Site, unique: str, tmp_path: Path, size: int, at: int, said: str) -> None:
    """Its object would have other checksums than the catalogue, and could never be downloaded."""
    file = make(tmp_path / 'file', size)
    upload = subprocess.run(
        [sys.executable, '-c', _CHANGE_BEFORE_PUT, 'upload', '--rse', 'PLAIN_S3', '--scope', SCOPE, '--lfn', unique, str(file)],
        env={**site.alice.environment, 'RUCIO_COMMAND': str(Path(sys.executable).with_name('rucio')), 'AT': str(at), 'CHANGE': 'late'},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert said in upload.stderr
    assert 'Successfully uploaded' not in upload.stderr
    assert site.objects('PLAIN_S3', unique) == {}
    assert site.multipart_uploads('PLAIN_S3', unique) == []
    assert 'AVAILABLE' not in site.states(unique).values()


@pytest.fixture(scope='module')
def proxy(site: Site, plain: SeaweedFS) -> Iterator[FaultProxy]:
    """The RSE PROXIED_S3, whose requests go through it; files of 5 MiB are uploaded in parts."""
    with FaultProxy(plain.hostname, plain.port) as proxy:
        site.add_rse(PROXIED, SimpleNamespace(scheme='http', hostname='127.0.0.1', port=proxy.port, region=plain.region))
        parts = {'multipart_threshold': '5 MiB', 'multipart_chunksize': '5 MiB'}
        site.alice.configure({section: keys | parts for section, keys in s3_keys(PROXIED, plain).items()})
        yield proxy


@pytest.mark.parametrize('fault', [carry_out_twice, break_after])
def test_an_upload_that_is_completed_twice_is_uploaded(site: Site, proxy: FaultProxy, unique: str, tmp_path: Path, fault: Fault) -> None:
    """By a proxy, or by boto3 as the first answer was lost: SeaweedFS answers 412 to the second completion."""
    proxy.on('CompleteMultipartUpload', fault)
    before = len(proxy.operations())

    upload = site.alice.rucio('upload', '--rse', PROXIED, '--scope', SCOPE, '--lfn', unique, str(make(tmp_path / 'file', 6 * MiB)))

    assert 'Successfully uploaded' in upload.stderr
    assert proxy.operations()[before:].count('CreateMultipartUpload') == 1
    assert site.states(unique) == {PROXIED: 'AVAILABLE'}
    assert site.multipart_uploads('PLAIN_S3', unique) == []
    site.alice.rucio('download', '--dir', str(tmp_path / 'down'), f'{SCOPE}:{unique}')
    assert (tmp_path / 'down' / SCOPE / unique).read_bytes() == (tmp_path / 'file').read_bytes()


_KILL_AFTER_PUT = """
import os, runpy, signal, sys
from rucio.common.s3 import transfer

upload = transfer.upload

def upload_and_die(*arguments):
    upload(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

transfer.upload = upload_and_die
sys.argv = ['rucio', *sys.argv[1:]]
runpy.run_path(os.environ['RUCIO_COMMAND'], run_name='__main__')
"""


def test_what_a_kill_after_put_leaves_is_repaired_as_documented(site: Site, unique: str, tmp_path: Path) -> None:
    file = make(tmp_path / 'file', 1000)
    words = ['upload', '--rse', 'PLAIN_S3', '--scope', SCOPE, '--lfn', unique, str(file)]
    subprocess.run(
        [sys.executable, '-c', _KILL_AFTER_PUT, *words],
        env={**site.alice.environment, 'RUCIO_COMMAND': str(Path(sys.executable).with_name('rucio'))},
        cwd=tmp_path,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert site.states(unique) == {'PLAIN_S3': 'COPYING'}
    again = site.alice.rucio(*words)
    assert 'File already exists on RSE. Skipping upload' in again.stderr

    # docs/behaviour.md
    site.alice.call('update_replicas_states', 'PLAIN_S3', [{'scope': SCOPE, 'name': unique, 'state': 'A'}])
    site.alice.rucio('download', '--dir', str(tmp_path / 'back'), f'{SCOPE}:{unique}')

    assert (tmp_path / 'back' / SCOPE / unique).read_bytes() == file.read_bytes()
