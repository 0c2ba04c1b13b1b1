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

"""What happens in a seeded run of `operations`, all of which is drawn from the seed before it begins: who does what, and what fails.

A fault belongs to the n-th request of an operation, to the storage or to the Rucio server, so it does not depend on what others do at the
same time. What the Rucio server itself asks of the storage is counted for the whole run.
"""

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from . import proxy

KiB, MiB = 1024, 1024**2
USERS = ('ann', 'ben', 'cyd')
VENDED, SIGNED, COPY = 'SEED_VENDED', 'SEED_SIGNED', 'SEED_COPY'
PATIENCE = 2  # seconds: read_timeout of all that asks a storage here
AN_HOUR = 3600
ALONE = 10  # each tenth command is started by itself, all others by a worker that has imported Rucio
FULL_DISK = 96 * KiB  # bytes: no file may become larger


def _retry_after() -> dict[str, str]:
    return {'Retry-After': '1'}


# On the way to any server. Bits change in the content of files only: nothing but TLS guards what servers say beside it.
ANYWHERE = {
    'refuse': proxy.refuse(0.7),
    'reset': proxy.reset,
    'break before': proxy.break_before,
    'lost answer': proxy.break_after,
    'hang': proxy.hang(1.5 * PATIENCE),
    'trickle': proxy.trickle(1.5),
    'cut': proxy.cut,
    'answer twice': proxy.answer_twice,
    'carry out twice': proxy.carry_out_twice,
    '500': proxy.answer(500, 'InternalError'),
    '503': proxy.answer(503, 'SlowDown'),
    '503 with Retry-After': proxy.answer(503, 'SlowDown', _retry_after),
    '429': proxy.answer(429, 'TooManyRequests'),
    '429 with Retry-After': proxy.answer(429, 'TooManyRequests', _retry_after),
}
STORAGE = {
    **ANYWHERE,
    'bit of the request': proxy.corrupt_request,
    'bit of the answer': proxy.corrupt_response,
    'keys have ended': proxy.answer(400, 'ExpiredToken'),
    'clock ahead': proxy.other_time(AN_HOUR),
    'clock behind': proxy.other_time(-AN_HOUR),
}
# What these happen to; to anything else they do not.
ONLY = {'bit of the request': ('PutObject', 'UploadPart'), 'bit of the answer': ('GetObject',)}
SERVER = {
    **ANYWHERE,
    'token has ended': proxy.answer(401, '', lambda: {'ExceptionClass': 'CannotAuthenticate', 'ExceptionMessage': 'on demand'}),
}
# The server may be asked twice for what is carried out once, but it is stock Rucio that has to know that.
del SERVER['carry out twice']

SIGNALS = {'SIGINT': [signal.SIGINT], 'SIGINT twice': [signal.SIGINT] * 2, 'SIGTERM': [signal.SIGTERM], 'SIGHUP': [signal.SIGHUP], 'SIGKILL': [signal.SIGKILL]}
STORAGE_KILLED = 'the storage is killed and started again'
WORKERS = ('worker SIGKILL', 'worker SIGTERM', 'worker SIGINT', 'worker with a full disk')


class Fault(NamedTuple):
    """What happens at a request."""

    side: str  # storage, server
    number: int  # from 1
    what: str  # of STORAGE, SERVER, SIGNALS, WORKERS, or STORAGE_KILLED

    def __str__(self) -> str:
        return f'{self.what} at request {self.number} to the {self.side}'


@dataclass
class Operation:
    """What one account does, or the operator's daemons.

    :param kind: a method of `operations.Run`.
    :param names: of what is touched.
    """

    identifier: str
    who: str
    kind: str
    names: list[str]
    rse: str = ''
    faults: list[Fault] = field(default_factory=list)
    file_size: int = 0
    subprocess: bool = False
    s3: bool = False  # a download by `rucio s3 download`

    def __str__(self) -> str:
        more = [
            *(['by rucio s3 download'] if self.s3 else []),
            *map(str, self.faults),
            *(['a full disk'] if self.file_size else []),
            *(['a process of its own'] if self.subprocess else []),
        ]
        return f'{self.identifier} {self.who}: {self.kind} {" ".join(self.names)} {self.rse}'.rstrip() + (f' ({"; ".join(more)})' if more else '')


@dataclass
class Plan:
    """All of a run."""

    seed: int
    operations: dict[str, list[Operation]]
    sizes: dict[str, int]  # of each file that is written, by its name: content(name) is what it has
    of_server: dict[int, str]  # what happens to the n-th request of the Rucio server to the storage
    of_sts: dict[int, int]  # how many seconds the keys live that it asks for the n-th time

    def content(self, name: str, version: int = 0) -> bytes:
        """The same whenever it is asked for."""
        return random.Random(f'{self.seed}/{name}/{version}').randbytes(self.sizes[name])

    def lines(self) -> Iterator[str]:
        for operations in self.operations.values():
            yield from map(str, operations)
        yield from (f'request {number} of the Rucio server to the storage: {what}' for number, what in self.of_server.items())
        yield from (f'keys that the Rucio server asks for the {number}. time end after {seconds} s' for number, seconds in self.of_sts.items())


KINDS = {
    'upload': 30,
    'download': 26,
    'upload_directory': 8,
    'list': 10,
    'url': 4,
    'put_elsewhere': 5,
    'overwrite_elsewhere': 3,
    'delete_elsewhere': 3,
    'reconcile': 8,
    'share': 5,
    'unshare': 2,
    'download_shared': 8,
    'erase': 4,
    'copy': 4,
}
DAEMONS = {'reconciler': 4, 'copier': 6, 'submitter': 2, 'finisher': 2, 'judge': 2, 'deleter': 2}


