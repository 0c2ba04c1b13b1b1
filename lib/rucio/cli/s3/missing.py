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

"""What a command could not find out: no output that lacks something looks complete."""

import sys
from typing import TYPE_CHECKING

from rucio.cli.s3 import say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rucio.common.s3 import api

__all__ = ['Missing']


class Missing:
    """What is missing from the output of a command that asks several RSEs, and why."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._reasons)

    @property
    def shown(self) -> str:
        """Everything that is missing, for a label."""
        return ', '.join(self._reasons)

    def add(self, what: str, why: object) -> None:
        """Note that something is missing; the first reason counts.

        :param what: An RSE, or a bucket on an RSE.
        :param why: The exception, or its message.
        """
        args = why.args if isinstance(why, Exception) else (why,)
        self._reasons.setdefault(what, str(args[0] if args else why).strip())

    def add_all(self, rses: 'Iterable[api.MissingRSE]') -> None:
        """Note the RSEs that the Rucio server could not ask.

        :param rses: What :meth:`S3Client.list_buckets` found missing.
        """
        for each in rses:
            self.add(each['rse'], each['why'])

    def tell(self) -> None:
        """Print to standard error what is missing, and exit with 1 if there is anything: the last step of a command."""
        for what, why in self._reasons.items():
            say(f'WARNING The output is incomplete: {what} is missing. {why}', err=True)
        if self:
            sys.exit(1)
