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


"""DID <-> bucket and key <-> URL."""

import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rucio.common.exception import InputValidationError, RSEFileNameNotSupported
from rucio.common.s3 import address

# What Rucio's generic schema takes for a scope, with more of what is hard for S3 than chance would bring.
SCOPES = st.one_of(
    st.text(string.ascii_letters + string.digits + '_.-', min_size=1, max_size=25),
    st.text('x-_.A9an', min_size=1, max_size=25),
    st.from_regex(r'[0-9]{1,3}(\.[0-9]{1,3}){2,4}', fullmatch=True),
    st.sampled_from(['xn--', 'sthree-', 'amzn-s3-demo-', 'x--']).flatmap(lambda start: st.text(string.ascii_lowercase + '-', max_size=12).map(start.__add__)),
    st.sampled_from(['-s3alias', '--ol-s3', '.mrap', '--x-s3', '--table-s3', '-an', 'An', '_S3']).flatmap(
        lambda end: st.text(string.ascii_lowercase + '-', max_size=12).map(lambda start: start + end)
    ),
)
PREFIXES = st.sampled_from(['', 'cms-', 'vo.', 'a', 'x--', '10.0.', 'x'])

# Three byte sequences of UTF-8 make at most 1024 bytes of 340.
KEYS = st.one_of(
    st.text(min_size=1, max_size=200).filter(lambda key: not any(0xD800 <= ord(char) <= 0xDFFF for char in key)),
    st.text(' +%#?&=/.:;@~äß日', min_size=1, max_size=60),
)
HARD_KEYS = [
    'a b',
    'a+b',
    '100%',
    'a%20b',
    'a%2Fb',
    'a#b',
    'a?b',
    'a?X-Amz-Signature=b',
    'a&b=c',
    'größe/日本語',
    'a//b',
    '/a',
    '//a',
    'a/',
    'a/../b',
    '..',
    '.',
    'https://host/davs',
    'davs/https',
    'a:b@c',
    'a\nb',
    '~a',
]


def valid_for_s3(name):
    """Amazon's rules for the names of general purpose buckets, one by one as their documentation lists them."""
    return all(
        [
            3 <= len(name) <= 63,
            set(name) <= set(string.ascii_lowercase + string.digits + '.-'),
            name[:1].isalnum(),
            name[-1:].isalnum(),
            '..' not in name,
            not re.fullmatch(r'[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+', name),
            not any(name.startswith(start) for start in ('xn--', 'sthree-', 'amzn-s3-demo-')),
            not any(name.endswith(end) for end in ('-s3alias', '--ol-s3', '.mrap', '--x-s3', '--table-s3', '-an')),
        ]
    )


def bucket_or_none(scope, prefix):
    try:
        return address.scope_to_bucket(scope, prefix)
    except RSEFileNameNotSupported:
        return None


# Buckets


@given(SCOPES)
def test_every_scope_of_the_generic_schema_has_a_valid_bucket_that_tells_the_scope(scope):
    bucket = address.scope_to_bucket(scope)
    assert valid_for_s3(bucket)
    assert address.bucket_to_scope(bucket) == scope


@given(SCOPES, SCOPES, PREFIXES)
def test_two_scopes_never_share_a_bucket(one, other, prefix):
    buckets = {bucket_or_none(one, prefix), bucket_or_none(other, prefix)} - {None}
    assert len(buckets) == len({one, other}) or None in (bucket_or_none(one, prefix), bucket_or_none(other, prefix))


@given(SCOPES, PREFIXES)
@example('1', '10.0.0.')
@example('A-an', 'cms-')
@example('x--a', 'x--')
def test_a_bucket_with_a_prefix_is_valid_and_tells_the_scope_or_is_refused(scope, prefix):
    bucket = bucket_or_none(scope, prefix)
    if bucket is not None:
        assert bucket.startswith(prefix)
        assert valid_for_s3(bucket)
        assert address.bucket_to_scope(bucket, prefix) == scope


