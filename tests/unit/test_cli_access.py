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

"""`rucio s3 credentials`, `url` and `presign` with a server that is a stand-in: what is asked, printed, written, and refused."""

import json
import os
import shlex
import stat
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from rucio.cli.s3 import access, presign
from rucio.common.exception import AccessDenied, DataIdentifierNotFound, InputValidationError, RSEOperationNotSupported
from rucio.common.s3.endpoint import Endpoint

SECRET = 'wJalr/XUtnFEMI+K7MDENG'


class Server:
    """An S3Client whose account is alice. Keys for anything, but what is in `refused` (may not) and `without` (no STS)."""

    account = 'alice'

    def __init__(self):
        self.buckets = [('user.alice', 'SITE_S3')]
        self.scopes = ['user.alice']
        self.read_only = set()
        self.without = set()
        self.missing = []
        self.asked = []
        self.shares = []

    def list_usable(self, places):
        kinds = (('own', 'user.alice', ''), *self.shares)
        return {
            'shares': [
                {'kind': kind, 'scope': scope, 'name': name, 'write': name == 'run8', 'places': self.locate(scope, name, None)} for kind, scope, name in kinds
            ]
        }

    def list_buckets(self, rse, missing):
        missing += self.missing
        return [{'scope': scope, 'rse': there, 'bucket': scope} for scope, there in self.buckets if rse in (None, there)]

    def list_scopes_for_account(self, account):
        return self.scopes

    def get_did(self, scope, name):
        if name.startswith('run'):
            return {'type': 'FILE' if '.' in name else 'DATASET'}
        raise DataIdentifierNotFound

    def locate(self, scope, name, rse):
        rse, url = rse or 'SITE_S3', f'https://s3.example.org/{scope}/{name}'
        # bob shares collections, not his bucket.
        prefix = f'{name.partition("/")[0]}/' if scope == 'user.bob' and name else ''
        return [{'rse': rse, 'bucket': scope, 'key': name, 'url': url, 'prefix': None if rse in self.without else prefix}]

    def list_s3_rses(self):
        return [{'rse': 'SITE_S3'}, {'rse': 'OTHER_S3'}]

    def best_place(self, scope, name, rse, read=False):
        return self.locate(scope, name, rse)[0]

    def get_did_credentials(self, scope, name, rse, write, lifetime=None):
        self.asked.append((scope, name, rse, write, lifetime))
        return self._keys(scope, f'{name}/' if name else '', rse or 'SITE_S3', write)

    def get_s3_credentials(self, rse, bucket, prefix, write, lifetime=None):
        return self._keys(bucket, '', rse, write)

    def _keys(self, bucket, prefix, rse, write):
        if rse in self.without:
            raise RSEOperationNotSupported(f"RSE {rse}: there is no 'role_arn'.")
        if write and bucket in self.read_only:
            raise AccessDenied('no')
        keys = {'access_key': f'KEY-{bucket}', 'secret_key': SECRET, 'session_token': 'T', 'expiration': '2999-01-01T00:00:00Z'}
        return keys | {'rse': rse, 'bucket': bucket, 'prefix': prefix, 'write': write, 'region': 'eu-1', 'url': 'https://s3.example.org', 'addressing': 'path'}

    def endpoint(self, rse):
        return Endpoint(rse=rse, rse_id='', url='https://s3.example.org')

    def get_s3_rse(self, rse):
        return {'url': 'https://s3.example.org'}

    def get_signed_url(self, rse, service, operation, url, lifetime):
        raise AccessDenied('Account alice may not. ')


@pytest.fixture
def stand_in(monkeypatch):
    made = Server()
    monkeypatch.setattr(access, 's3_client', lambda _: made)
    monkeypatch.setattr(presign, 's3_client', lambda _: made)
    return made


@pytest.fixture
def run(stand_in):
    """Call it with a command and its arguments, as one string."""

    def invoke(line):
        words = shlex.split(line)
        commands = {'credentials': access.credentials, 'url': access.url, 'presign': presign.presign}
        return CliRunner().invoke(commands[words[0]], words[1:], obj=SimpleNamespace(client=stand_in))

    return invoke


def aliases(result):
    assert result.exit_code == 0, result.output
    return sorted(json.loads(result.stdout)['aliases'])


