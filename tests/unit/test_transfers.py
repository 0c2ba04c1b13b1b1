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

"""The transfertool s3 and its transfers: who takes which, and what becomes of them. A catalogue in a file, a fake S3."""

import hashlib
import re
import threading
import time
import zlib
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import update
from sqlalchemy.orm import Session

from rucio.common.exception import DatabaseException, RSENotFound, ServiceUnavailable
from rucio.common.s3 import content
from rucio.common.s3.content import Checksums
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.settings import Secrets
from rucio.common.types import InternalScope
from rucio.common.utils import generate_uuid
from rucio.core.s3 import storages
from rucio.core.s3.transfers import claims, copying, outcomes, requests
from rucio.daemons.s3 import copier
from rucio.db.sqla import models
from rucio.db.sqla.constants import RequestState, RequestType
from rucio.transfertool import s3 as transfertool
from servers.boto import copies_conditionally
from servers.fake_s3 import Answer, Lost, error

ALICE = InternalScope('user.alice')
MiB = 1024**2
HERE, THERE, BESIDE = 'a' * 32, 'b' * 32, 'c' * 32
MINE, OTHERS = 'mine', 'others'


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(claims, '_answers', {})
    monkeypatch.setattr(claims, '_warned', {})
    monkeypatch.setattr(claims, '_urls', {})


@pytest.fixture
def session(database):
    """A session of a catalogue without constraints: only the requests matter."""
    with database.connect() as connection:
        connection.exec_driver_sql('PRAGMA foreign_keys=OFF')
        with Session(connection) as opened:
            yield opened


@pytest.fixture
def submit(session):
    def submit(name='file', **values):
        usual = {'scope': ALICE, 'name': name, 'dest_rse_id': THERE, 'source_rse_id': HERE, 'state': RequestState.SUBMITTED, 'transfertool': 's3'}
        usual |= {'id': generate_uuid(), 'external_id': generate_uuid(), 'bytes': 1, 'submitted_at': copying._now()}
        request = models.Request(**usual | values)
        session.add(request)
        session.flush()
        return request.id

    return submit


def names(found):
    return [each.name for each in found]


def test_the_highest_priority_comes_first_then_who_waits_longest(session, submit):
    now = copying._now()
    submit('late', priority=3, submitted_at=now)
    submit('early', priority=3, submitted_at=now - timedelta(hours=1))
    submit('none', submitted_at=now - timedelta(minutes=30))
    submit('high', priority=5, submitted_at=now)
    submit('low', priority=1, submitted_at=now - timedelta(days=1))
    assert names(claims.claim_transfers(MINE, 3, session=session)) == ['high', 'early', 'none']
    assert names(claims.claim_transfers(MINE, 3, session=session)) == ['late', 'low']


def test_what_the_caller_has_in_hand_is_skipped(session, submit):
    """Also where that is more than it asks for."""
    mine = [submit(f'{number}', priority=5) for number in range(5)]
    submit('free', priority=1)
    assert names(claims.claim_transfers(MINE, 3, mine, session=session)) == ['free']


@pytest.mark.parametrize(
    'values',
    [
        {'state': RequestState.QUEUED},
        {'state': RequestState.DONE},
        {'transfertool': 'fts3'},
        {'transfertool': None},
        {'request_type': RequestType.STAGEIN},
        {'external_id': None},
    ],
)
def test_what_is_not_for_the_copier_is_left_alone(session, submit, values):
    submit(**values)
    assert not claims.claim_transfers(MINE, 10, session=session)


def claimed(session, instance, seconds=0):
    """What stands in a request that an instance has claimed."""
    return f'{transfertool.EXTERNAL_HOST}/{claims._clock(session) - seconds}/{instance}'


def test_a_claim_holds_until_it_is_stale(session, submit, monkeypatch):
    now = claims._clock(session)
    monkeypatch.setattr(claims, '_clock', lambda _: now)
    submit('fresh', external_host=claimed(session, OTHERS))
    submit('just fresh', external_host=claimed(session, 'A', claims.LEASE))
    submit('stale', external_host=claimed(session, OTHERS, claims.LEASE + 1))
    submit('unknown', external_host=None)
    assert sorted(names(claims.claim_transfers(MINE, 10, session=session))) == ['stale', 'unknown']
    assert not claims.claim_transfers(OTHERS, 10, session=session)
    claims.release(MINE, session=session)
    assert sorted(names(claims.claim_transfers(OTHERS, 10, session=session))) == ['stale', 'unknown']


@pytest.mark.parametrize('taken', [{'external_host': f'{transfertool.EXTERNAL_HOST}/9999999999/{OTHERS}'}, {'state': RequestState.DONE}])
def test_what_another_takes_or_ends_meanwhile_is_not_claimed(session, submit, monkeypatch, taken):
    submit()
    look = claims._transfer

    def slowly(row, session):
        found = look(row, session)
        session.execute(update(models.Request).values(**taken))
        return found

    monkeypatch.setattr(claims, '_transfer', slowly)
    assert not claims.claim_transfers(MINE, 1, session=session)
    session.expire_all()
    assert [{name: getattr(row, name) for name in taken} for row in session.query(models.Request)] == [taken]


def test_a_claim_is_renewed_and_those_of_others_stay_as_they_are(session, submit):
    for name in ('mine', 'also mine', 'done'):
        submit(name, external_host=claimed(session, MINE, claims.LEASE - 1))
    submit('theirs', external_host=claimed(session, OTHERS, claims.LEASE + 1))
    submit('free')
    before = hosts(session)
    [mine, done] = [transfer(b'x')._replace(id=row.id, external_id=row.external_id) for row in session.query(models.Request) if row.name in ('mine', 'done')]
    session.execute(update(models.Request).where(models.Request.name == 'done').values(state=RequestState.DONE))
    assert claims.renew(MINE, [mine, done], session=session) == {mine.id}
    session.expire_all()
    changed = {name: host for name, host in hosts(session).items() if host != before[name]}
    assert list(changed) == ['mine']
    assert changed['mine'] > before['mine']
    claims.release(MINE, session=session)
    session.expire_all()
    assert hosts(session) == before | dict.fromkeys(['mine', 'also mine'], transfertool.EXTERNAL_HOST)


