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

"""Rucio's data flow on each storage: the stock upload and download, rules to it and from it by `rucio-s3-copier`, rules that end, the stock reaper.

Home is a SeaweedFS of its own, so that bytes move between two storages.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backends.storage import KINDS, Kind
from servers.cli import s3_keys
from servers.conveyor import SCOPE, Conveyor, MiB, Place
from servers.seaweedfs import SeaweedFS

pytestmark = pytest.mark.long

HOME = 'HOME_S3'
SIZES = (1024, 0, 40 * MiB)  # the last in parts, whatever makes it


def rse_of(kind: Kind) -> str:
    return f'{kind.word.upper()}_S3'


@dataclass
class Flow:
    """What happened on one storage. All of them share each run of a daemon, as these take longer to start than to work."""

    rse: str
    brought: bool = False  # the dataset from home: in the catalogue and on the storage, byte for byte
    rule: str = ''  # the state of the rule that brought it
    uploaded: str = ''  # what `rucio upload` said
    downloaded: dict[str, bytes] = field(default_factory=dict)
    home: dict[str, bytes] = field(default_factory=dict)  # what a rule brought home of it
    home_rule: str = ''
    left: set[str] = field(default_factory=set)  # after all rules there have ended, and the reaper


@dataclass
class World:
    site: Conveyor
    flows: dict[str, Flow]
    dataset: list[str]  # at home
    contents: dict[str, dict[str, bytes]]  # RSE -> what was uploaded there
    said: str = ''

    def there(self, rse: str) -> str:
        """The dataset that was uploaded there."""
        return f'there.{rse.lower()}'

    def upload(self, flow: Flow, folder: Path) -> None:
        self.site.client(flow.rse).create_bucket(Bucket=SCOPE)
        folder.mkdir()
        name = self.there(flow.rse)
        self.contents[flow.rse] = {f'{name}.{number}': os.urandom(size) for number, size in enumerate(SIZES)}
        for file, content in self.contents[flow.rse].items():
            (folder / file).write_bytes(content)
        files = [str(folder / file) for file in self.contents[flow.rse]]
        done = self.site.mia.rucio('upload', '--rse', flow.rse, '--scope', SCOPE, f'{SCOPE}:{name}', *files)
        flow.uploaded = done.stdout + done.stderr

    def download(self, flow: Flow, folder: Path) -> None:
        self.site.mia.rucio('download', '--rses', flow.rse, '--dir', str(folder), f'{SCOPE}:{self.there(flow.rse)}')
        flow.downloaded = {path.name: path.read_bytes() for path in folder.rglob('*') if path.is_file()}

    def run(self, folder: Path) -> None:
        site, flows = self.site, self.flows.values()
        for flow in flows:
            self.upload(flow, folder / flow.rse)
        there = {flow.rse: site.add_rule('dataset', flow.rse) for flow in flows}
        home = {flow.rse: site.add_rule(self.there(flow.rse), HOME) for flow in flows}
        site.daemon('rucio-judge-evaluator', '--run-once')  # before it the rules of what was uploaded hold nothing
        self.said = site.bring()
        for flow in flows:
            flow.brought = site.is_complete(flow.rse, self.dataset)
            flow.rule, flow.home_rule = site.rule_state(there[flow.rse]), site.rule_state(home[flow.rse])
            flow.home = {key: body(site, HOME, key) for key in site.keys(HOME) if key in self.contents[flow.rse]}
            self.download(flow, folder / f'{flow.rse} back')
        own = {
            flow.rse: [rule['id'] for rule in site.mia.call('list_did_rules', SCOPE, self.there(flow.rse)) if rule['rse_expression'] == flow.rse]
            for flow in flows
        }
        site.mia.calls(*(('update_replication_rule', rule, {'lifetime': -1}) for rse, rule in there.items() for rule in (rule, *own[rse])))
        site.daemon('rucio-judge-cleaner', '--run-once')
        self.said += site.daemon('rucio-reaper', '--run-once', '--greedy', '--delay-seconds', '0', '--rses', *self.flows)
        for flow in flows:
            flow.left = site.keys(flow.rse)


def body(site: Conveyor, rse: str, key: str) -> bytes:
    with site.client(rse).get_object(Bucket=SCOPE, Key=key)['Body'] as content:
        return content.read()


@pytest.fixture(scope='module')
def measured(tmp_path_factory: pytest.TempPathFactory, start: Callable[[Kind], Any]) -> Iterator[World]:
    """Mia, with an RSE at home and one on each storage that is installed, for all of which she has keys; and all that happened there."""
    with contextlib.ExitStack() as stack:
        places = {HOME: Place(stack.enter_context(SeaweedFS(tmp_path_factory.mktemp('home'))))}
        for kind in KINDS:
            if not kind.missing():
                places[rse_of(kind)] = Place(start(kind), settings={'provider': kind.provider})
        site = Conveyor.make(stack, tmp_path_factory.mktemp, places)
        for rse, place in places.items():
            site.mia.configure(s3_keys(rse, place.storage))
        made = World(site, {rse: Flow(rse) for rse in places if rse != HOME}, site.upload('dataset', *SIZES), {})
        made.run(tmp_path_factory.mktemp('files'))
        yield made


@pytest.fixture
def flow(kind: Kind, request: pytest.FixtureRequest) -> Flow:
    if reason := kind.missing():
        pytest.skip(f'no {kind.name}: {reason}')
    return request.getfixturevalue('measured').flows[rse_of(kind)]


class TestDataFlow:
    def test_a_rule_brings_a_dataset_there(self, measured: World, flow: Flow) -> None:
        assert (flow.brought, flow.rule) == (True, 'OK'), (measured.site.errors('dataset'), measured.said)

    def test_what_is_uploaded_there_is_downloaded(self, measured: World, flow: Flow) -> None:
        assert flow.uploaded.count('Successfully uploaded file') == len(SIZES), flow.uploaded
        assert flow.downloaded == measured.contents[flow.rse]

    def test_what_is_uploaded_there_is_brought_home(self, measured: World, flow: Flow) -> None:
        assert flow.home_rule == 'OK', (measured.site.errors(measured.there(flow.rse)), measured.said)
        assert flow.home == measured.contents[flow.rse]

    def test_when_the_rules_end_it_is_deleted(self, measured: World, flow: Flow) -> None:
        assert flow.left == set(), measured.said
        names = [*measured.dataset, *measured.contents[flow.rse]]
        assert {name: flow.rse in states for name, states in measured.site.replicas(names).items()} == dict.fromkeys(names, False)
        assert measured.site.keys(HOME).issuperset(names)
