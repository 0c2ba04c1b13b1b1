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

"""`rucio s3 token`: when a token is renewed, what happens if it cannot be, and what the file may not be."""

import base64
import json
from itertools import islice

import pytest

from rucio.cli.s3 import token as module
from rucio.common.exception import CannotAuthenticate, InputValidationError, ServerConnectionException

RUCIO = 'alice-/CN=Alice Doe-unknown-0123456789abcdef0123456789abcdef'


class Client:
    """Has the tokens of a list, or raises what is in it. `clock` is the time, which waiting changes."""

    def __init__(self, monkeypatch, tokens, auth_type='userpass'):
        self.auth_type, self.auth_token, self.clock, self.waits = auth_type, '', 1000.0, []
        self._tokens = iter(tokens)
        monkeypatch.setattr(module.rucio_internals, 'renew_token', lambda client: client.renew())

    def renew(self):
        found = next(self._tokens)
        if isinstance(found, Exception):
            raise found
        self.auth_token = found

    def wait(self, seconds):
        self.waits.append(seconds)
        self.clock += seconds

    def tokens(self):
        return module.tokens(self, self.wait, lambda: self.clock)


def jwt(ends):
    return 'e30.' + base64.urlsafe_b64encode(json.dumps({'exp': ends}).encode()).decode().rstrip('=') + '.c2ln'


def test_a_token_is_replaced_long_before_it_expires(monkeypatch):
    client = Client(monkeypatch, ['a', 'b', 'c'])
    assert list(islice(client.tokens(), 3)) == [('a', 4600.0), ('b', 5800.0), ('c', 7000.0)]
    assert client.waits == [1200, 1200]


def test_a_failed_renewal_is_repeated_while_the_token_is_valid(monkeypatch, capsys):
    client = Client(monkeypatch, ['a', *[ServerConnectionException('silent')] * 3, 'b'])
    assert [token for token, _ in islice(client.tokens(), 2)] == ['a', 'b']
    assert client.waits == [1200, 60, 60, 60]
    assert capsys.readouterr().err.count('WARNING The token could not be renewed') == 3


def test_it_ends_with_the_error_when_the_token_has_expired(monkeypatch):
    client = Client(monkeypatch, ['a', *[CannotAuthenticate('wrong password')] * 100])
    with pytest.raises(CannotAuthenticate, match='wrong password'):
        list(client.tokens())
    assert 3600 <= client.clock - 1000 <= 3600 + module.PAUSE


def test_an_oidc_token_that_others_renew_is_looked_for_every_minute(monkeypatch):
    first, second = jwt(2000), jwt(5000)
    client = Client(monkeypatch, [first, first, first, second], 'oidc')
    assert list(islice(client.tokens(), 2)) == [(first, 2000.0), (second, 5000.0)]
    assert client.waits == [60, 60, 60]


@pytest.mark.parametrize('tokens', [[jwt(1100)] * 10, [jwt(900)]])
def test_an_oidc_token_that_nobody_renews_ends_the_command(monkeypatch, tokens):
    """And one that has expired is never written."""
    client = Client(monkeypatch, tokens, 'oidc')
    seen = []
    with pytest.raises(CannotAuthenticate, match='auth_oidc_refresh_active'):
        seen.extend(client.tokens())
    assert len(seen) == (len(tokens) > 1)


@pytest.mark.parametrize('old', ['', RUCIO, f'{RUCIO}\n', jwt(5)])
def test_an_earlier_token_is_replaced(old):
    assert module._replaced(old, 'new') == 'new'


@pytest.mark.parametrize('old', ['export A=1', '-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n', f'{RUCIO}\n{RUCIO}', '{"a": 1}'])
def test_another_file_is_not(old):
    with pytest.raises(InputValidationError, match='something else than a token'):
        module._replaced(old, 'new')