@pytest.mark.parametrize(
    ('dialect', 'asked', 'answer'),
    [
        ('sqlite', 'CURRENT_TIMESTAMP', datetime(2026, 1, 1, 12)),  # noqa: DTZ001 - as SQLite has it
        ('postgresql', 'CURRENT_TIMESTAMP', datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))),
        ('mysql', 'utc_timestamp()', datetime(2026, 1, 1, 12)),  # noqa: DTZ001
        ('oracle', 'sys_extract_utc(SYSTIMESTAMP)', datetime(2026, 1, 1, 12)),  # noqa: DTZ001
    ],
)
def test_the_time_is_that_of_the_database_in_whatever_zone_it_is(monkeypatch, dialect, asked, answer):
    monkeypatch.setenv('TZ', 'Asia/Tokyo')
    time.tzset()
    try:
        bind = SimpleNamespace(dialect=SimpleNamespace(name=dialect))
        said = []
        fake = SimpleNamespace(get_bind=lambda: bind, execute=lambda stmt: said.append(str(stmt)) or SimpleNamespace(scalar_one=lambda: answer))
        assert claims._clock(fake) == datetime(2026, 1, 1, 12, tzinfo=timezone.utc).timestamp()
        assert f'SELECT {asked} ' in said[0]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_the_poller_notes_takes_no_claim_away(session, submit):
    submit()
    assert claims.claim_transfers(MINE, 1, session=session)
    for row in session.query(models.Request):
        row.last_processed_by, row.last_processed_at = 'conveyor-poller', copying._now()
    session.flush()
    assert not claims.claim_transfers(OTHERS, 1, session=session)


def test_clocks_of_other_machines_do_not_matter(session, submit, monkeypatch):
    submit()
    assert claims.claim_transfers(MINE, 1, session=session)
    monkeypatch.setattr(copying, '_now', lambda: datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(hours=1))
    assert not claims.claim_transfers(OTHERS, 1, session=session)


def test_who_was_away_does_not_take_a_claim_back(session, submit):
    submit()
    mine = claims.claim_transfers(MINE, 1, session=session)
    for row in session.query(models.Request):
        row.external_host = claimed(session, MINE, claims.LEASE + 1)
    session.flush()
    others = claims.claim_transfers(OTHERS, 1, session=session)
    assert [each.id for each in others] == [each.id for each in mine]
    assert not claims.renew(MINE, mine, session=session)
    assert claims.renew(OTHERS, others, session=session)


def test_what_nobody_wants_any_more_is_seen(session, submit):
    for name in ('kept', 'deleted', 'anew', 'done'):
        submit(name)
    taken = claims.claim_transfers(MINE, 10, session=session)
    by_name = {row.name: row for row in session.query(models.Request)}
    session.delete(by_name['deleted'])
    by_name['anew'].external_id = generate_uuid()
    by_name['done'].state = RequestState.DONE
    session.flush()
    wanted = claims.renew(MINE, taken, session=session)
    assert [each.name for each in taken if each.id in wanted] == ['kept']


def add_sources(session, request, *sources, linked=()):
    """Sources of a request: RSE id, ranking, whether in use; ``linked``: those that have a distance to THERE."""
    for rse_id, ranking, using in sources:
        session.add(models.Source(request_id=request, scope=ALICE, name='file', rse_id=rse_id, dest_rse_id=THERE, ranking=ranking, is_using=using, url='u'))
    for rse_id in linked:
        session.add(models.Distance(src_rse_id=rse_id, dest_rse_id=THERE, distance=1))
    session.flush()


def test_sources_come_in_their_order(session, submit):
    all_of_them = (BESIDE, 5, True), (HERE, -1, True), ('d' * 32, 7, True), ('e' * 32, 9, False), (THERE, 9, True)
    add_sources(session, submit(), *all_of_them, linked=[HERE, BESIDE, 'd' * 32, 'e' * 32])
    [taken] = claims.claim_transfers(MINE, 1, session=session)
    assert [each.rse_id for each in taken.sources] == [HERE, 'd' * 32, BESIDE]
    assert {each.url for each in taken.sources} == {'u'}


def test_a_source_without_a_rank_has_rank_zero(session, submit):
    add_sources(session, submit(), ('d' * 32, None, True), (BESIDE, 0, True), linked=['d' * 32, BESIDE])
    [taken] = claims.claim_transfers(MINE, 1, session=session)
    assert [each.rse_id for each in taken.sources] == [BESIDE, 'd' * 32]


def test_the_source_that_rucio_chose_is_one_without_a_distance_and_without_a_url(session, submit):
    add_sources(session, submit(), (HERE, 0, True))
    session.execute(update(models.Source).values(url=None))
    submit('no source is noted')
    for taken in claims.claim_transfers(MINE, 2, session=session):
        assert taken.sources == (requests.Source(HERE, '', HERE),)


def test_what_lies_behind_another_rse_is_no_source(session, submit):
    """Rucio notes the sources of all hops with the last request, too."""
    session.add(models.Distance(src_rse_id=BESIDE, dest_rse_id='f' * 32, distance=1))
    session.add(models.Distance(src_rse_id='d' * 32, dest_rse_id=THERE, distance=None))
    add_sources(session, submit(), (HERE, 0, True), (BESIDE, 0, True), ('d' * 32, 0, True), linked=[HERE])
    [taken] = claims.claim_transfers(MINE, 1, session=session)
    assert [each.rse_id for each in taken.sources] == [HERE]


