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

"""Put one file, as a process that can be killed: the arguments are a file with the RSE as JSON, the local file and the PFN."""

import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from s3transfer.futures import TransferCoordinator

from rucio.rse import rsemanager


def main() -> None:
    rse, source, pfn, on_interrupt = sys.argv[1:]

    def interrupted(*_: object) -> None:
        if on_interrupt == 'exit':  # as Rucio's own command line does
            sys.exit(3)
        raise KeyboardInterrupt

    def cancel(*arguments: Any) -> None:
        stock_cancel(*arguments)
        # Only now: a test that lets the storage go on any earlier may see the upload completed.
        sys.stdout.write('interrupted\n')
        sys.stdout.flush()

    stock_cancel, TransferCoordinator.cancel = TransferCoordinator.cancel, cancel
    if on_interrupt == 'default':  # also under nohup
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
    else:
        signal.signal(signal.SIGINT, interrupted)
    logging.basicConfig(level=logging.DEBUG)
    protocol = rsemanager.create_protocol(json.loads(Path(rse).read_text()), 'write')
    protocol.connect()
    protocol.put(source, pfn)


if __name__ == '__main__':
    main()
