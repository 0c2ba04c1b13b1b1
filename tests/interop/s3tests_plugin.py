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

"""A plugin of pytest for Ceph's s3-tests: their buckets are there already, and stay.

The environment has BUCKETS, their names, and TOKEN, a session token for all clients.
"""

import os
from typing import Any

import boto3
import s3tests.functional as suite
from botocore.client import BaseClient

_left = iter(os.environ['BUCKETS'].split())
_used = set()


def _next_bucket() -> str:
    name = next(_left)
    _used.add(name)
    return name


def _but_for_buckets(call: Any) -> Any:
    def made(self: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        if operation in ('CreateBucket', 'DeleteBucket') and parameters.get('Bucket') in _used:
            return {'ResponseMetadata': {'HTTPStatusCode': 200 if operation == 'CreateBucket' else 204}}
        return call(self, operation, parameters)

    return made


def _with_token(make: Any) -> Any:
    def made(*arguments: Any, **options: Any) -> Any:
        return make(*arguments, **options, **({'aws_session_token': os.environ['TOKEN'] or None} if options.get('aws_access_key_id') else {}))

    return made


suite.setup = suite.teardown = lambda: None
suite.get_new_bucket_name = _next_bucket
BaseClient._make_api_call = _but_for_buckets(BaseClient._make_api_call)
boto3.client, boto3.resource = _with_token(boto3.client), _with_token(boto3.resource)
