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


"""The ways of being authorised: which one is chosen, and what it sends."""

import json
from types import SimpleNamespace

import pytest

from rucio.common.exception import ConfigurationError, RSEAccessDenied, RSENotFound, RSEOperationNotSupported
from rucio.common.s3 import clients, credentials
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.errors import Target
from rucio.common.s3.settings import Secrets

BUCKET = 'user.alice'
CONFIGURED = Secrets('CFGKEY', 'cfg-secret')


@pytest.fixture
def endpoint(s3):
    def make(**settings):
        return Endpoint(**{'rse': 'X', 'rse_id': 'abc123', 'url': s3.url, 'max_attempts': 1} | settings)

    return make


@pytest.fixture
def accounts(home):
    """Call it with the accounts by RSE id to write rse-accounts.cfg."""

    def write(content):
        text = content if isinstance(content, str) else json.dumps(content)
        home.joinpath('rucio', 'etc', 'rse-accounts.cfg').write_text(text)

    return write


@pytest.fixture
def aws(home):
    """Call it with the contents of ~/.aws/credentials and ~/.aws/config."""

    def write(keys, config=''):
        home.joinpath('.aws').mkdir()
        home.joinpath('.aws', 'credentials').write_text(keys)
        home.joinpath('.aws', 'config').write_text(config)

    return write


@pytest.fixture
def used(s3):
    """Call it with an authoriser: the access key that a request of its client was signed with."""

    def ask(endpoint, authorizer):
        clients.connect(endpoint, authorizer).client.list_buckets()
        header = s3.requests[-1].headers.get('authorization', '')
        return header.partition('Credential=')[2].partition('/')[0]

    return ask


# Which one


def test_keys_of_rucio_cfg_come_before_a_profile_and_the_profile_before_rse_accounts(endpoint, accounts):
    accounts({'abc123': {'access_key': 'ACC', 'secret_key': 's'}})
    both = Secrets('CFGKEY', 'cfg-secret', profile='p')
    assert isinstance(credentials.choose(endpoint(secrets=both)), credentials.Static)
    assert isinstance(credentials.choose(endpoint(secrets=Secrets(profile='p'))), credentials.Profile)
    assert isinstance(credentials.choose(endpoint()), credentials.RSEAccounts)


def test_without_any_keys_only_a_signed_url_will_do(endpoint):
    assert credentials.choose(endpoint()) is None


def test_presigned_is_chosen_by_name_although_there_are_keys(endpoint):
    assert credentials.choose(endpoint(auth='presigned', secrets=CONFIGURED)) is None


def test_anonymous_is_chosen_by_name_only(endpoint):
    assert isinstance(credentials.choose(endpoint(auth='anonymous', secrets=CONFIGURED)), credentials.Anonymous)


def test_static_without_keys_is_refused_with_the_place_for_them(endpoint):
    with pytest.raises(RSEAccessDenied, match=r'RSE X.*\[s3:X\]'):
        credentials.choose(endpoint(auth='static'))


@pytest.mark.parametrize('secrets', [Secrets('CFGKEY'), Secrets(secret_key='hidden'), Secrets('CFGKEY', profile='p')])
def test_half_a_key_is_refused(endpoint, secrets):
    with pytest.raises(ConfigurationError, match='only one of access_key and secret_key') as caught:
        credentials.choose(endpoint(secrets=secrets))
    assert 'hidden' not in str(caught.value)


def test_keys_of_the_environment_belong_to_other_storages(endpoint, monkeypatch):
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'ENVKEY')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'env-secret')
    assert credentials.choose(endpoint()) is None


# Static


def test_static_keys_sign_the_requests(endpoint, used):
    chosen = endpoint(secrets=CONFIGURED)
    assert used(chosen, credentials.choose(chosen)) == 'CFGKEY'


def test_a_session_token_goes_with_its_keys(endpoint, used, s3):
    used(endpoint(), credentials.Static('K', 's', 'the token'))
    assert s3.requests[-1].headers['x-amz-security-token'] == 'the token'


@pytest.mark.parametrize('keys', [credentials.Static('K', 's'), credentials.Profile('p')])
def test_keys_of_the_users_own_are_static_for_those_who_ask(keys):
    assert keys.name == 'static'


