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

"""The endpoint on this machine, as tools get to know it: for ``rucio s3 serve`` and ``rucio s3 exec``."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Optional

from rucio.common.s3.dates import to_text
from rucio.common.s3.formats import ALIAS, Access

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio.client.s3serve.signatures import LocalKeys

__all__ = ['access_to', 'on_signals']

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The keys are of no use when the command has ended; tools that want to know get a date that they do not reach.
_FOR_EVER = timedelta(days=3650)


def access_to(url: str, keys: 'LocalKeys', write: bool, ca_bundle: Optional[str] = None) -> Access:
    """Return the keys of the endpoint for a tool.

    :param url: The endpoint.
    :param keys: The keys.
    :param write: Whether it may be written to.
    :param ca_bundle: The certificate of the endpoint, if it has one.
    """
    expiration = to_text(datetime.now(timezone.utc) + _FOR_EVER)
    return Access(
        ALIAS,
        {
            'rse': ALIAS,
            'url': url,
            'region': 'us-east-1',
            'addressing': 'path',
            'bucket': '',
            'prefix': '',
            'write': write,
            'expiration': expiration,
            'access_key': keys.access_key,
            'secret_key': keys.secret_key,
            'session_token': keys.session_token,
        },
        url,
        'us-east-1',
        'path',
        ca_bundle,
    )


@contextlib.contextmanager
def on_signals(call: 'Callable[[int], None]') -> Iterator[None]:
    """Call a function for each signal that would end the process, until the end of the block.

    :param call: Gets the number of the signal.
    """
    loop = asyncio.get_running_loop()
    for each in _SIGNALS:
        loop.add_signal_handler(each, call, each)
    try:
        yield
    finally:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