def test_the_sources_of_another_request_are_not_those_of_this_one(session, submit):
    """Of two with the same rank, the order is always the same."""
    requests_ = submit(priority=4), submit(priority=3, scope=InternalScope('user.bob'))
    sources = [HERE, 'e' * 32, 'd' * 32], [BESIDE]
    for request, rses in zip(requests_, sources, strict=True):
        add_sources(session, request, *((rse_id, 0, True) for rse_id in rses))
    for rse_id in ('d' * 32, 'e' * 32, BESIDE):
        session.add(models.Distance(src_rse_id=rse_id, dest_rse_id=THERE, distance=1))
    taken = claims.claim_transfers(MINE, 2, session=session)
    assert [[each.rse_id for each in transfer.sources] for transfer in taken] == [[HERE, 'd' * 32, 'e' * 32], [BESIDE]]


def test_a_transfer_has_what_the_request_says(session, submit):
    submit(dest_url='https://there/x', md5='', adler32='', bytes=None)
    [taken] = claims.claim_transfers(MINE, 1, session=session)
    assert (taken.dest_url, taken.checksums, taken.bytes, taken.scope, taken.dest_rse_id) == ('https://there/x', Checksums(None, None), 0, ALICE, THERE)
    submit(md5='m', adler32='a', bytes=7)
    [taken] = claims.claim_transfers(MINE, 1, session=session)
    assert (taken.dest_url, taken.checksums, taken.bytes) == ('', Checksums('m', 'a'), 7)


def test_whether_there_are_keys_is_remembered_for_a_minute(session, submit, monkeypatch):
    submit()
    monkeypatch.setattr(claims.time, 'monotonic', lambda: 1000)
    for age, taken in ((59, []), (60, ['file'])):
        claims._answers[THERE] = 1000 - age, False
        assert names(claims.claim_transfers(MINE, 1, session=session)) == taken


def test_what_is_known_of_keys_and_silence_is_not_asked_again(session, submit, monkeypatch):
    asked, has, silent = [], {HERE: True, THERE: False, BESIDE: False, 'd' * 32: True}, {'of b', 'of d'}
    monkeypatch.setattr(claims.time, 'monotonic', lambda: 1000)
    monkeypatch.setattr(claims, '_answers', {rse_id: (999, known) for rse_id, known in has.items()})
    monkeypatch.setattr(claims, '_urls', {rse_id: f'of {rse_id[0]}' for rse_id in has})
    monkeypatch.setattr(claims.breaker, 'is_silent', lambda url: url in silent)
    monkeypatch.setattr(claims._KeyAvailability, '_ask', lambda _, rse_id, __: asked.append(rse_id) or True)
    for rse_id in has:
        submit(dest_rse_id=rse_id)
    assert len(claims.claim_transfers(MINE, 9, session=session)) == 2
    assert asked == ['d' * 32], 'it was not silent a second ago'


def test_the_name_of_an_instance_is_no_pattern(session, submit):
    submit()
    taken = claims.claim_transfers(MINE, 1, session=session)
    for other in ('m_ne', '%', 'ne', 'not-mine'):
        claims.release(other, session=session)
        assert claims.renew(other, taken, session=session) == set()
    assert claims.renew(MINE, taken, session=session)


# Carrying out


@pytest.fixture
def site(s3, monkeypatch, database):
    """RSEs on the fake S3: HERE and BESIDE with the same keys, THERE with others. Each has buckets of its own."""

    def make(rse, rse_id, key, prefix, **settings):
        protocol = {'scheme': 'http', 'hostname': '127.0.0.1', 'port': s3.port, 'prefix': '/', 'impl': 'rucio.rse.protocols.s3.Default'}
        domain = {'read': 1, 'write': 1, 'delete': 1}
        protocol |= {'domains': {'wan': domain, 'lan': domain}, 'extended_attributes': {'s3': {'bucket_prefix': prefix}}}
        usual = {'rse': rse, 'id': rse_id, 'deterministic': True, 'lfn2pfn_algorithm': 's3_bucket', 'protocols': [protocol]}
        conditional = {'conditional_put': True, 'conditional_multipart': True, 'etag_is_md5': True, 'max_attempts': 1}
        endpoint = Endpoint(rse, rse_id, s3.url, bucket_prefix=prefix, secrets=Secrets(key, 'a-secret'), **conditional)
        return storages.Storage(rse, rse_id, 'def', endpoint, usual | settings, protocol)

    made = (make('HERE', HERE, 'ONE', ''), make('BESIDE', BESIDE, 'ONE', 'beside-'), make('THERE', THERE, 'TWO', 'there-'))
    known = {each.rse: each for each in made}

    def get_storage(rse, vo, *, session):
        if rse not in known:
            raise RSENotFound(f"There is no S3 RSE '{rse}'.")
        return known[rse]

    for module in (claims, copying):
        monkeypatch.setattr(module, 'get_rse_name', lambda rse_id, **_: {HERE: 'HERE', THERE: 'THERE', BESIDE: 'BESIDE'}.get(rse_id, rse_id))
    monkeypatch.setattr(copying.storages, 'get_storage', get_storage)
    copying._made.clear()
    return known


def transfer(body, dest=THERE, sources=(HERE,), checksums=None):
    if checksums is None:
        checksums = Checksums(hashlib.md5(body).hexdigest(), f'{zlib.adler32(body):08x}')
    return requests.Transfer('1', '2', ALICE, 'dir/file', len(body), checksums, dest, '', tuple(requests.Source(each, '') for each in sources))


def carry_out(*arguments, **keywords):
    return copying.carry_out(transfer(*arguments, **keywords), threading.Event())


@pytest.mark.parametrize('body', [b'', b'content'])
def test_bytes_go_from_storage_to_storage(s3, site, body):
    s3.store('user.alice', 'dir/file', body)
    outcome = carry_out(body)
    assert (outcome.error, outcome.how, outcome.state) == ('', 'relayed', RequestState.DONE)
    assert s3.content('there-user.alice', 'dir/file') == body  # and the bucket was made


