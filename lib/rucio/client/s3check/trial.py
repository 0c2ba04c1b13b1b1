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

"""How a trial ends: it returns what it found, or raises an :class:`Outcome`."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rucio.common.s3.endpoint import Endpoint

OK, HINT, SKIPPED, FAILED = 'ok', 'hint', 'skipped', 'FAILED'


class Result(NamedTuple):
    """What came of one trial, and what to change where it is not right."""

    name: str
    status: str
    found: str
    remedy: str = ''


class Outcome(Exception):
    """Ends a trial otherwise than well."""

    def __init__(self, status: str, found: str, remedy: str = '') -> None:
        super().__init__(found)
        self.status, self.found, self.remedy = status, found, remedy


def failed(found: str, remedy: str) -> Outcome:
    """Something that the RSE needs does not work."""
    return Outcome(FAILED, found, remedy)


def hint(found: str, remedy: str) -> Outcome:
    """It works, but not as well or as safely as it could."""
    return Outcome(HINT, found, remedy)


def skipped(why: str) -> Outcome:
    """It cannot be tried, or does not concern this RSE."""
    return Outcome(SKIPPED, why)


def change(setting: str, value: str) -> str:
    """The remedy that is a setting of the RSE."""
    return f'Set {setting} = {value} in extended_attributes.'


def split(message: str) -> tuple[str, str]:
    """Take a message of rucio.common.s3 apart into what was seen and what to do, which is its last sentence."""
    found, dot, remedy = message.rstrip().rpartition('. ')
    return (f'{found}.', remedy) if dot else (message, '')


def compared(
    endpoint: 'Endpoint', setting: str, measured: bool, what: str, harm: str, gain: str = 'saves a request'
) -> str:
    """Compare what the storage does with what a setting promises.

    :param setting: A setting that is true or false.
    :param what: What the storage is asked for.
    :param harm: What comes of it if the setting promises it in vain.
    :param gain: What the setting is good for where it holds.
    """
    promised = getattr(endpoint, setting)
    if promised and not measured:
        raise failed(f'{what} is not honoured: {harm}', change(setting, 'false'))
    if measured and not promised:
        raise hint(f'{what} is honoured, but {setting} is false', f'{setting} = true in extended_attributes {gain}.')
    return f'{what} is honoured' if measured else f'{what} is not honoured, as {setting} = false says'
