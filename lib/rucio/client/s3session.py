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

"""How ``S3Client`` talks to the Rucio server: its HTTP session, and its login for other clients."""

from typing import TYPE_CHECKING, Any

from requests import Session  # type: ignore[import-untyped]

from rucio.common.s3 import request_ids

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    from rucio.client.baseclient import BaseClient

__all__ = ['Discreet', 'same_login']


class Discreet(Session):  # type: ignore[misc]
    """A session that follows redirects without leaking token and password.

    It sends them to no other host, and not by http if the request was sent by https. Each request has the id of this
    command: see :mod:`rucio.common.s3.request_ids`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.headers[request_ids.HEADER] = request_ids.current()

    def rebuild_auth(self, prepared_request: 'PreparedRequest', response: 'Response') -> None:
        """Remove the token from a redirected request if it must not be sent there.

        :param prepared_request: The redirected request.
        :param response: The answer with the redirect.
        """
        if self.should_strip_auth(response.request.url, prepared_request.url):
            for name in [name for name in prepared_request.headers if name.lower().startswith('x-rucio-')]:
                del prepared_request.headers[name]
        super().rebuild_auth(prepared_request, response)


def same_login(client: 'BaseClient') -> dict[str, Any]:
    """Return the arguments of another client for the same server and account. It finds the token of this one.

    :param client: The client.
    """
    return {
        'rucio_host': client.host,
        'auth_host': client.auth_host,
        'account': client.account,
        'ca_cert': client.ca_cert,
        'auth_type': client.auth_type,
        'creds': client.creds,
        'timeout': client.timeout,
        'user_agent': client.user_agent.partition('/')[0],
        'vo': client.vo,
        'logger': client.logger,
    }
