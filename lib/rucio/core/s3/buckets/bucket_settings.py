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


"""Settings of a bucket: what to do about objects that others changed or removed. They override those of the RSE.

They are stored in the section of the bucket: see :mod:`rucio.core.s3.configs`.
"""

from typing import TYPE_CHECKING, NamedTuple, Optional

from rucio.common.exception import ConfigurationError
from rucio.common.s3.api import DEFAULT
from rucio.common.s3.settings import ON_CHANGED, ON_MISSING
from rucio.core import config
from rucio.core.s3 import configs

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from rucio.core.s3.storages import Storage

__all__ = ['BucketSettings', 'get', 'set_']

_ALLOWED = {'on_changed': ON_CHANGED, 'on_missing': ON_MISSING}


class BucketSettings(NamedTuple):
    """The settings of a bucket; ``own``: those that were set for this bucket, not for the RSE."""

    on_changed: str
    on_missing: str
    own: tuple[str, ...] = ()


def get(storage: 'Storage', bucket: str, *, session: 'Session') -> BucketSettings:
    """Return the settings of a bucket. One query.

    :raises ConfigurationError: if a stored value is not allowed.
    """
    rows = configs.list_rows(storage, _ALLOWED, bucket, session=session)
    own = {row.option: row.value for row in rows if row.option in _ALLOWED}  # not one that only begins like it
    for name, value in own.items():
        if value not in _ALLOWED[name]:
            raise ConfigurationError(
                f"Rucio's settings [{configs.bucket_section(storage, bucket)}]: '{name}' is '{value}', but must be one "
                f'of {", ".join(_ALLOWED[name])}.'
            )
    general = {name: getattr(storage.endpoint, name) for name in _ALLOWED}
    return BucketSettings(**general | own, own=tuple(sorted(own)))


def set_(
    storage: 'Storage',
    bucket: str,
    on_changed: Optional[str] = None,
    on_missing: Optional[str] = None,
    *,
    session: 'Session',
) -> BucketSettings:
    """Change the settings of a bucket. A few queries.

    :param storage: The RSE.
    :param bucket: The bucket.
    :param on_changed: One of ``ON_CHANGED``, or ``default`` for the setting of the RSE; None: do not change it.
    :param on_missing: One of ``ON_MISSING``, ``default`` or None.
    :returns: The new settings.
    """
    section = configs.bucket_section(storage, bucket)
    for name, value in (('on_changed', on_changed), ('on_missing', on_missing)):
        if value == DEFAULT:
            config.remove_option(section, name, session=session)
        elif value is not None:
            config.set(section, name, value, session=session)
    return get(storage, bucket, session=session)
