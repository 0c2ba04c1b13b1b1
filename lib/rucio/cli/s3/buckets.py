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


"""``rucio s3 make-bucket``, ``remove-bucket``, ``ls`` and ``du``."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypeVar, cast

import click

from rucio.cli.s3 import did_argument, is_robot, rse_option, s3_client, say, size, table
from rucio.cli.s3.missing import Missing
from rucio.cli.s3.sharing import list_shares
from rucio.common.exception import (
    AccessDenied,
    DataIdentifierNotFound,
    DestinationNotAccessible,
    InvalidObject,
    RSEAccessDenied,
    RSENotFound,
    RSEOperationNotSupported,
    RucioException,
    SourceNotFound,
)
from rucio.common.s3.endpoint import Patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client as Boto3S3

    from rucio.common.s3 import api
    from rucio.common.s3.objects import Listed

__all__ = ['du', 'ls', 'make_bucket', 'remove_bucket']

Answer = TypeVar('Answer')

LISTING = Patience(3, 10, 2)  # a storage that hangs must not stop the others for long
_ASKED_AT_ONCE = 500  # DIDs
_NAME = re.compile(r'[/A-Za-z0-9][/A-Za-z0-9._-]{0,249}')  # of Rucio's generic schema; the catalogue has no others
_UNKNOWN = 'no'  # the state of a replica that is not in the catalogue
_MADE = {
    'bucket': ('Made the bucket {bucket} on {rse}.', 'The bucket {bucket} already exists on {rse}.'),
    'dataset': ('Registered the dataset {did}.', 'The dataset {did} is already registered.'),
    'rule': ('Added a rule that keeps {did} on {rse}.', 'There is already a rule that keeps {did} on {rse}.'),
    'lifecycle': ('The storage will remove unfinished multipart uploads.', ''),
    'events': ('Subscribed to its events: the catalogue will follow within seconds.', ''),
    'cors': ("Pages of the operator's origins can use it in browsers.", ''),
}
_REMOVED = {
    'objects': 'Objects deleted from {rse}: {number}.',
    'replicas': 'Replicas removed from the catalogue: {number}.',
    'rules': 'Rules removed: {number}.',
    'datasets': 'Datasets that will be removed from the catalogue: {number}.',
    'bucket': 'Removed the bucket {bucket} from {rse}.',
}


@click.command('make-bucket')
@did_argument()
@rse_option()
@click.pass_context
def make_bucket(ctx: click.Context, did: tuple[str, str], rse: Optional[str]) -> None:
    """Make the bucket of a scope, and optionally a dataset in it.

    With a name, the dataset SCOPE:NAME is registered with a rule; objects below NAME/ are its files. The command can be
    run again.
    """
    scope, name = did
    done = s3_client(ctx).make_bucket(scope, name or None, rse)
    made: Mapping[str, Any] = done['made']
    for warning in done['warnings']:
        say(f'WARNING {warning}', err=True)
    if is_robot(ctx):
        table(ctx, [[what, done['rse'], done['bucket'], 'made' if new else 'there'] for what, new in made.items()], [])
        return
    for what, texts in _MADE.items():
        if what in made and (name or what not in ('dataset', 'rule')):
            _say(texts[0 if made[what] else 1], done, scope, name)
    say(f'Its URL is {done["url"]}.')


@click.command('remove-bucket')
@did_argument()
@rse_option()
@click.option('--force', is_flag=True, help='Delete the content as well.')
@click.pass_context
def remove_bucket(ctx: click.Context, did: tuple[str, str], rse: Optional[str], force: bool) -> None:
    """Remove the bucket of a scope, or with a name only that collection.

    A bucket or collection that is not empty is kept unless --force is given. The bucket is removed with its last
    collection.
    """
    scope, name = did
    removed: dict[str, int] = {}
    finished = False
    while not finished:  # a large bucket takes several calls
        done = s3_client(ctx).remove_bucket(scope, name or None, rse, force)
        finished, counts = done['finished'], cast('dict[str, int]', done['removed'])
        for what, number in counts.items():
            removed[what] = removed.get(what, 0) + number
    if is_robot(ctx):
        table(ctx, [[what, done['rse'], done['bucket'], number] for what, number in removed.items()], [])
        return
    for what, text in _REMOVED.items():
        if removed.get(what):
            _say(text, done, scope, name, removed[what])
    if not any(removed.values()):
        say('There was nothing to remove.')


def _say(text: str, done: Mapping[str, Any], scope: str, name: str, number: Any = 0) -> None:
    if text:
        say(text.format(bucket=done['bucket'], rse=done['rse'], did=f'{scope}:{name}', number=number))


@click.command('ls')
@did_argument(required=False)
@rse_option()
@click.option('--short', is_flag=True, help='Show only the names.')
@click.option('--shared', is_flag=True, help='List what others share with you, and what you share.')
@click.pass_context
def ls(ctx: click.Context, did: Optional[tuple[str, str]], rse: Optional[str], short: bool, shared: bool) -> None:
    """List buckets, or the content of a bucket or collection.

    Without a DID it lists buckets, and the collections that others share with you; for a SCOPE the content of its
    bucket; for SCOPE:NAME the keys of the collection; of both only what is shared with you, if you may not read all of
    it. The column CATALOGUE shows the state of the replica in Rucio, or
    `no` for objects that are not in the catalogue, and the storage class of archived objects, which must be restored
    before they can be read.
    """
    if shared and did:
        raise click.UsageError(f'--shared takes no DID. To see with whom it is shared: rucio s3 grants {":".join(did)}')
    if shared:
        list_shares(ctx, rse, short)
        return
    missing = Missing()
    rows, headers, numbers = _rows(ctx, did, rse, missing)
    if any(len(row) > len(headers) for row in rows):
        headers.append('RSE')
    if short:
        for name in dict.fromkeys(str(row[0] or row[1]) for row in rows):
            say(name)
    else:
        table(ctx, rows, headers, numbers)
        if did and did[1] and not is_robot(ctx) and any(str(row[2]).partition(',')[0] == _UNKNOWN for row in rows):
            say(f'Rucio does not know some of these objects. To register them: rucio s3 reconcile {did[0]}', err=True)
    missing.tell()


def _rows(
    ctx: click.Context, did: Optional[tuple[str, str]], rse: Optional[str], missing: Missing
) -> tuple[list[list[Any]], list[str], list[int]]:
    """Return the rows of a listing, its headers, and the numbers of the columns that are numbers."""
    if did is None:
        rows = [*_list_buckets(ctx, rse, missing), *_list_shared(ctx, rse)]
        return rows, ['SCOPE', 'BUCKET', 'RSE', 'CREATED'], []
    if did[1]:
        return _listed(ctx, did, rse, missing, _list_keys), ['SCOPE:NAME', 'SIZE', 'CATALOGUE'], [1]
    rows = _listed(ctx, did, rse, missing, _list_collections)
    return rows, ['SCOPE:NAME', 'FILES', 'SIZE', 'CATALOGUE'], [1, 2]


def _list_buckets(ctx: click.Context, rse: Optional[str], missing: Missing) -> list[list[Any]]:
    unasked: list[api.MissingRSE] = []
    found = s3_client(ctx).list_buckets(rse, unasked)
    missing.add_all(unasked)
    return [[each['scope'], each['bucket'], each['rse'], each.get('created')] for each in found]


def _list_shared(ctx: click.Context, rse: Optional[str]) -> list[list[Any]]:
    """Return the collections that are shared with the account, or with one of its attributes, and where each is."""
    try:
        shares = s3_client(ctx).list_usable(places=True)['shares']
    except RSEOperationNotSupported:  # an older server
        return []
    found = {
        (f'{each["scope"]}:{each["name"]}', place['bucket'], place['rse'])
        for each in shares
        for place in each['places']
        if each['kind'] in ('account', 'attribute') and rse in (None, place['rse'])
    }
    return [[*each, None] for each in sorted(found)]


def _listed(
    ctx: click.Context,
    did: tuple[str, str],
    rse: Optional[str],
    missing: Missing,
    show: 'Callable[[click.Context, _Folder], list[list[Any]]]',
) -> list[list[Any]]:
    """Return the rows of all RSEs, with the name of the RSE at the end if there are several."""
    found = _each_folder(ctx, did, rse, missing, lambda folder: show(ctx, folder))
    alone = len({folder.rse for folder, _ in found}) == 1 and not missing
    _tell_unsized((folder for folder, _ in found), missing)
    return [row if alone else [*row, folder.rse] for folder, rows in found for row in rows]


@click.command('du')
@did_argument(required=False)
@rse_option()
@click.pass_context
def du(ctx: click.Context, did: Optional[tuple[str, str]], rse: Optional[str]) -> None:
    """Show the number and size of objects.

    They are counted in each bucket, in the bucket of a SCOPE, or below SCOPE:NAME; without --rse on all RSEs. Of
    what others own, only what is shared with you counts.
    """
    missing = Missing()
    found = _each_folder(ctx, did, rse, missing, _Folder.sums) if did else _sums_of_buckets(ctx, rse, missing)
    rses = sorted({folder.rse for folder, _ in found})
    rows: list[list[Any]] = []
    for folder, sums in found:
        where = f' ({folder.rse})' if did is None or len(rses) > 1 else ''
        rows += [
            [f'{folder.scope}:{name}{where}' if did else f'{folder.scope}{where}', each.files, size(ctx, each.bytes)]
            for name, each in (sums if did else {'': _total(sums.values())}).items()
        ]
    if not is_robot(ctx):
        total = _total(each for _, sums in found for each in sums.values())
        rows.append([_label(rses, missing), total.files, size(ctx, total.bytes)])
    table(ctx, rows, ['SCOPE:NAME' if did else 'SCOPE (RSE)', 'FILES', 'SIZE'], [1, 2])
    _tell_unsized((folder for folder, _ in found), missing)
    missing.tell()


def _label(rses: list[str], missing: Missing) -> str:
    """Return the label of a total: it says which RSEs it is of, unless it is of all that there is on one."""
    if missing:
        return f'total of {", ".join(rses) or "nothing"}, without {missing.shown}'
    return f'total of {", ".join(rses)}' if len(rses) > 1 else 'total'


def _sums_of_buckets(
    ctx: click.Context, rse: Optional[str], missing: Missing
) -> 'list[tuple[_Folder, dict[str, _Sum]]]':
    unasked: list[api.MissingRSE] = []
    found = []
    for each in s3_client(ctx).list_buckets(rse, unasked):
        scope, there = each['scope'], each['rse']
        if not scope:  # admins see foreign buckets, too
            continue
        try:
            folder = _Folder.at(ctx, scope, '', s3_client(ctx).best_place(scope, '', there))
            found.append((folder, folder.sums()))
        except RucioException as error:
            missing.add(f'{scope} ({there})', error)
    missing.add_all(unasked)
    return found


class _Sum(NamedTuple):
    files: int = 0
    bytes: int = 0

    def __add__(self, other: '_Sum') -> '_Sum':  # type: ignore[override]
        return _Sum(self.files + other.files, self.bytes + other.bytes)


def _total(sums: Iterable[_Sum]) -> _Sum:
    total = _Sum()
    for each in sums:
        total += each
    return total


class _Folder(NamedTuple):
    """A bucket, or the part of it below a name, and a client that may list it."""

    client: 'Boto3S3'
    rse: str
    bucket: str
    # of all keys below the name, or of the scope; empty if the bucket belongs to the scope alone
    prefix: str
    scope: str
    name: str
    unsized: list[str]  # names of objects that are listed without a size, as they are found
    is_part: bool = False  # of what the user asked for, of which the account may not read all

    @classmethod
    def at(cls, ctx: click.Context, scope: str, name: str, place: 'api.Location', is_part: bool = False) -> '_Folder':
        """Open a place of a DID. One or two requests."""
        key = place.get('key') or ''
        prefix = f'{key}/' if key and not key.endswith('/') else key
        client = s3_client(ctx).bucket_client(place['rse'], place['bucket'], prefix, patience=LISTING)
        return cls(client, place['rse'], place['bucket'], prefix, scope, name, [], is_part)

    def objects(self) -> 'Iterator[Listed]':
        """Yield each object, with its name instead of its key. One request per 1000 objects."""
        for each in self._all():
            if each.size is None:
                self.unsized.append(each.key)
            yield each

    def _all(self) -> 'Iterator[Listed]':
        below = f'{self.name}/' if self.name else ''
        empty = True
        for each in _objects(self, self.prefix):
            empty = False
            yield each._replace(key=below + each.key[len(self.prefix) :])
        if empty and self.name:  # it may be a key itself; a client that may list only below it gets no answer
            alone = self.prefix.removesuffix('/')
            with suppress(RSEAccessDenied):
                yield from (each._replace(key=self.name) for each in _objects(self, alone) if each.key == alone)

    def sums(self) -> dict[str, _Sum]:
        """Sum up the objects below each name on the next level, in the order of the storage; of a part all at once."""
        if self.is_part:
            return {self.name: _total(_Sum(1, each.size or 0) for each in self.objects())}
        level = len(self.name) + 1 if self.name else 0
        sums: dict[str, _Sum] = {}
        for each in self.objects():
            top = each.key[:level] + each.key[level:].partition('/')[0]
            sums[top] = sums.get(top, _Sum()) + _Sum(1, each.size or 0)
        return sums


def _tell_unsized(folders: Iterable[_Folder], missing: Missing) -> None:
    """Note the sizes that storages do not tell, which count as zero."""
    for folder in folders:
        if folder.unsized:
            count, first = len(folder.unsized), f'{folder.scope}:{folder.unsized[0]}'
            what = f'the size of {first}' if count == 1 else f'the size of {count} objects, such as {first},'
            missing.add(what, f'RSE {folder.rse} lists no valid size or date for it: tell the operator of the storage.')


def _each_folder(
    ctx: click.Context,
    did: tuple[str, str],
    rse: Optional[str],
    missing: Missing,
    look: 'Callable[[_Folder], Answer]',
) -> 'list[tuple[_Folder, Answer]]':
    """Look at a DID on each RSE that may have it, or at what of it is shared. What cannot be looked at is missing.

    :raises RucioException: if none can be looked at.
    """
    try:
        return _on_each_rse(ctx, did, rse, missing, look)
    except AccessDenied:
        parts = _shared_below(ctx, *did)
        if not parts:
            raise
    say(f'Only what is shared with {s3_client(ctx).account} is shown of {":".join(filter(None, did))}.', err=True)
    found = []
    for part in parts:
        try:
            found += _on_each_rse(ctx, (did[0], part), rse, missing, look, is_part=True)
        except RSENotFound as error:
            if not rse:
                missing.add(f'{did[0]}:{part}', error)
        except RucioException as error:
            missing.add(f'{did[0]}:{part}', error)
    return found


def _shared_below(ctx: click.Context, scope: str, name: str) -> list[str]:
    """Return the outermost collections below a name that others share with the account. One request."""
    try:
        shares = s3_client(ctx).list_usable()['shares']
    except RSEOperationNotSupported:  # an older server
        return []
    below = f'{name}/' if name else ''
    outermost: list[str] = []
    for each in sorted({each['name'] for each in shares if each['scope'] == scope and each['kind'] != 'own'}):
        if each.startswith(below) and not any(each.startswith(f'{outer}/') for outer in outermost):
            outermost.append(each)
    return outermost


def _on_each_rse(
    ctx: click.Context,
    did: tuple[str, str],
    rse: Optional[str],
    missing: Missing,
    look: 'Callable[[_Folder], Answer]',
    *,
    is_part: bool = False,
) -> 'list[tuple[_Folder, Answer]]':
    scope, name = did
    found: list[tuple[_Folder, Answer]] = []
    failed: dict[str, RucioException] = {}
    absent: dict[str, RucioException] = {}
    for place in _places(ctx, scope, name, rse, missing):
        try:
            folder = _Folder.at(ctx, scope, name, place, is_part)
            found.append((folder, look(folder)))
        except (DestinationNotAccessible, SourceNotFound) as error:  # no such bucket, or nothing of that name
            absent[place['rse']] = error
        except RucioException as error:
            failed[place['rse']] = error
    if not found:
        raise next(iter((failed or absent).values()))
    for there, reason in failed.items():
        missing.add(there, reason)
    return found


def _places(ctx: click.Context, scope: str, name: str, rse: Optional[str], missing: Missing) -> 'list[api.Location]':
    """Return the places of a DID by RSE: those in the catalogue, and those where the scope has a bucket."""
    s3 = s3_client(ctx)
    if rse:
        return [s3.best_place(scope, name, rse)]
    places = {each['rse']: each for each in reversed(s3.locate(scope, name))}
    unasked: list[api.MissingRSE] = []
    own = [each['rse'] for each in s3.list_buckets(None, unasked) if each['scope'] == scope]
    if own or scope == f'user.{s3.account}':
        missing.add_all(each for each in unasked if each['rse'] not in places)
    for there in own:
        if there not in places:
            with suppress(RSENotFound):  # the catalogue knows that it is elsewhere
                place = s3.best_place(scope, name, there)
                # Two RSEs may be the same part of a storage: its objects must not be counted twice.
                if place['url'] not in {each['url'] for each in places.values()}:
                    places[there] = place
    return [places[there] for there in sorted(places)] or [s3.best_place(scope, name)]


def _objects(folder: _Folder, prefix: str) -> 'Iterator[Listed]':
    from rucio.common.s3 import objects  # noqa: PLC0415 - boto3 takes its time
    from rucio.common.s3.errors import Target  # noqa: PLC0415

    return objects.list_objects(folder.client, Target(folder.rse, folder.bucket, prefix))


def _list_collections(ctx: click.Context, folder: _Folder) -> list[list[Any]]:
    sums = folder.sums()
    found = ctx.obj.client.list_dids(folder.scope, filters=[{}], did_type='collection', long=True)
    types = {each['name']: each['did_type'] for each in found}
    states = _states(ctx, folder, [name for name in sums if name not in types])
    rows = []
    for name in sorted(sums if folder.is_part else {*sums, *types}):
        each = sums.get(name, _Sum())
        known = types.get(name) or states.get(name, _Replica(_UNKNOWN)).state
        rows.append([f'{folder.scope}:{name}', each.files, size(ctx, each.bytes), known])
    return rows


class _Replica(NamedTuple):
    state: str
    bytes: Optional[int] = None


def _list_keys(ctx: click.Context, folder: _Folder) -> list[list[Any]]:
    found = {each.key: each for each in folder.objects()}
    known = _members(ctx, folder)
    known |= _states(ctx, folder, [name for name in found if name not in known])
    if not found and not known:
        raise SourceNotFound(
            f'There is nothing below {folder.scope}:{folder.name} on {folder.rse}, and Rucio has no such DID there.'
        )
    return [
        [
            f'{folder.scope}:{name}',
            _size(ctx, found.get(name)),
            _verdict(found.get(name), known.get(name)),
        ]
        for name in sorted({*found, *known})
    ]


def _size(ctx: click.Context, stored: 'Optional[Listed]') -> str:
    if stored is None:
        return ''
    return size(ctx, stored.size) if stored.size is not None else 'unknown'


def _verdict(stored: 'Optional[Listed]', replica: Optional[_Replica]) -> str:
    archived = f', archived ({stored.archive})' if stored and stored.archive else ''
    if replica is None:
        return f'{_UNKNOWN}{archived}'
    if stored is None:
        return f'{replica.state}, but missing'
    differs = None not in (replica.bytes, stored.size) and replica.bytes != stored.size
    return replica.state + (f', but {replica.bytes} bytes' if differs else '') + archived


def _members(ctx: click.Context, folder: _Folder) -> dict[str, _Replica]:
    """Return the collection's replicas on this storage. One request.

    Members with another scope are left out: they lie in another bucket.
    """
    try:
        return _replicas(ctx, folder, [folder.name])
    except DataIdentifierNotFound:
        return {}


def _states(ctx: click.Context, folder: _Folder, names: list[str]) -> dict[str, _Replica]:
    """Return the replicas of these files on this storage. One request per 500 files."""
    possible = [name for name in names if _NAME.fullmatch(name)]
    found: dict[str, _Replica] = {}
    for at in range(0, len(possible), _ASKED_AT_ONCE):
        found |= _ask(ctx, folder, possible[at : at + _ASKED_AT_ONCE])
    return found


def _ask(ctx: click.Context, folder: _Folder, names: list[str]) -> dict[str, _Replica]:
    try:
        return _replicas(ctx, folder, names)
    except (DataIdentifierNotFound, InvalidObject):  # one of them is not a valid name
        half = len(names) // 2
        return _ask(ctx, folder, names[:half]) | _ask(ctx, folder, names[half:]) if half else {}


def _replicas(ctx: click.Context, folder: _Folder, names: list[str]) -> dict[str, _Replica]:
    dids = [{'scope': folder.scope, 'name': name} for name in names]
    answer = ctx.obj.client.list_replicas(dids, rse_expression=folder.rse, all_states=True, sort='random')
    return {
        each['name']: _Replica(each['states'][folder.rse], each.get('bytes'))
        for each in answer
        if each['scope'] == folder.scope and folder.rse in (each.get('states') or {})
    }
