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

"""What `rucio s3 check` makes of an RSE and its storage: measured against what the settings say."""

import socket
from datetime import datetime, timezone

import pytest

from rucio.client.s3check import FAILED, HINT, OK, SKIPPED, check, runner, trial, vending
from rucio.client.s3check.subject import Subject
from rucio.common.exception import AccessDenied, RSEAccessDenied, RSEOperationNotSupported
from rucio.common.s3 import probes
from rucio.common.s3.settings import GUARDS
from servers.fake_s3 import error
from servers.fake_sns import SNS

BUCKET = 'user.alice'
# What a storage answers that does everything. test_probes.py asks real ones.
GOOD = {
    **dict.fromkeys(('put_if_none_match', 'complete_if_none_match'), '412 PreconditionFailed'),
    **dict.fromkeys(('put_race', 'complete_race'), 'one wins'),
    **dict.fromkeys(('put_new', 'complete_new', 'copy_new', 'copy_odd', 'part_copy'), 'yes'),
    **dict.fromkeys(('wrong_crc32', 'wrong_crc32_of_a_part', 'wrong_md5', 'wrong_md5_of_a_part'), '400 BadDigest'),
    **dict.fromkeys(('crc32_as_sent', 'full_object', 'etag_is_md5', 'etag_of_a_copy', 'delete_objects', 'without_md5'), 'yes'),
    **dict.fromkeys(('sorted_listing', 'double_slash', 'dot', 'case'), 'yes'),
    'sorted_unicode': 'no',
    'other_body': 'deleted',
    **{f'guard_{name}': '403 AccessDenied' for name in GUARDS},
}
MEASURED = {
    'checksum': 'crc32',
    **dict.fromkeys(('full_object_checksum', 'conditional_put', 'conditional_multipart'), True),
    'signature_guards': GUARDS,
}


class Catalogue:
    """What the check asks of Rucio's client."""

    account = 'alice'

    def __init__(self, rse):
        self.rse = {'availability_read': True, 'availability_write': True, 'availability_delete': True} | rse
        self.attributes = {'skip_upload_stat': True}
        self.scopes = ['other', 'user.alice']
        self.written = []
        self.admin = True

    def get_rse(self, rse):
        return self.rse

    def list_rses(self):
        return [{'rse': self.rse['rse']}]

    def list_rse_attributes(self, rse):
        return self.attributes

    def list_scopes_for_account(self, account):
        return self.scopes

    def list_scopes(self):
        return self.scopes

    def update_protocols(self, rse, scheme, data, hostname, port):
        if not self.admin:
            raise AccessDenied('alice may not do that. Ask an admin.')
        self.written.append((rse, scheme, data, hostname, port))


class Plugin:
    """The server's plugin."""

    host = 'https://rucio.example.org'

    def __init__(self):
        self.ways = []
        self.warnings = []
        self.overlaps = []
        self.more = {'sharing': True}
        self.refusal = None
        self.parts = []
        self.seen = GOOD

    def get_s3_rse(self, rse):
        if self.ways is None:
            raise RSEOperationNotSupported
        return {'auth': self.ways, 'overlaps': self.overlaps, **self.more}

    def probe_s3_rse(self, rse, part):
        if self.refusal:
            raise self.refusal
        self.parts.append(part)
        return {'bucket': 'b', 'left': '', 'answers': [{'behaviour': name, 'answer': answer} for name, answer in self.seen.items()]}

    def list_policy_warnings(self, scope, rse):
        return self.warnings

    def get_s3_credentials(self, rse, bucket, prefix):
        return {'access_key': 'KEY', 'secret_key': 'secret', 'session_token': 'token', 'region': 'de'}


@pytest.fixture(autouse=True)
def answers(monkeypatch):
    """What the storage answers to the probes: a test may change it."""
    answers = dict(GOOD)
    monkeypatch.setattr(probes, 'measure', lambda _: answers)
    return answers


