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

"""Other people's clients, with the keys that `rucio s3 credentials` and `rucio s3 exec` give, on a storage that enforces them."""

import calendar
import configparser
import json
import os
import shutil
import ssl
import stat
import sys
import time
import urllib.request

import pytest

from interop.world import ALIAS, RSE

SCOPE = 'user.alice'
SHARED = f'{SCOPE}:shared'
SHARED_ALIAS = f'{ALIAS}__user_alice__shared'

# Upload, list, read, what is refused: {file} is a local file, {name} a new object's, {alias} its owner's alias.
CLIENTS = {
    'aws': {
        'put': 'aws s3 cp --no-progress {file} s3://{bucket}/{name}',
        'ls': 'aws s3 ls s3://{bucket}/{folder}/',
        'get': 'aws s3 cp --no-progress s3://{bucket}/{name} {copy}',
    },
    's5cmd': {
        'put': 's5cmd cp {file} s3://{bucket}/{name}',
        'ls': 's5cmd ls s3://{bucket}/{folder}/',
        'get': 's5cmd cp s3://{bucket}/{name} {copy}',
    },
    's3cmd': {
        'put': 's3cmd --no-progress put {file} s3://{bucket}/{name}',
        'ls': 's3cmd ls s3://{bucket}/{folder}/',
        'get': 's3cmd --no-progress get s3://{bucket}/{name} {copy}',
    },
    'rclone': {
        'put': 'rclone copyto {file} {alias}:{bucket}/{name}',
        'ls': 'rclone lsf {alias}:{bucket}/{folder}/',
        'get': 'rclone copyto {alias}:{bucket}/{name} {copy}',
    },
    'mc': {
        'put': 'mc cp {file} {alias}/{bucket}/{name}',
        'ls': 'mc ls {alias}/{bucket}/{folder}/',
        'get': 'mc cp {alias}/{bucket}/{name} {copy}',
    },
}


def command(tools, client, verb, **names):
    """A client's command line."""
    words = CLIENTS[client][verb].format(**({'bucket': SCOPE, 'alias': ALIAS} | names)).split()
    return [tools.find(words[0]), *words[1:]]


@pytest.mark.parametrize('client', CLIENTS)
class TestKeys:
    def test_the_owner_writes_lists_and_reads(self, any_world, tools, unique, large, client):
        file, copy = large(), tools.home / 'copy'
        names = {'file': file, 'folder': unique, 'name': f'{unique}/large', 'copy': copy}
        for verb in ('put', 'ls', 'get'):
            done = any_world.with_keys(any_world.alice, tools, [SCOPE], command(tools, client, verb, **names))
            assert done.returncode == 0, done.stderr
            if verb == 'ls':
                assert 'large' in done.stdout
        assert any_world.get(f'{unique}/large') == copy.read_bytes() == file.read_bytes()

    def test_who_was_given_a_part_reads_that_and_no_more(self, any_world, tools, unique, client):
        any_world.put(f'shared/{unique}/file', b'for bob')
        any_world.put(f'{unique}/private', b'not for bob')
        file, copy = tools.home / 'file', tools.home / 'copy'
        file.write_text('from bob')
        names = {'alias': SHARED_ALIAS, 'file': file, 'copy': copy}
        of_the_part = names | {'folder': f'shared/{unique}', 'name': f'shared/{unique}/file'}
        others = names | {'folder': unique, 'name': f'{unique}/private'}

        listed = any_world.with_keys(any_world.bob, tools, [SHARED], command(tools, client, 'ls', **of_the_part))
        assert 'file' in listed.stdout, listed.stderr
        got = any_world.with_keys(any_world.bob, tools, [SHARED], command(tools, client, 'get', **of_the_part))
        assert copy.read_text() == 'for bob', got.stderr
        assert 'these keys are read-only' in got.stderr

        copy.unlink()
        any_world.with_keys(any_world.bob, tools, [SHARED], command(tools, client, 'get', **others))
        assert not copy.exists() or copy.read_bytes() == b''
        assert 'private' not in any_world.with_keys(any_world.bob, tools, [SHARED], command(tools, client, 'ls', **others)).stdout
        assert any_world.with_keys(any_world.bob, tools, [SHARED], command(tools, client, 'put', **of_the_part)).returncode != 0
        assert any_world.get(f'shared/{unique}/file') == b'for bob'


# The names that url prints


@pytest.mark.parametrize('client', ['aws', 'mc', 's5cmd', 's3cmd', 'rclone'])
def test_names_work_as_they_are_printed(world, tools, unique, client):
    program = tools.find(client)
    world.put(f'shared/{unique}', b'content')
    verb = {'aws': ['s3', 'ls'], 'mc': ['ls'], 's5cmd': ['ls'], 's3cmd': ['ls'], 'rclone': ['lsf']}[client]
    for user in (world.alice, world.bob):
        name = world.s3(user, 'url', SHARED, '--for', client).strip()
        done = world.with_keys(user, tools, [SHARED], [program, *verb, name])
        assert unique in done.stdout, done.stderr


