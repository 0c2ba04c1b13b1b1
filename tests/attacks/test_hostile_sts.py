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

"""The attacker owns the STS of a storage, or the Rucio server: what comes back as keys is meant for the files and variables of the user's tools.

Each format is read back by what its tool reads it with: botocore, rclone, s3cmd, mc's own expression, a shell. What one of them would take
for anything else than the value that went in is refused before it is printed.
"""

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import botocore.session
import pytest
from botocore.credentials import Credentials

from rucio.common.exception import InputValidationError, RucioException, ServiceUnavailable
from rucio.common.s3 import answers, sts
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.factory import bare_session
from rucio.common.s3.formats import FORMATS, Access, environment
from servers.cli import RucioCli
from servers.fake_rucio import FakeRucio
from servers.fake_sts import FakeSTS

PROCESS = 'credential_process = touch {}'
ROLE = 'arn:aws:iam:::role/RucioVendor'
GOOD = {
    'rse': 'X',
    'url': 'https://s3.example.org',
    'region': 'us-east-1',
    'addressing': 'path',
    'bucket': 'user.alice',
    'prefix': '',
    'write': True,
    'expiration': '2999-01-01T00:00:00Z',
    'access_key': 'ASIAEXAMPLE',
    'secret_key': 'secret',
    'session_token': 'token',
}
KEYS = ('access_key', 'secret_key', 'session_token')
ENDS_A_LINE = ('\n', '\r', '\r\n', '\x0b', '\x0c', '\x1c', '\x85', '\u2028', '\u2029')

# No tool can be given these: a line of its own, a blank that a tool strips, a direction of writing, and what is no text at all.
NO_KEYS = [
    *(f'T{end}[default]{end}credential_process = touch /tmp/x' for end in ENDS_A_LINE),
    *('\0', 'a\0b', ' ', ' T', 'T ', '\tT', 'T\x1b[2J', 'T\x9b2J', 'T\u202e', 'T\u200b', 'Ť', '\ud800', '', 'x' * 2**20),
    *(None, 7, True, b'T', ['T'], {'T': 'T'}),
]

# A storage may well make keys with these, and some tool reads each of them as something else.
STRANGE = [
    *('a=b', '=', '[x]', '[default]', '%', '%%', '%(x)s', '%(access_key)s', '"q"', "'q'", '"""', '`id`', 'a`id`', '$(id)', 'a$(id)b', '$HOME', '${HOME}'),
    *('#c', 'a#c', ';c', 'a;c', '!x', '!!', '~', '*', '{x}', '<x>&', '\\', 'a\\', '\\n', 'a\\nb', "a'b", 'a"b', 'a/b+c=', 'a@b', '@', ':', 'a:b', '//', '--x'),
    *('&&id', '|id', '>x', '(x)', '%00', '%0a', '&#10;', '\\x0a', '\\u000a', '-', 'rem', 'a,b'),
]


def access(**values):
    own = {name: values.get(name, GOOD[name]) for name in ('url', 'region', 'addressing')}
    more = {name: value for name, value in values.items() if name not in GOOD}
    return Access(**{'alias': 'site_s3', 'keys': {**GOOD, **values}, **own, **more})


def printed(form, each):
    """What is printed with this value in all three places, or None where it is refused."""
    try:
        return FORMATS[form].text([each])
    except InputValidationError:
        return None


def all_accesses():
    return [access(alias=f'strange_{number}', **dict.fromkeys(KEYS, value)) for number, value in enumerate(STRANGE)]


def merged(form):
    """All that the format can hold, in one file, and whose keys these are."""
    kept = [each for each in all_accesses() if printed(form, each) is not None]
    return FORMATS[form].text(kept), kept


# What the STS answers


def caller(server):
    """AssumeRole, as the Rucio server and web identity call it."""
    endpoint = Endpoint(rse='X', rse_id='', url=server.url, max_attempts=1)
    client = sts.client(endpoint, bare_session(Credentials('AKID', 'secret')), 'us-east-1')
    return lambda: sts.assume_role(endpoint, client, ROLE, 'rucio-alice', '{}', 900)


@pytest.mark.parametrize(
    'xml',
    ['T&#10;[default]&#10;credential_process = touch /tmp/x', 'T&#13;x', 'T&#x2028;x', 'T&#x85;x', ' ', '', 'T T', 'T&#x202e;', 'x' * 20_000, '<b>T</b>'],
)
def test_a_line_feed_in_a_key_of_the_sts_goes_no_further(xml):
    """Was got: sections of its own in ~/.aws/credentials, whose credential_process boto3 ran (SeaweedFS and any other STS that is not honest)."""
    with FakeSTS() as server:
        assume = caller(server)
        for member in ('AccessKeyId', 'SecretAccessKey', 'SessionToken'):
            server.hostile = {member: xml}
            with pytest.raises(ServiceUnavailable) as error:
                assume()
            assert 'credential_process' not in str(error.value)


