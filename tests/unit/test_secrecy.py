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

"""What counts as a way on which nobody listens."""

import logging

import pytest

from rucio.common.exception import ConfigurationError
from rucio.common.s3.secrecy import hide_in_logs, is_private, need_private


@pytest.mark.parametrize(
    'url',
    [
        'https://s3.example.org',
        'https://10.0.0.1:9000/',
        'http://127.0.0.1',
        'http://127.8.9.1:9000/x?y',
        'http://[::1]:80',
        'http://localhost:1',
        'http://LOCALHOST',
    ],
)
def test_https_and_this_machine_are_private(url):
    assert is_private(url)


@pytest.mark.parametrize(
    'url',
    [
        'http://s3.example.org',
        'http://10.0.0.1',
        'http://127.0.0.1.example.org',
        'http://localhost.example.org',
        'http://127.0.0.1@example.org',
        'http://localhost:80@example.org/',
        'http://example.org#@127.0.0.1',
        'http://0.0.0.0',
        'http://127.1',  # what this means is up to the resolver
        'http://2130706433',
        'http://[::ffff:10.0.0.1]',
        'http://',
        'ftp://localhost',
        'ftp://127.0.0.1',
        'localhost',
        '',
    ],
)
def test_all_else_is_not(url):
    assert not is_private(url)


def test_the_refusal_names_the_secret_and_the_place_but_no_query():
    with pytest.raises(ConfigurationError, match=r"The token would be sent over the network unencrypted, as 'http://s' is not https\. Use https\.") as raised:
        need_private('http://s?X-Amz-Signature=1', 'The token', 'Use https.')
    assert 'Signature' not in str(raised.value)


def test_levels_that_somebody_has_set_stay():
    """What is not set is at INFO, so that records at DEBUG cost nothing."""
    set_by_user, other = logging.getLogger('s3transfer'), logging.getLogger('rucio.botocore')
    before = other.filters[:]
    set_by_user.setLevel(logging.DEBUG)
    hide_in_logs()
    assert set_by_user.level == logging.DEBUG
    assert {logging.getLogger(name).level for name in ('aiobotocore', 'boto3', 'botocore', 'urllib3')} == {logging.INFO}
    assert other.filters == before


@pytest.mark.parametrize('name', ['aiobotocore.client', 'urllib3.connectionpool', 'botocore.auth', 's3transfer.tasks', 'boto3.session'])
def test_no_log_of_a_dependency_has_a_signature(caplog, name):
    logger = logging.getLogger(name)
    hide_in_logs()
    caplog.set_level(logging.DEBUG)
    logger.setLevel(logging.DEBUG)
    try:
        logger.warning('Retrying %s', 'https://s3/b/k?X-Amz-Signature=hidden')
        logger.debug('"GET %s HTTP/1.1" 200', '/b/k?X-Amz-Signature=hidden')
        logger.debug('StringToSign: secret')
        logger.info('plain %d', 1)
    finally:
        logger.setLevel(logging.NOTSET)
    assert 'hidden' not in caplog.text
    assert name == 'urllib3.connectionpool' or 'secret' not in caplog.text
    assert 'plain 1' in caplog.text
    assert 'Retrying https://s3/b/k' in caplog.text
    assert ('"GET /b/k' in caplog.text) is (name == 'urllib3.connectionpool')