def test_a_storage_copies_by_itself(s3, site):
    s3.make_bucket('there-user.alice')
    for bucket in ('user.alice', 'there-user.alice'):  # what lies on the same storage comes first
        s3.store(bucket, 'dir/file', b'content')
    outcome = carry_out(b'content', dest=BESIDE, sources=(THERE, HERE))
    assert (outcome.error, outcome.how, outcome.source.rse_id) == ('', 'copied', HERE)
    assert s3.content('beside-user.alice', 'dir/file') == b'content'
    assert not {'GetObject', 'PutObject'} & set(s3.operations())


def test_a_bucket_is_looked_for_once(s3, site):
    s3.store('user.alice', 'dir/file', b'content')
    for _ in range(2):
        assert not carry_out(b'content').error
        del s3.buckets['there-user.alice']['dir/file']
    assert s3.operations().count('CreateBucket') == s3.operations().count('HeadBucket') == 1
    del s3.buckets['there-user.alice']
    assert 'NoSuchBucket' in carry_out(b'content').error
    assert carry_out(b'content').how == 'relayed', 'it was made again'


@pytest.mark.parametrize(
    ('there', 'how'),
    [
        ({'body': b'content'}, 'found'),
        ({'body': b'content', 'etag': 'multipart-2'}, 'found'),
        *(({'body': body}, '') for body in (b'CONTENT', b'longer content', b'')),
    ],
)
def test_an_object_that_is_there_is_the_file_or_stays(s3, site, there, how):
    s3.store('user.alice', 'dir/file', b'content')
    s3.store('there-user.alice', 'dir/file', **there)
    outcome = carry_out(b'content')
    assert outcome.how == how
    assert ('already, and it is not the file (7 bytes). Move it away' in outcome.error) == (not how)
    assert ('before you delete the rule: ' in outcome.error) == (not how)
    assert s3.content('there-user.alice', 'dir/file') == there['body']


@pytest.mark.parametrize('there', [b'content', b'CONTENT'])
def test_without_checksums_source_and_destination_are_compared(s3, site, there):
    s3.store('user.alice', 'dir/file', b'content')
    s3.store('there-user.alice', 'dir/file', there, etag='unknown-1')
    assert bool(carry_out(b'content', checksums=Checksums()).error) == (there != b'content')


def test_without_checksums_an_empty_file_is_not_read(s3, site):
    for bucket in ('user.alice', 'there-user.alice'):
        s3.store(bucket, 'dir/file', b'', etag='unknown-1')
    assert carry_out(b'', checksums=Checksums()).how == 'found'
    assert s3.operations() == ['HeadObject']


@pytest.mark.parametrize('dest', [THERE, BESIDE])
def test_without_checksums_the_size_decides(s3, site, dest):
    s3.store('user.alice', 'dir/file', b'longer content')
    outcome = carry_out(b'content', dest=dest, checksums=Checksums())
    assert "RSE HERE: get of bucket 'user.alice', key 'dir/file': it has 14 bytes, but the catalogue says 7." in outcome.error
    assert not any('dir/file' in objects for name, objects in s3.buckets.items() if name != 'user.alice')


def test_the_source_is_closed_where_the_copy_ends_early(s3, site, monkeypatch):
    closed, close = [], copying.Verified.close

    def upload_stream(_, stream, *__):
        stream.read(1)
        raise ServiceUnavailable('It broke off.')

    monkeypatch.setattr(copying.Verified, 'close', lambda self: (closed.append(self), close(self)))
    monkeypatch.setattr(copying.transfer, 'upload_stream', upload_stream)
    s3.store('user.alice', 'dir/file', b'content')
    assert carry_out(b'content').error == 'It broke off.'
    assert len(closed) == 1


def test_a_lost_answer_is_no_failure(s3, site):
    s3.store('user.alice', 'dir/file', b'content')
    s3.make_bucket('there-user.alice')
    s3.fail('PutObject', Lost(error(500, 'InternalError')))
    outcome = carry_out(b'content')
    assert (outcome.error, outcome.how) == ('', 'found')


@pytest.mark.parametrize('dest', [THERE, BESIDE])
@pytest.mark.parametrize('body', [b'CONTENT', b'longer content'])
def test_a_source_that_is_not_the_file_is_not_copied(s3, site, dest, body):
    s3.store('user.alice', 'dir/file', body)
    outcome = carry_out(b'content', dest=dest)
    assert outcome.state == RequestState.FAILED
    assert outcome.error.startswith('RSE HERE: ')
    assert 'but the catalogue says' in outcome.error
    assert not any('dir/file' in objects for name, objects in s3.buckets.items() if name != 'user.alice')


def test_one_object_is_no_replica_of_two_rses(s3, site, monkeypatch):
    s3.store('user.alice', 'dir/file', b'content')
    monkeypatch.setitem(site, 'THERE', replace(site['HERE'], rse='THERE'))
    outcome = carry_out(b'content')
    assert "RSE THERE and RSE HERE store it as the same object, bucket 'user.alice', key 'dir/file'" in outcome.error
    assert 'rucio rse update THERE --key availability_delete --value False' in outcome.error
    assert s3.content('user.alice', 'dir/file') == b'content'


def test_a_copy_is_of_the_version_that_was_looked_at(s3, site):
    s3.store('user.alice', 'dir/file', b'content')
    assert carry_out(b'content', dest=BESIDE).how == 'copied'
    [copy] = [each for each in s3.requests if each.operation == 'CopyObject']
    assert copy.headers['x-amz-copy-source-if-match'] == f'"{hashlib.md5(b"content").hexdigest()}"'
    # Of the destination, of the source, and of the destination just before and after.
    assert s3.operations().count('HeadObject') == 4


@pytest.mark.parametrize('said', [error(501, 'NotImplemented'), error(400, 'NotImplemented'), error(405, 'MethodNotAllowed'), error(400, 'InvalidPart')])
def test_what_the_storage_does_not_copy_goes_through_here(s3, site, said):
    s3.store('user.alice', 'dir/file', b'content')
    s3.fail('CopyObject', said, said)  # with If-None-Match, and without it
    outcome = carry_out(b'content', dest=BESIDE)
    assert (outcome.error, outcome.how) == ('', 'relayed')
    assert s3.content('beside-user.alice', 'dir/file') == b'content'