@pytest.fixture
def keys(rucio_cfg):
    """Call it to give this machine keys for the RSE, or other settings."""

    def give(**settings):
        rucio_cfg({'s3:X': {'access_key': 'AKIDOFTHETESTS', 'secret_key': 'secret', 'max_attempts': '1', **settings}})

    give()
    return give


@pytest.fixture
def catalogue(rse, s3, keys):
    def make(**arguments):
        return Catalogue(rse(**({'url': s3.url, 's3': {'provider': 'seaweedfs'}} | arguments)))

    return make


def run(catalogue, plugin=None, bucket=None, write=''):
    return {result.name: result for result in check(catalogue, plugin or Plugin(), 'X', bucket, write)}


def statuses(results, status):
    return [name for name, result in results.items() if result.status == status]


def test_a_section_of_no_rse(catalogue, rucio_cfg):
    made = catalogue()
    rucio_cfg({'s3:X': {}, 's3:Y': {'progress': 'off'}})
    result = run(made)['settings']
    assert (result.status, result.found) == (HINT, 'rucio.cfg has sections of RSEs that do not exist: s3:Y')


def test_a_good_rse(catalogue, s3):
    results = run(catalogue())

    assert statuses(results, FAILED) == []
    assert statuses(results, HINT) == ['TLS', 'server plugin', 'lifecycle']
    assert results['bucket'].found == "'user.alice', of the scope user.alice"
    assert s3.buckets[BUCKET] == {}, 'all is removed'
    assert s3.uploads == {}
    assert [name for name in s3.buckets if name != BUCKET] == [], 'the bucket of the check, too'


def read_only(catalogue, **arguments):
    made = catalogue(deterministic=False, **arguments)
    for operations in made.rse['protocols'][0]['domains'].values():
        operations.update(write=0, delete=0)
    return made


def test_a_read_only_rse(catalogue, s3):
    s3.store(BUCKET, 'empty', b'')
    s3.store(BUCKET, 'full', b'12345')
    before = dict(s3.buckets)

    results = run(read_only(catalogue, prefix=f'/{BUCKET}/'))

    assert statuses(results, FAILED) == []
    assert results['list and read'].status == OK
    assert s3.buckets == before
    assert {request.operation for request in s3.requests} <= {'ListBuckets', 'ListObjectsV2', 'GetObject'}


@pytest.mark.parametrize(
    ('prefix', 'bucket', 'status', 'said'),
    [('/', None, SKIPPED, '--bucket'), ('/', BUCKET, HINT, 'no objects to read'), ('/nowhere/', None, FAILED, 'NoSuchBucket')],
)
def test_a_read_only_rse_of_which_nothing_can_be_read(catalogue, prefix, bucket, status, said):
    result = run(read_only(catalogue, prefix=prefix), bucket=bucket)['list and read']

    assert result.status == status
    assert said in result.found


