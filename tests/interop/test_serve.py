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

import pytest

from interop.world import WITHOUT_STS


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
