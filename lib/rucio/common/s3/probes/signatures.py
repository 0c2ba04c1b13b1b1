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

"""Behaviours: what a storage obeys although it is not signed, which decides about the guards of signatures."""

from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from .behaviour import behaviour, said
from .place import ProbeBucket

_ELSEWHERE = 'elsewhere.example.org'


@behaviour(
    'Who may',
    '`x-amz-copy-source` added to a signed PUT',
    '`signature_guards`: where it is heeded the server signs against it',
    needs=['signed'],
)
def guard_copy(place: ProbeBucket) -> str:
    secret, key = place.put(b'top secret'), place.key()
    with place.unsigned('PutObject', {'x-amz-copy-source': f'/{place.bucket}/{secret}'}):
        try:
            answer = said(lambda: place.put(b'', key))
        except BotoCoreError:  # the answer to a copy is another one
            answer = 'yes'
    if answer != 'yes':
        return answer
    return 'heeded' if place.get(key) == b'top secret' else 'ignored'


@behaviour('Who may', '`x-amz-acl: public-read` added to a signed PUT', 'as above', needs=['signed'])
def guard_acl(place: ProbeBucket) -> str:
    key = place.key()
    with place.unsigned('PutObject', {'x-amz-acl': 'public-read'}):
        answer = said(lambda: place.put(b'', key))
    if answer != 'yes':
        return answer
    public = said(lambda: place.anonymous().get_object(Bucket=place.bucket, Key=key)) == 'yes'
    return 'heeded' if public else 'ignored'


@behaviour(
    'Who may', '`x-amz-tagging` added to a signed PUT', 'as above, and so for `x-amz-storage-class`', needs=['signed']
)
def guard_attributes(place: ProbeBucket) -> str:
    key = place.key()
    with place.unsigned('PutObject', {'x-amz-tagging': 'a=b'}):
        answer = said(lambda: place.put(b'', key))
    if answer != 'yes':
        return answer
    return 'heeded' if place.s3.get_object_tagging(Bucket=place.bucket, Key=key)['TagSet'] else 'ignored'


@behaviour(
    'Who may',
    '`x-amz-object-lock-legal-hold` added to a signed PUT',
    '`signature_guards`: where it is heeded the server signs no PutObject for buckets with object lock',
    needs=['signed', 'own'],
)
def guard_lock(place: ProbeBucket) -> str:
    bucket, key = place.new_bucket(ObjectLockEnabledForBucket=True), place.key()
    with place.unsigned('PutObject', {'x-amz-object-lock-legal-hold': 'ON'}):
        answer = said(lambda: place.put(b'', key, Bucket=bucket))
    if answer != 'yes':
        return answer
    try:
        hold = place.s3.get_object_legal_hold(Bucket=bucket, Key=key)['LegalHold'].get('Status') == 'ON'
        place.s3.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold={'Status': 'OFF'})
    except ClientError:
        return 'ignored'
    return 'heeded' if hold else 'ignored'


@behaviour('Who may', '`X-Forwarded-Prefix` added to a signed GET of another path', 'as above', needs=['signed', 'own'])
def guard_prefix(place: ProbeBucket) -> str:
    other, secret = place.new_bucket(), place.put(b'top secret')

    def change(request: Any) -> None:
        request.url = request.url.replace(f'/{other}/', '/', 1)
        request.headers['X-Forwarded-Prefix'] = f'/{other}'

    with place.after_signing('GetObject', change):
        try:
            return 'heeded' if place.get(f'{place.bucket}/{secret}', Bucket=other) == b'top secret' else '200'
        except ClientError:
            return 'ignored'


@behaviour(
    'Who may', '`X-Forwarded-Host` added to a request that is signed for that host', 'as above', needs=['signed']
)
def guard_host(place: ProbeBucket) -> str:
    key = place.put(b'top secret')
    if _for_another_host(place, key, {}) == 'yes':
        return 'host not verified'
    return 'heeded' if _for_another_host(place, key, {'X-Forwarded-Host': _ELSEWHERE}) == 'yes' else 'ignored'


def _for_another_host(place: ProbeBucket, key: str, unsigned: dict[str, str]) -> str:
    here = urlsplit(place.s3.meta.endpoint_url).netloc

    def sign_for_it(request: Any) -> None:
        request.url = request.url.replace(f'://{here}/', f'://{_ELSEWHERE}/', 1)

    def send_here(request: Any) -> None:
        request.url = request.url.replace(f'://{_ELSEWHERE}/', f'://{here}/', 1)
        for name, value in {'Host': here, **unsigned}.items():
            request.headers[name] = value

    with place.before_signing('GetObject', sign_for_it), place.after_signing('GetObject', send_here):
        return said(lambda: place.get(key))
