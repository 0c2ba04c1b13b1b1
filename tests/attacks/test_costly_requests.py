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

What is asserted is the work, not the time. How often an account may ask, to the digit, is in tests/unit/test_rates.py.
"""

import time
from types import SimpleNamespace

import pytest

from rucio.client import s3client
from rucio.common.config import clean_cached_config
from rucio.common.exception import InputValidationError
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


NONSENSE = [{}] * 1000  # counted before it is looked at


def test_requests_without_end(signed_team: Team, ernest: Rest, fritz: Rest) -> None:
    """One call after the other, which costs the server more than him. He is told to wait, and nobody else has to."""
    for _ in range(500):
        answer = fritz('POST', '/sign', {'rse': signed_team.rse, 'requests': NONSENSE})
        if answer.status != 400:
            break
    assert (answer.status, answer.error) == (429, 'ResourceTemporaryUnavailable')
    assert 'Account fritz exceeded its rate limit' in answer.message
    assert int(answer.headers['Retry-After']) >= 1
    assert ernest('POST', '/sign', reads(signed_team, 1)).status == 200


@pytest.mark.usefixtures('home')
def test_a_client_that_asks_too_often_waits(signed_team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rucio's own clients do not go on asking: a call takes as long as the server says, and is then answered."""
    server, waited = signed_team.root.server, list[float]()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        time.sleep(seconds)  # what the client waits for is a clock in another process

    monkeypatch.setattr(s3client, 'time', SimpleNamespace(sleep=sleep))
    monkeypatch.setenv('RUCIO_CONFIG', str(signed_team.other.config_file))
    clean_cached_config()
    client = s3client.S3Client()
    asked, calls = len(server.requests()), 0
    while not waited and calls < 500:
        calls += 1
        with pytest.raises(InputValidationError):  # in the end always what it would be without a rate
            client.sign_s3_requests(signed_team.rse, NONSENSE)
    assert waited
    assert set(waited) <= set(range(1, 6))
    asked = [each.uri for each in server.requests()[asked:]].count('/s3/sign')
    assert asked == calls + len(waited)
