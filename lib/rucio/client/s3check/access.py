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

"""Try how the account is authorised: what the server's plugin offers, and which credentials there are."""

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import RSENotFound, RSEOperationNotSupported
from rucio.common.s3.errors import Target, translate
from rucio.common.s3.secrecy import is_private

from .trial import failed, hint, skipped, split

if TYPE_CHECKING:
    from rucio.common.s3.clients import Connection

    from .subject import Subject

_WRONG_KEYS = (
    'ExpiredToken',
    'InvalidAccessKeyId',
    'InvalidClientTokenId',
    'InvalidToken',
    'SignatureDoesNotMatch',
    'XAdminUserNotFound',
)
_CREDENTIALS = {
    'static': 'keys of this machine',
    'vended': 'keys vended by the Rucio server',
    'remote': 'requests signed by the Rucio server',
}


def server_plugin(subject: 'Subject') -> str:
    """Ask the server's plugin which ways of authorisation it offers for the RSE."""
    try:
        offered = subject.plugin.get_s3_rse(subject.rse).get('auth')
    except RSEOperationNotSupported:
        raise hint(
            'the Rucio server has no S3 plugin, so clients need keys',
            'Set [api] endpoints_add = s3 in the rucio.cfg of the server, with rucio-s3 installed there.',
        ) from None
    except RSENotFound:
        raise hint(
            'the plugin does not serve this RSE', "Check the server's log, and the RSE's settings on the server."
        ) from None
    if not offered:
        raise hint(
            'the server has no keys for this RSE',
            f"Put them into the server's rse-accounts.cfg, under the RSE id {subject.settings['id']}.",
        )
    if not is_private(subject.plugin.host):
        raise hint(
            'the Rucio server is not reached by https: anyone who listens on the network can read your Rucio token',
            'Set rucio_host and auth_host in rucio.cfg to https URLs.',
        )
    return f'offers {", ".join(offered)}'


def _need_good_keys(subject: 'Subject', connection: 'Connection') -> None:
    """Refuse keys that the storage does not accept. That they may not list buckets is no reason."""
    try:
        connection.client.list_buckets()
    except ClientError as error:
        if error.response.get('Error', {}).get('Code') in _WRONG_KEYS:
            said = str(translate(error, 'credentials', Target(subject.rse, '*')).args[0])
            raise failed(*split(said)) from None
    except BotoCoreError:
        return  # another trial says that it cannot be reached


def sharing(subject: 'Subject') -> str:
    """Ask whether the database has the table of grants: without it no grant is valid."""
    there = subject.described().get('sharing')
    if there is None:
        raise skipped('the server has an older version')
    if not there:
        raise hint(
            'the database of the Rucio server lacks the table of grants: nothing can be shared, and no grant is valid',
            'Run rucio-s3-database on the Rucio server.',
        )
    return 'collections can be shared'


def credentials(subject: 'Subject') -> str:
    """Find the credentials that this client would use."""
    connection = subject.protocol.connection()
    authorizer = connection.authorizer
    if not authorizer.whole_objects_only:
        if authorizer.name == 'static':
            _need_good_keys(subject, connection)
        subject.connection = connection
        return _CREDENTIALS.get(authorizer.name, authorizer.name)
    if not subject.settings.get('sign_url'):
        raise failed(
            'there are none',
            f'Put keys into rucio.cfg [s3:{subject.rse}], or into the rse-accounts.cfg of a server with the S3 plugin; '
            'or set the RSE attribute sign_url = s3.',
        )
    subject.signed_urls = True
    return 'signed URLs (attribute sign_url), which only allow GET, PUT and DELETE of one object'
