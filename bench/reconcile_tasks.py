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

"""What ``reconcile.py`` measures, each in a process of its own, so that its memory is its own: ``reconcile_tasks.py TASK JSON``.

The process has the configuration of a Rucio server. The last line of its output is what was measured, as JSON.
"""

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import event, text
from synthetic import Bucket

from rucio.common.types import InternalAccount, InternalScope
from rucio.core.account import add_account
from rucio.core.account_limit import set_local_account_limit
from rucio.core.did import add_did, attach_dids
from rucio.core.replica import add_replicas
from rucio.core.rse import add_protocol, add_rse, add_rse_attribute
from rucio.core.s3 import storages
from rucio.core.s3.reconciler import listings
from rucio.core.s3.reconciler.walk import Reconciler
from rucio.core.s3.subtrees import Subtree
from rucio.core.scope import add_scope
from rucio.daemons.judge import evaluator
from rucio.daemons.s3.reconciler import SPANS_PER_WORKER
from rucio.db.sqla.constants import AccountType, DatabaseOperationType
from rucio.db.sqla.session import db_session, get_engine

RSE, OWNER, SCOPE = 'BENCH_S3', InternalAccount('bench'), InternalScope('user.bench')
Result = dict[str, Any]


def set_up(scheme: str = 'https', port: int = 9) -> Result:
    """An RSE, an account and its scope."""
    every = {'read': 1, 'write': 1, 'delete': 1}
    protocol = {
        'scheme': scheme,
        'hostname': '127.0.0.1',
        'port': port,
        'prefix': '/',
        'impl': 'rucio.rse.protocols.s3.Default',
        'domains': {'lan': every, 'wan': {**every, 'third_party_copy_read': 1, 'third_party_copy_write': 1}},
        'extended_attributes': {'s3': {'provider': 'ceph'}},
    }
    with db_session(DatabaseOperationType.WRITE) as session:
        rse_id = add_rse(RSE, session=session)
        for key, value in {'lfn2pfn_algorithm': 's3_bucket', 'skip_upload_stat': True}.items():
            add_rse_attribute(rse_id, key, value, session=session)
        add_protocol(rse_id, protocol, session=session)
        add_account(OWNER, AccountType.USER, 'bench@localhost', session=session)
        add_scope(SCOPE, OWNER, session=session)
        set_local_account_limit(OWNER, rse_id, -1, session=session)
    return {'rse_id': rse_id}


def reconcile(bucket: dict[str, Any], name: str = '', workers: int = 1, **options: Any) -> Result:
    """One run over a bucket, or what of it lies below a name, in spans that are shared by workers, as those of the daemon do it."""
    with db_session(DatabaseOperationType.READ) as session:
        storage = storages.get_storage(RSE, 'def', session=session)
    lister = Bucket(**bucket)
    listings.stat = lister.stat  # a HEAD of the storage
    spans = lister.spans(SPANS_PER_WORKER * workers if workers > 1 else 1)
    reconcilers = [Reconciler(Subtree.of(storage, SCOPE, name), lister=lister, **options) for _ in spans]

    def run() -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda reconciler, span: reconciler.run(*span), reconcilers, spans))

    measured = measure(run)
    problems = [problem._asdict() for reconciler in reconcilers for problem in reconciler.summary.problems]
    return {**measured, 'counts': sum((reconciler.summary.counts for reconciler in reconcilers), Counter()), 'problems': problems[:5]}


def listing(*, sort: bool) -> Result:
    """Only the listing, of a real storage, in its own order or sorted on disk."""
    with db_session(DatabaseOperationType.READ) as session:
        subtree = Subtree.of(storages.get_storage(RSE, 'def', session=session), SCOPE)
    objects = [0]

    def read() -> None:
        entries = listings.unordered(subtree)
        for _ in listings.sorted_entries(subtree, entries) if sort else entries:
            objects[0] += 1

    return {**measure(read), 'objects': objects[0]}


def stock(bucket: dict[str, Any], dataset: str, chunk: int) -> Result:
    """The same files by Rucio's own calls: ``add_replicas`` for each chunk, and ``attach_dids``, timed apart."""
    with db_session(DatabaseOperationType.READ) as session:
        rse_id = storages.get_storage(RSE, 'def', session=session).rse_id
    files = [{'scope': SCOPE, 'name': each.key, 'bytes': each.size, 'md5': each.etag} for each in Bucket(**bucket)(None)]  # type: ignore[arg-type]
    with db_session(DatabaseOperationType.WRITE) as session:
        add_did(SCOPE, dataset, 'DATASET', OWNER, session=session)
    add = attach = 0.0
    for begin in range(0, len(files), chunk):
        some = files[begin : begin + chunk]
        start = time.perf_counter()
        with db_session(DatabaseOperationType.WRITE) as session:
            add_replicas(rse_id, some, OWNER, session=session)
        between = time.perf_counter()
        with db_session(DatabaseOperationType.WRITE) as session:
            attach_dids(SCOPE, dataset, [{'scope': SCOPE, 'name': each['name']} for each in some], OWNER, session=session)
        add, attach = add + between - start, attach + time.perf_counter() - between
    return {'add': add, 'attach': attach}


def execute(statement: str) -> Result:
    """One statement of SQL."""
    with db_session(DatabaseOperationType.WRITE) as session:
        session.execute(text(statement))
    return {}


def judge() -> Result:
    """What Rucio's own judge-evaluator makes of new files: locks, and with them the accounts' usage."""
    return measure(lambda: evaluator.run(once=True, did_limit=10**6))


def size() -> Result:
    """Of the database, with its indexes."""
    with db_session(DatabaseOperationType.READ) as session:
        ask = 'SELECT pg_database_size(current_database())'
        if session.get_bind().dialect.name == 'sqlite':
            ask = 'SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()'
        return {'bytes': session.execute(text(ask)).scalar_one()}


def measure(action: Callable[[], object]) -> Result:
    """Seconds, queries, and the most memory that the process had so far and before, in MiB."""
    queries, before = [0], memory()

    def count(*_: object) -> None:
        queries[0] += 1

    event.listen(get_engine(), 'before_cursor_execute', count)
    start, cpu = time.perf_counter(), time.process_time()
    action()
    return {'seconds': time.perf_counter() - start, 'cpu': time.process_time() - cpu, 'queries': queries[0], 'memory': memory(), 'memory_before': before}


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    tasks: dict[str, Callable[..., Result]] = {
        'set_up': set_up,
        'listing': listing,
        'reconcile': reconcile,
        'stock': stock,
        'execute': execute,
        'judge': judge,
        'size': size,
    }
    print(json.dumps(tasks[sys.argv[1]](**json.loads(sys.argv[2]))))


if __name__ == '__main__':
    main()
