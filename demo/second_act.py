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

"""The second act of the demo: two accounts that hold no key, a bucket, other people's tools, and a share."""

from pathlib import Path

from stage import DemoError, Stage

from servers.cli import RucioCli, Storage, add_user

SCOPE = BUCKET = 'user.bob'
COLLECTION = 'thesis'
DID = f'{SCOPE}:{COLLECTION}'
PLOTS = 20


class SecondAct:
    """
    bob makes a bucket and fills it; carol may read it for a while.

    :param rse: the storage, of which neither of them has heard.
    """

    def __init__(self, directory: Path, stage: Stage, root: RucioCli, s3: Storage, rse: str) -> None:
        self.stage = stage
        self.s3 = s3
        # Only the demo's own CA has to be named: a real storage's certificate is known to every machine.
        trust = {'s3': {'ca_bundle': str(s3.ca_bundle)}}
        self.bob = add_user(root, directory / 'bob', 'bob', scopes=[SCOPE], attributes=(), rses=[rse], config=trust)
        self.carol = add_user(root, directory / 'carol', 'carol', scopes=['user.carol'], attributes=(), config=trust)

    def perform(self) -> None:
        with self.stage.act('bob, who has no key, makes a bucket'):
            self._as(self.bob, 'rucio', 's3', 'make-bucket', DID, last=5)
        with self.stage.act(f'bob uploads a directory of {PLOTS} files'):
            self._make_files()
            self._as(self.bob, 'rucio', 's3', 'upload', 'plots', DID, last=3)
            self._as(self.bob, 'rucio', 's3', 'ls', DID, first=6)
        with self.stage.act('bob uses another S3 client'):
            self._as(self.bob, 'rucio', 's3', 'exec', '--', 's5cmd', 'ls', f'{DID}/*', first=3)
        with self.stage.act('carol may not read that'):
            self._refused(self.carol, 'rucio', 's3', 'ls', DID)
        with self.stage.act('bob shares it with carol, who downloads it'):
            self._as(self.bob, 'rucio', 's3', 'share', DID, '--with', 'carol', last=3)
            self._as(self.bob, 'rucio', 's3', 'grants', DID, last=6)
            self._as(self.carol, 'rucio', 'download', DID, only='^(DID |Downloaded files)')
            self._compare()
        with self.stage.act('bob takes it back'):
            self._as(self.bob, 'rucio', 's3', 'unshare', DID, '--with', 'carol', last=3)
            self._refused(self.carol, 'rucio', 's3', 'credentials', DID)

    def _make_files(self) -> None:
        plots = self.bob.directory / 'plots'
        plots.mkdir()
        for number in range(PLOTS):
            (plots / f'plot-{number:02}.dat').write_bytes(f'plot {number}\n'.encode() * 1000)

    def _compare(self) -> None:
        for original in (self.bob.directory / 'plots').iterdir():
            found = [path for path in self.carol.directory.rglob(original.name) if path.read_bytes() == original.read_bytes()]
            if not found:
                raise DemoError(f'{original.name} did not reach carol as it was')
        self.stage.say(f'  {PLOTS} files, all the same')

    def _as(self, user: RucioCli, *command: str, **options: 'int | bool | str') -> str:
        self.stage.note(f'{user.account}:')
        return self.stage.run(command, env=user.environment, cwd=user.directory, reject='\tERROR\t', **options)

    def _refused(self, user: RucioCli, *command: str) -> None:
        self.stage.note(f'{user.account}:')
        self.stage.refused(command, env=user.environment, cwd=user.directory)
