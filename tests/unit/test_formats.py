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

"""What other tools are given: each format as its tool documents it, files that keep all else, names and aliases."""

import configparser
import hashlib
import importlib.resources
import json
import re
import shlex
import subprocess

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio.common.exception import InputValidationError, ServiceUnavailable
from rucio.common.s3 import address
from rucio.common.s3.formats import FORMATS, Access, alias_in, alias_of, aliases_of_user, environment, headings, is_alias_on, name_for, tool_environment

URL = 'https://s3.example.org:9000'
# What AWS makes: "/", "+" and "=" are in them. Whoever quotes or encodes must get these back.
SECRET = 'wJalr/XUtnFEMI+K7MDENG%bPxRfi=CYEXAMPLEKEY'
TOKEN = 'FwoGZXIvYXdzE/+Br\'"$(x)%40=='


KEYS = {
    'rse': 'SITE_S3',
    'url': 'https://unused.example.org',
    'region': 'unused',
    'addressing': 'unused',
    'bucket': 'user.alice',
    'prefix': '',
    'write': True,
    'access_key': 'ASIAEXAMPLE',
    'secret_key': SECRET,
    'session_token': TOKEN,
    'expiration': '2026-11-23T12:00:00Z',
}


def access(**settings):
    keys = {name: settings.pop(name, value) for name, value in KEYS.items() if name not in ('url', 'region', 'addressing')}
    return Access(**{'alias': 'site_s3', 'keys': KEYS | keys, 'url': URL, 'region': 'eu-1', 'addressing': 'path'} | settings)


# Aliases and names


@pytest.mark.parametrize(
    ('rse', 'scope', 'bucket', 'prefix', 'alias'),
    [
        ('SITE_S3', 'user.alice', 'user.alice', '', 'site_s3'),
        ('CERN-PROD_S3', 'user.alice', 'vo-user.alice', '', 'cern_prod_s3'),
        ('SITE_S3', 'user.bob', 'user.bob', '', 'site_s3__user_bob'),
        ('SITE_S3', 'user.bob', 'user.bob', 'run7/', 'site_s3__user_bob__run7'),
        ('SITE_S3', 'data', 'data', 'a.b-c/', 'site_s3__data__a_b_c'),
        ('9TH', 'user.alice', 'user.alice', '', 's3_9th'),
        ('X', 'user.alice', 'user.alice', '', 's3_x'),
    ],
)
def test_an_alias_says_whose_bucket_it_is(rse, scope, bucket, prefix, alias):
    assert alias_of(rse, scope, bucket, prefix, 'alice') == alias


@pytest.mark.parametrize(
    ('argument', 'alias'),
    [
        ('site_s3/bucket/key', 'site_s3'),
        ('site_s3:bucket/key', 'site_s3'),
        ('s3_9th/b', 's3_9th'),
        ('x/b', ''),
        ('9th/b', ''),
        ('Site/b', ''),
        ('site-s3/b', ''),
        ('site_s3', ''),
        ('/site_s3/b', ''),
        ('', ''),
    ],
)
def test_an_argument_may_begin_with_an_alias(argument, alias):
    assert alias_in(argument) == alias


@pytest.mark.parametrize(
    ('alias', 'rse', 'is_on'),
    [
        ('site_s3', 'SITE_S3', True),
        ('site_s3__user_bob', 'SITE_S3', True),
        ('site_s3__user_bob__run7', 'SITE_S3', True),
        ('site_s3_2', 'SITE_S3', False),
        ('site', 'SITE_S3', False),
        ('s3_9th__data', '9TH', True),
        ('9th', '9TH', False),
    ],
)
def test_an_alias_tells_its_rse(alias, rse, is_on):
    assert is_alias_on(alias, rse) is is_on


@pytest.mark.parametrize('others', [('run/7/', 'run_7/'), ('Run/', 'run/'), ('x' * 50, 'x' * 51), ('a__b/', 'a_b/'), ('RUNX/', 'RUN/')])
def test_parts_of_a_bucket_have_different_aliases(others):
    one, other = (alias_of('SITE_S3', 'user.bob', 'user.bob', prefix, 'alice') for prefix in others)
    assert one != other