@pytest.mark.parametrize(
    'changed', [{'url': 'http://localhost:{port}'}, {'secrets': Secrets('OTHER', 'a-secret')}, {'secrets': Secrets(), 'auth': 'anonymous'}]
)
def test_only_who_can_read_the_source_at_the_same_endpoint_copies_inside_the_storage(s3, site, monkeypatch, changed):
    if 'url' in changed:
        changed = {'url': changed['url'].format(port=s3.port)}
    anonymous = 'auth' in changed
    for rse in ('HERE', 'BESIDE') if anonymous else ('BESIDE',):
        monkeypatch.setitem(site, rse, replace(site[rse], endpoint=replace(site[rse].endpoint, **changed)))
    s3.store('user.alice', 'dir/file', b'content')
    outcome = carry_out(b'content', dest=BESIDE)
    assert (outcome.error, outcome.how) == ('', 'relayed')


@pytest.mark.parametrize('etag', ['a' * 32, 'a' * 32 + '-2'])
def test_an_etag_that_need_not_be_an_md5_does_not_refuse_a_copy(s3, site, monkeypatch, etag):
    monkeypatch.setitem(site, 'HERE', replace(site['HERE'], endpoint=replace(site['HERE'].endpoint, etag_is_md5=False)))
    s3.store('user.alice', 'dir/file', b'content', etag=etag)
    assert carry_out(b'content', dest=BESIDE).how == 'copied'


def test_an_empty_object_is_the_file_whatever_its_etag(s3, site):
    s3.store('user.alice', 'dir/file', b'', etag='a' * 32)
    assert carry_out(b'', dest=BESIDE).how == 'copied'
    s3.store('beside-user.alice', 'dir/file', b'', etag='b' * 32)
    s3.requests.clear()
    assert carry_out(b'', dest=BESIDE).how == 'found'
    assert s3.operations() == ['HeadObject']


def test_content_that_is_known_by_its_md5_is_not_read(s3, site):
    for bucket in ('user.alice', 'there-user.alice'):
        s3.store(bucket, 'dir/file', b'content')
    assert carry_out(b'content').how == 'found'
    assert s3.operations() == ['HeadObject']
    assert carry_out(b'content', checksums=Checksums(None, f'{zlib.adler32(b"content"):08x}')).how == 'found'
    assert s3.operations().count('GetObject') == 1


def test_a_source_that_is_gone_when_it_is_copied(s3, site):
    s3.store('user.alice', 'dir/file', b'content')
    s3.fail('CopyObject', error(404, 'NoSuchKey'))
    s3.fail('HeadObject', error(404, 'NoSuchKey'), None, error(404, 'NoSuchKey'), error(404, 'NoSuchKey'))
    outcome = carry_out(b'content', dest=BESIDE)
    assert outcome.error.startswith('RSE HERE: get of ')


@pytest.mark.skipif(not copies_conditionally(), reason='this boto3 has no If-None-Match of CopyObject')
def test_a_storage_that_takes_the_source_for_the_destination(s3, site):
    s3.copy_condition_of_source = True
    s3.store('user.alice', 'dir/file', b'content')
    outcome = carry_out(b'content', dest=BESIDE)
    assert (outcome.error, outcome.how) == ('', 'relayed')
    assert s3.content('beside-user.alice', 'dir/file') == b'content'


def test_a_storage_that_only_says_that_it_copied(s3, site):
    s3.store('user.alice', 'dir/file', b'content')
    s3.fail('CopyObject', Answer(200, b'<CopyObjectResult><ETag>"x"</ETag></CopyObjectResult>'))
    outcome = carry_out(b'content', dest=BESIDE)
    assert (outcome.error, outcome.how) == ('', 'relayed')


def test_leading_zeros_of_a_checksum_do_not_matter(s3, site):
    body = next(body for body in (bytes(range(n)) for n in range(99)) if f'{zlib.adler32(body):08x}'.startswith('0'))
    s3.store('user.alice', 'dir/file', body)
    assert not carry_out(body, checksums=Checksums(None, f'{zlib.adler32(body):x}')).error


def test_an_upload_that_could_not_be_aborted_is_aborted_later(s3, site, monkeypatch):
    monkeypatch.setitem(site, 'THERE', replace(site['THERE'], endpoint=replace(site['THERE'].endpoint, multipart_threshold=4, multipart_chunksize=5 * MiB)))
    body = bytes(11 * MiB)
    s3.store('user.alice', 'dir/file', body)
    s3.fail('UploadPart', error(500, 'InternalError'))
    s3.fail('AbortMultipartUpload', error(503, 'SlowDown'))
    assert carry_out(body).error
    assert len(s3.uploads) == copying.count_leftovers() == 1
    s3.fail('AbortMultipartUpload', error(503, 'SlowDown'))
    copying.abort_leftovers()
    assert len(s3.uploads) == copying.count_leftovers() == 1
    copying.abort_leftovers()
    assert not s3.uploads
    assert copying.count_leftovers() == 0
    before = len(s3.operations())
    copying.abort_leftovers()
    assert len(s3.operations()) == before


def test_an_upload_that_is_gone_is_not_aborted_again(s3, site):
    copying._leftovers.append(copying._LeftoverUpload(site['THERE'].connection(), 'there-user.alice', 'dir/file', 'no such upload'))
    s3.fail('AbortMultipartUpload', error(404, 'NoSuchUpload'))
    copying.abort_leftovers()
    assert copying.count_leftovers() == 0
    assert 1000 <= copying._leftovers.maxlen <= 100_000


def test_the_next_source_has_it(s3, site):
    s3.make_bucket('user.alice')
    s3.store('beside-user.alice', 'dir/file', b'content')
    outcome = carry_out(b'content', sources=('gone', HERE, BESIDE))
    assert (outcome.error, outcome.source.rse_id) == ('', BESIDE)