@pytest.mark.parametrize('hostile', [{'Expiration': 'soon'}, {'Expiration': ''}, {'Expiration': '99999999999999999999'}, {'AccessKeyId': '</AccessKeyId>'}])
def test_an_answer_of_the_sts_that_is_none_is_one_sentence(hostile):
    """Would be got: a traceback in the server's log for each request, and 500 for the user."""
    with FakeSTS() as server:
        server.hostile = hostile
        with pytest.raises(RucioException):
            caller(server)()


# What the Rucio server answers


@pytest.mark.parametrize('value', NO_KEYS, ids=lambda value: ascii(value)[:30])
def test_no_format_is_given_what_is_no_key(value):
    """Would be got: whatever the format makes of it. There is no Access with such a value, so there is nothing to print."""
    for name in (*KEYS, 'region', 'expiration', 'url'):
        if (name, value) == ('region', ''):  # a storage may have none
            continue
        with pytest.raises(ServiceUnavailable) as error:
            access(**{name: value})
        assert str(error.value.args[0]).isprintable()
        if name in (*KEYS, 'expiration'):
            with pytest.raises(ServiceUnavailable):
                answers.checked_keys('The server', {**GOOD, name: value})


def test_a_hostile_server_gets_nothing_printed(tmp_path):
    """Was got: `rucio s3 credentials --format aws > ~/.aws/credentials` wrote [default] with a credential_process, and the next boto3 ran it."""
    flag = tmp_path / 'flag'
    hostile = {**GOOD, 'session_token': f'T\n[default]\n{PROCESS.format(flag)}\n#', 'url': 'http://127.0.0.1:1'}
    replies = {'/s3/credentials': hostile, '/s3/rses/X': {'rse': 'X', 'url': 'http://127.0.0.1:1', 'auth': ['vended']}}
    with FakeRucio(lambda asked: (200, replies[asked.path], {}) if asked.path in replies else (404, None, {})) as server:
        alice = RucioCli(tmp_path / 'alice', server, 'alice', 'alice', 'p')
        done = alice.rucio('s3', 'credentials', 'user.alice', '--format', 'aws')
        assert done.returncode != 0
        assert done.stdout == ''
        assert 'U+000A' in done.stderr
        assert 'credential_process' not in done.stderr
        written = alice.rucio('s3', 'exec', 'user.alice', '--', 'env')
        assert 'credential_process' not in written.stdout + written.stderr


@pytest.mark.parametrize(
    'url',
    [
        'https://user:secret@s3.example.org',
        'https://s3.example.org/x',
        'https://s3.example.org\n',
        'https://a b',
        'ftp://x',
        'x',
        'https://',
        None,
        7,
        'https://h:99999999',
        'https://[::1',
    ],
)
def test_a_storage_is_a_host_and_a_port(url):
    """Would be got: keys sent to whom an alias's userinfo or path names, a line of its own in a file."""
    from rucio.client.s3client import S3Client  # noqa: PLC0415 - reads rucio.cfg

    client = S3Client.__new__(S3Client)
    client.__dict__.update(host='https://rucio', logger=logging.getLogger(), get_s3_rse=lambda _: {'rse': 'X', 'url': url, 'auth': ['vended']})
    with pytest.raises(RucioException):
        client.endpoint('X')


# What tools read


def test_botocore_reads_back_what_went_in(tmp_path, monkeypatch):
    """Would be got: another profile, a key that is cut off at a comment, an interpolated one."""
    text, kept = merged('aws')
    monkeypatch.setenv('AWS_SHARED_CREDENTIALS_FILE', str(tmp_path / 'credentials'))
    monkeypatch.setenv('AWS_CONFIG_FILE', os.devnull)
    (tmp_path / 'credentials').write_text(text)
    session = botocore.session.Session()
    assert session.available_profiles == [f'rucio-{each.alias}' for each in kept]
    for each in kept:
        found = session.full_config['profiles'][f'rucio-{each.alias}']
        assert (found['aws_access_key_id'], found['aws_secret_access_key'], found['aws_session_token']) == (each.keys['access_key'],) * 3
    assert len(kept) > 40


def test_a_credential_process_gives_botocore_what_went_in(tmp_path, monkeypatch):
    monkeypatch.setenv('AWS_SHARED_CREDENTIALS_FILE', os.devnull)
    monkeypatch.setenv('AWS_CONFIG_FILE', str(tmp_path / 'config'))
    (tmp_path / 'config').write_text(
        ''.join(f'[profile p{number}]\ncredential_process = cat {shlex.quote(str(tmp_path / str(number)))}\n' for number in range(len(STRANGE)))
    )
    for number, each in enumerate(all_accesses()):
        (tmp_path / str(number)).write_text(printed('process', each))
    for number, value in enumerate(STRANGE):
        keys = botocore.session.Session(profile=f'p{number}').get_credentials().get_frozen_credentials()
        assert tuple(keys)[:3] == (value,) * 3


