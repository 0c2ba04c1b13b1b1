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

"""Find out what the storage of an RSE does, with the keys that the server and its daemons use."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from rucio.common.exception import RSEAccessDenied
from rucio.common.s3 import probes
from rucio.common.s3.address import split_prefix
from rucio.common.s3.endpoint import SERVER_WORK
from rucio.common.s3.errors import Target

if TYPE_CHECKING:
    from rucio.core.s3.storages import Storage

__all__ = ['probe']


def probe(storage: 'Storage', part: str) -> dict[str, Any]:
    """Try what a storage does, in a bucket that is made for it and removed.

    If the keys may not make buckets and the RSE has one bucket, a folder of that is used. Up to 300 requests.

    :param storage: The RSE.
    :param part: One of :data:`rucio.common.s3.probes.PARTS`.
    :returns: bucket, left (what could not be removed) and answers (name of the behaviour, answer).
    :raises RucioException: if nothing can be written.
    """
    try:
        return _measured(probes.in_bucket_of_its_own(storage.with_short_timeouts.connection(), SERVER_WORK), part)
    except RSEAccessDenied:
        bucket, folder = split_prefix(storage.protocol['prefix'])
        if not bucket or not storage.layout.deterministic:  # a foreign bucket is not written to
            raise
        target = Target(storage.rse, bucket, folder)
        return _measured(probes.in_folder(storage.with_short_timeouts.connection(), target, SERVER_WORK), part)


def _measured(made: AbstractContextManager[probes.ProbeBucket], part: str) -> dict[str, Any]:
    with made as place:
        answers = probes.measure(place, part)
    found = [{'behaviour': name, 'answer': answer} for name, answer in answers.items()]
    return {'bucket': place.bucket, 'left': place.left, 'answers': found}
