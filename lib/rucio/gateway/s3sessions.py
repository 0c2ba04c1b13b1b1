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

"""Sessions of the database for what is mostly answered without it: one costs as much as all else in a signature."""

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

__all__ = ['read_if_needed']


class _Later:
    """A session that is opened when it is first used."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __getattr__(self, name: str) -> Any:
        if '_session' not in vars(self):
            self._session = self._stack.enter_context(db_session(DatabaseOperationType.READ))
        return getattr(self._session, name)


@contextmanager
def read_if_needed() -> 'Iterator[Session]':
    """Return a session to read, as ``db_session`` does. It is opened when it is first used.

    :raises DatabaseException: in the block or at its end, as ``db_session`` does.
    """
    with ExitStack() as stack:
        yield cast('Session', _Later(stack))