def test_a_name_is_by_alias_bucket_and_key(world, unique):
    world.put(f'{unique}/file', b'')
    file = f'{SCOPE}:{unique}/file'
    assert world.s3(world.alice, 'url', file, '--for', 'mc') == f'{ALIAS}/{SCOPE}/{unique}/file\n'
    assert world.s3(world.alice, 'url', file, '--for', 'rclone') == f'{ALIAS}:{SCOPE}/{unique}/file\n'
    assert world.s3(world.alice, 'url', file) == f'{world.storage.url}/{SCOPE}/{unique}/file\n'
    assert world.s3(world.alice, 'url', SHARED, '--for', 'aws') == f's3://{SCOPE}/shared/\n'
    assert world.s3(world.bob, 'url', SHARED, '--for', 'mc') == f'{SHARED_ALIAS}/{SCOPE}/shared/\n'


# Files


def test_mc_by_its_file(world, tools, unique):
    """`rucio s3 credentials > ~/.mc/config.json`, as a shell does it."""
    world.put(unique, b'content')
    folder = tools.home / 'mc'
    folder.mkdir()
    done = tools.run(
        ['sh', '-c', f'umask 022; rucio s3 credentials > {folder}/config.json'],
        env={**world.alice.environment, 'PATH': world.alice.environment['PATH']},
    )
    assert done.returncode == 0, done.stderr
    assert 'The keys expire at' in done.stderr
    config = json.loads(folder.joinpath('config.json').read_text())
    assert config['version'] == '10'
    assert list(config['aliases']) == [ALIAS]
    assert config['aliases'][ALIAS]['url'] == world.storage.url
    assert stat.S_IMODE(folder.joinpath('config.json').stat().st_mode) == 0o600
    ca = world.storage.ca_bundle
    assert unique in tools.run([tools.find('mc'), '--config-dir', str(folder), 'ls', f'{ALIAS}/{SCOPE}/'], env={'SSL_CERT_FILE': str(ca)}).stdout


def test_aws_by_its_file(world, tools, unique):
    world.put(unique, b'content')
    file = tools.home / 'credentials'
    file.write_text('[mine]\naws_access_key_id = MINE\naws_secret_access_key = mine\n')
    world.s3(world.alice, 'credentials', '--format', 'aws', '--file', str(file))
    assert file.read_text().startswith('[mine]\naws_access_key_id = MINE\naws_secret_access_key = mine\n')
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    done = tools.run(
        [tools.find('aws'), '--profile', f'rucio-{ALIAS}', 's3', 'cp', '--no-progress', f's3://{SCOPE}/{unique}', '-'],
        env={'AWS_SHARED_CREDENTIALS_FILE': str(file)},
    )
    assert done.stdout == 'content', done.stderr


def test_rclone_by_its_file(world, tools, unique):
    world.put(unique, b'content')
    file = tools.home / 'rclone.conf'
    file.write_text('# mine\n[mine]\ntype = sftp\n')
    world.s3(world.alice, 'credentials', '--format', 'rclone', '--write', env={'RCLONE_CONFIG': str(file)})
    assert file.read_text().startswith('# mine\n[mine]\ntype = sftp\n')
    done = tools.run([tools.find('rclone'), '--config', str(file), '--ca-cert', str(world.storage.ca_bundle), 'cat', f'{ALIAS}:{SCOPE}/{unique}'])
    assert done.stdout == 'content', done.stderr


def test_s3cmd_reads_its_file(world, tools):
    """Without a request: before the first one it would look for the metadata service of AWS."""
    file = tools.home / 's3cfg'
    file.write_text('[default]\nrecursive = True\n')
    world.s3(world.alice, 'credentials', SCOPE, '--format', 's3cmd', '--file', str(file))
    script = 'import sys; from S3.Config import Config; c = Config(sys.argv[1]); print(c.host_base, c.use_https, c.recursive, len(c.access_token) > 9, c.ca_certs_file)'
    done = tools.run([tools.python('S3.Config'), '-c', script, str(file)])
    assert done.stdout.split() == [world.storage.url.partition('://')[2], 'True', 'True', 'True', str(world.storage.ca_bundle)], done.stderr


def test_a_failure_leaves_the_file_as_it_was(world, tools):
    file = tools.home / 'config.json'
    file.write_text('{ not mine to break')
    for user, arguments in ((world.alice, []), (world.alice, ['user.bob']), (world.bob, [])):
        done = user.rucio('s3', 'credentials', '--file', str(file), *arguments)
        assert done.returncode != 0
        assert file.read_text() == '{ not mine to break'
    assert [path.name for path in tools.home.iterdir() if path.name.startswith('.rucio')] == []


