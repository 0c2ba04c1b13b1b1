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

"""What an attacker has who was vended keys, and what he does with them beside what they are for."""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.handlers import add_expect_header
from botocore.httpsession import URLLib3Session

from rucio.core.s3.auth import vending
from servers.boto import plain_client
from servers.built import MinIO
from servers.ceph import CephRGW
from servers.seaweedfs import SeaweedFS

Storage = SeaweedFS | CephRGW | MinIO
Answer = tuple[int, str]  # status and body


class Keys:
    """Keys as the server vends them: for ``prefix`` of a bucket, of a role.

    :param storage: The storage; its own keys are those of the Rucio server.
    :param role: The role that the server assumes.
    """

    def __init__(self, storage: Storage, bucket: str, prefix: str, write: bool = False, role: str = '') -> None:
        self.storage, self.role = storage, role or storage.role_arn
        policy = vending.session_policy('X', bucket, prefix, write)
        answer = storage.client('sts').assume_role(RoleArn=self.role, RoleSessionName='rucio-mallory', Policy=policy, DurationSeconds=900)
        self.credentials = Credentials(*(answer['Credentials'][name] for name in ('AccessKeyId', 'SecretAccessKey', 'SessionToken')))
        self.s3 = client(storage, self.credentials, 's3')

    @cached_property
    def sts(self) -> Any:
        """A client of the STS with these keys."""
        return client(self.storage, self.credentials, 'sts')

    def take(self, role: str, seconds: int = 43200) -> Any:
        """An S3 client of a role that these keys assume without a policy."""
        got = self.sts.assume_role(RoleArn=role, RoleSessionName='mallory', DurationSeconds=seconds)['Credentials']
        return client(self.storage, Credentials(got['AccessKeyId'], got['SecretAccessKey'], got['SessionToken']), 's3')

    def ask(self, service: str, **parameters: str) -> Answer:
        """A call of STS or IAM that boto3 may not make."""
        return self.send('POST', '/', urlencode({'Version': '2011-06-15', **parameters}), service, {'Content-Type': 'application/x-www-form-urlencoded'})

    def send(self, method: str, path: str, body: str = '', service: str = 's3', headers: dict[str, str] | None = None) -> Answer:
        """Any request, signed with these keys unless it says itself who is asking."""
        request = AWSRequest(method, self.storage.url + path, headers=headers or {}, data=body)
        if 'Authorization' not in request.headers:
            SigV4Auth(self.credentials, service, self.storage.region).add_auth(request)
        answer = URLLib3Session(timeout=60).send(request.prepare())
        return answer.status_code, answer.text


def client(storage: Storage, credentials: Credentials, service: str) -> Any:
    """A boto3 client with keys and nothing else of ours."""
    keys = {'access_key': credentials.access_key, 'secret_key': credentials.secret_key, 'session_token': credentials.token}
    where = {'url': storage.url, 'region': storage.region, 'ca_bundle': storage.ca_bundle}
    # Ceph answers aws-chunked bodies with 411.
    made = plain_client(SimpleNamespace(**keys, **where), service, request_checksum_calculation='when_required', retries={'total_max_attempts': 1})
    if service == 's3':  # it takes an answer that comes before the body for that to the next request
        made.meta.events.unregister('before-call.s3', add_expect_header)
    return made


def got(operation: Callable[..., Any], **parameters: Any) -> bool:
    """Whether a request was granted. What is wrong in itself does not count as refused."""
    refusals = (400, 403, 404, 405, 501)
    try:
        answer = operation(**parameters)
    except ClientError as error:
        if error.response['ResponseMetadata']['HTTPStatusCode'] not in refusals:
            raise
        return False
    return not answer.get('Errors')  # of DeleteObjects


def filled(storage: Storage, bucket: str) -> str:
    """A bucket with a folder that is shared, and what is not."""
    s3 = storage.client()
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=bucket)
    for key in ('shared/file', 'shared2/file', 'private/secret'):
        s3.put_object(Bucket=bucket, Key=key, Body=f'{bucket} {key}'.encode())
    return bucket


def public(bucket: str) -> str:
    """A policy that lets anybody do anything."""
    every = {'Effect': 'Allow', 'Principal': '*', 'Action': ['s3:*'], 'Resource': [f'arn:aws:s3:::{bucket}', f'arn:aws:s3:::{bucket}/*']}
    return json.dumps({'Version': '2012-10-17', 'Statement': [every]}, separators=(',', ':'))
