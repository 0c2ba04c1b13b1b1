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

"""Rucio's daemons for `operations`, imported once: without the ten seconds in which each of them waits for others that start at the same time."""

import functools
from collections.abc import Callable
from typing import Any

from rucio.daemons import common

_queue = common.db_workqueue


@functools.wraps(_queue)
def _at_once(*arguments: Any, **options: Any) -> Callable[..., Any]:
    return _queue(*arguments, **{**options, 'partition_wait_time': 0})


common.db_workqueue = _at_once

from rucio.daemons.conveyor import finisher, poller, submitter  # noqa: E402, F401 - they take it from there
from rucio.daemons.judge import evaluator  # noqa: E402, F401
from rucio.daemons.reaper import reaper  # noqa: E402, F401
from rucio.daemons.s3 import copier, reconciler  # noqa: E402, F401

from . import rucio_acts  # noqa: E402, F401