def test_without_a_did_all_own_buckets_have_an_alias(stand_in, run):
    stand_in.scopes.append('data.alice')
    stand_in.buckets += [('data.alice', 'SITE_S3'), ('user.alice', 'OTHER_S3'), ('user.bob', 'SITE_S3')]
    result = run('credentials')
    assert aliases(result) == ['other_s3', 'site_s3', 'site_s3__data_alice']
    assert 'The keys expire at 2999-01-01 00:00:00 UTC' in result.stderr
    assert aliases(run('credentials --rse OTHER_S3')) == ['other_s3']


def test_what_cannot_be_is_left_out_and_said(stand_in, run):
    stand_in.buckets += [('user.alice', 'SITE-S3'), ('user.alice', 'OLD_S3')]
    stand_in.without.add('OLD_S3')
    stand_in.missing.append({'rse': 'DOWN_S3', 'why': 'It does not answer.'})
    result = run('credentials')
    assert sorted(json.loads(result.stdout)['aliases']) == ['site_s3']
    assert "Its alias 'site_s3' is already used for" in result.stderr
    assert 'The output is incomplete: user.alice on OLD_S3 is missing.' in result.stderr
    assert 'The output is incomplete: DOWN_S3 is missing. It does not answer.' in result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ('form', 'said'),
    [
        ('mc', 'mc needs it in its own directory: cp /etc/site.pem ~/.mc/certs/CAs/'),
        ('rclone', 'Old versions of rclone need it in a variable: export RCLONE_CA_CERT=/etc/site.pem'),
        ('env', None),
        ('aws', None),
    ],
)
def test_what_a_tool_needs_for_the_storages_own_ca(stand_in, run, form, said):
    stand_in.endpoint = lambda rse: Endpoint(rse=rse, rse_id='', url='https://s3.example.org', ca_bundle='/etc/site.pem')
    told = run(f'credentials user.alice --format {form}').stderr
    assert ('The storage has a CA of its own.' in told) == bool(said)
    assert not said or said in told


def test_nothing_but_storages_without_an_sts(stand_in, run):
    stand_in.without.add('SITE_S3')
    for line in ('credentials', 'credentials user.alice'):
        result = run(line)
        assert isinstance(result.exception, RSEOperationNotSupported)
        assert 'rucio upload' in str(result.exception)
        assert result.stdout == ''


def test_a_did_and_how_it_is_asked_for(stand_in, run):
    run('credentials user.bob:run7 --rse X --read-only --lifetime 900')
    assert stand_in.asked == [('user.bob', 'run7', 'X', False, 900)]


def test_who_may_not_write_reads(stand_in, run):
    stand_in.read_only.add('user.bob')
    result = run('credentials user.bob:run7 --format json')
    assert json.loads(result.stdout)[0]['write'] is False
    assert 'these keys are read-only' in result.stderr


def test_one_alias_for_all_of_one_grant(run):
    for name in ('run7', 'run7/part'):
        (only,) = json.loads(run(f'credentials user.bob:{name} --format json').stdout)
        assert (only['alias'], only['prefix']) == ('site_s3__user_bob__run7', f'{name}/')
        assert run(f'url user.bob:{name} --for mc').stdout == f'site_s3__user_bob__run7/user.bob/{name}/\n'


@pytest.mark.parametrize(
    ('line', 'printed'),
    [
        ('url user.alice:run7', 'https://s3.example.org/user.alice/run7/'),
        ('url user.alice:run7/a.root', 'https://s3.example.org/user.alice/run7/a.root'),
        ('url user.alice:unknown --for aws', 's3://user.alice/unknown'),
        ('url user.alice --for rclone', 'site_s3:user.alice/'),
    ],
)
def test_names(run, line, printed):
    assert run(line).stdout == f'{printed}\n'


@pytest.mark.parametrize('form', ['process', 's3cmd'])
def test_one_pair_of_keys_only(stand_in, run, form):
    stand_in.buckets.append(('user.alice', 'OTHER_S3'))
    result = run(f'credentials --format {form}')
    assert isinstance(result.exception, InputValidationError)
    assert 'user.alice --rse SITE_S3' in str(result.exception)


def test_a_process_says_nothing_but_its_answer(run):
    result = run('credentials user.alice --format process')
    assert result.stderr == ''
    assert json.loads(result.stdout)['Version'] == 1


# Files


