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

"""`rucio s3 rse add` and `rucio s3 check`: what an operator does first."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.ceph import CephRGW
from servers.cli import RucioCli, RucioError, add_s3_rse, s3_keys
from servers.seaweedfs import SeaweedFS
from servers.site import SCOPE, Site
from servers.team import Team, ok, refused, s3_call


def rows(done: Any) -> dict[str, list[str]]:
    """The table of `rucio s3 --robot check`: check -> result, found, remedy."""
    return {line.split('\t')[0]: line.split('\t')[1:] for line in done.stdout.splitlines()}


def check(user: RucioCli, rse: str, *options: str) -> tuple[Any, dict[str, list[str]]]:
    done = user.rucio('s3', '--robot', 'check', rse, *options)
    assert 'Traceback' not in done.stderr
    return done, rows(done)


def of(results: dict[str, list[str]], status: str) -> set[str]:
    return {name for name, row in results.items() if row[0] == status}


def all_is_well(done: Any, results: dict[str, list[str]]) -> None:
    """Nothing failed, but perhaps the place: other tests have RSEs at the same storage. One that has its own is in test_rse_add_makes_..."""
    assert of(results, 'FAILED') <= {'place'}, done.stdout + done.stderr
    assert done.returncode == len(of(results, 'FAILED'))


@pytest.mark.smoke
@pytest.mark.parametrize('rse', ['PLAIN_S3', 'TLS_S3'])
def test_all_is_well(site: Site, rse: str) -> None:
    done, results = check(site.alice, rse)

    all_is_well(done, results)
    assert of(results, 'hint') == ({'TLS'} if rse == 'PLAIN_S3' else set()) | {'server plugin', 'lifecycle'}
    assert len(of(results, 'ok')) >= 17
    assert results['measured settings'][1] == 'the settings say what the storage does'
    assert site.objects(rse, '.rucio-s3-check') == {}
    assert site.storages[rse].client().list_multipart_uploads(Bucket=SCOPE).get('Uploads', []) == []


@pytest.mark.parametrize('kind', ['vended_team', pytest.param('signed_team', marks=pytest.mark.long)])
def test_an_account_without_keys(request: pytest.FixtureRequest, kind: str) -> None:
    team: Team = request.getfixturevalue(kind)
    ok(team.owner.rucio('s3', 'make-bucket', team.scope, '--rse', team.rse))

    done, results = check(team.owner, team.rse)

    all_is_well(done, results)
    assert results['keys of the server'][:2] == ['skipped', 'only an admin of Rucio can try them']
    assert results['remote signing'][0] == 'ok'
    assert results['vended keys (STS)'][0] == ('ok' if kind == 'vended_team' else 'skipped')
    assert not [key for key in team.objects() if key.startswith('.rucio-s3-check')]
    with pytest.raises(RucioError, match='is not an admin of Rucio'):
        s3_call(team.owner, 'probe_s3_rse', team.rse, 'names')


def test_who_has_no_bucket_is_told_how_to_make_one(vended_team: Team) -> None:
    vended_team.root.call('add_scope', vended_team.other.account, f'user.{vended_team.other.account}2')
    told = refused(vended_team.other.rucio('s3', 'check', vended_team.rse))

    assert 'rucio s3 make-bucket SCOPE' in told


@pytest.mark.long
def test_an_operator_without_a_bucket_gets_one_for_the_time_of_the_check(site: Site, unique: str) -> None:
    """The RSE has a prefix of its own: on PLAIN_S3, scopes of root have buckets that other tests made."""
    storage = site.storages['PLAIN_S3']
    rse = site.add_rse(f'{unique}_S3'.upper(), storage, settings={'bucket_prefix': f'{unique}-'})
    site.root.configure(s3_keys(rse, storage))
    done, results = check(site.root, rse)

    all_is_well(done, results)
    assert 'made for this check' in results['bucket'][1]
    assert not [each for each in storage.client().list_buckets()['Buckets'] if 'rucio-s3-check' in each['Name']]


@pytest.mark.long
def test_a_ca_that_is_not_trusted_and_keys_that_are_wrong(site: Site, unique: str, tmp_path: Path) -> None:
    rse = site.add_rse(f'{unique}_S3'.upper(), site.storages['TLS_S3'])
    site.alice.configure({f's3:{rse}': {'access_key': 'admin', 'secret_key': 'wrong'}})
    done = site.alice.rucio('s3', 'check', rse)
    assert done.returncode == 1
    assert '| multipart ' in done.stdout
    assert "FAILED: TLS: Set 'ca_bundle'" in done.stdout

    site.alice.configure({f's3:{rse}': {'ca_bundle': site.storages['TLS_S3'].ca_bundle}})
    done, results = check(site.alice, rse)
    assert done.returncode == 1
    assert of(results, 'FAILED') == {'credentials', 'place'}  # it is at the place of TLS_S3
    assert f'rucio.cfg [s3:{rse}]' in results['credentials'][2]
    assert 'wrong' not in done.stdout + done.stderr


def test_an_rse_that_does_not_exist(site: Site) -> None:
    assert 'RSE' in refused(site.alice.rucio('s3', 'check', 'NO_SUCH_RSE'))


@pytest.mark.long
def test_ceph_does_less_than_aws(ceph: CephRGW, site: Site, unique: str) -> None:
    """The settings of the right provider are right, those of a wrong one are found out."""
    assert site.alice.account
    for provider, wrong in (
        ('ceph', set[str]()),
        ('aws', {'conditional multipart', 'CRC32', 'checksum of large files', 'unsigned headers', 'write and read', 'multipart'}),
    ):
        rse = f'{unique}_{provider}'.upper()
        ok(
            site.root.rucio(
                's3', 'rse', 'add', rse, '--provider', provider, '--endpoint', ceph.url, '--setting', 'addressing=path', '--bucket-prefix', f'{provider}-'
            )
        )
        site.root.configure({f's3:{rse}': {'access_key': ceph.access_key, 'secret_key': ceph.secret_key}})
        done, results = check(site.root, rse)
        assert bool(of(results, 'FAILED')) == bool(wrong), done.stdout
        assert of(results, 'FAILED') <= wrong, done.stdout
        if provider == 'ceph':  # which deletes with another body than the signed one since version 20: older ones are better than promised
            assert results['measured settings'][1] in ('the settings say what the storage does', 'differ from what the storage does: verifies_body = true')
        else:
            assert results['measured settings'][0] != 'ok', done.stdout


def test_an_admin_checks_with_the_keys_of_the_server(team_root: RucioCli, plain: SeaweedFS, unique: str) -> None:
    """Root has no keys of its own. A wrong secret of the server is found, and what the settings promise too much can be written."""
    wrong, right = f'{unique}_WRONG'.upper(), f'{unique}_RIGHT'.upper()
    ids = {}
    for rse, secret in ((wrong, 'wrong' * 8), (right, plain.secret_key)):
        settings = {'sorted_listing': True, 'lifecycle': False, 'bucket_prefix': f'{rse.lower()}-'.replace('_', '-')}
        ids[rse] = add_s3_rse(team_root, rse, plain, settings=settings)
        team_root.server.set_rse_keys(ids[rse], plain.access_key, secret)

    done, results = check(team_root, wrong)
    team_root.server.set_rse_keys(ids[wrong], plain.access_key, plain.secret_key)  # others ask all storages
    assert done.returncode == 1
    assert results['keys of the server'][0] == 'FAILED'
    assert 'SignatureDoesNotMatch' in results['keys of the server'][1]
    assert 'rse-accounts.cfg' in results['keys of the server'][2]

    done, results = check(team_root, right)
    assert results['keys of the server'] == ['ok', 'a bucket was made, used and removed', '']
    assert {'listing'} <= of(results, 'FAILED') <= {'listing', 'bucket', 'place'}, done.stdout
    assert f'rucio s3 check {right} --tighten sets sorted_listing = false.' in results['measured settings'][2]
    assert f'rucio s3 check {right} --loosen sets lifecycle = true.' in results['measured settings'][2]

    _, results = check(team_root, right, '--tighten')
    assert results['measured settings'][1] == 'written: sorted_listing = false'
    written = team_root.call('get_rse', right)['protocols'][0]['extended_attributes']['s3']
    assert (written['sorted_listing'], written['lifecycle']) == (False, False)
    assert not [each for each in plain.client().list_buckets()['Buckets'] if 'rucio-s3-check' in each['Name']]


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[SeaweedFS]:
    """A storage of no other RSE."""
    with SeaweedFS(tmp_path / 'lonely') as server:
        server.client().create_bucket(Bucket=SCOPE)
        yield server


@pytest.mark.smoke
def test_rse_add_makes_an_rse_that_works(site: Site, lonely: SeaweedFS, unique: str, tmp_path: Path) -> None:
    storage, rse = lonely, f'{unique}_S3'.upper()
    asked = ('--provider', 'seaweedfs', '--region', storage.region, '--endpoint', storage.url)
    told = ok(site.root.rucio('s3', 'rse', 'add', rse, *asked))
    assert f'{rse} uses the same keys for all files' in refused(site.root.rucio('s3', 'rse', 'add', f'OTHER_{rse}', *asked))
    site.alice.configure(s3_keys(rse, storage))
    site.root.call('set_local_account_limit', 'alice', rse, -1)
    site.storages[rse] = storage
    (tmp_path / 'file').write_bytes(b'content')

    site.alice.rucio('upload', '--rse', rse, '--scope', SCOPE, '--lfn', f'{unique}/file', str(tmp_path / 'file'))
    again = ok(site.root.rucio('s3', 'rse', 'add', rse, *asked))

    assert site.objects(rse, unique) == {f'{unique}/file': 7}
    entry = json.loads(re.findall(r'^ *(\{.*\})$', told, re.MULTILINE)[0])
    assert list(entry) == [site.root.call('get_rse', rse)['id']]
    assert 'Nothing was done' in again
    done, results = check(site.alice, rse)
    assert done.returncode == 0
    assert of(results, 'FAILED') == set()


def test_rse_add_goes_on_after_a_failure(site: Site, unique: str) -> None:
    rse = f'{unique}_S3'.upper()
    site.root.calls(('add_rse', rse), ('add_rse_attribute', rse, 'lfn2pfn_algorithm', 's3_bucket'))

    told = ok(site.root.rucio('s3', 'rse', 'add', rse, '--provider', 'ceph', '--endpoint', 'https://s3.example.org'))

    assert 'Created the RSE' not in told
    assert 'Set the attribute skip_upload_stat' in told
    assert 'Added the protocol https://s3.example.org:443/' in told
    assert site.root.call('list_rse_attributes', rse)['skip_upload_stat'] is True


@pytest.mark.parametrize(
    ('there', 'told'),
    [
        ([('add_rse_attribute', 'lfn2pfn_algorithm', 'hash')], 'its attribute lfn2pfn_algorithm is hash'),
        ([('add_protocol', {'scheme': 'root', 'hostname': 'x', 'port': 1094, 'prefix': '/', 'impl': 'rucio.rse.protocols.gfal.Default'})], 'gfal'),
    ],
)
def test_rse_add_leaves_another_rse_as_it_is(site: Site, unique: str, there: list[tuple[Any, ...]], told: str) -> None:
    rse = f'{unique}_S3'.upper()
    domains = {'lan': {'read': 1}, 'wan': {'read': 1}}
    calls = [(method, rse, *({**each, 'domains': domains} if isinstance(each, dict) else each for each in rest)) for method, *rest in there]
    site.root.calls(('add_rse', rse), *calls)
    before = site.root.calls(('get_rse', rse), ('list_rse_attributes', rse))

    said = refused(site.root.rucio('s3', 'rse', 'add', rse, '--provider', 'ceph', '--endpoint', 'https://s3.example.org'))

    assert told in said
    assert 'was not changed' in said
    assert site.root.calls(('get_rse', rse), ('list_rse_attributes', rse)) == before


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        (['--provider', 'nope', '--endpoint', 'https://x'], 'must be one of aws'),
        (['--provider', 'ceph', '--endpoint', 'https://x/bucket'], 'without a bucket'),
        (['--provider', 'ceph', '--endpoint', 'ftp://x'], 'expected https://HOST'),
        (['--provider', 'ceph', '--endpoint', 'https://x:port'], 'expected https://HOST'),
        (['--provider', 'ceph', '--endpoint', 'https://x', '--prefix', 'a'], '--bucket'),
        (['--provider', 'ceph', '--endpoint', 'https://x', '--bucket', 'A_B'], 'not a valid bucket name'),
        (['--provider', 'ceph', '--endpoint', 'https://x', '--setting', 'nope=1'], "there is no setting 'nope'"),
        (['--provider', 'ceph', '--endpoint', 'https://x', '--setting', 'secret_key=x'], 'is only allowed in rucio.cfg'),
    ],
)
def test_rse_add_tells_what_is_wrong_before_anything_is_made(site: Site, unique: str, options: list[str], told: str) -> None:
    rse = f'{unique}_S3'.upper()

    assert told in refused(site.root.rucio('s3', 'rse', 'add', rse, *options))
    assert rse not in site.root.rucio('rse', 'list').stdout


@pytest.mark.long
def test_one_bucket_for_an_rse(site: Site, unique: str) -> None:
    storage, rse = site.storages['PLAIN_S3'], f'{unique}_S3'.upper()
    storage.client().create_bucket(Bucket=unique)
    ok(site.root.rucio('s3', 'rse', 'add', rse, '--provider', 'seaweedfs', '--endpoint', storage.url, '--bucket', unique, '--prefix', 'a/b'))
    site.root.configure(s3_keys(rse, storage))

    done, results = check(site.root, rse)

    assert done.returncode == 0, done.stdout + done.stderr
    assert results['path algorithm'][1] == f"s3_bucket: a folder for each scope in '/{unique}/a/b/'"
    assert site.root.call('get_rse', rse)['protocols'][0]['prefix'] == f'/{unique}/a/b/'
