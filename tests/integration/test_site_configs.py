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

"""The sites in etc, by stock Rucio: `rucio-admin data import`, daemons with their rucio.cfg, real storages and real gfal2."""

import configparser
import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servers import fts as gfal
from servers.ca import CA
from servers.cli import RucioCli, add_user, s3_keys
from servers.files import command_path, config_text, merged, write_private
from servers.fts import FTS, S3Keys
from servers.rucio_server import COPIER, RucioServer
from servers.seaweedfs import SeaweedFS
from servers.webdav import WebDAV

ETC = Path(__file__).resolve().parents[2] / 'etc'
SITES = ['site-with-fts', 'site-without-fts', 'site-mixed']
SCOPE = 'user.olga'
LOCAL = {'read': 1, 'write': 1, 'delete': 1}
TPC = {'third_party_copy_read': 1, 'third_party_copy_write': 1}
# As docs/transfers.md has it.
POLLER = r's/^transfertool *=.*/transfertool = fts3\nfilter_transfertool = fts3/'

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(gfal.missing()), reason=gfal.missing())]


def sections(name: str) -> dict[str, dict[str, object]]:
    """What a file of etc adds to rucio.cfg."""
    parser = configparser.ConfigParser()
    assert parser.read(ETC / f'{name}.cfg')
    return {section: dict(parser[section]) for section in parser.sections()}


@dataclass
class World:
    """All three sites on one server, each with a rucio.cfg of its own, on the same two storages and one disk."""

    server: RucioServer
    root: RucioCli
    olga: RucioCli
    fts: FTS
    storages: dict[str, SeaweedFS]

    def daemon(self, site: str, command: str, *options: str) -> str:
        """Run one of Rucio's daemons with the rucio.cfg of a site."""
        done = subprocess.run(
            [command_path(command), *options, '--run-once'],
            env={**self.server.environment, 'RUCIO_CONFIG': str(self.server.directory / 'etc' / f'{site}.cfg')},
            cwd=self.server.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert 'Traceback' not in said, said
        return said

    def upload(self, rse: str, name: str) -> str:
        """A file of 100,000 bytes; its MD5."""
        path = self.olga.directory / 'file'
        path.write_bytes(os.urandom(100_000))
        done = self.olga.rucio('upload', '--rse', rse, '--scope', SCOPE, '--lfn', name, str(path))
        assert 'Successfully uploaded file' in done.stdout + done.stderr, done.stdout + done.stderr
        return hashlib.md5(path.read_bytes()).hexdigest()

    def add_rule(self, name: str, source: str, rse: str) -> str:
        return self.olga.call('add_replication_rule', [{'scope': SCOPE, 'name': name}], 1, rse, source_replica_expression=source)[0]

    def is_kept(self, rule: str) -> bool:
        """Whether a rule is satisfied; what FTS says if not."""
        reasons = [copy.reason for job in self.fts.jobs.values() for copy in job.copies if copy.reason]
        assert reasons == []
        return bool(self.olga.call('get_replication_rule', rule)['state'] == 'OK')

    def md5(self, rse: str, name: str) -> str:
        """Of what is really there."""
        return hashlib.md5(self.storages[rse].client().get_object(Bucket=SCOPE, Key=name)['Body'].read()).hexdigest()


def adapted(name: str, storages: dict[str, SeaweedFS], disk: WebDAV, fts: str) -> dict[str, Any]:
    """A site's RSEs, after an operator has put in what is theirs: hosts, providers, the URL of FTS."""
    content: dict[str, Any] = json.loads(ETC.joinpath('rse_configs', f'{name}.json').read_text())
    for rse, definition in content['rses'].items():
        if 'fts' in definition['attributes']:
            definition['attributes']['fts'] = fts
        if rse.endswith('_DISK'):
            (davs,) = definition['protocols']
            davs |= {'hostname': disk.hostname, 'port': disk.port, 'prefix': '/', 'domains': {'wan': TPC}}
            file = {'scheme': 'file', 'hostname': 'localhost', 'port': 0, 'prefix': f'{disk.data}/', 'impl': 'rucio.rse.protocols.posix.Default'}
            definition['protocols'].append({**file, 'domains': {'lan': LOCAL, 'wan': LOCAL}})  # olga's client has no gfal2
            continue
        storage = storages[rse]
        for protocol in definition['protocols']:
            protocol |= {'hostname': host(storage), 'port': storage.port}
        main = definition['protocols'][0]
        main |= {'scheme': storage.scheme, 'extended_attributes': {'s3': {'provider': 'seaweedfs', 'region': storage.region}}}
        if storage.scheme == 'http' and 'fts' not in definition['attributes']:  # Rucio pairs http with http alone
            davs = {**main, 'scheme': 'davs', 'impl': 'rucio.rse.protocols.s3.FTS', 'domains': {'wan': TPC}}
            definition['protocols'].append(davs)
    return content


def trust(ca: CA, directory: Path) -> Path:
    """Certificates as gfal2 looks for them: by a hash of whom they are of."""
    done = subprocess.run(['openssl', 'x509', '-hash', '-noout', '-in', str(ca.bundle)], capture_output=True, text=True, check=True)
    (directory / f'{done.stdout.strip()}.0').write_bytes(ca.bundle.read_bytes())
    return directory


def host(storage: SeaweedFS) -> str:
    """FTS tells storages by their host names."""
    return 'localhost' if storage.scheme == 'https' else '127.0.0.1'


@pytest.fixture(scope='module')
def grid(tmp_path_factory: pytest.TempPathFactory, ca: CA, plain: SeaweedFS, tls: SeaweedFS) -> Iterator[World]:
    make = tmp_path_factory.mktemp
    storages = {rse: tls if rse.endswith('_REMOTE') else plain for name in SITES for rse in definitions(name) if '_S3' in rse}
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(WebDAV(make('disk'), ca))
        keys = [S3Keys(host(storage), storage.access_key, storage.secret_key) for storage in (plain, tls)]
        fts = stack.enter_context(FTS(make('fts'), keys, ca=trust(ca, make('trust'))))
        config = {'s3': {'ca_bundle': ca.bundle}, 'common': {'loglevel': 'DEBUG'}}
        server = stack.enter_context(RucioServer(make('rucio'), config))
        root = RucioCli.root(make('root'), server)
        for name in SITES:
            file = server.directory / f'{name}.json'
            file.write_text(json.dumps(adapted(name, storages, disk, fts.url)))
            root.admin('data', 'import', str(file))
            write_cfg(server, name)
        poller = server.directory / 'etc' / 'site-mixed-poller.cfg'
        made = subprocess.run(['sed', POLLER, str(server.directory / 'etc' / 'site-mixed.cfg')], capture_output=True, text=True, check=True)
        write_private(poller, made.stdout)
        found = configparser.ConfigParser()
        assert found.read(poller)
        assert {**found['conveyor']} == {**sections('site-mixed')['conveyor'], **sections('site-mixed-poller')['conveyor']}
        own = {}
        for rse, storage in storages.items():
            server.set_rse_keys(root.call('get_rse', rse)['id'], storage.access_key, storage.secret_key)
            own |= s3_keys(rse, storage)
        rses = [rse for name in SITES for rse in definitions(name)]
        olga = add_user(root, make('olga'), 'olga', scopes=[SCOPE], rses=rses, config=own)
        yield World(server, root, olga, fts, storages)


def definitions(name: str) -> list[str]:
    return list(json.loads(ETC.joinpath('rse_configs', f'{name}.json').read_text())['rses'])


def write_cfg(server: RucioServer, site: str) -> None:
    """A site's rucio.cfg: what Rucio needs anyway, and what the file of etc adds."""
    base = configparser.ConfigParser()
    assert base.read(server.directory / 'etc' / 'rucio.cfg')
    text = config_text(merged({name: dict(base[name]) for name in base.sections()}, sections(site)))
    write_private(server.directory / 'etc' / f'{site}.cfg', text)


def test_with_fts(grid: World, unique: str) -> None:
    site, name = 'site-with-fts', f'{unique}/https-davs.dat'
    md5 = grid.upload('FTS_SITE_DISK', name)
    rule = grid.add_rule(name, 'FTS_SITE_DISK', 'FTS_SITE_S3_REMOTE')
    assert 'transfertool(fts3)' in grid.daemon(site, 'rucio-conveyor-submitter')
    grid.fts.wait()
    grid.daemon(site, 'rucio-conveyor-poller', '--older-than', '0')
    grid.daemon(site, 'rucio-conveyor-finisher')
    assert grid.is_kept(rule)
    assert grid.md5('FTS_SITE_S3_REMOTE', name) == md5


def test_without_fts_no_poller_is_needed(grid: World, unique: str) -> None:
    site, name = 'site-without-fts', f'{unique}/file'
    client = grid.storages['PLAIN_SITE_S3'].client()
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=SCOPE)
    md5 = grid.upload('PLAIN_SITE_S3', name)
    rule = grid.add_rule(name, 'PLAIN_SITE_S3', 'PLAIN_SITE_S3_REMOTE')
    assert 'transfertool(s3)' in grid.daemon(site, 'rucio-conveyor-submitter')
    assert ': relayed, ' in grid.daemon(site, *COPIER)
    grid.daemon(site, 'rucio-conveyor-finisher')
    assert grid.is_kept(rule)
    assert grid.md5('PLAIN_SITE_S3_REMOTE', name) == md5


