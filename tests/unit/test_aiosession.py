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

"""Sessions of aiobotocore, with a stand-in for it: tests/interop/test_python_page.py has the real one."""

import asyncio
import pickle
import sys
from types import SimpleNamespace

import botocore.session
import pytest
from botocore.credentials import Credentials, ReadOnlyCredentials

from rucio.common.s3.aiosession import renewing


@pytest.fixture
def aiobotocore(monkeypatch):
    monkeypatch.setitem(sys.modules, 'aiobotocore', SimpleNamespace())
    monkeypatch.setitem(sys.modules, 'aiobotocore.session', SimpleNamespace(AioSession=botocore.session.Session))
    monkeypatch.setitem(sys.modules, 'aiobotocore.credentials', SimpleNamespace(AioCredentials=Credentials))


@pytest.fixture
def keys():
    """Others each time."""
    made = (ReadOnlyCredentials(f'AKID{number}', 'hidden', 'hidden-token') for number in range(10))
    return SimpleNamespace(get_frozen_credentials=lambda: next(made))


def frozen(session):
    """What a client of the session signs a request with."""

    async def ask():
        return await (await session.get_credentials()).get_frozen_credentials()

    return asyncio.run(ask())


def test_each_request_has_the_keys_of_its_moment(aiobotocore, keys):
    session = renewing(keys)
    assert [frozen(session).access_key for _ in range(3)] == ['AKID0', 'AKID1', 'AKID2']
    assert 'hidden' not in repr(session)


def test_a_copy_has_the_keys_of_its_own_moment(aiobotocore, keys):
    copy = pickle.loads(pickle.dumps(renewing(keys)))
    assert [frozen(copy)[:3] for _ in range(2)] == [('AKID0', 'hidden', 'hidden-token')] * 2
    assert frozen(pickle.loads(pickle.dumps(copy))).access_key == 'AKID0'


def test_settings_of_the_user_are_for_other_storages(aiobotocore, keys, monkeypatch):
    monkeypatch.setenv('AWS_PROFILE', 'no-such-profile')
    monkeypatch.setenv('AWS_ENDPOINT_URL_S3', 'http://127.0.0.1:1')
    session = renewing(keys)
    assert session.profile is None
    assert session.get_config_variable('ignore_configured_endpoint_urls') is True


def test_without_aiobotocore_there_is_none(monkeypatch, keys):
    monkeypatch.setitem(sys.modules, 'aiobotocore.session', None)
    assert renewing(keys) is None
