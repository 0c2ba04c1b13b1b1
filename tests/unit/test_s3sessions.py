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

"""A session of the database is opened when it is needed, and closed in any case."""

import pytest

pytest.importorskip('sqlalchemy', reason='rucio-clients has no server')

from sqlalchemy import text

from rucio.common.exception import DatabaseException
from rucio.gateway import s3sessions
from rucio.gateway.s3sessions import read_if_needed


@pytest.fixture
def opened(monkeypatch):
    """The sessions that were opened, and those that are open."""
    every, still = [], []

    def counted(operation, original=s3sessions.db_session):
        made = original(operation)
        enter, leave = made.__enter__, made.__exit__

        class Counted:
            def __enter__(self):
                every.append(self)
                still.append(self)
                return enter()

            def __exit__(self, *why):
                still.remove(self)
                return leave(*why)

        return Counted()

    monkeypatch.setattr(s3sessions, 'db_session', counted)
    return every, still


def test_none_is_opened_that_is_not_used(opened):
    with read_if_needed():
        pass
    assert opened == ([], [])


def test_one_is_opened_for_all_that_is_asked(database, opened):
    with read_if_needed() as session:
        assert session.execute(text('SELECT 1')).scalar() == 1
        assert session.execute(text('SELECT 2')).scalar() == 2
        assert session.get_bind() is database
        assert len(opened[1]) == 1
    assert (len(opened[0]), opened[1]) == (1, [])


def test_errors_are_those_of_rucio(database, opened):
    with pytest.raises(DatabaseException), read_if_needed() as session:
        session.execute(text('SELECT nothing'))
    with pytest.raises(ZeroDivisionError), read_if_needed() as session:
        divmod(1, session.execute(text('SELECT 0')).scalar())
    assert (len(opened[0]), opened[1]) == (2, [])
