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

"""What the behaviours of a storage mean for the settings of an RSE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.s3.settings import CONDITIONS, GUARDS

if TYPE_CHECKING:
    from rucio.common.s3.endpoint import Endpoint

__all__ = ['Difference', 'differences', 'earned']

_REFUSED = ('400', '412')
_NOT_IMPLEMENTED = ('304', '400', '405', '412', '501')  # for an object that is new


@dataclass(frozen=True)
class Difference:
    """A setting that does not say what the storage does.

    :param setting: The name of the setting.
    :param promised: Its value.
    :param measured: The value that the storage earns.
    :param tightens: Whether the change only gives up what the storage does not do, and makes nothing less safe.
    """

    setting: str
    promised: Any
    measured: Any
    tightens: bool


def earned(answers: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that a storage earns by what it does. A setting that was not measured is left out.

    :param answers: The name of a behaviour -> the answer, see :func:`rucio.common.s3.probes.measure`.
    """
    found = {
        'conditional_put': _all(answers, put_if_none_match=('412',), put_race=('one wins',)),
        'conditional_multipart': _all(answers, complete_if_none_match=('412',)),
        'full_object_checksum': _all(answers, full_object=('yes',)),
        'lifecycle': _all(answers, lifecycle=('yes',)),
        'etag_is_md5': _all(answers, etag_is_md5=('yes',), etag_of_a_copy=('yes',)),
        'sorted_listing': _all(answers, sorted_listing=('yes',), sorted_unicode=('yes',), start_after=('yes',)),
        'verifies_body': _all(answers, other_body=(*_REFUSED, '403 SignatureDoesNotMatch')),
        'if_none_match': _conditions(answers),
        'checksum': _checksum(answers),
        'signature_guards': _guards(answers),
    }
    return {name: value for name, value in found.items() if value is not None}


def _answer(answers: Mapping[str, str], name: str) -> Optional[str]:
    """Return an answer, or None if it tells nothing: not measured, not allowed, or the storage is down."""
    answer = answers.get(name)
    if answer is None or answer.startswith(('not allowed', 'breaks off', '401', '429', '500', '503')):
        return None
    return None if answer.startswith('403') and answer != '403 SignatureDoesNotMatch' else answer


def _all(answers: Mapping[str, str], **good: tuple[str, ...]) -> Optional[bool]:
    """Return True if all answers are good, False if one is bad, else None."""
    seen = {name: _answer(answers, name) for name in good}
    if any(answer is not None and not answer.startswith(good[name]) for name, answer in seen.items()):
        return False
    return None if None in seen.values() else True


def _conditions(answers: Mapping[str, str]) -> Optional[tuple[str, ...]]:
    seen = {
        'put': _answer(answers, 'put_new'),
        'multipart': _answer(answers, 'complete_new'),
        'copy': _answer(answers, 'copy_new'),
    }
    if None in seen.values():
        return None
    return tuple(name for name in CONDITIONS if not str(seen[name]).startswith(_NOT_IMPLEMENTED))


def _checksum(answers: Mapping[str, str]) -> Optional[str]:
    """Return the strongest checksum that is verified for objects and for parts."""
    by_crc32 = _all(answers, wrong_crc32=_REFUSED, wrong_crc32_of_a_part=_REFUSED, crc32_as_sent=('yes',))
    by_md5 = _all(answers, wrong_md5=_REFUSED, wrong_md5_of_a_part=_REFUSED)
    if by_crc32:
        return 'crc32'
    if by_md5:
        return 'md5' if by_crc32 is False else None
    return 'none' if (by_crc32, by_md5) == (False, False) else None


def _guards(answers: Mapping[str, str]) -> Optional[tuple[str, ...]]:
    """Return the guards that are needed, if all of them were measured: what is refused or ignored needs none."""
    seen = {name: answers.get(f'guard_{name}') for name in GUARDS}
    if None in seen.values():
        return None
    return tuple(name for name in GUARDS if not str(seen[name]).startswith(('4', '5', 'ignored')))


def differences(endpoint: 'Endpoint', answers: Mapping[str, str]) -> list[Difference]:
    """Compare the settings of an RSE with what its storage does.

    :param endpoint: The settings.
    :param answers: The name of a behaviour -> the answer.
    """
    found = []
    for name, measured in earned(answers).items():
        promised = getattr(endpoint, name)
        if name in ('if_none_match', 'signature_guards'):
            more, less = set(measured) - set(promised), set(promised) - set(measured)
            if more:
                found.append(Difference(name, promised, (*promised, *sorted(more)), tightens=True))
            elif less and name == 'if_none_match':  # more guards than are needed do no harm
                found.append(Difference(name, promised, measured, tightens=False))
        elif promised != measured:
            tightens = measured != 'none' if name == 'checksum' else not measured
            found.append(Difference(name, promised, measured, tightens))
    return found
