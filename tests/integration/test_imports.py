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

"""Buckets of others become read-only RSEs, and stock `rucio download` gets what is in them: anonymously, with keys that only the server has,
and with own ones. Some of it through a storage that refuses presigned URLs, as that of Copernicus does."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faults.proxy import Exchange, FaultProxy, Response
from servers.cli import RucioCli, RucioError, add_user
from servers.seaweedfs import SeaweedFS
from servers.team import Team, ok, refused, rows

PUBLIC, PRIVATE = 'landsat', 'sentinel'
ODD = 'a b+c/é%/#~'  # a folder whose files have names that Rucio takes


class HeadersOnly(FaultProxy):
    """A storage that takes signatures in a header, and refuses presigned URLs."""

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.port}'

    def _handle(self, exchange: Exchange) -> None:
        if 'X-Amz-Signature' in exchange.request.path:
            exchange.respond(Response(403, body=b'<Error><Code>AccessDenied</Code><Message>no query-string signatures</Message></Error>'))
        else:
            super()._handle(exchange)


@dataclass
class World:
    """Grace has a scope, heidi has nothing; neither is an admin. The RSE OPEN is for a public bucket, SIGNED for one that takes keys."""

    root: RucioCli
    grace: RucioCli
    heidi: RucioCli
    storage: SeaweedFS
    proxy: HeadersOnly

    def write(self, bucket: str, objects: dict[str, bytes]) -> None:
        for key, body in objects.items():
            self.storage.client().put_object(Bucket=bucket, Key=key, Body=body)

    def imported(self, user: RucioCli, rse: str, dataset: str, prefix: str, *more: str) -> dict[str, int]:
        """What `rucio s3 import` counted."""
        done = user.rucio('s3', '-R', 'import', rse, f'user.grace:{dataset}', '--prefix', prefix, *more)
        return {row[3]: int(row[4]) for row in rows(done) if row[0] == 'count' and row[4] != '0'}


def add_rse(root: RucioCli, name: str, url: str, bucket: str, *more: str) -> str:
    """What the command said."""
    return ok(root.rucio('s3', 'rse', 'add', name, '--endpoint', url, '--bucket', bucket, '--read-only', *more))


@pytest.fixture(scope='module')
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A storage of somebody else."""
    with SeaweedFS(tmp_path_factory.mktemp('foreign'), public=PUBLIC) as server:
        for bucket in (PUBLIC, PRIVATE):
            server.client().create_bucket(Bucket=bucket)
        yield server


@pytest.fixture(scope='module')
def archive(team_root: RucioCli, tmp_path_factory: pytest.TempPathFactory, foreign: SeaweedFS) -> Iterator[World]:
    grace, heidi = (
        add_user(team_root, tmp_path_factory.mktemp(name), name, scopes=scopes, attributes=()) for name, scopes in (('grace', ['user.grace']), ('heidi', []))
    )
    with HeadersOnly(foreign.hostname, foreign.port) as proxy:
        add_rse(team_root, 'OPEN', foreign.url, PUBLIC, '--anonymous')
        add_rse(team_root, 'SIGNED', proxy.url, PRIVATE, '--provider', 'seaweedfs')
        team_root.server.set_rse_keys(team_root.call('get_rse', 'SIGNED')['id'], *foreign.reader_keys)
        yield World(team_root, grace, heidi, foreign, proxy)
        # The server stays for other tests, which shall not ask a storage that is gone.
        team_root.call('delete_protocols', 'SIGNED', 'http')


def download(user: RucioCli, did: str, directory: Path) -> dict[str, bytes]:
    """What the stock command gets: name -> content."""
    user.rucio('download', '--dir', str(directory), did)
    # Below a directory for the scope, or for the dataset.
    return {path.relative_to(directory).as_posix().partition('/')[2]: path.read_bytes() for path in directory.rglob('*') if path.is_file()}


# The two commands


