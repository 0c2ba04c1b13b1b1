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

"""One run of `operations`: each account and the operator in a thread of its own, and what was reported of each file."""

import threading
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

from servers.workers import Ended

from .plans import COPY, SIGNED, USERS, VENDED, Operation, Plan
from .seeded_site import PREFIXES, Command, Site, User
from .small_disk import small_disk

RECONCILER, COPIER = 'rucio.daemons.s3.reconciler:main', 'rucio.daemons.s3.copier:main'
DAEMONS = {
    'reconciler': (RECONCILER, '--run-once'),
    'copier': (COPIER, '--run-once'),
    'submitter': ('rucio-conveyor-submitter', '--run-once'),
    'finisher': ('rucio-conveyor-finisher', '--run-once'),
    'judge': ('rucio-judge-evaluator', '--run-once'),
    'deleter': ('rucio-reaper', '--run-once', '--greedy', '--delay-seconds', '0'),
}

# Commands of ours; stock Rucio shows tracebacks.
OURS = ('reconciler', 'copier', 'make', 'upload_directory', 'list', 'url', 'reconcile', 'share', 'unshare', 'grants')


@dataclass
class File:
    """What is known of a file by what was reported.

    :param state: `tried`: an upload failed. `stored`: one was reported to have succeeded. `elsewhere`: another client wrote it.
        `deleted`: another client deleted it. `erased`: Rucio was told to; `perhaps erased`: it failed to be told.
    :param versions: contents that it may have.
    """

    name: str
    owner: User
    rse: str
    state: str = ''
    versions: set[int] = field(default_factory=lambda: {0})
    copy: str = ''  # `wanted`: a rule was made; `perhaps`: that was reported as failed

    @property
    def did(self) -> str:
        return f'{self.owner.scope}:{self.name}'

    @property
    def single(self) -> bool:
        return '/' not in self.name


@dataclass
class Done:
    """An operation that has ended."""

    operation: Operation
    ended: Ended
    command: Command

    @property
    def said(self) -> str:
        return self.ended.output