@pytest.mark.parametrize('shell', ['sh', 'bash', 'dash', 'busybox'])
def test_a_shell_reads_back_what_went_in(shell):
    """Would be got: a command that is run in the user's shell."""
    if not (path := shutil.which(shell)):
        pytest.skip(f'no {shell}')
    command = [path, 'sh'] if shell == 'busybox' else [path]
    kept = [each for each in all_accesses() if printed('env', each) is not None]
    script = ''.join(printed('env', each) + 'printf "%s\\0" "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" "$AWS_SESSION_TOKEN"\n' for each in kept)
    done = subprocess.run([*command, '-eu'], input=script.encode(), capture_output=True, env={'PATH': os.defpath}, check=True)
    assert done.stdout.decode().split('\0')[:-1] == [value for each in kept for value in (each.keys['access_key'],) * 3]
    assert len(kept) > 40


def test_mc_takes_its_variable_apart_as_it_was_put_together():
    """Would be got: `mc` sends the keys to a host that a "@" in a token names, or a part of the secret as the token."""
    for each in all_accesses():
        try:
            (value,) = (value for name, value in environment([each]).items() if name.startswith('MC_HOST_'))
        except InputValidationError:
            assert ':' in each.keys['access_key']
            continue
        # https://github.com/minio/mc, cmd/config.go: hostKeyTokens
        assert re.fullmatch('(https?://)(.*?):(.*?):(.*)@(.*?)', value).groups() == ('https://', *(each.keys['access_key'],) * 3, 's3.example.org')
    assert [json.loads(printed('mc', each))['aliases'][each.alias]['sessionToken'] for each in all_accesses()] == STRANGE
    assert [json.loads(printed('json', each))[0]['session_token'] for each in all_accesses()] == STRANGE


def tool(name):
    found = shutil.which(name, path=os.environ.get('RUCIO_S3_TOOLS') or os.environ.get('PATH', os.defpath))
    if not found:
        pytest.skip(f'{name} is not installed: see tests/interop')
    return found


def test_rclone_reads_back_what_went_in(tmp_path):
    """Would be got: another remote; "%(...)s" is another option of the section to rclone, and quotes begin a longer text."""
    text, kept = merged('rclone')
    (tmp_path / 'rclone.conf').write_text(text)
    command = [tool('rclone'), '--config', str(tmp_path / 'rclone.conf'), 'config', 'dump']
    done = subprocess.run(command, capture_output=True, text=True, env={'HOME': str(tmp_path)}, check=True)
    remotes = json.loads(done.stdout)
    assert sorted(remotes) == sorted(each.alias for each in kept)
    for each in kept:
        found = remotes[each.alias]
        assert (found['access_key_id'], found['secret_access_key'], found['session_token']) == (each.keys['access_key'],) * 3
    assert len(kept) > 35


def test_s3cmd_reads_back_what_went_in(tmp_path):
    """Was got: a key "$NAME" is a variable of the user's environment to s3cmd, which sends its value to the storage."""
    python = Path(tool('s3cmd')).parent / 'python'
    kept = [each for each in all_accesses() if printed('s3cmd', each) is not None]
    for number, each in enumerate(kept):
        (tmp_path / str(number)).write_text(printed('s3cmd', each))
    read = (
        'import json, sys; from S3.Config import Config; found, made = [], object.__new__(Config)\n'
        'for number in range(int(sys.argv[2])):\n'
        '    made.read_config_file(f"{sys.argv[1]}/{number}"); found.append([made.access_key, made.secret_key, made.access_token])\n'
        'print(json.dumps(found))'
    )
    command = [str(python), '-c', read, str(tmp_path), str(len(kept))]
    done = subprocess.run(command, capture_output=True, text=True, env={'HOME': str(tmp_path), 'PATH': os.defpath, 'x': 'SECRET'}, check=True)
    assert json.loads(done.stdout) == [[each.keys['access_key']] * 3 for each in kept]
    assert len(kept) > 35


@pytest.mark.parametrize('path', ['/ca.pem\n[default]\nx = y', '/ca.pem ', '/ca\u2028.pem', '/ca #.pem', '/ca ;.pem', '/%(x)s.pem'])
def test_the_path_of_a_ca_is_one_line(path):
    """Would be got: the CA of a storage is named by a file whose name somebody else chose."""
    for form in ('aws', 's3cmd'):
        with pytest.raises(InputValidationError):
            FORMATS[form].text([access(ca_bundle=path)])
