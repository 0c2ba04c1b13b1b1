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

"""boto3 clients of the servers here, with nothing of the caller's own."""

import os
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.configprovider import ConstantProvider
from botocore.exceptions import BotoCoreError, ClientError


def plain_client(server: Any, service: str = 's3', **config: Any) -> Any:
    """A boto3 client that reads nobody's ~/.aws or AWS_PROFILE. The keywords are botocore.config.Config's."""
    session = botocore.session.Session()
    for variable in ('config_file', 'credentials_file'):
        session.set_config_variable(variable, os.devnull)
    session.get_component('config_store').set_config_provider('profile', ConstantProvider(None))
    usual: dict[str, Any] = {'proxies': {}, 's3': {'addressing_style': 'path'}}
    return boto3.Session(
        aws_access_key_id=server.access_key, aws_secret_access_key=server.secret_key, region_name=server.region, botocore_session=session
    ).client(service, endpoint_url=server.url, config=Config(**{**usual, **config}))


def works(client: Any) -> bool:
    """Whether it answers by now."""
    try:
        client.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True
