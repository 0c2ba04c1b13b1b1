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

"""Other people's clients behind `rucio s3 exec --`: alice's storage vends keys, bob's has no STS; the certificate is of a CA of our own."""

import itertools
import shutil
import signal
import subprocess
import sys
import zlib

import pytest

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


def script(world, user, tools, lines, *options):
    """Run commands with one endpoint."""
    return world.exec(user, tools, list(options), ['sh', '-ec', '\n'.join(['set -f', *lines])])


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


# The clients in whose command lines are DIDs: put, list, get, remove
WITH_DIDS = {
    'mc': ('cp {file} {did}/a.root', 'ls {did}', 'cp {did}/a.root {copy}', 'rm {did}/a.root'),
    'aws': ('s3 cp {file} {did}/a.root', 's3 ls {did}', 's3 cp {did}/a.root {copy}', 's3 rm {did}/a.root'),
    's5cmd': ('cp {file} {did}/a.root', 'ls {did}/*', 'cp {did}/a.root {copy}', 'rm {did}/a.root'),
    's3cmd': ('put {file} {did}/a.root', 'ls {did}/', 'get {did}/a.root {copy}', 'rm {did}/a.root'),
    'rclone': ('copyto {file} {did}/a.root', 'lsf {did}', 'copyto {did}/a.root {copy}', 'deletefile {did}/a.root'),
}


@pytest.mark.parametrize('client', [pytest.param(each, marks=() if each == 'mc' else pytest.mark.long) for each in WITH_DIDS])
def test_dids(world, tools, unique, client):
    """bob has no keys: his storage has no STS. Nothing is written to the directory in which the command is run."""
    tool = tools.find(client)
    file, copy, here = tools.home / 'file.root', tools.home / 'copy', tools.home / 'here'
    here.mkdir()
    file.write_bytes(b'content')
    names = {'file': file, 'copy': copy, 'did': f'user.bob:{unique}'}
    world.s3(world.bob, 'make-bucket', names['did'])
    for line in WITH_DIDS[client]:
        done = world.exec(world.bob, tools, ['-v'], [tool, *line.format(**names).split()], cwd=here)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f'user.bob/{unique}' in done.stderr.splitlines()[0], done.stderr
        assert 'ls' not in line.split(' {')[0] or 'a.root' in done.stdout
        assert list(here.iterdir()) == []
    assert copy.read_bytes() == b'content'


def test_names_that_mc_would_write_here_are_refused(world, tools, tmp_path):
    mc = tools.find('mc')
    here = tmp_path / 'here'
    here.mkdir()
    (here / 'file').write_bytes(b'x')
    for name, why in {
        'user.bbo:run7/file': "There is no scope 'user.bbo'",
        'user.alice:private/file': 'may not read',
        'bbo:run7': "There is no scope 'bbo'",
        'user.bob/run7/': "write 'user.bob:run7/'",
        'nosts_s3/user.bob/file': 'write SCOPE:NAME',
    }.items():
        done = world.bob.rucio('s3', 'exec', '--', mc, 'cp', 'file', name, cwd=here)
        assert done.returncode != 0, name
        assert why in done.stdout + done.stderr, done.stdout + done.stderr
        assert [each.name for each in here.iterdir()] == ['file']


def test_only_one_collection(world, tools, unique):
    """alice may read all of her scope, but runs a script with a part of it."""
    for key in (f'{unique}/a', f'{unique}0/b'):
        world.put(key, b'content')
    s5cmd = tools.find('s5cmd')
    bucket = f's3://user.alice/{unique}'
    allowed = [f'{s5cmd} cat {bucket}/a', f'{s5cmd} ls {bucket}/', f'{s5cmd} ls s3://user.alice/']
    refused = [
        f'{s5cmd} cat {bucket}0/b',
        f'{s5cmd} ls {bucket}*',
        f'{s5cmd} cp {bucket}0/b {bucket}/b',
        f'{s5cmd} cp {bucket}/a s3://user.alice/c',
        f'{s5cmd} rm {bucket}0/b',
        f'{s5cmd} ls s3://user.bob/',
    ]
    done = script(world, world.alice, tools, [*allowed, *(f'{line} && exit 9' for line in refused), 'exit 7'], f'user.alice:{unique}')
    assert done.returncode == 7, done.stdout + done.stderr
    assert f'{unique}/' in done.stdout
    assert f'{unique}0/' not in done.stdout
    assert world.get(f'{unique}0/b') == b'content'
    assert world.exec(world.alice, tools, ['user.nobody'], ['touch', 'ran']).returncode == 1
    assert not (world.alice.directory / 'ran').exists()


def test_exit_codes(world, tools):
    assert world.exec(world.alice, tools, [], ['sh', '-c', 'exit 7']).returncode == 7
    assert world.exec(world.alice, tools, [], ['sh', '-c', 'kill -TERM $$']).returncode == 128 + signal.SIGTERM
    missing = world.exec(world.alice, tools, [], ['no-such-tool'])
    assert missing.returncode == 127
    assert "command not found: 'no-such-tool'" in missing.stderr
    without = world.alice.rucio('s3', 'exec', 'user.alice')
    assert without.returncode != 0
    assert 'Missing command' in without.stdout + without.stderr


_SIGNAL_BEFORE_THE_TOOL = """
import asyncio, os, signal, sys
import rucio.cli.s3.exec

start = asyncio.create_subprocess_exec

async def late(*words, **more):
    signal.raise_signal(signal.SIGTERM)
    return await start(*words, **more)

asyncio.create_subprocess_exec = late
print(asyncio.run(sys.modules['rucio.cli.s3.exec']._wait(['sleep', '100'], os.environ)))
"""


def test_a_signal_before_there_is_a_tool_reaches_it():
    """It ended the command alone, and the tool ran on without its endpoint."""
    done = subprocess.run([sys.executable, '-c', _SIGNAL_BEFORE_THE_TOOL], capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout == '143\n', done.stderr


def test_a_tool_ends_when_nobody_reads_it_any_more(world, tools):
    assert world.exec(world.alice, tools, [], ['sh', '-c', 'yes | head -1']).stdout == 'y\n'
    ignored = world.exec(world.alice, tools, [], ['grep', 'SigIgn', '/proc/self/status']).stdout.split()[1]
    assert not int(ignored, 16) >> (signal.SIGPIPE - 1) & 1


def test_no_process_has_a_secret_in_its_arguments(world, tools):
    lines = ['for each in $$ $PPID; do tr "\\0" "\\n" < /proc/$each/cmdline; done', 'echo; echo "KEY $AWS_SECRET_ACCESS_KEY"']
    arguments, _, key = world.exec(world.alice, tools, [], ['sh', '-c', '\n'.join(lines)]).stdout.partition('KEY ')
    assert len(key.strip()) > 10
    assert key.strip() not in arguments


def test_profiles_of_the_users_own_do_not_win(world, tools):
    aws = world.alice.directory / '.aws'
    aws.mkdir()
    try:
        aws.joinpath('credentials').write_text('[default]\naws_access_key_id = MINE\naws_secret_access_key = mine\n')
        aws.joinpath('config').write_text('[default]\nendpoint_url = http://127.0.0.1:1\n[profile mine]\nregion = nowhere\n')
        done = world.exec(
            world.alice, tools, [], [tools.find('aws'), 's3', 'ls', 's3://user.alice/'], AWS_PROFILE='mine', AWS_ENDPOINT_URL='http://127.0.0.1:1'
        )
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(aws)
