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

"""Clients as the factory makes them: how long they wait, which proxies they take, what they send over an encrypted connection only."""

import socket
import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
from botocore.config import Config
from requests.utils import get_environ_proxies, select_proxy

from rucio.common.exception import RucioException
from rucio.common.s3 import clients, credentials, deadlines, factory
from rucio.common.s3.endpoint import DAEMON, PERSON, SERVER, Endpoint
from rucio.common.s3.monitoring import RSE

KEYS = credentials.Static('AKID', 'secret')


def waits(client):
    config = client.meta.config
    return config.connect_timeout, config.read_timeout, config.retries['total_max_attempts'], config.retries['mode']


@pytest.mark.parametrize(('patience', 'expected'), [(PERSON, (10, 60, 4, 'standard')), (SERVER, (3, 5, 2, 'standard'))])
def test_a_person_waits_longer_than_a_server(patience, expected):
    assert waits(clients.connect(Endpoint('X', 'x', 'http://127.0.0.1:9'), KEYS, patience).client) == expected


@pytest.mark.parametrize('patience', [PERSON, SERVER])
def test_what_is_set_holds_for_both(patience):
    endpoint = Endpoint('X', 'x', 'http://127.0.0.1:9', connect_timeout=5, read_timeout=7, max_attempts=9)
    assert waits(clients.connect(endpoint, KEYS, patience).client) == (5, 7, 9, 'standard')


def test_one_setting_leaves_the_others():
    assert Endpoint('X', 'x', 'http://127.0.0.1:9', read_timeout=90).patience(SERVER) == SERVER._replace(read_timeout=90, answer_timeout=90)


def test_a_storage_is_reached_by_ipv6():
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            seen.append(self.headers['Host'])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    class Server(HTTPServer):
        address_family = socket.AF_INET6

    try:
        server = Server(('::1', 0), Handler)
    except OSError:
        pytest.skip('this machine has no IPv6')
    with server:
        threading.Thread(target=server.handle_request).start()
        url = f'http://[::1]:{server.server_port}'
        clients.connect(Endpoint('X', 'x', url), KEYS).client.head_bucket(Bucket='user.alice')
    assert seen == [url.removeprefix('http://')]


def test_only_the_servers_client_gives_a_storage_up():
    endpoint = Endpoint('X', 'x', 'http://127.0.0.1:9', connect_timeout=5, read_timeout=7, max_attempts=9)
    assert clients.connect(endpoint, KEYS, PERSON).client is not clients.connect(endpoint, KEYS, SERVER).client