class Run:
    """One seed."""

    def __init__(self, site: Site, plan: Plan) -> None:
        self.site, self.plan, self.seed = site, plan, plan.seed
        self.files: dict[str, File] = {}
        self.shared: dict[tuple[str, str], bool | None] = {}  # (collection, account): None is not known
        self.done: list[Done] = []
        self.wrong: list[str] = []
        self.log: list[str] = []
        self._lock = threading.Lock()
        self.s3 = site.storage.client()

    def prepare(self) -> None:
        """Accounts, and their buckets."""
        self.users = {who: self.site.add_user(who, self.seed) for who in USERS}
        for user in self.users.values():
            for rse in (VENDED, SIGNED):
                done = self._rucio(Operation(f'make{self.seed}-{rse}', user.name, 'make', []), user, 's3', 'make-bucket', user.scope, '--rse', rse)
                assert done.ended.code == 0, done.said

    def play(self) -> None:
        """All operations, with all that fails."""
        self.site.begin(self.plan)
        threads = [threading.Thread(target=self._lane, args=(who,), daemon=True) for who in self.plan.operations]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.site.end()

    def _lane(self, who: str) -> None:
        for operation in self.plan.operations[who]:
            try:
                getattr(self, operation.kind)(operation) if who != 'operator' else self._daemon(operation)
            except Exception:  # noqa: BLE001 - a fault of these tests must not look like success
                self.say(f'{operation}: {traceback.format_exc()}', wrong=True)

    # Operations

    def upload(self, operation: Operation) -> None:
        file = self._file(operation, operation.names[0])
        self._stored([file], self.upload_again(operation, file), 'Successfully uploaded file')

    def upload_again(self, operation: Operation, file: File) -> Done:
        local = self._local(file)
        try:
            return self._rucio(operation, file.owner, 'upload', '--rse', file.rse, '--scope', file.owner.scope, '--lfn', file.name, str(local))
        finally:
            local.unlink()

    def upload_directory(self, operation: Operation) -> None:
        files = [self._file(operation, name) for name in operation.names]
        self._stored(files, self.upload_directory_again(operation, files), '')

    def upload_directory_again(self, operation: Operation, files: list[File]) -> Done:
        """`rucio s3 upload` of all of a collection."""
        owner, name = files[0].owner, files[0].name.partition('/')[0]
        paths = [self._local(file) for file in files]
        done = self._rucio(operation, owner, 's3', 'upload', str(paths[0].parent), f'{owner.scope}:{name}', '--rse', files[0].rse)
        for path in paths:
            path.unlink()
        return done

    def _stored(self, files: list[File], done: Done, words: str) -> None:
        succeeded = words in done.said if words else done.ended.code == 0
        for file in files:
            if not file.state:
                file.state = 'stored' if succeeded else 'tried'

    def _local(self, file: File) -> Path:
        path = file.owner.cli.directory / 'files' / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.plan.content(file.name))
        return path

    def download(self, operation: Operation) -> None:
        self._download(operation, self.users[operation.who])

    download_shared = download

    def _download(self, operation: Operation, user: User) -> Done:
        known = [self.files[name] for name in operation.names if name in self.files]
        # `rucio s3 download` of files leaves their folders out.
        files = {file.name.rpartition('/')[2] if operation.s3 else f'{file.owner.scope}/{file.name}': file for file in known}
        folder = user.cli.directory / 'down' / operation.identifier
        dids = [file.did for file in files.values()]
        words = ('s3', 'download', *dids, str(folder)) if operation.s3 else ('download', '--dir', str(folder), *dids)
        if not operation.file_size:
            done = self._rucio(operation, user, *words)
        else:
            with small_disk(folder, operation.file_size) as small:
                done = self._rucio(replace(operation, file_size=0) if small else operation, user, *words)
            self.site.done['a full disk at download'] += 'No space left' in done.said
        for path, file in files.items():
            self._compare(operation, folder / path, file, done)
        return done

    def _compare(self, operation: Operation, path: Path, file: File, done: Done) -> None:
        """No wrong byte was delivered."""
        there = path.read_bytes() if path.exists() else None
        if there is None and (done.ended.code == 0 if operation.s3 else f'{file.did} successfully downloaded' in done.said):
            self.say(f'{operation}: {file.name} is said to be downloaded, and is not there\n{done.said}', wrong=True)
        if there is not None and there not in [self.plan.content(file.name, version) for version in file.versions]:
            self.say(f'{operation}: {file.name} was delivered with {len(there)} bytes that it never had\n{done.said}', wrong=True)

    def list(self, operation: Operation) -> None:
        user = self.users[operation.who]
        # What is sure to be there before and after.
        sure = [file for file in list(self.files.values()) if file.owner is user and file.rse == operation.rse and file.state == 'stored']
        done = self._rucio(operation, user, 's3', 'ls', user.scope, '--rse', operation.rse, '--short')
        left_out = [file.name for file in sure if file.name.partition('/')[0] not in done.said]
        if done.ended.code == 0 and left_out:
            self.say(f'{operation}: the listing leaves out {left_out}, and says nothing of it\n{done.said}', wrong=True)

    def url(self, operation: Operation) -> None:
        file = self.files[operation.names[0]]
        done = self._rucio(operation, file.owner, 's3', 'url', file.did, '--rse', file.rse)
        if done.ended.code == 0 and file.name not in done.said:
            self.say(f'{operation}: no URL\n{done.said}', wrong=True)

    def reconcile(self, operation: Operation) -> None:
        user = self.users[operation.who]
        options = ('--on-changed', 'replace', '--on-missing', 'forget')
        self._rucio(operation, user, 's3', 'reconcile', user.scope, '--rse', operation.rse, *options)

    def share(self, operation: Operation) -> None:
        self._share(operation, given=True)

    def unshare(self, operation: Operation) -> None:
        self._share(operation, given=False)

    def _share(self, operation: Operation, *, given: bool) -> None:
        user = self.users[operation.who]
        other = self.users[USERS[(USERS.index(operation.who) + 1) % len(USERS)]]
        collection = next((file.name.partition('/')[0] for file in self.files.values() if file.owner is user and not file.single), '')
        if not collection:
            return self.list(operation)
        words = (
            ('share', f'{user.scope}:{collection}', '--with', other.account) if given else ('unshare', f'{user.scope}:{collection}', '--with', other.account)
        )
        done = self._rucio(operation, user, 's3', *words)
        self.shared[f'{user.scope}:{collection}', other.account] = given if done.ended.code == 0 else None
        return None

    def erase(self, operation: Operation) -> None:
        file = self.files[operation.names[0]]
        if not file.single or file.copy or file.state not in ('stored', 'tried'):
            return self.url(operation)
        done = self._rucio(operation, file.owner, 'did', 'remove', file.did)
        if file.state == 'stored':
            file.state = 'erased' if 'rucio erase --undo' in done.said and done.ended.code == 0 else 'perhaps erased'
        else:
            file.state = 'perhaps erased'
        return None

    def copy(self, operation: Operation) -> None:
        file = self.files[operation.names[0]]
        if not file.single or file.state != 'stored' or file.versions != {0}:
            return self.url(operation)
        done = self._rucio(operation, file.owner, 'rule', 'add', file.did, '--copies', '1', '--rses', COPY)
        file.copy = 'wanted' if done.ended.code == 0 and 'ERROR' not in done.said else 'perhaps'
        return None

    # Other clients, past all faults

    def put_elsewhere(self, operation: Operation) -> None:
        file = self._file(operation, operation.names[0])
        with self.site.storage_up:
            self.s3.put_object(Bucket=self.bucket(file), Key=file.name, Body=self.plan.content(file.name))
        file.state = 'elsewhere'

    def overwrite_elsewhere(self, operation: Operation) -> None:
        file = self.files[operation.names[0]]
        if file.state == 'stored' and not file.copy:
            file.versions.add(1)
            with self.site.storage_up:
                self.s3.put_object(Bucket=self.bucket(file), Key=file.name, Body=self.plan.content(file.name, 1))

    def delete_elsewhere(self, operation: Operation) -> None:
        file = self.files[operation.names[0]]
        if file.state in ('stored', 'elsewhere') and not file.copy:
            file.state = 'deleted'
            with self.site.storage_up:
                self.s3.delete_object(Bucket=self.bucket(file), Key=file.name)

    # The operator

    def _daemon(self, operation: Operation) -> None:
        self.daemon(operation, *DAEMONS[operation.kind])

    def daemon(self, operation: Operation, *words: str) -> Done:
        environment = {**self.site.server.environment, 'PYTHONPATH': str(Path(__file__).parent.parent)}
        return self._finish(operation, *self.site.run(operation, words, environment, self.site.server.directory))

    # All of them

    def _rucio(self, operation: Operation, user: User, *words: str) -> Done:
        return self._finish(operation, *self.site.run(operation, ('rucio', *words), user.cli.environment, user.cli.directory))

    def _finish(self, operation: Operation, ended: Ended, command: Command) -> Done:
        done = Done(operation, ended, command)
        failed = '; '.join(f'{each.what} at {each.operation} {each.key} ({each.side})' for each in command.passed if each.what)
        self.say(f'{operation}: {ended.code} after {ended.seconds:.1f} s{f" ({failed})" if failed else ""}')
        if ended.late:
            self.say(f'{operation}: did not end by itself:\n{ended.output[-6000:]}', wrong=True)
        if 'Traceback (most recent call last)' in ended.output and (operation.kind in OURS or operation.s3):
            self.say(f'{operation}: shows a traceback:\n{ended.output[-5000:]}', wrong=True)
        with self._lock:
            self.done.append(done)
        return done

    def say(self, line: str, *, wrong: bool = False) -> None:
        with self._lock:
            self.log.append(f'{time.strftime("%H:%M:%S")} {line}')
            if wrong:
                self.wrong.append(line)

    def _file(self, operation: Operation, name: str) -> File:
        made = self.files[name] = File(name, self.users[operation.who], operation.rse)
        return made

    def bucket(self, file: File, rse: str = '') -> str:
        return PREFIXES[rse or file.rse] + file.owner.scope
