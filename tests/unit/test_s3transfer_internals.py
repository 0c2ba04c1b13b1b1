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
"""What s3transfer does not promise, and this project relies on: each test fails when that changes."""

import threading
from types import SimpleNamespace

import pytest
from s3transfer.futures import TransferFuture
from s3transfer.utils import ChunksizeAdjuster

from rucio.common.s3 import s3transfer_internals as internals

MiB = 1024**2


class Client:
    """Answers as a storage would, and notes what it is asked for."""

    def __init__(self, **answers):
        self.asked = []
        self.held = threading.Event()
        self.held.set()
        self.reached = threading.Event()
        self._answers = {
            'create_multipart_upload': {'UploadId': 'u'},
            'upload_part': {'ETag': '"e"'},
            'upload_part_copy': {'CopyPartResult': {'ETag': '"e"'}},
            **answers,
        }
        self.meta = SimpleNamespace(
            config=SimpleNamespace(request_checksum_calculation='when_required'),
            events=SimpleNamespace(register=lambda *_, **__: None, register_first=lambda *_, **__: None, register_last=lambda *_, **__: None),
        )

    def __getattr__(self, name):
        def call(**arguments):
            self.asked.append(name)
            if name == 'upload_part':
                self.reached.set()
                assert self.held.wait(30)
                arguments['Body'].read()
            return self._answers.get(name, {})

        return call


class Source:
    def on_queued(self, future, **_):
        internals.tell_of_source(future, 20 * MiB, '"e"')


class OnePass:
    """Can only be read on."""

    def __init__(self, size):
        self.left = size

    def read(self, amount=-1):
        given = self.left if amount < 0 else min(amount, self.left)
        self.left -= given
        return bytes(given)


CONFIG = {'multipart_threshold': 5 * MiB, 'multipart_chunksize': 5 * MiB, 'max_request_concurrency': 1, 'max_in_memory_upload_chunks': 1}


@pytest.mark.parametrize(
    ('wanted', 'size', 'expected'),
    [(8 * MiB, 100 * MiB, 8 * MiB), (MiB, 100 * MiB, 5 * MiB), (8 * MiB, 100_000 * MiB, 10 * MiB), (8 * MiB, 100_001 * MiB, 11 * MiB)],
)
def test_parts_are_as_large_as_s3_wants_them(wanted, size, expected):
    assert internals.part_size(wanted, size) == expected
    assert ChunksizeAdjuster().adjust_chunksize(expected, size) == expected  # what the manager makes of it


def test_the_manager_makes_parts_of_that_size():
    client = Client()
    with internals.manager(client, **CONFIG) as manager:
        manager.upload(OnePass(20 * MiB), 'b', 'k', {}, [internals.subscriber(Source())]).result()
    assert client.asked == ['create_multipart_upload', *['upload_part'] * 4, 'complete_multipart_upload']
    assert internals.part_size(CONFIG['multipart_chunksize'], 20 * MiB) == 5 * MiB


def test_of_a_source_that_is_known_nothing_is_asked():
    client = Client()
    with internals.manager(client, **CONFIG) as manager:
        manager.copy({'Bucket': 'b', 'Key': 'k'}, 'b', 'k2', {}, [internals.subscriber(Source())]).result()
    assert client.asked == ['create_multipart_upload', *['upload_part_copy'] * 4, 'complete_multipart_upload']


def test_the_thread_of_a_cancelled_transfer_ends_after_its_clean_up():
    client = Client()
    client.held.clear()
    manager = internals.manager(client, **CONFIG)
    future = manager.upload(OnePass(20 * MiB), 'b', 'k', {}, [internals.subscriber(Source())])
    assert isinstance(future, TransferFuture)
    assert client.reached.wait(30)
    cleanup = internals.begin_to_stop(manager)
    assert cleanup.is_alive()  # it waits for the request under way
    client.held.set()
    cleanup.join(30)
    assert not cleanup.is_alive()
    assert future.done()
    assert client.asked[-1] == 'abort_multipart_upload'
    assert client.asked.count('upload_part') < 4