@pytest.mark.parametrize(
    ('url', 'variables', 'expected'),
    [
        ('https://s3.example.org', {}, None),
        ('https://s3.example.org', {'https_proxy': 'http://proxy:3128'}, 'http://proxy:3128'),
        ('https://s3.example.org', {'HTTPS_PROXY': 'proxy:3128'}, 'http://proxy:3128'),
        ('https://s3.example.org', {'http_proxy': 'http://proxy:3128'}, None),
        ('http://10.1.2.3:9000', {'http_proxy': 'http://proxy:3128', 'no_proxy': '10.1.2.3'}, None),
        ('http://10.1.2.3:9000', {'http_proxy': 'http://proxy:3128', 'no_proxy': 'localhost, 10.0.0.0/8'}, None),
        ('http://10.1.2.3:9000', {'http_proxy': 'http://proxy:3128', 'NO_PROXY': '10.1.0.0/16'}, None),
        ('http://10.1.2.3:9000', {'http_proxy': 'http://proxy:3128', 'no_proxy': '10.2.0.0/16'}, 'http://proxy:3128'),
        ('https://s3.example.org:9000', {'https_proxy': 'http://proxy:3128', 'no_proxy': '.example.org'}, None),
        ('https://s3.example.org:9000', {'https_proxy': 'http://proxy:3128', 'no_proxy': 's3.example.org:9000'}, None),
        ('https://s3.example.org', {'https_proxy': 'http://proxy:3128', 'no_proxy': '*'}, None),
        ('https://s3.example.org', {'all_proxy': 'http://proxy:3128'}, 'http://proxy:3128'),
        ('https://s3.example.org', {'all_proxy': 'socks5://proxy:1080'}, None),
        ('https://s3.example.org', {'https_proxy': 'http://a:b%40c@proxy:3128'}, 'http://a:b%40c@proxy:3128'),
    ],
)
@pytest.mark.parametrize('service', ['s3', 'sts'])
def test_requests_take_the_same_way_as_those_of_rucio(monkeypatch, service, url, variables, expected):
    """A storage in a network that `no_proxy` names was sought through the proxy, which does not reach it."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = factory.client(service, factory.bare_session(None), url)
    assert made._endpoint.http_session._proxy_config.proxy_url_for(url) == expected
    found = select_proxy(url, get_environ_proxies(url)) or ''
    assert expected in (found if '://' in found else f'http://{found}', None)


@pytest.mark.parametrize(
    ('given', 'variables', 'expected'),
    [
        (None, {}, True),
        (None, {'AWS_CA_BUNDLE': '', 'REQUESTS_CA_BUNDLE': ''}, True),
        ('', {}, True),
        ('/rse.pem', {'AWS_CA_BUNDLE': '/aws.pem'}, '/rse.pem'),
        (None, {'AWS_CA_BUNDLE': '/aws.pem', 'REQUESTS_CA_BUNDLE': '/requests.pem'}, '/aws.pem'),
        (None, {'AWS_CA_BUNDLE': '', 'REQUESTS_CA_BUNDLE': '/requests.pem'}, '/requests.pem'),
    ],
)
def test_whose_certificates_are_believed(monkeypatch, given, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert factory.trusted(given) == expected
    assert factory.bare_session(None).get_config_variable('ca_bundle') == factory.trusted()


def test_a_directory_of_certificates_is_one_file_for_botocore(monkeypatch, tmp_path):
    for name in ('one', 'other', 'one.again'):
        (tmp_path / name).write_text(f'-----BEGIN CERTIFICATE-----\n{name[:3]}\n-----END CERTIFICATE-----\n')
    (tmp_path / 'README').write_text('no certificate')
    (tmp_path / 'folder').mkdir()
    monkeypatch.setenv('REQUESTS_CA_BUNDLE', str(tmp_path))
    bundle = factory.trusted()
    assert isinstance(bundle, str)
    with open(bundle) as file:
        assert [line for line in file.read().split('\n') if line and not line.startswith('-')] == ['one', 'oth']
    assert factory.trusted() == bundle


@pytest.mark.parametrize('make', [lambda: factory.bare_session(None), factory.user_session])
@pytest.mark.parametrize(('service', 'call'), [('sts', 'get_caller_identity'), ('sns', 'list_topics')])
def test_tokens_and_keys_are_not_sent_unencrypted(monkeypatch, make, service, call):
    """Neither by the storage's own address, nor by a proxy for a service on this machine."""
    session = make()
    session.set_credentials('AKID', 'secret')
    made = factory.client(service, session, 'http://192.0.2.1:9', region='x', patience=SERVER)
    with pytest.raises(RucioException, match='Use https'):
        getattr(made, call)()
    monkeypatch.setenv('http_proxy', 'http://proxy:3128')
    for url, proxy in (('http://127.0.0.1:9', None), ('https://127.0.0.1:9', None), ('http://192.0.2.1:9', 'http://proxy:3128')):
        made = factory.client(service, session, url, region='x')
        assert made._endpoint.http_session._proxy_config.proxy_url_for(url) == proxy


def test_a_storage_on_this_machine_is_reached_as_rucio_reaches_it(monkeypatch):
    monkeypatch.setenv('http_proxy', 'http://proxy:3128')
    made = factory.client('s3', factory.bare_session(None), 'http://127.0.0.1:9', region='x')
    assert made._endpoint.http_session._proxy_config.proxy_url_for('http://127.0.0.1:9') == 'http://proxy:3128'


@pytest.mark.parametrize('service', ['s3', 'sts', 'sns'])
@pytest.mark.parametrize(('patience', 'limit'), [(None, 900), (PERSON, 900), (SERVER, 10), (DAEMON, 900)])
def test_each_client_is_limited_observed_and_given_up(monkeypatch, service, patience, limit):
    calls, rse = {}, RSE('X', '1')
    for module, name in (
        (factory, 'bound'),
        (factory.botocore_internals, 'stop_redirects'),
        (factory.breaker, 'watch'),
        (factory.monitoring, 'observe'),
        (factory.request_ids, 'mark'),
    ):
        monkeypatch.setattr(module, name, lambda *given, name=name: calls.setdefault(name, given[1:]))
    factory.client(service, factory.bare_session(None), 'https://127.0.0.1:9', region='x', patience=patience, rse=rse)
    expected = {'bound': (limit,), 'observe': (service, rse), 'mark': ()}
    if service == 's3':
        expected['stop_redirects'] = (factory._leads_nowhere,)
    if patience and patience.breaks:
        expected['watch'] = (service, rse, patience.unattended)
    assert calls == expected


