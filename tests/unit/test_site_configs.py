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

"""The sites in etc: their RSEs (rse_configs/site-*.json) and rucio.cfg (site-*.cfg) make Rucio's conveyor do what they say."""

import json
from configparser import ConfigParser
from pathlib import Path
from unittest import mock

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy.orm import Session

from rucio.common.types import InternalAccount, InternalScope
from rucio.core import transfer
from rucio.core.importer import import_data
from rucio.core.request import RequestSource, RequestWithSources
from rucio.core.rse import get_rse_protocols, list_rses
from rucio.core.topology import Topology
from rucio.db.sqla import models
from rucio.db.sqla.constants import RequestType
from rucio.rse import rsemanager
from rucio.transfertool.s3 import S3Transfertool

ETC = Path(__file__).resolve().parents[2] / 'etc'
SITES = ['site-mixed', 'site-with-fts', 'site-without-fts']
NAME, KEY = 'run1/https davs+%41.root', 'user.alice/run1/https%20davs%2B%2541.root'
HERE, THERE = 's3.example.org:443', 's3.example.com:443'
DISK = 'davs://dav.example.org:443/rucio/user/alice/'
DEFAULT = 'rucio.rse.protocols.s3.Default'


def definitions(name):
    """The RSEs and distances of a site."""
    return json.loads(ETC.joinpath('rse_configs', f'{name}.json').read_text())


def conveyor(name):
    """What a rucio.cfg of etc says to the conveyor."""
    parser = ConfigParser()
    assert parser.read(ETC / f'{name}.cfg')
    return parser['conveyor']


class Site:
    """The RSEs of a file, in a catalogue, and what Rucio's submitter would do between them with the rucio.cfg of the same name."""

    def __init__(self, name, session, content=None):
        self.session = session
        self.tools = [tool.strip() for tool in conveyor(name)['transfertool'].split(',')]
        models.VO(vo='def', description='', email='').save(session=session)
        import_data(content or definitions(name), session=session)
        session.commit()  # some of what Rucio does has a session of its own
        self.ids = {each['rse']: each['id'] for each in list_rses(session=session)}

    def entry(self, rse, operation, domain):
        """The protocol entries of an RSE that offer an operation, by their classes."""
        info = get_rse_protocols(self.ids[rse], session=self.session)
        return [each['impl'] for each in rsemanager.get_protocols_ordered(info, operation, domain=domain)]

    def hops(self, source, destination):
        """How a file gets from one RSE to another: for each hop the two URLs, and the tool that takes it; or the state that Rucio gives the request."""
        topology = Topology().configure_multihop(session=self.session)
        wanted = RequestWithSources(
            id_='1' * 32,
            request_type=RequestType.TRANSFER,
            rule_id=None,
            scope=InternalScope('user.alice'),
            name=NAME,
            md5=None,
            adler32='00000001',
            byte_count=3,
            activity='User Subscriptions',
            attributes={},
            previous_attempt_id=None,
            dest_rse=topology.get_or_create(self.ids[destination]),
            account=InternalAccount('root'),
            retry_count=0,
            priority=3,
            transfertool=None,
        )
        wanted.sources = [RequestSource(topology.get_or_create(self.ids[source]), distance=1)]
        options = {'protocol_factory': transfer.ProtocolFactory(), 'transfertools': self.tools, 'session': self.session}
        found, *refused = transfer.build_transfer_paths(topology=topology, requests_with_sources=[wanted], **options)
        if any(refused):
            return next(state for state, ids in zip(('no sources', 'scheme mismatch', 'only tape', 'other tool'), refused, strict=True) if ids)
        (path,) = found[wanted.request_id]
        return [(hop.source_url(hop.src), hop.dest_url, self._taker(hop)) for hop in path]

    def _taker(self, hop):
        classes = transfer.TRANSFERTOOL_CLASSES_BY_NAME
        return next((tool for tool in self.tools if classes[tool].submission_builder_for_path([hop], logger=lambda *_: None)[0]), None)


@pytest.fixture
def site(database, rucio_cfg):
    """Call it with the name of a file."""
    # As a daemon has it: Rucio's class for gfal2 can be imported without gfal2 only there.
    rucio_cfg({'database': {'default': str(database.url)}, 'policy': {'permission': 'generic', 'schema': 'generic'}, 'cache': {'url': '127.0.0.1:1'}})
    with mock.patch.dict(transfer.TRANSFERTOOL_CLASSES_BY_NAME, {'s3': S3Transfertool}), Session(database) as session:
        yield lambda name, content=None: Site(name, session, content)


@pytest.mark.parametrize(
    ('name', 'source', 'destination', 'tool', 'urls'),
    [
        ('site-with-fts', 'FTS_SITE_DISK', 'FTS_SITE_S3', 'fts3', (DISK, f's3s://{HERE}/{KEY}')),
        ('site-with-fts', 'FTS_SITE_S3', 'FTS_SITE_DISK', 'fts3', (f's3s://{HERE}/{KEY}', DISK)),
        ('site-with-fts', 'FTS_SITE_S3', 'FTS_SITE_S3_REMOTE', 'fts3', (f's3s://{HERE}/{KEY}', f's3s://{THERE}/{KEY}')),
        ('site-without-fts', 'PLAIN_SITE_S3', 'PLAIN_SITE_S3_REMOTE', 's3', (f'https://{HERE}/{KEY}', f'https://{THERE}/{KEY}')),
        ('site-without-fts', 'PLAIN_SITE_S3_REMOTE', 'PLAIN_SITE_S3', 's3', (f'https://{THERE}/{KEY}', f'https://{HERE}/{KEY}')),
        ('site-mixed', 'MIXED_SITE_DISK', 'MIXED_SITE_S3', 'fts3', (DISK, f's3s://{HERE}/{KEY}')),
        ('site-mixed', 'MIXED_SITE_S3', 'MIXED_SITE_DISK', 'fts3', (f's3s://{HERE}/{KEY}', DISK)),
        ('site-mixed', 'MIXED_SITE_S3', 'MIXED_SITE_S3_REMOTE', 's3', (f's3s://{HERE}/{KEY}', f's3s://{THERE}/{KEY}')),
        ('site-mixed', 'MIXED_SITE_S3_REMOTE', 'MIXED_SITE_S3', 's3', (f's3s://{THERE}/{KEY}', f's3s://{HERE}/{KEY}')),
    ],
)
def test_who_moves_what_at_a_site(site, name, source, destination, tool, urls):
    ((found_source, found_destination, found_tool),) = site(name).hops(source, destination)
    assert found_tool == tool
    assert (found_source[: len(urls[0])], found_destination[: len(urls[1])]) == urls


