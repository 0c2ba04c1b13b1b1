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

"""Keep secrets on private connections, and out of logs."""

import logging
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from rucio.common.exception import ConfigurationError

from .errors import without_query

__all__ = ['hide_in_logs', 'is_private', 'need_private']

# At DEBUG these log whole requests and answers: session tokens, signatures, keys from an STS.
_TALKATIVE = ('aiobotocore', 'boto3', 'botocore', 's3transfer', 'urllib3')
_REQUESTS = 'urllib3.connectionpool'  # method, path and status of each request


def is_private(url: str) -> bool:
    """Return whether a URL is private: https, or http to this machine. No name is resolved.

    :param url: The URL.
    """
    parts = urlsplit(url)
    if parts.scheme != 'http':
        return parts.scheme == 'https'
    host = parts.hostname or ''
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def need_private(url: str, secret: str, remedy: str) -> None:
    """Refuse to send or receive a secret where others could read it.

    :param url: The URL that it is sent to or received from.
    :param secret: The secret, for the message.
    :param remedy: The remedy, as a sentence.
    :raises ConfigurationError: if the URL is not private.
    """
    if not is_private(url):
        raise ConfigurationError(
            f"{secret} would be sent over the network unencrypted, as '{without_query(url)}' is not https. {remedy}"
        )


def hide_in_logs() -> None:
    """Keep secrets out of the logs of botocore and its dependencies, at all levels and for all of their modules.

    DEBUG records are dropped, including those of other clients in this process; urllib3's record of each request is
    kept without the query. Call it for each new client, as the filter of a logger does not apply to its children.
    """
    for name in _TALKATIVE:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.INFO)  # then DEBUG records cost nothing
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
