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
"""External <-> internal names, for all gateways of S3."""

from functools import lru_cache

from rucio.common.exception import InvalidObject
from rucio.common.s3 import address
from rucio.common.s3.answers import printable
from rucio.common.schema import validate_schema
from rucio.common.types import InternalAccount, InternalScope

__all__ = ['names']

MAX_CACHED = 10_000  # names


def names(issuer: str, scope: str, name: str, vo: str) -> tuple[InternalAccount, InternalScope]:
    """Validate external names, and return the account and the scope as internal ones.

    :param issuer: The account.
    :param scope: The scope.
    :param name: The name of a DID.
    :param vo: The VO of all of them.
    :raises InvalidObject: if a scope or name is invalid in Rucio.
    """
    if address.leaves_directory(name):
        raise InvalidObject(
            f"'{printable(name)}' would leave the directory into which it is downloaded: use a name without . and .. "
            'between slashes.'
        )
    for kind, value in (('scope', scope), ('name', name)):
        try:
            _validate(kind, value, vo)
        except InvalidObject as error:
            # The other lines are the schema.
            raise InvalidObject(str(error.args[0]).partition('\n')[0]) from None
    return InternalAccount(issuer, vo=vo), InternalScope(scope, vo=vo)


@lru_cache(MAX_CACHED)
def _validate(kind: str, value: str, vo: str) -> None:
    """Validate a name, once: jsonschema looks at the schema, too, which costs more than all else in a request."""
    validate_schema(name=kind, obj=value, vo=vo)
