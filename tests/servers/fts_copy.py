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

"""
One copy with gfal2, as a worker of FTS does it. Run by the system's own Python, for which the distribution has gfal2.

What to do comes in by stdin, as JSON: source, destination, options (group -> name -> value: gfal2's configuration, with the keys of the
storages), overwrite, timeout (seconds), checksum (mode, type, value) or null. What became of it goes out by stdout: code (0, or an errno),
message.
"""

import json
import sys

import gfal2


def _context(options):
    context = gfal2.creat_context()
    for group, values in options.items():
        for name, value in values.items():
            if isinstance(value, bool):
                context.set_opt_boolean(group, name, value)
            else:
                context.set_opt_string(group, name, value)
    return context


def _copy(task):
    context = _context(task['options'])
    parameters = context.transfer_parameters()
    parameters.overwrite = task['overwrite']
    parameters.create_parent = True
    parameters.timeout = task['timeout']
    if task['checksum']:
        mode, kind, value = task['checksum']
        parameters.set_checksum(getattr(gfal2.checksum_mode, mode), kind, value)
    context.filecopy(parameters, task['source'], task['destination'])


def main():
    task = json.load(sys.stdin)
    outcome = {'code': 0, 'message': ''}
    try:
        _copy(task)
    except gfal2.GError as error:
        outcome = {'code': error.code, 'message': error.message}
    json.dump(outcome, sys.stdout)


if __name__ == '__main__':
    main()
