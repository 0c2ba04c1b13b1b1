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

"""The comparison of two streams: what each pair means, and that the merge finds exactly what differs."""

import time
from collections import Counter
from types import SimpleNamespace

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from hypothesis import given
from hypothesis import strategies as st

from rucio.common.types import InternalScope
from rucio.core.s3.reconciler import compare as compare_module
from rucio.core.s3.reconciler.compare import Kind, compare, is_valid_name
from rucio.core.s3.reconciler.listings import Entry, Replica
from rucio.core.s3.subtrees import Subtree

MD5, OTHER = '900150983cd24fb0d6963f7d28e17f72', '0cc175b9c0f1b6a831c399e269772661'
PARTS, OTHER_PARTS = f'{MD5}-2', f'{OTHER}-2'
NOW, DAY = time.time(), 86400


def subtree(key_prefix='', name_prefix='', etag_is_md5=True, path=None):
    endpoint = SimpleNamespace(etag_is_md5=etag_is_md5)
    layout = SimpleNamespace(deterministic=path is None, path_of=lambda *_: path)
    storage = SimpleNamespace(rse='X', vo='def', endpoint=endpoint, layout=layout)
    return Subtree(storage, InternalScope('user.alice'), 'user.alice', key_prefix, name_prefix)


def entry(key='a', size=3, etag=MD5, modified=NOW):
    return Entry(key, size, etag, modified)


def replica(name='a', size=3, md5=MD5, adler32=None, state='A', etag=None, updated=NOW):
    return Replica(name, size, md5, adler32, state, etag, updated)


def kinds(entries, replicas, where=None):
    """What is found, and what is counted."""
    counts = Counter()
    found = {finding.name: finding.kind.value for finding in compare(where or subtree(), entries, replicas, counts)}
    return found, dict(counts)


@pytest.mark.parametrize(
    ('kind', 'listed', 'known', 'etag_is_md5'),
    [
        # By the size, whatever the rest says.
        ('changed', {'size': 4}, {}, True),
        ('changed', {'size': 4, 'etag': PARTS}, {'etag': PARTS}, False),
        # The listing does not tell the size or the date.
        ('unreadable', {'size': -1}, {}, True),
        ('unreadable', {'size': -1}, {'state': 'C'}, True),
        ('oversized', {'size': 2**50 + 1}, {}, True),
        ('oversized', {'size': 2**50 + 1, 'etag': PARTS}, {'size': 2**50 + 1}, True),
        ('same', {'size': 2**50}, {'size': 2**50}, True),
        ('unnoted', {'size': 2**50, 'etag': PARTS}, {'size': 2**50}, True),
        ('unnoted', {'size': 0, 'etag': PARTS}, {'size': 0}, True),
        # Nor its ETag.
        ('unnoted', {'etag': ''}, {'etag': ''}, True),
        ('no-checksum', {'etag': ''}, {'md5': ''}, True),
        # By the MD5.
        ('same', {}, {}, True),
        ('same', {}, {}, False),
        ('same', {}, {'md5': MD5.upper()}, True),
        ('same', {'size': 0}, {'size': 0}, True),
        ('changed', {'etag': OTHER}, {}, True),
        ('changed', {'etag': OTHER}, {'etag': PARTS}, True),
        # An ETag that may be no MD5, as AWS's of encrypted objects.
        ('unproven', {'etag': OTHER}, {'updated': NOW - 2 * DAY}, False),
        ('unnoted', {'etag': OTHER}, {}, False),
        ('same', {'etag': OTHER}, {'etag': OTHER}, False),
        ('unproven', {'etag': OTHER}, {'etag': 'another'}, False),
        # Written in parts.
        ('same', {'etag': PARTS}, {'etag': PARTS}, True),
        ('unproven', {'etag': PARTS}, {'etag': OTHER_PARTS}, True),
        ('unnoted', {'etag': PARTS, 'modified': NOW - DAY}, {}, True),
        ('unproven', {'etag': PARTS, 'modified': NOW + 1}, {}, True),
        ('unnoted', {'etag': PARTS}, {'md5': None, 'adler32': '00000001'}, True),
        ('unproven', {'etag': ''}, {'etag': OTHER_PARTS}, True),
        ('unnoted', {}, {'md5': None, 'adler32': '00000001'}, True),
        # The catalogue has no checksum.
        ('no-checksum', {}, {'md5': None}, True),
        ('no-checksum', {'etag': PARTS}, {'md5': None}, True),
        ('no-checksum', {'etag': PARTS}, {'md5': None, 'etag': PARTS}, True),
        ('changed', {'etag': PARTS}, {'md5': None, 'etag': OTHER_PARTS}, True),
        # Rucio is at work.
        ('busy', {'size': 4}, {'state': 'B'}, True),
        ('busy', {}, {'state': 'D'}, True),
        ('busy', {}, {'state': 'T'}, True),
        ('busy', {}, {'state': 'U'}, True),
        ('busy', {'size': 4, 'modified': NOW - 2 * DAY}, {'state': 'C'}, True),
        ('busy', {'etag': OTHER, 'modified': NOW - 2 * DAY}, {'state': 'C'}, True),
        ('busy', {'etag': PARTS}, {'state': 'C'}, True),
        ('busy', {'etag': OTHER}, {'state': 'C', 'updated': NOW - 2 * DAY}, True),
        ('changed', {'etag': OTHER, 'modified': NOW - 2 * DAY}, {'state': 'C', 'updated': NOW - 2 * DAY}, True),
        ('changed', {'size': 4, 'modified': NOW - 2 * DAY}, {'state': 'C', 'updated': NOW - 2 * DAY}, True),
        ('completed', {}, {'state': 'C'}, True),
        ('completed', {}, {'state': 'C', 'md5': MD5.upper()}, True),
        ('completed', {'etag': PARTS, 'modified': NOW - 2 * DAY}, {'state': 'C'}, True),
        ('completed', {'etag': OTHER, 'modified': NOW - 2 * DAY}, {'state': 'C', 'md5': None}, True),
    ],
)
def test_both(kind, listed, known, etag_is_md5):
    found, counts = kinds([entry(**listed)], [replica(**known)], subtree(etag_is_md5=etag_is_md5))
    assert found == ({} if kind == 'same' else {'a': kind})
    assert counts == {'listed': 1, 'same': kind == 'same'}