@given(SCOPES, st.sampled_from(['', 'cms-', 'vo.']))
def test_a_scope_that_s3_takes_is_its_own_bucket(scope, prefix):
    plain = valid_for_s3(scope) and valid_for_s3(prefix + scope) and not scope.startswith(address.ENCODED_MARK)
    if plain and '.-' not in scope and '-.' not in scope:
        assert address.scope_to_bucket(scope, prefix) == prefix + scope


@given(st.text(min_size=1, max_size=6).filter(lambda scope: scope.isprintable()))
def test_a_scope_of_any_characters_is_encoded_or_refused_with_a_reason(scope):
    bucket = bucket_or_none(scope, '')
    assert bucket is None or (valid_for_s3(bucket) and address.bucket_to_scope(bucket) == scope)


@given(st.text(string.ascii_lowercase + string.digits + '-.', min_size=1, max_size=63), PREFIXES)
@example('x---3 1', '')
@example('x---3+1', '')
@example('x---3', '')
@example('x---3ff', '')
@example('x---361', '')
@example('x---9', '')
@example('x--an', '')
@example('x--', '')
@example('Bucket', '')
@example('cms-', 'cms-')
def test_a_bucket_that_nobody_made_for_a_scope_is_nobodys(bucket, prefix):
    scope = address.bucket_to_scope(bucket, prefix)
    assert scope is None or address.scope_to_bucket(scope, prefix) == bucket


@pytest.mark.parametrize(
    ('scope', 'bucket'),
    [
        ('user.lheinric', 'user.lheinric'),
        ('mc23', 'mc23'),
        ('data23_13p6TeV', 'x--data23-013p6-te-v'),
        ('ab', 'x--ab'),
        ('User', 'x---user'),
        ('10.0.0.1', 'x--10-20-20-21'),
        ('xn--a', 'x--xn-1-1a'),
        ('x--a', 'x--x-1-1a'),
        ('a-s3alias', 'x--a-1s3alias'),
        ('fooAn', 'x--foo-an-9'),
        ('a..b', 'x--a-2-2b'),
        ('-a-', 'x---1a-1'),
        ('größe', 'x--gr-3c3-3b6-3c3-39fe'),
        ('a b+c', 'x--a-320b-32bc'),
    ],
)
def test_the_encoding_stays_what_it_is(scope, bucket):
    """Buckets outlive versions of this code."""
    assert address.scope_to_bucket(scope) == bucket
    assert address.scope_to_bucket(scope, 'cms-') == f'cms-{bucket}'
    assert address.bucket_to_scope(bucket) == scope


@pytest.mark.parametrize('bucket', ['x---361', 'x--user.alice', 'x--', 'x---9', 'x---4', 'x--a-', 'x---3ff', 'x--A', 'data_x', 'ab', 'other-user.alice'])
def test_a_foreign_bucket_has_no_scope(bucket):
    assert address.bucket_to_scope(bucket, 'cms-' if bucket.startswith('other') else '') is None


@pytest.mark.parametrize(('scope', 'prefix'), [('', ''), ('', 'cms-'), ('A' * 31, ''), ('a' * 64, ''), ('a' * 60, 'cms-'), ('ä' * 11, '')])
def test_a_scope_without_a_bucket_is_refused_and_named(scope, prefix):
    with pytest.raises(RSEFileNameNotSupported, match=re.escape(f"'{scope}'")):
        address.scope_to_bucket(scope, prefix)


# DIDs


def test_a_did_lies_in_the_bucket_of_its_scope_under_its_name():
    assert address.s3_bucket('user.alice', 'dir/a b%.root', 'X', {}, {}) == 'user.alice/dir/a b%.root'


@pytest.mark.parametrize('attributes', [{}, {'extended_attributes': None}, {'extended_attributes': {}}, {'extended_attributes': {'s3': None}}])
def test_a_protocol_without_settings_has_no_prefix(attributes):
    assert address.s3_bucket('mc23', 'f', None, {}, attributes) == 'mc23/f'


