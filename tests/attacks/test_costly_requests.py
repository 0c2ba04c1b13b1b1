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

"""One account asks for so much that a server of two workers has no time for others.

What is asserted is the work, not the time. How often an account may ask is in tests/unit/test_rates.py.
"""

import pytest

from rucio.core.s3.auth import signing
from servers.rest import Rest
from servers.signer import asked
from servers.team import Team

pytestmark = pytest.mark.usefixtures('shared')


@pytest.fixture(scope='module')
def ernest(signed_team: Team) -> Rest:
    return Rest(signed_team.owner)


@pytest.fixture(scope='module')
def fritz(signed_team: Team) -> Rest:
    return Rest(signed_team.other)


@pytest.fixture(scope='module')
def shared(signed_team: Team, ernest: Rest) -> None:
    """Below ``costly`` fritz may write."""
    made = ernest('POST', '/buckets', {'scope': signed_team.scope, 'name': 'costly'})
    assert made.status == 201, str(made.content)
    assert ernest('POST', '/grants', {'scope': signed_team.scope, 'name': 'costly', 'account': 'fritz', 'write': True}).status == 201


def deletions(team: Team, calls: int, keys: int) -> dict[str, object]:
    body = lambda call: ''.join(f'<Object><Key>costly/{call}/{number}</Key></Object>' for number in range(keys))  # noqa: E731
    requests = [asked(team.storage, 'POST', f'/{team.scope}?delete', body=f'<Delete>{body(call)}</Delete>'.encode()) for call in range(calls)]
    return {'rse': team.rse, 'requests': requests}


def reads(team: Team, count: int, path: str = 'costly') -> dict[str, object]:
    return {'rse': team.rse, 'requests': [asked(team.storage, 'GET', f'/{team.scope}/{path}/{number}') for number in range(count)]}


def test_twenty_thousand_keys_in_one_call(signed_team: Team, ernest: Rest) -> None:
    """1 MiB of DeleteObjects: was 60,000 queries, 5 to 14 s of a worker."""
    answer = ernest('POST', '/sign', deletions(signed_team, 18, 1000))
    assert (answer.status, f'{signing.MAX_KEYS} keys' in str(answer.content)) == (400, True), str(answer.content)
    assert ernest('POST', '/sign', deletions(signed_team, 1, 1000)).status == 200


def test_more_requests_than_a_client_sends(signed_team: Team, fritz: Rest) -> None:
    """A call for a thousand objects is served, one for more is not."""
    served = fritz('POST', '/sign', reads(signed_team, 1000))
    assert (served.status, len(served.content['responses'])) == (200, 1000)
    assert fritz('POST', '/sign', reads(signed_team, 1001)).status == 400


def test_names_as_deep_as_they_can_be(signed_team: Team, fritz: Rest) -> None:
    """a/a/a/...: each has 125 collections above it that could have a grant."""
    deep = '/'.join('a' * 120)
    assert fritz('POST', '/sign', reads(signed_team, 200, f'costly/{deep}')).status == 200
    assert fritz('POST', '/sign', reads(signed_team, 200, deep)).status == 403
