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

"""The endpoint that `rucio s3 serve --install` sets up once: its port, keys and certificate, in files of the user.

The certificate signs no others: whoever trusts it trusts this endpoint and nothing else.
"""

import datetime
import ipaddress
import json
import os
import socket
import ssl
from typing import NamedTuple, Optional

from rucio.client.s3serve.server import HOST
from rucio.client.s3serve.signatures import LocalKeys
from rucio.common.exception import InputValidationError

from . import private

__all__ = ['FOLDER', 'Installed', 'certificate', 'install', 'load']

FOLDER = '~/.rucio-s3'
_VALID = datetime.timedelta(days=3650)  # tools would have to be told of a new one


class Installed(NamedTuple):
    """An endpoint that tools are set up for.

    :param port: Its port.
    :param keys: The keys for it.
    """

    port: int
    keys: LocalKeys

    def context(self) -> ssl.SSLContext:
        """Return what proves to a tool that this is the endpoint."""
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            made.load_cert_chain(_path('endpoint.pem'))
        except OSError as error:
            raise _spoilt(f'{FOLDER}/endpoint.pem: {error.strerror}') from None
        return made


def certificate() -> str:
    """Return the path of the certificate that tools trust."""
    return _path('certificate.pem')


def load() -> Optional[Installed]:
    """Return the endpoint that was set up; None if there is none.

    :raises InputValidationError: if its file is not as it was written, or not safe.
    """
    text = private.read(_path('endpoint.json'))
    if not text:
        return None
    try:
        known = json.loads(text)
        return Installed(int(known['port']), LocalKeys(*(str(known[name]) for name in LocalKeys._fields)))
    except (ValueError, KeyError, TypeError):
        raise _spoilt(f'{FOLDER}/endpoint.json is not as it was written') from None


def install(port: int) -> Installed:
    """Set the endpoint up, unless it is.

    :param port: The port; 0 for a free one, or that which it has.
    :raises InputValidationError: if it has another port, or a file cannot be written.
    """
    known = load()
    if known:
        if port not in (0, known.port):
            raise InputValidationError(
                f'Port {known.port} is set up, also in the configuration of tools. For another one, remove {FOLDER} '
                'and install them again.'
            )
        return known
    key, public = _new_certificate()
    made = Installed(port or _free_port(), LocalKeys.make())
    private.replace(_path('endpoint.pem'), lambda _: key + public)
    private.replace(certificate(), lambda _: public)
    # The last one: with it, all is there.
    private.replace(_path('endpoint.json'), lambda _: json.dumps({'port': made.port, **made.keys._asdict()}) + '\n')
    return made


def _path(name: str) -> str:
    return os.path.join(os.path.expanduser(FOLDER), name)


def _spoilt(what: str) -> InputValidationError:
    return InputValidationError(f'{what}: remove {FOLDER}, and install the tools again (rucio s3 serve --install).')


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as sock:
        return int(sock.getsockname()[1])


def _new_certificate() -> tuple[str, str]:
    """Make a key and its certificate for this machine, in PEM."""
    from cryptography import x509  # noqa: PLC0415 - only installing needs it
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'rucio s3 serve')])
    names = [x509.IPAddress(ipaddress.ip_address(HOST)), x509.DNSName('localhost')]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return secret.decode(), made.public_bytes(pem).decode()
