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

"""Other people's clients in other terminals, by `rucio s3 serve`."""

import json
import signal
import stat
import subprocess
import urllib.request
from contextlib import contextmanager

import pytest

from interop.world import WITHOUT_STS
from servers.process import TIMEOUT


@contextmanager
def serving(user, *options):
    """Run `rucio s3 serve` inside the block, and interrupt it. Gives what it says until it serves."""
    running = user.popen('rucio', 's3', 'serve', *options, stderr=subprocess.PIPE)
    try:
        assert running.stderr is not None
        said = ''
        while 'Serving' not in said:
            line = running.stderr.readline()
            assert line, said
            said += line
        yield said
        running.send_signal(signal.SIGINT)
        assert running.wait(TIMEOUT) == 0
        assert 'Traceback' not in running.stderr.read()
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


INSTALLED = {
    'mc': (['ls', 'rucio/user.bob/'], ['cp', 'FILE', 'rucio/user.bob/NAME-mc']),
    'aws': (['--profile', 'rucio', 's3', 'ls', 's3://user.bob/'], ['--profile', 'rucio', 's3', 'cp', 'FILE', 's3://user.bob/NAME-aws']),
    'rclone': (['lsf', 'rucio:user.bob'], ['copyto', 'FILE', 'rucio:user.bob/NAME-rclone']),
}


def test_tools_are_set_up_once(world, tools, unique):
    """bob's storage has no STS. The port, the keys and the certificate are the same after a restart, and what else is in the files of the tools stays."""
    user, home = world.bob, world.bob.directory
    nothing = user.rucio('s3', 'serve')
    assert nothing.returncode == 2
    assert 'rucio s3 serve --install mc' in nothing.stderr
    (home / '.mc').mkdir()
    (home / '.mc' / 'config.json').write_text('{"version": "10", "aliases": {"play": {"url": "https://play.example.org"}}}')
    said = {tool: world.s3(user, 'serve', '--install', tool) for tool in INSTALLED}
    assert said['mc'] == world.s3(user, 'serve', '--install', 'mc')
    assert {'play', 'rucio'} == json.loads((home / '.mc' / 'config.json').read_text())['aliases'].keys()
    assert 'remove ~/.rucio-s3' in user.rucio('s3', 'serve', '--install', 'mc', '--port', '1025').stderr
    assert [each.name for each in (home / '.rucio-s3').iterdir() if stat.S_IMODE(each.stat().st_mode) != 0o600] == []
    file = tools.home / 'file'
    file.write_bytes(b'content')
    done = {}
    for number in (0, 1):
        with serving(user) as told:
            assert 'https://127.0.0.1:' in told
            for tool, commands in INSTALLED.items():
                words = [word.replace('FILE', str(file)).replace('NAME', unique) for word in commands[1 - number]]
                done[tool, number] = tools.run([tools.find(tool), *words], env={'HOME': str(home)})
    assert [each.stderr for each in done.values() if each.returncode] == []
    assert [tool for tool in INSTALLED if f'{unique}-{tool}' not in done[tool, 1].stdout] == []
    assert world.get(f'{unique}-mc', bucket='nosts-user.bob') == b'content'


def test_for_tools_in_other_terminals(world, tools, unique):
    world.put(unique, b'content', bucket='nosts-user.bob')
    keys = tools.home / 'keys.json'
    with serving(world.bob, '--format', 'json', '--file', str(keys), '--rse', WITHOUT_STS) as said:
        assert 'Serving bob at http://127.0.0.1:' in said
        assert stat.S_IMODE(keys.stat().st_mode) == 0o600
        (here,) = json.loads(keys.read_text())
        assert here['secret_key'] not in said
        with pytest.raises(urllib.error.HTTPError, match='403'):
            urllib.request.urlopen(f'{here["url"]}/user.bob/{unique}')
        env = {'AWS_ACCESS_KEY_ID': here['access_key'], 'AWS_SECRET_ACCESS_KEY': here['secret_key'], 'AWS_SESSION_TOKEN': here['session_token']}
        got = tools.run([tools.find('aws'), '--endpoint-url', here['url'], 's3', 'cp', f's3://user.bob/{unique}', '-'], env=env)
        assert got.stdout == 'content', got.stderr
