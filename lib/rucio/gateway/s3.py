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

"""The gateway of the S3 REST interface: permissions, external <-> internal types, and one transaction for each step.

Each function carries out a route of :mod:`rucio.common.s3.api`: ``asked`` has the parameters of the route, and the
return value is its answer. ``issuer`` is the account that asks, ``vo`` its VO.

Requests to a storage are made between the transactions, never inside one.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Optional

from rucio.common.constants import DEFAULT_VO
from rucio.common.exception import (
    AccessDenied,
    ConfigurationError,
    DataIdentifierAlreadyExists,
    DuplicateRule,
    InputValidationError,
    InvalidObject,
    RSEAccessDenied,
    RSENotFound,
    RSEOperationNotSupported,
    ScopeNotFound,
)
from rucio.common.s3 import api
from rucio.common.s3.address import comes_back
from rucio.common.s3.answers import printable
from rucio.common.s3.dates import from_text, to_text
from rucio.common.types import InternalAccount, InternalScope
from rucio.core.s3 import storages
from rucio.core.s3.auth import access, chaining, grants, objects, quotas, rates, shared_keys, signing, vending
from rucio.core.s3.auth.grantees import Grantee
from rucio.core.s3.buckets import (
    bucket_policies,
    creation,
    lookup,
    named_users,
    object_lock,
    probing,
    public_acls,
    publishing,
    removal,
)
from rucio.core.scope import check_scope
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.s3 import GranteeType
from rucio.db.sqla.session import db_session
from rucio.gateway import did, rule
from rucio.gateway.s3names import names
from rucio.gateway.s3sessions import read_if_needed

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from rucio.common.exception import RucioException
    from rucio.core.s3.storages import Storage

__all__ = [
    'add_grant',
    'choose',
    'delete_bucket_policy',
    'delete_grant',
    'get_bucket_policy',
    'get_credentials',
    'get_rse',
    'list_buckets',
    'list_grants',
    'list_rses',
    'locate',
    'make_bucket',
    'probe_rse',
    'remove_bucket',
    'set_bucket_policy',
    'sign',
]


def _described(storage: 'Storage', tried: Optional[chaining.Verdict]) -> dict[str, Any]:
    endpoint = storage.endpoint
    ways = [way for way in storage.ways if way != 'vended' or tried is None or tried.safe]
    return {
        'rse': storage.rse,
        'url': endpoint.url,
        'provider': endpoint.provider,
        'region': storage.region,
        'addressing': endpoint.addressing,
        'bucket_prefix': endpoint.bucket_prefix,
        'verifies_body': endpoint.verifies_body,
        'ca': None,
        'auth': ['anonymous'] if endpoint.auth == 'anonymous' else ways,
        'sts_url': endpoint.sts_url,
        'web_identity_role_arn': endpoint.web_identity_role_arn,
        'role_chaining': tried.as_dict() if tried else None,
    }


def list_rses(asked: api.ListRSEs, issuer: str, vo: str = DEFAULT_VO) -> list[dict[str, Any]]:
    """List the S3 RSEs and their endpoints.

    No request to a storage: ``vended`` is also listed if it was not tested yet.
    """
    with db_session(DatabaseOperationType.READ) as session:
        found = storages.list_storages(vo, session=session)
        return [
            _described(each, chaining.last_verdict(each, session=session) if 'vended' in each.ways else None)
            for each in found
        ]


def get_rse(asked: api.GetRSE, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Describe an S3 RSE, with the RSEs that can have the same keys for other DIDs.

    If keys could be vended, the server first tests, once in some hours, whether they can be used for more than they
    should: the requests of :func:`.chaining.verdict`.

    :raises RSENotFound: if there is no such S3 RSE.
    """
    with db_session(DatabaseOperationType.READ) as session:
        storage = storages.get_storage(asked.rse, vo, session=session)
        found = shared_keys.overlaps(storage, session=session)
        sharing = grants.has_table(session=session)
    tried = chaining.verdict(storage) if 'vended' in storage.ways else None
    overlaps = [_overlap(other, why.why, vo) for other, why in found]
    return _described(storage, tried) | {'overlaps': overlaps, 'sharing': sharing}