def test_static_keys_take_nothing_from_the_environment(endpoint, used, s3, monkeypatch):
    monkeypatch.setenv('AWS_PROFILE', 'missing')
    monkeypatch.setenv('AWS_SESSION_TOKEN', 'of another storage')
    monkeypatch.setenv('AWS_DEFAULT_REGION', 'eu-west-1')
    monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://127.0.0.1:9')
    assert used(endpoint(), credentials.Static('K', 's')) == 'K'
    assert 'x-amz-security-token' not in s3.requests[-1].headers
    assert '/us-east-1/s3/' in s3.requests[-1].headers['authorization']


@pytest.mark.parametrize('config', ['[default]\nregion = eu-west-1\ns3 =\n  addressing_style = virtual\n', 'this is no ini file'])
def test_static_keys_take_nothing_from_the_users_aws_files(endpoint, used, s3, aws, config):
    aws('[default]\naws_access_key_id = HOME\naws_secret_access_key = h\n', config)
    assert used(endpoint(), credentials.Static('K', 's')) == 'K'
    assert '/us-east-1/s3/' in s3.requests[-1].headers['authorization']


# Profile


def test_a_profile_is_used_by_its_name(endpoint, used, aws):
    aws('[default]\naws_access_key_id = DEF\naws_secret_access_key = d\n[site]\naws_access_key_id = SITE\naws_secret_access_key = s\n')
    assert used(endpoint(), credentials.Profile('site')) == 'SITE'


def test_a_profile_comes_before_keys_of_the_environment(endpoint, used, aws, monkeypatch):
    aws('[site]\naws_access_key_id = SITE\naws_secret_access_key = s\n')
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'ENVKEY')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'env-secret')
    assert used(endpoint(), credentials.Profile('site')) == 'SITE'


def test_a_missing_profile_is_named(endpoint):
    with pytest.raises(RSEAccessDenied, match='nowhere'):
        clients.connect(endpoint(), credentials.Profile('nowhere'))


# rse-accounts.cfg


def test_an_account_is_found_by_the_id_of_the_rse(endpoint, accounts, used):
    accounts({'other': {'access_key': 'OTHER', 'secret_key': 'o'}, 'abc123': {'access_key': 'ACC', 'secret_key': 's', 'signature_version': 's3v4'}})
    assert used(endpoint(), credentials.choose(endpoint())) == 'ACC'
    assert credentials.choose(endpoint(rse_id='unknown')) is None


def test_the_region_of_an_account_is_used_unless_a_setting_says_another(endpoint, accounts, used, s3):
    accounts({'abc123': {'access_key': 'ACC', 'secret_key': 's', 'region': 'eu-north-1'}})
    used(endpoint(), credentials.choose(endpoint()))
    assert '/eu-north-1/s3/' in s3.requests[-1].headers['authorization']
    used(endpoint(region='mars'), credentials.choose(endpoint()))
    assert '/mars/s3/' in s3.requests[-1].headers['authorization']


@pytest.mark.parametrize('content', ['{}', '{"abc123": null}', '{"abc123": {"tempurl_key": "swift"}}'])
def test_an_rse_without_s3_keys_in_the_file_has_no_account(endpoint, accounts, content):
    accounts(content)
    assert credentials.choose(endpoint()) is None


@pytest.mark.parametrize(
    'content',
    [
        '',
        'no json',
        '{"abc123": {"access_key": "A"},}',
        '{"abc123": {"access_key": "A"}}',
        '{"abc123": {"secret_key": "s"}}',
        '{"abc123": {"access_key": "A", "secret_key": ""}}',
    ],
)
def test_a_broken_file_or_half_a_key_in_it_is_named(endpoint, accounts, content):
    accounts(content)
    with pytest.raises(ConfigurationError, match=r'rse-accounts\.cfg'):
        credentials.choose(endpoint())


def test_the_region_of_a_profile_is_used(endpoint, used, s3, home):
    (home / '.aws').mkdir(exist_ok=True)
    (home / '.aws' / 'config').write_text('[profile far]\nregion = eu-north-1\naws_access_key_id = A\naws_secret_access_key = s\n')
    used(endpoint(), credentials.Profile('far'))
    assert '/eu-north-1/s3/' in s3.requests[-1].headers['authorization']


