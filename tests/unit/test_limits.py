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

"""Limits: none is missing, and none is so generous that it is none. What others define (S3, databases, Oracle) is exact."""

import importlib

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.s3.endpoint import DAEMON, PERSON, SERVER, SERVER_WORK

KiB, MiB, GiB = 1024, 1024**2, 1024**3
LIMITS = {
    'rucio.common.s3.address': {'MAX_KEY_BYTES': 1024},
    'rucio.common.s3.answers': {'LONGEST_TOKEN': (4 * KiB, 64 * KiB), 'LONGEST_KEY': 1024},
    'rucio.common.s3.api': {'MAX_REQUESTS': 1000},
    'rucio.common.s3.breaker': {'PAUSE': (1, 30), 'MAX_UNANSWERED': (1, 4), 'MAX_WAIT': (0.1, 3), 'SLOW_FAILURE': (1, 5), 'SLOW_FAILURE_UNATTENDED': (10, 60), 'MAX_DOUBT': (1, 10), 'SERVER_ERROR': 500},
    'rucio.common.s3.checksums': {'_BLOCK': (64 * KiB, 8 * MiB)},
    'rucio.common.s3.content': {'BLOCK': (64 * KiB, 8 * MiB), 'BODIES': (2, 10)},
    'rucio.common.s3.contract': {'LONGEST_TEXT': 250, 'LONGEST_KEY': 1024},
    'rucio.common.s3.credentials': {'_OFFER_SECONDS': (60, 3600)},
    'rucio.common.s3.interrupts': {'TICK': (0.05, 1)},
    'rucio.common.s3.layout': {'_MOST_DOTS': (10, 100)},
    'rucio.common.s3.objects': {'_EMPTY_PAGES': (10, 1000), '_DELETE_LIMIT': 1000},
    'rucio.common.s3.parsing': {'LONGEST_ANSWER': (8 * MiB, 64 * MiB), 'LONGEST_LINE': (1 * KiB, 1 * MiB)},
    'rucio.common.s3.progress': {'SHOWN_FROM': (1 * MiB, 100 * MiB)},
    'rucio.common.s3.range_record': {'_WRITE': (4 * KiB, 1 * MiB)},
    'rucio.common.s3.transfer': {'SINGLE_PUT_LIMIT': 5 * GiB, '_MEMORY': (128 * MiB, 1 * GiB), '_GRACE': (1, 10)},
    'rucio.core.s3.imports': {'MAX_IMPORTS': (5, 100), 'MAX_VALUE_LENGTH': 4000, 'MAX_SECTION_LENGTH': 128},
    'rucio.core.s3.storages': {'CACHE_SECONDS': (1, 60), 'WARN_SECONDS': (60, 3600)},
    'rucio.core.s3.auth.chaining': {'SAFE_SECONDS': (3600, 86400), 'UNSAFE_SECONDS': (60, 600), 'ROLES_SECONDS': (60, 600)},
    'rucio.core.s3.auth.grants': {'MAX_GRANTS': (50, 1000), 'MAX_RSE_IDS_LENGTH': (500, 4000)},
    'rucio.core.s3.auth.pending': {'SECONDS': (1800, 3600), 'MAX_ROWS': (500, 5000), 'MAX_NAMES': (100, 1000)},
    'rucio.core.s3.auth.rates': {'BURST': (1, 60)},
    'rucio.core.s3.auth.shares': {'MAX_SHARES': (500, 5000)},
    'rucio.core.s3.auth.signing': {'MAX_KEYS': 1000, 'MAX_SINGLE_CHECKS': (1, 50)},
    'rucio.core.s3.auth.signing_guards': {
        'MAX_URI': (4 * KiB, 16 * KiB),
        'MAX_HEADERS': (32, 128),
        'MAX_HEADER_VALUE': (2 * KiB, 16 * KiB),
        'MAX_KEY_BYTES': 1024,
        'MAX_TOKEN_BYTES': (2 * KiB, 16 * KiB),
        'MAX_DECODINGS': (2, 5),
        'MAX_DELETES': 1000,
    },
    'rucio.core.s3.auth.vending': {'MIN_LIFETIME': 900, 'MAX_POLICY_LENGTH': 2048, 'MAX_CACHED_KEYS': (1000, 100_000), 'MAX_NAMES': (1000, 100_000)},
    'rucio.core.s3.buckets.bucket_policies': {'MAX_BYTES': 20 * KiB},
    'rucio.core.s3.buckets.creation': {'ABORT_DAYS': (2, 30)},
    'rucio.core.s3.buckets.lookup': {'_AT_ONCE': (4, 64)},
    'rucio.core.s3.buckets.object_lock': {'CACHE_SECONDS': (60, 3600), 'MAX_CACHED': (1000, 100_000)},
    'rucio.core.s3.buckets.public_acls': {'CACHE_SECONDS': (600, 7200), 'MAX_CACHED': (1000, 100_000)},
    'rucio.core.s3.buckets.removal': {'MAX_SECONDS': (10, 120), 'BATCH_SIZE': 1000},
    'rucio.core.s3.catalogue.changes': {'MAX_CHANGES': (1000, 100_000)},
    'rucio.core.s3.catalogue.records': {'MAX_TRIES': (2, 5), 'MAX_IN_LIST': 1000},
    'rucio.core.s3.catalogue.registration': {'CHUNK': (500, 5000), 'MANY': (20, 1000), 'MAX_RULES': (20, 500)},
    'rucio.core.s3.catalogue.updates': {'CHUNK': (50, 1000), 'MAX_REASON_LENGTH': 255},
    'rucio.core.s3.reconciler.checksums': {'MAX_READ_SECONDS': (10, 120), 'MIN_READ_SECONDS': (60, 3600), 'MIN_RATE': (64 * KiB, 16 * MiB)},
    'rucio.core.s3.reconciler.compare': {'DAY': 86400, 'MAX_PATH_LENGTH': 1024, 'MAX_SIZE': 2**50},
    'rucio.core.s3.reconciler.listings': {'MAX_ETAG_LENGTH': (64, 256)},
    'rucio.core.s3.reconciler.progress': {'MAX_IN_LIST': (100, 1000), 'MAX_KEY_LENGTH': (1024, 4000)},
    'rucio.core.s3.reconciler.requested': {'MAX_SECONDS': (5, 60), 'MAX_READ': (1 * GiB, 16 * GiB), 'MAX_SORTED': (10_000, 1_000_000)},
    'rucio.core.s3.reconciler.summary': {'MAX_PROBLEMS': (10, 1000)},
    'rucio.core.s3.reconciler.walk': {
        'REGISTER_CHUNK': (500, 5000),
        'RECHECK_CHUNK': (50, 1000),
        'STALE_SECONDS': (10, 600),
        'CLOCK_INTERVAL': (16, 4096),
        'MAX_NAMES': (1000, 100_000),
        'MAX_RECHECKS': (2, 20),
    },
    'rucio.core.s3.transfers.claims': {'LEASE': (30, 300), '_DEFAULT_PRIORITY': 3, '_KEYS_CACHE_SECONDS': (10, 600), '_WARN_INTERVAL': (60, 3600)},
    'rucio.core.s3.transfers.copying': {'RELAY_MEMORY': (32 * MiB, 256 * MiB), '_MAX_ERROR_LENGTH': (1000, 4000)},
    'rucio.core.s3.transfers.destinations': {'_CACHE_SECONDS': (600, 7200), '_RETRY_SECONDS': (60, 600)},
    'rucio.rse.protocols.s3': {'_SILENCE': (5, 120), '_OTHERS': (1, 10)},
    'rucio_s3_policy.permission': {'_MAX_BODY': (1 * MiB, 64 * MiB)},
}  # fmt: skip


@pytest.mark.parametrize(('module', 'name'), [(module, name) for module, limits in LIMITS.items() for name in limits])
def test_a_limit_is_one(module, name):
    value, expected = getattr(importlib.import_module(module), name), LIMITS[module][name]
    low, high = expected if isinstance(expected, tuple) else (expected, expected)
    assert low <= value <= high


def test_who_waits_for_a_storage_and_for_how_long():
    """Seconds to connect, for a byte, for an answer; attempts."""
    assert (5 <= PERSON.connect_timeout <= 30, 30 <= PERSON.read_timeout <= 120, PERSON.breaks) == (True, True, False)
    assert (2 <= PERSON.max_attempts <= 8, 600 <= PERSON.answer_timeout <= 3600) == (True, True)
    assert PERSON._replace(breaks=True, unattended=True) == DAEMON
    for patience, read, answer in ((SERVER, 5, 10), (SERVER_WORK, 20, 30)):
        assert 1 <= patience.connect_timeout <= 3
        assert 1 <= patience.read_timeout <= read
        assert 1 <= patience.answer_timeout <= answer
        assert patience.max_attempts == 2
        assert patience.breaks
