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

"""How the commands for many files report what failed."""

from typing import TYPE_CHECKING

from rucio.cli.s3 import say

if TYPE_CHECKING:
    from rucio.client.s3files.tally import Outcome

__all__ = ['report_problems']

_SHOWN = 50  # failures; more would drive the summary off the screen


def report_problems(outcome: 'Outcome') -> None:
    """Print the warnings and failures of a command on standard error.

    :param outcome: The outcome.
    """
    for path, reason in outcome.warnings[:_SHOWN]:
        say(f'WARNING {path} {reason}. It was left out.', err=True)
    for path, reason in outcome.failures[:_SHOWN]:
        say(f'ERROR {path} {reason.rstrip(".")}.', err=True)
    for kind, told in (('warnings', outcome.warnings), ('failures', outcome.failures)):
        if len(told) > _SHOWN:
            say(f'... and {len(told) - _SHOWN} more {kind}.', err=True)
