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

"""What is reconciled by a request: in bounds, as the request or the bucket's settings say."""

from collections import Counter
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from rucio.common.exception import InputValidationError
from rucio.common.s3.api import ReconcileFiles, Wish
from rucio.core.s3.buckets import bucket_settings
from rucio.core.s3.reconciler import requested


@pytest.fixture
def made(monkeypatch):
    """The reconcilers that were made, with their options and calls."""
    calls = []

    class Reconciler(SimpleNamespace):
        summary = SimpleNamespace(as_dict=lambda: {'counts': {}, 'problems': []}, counts=Counter())

        def __init__(self, subtree, **options):
            super().__init__(subtree=subtree, **options)
            calls.append(self)

        def run(self, **limits):
            self.limits = limits
            return 'reached'

        def check(self, *arguments):
            self.checked = arguments

    monkeypatch.setattr(requested, 'Reconciler', Reconciler)
    return calls


@pytest.mark.parametrize('wished', [None, 'replace'])
@pytest.mark.parametrize('stored', [None, 'forget'])
def test_a_request_comes_before_the_settings_of_the_bucket(twins, made, wished, stored):
    one = twins.of()
    if stored:
        one.write(bucket_settings.set_, one.storage, 'user.alice', 'bad', stored)
    answer = requested.reconcile(one.subtree, Wish(after='k', on_missing='lost' if wished else None, on_changed=wished, dry_run=True))
    assert answer == {'after': 'reached', 'counts': {}, 'problems': []}
    (found,) = made
    settings = one.read(bucket_settings.get, one.storage, 'user.alice')
    assert (found.on_changed, found.on_missing) == (wished or settings.on_changed, 'lost' if wished else settings.on_missing)
    assert (found.dry_run, found.even_if_empty, found.read_checksums) == (True, False, one.storage.endpoint.read_checksums)
    assert found.limits == {'after': 'k', 'seconds': 20, 'most_read': 4 * 1024**3, 'most_sorted': 200_000}


def test_one_file(twins, made):
    one = twins.of()
    assert requested.reconcile(one.subtree, Wish(), 'run1/file')['after'] is None
    assert made[0].checked == (['run1/file'], 4 * 1024**3)
    assert not made[0].dry_run


def files(*told, **wish):
    return ReconcileFiles(scope='user.alice', rse='X', files=list(told), **wish)


def test_some_files(twins, made):
    one = twins.of()
    told = [{'name': 'run1/a', 'bytes': 3, 'etag': '"e-2"', 'adler32': '0123abcd'}, {'name': 'run1/b'}, {'name': '../c'}]
    assert requested.reconcile_files(one.subtree, files(*told, on_missing='forget'))['after'] is None
    assert made[0].checked == (['run1/a', 'run1/b'], 4 * 1024**3, {'run1/a': (3, '"e-2"', '0123abcd')})
    assert (made[0].on_missing, made[0].on_changed, made[0].summary.counts['unnameable']) == ('forget', 'report', 1)
    assert made[0].read_checksums is one.storage.endpoint.read_checksums
    requested.reconcile_files(one.subtree, files({'name': 'run1/b'}, on_changed='replace'))
    assert (made[1].on_missing, made[1].on_changed, made[1].checked[2]) == ('report', 'replace', {})


@pytest.mark.parametrize(
    'file',
    [
        *({}, [], 'a', {'name': 1}, {'name': ''}),
        *({'name': 'a', 'bytes': 1, 'etag': 'e'} | {'adler32': text} for text in ('x' * 8, '1', 1, '0123ABCD', '0123abcd\n')),
        *({'name': 'a', 'bytes': 1, 'etag': 'e', 'adler32': '0123abcd'} | wrong for wrong in ({'bytes': True}, {'bytes': '1'}, {'etag': None})),
    ],
)
def test_files_that_are_described_wrongly(twins, made, file):
    with pytest.raises(InputValidationError, match="'files'"):
        requested.reconcile_files(twins.of().subtree, files(file))
    assert not made


@pytest.mark.parametrize(('dataset', 'on_missing', 'expected'), [('d', 'forget', True), ('d', None, False), (None, 'forget', False)])
def test_an_import_may_be_emptied_if_somebody_wants_it(twins, made, dataset, on_missing, expected):
    one = twins.of()
    subtree = type(one.subtree)(one.storage, one.scope, 'user.alice', '', '', dataset)
    requested.reconcile(subtree, Wish(on_missing=on_missing))
    assert made[0].even_if_empty is expected
