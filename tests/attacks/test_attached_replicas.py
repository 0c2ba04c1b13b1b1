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

"""Somebody else's object under a name of one's own: replicas that are registered by attaching files to a dataset.

Rucio adds replicas where files are attached and an RSE is named, and asks only whose the dataset is. Seen to work with Rucio 41 and its
generic permissions, on any storage: what is attacked is the catalogue. With ``rucio_s3_policy`` each of these is refused.
"""

from typing import Any

import pytest

from servers.cli import Keywords, s3_protocol
from servers.rest import Answer, Rest
from servers.team import Team

SECRET = 'private/secret'
CONTENT = b'top secret'
KNOWN = {'bytes': 10, 'adler32': '15a403fa'}
FREE = 'FREE_S3'
WAYS = pytest.mark.parametrize('way', ['add_did', 'add_dids', 'attach_dids', 'attach_dids_to_dids'])


@pytest.fixture(scope='module')
def victim(signed_team: Team) -> Team:
    """Erin has an object that the catalogue does not know yet, and fritz a dataset of his own; the operator has a second RSE, where replicas have paths."""
    for user, name in ((signed_team.owner, ''), (signed_team.other, 'mine')):
        made = Rest(user, '')('POST', '/s3/buckets', {'scope': f'user.{user.account}', 'name': name, 'rse': signed_team.rse})
        assert made.status == 201, made
    signed_team.storage.client().put_object(Bucket=signed_team.scope, Key=SECRET, Body=CONTENT)
    settings = ('add_rse', FREE, Keywords(deterministic=False)), ('add_protocol', FREE, s3_protocol(signed_team.storage)), ('get_rse', FREE)
    signed_team.root.server.set_rse_keys(signed_team.root.calls(*settings)[-1]['id'], signed_team.storage.access_key, signed_team.storage.secret_key)
    return signed_team


@pytest.fixture(scope='module')
def fritz(victim: Team) -> Rest:
    return Rest(victim.other, '')


def attach(user: Rest, way: str, dataset: str, rse: str, file: dict[str, Any]) -> Answer:
    """Attach a file to a dataset of fritz's, and have it registered on an RSE, by each of Rucio's requests that do so."""
    scope, attached = 'user.fritz', {'rse': rse, 'dids': [{**KNOWN, **file}]}
    if way == 'attach_dids':
        return user('POST', f'/dids/{scope}/mine/dids', attached)
    if way == 'attach_dids_to_dids':
        return user('POST', '/dids/attachments', [{'scope': scope, 'name': 'mine', **attached}])
    if way == 'add_did':
        return user('POST', f'/dids/{scope}/{dataset}', {'type': 'DATASET', **attached})
    return user('POST', '/dids', [{'scope': scope, 'name': dataset, 'type': 'DATASET', **attached}])


@WAYS
def test_a_replica_of_a_name_in_somebody_elses_scope(victim: Team, fritz: Rest, unique: str, way: str) -> None:
    """Attach ``user.ernest:private/secret`` to a dataset of one's own, then let a rule on it end. The reaper would delete ernest's object."""
    answer = attach(fritz, way, unique, victim.rse, {'scope': victim.scope, 'name': SECRET})
    assert (answer.status, "The scope 'user.ernest' is not yours" in answer.text) == (401, True), answer
    assert Rest(victim.root, '')('GET', f'/dids/{victim.scope}/{SECRET}').status == 404


@WAYS
def test_a_path_that_is_somebody_elses(victim: Team, fritz: Rest, unique: str, way: str) -> None:
    """A replica of one's own file with ernest's object as its path, then a rule that ends. Would have the reaper delete it (seen with ``add_dids``)."""
    path = {'path': f'{victim.scope}/{SECRET}'}
    answer = attach(fritz, way, unique, victim.rse, {'scope': 'user.fritz', 'name': f'{unique}-file', **path})
    assert answer.status >= 400, answer
    assert Rest(victim.root, '')('GET', f'/dids/user.fritz/{unique}-file').status == 404


@pytest.mark.parametrize('name', ['{}-file', SECRET.rpartition('/')[2]], ids=['another name', 'the last part of the path'])
def test_a_path_in_the_catalogue_is_not_heeded(victim: Team, unique: str, name: str) -> None:
    """The same where the permissions let it through, as Rucio's generic ones do: the reaper, downloads and the copier still take the name's own place."""
    root, file = Rest(victim.root, ''), name.format(unique)
    assert attach(root, 'add_dids', unique, victim.rse, {'scope': 'user.fritz', 'name': file, 'path': f'{victim.scope}/{SECRET}'}).status == 201
    replica = root('GET', f'/replicas/user.fritz/{file}')
    assert list(replica.content['pfns']) == [f'{victim.storage.url}/user.fritz/{file}']


@WAYS
def test_a_pfn_on_an_rse_where_replicas_have_paths(victim: Team, fritz: Rest, unique: str, way: str) -> None:
    """The PFN of ernest's object for a file of one's own. Would give its reader keys or signatures of the server for it, and its deletion."""
    pfn = {'pfn': f'{victim.storage.url}/{victim.scope}/{SECRET}'}
    answer = attach(fritz, way, unique, FREE, {'scope': 'user.fritz', 'name': f'{unique}-file', **pfn})
    assert (answer.status, 'only an admin may do that' in answer.text) == (401, True), answer
    get = {'method': 'GET', 'uri': pfn['pfn'], 'headers': {}}
    assert fritz('POST', '/s3/sign', {'rse': FREE, 'requests': [get]}).status == 403


def test_the_owner_still_attaches_what_is_hers(victim: Team, unique: str) -> None:
    """The other side of the guard: ernest registers a file of her scope while she attaches it."""
    ernest = Rest(victim.owner, '')
    attached = {'type': 'DATASET', 'rse': victim.rse, 'dids': [{'scope': victim.scope, 'name': f'{unique}/file', **KNOWN}]}
    assert ernest('POST', f'/dids/{victim.scope}/{unique}', attached).status == 201
    assert ernest('GET', f'/replicas/{victim.scope}/{unique}/file').content['states'] == {victim.rse: 'AVAILABLE'}
