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
"""What each way of being authorised by a storage is, and what a Rucio server does for those that it takes part in."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Optional, Protocol

import botocore.session

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from . import api

__all__ = ['Authorizer', 'RucioServer']


class Authorizer(ABC):
    """One way of being authorised. ``identity`` is the same for those that may share a client, and holds no secret."""

    name: ClassVar[str]
    signed: ClassVar[bool] = True  # botocore signs the requests
    whole_objects_only: ClassVar[bool] = False  # only GET, PUT and DELETE of one object: no HEAD, listing, multipart
    identity: str
    region: Optional[str] = None  # where this way knows it

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.identity}>'

    @abstractmethod
    def session(self) -> botocore.session.Session:
        """A botocore session whose clients are authorised; credentials that end are refreshed inside it.

        :raises botocore.exceptions.ProfileNotFound: and the like, if there are none.
        """

    def attach(self, client: 'S3Client') -> None:
        """Take part in the requests of a client made from :meth:`session`."""
        return


class RucioServer(Protocol):
    """What a Rucio server with the S3 plugin does for its clients: ``rucio.client.s3client.S3Client``. May be called by
    several threads.
    """

    @property
    def identity(self) -> str:
        """Server, VO and account: the same for those that are given the same. Holds no secret."""

    def get_s3_rse(self, rse: str) -> 'api.DescribedRSE':
        """How to reach an RSE: ``auth`` lists the ways that the server offers (vended, remote), ``region`` may be None.
        One request.

        :raises RSEOperationNotSupported: if the server does not have the plugin.
        :raises RSENotFound: if the plugin does not serve this RSE.
        """

    def get_s3_credentials(self, rse: str, bucket: str, prefix: str, write: bool) -> 'api.Credentials':
        """Short-lived keys for what covers ``prefix`` (which may be a key): bucket, prefix, write, access_key,
        secret_key, session_token, expiration (``YYYY-MM-DDTHH:MM:SSZ``). One request.

        :raises AccessDenied: if the account may not do this.
        """

    def sign_s3_requests(self, rse: str, requests: 'list[api.Unsigned]') -> 'list[api.Signed]':
        """Sign requests that somebody else sends: see :mod:`.remote`. One request.

        :raises AccessDenied: if the account may not do one of them.
        """