@pytest.mark.smoke
def test_a_public_bucket_in_two_commands(archive: World, unique: str, tmp_path: Path) -> None:
    rse = f'P{unique.upper()}'
    archive.write(PUBLIC, {f'{unique}/2026/one.dat': b'1', f'{unique}/2026/two.dat': b'22' * 10_000, f'{unique}/empty': b''})

    said = add_rse(archive.root, rse, archive.storage.url, PUBLIC, '--anonymous')
    assert f'Created the RSE {rse}.' in said
    assert f'Next step: rucio s3 import {rse} SCOPE:DATASET' in said
    said = ok(archive.grace.rucio('s3', 'import', rse, f'user.grace:{unique}', '--prefix', unique))
    assert f'Download them with: rucio download user.grace:{unique}' in said

    # By somebody who has never heard of it, with no key and no configuration.
    expected = {f'{unique}/2026/one.dat': b'1', f'{unique}/2026/two.dat': b'22' * 10_000, f'{unique}/empty': b''}
    assert download(archive.heidi, f'user.grace:{unique}/2026/one.dat', tmp_path / '1') == {f'{unique}/2026/one.dat': b'1'}
    assert download(archive.heidi, f'user.grace:{unique}', tmp_path / '2') == expected

    files = {file['name']: file for file in archive.heidi.call('list_files', 'user.grace', unique)}
    assert {name: file['bytes'] for name, file in files.items()} == {name: len(body) for name, body in expected.items()}
    replicas = archive.heidi.call('list_replicas', [{'scope': 'user.grace', 'name': f'{unique}/2026/one.dat'}])
    assert [pfn.partition('?')[0] for pfn in replicas[0]['pfns']] == [f'{archive.storage.url}/{PUBLIC}/{unique}/2026/one.dat']


def test_nothing_is_kept_or_charged(archive: World, unique: str) -> None:
    archive.write(PUBLIC, {f'{unique}/a': b'12345'})
    before = archive.grace.call('get_local_account_usage', 'grace')
    assert archive.imported(archive.grace, 'OPEN', unique, unique)['registered'] == 1
    archive.root.server.run('rucio-judge-evaluator', '--run-once')
    archive.root.server.run('rucio-abacus-account', '--run-once')
    assert archive.grace.call('list_did_rules', 'user.grace', unique) == []
    assert archive.grace.call('get_local_account_usage', 'grace') == before
    assert archive.root.call('get_did', 'user.grace', unique)['account'] == 'grace'


# The RSE


def test_the_rse_is_for_reading_only(archive: World) -> None:
    rse = archive.root.call('get_rse', 'OPEN')
    assert not rse['deterministic']
    assert rse['availability_read']
    assert not rse['availability_write']
    assert not rse['availability_delete']
    main, davs = sorted(rse['protocols'], key=lambda each: each['scheme'], reverse=True)  # Rucio finds no way from http to https without the other
    assert main['prefix'] == davs['prefix'] == f'/{PUBLIC}/'
    assert main['extended_attributes'] == {'s3': {'provider': 'generic', 'auth': 'anonymous'}}
    reading = [(each['scheme'], domain, name) for each in rse['protocols'] for domain, operations in each['domains'].items() for name in offered(operations)]
    copies = [(scheme, 'wan', 'third_party_copy_read') for scheme in ('http', 'davs')]
    assert sorted(reading) == sorted([('http', 'lan', 'read'), ('http', 'wan', 'read'), *copies])


def offered(operations: dict[str, int | None]) -> list[str]:
    """From Rucio 39 on, null says that something is not offered, and 0 is before 1; before, 0 did."""
    assert 0 not in operations.values() or None not in operations.values()
    return [name for name, priority in operations.items() if priority]


def test_rse_add_twice(archive: World) -> None:
    assert 'with these settings. Nothing was done' in add_rse(archive.root, 'OPEN', archive.storage.url, PUBLIC, '--anonymous')
    asked = ('s3', 'rse', 'add', 'OPEN', '--endpoint', archive.storage.url, '--bucket', PUBLIC)
    assert 'was not changed' in refused(archive.root.rucio(*asked, '--read-only'))
    said = refused(archive.root.rucio(*asked, '--provider', 'generic'))
    assert 'deterministic is False' in said
    assert 'availability_write' not in said  # of no concern to other RSEs


@pytest.mark.parametrize(
    ('words', 'code', 'said'),
    [
        (('--anonymous', '--provider', 'generic'), 2, '--read-only'),
        (('--bucket', 'x' * 300, '--read-only'), 1, 'not a valid bucket name'),
        ((), 2, "'--provider'"),
    ],
)
def test_wrong_options_are_named(archive: World, words: tuple[str, ...], code: int, said: str) -> None:
    assert said in refused(archive.root.rucio('s3', 'rse', 'add', 'WRONG', '--endpoint', 'http://127.0.0.1:1', *words), code)
    assert 'WRONG' not in [each['rse'] for each in archive.root.call('list_rses')]


