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
"""The interface of the ways of being authorised by a storage, and of a Rucio server that takes part in some of them."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Optional, Protocol

import botocore.session

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from . import api

__all__ = ['Authorizer', 'RucioServer']


class Authorizer(ABC):
    """One way of being authorised. ``identity`` is equal for those that can share a client, and contains no secret."""

    name: ClassVar[str]
    signed: ClassVar[bool] = True  # botocore signs the requests
    whole_objects_only: ClassVar[bool] = False  # only GET, PUT and DELETE of one object: no HEAD, listing, multipart
    identity: str
    region: Optional[str] = None  # if this way knows it

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.identity}>'

    @abstractmethod
    def session(self) -> botocore.session.Session:
        """Make a botocore session whose clients are authorised. It renews credentials that expire.

        :raises botocore.exceptions.ProfileNotFound: or similar errors, if there are none.
        """

    def attach(self, client: 'S3Client') -> None:
        """Take part in the requests of a client.

        :param client: A client that was made from :meth:`session`.
        """
        return


class RucioServer(Protocol):
    """The part of a Rucio server with the S3 plugin that clients need: ``rucio.client.s3client.S3Client``.

    Implementations are thread-safe.
    """

    @property
    def identity(self) -> str:
        """Server, VO and account: equal for clients with equal access. It contains no secret."""

    def get_s3_rse(self, rse: str) -> 'api.DescribedRSE':
        """Describe how to reach an RSE. One request.

        :param rse: The name of the RSE.
        :returns: ``auth`` lists the ways that the server offers (vended, remote); ``region`` may be None.
        :raises RSEOperationNotSupported: if the server does not have the plugin.
        :raises RSENotFound: if the plugin does not serve this RSE.
        """

    def get_s3_credentials(self, rse: str, bucket: str, prefix: str, write: bool) -> 'api.Credentials':
        """Get short-lived keys for at least ``prefix``. One request.

        :param rse: The name of the RSE.
        :param bucket: The bucket.
        :param prefix: A prefix or a key.
        :param write: Whether the keys allow writing and deleting.
        :returns: bucket, prefix, write, access_key, secret_key, session_token, expiration (``YYYY-MM-DDTHH:MM:SSZ``).
        :raises AccessDenied: if the account is not allowed to do this.
        """

    def sign_s3_requests(self, rse: str, requests: 'list[api.Unsigned]') -> 'list[api.Signed]':
        """Sign requests, which the caller then sends: see :mod:`.remote`. One request.

        :param rse: The name of the RSE.
        :param requests: The requests.
        :raises AccessDenied: if the account is not allowed to do one of them.
        """