@pytest.mark.parametrize(('age', 'kind'), [(DAY, 'busy'), (DAY + 1, 'changed')])
def test_an_upload_has_a_day(monkeypatch, age, kind):
    """After that, it was abandoned; or it has arrived, where nothing says something else."""
    monkeypatch.setattr(compare_module.time, 'time', lambda: NOW + age)
    assert kinds([entry(etag=OTHER)], [replica(state='C')])[0] == {'a': kind}
    assert kinds([entry(etag=PARTS)], [replica(state='C')])[0] == {'a': {'busy': 'busy', 'changed': 'completed'}[kind]}


@pytest.mark.parametrize(
    ('key', 'size', 'kind'),
    [
        ('run1/a.root', 3, 'new'),
        ('run1/a.root', 0, 'new'),
        ('run1/a.root.rucio.upload', 3, 'leftover'),
        ('run1/', 0, 'marker'),
        ('run1/', 3, 'unnameable'),
        ('run1/a b', 3, 'unnameable'),
        ('run1/a+b', 3, 'unnameable'),
        ('.hidden', 3, 'unnameable'),
        ('run1/\u00e9', 3, 'unnameable'),
        ('run1/a\n', 3, 'unnameable'),
        ('a' * 250, 3, 'new'),
        ('run1/a', 2**50, 'new'),
        ('run1/a', 2**50 + 1, 'oversized'),
        ('a' * 251, 3, 'unnameable'),
        ('run1/a', -1, 'unreadable'),
    ],
)
def test_only_in_the_bucket(key, size, kind):
    assert kinds([entry(key, size)], []) == ({key: kind}, {'listed': 1, 'same': 0})


def test_a_path_that_does_not_fit_into_the_catalogue():
    assert kinds([entry('a')], [], subtree(path='/' + 1024 * 'x'))[0] == {'a': 'unnameable'}
    assert kinds([entry('a')], [], subtree(path='/' + 1023 * 'x'))[0] == {'a': 'new'}


@pytest.mark.parametrize(('state', 'kind'), [('A', 'missing'), ('C', 'busy'), ('B', 'busy'), ('D', 'busy'), ('U', 'busy'), ('T', 'busy')])
def test_only_in_the_catalogue(state, kind):
    assert kinds([], [replica(state=state)])[0] == {'a': kind}