class Drawn:
    """A plan in the making."""

    def __init__(self, seed: int, operations: int) -> None:
        self._rng = random.Random(f'operations/{seed}')
        self._seed, self._count = seed, operations
        self._sizes: dict[str, int] = {}
        self._files: dict[str, dict[str, str]] = {who: {} for who in USERS}  # name -> RSE of what may be there

    def plan(self) -> Plan:
        made: dict[str, list[Operation]] = {who: [] for who in (*USERS, 'operator')}
        for number in range(self._count):
            who = self._rng.choices([*USERS, 'operator'], [10, 10, 10, 3])[0]
            identifier = f'op{self._seed}-{number}'
            operation = self._daemon(identifier) if who == 'operator' else self._operation(identifier, who)
            operation.subprocess |= number % ALONE == 0 and not operation.file_size
            made[who].append(operation)
        of_server = {number: self._rng.choice([*STORAGE]) for number in range(1, 100 * self._count) if self._rng.random() < 0.015}
        return Plan(self._seed, made, self._sizes, of_server, self._more(made))

    def _more(self, made: dict[str, list[Operation]]) -> dict[int, int]:
        """What was added later, by a random number generator of its own: all else of a seed means what it always did."""
        rng = random.Random(f'operations/{self._seed}/more')
        commands = [each for who in USERS for each in made[who] if each.kind.startswith(('upload', 'download', 'list'))]
        for operation in rng.sample(commands, (len(commands) + 50) // 100):
            operation.faults.append(Fault('storage', rng.randint(1, 2), STORAGE_KILLED))
        of_sts = {number: rng.randint(2, 6) for number in range(1, self._count) if rng.random() < 0.3}
        for operation in commands:
            operation.s3 = operation.kind.startswith('download') and rng.random() < 0.4
        return of_sts

    def _operation(self, identifier: str, who: str) -> Operation:
        kind = self._rng.choices([*KINDS], [*KINDS.values()])[0]
        known = self._files[who]
        if not known and kind not in ('upload_directory', 'put_elsewhere', 'list'):
            kind = 'upload'
        operation = Operation(identifier, who, kind, [], self._rng.choices([VENDED, SIGNED], [3, 2])[0])
        if kind in ('upload', 'put_elsewhere'):
            self._add(operation, f'{identifier}.file')
        elif kind == 'upload_directory':
            for number in range(self._rng.choice([1, 3, 8])):
                self._add(operation, f'{identifier}/{number}')
        elif kind in ('list', 'reconcile', 'share', 'unshare'):
            pass
        else:
            owner = self._rng.choice([each for each in USERS if each != who]) if kind == 'download_shared' else who
            there = self._files[owner] or known
            operation.names = sorted(self._rng.sample(sorted(there), min(len(there), self._rng.choice([1, 1, 3]) if kind == 'download' else 1)))
            operation.rse = there[operation.names[0]]
        self._spoil(operation, client=kind not in ('put_elsewhere', 'overwrite_elsewhere', 'delete_elsewhere'))
        return operation

    def _add(self, operation: Operation, name: str) -> None:
        operation.names.append(name)
        self._files[operation.who][name] = operation.rse
        self._sizes[name] = self._size(small=operation.kind != 'upload')

    def _size(self, *, small: bool) -> int:
        kind = self._rng.choices(['empty', 'tiny', 'small', 'medium', 'large', 'huge'], [6, 20, 60, *([0, 0, 0] if small else [8, 12, 0.4])])[0]
        ranges = {
            'empty': (0, 0),
            'tiny': (1, 32),
            'small': (33, 256 * KiB),
            'medium': (256 * KiB, 4 * MiB),
            'large': (5 * MiB, 16 * MiB),
            'huge': (16 * MiB, 100 * MiB),
        }
        return self._rng.randint(*ranges[kind])

    def _daemon(self, identifier: str) -> Operation:
        operation = Operation(identifier, 'operator', self._rng.choices([*DAEMONS], [*DAEMONS.values()])[0], [])
        self._spoil(operation, client=True)
        return operation

    def _spoil(self, operation: Operation, *, client: bool) -> None:
        """A third of all operations go well as far as it is up to them."""
        if not client or self._rng.random() < 0.35:
            return
        operation.subprocess = self._rng.random() < 0.03
        if not operation.subprocess and self._rng.random() < 0.06:
            operation.file_size = FULL_DISK
        for _ in range(self._rng.choice([1, 1, 1, 2, 3])):
            operation.faults += self._faults(daemon=operation.who == 'operator')

    def _faults(self, *, daemon: bool) -> list[Fault]:
        side = 'storage' if daemon else self._rng.choices(['storage', 'server'], [5, 4])[0]
        few, many = (3, 8) if side == 'storage' else (4, 16)  # most operations ask the storage little
        number = self._rng.choice([self._rng.randint(1, few), self._rng.randint(1, many)])
        kind = self._rng.choices(['fault', 'signal', 'worker'], [70, 26, 0 if daemon else 2])[0]
        if kind == 'signal':
            return [Fault(side, number, self._rng.choice([*SIGNALS]))]
        if kind == 'worker':
            return [Fault('server', number, self._rng.choice(WORKERS))]
        what = self._rng.choice([*(STORAGE if side == 'storage' else SERVER)])
        return [Fault(side, number + again, what) for again in range(self._rng.choice([1, 1, 1, 2, 6]))]


def draw(seed: int, operations: int) -> Plan:
    """The plan of a seed."""
    return Drawn(seed, operations).plan()