def test_keys_that_are_changed_in_the_file_are_used_after_a_minute_without_a_new_client(endpoint, accounts, used, s3, monkeypatch):
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(credentials, 'time', clock)
    accounts({'abc123': {'access_key': 'OLD', 'secret_key': 's'}})
    authorizer = credentials.choose(endpoint())
    assert used(endpoint(), authorizer) == 'OLD'
    accounts({'abc123': {'access_key': 'NEW', 'secret_key': 't'}})
    clock.now += 60
    assert used(endpoint(), authorizer) == 'OLD'
    clock.now += 1
    assert used(endpoint(), authorizer) == 'NEW'
    accounts({'abc123': {'access_key': 'NEWER', 'secret_key': 't'}})
    assert used(endpoint(), authorizer) == 'NEW'  # the file is not read for each request
    clock.now += 61
    assert used(endpoint(), authorizer) == 'NEWER'


def test_the_last_keys_are_kept_while_the_file_cannot_be_read(endpoint, accounts, used, monkeypatch):
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(credentials, 'time', clock)
    accounts({'abc123': {'access_key': 'OLD', 'secret_key': 's'}})
    authorizer = credentials.choose(endpoint())
    used(endpoint(), authorizer)
    accounts('{"abc123": half writ')
    clock.now += 61
    assert used(endpoint(), authorizer) == 'OLD'


# Anonymous


def test_anonymous_requests_are_not_signed(endpoint, used, s3):
    assert used(endpoint(), credentials.Anonymous()) == ''
    assert 'authorization' not in s3.requests[-1].headers


def test_anonymous_takes_no_keys_from_the_environment(endpoint, used, monkeypatch):
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'ENVKEY')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'env-secret')
    assert used(endpoint(), credentials.Anonymous()) == ''


# Presigned


def test_a_signed_url_is_used_as_it_is(endpoint, s3):
    s3.store(BUCKET, 'a b+', b'x')
    # Spelled as no client would: the signature covers it.
    path = f'/{BUCKET}/%61%20b+?z=%2F&X-Amz-Signature=b+c&a=&a'
    connection = clients.connect(endpoint(), None)
    connection.authorizer.offer('read', Target('X', BUCKET, 'a b+'), s3.url + path)
    assert connection.client.get_object(Bucket=BUCKET, Key='a b+')['Body'].read() == b'x'
    assert s3.requests[-1].url == path
    assert not {'authorization', 'x-amz-checksum-mode', 'x-amz-security-token'} & s3.requests[-1].headers.keys()


def test_each_operation_has_its_own_signed_url(endpoint, s3):
    connection = clients.connect(endpoint(), None)
    for operation in ('read', 'write', 'delete'):
        connection.authorizer.offer(operation, Target('X', BUCKET, 'k'), f'{s3.url}/{BUCKET}/k?X-Amz-Signature={operation}')
    connection.client.put_object(Bucket=BUCKET, Key='k', Body=b'1')
    connection.client.get_object(Bucket=BUCKET, Key='k')
    connection.client.delete_object(Bucket=BUCKET, Key='k')
    assert [request.url.rpartition('=')[2] for request in s3.requests] == ['write', 'read', 'delete']


def test_the_last_url_for_an_object_counts(endpoint, s3):
    s3.store(BUCKET, 'k', b'x')
    connection = clients.connect(endpoint(), None)
    for signature in ('old', 'new'):
        connection.authorizer.offer('read', Target('X', BUCKET, 'k'), f'{s3.url}/{BUCKET}/k?X-Amz-Signature={signature}')
    connection.client.get_object(Bucket=BUCKET, Key='k')
    assert s3.requests[-1].url.endswith('=new')


@pytest.mark.parametrize(
    ('method', 'arguments'),
    [
        ('head_object', {'Key': 'k'}),
        ('list_objects_v2', {}),
        ('create_multipart_upload', {'Key': 'k'}),
        ('put_object', {'Key': 'k'}),
        ('get_object', {'Key': 'other'}),
    ],
)
def test_what_no_url_was_signed_for_is_refused_with_a_remedy_and_sends_nothing(endpoint, s3, method, arguments):
    connection = clients.connect(endpoint(), None)
    connection.authorizer.offer('read', Target('X', BUCKET, 'k'), f'{s3.url}/{BUCKET}/k?X-Amz-Signature=hidden')
    with pytest.raises(RSEOperationNotSupported, match='no signed URL') as caught:
        getattr(connection.client, method)(Bucket=BUCKET, **arguments)
    assert 'rucio.cfg' in str(caught.value)
    assert 'hidden' not in str(caught.value)
    assert not s3.requests


