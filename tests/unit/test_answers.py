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

"""What a Rucio server may answer: see also tests/attacks/test_hostile_sts.py."""

import pytest

from rucio.common.exception import ServiceUnavailable
from rucio.common.s3 import answers


def test_signatures_with_an_empty_header():
    """The server signs headers with no value, which storages would heed if they came unsigned."""
    signed = {'uri': 'https://s3:443/b/k', 'headers': {'Authorization': ['AWS4-HMAC-SHA256 x'], 'x-forwarded-prefix': ['']}}
    assert answers.checked_signatures('The server', {'responses': [signed]}) == [signed]


@pytest.mark.parametrize('value', ['a\r\nx-amz-acl: public-read', 'a\n', '\x00', 'ü', 7, None])
def test_signatures_with_more_than_a_line(value):
    signed = {'uri': 'https://s3:443/b/k', 'headers': {'Authorization': [value]}}
    with pytest.raises(ServiceUnavailable, match='invalid signatures'):
        answers.checked_signatures('The server', {'responses': [signed]})
