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

"""The subject of a check: one RSE, as seen by an account from this machine."""

from typing import TYPE_CHECKING, Any, NoReturn, Optional

from rucio.common.exception import RucioException
from rucio.common.s3.address import split_prefix
from rucio.common.s3.errors import Target

from .trial import skipped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rucio.client.client import Client
    from rucio.client.s3client import S3Client
    from rucio.common.s3.clients import Connection
    from rucio.common.s3.endpoint import Endpoint
    from rucio.rse.protocols.s3 import Default

    from .scratch import Scratch


class _NotFound:
    """A result of a trial that others need: as long as it is not assigned, they are skipped."""

    def __init__(self, why: str) -> None:
        self._why = why

    def __get__(self, *_: object) -> NoReturn:
        raise skipped(self._why)


def _unless_found(why: str) -> Any:
    return _NotFound(why)


class Subject:
    """The RSE, and the results of the trials so far."""

    protocol: 'Default' = _unless_found('no protocol')
    endpoint: 'Endpoint' = _unless_found('no valid settings')
    connection: 'Connection' = _unless_found('no credentials, or only signed URLs')
    scratch: 'Scratch' = _unless_found('no bucket')
    written: 'Scratch' = _unless_found('nothing can be written')  # scratch, once it contains an object

    def __init__(self, client: 'Client', plugin: 'S3Client', rse: str, bucket: Optional[str]) -> None:
        self.client = client
        self.plugin = plugin
        self.rse = rse
        self.wanted_bucket = bucket
        self.answers: dict[str, str] = {}  # what the storage does: see rucio.common.s3.probes
        self.settings: Any = dict(client.get_rse(rse))
        self.signed_urls = False  # whether they are the only way

    @property
    def is_read_only(self) -> bool:
        """Whether the RSE is for a foreign bucket (rucio s3 rse add --read-only), to which a check must not write."""
        domains = [operations for each in self.settings['protocols'] for operations in each['domains'].values()]
        return (
            not self.settings['deterministic']
            and bool(domains)
            and not any(operations.get('write') for operations in domains)
        )

    @property
    def own(self) -> tuple[str, str]:
        """The bucket that all scopes share (empty if each has its own), and the folder in it."""
        return split_prefix(self.protocol.attributes['prefix'])

    @property
    def target(self) -> Target:
        """The bucket to try (empty if each scope has its own), and the folder of the RSE in it."""
        own, folder = self.own
        bucket = self.wanted_bucket or own
        return Target(self.rse, bucket, folder if bucket == own else '')

    @property
    def scopes(self) -> list[str]:
        """The scopes of the account. One request."""
        try:
            return sorted(self.client.list_scopes_for_account(str(self.client.account)))
        except RucioException:
            return []  # the account has none

    def described(self) -> 'Mapping[str, Any]':
        """Return the description of the RSE by the server's plugin. One request.

        :raises Outcome: if there is no plugin.
        """
        try:
            return self.plugin.get_s3_rse(self.rse)
        except RucioException:
            raise skipped('needs the S3 plugin of the server') from None

    @property
    def used(self) -> 'Optional[Scratch]':
        """The test objects, or None."""
        return vars(self).get('scratch')