@pytest.mark.parametrize(
    'case',
    [
        ({'conditional_put': False}, {}, 'conditional write', HINT, 'conditional_put = true'),
        ({}, {'put_if_none_match': 'overwritten'}, 'conditional write', FAILED, 'conditional_put = false'),
        ({}, {'put_race': 'several win'}, 'conditional write', FAILED, 'conditional_put = false'),
        ({'conditional_put': False}, {'put_if_none_match': 'overwritten'}, 'conditional write', OK, ''),
        ({'conditional_multipart': False}, {}, 'conditional multipart', HINT, 'conditional_multipart = true'),
        ({}, {'complete_if_none_match': 'overwritten'}, 'conditional multipart', FAILED, 'conditional_multipart = false'),
        ({}, {'complete_race': 'several win'}, 'conditional multipart', OK, ''),
        ({}, {'put_new': '501 NotImplemented'}, 'copies', HINT, 'if_none_match = multipart copy'),
        ({}, {'copy_new': '412 PreconditionFailed'}, 'copies', HINT, 'if_none_match = put multipart'),
        ({'if_none_match': ('put', 'multipart')}, {'copy_new': '412 PreconditionFailed'}, 'copies', OK, ''),
        ({'full_object_checksum': False}, {}, 'checksum of large files', HINT, 'full_object_checksum = true'),
        ({}, {'full_object': 'no'}, 'checksum of large files', FAILED, 'full_object_checksum = false'),
        ({'checksum': 'none'}, {}, 'CRC32', HINT, 'checksum = crc32'),
        ({}, {'wrong_crc32': 'accepted'}, 'CRC32', FAILED, 'checksum = md5'),
        ({}, {'wrong_crc32_of_a_part': 'accepted'}, 'CRC32', FAILED, 'checksum = md5'),
        ({}, {'crc32_as_sent': '411 MissingContentLength'}, 'CRC32', FAILED, 'checksum = md5'),
        ({'checksum': 'md5'}, {}, 'Content-MD5', OK, ''),
        ({'checksum': 'md5'}, {'wrong_md5': 'accepted'}, 'Content-MD5', FAILED, 'checksum = crc32'),
        ({}, {'without_md5': '400 InvalidRequest'}, 'deletion', OK, ''),
        ({}, {'delete_objects': '501 NotImplemented'}, 'deletion', HINT, ''),
        ({'signature_guards': ()}, {'guard_copy': 'heeded'}, 'unsigned headers', FAILED, 'signature_guards = copy'),
        ({'etag_is_md5': True}, {'etag_of_a_copy': 'no'}, 'ETags', FAILED, 'etag_is_md5 = false'),
        ({'sorted_listing': True}, {}, 'listing', FAILED, 'sorted_listing = false'),
        ({}, {'dot': '400 InvalidRequest'}, 'names', OK, ''),
        ({'verifies_body': True}, {'other_body': '400 XAmzContentSHA256Mismatch'}, 'bodies of requests', OK, ''),
        ({'verifies_body': True}, {}, 'bodies of requests', FAILED, 'verifies_body = false'),
        ({}, {'other_body': '400 XAmzContentSHA256Mismatch'}, 'bodies of requests', HINT, 'verifies_body = true'),
        ({}, {'other_body': '403 SignatureDoesNotMatch'}, 'bodies of requests', HINT, 'verifies_body = true'),
        ({}, {'other_body': '403 AccessDenied'}, 'bodies of requests', SKIPPED, ''),
        ({}, {}, 'bodies of requests', OK, ''),
        ({}, {'put_if_none_match': '403 AccessDenied'}, 'conditional write', SKIPPED, ''),
        ({}, {'put_if_none_match': 'breaks off'}, 'conditional write', SKIPPED, ''),
    ],
)
def test_what_is_measured_is_compared_with_what_is_set(measured, case):
    settings, seen, name, status, remedy = case
    result = measured(MEASURED | settings, seen)(name)
    assert (result.status, remedy in result.remedy) == (status, True), result


@pytest.fixture
def measured(rse, endpoint, answers):
    """Call it with settings and with what differs in the answers, and the result with the name of a trial."""

    def make(settings, seen):
        subject = Subject(Catalogue(rse()), Plugin(), 'X', None)
        subject.endpoint, subject.answers = endpoint(**settings), answers | seen
        return lambda name: runner._tried(next(each for each in runner.TRIALS if each.name == name), subject)

    return make


@pytest.mark.parametrize(
    ('message', 'expected'),
    [
        ('RSE X: put: the storage answered 403. Check the keys.', ('RSE X: put: the storage answered 403.', 'Check the keys.')),
        ('It failed. Ask. [request 8a6acc1689909e2a, of the storage 18EC]', ('It failed. [request 8a6acc1689909e2a, of the storage 18EC]', 'Ask.')),
        ('It failed', ('It failed', '')),
    ],
)
def test_the_remedy_of_a_message_is_its_last_sentence(message, expected):
    assert trial.split(message) == expected


# What is written


