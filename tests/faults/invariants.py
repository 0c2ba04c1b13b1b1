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

"""What must hold after a run of `operations`, when nothing fails any more and Rucio's daemons have run."""

import hashlib
import shutil
import signal
import traceback
import zlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

from .plans import COPY, SIGNED, VENDED, Operation
from .seeded_run import COPIER, RECONCILER, Done, File, Run
from .seeded_site import PREFIXES, User

HERE = (VENDED, SIGNED)
KILLED = [-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP]
GONE, THERE = 'gone', 'there'


def check(run: Run) -> None:
    """Settle what is open, and say what is wrong."""
    settle = _Settle(run)
    for step in (
        settle.uploads,
        settle.nothing_is_left_of_processes,
        settle.lifecycles,
        settle.daemons,
        settle.files,
        settle.copies,
        settle.downloads,
        settle.buckets,
        settle.catalogue,
        settle.clean,
    ):
        try:
            step()
        except Exception:  # noqa: BLE001 - it is reported with the rest
            run.say(traceback.format_exc(), wrong=True)


class _Settle:
    def __init__(self, run: Run) -> None:
        self.run, self.site = run, run.site
        self._number = 0

    def _wrong(self, text: str) -> None:
        self.run.say(text, wrong=True)

    def _operation(self, who: str, kind: str, *names: str) -> Operation:
        self._number += 1
        return Operation(f'settle{self.run.seed}-{self._number}', who, kind, [*names])

    @property
    def _scopes(self) -> str:
        return ', '.join(f"'{user.scope}'" for user in self.run.users.values())

    # What was reported as failed can be tried again

    def uploads(self) -> None:
        tried = [file for file in self.run.files.values() if file.state == 'tried']
        for file in tried:
            if file.single:
                done = self.run.upload_again(self._operation(file.owner.name, 'upload again', file.name), file)
                # Somebody was killed after the last byte: the catalogue takes it up by itself, see `files`.
                if 'Successfully uploaded file' not in done.said and 'already exists' not in done.said:
                    self._wrong(f'{file.name}: its upload failed, and cannot be tried again:\n{done.said}')
                file.state = 'stored'
        for folder in sorted({file.name.partition('/')[0] for file in tried if not file.single}):
            self._upload_directory([file for file in self.run.files.values() if file.name.startswith(f'{folder}/')])

    def _upload_directory(self, files: list[File]) -> None:
        changed = [file for file in files if file.state != 'tried']
        if changed:  # somebody else wrote to it: it would be refused
            return
        done = self.run.upload_directory_again(self._operation(files[0].owner.name, 'upload again', *(file.name for file in files)), files)
        if done.ended.code:
            self._wrong(f'{files[0].name}: the upload of its directory failed, and cannot be tried again:\n{done.said}')
        for file in files:
            file.state = 'stored'

    # No multipart upload, temporary file, lock or claim outlives its owner's clean-up or its lifecycle

    def nothing_is_left_of_processes(self) -> None:
        for bucket in self._buckets():
            for upload in self.run.s3.list_multipart_uploads(Bucket=bucket).get('Uploads', []):
                if not self._excused(upload['Key']):
                    self._wrong(f'{bucket}/{upload["Key"]}: its multipart upload was left behind')
                self.run.s3.abort_multipart_upload(Bucket=bucket, Key=upload['Key'], UploadId=upload['UploadId'])

    def _excused(self, key: str) -> bool:
        """A process was killed, or could not clean up: the lifecycle rule of the bucket does."""
        for done in self.run.done:
            passed = [each for each in done.command.passed if each.key == key and each.side == 'storage']
            failed = [each for each in passed if each.what and each.operation in ('CreateMultipartUpload', 'AbortMultipartUpload')]
            signs = any(each.what for each in done.command.passed if each.side == 'server')
            if passed and (done.command.killed or failed or signs):
                return True
        return False

    # Time goes by

    def lifecycles(self) -> None:
        """Two days: claims and heartbeats have ended, entries of uploads and objects are old, what was erased may be deleted."""
        self.site.age = timedelta(days=2)
        self.site.rows('DELETE FROM heartbeats')
        self.site.rows(f"UPDATE dids SET expired_at = '2000-01-01 00:00:00' WHERE expired_at IS NOT NULL AND scope IN ({self._scopes})")
        then = "created_at = datetime(created_at, '-2 days'), updated_at = datetime(updated_at, '-2 days')"
        self.site.rows(f'UPDATE replicas SET {then} WHERE scope IN ({self._scopes})')
        self.site.rows(f"UPDATE requests SET updated_at = datetime(updated_at, '-2 days'), last_processed_at = NULL WHERE scope IN ({self._scopes})")
        # The host of a claim is external_host/time/instance.
        claimed = "substr(external_host, 1, instr(external_host, '/')) || '0000000000' || substr(external_host, instr(external_host, '/') + 11)"
        self.site.rows(f"UPDATE requests SET external_host = {claimed} WHERE external_host LIKE '%/%/%' AND scope IN ({self._scopes})")

    def daemons(self) -> None:
        conveyor = [('rucio-conveyor-submitter', '--run-once'), (COPIER, '--run-once'), ('rucio-conveyor-poller', '--run-once', '--older-than', '0')]
        stock = [('faults.rucio_acts:main', '|'.join(HERE))]
        for words in (*stock, *conveyor, ('rucio-conveyor-finisher', '--run-once'), (RECONCILER, '--run-once')):
            self._must(self._operation('operator', 'daemon', words[0]), *words)
        for user in self.run.users.values():
            for rse in HERE:
                operation = self._operation(user.name, 'reconcile')
                operation.rse = rse
                self.run.reconcile(operation)
                done = self.run.done[-1]
                if done.ended.code:
                    self._wrong(f'the bucket of {user.scope} on {rse} cannot be reconciled:\n{done.said}')
        for words in (*stock, *conveyor, ('rucio-conveyor-finisher', '--run-once'), *stock):
            self._must(self._operation('operator', 'daemon', words[0]), *words)

    def _must(self, operation: Operation, *words: str) -> Done:
        done = self.run.daemon(operation, *words)
        if done.ended.code or 'Traceback' in done.said:
            self._wrong(f'{" ".join(words)} failed without a fault:\n{done.said[-4000:]}')
        return done

    # What was reported is so

    def files(self) -> None:
        for file in self.run.files.values():
            states = {'stored': THERE, 'elsewhere': THERE, 'deleted': GONE, 'erased': GONE}
            wanted = states.get(file.state)
            body, replica = self._body(file), self._replica(file)
            if self._never_arrived(file):
                continue
            if wanted is None:  # perhaps erased
                wanted = THERE if body is not None or replica else GONE
            if wanted == GONE and (body is not None or replica):
                self._wrong(f'{file.name} ({file.state}): is still there: {"an object" if body is not None else ""} {replica or ""}')
            elif wanted == THERE:
                self._is_there(file, body, replica)

    def _never_arrived(self, file: File) -> bool:
        """Its upload failed, and it was not tried again but perhaps erased: the catalogue keeps what the upload left there for the next one."""
        replica = self._replica(file) if file.state == 'perhaps erased' else None
        return bool(replica) and replica[0] == 'C' and self._body(file) is None

    def _is_there(self, file: File, body: bytes | None, replica: Any) -> None:
        if body is None:
            self._wrong(f'{file.name} ({file.state}): there is no object')
        elif not replica:
            self._wrong(f'{file.name} ({file.state}): there is no replica')
        else:
            contents = [self.run.plan.content(file.name, version) for version in file.versions]
            if body not in contents or (1 in file.versions and body != contents[-1]):
                self._wrong(f'{file.name} ({file.state}): the object has {len(body)} bytes, not what was stored')
            said, is_so = tuple(replica), ('A', len(body), hashlib.md5(body).hexdigest(), f'{zlib.adler32(body):08x}')
            # What the storage knows the MD5 of is not read for an Adler-32.
            if any(each not in (is_so[number], None) for number, each in enumerate(said)) or said[2:] == (None, None):
                self._wrong(f'{file.name} ({file.state}): the catalogue says {said}, but it is {is_so}')

    def _body(self, file: File, rse: str = '') -> bytes | None:
        try:
            body: bytes = self.run.s3.get_object(Bucket=self.run.bucket(file, rse), Key=file.name)['Body'].read()
        except (self.run.s3.exceptions.NoSuchKey, self.run.s3.exceptions.NoSuchBucket):
            return None
        return body

    def _replica(self, file: File, rse: str = '') -> Any:
        """State, bytes, MD5 and Adler-32 as the catalogue has them."""
        query = 'SELECT state, bytes, md5, adler32 FROM replicas WHERE scope = :scope AND name = :name AND rse_id = :rse'
        found = self.site.rows(query, scope=file.owner.scope, name=file.name, rse=self.site.ids[rse or file.rse])
        return found[0] if found else None

    def copies(self) -> None:
        for file in self.run.files.values():
            if file.copy:
                body, replica = self._body(file, COPY), self._replica(file, COPY)
                wanted = file.copy == 'wanted' or replica or body is not None
                if wanted and (body != self.run.plan.content(file.name) or not replica or replica[0] != 'A'):
                    requests = self.site.rows('SELECT state, err_msg FROM requests WHERE name = :name', name=file.name)
                    self._wrong(f'{file.name}: its copy is {"not there" if body is None else "there"}, its replica {replica}, its requests {requests}')

    def downloads(self) -> None:
        """Of everything that is there, by its owner; and again what a killed process left something of."""
        for user in self.run.users.values():
            down = user.cli.directory / 'down'
            for identifier in sorted({path.relative_to(down).parts[0] for path in down.rglob('.rucio-s3-*')}):
                operation = next(each for each in self.run.plan.operations[user.name] if each.identifier == identifier)
                # SIGTERM and SIGHUP end stock Rucio's downloads by threads at once; `rucio s3 download` keeps ranges of large files.
                if not operation.s3 and not any(done.ended.code in KILLED for done in self.run.done if done.operation.identifier == identifier):
                    self._wrong(f'{operation}: left a temporary file behind, and was not killed')
                self._download_again(user, operation)
            there = [file for file in self.run.files.values() if file.owner is user and self._replica(file) and not self._never_arrived(file)]
            if there:
                self._download_all(user, there)

    def _download_again(self, user: User, operation: Operation) -> None:
        self.run._download(replace(operation, kind='download again', faults=[], file_size=0, subprocess=False), user)
        gone = [name for name in operation.names if name not in self.run.files or not self._replica(self.run.files[name])]
        for path in (user.cli.directory / 'down' / operation.identifier).rglob('.rucio-s3-*'):
            if not gone:  # nobody can download it again
                self._wrong(f'{operation.identifier}: {path.name} was left behind, also by the next download')

    def _download_all(self, user: User, files: list[File]) -> None:
        operation = self._operation(user.name, 'download all', *(file.name for file in files))
        done = self.run._download(operation, user)
        folder = user.cli.directory / 'down' / operation.identifier / user.scope
        lacking = [file.name for file in files if not (folder / file.name).exists()]
        if lacking:
            self._wrong(f'{lacking} cannot be downloaded:\n{done.said[-5000:]}')

    # There is nothing else

    def _buckets(self) -> list[str]:
        there = {each['Name'] for each in self.run.s3.list_buckets()['Buckets']}
        return sorted(there & {prefix + user.scope for prefix in PREFIXES.values() for user in self.run.users.values()})

    def buckets(self) -> None:
        known = {(self.run.bucket(file), file.name) for file in self.run.files.values()} | {
            (self.run.bucket(file, COPY), file.name) for file in self.run.files.values()
        }
        for bucket in self._buckets():
            for key in self._keys(bucket):
                if (bucket, key) not in known:
                    self._wrong(f'{bucket}/{key}: nobody wrote it')

    def _keys(self, bucket: str) -> list[str]:
        pages = self.run.s3.get_paginator('list_objects_v2').paginate(Bucket=bucket)
        return [each['Key'] for page in pages for each in page.get('Contents', [])]

    def catalogue(self) -> None:
        """No transfer, rule or lock hangs."""
        open_ones = [file.name for file in self.run.files.values() if self._never_arrived(file)]
        for state, name, error in self.site.rows(f'SELECT state, name, err_msg FROM requests WHERE scope IN ({self._scopes})'):
            self._wrong(f'{name}: its transfer is still there: {state} {error}')
        for name, state, error in self.site.rows(f"SELECT name, state, error FROM rules WHERE state != 'O' AND scope IN ({self._scopes})"):
            if name not in open_ones:
                self._wrong(f'{name}: its rule is {state}: {error}')
        for name, state in self.site.rows(f"SELECT name, state FROM locks WHERE state != 'O' AND scope IN ({self._scopes})"):
            if name not in open_ones:
                self._wrong(f'{name}: its lock is {state}')
        for name, state in self.site.rows(f'SELECT name, state FROM bad_replicas WHERE scope IN ({self._scopes})'):
            self._wrong(f'{name}: was declared {state}')
        for (did, account), given in self.run.shared.items():
            user = next(user for user in self.run.users.values() if did.startswith(user.scope + ':'))
            done = self.run._rucio(self._operation(user.name, 'grants'), user, 's3', '-R', 'grants', did)
            if given is not None and (account in done.said) != given:
                self._wrong(f'{did}: {account} {"has no" if given else "still has a"} grant:\n{done.said}')

    def clean(self) -> None:
        """Make room for the next run. What failed stays to be looked at only where the run has failed."""
        for bucket in self._buckets():
            for key in self._keys(bucket):
                self.run.s3.delete_object(Bucket=bucket, Key=key)
            self.run.s3.delete_bucket(Bucket=bucket)
        for user in self.run.users.values():
            shutil.rmtree(user.cli.directory)
