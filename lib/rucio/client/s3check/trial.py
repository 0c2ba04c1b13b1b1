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

"""The outcome of a trial, which returns what it found or raises an :class:`Outcome`."""

from typing import TYPE_CHECKING, NamedTuple

from rucio.common.s3 import request_ids

if TYPE_CHECKING:
    from rucio.common.s3.endpoint import Endpoint

OK, HINT, SKIPPED, FAILED = 'ok', 'hint', 'skipped', 'FAILED'


class Result(NamedTuple):
    """The result of one trial, and how to fix a problem."""

    name: str
    status: str
    found: str
    remedy: str = ''


class Outcome(Exception):
    """End a trial that is not ok."""

    def __init__(self, status: str, found: str, remedy: str = '') -> None:
        super().__init__(found)
        self.status, self.found, self.remedy = status, found, remedy


def failed(found: str, remedy: str) -> Outcome:
    """Report that something that the RSE needs does not work.

    :param found: What was found.
    :param remedy: How to fix it.
    """
    return Outcome(FAILED, found, remedy)


def hint(found: str, remedy: str) -> Outcome:
    """Report that something works, but not as well or as safely as it could.

    :param found: What was found.
    :param remedy: How to improve it.
    """
    return Outcome(HINT, found, remedy)


def skipped(why: str) -> Outcome:
    """Report that something cannot be tried, or does not concern this RSE.

    :param why: The reason.
    """
    return Outcome(SKIPPED, why)


def change(setting: str, value: str) -> str:
    """Return the remedy to change a setting of the RSE.

    :param setting: The name of the setting.
    :param value: Its new value.
    """
    return f'Set {setting} = {value} in extended_attributes.'


def split(message: str) -> tuple[str, str]:
    """Split a message of rucio.common.s3 into the problem and the remedy, which is its last sentence.

    :param message: The message. Ids of a request at its end belong to the problem.
    """
    whole = message.rstrip()
    sentences = request_ids.without(whole)
    ids = whole.removeprefix(sentences)
    found, dot, remedy = sentences.rpartition('. ')
    return (f'{found}.{ids}', remedy) if dot else (message, '')


def compared(
    endpoint: 'Endpoint', setting: str, measured: bool, what: str, harm: str, gain: str = 'saves a request'
) -> str:
    """Compare what the storage does with what a setting promises.

    :param endpoint: The storage.
    :param setting: The name of a setting that is true or false.
    :param measured: Whether the storage does it.
    :param what: The feature of the storage.
    :param harm: The consequence of promising it wrongly.
    :param gain: The benefit of the setting if the storage does it.
    :raises Outcome: if they differ.
    """
    promised = getattr(endpoint, setting)
    if promised and not measured:
        raise failed(f'{what} is not supported: {harm}', change(setting, 'false'))
    if measured and not promised:
        raise hint(f'{what} is supported, but {setting} is false', f'{setting} = true in extended_attributes {gain}.')
    return f'{what} is supported' if measured else f'{what} is not supported, as {setting} = false says'