def test_the_reaper_touches_nothing(archive: World, unique: str) -> None:
    """Not even what a rule kept for a while, and no longer."""
    archive.write(PUBLIC, {f'{unique}/a': b'12345'})
    archive.imported(archive.grace, 'OPEN', unique, unique)
    did = {'scope': 'user.grace', 'name': unique}
    archive.root.call('set_local_account_limit', 'root', 'OPEN', -1)
    (rule,) = archive.root.call('add_replication_rule', [did], 1, 'OPEN', ignore_availability=True, lifetime=1000, purge_replicas=True)
    server = archive.root.server
    archive.root.call('update_replication_rule', rule, {'lifetime': -1})
    server.run('rucio-judge-cleaner', '--run-once')
    server.run('rucio-reaper', '--run-once', '--greedy', '--rses', 'OPEN')
    assert archive.root.call('list_did_rules', 'user.grace', unique) == []
    assert archive.storage.client().get_object(Bucket=PUBLIC, Key=f'{unique}/a')['Body'].read() == b'12345'
    assert archive.root.call('list_replicas', [{**did, 'name': f'{unique}/a'}])[0]['states'] == {'OPEN': 'AVAILABLE'}


@pytest.mark.long
def test_nothing_is_uploaded_there(archive: World, unique: str) -> None:
    file = archive.root.directory / unique
    file.write_bytes(b'1')
    done = archive.root.rucio('upload', '--rse', 'OPEN', '--scope', 'user.grace', '--lfn', unique, str(file))
    assert 'Successfully uploaded' not in done.stdout + done.stderr
    assert 'Contents' not in archive.storage.client().list_objects_v2(Bucket=PUBLIC, Prefix=unique)


# Importing again


def test_import_follows_the_bucket(archive: World, unique: str, tmp_path: Path) -> None:
    archive.write(PUBLIC, {f'{unique}/{name}': b'old' for name in ('kept', 'gone', 'changed')})
    assert archive.imported(archive.grace, 'OPEN', unique, unique)['registered'] == 3
    counts = archive.imported(archive.grace, 'OPEN', unique, unique)
    assert counts['same'] == counts['listed'] == 3

    archive.write(PUBLIC, {f'{unique}/new': b'new', f'{unique}/changed': b'another'})
    archive.storage.client().delete_object(Bucket=PUBLIC, Key=f'{unique}/gone')
    for more in (('--dry-run',), ()):  # nothing but new ones, without being told to
        counts = archive.imported(archive.grace, 'OPEN', unique, unique, *more)
        assert (counts['new'], counts['changed'], counts['missing']) == (1, 1, 1)
        assert counts.get('registered', 0) == (0 if more else 1)
    counts = archive.imported(archive.grace, 'OPEN', unique, unique, '--on-changed', 'replace', '--on-missing', 'forget')
    assert (counts['replaced'], counts['forgotten']) == (1, 1)

    assert sorted(download(archive.heidi, f'user.grace:{unique}', tmp_path).values()) == [b'another', b'new', b'old']
    names = {file['name'] for file in archive.heidi.call('list_files', 'user.grace', unique)}
    assert names == {f'{unique}/{name}' for name in ('kept', 'new', 'changed')}


def test_all_of_it_is_gone(archive: World, unique: str) -> None:
    """A storage that has lost its mind shall not cost the catalogue its files, unless somebody says that they are gone."""
    archive.write(PUBLIC, {f'{unique}/a': b'1'})
    archive.imported(archive.grace, 'OPEN', unique, unique)
    archive.storage.client().delete_object(Bucket=PUBLIC, Key=f'{unique}/a')
    said = ok(archive.grace.rucio('s3', 'import', 'OPEN', f'user.grace:{unique}'))  # from where it came
    assert f'rucio s3 import OPEN user.grace:{unique}' in said
    done = archive.grace.rucio('s3', '-R', 'import', 'OPEN', f'user.grace:{unique}', '--on-missing', 'forget')
    assert 'forgotten\t1' in ok(done)
    assert archive.heidi.call('list_files', 'user.grace', unique) == []


def test_odd_keys_are_reported(archive: World, unique: str, tmp_path: Path) -> None:
    archive.write(PUBLIC, {f'{unique}/S1A_IW.SAFE/manifest.safe': b'1', f'{unique}/a b': b'2', f'{unique}/é': b'3', f'{unique}/{"x" * 250}': b'4'})
    done = archive.grace.rucio('s3', 'import', 'OPEN', f'user.grace:{unique}', '--prefix', unique)
    said = ok(done)
    assert f'{unique}/a b' in said
    assert f'{unique}/é' in said
    assert archive.imported(archive.grace, 'OPEN', unique, unique)['unnameable'] == 3
    assert download(archive.heidi, f'user.grace:{unique}', tmp_path) == {f'{unique}/S1A_IW.SAFE/manifest.safe': b'1'}
    assert [file['name'] for file in archive.heidi.call('list_files', 'user.grace', unique)] == [f'{unique}/S1A_IW.SAFE/manifest.safe']


