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
"""What is changed in a stock Rucio: only what rucio.cfg asks for, all of it or nothing, and only where it fits."""

import inspect
from importlib import import_module
from types import SimpleNamespace

import pytest

import rucio_s3_seams as seams

HOST = 'rucio-s3-copier'
BOTH = {'copier': True, 'fts': True}


def function(takes, called):
    """One that takes these, and notes what it is called with."""
    names = {}
    exec(f'def made({", ".join(takes)}): return called({takes[0]})', {'called': called}, names)
    return names['made']


def rucio(called=lambda _: None, **other):
    """As much of ``rucio.core.transfer`` as is changed."""
    takes = {**seams._FUNCTIONS, **seams._REWRITES} | other
    methods = {name: staticmethod(function(takes[name], called)) for name in seams._REWRITES}
    direct = type('DirectTransferImplementation', (), {**methods, '_generate_source_url': classmethod(function(seams._GENERATE, called))})
    functions = {name: function(takes[name], called) for name in seams._FUNCTIONS}
    return SimpleNamespace(TRANSFERTOOL_CLASSES_BY_NAME={}, DirectTransferImplementation=direct, **functions)


def state(module):
    return dict(vars(module)), dict(vars(module.DirectTransferImplementation)), dict(module.TRANSFERTOOL_CLASSES_BY_NAME)


@pytest.fixture(autouse=True)
def _server():
    pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')
    import_module('rucio.core.transfer')


@pytest.mark.parametrize('seam', seams.SEAMS, ids=lambda seam: seam.name.rpartition('.')[2])
def test_this_rucio_has_what_is_replaced(seam):
    *module, name = seam.name.split('.')
    if module[-1] == 'DirectTransferImplementation':
        found = inspect.getattr_static(import_module('.'.join(module[:-1])).DirectTransferImplementation, name).__func__
    else:
        found = getattr(import_module('.'.join(module)), name)
    found = inspect.unwrap(found)
    assert tuple(inspect.signature(found).parameters)[: len(seam.takes)] == seam.takes


def test_what_nobody_asks_for_stays_as_it_is():
    module = rucio()
    before = state(module)
    seams.install(module, copier=False, fts=False)
    assert state(module) == before


def test_fts_is_not_asked_about_what_is_not_its_own():
    asked = []
    module = rucio(asked.append)
    seams.install(module, copier=True, fts=False)
    module.cancel_transfers({HOST: {'1'}, 'https://fts': {'2'}}, None)
    module.update_transfer_priority({f'{HOST}/1/me': {'1'}, 'https://fts': {'2'}}, None)
    assert asked == [{'https://fts': {'2'}}] * 2
    assert list(module.TRANSFERTOOL_CLASSES_BY_NAME) == ['s3']


@pytest.mark.parametrize('name', [*seams._FUNCTIONS, *seams._REWRITES])
def test_another_rucio_is_not_changed_by_half(name):
    module = rucio(**{name: ('something', 'other')})
    before = state(module)
    with pytest.raises(TypeError, match='takes something, other, not '):
        seams.install(module, **BOTH)
    assert state(module) == before


def test_a_rucio_without_it_is_not_changed_by_half():
    module = rucio()
    del module.mark_submitting
    before = state(module)
    with pytest.raises(AttributeError):
        seams.install(module, **BOTH)
    assert state(module) == before
