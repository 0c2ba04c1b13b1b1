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

"""docs/backends.md says what the storages do, and providers.toml says the same."""

import warnings
from typing import Any

import pytest

from backends import document
from backends.behaviours import BEHAVIOURS, SECTIONS, Behaviour
from backends.storage import KINDS, Kind, Probe
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.probes import verdicts
from rucio.common.s3.settings import GUARDS

COLUMNS = document.read()
NAMED = [kind for kind in KINDS if kind.provider != 'generic']
# What versions need that have no column, and that sites run: Swift before 2.36 takes a wrong CRC32.
OLDER: dict[str, dict[str, Any]] = {'swift': {'checksum': 'md5'}}


@pytest.fixture(scope='class')
def probe(kind: Kind, server: Any) -> Probe:
    if COLUMNS[kind.name].version != kind.version():
        warnings.warn(f'docs/backends.md is of {kind.name} {COLUMNS[kind.name].version}; here is {kind.version()}. Run `make backends`.', stacklevel=2)
    return Probe(server)


@pytest.mark.long
class TestMeasured:
    @pytest.mark.parametrize('each', BEHAVIOURS, ids=str)
    def test_the_document_says_what_the_storage_does(self, kind: Kind, probe: Probe, each: Behaviour) -> None:
        differs = document.differs(kind, each, each.measure(probe), COLUMNS[kind.name])
        # A connection may break once, when a busy server closes it just as it is used again.
        # What the storage itself does is the same the second time.
        if 'breaks off' in differs:
            differs = document.differs(kind, each, each.measure(probe), COLUMNS[kind.name])
        assert not differs


def test_the_document_is_as_it_is_written() -> None:
    """A row that was edited by hand, added or taken out shows here, also where no storage is installed."""
    assert document.PATH.read_text(encoding='utf-8') == document.text(COLUMNS), 'run `make backends`'


def test_each_behaviour_has_a_section_and_a_text_of_its_own() -> None:
    assert {each.section for each in BEHAVIOURS} == set(SECTIONS)
    assert len({each.text for each in BEHAVIOURS}) == len({str(each) for each in BEHAVIOURS}) == len(BEHAVIOURS)
    assert all(each.meaning for each in BEHAVIOURS)


# providers.toml


def answer(kind: Kind, name: str) -> str:
    (each,) = [each for each in BEHAVIOURS if str(each) == name]
    return COLUMNS[kind.name].answers[each.text]


def refused(kind: Kind, name: str) -> bool:
    return answer(kind, name).startswith('4')


def claims(kind: Kind) -> dict[str, Any]:
    """The settings that a storage earns by what it does."""
    measured = {str(each): COLUMNS[kind.name].answers.get(each.text, document.UNKNOWN) for each in BEHAVIOURS}
    measured = {name: told for name, told in measured.items() if told != document.UNKNOWN}
    earned = verdicts.earned(measured) | {
        'policy_capitals': answer(kind, 'session_policy') != 'yes' or answer(kind, 'policy_capitals') != 'read',
        'event_topics': answer(kind, 'topics') == 'yes',
    }
    earned['verifies_body'] &= refused(kind, 'wrong_payload_hash')
    if earned['checksum'] == 'crc32' and answer(kind, 'trailer') != 'yes':  # as it is sent over https
        earned['checksum'] = 'md5'
    return earned


def defaults(kind: Kind) -> Endpoint:
    """What an RSE has that names this provider and nothing else."""
    protocol = {'scheme': 'https', 'hostname': 's3.example.org', 'port': 443, 'extended_attributes': {'s3': {'provider': kind.provider}}}
    return Endpoint.load({'rse': 'X', 'id': '0' * 32}, protocol)


@pytest.mark.parametrize('provider', sorted({kind.provider for kind in NAMED}))
class TestProviders:
    def test_what_all_its_versions_can_is_used(self, provider: str) -> None:
        versions = [kind for kind in NAMED if kind.provider == provider]
        endpoint, earned = defaults(versions[0]), [claims(kind) for kind in versions]
        assert all(set(each.pop('signature_guards')) <= set(endpoint.signature_guards) for each in earned)
        common = {name: all(each[name] for each in earned) if isinstance(value, bool) else value for name, value in earned[0].items()}
        older = OLDER.get(provider, {})
        assert {name: getattr(endpoint, name) for name in common} == {**common, **older}
        assert all(each[name] == value for each in earned for name, value in common.items() if not isinstance(value, bool))


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind not in NAMED], ids=str)
def test_generic_promises_no_more_than_any_storage_keeps(kind: Kind) -> None:
    endpoint, earned = defaults(kind), claims(kind)
    assert [name for name, value in earned.items() if value is False and getattr(endpoint, name)] == []
    assert set(endpoint.signature_guards) == set(GUARDS)
