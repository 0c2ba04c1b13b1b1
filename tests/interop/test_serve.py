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

"""Other people's clients by `rucio s3 serve`: alice's storage vends keys, bob's has no STS; the certificate is of a CA of our own."""

import itertools
import json
import signal
import stat
import subprocess
import urllib.request
import zlib

import pytest

from interop.world import WITHOUT_STS
from servers.files import command_path

# {file} is a local file of several parts, {folder} a new name in the bucket, {copy} another local file. The last command removes all.
CLIENTS = {
    'aws': (
        'aws s3 cp --no-progress {file} s3://{bucket}/{folder}/large',
        'aws s3 ls s3://{bucket}/{folder}/',
        'aws s3 cp --no-progress s3://{bucket}/{folder}/large {copy}',
        'aws s3 mv --no-progress s3://{bucket}/{folder}/large s3://{bucket}/{folder}/moved',
        'aws s3 rm --recursive s3://{bucket}/{folder}/',
    ),
    's5cmd': (
        's5cmd cp {file} s3://{bucket}/{folder}/large',
        's5cmd ls s3://{bucket}/{folder}/',
        's5cmd cp s3://{bucket}/{folder}/large {copy}',
        's5cmd mv s3://{bucket}/{folder}/large s3://{bucket}/{folder}/moved',
        's5cmd rm s3://{bucket}/{folder}/*',
    ),
    's3cmd': (
        's3cmd --no-progress put {file} s3://{bucket}/{folder}/large',
        's3cmd ls s3://{bucket}/{folder}/',
        's3cmd --no-progress get s3://{bucket}/{folder}/large {copy}',
        's3cmd rm --recursive --force s3://{bucket}/{folder}/',
    ),
    'rclone': (
        'rclone copyto {file} rucio:{bucket}/{folder}/large',
        'rclone lsf rucio:{bucket}/{folder}/',
        'rclone copyto rucio:{bucket}/{folder}/large {copy}',
        'rclone moveto rucio:{bucket}/{folder}/large rucio:{bucket}/{folder}/moved',
        'rclone delete rucio:{bucket}/{folder}',
    ),
    'mc': (
        'mc cp {file} rucio/{bucket}/{folder}/large',
        'mc ls rucio/{bucket}/{folder}/',
        'mc cp rucio/{bucket}/{folder}/large {copy}',
        'mc mv rucio/{bucket}/{folder}/large rucio/{bucket}/{folder}/moved',
        'mc rm --recursive --force rucio/{bucket}/{folder}/',
    ),
}


def serve(world, user, tools, command, *options):
    env = {'PATH': f'{user.environment["PATH"]}:{tools.path}'}
    return user.rucio('s3', 'serve', *options, '--', *command, env=env)


def script(world, user, tools, lines, *options):
    """Run commands with one endpoint."""
    return serve(world, user, tools, ['sh', '-ec', '\n'.join(['set -f', *lines])], *options)


SHORT = {('aws', 'bob'), ('mc', 'bob'), ('s5cmd', 'alice')}
USUAL = [pytest.param(*each, marks=() if each in SHORT else pytest.mark.long) for each in itertools.product(CLIENTS, ('alice', 'bob'))]


@pytest.mark.parametrize(('client', 'user'), USUAL)
def test_the_usual_things(any_world, tools, unique, large, client, user):
    tool = tools.find(client)
    file, copy = large(), tools.home / 'copy'
    names = {'file': file, 'folder': unique, 'copy': copy, 'bucket': f'user.{user}'}
    lines = [line.format(**names).replace(client, tool, 1) for line in CLIENTS[client]]
    done = script(any_world, getattr(any_world, user), tools, lines)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'large' in done.stdout
    assert copy.read_bytes() == file.read_bytes()
    bucket = 'nosts-user.bob' if user == 'bob' else 'user.alice'
    assert 'Contents' not in any_world.storage.client().list_objects_v2(Bucket=bucket, Prefix=f'{unique}/')


def test_a_part_that_is_shared(world, tools, unique):
    """It is on another RSE than bob's own bucket, and both are reached in one run."""
    world.put(f'shared/{unique}', b'for bob')
    world.put(f'private/{unique}', b'not for bob')
    aws = tools.find('aws')
    lines = [
        f'{aws} s3 cp --no-progress s3://user.alice/shared/{unique} s3://user.bob/{unique}',
        f'{aws} s3 cp s3://user.bob/{unique} -',
        f'{aws} s3 ls s3://user.alice/shared/',
        f'{aws} s3 ls s3://user.bob/',
        f'{aws} s3 ls s3://user.alice',
        f'{aws} s3 ls',
    ]
    done = script(world, world.bob, tools, [*lines, f'{aws} s3 cp s3://user.alice/private/{unique} - && exit 9', 'exit 7'])
    assert done.returncode == 7, done.stdout + done.stderr
    assert 'for bob' in done.stdout
    assert [line.split()[-1] for line in done.stdout.splitlines()[-3:]] == ['shared/', 'user.alice', 'user.bob']
    assert 'not for bob' not in done.stdout