@pytest.mark.long
@pytest.mark.parametrize('rse', ['OPEN', 'SIGNED'])
def test_odd_folders_do_no_harm(archive: World, unique: str, tmp_path: Path, rse: str) -> None:
    folder = f'{unique}/{ODD}/'
    bucket, user = (PUBLIC, archive.grace) if rse == 'OPEN' else (PRIVATE, archive.root)
    archive.write(bucket, {f'{folder}a.dat': b'1', f'{folder}deep/b.dat': b'22'})
    assert archive.imported(user, rse, unique, folder)['registered'] == 2
    assert download(archive.grace, f'user.grace:{unique}/a.dat', tmp_path / '1') == {f'{unique}/a.dat': b'1'}
    assert download(archive.grace, f'user.grace:{unique}/deep/b.dat', tmp_path / '2') == {f'{unique}/deep/b.dat': b'22'}


@pytest.mark.long
def test_the_daemon_knows_it(archive: World, unique: str) -> None:
    archive.write(PUBLIC, {f'{unique}/a': b'1'})
    archive.imported(archive.grace, 'OPEN', unique, unique, '--dry-run')
    assert unique not in str(archive.root.call('get_config', f's3-bucket:OPEN:{PUBLIC}') if remembered(archive) else '')
    archive.imported(archive.grace, 'OPEN', unique, unique)
    assert f'"scope":"user.grace","dataset":"{unique}","prefix":"{unique}/"' in remembered(archive)


@pytest.mark.long
def test_a_mistyped_prefix_is_told_and_not_in_the_way(archive: World, unique: str) -> None:
    archive.write(PUBLIC, {f'{unique}/a': b'1'})
    said = ok(archive.grace.rucio('s3', 'import', 'OPEN', f'user.grace:{unique}', '--prefix', f'{unique}x'))
    assert f"nothing in bucket '{PUBLIC}', below '{unique}x/'" in said
    assert unique not in remembered(archive)
    assert archive.imported(archive.grace, 'OPEN', unique, unique)['registered'] == 1


def test_sync_of_an_import_names_the_command(archive: World, unique: str) -> None:
    archive.write(PUBLIC, {f'{unique}/deep/a': b'1'})
    archive.imported(archive.grace, 'OPEN', unique, unique)
    for name in (unique, f'{unique}/deep'):
        assert f'rucio s3 import OPEN user.grace:{unique}.' in refused(archive.grace.rucio('s3', 'reconcile', f'user.grace:{name}'))


def remembered(archive: World) -> str:
    config: dict[str, Any] = archive.root.call('get_config')
    return ' '.join(str(value) for name, value in config.get(f's3-bucket:OPEN:{PUBLIC}', {}).items() if name.startswith('import-'))


@pytest.mark.parametrize(
    ('rse', 'dataset', 'more', 'said'),
    [
        ('OPEN', 'x', ('--bucket', 'other'), "prefix '/landsat/'"),
        ('VENDED_S3', 'x', ('--bucket', 'other'), 'rucio s3 rse add NAME --read-only'),
        ('NOWHERE', 'x', (), "no S3 RSE 'NOWHERE'"),
        ('SIGNED', 'x', (), 'only an admin'),
        ('OPEN', 'x y', (), 'name'),
    ],
)
def test_wrong_imports_are_named(archive: World, vended_team: Team, rse: str, dataset: str, more: tuple[str, ...], said: str) -> None:
    user = archive.root if rse == 'VENDED_S3' else archive.grace
    assert said in refused(user.rucio('s3', 'import', rse, f'user.grace:{dataset}', *more))


def test_only_the_owner_of_the_scope_imports(archive: World) -> None:
    assert 'may not' in refused(archive.heidi.rucio('s3', 'import', 'OPEN', 'user.grace:mine'))


@pytest.mark.long
def test_a_dataset_comes_from_one_place(archive: World, unique: str) -> None:
    archive.write(PUBLIC, {f'{unique}/1/a': b'1', f'{unique}/2/b': b'1'})
    archive.imported(archive.grace, 'OPEN', unique, f'{unique}/1')
    said = refused(archive.grace.rucio('s3', 'import', 'OPEN', f'user.grace:{unique}', '--prefix', f'{unique}/2'))
    assert 'is already imported from' in said
    assert f"prefix '{unique}/1/'." in said


