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

"""The RSE in Rucio's catalogue: its protocol, settings and attributes, and whether its files have keys of their own."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.s3 import credentials
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
    foreign = []
    for entry in subject.settings['protocols']:
        impl = entry['impl']
        try:
            made = _make(subject, entry)
        except Exception as error:  # noqa: BLE001 - another class may fail to be imported in any way
            foreign.append(f'{impl} ({error})' if impl.startswith('rucio.rse.protocols.s3') else impl)
            continue
        if isinstance(made, Default) and not isinstance(made, FTS):
            subject.protocol = made
            return '{scheme}://{hostname}:{port}{prefix}'.format(**entry)
        if not isinstance(made, FTS):  # FTS's own view of the storage
            foreign.append(impl)
    if not subject.settings['protocols']:
        raise failed('the RSE has no protocol', f'rucio s3 rse add {subject.rse} --provider ... --endpoint ...')
    raise failed(
        f'no protocol is of rucio.rse.protocols.s3: {", ".join(foreign)}',
        'Change it: Client().update_protocols(RSE, scheme, hostname=..., port=..., '
        "data={'impl': 'rucio.rse.protocols.s3.Default'})",
    )


def _make(subject: 'Subject', entry: Any) -> 'RSEProtocol':
    """Rucio makes an object of an entry only for an operation and a domain that it is for."""
    domain = 'wan' if any(entry['domains'].get('wan', {}).values()) else 'lan'
    offered = entry['domains'].get(domain, {})
    operation = next((each for each in (*_OPERATIONS, *_COPIES) if offered.get(each)), 'read')
    return rsemanager.create_protocol(subject.settings, operation, protocol_attr=entry, domain=domain)


def settings(subject: 'Subject') -> str:
    endpoint = subject.endpoint = Endpoint.load(subject.settings, subject.protocol.attributes)
    if endpoint.provider == 'generic':
        raise hint(
            'provider generic: nothing is known of the storage',
            "Set 'provider' in extended_attributes, if it is one of those in docs/settings.md.",
        )
    region = endpoint.region or endpoint.default_region
    return f'provider {endpoint.provider}, region {region}, addressing {endpoint.addressing}'


def path_algorithm(subject: 'Subject') -> str:
    bucket, folder = subject.own
    if not subject.settings['deterministic']:
        raise hint(
            'the RSE is not deterministic: uploads need a PFN for each file',
            'Make a deterministic RSE, unless you know why.',
        )
    algorithm = subject.settings.get('lfn2pfn_algorithm') or 'default'
    if algorithm == 's3_bucket':
        return 's3_bucket: a ' + (
            f"folder for each scope in '/{bucket}/{folder}'" if bucket else 'bucket for each scope'
        )
    if not bucket:
        raise failed(
            f"'{algorithm}' with the prefix '/': the first part of each path would be the bucket",
            f'Before the first replica: {_set(subject, "lfn2pfn_algorithm", "s3_bucket")}; or the prefix /BUCKET/',
        )
    return f"{algorithm} in the bucket '{bucket}'"


def _set(subject: 'Subject', attribute: str, value: str) -> str:
    return f'rucio-admin rse set-attribute --rse {subject.rse} --key {attribute} --value {value}'


def overlaps(subject: 'Subject') -> str:
    """Whether a key can be that of two scopes or RSEs: what is deleted as the one is gone as the other."""
    algorithm = subject.settings.get('lfn2pfn_algorithm') or 'hash'
    if algorithm in ('identity', 'hash') and subject.settings['deterministic']:
        pair = _nested(map(str, subject.client.list_scopes()))
        if pair:
            raise hint(
                f"'{algorithm}' makes folders of the dots in scopes such as {pair[1]}: "
                f'files of {pair[0]} can have the same keys',
                'The Rucio server grants access to such keys only to accounts that may use both scopes. '
                'For a new RSE take s3_bucket (rucio s3 rse add).',
            )
    if found := subject.described().get('overlaps'):
        raise failed(
            '; '.join(each['why'] for each in found),
            'Give each RSE a bucket_prefix, or a bucket and prefix, that is not the beginning of that of another.',
        )
    return 'no other RSE can have the same keys'


def _nested(scopes: Iterable[str]) -> Optional[tuple[str, str]]:
    """Two scopes of which one lies in the folder of the other, where Rucio makes folders of dots."""
    folders = {scope for scope in scopes if scope.startswith(('user', 'group'))}
    pairs = ((above, scope) for scope in sorted(folders) for above in accumulate(scope.split('.'), '{}.{}'.format))
    return next((pair for pair in pairs if pair[0] != pair[1] and pair[0] in folders), None)


def attributes(subject: 'Subject') -> str:
    found = subject.client.list_rse_attributes(subject.rse)
    if str(found.get('skip_upload_stat')).lower() not in ('true', '1'):
        raise hint(
            'skip_upload_stat is not set: a request more for each upload, and a minute for each empty file',
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
            'sign_url is set, but this client has keys: Rucio asks for signatures that nobody needs',
            'Remove the attribute where clients have keys.',
        )
    return 'skip_upload_stat, sign_url'


def domains(subject: 'Subject') -> str:
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
            "Set them to 1 in the protocol's domains, unless they are left out on purpose "
            '(by null: from Rucio 39 on 0 comes before 1).',
        )
    by = [
        each['scheme']
        for each in subject.settings['protocols']
        if all(each['domains'].get('wan', {}).get(name) for name in _COPIES)
    ]
    copies = f' and third party copies ({", ".join(by)})' if by else '; no third party copies'
    return f'read, write, delete{copies}'


def availability(subject: 'Subject') -> str:
    missing = [each for each in _OPERATIONS if not subject.settings.get(f'availability_{each}', True)]
    if missing:
        raise hint(
            f'switched off: {", ".join(missing)}',
            f'rucio-admin rse update --rse {subject.rse} --setting availability_{missing[0]} --value True',
        )
    return 'read, write, delete'
