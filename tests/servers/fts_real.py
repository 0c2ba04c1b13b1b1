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
A real FTS that runs elsewhere, in place of the FTS of the tests: RUCIO_S3_TEST_FTS is the URL of its REST service, RUCIO_S3_TEST_FTS_PROXY a file with
the certificate and key of one who has delegated to it and may configure it. RUCIO_S3_TEST_FTS_TRUST is the directory of certificates of authorities
that its workers trust: that of the tests is added. RUCIO_S3_TEST_FTS_HOST is the host name of its server (t_hosts), which is drained while a test
wants copies to wait. Its workers must reach this machine's ports at 127.0.0.1.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from .fts import COPY_TIMEOUT, FINAL, FINAL_JOBS, Copy, Hold, S3Keys

REAL = os.environ.get('RUCIO_S3_TEST_FTS', '')
PROXY = os.environ.get('RUCIO_S3_TEST_FTS_PROXY')
HOST = os.environ.get('RUCIO_S3_TEST_FTS_HOST', '')
FIELDS = 'file_state,dest_surl,source_surl,reason,file_metadata'
MODES = {'n': 'none', 's': 'source', 't': 'target', 'b': 'both'}


class RealJob:
    """What FTS says of a job."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.id, self.state, self.kind = said['job_id'], said['job_state'], said['job_type']
        self.params = {'priority': said['priority'], 'verify_checksum': MODES[said['verify_checksum']]}
        self.copies = [_copy(file) for file in said['files']]


class Drain(Hold):
    """The server begins no copies until release()."""

    def __init__(self, drain: Callable[[bool], None]) -> None:
        super().__init__()
        self._drain = drain
        drain(True)
        self.reached.set()

    def release(self) -> None:
        self._drain(False)


class RealFTS:
    """``with RealFTS(keys, ca) as fts``: FTS has these keys, and trusts these authorities, until the end of the block."""

    def __init__(self, keys: Iterable[S3Keys], ca: Path) -> None:
        self.url = REAL
        self._keys, self._ca = list(keys), ca
        self._trusted: list[Path] = []
        self._old: set[str] = set()
        self._wrong: list[S3Keys] = []

    def __enter__(self) -> 'RealFTS':
        self._session = requests.Session()
        self._session.cert = PROXY
        self._vo = self._ask('GET', '/whoami').json()['vos'][0]
        for keys in self._keys:
            self._set_keys(keys)
        if trust := os.environ.get('RUCIO_S3_TEST_FTS_TRUST'):
            self._trusted = [Path(shutil.copy(file, trust)) for file in self._ca.iterdir()]
        self.forget()
        return self

    def __exit__(self, *_: object) -> None:
        for keys in self._keys:
            self._ask('DELETE', f'/config/cloud_storage/S3:{keys.hostname.upper()}')
        for file in self._trusted:
            file.unlink()
        self._session.close()

    @property
    def jobs(self) -> dict[str, RealJob]:
        """Since the last forget()."""
        return {job.id: job for job in self._jobs() if job.id not in self._old}

    def jobs_of(self, name: str) -> list[RealJob]:
        return [job for job in self.jobs.values() if any(copy.file['metadata'].get('name') == name for copy in job.copies)]

    def reasons(self) -> list[str]:
        return [copy.reason for job in self.jobs.values() for copy in job.copies if copy.reason]

    def submit(self, asked: dict[str, Any]) -> str:
        return self._ask('POST', '/jobs', asked).json()['job_id']

    def wait(self) -> None:
        pause = threading.Event()
        for _ in range(COPY_TIMEOUT):
            jobs = self.jobs.values()
            if all(job.state in FINAL_JOBS and all(copy.state in FINAL for copy in job.copies) for job in jobs):
                for keys in self._wrong:
                    self._set_keys(keys)
                self._wrong.clear()
                return
            pause.wait(1)
        pytest.fail('the jobs have not ended')

    def forget(self) -> None:
        if HOST:
            self._drain(False)
        for job in self.jobs.values():
            self._ask('DELETE', f'/jobs/{job.id}')
        self._old = {job.id for job in self._jobs()}

    def hold(self) -> Drain:
        if not HOST:
            pytest.skip('RUCIO_S3_TEST_FTS_HOST does not name the server that has to wait')
        return Drain(self._drain)

    def fail(self, word: str = '') -> None:
        """The keys of storages with this word in their URLs are wrong until wait() has seen the end of all jobs."""
        self._wrong = [keys for keys in self._keys if not word or keys.hostname in word]
        for keys in self._wrong:
            self._set_keys(keys._replace(secret_key='wrong'))

    def lose(self) -> None:
        pytest.skip('a real FTS does not lose its database when it is told to')

    def _jobs(self) -> Iterator[RealJob]:
        states = ','.join((*FINAL_JOBS, 'SUBMITTED', 'ACTIVE'))
        ids = [each['job_id'] for each in self._ask('GET', f'/jobs?state_in={states}&limit=100').json()]
        if ids:
            said = self._ask('GET', f'/jobs/{",".join(ids)}?files={FIELDS}').json()
            yield from map(RealJob, reversed(said if isinstance(said, list) else [said]))

    def _set_keys(self, keys: S3Keys) -> None:
        name = f'S3:{keys.hostname.upper()}'
        self._ask('POST', '/config/cloud_storage', {'storage_name': name})
        self._ask('POST', f'/config/cloud_storage/{name}', {'vo_name': self._vo, 'access_key': keys.access_key, 'secret_key': keys.secret_key})

    def _drain(self, on: bool) -> None:
        self._ask('POST', '/config/drain', {'hostname': HOST, 'drain': on})

    def _ask(self, method: str, path: str, asked: object = None) -> requests.Response:
        answer = self._session.request(method, self.url + path, json=asked, timeout=60)
        assert answer.status_code < 300, f'{method} {path}: {answer.status_code} {answer.text}'
        return answer


def _copy(said: Mapping[str, Any]) -> Copy:
    copy = Copy(said['source_surl'], said['dest_surl'], {'metadata': said['file_metadata'] or {}})
    copy.state, copy.reason = said['file_state'], said['reason'] or ''
    return copy