@given(st.from_regex('[A-Z0-9]+([_-][A-Z0-9]+){0,3}', fullmatch=True), st.text(min_size=1, max_size=300))
def test_every_alias_is_one_for_mc_and_for_a_shell(rse, prefix):
    # mc: cmd/config.go, isValidAlias; a shell can export no variable with a "-".
    assert re.fullmatch('[a-zA-Z][a-zA-Z0-9_]+', alias_of(rse, 'user.bob', 'user.bob', prefix, 'alice'))


@pytest.mark.parametrize(
    ('tool', 'name'),
    [
        ('mc', 'site_s3/user.alice/run 7/'),
        ('aws', 's3://user.alice/run 7/'),
        ('s5cmd', 's3://user.alice/run 7/'),
        ('s3cmd', 's3://user.alice/run 7/'),
        ('rclone', 'site_s3:user.alice/run 7/'),
        ('https', URL + '/user.alice/run%207/'),
    ],
)
def test_what_each_tool_calls_a_did(tool, name):
    assert name_for(tool, 'site_s3', URL, 'user.alice', 'run 7/') == name


def test_the_https_name_is_a_pfn():
    assert address.parse_url(name_for('https', '', URL, 'user.alice', 'a%20{b}/#c')) == (URL, 'user.alice', 'a%20{b}/#c', '')


# mc, by its documentation: https://min.io/docs/minio/linux/reference/minio-mc.html and cmd/config-v10.go


def test_a_configuration_of_mc():
    assert json.loads(FORMATS['mc'].text([access()])) == {
        'version': '10',
        'aliases': {'site_s3': {'url': URL, 'accessKey': 'ASIAEXAMPLE', 'secretKey': SECRET, 'sessionToken': TOKEN, 'api': 'S3v4', 'path': 'on'}},
    }


@pytest.mark.parametrize(('addressing', 'path'), [('path', 'on'), ('virtual', 'off'), ('auto', 'auto')])
def test_how_mc_addresses_buckets(addressing, path):
    assert json.loads(FORMATS['mc'].text([access(addressing=addressing)]))['aliases']['site_s3']['path'] == path


def test_mc_keeps_other_aliases_and_what_is_unknown():
    old = {'version': '10', 'aliases': {'play': {'url': 'https://play.min.io', 'accessKey': 'Q3', 'secretKey': 'x', 'api': 'S3v4', 'path': 'auto'}}, 'new': [1]}
    once = FORMATS['mc'].merged(json.dumps(old), [access()])
    again = json.loads(FORMATS['mc'].merged(once, [access(secret_key='other')]))
    assert again['aliases'].pop('site_s3')['secretKey'] == 'other'
    assert again == old


def test_the_aliases_that_mc_has(home):
    path = home / '.mc' / 'config.json'
    path.parent.mkdir()
    environ = {'HOME': str(home), 'MC_HOST_own': 'https://a:b@c', 'HOST_x': ''}
    for text, more in (('{"aliases": {"play": {}}}', {'play'}), ('{"aliases": null}', set()), ('{}', set()), ('[]', set()), ('{', set())):
        path.write_text(text)
        assert aliases_of_user(environ) == {'own'} | more


@pytest.mark.parametrize('text', ['{', '[]', '{"version": "9", "hosts": {}}', '{"version": "10", "aliases": 5}'])
def test_a_file_that_is_none_of_mc(text):
    with pytest.raises(InputValidationError, match='It is no'):
        FORMATS['mc'].merged(text, [access()])


def test_mc_variables_are_taken_apart_as_mc_does():
    # cmd/config.go: hostKeyTokens
    value = environment([access()])['MC_HOST_site_s3']
    assert re.fullmatch('(https?://)(.*?):(.*?):(.*)@(.*?)', value).groups() == ('https://', 'ASIAEXAMPLE', SECRET, TOKEN, 's3.example.org:9000')


