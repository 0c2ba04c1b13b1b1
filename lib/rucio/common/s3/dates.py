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

"""Dates as text: UTC with a ``Z``, as storages, the Rucio server and its clients exchange them."""

import re
from datetime import datetime

__all__ = ['end_from_text', 'from_text', 'to_text']

# datetime.fromisoformat accepts more: other fractions from Python 3.11 on, weeks, and no separators.
_UTC = re.compile(r'[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.(?:[0-9]{3}|[0-9]{6}))?Z')


def from_text(text: str) -> datetime:
    """Parse a date such as ``2026-01-31T12:00:00Z``, also with three or six digits of a fraction.

    :param text: The date.
    :returns: The date in the time zone UTC.
    :raises ValueError: if it has another format, or does not exist.
    """
    if not _UTC.fullmatch(text):
        raise ValueError('the date is not in the format 2026-01-31T12:00:00Z')
    return datetime.fromisoformat(f'{text[:-1]}+00:00')


def end_from_text(text: str) -> datetime:
    """Parse the date on which something ends: ``2026-01-31`` is the end of this day in UTC.

    :param text: A day, or what :func:`from_text` parses.
    :returns: The date in the time zone UTC.
    :raises ValueError: if it has another format, or does not exist.
    """
    try:
        return from_text(f'{text}T23:59:59Z' if 'T' not in text else text)
    except ValueError:
        raise ValueError(
            'the date is not in the format 2026-01-31 or 2026-01-31T12:00:00Z, or does not exist'
        ) from None


def to_text(moment: datetime, fraction: bool = False) -> str:
    """Return a date as text.

    :param moment: The date, in the time zone UTC or, as Rucio stores it, in UTC without a time zone.
    :param fraction: Whether to add the microseconds.
    """
    return f'{moment.replace(tzinfo=None).isoformat(timespec="microseconds" if fraction else "seconds")}Z'
