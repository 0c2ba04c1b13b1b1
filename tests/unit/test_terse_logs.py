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

"""Stock `rucio upload` logs the tracebacks of two exceptions for each error of a protocol: one line is enough."""

import logging

import pytest

from rucio.common.exception import DestinationNotAccessible, RSEOperationNotSupported, RucioException
from rucio.common.logging import formatted_logger
from rucio.common.s3 import terse_logs

SAID = 'The bucket does not exist. Make it.'


@pytest.fixture
def logger():
    made = logging.getLogger('test_terse_logs')
    made.setLevel(logging.INFO)
    yield made
    made.filters.clear()


def put(error):
    raise error from None


def upload(logger, error):
    """As UploadClient does it, with a protocol that raises this error."""
    try:
        try:
            put(error)
        except (OSError, RucioException) as found:
            raise RSEOperationNotSupported(str(found))  # noqa: B904
    except RSEOperationNotSupported as found:
        logger.info(f'Exception: {found}', exc_info=True)  # noqa: G004


@pytest.mark.parametrize('decorated', [False, True])
def test_an_error_is_one_line(logger, caplog, decorated):
    log = formatted_logger(logger.log, 's3.Default: %s') if decorated else logger.log
    error = DestinationNotAccessible(SAID)
    terse_logs.expect(error, log)
    upload(logger, error)
    assert [(each.levelname, each.getMessage(), each.exc_info) for each in caplog.records] == [('ERROR', SAID, None)]
    assert 'Traceback' not in caplog.text


def test_an_error_is_found_behind_another_one_that_it_caused(logger, caplog):
    error, raised = DestinationNotAccessible(SAID), RSEOperationNotSupported('wrapped')
    raised.__cause__ = error
    terse_logs.expect(error, logger.log)
    logger.info('Exception', exc_info=raised)
    assert [each.getMessage() for each in caplog.records] == [SAID]


def test_who_wants_tracebacks_has_them(logger, caplog):
    """``rucio -v``."""
    logger.setLevel(logging.DEBUG)
    error = DestinationNotAccessible(SAID)
    terse_logs.expect(error, logger.log)
    upload(logger, error)
    assert caplog.text.count('Traceback') == 2


def test_the_errors_of_others_are_left_alone(logger, caplog):
    terse_logs.expect(DestinationNotAccessible('an earlier one'), logger.log)
    upload(logger, OSError('of another protocol'))
    logger.warning('a line')
    assert caplog.text.count('Traceback') == 2
    assert caplog.records[-1].getMessage() == 'a line'


def test_the_root_logger_is_that_of_a_client_without_one(caplog):
    root = logging.getLogger()
    before = root.filters[:], root.level
    try:
        root.setLevel(logging.INFO)
        error = DestinationNotAccessible(SAID)
        terse_logs.expect(error, logging.log)
        upload(root, error)
        assert [each.getMessage() for each in caplog.records] == [SAID]
    finally:
        root.filters[:] = before[0]
        root.setLevel(before[1])
