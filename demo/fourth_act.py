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

"""The fourth act of the demo: MinIO's client, for an account without keys, on a storage that issues none."""

import shutil
import signal
import subprocess
from pathlib import Path

from stage import DemoError, Stage

from servers.cli import RucioCli, Storage, add_s3_rse, add_user
from servers.rucio_server import RucioServer

RSE = 'KEYLESS_S3'
SCOPE, NAME = 'user.lheinric', 'someuniquename'
DID = f'{SCOPE}:{NAME}'


class FourthAct:
    """
    lheinric works with mc: behind `rucio s3 exec`, and with the alias that `rucio s3 serve` gives it.

    :param s3: the storage. Its second RSE has no role that the server could assume, so there are no keys to hand out.
    """

    def __init__(self, directory: Path, stage: Stage, root: RucioCli, server: RucioServer, s3: Storage) -> None:
        self.stage = stage
        self.mc = minio_client()
        if not self.mc:
            return
        rse_id = add_s3_rse(root, RSE, s3, settings={'provider': s3.provider, 'bucket_prefix': 'keyless-'})
        server.set_rse_keys(rse_id, s3.access_key, s3.secret_key)
        trust = {'s3': {'ca_bundle': str(s3.ca_bundle)}}
        self.user = add_user(root, directory / 'lheinric', 'lheinric', scopes=[SCOPE], attributes=(), rses=[RSE], config=trust)
        (self.user.directory / 'file.root').write_bytes(b'events\n' * 100_000)

    def perform(self) -> None:
        if not self.mc:
            self.stage.note("MinIO's client is not installed (Debian: minio-client): its act is left out")
            return
        with self.stage.act('lheinric, whose storage issues no keys, uses mc'):
            self._run('rucio', 's3', 'make-bucket', DID, last=5)
            self._run('rucio', 's3', 'exec', '--', self.mc, 'cp', 'file.root', f'{DID}/file.root', only='->')
            self._run('rucio', 's3', 'exec', '-v', '--', self.mc, 'ls', DID, last=3)
        with self.stage.act('mc itself, while `rucio s3 serve` runs'):
            self._run('rucio', 's3', 'serve', '--install', 'mc', last=9)
            self._serve()
        with self.stage.act('Rucio knows what mc wrote'):
            self._run('rucio', 'download', '--dir', 'copy', DID, only='^(DID |Downloaded files)')
            copies = sorted((self.user.directory / 'copy').rglob('*.root'))
            original = (self.user.directory / 'file.root').read_bytes()
            if [each.name for each in copies if each.read_bytes() == original] != ['again.root', 'file.root']:
                raise DemoError(f'{DID} was not downloaded as mc wrote it')
            self.stage.say('  2 files, the same bytes')

    def _serve(self) -> None:
        self.stage.note('in another terminal: rucio s3 serve')
        running = self.user.popen('rucio', 's3', 'serve', stderr=subprocess.PIPE)
        try:
            said = running.stderr.readline() if running.stderr else ''
            if not said.startswith('Serving'):
                raise DemoError(f'rucio s3 serve: {said}')
            self.stage.say(f'  {said.strip()}')
            self._run(self.mc, 'cp', 'file.root', f'rucio/{SCOPE}/{NAME}/again.root', only='->')
            self._run(self.mc, 'ls', f'rucio/{SCOPE}/{NAME}/', last=3)
        finally:
            running.send_signal(signal.SIGINT)
            running.communicate()

    def _run(self, *command: str, **options: 'int | bool | str') -> str:
        return self.stage.run(command, env=self.user.environment, cwd=self.user.directory, reject='\tERROR\t', **options)


def minio_client() -> str:
    """The name of MinIO's client; empty if it is not installed. `mc` may be Midnight Commander."""
    for name in ('mc', 'minio-client', 'mcli'):
        found = shutil.which(name)
        if found and 'MinIO' in subprocess.run([found, '--version'], capture_output=True, text=True, check=False).stdout:
            return name
    return ''