def test_the_tools_own_file(run, home, monkeypatch):
    assert run('credentials --write').exit_code == 0
    assert list(json.loads(home.joinpath('.mc', 'config.json').read_text())['aliases']) == ['site_s3']
    assert stat.S_IMODE(home.joinpath('.mc', 'config.json').stat().st_mode) == 0o600
    assert stat.S_IMODE(home.joinpath('.mc').stat().st_mode) == 0o700
    monkeypatch.setenv('MC_CONFIG_DIR', str(home / 'mc'))
    assert SECRET not in run('credentials --write').output
    assert home.joinpath('mc', 'config.json').exists()


def test_the_files_of_all_names_that_mc_has(run, home, monkeypatch):
    """Debian's minio-client does not read ~/.mc."""
    monkeypatch.setattr(access.shutil, 'which', {'minio-client': '/usr/bin/minio-client'}.get)
    assert run('credentials --write').exit_code == 0
    assert sorted(str(path.relative_to(home)) for path in home.rglob('config.json')) == ['.mc/config.json', '.minio-client/config.json']


def test_a_new_file_is_private_at_once(run, home, monkeypatch):
    seen = []
    replace = os.replace

    def look(old, new, **places):
        seen.append(stat.S_IMODE(os.stat(old, dir_fd=places['src_dir_fd']).st_mode))
        replace(old, new, **places)

    monkeypatch.setattr(os, 'replace', look)
    old = os.umask(0)
    try:
        run(f'credentials --file {home}/file')
    finally:
        os.umask(old)
    assert seen == [0o600]


