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

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rucio.common.s3.dates import end_from_text, from_text, to_text

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ('text', 'microsecond'),
    [
        ('2026-01-31T12:00:00Z', 0),
        ('2026-01-31T12:00:00.000Z', 0),  # AWS
        ('2026-01-31T12:00:00.123456Z', 123_456),
    ],
)
def test_fractions_have_milliseconds_or_microseconds(text, microsecond):
    assert from_text(text) == NOON.replace(microsecond=microsecond)


@pytest.mark.parametrize(
    'text',
    [
        '',
        'Z',
        '2026-01-31',
        '2026-01-31T12:00:00',
        '2026-01-31T12:00:00+00:00',
        '2026-02-30T12:00:00Z',
        '2026-01-31T12:00:00.Z',
        '20260131T120000Z',
        ' 2026-01-31T12:00:00Z\n',
        '2026-01-31T1٢:00:00Z',
    ],
)
def test_other_formats_are_refused(text):
    with pytest.raises(ValueError, match=r'format|day'):
        from_text(text)


@pytest.mark.parametrize('fraction', [False, True])
@given(moment=st.datetimes(timezones=st.just(timezone.utc)))
def test_what_is_written_is_read(fraction, moment):
    assert from_text(to_text(moment, fraction)) == (moment if fraction else moment.replace(microsecond=0))


def test_dates_of_rucio_have_no_time_zone():
    assert to_text(NOON.replace(tzinfo=None)) == to_text(NOON) == '2026-01-31T12:00:00Z'


def test_a_day_ends_at_midnight():
    assert to_text(end_from_text('2026-01-31')) == '2026-01-31T23:59:59Z'
    assert end_from_text('2026-01-31T12:00:00Z') == NOON
    for text in ('2026-02-30', '31.1.2026', '2026-01-31 12:00', '2026-01', 'tomorrow', '2026-01-31T12:00'):
        with pytest.raises(ValueError, match='is not in the format 2026-01-31 or'):
            end_from_text(text)