def test_a_path_of_two_tools(site):
    """From the far S3 to the disk over the near one: the copier brings it to the first, FTS from there."""
    content = definitions('site-mixed')
    content['rses']['MIXED_SITE_S3']['attributes']['available_for_multihop'] = True
    del content['distances']['MIXED_SITE_S3_REMOTE']['MIXED_SITE_DISK']
    hops = site('site-mixed', content).hops('MIXED_SITE_S3_REMOTE', 'MIXED_SITE_DISK')
    assert [tool for _, _, tool in hops] == ['s3', 'fts3']


@pytest.mark.parametrize(
    ('name', 'source', 'destination', 'change', 'state'),
    [
        ('site-without-fts', 'PLAIN_SITE_S3', 'PLAIN_SITE_S3_REMOTE', lambda content: content.pop('distances'), 'no sources'),
        # Rucio finds no way between http and https ...
        (
            'site-without-fts',
            'PLAIN_SITE_S3',
            'PLAIN_SITE_S3_REMOTE',
            lambda content: content['rses']['PLAIN_SITE_S3']['protocols'][0].update(scheme='http'),
            'scheme mismatch',
        ),
        # ... nor where an end offers no copies ...
        ('site-without-fts', 'PLAIN_SITE_S3', 'PLAIN_SITE_S3_REMOTE', lambda content: no_copies(content['rses']['PLAIN_SITE_S3']), 'scheme mismatch'),
        # ... and leaves in the queue what no tool takes.
        ('site-mixed', 'MIXED_SITE_DISK', 'MIXED_SITE_S3', lambda content: content['rses']['MIXED_SITE_S3']['attributes'].pop('fts'), None),
    ],
)
def test_what_cannot_be_moved(site, name, source, destination, change, state):
    """As the table at the end of docs/transfers.md says."""
    content = definitions(name)
    change(content)
    found = site(name, content).hops(source, destination)
    if state:
        assert found == state
    else:
        assert [tool for _, _, tool in found] == [None]


def no_copies(definition):
    for protocol in definition['protocols']:
        protocol['domains']['wan'] = {'read': 1, 'write': 1, 'delete': 1}


def test_http_and_https_are_paired_by_the_entry_for_fts(site):
    """As `rucio s3 rse add` makes it."""
    content = definitions('site-without-fts')
    http = content['rses']['PLAIN_SITE_S3']['protocols']
    http[0]['scheme'] = 'http'
    http[0]['domains']['wan'] |= {'third_party_copy_read': 2, 'third_party_copy_write': 2}
    copies = {'third_party_copy_read': 1, 'third_party_copy_write': 1}
    http.append({'scheme': 'davs', 'hostname': 's3.example.org', 'port': 443, 'prefix': '/', 'impl': 'rucio.rse.protocols.s3.FTS', 'domains': {'wan': copies}})
    made = site('site-without-fts', content)
    assert [tool for _, _, tool in made.hops('PLAIN_SITE_S3', 'PLAIN_SITE_S3_REMOTE')] == ['s3']
    assert [tool for _, _, tool in made.hops('PLAIN_SITE_S3_REMOTE', 'PLAIN_SITE_S3')] == ['s3']
    assert made.entry('PLAIN_SITE_S3', 'read', 'wan') == [DEFAULT]


def test_what_rucios_preparer_is_told(site):
    made = site('site-mixed')
    topology = Topology()
    disk, here, there = (topology.get_or_create(made.ids[f'MIXED_SITE_{name}']) for name in ('DISK', 'S3', 'S3_REMOTE'))
    found = [transfer.get_supported_transfertools(source, target, made.tools, session=made.session) for source, target in ((disk, here), (here, there))]
    assert found == [{'fts3'}, {'s3', 'fts3'}]


@pytest.mark.parametrize('name', SITES)
def test_clients_and_the_reaper_never_get_the_entry_of_fts(site, name):
    made = site(name)
    for rse in (each for each in made.ids if '_S3' in each):
        for domain in ('lan', 'wan'):
            for operation in ('read', 'write', 'delete'):
                assert made.entry(rse, operation, domain) == [DEFAULT]


def test_all_files_are_looked_at():
    assert sorted(path.stem for path in ETC.glob('*.cfg')) == sorted([*SITES, 'site-mixed-poller'])


def test_the_poller_of_a_mixed_site_has_a_file_of_its_own():
    """Rucio's poller takes the whole option for the name of one tool, and only the filter keeps it from marking what the copier works on."""
    assert dict(conveyor('site-mixed-poller')) == {'transfertool': 'fts3', 'filter_transfertool': 'fts3'}
    assert conveyor('site-mixed')['transfertool'] == 's3, fts3'
    assert not any('filter_transfertool' in conveyor(name) for name in SITES)