def test_a_deadline_is_that_of_the_innermost_and_the_earliest():
    assert deadlines.seconds_left() is None
    with deadlines.within(100):
        for inner, most in ((None, 100), (50, 50), (200, 100), (-1, -1)):
            with deadlines.within(inner):
                assert most - 30 < deadlines.seconds_left() <= most
                assert deadlines.is_over() is (most < 0)
        assert 70 < deadlines.seconds_left() <= 100
    assert (deadlines.seconds_left(), deadlines.is_over()) == (None, False)


@pytest.mark.parametrize(
    ('variables', 'expected'), [({}, '/profile.pem'), ({'REQUESTS_CA_BUNDLE': '/r.pem'}, '/profile.pem'), ({'AWS_CA_BUNDLE': '/a.pem'}, '/a.pem')]
)
def test_the_users_aws_settings_may_name_certificates(home, monkeypatch, variables, expected):
    home.joinpath('.aws').mkdir()
    home.joinpath('.aws', 'config').write_text('[default]\nca_bundle = /profile.pem\nregion = venus\n')
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    session = factory.user_session()
    assert (session.get_config_variable('ca_bundle'), session.get_config_variable('region')) == (expected, 'venus')
    assert factory.trusted('/rse.pem', session) == '/rse.pem'


def test_where_a_directory_cannot_be_one_file_it_is_left(monkeypatch, tmp_path):
    monkeypatch.delattr(factory.os, 'memfd_create')
    assert factory.trusted(str(tmp_path)) == str(tmp_path)


def test_a_client_has_the_configuration_that_was_given():
    config = Config(max_pool_connections=7, user_agent_extra='other')
    made = factory.client('s3', factory.bare_session(None), 'https://s3.example.org', region='mars', patience=SERVER, config=config)
    assert (made.meta.region_name, made.meta.endpoint_url) == ('mars', 'https://s3.example.org')
    assert (made.meta.config.max_pool_connections, made.meta.config.user_agent_extra, made.meta.config.read_timeout) == (7, 'other', 5)
    of_aws = factory.client('s3', factory.bare_session(None), None, region='eu-west-1')
    assert 'amazonaws.com' in of_aws.meta.endpoint_url
    assert of_aws.meta.config.read_timeout == 60
    assert of_aws.meta.config.user_agent_extra == 'rucio-s3'
    assert 'sts.' in factory.client('sts', factory.bare_session(None), None, region='eu-west-1').meta.endpoint_url


@pytest.mark.parametrize(
    ('operation', 'bucket', 'told', 'nowhere'),
    [('GetObject', 'b', False, False), ('GetObject', '', True, True), ('HeadBucket', 'b', False, True), ('HeadBucket', 'b', True, False)],
)
def test_which_redirects_cannot_be_followed(operation, bucket, told, nowhere):
    assert factory._leads_nowhere(operation, bucket, told) is nowhere


def test_a_deadline_is_over_in_its_last_moment(monkeypatch):
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(deadlines, 'time', clock)
    with deadlines.within(10):
        assert (deadlines.seconds_left(), deadlines.is_over()) == (10, False)
        clock.now += 10
        assert (deadlines.seconds_left(), deadlines.is_over()) == (0, True)
        with deadlines.within(5):
            assert deadlines.seconds_left() == 0


def test_the_list_of_all_endpoints_is_read_where_it_matters_only(home, monkeypatch):
    without = []
    monkeypatch.setattr(factory.botocore_internals, 'few_endpoints', lambda *_: without.append(1) or nullcontext())
    version4 = Config(signature_version='s3v4')
    for service, url, config, make, expected in (
        ('s3', 'https://h', version4, lambda: factory.bare_session(None), [1]),
        ('s3', 'https://h', None, lambda: factory.bare_session(None), []),
        ('s3', None, version4, lambda: factory.bare_session(None), []),
        ('s3', 'https://h', version4, factory.user_session, []),  # which may make clients to get its keys
        ('sts', 'https://h', version4, lambda: factory.bare_session(None), []),
    ):
        without.clear()
        factory.client(service, make(), url, region='mars', config=config)
        assert without == expected
