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
One copy with gfal2, as a worker of FTS (fts_url_copy of FTS 3.14.4) does it: step by step, what is there and what has arrived it finds out itself,
and gfal2 only copies. Run by the system's own Python, for which the distribution has gfal2.

What to do comes in by stdin, as JSON: source, destination, options (group -> name -> value: gfal2's configuration, with the keys of the
storages), overwrite, timeout (seconds), checksum (mode, type, value) or null. What became of it goes out by stdout: code (0, or an errno),
message (as FTS says it: which end, the errno, the reason).
"""

import contextlib
import errno
import json
import os
import posixpath
import sys
from urllib.parse import urlsplit, urlunsplit

import gfal2


class Failure(Exception):
    def __init__(self, end, code, reason):
        super().__init__(f'{end} [{code}] {reason}')
        self.code = code


def _context(options):
    context = gfal2.creat_context()
    for group, values in options.items():
        for name, value in values.items():
            if isinstance(value, bool):
                context.set_opt_boolean(group, name, value)
            else:
                context.set_opt_string(group, name, value)
    return context


def _step(end, function, *arguments):
    try:
        return function(*arguments)
    except gfal2.GError as error:
        raise Failure(end, error.code, error.message) from error


def _exists(context, url):
    try:
        context.access(url, os.F_OK)
    except gfal2.GError as error:
        if error.code == errno.ENOENT:
            return False
        raise Failure('DESTINATION', error.code, error.message) from error
    return True


def _make_parent(context, destination):
    parts = urlsplit(destination)
    parent = urlunsplit(parts._replace(path=posixpath.dirname(parts.path)))
    if not _exists(context, parent):
        try:
            context.mkdir_rec(parent, 0o775)
        except gfal2.GError as error:
            if error.code != errno.EEXIST:
                raise Failure('DESTINATION', error.code, error.message) from error


def _prepare(context, task):
    """What is there is deleted before anything is copied."""
    if not _exists(context, task['destination']):
        _make_parent(context, task['destination'])
    elif task['overwrite']:
        _step('DESTINATION', context.unlink, task['destination'])
    else:
        raise Failure('DESTINATION', errno.EEXIST, 'Destination file exists and overwrite is not enabled')


def _clean_up(context, task):
    with contextlib.suppress(gfal2.GError):
        context.unlink(task['destination'])


def _transfer(context, task):
    parameters = context.transfer_parameters()
    parameters.strict_copy, parameters.create_parent, parameters.overwrite = True, False, False
    parameters.timeout = task['timeout']
    try:
        context.filecopy(parameters, task['source'], task['destination'])
    except gfal2.GError as error:
        if error.code != errno.EEXIST:
            _clean_up(context, task)
        raise Failure('TRANSFER', error.code, error.message) from error


def _differ(one, other):
    return bool(one and other) and one.lstrip('0').lower() != other.lstrip('0').lower()


def _copy(task):
    context, source, destination = _context(task['options']), task['source'], task['destination']
    mode, kind, value = task['checksum'] or ('none', '', '')
    size = _step('SOURCE', context.stat, source).st_size
    if mode in ('source', 'both'):
        found = _step('SOURCE', context.checksum, source, kind)
        if _differ(found, value):
            raise Failure('SOURCE', errno.EIO, f'Source and user-defined {kind} checksum do not match ({found} != {value})')
    _prepare(context, task)
    _transfer(context, task)
    wrong = None
    if _step('DESTINATION', context.stat, destination).st_size != size:
        wrong = Failure('DESTINATION', errno.EINVAL, 'Source and destination file size mismatch')
    elif mode in ('target', 'both'):
        arrived, expected = _step('DESTINATION', context.checksum, destination, kind), value or (found if mode == 'both' else '')
        if _differ(arrived, expected):
            wrong = Failure('DESTINATION', errno.EIO, f'User-defined and destination {kind} checksum do not match ({expected} != {arrived})')
    if wrong:
        _clean_up(context, task)
        raise wrong


def main():
    outcome = {'code': 0, 'message': ''}
    try:
        _copy(json.load(sys.stdin))
    except Failure as failure:
        outcome = {'code': failure.code, 'message': str(failure)}
    json.dump(outcome, sys.stdout)


if __name__ == '__main__':
    main()