def test_a_link_stays_one(world, tools):
    real, link = tools.home / 'real', tools.home / 'link'
    link.symlink_to(real)
    world.s3(world.alice, 'credentials', '--file', str(link))
    assert link.is_symlink()
    assert 'aliases' in json.loads(real.read_text())


# Programs


def test_credential_process_goes_on_for_ever(world, tools, unique):
    world.put(unique, b'content')
    config = tools.home / 'config'
    parser = configparser.RawConfigParser()
    rucio = shutil.which('rucio', path=world.alice.environment['PATH'])
    variables = ' '.join(f'{name}={value}' for name, value in world.alice.environment.items() if name != 'PATH')
    parser['profile site'] = {
        'credential_process': f'/usr/bin/env {variables} {rucio} s3 credentials {SCOPE} --format process',
        'endpoint_url': world.storage.url,
        'region': 'us-east-1',
        'ca_bundle': str(world.storage.ca_bundle),
    }
    with config.open('w') as file:
        parser.write(file)
    done = tools.run([tools.find('aws'), '--profile', 'site', 's3', 'cp', '--no-progress', f's3://{SCOPE}/{unique}', '-'], env={'AWS_CONFIG_FILE': str(config)})
    assert done.stdout == 'content', done.stderr


def test_a_shell_with_the_keys(world, tools, unique):
    world.put(unique, b'content')
    script = f'eval "$(rucio s3 credentials {SCOPE} --format env)" && {tools.find("s5cmd")} cat s3://{SCOPE}/{unique}'
    done = tools.run(['sh', '-c', script], env={**world.alice.environment, 'AWS_PROFILE': 'mine'})
    assert done.stdout == 'content', done.stderr


MINIO = """
import os, sys
from minio import Minio
e = os.environ
keys = e['AWS_ACCESS_KEY_ID'], e['AWS_SECRET_ACCESS_KEY'], e['AWS_SESSION_TOKEN']
s3 = Minio(e['RUCIO_S3_HOST'], *keys, secure=e['RUCIO_S3_HTTPS'] == 'True', region=e['AWS_REGION'])
bucket, name = sys.argv[1:]
s3.fput_object(bucket, name, __file__)
print([each.object_name for each in s3.list_objects(bucket, name)], s3.get_object(bucket, name).read() == open(__file__, 'rb').read())
"""


def test_minio_py(world, tools, unique):
    script = tools.home / 'script.py'
    script.write_text(MINIO)
    done = world.exec(world.alice, tools, [SCOPE], [tools.python('minio'), str(script), SCOPE, unique])
    assert done.stdout.strip() == f"['{unique}'] True", done.stderr


WRITE = """
import sys, numpy, uproot
with uproot.recreate(sys.argv[1]) as file:
    file['events'] = {'energy': numpy.arange(100_000, dtype='float64')}
"""
ANALYSE = """
import json, os, sys, uproot
options = json.loads(os.environ['OPTIONS']) if 'OPTIONS' in os.environ else {'endpoint_url': os.environ['AWS_ENDPOINT_URL_S3']}
with uproot.open(sys.argv[1] + ':events', **options) as events:
    print(events['energy'].array(library='np')[:1000].sum())
"""
OPTIONS = 'import json, sys; from rucio.client.s3client import S3Client; print(json.dumps(S3Client().storage_options(sys.argv[1])))'


def test_an_analysis_reads_a_root_file_that_rucio_wrote(world, tools, unique):
    """uproot over s3fs, with vended keys: by `rucio s3 exec`, and as a notebook gets them."""
    python = tools.python('uproot', 's3fs')
    file = tools.home / 'file.root'
    assert tools.run([python, '-c', WRITE, str(file)]).returncode == 0
    world.alice.rucio('upload', '--rse', RSE, '--scope', SCOPE, '--lfn', f'shared/{unique}.root', str(file), check=True)
    assert world.get(f'shared/{unique}.root') == file.read_bytes()
    name = world.s3(world.bob, 'url', f'{SCOPE}:shared/{unique}.root', '--for', 'aws').strip()
    done = world.exec(world.bob, tools, [SHARED, '--read-only'], [python, '-c', ANALYSE, name])
    assert done.stdout.strip() == '499500.0', done.stderr
    options = tools.run([sys.executable, '-c', OPTIONS, SHARED], env=world.bob.environment)
    assert options.returncode == 0, options.stderr
    done = tools.run([python, '-c', ANALYSE, name], env={'OPTIONS': options.stdout})
    assert done.stdout.strip() == '499500.0', done.stderr


