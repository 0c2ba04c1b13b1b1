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

"""An ordinary account asks for ever new things, so that the server remembers all of them: each worker grows until it is killed.

What a process remembers is in a container of a module. The first test finds all of them: a new one has to be judged here.
"""

import pkgutil
import re
from collections import deque
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

import pytest

import rucio.common.s3
import rucio.core.s3
from rucio.core.s3.auth import rates
from rucio.core.s3.buckets import object_lock, public_acls
from rucio.core.s3.events import events
from rucio.core.s3.rate_limiter import RateLimiter

PACKAGES = (rucio.core.s3, rucio.common.s3)
MODULES = (
    'rucio.db.sqla.s3',
    'rucio.rse.protocols.s3',
    *(f'rucio.gateway.{name}' for name in ('s3', 's3events', 's3health', 's3imports', 's3names', 's3reconcile', 's3sts')),
    *(f'rucio.web.rest.flaskapi.v1.{name}' for name in ('s3', 's3base', 's3events', 's3sts')),
)
# The operator makes RSEs, roles and keys; an account can make none of these.
OF_THE_OPERATOR = {
    'common.s3.clients._shared': 'storages, and keys for them',
    'common.s3.credentials._offers': 'RSEs, of a Rucio server',
    'common.s3.breaker._breakers': 'storages',
    'common.s3.monitoring._observed': 'RSEs',
    'common.s3.own_config._warned': 'RSEs, and one file',
    'common.s3.settings.providers': 'nothing',
    'common.s3.factory._joined': 'directories of certificates',
    'core.s3.auth.chaining._roles': 'roles',
    'core.s3.auth.chaining._slots': 'RSEs',
    'core.s3.auth.rates._limiters': 'settings',
    'core.s3.auth.shared_keys._neighbours': 'RSEs',
    'core.s3.auth.vending._clients': 'RSEs, and keys for them',
    'core.s3.reconciler.compare._matcher': 'VOs',
    'core.s3.reconciler.listings._orders': 'databases',
    'core.s3.storages._storages': 'RSEs',
    'core.s3.storages._told': 'RSEs',
    'core.s3.transfers.claims._answers': 'RSEs',
    'core.s3.transfers.copying._made': 'scopes that have a copy on an RSE',
    'core.s3.transfers.claims._urls': 'RSEs',
    'core.s3.transfers.claims._warned': 'RSEs',
    'core.s3.transfers.destinations._known': 'scopes that have a copy on an RSE',
    'db.sqla.s3._looked': 'databases',
    'rse.protocols.s3._servers': 'VOs',
    'rse.protocols.s3._warned': 'RSEs',
}
# What accounts can make: these have a bound, which the tests below and those of the modules have seen.
BOUNDED = {
    'common.s3.checksums._shift': 'lru_cache',
    'common.s3.partial_files._open': 'downloads under way in this process',
    'common.s3.request_ids._of_processes': 'this process, and those that it was forked from',
    'common.s3.storage_areas._addresses': 'lru_cache',
    'core.s3.auth.access._owners': 'Recent: tests/unit/test_recent.py',
    'core.s3.auth.vending._slots': 'MAX_CACHED_KEYS: tests/unit/test_vending.py',
    'core.s3.buckets.lookup._collections': 'Recent',
    'core.s3.buckets.object_lock._known': 'MAX_CACHED',
    'core.s3.buckets.public_acls._done': 'MAX_CACHED',
    'core.s3.events.events._LOG_LIMITER': 'RateLimiter: tests/unit/test_rates.py',
    'core.s3.events.events._BUCKET_LIMITER': 'RateLimiter',
    'core.s3.events.events._STORAGE_LIMITER': 'RateLimiter',
    'gateway.s3names._validate': 'lru_cache',
    'core.s3.transfers.copying._leftovers': 'maxlen',
}


def modules() -> list[ModuleType]:
    names = [each.name for package in PACKAGES for each in pkgutil.walk_packages(package.__path__, f'{package.__name__}.')]
    return [import_module(name) for name in (*names, *MODULES)]


def remembers(module: ModuleType, name: str, value: Any) -> bool:
    """Whether this is something that grows, and no constant."""
    if hasattr(type(value), 'cache_info'):
        return bool(value.__module__ == module.__name__)
    constant = re.fullmatch('_?[A-Z0-9_]+', name) or name.startswith('__')
    return isinstance(value, RateLimiter) or (isinstance(value, (dict, set, list, deque, WeakKeyDictionary)) and not constant)


def test_everything_that_is_remembered_is_known_here() -> None:
    found = {
        f'{module.__name__.removeprefix("rucio.")}.{name}' for module in modules() for name, value in vars(module).items() if remembers(module, name, value)
    }
    assert found == OF_THE_OPERATOR.keys() | BOUNDED.keys()


@pytest.fixture
def storage() -> Any:
    client = mock.Mock(**{'get_object_lock_configuration.return_value': {}, 'get_public_access_block.return_value': {'PublicAccessBlockConfiguration': {}}})
    endpoint = SimpleNamespace(ignore_public_acls=True)
    return SimpleNamespace(rse='X', rse_id='x', endpoint=endpoint, connection=lambda _: SimpleNamespace(client=client))


@pytest.mark.parametrize(('module', 'name', 'ask'), [(object_lock, '_known', object_lock.is_enabled), (public_acls, '_done', public_acls.ignore)])
def test_buckets_without_end(storage: Any, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, ask: Any) -> None:
    """He has signed, and gets keys, for one bucket after the other."""
    remembered = getattr(module, name)
    monkeypatch.setattr(module, 'MAX_CACHED', 10)
    with mock.patch.dict(remembered, clear=True):
        for number in range(50):
            ask(storage, f'bucket{number}')
        assert [key[-1] for key in remembered] == [f'bucket{number}' for number in range(40, 50)]


def test_names_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts that each ask once; made-up RSEs of which storages tell events."""
    monkeypatch.setattr(rates, '_limiters', {})
    monkeypatch.setattr(rates, 'of_server', lambda _: 1.0)
    monkeypatch.setattr(events, '_LOG_LIMITER', RateLimiter(5, 1, remembered=10))
    for number in range(11_000):
        rates.spend('vends_per_second', f'account{number}', 'def')
        events.warn_limited(('no such RSE', number), 'refused')
    (limiter,) = rates._limiters.values()
    assert (len(limiter._known), len(events._LOG_LIMITER._known)) == (10_000, 10)
