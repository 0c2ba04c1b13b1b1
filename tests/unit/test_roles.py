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

"""The ARNs of roles: there and back, and what is none."""

import pytest

from rucio.common.exception import InputValidationError
from rucio.common.s3.roles import Role


@pytest.mark.parametrize('read_only', [False, True])
@pytest.mark.parametrize('rse', ['SITE_S3', 'read-only', 'X'])
@pytest.mark.parametrize('name', ['', 'run7', 'run7/a/b:c', 'read-only/x:y'])
def test_there_and_back(rse, name, read_only):
    role = Role(rse, 'user.alice', name, read_only)
    assert Role.parse(role.arn) == role
    assert len(role.arn) >= 20  # botocore
    assert Role.parse(role.arn.replace(':rucio:', ':000000000000:')) == role


def test_what_it_looks_like():
    assert Role('SITE_S3', 'user.alice', 'run7').arn == 'arn:aws:iam::rucio:role/SITE_S3/user.alice:run7'
    assert Role('SITE_S3', 'user.alice', read_only=True).arn == 'arn:aws:iam::rucio:role/read-only/SITE_S3/user.alice'


@pytest.mark.parametrize(
    'arn',
    [
        '',
        'role/SITE_S3/user.alice',
        'arn:aws:iam::rucio:role/SITE_S3',
        'arn:aws:iam::rucio:role/SITE_S3/',
        'arn:aws:iam::rucio:role/SITE_S3/user.alice:',
        'arn:aws:iam::rucio:role//user.alice',
        'arn:aws:iam::rucio:role/SITE_S3/a/b:c',
        'arn:aws:iam::rucio:user/SITE_S3/user.alice',
        'arn:aws:iam::other:role/SITE_S3/user.alice',
        'arn:aws:iam::rucio:role/SITE_S3/user.alice:a\nb',
    ],
)
def test_what_is_no_role(arn):
    with pytest.raises(InputValidationError, match='names no RSE and DID'):
        Role.parse(arn)