def test_mixed(grid: World, unique: str) -> None:
    site, name = 'site-mixed', f'{unique}/file'
    md5 = grid.upload('MIXED_SITE_DISK', name)
    rule = grid.add_rule(name, 'MIXED_SITE_DISK', 'MIXED_SITE_S3')
    assert 'transfertool(fts3)' in grid.daemon(site, 'rucio-conveyor-submitter')
    grid.fts.wait()
    # With the rucio.cfg of the others the poller would leave it to somebody else; when it no longer does, site-mixed-poller.cfg may go.
    assert 'because of mismatched transfertool' in grid.daemon(site, 'rucio-conveyor-poller', '--older-than', '0')
    grid.daemon('site-mixed-poller', 'rucio-conveyor-poller', '--older-than', '0')
    grid.daemon(site, 'rucio-conveyor-finisher')
    assert grid.is_kept(rule)
    assert grid.md5('MIXED_SITE_S3', name) == md5

    rule = grid.add_rule(name, 'MIXED_SITE_S3', 'MIXED_SITE_S3_REMOTE')
    jobs = len(grid.fts.jobs)
    assert 'transfertool(s3)' in grid.daemon(site, 'rucio-conveyor-submitter')
    assert 'Polling' not in grid.daemon('site-mixed-poller', 'rucio-conveyor-poller', '--older-than', '0')
    assert ': relayed, ' in grid.daemon(site, *COPIER)
    grid.daemon(site, 'rucio-conveyor-finisher')
    assert len(grid.fts.jobs) == jobs
    assert grid.is_kept(rule)
    assert grid.md5('MIXED_SITE_S3_REMOTE', name) == md5