def test_settings_that_promise_too_much_are_offered_and_written(catalogue, answers):
    made = catalogue(s3={'provider': 'seaweedfs', 'etag_is_md5': False, 'region': 'mars'})
    answers.update(put_race='several win', copy_new='412 PreconditionFailed', guard_acl='heeded')
    offered = run(made)['measured settings']
    assert offered.status == HINT
    assert '--tighten sets conditional_put = false, signature_guards = prefix host acl.' in offered.remedy
    assert '--loosen sets etag_is_md5 = true, if_none_match = put multipart.' in offered.remedy
    assert made.written == []

    result = run(made, write='tighten')['measured settings']
    assert (result.status, result.found) == (OK, 'written: conditional_put = false, signature_guards = prefix host acl')
    safe = {'provider': 'seaweedfs', 'etag_is_md5': False, 'region': 'mars', 'conditional_put': False, 'signature_guards': ['prefix', 'host', 'acl']}
    assert made.written[-1][2]['extended_attributes']['s3'] == safe

    run(made, write='loosen')
    assert made.written[-1][2]['extended_attributes']['s3'] == safe | {'etag_is_md5': True, 'if_none_match': ['put', 'multipart']}


def test_only_an_admin_writes(catalogue, answers):
    made = catalogue()
    made.admin = False
    answers.update(put_race='several win')
    result = run(made, write='tighten')['measured settings']
    assert (result.status, 'alice may not' in result.found) == (FAILED, True)


# With the keys of the server


def test_the_server_measures_with_its_own_keys_for_an_admin(catalogue, s3):
    plugin = Plugin()
    plugin.ways, plugin.seen = ['another'], GOOD | {'put_race': 'several win'}
    results = run(catalogue(), plugin)
    assert results['keys of the server'].status == OK
    assert results['conditional write'].status == FAILED
    assert plugin.parts == list(probes.PARTS)


@pytest.mark.parametrize(
    ('error', 'status', 'told'),
    [
        (RSEAccessDenied('RSE X: make-bucket: the storage answered 403 SignatureDoesNotMatch. Check the keys.'), FAILED, 'SignatureDoesNotMatch'),
        (AccessDenied('alice is no admin'), SKIPPED, 'only an admin'),
        (RSEOperationNotSupported('no such route'), SKIPPED, 'older version'),
    ],
)
def test_keys_of_the_server_that_do_not_work_are_found(catalogue, error, status, told):
    plugin = Plugin()
    plugin.ways, plugin.refusal = ['another'], error
    results = run(catalogue(), plugin)
    assert (results['keys of the server'].status, told in results['keys of the server'].found) == (status, True)
    assert results['conditional write'].status == OK  # measured by this client


@pytest.mark.parametrize(
    ('arguments', 'name', 'status', 'told'),
    [
        ({'protocols': []}, 'protocol', FAILED, 'rucio s3 rse add'),
        ({'lfn2pfn_algorithm': 'hash'}, 'path algorithm', FAILED, 's3_bucket'),
        ({'lfn2pfn_algorithm': 'hash', 'prefix': '/user.alice/'}, 'path algorithm', OK, "hash in the bucket 'user.alice'"),
        ({'prefix': '/user.alice/'}, 'path algorithm', OK, "a folder for each scope in '/user.alice/'"),
        ({'deterministic': False}, 'path algorithm', HINT, 'not deterministic'),
        ({'s3': {'provider': 'generic'}}, 'settings', HINT, 'provider generic'),
        ({'s3': {'provider': 'nope'}}, 'settings', FAILED, "'provider' is 'nope'"),
        ({'s3': {'conditional_putt': True}}, 'settings', FAILED, 'Did you mean'),
    ],
)
def test_what_the_rse_says(catalogue, arguments, name, status, told):
    result = run(catalogue(**arguments))[name]

    assert result.status == status
    assert told in result.found + result.remedy


def test_another_class_and_missing_operations(catalogue):
    made = catalogue()
    made.rse['protocols'][0]['domains'] = {'wan': {'read': 1, 'write': 0, 'delete': 1}}
    assert 'lan read' in run(made)['domains'].found

    made.rse['protocols'][0]['impl'] = 'rucio.rse.protocols.posix.Default'
    result = run(made)['protocol']
    assert (result.status, 'posix' in result.found) == (FAILED, True)