def test_a_disk_that_fails_leaves_the_file(run, home, monkeypatch):
    file = home / 'file'
    file.write_text('{"version": "10", "aliases": {}}')

    def full(_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    result = run(f'credentials --file {file}')
    assert 'No space left' in str(result.exception)
    assert file.read_text() == '{"version": "10", "aliases": {}}'
    assert [path.name for path in home.iterdir() if path.name.startswith('.rucio')] == []


@pytest.mark.parametrize(
    ('content', 'said'), [(b'\xff\xfe', 'is not UTF-8 text'), (b'{', 'not JSON'), (b'{"version": "10", "aliases": {"site_s3": {"secretKey": "m"}}}', 'already')]
)
def test_a_file_that_is_none_of_ours(run, home, content, said):
    file = home / 'file'
    file.write_bytes(content)
    result = run(f'credentials --file {file}')
    assert isinstance(result.exception, InputValidationError)
    assert said in str(result.exception)
    assert str(file) in str(result.exception)
    assert SECRET not in str(result.exception)
    assert file.read_bytes() == content


def test_a_format_without_a_file(run, home):
    assert 'no default file' in str(run('credentials --format env --write').exception)
    for form in ('env', 'json', 'process'):
        for _ in range(2):  # again over its own
            assert run(f'credentials --format {form} --file {home}/{form}').exit_code == 0
        assert SECRET in home.joinpath(form).read_text()
    home.joinpath('mine').write_text('alias ll=ls')
    assert 'would be lost' in str(run(f'credentials --format env --file {home}/mine').exception)
    assert home.joinpath('mine').read_text() == 'alias ll=ls'


@pytest.mark.parametrize(
    ('did', 'role'),
    [('user.alice:run7', 'SITE_S3/user.alice:run7'), ('user.alice', 'SITE_S3/user.alice'), ('user.bob:run7 --rse OTHER_S3', 'OTHER_S3/user.bob:run7')],
)
def test_a_role_names_rse_and_did(stand_in, run, did, role):
    """Also where the storage has no STS: the server's STS then says so."""
    stand_in.without.add('OTHER_S3')
    assert run(f'url {did} --for role').stdout == f'arn:aws:iam::rucio:role/{role}\n'


# presign


def test_a_signed_url_is_for_the_object_and_the_time(run):
    url = run('presign user.alice:run7/a.root --expires 60').stdout
    assert url.startswith('https://s3.example.org/user.alice/run7/a.root?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=KEY-user.alice')
    assert 'X-Amz-Expires=60&' in url
    assert SECRET not in url
    assert 'X-Amz-Expires=3600&' in run('presign user.alice:run7/a.root').stdout


def test_a_url_ends_with_its_keys(stand_in, run, monkeypatch):
    monkeypatch.setattr(presign, 'seconds_until', lambda _: 100.5)
    default = run('presign user.alice:run7/a.root')
    assert 'X-Amz-Expires=100&' in default.stdout
    assert default.stderr == ''
    assert 'the URL expires at 2999-01-01 00:00:00 UTC' in run('presign user.alice:run7/a.root --expires 3600').stderr


def test_a_url_that_nobody_signs(stand_in, run):
    stand_in.without.add('SITE_S3')
    result = run('presign user.alice:run7/a.root')
    assert isinstance(result.exception, RSEOperationNotSupported)
    assert 'Account alice may not. Ask the operator' in str(result.exception)


def test_a_collection_has_a_url_for_each_file_that_is_on_an_s3_rse(stand_in, run, monkeypatch):
    """The files may have other names and scopes than the collection, and be on other RSEs."""
    pfns = {
        ('user.alice', 'run7/a b'): {'https://s3.example.org/user.alice/run7/a%20b': {'rse': 'SITE_S3', 'priority': 1}},
        ('user.bob', 'x'): {
            'root://site//x': {'rse': 'DISK', 'priority': 1},
            'https://s3.example.org:443/user.bob/x?X-Amz-Signature=stock': {'rse': 'OTHER_S3', 'priority': 2},
        },
        ('user.alice', 'run7/lost'): {},
        ('user.alice', 'run7/disk'): {'root://site//disk': {'rse': 'DISK', 'priority': 1}},
    }
    vended = []
    monkeypatch.setattr(stand_in, 'list_files', lambda *_: [{'scope': scope, 'name': name} for scope, name in pfns], raising=False)
    monkeypatch.setattr(stand_in, 'list_replicas', lambda dids, **_: [{**did, 'pfns': pfns[did['scope'], did['name']]} for did in dids], raising=False)
    keys = stand_in.get_s3_credentials
    monkeypatch.setattr(stand_in, 'get_s3_credentials', lambda *given: vended.append(given[:3]) or keys(*given))
    monkeypatch.setattr(presign, 'CHUNK', 3)
    result = run('presign user.alice:run7')
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()
    assert first.startswith('https://s3.example.org/user.alice/run7/a%20b?X-Amz-Algorithm')
    assert second.startswith('https://s3.example.org/user.bob/x?X-Amz-Algorithm')
    assert 'stock' not in second
    assert vended == [('SITE_S3', 'user.alice', 'run7/a b'), ('OTHER_S3', 'user.bob', 'x')]
    assert result.stderr.count('It has no available replica on an S3 RSE.') == 2
    assert 'user.alice:run7/lost is missing' in result.stderr


def test_keys_serve_for_all_objects_that_they_are_for(stand_in, run, monkeypatch):
    names = [f'run7/{number}' for number in range(5)]
    vended = []
    monkeypatch.setattr(stand_in, 'list_files', lambda *_: [{'scope': 'user.alice', 'name': name} for name in names], raising=False)
    monkeypatch.setattr(
        stand_in,
        'list_replicas',
        lambda dids, **_: [{**did, 'pfns': {f'https://s3.example.org/user.alice/{did["name"]}': {'rse': 'SITE_S3', 'priority': 1}}} for did in dids],
        raising=False,
    )
    keys = stand_in.get_s3_credentials
    monkeypatch.setattr(stand_in, 'get_s3_credentials', lambda *given: vended.append(given) or keys(*given))
    assert len(run('presign user.alice:run7').stdout.splitlines()) == 5
    assert len(vended) == 1
    refused = run('presign user.alice:run7 --put')
    assert isinstance(refused.exception, InputValidationError)
    assert '--put needs the name of a file' in str(refused.exception)


def test_credentials_contain_what_others_share(run, stand_in):
    """It need not be said where that is. Formats that hold one bucket have one's own; and nobody makes a command fail by sharing something."""
    stand_in.shares = [('account', 'user.bob', 'run7'), ('attribute', 'user.bob', 'run8'), ('world', 'user.bob', 'run9')]
    stand_in.read_only = set()
    done = run('credentials --format json')
    assert done.exit_code == 0, done.output
    assert stand_in.asked == [
        ('user.bob', 'run7', 'SITE_S3', False, None),
        ('user.bob', 'run8', 'SITE_S3', True, None),
        ('user.alice', None, 'SITE_S3', True, None),
    ]
    assert 'KEY-user.bob' in done.output
    assert 'KEY-user.bob' not in run('credentials --format env').output
    stand_in.read_only = {'user.bob'}
    assert 'There are no keys for user.bob:run8 on SITE_S3, which is shared with you' in run('credentials').output
    stand_in.buckets = []
    assert run('credentials').exit_code == 0
    stand_in.shares = []
    assert 'has no bucket of its own' in str(run('credentials').exception)
