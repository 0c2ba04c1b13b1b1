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

"""Try the RSE in Rucio's catalogue: its protocol, settings and attributes, and whether its keys are unique."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.s3 import credentials, own_config
from rucio.common.s3.endpoint import Endpoint
from rucio.rse import rsemanager
from rucio.rse.protocols.s3 import FTS, Default

from .trial import failed, hint

if TYPE_CHECKING:
    from rucio.rse.protocols.protocol import RSEProtocol

    from .subject import Subject

_OPERATIONS = ('read', 'write', 'delete')
_COPIES = ('third_party_copy_read', 'third_party_copy_write')


def protocol(subject: 'Subject') -> str:
    """Find the protocol of this plugin."""
    foreign = []
    for entry in subject.settings['protocols']:
        impl = entry['impl']
        try:
            made = _make(subject, entry)
        except Exception as error:  # noqa: BLE001 - importing another class may fail in any way
            foreign.append(f'{impl} ({error})' if impl.startswith('rucio.rse.protocols.s3') else impl)
            continue
        if isinstance(made, Default) and not isinstance(made, FTS):
            subject.protocol = made
            return '{scheme}://{hostname}:{port}{prefix}'.format(**entry)
        if not isinstance(made, FTS):  # FTS has its own protocol
            foreign.append(impl)
    if not subject.settings['protocols']:
        raise failed(
            'the RSE has no protocol', f'Add one: rucio s3 rse add {subject.rse} --provider ... --endpoint ...'
        )
    raise failed(
        f'no protocol is of rucio.rse.protocols.s3: {", ".join(foreign)}',
        'Change it: Client().update_protocols(RSE, scheme, hostname=..., port=..., '
        "data={'impl': 'rucio.rse.protocols.s3.Default'})",
    )


def _make(subject: 'Subject', entry: Any) -> 'RSEProtocol':
    """Create the object of a protocol, which Rucio only allows for an operation and domain that it offers."""
    domain = 'wan' if any(entry['domains'].get('wan', {}).values()) else 'lan'
    offered = entry['domains'].get(domain, {})
    operation = next((each for each in (*_OPERATIONS, *_COPIES) if offered.get(each)), 'read')
    return rsemanager.create_protocol(subject.settings, operation, protocol_attr=entry, domain=domain)


def settings(subject: 'Subject') -> str:
    """Read and validate the settings of the RSE."""
    endpoint = subject.endpoint = Endpoint.load(subject.settings, subject.protocol.attributes)
    if unused := own_config.sections_of_no_rse(each['rse'] for each in subject.client.list_rses()):
        raise hint(
            f'rucio.cfg has sections of RSEs that do not exist: {", ".join(unused)}',
            f'Rename or remove them; for this RSE it is [s3:{subject.rse}].',
        )
    if endpoint.provider == 'generic':
        raise hint(
            'provider generic: nothing is known about the storage',
            "Set 'provider' in extended_attributes if it is one of those in docs/settings.md.",
        )
    return f'provider {endpoint.provider}, region {endpoint.signing_region()}, addressing {endpoint.addressing}'


def path_algorithm(subject: 'Subject') -> str:
    """Check that paths and buckets can be derived from the names of files."""
    bucket, folder = subject.own
    if not subject.settings['deterministic']:
        raise hint(
            'the RSE is not deterministic: uploads need a PFN for each file',
            'Use a deterministic RSE, unless there is a reason not to.',
        )
    algorithm = subject.settings.get('lfn2pfn_algorithm') or 'default'
    if algorithm == 's3_bucket':
        return 's3_bucket: a ' + (
            f"folder for each scope in '/{bucket}/{folder}'" if bucket else 'bucket for each scope'
        )
    if not bucket:
        raise failed(
            f"'{algorithm}' with the prefix '/': the first part of each path would be the bucket",
            f'Before the first replica, {_set(subject, "lfn2pfn_algorithm", "s3_bucket")}; or set the prefix /BUCKET/',
        )
    return f"{algorithm} in the bucket '{bucket}'"


def _set(subject: 'Subject', attribute: str, value: str) -> str:
    return f'rucio-admin rse set-attribute --rse {subject.rse} --key {attribute} --value {value}'


def overlaps(subject: 'Subject') -> str:
    """Check whether a key can belong to two scopes or RSEs: deleting one file would delete the other."""
    algorithm = subject.settings.get('lfn2pfn_algorithm') or 'hash'
    if algorithm in ('identity', 'hash') and subject.settings['deterministic']:
        pair = _nested(map(str, subject.client.list_scopes()))
        if pair:
            raise hint(
                f"'{algorithm}' turns the dots in scopes such as {pair[1]} into folders: "
                f'files of {pair[0]} can have the same keys',
                'The Rucio server only gives access to such keys to accounts that may use both scopes. '
                'For a new RSE, use s3_bucket (rucio s3 rse add).',
            )
    if found := subject.described().get('overlaps'):
        raise failed(
            '; '.join(each['why'] for each in found),
            'Give each RSE a bucket_prefix, or a bucket and prefix, that is not a prefix of that of another RSE.',
        )
    return 'no other RSE can have the same keys'


def _nested(scopes: Iterable[str]) -> Optional[tuple[str, str]]:
    """Find two scopes of which one is in the folder of the other, where Rucio turns dots into folders."""
    folders = {scope for scope in scopes if scope.startswith(('user', 'group'))}
    pairs = ((above, scope) for scope in sorted(folders) for above in accumulate(scope.split('.'), '{}.{}'.format))
    return next((pair for pair in pairs if pair[0] != pair[1] and pair[0] in folders), None)


def attributes(subject: 'Subject') -> str:
    """Check the attributes of the RSE."""
    found = subject.client.list_rse_attributes(subject.rse)
    if str(found.get('skip_upload_stat')).lower() not in ('true', '1'):
        raise hint(
            'skip_upload_stat is not set: this costs one more request per upload, and a minute per empty file',
            _set(subject, 'skip_upload_stat', 'True'),
        )
    if not found.get('sign_url'):
        return 'skip_upload_stat'
    if found['sign_url'] != 's3':
        raise failed(
            f"sign_url is '{found['sign_url']}': the server cannot sign for that", _set(subject, 'sign_url', 's3')
        )
    if credentials.choose(replace(subject.endpoint, auth='auto'), None, None, sign_url=True):
        raise hint(
            'sign_url is set, but this client has keys: Rucio requests signatures that are not needed',
            'Remove the attribute if all clients have keys.',
        )
    return 'skip_upload_stat, sign_url'


def domains(subject: 'Subject') -> str:
    """Check which operations the protocol offers."""
    offered = subject.protocol.attributes['domains']
    missing = [
        f'{domain} {operation}'
        for domain in ('lan', 'wan')
        for operation in _OPERATIONS
        if not offered.get(domain, {}).get(operation)
    ]
    if missing:
        raise hint(
            f'not offered: {", ".join(missing)}',
            "Set them to 1 in the protocol's domains, unless they are disabled on purpose "
            '(with null: since Rucio 39, 0 has a higher priority than 1).',
        )
    by = [
        each['scheme']
        for each in subject.settings['protocols']
        if all(each['domains'].get('wan', {}).get(name) for name in _COPIES)
    ]
    copies = f' and third party copies ({", ".join(by)})' if by else '; no third party copies'
    return f'read, write, delete{copies}'


def availability(subject: 'Subject') -> str:
    """Check that the RSE is available for reading, writing and deleting."""
    missing = [each for each in _OPERATIONS if not subject.settings.get(f'availability_{each}', True)]
    if missing:
        raise hint(
            f'switched off: {", ".join(missing)}',
            f'rucio-admin rse update --rse {subject.rse} --setting availability_{missing[0]} --value True',
        )
    return 'read, write, delete'
