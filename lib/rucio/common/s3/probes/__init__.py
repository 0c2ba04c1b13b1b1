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

"""What a storage really does: found out by trying, in a bucket or folder made for it.

``rucio s3 check`` compares the answers with the settings of an RSE, and ``make backends`` writes them into
docs/backends.md.

behaviour.py defines a behaviour, place.py where it is tried. writing.py, integrity.py, names.py, objects.py and
signatures.py have the behaviours, verdicts.py says what they mean for the settings.
"""

from collections.abc import Mapping

from . import integrity, names, objects, signatures, writing
from .behaviour import Behaviour
from .place import ProbeBucket, in_bucket_of_its_own, in_folder

__all__ = ['ALL', 'PARTS', 'Behaviour', 'ProbeBucket', 'in_bucket_of_its_own', 'in_folder', 'measure']

# Each part takes some seconds.
PARTS: Mapping[str, tuple[Behaviour, ...]] = {
    name: tuple(each for each in vars(module).values() if isinstance(each, Behaviour))
    for name, module in (
        ('writing', writing),
        ('integrity', integrity),
        ('names', names),
        ('objects', objects),
        ('signatures', signatures),
    )
}
ALL: tuple[Behaviour, ...] = tuple(each for part in PARTS.values() for each in part)


def measure(place: ProbeBucket, part: str = '') -> dict[str, str]:
    """Try what a storage does. All parts: about 500 requests; 30 MiB are sent.

    :param place: Where to try it.
    :param part: One of :data:`PARTS`; empty for all.
    :returns: The name of a behaviour -> what the storage does, in a word or two. What cannot be tried there is left
        out.
    """
    return {str(each): each.measure(place) for each in (PARTS[part] if part else ALL) if place.allows(each)}
