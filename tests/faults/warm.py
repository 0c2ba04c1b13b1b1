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

"""What every command does before its first request, done once by a worker for all that it starts.

It imports what is imported only when it is used, and reads botocore's descriptions of S3, which all sessions then share. Nothing here reads
a configuration, and nothing is kept that depends on one.
"""

import functools

import boto3.s3.inject  # noqa: F401
from botocore import loaders, session

session.create_loader = functools.cache(loaders.create_loader)  # type: ignore[assignment]  # of JSON files, each of which it reads once

for service in ('s3', 'sts'):
    session.Session().create_client(service, region_name='us-east-1', aws_access_key_id='none', aws_secret_access_key='none')
