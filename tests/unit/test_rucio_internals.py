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
"""What is private in Rucio, and this project relies on: each test fails when that changes."""

import inspect
import sys
from importlib import import_module
from io import StringIO
from types import SimpleNamespace

import pytest

import rucio.rse
from rucio.client.baseclient import BaseClient
from rucio.common.exception import AccessDenied
from rucio.common.s3 import rucio_internals as internals
from rucio.rse import rsemanager


@pytest.mark.parametrize('client', [True, False])
def test_whether_this_is_a_client_is_what_rucio_says(monkeypatch, client):
    assert 'CLIENT_MODE' in inspect.getsource(rucio.rse)
    assert isinstance(rsemanager.CLIENT_MODE, bool)  # it is set when rucio.rse is imported
    monkeypatch.setattr(rsemanager, 'CLIENT_MODE', client)
    assert internals.is_client() is client
    monkeypatch.delattr(rsemanager, 'CLIENT_MODE')
    assert internals.is_client() is False


def test_a_request_has_the_token_and_its_answer_an_exception():
    assert list(inspect.signature(BaseClient._send_request).parameters)[:3] == ['self', 'url', 'method']
    assert {'data'} <= set(inspect.signature(BaseClient._send_request).parameters)
    sent = []
    client = object.__new__(BaseClient)
    client._send_request = lambda *given, **named: sent.append((given, named)) or 'the answer'
    assert internals.send(client, 'https://rucio/s3', 'POST', '{}') == 'the answer'
    assert sent == [(('https://rucio/s3',), {'method': internals.HTTPMethod.POST, 'data': '{}'})]
    answer = SimpleNamespace(status_code=401, headers={'ExceptionClass': 'AccessDenied', 'ExceptionMessage': 'not yours'}, content=None)
    kind, message = internals.exception_of(client, answer)
    assert (kind, 'not yours' in message) == (AccessDenied, True)


@pytest.mark.parametrize(('auth_type', 'called'), [('userpass', 'get'), ('x509_proxy', 'get'), ('oidc', 'read')])
def test_a_token_is_renewed_as_rucio_does_it(monkeypatch, auth_type, called):
    calls = []
    for name in ('get', 'read'):
        assert callable(getattr(BaseClient, f'_BaseClient__{name}_token'))
        monkeypatch.setattr(BaseClient, f'_BaseClient__{name}_token', lambda _, name=name: calls.append(name))
    client = object.__new__(BaseClient)
    client.auth_type = auth_type
    internals.renew_token(client)
    assert calls == [called]


def test_the_permissions_of_a_vo_are_a_module():
    pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')
    permission = import_module('rucio.core.permission')
    known = dict(permission.permission_modules)
    try:
        permission.permission_modules.pop('def', None)
        module = internals.permission_module('def')
        assert callable(module.has_permission)
        assert internals.permission_module('def') is module
    finally:
        permission.permission_modules.update(known)


def test_metrics_are_rucios_where_it_has_loaded_them(monkeypatch):
    pytest.importorskip('prometheus_client', reason='rucio-clients has no server')
    import_module('rucio.core.monitor')
    assert internals.metric_manager('rucio.test').full_name('requests') == 'rucio.test.requests'
    monkeypatch.delitem(sys.modules, 'rucio.core.monitor')
    assert internals.metric_manager('rucio.test') is None


def test_a_table_is_printed_as_rucio_prints_its_own():
    console = pytest.importorskip('rich.console').Console(file=StringIO(), width=80)
    stopped = []
    context = SimpleNamespace(console=console, no_pager=True, spinner=SimpleNamespace(stop=lambda: stopped.append(True)))
    internals.print_table(context, [['user.alice', '3']], ['BUCKET', 'FILES'], ['left', 'right'])
    shown = console.file.getvalue()
    assert all(word in shown for word in ('BUCKET', 'FILES', 'user.alice', '3'))
    assert stopped


def test_a_table_is_printed_by_rucio_38(monkeypatch):
    printed = []
    stub = SimpleNamespace(generate_table=lambda rows, **named: (rows, named), print_output=lambda *given, **named: printed.append((given, named)))
    monkeypatch.delattr('rucio.cli.utils.RichUtils', raising=False)
    monkeypatch.setitem(sys.modules, 'rucio.client.richclient', stub)
    context = SimpleNamespace(console='c', no_pager=True, spinner=SimpleNamespace(stop=lambda: None))
    internals.print_table(context, [['a']], ('A',), ['left'])
    assert printed == [((([['a']], {'headers': ['A'], 'col_alignments': ['left']}),), {'console': 'c', 'no_pager': True})]


def test_the_context_of_a_command_has_what_a_table_needs():
    text = inspect.getsource(import_module('rucio.cli.command'))
    assert all(name in text for name in ('console', 'no_pager', 'spinner'))


def test_each_vo_has_its_own(monkeypatch):
    pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')
    permission = import_module('rucio.core.permission')
    monkeypatch.setattr(permission, 'permission_modules', {})
    loaded = []
    monkeypatch.setattr(permission, 'load_permission_for_vo', lambda vo: loaded.append(vo) or permission.permission_modules.update({vo: f'of {vo}'}))
    assert [internals.permission_module(vo) for vo in ('def', 'two', 'def', 'two')] == ['of def', 'of two', 'of def', 'of two']
    assert loaded == ['def', 'two']