def test_a_bucket_that_is_not_there_is_named(archive: World, unique: str) -> None:
    add_rse(archive.root, f'P{unique.upper()}', archive.storage.url, 'nothing-here', '--anonymous')
    said = refused(archive.grace.rucio('s3', 'import', f'P{unique.upper()}', f'user.grace:{unique}'))
    assert 'nothing-here' in said
    assert 'nothing-here' not in str(archive.root.call('get_config'))  # nor does the daemon look for it


# Keys that only the server has


@pytest.mark.smoke
def test_keys_of_the_server(archive: World, unique: str, tmp_path: Path) -> None:
    archive.write(PRIVATE, {f'{unique}/a': b'12345', f'{unique}-other/b': b'6'})
    assert archive.imported(archive.root, 'SIGNED', unique, unique)['registered'] == 1
    dataset, file = f'user.grace:{unique}', f'{unique}/a'

    assert download(archive.grace, dataset, tmp_path / '1') == {file: b'12345'}
    assert download(archive.heidi, dataset, tmp_path / '2') == {}
    ok(archive.grace.rucio('s3', 'share', dataset, '--with', 'heidi'))
    assert download(archive.heidi, dataset, tmp_path / '3') == {file: b'12345'}
    ok(archive.grace.rucio('s3', 'unshare', dataset, '--with', 'heidi'))
    assert download(archive.heidi, dataset, tmp_path / '4') == {}


def test_sharing_with_everybody_leaves_the_bucket_alone(archive: World, unique: str, tmp_path: Path) -> None:
    archive.write(PRIVATE, {f'{unique}/a': b'12345'})
    archive.imported(archive.root, 'SIGNED', unique, unique)
    dataset = f'user.grace:{unique}'
    before = len(archive.proxy.seen)
    ok(archive.grace.rucio('s3', 'share', dataset, '--public'))
    assert not [request for request in archive.proxy.seen[before:] if 'policy' in request.path]
    assert download(archive.heidi, dataset, tmp_path / '1') == {f'{unique}/a': b'12345'}
    ok(archive.grace.rucio('s3', 'unshare', dataset, '--public'))
    assert download(archive.heidi, dataset, tmp_path / '2') == {}


@pytest.mark.long
def test_presigned_urls_are_refused_there(archive: World, unique: str) -> None:
    """The storage of these tests is what they say it is."""
    archive.write(PRIVATE, {unique: b'1'})
    client = archive.storage.client(signature_version='s3v4')
    client.meta.events.register('before-sign.s3', lambda request, **_: setattr(request, 'url', request.url.replace(archive.storage.url, archive.proxy.url)))
    url = client.generate_presigned_url('get_object', {'Bucket': PRIVATE, 'Key': unique})
    assert url.startswith(archive.proxy.url)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, timeout=30)
    assert caught.value.code == 403
    client.get_object(Bucket=PRIVATE, Key=unique)