def test_signed_urls_are_forgotten_after_a_while(endpoint, s3, monkeypatch):
    monkeypatch.setattr(credentials.Presigned, 'REMEMBERED', 2)
    connection = clients.connect(endpoint(), None)
    for key in ('1', '2', '3'):
        s3.store(BUCKET, key, b'x')
        connection.authorizer.offer('read', Target('X', BUCKET, key), f'{s3.url}/{BUCKET}/{key}?X-Amz-Signature=1')
    connection.client.get_object(Bucket=BUCKET, Key='3')
    with pytest.raises(RSEOperationNotSupported):
        connection.client.get_object(Bucket=BUCKET, Key='1')


# Secrets


def test_no_authoriser_shows_a_secret():
    account = {'access_key': 'AKIDHIDDEN', 'secret_key': 'hidden'}
    presigned = credentials.Presigned()
    presigned.offer('read', Target('X', 'b', 'k'), 'https://h/b/k?X-Amz-Signature=hidden')
    for each in (credentials.Static('AKIDHIDDEN', 'hidden', 'hidden'), credentials.RSEAccounts('id', account), credentials.Anonymous(), presigned):
        assert 'hidden' not in f'{each} {each!r} {each.identity}'.lower()


def test_the_identity_tells_different_keys_apart():
    same = [credentials.Static('A', 'b', 'c').identity for _ in range(2)]
    others = [credentials.Static(*keys).identity for keys in (('A', 'x', 'c'), ('x', 'b', 'c'), ('A', 'b', 'x'), ('A', 'b'), ('Ab', 'c'))]
    assert len(set(same)) == 1
    assert len({*same, *others}) == 6


@pytest.mark.parametrize('region', ['', None])
def test_an_account_without_a_region_knows_none(region):
    account = {'access_key': 'A', 'secret_key': 's'}
    assert credentials.RSEAccounts('id', account | {'region': region}).region is None
    assert credentials.RSEAccounts('id', account | {'region': 'mars'}).region == 'mars'


def test_a_url_that_is_offered_again_is_kept_longer(monkeypatch):
    monkeypatch.setattr(credentials.Presigned, 'REMEMBERED', 2)
    way = credentials.Presigned()
    for key in '1213':
        way.offer('read', Target('X', 'b', key), f'https://h/b/{key}?X-Amz-Signature=1')
    for key, known in (('1', True), ('2', False), ('3', True)):
        request = credentials.Request('GET', f'https://h/b/{key}')
        if known:
            assert way.authorise(request).url == f'https://h/b/{key}?X-Amz-Signature=1'
        else:
            with pytest.raises(RSEOperationNotSupported):
                way.authorise(request)


# What a server offers


class Server:
    """Counts how often it is asked."""

    def __init__(self, *ways, region=None, refusal=None, identity='https://rucio alice'):
        self.identity, self.asked, self.refusal = identity, [], refusal
        self.answer = {'auth': list(ways), 'region': region}

    def get_s3_rse(self, rse):
        self.asked.append(rse)
        if self.refusal:
            raise self.refusal
        return self.answer


@pytest.fixture
def clock(monkeypatch):
    made = SimpleNamespace(now=1000.0, monotonic=lambda: made.now)
    monkeypatch.setattr(credentials, 'time', made)
    return made


@pytest.fixture
def ways(monkeypatch):
    """Each way of being authorised is a tuple that says what it was made with."""
    monkeypatch.setattr(credentials, '_offers', {})
    for name in ('vended', 'remote'):
        monkeypatch.setattr(credentials, f'_{name}', lambda endpoint, server, region, name=name: (name, endpoint.rse, server, region))
    monkeypatch.setattr(credentials, '_web_identity', lambda endpoint, token: ('web-identity', endpoint.rse, token))


ROLE, TOKEN = {'web_identity_role_arn': 'arn:aws:iam:::role/X'}, 'eyJhbGciOi'


