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

"""`rucio s3 rm`: files disappear from the bucket and from the catalogue, unless somebody else needs them."""

from pathlib import Path

import pytest

from servers.cli import RucioError
from servers.team import Team, ok, refused, s3_call


@pytest.mark.parametrize('kind', ['vended_team', pytest.param('signed_team', marks=pytest.mark.long)])
def test_rm(request: pytest.FixtureRequest, kind: str, unique: str, tmp_path: Path) -> None:
    team: Team = request.getfixturevalue(kind)
    did, scope = f'{team.scope}:{unique}', team.scope
    for name in ('a', 'b', 'kept', 'sub/c'):
        path = tmp_path / 'data' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'content')
    ok(team.owner.rucio('s3', 'make-bucket', did, '--rse', team.rse))
    ok(team.owner.rucio('s3', 'upload', str(tmp_path / 'data'), did, '--rse', team.rse))
    team.storage.client().put_object(Bucket=scope, Key=f'{unique}/unregistered', Body=b'x')
    team.other.call('add_replication_rule', [{'scope': scope, 'name': f'{unique}/kept'}], 1, team.rse)

    def objects() -> set[str]:
        return {key.removeprefix(f'{unique}/') for key in team.objects() if key.startswith(f'{unique}/')}

    def registered() -> set[str]:
        return {name.removeprefix(f'{unique}/') for name in team.owner.call('list_dids', scope, {'name': f'{unique}/*'}, 'file')}

    def rm(*words: str) -> list[str]:
        return ['s3', 'rm', *words, '--rse', team.rse]

    assert f'2 files deleted from bucket {scope} on {team.rse}.' in ok(team.owner.rucio(*rm(f'{did}/a', f'{did}/unregistered')))
    assert (objects(), registered()) == ({'b', 'kept', 'sub/c'},) * 2
    assert {each['name'] for each in team.owner.call('list_content', scope, unique)} == {f'{unique}/{name}' for name in registered()}
    assert 'does not exist' in refused(team.owner.rucio(*rm(f'{did}/a')))
    assert 'of account ' + team.other.account in refused(team.owner.rucio(*rm(f'{did}/kept')))
    assert 'use --recursive' in refused(team.owner.rucio(*rm(did)))
    assert 'confirm it with --yes' in refused(team.owner.rucio(*rm(did, '--recursive')), 2)
    assert ok(team.owner.rucio(*rm(f'{did}/*', '--dry-run'))).split() == [f'{did}/b', f'{did}/kept', f'{did}/sub/c']
    refused(team.other.rucio(*rm(f'{did}/b')))
    with pytest.raises(RucioError, match='must be names of files'):  # in a bucket of several scopes it could be the file of another one
        s3_call(team.owner, 'remove_files', scope, [f'{unique}/b', '../user.bob/x'], team.rse)
    assert (objects(), registered()) == ({'b', 'kept', 'sub/c'},) * 2

    team.storage.client().put_object(Bucket=scope, Key=f'{unique}/sub/unregistered', Body=b'x')
    listed = [f'{did}/b', f'{did}/kept', f'{did}/sub/c', f'{did}/sub/unregistered (not in the catalogue)']
    assert ok(team.owner.rucio(*rm(did, '--recursive', '--dry-run'))).splitlines() == listed
    assert '4 files, 1 of them not in the catalogue' in refused(team.owner.rucio(*rm(did, '--recursive')), 2)
    assert '3 files deleted' in refused(team.owner.rucio(*rm(did, '--recursive', '--yes')))
    assert (objects(), registered()) == ({'kept'},) * 2
    # The names can be used again.
    assert '3 files uploaded' in ok(team.owner.rucio('s3', 'upload', str(tmp_path / 'data'), did, '--rse', team.rse))
