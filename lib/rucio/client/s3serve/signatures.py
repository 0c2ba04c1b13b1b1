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

"""Verify AWS Signature Version 4 of a tool's request: in headers, and in the URL. Pure but for the clock.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from hmac import compare_digest
from typing import NamedTuple, Optional

from botocore.credentials import ReadOnlyCredentials

from rucio.common.s3.sigv4 import Signer

from .asked import Asked, encoded
from .refusals import Refusal

__all__ = ['LocalKeys', 'Verified', 'verify']

SKEW = timedelta(minutes=15)
LONGEST_URL = 604800  # seconds that a signed URL is valid
_ALGORITHM = 'AWS4-HMAC-SHA256'
_TIME = '%Y%m%dT%H%M%SZ'
_HEADER = re.compile(
    _ALGORITHM + r' Credential=([!-~]{1,300}?), ?SignedHeaders=([a-z0-9;-]{1,4000}), ?Signature=([0-9a-f]{64})'
)
_SCOPE = re.compile(r'([!-.0-~]{1,200})/([0-9]{8})/([A-Za-z0-9-]{1,63})/s3/aws4_request')
_OF_URLS = tuple(
    f'X-Amz-{name}' for name in ('Algorithm', 'Credential', 'Date', 'Expires', 'SignedHeaders', 'Signature')
)
_IN_HEADERS, _IN_URL = 'AuthorizationHeaderMalformed', 'AuthorizationQueryParametersError'
_NO_BODY = hashlib.sha256(b'').hexdigest()


class LocalKeys(NamedTuple):
    """The keys of this endpoint, which are of no use anywhere else."""

    access_key: str
    secret_key: str
    session_token: str

    def __repr__(self) -> str:
        return f'<LocalKeys {self.access_key}>'

    @classmethod
    def make(cls) -> 'LocalKeys':
        """Make random keys, in the alphabet that all tools take."""
        return cls(f'RUCIO{secrets.token_hex(8).upper()}', secrets.token_hex(20), secrets.token_hex(8))


class Verified(NamedTuple):
    """What the signature of a request says about its body.

    :param payload: X-Amz-Content-SHA256.
    :param signature: The signature of the request, on which that of the first chunk depends.
    :param scope: The time and the scope of the signature, as lines of a string to sign.
    :param recomputed: Computes further signatures.
    """

    payload: str
    signature: str
    scope: str
    recomputed: Signer


class _Claim(NamedTuple):
    """A signature as the request has it."""

    access_key: str
    date: str
    region: str
    time: str
    names: tuple[str, ...]  # of the signed headers
    signature: str
    query: tuple[tuple[str, str], ...]  # that is signed
    payload: str
    token: Optional[str]
    seconds: Optional[int]  # that it is valid, in a URL


def verify(asked: Asked, keys: LocalKeys, now: Optional[datetime] = None) -> Verified:
    """Verify that a request was signed with the keys, for this host, path and query, and not long ago.

    :param asked: The request.
    :param keys: The keys of this endpoint.
    :param now: The time; None for that of the clock.
    :raises Refusal: if it was not.
    """
    claim = _claim(asked)
    _check_time(claim, now or datetime.now(timezone.utc))
    missing = {name for name in asked.headers if name.startswith('x-amz-')} - set(claim.names)
    if 'host' not in claim.names or missing or not set(claim.names) <= asked.headers.keys():
        raise Refusal('AccessDenied', 'The signature must cover the host and all headers that begin with x-amz-.')
    recomputed = Signer(ReadOnlyCredentials(keys.access_key, keys.secret_key, None), claim.region, claim.time)
    query = '&'.join(sorted(f'{encoded(name)}={encoded(value)}' for name, value in claim.query))
    url = f'http://localhost{asked.signed_path}' + (f'?{query}' if query else '')
    signed = {name: asked.headers[name] for name in claim.names}
    expected = recomputed.of_request(asked.method, url, signed, claim.payload)
    token = keys.session_token if claim.token is None else claim.token  # some tools have no place for one
    # All are compared, in the same time.
    right = [
        compare_digest(claim.access_key.encode(), keys.access_key.encode()),
        compare_digest(token.encode(), keys.session_token.encode()),
        compare_digest(claim.signature.encode(), expected.encode()),
    ]
    if not right[0]:
        raise Refusal('InvalidAccessKeyId', 'This is not an access key of this `rucio s3 serve`.')
    if not all(right):
        raise Refusal('SignatureDoesNotMatch', 'The signature is not right for this request and these keys.')
    scope = f'{claim.time}\n{claim.date}/{claim.region}/s3/aws4_request'
    return Verified(claim.payload, claim.signature, scope, recomputed)


def _check_time(claim: _Claim, now: datetime) -> None:
    in_url = claim.seconds is not None
    try:
        made = datetime.strptime(claim.time, _TIME).replace(tzinfo=timezone.utc)
    except ValueError:
        code = _IN_URL if in_url else 'AccessDenied'
        raise Refusal(code, 'The time of the signature must be YYYYMMDDTHHMMSSZ.') from None
    if not claim.time.startswith(claim.date):
        raise Refusal(_IN_URL if in_url else _IN_HEADERS, 'The date of the signature differs from its time.')
    if in_url and made - now > SKEW:
        raise Refusal('AccessDenied', 'The signed URL is not valid yet.')
    if not in_url and abs(made - now) > SKEW:
        raise Refusal('RequestTimeTooSkewed', 'The signature was not made within 15 minutes of now.')
    if claim.seconds is not None and now > made + timedelta(seconds=claim.seconds):
        raise Refusal('AccessDenied', 'The signed URL has expired.')


def _claim(asked: Asked) -> _Claim:
    named = dict(asked.signed_query)
    if 'authorization' in asked.headers:
        if not named.keys().isdisjoint(_OF_URLS):
            raise Refusal('InvalidRequest', 'There is a signature in the headers and one in the URL.')
        return _in_headers(asked)
    if not named.keys().isdisjoint(_OF_URLS):
        return _in_url(asked, named)
    raise Refusal('AccessDenied', 'The request is not signed with AWS Signature Version 4.')


def _in_headers(asked: Asked) -> _Claim:
    found = _HEADER.fullmatch(asked.headers['authorization'])
    if found is None:
        raise Refusal(_IN_HEADERS, 'The Authorization header is not one of AWS Signature Version 4.')
    payload = asked.headers.get('x-amz-content-sha256')
    if payload is None:
        raise Refusal('InvalidRequest', 'The header x-amz-content-sha256 is missing.')
    access_key, date, region = _scope(found[1], _IN_HEADERS)
    time, token = asked.headers.get('x-amz-date', ''), asked.headers.get('x-amz-security-token')
    names = tuple(found[2].split(';'))
    return _Claim(access_key, date, region, time, names, found[3], asked.signed_query, payload, token, None)


def _in_url(asked: Asked, named: Mapping[str, str]) -> _Claim:
    if missing := [name for name in _OF_URLS if not named.get(name)]:
        raise Refusal(_IN_URL, f'A signed URL needs {", ".join(missing)}.')
    if named['X-Amz-Algorithm'] != _ALGORITHM:
        raise Refusal(_IN_URL, f'X-Amz-Algorithm must be {_ALGORITHM}.')
    seconds = named['X-Amz-Expires']
    if not re.fullmatch('[0-9]{1,6}', seconds) or not 0 < int(seconds) <= LONGEST_URL:
        raise Refusal(_IN_URL, f'X-Amz-Expires must be 1 to {LONGEST_URL} seconds.')
    access_key, date, region = _scope(named['X-Amz-Credential'], _IN_URL)
    query = tuple(each for each in asked.signed_query if each[0] != 'X-Amz-Signature')
    names = tuple(named['X-Amz-SignedHeaders'].split(';'))
    payload = named.get('X-Amz-Content-Sha256') or asked.headers.get('x-amz-content-sha256') or 'UNSIGNED-PAYLOAD'
    return _Claim(
        access_key,
        date,
        region,
        named['X-Amz-Date'],
        names,
        named['X-Amz-Signature'],
        query,
        payload,
        named.get('X-Amz-Security-Token'),
        int(seconds),
    )


def _scope(text: str, code: str) -> tuple[str, str, str]:
    found = _SCOPE.fullmatch(text)
    if found is None:
        raise Refusal(code, 'The credential scope must be KEY/YYYYMMDD/REGION/s3/aws4_request.')
    return found[1], found[2], found[3]