@pytest.mark.parametrize(
    ('settings', 'server', 'token', 'sign_url', 'chosen'),
    [
        ({}, Server('remote', 'vended', region='mars'), TOKEN, False, ('vended', 'X', 'server', 'mars')),
        ({}, Server('remote'), TOKEN, False, ('remote', 'X', 'server', None)),
        ({}, Server('remote', region=''), None, False, ('remote', 'X', 'server', None)),
        ({}, Server('vended'), None, True, None),
        ({}, Server(), None, False, None),
        (ROLE, Server(), TOKEN, False, ('web-identity', 'X', TOKEN)),
        (ROLE, None, TOKEN, False, ('web-identity', 'X', TOKEN)),
        (ROLE, None, 'alice-of-rucio', False, None),
        (ROLE, None, None, False, None),
        ({}, None, TOKEN, False, None),
        (ROLE, Server('vended', refusal=RSENotFound('x')), TOKEN, False, ('web-identity', 'X', TOKEN)),
        ({}, Server('vended', refusal=RSEOperationNotSupported('x')), None, False, None),
        ({'auth': 'vended'}, Server(region='mars'), None, False, ('vended', 'X', 'server', 'mars')),
        ({'auth': 'vended', 'region': 'venus'}, Server(region='mars'), None, False, ('vended', 'X', 'server', None)),
        ({'auth': 'remote'}, Server('vended'), None, True, ('remote', 'X', 'server', None)),
        ({'auth': 'web-identity'} | ROLE, Server('vended'), 'any', False, ('web-identity', 'X', 'any')),
        ({'auth': 'presigned'} | ROLE, Server('vended'), TOKEN, False, None),
    ],
)
@pytest.mark.parametrize('late', [True, False], ids=['made when needed', 'made before'])
def test_which_way_of_a_server_is_chosen(ways, endpoint, settings, server, token, sign_url, chosen, late):
    found = credentials.choose(endpoint(**settings), (lambda: server) if late else server, token, sign_url)
    assert found == (tuple(server if each == 'server' else each for each in chosen) if chosen else None)


@pytest.mark.parametrize('settings', [{'secrets': CONFIGURED}, {'secrets': CONFIGURED, 'auth': 'static'}, {'auth': 'presigned'}, {'auth': 'anonymous'}])
def test_a_server_that_is_not_needed_is_not_made(ways, endpoint, settings):
    credentials.choose(endpoint(**settings), lambda: pytest.fail('it was made'), TOKEN)


@pytest.mark.parametrize(
    ('settings', 'token', 'said'),
    [
        ({'auth': 'web-identity'} | ROLE, None, 'there is no OIDC token'),
        ({'auth': 'web-identity'}, TOKEN, 'no role is known'),
        ({'auth': 'vended'}, TOKEN, "'auth' is vended, which is only for clients of a Rucio server"),
        ({'auth': 'remote'}, TOKEN, "'auth' is remote, which is only for clients of a Rucio server"),
    ],
)
def test_a_way_that_is_named_and_missing_is_refused(ways, endpoint, settings, token, said):
    with pytest.raises(RSEAccessDenied, match=f'RSE X: .*{said}'):
        credentials.choose(endpoint(**settings), None, token)


def test_a_server_is_asked_once_for_each_rse(ways, endpoint, clock):
    one, other = Server('vended'), Server('remote', identity='https://rucio bob')
    for _ in range(3):
        assert credentials.choose(endpoint(), one)[0] == 'vended'
        assert credentials.choose(endpoint(), other)[0] == 'remote'  # the answer to somebody else is another
        assert credentials.choose(endpoint(rse='Y'), one)[:2] == ('vended', 'Y')
    assert (one.asked, other.asked) == (['X', 'Y'], ['X'])
    clock.now += 600
    credentials.choose(endpoint(), one)
    assert one.asked == ['X', 'Y']
    one.answer = {}
    clock.now += 1
    assert credentials.choose(endpoint(), one) is None
    assert one.asked == ['X', 'Y', 'X']


def test_who_uses_the_file_of_accounts_is_warned_if_everybody_can_read_it(monkeypatch):
    warned = []
    monkeypatch.setattr(credentials.own_config, 'warn_of_accounts', warned.append)
    credentials.RSEAccounts('id', {'access_key': 'A', 'secret_key': 's'})
    assert len(warned) == 1
