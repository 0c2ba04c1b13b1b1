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

"""What may carry a secret, and what must not show one."""

import logging
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from rucio.common.exception import ConfigurationError

from .errors import without_query

__all__ = ['hide_in_logs', 'is_private', 'need_private']

# At DEBUG these write whole requests and answers: session tokens, signatures, the keys that an STS gives.
_TALKATIVE = ('aiobotocore', 'boto3', 'botocore', 's3transfer', 'urllib3')
_REQUESTS = 'urllib3.connectionpool'  # method, path and status of each request


def is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent to a URL: it is https, or http to this machine itself. Looks up
    no name.
    """
    parts = urlsplit(url)
    if parts.scheme == 'https':
        return True
    host = parts.hostname or ''
    try:
        return parts.scheme == 'http' and ip_address(host).is_loopback
    except ValueError:
        return parts.scheme == 'http' and host == 'localhost'


def need_private(url: str, secret: str, remedy: str) -> None:
    """Refuse to send a secret, or to be sent one, where others could read it.

    :param url: Where to.
    :param secret: What it is, for the message.
    :param remedy: What to do, as a sentence.
    :raises ConfigurationError: if it is not private.
    """
    if not is_private(url):
        raise ConfigurationError(
            f"{secret} would go over the network unencrypted, as '{without_query(url)}' is not https. {remedy}"
        )


def hide_in_logs() -> None:
    """Keep secrets out of the logs of botocore and what it stands on, whatever their levels are, also those of single
    modules.

    Their DEBUG records are dropped, those of other clients in this process included; what urllib3 says of each request
    stays, without the query. To be called whenever a client is made, as a logger's filter does not hold for those below
    it.
    """
    for name in _TALKATIVE:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.INFO)  # costs nothing then
    for name in list(logging.root.manager.loggerDict):
        if name.partition('.')[0] in _TALKATIVE:
            logging.getLogger(name).addFilter(_harmless)


def _harmless(record: logging.LogRecord) -> bool:
    if record.levelno <= logging.DEBUG and record.name != _REQUESTS:
        return False
    message: Any = record.getMessage()
    if '?' in message:
        record.msg, record.args = without_query(message), ()
    return True
