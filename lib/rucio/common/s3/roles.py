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

"""The roles of the Security Token Service of the Rucio server: an ARN names an RSE and a DID.

``arn:aws:iam::rucio:role/SITE_S3/user.alice:run7`` is for a collection, ``.../user.alice`` for the whole bucket of a
scope; with ``role/read-only/`` the keys can neither write nor delete. Pure functions, without requests.
"""

import re
from typing import NamedTuple

from rucio.common.exception import InputValidationError

__all__ = ['STS_PATH', 'Role']

STS_PATH = '/sts'  # below /s3 of the Rucio server

# botocore wants at least 20 characters; tools that check more, such as Terraform, want 12 digits for the account.
_ARN = re.compile('arn:aws:iam::(?:rucio|[0-9]{12}):role/(read-only/)?([^/:]+)/([^/:]+)(?::(.+))?')


class Role(NamedTuple):
    """What the keys are for: a collection, or the whole bucket of a scope if ``name`` is empty."""

    rse: str
    scope: str
    name: str = ''
    read_only: bool = False

    @property
    def arn(self) -> str:
        """The ARN, for AWS_ROLE_ARN and the like."""
        kind = 'role/read-only' if self.read_only else 'role'
        return f'arn:aws:iam::rucio:{kind}/{self.rse}/{self.scope}' + (f':{self.name}' if self.name else '')

    @classmethod
    def parse(cls, arn: str) -> 'Role':
        """Return the role of an ARN.

        :param arn: The ARN.
        :raises InputValidationError: if it is not of this form.
        """
        found = _ARN.fullmatch(arn)
        if found is None:
            raise InputValidationError(
                f"The RoleArn '{arn[:300]}' names no RSE and DID. Expected arn:aws:iam::rucio:role/RSE/SCOPE:NAME: "
                '`rucio s3 url SCOPE:NAME --for role` prints it.'
            )
        return cls(found[2], found[3], found[4] or '', bool(found[1]))
