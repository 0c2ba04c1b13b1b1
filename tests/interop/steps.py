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

"""One operation by a Python library, as a program: steps.py LIBRARY OPERATION BUCKET FOLDER DIRECTORY; the storage is in the environment.

The libraries are in an environment of their own, so nothing of these tests is imported.
"""
# ruff: noqa: PLC0415, T201

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

_, library, operation, bucket, folder, directory = sys.argv
here = Path(directory)
root = f'{bucket}/{folder}'
url = os.environ['AWS_ENDPOINT_URL_S3']


def boto3() -> dict[str, Callable[[], Any]]:
    import boto3 as boto
    from botocore.config import Config

    s3 = boto.client('s3', config=Config(signature_version='s3v4'))  # its signed URLs are of version 2 by default
    objects = boto.resource('s3').Bucket(bucket).objects
    return {
        'ls': lambda: print([each.key for each in objects.filter(Prefix=f'{folder}/ls/')]),
        'put': lambda: s3.put_object(Bucket=bucket, Key=f'{folder}/put', Body=(here / 'small').read_bytes()),
        'get': lambda: s3.download_file(bucket, f'{folder}/get', str(here / 'got')),
        'large put': lambda: s3.upload_file(str(here / 'large'), bucket, f'{folder}/large'),
        'copy': lambda: s3.copy({'Bucket': bucket, 'Key': f'{folder}/copy'}, bucket, f'{folder}/copied'),
        'delete': lambda: s3.delete_object(Bucket=bucket, Key=f'{folder}/delete'),
        'recursive delete': lambda: (
            [failed for each in objects.filter(Prefix=f'{folder}/all/').delete() for failed in each.get('Errors', ())] and sys.exit('AccessDenied')
        ),
        'range': lambda: (here / 'ranged').write_bytes(s3.get_object(Bucket=bucket, Key=f'{folder}/get', Range='bytes=2-4')['Body'].read()),
        'presign': lambda: print(s3.generate_presigned_url('get_object', {'Bucket': bucket, 'Key': f'{folder}/get'})),
    }


def s3fs() -> dict[str, Callable[[], Any]]:
    import s3fs as library_

    fs = library_.S3FileSystem(config_kwargs={'signature_version': 's3v4'})
    return {
        'ls': lambda: print(fs.ls(f'{root}/ls')),
        'put': lambda: fs.pipe_file(f'{root}/put', (here / 'small').read_bytes()),
        'get': lambda: fs.get_file(f'{root}/get', str(here / 'got')),
        'large put': lambda: fs.put_file(str(here / 'large'), f'{root}/large', chunksize=8 * 1024**2),
        'copy': lambda: fs.copy(f'{root}/copy', f'{root}/copied'),
        'move': lambda: fs.mv(f'{root}/move', f'{root}/moved'),
        'delete': lambda: fs.rm_file(f'{root}/delete'),
        'recursive delete': lambda: fs.rm(f'{root}/all', recursive=True),
        'range': lambda: (here / 'ranged').write_bytes(fs.cat_file(f'{root}/get', start=2, end=5)),
        'presign': lambda: print(fs.url(f'{root}/get')),
    }


def obstore() -> dict[str, Callable[[], Any]]:
    import obstore as obs
    from obstore.store import S3Store

    authority = os.environ.get('SSL_CERT_FILE')
    options = {'root_certificate': Path(authority).read_bytes()} if authority and url.startswith('https:') else {'allow_http': True}
    store = S3Store(bucket, endpoint=url, virtual_hosted_style_request=False, client_options=options)
    return {
        'ls': lambda: print([each['path'] for each in obs.list(store, f'{folder}/ls').collect()]),
        'put': lambda: obs.put(store, f'{folder}/put', (here / 'small').read_bytes()),
        'get': lambda: (here / 'got').write_bytes(obs.get(store, f'{folder}/get').bytes()),
        'large put': lambda: obs.put(store, f'{folder}/large', here / 'large'),
        'copy': lambda: obs.copy(store, f'{folder}/copy', f'{folder}/copied'),
        'move': lambda: obs.rename(store, f'{folder}/move', f'{folder}/moved'),
        'delete': lambda: obs.delete(store, f'{folder}/delete'),
        'recursive delete': lambda: obs.delete(store, [each['path'] for each in obs.list(store, f'{folder}/all').collect()]),
        'range': lambda: (here / 'ranged').write_bytes(obs.get_range(store, f'{folder}/get', start=2, end=5)),
        'presign': lambda: print(obs.sign(store, 'GET', f'{folder}/get', timedelta(minutes=10))),
    }


def pyarrow() -> dict[str, Callable[[], Any]]:
    from pyarrow import fs as arrow

    scheme, _, host = url.partition('://')
    more = {'tls_ca_file_path': os.environ['SSL_CERT_FILE']} if scheme == 'https' else {}
    keys = {name: os.environ[f'AWS_{name.upper()}'] for name in ('session_token', 'region')}
    access = {'access_key': os.environ['AWS_ACCESS_KEY_ID'], 'secret_key': os.environ['AWS_SECRET_ACCESS_KEY']}
    fs = arrow.S3FileSystem(endpoint_override=host, scheme=scheme, **access, **keys, **more)

    def put(source: str, target: str) -> None:
        with fs.open_output_stream(target) as stream:
            stream.write((here / source).read_bytes())

    return {
        'ls': lambda: print([each.path for each in fs.get_file_info(arrow.FileSelector(f'{root}/ls'))]),
        'put': lambda: put('small', f'{root}/put'),
        'get': lambda: (here / 'got').write_bytes(fs.open_input_stream(f'{root}/get').read()),
        'large put': lambda: put('large', f'{root}/large'),
        'copy': lambda: fs.copy_file(f'{root}/copy', f'{root}/copied'),
        'move': lambda: fs.move(f'{root}/move', f'{root}/moved'),
        'delete': lambda: fs.delete_file(f'{root}/delete'),
        'recursive delete': lambda: fs.delete_dir_contents(f'{root}/all'),
        'range': lambda: (here / 'ranged').write_bytes(fs.open_input_file(f'{root}/get').read_at(3, 2)),
    }


{'boto3': boto3, 's3fs': s3fs, 'obstore': obstore, 'pyarrow': pyarrow}[library]()[operation]()