def test_the_bucket_prefix_of_the_protocol_is_used():
    attributes = {'extended_attributes': {'s3': {'bucket_prefix': 'cms-'}}}
    assert address.s3_bucket('mc23', 'f', 'X', {}, attributes) == 'cms-mc23/f'
    assert address.s3_bucket('MC', 'f', 'X', {}, attributes) == 'cms-x---m-c/f'


@given(SCOPES, KEYS, st.sampled_from(['', 'cms-']))
def test_the_inverse_finds_scope_and_name(scope, name, prefix):
    path = address.s3_bucket(scope, name, 'X', {}, {'extended_attributes': {'s3': {'bucket_prefix': prefix}}})
    assert address.s3_bucket_inverse(path, prefix) == (scope, name)
    assert address.s3_bucket_inverse('/' + path, prefix) == (scope, name)


def test_the_inverse_refuses_a_bucket_of_no_scope():
    with pytest.raises(RSEFileNameNotSupported, match="'Foreign' belongs to no scope"):
        address.s3_bucket_inverse('Foreign/key')


# URLs


@given(KEYS)
def test_any_key_survives_a_url_byte_for_byte(key):
    assert_survives(key)


@pytest.mark.parametrize('key', HARD_KEYS)
def test_a_hard_key_survives_a_url_byte_for_byte(key):
    assert_survives(key)


def assert_survives(key):
    url = f'https://host:9000/{address.encode_path(f"user.alice/{key}")}'
    assert re.fullmatch(r'[A-Za-z0-9/:._~%-]+', url)
    assert address.parse_url(url) == address.ObjectURL('https://host:9000', 'user.alice', key, '')


def test_a_signature_is_cut_off_and_kept_apart():
    assert address.parse_url('https://h/b/k%3F?X-Amz-Signature=1&a=?') == ('https://h', 'b', 'k?', 'X-Amz-Signature=1&a=?')


def test_what_is_not_encoded_is_taken_as_it_stands():
    """PFNs that other classes or people wrote."""
    assert address.parse_url('https://h/b/a b#c&d+e').key == 'a b#c&d+e'


def test_a_key_of_1024_bytes_is_taken_and_one_of_1025_refused():
    longest = 'ä' * 512
    assert address.parse_url(f'https://h/b/{address.encode_path(longest)}').key == longest
    with pytest.raises(RSEFileNameNotSupported, match='1025 bytes'):
        address.parse_url(f'https://h/b/{address.encode_path(longest + "a")}')


@pytest.mark.parametrize(
    'url', ['', 'https://', 'https://h', 'https://h/', 'https://h/b', 'https://h/b/', 'h/b/k', '/b/k', 'https:///b/k', 'https://h//k', '://h/b/k']
)
def test_what_names_no_object_is_refused(url):
    with pytest.raises(RSEFileNameNotSupported, match='expected scheme://host:port/bucket/key'):
        address.parse_url(url)


def test_a_bucket_alone_is_enough_where_no_key_is_needed():
    assert address.parse_url('https://h/b/', key_required=False) == ('https://h', 'b', '', '')


@pytest.mark.parametrize('path', ['b/%ff', '%ff/k'])
def test_percent_encoding_that_is_not_utf8_is_refused_without_its_signature(path):
    with pytest.raises(RSEFileNameNotSupported, match='not UTF-8') as caught:
        address.parse_url(f'https://h/{path}?X-Amz-Signature=hidden')
    assert 'hidden' not in str(caught.value)


# Registration


def test_importing_the_protocol_registers_the_algorithm():
    import rucio.rse.protocols.s3  # noqa: F401, PLC0415 - this import is what is tested
    from rucio.rse.translation import RSEDeterministicTranslation  # noqa: PLC0415

    assert RSEDeterministicTranslation.supports('s3_bucket')
    translator = RSEDeterministicTranslation('X', {'lfn2pfn_algorithm': 's3_bucket'}, {'extended_attributes': {'s3': {'bucket_prefix': 'vo-'}}}, vo='')
    assert translator.path('data_X', 'dir/f') == 'vo-x--data-0-x/dir/f'


