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
An FTS in this process: the part of FTS3's REST API that Rucio's transfertool `fts3` uses, and jobs that really move bytes, by gfal2.

It holds the keys of the S3 storages, and gives gfal2 those that it needs as FTS does: one group of options for each storage, by its host name.
"""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from .files import clean_environment

PYTHON = '/usr/bin/python3'  # the one that the distribution has gfal2 for
COPY = Path(__file__).parent / 'fts_copy.py'
PATIENCE = 120
COPY_TIMEOUT = 600
FINAL = {'FINISHED', 'FAILED', 'CANCELED', 'NOT_USED'}


def missing() -> str:
    """Why no bytes can be moved here, or nothing."""
    try:
        probe = 'import gfal2, sys; sys.exit(not any(name.startswith("http") for name in gfal2.creat_context().get_plugin_names()))'
        found = subprocess.run([PYTHON, '-c', probe], capture_output=True, check=False, env={}, timeout=60).returncode == 0
    except OSError:
        found = False
    if not found:
        return f'no gfal2 for {PYTHON} (apt-get install python3-gfal2 gfal2-plugin-http gfal2-plugin-file)'
    return '' if shutil.which('openssl') else 'openssl is not installed (apt-get install openssl)'


class S3Keys(NamedTuple):
    """What an operator of FTS enters for a storage. gfal2 knows it by its host name, without the port."""

    hostname: str
    access_key: str
    secret_key: str
    region: str = 'us-east-1'


@dataclass
class Copy:
    """One file of a job from one of its sources."""

    source: str
    destination: str
    file: Mapping[str, Any]  # as Rucio has sent it
    state: str = 'SUBMITTED'
    reason: str = ''
    started: float | None = None
    finished: float | None = None

    def end(self, state: str, reason: str = '') -> None:
        self.state, self.reason, self.finished = state, reason, time.time()

    def as_json(self) -> dict[str, Any]:
        return {
            'file_state': self.state,
            'source_surl': self.source,
            'dest_surl': self.destination,
            'file_metadata': self.file['metadata'],
            'reason': self.reason,
            'start_time': _moment(self.started),
            'finish_time': _moment(self.finished),
            'staging_start': None,
            'staging_finished': None,
        }


@dataclass
class Job:
    """What Rucio has submitted by one request."""

    id: str
    params: dict[str, Any]
    copies: list[Copy]
    kind: str  # N: independent files. R: one file from several sources. H: one file by several hops
    process: 'subprocess.Popen[str] | None' = field(default=None, repr=False)
    cancelled: bool = False

    @property
    def state(self) -> str:
        states = [copy.state for copy in self.copies]
        if any(state not in FINAL for state in states):
            return 'SUBMITTED' if set(states) == {'SUBMITTED'} else 'ACTIVE'
        if 'CANCELED' in states:
            return 'CANCELED'
        good = states.count('FINISHED')
        if good == len(states) or (self.kind == 'R' and good):
            return 'FINISHED'
        return 'FINISHEDDIRTY' if good and self.kind == 'N' else 'FAILED'

    def as_json(self) -> dict[str, Any]:
        return {
            'job_id': self.id,
            'job_state': self.state,
            'job_type': self.kind,
            'job_metadata': self.params.get('job_metadata') or {},
            'priority': self.params.get('priority', 3),
            'http_status': '200 Ok',
            'http_message': None,
        }


class Hold:
    """A copy that does not begin until release()."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._released = threading.Event()

    def __call__(self, copy: Copy) -> str:
        self.reached.set()
        self._released.wait(PATIENCE)
        return ''

    def wait(self) -> None:
        assert self.reached.wait(PATIENCE), 'no copy has begun'

    def release(self) -> None:
        self._released.set()


