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


"""``S3Client``: buckets, credentials and sharing, as the S3 plugin of a Rucio server offers them."""

import re
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from json import dumps
from secrets import choice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Optional, TypeVar, cast

from botocore import UNSIGNED
from botocore.config import Config
from requests.exceptions import RequestException  # type: ignore[import-untyped]
from requests.status_codes import codes  # type: ignore[import-untyped]

from rucio.client.credentialclient import CredentialClient
from rucio.client.s3session import Discreet
from rucio.common.exception import (
    InputValidationError,
    MissingDependency,
    RSENotFound,
    RSEOperationNotSupported,
    ServerConnectionException,
)
from rucio.common.s3 import address, api, authorizer, botocore_internals, credentials, factory, rucio_internals
from rucio.common.s3.answers import checked, checked_keys, checked_signatures, printable
from rucio.common.s3.endpoint import Endpoint
from rucio.common.s3.secrecy import hide_in_logs, is_private, need_private
from rucio.common.utils import build_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from botocore.session import Session
    from mypy_boto3_s3 import S3Client as Boto3S3
    from requests import Response  # type: ignore[import-untyped]

    from rucio.common.s3.contract import Request

__all__ = ['NO_PLUGIN', 'S3Client']

Answer = TypeVar('Answer')
RSEAnswer = TypeVar('RSEAnswer', bound=api.ListedRSE)
ReconcileAnswer = TypeVar('ReconcileAnswer', bound=api.Reconciled)

NO_PLUGIN = 'This Rucio server has no S3 plugin: ask its operator for `[api] endpoints_add = s3`'


_NO_ROUTE = (codes.not_found, codes.not_allowed)
_LONGEST_REFUSAL = 4000  # characters of what a server says


class _Told(dict[str, Any]):
    """An answer. An older server may not say all that this client asks of it; what lies in it may be anybody's."""

    def __init__(self, who: str, content: dict[str, Any]) -> None:
        super().__init__(content)
        self._who = who

    def __missing__(self, name: str) -> Any:
        raise RSEOperationNotSupported(
            f"{self._who} did not say '{name}': its S3 plugin is older than this client, {api.version()}. "
            'Ask its operator to update it.'
        )


class _Place(NamedTuple):
    """Where a DID is, and the storage that it is on."""

    endpoint: Endpoint
    ways: tuple[str, ...]  # how the server lets its clients in: vended, remote
    bucket: str
    key: str