@pytest.mark.parametrize(
    ('prefix', 'parts'),
    [
        ('/', ('', '')),
        ('', ('', '')),
        ('/bucket/', ('bucket', '')),
        ('/bucket/a/b%20c/', ('bucket', 'a/b c/')),
        ('bucket/a', ('bucket', 'a/')),
        ('X/aX/', ('X', 'aX/')),
    ],
)
def test_the_prefix_of_a_protocol_is_a_bucket_and_a_folder(prefix, parts):
    assert address.split_prefix(prefix) == parts


# What people type


@pytest.mark.parametrize(
    ('typed', 'found'),
    [
        ('user.alice', ('user.alice', '')),
        ('user.alice:', ('user.alice', '')),
        ('user.alice:f', ('user.alice', 'f')),
        ('user.alice/f', ('user.alice', 'f')),
        ('user.alice:run/1', ('user.alice', 'run/1')),
        ('user.alice/run:1', ('user.alice', 'run:1')),
        ('user.alice:/run/', ('user.alice', 'run')),
        ('user.alice:X/RUNX/', ('user.alice', 'X/RUNX')),
    ],
)
def test_a_did_is_split_at_its_first_mark(typed, found):
    assert address.parse_did(typed) == found
    if found[1]:
        assert address.parse_did(typed, need_name=True) == found


@pytest.mark.parametrize(
    ('typed', 'need_name', 'wanted'),
    [
        ('', False, 'scope or scope:name, such as'),
        (':f', False, 'scope or scope:name, such as'),
        ('/f', True, 'expected scope:name, such as'),
        ('user.alice', True, 'expected scope:name, such as'),
        ('user.alice:', True, 'expected scope:name, such as'),
        ('user.alice:/', True, 'expected scope:name, such as'),
    ],
)
def test_what_is_no_did_is_refused_with_an_example(typed, need_name, wanted):
    with pytest.raises(InputValidationError, match=wanted):
        address.parse_did(typed, need_name)


def test_an_empty_name_is_asked_for_by_default_only():
    assert address.parse_did('user.alice') == ('user.alice', '')
    with pytest.raises(InputValidationError, match=re.escape("'user.\\udcff' cannot be read in this terminal's encoding")):
        address.parse_did('user.\udcff')


# Names


@pytest.mark.parametrize(
    ('name', 'valid'),
    [
        ('abc', True),
        ('a' * 63, True),
        ('a' * 64, False),
        ('ab', False),
        ('a.b-c', True),
        ('a..b', False),
        ('a.-b', False),
        ('a-.b', False),
        ('-ab', False),
        ('ab-', False),
        ('Abc', False),
        ('a_b', False),
        ('192.168.0.1', False),
        ('192.168.0.1.2', True),
        ('xn--a', False),
        ('axn--', False),
        ('sthree-a', False),
        ('amzn-s3-demo-a', False),
        ('a-s3alias', False),
        ('a--ol-s3', False),
        ('a.mrap', False),
        ('a--x-s3', False),
        ('a--table-s3', False),
        ('a-an', False),
        ('an-an-a', True),
        ('abc\n', False),
    ],
)
def test_the_name_of_a_bucket_follows_the_strictest_rules(name, valid):
    assert address.is_bucket_name(name) is valid


@pytest.mark.parametrize(
    ('name', 'leaves', 'back'),
    [
        ('a', False, True),
        ('a/b', False, True),
        ('/a', False, True),
        ('//a', True, False),
        ('a//b', False, False),
        ('a/', False, False),
        ('a/../b', True, False),
        ('a/./b', True, False),
        ('..', True, False),
        ('.', True, False),
        ('a\0b', True, False),
        ('a..b/.c/d.', False, True),
    ],
)
def test_a_name_that_is_a_path_may_be_another_file(name, leaves, back):
    assert address.leaves_directory(name) is leaves
    assert address.comes_back(name) is back