class FTS:
    """
    ``with FTS(directory, keys) as fts``: serves at ``fts.url`` until the end of the block.

    :param keys: of the S3 storages.
    :param ca: a directory of certificates of authorities, named as OpenSSL does (gfal2 takes no file).
    """

    def __init__(self, directory: 'str | os.PathLike[str]', keys: Iterable[S3Keys], *, ca: Path | None = None) -> None:
        self.directory = Path(directory)
        self.jobs: dict[str, Job] = {}
        self._keys = list(keys)
        self._ca = ca
        self._faults: list[tuple[str, Callable[[Copy], str]]] = []
        self._holds: list[Hold] = []
        self._changed = threading.Condition()

    def __enter__(self) -> 'FTS':
        self._workers = ThreadPoolExecutor(2, 'fts')
        self._server = ThreadingHTTPServer(('127.0.0.1', 0), type('Handler', (_Handler,), {'fts': self}))
        self._server.daemon_threads = True
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name='fts', daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()
        self._server.shutdown()
        self._server.server_close()
        self._workers.shutdown(cancel_futures=True)

    # What tests do

    def fail(self, word: str = '', reason: str = 'TRANSFER ERROR: as the test wants') -> None:
        """The next copy from a source with this word in its URL fails, for this reason."""
        self._faults.append((word, lambda _: reason))

    def hold(self, word: str = '') -> Hold:
        """The next copy from such a source does not begin until it is let."""
        hold = Hold()
        self._holds.append(hold)
        self._faults.append((word, hold))
        return hold

    def lose(self) -> None:
        """Know of no job any more, as after a loss of its database."""
        self.wait()
        self.jobs.clear()

    def forget(self) -> None:
        """No faults, no jobs, and nothing seen, for the next test."""
        for job_id in list(self.jobs):
            self.cancel(job_id)
        for hold in self._holds:
            hold.release()
        self._faults.clear()
        self.jobs.clear()

    def jobs_of(self, name: str) -> list[Job]:
        """Those with a file of this name, in the order of their submission."""
        return [job for job in self.jobs.values() if any(copy.file['metadata']['name'] == name for copy in job.copies)]

    def reasons(self) -> list[str]:
        """Why copies have failed."""
        return [copy.reason for job in self.jobs.values() for copy in job.copies if copy.reason]

    def wait(self) -> None:
        """Until all jobs have ended."""
        with self._changed:
            ended = self._changed.wait_for(lambda: all(copy.state in FINAL for job in list(self.jobs.values()) for copy in job.copies), COPY_TIMEOUT)
        assert ended, 'the jobs have not ended'

    # What Rucio asks

    def submit(self, asked: dict[str, Any]) -> str:
        params, files = asked['params'], asked['files']
        several = [file for file in files if len(file['sources']) > 1]
        kind = 'H' if params.get('multihop') else 'R' if several else 'N'
        assert not several or len(files) == 1, 'FTS takes one file of several sources in a job, and no other'
        copies = [Copy(source, file['destinations'][0], file) for file in files for source in file['sources']]
        for copy in copies:
            _check_url(copy.source)
            _check_url(copy.destination)
        job = Job(str(uuid.uuid4()), params, copies, kind)
        self.jobs[job.id] = job
        self._workers.submit(self._run, job)
        return job.id

    def cancel(self, job_id: str) -> Job:
        job = self.jobs[job_id]
        job.cancelled = True
        with self._changed:
            for copy in job.copies:
                if copy.state not in FINAL:
                    copy.end('CANCELED', 'Job canceled by the user')
            self._changed.notify_all()
        if job.process:
            job.process.kill()
        return job

    # The work

    def _run(self, job: Job) -> None:
        for copy in job.copies:
            if job.cancelled:
                return
            before = [each for each in job.copies[: job.copies.index(copy)] if each.state != 'NOT_USED']
            done = any(each.state == 'FINISHED' for each in before)
            failed = any(each.state == 'FAILED' for each in before)
            unused = done if job.kind == 'R' else failed if job.kind == 'H' else False
            self._carry_out(job, copy, unused=unused)

    def _carry_out(self, job: Job, copy: Copy, *, unused: bool) -> None:
        if unused:
            self._end(copy, 'NOT_USED')
            return
        copy.state, copy.started = 'ACTIVE', time.time()
        reason = self._fault(copy) or self._copy(job, copy)
        self._end(copy, 'FAILED' if reason else 'FINISHED', reason)

    def _end(self, copy: Copy, state: str, reason: str = '') -> None:
        with self._changed:
            if copy.state not in FINAL:  # it may have been cancelled
                copy.end(state, reason)
            self._changed.notify_all()

    def _fault(self, copy: Copy) -> str:
        for number, (word, fault) in enumerate(self._faults):
            if word in copy.source:
                del self._faults[number]
                return fault(copy)
        return ''

    def _copy(self, job: Job, copy: Copy) -> str:
        """Why it failed, or nothing."""
        if job.cancelled:
            return 'cancelled'
        task = {
            'source': copy.source,
            'destination': copy.destination,
            'options': {'HTTP PLUGIN': {'DEFAULT_COPY_MODE': _copy_mode(copy)}, **self._s3_options(job, copy)},
            'overwrite': bool(job.params.get('overwrite')),
            'timeout': COPY_TIMEOUT,
            'checksum': _checksum(job.params, copy.file),
        }
        trust = {'X509_CERT_DIR': str(self._ca)} if self._ca else {}
        job.process = subprocess.Popen(
            [PYTHON, str(COPY)],
            env=clean_environment(self.directory, **trust),
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said, error = job.process.communicate(json.dumps(task))
        try:
            return json.loads(said)['message']
        except ValueError:
            return f'gfal2 ended with exit code {job.process.returncode}: {error[-1000:]}'

    def _s3_options(self, job: Job, copy: Copy) -> dict[str, dict[str, Any]]:
        """The keys of the storages at the two ends, and no others: gfal2 looks for those of a WebDAV storage's host, too, and prefers them."""
        hosts = {parts.hostname for parts in map(urlsplit, (copy.source, copy.destination)) if parts.scheme in ('s3', 's3s')}
        path_style = bool(job.params.get('s3alternate'))
        return {
            f'S3:{keys.hostname.upper()}': {'ACCESS_KEY': keys.access_key, 'SECRET_KEY': keys.secret_key, 'REGION': keys.region, 'ALTERNATE': path_style}
            for keys in self._keys
            if keys.hostname in hosts
        }


class _Handler(BaseHTTPRequestHandler):
    fts: FTS
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        path, query = self._path()
        if path == ['whoami']:
            self._answer(200, {'base_id': '01874efb-4735-4595-bc9c-591aef8240c9', 'vos': ['tests'], 'user_dn': '/CN=Rucio', 'method': 'certificate'})
        elif path == ['']:
            self._answer(200, {'api': 'fts3 of the tests', 'version': '3.0'})
        elif len(path) == 2 and path[0] == 'jobs':
            self._answer(*self._jobs(path[1].split(','), files='files' in query))
        else:
            self._unknown()

    def do_POST(self):
        path, _ = self._path()
        asked = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        if path == ['jobs']:
            try:
                self._answer(200, {'job_id': self.fts.submit(asked)})
            except (AssertionError, ValueError) as error:
                self._answer(400, {'status': '400 Bad Request', 'message': str(error)})
        elif len(path) == 2 and path[1] in self.fts.jobs:
            job = self.fts.jobs[path[1]]
            job.params['priority'] = asked['params']['priority']
            self._answer(200, job.as_json())
        else:
            self._unknown()

    def do_DELETE(self):
        path, _ = self._path()
        if len(path) == 2 and path[1] in self.fts.jobs:
            self._answer(200, self.fts.cancel(path[1]).as_json())
        else:
            self._unknown()

    def _jobs(self, ids: list[str], *, files: bool) -> tuple[int, object]:
        answers = []
        for job_id in ids:
            job = self.fts.jobs.get(job_id)
            if job is None:
                answers.append({'job_id': job_id, 'http_status': '404 Not Found', 'http_message': f'No job with the id "{job_id}" has been found'})
            else:
                answers.append({**job.as_json(), **({'files': [copy.as_json() for copy in job.copies]} if files else {})})
        if len(ids) == 1:
            return (200 if ids[0] in self.fts.jobs else 404), answers[0]
        return (200 if all(each in self.fts.jobs for each in ids) else 207), answers

    def _path(self) -> tuple[list[str], dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return parts.path.strip('/').split('/'), parse_qs(parts.query)

    def _unknown(self) -> None:
        self._answer(404, {'status': '404 Not Found', 'message': f'{self.command} {self.path}: there is no such thing'})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header('Content-Type', 'application/json')
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _checksum(params: Mapping[str, Any], file: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The mode, type and value to be verified: at the source, the destination, or both."""
    mode = params.get('verify_checksum') or 'none'
    if mode == 'none':
        return None
    kind, _, value = (file.get('checksum') or 'ADLER32').partition(':')
    return mode, kind, value


def _copy_mode(copy: Copy) -> str:
    """One WebDAV storage gets it from, or with `?copy_mode=push` sends it to, the other. S3 storages can do neither: FTS carries the bytes."""
    both = copy.source.startswith('s3') and copy.destination.startswith('s3')
    return 'streamed' if both else '3rd pull'


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ('davs', 'https', 's3', 's3s') or not parts.hostname or len(parts.path) < 2:
        raise ValueError(f'{url} is no URL that this FTS takes')


def _moment(when: float | None) -> str | None:
    return time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(when)) if when else None