@pytest.mark.parametrize(
    ('dest', 'sources', 'said'),
    [('gone', (HERE,), "There is no S3 RSE 'gone'."), (THERE, ('gone',), "There is no S3 RSE 'gone'."), (THERE, (HERE,), 'RSE HERE: get of ')],
)
def test_what_cannot_be_done_says_why(s3, site, dest, sources, said):
    outcome = carry_out(b'content', dest=dest, sources=sources)
    assert outcome.error.startswith(said)
    assert (outcome.source.rse_id, outcome.how) == (sources[0], '')


def test_a_destination_that_does_not_answer_is_told(s3, site):
    s3.store('user.alice', 'dir/file', b'content')
    s3.fail('HeadObject', error(503, 'SlowDown'))
    assert carry_out(b'content').error.startswith("RSE THERE: stat of bucket 'there-user.alice', key 'dir/file': ")
    assert s3.operations() == ['HeadObject']


def test_of_several_sources_the_first_failure_is_told(s3, site):
    assert carry_out(b'content', sources=('gone', 'gone too')).error == "There is no S3 RSE 'gone'."
    s3.store('beside-user.alice', 'dir/file', b'longer content')
    outcome = carry_out(b'content', sources=(HERE, BESIDE))
    assert outcome.error.startswith('RSE HERE: get of ')


@pytest.mark.parametrize(
    ('raised', 'told', 'logged'),
    [
        (ServiceUnavailable('It is down.'), 'It is down.', False),
        (ValueError('no such thing'), 'ValueError: no such thing', True),
        (ServiceUnavailable('x' * 10_000), 'x' * 3900, False),
    ],
)
def test_whatever_happens_becomes_an_outcome_that_the_table_can_hold(site, monkeypatch, caplog, raised, told, logged):
    """Only what nobody expects is logged with a traceback."""
    monkeypatch.setattr(copying.creation, 'make_bucket', mock.Mock(side_effect=raised))
    outcome = carry_out(b'content')
    assert (outcome.error, outcome.state) == (told, RequestState.FAILED)
    assert len(told) <= models.Request.err_msg.type.length
    assert bool([each for each in caplog.records if each.exc_info]) is logged
    assert outcome.started <= outcome.ended


def test_an_exception_without_words_is_named(site, monkeypatch):
    error_ = ServiceUnavailable()
    error_.args = ()
    monkeypatch.setattr(copying.creation, 'make_bucket', mock.Mock(side_effect=error_))
    assert carry_out(b'content').error.startswith('ServiceUnavailable: ')


def test_where_the_destination_does_not_answer_the_reason_of_the_failure_is_told(s3, site):
    s3.store('user.alice', 'dir/file', b'CONTENT')
    s3.fail('HeadObject', error(404, 'NoSuchKey'), None, error(503, 'SlowDown'))
    assert 'but the catalogue says' in carry_out(b'content').error


@pytest.mark.parametrize(('said', 'status'), [('InternalError', 500), ('SlowDown', 503)])
@pytest.mark.parametrize('is_there', [False, True])
def test_a_copy_into_a_bucket_that_is_missing_says_so(s3, site, monkeypatch, said, status, is_there):
    """SeaweedFS says InternalError."""
    beside = site['BESIDE']
    monkeypatch.setitem(site, 'BESIDE', replace(beside, protocol={**beside.protocol, 'prefix': '/not-there/'}))
    s3.store('user.alice', 'dir/file', b'content')
    if is_there:
        s3.make_bucket('not-there')
    s3.fail('CopyObject', error(status, said))
    outcome = carry_out(b'content', dest=BESIDE)
    assert outcome.error.startswith("RSE BESIDE: copy of bucket 'not-there', key 'beside-user.alice/dir/file': ")
    assert ('the bucket does not exist' in outcome.error) == (not is_there)
    assert (said in outcome.error) == is_there
    s3.fail('CopyObject', error(status, said))
    s3.fail('HeadBucket', error(403, 'AccessDenied'))
    assert said in carry_out(b'content', dest=BESIDE).error, 'it is not known whether it is there'


@pytest.fixture
def lose_keys(site, monkeypatch):
    """This machine has no keys for these RSEs."""

    def lose(*rses):
        for rse in rses:
            monkeypatch.setitem(site, rse, replace(site[rse], endpoint=replace(site[rse].endpoint, secrets=Secrets())))

    return lose


def hosts(session):
    return {row.name: row.external_host for row in session.query(models.Request)}


def test_what_this_machine_has_no_keys_for_is_left_to_others(session, submit, site, lose_keys, caplog):
    known = dict(site)
    lose_keys('THERE')
    for number in range(9):
        submit(f'{number}', priority=5)
    submit('low', dest_rse_id=BESIDE, priority=1)
    assert names(claims.claim_transfers(MINE, 1, session=session)) == ['low']
    assert not claims.claim_transfers(MINE, 1, session=session)
    assert {host for name, host in hosts(session).items() if name != 'low'} == {None}
    [warning] = [each.getMessage() for each in caplog.records if each.name == claims.__name__]
    assert warning.startswith('RSE THERE: ')
    assert 'rse-accounts.cfg on this machine' in warning
    assert THERE in warning
    assert 'usable keys for it, so this copier' in warning
    site.update(known)
    assert not claims.claim_transfers(MINE, 1, session=session), 'it is not looked again at once'
    claims._answers.clear()  # it is some time later
    assert len(claims.claim_transfers(MINE, 10, session=session)) == 9


