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

"""Measure what the storage does, compare it with the settings, and write the settings if that is wanted."""

import copy
from typing import TYPE_CHECKING, Any

from rucio.common.exception import AccessDenied, RSEAccessDenied, RSEOperationNotSupported, RucioException
from rucio.common.s3 import probes
from rucio.common.s3.errors import Target
from rucio.common.s3.probes import verdicts

from .trial import change, compared, failed, hint, skipped, split

if TYPE_CHECKING:
    from .subject import Subject


def by_server(subject: 'Subject') -> str:
    """Let the server measure with the keys that it and its daemons use. Only for admins of Rucio."""
    if not subject.described().get('auth'):
        raise skipped('the server has none')
    answers: dict[str, str] = {}
    left: set[str] = set()
    try:
        for part in probes.PARTS:
            told = subject.plugin.probe_s3_rse(subject.rse, part)
            answers |= {each['behaviour']: each['answer'] for each in told['answers']}
            left |= {told['left']} - {''}
    except RSEOperationNotSupported:
        raise skipped('the server has an older version') from None
    except AccessDenied as error:
        if isinstance(error, RSEAccessDenied):
            raise
        raise skipped('only an admin of Rucio can try them') from None
    subject.answers = answers
    if left:
        raise failed(f'could not be removed: {", ".join(sorted(left))}', 'Remove it by hand.')
    return 'a bucket was made, used and removed'


def by_client(subject: 'Subject') -> str:
    """Measure with the credentials of this client, unless the server has done it."""
    if subject.answers:
        return f'{len(subject.answers)} behaviours, measured by the server'
    scratch, connection = subject.written, subject.connection
    folder = probes.in_folder(connection, Target(subject.rse, scratch.bucket, subject.target.key))
    if connection.authorizer.name == 'static':
        try:
            place = _measured(subject, probes.in_bucket_of_its_own(connection))
        except RucioException:  # these keys may not make buckets
            place = _measured(subject, folder)
    else:
        place = _measured(subject, folder)
    if place.left:
        raise failed(f'could not be removed: {place.left}', 'Remove it by hand.')
    return f"{len(subject.answers)} behaviours, measured in '{place.bucket}/{place.folder}'"


def _measured(subject: 'Subject', made: Any) -> probes.ProbeBucket:
    with made as place:
        subject.answers = probes.measure(place)
    return place  # type: ignore[no-any-return]


def _earned(subject: 'Subject', setting: str) -> Any:
    """Return the value that the storage earns.

    :raises Outcome: if it was not measured.
    """
    found = verdicts.earned(subject.answers).get(setting)
    if found is None:
        raise skipped('not measured: nothing could be written, or these credentials are not enough')
    return found


def conditional_write(subject: 'Subject') -> str:
    """Compare what the storage does with If-None-Match of PutObject."""
    harm = 'the storage overwrites, or two writers at once both succeed'
    return compared(
        subject.endpoint,
        'conditional_put',
        _earned(subject, 'conditional_put'),
        'If-None-Match of PutObject',
        harm,
    )


def conditional_multipart(subject: 'Subject') -> str:
    """Compare what the storage does with If-None-Match of CompleteMultipartUpload."""
    what, measured = 'If-None-Match of CompleteMultipartUpload', _earned(subject, 'conditional_multipart')
    found = compared(subject.endpoint, 'conditional_multipart', measured, what, 'the storage overwrites')
    if measured and subject.answers.get('complete_race') == 'several win':
        return f'{found}, but of writers at the same moment several succeed'
    return found


def copies(subject: 'Subject') -> str:
    """Compare which requests can have If-None-Match, and whether the storage copies."""
    measured, used = _earned(subject, 'if_none_match'), subject.endpoint.if_none_match
    refused = [name for name in used if name not in measured]
    if refused:
        remedy = change('if_none_match', ' '.join(name for name in used if name in measured))
        raise hint(
            f'the storage refuses If-None-Match of {", ".join(refused)}: each such request is sent twice, or relayed',
            f'{remedy} A HEAD is then sent before.',
        )
    for name, what in (('copy_odd', 'CopyObject'), ('part_copy', 'UploadPartCopy')):
        answer = subject.answers.get(name, 'yes')
        if answer != 'yes':
            return f'{what}: {answer}. Transfers by rules pass through rucio-s3-copier'
    return 'inside the storage, also in parts'


def content_md5(subject: 'Subject') -> str:
    """Compare whether a wrong Content-MD5 is rejected."""
    return _verified(subject, 'md5')


def crc32(subject: 'Subject') -> str:
    """Compare whether a wrong CRC32 is rejected, and what boto3 sends is understood."""
    sent = subject.answers.get('crc32_as_sent', 'yes')
    if sent != 'yes' and subject.endpoint.checksum == 'crc32':
        raise failed(f'the CRC32 that boto3 adds is refused: {sent}', change('checksum', 'md5'))
    found = _verified(subject, 'crc32')
    if found == _REJECTED and subject.endpoint.checksum == 'none':
        raise hint('is verified by the storage, but checksum is none', change('checksum', 'crc32'))
    return found


_REJECTED = 'a wrong one is rejected'
_INSTEAD = {
    'md5': "Set checksum = crc32 in extended_attributes if that works (below), else 'none'.",
    'crc32': change('checksum', 'md5'),
}


def _verified(subject: 'Subject', checksum: str) -> str:
    used = subject.endpoint.checksum
    answers = [subject.answers.get(f'wrong_{checksum}{part}', '') for part in ('', '_of_a_part')]
    if not all(answers):
        raise skipped('not measured')
    if all(answer.startswith('400') for answer in answers):
        return _REJECTED
    if used == checksum:
        raise failed('a wrong one is accepted: uploads are not verified', _INSTEAD[checksum])
    return f'a wrong one is accepted; checksum = {used} does not use it'


