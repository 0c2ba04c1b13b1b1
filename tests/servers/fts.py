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
What it takes, answers and refuses is that of fts-rest-flask 3.13.4 and FTS 3.14.4 (tests/unit/test_fts_server.py has the real one's answers).
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
from http import HTTPStatus
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
BASE_ID = uuid.UUID('01874efb-4735-4595-bc9c-591aef8240c9')  # of every FTS
VO = 'tests'
FINAL_JOBS = {'FINISHED', 'FINISHEDDIRTY', 'FAILED', 'CANCELED'}
JOB_METADATA, FILE_METADATA, URL = 2048, 4096, 1100  # bytes: two defaults of its configuration, and a column of its database
STRATEGIES = ('orderly', 'auto', 'queue', 'success', 'throughput', 'file-throughput', 'pending-data', 'waiting-time', 'waiting-time-with-error', 'duration')


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

    def __post_init__(self) -> None:
        if self.kind != 'N':
            for copy in self.copies[1:]:
                copy.state = 'NOT_USED'

    @property
    def state(self) -> str:
        states = [copy.state for copy in self.copies]
        if self.cancelled:
            return 'CANCELED'
        if any(state not in FINAL for state in states):
            return 'SUBMITTED' if set(states) <= {'SUBMITTED', 'NOT_USED'} else 'ACTIVE'
        good = states.count('FINISHED')
        if good == len(states) or (self.kind == 'R' and good):
            return 'FINISHED'
        return 'FINISHEDDIRTY' if good and self.kind == 'N' else 'FAILED'

    def next(self) -> Copy | None:
        """What is to be copied now."""
        return next((copy for copy in self.copies if copy.state == 'SUBMITTED'), None)

    def end(self, copy: Copy, state: str, reason: str = '') -> None:
        """One copy has ended: another source's turn, or the next hop's, may have come."""
        if copy.state in FINAL:
            return  # it was cancelled
        copy.end(state, reason)
        if state == {'R': 'FAILED', 'H': 'FINISHED'}.get(self.kind):
            for following in self.copies[self.copies.index(copy) + 1 :][:1]:
                following.state = 'SUBMITTED'

    def as_json(self, status: str = '200 Ok', message: str | None = None) -> dict[str, Any]:
        return {
            'job_id': self.id,
            'job_state': self.state,
            'job_type': self.kind,
            'job_metadata': {**(self.params.get('job_metadata') or {}), 'auth_method': 'certificate'},
            'priority': self.params.get('priority', 3),
            'verify_checksum': str(self.params.get('verify_checksum') or 'none')[0],
            'overwrite_flag': 'Y' if self.params.get('overwrite') else 'M' if self.params.get('overwrite_hop') else None,
            'cancel_job': self.cancelled,
            'http_status': status,
            'http_message': message,
        }


class Refused(Exception):
    """FTS does not take it: the status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


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
        """:raises Refused: as FTS does."""
        params, files = asked.get('params') or {}, asked.get('files')
        copies = _check_files(params, files)
        _check_params(params, files or [])
        kind = 'H' if params.get('multihop') else 'R' if len(copies) > len(files or []) else 'N'
        job = Job(_job_id(params), params, copies, kind)
        if any(len(url) > URL for copy in copies for url in (copy.source, copy.destination)):
            raise Refused(500, 'The server encountered an internal error and was unable to complete your request.')
        if job.id in self.jobs:
            raise Refused(409, 'The sid provided by the user is duplicated')
        self.jobs[job.id] = job
        self._workers.submit(self._run, job)
        return job.id

    def cancel(self, job_id: str) -> Job:
        job = self.jobs[job_id]
        with self._changed:
            job.cancelled = True
            for copy in job.copies:
                if copy.state not in FINAL:
                    copy.end('CANCELED', 'Job canceled by the user')
            self._changed.notify_all()
        if job.process:
            job.process.kill()
        return job

    # The work

    def _run(self, job: Job) -> None:
        while not job.cancelled and (copy := job.next()):
            copy.state, copy.started = 'ACTIVE', time.time()
            reason = self._fault(copy) or self._copy(job, copy)
            with self._changed:
                job.end(copy, 'FAILED' if reason else 'FINISHED', reason)
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
            'options': {'HTTP PLUGIN': _http_options(copy), **self._s3_options(job, copy)},
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
            self._answer(200, {'base_id': str(BASE_ID), 'vos': [VO], 'user_dn': '/CN=Rucio', 'method': 'certificate'})
        elif path == ['']:
            self._answer(200, {'api': 'fts3 of the tests', 'version': '3.0'})
        elif len(path) == 2 and path[0] == 'jobs':
            self._answer(*self._jobs(path[1].split(','), fields=query.get('files', [''])[0].split(',') if 'files' in query else []))
        else:
            self._unknown()

    def do_POST(self):
        path, _ = self._path()
        try:
            asked = self._asked()
            if path == ['jobs']:
                self._answer(200, {'job_id': self.fts.submit(asked)})
            elif len(path) == 2:
                self._change(path[1], lambda job: job.params.update(priority=_priority(asked)))
            else:
                self._unknown()
        except Refused as refused:
            self._answer(refused.status, {'status': f'{refused.status} {HTTPStatus(refused.status).phrase}', 'message': str(refused)})

    def do_DELETE(self):
        path, _ = self._path()
        if len(path) == 2:
            self._change(path[1], lambda job: self.fts.cancel(job.id))
        else:
            self._unknown()

    def _asked(self) -> dict[str, Any]:
        body = self.rfile.read(int(self.headers['Content-Length']))
        if not self.headers.get('Content-Type', '').startswith('application/json'):
            raise Refused(400, 'Expecting application/json or application/x-www-form-urlencoded')
        try:
            return json.loads(body)
        except ValueError:
            raise Refused(400, 'Badly formatted JSON request') from None

    def _change(self, job_id: str, change: 'Callable[[Job], object]') -> None:
        """One that has ended stays as it is: 200 all the same, and 304 in the answer."""
        job = self.fts.jobs.get(job_id)
        if job is None:
            self._answer(404, _unknown_job(job_id))
        elif job.state in FINAL_JOBS:
            self._answer(200, job.as_json('304 Not Modified', 'The job is in a terminal state'))
        else:
            change(job)
            self._answer(200, job.as_json())

    def _jobs(self, ids: list[str], *, fields: list[str]) -> tuple[int, object]:
        answers = []
        for job_id in ids:
            job = self.fts.jobs.get(job_id)
            files = {'files': [{field: copy.as_json()[field] for field in fields} for copy in job.copies]} if job and fields else {}
            answers.append({**job.as_json(), **files} if job else _unknown_job(job_id))
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


def _unknown_job(job_id: str) -> dict[str, Any]:
    return {'job_id': job_id, 'http_status': '404 Not Found', 'http_message': f'No job with the id "{job_id}" has been found'}


def _priority(asked: Mapping[str, Any]) -> int:
    try:
        return int(asked['params']['priority'])
    except ValueError:
        raise Refused(400, 'Invalid priority value') from None


def _checksum(params: Mapping[str, Any], file: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The mode, type and value to be verified: at the source, the destination, or both."""
    mode = params.get('verify_checksum') or 'none'
    if mode == 'none':
        return None
    kind, _, value = (file.get('checksum') or 'ADLER32').partition(':')
    return mode, kind, value


def _http_options(copy: Copy) -> dict[str, bool]:
    """One WebDAV storage gets it from, or with `?copy_mode=push` sends it to, the other. S3 storages can do neither: FTS carries the bytes."""
    both = copy.source.startswith('s3') and copy.destination.startswith('s3')
    return {'ENABLE_FALLBACK_TPC_COPY': False, **({'ENABLE_REMOTE_COPY': False} if both else {})}


def _job_id(params: Mapping[str, Any]) -> str:
    if params.get('id_generator') != 'deterministic':
        return str(uuid.uuid1())
    if not params.get('sid'):
        raise Refused(400, 'Need sid for deterministic job id generation')
    return str(uuid.uuid5(uuid.uuid5(BASE_ID, VO), str(params['sid'])))


def _check_files(params: Mapping[str, Any], files: list[dict[str, Any]] | None) -> list[Copy]:
    if files is None:
        raise Refused(400, 'No transfers operations specified')
    for file in files:
        for name in ('sources', 'destinations'):
            if name not in file:
                raise Refused(400, f"Missing parameter: '{name}'")
        _check_size(file.get('metadata'), FILE_METADATA)
    copies = [Copy(_check_url(source), _check_url(target), file) for file in files for source in file['sources'] for target in file['destinations']]
    if not copies:
        raise Refused(400, 'No valid pairs available')
    if len(copies) > len(files) and params.get('multihop'):
        raise Refused(400, 'Can not request multiple replica job together with multihop or session reuse at the same time')
    if len(copies) > len(files) > 1:
        raise Refused(400, 'Multiple replica jobs must only have one unique file')
    return copies


def _check_params(params: Mapping[str, Any], files: list[dict[str, Any]]) -> None:
    _check_size(params.get('job_metadata'), JOB_METADATA)
    if sum(bool(params.get(flag)) for flag in ('overwrite', 'overwrite_on_retry', 'overwrite_when_only_on_disk', 'overwrite_hop')) > 1:
        raise Refused(400, 'Incompatible overwrite flags used at the same time')
    if params.get('overwrite_hop') and not params.get('multihop'):
        raise Refused(400, "'overwrite-hop' requires multihop job submission")
    for file in files:
        strategy = file.get('selection_strategy', 'auto')
        if len(file['sources']) > 1 and strategy not in STRATEGIES:
            raise Refused(400, f'{strategy} algorithm is not supported by Scheduler')


def _check_size(metadata: object, limit: int) -> None:
    if metadata is not None and len(json.dumps(metadata)) > limit:
        raise Refused(400, f'Invalid value within the request: Job Submission Refused, metadata exceeds size limit of {limit}')


def _check_url(url: str) -> str:
    """FTS takes any scheme here; that there is no way to move it, gfal2 says later."""
    parts = urlsplit(url.strip())
    missing = 'scheme' if not parts.scheme else 'path' if parts.path in ('', '/') else 'host' if not parts.hostname else ''
    if parts.scheme == 'file':
        raise Refused(400, f'Invalid value within the request: Can not transfer local files ({parts.geturl()})')
    if missing:
        raise Refused(400, f'Invalid value within the request: Missing {missing} ({parts.geturl()})')
    return parts.geturl()


def _moment(when: float | None) -> str | None:
    return time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(when)) if when else None