def test_the_entry_of_fts_is_not_the_one_that_is_tried(catalogue):
    made = catalogue()
    (main,) = made.rse['protocols']
    copies = {'wan': {'third_party_copy_read': 1, 'third_party_copy_write': 1}}
    made.rse['protocols'].insert(0, {**main, 'scheme': 'davs', 'impl': 'rucio.rse.protocols.s3.FTS', 'domains': copies})
    results = run(made)
    assert results['protocol'].found.startswith(main['scheme'])
    assert results['domains'].found == 'read, write, delete and third party copies (davs)'
    assert statuses(results, FAILED) == []


@pytest.mark.parametrize(
    ('attributes', 'status', 'told'),
    [
        ({}, HINT, '--key skip_upload_stat --value True'),
        ({'skip_upload_stat': 'True'}, OK, ''),
        ({'skip_upload_stat': True, 'sign_url': 'gcs'}, FAILED, '--key sign_url --value s3'),
        ({'skip_upload_stat': True, 'sign_url': 's3'}, HINT, 'Remove'),
    ],
)
def test_attributes(catalogue, attributes, status, told):
    made = catalogue()
    made.attributes = attributes
    result = run(made)['attributes']

    assert (result.status, told in result.remedy) == (status, True)


def test_nobody_listens(catalogue, free_port):
    results = run(catalogue(url=f'http://127.0.0.1:{free_port}'))

    assert {'connection', 'clock', 'bucket'} <= set(statuses(results, FAILED))
    assert results['multipart'].status == SKIPPED
    assert 'host name and port' in results['connection'].remedy


@pytest.fixture
def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def test_a_name_that_does_not_exist(catalogue):
    result = run(catalogue(url='http://nowhere.invalid:9000'))['DNS']

    assert (result.status, 'nowhere.invalid' in result.found) == (FAILED, True)


def test_no_credentials(catalogue, rucio_cfg):
    made = catalogue()
    rucio_cfg({})
    results = run(made)

    assert statuses(results, FAILED) == ['credentials']
    assert 'rucio.cfg [s3:X]' in results['credentials'].remedy
    assert results['write and read'].status == SKIPPED


@pytest.mark.parametrize(('status', 'code'), [(403, 'SignatureDoesNotMatch'), (404, 'XAdminUserNotFound')])
def test_keys_that_are_refused_are_told_once(catalogue, s3, status, code):
    s3.fail('ListObjectsV2', *(error(403, 'InvalidAccessKeyId') for _ in range(5)))
    s3.fail('CreateBucket', error(403, 'InvalidAccessKeyId'))
    results = run(catalogue())

    assert statuses(results, FAILED) == ['bucket']
    assert 'rucio.cfg [s3:X]' in results['bucket'].remedy

    s3.fail('ListBuckets', *(error(status, code) for _ in range(2)))  # the first one is asked for its clock
    results = run(catalogue())

    assert statuses(results, FAILED) == ['credentials']
    assert 'rucio.cfg [s3:X]' in results['credentials'].remedy


def test_the_clock(catalogue, monkeypatch):
    monkeypatch.setattr('rucio.client.s3check.network.parsedate_to_datetime', lambda _: datetime(2001, 1, 1, tzinfo=timezone.utc))
    result = run(catalogue())['clock']

    assert (result.status, 'NTP' in result.remedy) == (FAILED, True)


def test_objects_are_removed_when_nobody_asks_for_the_rest(catalogue, s3):
    results = check(catalogue(), Plugin(), 'X')
    for result in results:
        if result.name == 'multipart':
            break
    assert s3.buckets[BUCKET]
    results.close()

    assert s3.buckets[BUCKET] == {}


def test_what_cannot_be_removed_is_told(catalogue, s3):
    s3.fail('DeleteObject', *(error(403, 'AccessDenied') for _ in range(100)))
    result = run(catalogue())['clean-up']

    assert result.status == FAILED
    assert 'user.alice/.rucio-s3-check/' in result.found


