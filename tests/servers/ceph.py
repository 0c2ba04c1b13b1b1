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

"""Ceph's RADOS gateway, where Debian's packages are installed: one monitor, one OSD, one gateway or two, all in one directory."""

import copy
import json
import os
import platform
import secrets
import shutil
import socket
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from . import documented
from .boto import plain_client
from .ca import CA
from .files import clean_environment, write_private
from .ports import free_port
from .process import TIMEOUT, Process, ServerError, tail

COMMANDS = ('ceph-mon', 'ceph-osd', 'monmaptool', 'radosgw', 'radosgw-admin')
PACKAGES = 'radosgw ceph-mon ceph-osd ceph-common'
SYSTEM = Path('/')

# No keys inside of the cluster: only this machine reaches it. radosgw asks the monitor for a "secure" connection unless told
# otherwise, and without keys there is none.
_CONF = """
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{monitor}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
ms_bind_ipv6 = false
ms_bind_msgr1 = false
ms_bind_msgr2 = true
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_cluster_mode = crc
ms_service_mode = crc
ms_client_mode = crc
ms_mon_cluster_mode = crc
ms_mon_service_mode = crc
ms_mon_client_mode = crc
run_dir = {directory}
admin_socket =
pid_file =
keyring = {directory}/none.keyring
crash_dir = {directory}/crash
log_file = {directory}/$type.log
mon_cluster_log_file = {directory}/cluster.log
mon_data = {directory}/mon
osd_data = {directory}/osd
rgw_data = {directory}/rgw
osd_objectstore = memstore
osd_class_dir = {libraries}/rados-classes
plugin_dir = {libraries}/ceph
erasure_code_dir = {libraries}/ceph/erasure-code
osd_max_object_name_len = 2048
osd_max_object_namespace_len = 256
memstore_device_bytes = {size}
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_memory_target = 1073741824
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_warn = 1
mon_data_avail_crit = 0
mon_osd_nearfull_ratio = .95
mon_osd_backfillfull_ratio = .96
mon_osd_full_ratio = .97
paxos_propose_interval = 0.05
paxos_min_wait = 0.02

[client]
rgw_rados_pool_pg_num_min = 1

[client.rgw]
log_file = {directory}/rgw.log
rgw_frontends = {frontend}
rgw_enable_apis = {apis}
rgw_dns_name = localhost
rgw_thread_pool_size = 64
rgw_s3_auth_use_sts = true
rgw_sts_key = {sts_key}
rgw_sts_min_session_duration = 1
rgw_override_bucket_index_max_shards = 1
rgw_dynamic_resharding = false
rgw_gc_obj_min_wait = 10
rgw_gc_processor_period = 10
"""

_CAPABILITIES = 'users=*;buckets=*;metadata=*;usage=*;zone=*;roles=*;user-policy=*;oidc-provider=*'


def unpacked(suite: str) -> Path:
    """Where `make ceph` unpacks the Ceph of another Debian release."""
    return Path(os.environ.get('RUCIO_S3_TEST_CEPH', '/nonexistent'), suite).absolute()


# That of all tests that do not say which: the system's, or an unpacked one (RUCIO_S3_TEST_CEPH_SUITE=sid).
USUAL = unpacked(os.environ['RUCIO_S3_TEST_CEPH_SUITE']) if os.environ.get('RUCIO_S3_TEST_CEPH_SUITE') else SYSTEM


def missing(root: Path = USUAL) -> str:
    """Why there can be no Ceph here, or nothing."""
    absent = [name for name in COMMANDS if not _path(name, root)]
    if not absent:
        return ''
    if root == SYSTEM:
        return f'{", ".join(absent)} not installed (Debian: apt-get install --no-install-recommends {PACKAGES})'
    return f'{root} has no {", ".join(absent)} (`make ceph` unpacks it; RUCIO_S3_TEST_CEPH names the folder)'


def version(root: Path = SYSTEM) -> str:
    # ceph version 18.2.7 (...) reef (stable)
    return subprocess.run([_path('radosgw', root) or 'radosgw', '--version'], capture_output=True, text=True, check=True).stdout.split()[2]


def _programs(root: Path) -> str:
    return '/usr/sbin:/usr/bin:/sbin:/bin' if root == SYSTEM else str(root / 'programs')


def _path(command: str, root: Path) -> str | None:
    return shutil.which(command, path=_programs(root))


