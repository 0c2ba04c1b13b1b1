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

"""Which pages may use a bucket in browsers (CORS): those of the origins that the operator names.

CORS gives nobody access: it lets pages use the keys or signed URLs that they have.
"""

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from rucio.common.s3.endpoint import SERVER_WORK
from rucio.common.s3.errors import Target, translated

if TYPE_CHECKING:
    from rucio.core.s3.storages import Storage

__all__ = ['RULE_ID', 'allow_origins']

RULE_ID = 'rucio-s3-origins'
METHODS = ('GET', 'HEAD', 'PUT', 'POST', 'DELETE')
EXPOSED = ('ETag', 'Content-Range', 'Accept-Ranges')  # parts of an upload need the ETag
MAX_AGE = 3600  # seconds that browsers keep the answer


def allow_origins(storage: 'Storage', bucket: str) -> bool:
    """Let browsers use a bucket in pages of the setting ``cors_origins``. Rules with another id are kept.

    No request without the setting, or in a bucket that is common to all scopes; else one, or two if something is new.

    :param storage: The RSE.
    :param bucket: The bucket.
    :returns: Whether the bucket's rule is new, or was changed.
    :raises RSEAccessDenied, RSEOperationNotSupported: if the storage refuses.
    :raises ServiceUnavailable: if it does not answer.
    """
    origins = storage.endpoint.cors_origins
    if not origins or storage.layout.common_bucket:
        return False
    with translated('cors', Target(storage.rse, bucket)):
        client: Any = storage.connection(SERVER_WORK).client
        rules = _rules(client, bucket)
        if any(_allows(rule, origins) for rule in rules if rule.get('ID') == RULE_ID):
            return False
        ours: dict[str, Any] = {
            'ID': RULE_ID,
            'AllowedOrigins': list(origins),
            'AllowedMethods': list(METHODS),
            'AllowedHeaders': ['*'],
            'ExposeHeaders': list(EXPOSED),
            'MaxAgeSeconds': MAX_AGE,
        }
        kept = [rule for rule in rules if rule.get('ID') != RULE_ID]
        client.put_bucket_cors(Bucket=bucket, CORSConfiguration={'CORSRules': [*kept, ours]})
    return True


def _rules(client: Any, bucket: str) -> list[dict[str, Any]]:
    try:
        return list(client.get_bucket_cors(Bucket=bucket).get('CORSRules', []))
    except ClientError as error:
        if error.response.get('Error', {}).get('Code') != 'NoSuchCORSConfiguration':
            raise
        return []


def _allows(rule: dict[str, Any], origins: tuple[str, ...]) -> bool:
    """Return whether a rule is as it should be: Ceph returns its parts in another order."""
    return set(rule.get('AllowedOrigins', ())) == set(origins) and set(rule.get('AllowedMethods', ())) == set(METHODS)