class S3Client(CredentialClient):
    """
    Buckets, credentials and sharing of S3 storages.

    The server needs the S3 plugin (``[api] endpoints_add = s3``); this account needs no key. Any method raises
    ``RSEOperationNotSupported`` where the plugin is missing, ``AccessDenied`` where the account may not do it (also for
    what does not exist), and ``ServerConnectionException`` where the server does not answer. Where the account asks too
    often, a call waits as long as the server says, a minute at most; then it raises ``ResourceTemporaryUnavailable``.
    May be used by several threads.
    """

    S3_BASEURL = 's3'
    # Seconds that a call waits in all where the server says that the account asks too often.
    PATIENCE: ClassVar[float] = 60

    # Stock Rucio verifies no certificate where the path of its CA is empty, as X509_CERT_DIR or ca_cert may be.
    @property
    def ca_cert(self) -> Any:
        """The CA of the Rucio server: a path, or True for the usual ones."""
        return self._ca_cert

    @ca_cert.setter
    def ca_cert(self, path: Any) -> None:
        self._ca_cert = True if path == '' else path

    @property
    def session(self) -> Discreet:
        """What makes the requests to the Rucio server."""
        return self._session

    @session.setter
    def session(self, _: Any) -> None:
        self._session = Discreet()

    def __init__(
        self,
        resource: str = 's3',
        endpoint_url: Optional[str] = None,
        key_id: Optional[str] = None,
        secret_key: Optional[str] = None,
        config: Optional[Config] = None,
        region: Optional[str] = None,
        **kwargs: Any,
    ) -> None:
        """
        Log in to Rucio. No request, where there is a token already.

        With none of the parameters below, the Rucio server says where a storage is and gives short-lived keys for it,
        or signs the requests: better than keys in a program, as nobody has to keep them, they end, and reach no further
        than the account may. With ``endpoint_url`` or keys, :meth:`boto3_client` and :meth:`get_signed_url` use those
        and ask no server.

        Parameters
        ----------
        resource :
            The service that :meth:`boto3_client` makes clients of, where ``endpoint_url`` or keys are given.
        endpoint_url :
            The storage's URL, such as ``https://s3.example.org:9000``.
        key_id :
            The access key. Without, boto3 looks where it always does (environment, ``~/.aws``).
        secret_key :
            The secret key.
        config :
            The configuration of the clients that :meth:`boto3_client` makes, over ``Config(signature_version='s3v4')``.
        region :
            The region that signatures name. Without, that of the storage.
        kwargs :
            What ``rucio.client.Client`` takes: ``rucio_host``, ``account``, ``auth_type``, ``creds``, ``vo``...

        Raises
        ------
        InputValidationError
            If only one of key_id and secret_key is given.
        """
        if bool(key_id) != bool(secret_key):
            raise InputValidationError(
                'S3Client was given only one of key_id and secret_key. '
                'Give both, or neither, and the Rucio server authorizes the requests.'
            )
        self._resource = resource
        self._endpoint_url = endpoint_url
        self._region = region
        self._keys = (key_id, secret_key)
        self._config = Config(signature_version='s3v4').merge(config or Config())
        super().__init__(**kwargs)

    @property
    def identity(self) -> str:
        """Server, VO and account: the same for those that are given the same. Holds no secret."""
        return f'{self.host} {self.vo} {self.account}'

    @property
    def _who(self) -> str:
        return f'The Rucio server at {self.host}'

    def get_s3_version(self) -> api.Version:
        """
        The version of the server's plugin, and what it can do. One request.

        Returns
        -------
            version and capabilities: the names of the operations that it knows, such as make_bucket.
        """
        return self._ask(api.GetVersion())

    # Storages

    def list_s3_rses(self) -> list[api.ListedRSE]:
        """
        The S3 RSEs that the server serves. One request.

        Returns
        -------
            For each RSE what :meth:`get_s3_rse` says of it.
        """
        return [self._open(told) for told in self._ask(api.ListRSEs())]

    def get_s3_rse(self, rse: str) -> api.DescribedRSE:
        """
        How to reach an RSE. One request.

        Parameters
        ----------
        rse :
            The name of the RSE.

        Returns
        -------
            rse, url, provider, region, addressing, bucket_prefix, verifies_body, auth (what the server offers: vended,
            not if it is reached by http; remote), sts_url, web_identity_role_arn, role_chaining (what came of trying to
            make more of vended keys, or None).

        Raises
        ------
        RSENotFound
            If there is no such RSE, or it is no S3 storage.
        """
        return self._open(self._ask(api.GetRSE(rse=rse)))

    def endpoint(self, rse: str) -> Endpoint:
        """
        The storage of an RSE: as the server describes it, with what rucio.cfg says of it on this machine. One request.

        Parameters
        ----------
        rse :
            The name of the RSE.
        """
        return self._storage(rse)[0]

    def locate(self, scope: str, name: str, rse: Optional[str] = None) -> list[api.Location]:
        """
        Where a DID is, or would be made. One request.

        Parameters
        ----------
        scope :
            The scope of the DID.
        name :
            The name of the DID; empty for the scope's bucket.
        rse :
            Only there.

        Returns
        -------
            rse, bucket, key and url, the best first.

        Raises
        ------
        RSENotFound
            If it is not on ``rse``.
        """
        places = self._ask(api.Locate(scope=scope, name=name))
        if rse is None:
            return places
        here = [place for place in places if place['rse'] == rse]
        if not here:
            known = ', '.join(sorted({place['rse'] for place in places})) or 'on no S3 storage'
            raise RSENotFound(f"{scope}:{name} is not on RSE '{rse}', but on: {known}.")
        return here

    def best_place(self, scope: str, name: str, rse: Optional[str] = None) -> api.Location:
        """
        As :meth:`locate`, the first of them.

        Raises
        ------
        RSENotFound
            If there is none, or not on ``rse``.
        """
        places = self.locate(scope, name, rse)
        if not places:
            raise RSENotFound(
                f'{scope}{":" if name else ""}{name} is on no S3 storage. '
                f'`rucio s3 make-bucket {scope}` makes its bucket.'
            )
        return places[0]

    # Buckets

    def list_buckets(self, rse: Optional[str] = None) -> list[api.Bucket]:
        """
        The buckets of the scopes that the account owns; all of them for an admin. One request.

        Parameters
        ----------
        rse :
            Only those of this RSE.

        Returns
        -------
            rse, bucket, scope and created of each bucket.
        """
        return self._ask(api.ListBuckets(rse=rse or None))

    def make_bucket(self, scope: str, name: Optional[str] = None, rse: Optional[str] = None) -> api.MadeBucket:
        """
        Make the bucket of a scope, and register a dataset with its rule. Does no harm when done again. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        name :
            The name of the dataset: the keys below ``name/`` belong to it.
        rse :
            Where. Without, the server takes the one S3 RSE where the account may store.

        Returns
        -------
            rse, bucket, scope, name, url, made: what was not there before (bucket, dataset, rule, lifecycle, events),
            and warnings: what in the policy of a bucket that was there may keep the Rucio server out.

        Examples
        --------
        ??? Example

            ```python
            from rucio.client.s3client import S3Client
            S3Client().make_bucket('user.jdoe', 'thesis')
            ```
        """
        return self._ask(api.MakeBucket(scope=scope, name=name or '', rse=rse))

    def remove_bucket(
        self, scope: str, name: Optional[str] = None, rse: Optional[str] = None, force: bool = False
    ) -> api.RemovedBucket:
        """
        Remove the bucket of a scope, or one collection in it. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        name :
            The name of the dataset, if only that is to go.
        rse :
            Where. Without, wherever the bucket is.
        force :
            Also if it is not empty: what is in it is deleted.

        Returns
        -------
            rse, bucket, removed (how many rules, objects, replicas, datasets, and whether the bucket is gone), and
            finished: false where there is so much to delete that it has to be asked for again.

        Raises
        ------
        UnsupportedOperation
            If it is not empty, or somebody else's rule protects what is in it.
        """
        return self._ask(api.RemoveBucket(scope=scope, name=name or '', rse=rse, force=force))

    def get_bucket_policy(self, scope: str, rse: Optional[str] = None) -> Optional[dict[str, Any]]:
        """
        The storage's own policy of a scope's bucket, or None. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        rse :
            Where. Without, wherever the bucket is.
        """
        return self._ask(api.GetBucketPolicy(scope=scope, rse=rse))['policy'] or None

    def list_policy_warnings(self, scope: str, rse: Optional[str] = None) -> list[str]:
        """
        What in the storage's own policy of a scope's bucket may keep the Rucio server out of it. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        rse :
            Where. Without, wherever the bucket is.
        """
        return self._ask(api.GetBucketPolicy(scope=scope, rse=rse))['warnings']

    def set_bucket_policy(self, scope: str, policy: dict[str, Any], rse: Optional[str] = None) -> None:
        """
        Set the storage's own policy of a scope's bucket. It is the storage's to enforce, whatever Rucio grants. One
        request.

        The owner of a scope may allow named users and roles to read; admins may set more.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        policy :
            An S3 bucket policy.
        rse :
            Where. Without, wherever the bucket is.
        """
        self._ask(api.SetBucketPolicy(scope=scope, rse=rse, policy=policy))

    def delete_bucket_policy(self, scope: str, rse: Optional[str] = None) -> None:
        """
        Remove the storage's own policy of a scope's bucket, except for what is shared with everybody. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        rse :
            Where. Without, wherever the bucket is.
        """
        self._ask(api.DeleteBucketPolicy(scope=scope, rse=rse))

    def import_bucket(  # noqa: PLR0913 - what the REST call takes
        self,
        rse: str,
        scope: str,
        name: str,
        *,
        bucket: Optional[str] = None,
        prefix: Optional[str] = None,
        dry_run: bool = False,
        on_changed: Optional[str] = None,
        on_missing: Optional[str] = None,
        progress: 'Optional[Callable[[dict[str, int]], None]]' = None,
    ) -> api.Imported:
        """
        Register what lies in a bucket of somebody else as files of a dataset, and again what is new. A request for each
        20 seconds of work.

        Parameters
        ----------
        rse :
            A non-deterministic RSE, to which nothing is written.
        scope :
            The scope of the files.
        name :
            The dataset: a key below the prefix becomes this name, a slash, and the rest of the key.
        bucket :
            The bucket, where the RSE is not for one bucket only.
        prefix :
            A folder in it. Without, all of the RSE.
        dry_run, on_changed, on_missing, progress :
            As :meth:`reconcile` has them.

        Returns
        -------
            As :meth:`reconcile`, and the prefix.

        Raises
        ------
        UnsupportedOperation
            If the RSE is deterministic.
        InvalidObject
            If files of that dataset come from elsewhere.

        Examples
        --------
        ??? Example

            ```python
            from rucio.client.s3client import S3Client
            S3Client().import_bucket('LANDSAT', 'archive', 'landsat', dry_run=True)['counts']
            ```
        """
        request = api.ImportBucket(
            rse=rse,
            scope=scope,
            name=name,
            bucket=bucket,
            prefix=prefix or '',
            dry_run=dry_run,
            on_changed=on_changed,
            on_missing=on_missing,
        )
        return self._until_done(request, progress)

    # The catalogue follows a bucket

    def reconcile(
        self,
        scope: str,
        name: Optional[str] = None,
        rse: Optional[str] = None,
        *,
        dry_run: bool = False,
        on_changed: Optional[str] = None,
        on_missing: Optional[str] = None,
        progress: 'Optional[Callable[[dict[str, int]], None]]' = None,
    ) -> api.Reconciled:
        """
        Register what other tools put into a scope's bucket, and find what they changed or removed there. Can be done
        again at any time.

        A request for each 20 seconds of work; the server lists 1000 objects with a request to the storage, and reads
        new objects whose checksum nothing else tells.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        name :
            Only what is below this collection, or this one file.
        rse :
            Where. Without, wherever the bucket is.
        dry_run :
            Write nothing.
        on_changed :
            What is done about objects that are not what the catalogue says: report, replace or bad. Without, what is
            set for the bucket.
        on_missing :
            What is done about replicas whose object is gone: report, forget or lost. Without, what is set for the
            bucket.
        progress :
            Called with the counts so far after each request.

        Returns
        -------
            rse, bucket, scope, name, counts (what was found and done -> how many), and problems: kind, did, key, found
            and remedy of those who need a decision. All are counted, but at most 100 are told for each request.

        Raises
        ------
        InputValidationError
            If there is no such way to act.

        Examples
        --------
        ??? Example

            ```python
            from rucio.client.s3client import S3Client
            S3Client().reconcile('user.jdoe', 'thesis')['counts']
            ```
        """
        wish: dict[str, Any] = {'dry_run': dry_run, 'on_changed': on_changed, 'on_missing': on_missing}
        return self._until_done(api.Reconcile(scope=scope, name=name or '', rse=rse, **wish), progress)

    def get_bucket_settings(self, scope: str, rse: Optional[str] = None) -> api.BucketSettings:
        """
        What is done in a scope's bucket about objects that others changed or removed. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        rse :
            Where. Without, wherever the bucket is.

        Returns
        -------
            rse, bucket, scope, on_changed, on_missing, and own: which of these were set for this bucket, not for all of
            the RSE.
        """
        return self._ask(api.GetBucketSettings(scope=scope, rse=rse))

    def set_bucket_settings(
        self,
        scope: str,
        rse: Optional[str] = None,
        *,
        on_changed: Optional[str] = None,
        on_missing: Optional[str] = None,
    ) -> api.BucketSettings:
        """
        Set what is done in a scope's bucket about objects that others changed or removed. One request.

        Parameters
        ----------
        scope :
            The scope whose bucket it is.
        rse :
            Where. Without, wherever the bucket is.
        on_changed :
            report, replace, bad, or default for what holds on the RSE. Without, it stays as it is.
        on_missing :
            report, forget, lost, or default for what holds on the RSE. Without, it stays as it is.

        Returns
        -------
            As :meth:`get_bucket_settings`.

        Raises
        ------
        InputValidationError
            If there is no such way to act.
        """
        return self._ask(api.SetBucketSettings(scope=scope, rse=rse, on_changed=on_changed, on_missing=on_missing))

    def list_changes(
        self, scope: str, name: Optional[str] = None, rse: Optional[str] = None, since: Optional[str] = None
    ) -> api.Changes:
        """
        What changed of late in the catalogue below a collection. One request; the server reads all replicas below the
        name for it.

        Parameters
        ----------
        scope :
            The scope.
        name :
            The name of a collection. Without, all of the scope.
        rse :
            Where. Without, wherever it is.
        since :
            ``now`` of an earlier answer. Without, nothing is told but the time.

        Returns
        -------
            rse, now, changes: time, change (registered, updated, bad, removed), scope, name and bytes of each; and
            more: there were so many that the last ones are missing, and now is the time of the last one that is told. A
            change may become visible seconds after its time: who repeats this asks from a little earlier, and skips
            what is known.
        """
        return self._ask(api.ListChanges(scope=scope, name=name or '', rse=rse, since=since))

    # Sharing

    def list_grants(self, scope: str, name: str) -> list[api.Grant]:
        """
        With whom a collection is shared. One request.

        Parameters
        ----------
        scope :
            The scope of the collection.
        name :
            The name of the collection.

        Returns
        -------
            kind, account (``*`` for everybody), write, by, at, until (None: no end) and ended of each grant.
        """
        return self._ask(api.ListGrants(scope=scope, name=name))

    def add_grant(self, scope: str, name: str, account: str, write: bool = False) -> None:
        """
        Share a collection: the account can read what is below ``name/``. One request.

        Parameters
        ----------
        scope :
            The scope of the collection.
        name :
            The name of the collection.
        account :
            The account, or ``*`` for everybody, with or without Rucio.
        write :
            It can also write and delete there.
        """
        self._ask(api.AddGrant(scope=scope, name=name, account=account, write=write))

    def delete_grant(self, scope: str, name: str, account: str) -> None:
        """
        Share a collection no longer. Keys that the account has been given end with their lifetime. One request.

        Parameters
        ----------
        scope :
            The scope of the collection.
        name :
            The name of the collection.
        account :
            The account, or ``*``.
        """
        self._ask(api.DeleteGrant(scope=scope, name=name, account=account))

    # Being authorised

    def get_s3_credentials(
        self, rse: str, bucket: str, prefix: str = '', write: bool = False, lifetime: Optional[int] = None
    ) -> api.Credentials:
        """
        Short-lived keys for a part of a bucket. One request.

        Parameters
        ----------
        rse :
            The name of the RSE.
        bucket :
            The bucket.
        prefix :
            A key, or what keys begin with; empty for all of the bucket. The server widens it to what the account may
            reach.
        write :
            The keys shall be good for writing and deleting, too.
        lifetime :
            In seconds; the server has an upper bound.

        Returns
        -------
            rse, url, region, addressing, bucket, prefix, write, access_key, secret_key, session_token, and expiration
            (``YYYY-MM-DDTHH:MM:SSZ``).

        Raises
        ------
        RSEOperationNotSupported
            If the storage cannot make such keys.
        ConfigurationError
            If the Rucio server is not reached by https: who listens would have the keys.
        """
        return self._keys_of(api.GetCredentials(rse=rse, bucket=bucket, prefix=prefix, write=write, lifetime=lifetime))

    def get_did_credentials(
        self,
        scope: str,
        name: Optional[str] = None,
        rse: Optional[str] = None,
        write: bool = False,
        lifetime: Optional[int] = None,
    ) -> api.Credentials:
        """
        Short-lived keys for a DID, wherever it is. One request.

        Parameters
        ----------
        scope :
            The scope of the DID.
        name :
            The name of a file or collection. Without, all of the scope's bucket.
        rse :
            Where. Without, the server decides.
        write :
            The keys shall be good for writing and deleting, too.
        lifetime :
            In seconds; the server has an upper bound.

        Returns
        -------
            As :meth:`get_s3_credentials`.

        Raises
        ------
        RSEOperationNotSupported
            If the storage cannot make such keys.
        ConfigurationError
            If the Rucio server is not reached by https: who listens would have the keys.
        """
        return self._keys_of(api.GetCredentials(scope=scope, name=name or '', rse=rse, write=write, lifetime=lifetime))

    def sign_s3_requests(self, rse: str, requests: list[api.Unsigned]) -> list[api.Signed]:
        """
        Have the server sign S3 requests, which are then sent by who asked. One request.

        Parameters
        ----------
        rse :
            The name of the RSE.
        requests :
            At most 1000: method, uri, region, headers (name -> list of values), and body (base64) of a DeleteObjects.

        Returns
        -------
            uri and headers of each request.
        """
        return checked_signatures(self._who, self._ask(api.Sign(rse=rse, requests=requests)))

    def get_signed_url(self, rse: str, service: str, operation: str, url: str, lifetime: int = 3600) -> str:
        """
        A URL with which anybody can do one operation on one object. Takes what ``CredentialClient.get_signed_url``
        takes.

        What is better here: with the server's plugin (or keys given to this client) the account needs no attribute
        ``sign-url``, plain-http storages and names that are encoded in URLs work. Without it the stock server signs.
        At most two requests.

        Parameters
        ----------
        rse :
            The name of the RSE.
        service :
            ``s3``; for others (gcs, swift) the stock server signs.
        operation :
            ``read``, ``write`` or ``delete``.
        url :
            The object's URL: ``https://host:port/bucket/key``, percent-encoded.
        lifetime :
            In seconds. A URL made with short-lived keys ends with them, if that is earlier.

        Raises
        ------
        InputValidationError
            If there is no such operation.
        """
        operations = {'read': 'get_object', 'write': 'put_object', 'delete': 'delete_object'}
        if service != 's3':
            return str(super().get_signed_url(rse, service, operation, url, lifetime))
        if operation not in operations:
            raise InputValidationError(f"A URL cannot be signed for '{operation}': it can for read, write or delete.")
        place = address.parse_url(url)
        try:
            client = (
                self._explicit()
                if self._is_explicit
                else self._presigner(rse, place.bucket, place.key, operation != 'read')
            )
        except RSEOperationNotSupported:
            return checked(self._who, 'signed_url', super().get_signed_url(rse, service, operation, url, lifetime))
        return client.generate_presigned_url(
            operations[operation], Params={'Bucket': place.bucket, 'Key': place.key}, ExpiresIn=lifetime
        )

    # What analysis tools take

    def boto3_client(
        self,
        did: Optional[str] = None,
        *,
        scope: Optional[str] = None,
        name: Optional[str] = None,
        rse: Optional[str] = None,
        write: bool = False,
    ) -> 'Boto3S3':
        """
        A boto3 client for the bucket of a DID. It stays authorised for as long as it is used. Two or three requests.

        Where the storage makes short-lived keys, they reach no further than the DID (for a file, what was shared or the
        bucket), and only with ``write`` are they good for writing. Elsewhere the server signs each request, if the
        account may do it. What is written this way is not in Rucio's catalogue: ``rucio upload`` and ``rucio s3
        upload`` register what they store.

        Parameters
        ----------
        did :
            ``scope:name``, or ``scope`` for its bucket. Not needed if this client was made with an endpoint or keys.
        scope, name :
            The same in two.
        rse :
            Where. Without, the best place.
        write :
            Whether it shall be able to write and delete.

        Returns
        -------
            A client as ``boto3.client('s3')`` makes them.

        Examples
        --------
        ??? Example

            ```python
            from rucio.client.s3client import S3Client
            s3 = S3Client().boto3_client('user.jdoe:thesis')
            s3.list_objects_v2(Bucket='user.jdoe', Prefix='thesis/')
            ```
        """
        if self._is_explicit:
            return self._explicit()
        scope, name = _did(did, scope, name)
        place = self._place(scope, name, rse)
        return self._client(
            place.endpoint, place.ways, lambda: self.get_did_credentials(scope, name, place.endpoint.rse, write)
        )

    def bucket_client(self, rse: str, bucket: str, prefix: str = '', write: bool = False) -> 'Boto3S3':
        """
        As :meth:`boto3_client`, for a part of a bucket, whatever the catalogue knows of it. One or two requests.

        Short-lived keys reach as far around the prefix as the account may: for the owner, to all of the bucket.

        Parameters
        ----------
        rse :
            The name of the RSE.
        bucket :
            The bucket.
        prefix :
            A key, or what keys begin with.
        write :
            Whether it shall be able to write and delete.
        """
        endpoint, ways = self._storage(rse)
        return self._client(endpoint, ways, lambda: self.get_s3_credentials(rse, bucket, prefix, write))

    def storage_options(
        self,
        did: Optional[str] = None,
        *,
        scope: Optional[str] = None,
        name: Optional[str] = None,
        rse: Optional[str] = None,
        write: bool = False,
    ) -> dict[str, Any]:
        """
        What fsspec and s3fs take, and with them uproot, pandas, dask and xarray. Two or three requests.

        s3fs cannot renew keys: they end after the lifetime that the server sets, an hour as a rule. Ask again then.

        Parameters
        ----------
        did, scope, name, rse, write :
            As :meth:`boto3_client` has them.

        Raises
        ------
        RSEOperationNotSupported
            If the storage makes no short-lived keys, and rucio.cfg has none: see :meth:`boto3_client`.

        Examples
        --------
        ??? Example

            ```python
            import uproot
            from rucio.client.s3client import S3Client
            options = S3Client().storage_options('user.jdoe:thesis')
            uproot.open('s3://user.jdoe/thesis/file.root', **options)
            ```
        """
        if self._is_explicit:
            return _fsspec(self._endpoint_url, self._region, (*self._keys, None), self._config)
        scope, name = _did(did, scope, name)
        place = self._place(scope, name, rse)
        endpoint = place.endpoint
        style: Any = {'addressing_style': endpoint.addressing}
        config = Config(s3=style).merge(self._config)
        return _fsspec(
            endpoint.url,
            self._region or _region(endpoint),
            self._keys_for(place, scope, name, write),
            config,
            endpoint.ca_bundle,
        )

    def obstore_store(
        self,
        did: Optional[str] = None,
        *,
        scope: Optional[str] = None,
        name: Optional[str] = None,
        rse: Optional[str] = None,
        write: bool = False,
    ) -> Any:
        """
        An obstore ``S3Store`` of the bucket of a DID; its keys are renewed for as long as it is used. Two or three
        requests.

        Parameters
        ----------
        did, scope, name, rse, write :
            As :meth:`boto3_client` has them.

        Raises
        ------
        MissingDependency
            If obstore is not installed.
        RSEOperationNotSupported
            If the storage makes no short-lived keys: see :meth:`boto3_client`.
        """
        try:
            from obstore.store import S3Store  # type: ignore[import-not-found] # noqa: PLC0415 - optional
        except ImportError:
            raise MissingDependency('obstore is not installed: pip install obstore.') from None
        scope, name = _did(did, scope, name)
        place = self._place(scope, name, rse)
        endpoint = place.endpoint
        self._keys_for(place, scope, name, write)  # fails now, not at the first object

        def provide() -> dict[str, Any]:
            if not _vends(place.endpoint, place.ways):
                access_key, secret_key, token = self._keys_for(place, scope, name, write)
                return _given(access_key_id=access_key, secret_access_key=secret_key, token=token) | {
                    'expires_at': None
                }
            keys = self.get_did_credentials(scope, name, endpoint.rse, write)
            return {
                'access_key_id': keys['access_key'],
                'secret_access_key': keys['secret_key'],
                'token': keys['session_token'],
                'expires_at': datetime.strptime(keys['expiration'], '%Y-%m-%dT%H:%M:%SZ').replace(tzinfo=timezone.utc),
            }

        return S3Store(
            place.bucket,
            endpoint=endpoint.url,
            region=_region(endpoint),
            virtual_hosted_style_request=endpoint.addressing == 'virtual',
            client_options={'allow_http': endpoint.url.startswith('http:')},
            credential_provider=provide,
        )

    # How it is done

    def _open(self, told: 'RSEAnswer') -> 'RSEAnswer':
        """An RSE, with the ways that are open to this client."""
        if not is_private(self.host):
            told['auth'] = [way for way in told['auth'] or [] if way != 'vended']
        return told

    def _keys_of(self, request: api.GetCredentials) -> api.Credentials:
        need_private(self.host, 'The keys that the Rucio server gives', 'Set rucio_host in rucio.cfg to its https URL.')
        return checked_keys(self._who, self._ask(request))

    def _until_done(
        self, request: 'Request[ReconcileAnswer]', progress: 'Optional[Callable[[dict[str, int]], None]]' = None
    ) -> 'ReconcileAnswer':
        """Ask, and ask again with the ``after`` of the answer until that is None. The counts are added up."""
        counts: Counter[str] = Counter()
        problems: list[api.Problem] = []
        while True:
            answer = self._ask(request)
            counts.update(answer['counts'])
            problems += answer['problems']
            if progress is not None:
                progress(dict(counts))
            if answer['after'] is None:
                answer['counts'], answer['problems'] = dict(counts), problems
                return answer
            request = replace(request, after=answer['after'])  # type: ignore[type-var] # both are a Wish

    def _ask(self, request: 'Request[Answer]') -> 'Answer':
        """One request to the plugin, and what it answered.

        :raises RSEOperationNotSupported: if the server has no plugin, or one that does not know this request.
        """
        path, query, body = request.parts()
        response = self._send(request.method, path, query, body)
        if response.status_code in (codes.ok, codes.created):
            found = self._json(response) if response.content else {}
            if isinstance(found, list):
                found = [_Told(self._who, each) if isinstance(each, dict) else each for each in found]
            answer: Any = _Told(self._who, found) if isinstance(found, dict) else found
            return cast('Answer', answer)
        if response.status_code in _NO_ROUTE and 'ExceptionClass' not in response.headers:
            raise RSEOperationNotSupported(self._why_not(request))
        kind, message = rucio_internals.exception_of(self, response)
        raise kind(printable(message, _LONGEST_REFUSAL))

    def _why_not(self, request: 'Request[Any]') -> str:
        """Why the server does not know a request, at the cost of one more."""
        response = self._send('GET', *api.GetVersion().parts())
        if response.status_code != codes.ok:
            return f'{NO_PLUGIN} ({self.host}).'
        told = str(self._json(response).get('version'))
        return (
            f'{self._who} has version {printable(told, 64)} of the S3 plugin, which does not know {request.method} '
            f'/s3{request.path}; this client has version {api.version()}. Have the older of the two updated.'
        )

    def _json(self, response: 'Response') -> Any:
        try:
            return response.json()
        except ValueError:
            raise ServerConnectionException(
                f'{self.host} did not answer in JSON: check rucio_host in rucio.cfg, and what stands before the server.'
            ) from None

    def _send(self, method: str, path: str, query: dict[str, Any], body: Optional[dict[str, Any]]) -> 'Response':
        """A request; again where the server says when (429), for :attr:`PATIENCE` seconds at most."""
        url = build_url(choice(self.list_hosts), path=f'{self.S3_BASEURL}{path}', params=query or None)
        data, patience = None if body is None else dumps(body), self.PATIENCE
        while True:
            try:
                response = rucio_internals.send(self, url, method, data)
                response.content  # noqa: B018 - it is read here, if it can be
            except (RequestException, ServerConnectionException) as error:
                raise ServerConnectionException(
                    f'{self.host} did not answer. Try again later, or check rucio_host in rucio.cfg.'
                ) from error
            busy = response.status_code == codes.too_many_requests
            pause = _retry_after(response.headers.get('Retry-After')) if busy else 0
            if not 0 < pause <= patience:
                return response
            patience -= pause
            time.sleep(pause)

    @property
    def _is_explicit(self) -> bool:
        return bool(self._endpoint_url or self._keys[0])

    def _explicit(self) -> 'Boto3S3':
        session = factory.user_session()
        if all(self._keys):
            session.set_credentials(str(self._keys[0]), str(self._keys[1]))
        client: Boto3S3 = factory.client(
            self._resource, session, self._endpoint_url, region=self._region, config=self._config
        )
        return client

    def _place(self, scope: str, name: str, rse: Optional[str]) -> _Place:
        place = self.best_place(scope, name, rse)
        endpoint, ways = self._storage(place['rse'])
        return _Place(endpoint, ways, place['bucket'], place['key'])

    def _storage(self, rse: str) -> tuple[Endpoint, tuple[str, ...]]:
        """The storage as the server describes it, with what rucio.cfg says of it on this machine."""
        told: Mapping[str, Any] = self.get_s3_rse(rse)
        scheme, _, host = checked(self._who, 'url', told.get('url')).partition('://')
        host, _, port = host.rpartition(':') if re.search(':[0-9]{1,5}$', host) else (host, '', '')
        names = ('provider', 'region', 'addressing', 'bucket_prefix', 'verifies_body', 'web_identity_role_arn')
        settings = {name: told[name] for name in names if told.get(name) not in (None, '')}
        if 'anonymous' in (told.get('auth') or ()):
            settings['auth'] = 'anonymous'
        protocol = {'scheme': scheme, 'hostname': host, 'port': int(port or 0), 'extended_attributes': {'s3': settings}}
        return Endpoint.load({'rse': rse, 'id': ''}, protocol), tuple(told.get('auth') or ())

    def _keys_for(
        self, place: _Place, scope: str, name: str, write: bool
    ) -> tuple[Optional[str], Optional[str], Optional[str]]:
        secrets = place.endpoint.secrets
        if not _vends(place.endpoint, place.ways) and secrets.access_key:
            return secrets.access_key, secrets.secret_key, secrets.session_token
        if 'vended' not in place.ways:
            raise RSEOperationNotSupported(_no_way(place.endpoint.rse))
        keys = self.get_did_credentials(scope, name, place.endpoint.rse, write)
        return keys['access_key'], keys['secret_key'], keys['session_token']

    def _client(self, endpoint: Endpoint, ways: tuple[str, ...], fetch: 'Callable[[], api.Credentials]') -> 'Boto3S3':
        if _vends(endpoint, ways):
            return self._make(endpoint, _Keys(fetch))
        authorizer = credentials.choose(endpoint, self, self.auth_token if self.auth_type == 'oidc' else None)
        if authorizer is None:
            raise RSEOperationNotSupported(_no_way(endpoint.rse))
        return self._make(endpoint, authorizer)

    def _presigner(self, rse: str, bucket: str, key: str, write: bool) -> 'Boto3S3':
        """A client with keys: only those sign URLs."""
        endpoint, ways = self._storage(rse)
        if not _vends(endpoint, ways) and not endpoint.secrets.access_key:
            raise RSEOperationNotSupported(_no_way(rse))
        return self._client(endpoint, ways, lambda: self.get_s3_credentials(rse, bucket, key, write))

    def _make(self, endpoint: Endpoint, authorizer: authorizer.Authorizer) -> 'Boto3S3':
        """A client of its own: the shared ones of :mod:`rucio.common.s3.clients` never overwrite, which is not what
        boto3 does.
        """
        integrity: Any = 'when_supported' if endpoint.checksum == 'crc32' else 'when_required'
        style: Any = {'addressing_style': endpoint.addressing}
        config = Config(s3=style, request_checksum_calculation=integrity).merge(self._config)
        if not authorizer.signed:
            config = config.merge(Config(signature_version=UNSIGNED))
        session = authorizer.session()
        region = self._region or _region(endpoint, authorizer.region)
        client: Boto3S3 = factory.client(
            's3',
            session,
            endpoint.url,
            region=region,
            ca_bundle=endpoint.ca_bundle,
            patience=endpoint.patience(),
            config=config,
        )
        authorizer.attach(client)
        return client


