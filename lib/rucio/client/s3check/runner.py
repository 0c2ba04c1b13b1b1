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

"""Run the trials in the order of their table."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Optional

from botocore.exceptions import BotoCoreError, ClientError

from rucio.common.exception import RucioException
from rucio.common.s3.errors import Target, translate

from . import access, buckets, measured, network, objects, rse, vending
from .subject import Subject
from .trial import FAILED, OK, Outcome, Result, split

if TYPE_CHECKING:
    from rucio.client.client import Client
    from rucio.client.s3client import S3Client


class Trial(NamedTuple):
    """A trial: its function returns what it found, or raises an :class:`Outcome`.

    :param name: The name, as shown to the user.
    :param run: The function.
    :param read_only: True for read-only RSEs only, False for others only, None for both.
    """

    name: str
    run: Callable[[Subject], str]
    read_only: Optional[bool] = False


TRIALS = (
    Trial('protocol', rse.protocol, None),
    Trial('settings', rse.settings, None),
    Trial('path algorithm', rse.path_algorithm),
    Trial('place', rse.overlaps),
    Trial('attributes', rse.attributes),
    Trial('domains', rse.domains),
    Trial('availability', rse.availability),
    Trial('DNS', network.dns, None),
    Trial('connection', network.connection, None),
    Trial('TLS', network.tls, None),
    Trial('clock', network.clock, None),
    Trial('server plugin', access.server_plugin, None),
    Trial('sharing', access.sharing, None),
    Trial('keys of the server', measured.by_server),
    Trial('credentials', access.credentials, None),
    Trial('list and read', objects.list_and_read, read_only=True),
    Trial('bucket', buckets.bucket),
    Trial('bucket policy', buckets.bucket_policy),
    Trial('write and read', objects.write_and_read),
    Trial('multipart', objects.multipart),
    Trial('behaviour', measured.by_client),
    Trial('conditional write', measured.conditional_write),
    Trial('conditional multipart', measured.conditional_multipart),
    Trial('copies', measured.copies),
    Trial('Content-MD5', measured.content_md5),
    Trial('CRC32', measured.crc32),
    Trial('checksum of large files', measured.full_object),
    Trial('deletion', measured.needed_md5),
    Trial('bodies of requests', measured.signed_body),
    Trial('unsigned headers', measured.unsigned_headers),
    Trial('ETags', measured.etags),
    Trial('listing', measured.listing),
    Trial('names', measured.names),
    Trial('presigned URL', objects.presigned_url),
    Trial('lifecycle', buckets.lifecycle),
    Trial('public ACLs', buckets.public_acls),
    Trial('role chaining', vending.role_chaining),
    Trial('event topics', vending.event_topics),
    Trial('vended keys (STS)', partial(vending.offered, auth='vended')),
    Trial('remote signing', partial(vending.offered, auth='remote')),
)


def check(
    client: 'Client', plugin: 'S3Client', rse: str, bucket: Optional[str] = None, write: str = ''
) -> Iterator[Result]:
    """Try everything about one RSE, from this machine and as this account.

    About 550 requests to the storage, by the Rucio server if the account is an admin, and 15 to the Rucio server. Test
    objects are removed at the end, even if the caller does not read all results.

    :param client: The Rucio client.
    :param plugin: The client of the server's S3 plugin.
    :param rse: The RSE.
    :param bucket: The bucket to write to; by default the RSE's bucket, or that of one of the account's scopes.
    :param write: Which settings to write into the RSE if the storage does not do what they say: ``tighten`` for those
        that promise too much, ``loosen`` for all; empty for none.
    :returns: The results, each as soon as it is known.
    :raises RSENotFound: if there is no such RSE.
    """
    subject = Subject(client, plugin, rse, bucket)
    last = Trial('measured settings', partial(measured.settings, write=write))
    try:
        for trial in (*TRIALS, last):
            if trial.read_only in (None, subject.is_read_only):
                yield _tried(trial, subject)
    finally:
        left = subject.used.remove() if subject.used else ''
    if left:
        yield Result('clean-up', FAILED, f'could not be removed: {left}', 'Remove it by hand.')


def _tried(trial: Trial, subject: Subject) -> Result:
    try:
        return Result(trial.name, OK, trial.run(subject))
    except Outcome as outcome:
        return Result(trial.name, outcome.status, outcome.found, outcome.remedy)
    except RucioException as error:
        said = str(error.args[0] if error.args else error)
    except (ClientError, BotoCoreError) as error:
        bucket = subject.used.bucket if subject.used else '*'
        said = str(translate(error, trial.name, Target(subject.rse, bucket)).args[0])
    except OSError as error:
        remedy = 'Check the host name and port of the RSE and the network, and that the storage is running.'
        return Result(trial.name, FAILED, str(error.strerror or error), remedy)
    return Result(trial.name, FAILED, *split(said))
