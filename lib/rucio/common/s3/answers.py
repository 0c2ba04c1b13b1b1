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

"""Validate the answers of storages, their STS and Rucio servers, which are untrusted text.

Answers are validated where they are received, before they are written to a file or passed to a tool (:func:`checked`),
and escaped before they are printed or logged (:func:`printable`). Pure functions, without requests.
"""

import logging
import re
from typing import TYPE_CHECKING, Any, Optional, cast

from rucio.common.exception import ServiceUnavailable

from .dates import from_text

if TYPE_CHECKING:
    from . import api

__all__ = [
    'LONGEST_TOKEN',
    'checked',
    'checked_keys',
    'checked_signatures',
    'counted',
    'is_valid',
    'line_logger',
    'one_line',
    'printable',
]

LONGEST_TOKEN = 16 * 1024  # characters; more than servers accept in a header
LONGEST_KEY = 1024  # bytes of an object's key

# On no storage (AWS, Ceph, MinIO, SeaweedFS) do keys and tokens contain blanks, control characters or anything beyond
# ASCII.
_PATTERNS = {
    'access_key': re.compile('[!-~]{1,256}'),
    'secret_key': re.compile('[!-~]{1,1024}'),
    'session_token': re.compile(f'[!-~]{{1,{LONGEST_TOKEN}}}'),
    'expiration': re.compile(r'[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z'),
    'region': re.compile('([A-Za-z0-9][A-Za-z0-9._-]{0,62})?'),
    'bucket': re.compile('[A-Za-z0-9._-]{1,255}'),  # as in botocore
    'rse': re.compile('[A-Za-z0-9._-]{1,255}'),
    'url': re.compile('https?://[!-~]{1,1024}'),
    'signed_url': re.compile('[!-~]{1,16384}'),
}


_LINE = re.compile('[ -~]{0,65536}')  # the server signs empty values of headers that change what storages do


def printable(text: str, longest: Optional[int] = None) -> str:
    """Escape text for one line of a terminal or a log.

    Control characters, line separators and marks that change the direction of writing are escaped as in Python.

    :param text: The text.
    :param longest: The maximal length in characters; the rest is cut off.
    """
    if longest is not None and len(text) > longest:
        text = f'{text[:longest]}...'
    return (
        text
        if text.isprintable()
        else ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)
    )


def counted(number: int, noun: str) -> str:
    """Return a number of things in words: ``1 file``, ``2 files``.

    :param number: The number.
    :param noun: What is counted, in the singular. Its plural ends in ``s``.
    """
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def one_line(record: logging.LogRecord) -> bool:
    """Filter for loggers and handlers: escape line feeds, so that keys and names cannot add lines to a log.

    :param record: The record, which is changed.
    :returns: True.
    """
    message = record.getMessage()
    if not message.isprintable():
        record.msg, record.args = printable(message), ()
    return True


def line_logger(name: str) -> logging.Logger:
    """Return the logger with this name, which writes each record (but for tracebacks) as one line.

    :param name: The name.
    """
    logger = logging.getLogger(name)
    logger.addFilter(one_line)
    return logger


def is_valid(name: str, value: Any) -> bool:
    """Return whether one value of an answer is valid.

    :param name: As for :func:`checked`.
    :param value: The value.
    """
    found = isinstance(value, str) and _PATTERNS[name].fullmatch(value) is not None
    return found and (name != 'expiration' or _is_time(value))


def checked(who: str, name: str, value: Any) -> str:
    """Validate one value of an answer by its name.

    :param who: The sender, as shown in the message.
    :param name: access_key, secret_key, session_token, expiration, region, bucket, rse, url or signed_url.
    :param value: The value.
    :returns: The value.
    :raises ServiceUnavailable: if it is invalid. The message does not contain the value, which may be a secret.
    """
    if is_valid(name, value):
        return str(value)
    raise ServiceUnavailable(
        f'{who} returned an invalid {name}: {_flaw(name, value)}. The answer was not used: tell the operator.'
    )


def checked_keys(who: str, answer: Any) -> 'api.Credentials':
    """Validate the keys that a Rucio server vends, and what they are for.

    :param who: The sender, as shown in the message.
    :param answer: rse, bucket, prefix, write, access_key, secret_key, session_token, expiration and region; other
        fields are not changed.
    :returns: The answer.
    :raises ServiceUnavailable: if one of them is missing or invalid.
    """
    if not isinstance(answer, dict):
        raise ServiceUnavailable(f'{who} returned {type(answer).__name__} instead of keys: tell the operator.')
    for name in ('rse', 'bucket', 'access_key', 'secret_key', 'session_token', 'expiration'):
        checked(who, name, answer.get(name))
    checked(who, 'region', answer.get('region') or '')
    prefix = answer.get('prefix')
    if (
        not isinstance(prefix, str)
        or len(prefix.encode(errors='replace')) > LONGEST_KEY
        or not isinstance(answer.get('write'), bool)
    ):
        raise ServiceUnavailable(
            f'{who} returned keys without saying what they are for. They were not used: tell the operator.'
        )
    return cast('api.Credentials', answer)


def checked_signatures(who: str, answer: Any) -> 'list[api.Signed]':
    """Validate the signatures of a Rucio server: uri and headers (name -> list of values) of each request.

    :param who: The sender, as shown in the message.
    :param answer: The answer.
    :returns: The answer.
    :raises ServiceUnavailable: if it is anything else, or a header has more than one line.
    """
    try:
        found = list(answer['responses'])
        for each in found:
            lines = [each['uri'], *each['headers'], *(value for values in each['headers'].values() for value in values)]
            if not all(isinstance(values, list) and values for values in each['headers'].values()) or not all(
                _LINE.fullmatch(line) for line in lines
            ):
                raise ValueError  # noqa: TRY301 - handled below, with the others
    except (TypeError, KeyError, ValueError, AttributeError):
        raise ServiceUnavailable(f'{who} returned invalid signatures. They were not used: tell the operator.') from None
    return found


def _is_time(value: str) -> bool:
    try:
        from_text(value)
    except ValueError:
        return False
    return True


def _flaw(name: str, value: Any) -> str:
    if not isinstance(value, str):
        return 'it is missing' if value is None else f'it is not text, but {type(value).__name__}'
    if not value:
        return 'it is empty'
    strange = next((each for each in value if not '!' <= each <= '~'), None)
    if strange is not None:
        return f'it contains the character U+{ord(strange):04X}'
    return f'it has {len(value)} characters' if name == 'session_token' else 'it has the wrong format'