# AWS


def test_a_profile_is_all_that_the_aws_sdk_needs(home):
    home.joinpath('.aws').mkdir()
    home.joinpath('.aws', 'credentials').write_text(FORMATS['aws'].text([access(only_md5=True, addressing='virtual', ca_bundle='/etc/ca.pem')]))
    session = botocore.session.Session(profile='rucio-site_s3')
    keys = session.get_credentials().get_frozen_credentials()
    settings = session.get_scoped_config()
    assert tuple(keys)[:3] == ('ASIAEXAMPLE', SECRET, TOKEN)
    assert {name: settings[name] for name in ('region', 'endpoint_url', 'ca_bundle', 'request_checksum_calculation')} == {
        'region': 'eu-1',
        'endpoint_url': URL,
        'ca_bundle': '/etc/ca.pem',
        'request_checksum_calculation': 'when_required',
    }
    assert settings['s3'] == {'addressing_style': 'virtual'}


AWS_FILE = """# mine
[default]
aws_access_key_id = AKIA  ; a comment

[rucio-site_s3]
aws_access_key_id = OLD
aws_session_token = OLD
s3 =
  addressing_style = virtual

# of the next one
[other]
aws_access_key_id=B"""


def test_a_section_is_replaced_where_it_stands():
    text = FORMATS['aws'].merged(AWS_FILE, [access()])
    assert 'OLD' not in text
    assert 'virtual' not in text
    for kept in (
        '# mine\n[default]\naws_access_key_id = AKIA  ; a comment\n\n[rucio-site_s3]\n',
        f'endpoint_url = {URL}\n\n# of the next one\n[other]\naws_access_key_id=B\n',
    ):
        assert kept in text


@pytest.mark.parametrize('form', ['mc', 'aws', 'rclone', 's3cmd'])
def test_to_write_twice_is_to_write_once(form):
    once = FORMATS[form].merged('', [access()])
    assert FORMATS[form].merged(once, [access()]) == once


def test_another_bucket_stands_beside_the_first():
    for form in ('mc', 'aws', 'rclone'):
        text = FORMATS[form].text([access(), access(alias='site_s3__user_bob')])
        assert FORMATS[form].merged(FORMATS[form].text([access()]), [access(alias='site_s3__user_bob')]) == text


def test_credential_process_has_the_documented_members():
    # https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
    assert json.loads(FORMATS['process'].text([access()])) == {
        'Version': 1,
        'AccessKeyId': 'ASIAEXAMPLE',
        'SecretAccessKey': SECRET,
        'SessionToken': TOKEN,
        'Expiration': '2026-11-23T12:00:00Z',
    }


# rclone, s3cmd, shells, programs


def test_a_remote_of_rclone():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(FORMATS['rclone'].merged('[mine]\ntype = sftp\n', [access()]))
    assert parser.sections() == ['mine', 'site_s3']
    remote = parser['site_s3']
    assert (remote['type'], remote['endpoint'], remote['secret_access_key'], remote['session_token']) == ('s3', URL, SECRET, TOKEN)
    assert remote['force_path_style'] == 'true'
    assert '\noverride.ca_cert = /ca.pem\n' in FORMATS['rclone'].merged('', [access(ca_bundle='/ca.pem')])
    assert 'ca_cert' not in ''.join(environment([access(ca_bundle='/ca.pem')])).replace('RCLONE_CA_CERT', '')


def test_the_profile_of_the_endpoint_here():
    assert FORMATS['aws'].merged('', [access(alias='rucio')]).startswith('[rucio]\n')


def test_an_encrypted_configuration_of_rclone_is_left_alone():
    with pytest.raises(InputValidationError, match='encrypted'):
        FORMATS['rclone'].merged('# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nabc=', [access()])