@pytest.mark.long
def test_own_keys(archive: World, unique: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    archive.write(PRIVATE, {f'{unique}/a': b'12345'})
    archive.imported(archive.root, 'SIGNED', unique, unique)
    access_key, secret_key = archive.storage.reader_keys
    ivan = add_user(
        archive.root,
        tmp_path_factory.mktemp('ivan'),
        f'i{unique[:10]}',
        attributes=(),
        config={'s3:SIGNED': {'access_key': access_key, 'secret_key': secret_key}},
    )
    assert download(ivan, f'user.grace:{unique}', tmp_path) == {f'{unique}/a': b'12345'}


@pytest.mark.long
def test_vended_keys(archive: World, sts: SeaweedFS, unique: str, tmp_path: Path) -> None:
    rse, bucket = f'V{unique.upper()}', f'b{unique}'
    sts.client().create_bucket(Bucket=bucket)
    for key in ('open/a', 'closed/b'):
        sts.client().put_object(Bucket=bucket, Key=key, Body=b'12345')
    add_rse(archive.root, rse, sts.url, bucket, '--provider', 'seaweedfs', '--role-arn', sts.role_arn)
    archive.root.server.set_rse_keys(archive.root.call('get_rse', rse)['id'], sts.access_key, sts.secret_key)
    assert archive.imported(archive.root, rse, unique, 'open')['registered'] == 1
    assert download(archive.grace, f'user.grace:{unique}', tmp_path / '1') == {f'{unique}/a': b'12345'}
    assert download(archive.heidi, f'user.grace:{unique}', tmp_path / '2') == {}
    script = (
        f"from rucio.client.s3client import S3Client\nkeys = S3Client().get_s3_credentials('{rse}', '{bucket}', 'open/a')\nprint(keys['prefix'], keys['write'])"
    )
    assert archive.grace.run('python', '-c', script).stdout == 'open/ False\n'
    keys = json.loads(ok(archive.grace.rucio('s3', 'credentials', f'user.grace:{unique}', '--read-only', '--format', 'json')))
    assert (keys[0]['bucket'], keys[0]['prefix']) == (bucket, 'open/')
    assert 'AccessDenied' in archive.grace.run('python', '-c', script.replace('open/a', 'closed/b')).stderr
    assert 'AccessDenied' in archive.grace.run('python', '-c', script.replace("'open/a'", "'open/a', write=True")).stderr


# What else there is


@pytest.mark.long
@pytest.mark.parametrize('rse', ['OPEN', 'SIGNED'])
def test_where_it_is(archive: World, unique: str, rse: str) -> None:
    bucket, user = (PUBLIC, archive.grace) if rse == 'OPEN' else (PRIVATE, archive.root)
    archive.write(bucket, {f'at {unique}/deep/a': b'12345', f'at {unique}/not a name': b'1', unique: b'1'})
    archive.imported(user, rse, unique, f'at {unique}')
    did = f'user.grace:{unique}'
    for name in ('', '/deep', '/deep/a'):
        assert f'/{bucket}/at%20{unique}{name}' in ok(archive.grace.rucio('s3', 'url', f'{did}{name}'))
    listed = [[f'{did}/deep/a', '5', 'AVAILABLE'], [f'{did}/not a name', '1', 'no']]
    assert rows(archive.grace.rucio('s3', '-R', 'ls', did)) == listed
    assert rows(archive.grace.rucio('s3', '-R', 'ls', f'{did}/deep')) == listed[:1]
    assert rows(archive.grace.rucio('s3', '-R', 'du', did)) == [[f'{did}/deep', '1', '5'], [f'{did}/not a name', '1', '1']]


@pytest.mark.long
def test_the_scope_has_its_bucket_elsewhere(team_root: RucioCli, archive: World, vended_team: Team, unique: str) -> None:
    """An import is no place for what is new."""
    archive.write(PUBLIC, {f'{unique}/a': b'1'})
    imported = team_root.rucio('s3', '-R', 'import', 'OPEN', f'{vended_team.scope}:imported-{unique}', '--prefix', unique)
    assert 'registered' in ok(imported)
    said = ok(vended_team.owner.rucio('s3', 'make-bucket', f'{vended_team.scope}:{unique}'))
    assert vended_team.rse in said
    assert rows(vended_team.owner.rucio('s3', '-R', 'ls', vended_team.scope))
    assert 'no keys are vended or needed' in refused(vended_team.owner.rucio('s3', 'credentials', f'{vended_team.scope}:imported-{unique}', '--read-only'))


@pytest.mark.long
def test_a_file_that_was_registered_by_hand(archive: World, unique: str, tmp_path: Path) -> None:
    """By its path the server knows whose it is."""
    archive.write(PRIVATE, {f'by hand/{unique}': b'12345'})
    pfn = f'{archive.proxy.url}/{PRIVATE}/by%20hand/{unique}'
    file = {'scope': 'user.grace', 'name': unique, 'bytes': 5, 'adler32': '02f80100', 'pfn': pfn}
    with pytest.raises(RucioError, match='No protocol for provided settings'):  # Rucio parses the PFN with one that writes
        archive.root.call('add_replicas', 'SIGNED', [file])
    (main,) = [each for each in archive.root.call('get_rse', 'SIGNED')['protocols'] if each['scheme'] == 'http']
    place = {key: main[key] for key in ('hostname', 'port')}
    archive.root.call('update_protocols', 'SIGNED', 'http', {'domains': {'wan': {'write': 1}}}, **place)
    try:
        archive.root.call('add_replicas', 'SIGNED', [file])
    finally:
        archive.root.call('update_protocols', 'SIGNED', 'http', {'domains': {'wan': {'write': None}}}, **place)
    assert download(archive.grace, f'user.grace:{unique}', tmp_path / '1') == {f'{unique}': b'12345'}
    assert download(archive.heidi, f'user.grace:{unique}', tmp_path / '2') == {}