@pytest.mark.parametrize('ways', [None, [], ['another']])
def test_the_plugin(catalogue, ways):
    plugin = Plugin()
    plugin.ways = ways
    result = run(catalogue(), plugin)['server plugin']

    assert result.status == (OK if ways else HINT)


def test_a_policy_that_keeps_the_server_out(catalogue):
    plugin = Plugin()
    assert run(catalogue(), plugin)['bucket policy'].status == OK
    plugin.warnings = ['It denies everything.']
    result = run(catalogue(), plugin)['bucket policy']
    assert (result.status, result.found) == (HINT, 'It denies everything.')
    assert '--remove' in result.remedy


def test_a_place_that_is_not_its_own(catalogue):
    plugin = Plugin()
    assert run(catalogue(), plugin)['place'].status == OK
    plugin.overlaps = [{'rse': 'Y', 'why': 'Y uses the same keys for all files'}, {'rse': None, 'why': 'an RSE of another VO can have the same keys'}]
    result = run(catalogue(), plugin)['place']
    assert (result.status, result.found) == (FAILED, 'Y uses the same keys for all files; an RSE of another VO can have the same keys')


@pytest.mark.parametrize(
    ('scopes', 'pair'),
    [
        (['group.p', 'group.p.higgs'], ('group.p', 'group.p.higgs')),
        (['user', 'user.a.b.c'], ('user', 'user.a.b.c')),
        (['group.p', 'group.px', 'data.x', 'data.x.y'], None),
    ],
)
def test_scopes_that_are_folders_of_others(catalogue, scopes, pair):
    made = catalogue(prefix='/user.alice/', lfn2pfn_algorithm='identity')
    made.scopes = scopes
    result = run(made)['place']
    if pair:
        assert result.status == HINT
        assert all(scope in result.found for scope in pair)
    else:
        assert result.status == OK


# Topics


@pytest.mark.parametrize(
    ('refuses', 'topics', 'status', 'found'),
    [
        ({'all': 405}, ['rucio-s3-X'], OK, 'vended keys cannot access topics'),
        ({'create_topic': 403, 'delete_topic': 403}, [], OK, 'vended keys cannot access topics'),  # Ceph 20 shows what they may see
        ({}, ['other'], FAILED, 'vended keys may delete, make, see topics'),
        ({}, ['rucio-s3-X'], FAILED, 'vended keys may delete, make, see topics: also rucio-s3-X'),
        ({'create_topic': 403, 'delete_topic': 403}, ['other', 'rucio-s3-X'], FAILED, 'vended keys may see topics: also rucio-s3-X'),
    ],
)
def test_topics_and_vended_keys(catalogue, monkeypatch, refuses, topics, status, found):
    plugin, shared, make = Plugin(), {name: {} for name in topics}, vending.factory.client
    plugin.ways = ['vended']
    monkeypatch.setattr(
        vending.factory, 'client', lambda service, *more, **options: SNS(shared, refuses) if service == 'sns' else make(service, *more, **options)
    )
    monkeypatch.setattr(runner, 'TRIALS', [each for each in runner.TRIALS if each.name != 'vended keys (STS)'])
    results = run(catalogue(s3={'provider': 'ceph'}), plugin)
    assert results['event topics'][1:3] == (status, found)
    assert sorted(shared) == sorted(topics)


def test_where_there_can_be_no_topics_none_are_tried(catalogue):
    assert run(catalogue())['event topics'].found == 'the storage has no topics'
    assert run(catalogue(s3={'provider': 'ceph'}))['event topics'].found == 'the server vends no keys'


@pytest.mark.parametrize(
    ('more', 'status', 'remedy'),
    [({'sharing': True}, OK, ''), ({'sharing': False}, HINT, 'Run rucio-s3-database on the Rucio server.'), ({}, SKIPPED, '')],
)
def test_the_table_of_grants_is_missing(catalogue, more, status, remedy):
    plugin = Plugin()
    plugin.more = more
    result = run(catalogue(), plugin)['sharing']
    assert (result.status, result.remedy) == (status, remedy)