def _overlap(other: 'Storage', why: str, vo: str) -> dict[str, Any]:
    return (
        {'rse': other.rse, 'why': why}
        if other.vo == vo
        else {'rse': None, 'why': 'an RSE of another VO can have the same keys'}
    )


def probe_rse(asked: api.ProbeRSE, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Try what the storage of an RSE does, with the server's keys. Some seconds, and up to 300 requests.

    :raises AccessDenied: if the issuer is not an admin of Rucio.
    :raises RSENotFound: if there is no such S3 RSE.
    :raises RucioException: if nothing can be written to the storage.
    """
    with db_session(DatabaseOperationType.READ) as session:
        if not access.is_admin(InternalAccount(issuer, vo=vo), session=session):
            raise AccessDenied(f'{issuer} is not an admin of Rucio: only admins may use the keys of the server.')
        storage = storages.get_storage(asked.rse, vo, session=session)
    return probing.probe(storage, asked.part)


# Buckets


def list_buckets(asked: api.ListBuckets, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """List the buckets of the scopes that the issuer owns; for admins, all. One request for each RSE.

    Only RSEs on which the issuer can have files are reported as missing.

    :raises RSENotFound: if there is no such S3 RSE.
    :raises RucioException: if the named RSE does not answer.
    """
    account = InternalAccount(issuer, vo=vo)
    invalid: dict[str, ConfigurationError] = {}
    with db_session(DatabaseOperationType.READ) as session:
        chosen = (
            [storages.get_storage(asked.rse, vo, session=session)]
            if asked.rse
            else storages.list_storages(vo, session=session, invalid=invalid)
        )
        scopes = None if access.is_admin(account, session=session) else lookup.scopes_of(account, session=session)
    found, failed = lookup.list_buckets(chosen, scopes)
    if asked.rse and failed:
        raise failed[asked.rse]
    by_name = {storage.rse: storage for storage in chosen}
    missing = [by_name[rse] for rse in failed]
    with db_session(DatabaseOperationType.READ) as session:
        if scopes is not None and missing:
            missing = lookup.may_have_buckets_of(account, scopes, missing, session=session)
        unusable = [rse for rse in invalid if scopes is None or lookup.has_quota(account, rse, session=session)]
        buckets = [
            each
            for each in found
            if not shared_keys.has_other_vos(by_name[each['rse']], each['bucket'], session=session)
        ]
    reasons = {each.rse: failed[each.rse] for each in missing} | {rse: invalid[rse] for rse in unusable}
    return {
        'buckets': buckets,
        'missing': [{'rse': rse, 'why': str(why.args[0])} for rse, why in sorted(reasons.items())],
    }


def make_bucket(asked: api.MakeBucket, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Create the bucket of a scope and, if a name is given, a dataset with a rule of the issuer that keeps it there.

    What already exists is left as it is. The requests of :func:`.creation.make_bucket`; for a bucket that existed, also
    those of :func:`.bucket_policies.dangers`.

    :raises AccessDenied: if the issuer does not own the scope.
    :raises ScopeNotFound: if the scope does not exist.
    :raises InsufficientAccountLimit: if the issuer has no quota for the rule; then nothing is created.
    :raises InvalidObject: if no file could be uploaded into a dataset of this name.
    """
    scope, name = asked.scope, asked.name
    account, internal = names(issuer, scope, name, vo)
    if not comes_back(name):
        raise InvalidObject(
            f"'{printable(name)}' would be another name when it is downloaded: use one without // and a / at its end."
        )
    with db_session(DatabaseOperationType.READ) as session:
        access.need(account, internal, '', True, session=session)
        if not check_scope(internal, session=session):
            raise ScopeNotFound(f"There is no scope '{scope}': create it first (rucio scope add).")
        found = lookup.candidates(account, internal, name, asked.rse, session=session)
    storage = lookup.choose_storage(found, scope)
    lookup.need_exclusive(storage, account, scope, name)
    if name:
        with db_session(DatabaseOperationType.READ) as session:
            creation.need_room(account, internal, name, storage, session=session)
    warnings: list[str] = []
    made = creation.make_bucket(storage, scope, warnings)
    if name:
        made |= _keep_dataset(account, internal, name, storage)
    try:
        bucket, key = storage.layout.place_of(scope, f'{name}/' if name else '')
    except RSEOperationNotSupported:  # scattered over a common bucket
        bucket, key = storage.layout.bucket_of(scope), ''
    place = {
        'rse': storage.rse,
        'bucket': bucket,
        'scope': scope,
        'name': name,
        'url': lookup.object_url(storage, bucket, key),
    }
    warnings += [] if made['bucket'] else bucket_policies.dangers(storage, bucket)
    return place | {'made': made, 'warnings': warnings}


def _keep_dataset(account: InternalAccount, scope: InternalScope, name: str, storage: 'Storage') -> dict[str, bool]:
    """Create the dataset and its rule with Rucio's gateway functions, which check the permissions."""
    made = {'dataset': False, 'rule': False}
    external: dict[str, Any] = {'issuer': account.external, 'vo': account.vo}
    with suppress(DataIdentifierAlreadyExists):
        did.add_did(str(scope), name, 'DATASET', account=account.external, **external)
        made['dataset'] = True
    with db_session(DatabaseOperationType.WRITE) as session:
        # It may have been removed, and the undertaker has not erased it yet.
        creation.cancel_expiry(scope, name, session=session)
        if creation.own_rules(account, scope, name, storage, session=session):
            return made
    with suppress(DuplicateRule):
        rule.add_replication_rule(
            dids=[{'scope': str(scope), 'name': name}],
            copies=1,
            rse_expression=storage.rse,
            weight=None,
            lifetime=None,
            grouping='DATASET',
            account=str(account),
            locked=False,
            subscription_id=None,
            source_replica_expression=None,
            activity=None,
            notify=None,
            purge_replicas=False,
            ignore_availability=False,
            comment=None,
            ask_approval=False,
            asynchronous=False,
            delay_injection=None,
            priority=3,
            split_container=False,
            meta=None,
            **external,
        )
        made['rule'] = True
    return made


def remove_bucket(asked: api.RemoveBucket, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Remove the bucket of a scope or, if a name is given, a dataset with its rule.

    If the bucket policy denies access to the server, it is deleted first for admins.

    :raises AccessDenied: if the issuer does not own the scope.
    :raises UnsupportedOperation: if it is not empty and removal is not forced, it is protected by a rule of another
        account, or the storage denies access to the server.
    """
    scope, name = asked.scope, asked.name
    account, internal = names(issuer, scope, name, vo)
    with db_session(DatabaseOperationType.READ) as session:
        access.need(account, internal, '', True, session=session)
        found = lookup.candidates(account, internal, name, asked.rse, session=session)
        admin = access.is_admin(account, session=session)
    storage = lookup.choose_storage(found, scope).with_short_timeouts
    lookup.need_exclusive(storage, account, scope, name)
    lookup.need_answer(storage)
    try:
        return removal.remove(storage, account, internal, name, asked.force)
    except RSEAccessDenied:
        if storage.layout.common_bucket:
            raise
        bucket = storage.layout.bucket_of(scope)
        if not admin:
            raise bucket_policies.locked_out(storage, bucket) from None
        bucket_policies.lift(storage, bucket)
        return removal.remove(storage, account, internal, name, asked.force)


def locate(asked: api.Locate, issuer: str, vo: str = DEFAULT_VO) -> list[dict[str, Any]]:
    """Return where a DID is, or would be, stored on S3 RSEs, the best location first. No request to a storage.

    :raises AccessDenied: if the issuer may not read it.
    """
    scope, name = asked.scope, asked.name
    account, internal = names(issuer, scope, name, vo)
    with db_session(DatabaseOperationType.READ) as session:
        if not (name and access.may(account, internal, f'{name}/', False, session=session)):
            access.need(account, internal, name, False, session=session)
        found = lookup.locate(account, internal, name, session=session)
        return [each | {'prefix': _readable(each, account, vo, session)} for each in found]


def choose(asked: api.Choose, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Choose one location of a DID: an element of the answer of :func:`locate`.

    The requests of :func:`.lookup.choose_storage`.

    :raises AccessDenied: if the issuer may not read it.
    :raises RSENotFound: if there is no such S3 RSE, or the DID is not there.
    :raises InvalidObject: if the choice is ambiguous.
    """
    scope, name = asked.scope, asked.name
    found = locate(api.Locate(scope=scope, name=name), issuer, vo)
    places: dict[str, dict[str, Any]] = {each['rse']: each for each in reversed(found)}
    shown = f'{scope}:{name}' if name else scope
    if asked.rse and asked.rse not in places:
        return _place_on(asked.rse, scope, name, sorted(places), issuer, vo)
    if asked.rse or len(places) == 1:
        return places[asked.rse or next(iter(places))]
    if not places:
        raise RSENotFound(f'{shown} is not on any S3 storage. Make its bucket with `rucio s3 make-bucket {scope}`.')
    if asked.reading and found[0]['did_type']:
        return places.get(asked.default_rse or '', found[0])
    with db_session(DatabaseOperationType.READ) as session:
        possible = [storages.get_storage(rse, vo, session=session) for rse in sorted(places)]
    # No bucket of the scope is on the others, which only have imports.
    possible = [storage for storage in possible if storage.layout.deterministic] or possible
    return places[lookup.choose_storage(possible, scope, asked.default_rse).rse]


def _place_on(rse: str, scope: str, name: str, others: list[str], issuer: str, vo: str) -> dict[str, Any]:
    """Return where a DID would be stored on an RSE that does not have it."""
    account, internal = names(issuer, scope, name, vo)
    with db_session(DatabaseOperationType.READ) as session:
        storage = storages.get_storage(rse, vo, session=session)
        place = lookup.place_on(storage, internal, name, session=session)
        if place['did_type'] and others:
            raise RSENotFound(f"{scope}:{name} is not on RSE '{rse}', but on: {', '.join(others)}.")
        return place | {'prefix': _readable(place, account, vo, session)}


def _readable(located: dict[str, Any], account: InternalAccount, vo: str, session: 'Session') -> Optional[str]:
    """Return the key prefix that vended keys for reading would have; None: the server vends none."""
    storage = storages.get_storage(located['rse'], vo, session=session)
    if 'vended' not in storage.ways:
        return None
    key = located['key']
    for prefix in (
        (f'{key}/', key) if key else ('',)
    ):  # access to a collection does not include the key that equals its name
        with suppress(AccessDenied, RSEOperationNotSupported):
            return objects.covering(storage, account, located['bucket'], prefix, False, session=session).prefix
    return None


# Being authorised


def get_credentials(asked: api.GetCredentials, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Vend short-lived keys for a part of a bucket, or for a collection.

    With an RSE, bucket and prefix, they are for the largest part of the bucket around the prefix that the issuer may
    access; with a scope and name, for this collection alone, or for the collection that a file is in.

    One request to the STS of the storage; none while the server has cached keys. Those of :func:`.chaining.verdict`,
    once in some hours.

    :raises AccessDenied: if the issuer may not access it.
    :raises InputValidationError: if there is neither a scope nor a bucket and an RSE.
    :raises RSEOperationNotSupported: if the server cannot vend keys for the RSE.
    :raises InsufficientAccountLimit: if they are to write, and the owner of the scope may not store anything more.
    :raises TooManyRequests: if the issuer exceeded the rate limit.
    """
    if asked.scope:
        return _for_did(asked, asked.scope, asked.name, issuer, vo)
    if not (asked.bucket and asked.rse):
        raise InputValidationError(f"'{'rse' if asked.bucket else 'bucket'}' is missing.")
    account = InternalAccount(issuer, vo=vo)
    with read_if_needed() as session:
        storage = storages.get_storage(asked.rse, vo, session=session)
        prefix, until = objects.covering(
            storage, account, asked.bucket, asked.prefix, asked.write, session=session, known={}
        )
    # On a non-deterministic RSE, access to an object does not include others whose keys begin with its key.
    exact = not storage.layout.deterministic and bool(prefix) and not prefix.endswith('/')
    return _vended(storage, asked.bucket, prefix, asked, issuer, until, exact)


def _for_did(asked: api.GetCredentials, scope: str, name: str, issuer: str, vo: str) -> dict[str, Any]:
    account, internal = names(issuer, scope, name, vo)
    rse, write = asked.rse, asked.write
    with read_if_needed() as session:
        inside = f'{name.rstrip("/")}/' if name else ''
        if name and lookup.is_file(internal, name, session=session):
            inside = f'{above}/' if (above := name.rpartition('/')[0]) else ''
        until = access.until(account, internal, inside, write, session=session, known={})
        if until is None:
            raise access.denied_did(account, internal, name, write, session=session)
        source = (
            lookup.imported(account, internal, inside.rstrip('/'), rse, session=session)
            if inside and not write
            else None
        )
        found = [source[0]] if source else lookup.candidates(account, internal, name, rse, session=session)
    storage = lookup.choose_storage(found, scope)
    bucket, prefix = source[1:] if source else storage.layout.place_of(scope, inside)
    with read_if_needed() as session:
        until = min(until, shared_keys.need(storage, account, bucket, prefix, write, session=session))
    return _vended(storage, bucket, prefix, asked, issuer, until)


def _vended(
    storage: 'Storage',
    bucket: str,
    prefix: str,
    asked: api.GetCredentials,
    issuer: str,
    until: 'datetime',
    exact: bool = False,
) -> dict[str, Any]:
    if storage.endpoint.auth == 'anonymous':
        raise RSEOperationNotSupported(
            f'RSE {storage.rse} is read without keys (auth = anonymous), so no keys are vended or needed.'
        )
    if 'vended' not in storage.ways:
        raise RSEOperationNotSupported(
            f'RSE {storage.rse}: the Rucio server cannot make credentials for it: it has no keys, or there is no '
            'role_arn in the RSE\'s "s3" settings.' + (' It signs requests (remote).' if storage.ways else '')
        )
    storage.need_name(bucket, prefix)
    tried = chaining.verdict(storage)
    if not tried.safe:
        raise RSEOperationNotSupported(f'{tried.reason} Until then this server signs requests (remote).')
    lifetime = asked.lifetime or storage.endpoint.credentials_lifetime
    if asked.write:
        with read_if_needed() as session:
            room = quotas.room_of_place(
                storage, InternalAccount(issuer, vo=storage.vo), bucket, prefix, session=session
            )
        lifetime = quotas.lifetime(room, lifetime)
        public_acls.ignore(storage, bucket)
    vended = vending.vend(storage, bucket, prefix, asked.write, lifetime, issuer, exact, until)
    return {
        'rse': storage.rse,
        'url': storage.endpoint.url,
        'region': storage.region,
        'addressing': storage.endpoint.addressing,
        'bucket': vended.bucket,
        'prefix': vended.prefix,
        'write': vended.write,
        'access_key': vended.access_key,
        'secret_key': vended.secret_key,
        'session_token': vended.session_token,
        'expiration': to_text(vended.expiration),
    }


def sign(asked: api.Sign, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Sign requests to a storage with the server's keys: either all of them or none.

    No request to the storage, except where it obeys unsigned lock headers: one for each bucket in ten minutes.

    :raises AccessDenied: if a request accesses what the issuer may not access.
    :raises InputValidationError: if a request is invalid.
    :raises InsufficientAccountLimit: if it stores more than the owner of the scope may store.
    :raises TooManyRequests: if the issuer exceeded the rate limit.
    """
    account = InternalAccount(issuer, vo=vo)
    rates.spend('signatures_per_second', issuer, vo, len(asked.requests))
    known: access.Known = {}
    with read_if_needed() as session:
        storage = storages.get_storage(asked.rse, vo, session=session)
        checked = signing.check(storage, asked.requests)
        if keys := sum(each.keys for each in checked):
            rates.spend('signatures_per_second', issuer, vo, keys)
        for bucket, key in {(touch.bucket, touch.name) for each in checked for touch in each.touches}:
            storage.need_name(bucket, key)

        def allowed(bucket: str, key: str, write: bool) -> None:
            if not objects.may(storage, account, bucket, key, write, session=session, known=known):
                raise access.denied(account, f"bucket '{bucket}', key '{key}'", write)

        # If other RSEs use the same keys, each key in a folder may be of another DID.
        signing.need(storage, checked, allowed, together=not shared_keys.neighbours(storage, session=session))
        charges = quotas.charged(storage, account, checked, session=session, known=known)
    for bucket in sorted({each.lockable for each in checked if each.lockable}):
        if object_lock.is_enabled(storage, bucket):
            raise AccessDenied(
                f"RSE {storage.rse}: no requests that create objects are signed for bucket '{bucket}', because it has "
                'object lock, and this storage obeys lock headers that are not signed (signature_guards). Use keys '
                '(vended, or your own).'
            )
    if charges:
        with db_session(DatabaseOperationType.WRITE) as session:
            quotas.need_room(storage, charges, session=session)
    return {'responses': signing.sign(storage, checked)}


# Sharing


def list_grants(asked: api.ListGrants, issuer: str, vo: str = DEFAULT_VO) -> list[dict[str, Any]]:
    """List the grants of a collection.

    :raises AccessDenied: if the issuer does not own the scope.
    """
    scope, name = asked.scope, asked.name
    account, internal = names(issuer, scope, name, vo)
    with db_session(DatabaseOperationType.READ) as session:
        access.need(account, internal, '', True, session=session)
        grants.need_table(session=session)
        return [grant._asdict() for grant in grants.list_grants(internal, name, session=session)]


def add_grant(asked: api.AddGrant, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Grant somebody read, or read and write access to a collection. Repeating it changes the grant.

    For the world, the bucket policies are changed as well, so that also those without an account can read it; and for
    an account that has a user of its own at the storage (:mod:`.named_users`).

    :raises AccessDenied: if the issuer does not own the scope.
    :raises AccountNotFound: if the account does not exist.
    :raises InvalidObject: if no account has the attribute, write access is for everybody, or the end is past.
    """
    scope, name, write = asked.scope, asked.name, asked.write
    owner, internal = names(issuer, scope, name, vo)
    grantee, until = Grantee.of(asked.account, asked.kind), _future(asked.until)
    public = grantee.kind is GranteeType.WORLD
    with db_session(DatabaseOperationType.READ) as session:
        access.need(owner, internal, '', True, session=session)
        grants.need_grantable(internal, name, grantee, write, session=session)
        places = lookup.storages_to_publish(owner, internal, name, session=session) if public else []
    for place in places:
        lookup.need_exclusive(place, owner, scope, name)
    granted = {'account': grantee.name, 'write': write, 'until': to_text(until) if until else None}
    if public:
        return granted | {'changed': publishing.publish(places, internal, name, issuer, until)}
    planned = named_users.plan(owner, internal, name, grantee)
    rse_ids = [each.storage.rse_id for each in planned if each.user]
    with db_session(DatabaseOperationType.WRITE) as session:
        changed = grants.add_grant(internal, name, grantee, write, issuer, until, rse_ids, session=session)
    own = [
        {'rse': each.storage.rse, 'user': each.user, 'why': each.why}
        for each in named_users.apply(internal, name, planned)
    ]
    return granted | {'changed': changed, 'own_keys': own}


def _future(date: Optional[str]) -> 'Optional[datetime]':
    """Return the end of a grant as the table has it: in UTC without a time zone, in whole seconds."""
    if date is None:
        return None
    try:
        end = from_text(date).replace(tzinfo=None, microsecond=0)
    except ValueError as error:
        raise InputValidationError(f"'until' is '{printable(date)}': {error}.") from None
    if end <= grants.now():
        raise InvalidObject(f'{to_text(end)} is past: give a later end, or revoke the access (rucio s3 unshare).')
    return end


def delete_grant(asked: api.DeleteGrant, issuer: str, vo: str = DEFAULT_VO) -> dict[str, bool]:
    """Revoke a grant. Keys that were already vended are valid until they expire.

    :raises AccessDenied: if the issuer does not own the scope.
    :raises UnsupportedOperation: if the operator has not created the table of grants.
    :raises RucioException: if the collection may still be public on a storage that could not be updated. In Rucio, the
        grant has ended nevertheless.
    """
    scope, name = asked.scope, asked.name
    owner, internal = names(issuer, scope, name, vo)
    grantee = Grantee.of(asked.account, asked.kind)
    with db_session(DatabaseOperationType.READ) as session:
        access.need(owner, internal, '', True, session=session)
        grants.need_table(session=session)
        if grantee.kind is GranteeType.WORLD:
            places = lookup.storages_to_publish(owner, internal, name, session=session)
            known = any(grant.kind == 'world' for grant in grants.list_grants(internal, name, session=session))
    if grantee.kind is not GranteeType.WORLD:
        with db_session(DatabaseOperationType.WRITE) as session:
            known = grants.delete_grants(internal, name, grantee, session=session)
        account = grantee.kind is GranteeType.ACCOUNT
        set_there, failed = named_users.withdraw(internal, name, grantee.name) if account else (False, {})
        _need_revoked(f'{scope}:{name}', failed, grantee.name, 'readable for its own user')
        return {'removed': known or set_there}
    failed = publishing.withdraw(internal, name, [place for place in places if place.ways])
    _need_revoked(f'{scope}:{name}', failed, 'everybody', 'public')
    return {'removed': known}


def _need_revoked(did: str, failed: 'dict[Storage, RucioException]', whom: str, still: str) -> None:
    if failed:
        rses, error = ', '.join(sorted(storage.rse for storage in failed)), next(iter(failed.values()))
        raise type(error)(
            f'{did} is no longer shared with {whom} in Rucio, but may still be {still} on {rses}: '
            f'{error.args[0] if error.args else error} rucio-s3-reconciler tries again; or repeat this later.'
        )


def get_bucket_policy(asked: api.GetBucketPolicy, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Return the bucket policy of a scope's bucket. One request.

    :raises AccessDenied: if the issuer does not own the scope.
    :raises UnsupportedOperation: if the storage does not let the server see it.
    """
    storage, bucket, _ = lookup.own_bucket(*names(issuer, asked.scope, '', vo), asked.rse)
    policy = bucket_policies.get(storage, bucket)
    return {'rse': storage.rse, 'bucket': bucket, 'policy': policy, 'warnings': bucket_policies.warnings(policy)}


def set_bucket_policy(asked: api.SetBucketPolicy, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Replace the bucket policy of a scope's bucket, but keep the statements of ``share --public``.

    Up to four requests. Owners may allow named users and roles to read, admins more: :func:`.bucket_policies.check`.

    :raises AccessDenied: if the issuer does not own the scope, or it would remove a Deny set by an admin.
    :raises InvalidObject: if the policy is not allowed, or the storage rejects it.
    :raises UnsupportedOperation: if the storage does not let the server set it.
    """
    storage, bucket, admin = lookup.own_bucket(*names(issuer, asked.scope, '', vo), asked.rse)
    return {
        'rse': storage.rse,
        'bucket': bucket,
        'policy': bucket_policies.change(storage, bucket, asked.policy, admin),
    }


def delete_bucket_policy(asked: api.DeleteBucketPolicy, issuer: str, vo: str = DEFAULT_VO) -> dict[str, Any]:
    """Delete the bucket policy of a scope's bucket, but keep the statements of ``share --public``. Two requests.

    :raises AccessDenied: if the issuer does not own the scope, or is not an admin and the policy has a Deny.
    :raises UnsupportedOperation: if the storage does not let the server delete it.
    """
    storage, bucket, admin = lookup.own_bucket(*names(issuer, asked.scope, '', vo), asked.rse)
    return {'rse': storage.rse, 'bucket': bucket, 'policy': bucket_policies.remove(storage, bucket, admin)}
