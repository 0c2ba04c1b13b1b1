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

"""Sessions of aiobotocore, with which s3fs uses keys that renew themselves. aiobotocore comes with s3fs."""

import asyncio
from typing import TYPE_CHECKING, Any, Optional

from botocore.credentials import Credentials

from .botocore_internals import no_variables

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

__all__ = ['renewing']


def renewing(keys: Credentials) -> Optional[Any]:
    """Return a session with these keys, which reads no AWS settings of the user; None if aiobotocore is not installed.

    A copy in another process (dask, multiprocessing) has the keys of the moment when it was made, and does not renew
    them.

    :param keys: Keys that may renew themselves. That is done in a thread, as it would block s3fs.
    """
    try:
        from aiobotocore.credentials import AioCredentials  # type: ignore[import-not-found] # noqa: PLC0415 - optional
        from aiobotocore.session import AioSession  # type: ignore[import-not-found] # noqa: PLC0415
    except ImportError:
        return None

    class Renewing(AioCredentials):  # type: ignore[misc]
        async def get_frozen_credentials(self) -> 'ReadOnlyCredentials':
            return await asyncio.to_thread(keys.get_frozen_credentials)

    class Session(AioSession):  # type: ignore[misc]
        async def get_credentials(self) -> Any:
            return Renewing('', '')

        def __reduce__(self) -> Any:
            return _copy, tuple(keys.get_frozen_credentials())[:3]

    session = Session(session_vars=no_variables())
    session.set_config_variable('ignore_configured_endpoint_urls', True)  # AWS_ENDPOINT_URL
    return session


def _copy(access_key: str, secret_key: str, token: Optional[str]) -> Any:
    return renewing(Credentials(access_key, secret_key, token))
