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

"""Names are as valid as jsonschema says, whether it is asked or not."""

import pytest
from jsonschema.validators import validator_for

from rucio.common.s3 import schemas

TEXTS = ('', 'a', 'ab', 'abc', 'a\n', 'B', 'é', '/')


@pytest.mark.parametrize(
    'schema',
    [
        {'type': 'string', 'pattern': '^[a-z]+$', 'maxLength': 2, 'description': 'A name'},
        {'type': 'string', 'pattern': 'b'},
        {'type': 'string', 'maxLength': 1},
        {'type': 'string'},
        {'type': 'string', 'minLength': 2},
        {'type': 'string', 'enum': ['a', 'abc']},
        {'type': ['string', 'null'], 'maxLength': 1},
        {'anyOf': [{'const': 'a'}, {'pattern': '^b'}]},
        {'maxLength': 2},
    ],
)
def test_a_text_is_valid_or_not(schema):
    is_valid, validator = schemas.matcher(schema), validator_for(schema)(schema)
    assert [is_valid(text) for text in TEXTS] == [validator.is_valid(text) for text in TEXTS]
    assert [not schemas.explain(schema, text) for text in TEXTS] == [is_valid(text) for text in TEXTS]