@pytest.mark.parametrize('rse', ['HERE', 'THERE'])
def test_transfers_of_a_silent_storage_wait_and_the_others_go_on(session, submit, site, monkeypatch, caplog, rse):
    """Each would cost a time-out, and one of its few attempts."""
    silent = f'http://{rse.lower()}'
    monkeypatch.setitem(site, rse, replace(site[rse], endpoint=replace(site[rse].endpoint, url=silent)))
    submit('before')
    assert names(claims.claim_transfers(MINE, 1, session=session)) == ['before']
    monkeypatch.setattr(claims.breaker, 'is_silent', lambda url: url == silent)
    for number in range(9):
        submit(f'{number}', priority=5)
    submit('other', source_rse_id=BESIDE, dest_rse_id=BESIDE, priority=1)
    for taken in (['other'], []):
        assert names(claims.claim_transfers(MINE, 1, session=session)) == taken
    [warning] = [each.getMessage() for each in caplog.records if each.name == claims.__name__]
    assert warning.startswith(f'RSE {rse}: the storage at {silent} does not answer. Its transfers wait')
    monkeypatch.setattr(claims.breaker, 'is_silent', lambda _: False)
    claims._answers.clear()  # a minute later
    assert len(claims.claim_transfers(MINE, 99, session=session)) == 9


def test_missing_keys_are_told_every_ten_minutes(session, submit, site, lose_keys, caplog, monkeypatch):
    lose_keys('THERE')
    submit()
    for now, told in ((1000, 1), (1599, 1), (1600, 2), (1601, 2)):
        monkeypatch.setattr(claims.time, 'monotonic', lambda now=now: now)
        claims._answers.clear()
        assert not claims.claim_transfers(MINE, 1, session=session)
        assert len([each for each in caplog.records if each.name == claims.__name__]) == told


def test_a_database_that_fails_is_not_taken_for_missing_keys(session, submit, monkeypatch):
    def away(*_, **__):
        raise DatabaseException('no connection')

    submit()
    monkeypatch.setattr(claims.storages, 'get_storage', away)
    monkeypatch.setattr(claims, '_name_of', lambda rse_id, _: rse_id)
    monkeypatch.setattr(claims, 'get_rse_name', lambda rse_id, **_: rse_id)
    with pytest.raises(DatabaseException):
        claims.claim_transfers(MINE, 1, session=session)


def test_requests_without_keys_are_not_read_again_and_again(session, submit, site, lose_keys):
    """Nor do sources with keys help that are those of other requests, or cannot be used: there may be thousands of such requests."""
    lose_keys('HERE')
    for _ in range(4):
        add_sources(session, submit(), (HERE, 0, True), (BESIDE, 0, False))
    add_sources(session, submit('last', source_rse_id=BESIDE, priority=1), (BESIDE, 0, True))
    assert names(claims.claim_transfers(MINE, 1, session=session)) == ['last']
    nowhere = 'd' * 32  # not on S3: it fails, and says so
    add_sources(session, submit('not on S3', source_rse_id=nowhere), (nowhere, 0, True))
    assert names(claims.claim_transfers(MINE, 1, session=session)) == ['not on S3']


def test_what_others_have_claimed_or_done_is_not_read_again_and_again(session, submit):
    for number in range(4):
        submit(f'{number}', external_host=claimed(session, OTHERS))
        submit(f'{number}', state=RequestState.DONE)
    submit('last', priority=1)
    assert names(claims.claim_transfers(MINE, 1, session=session)) == ['last']


@pytest.mark.parametrize(
    ('without', 'sources', 'taken'),
    [
        (['HERE'], [HERE, BESIDE], True),
        (['HERE'], [HERE], False),
        (['HERE'], [], False),  # Rucio noted only that in the request
        (['HERE'], [HERE, 'd' * 32], False),  # which is no S3 RSE
        (['HERE', 'BESIDE'], [HERE, BESIDE], False),
        (['BESIDE'], ['d' * 32], True),  # nobody can do it: it fails and says so
    ],
)
def test_one_source_with_keys_is_enough(session, submit, site, lose_keys, without, sources, taken):
    lose_keys(*without)
    for _ in range(4):
        add_sources(session, submit(source_rse_id=(sources or [HERE])[0]), *[(each, 0, True) for each in sources])
    session.add(models.Distance(src_rse_id=HERE, dest_rse_id=THERE, distance=1))
    session.add(models.Distance(src_rse_id=BESIDE, dest_rse_id=THERE, distance=1))
    session.add(models.Distance(src_rse_id='d' * 32, dest_rse_id=THERE, distance=1))
    submit('last', source_rse_id=THERE, dest_rse_id=THERE, priority=1)
    assert names(claims.claim_transfers(MINE, 1, session=session)) == (['file'] if taken else ['last'])
    assert names(claims.claim_transfers(MINE, 9, session=session)) == (['file'] * 3 + ['last'] if taken else [])


@pytest.mark.parametrize(('dest', 'sources'), [(THERE, (HERE,)), (HERE, (THERE,)), (THERE, (HERE, 'gone')), (THERE, ('gone', HERE))])
def test_keys_that_are_gone_meanwhile_are_no_failure(s3, site, lose_keys, dest, sources):
    lose_keys('HERE')
    assert carry_out(b'content', dest=dest, sources=sources) is None
    assert not s3.operations()


def test_a_source_without_keys_is_not_what_a_transfer_failed_for(s3, site, lose_keys):
    lose_keys('HERE')
    s3.make_bucket('beside-user.alice')
    outcome = carry_out(b'content', sources=(HERE, BESIDE))
    assert outcome.error.startswith('RSE BESIDE: get of ')


def test_keys_that_cannot_be_read_are_none(session, submit, site, lose_keys, caplog, monkeypatch):
    monkeypatch.setitem(site, 'THERE', replace(site['THERE'], endpoint=replace(site['THERE'].endpoint, secrets=Secrets('only-one-half', None))))
    submit()
    assert not claims.claim_transfers(MINE, 1, session=session)
    assert 'RSE THERE: ' in caplog.text
    assert re.search(r'no usable keys for it \(.*secret_key', caplog.text)


def test_the_log_names_both_ends(session, submit, site):
    submit()
    [taken] = claims.claim_transfers(MINE, 1, session=session)
    now, said = copying._now(), []
    heartbeat = SimpleNamespace(logger=lambda _, text, *values: said.append(text % values))
    daemon = copier.Copier(copier.Options(), None, heartbeat)
    daemon._log_outcome(taken, requests.Outcome(now, now, taken.sources[0], how='copied'))
    daemon._log_outcome(taken, requests.Outcome(now, now, taken.sources[0], error='RSE THERE: no.'))
    name = f'user.alice:file (request {taken.id}) HERE -> THERE'
    assert said == [f'{name}: copied, 1 bytes in 0.0 s', f'{name}: failed. RSE THERE: no.']