def needed_md5(subject: 'Subject') -> str:
    """Tell whether DeleteObjects needs Content-MD5, which is always sent."""
    answer = subject.answers.get('without_md5')
    if answer is None:
        raise skipped('not measured')
    if subject.answers.get('delete_objects', 'yes') != 'yes':
        raise hint(
            f'DeleteObjects is refused: {subject.answers["delete_objects"]}',
            'Objects are deleted one by one; that is slower.',
        )
    return 'DeleteObjects works' + ('' if answer == 'yes' else f', and needs Content-MD5 (without it: {answer})')


def signed_body(subject: 'Subject') -> str:
    """Compare whether the storage verifies the signed hash of a body."""
    return compared(
        subject.endpoint,
        'verifies_body',
        _earned(subject, 'verifies_body'),
        'the signed hash of a body',
        'DeleteObjects is accepted with other keys than those that were signed, '
        'so anybody who can write to a folder could delete the whole bucket',
        'saves requests',
    )


def unsigned_headers(subject: 'Subject') -> str:
    """Compare which unsigned headers the storage obeys with the guards of signatures."""
    missing = [name for name in _earned(subject, 'signature_guards') if name not in subject.endpoint.signature_guards]
    if missing:
        raise failed(
            f'the storage obeys headers that are not signed: {", ".join(missing)}',
            change('signature_guards', ' '.join((*subject.endpoint.signature_guards, *missing))),
        )
    return 'none is obeyed, or the server prevents it'


def full_object(subject: 'Subject') -> str:
    """Compare whether the storage keeps a CRC32 of a whole multipart object."""
    measured, endpoint = _earned(subject, 'full_object_checksum'), subject.endpoint
    what = 'ChecksumType FULL_OBJECT of multipart uploads'
    if endpoint.checksum != 'crc32':
        return f'{what}: not used, as checksum is {endpoint.checksum}'
    harm, gain = 'the storage keeps no CRC32 of the whole object', 'verifies downloads of large files'
    return compared(endpoint, 'full_object_checksum', measured, what, harm, gain)


def etags(subject: 'Subject') -> str:
    """Compare whether the ETag is the MD5 of an object."""
    harm = 'the reconciler would compare checksums with what is none'
    measured = _earned(subject, 'etag_is_md5')
    return compared(subject.endpoint, 'etag_is_md5', measured, 'an ETag that is the MD5', harm)


def listing(subject: 'Subject') -> str:
    """Compare whether listings are sorted."""
    harm = 'the reconciler would take objects for missing'
    measured = _earned(subject, 'sorted_listing')
    gain = 'saves the reconciler sorting on disk'
    return compared(subject.endpoint, 'sorted_listing', measured, 'a sorted listing', harm, gain)


_NAMES = {
    'double_slash': 'a//b',
    'dot': 'a/./b',
    'dot_dot': 'a/../b',
    'long_segment': '300 characters without a slash',
    'space_plus_percent': 'blanks, + and %',
    'unicode_key': 'letters beyond ASCII',
    'below_another': 'a beside a/b',
    'case': 'a beside A',
}


def names(subject: 'Subject') -> str:
    """Tell which names the storage changes or refuses."""
    seen = {name: subject.answers[name] for name in _NAMES if name in subject.answers}
    if not seen:
        raise skipped('not measured')
    odd = [f'{_NAMES[name]} ({answer})' for name, answer in seen.items() if answer != 'yes']
    return f'not all names can be used: {", ".join(odd)}' if odd else 'all names can be used'


def settings(subject: 'Subject', write: str = '') -> str:
    """Compare all settings, and write those that differ if that is wanted.

    :param subject: The RSE.
    :param write: ``tighten``: those that promise too much; ``loosen``: all; empty: none.
    """
    if not subject.answers:
        raise skipped('not measured')
    found = verdicts.differences(subject.endpoint, subject.answers)
    wanted = [each for each in found if each.tightens or write == 'loosen'] if write else []
    if wanted:
        _write(subject, wanted)
        return f'written: {_shown(wanted)}'
    if not found:
        return 'the settings say what the storage does'
    tighter, looser = ([each for each in found if each.tightens is which] for which in (True, False))
    ways = [f'rucio s3 check {subject.rse} --tighten sets {_shown(tighter)}.'] if tighter else []
    ways += [f'rucio s3 check {subject.rse} --loosen sets {_shown(looser)}.'] if looser else []
    raise hint(f'differ from what the storage does: {_shown(found)}', ' '.join(ways))


def _shown(found: list[verdicts.Difference]) -> str:
    return ', '.join(f'{each.setting} = {_text(each.measured)}' for each in found)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ' '.join(value) or "''"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _write(subject: 'Subject', wanted: list[verdicts.Difference]) -> None:
    """Write settings into the protocol of the RSE. One request.

    :raises AccessDenied: if the account is not an admin of Rucio.
    """
    entry = subject.protocol.attributes
    attributes = copy.deepcopy(entry.get('extended_attributes') or {})
    values = {
        each.setting: list(each.measured) if isinstance(each.measured, tuple) else each.measured for each in wanted
    }
    attributes['s3'] = {**(attributes.get('s3') or {}), **values}
    try:
        subject.client.update_protocols(
            subject.rse,
            entry['scheme'],
            {'extended_attributes': attributes},
            hostname=entry['hostname'],
            port=entry['port'],
        )
    except AccessDenied as error:
        raise failed(*split(str(error.args[0] if error.args else error))) from None
