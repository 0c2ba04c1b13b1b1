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

"""The third act of the demo: what another S3 client does to a bucket, and the catalogue follows."""

from pathlib import Path

from second_act import BUCKET, COLLECTION, DID, SCOPE, SecondAct
from stage import DemoError

from servers.rucio_server import RucioServer

NAME = f'{COLLECTION}/from-elsewhere.dat'
FILE = f'{SCOPE}:{NAME}'
KEY = f's3://{BUCKET}/{NAME}'


class ThirdAct:
    """
    bob, of the second act, works with s5cmd only: he puts, overwrites and deletes.

    :param second: the second act, whose bob it is.
    :param server: the Rucio server, beside which the daemon runs.
    """

    def __init__(self, second: SecondAct, server: RucioServer) -> None:
        self.stage = second.stage
        self.server = server
        self.bob = second.bob
        self.file = self.bob.directory / 'from-elsewhere.dat'

    def perform(self) -> None:
        with self.stage.act('bob puts a file with another S3 client, and Rucio is told to look'):
            self._put('written by another client\n')
            self._bob('rucio', 's3', 'reconcile', DID, first=20)
            self._bob('rucio', 'did', 'show', FILE, only='^(name|bytes|md5)')
            self._compare()
        with self.stage.act('He overwrites it: Rucio reports that, and does what bob decides'):
            self._put('another version, with another size\n')
            self._bob('rucio', 's3', 'reconcile', DID, first=20)
            self._bob('rucio', 's3', 'settings', SCOPE, '--on-changed', 'replace', '--on-missing', 'forget', first=20)
            self._bob('rucio', 's3', 'reconcile', DID, first=20)
            self._compare()
        with self.stage.act("He deletes it: the server's daemon sees that by itself"):
            self._directly('rm', KEY)
            self.stage.note('A daemon that a Rucio server with this plugin runs all the time')
            daemon = ('rucio-s3-reconciler', '--run-once')
            self.stage.run(daemon, env=self.server.environment, cwd=self.server.directory, reject='CRITICAL', only=f'bucket {BUCKET}')
            self._bob('rucio', 'did', 'content', 'list', '--short', DID, last=3)
            if any(each['name'] == NAME for each in self.bob.call('list_files', SCOPE, COLLECTION)):
                raise DemoError(f'{FILE} is deleted, but the catalogue still has it')

    def _put(self, content: str) -> None:
        self.file.write_text(content * 1000)
        self._directly('cp', self.file.name, KEY)

    def _directly(self, *arguments: str) -> None:
        keys = f'eval "$(rucio s3 credentials {SCOPE} --format env)"'
        self._bob('sh', '-c', f'{keys}; s5cmd {" ".join(arguments)}')

    def _bob(self, *command: str, **options: 'int | bool | str') -> str:
        return self.stage.run(command, env=self.bob.environment, cwd=self.bob.directory, reject='\tERROR\t', **options)

    def _compare(self) -> None:
        target = Path('copy')
        self._bob('rucio', 'download', '--dir', str(target), FILE, only='^(DID |Downloaded files)')
        copies = list((self.bob.directory / target).rglob(self.file.name))
        if [copy.read_bytes() for copy in copies] != [self.file.read_bytes()]:
            raise DemoError(f'{FILE} was not downloaded as it is in the bucket')
        copies[0].unlink()
        self.stage.say('  the same bytes')