class CephRGW:
    """
    A Ceph cluster with an S3 gateway on a free port of 127.0.0.1; use it in a `with`, or start() and stop() it.

    It is the gateway that operators are told to give to users; `private` is the one that is for the Rucio server alone. Its objects are in
    memory. The role `role_arn` may do all, and only the admin's own keys may assume it.

    :param root: the folder with another version than the system's.
    :param tls: https with this CA's server certificate; http without.
    """

    provider = 'ceph'
    region = 'us-east-1'
    hostname = '127.0.0.1'
    role_arn = 'arn:aws:iam:::role/RucioVending'
    chainable_role_arn = 'arn:aws:iam:::role/RucioChainable'  # keys of a role that the admin assumed can take it: for attacks
    user_arn = 'arn:aws:iam:::user/{s3-user}'

    def __init__(self, directory: 'str | os.PathLike[str]', *, size: int = 8 * 1024**3, root: Path = USUAL, tls: CA | None = None) -> None:
        self.directory = Path(directory).absolute()
        self.access_key = 'admin'
        self.secret_key = secrets.token_hex(20)
        self.size = size
        self.tls = tls
        self.scheme = 'https' if tls else 'http'
        self._root = root
        self.port, self._monitor = free_port(), free_port()
        self._processes: list[Process] = []

    def __enter__(self) -> 'CephRGW':
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f'{self.scheme}://{self.hostname}:{self.port}'

    @property
    def ca_bundle(self) -> Path | None:
        """What a client verifies the gateway with."""
        return self.tls.bundle if self.tls else None

    def start(self) -> None:
        """Return when the admin's keys can list buckets and the role is there."""
        for name in ('mon', 'osd', 'rgw', 'crash'):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / 'none.keyring').touch()
        libraries = self._root / f'usr/lib/{platform.machine()}-linux-gnu'
        values = {'fsid': uuid4(), 'monitor': self._monitor, 'frontend': self._frontend, 'directory': self.directory, 'size': self.size, 'libraries': libraries}
        write_private(self._conf, _CONF.format(**values, sts_key=secrets.token_hex(8), apis=documented.ceph_topics()[0]))
        self._run('monmaptool', '--create', '--clobber', '--fsid', str(values['fsid']), '--addv', 'a', f'[v2:127.0.0.1:{self._monitor}]', 'monmap')
        self._run('ceph-mon', '-c', str(self._conf), '-i', 'a', '--mkfs', '--monmap', 'monmap')
        self._launch('ceph-mon', '-f', '-c', str(self._conf), '-i', 'a').wait(lambda: _listens(self._monitor), TIMEOUT)
        osd = str(uuid4())
        self._add_osd(osd)
        self._run('ceph-osd', '-c', str(self._conf), '-i', '0', '--mkfs', '--osd-uuid', osd)
        self._launch('ceph-osd', '-f', '-c', str(self._conf), '-i', '0')
        # This makes the pools, too: two programs that do it at the same time get into each other's way.
        keys = {'user_id': 'rucio', 'display_name': 'rucio', 'keys': [{'user': 'rucio', 'access_key': self.access_key, 'secret_key': self.secret_key}]}
        self._run(
            'radosgw-admin', '-c', str(self._conf), '-n', 'client.rgw', 'user', 'create', '--uid=rucio', '--display-name=rucio', f'--caps={_CAPABILITIES}'
        )
        user = json.loads(self._run('radosgw-admin', '-c', str(self._conf), '-n', 'client.rgw', 'metadata', 'get', 'user:rucio'))
        user['data']['keys'] = keys['keys']
        self._run('radosgw-admin', '-c', str(self._conf), '-n', 'client.rgw', 'metadata', 'put', 'user:rucio', stdin=json.dumps(user))
        self._start_gateway()
        self._make_roles()

    @property
    def release(self) -> int:
        """16 (Pacific), 18 (Reef), 20 (Tentacle)."""
        return int(version(self._root).partition('.')[0])

    def restart(self) -> None:
        """SIGKILL to the gateway, and return when it works again. The cluster behind it goes on: what it holds is in memory."""
        self._gateway.kill()
        self._processes.remove(self._gateway)
        self._start_gateway()

    def _add_osd(self, osd: str) -> None:
        """One `ceph` in a few of version 18 waits forever, although the monitor answers others."""
        for last in (False, False, True):
            try:
                self._run('ceph', '-c', str(self._conf), 'osd', 'new', osd, timeout=TIMEOUT / 8)
                break
            except subprocess.TimeoutExpired:
                if last:
                    raise

    def _start_gateway(self) -> None:
        self._gateway = self._launch('radosgw', '-f', '-c', str(self._conf), '-n', 'client.rgw')
        client = self.client(connect_timeout=1, read_timeout=10, retries={'total_max_attempts': 1})
        self._gateway.wait(lambda: _works(client), TIMEOUT)

    @cached_property
    def private(self) -> 'CephRGW':
        """The same by a gateway that has the API for topics and notifications, too. It is started for who asks first, in half a second."""
        made = copy.copy(self)
        made.port = free_port()
        folder = self.directory / f'rgw-{made.port}'
        folder.mkdir()
        apis = f'{documented.ceph_topics()[0]}, notifications'
        options = [f'--rgw_frontends={made._frontend}', f'--rgw_enable_apis={apis}', f'--rgw_data={folder}']
        gateway = self._launch('radosgw', '-f', '-c', str(self._conf), '-n', 'client.rgw', *options, f'--log_file={folder}/rgw.log')
        gateway.wait(lambda: _listens(made.port), TIMEOUT)
        return made

    def stop(self) -> None:
        """End it; nobody needs its data."""
        for process in reversed(self._processes):
            process.kill()
        self._processes.clear()

    def client(self, service: str = 's3', **config: Any) -> Any:
        """A boto3 client that reads nobody's ~/.aws or AWS_PROFILE. The keywords are botocore.config.Config's."""
        # Before Reef it answers aws-chunked bodies with 411.
        return plain_client(self, service, **{'request_checksum_calculation': 'when_required', **config})

    def admin(self, *arguments: str) -> str:
        """What radosgw-admin says."""
        return self._run('radosgw-admin', '-c', str(self._conf), '-n', 'client.rgw', *arguments)

    @property
    def _frontend(self) -> str:
        where = f'endpoint={self.hostname}:{self.port} tcp_nodelay=1'
        return f'beast ssl_{where} ssl_certificate={self.tls.certificate} ssl_private_key={self.tls.key}' if self.tls else f'beast {where}'

    @property
    def _conf(self) -> Path:
        return self.directory / 'ceph.conf'

    @property
    def _environment(self) -> dict[str, str]:
        return {**clean_environment(self.directory), 'PATH': '/usr/sbin:/usr/bin:/sbin:/bin'}

    @cached_property
    def user_keys(self) -> tuple[str, str]:
        """The keys of a user `own` who can do nothing, unless a bucket's policy allows it. Made for who asks first."""
        keys = ('own', secrets.token_hex(20))
        self.admin('user', 'create', '--uid=own', '--display-name=own', f'--access-key={keys[0]}', f'--secret-key={keys[1]}')
        return keys

    def _make_roles(self) -> None:
        """The role that operators are told to make, and one for attacks."""
        iam = self.client('iam')
        trust, may = documented.ceph_policies()
        chainable = json.dumps({'Version': '2012-10-17', 'Statement': json.loads(trust)['Statement'][:1]}, separators=(',', ':'))  # Ceph takes no blanks
        for arn, policy in ((self.role_arn, trust), (self.chainable_role_arn, chainable)):
            name = arn.rpartition('/')[2]
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy, MaxSessionDuration=43200)
            iam.put_role_policy(RoleName=name, PolicyName='all', PolicyDocument=may)

    def _launch(self, command: str, *arguments: str) -> Process:
        process = Process(
            command, [_path(command, self._root) or command, *arguments], env=self._environment, cwd=self.directory, log=self.directory / f'{command}.out'
        )
        process.start()
        self._processes.append(process)
        return process

    def _run(self, command: str, *arguments: str, stdin: str = '', timeout: float = TIMEOUT) -> str:
        log = self.directory / 'setup.log'
        with log.open('ab') as errors:
            done = subprocess.run(
                [_path(command, self._root) or command, *arguments],
                env=self._environment,
                cwd=self.directory,
                input=stdin.encode(),
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=timeout,
                check=False,
            )
        if done.returncode:
            raise ServerError(f'{command} {arguments[-1]}: exit code {done.returncode}. The end of its log, {log}:\n{tail(log)}')
        return done.stdout.decode()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def _works(client: Any) -> bool:
    try:
        client.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True
