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

"""What storages, their STS and Rucio servers answer is somebody else's text.

It is checked where it comes in, before anybody writes it to a file or hands it to a tool (:func:`checked`), and made
harmless before a terminal or a log gets it (:func:`printable`). Pure functions: no request.
"""

import logging
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Optional, cast

from rucio.common.exception import ServiceUnavailable

if TYPE_CHECKING:
    from . import api

__all__ = ['LONGEST_TOKEN', 'checked', 'checked_keys', 'checked_signatures', 'line_logger', 'one_line', 'printable']

LONGEST_TOKEN = 16 * 1024  # characters; more than servers take in a header
LONGEST_KEY = 1024  # bytes of an object's key
_TIME = '%Y-%m-%dT%H:%M:%SZ'

# Keys and tokens have no blank, no control character and nothing beyond ASCII on any storage: see AWS's, Ceph's,
# MinIO's and SeaweedFS's.
_PATTERNS = {
    'access_key': re.compile('[!-~]{1,256}'),
    'secret_key': re.compile('[!-~]{1,1024}'),
    'session_token': re.compile(f'[!-~]{{1,{LONGEST_TOKEN}}}'),
    'expiration': re.compile(r'[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z'),
    'region': re.compile('([A-Za-z0-9][A-Za-z0-9._-]{0,62})?'),
    'bucket': re.compile('[A-Za-z0-9._-]{1,255}'),  # as botocore has it
    'rse': re.compile('[A-Za-z0-9._-]{1,255}'),
    'url': re.compile('https?://[!-~]{1,1024}'),
    'signed_url': re.compile('[!-~]{1,16384}'),
}


_LINE = re.compile('[ -~]{0,65536}')  # the server signs empty values of headers that storages heed


def printable(text: str, longest: Optional[int] = None) -> str:
    """Text that is safe in a line of a terminal or a log: control characters, line separators and marks that change the
    direction of writing are written as Python escapes them.

    :param longest: Characters; more are cut off.
    """
    if longest is not None and len(text) > longest:
        text = f'{text[:longest]}...'
    return (
        text
        if text.isprintable()
        else ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)
    )


def one_line(record: logging.LogRecord) -> bool:
    """A filter for loggers and handlers: a key or a name with a line feed in it makes no line of its own in a log."""
    message = record.getMessage()
    if not message.isprintable():
        record.msg, record.args = printable(message), ()
    return True


def line_logger(name: str) -> logging.Logger:
    """The logger of this name; each of its records is one line, but for tracebacks."""
    logger = logging.getLogger(name)
    logger.addFilter(one_line)
    return logger


def checked(who: str, name: str, value: Any) -> str:
    """One value of an answer, if it can be what its name says.

    :param who: Who answered, as the message names it.
    :param name: access_key, secret_key, session_token, expiration, region, bucket, rse, url or signed_url.
    :raises ServiceUnavailable: if it cannot. The message does not show the value, which may be a secret.
    """
    if isinstance(value, str) and _PATTERNS[name].fullmatch(value) and (name != 'expiration' or _is_time(value)):
        return value
    raise ServiceUnavailable(
        f'{who} answered with a value of {name} that cannot be one: {_flaw(name, value)}. '
        'Nothing of the answer was used: tell the operator.'
    )


def checked_keys(who: str, answer: Any) -> 'api.Credentials':
    """Keys that a Rucio server vends, with what they are for.

    :param who: Who answered, as the message names it.
    :param answer: rse, bucket, prefix, write, access_key, secret_key, session_token, expiration and region; others are
        left as they are.
    :raises ServiceUnavailable: if one of them is missing or cannot be what it is called.
    """
    if not isinstance(answer, dict):
        raise ServiceUnavailable(f'{who} answered with no keys, but with {type(answer).__name__}: tell the operator.')
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
            f'{who} answered with keys, but does not say what they are for. They were not used: tell the operator.'
        )
    return cast('api.Credentials', answer)


def checked_signatures(who: str, answer: Any) -> 'list[api.Signed]':
    """What a Rucio server says that it signed: uri and headers (name -> list of values) of each request.

    :param who: Who answered, as the message names it.
    :raises ServiceUnavailable: if it is anything else, or a header would be more than one line.
    """
    try:
        found = list(answer['responses'])
        for each in found:
            lines = [each['uri'], *each['headers'], *(value for values in each['headers'].values() for value in values)]
            if not all(isinstance(values, list) and values for values in each['headers'].values()) or not all(
                _LINE.fullmatch(line) for line in lines
            ):
                raise ValueError  # noqa: TRY301 - one place answers
    except (TypeError, KeyError, ValueError, AttributeError):
        raise ServiceUnavailable(
            f'{who} answered with signatures that cannot be ones. They were not used: tell the operator.'
        ) from None
    return found


def _is_time(value: str) -> bool:
    try:
        datetime.strptime(value, _TIME)  # noqa: DTZ007 - only whether it is one
    except ValueError:
        return False
    return True


def _flaw(name: str, value: Any) -> str:
    if not isinstance(value, str):
        return 'it is missing' if value is None else f'it is no text, but {type(value).__name__}'
    if not value:
        return 'it is empty'
    strange = next((each for each in value if not '!' <= each <= '~'), None)
    if strange is not None:
        return f'it has the character U+{ord(strange):04X}'
    return f'it has {len(value)} characters' if name == 'session_token' else 'it has another form'