class _Keys(authorizer.Authorizer):
    """Keys of one grant, renewed before they end."""

    name = 'vended'
    identity = 'vended'

    def __init__(self, fetch: 'Callable[[], api.Credentials]') -> None:
        self._fetch = fetch

    def session(self) -> 'Session':
        first = [self._metadata()]
        lasts = (datetime.fromisoformat(first[0]['expiry_time']) - datetime.now(timezone.utc)).total_seconds()
        return factory.bare_session(
            botocore_internals.renewed_keys(
                lambda: first.pop() if first else self._metadata(), int(min(900, lasts / 3)), int(min(600, lasts / 6))
            )
        )

    def _metadata(self) -> dict[str, str]:
        keys = self._fetch()
        expiry = keys['expiration'].replace('Z', '+00:00')
        return {
            'access_key': keys['access_key'],
            'secret_key': keys['secret_key'],
            'token': keys['session_token'],
            'expiry_time': expiry,
        }


def _retry_after(value: Optional[str]) -> int:
    """Seconds; the header may be missing, or a date."""
    return max(1, int(value)) if value and value.isascii() and value.isdigit() else 5


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _fsspec(
    url: Optional[str],
    region: Optional[str],
    keys: tuple[Optional[str], ...],
    config: Any,
    ca_bundle: Optional[str] = None,
) -> dict[str, Any]:
    hide_in_logs()
    named = _given(
        key=keys[0],
        secret=keys[1],
        token=keys[2],
        endpoint_url=url,
        client_kwargs=_given(region_name=region, verify=factory.trusted(ca_bundle)),
    )
    return named | {'config_kwargs': _given(signature_version=config.signature_version, s3=config.s3)}


def _did(did: Optional[str], scope: Optional[str], name: Optional[str]) -> tuple[str, str]:
    if did is not None:
        scope, _, name = did.partition(':')
    if not scope:
        raise InputValidationError("No DID was given. Give one as 'scope:name', or 'scope' for its bucket.")
    return scope, (name or '').strip('/')


def _vends(endpoint: Endpoint, ways: tuple[str, ...]) -> bool:
    """Whether keys of the server are used: rucio.cfg may have own ones, or want another way."""
    own = endpoint.secrets.access_key or endpoint.secrets.profile
    return 'vended' in ways and (endpoint.auth == 'vended' or (endpoint.auth == 'auto' and not own))


def _region(endpoint: Endpoint, known: Optional[str] = None) -> str:
    return endpoint.region or known or endpoint.default_region


def _no_way(rse: str) -> str:
    return (
        f'RSE {rse}: this needs keys, and the Rucio server makes none for this storage (no role_arn, '
        f'or no safe role: see rucio s3 check {rse}). Put keys into '
        f'rucio.cfg [s3:{rse}], or ask its operator for vended keys. `rucio upload` and `rucio download` work without.'
    )