def test_a_known_name_that_nobody_could_give_any_more():
    """It is compared as any other, so nothing is made of it again and again."""
    assert kinds([entry('a b'), entry('x.rucio.upload'), entry('y/', 0, 'e')], [replica('a b'), replica('x.rucio.upload'), replica('y/', 0)]) == (
        {'y/': 'unnoted'},
        {'listed': 3, 'same': 2},
    )


def test_keys_are_not_names():
    where = subtree('shared/user.alice/run1/', 'run1/')
    listed = [entry(f'shared/user.alice/run1/{name}') for name in ('a', 'c', 'd')]
    found = list(compare(where, listed, [replica('run1/b'), replica('run1/c')], Counter()))
    assert [(each.kind, each.name, each.entry and each.entry.key) for each in found] == [
        (Kind.new, 'run1/a', 'shared/user.alice/run1/a'),
        (Kind.missing, 'run1/b', None),
        (Kind.new, 'run1/d', 'shared/user.alice/run1/d'),
    ]


@given(st.dictionaries(st.text('aZ-./_0', min_size=1, max_size=4), st.sampled_from(['bucket', 'catalogue', 'both', 'changed'])))
def test_the_merge(names):
    """Nothing is missed, nothing is invented, and all comes in order."""
    order = sorted(names, key=str.encode)
    listed = [entry(name, 4 if names[name] == 'changed' else 3) for name in order if names[name] != 'catalogue']
    known = [replica(name) for name in order if names[name] != 'bucket']
    counts = Counter()
    found = list(compare(subtree(), listed, known, counts))
    assert [each.name for each in found] == [name for name in order if names[name] != 'both']
    for each in found:
        kind = {'catalogue': ['missing'], 'changed': ['changed'], 'bucket': ['new', 'unnameable']}[names[each.name]]
        assert each.kind.value in kind
    assert (counts['listed'], counts['same']) == (len(listed), list(names.values()).count('both'))


def test_nothing_behind_a_broken_listing_is_missing():
    def broken():
        yield entry('b')
        raise ConnectionError

    counts, found = Counter(), []
    with pytest.raises(ConnectionError):
        found += [finding.name for finding in compare(subtree(), broken(), [replica('a'), replica('b'), replica('c')], counts)]
    assert counts == {'listed': 1, 'same': 1}


def test_what_is_missing_is_said_as_soon_as_the_listing_is_past_it():
    found = compare(subtree(), iter([entry('b'), entry('c')]), [replica('a')], Counter())
    assert (next(found).kind, next(found).name) == (Kind.missing, 'b')


@pytest.mark.parametrize(
    ('name', 'good'),
    [
        *(('run1/A_b-c.0', True), ('a b', False), ('', False), ('x' * 251, False), ('run1/..file', True), ('run1//file', True)),
        # Stock `rucio download` would write these elsewhere than into its directory.
        *(('run1/../../.bashrc', False), ('../file', False), ('run1/..', False), ('run1/./file', False), ('/etc/cron.d/file', False)),
    ],
)
def test_is_name(name, good):
    assert is_valid_name(name, 'def') is good


SHORT = {'type': 'string', 'maxLength': 2}


@pytest.mark.parametrize(
    'schemas',
    [
        {'SCHEMAS': {'name': SHORT}, 'NAME': {'maxLength': 9}},
        {'SCHEMAS': {}, 'NAME': SHORT},
        {'SCHEMAS': {}, 'NAME': {'maxLength': 2}},
        {'SCHEMAS': {}, 'NAME': {**SHORT, 'pattern': '^a'}},
        {'SCHEMAS': {}, 'NAME': {'anyOf': [{'const': 'a'}, SHORT]}},
    ],
)
def test_the_policy_of_a_vo_says_what_a_name_is(monkeypatch, schemas):
    monkeypatch.setattr(compare_module, 'get_schema_value', lambda key, _: schemas[key])
    compare_module._matcher.cache_clear()
    try:
        assert (is_valid_name('ab', 'xy'), is_valid_name('abc', 'xy')) == (True, False)
    finally:
        compare_module._matcher.cache_clear()
