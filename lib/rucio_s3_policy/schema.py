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

"""The schema of names: Rucio's own, without names that leave the directory into which Rucio's download writes them.

It also applies to datasets and containers, whose names become directories.
"""

import copy
from typing import Any

from rucio.common.config import config_get_bool

if config_get_bool('common', 'multi_vo', default=False, check_config_table=False):
    from rucio.common.schema import generic_multi_vo as _base
    from rucio.common.schema.generic_multi_vo import *  # noqa: F403
else:
    from rucio.common.schema import generic as _base  # type: ignore[no-redef]
    from rucio.common.schema.generic import *  # noqa: F403

# As rucio.common.s3.address.leaves_directory has it. The "$" of Rucio's pattern would let a line feed pass.
_INSIDE = r'^(?!//)(?!(?:.*/)?\.{1,2}(?:/|$))'

_name: dict[str, Any] = dict(_base.NAME)
_name['pattern'] = f'{_INSIDE}{_name["pattern"]}\\Z'
NAME = _name

# Up to Rucio 40 the other schemas have that of names in them, from 41 on a reference to it.
SCHEMAS = copy.deepcopy(_base.SCHEMAS, {id(_base.NAME): NAME})
