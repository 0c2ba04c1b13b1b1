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

"""The replicas that files are downloaded from."""

import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional, Union

from rucio.common.client import detect_client_location
from rucio.common.exception import (
    DestinationNotAccessible,
    RSEOperationNotSupported,
    RSEProtocolNotSupported,
    RucioException,
    SourceNotFound,
)
from rucio.common.s3 import transfer
from rucio.common.s3.content import Checksums
from rucio.common.s3.errors import is_unanswered, is_unreachable
from rucio.rse import rsemanager
from rucio.rse.protocols.s3 import Default

from .pipeline import LARGE_AT_ONCE, message
from .tally import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio.client.client import Client
    from rucio.client.s3client import S3Client

    from .paths import RemoteFile
    from .tally import Tally

__all__ = ['Replicas', 'Sources']


class Replicas(NamedTuple):
    """What the server knows of a file: its checksums, and (RSE, PFN) of each replica in the order to try them."""

    checksums: Checksums
    places: Sequence[tuple[str, str]]


class Sources:
    """The replicas of files, chosen by the Rucio server as for the stock ``rucio download``.

    :param client: The Rucio client. Only one thread at a time may call :meth:`look_up`.
    :param rse_expression: Only use replicas on these RSEs.
    :param server: The S3 client, by which a server with the plugin is asked.
    """

    def __init__(
        self, client: 'Client', rse_expression: Optional[str] = None, server: 'Optional[S3Client]' = None
    ) -> None:
        self._client = client
        self._server = server
        self._plain: dict[str, Optional[Default]] = {}  # RSEs whose PFNs are those that their protocol makes here
        self._expression = rse_expression
        self._location = detect_client_location()
        self._protocols: dict[tuple[str, str], Union[Default, RucioException, None]] = {}
        self._shared: dict[tuple[str, str], int] = {}  # RSE, scheme -> size in bytes below which processes get files
        self._large = threading.Semaphore(LARGE_AT_ONCE)
        self._silent: set[str] = set()  # RSEs that are tried last, as they do not answer
        self.latency = 0.0  # seconds in which the last storage answers, as far as is known

    def look_up(self, files: 'Iterable[RemoteFile]') -> dict[str, Replicas]:
        """Get the replicas of files. One request to a server with the plugin, and two for each new RSE.

        Stock Rucio is asked for files with several replicas, which it sorts, and where this client cannot make the
        PFNs: one request or two, and a hundred times as long.

        :param files: At most 500 files.
        :returns: The replicas by DID.
        """
        wanted = {each.did: {'scope': each.scope, 'name': each.name} for each in files}
        alone = self._alone(wanted)
        # What Rucio says of one file of an RSE tells whether this client can make the PFNs of the others.
        samples = {rse: did for did, (rse, _) in alone.items() if rse not in self._plain}
        found = self._ask([wanted[did] for did in samples.values()])
        for rse, did in samples.items():
            self._plain[rse] = self._protocol_if_plain(rse, wanted[did], found.get(did))
        for did, (rse, checksums) in alone.items():
            if did not in found and (protocol := self._plain[rse]) is not None:
                found[did] = Replicas(checksums, [(rse, _pfn(protocol, wanted[did]))])
        return found | self._ask([each for did, each in wanted.items() if did not in found])

    def _alone(self, wanted: 'dict[str, dict[str, str]]') -> dict[str, tuple[str, Checksums]]:
        """Return RSE and checksums of those files that have only one replica, if a server with the plugin tells."""
        if self._server is None:
            return {}
        names: dict[str, list[str]] = {}
        for each in wanted.values():
            names.setdefault(each['scope'], []).append(each['name'])
        try:
            told = {scope: self._server.look_up_files(scope, some) for scope, some in names.items()}
        except RSEOperationNotSupported:
            self._server = None
            return {}
        return {
            f'{scope}:{each["name"]}': (each['rses'][0], Checksums(each['md5'], each['adler32'], each['bytes']))
            for scope, some in told.items()
            for each in some
            if len(each['rses']) == 1
        }

    def _protocol_if_plain(self, rse: str, did: dict[str, str], told: Optional[Replicas]) -> Optional[Default]:
        """Return the protocol object of an RSE if Rucio gave a file there the PFN that the protocol makes.

        It is another one for a client behind a proxy or with another protocol near the storage, or for a path of a
        non-deterministic RSE; there is none if the RSE is not among those that were asked for.
        """
        if told is None or len(told.places) != 1:
            return None
        ((_, pfn),) = told.places
        protocol = self._protocols[rse, pfn.partition(':')[0]]
        if not isinstance(protocol, Default) or not protocol.rse['deterministic'] or _pfn(protocol, did) != pfn:
            return None
        return protocol

    def _ask(self, dids: list[dict[str, str]]) -> dict[str, Replicas]:
        """Get the replicas of files from stock Rucio. One request, another if files have several, one for a new RSE."""
        found = {}
        for each in self._list(dids) if dids else []:
            pfns = sorted((known['priority'], known['rse'], pfn) for pfn, known in each['pfns'].items())
            for _, rse, pfn in pfns:
                self._need_protocol(rse, pfn)
            found[f'{each["scope"]}:{each["name"]}'] = Replicas(
                Checksums(each['md5'], each['adler32'], each['bytes']), [(rse, pfn) for _, rse, pfn in pfns]
            )
        return found

    def _list(self, dids: list[dict[str, str]]) -> list[dict[str, Any]]:
        """List replicas. The Rucio server sorts only those of files with several: it takes milliseconds for each."""
        replicas = self._ask_for(dids, 'random')
        several = [{'scope': each['scope'], 'name': each['name']} for each in replicas if len(each['pfns']) > 1]
        return [each for each in replicas if len(each['pfns']) <= 1] + self._ask_for(several, None)

    def _ask_for(self, dids: list[dict[str, str]], sort: Optional[str]) -> list[dict[str, Any]]:
        replicas: Any = dids and self._client.list_replicas(
            dids,
            ignore_availability=False,
            rse_expression=self._expression,
            client_location=self._location,
            resolve_archives=False,
            sort=sort,
        )
        return list(replicas)

    def _need_protocol(self, rse: str, pfn: str) -> None:
        """Make the protocol object of an RSE here, as the client must not be used by several threads."""
        key = (rse, pfn.partition(':')[0])
        if key in self._protocols:
            return
        try:
            self._protocols[key] = connect(self._client, self._client.get_rse(rse), 'read', key[1])
        except RucioException as error:  # its settings are wrong: the other replicas may do
            self._protocols[key] = error

    def share(self) -> bool:
        """Let forked processes get small files from the storages that are known by now.

        :returns: Whether there are any.
        """
        for key, protocol in self._protocols.items():
            with suppress(RucioException):  # each file says so
                connection = protocol.connection() if isinstance(protocol, Default) else None
                if connection is not None and connection.direct is not None:
                    self._shared[key] = connection.endpoint.multipart_threshold
        return bool(self._shared)

    def is_shared(self, replicas: Replicas) -> bool:
        """Return whether a forked process can get this file.

        :param replicas: The replicas of the file.
        """
        limits = [self._shared.get((rse, pfn.partition(':')[0]), 0) for rse, pfn in replicas.places]
        return 0 < (replicas.checksums.size or 0) < min(limits, default=0)

    def renew(self) -> None:
        """Connect anew, in a forked process: it must not use the connections of its parent."""
        for key, protocol in self._protocols.items():
            if isinstance(protocol, Default):
                self._protocols[key] = renewed(protocol)

    def usable(self, replicas: Replicas) -> list[tuple[str, Union[Default, RucioException], str]]:
        """Return RSE, protocol object (or why there is none) and PFN of the replicas that can be tried, in their order.

        :param replicas: The replicas of a file.
        :raises SourceNotFound: if there is none.
        """
        places = sorted(replicas.places, key=lambda place: place[0] in self._silent)
        found = [(rse, self._protocols[rse, pfn.partition(':')[0]], pfn) for rse, pfn in places]
        usable = [(rse, protocol, pfn) for rse, protocol, pfn in found if protocol is not None]
        if usable:
            return usable
        others = sorted({rse for rse, _ in places})
        where = f' on {self._expression}' if self._expression else ''
        raise SourceNotFound(
            f'has replicas only on other kinds of RSEs ({", ".join(others)}): use rucio download'
            if others
            else f'has no available replica{where}'
        )

    def get(self, replicas: Replicas, path: str, tally: 'Tally[Any]') -> None:
        """Download a file from the first replica that works, and compare it with the catalogue.

        One request, or two for an empty object, or more for a large one.

        :param replicas: Its replicas.
        :param path: The local path.
        :param tally: Moves the progress bar, and stops the download.
        :raises SourceNotFound: if it has no replica that can be downloaded here.
        :raises Refused: if the download was stopped.
        :raises RucioException: the failures of all replicas, in one message.
        """

        def get(protocol: Default, pfn: str) -> None:
            if tally.stop.is_set():
                raise Refused('was not downloaded: the download was stopped')
            self._get(protocol, pfn, replicas.checksums, path, tally)

        self.attempt(replicas, get)

    def attempt(self, replicas: Replicas, get: 'Callable[[Default, str], None]') -> None:
        """Call a function for one replica after the other, until it works. Other exceptions than Rucio's end it.

        :param replicas: The replicas of a file.
        :param get: Called with the protocol object and the PFN.
        :raises SourceNotFound: if it has no replica that can be downloaded here.
        :raises DestinationNotAccessible: if that is what happens: other replicas would not help.
        :raises RucioException: the failures of all replicas, in one message.
        """
        failures: list[RucioException] = []
        for rse, protocol, pfn in self.usable(replicas):
            try:
                if isinstance(protocol, RucioException):
                    raise protocol
                get(protocol, pfn)
            except DestinationNotAccessible:
                raise
            except RucioException as error:
                if is_unanswered(error.__cause__) or is_unreachable(error.__cause__):
                    self._silent.add(rse)
                failures.append(error)
            else:
                return
        raise type(failures[0])(' '.join(map(message, failures)))

    def _get(self, protocol: Default, pfn: str, expected: Checksums, path: str, tally: 'Tally[Any]') -> None:
        done = 0

        def step(number: int) -> None:
            nonlocal done
            done += number
            tally.step(number)

        connection, target = protocol.locate('read', pfn)
        large = (expected.size or 0) >= connection.endpoint.multipart_threshold
        try:
            with self._large if large else nullcontext():
                transfer.download(
                    connection,
                    target,
                    path,
                    meter=lambda *_: nullcontext(step),  # one progress bar for all files
                    expected=expected,
                    stop=tally.stop,
                    resume=True,
                )
        except BaseException:
            tally.step(-done)
            raise
        self.latency = connection.latency


def _pfn(protocol: Default, did: dict[str, str]) -> str:
    lfn: Any = did
    return next(iter(protocol.lfns2pfns(lfn).values()))


def renewed(protocol: Default) -> Default:
    """Return another protocol object for the same RSE, for a forked process: it shares no connection with this one.

    :param protocol: The protocol object.
    """
    return type(protocol)({**protocol.attributes, 'auth_token': protocol.auth_token}, protocol.rse)


def connect(
    client: 'Client', rse: Any, operation: Literal['read', 'write'], scheme: Optional[str] = None
) -> Optional[Default]:
    """Return the protocol object of an RSE for an operation, if it has one of :mod:`rucio.rse.protocols.s3`.

    :param client: The Rucio client.
    :param rse: The settings of the RSE.
    :param operation: read or write.
    :param scheme: Only a protocol of this scheme.
    """
    token = client.auth_token if client.auth_token and client.auth_token.count('.') == 2 else None
    with suppress(RSEProtocolNotSupported):  # it has none at all
        for each in rsemanager.get_protocols_ordered(rse, operation, scheme):
            protocol = rsemanager.create_protocol(rse, operation, protocol_attr=each, auth_token=token)
            if isinstance(protocol, Default):
                return protocol
    return None