@pytest.mark.parametrize(
    ('keys', 'folder'),
    [
        ([], ''),
        (['a/b'], 'a/b'),
        (['a/b', 'a/c'], 'a/'),
        (['a/b/x', 'a/b/y', 'a/c'], 'a/'),
        (['a', 'b'], ''),
        (['/a', '/b'], '/'),
        (['a/b', 'a/b'], 'a/'),
        (['a/b', 'a/bc'], 'a/'),
        (['a/b', 'a/b/c'], 'a/'),
        (['a/b/', 'a/b/c'], 'a/b/'),
        (['ab/c', 'a/c'], ''),
        (['x/1', 'x/2', 'x/3/4'], 'x/'),
    ],
)
def test_the_folder_that_keys_have_in_common(keys, folder):
    assert address.common_folder(keys) == folder
    assert address.common_folder(keys[::-1]) == folder


@pytest.mark.parametrize(('name', 'above'), [('a', []), ('a/b', ['a']), ('a/b/c', ['a', 'a/b']), ('/a/b', ['/a']), ('a/', ['a']), ('', [])])
def test_the_collections_above_a_name(name, above):
    assert address.ancestors(name) == above


# Requests


@pytest.mark.parametrize(
    ('url', 'is_its'),
    [
        ('https://s3.x:9000/b/k', True),
        ('https://s3.x:9000', True),
        ('https://s3.x:9000?x', True),
        ('https://s3.x:9000/', True),
        ('https://user.alice.s3.x:9000/k', True),
        ('HTTPS://B-1_2.S3.X:9000/k', True),
        ('http://s3.x:9000/b/k', False),
        ('https://s3.x:90001/b', False),
        ('https://s3.x/b/k', False),
        ('https://s3zx:9000/b', False),
        ('https://evils3.x:9000/b', False),
        ('https://evil/s3.x:9000/b', False),
        ('https://user@s3.x:9000/b', False),
        ('https://s3.x:9000@evil/b', False),
        ('https://s3.x:9000.evil/b', False),
        (' https://s3.x:9000/', False),
    ],
)
def test_a_request_is_to_a_storage_by_its_whole_host(url, is_its):
    assert address.is_request_to(url, 'https://S3.x:9000') is is_its


@pytest.mark.parametrize(
    ('url', 'endpoint', 'parts'),
    [
        ('https://s3.x:9000/b/k%20/l?a=1&b=&c=%2F', 'https://s3.x:9000', ('b', 'k /l', {'a': '1', 'b': '', 'c': '/'})),
        ('https://b.c.S3.X:9000/k/l', 'https://s3.x:9000', ('b.c', 'k/l', {})),
        ('https://b.s3.x:9000/k/l', 'https://S3.X:9000', ('b', 'k/l', {})),
        ('https://b.s3.x:9000/k/l', '', ('k', 'l', {})),
        ('https://b./k/l', '', ('k', 'l', {})),
        ('https://bs3.x:9000/k/l', 'https://s3.x:9000', ('k', 'l', {})),
        ('https://s3.x:9000', 'https://s3.x:9000', ('', '', {})),
        ('https://s3.x:9000/b?list-type=2', 'https://s3.x:9000', ('b', '', {'list-type': '2'})),
        ('https://b.s3.x:9000', 'https://s3.x:9000', ('b', '', {})),
        ('https://s3.x/b%2Fc/k?x=a?b', 'https://s3.x', ('b/c', 'k', {'x': 'a?b'})),
    ],
)
def test_bucket_and_key_of_a_request(url, endpoint, parts):
    assert address.parse_request(url, endpoint) == parts


def test_the_message_about_a_long_key_is_short():
    with pytest.raises(RSEFileNameNotSupported, match=re.escape(f"The key '{'k' * 40}...' has 1025 bytes: S3 allows 1024.")):
        address.parse_url(f'https://h/b/{"k" * 1025}')