def test_a_stopped_transfer_has_no_outcome(s3, site):
    s3.store('user.alice', 'dir/file', b'content')
    stop = threading.Event()
    stop.set()
    assert copying.carry_out(transfer(b'content'), stop) is None
    assert 'PutObject' not in s3.operations()
    assert s3.operations().count('HeadObject') == 2, 'the destination is not looked at again'


def test_a_transfer_that_is_stopped_while_it_reads_leaves_nothing(s3, site, monkeypatch):
    body = b'x' * (3 * MiB)
    s3.store('user.alice', 'dir/file', body)
    stop, read = threading.Event(), content.Reader.read
    monkeypatch.setattr(content.Reader, 'read', lambda *arguments: (read(*arguments), stop.set())[0])
    assert copying.carry_out(transfer(body), stop) is None
    assert not s3.uploads
    assert [bucket for bucket, objects in s3.buckets.items() if 'dir/file' in objects] == ['user.alice']


# What Rucio is told


OUTCOME = requests.Outcome(datetime(2026, 1, 1), datetime(2026, 1, 2), requests.Source(HERE, 'http://here'))  # noqa: DTZ001 - as in Rucio's tables


@pytest.mark.parametrize(
    ('values', 'error', 'expected'),
    [
        ({}, '', RequestState.DONE),
        ({}, 'RSE THERE: no.', RequestState.FAILED),
        ({'external_host': 'x/others'}, '', RequestState.DONE),  # the object is there, whoever copied it
        ({'external_host': 'x/others'}, 'RSE THERE: no.', None),  # the other one still tries
        ({'external_host': 'x/not-mine'}, 'RSE THERE: no.', None),
        ({'state': RequestState.QUEUED}, '', None),
        ({'external_id': 'another'}, '', None),
        ({'id': 'c' * 32}, '', None),
    ],
)
def test_an_outcome_counts_while_the_request_is_that_one(session, submit, monkeypatch, values, error, expected):
    monkeypatch.setattr(outcomes, 'get_rse_name', lambda rse_id, **_: f'name of {rse_id[0]}')
    identity = submit(**{'external_id': 'known', 'external_host': f'x/{MINE}'} | values)
    taken = transfer(b'x')._replace(id=identity if 'id' not in values else 'd' * 32, external_id='known', dest_url='http://there')
    report = outcomes._Report(MINE, taken, OUTCOME._replace(error=error))
    told = report.get_db_fields_to_update(session=session)
    if expected is None:
        assert told == {}
        return
    assert str(told.pop('err_msg', '')).endswith(error)
    assert told == {
        'state': expected,
        'external_id': 'known',
        'started_at': OUTCOME.started,
        'transferred_at': OUTCOME.ended,
        'source_rse_id': HERE,
    }
    message = report.get_monitor_msg_fields(session=session)
    assert message == {
        'src-rse': 'name of a',
        'src-url': 'http://here',
        'dst-url': 'http://there',
        'reason': error or None,
        'started_at': OUTCOME.started,
        'transferred_at': OUTCOME.ended,
    }
    assert 'known' in str(report)
    report = outcomes._Report(MINE, taken, OUTCOME._replace(error=error, source=requests.Source(HERE, '')))
    assert report.get_monitor_msg_fields(session=session) == message | {'src-url': None}


@pytest.mark.parametrize(('answer', 'reported'), [(1, True), (0, True), (False, True), (None, False)])
def test_a_report_that_failed_is_repeated(monkeypatch, answer, reported):
    seen = []
    monkeypatch.setattr(outcomes, 'update_transfer_state', lambda **given: seen.append(given) or answer)
    assert outcomes.report(MINE, transfer(b'x'), OUTCOME, 'stats', logger=print) is reported
    assert (seen[0]['stats_manager'], seen[0]['logger'], seen[0]['tt_status_report'].request_id) == ('stats', print, '1')


def test_a_catalogue_that_is_away_is_no_failure_of_the_transfer(s3, site, monkeypatch):
    def away(*_, **__):
        raise DatabaseException('no connection')

    monkeypatch.setattr(copying, 'get_rse_name', away)
    assert carry_out(b'content') is None


# Transfertool


def hop(source='rucio.rse.protocols.s3.Default', destination='rucio.rse.protocols.s3.Default', request_type=RequestType.TRANSFER):
    protocols = [SimpleNamespace(attributes={'impl': impl}) for impl in (source, destination)]
    rws = SimpleNamespace(request_type=request_type, request_id='1')
    return SimpleNamespace(rws=rws, src='source', source_protocol=lambda _: protocols[0], dest_protocol=lambda: protocols[1])


@pytest.mark.parametrize(
    ('first', 'taken'),
    [
        (hop(), True),
        (hop(source='rucio.rse.protocols.gfal.Default'), False),
        (hop(destination='rucio.rse.protocols.webdav.Default'), False),
        (hop(request_type=RequestType.STAGEIN), False),
    ],
)
def test_the_first_hop_is_taken_if_both_ends_speak_s3(first, taken):
    hops, builder = transfertool.S3Transfertool.submission_builder_for_path([first, hop()])
    assert hops == ([first] if taken else [])
    assert bool(builder) == taken
    if builder:
        tool = builder.make_transfertool(logger=lambda *_: None)
        [job] = tool.group_into_submit_jobs([hops])
        assert tool.submit(**job) != tool.submit(**job)
        assert tool.bulk_query({'1': {'2': {}}}) == {'1': {}}


@pytest.mark.parametrize('words', [['--copies', '0'], ['--copies', 'x'], ['--nonsense']])
def test_wrong_usage_is_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        copier.main(words)
    assert ended.value.code == 2
    assert 'rucio-s3-copier: error: ' in capsys.readouterr().err
