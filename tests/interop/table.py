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

"""The table of tools and operations in docs/clients.md: what is run for it, and how it is written and read."""

import re
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / 'docs' / 'clients.md'
OPERATIONS = ('ls', 'put', 'get', 'large put', 'copy', 'move', 'delete', 'recursive delete', 'range', 'presign', 'sync')
STORAGES = ('SeaweedFS', 'Ceph')
CONTENT = b'0123456789'
# {u} is the folder as the tool names it, {s3} its URL, {dir} a local directory with the files small and large and the directory tree.
COMMANDS = {
    'aws': {
        'ls': 'aws s3 ls {s3}/ls/',
        'put': 'aws s3 cp {dir}/small {s3}/put',
        'get': 'aws s3 cp {s3}/get {dir}/got',
        'large put': 'aws s3 cp {dir}/large {s3}/large',
        'copy': 'aws s3 cp {s3}/copy {s3}/copied',
        'move': 'aws s3 mv {s3}/move {s3}/moved',
        'delete': 'aws s3 rm {s3}/delete',
        'recursive delete': 'aws s3 rm --recursive {s3}/all/',
        'range': 'aws s3api get-object --bucket {bucket} --key {folder}/get --range bytes=2-4 {dir}/ranged',
        'presign': 'aws s3 presign {s3}/get',
        'sync': 'aws s3 sync {dir}/tree {s3}/sync',
    },
    'mc': {
        'ls': 'mc ls {alias}/{u}/ls/',
        'put': 'mc cp {dir}/small {alias}/{u}/put',
        'get': 'mc cp {alias}/{u}/get {dir}/got',
        'large put': 'mc cp {dir}/large {alias}/{u}/large',
        'copy': 'mc cp {alias}/{u}/copy {alias}/{u}/copied',
        'move': 'mc mv {alias}/{u}/move {alias}/{u}/moved',
        'delete': 'mc rm {alias}/{u}/delete',
        'recursive delete': 'mc rm --recursive --force {alias}/{u}/all/',
        'range': 'mc cat --offset 2 {alias}/{u}/get >{dir}/ranged',
        'presign': 'mc share download --expire 10m {alias}/{u}/get | sed -n "s/^Share: //p"',
        'sync': 'mc mirror {dir}/tree {alias}/{u}/sync',
    },
    'rclone': {
        'ls': 'rclone lsf {alias}:{u}/ls/',
        'put': 'rclone copyto {dir}/small {alias}:{u}/put',
        'get': 'rclone copyto {alias}:{u}/get {dir}/got',
        'large put': 'rclone copyto --s3-upload-cutoff 8M {dir}/large {alias}:{u}/large',
        'copy': 'rclone copyto {alias}:{u}/copy {alias}:{u}/copied',
        'move': 'rclone moveto {alias}:{u}/move {alias}:{u}/moved',
        'delete': 'rclone deletefile {alias}:{u}/delete',
        'recursive delete': 'rclone delete {alias}:{u}/all',
        'range': 'rclone cat --offset 2 --count 3 {alias}:{u}/get >{dir}/ranged',
        'presign': 'rclone link --expire 10m {alias}:{u}/get',
        'sync': 'rclone sync {dir}/tree {alias}:{u}/sync',
    },
    's5cmd': {
        'ls': 's5cmd ls {s3}/ls/',
        'put': 's5cmd cp {dir}/small {s3}/put',
        'get': 's5cmd cp {s3}/get {dir}/got',
        'large put': 's5cmd cp --part-size 8 {dir}/large {s3}/large',
        'copy': 's5cmd cp {s3}/copy {s3}/copied',
        'move': 's5cmd mv {s3}/move {s3}/moved',
        'delete': 's5cmd rm {s3}/delete',
        'recursive delete': "s5cmd rm '{s3}/all/*'",
        'presign': 's5cmd presign --expire 10m {s3}/get',
        'sync': 's5cmd sync {dir}/tree/ {s3}/sync/',
    },
    's3cmd': {
        'ls': 's3cmd ls {s3}/ls/',
        'put': 's3cmd put {dir}/small {s3}/put',
        'get': 's3cmd get {s3}/get {dir}/got',
        'large put': 's3cmd put --multipart-chunk-size-mb=8 {dir}/large {s3}/large',
        'copy': 's3cmd cp {s3}/copy {s3}/copied',
        'move': 's3cmd mv {s3}/move {s3}/moved',
        'delete': 's3cmd del {s3}/delete',
        'recursive delete': 's3cmd del --recursive --force {s3}/all/',
        'presign': 's3cmd signurl {s3}/get +600',
        'sync': 's3cmd sync {dir}/tree/ {s3}/sync/',
    },
}
_OF_LIBRARIES = {'boto3': ('move', 'sync'), 's3fs': ('sync',), 'obstore': ('sync',), 'pyarrow': ('presign', 'sync')}
for _library, _without in _OF_LIBRARIES.items():
    COMMANDS[_library] = {
        each: "{python} {steps} LIBRARY '{each}' {bucket} {folder} {dir}".replace('LIBRARY', _library).replace('{each}', each)
        for each in OPERATIONS
        if each not in _without
    }
NONE = '—'
_CODES = re.compile(r'\b(Access ?Denied|ACCESS_DENIED|NotImplemented|InvalidRequest|MethodNotAllowed|SignatureDoesNotMatch|NoSuchKey|[45]0\d)\b')
_SPELLINGS = dict.fromkeys(('Access Denied', 'ACCESS_DENIED'), 'AccessDenied')
_START, _END = '<!-- tools -->\n', '<!-- end of tools -->'


def seen(direct: str, served: str) -> str:
    """A cell: what was seen directly at the storage, and through the endpoint of `rucio s3 exec`."""
    if direct == served:
        return direct
    return f'direct: {direct}' if served == 'yes' else f'{direct}; endpoint: {served}'


def failure(log: str) -> str:
    """Why a tool failed, in a word."""
    found = _CODES.search(log)
    return f'no ({_SPELLINGS.get(found[1], found[1])})' if found else 'no'


def read(storage: str) -> dict[tuple[str, str], str]:
    """The cells of a storage on the page, by tool and operation."""
    text = PAGE.read_text()
    part = text[text.index(_START) : text.index(_END)].partition(f'### {storage}\n')[2].partition('### ')[0]
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in part.splitlines() if line.startswith('|')]
    return {(tool, row[0]): cell for row in rows[2:] for tool, cell in zip(rows[0][1:], row[1:], strict=True)}


def write(storage: str, cells: Mapping[tuple[str, str], str]) -> None:
    """Write the cells of a storage to the page; those of tools that are not here stay as they are."""
    text = PAGE.read_text()
    start, end = text.index(_START) + len(_START), text.index(_END)
    tables = {each: {**read(each), **(cells if each == storage else {})} for each in STORAGES}
    parts = [f'\n### {each}\n\n{_table(found)}' for each, found in tables.items() if found]
    PAGE.write_text(text[:start] + ''.join(parts) + '\n' + text[end:])


def _table(cells: Mapping[tuple[str, str], str]) -> str:
    rows = [['', *COMMANDS], ['---'] * (len(COMMANDS) + 1)]
    rows += [[operation, *(cells.get((tool, operation), 'not measured') for tool in COMMANDS)] for operation in OPERATIONS]
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows)