def test_s3cmd_keeps_its_other_options():
    old = '# mine\n[default]\nrecursive = True\naccess_token = T\nhost_base = old.example.org\naccess_key = OLD\n'
    text = FORMATS['s3cmd'].merged(old, [access(ca_bundle='/ca.pem')])
    assert text.startswith('# mine\n[default]\n')
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    assert dict(parser['default']) == {
        'recursive': 'True',
        'access_key': 'ASIAEXAMPLE',
        'secret_key': SECRET,
        'access_token': TOKEN,
        'host_base': 's3.example.org:9000',
        'host_bucket': 's3.example.org:9000',
        'bucket_location': 'eu-1',
        'use_https': 'True',
        'ca_certs_file': '/ca.pem',
    }
    assert 'host_bucket = %(bucket)s.s3.example.org:9000' in FORMATS['s3cmd'].text([access(addressing='virtual')])


@pytest.mark.parametrize(
    ('form', 'text'),
    [
        ('mc', '{"version": "10", "aliases": {"site_s3": {"accessKey": "AKIA", "secretKey": "mine"}}}'),
        ('aws', '[rucio-site_s3]\naws_access_key_id = AKIA\naws_secret_access_key = mine\n'),
        ('rclone', '[site_s3]\ntype = s3\nsecret_access_key = mine\nsession_token =\n'),
        ('s3cmd', '[default]\naccess_key = AKIA\nsecret_key = mine\naccess_token = \n'),
    ],
)
def test_keys_of_the_users_own_are_never_replaced(form, text):
    with pytest.raises(InputValidationError, match='already') as error:
        FORMATS[form].merged(text, [access()])
    assert 'mine' not in str(error.value)


@pytest.mark.parametrize('value', ['"quoted"', "'quoted'", '`run`', '$HOME', '#comment', ';comment', 'a%(b)s'])
@pytest.mark.parametrize('form', ['aws', 'rclone', 's3cmd'])
def test_what_a_tool_would_read_otherwise_is_not_written(form, value):
    """A key could be a variable, a comment or without its quotes to rclone or s3cmd."""
    with pytest.raises(InputValidationError, match='cannot be written to the option') as refused:
        FORMATS[form].text([access(secret_key=value)])
    assert value not in str(refused.value)


@pytest.mark.parametrize('path', ['/ca #b', '/ca ;b', ' /ca', '/ca ', '/c\na', '/c\ta', '/c\u2028a', '/%(x)s'])
@pytest.mark.parametrize('form', ['aws', 's3cmd'])
def test_a_path_that_a_tool_would_read_otherwise_is_not_written(form, path):
    with pytest.raises(InputValidationError, match='cannot be written to the option'):
        FORMATS[form].text([access(ca_bundle=path)])


@pytest.mark.parametrize('value', ['a"b', "it's", 'a$b', 'a#b', 'a;b', 'a%b', 'a=b', '%'])
@pytest.mark.parametrize('form', ['aws', 'rclone', 's3cmd'])
def test_what_every_tool_reads_the_same_is_written(form, value):
    assert f'= {value}\n' in FORMATS[form].text([access(secret_key=value)])
    assert form == 'rclone' or '= /a b#c\n' in FORMATS[form].text([access(ca_bundle='/a b#c')])


@pytest.mark.parametrize('settings', [{'access_key': 'a:b'}, {'secret_key': 'a:b'}, {'url': 'https://user@s3.example.org'}])
def test_what_mc_would_take_apart_otherwise_is_not_in_a_variable(settings):
    with pytest.raises(InputValidationError, match='a variable of mc'):
        environment([access(**settings)])