OBSTORE = """
import sys, obstore
from rucio.client.s3client import S3Client
store = S3Client().obstore_store(sys.argv[1], write=len(sys.argv) > 2)
if len(sys.argv) > 2:
    obstore.put(store, sys.argv[2], b'12345')
print(sorted(each['path'] for each in obstore.list(store).collect()), bytes(obstore.get(store, 'file').bytes()))
"""


def test_obstore_has_a_did_as_its_root(world, tools, unique):
    """The storage has a CA of its own."""
    file = tools.home / 'file'
    file.write_bytes(b'12345')
    world.alice.rucio('upload', '--rse', RSE, '--scope', SCOPE, '--lfn', f'shared/{unique}/file', str(file), check=True)
    for user, *arguments in (
        (world.alice, f'{SCOPE}:shared/{unique}', 'written'),
        (world.bob, f'{SCOPE}:shared/{unique}'),
        (world.bob, f'{SCOPE}:shared/{unique}/file'),
    ):
        done = user.python(OBSTORE, *arguments)
        assert done.stdout.strip() == "['file', 'written'] b'12345'", done.stderr


# Keys


def keys(world, user, *arguments):
    return json.loads(world.s3(user, 'credentials', *arguments, '--format', 'json'))


def test_keys_say_what_they_are_for(world):
    (mine,) = keys(world, world.alice)
    assert (mine['alias'], mine['rse'], mine['bucket'], mine['prefix'], mine['write']) == (ALIAS, RSE, SCOPE, '', True)
    (read,) = keys(world, world.alice, SCOPE, '--read-only')
    assert read['write'] is False
    (part,) = keys(world, world.alice, f'{SCOPE}:a/b')
    assert (part['alias'], part['prefix'], part['write']) == (ALIAS, 'a/b/', True)
    for name in ('shared', 'shared/a/b'):
        (part,) = keys(world, world.bob, f'{SCOPE}:{name}')
        assert (part['alias'], part['bucket'], part['prefix'], part['write']) == (SHARED_ALIAS, SCOPE, f'{name}/', False)


def test_a_lifetime_can_be_asked_for(world):
    (short,) = keys(world, world.alice, SCOPE, '--lifetime', '900')
    left = calendar.timegm(time.strptime(short['expiration'], '%Y-%m-%dT%H:%M:%SZ')) - time.time()
    assert 400 < left <= 900


@pytest.mark.parametrize('arguments', [[SCOPE], [f'{SCOPE}:private'], ['user.nobody'], [f'{SCOPE}:nothing/here']])
def test_who_was_given_nothing_gets_nothing(world, arguments):
    done = world.bob.rucio('s3', 'credentials', *arguments)
    assert done.returncode != 0
    assert done.stdout == ''
    assert 'Traceback' not in done.stderr


def test_who_has_no_bucket_is_told_how_to_get_one(world):
    for arguments in ([], ['--rse', RSE]):
        done = world.root.rucio('s3', 'credentials', *arguments)
        assert done.returncode != 0
        assert 'rucio s3 make-bucket user.' in done.stdout + done.stderr


def test_a_storage_without_an_sts(world):
    for arguments in ([], ['user.bob']):
        done = world.bob.rucio('s3', 'credentials', *arguments)
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert 'role_arn' in said
        assert 'rucio upload' in said
        assert 'Traceback' not in said


# Signed URLs


def fetch(world, url, data=None):
    request = urllib.request.Request(url, data=data, method='PUT' if data else 'GET')
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=world.storage.ca_bundle))
    )
    with opener.open(request, timeout=30) as answer:
        return answer.read()


def test_a_url_for_somebody_without_an_account(world, unique):
    name = f'{SCOPE}:shared/{unique}'
    fetch(world, world.s3(world.alice, 'presign', '--put', name).strip(), b'content')
    assert world.get(f'shared/{unique}') == b'content'
    for user in (world.alice, world.bob):
        assert fetch(world, world.s3(user, 'presign', name, '--expires', '60').strip()) == b'content'
    assert world.bob.rucio('s3', 'presign', '--put', name).returncode != 0


def test_a_url_cannot_outlive_its_keys(world, unique):
    done = world.alice.rucio('s3', 'presign', f'{SCOPE}:{unique}', '--expires', '604800', check=True)
    assert 'the URL expires at' in done.stderr


def test_a_url_where_there_is_neither_sts_nor_signer(world, unique):
    done = world.bob.rucio('s3', 'presign', f'user.bob:{unique}')
    assert done.returncode != 0
    assert 'sign-url' in done.stdout + done.stderr
    assert 'X-Amz-Signature' not in done.stdout


# Secrets


def test_no_log_of_the_server_has_a_key(world):
    (mine,) = keys(world, world.alice)
    log = world.root.server.log.read_text(errors='replace')
    assert mine['secret_key'] not in log
    assert mine['session_token'] not in log
    assert world.storage.secret_key not in log
    assert os.path.getsize(world.root.server.log) > 0
