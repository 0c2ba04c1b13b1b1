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

"""Rucio in Apache with mod_wsgi, as sites have it: names with slashes and odd letters, keys and signatures, metrics."""

import pytest
import requests

from servers import apache
from servers.cli import RucioCli
from servers.team import Team, ok, refused

REASON = apache.missing()
pytestmark = [pytest.mark.long, pytest.mark.skipif(REASON is not None, reason=REASON or '')]

ODD = 'a+b %41%2F größe#?&=@.txt'


@pytest.fixture(scope='module')
def root(tmp_path_factory, ca):
    config = {'api': {'endpoints_add': 's3, metrics'}, 'policy': {'package': 'rucio_s3_policy'}}
    with apache.Apache(tmp_path_factory.mktemp('apache'), ca, config) as server:
        yield RucioCli.root(tmp_path_factory.mktemp('root'), server)


@pytest.fixture(scope='module')
def signed(root, plain, tmp_path_factory):
    return Team.make(root, tmp_path_factory.mktemp, ('carol', 'dave'), 'SIGNED_S3', plain)


@pytest.fixture(scope='module')
def vended(root, sts, tmp_path_factory):
    return Team.make(root, tmp_path_factory.mktemp, ('erin', 'frank'), 'VENDED_S3', sts)


@pytest.mark.parametrize('team', ['signed', 'vended'])
def test_a_collection_is_stored_shared_and_read(request, team):
    team = request.getfixturevalue(team)
    collection = f'{team.scope}:run1/sub'
    ok(team.owner.rucio('s3', 'make-bucket', collection))
    team.upload('run1/sub/a.dat', b'by rucio upload', 'run1/sub')
    folder = team.owner.directory / 'more'
    folder.mkdir()
    (folder / 'b.dat').write_bytes(b'by rucio s3 upload')
    ok(team.owner.rucio('s3', 'upload', '--rse', team.rse, str(folder), collection))
    ok(team.owner.rucio('s3', 'share', collection, '--with', team.other.account))
    listed = ok(team.other.rucio('s3', 'ls', collection))
    assert 'a.dat' in listed
    assert 'b.dat' in listed
    done = team.other.rucio('download', collection)
    found = {path.name: path.read_bytes() for path in team.other.directory.rglob('*.dat')}
    assert found == {'a.dat': b'by rucio upload', 'b.dat': b'by rucio s3 upload'}, done.stdout + done.stderr


@pytest.mark.parametrize('team', ['signed', 'vended'])
def test_odd_letters(request, team):
    """Of another client's object: Rucio's own schema takes no such name."""
    team = request.getfixturevalue(team)
    ok(team.owner.rucio('s3', 'make-bucket', f'{team.scope}:run1'))
    team.storage.client().put_object(Bucket=team.scope, Key=f'run1/{ODD}', Body=b'odd')
    assert ODD in ok(team.owner.rucio('s3', 'ls', f'{team.scope}:run1'))


def test_rucio_decodes_names_in_urls_twice(signed):
    """Apache decodes all but slashes, and Rucio all of it again. When this fails, docs/deployment.md need not say so."""
    said = refused(signed.owner.rucio('s3', 'cat', f'{signed.scope}:run1/a+b %41 größe#?', '--rse', signed.rse))
    assert "run1/a b A größe#?' not found" in said


def test_metrics_are_for_prometheus(root, signed):
    ok(signed.owner.rucio('s3', 'ls', signed.scope))
    answer = requests.get(f'{root.server.url}/metrics/', verify=str(root.server.ca_bundle), timeout=60)
    assert answer.status_code == 200
    assert answer.headers['Content-Type'].startswith('text/html'), 'examples/prometheus/prometheus.yml has a line for that'
    assert 'rucio_core_s3_rest_seconds_bucket{' in answer.text