def test_what_is_written_and_deleted_is_in_the_catalogue_at_once(any_world, tools, unique, large):
    """A small file, a multipart upload and a copy can be downloaded by Rucio right after; with their own checksum, which no server had to read."""
    user, file = any_world.alice, large()
    small, changed = tools.home / 'small', tools.home / 'changed'
    small.write_bytes(b'small')
    changed.write_bytes(file.read_bytes()[::-1])
    aws, here = f'{tools.find("aws")} s3', f's3://user.alice/{unique}'
    download = f'{command_path("rucio")} download --no-subdir --dir {tools.home}/got'
    lines = [
        f'{aws} cp --no-progress {small} {here}/small',
        f'{aws} cp --no-progress {file} {here}/large',
        f'{aws} cp --no-progress {here}/small {here}/copy',
        f'{download} {" ".join(f"user.alice:{unique}/{name}" for name in ("small", "large", "copy"))}',
    ]
    done = script(any_world, user, tools, lines)
    assert done.returncode == 0, done.stdout + done.stderr
    got = {name: (tools.home / 'got' / unique / name).read_bytes() for name in ('small', 'large', 'copy')}
    assert got == {'small': b'small', 'copy': b'small', 'large': file.read_bytes()}
    sums = {each['name'].rpartition('/')[2]: each['adler32'] for each in user.call('list_files', 'user.alice', unique)}
    assert sums == {'small': '065f021a', 'copy': None, 'large': f'{zlib.adler32(file.read_bytes()):08x}'}
    lines = [
        f'{aws} cp --no-progress {changed} {here}/large',
        f'{download.replace("/got", "/again")} user.alice:{unique}/large',
        f'{aws} rm {here}/small',
        f"{aws}api delete-objects --bucket user.alice --delete 'Objects=[{{Key={unique}/copy}}]'",
    ]
    done = script(any_world, user, tools, lines, '--overwrite')
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tools.home / 'again' / unique / 'large').read_bytes() == changed.read_bytes()
    assert [(each['name'], each['adler32']) for each in user.call('list_files', 'user.alice', unique)] == [
        (f'{unique}/large', f'{zlib.adler32(changed.read_bytes()):08x}')
    ]


@pytest.mark.long
@pytest.mark.parametrize('user', ['alice', 'bob'])
def test_unfinished_uploads(any_world, tools, unique, user):
    """They are listed with their parts where keys are vended and where the server signs, and can be aborted."""
    part = tools.home / 'part'
    part.write_bytes(b'part')
    aws, of = f'{tools.find("aws")} s3api', f'--bucket user.{user} --key {unique}/large'
    lines = [
        f'id=$({aws} create-multipart-upload {of} --query UploadId --output text)',
        f'{aws} upload-part {of} --upload-id "$id" --part-number 1 --body {part} >/dev/null',
        f'{aws} list-multipart-uploads --bucket user.{user} --prefix {unique}/ --query "Uploads[].[Key,UploadId]" --output text >{tools.home}/uploads',
        f'test "$(cat {tools.home}/uploads)" = "$(printf "{unique}/large\\t%s" "$id")"',
        f'test "$({aws} list-parts {of} --upload-id "$id" --query "Parts[].[PartNumber,Size]" --output text)" = "$(printf "1\\t4")"',
        f'{aws} abort-multipart-upload {of} --upload-id "$id"',
        f'test "$({aws} list-multipart-uploads --bucket user.{user} --prefix {unique}/ --query "Uploads[].Key" --output text)" = None',
        f'{aws} abort-multipart-upload {of} --upload-id "$id" || echo gone',
    ]
    done = script(any_world, getattr(any_world, user), tools, lines)
    assert done.returncode == 0, done.stdout + done.stderr


def test_exit_codes(world, tools):
    assert serve(world, world.alice, tools, ['sh', '-c', 'exit 7']).returncode == 7
    assert serve(world, world.alice, tools, ['sh', '-c', 'kill -TERM $$']).returncode == 128 + signal.SIGTERM
    missing = serve(world, world.alice, tools, ['no-such-tool'])
    assert missing.returncode == 127
    assert "command not found: 'no-such-tool'" in missing.stderr


def test_for_tools_in_other_terminals(world, tools, unique):
    world.put(unique, b'content', bucket='nosts-user.bob')
    keys = tools.home / 'keys.json'
    running = world.bob.popen('rucio', 's3', 'serve', '--format', 'json', '--file', str(keys), '--rse', WITHOUT_STS, stderr=subprocess.PIPE)
    try:
        assert running.stderr is not None
        said = [running.stderr.readline(), running.stderr.readline()]
        assert said[1].startswith('Serving bob at http://127.0.0.1:'), said
        assert stat.S_IMODE(keys.stat().st_mode) == 0o600
        (here,) = json.loads(keys.read_text())
        assert here['secret_key'] not in ''.join(said)
        with pytest.raises(urllib.error.HTTPError, match='403'):
            urllib.request.urlopen(f'{here["url"]}/user.bob/{unique}')
        env = {'AWS_ACCESS_KEY_ID': here['access_key'], 'AWS_SECRET_ACCESS_KEY': here['secret_key'], 'AWS_SESSION_TOKEN': here['session_token']}
        got = tools.run([tools.find('aws'), '--endpoint-url', here['url'], 's3', 'cp', f's3://user.bob/{unique}', '-'], env=env)
        assert got.stdout == 'content', got.stderr
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
        assert 'Traceback' not in running.stderr.read()
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


def test_without_aiohttp(world, tools):
    hidden = tools.home / 'aiohttp'
    hidden.mkdir()
    hidden.joinpath('__init__.py').write_text('raise ImportError')
    done = world.alice.rucio('s3', 'serve', '--', 'true', env={'PYTHONPATH': str(tools.home)})
    assert done.returncode != 0
    assert "pip install 'rucio-s3[serve]'" in done.stdout + done.stderr
    assert 'Traceback' not in done.stdout + done.stderr