def test_a_shell_gets_back_what_went_in():
    script = FORMATS['env'].text([access()])
    script += (
        'printf "%s\\n" "$AWS_SECRET_ACCESS_KEY" "$AWS_SESSION_TOKEN" "$AWS_ENDPOINT_URL_S3" "${AWS_PROFILE-none}" "$RCLONE_CONFIG_SITE_S3_SECRET_ACCESS_KEY"'
    )
    done = subprocess.run(['/bin/sh', '-ec', script], env={'AWS_PROFILE': 'mine'}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [SECRET, TOKEN, URL, 'none', SECRET]


def test_programs_get_all_of_it():
    (only,) = json.loads(FORMATS['json'].text([access()]))
    assert (only['bucket'], only['secret_key'], only['expiration'], only['write']) == ('user.alice', SECRET, '2026-11-23T12:00:00Z', True)


# Environments


def test_nothing_of_the_users_own_wins():
    inherited = {'PATH': '/bin', 'AWS_PROFILE': 'mine', 'AWS_ENDPOINT_URL': 'https://mine', 'AWS_ROLE_ARN': 'arn', 'S3_ENDPOINT_URL': 'https://mine'}
    made = tool_environment(inherited, [access()])
    assert 'mine' not in ' '.join(made.values())
    assert made['PATH'] == '/bin'
    assert made['AWS_SHARED_CREDENTIALS_FILE'] == '/dev/null'
    assert botocore.configloader.load_config(made['AWS_CONFIG_FILE'])['profiles'] == {'default': {'s3': {'signature_version': 's3v4'}}}
    assert 'AWS_ROLE_ARN' not in made
    assert 'mine' not in ' '.join(tool_environment(inherited, [access(), access(bucket='other')]).values())


def test_an_empty_ca_variable_is_not_handed_on():
    """Made with botocore or requests, a tool would believe any certificate."""
    names = ('AWS_CA_BUNDLE', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE', 'SSL_CERT_FILE', 'RCLONE_CA_CERT')
    assert not {*names} & tool_environment(dict.fromkeys(names, ''), [access()]).keys()
    own = dict.fromkeys(names, '/own.pem')
    assert own.items() <= tool_environment(own, [access()]).items()
    assert tool_environment(own, [access(ca_bundle='/rse.pem')])['AWS_CA_BUNDLE'] == '/rse.pem'


def test_of_several_buckets_only_tools_with_aliases_have_keys():
    made = environment([access(), access(alias='site_s3__user_bob')])
    assert {'MC_HOST_site_s3', 'MC_HOST_site_s3__user_bob', 'RCLONE_CONFIG_SITE_S3__USER_BOB_TYPE'} <= made.keys()
    assert not [name for name in made if name.startswith('AWS_')]


def test_the_storages_ca_is_what_tools_verify_with():
    made = environment([access(ca_bundle='/ca.pem')])
    assert {made[name] for name in ('AWS_CA_BUNDLE', 'SSL_CERT_FILE', 'RCLONE_CA_CERT')} == {'/ca.pem'}
    assert 'SSL_CERT_FILE' not in environment([access()])


def test_a_storage_that_takes_no_trailers_gets_none():
    assert environment([access(only_md5=True)])['AWS_REQUEST_CHECKSUM_CALCULATION'] == 'when_required'
    assert 'AWS_REQUEST_CHECKSUM_CALCULATION' not in environment([access()])


def test_no_repr_has_a_secret():
    assert SECRET not in repr(access())
    assert TOKEN not in repr(access())


def test_every_variable_is_a_word_for_a_shell():
    for line in FORMATS['env'].text([access(alias='s3_9th')]).splitlines()[1:]:
        assert re.match('export [A-Za-z_][A-Za-z0-9_]*=', line), shlex.quote(line.partition('=')[0])


# What is written, to the letter


@pytest.mark.parametrize('name', ['access_key', 'secret_key', 'session_token', 'expiration', 'region', 'url'])
def test_a_value_with_a_line_feed_is_in_no_format(name):
    with pytest.raises(ServiceUnavailable, match=f'^(.|\n)*RSE SITE_S3: the Rucio server returned an invalid {name}'):
        access(**{name: 'https://a\nb'})


def test_a_long_prefix_is_cut_and_has_a_hash():
    assert alias_of('SITE', 'data', 'data', 'x' * 40 + '/', 'a') == 'site__data__' + 'x' * 40
    assert alias_of('SITE', 'data', 'data', 'x' * 41 + '/', 'a') == 'site__data__' + 'x' * 40 + '_' + hashlib.sha256(b'x' * 41).hexdigest()[:6]


def test_all_variables_for_one_pair_of_keys():
    made = environment([access()])
    place = importlib.resources.files('rucio.common.s3')
    assert made == {
        'MC_HOST_site_s3': f'https://ASIAEXAMPLE:{SECRET}:{TOKEN}@s3.example.org:9000',
        'RCLONE_CONFIG_SITE_S3_TYPE': 's3',
        'RCLONE_CONFIG_SITE_S3_PROVIDER': 'Other',
        'RCLONE_CONFIG_SITE_S3_ENV_AUTH': 'false',
        'RCLONE_CONFIG_SITE_S3_ACCESS_KEY_ID': 'ASIAEXAMPLE',
        'RCLONE_CONFIG_SITE_S3_SECRET_ACCESS_KEY': SECRET,
        'RCLONE_CONFIG_SITE_S3_SESSION_TOKEN': TOKEN,
        'RCLONE_CONFIG_SITE_S3_REGION': 'eu-1',
        'RCLONE_CONFIG_SITE_S3_ENDPOINT': URL,
        'RCLONE_CONFIG_SITE_S3_FORCE_PATH_STYLE': 'true',
        'RCLONE_CONFIG_SITE_S3_NO_CHECK_BUCKET': 'true',
        'AWS_ACCESS_KEY_ID': 'ASIAEXAMPLE',
        'AWS_SECRET_ACCESS_KEY': SECRET,
        'AWS_SESSION_TOKEN': TOKEN,
        'AWS_CREDENTIAL_EXPIRATION': '2026-11-23T12:00:00Z',
        'AWS_REGION': 'eu-1',
        'AWS_DEFAULT_REGION': 'eu-1',
        'AWS_ENDPOINT_URL_S3': URL,
        'S3_ENDPOINT_URL': URL,
        'S3CMD_CONFIG': str(place / 's3cmd.cfg'),
        'RUCIO_S3_HOST': 's3.example.org:9000',
        'RUCIO_S3_HOST_BUCKET': 's3.example.org:9000',
        'RUCIO_S3_HTTPS': 'True',
    }
    virtual = environment([access(addressing='virtual', url='http://s3:80')])
    assert (virtual['RUCIO_S3_HOST_BUCKET'], virtual['RUCIO_S3_HTTPS']) == ('%(bucket)s.s3:80', 'False')
    assert virtual['RCLONE_CONFIG_SITE_S3_FORCE_PATH_STYLE'] == 'false'
    assert virtual['MC_HOST_site_s3'].startswith('http://ASIAEXAMPLE:')
    assert environment([access(addressing='auto')])['RCLONE_CONFIG_SITE_S3_FORCE_PATH_STYLE'] == 'true'


def test_several_storages_have_a_ca_in_common_or_none():
    one, other = access(ca_bundle='/ca.pem'), access(alias='other', ca_bundle='/ca.pem')
    assert environment([one, other])['SSL_CERT_FILE'] == '/ca.pem'
    assert 'SSL_CERT_FILE' not in environment([one, access(alias='other', ca_bundle='/2.pem')])
    assert 'SSL_CERT_FILE' not in environment([one, access(alias='other')])
    assert environment([]) == {}


def test_the_environment_of_a_tool_has_the_users_other_variables():
    inherited = {'SSL_CERT_DIR': '/own', 'S3CMD_CONFIG': 'mine', 'HOME': '/h', 'LAWS_X': '1'}
    made = tool_environment(inherited, [access()])
    assert (made['SSL_CERT_DIR'], made['HOME'], made['LAWS_X']) == ('/own', '/h', '1')
    assert made['S3CMD_CONFIG'] != 'mine'
    assert made['AWS_EC2_METADATA_DISABLED'] == 'true'
    assert 'SSL_CERT_DIR' not in tool_environment({'SSL_CERT_DIR': ''}, [access()])


@pytest.mark.parametrize(
    ('form', 'default', 'variable', 'single'),
    [
        ('mc', '~/.mc/config.json', None, False),
        ('aws', '~/.aws/credentials', 'AWS_SHARED_CREDENTIALS_FILE', False),
        ('rclone', '~/.config/rclone/rclone.conf', 'RCLONE_CONFIG', False),
        ('s3cmd', '~/.s3cfg', 'S3CMD_CONFIG', True),
        ('process', '', None, True),
        ('env', '', None, False),
        ('json', '', None, False),
    ],
)
def test_where_each_tool_has_its_configuration(form, default, variable, single):
    made = FORMATS[form]
    assert made.location({}) == default
    assert made.locations({}, lambda _: None) == ([default] if default else [])
    assert made.single is single
    assert bool(made.ca) is (form in ('mc', 'rclone'))
    if variable:
        assert made.location({variable: '/own'}) == '/own'
        assert made.location({variable: ''}) == default
        assert made.locations({variable: '/own'}, lambda _: None) == ['/own']


def test_mc_may_be_installed_under_several_names(home):
    mc = FORMATS['mc']
    assert mc.location({'MC_CONFIG_DIR': '/own'}) == '/own/config.json'
    assert mc.locations({'MC_CONFIG_DIR': '/own'}, lambda name: f'/bin/{name}') == ['/own/config.json']
    assert mc.locations({}, lambda name: f'/bin/{name}' if name == 'mcli' else None) == ['~/.mc/config.json', '~/.mcli/config.json']
    assert len(mc.locations({}, lambda name: f'/bin/{name}')) == 3
    for name in ('mc', 'minio-client', 'mcli'):
        home.joinpath(f'.{name}').mkdir()
        home.joinpath(f'.{name}', 'config.json').write_text(json.dumps({'aliases': {f'of_{name}': {}}}))
    assert aliases_of_user({}) == {'of_mc', 'of_minio-client', 'of_mcli'}
    assert aliases_of_user({'MC_CONFIG_DIR': str(home / '.mcli')}) == {'of_mcli'}


@pytest.mark.parametrize('form', ['process', 'env', 'json'])
def test_a_file_with_keys_alone_replaces_its_like_and_nothing_else(form):
    text = FORMATS[form].text([access(secret_key='new')])
    for old in ('', ' \n', FORMATS[form].text([access(secret_key='old')])):
        assert FORMATS[form].merged(old, [access(secret_key='new')]) == text
    with pytest.raises(InputValidationError, match='It has other content, which would be lost'):
        FORMATS[form].merged('mine', [access()])


def test_one_pair_of_keys_is_what_these_formats_hold():
    for form in ('process', 's3cmd'):
        with pytest.raises(ValueError, match='too many values'):
            FORMATS[form].text([access(), access(alias='other')])


def test_json_has_all_that_is_known():
    text = FORMATS['json'].text([access(ca_bundle='/ca.pem'), access(alias='other')])
    first, second = json.loads(text)
    assert first == KEYS | {'alias': 'site_s3', 'url': URL, 'region': 'eu-1', 'addressing': 'path', 'ca_bundle': '/ca.pem'}
    assert (second['alias'], second['ca_bundle']) == ('other', None)
    assert text.startswith('[\n  {\n')  # for people, too


def test_lines_for_a_shell():
    text = FORMATS['env'].text([access(secret_key="a'b")])
    first, *lines = text.splitlines()
    assert first == 'unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_ENDPOINT_URL'
    assert "export AWS_SECRET_ACCESS_KEY='a'\"'\"'b'" in lines
    assert text.endswith('\n')
    assert len(lines) == len(environment([access()]))


@pytest.mark.parametrize('old', [{}, {'aliases': {}}, {'aliases': {'site_s3': {'sessionToken': 'old'}}}])
def test_mc_replaces_keys_that_expire(old):
    made = json.loads(FORMATS['mc'].merged(json.dumps({'version': '10'} | old), [access()]))
    assert made == json.loads(FORMATS['mc'].text([access()]))
    assert '\n\t"aliases": {' in FORMATS['mc'].text([access()])  # as mc writes it


@pytest.mark.parametrize('old', [5, '', {}, {'sessionToken': ''}])
def test_mc_replaces_nothing_else(old):
    with pytest.raises(InputValidationError, match="The alias 'site_s3' exists already"):
        FORMATS['mc'].merged(json.dumps({'version': '10', 'aliases': {'site_s3': old}}), [access()])


def test_a_profile_of_aws():
    assert FORMATS['aws'].text([access()]) == (
        f'[rucio-site_s3]\naws_access_key_id = ASIAEXAMPLE\naws_secret_access_key = {SECRET}\naws_session_token = {TOKEN}\n'
        f'region = eu-1\nendpoint_url = {URL}\n'
    )


def test_an_empty_or_a_new_section_stands_apart_from_what_is_above():
    new = FORMATS['aws'].text([access()])
    assert FORMATS['aws'].merged('[a]\nx = 1', [access()]) == f'[a]\nx = 1\n\n{new}'
    assert FORMATS['aws'].merged('[a]\nx = 1\n\n', [access()]) == f'[a]\nx = 1\n\n{new}'
    assert FORMATS['aws'].merged('\n', [access()]) == f'\n{new}'
    assert FORMATS['aws'].merged('[ rucio-site_s3 ]\naws_session_token = x\n\n; of b\n[b]\n', [access()]) == f'{new}\n; of b\n[b]\n'
    assert FORMATS['aws'].merged('[rucio-site_s3]\naws_session_token = x\n\n\n', [access()]) == f'{new}\n\n'
    assert FORMATS['aws'].merged('[rucio-site_s3]\naws_session_token = x\n# of b\n[b]\n', [access()]) == f'{new}# of b\n[b]\n'
    above, below = '[a]\nx = 1\ny = 2\n', '[b]\nz = 1\n[c]\nz = 1\n'
    assert FORMATS['aws'].merged(f'{above}[rucio-site_s3]\nx = 1\naws_session_token = x\n{below}', [access()]) == above + new + below


def test_the_keys_of_the_next_section_do_not_count():
    with pytest.raises(InputValidationError, match="The section 'rucio-site_s3' exists already"):
        FORMATS['aws'].merged('[rucio-site_s3]\n[b]\naws_session_token = x\n', [access()])


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('', '[default]\n{all}'),
        ('recursive = True\n', '[default]\n{all}recursive = True\n'),
        ('[default]\naccess_token = T\naccess_key = OLD\nuse_https\n', '[default]\n{rest}access_token = {token}\naccess_key = ASIAEXAMPLE\nuse_https\n'),
        ('[default]\naccess_token = T\n', '[default]\naccess_key = ASIAEXAMPLE\n{rest}access_token = {token}\n'),
    ],
)
def test_options_of_s3cmd_stand_where_they_stood(old, new):
    rest = f'secret_key = {SECRET}\nhost_base = s3.example.org:9000\nhost_bucket = s3.example.org:9000\nbucket_location = eu-1\nuse_https = True\n'
    everything = f'access_key = ASIAEXAMPLE\nsecret_key = {SECRET}\naccess_token = {TOKEN}\n' + rest.partition('\n')[2]
    assert FORMATS['s3cmd'].merged(old, [access()]) == new.format(all=everything, rest=rest, token=TOKEN)


def test_only_the_bucket_of_s3cmd_may_look_like_a_variable():
    assert 'use_https = False\n' in FORMATS['s3cmd'].text([access(url='http://s3')])
    with pytest.raises(InputValidationError, match='the option host_base of a configuration file'):
        FORMATS['s3cmd'].text([access(addressing='virtual', url='http://%(bucket)s.s3')])
    with pytest.raises(InputValidationError, match=r'the option secret_key of a configuration file, as they contain "%\("'):
        FORMATS['s3cmd'].text([access(secret_key='%(bucket)s.')])


def test_the_sections_of_a_file():
    assert headings('[a]\n x = [b]\n [ c ] \n[]\n[dd\nee]\n# [f]\n') == {'a', 'c'}


def test_an_access_has_a_host_and_a_scheme():
    assert (access().host, access().scheme) == ('s3.example.org:9000', 'https')
