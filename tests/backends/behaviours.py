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

"""What storages do differently, and no setting depends on: one function each, which asks a storage, and answers in a word or two.

Those that `rucio s3 check` tries as well, because settings depend on them, are in lib/rucio/common/s3/probes. To add another one, write its function below the section where it belongs, and run ``make backends``. Its docstring is the row's last cell: what
it is to rucio-s3. What is answered must be the same each time; where luck has a part in it, ``lucky`` names the answers that prove nothing.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Collection
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

from rucio.common.s3 import probes
from rucio.common.s3.probes import Behaviour
from rucio.common.s3.probes.behaviour import KEPT, crc32, said, yes
from rucio.common.s3.probes.names import key_behaviour

from .storage import Answer, Probe

MiB = 1024**2
PART = 5 * MiB

BEHAVIOURS: list[Behaviour] = [*probes.ALL]
SECTIONS = ('Writing', 'What was received', 'ETags', 'Keys', 'Listing', 'Reading', 'Copies', 'Multipart uploads', 'Deleting', 'Buckets', 'Who may')


def behaviour(section: str, text: str, lucky: Collection[str] = ()) -> Callable[[Callable[[Probe], str]], Callable[[Probe], str]]:
    def add(probe: Callable[[Probe], str]) -> Callable[[Probe], str]:
        BEHAVIOURS.append(Behaviour(section, text, ' '.join((probe.__doc__ or '').split()), probe, lucky))
        return probe

    return add


# Writing


@behaviour('Writing', "PUT with `If-Match` and another ETag than the object's")
def put_if_match(p: Probe) -> str:
    """not used: rucio-s3 never overwrites"""
    key = p.put(b'first')
    return said(lambda: p.put(b'second', key, IfMatch='"0123456789abcdef0123456789abcdef"'), 'overwritten')


@behaviour('Writing', 'PUT into a bucket that is not there')
def put_into_no_bucket(p: Probe) -> str:
    """uploads say that the bucket is missing"""
    return said(lambda: p.s3.put_object(Bucket=f'missing-{uuid4().hex[:8]}', Key='x', Body=b''), 'makes it')


@behaviour('Writing', 'an empty object')
def empty_object(p: Probe) -> str:
    """empty files are files"""
    key = p.put(b'')
    return yes(p.get(key) == b'' and p.s3.head_object(Bucket=p.bucket, Key=key)['ContentLength'] == 0 and key in p.listed(Prefix=key))


@behaviour('Writing', 'metadata of the user (`x-amz-meta-`) is kept')
def metadata(p: Probe) -> str:
    """where rclone and s3cmd put their MD5, which saves the reconciler reading the object"""
    key = p.put(Metadata={'md5chksum': 'CY9rzUYh03PK3k6DJie09g=='})
    seen = p.s3.head_object(Bucket=p.bucket, Key=key)['Metadata']
    value = {name.lower(): value for name, value in seen.items()}.get('md5chksum')
    if value != 'CY9rzUYh03PK3k6DJie09g==':
        return 'no'
    return KEPT if 'md5chksum' in seen else 'with a capital'


# What was received


def sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


@behaviour('What was received', 'PUT with a wrong `x-amz-checksum-sha256`')
def wrong_sha256(p: Probe) -> str:
    """not used"""
    return said(lambda: p.put(b'content', ChecksumSHA256=sha256(b'another')), 'accepted')


@behaviour('What was received', 'PUT with a wrong `x-amz-content-sha256`')
def wrong_payload_hash(p: Probe) -> str:
    """over http boto3 signs the SHA-256 of what it sends"""
    headers = {'x-amz-content-sha256': hashlib.sha256(b'another').hexdigest()}
    answer = p.send('PUT', p.path(p.key()), headers=headers, body=b'content')
    return 'accepted' if answer.status == 200 else answer.said


def _trailer(p: Probe, key: str, checksum: str) -> Answer:
    content = b'content'
    body = b'%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n' % (len(content), content, checksum.encode())
    headers = {
        'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
        'content-encoding': 'aws-chunked',
        'x-amz-decoded-content-length': str(len(content)),
        'x-amz-trailer': 'x-amz-checksum-crc32',
        'transfer-encoding': 'chunked',
    }
    return p.send('PUT', p.path(key), headers=headers, body=body)


@behaviour('What was received', 'PUT with its CRC32 after the body (`aws-chunked`), as boto3 sends over https')
def trailer(p: Probe) -> str:
    """what `checksum = crc32` sends over https; `md5` never does"""
    right, wrong = p.key(), p.key()
    answer = _trailer(p, right, crc32(b'content'))
    if answer.status != 200:
        return answer.said
    if p.get(right) != b'content':
        return 'stored with its framing'
    return 'taken, not verified' if _trailer(p, wrong, crc32(b'another')).status == 200 else KEPT


@behaviour('What was received', 'GetObjectAttributes')
def attributes(p: Probe) -> str:
    """not used"""
    key = p.put()
    answer = p.s3.get_object_attributes(Bucket=p.bucket, Key=key, ObjectAttributes=['ETag', 'ObjectSize'])
    return yes(answer.get('ObjectSize') == len(b'content'))


# ETags


@behaviour('ETags', 'the ETag of a multipart object is the MD5 of its MD5s, `-`, and how many')
def etag_of_parts(p: Probe) -> str:
    """a listing shows which objects were sent in parts; the ETag is noted in the catalogue"""
    key, parts = p.key(), [b'a' * PART, b'b']
    p.complete(key, p.begin(key, *parts))
    expected = hashlib.md5(b''.join(hashlib.md5(part).digest() for part in parts)).hexdigest() + '-2'
    seen = p.etag(key)
    return (
        KEPT
        if seen == expected
        else 'MD5 of the object'
        if seen == hashlib.md5(b''.join(parts)).hexdigest()
        else 'something else' + (' with `-`' * ('-' in seen))
    )


@behaviour('ETags', 'the ETag in a listing is that of HEAD')
def etag_in_a_listing(p: Probe) -> str:
    """the reconciler takes it from the listing"""
    key, parts = p.key(), [b'a' * PART, b'b']
    p.complete(key, p.begin(key, *parts))
    return yes(p.s3.list_objects_v2(Bucket=p.bucket, Prefix=key)['Contents'][0]['ETag'].strip('"') == p.etag(key))


# Keys


BEHAVIOURS += [
    key_behaviour('long_key', '1024 bytes', '{}/' + '/'.join(['n' * 200] * 5) + 'n' * 6, 'the most that S3 allows, and that rucio-s3 sends'),
    key_behaviour('temporary_name', 'a key that ends in `.rucio.upload`', '{}.rucio.upload', "what Rucio's other protocols leave behind"),
]


@behaviour('Keys', '`a/` with content')
def trailing_slash(p: Probe) -> str:
    """names that end in `/` are refused before they reach a storage"""
    key = f'{p.key()}/'
    answer = said(lambda: p.put(b'content', key))
    if answer != 'yes':
        return answer
    content = said(lambda: p.get(key))
    return content if content != 'yes' else KEPT if p.get(key) == b'content' else 'content dropped'


# Listing


@behaviour('Listing', '`Delimiter`: common prefixes')
def delimiter(p: Probe) -> str:
    """`rucio s3 reconcile` cuts a bucket into parts by them"""
    base = p.key()
    for key in ('a/x', 'a/y', 'b'):
        p.put(b'x', f'{base}/{key}')
    answer = p.s3.list_objects_v2(Bucket=p.bucket, Prefix=f'{base}/', Delimiter='/')
    prefixes, keys = [each['Prefix'] for each in answer.get('CommonPrefixes', [])], [each['Key'] for each in answer.get('Contents', [])]
    return yes((prefixes, keys) == ([f'{base}/a/'], [f'{base}/b']))


@behaviour('Listing', 'a prefix that ends within a name')
def prefix(p: Probe) -> str:
    """listings below a collection"""
    base = p.key()
    for key in ('run1/a', 'run10/a', 'other'):
        p.put(b'x', f'{base}/{key}')
    return yes(sorted(p.listed(Prefix=f'{base}/run1')) == [f'{base}/run1/a', f'{base}/run10/a'])


@behaviour('Listing', 'a folder is no object of its own')
def no_markers(p: Probe) -> str:
    """such markers are counted and left out"""
    base = p.key()
    p.put(b'x', f'{base}/folder/a')
    return yes(p.listed(Prefix=base) == [f'{base}/folder/a'] and said(lambda: p.s3.head_object(Bucket=p.bucket, Key=f'{base}/folder')).startswith('404'))


@behaviour('Listing', 'a bucket that is not there')
def list_no_bucket(p: Probe) -> str:
    """nothing is taken for missing where its bucket is"""
    return said(lambda: p.s3.list_objects_v2(Bucket=f'missing-{uuid4().hex[:8]}'), 'empty')


# Reading


@behaviour('Reading', 'GET and HEAD of a key that is not there')
def get_missing(p: Probe) -> str:
    """told from a bucket that is not there by the error code, or by a HEAD of the bucket"""
    key = p.key()
    return f'{said(lambda: p.get(key))}, {said(lambda: p.s3.head_object(Bucket=p.bucket, Key=key))}'


@behaviour('Reading', 'GET from a bucket that is not there')
def get_no_bucket(p: Probe) -> str:
    """as above"""
    return said(lambda: p.s3.get_object(Bucket=f'missing-{uuid4().hex[:8]}', Key='x'))


@behaviour('Reading', 'a range')
def ranges(p: Probe) -> str:
    """downloads of large files, in parallel, and resumed"""
    key = p.put(b'0123456789')
    return yes((p.get(key, Range='bytes=2-4'), p.get(key, Range='bytes=7-'), p.get(key, Range='bytes=8-99')) == (b'234', b'789', b'89'))


@behaviour('Reading', 'an object that was written with `x-amz-storage-class: GLACIER`')
def storage_class(p: Probe) -> str:
    """where the class is listed, `rucio s3 ls` says `archived`; downloads and the reconciler go by the answer to GET"""
    key = p.put(StorageClass='GLACIER')
    (listed,) = p.s3.list_objects_v2(Bucket=p.bucket, Prefix=key)['Contents']
    told = 'listed as such' if listed.get('StorageClass') == 'GLACIER' else 'not kept'
    return f'{told}, GET: {said(lambda: p.get(key), "200")}'


@behaviour('Reading', 'tags of an object')
def object_tags(p: Probe) -> str:
    """vended keys may read those of the objects that they may read (`aws s3 cp` between buckets does), and write none"""
    key = p.put()
    p.s3.put_object_tagging(Bucket=p.bucket, Key=key, Tagging={'TagSet': [{'Key': 'a', 'Value': 'b'}]})
    return yes(p.s3.get_object_tagging(Bucket=p.bucket, Key=key)['TagSet'] == [{'Key': 'a', 'Value': 'b'}])


@behaviour('Reading', 'a range of an empty object')
def range_of_nothing(p: Probe) -> str:
    """stock Rucio's download of an empty file fails on 416; rucio-s3 asks for no range"""
    key = p.put(b'')
    return said(lambda: p.get(key, Range='bytes=0-0'), '200')


@behaviour('Reading', 'a range with `If-Match` of an object that was overwritten')
def pinned(p: Probe) -> str:
    """downloads and copies are of one version: the answer's ETag is compared, too"""
    key = p.put(b'first')
    etag = p.etag(key)
    p.put(b'second', key)
    return said(lambda: p.get(key, Range='bytes=0-1', IfMatch=f'"{etag}"'), 'the new one')


# Copies


@behaviour('Copies', 'CopyObject with `x-amz-copy-source-if-match` of an object that was overwritten')
def copy_pinned(p: Probe) -> str:
    """what is copied is what was compared; where it is not heeded, a source that is overwritten in that moment is copied as it is then"""
    source, key = p.put(b'first'), p.key()
    etag = p.etag(source)
    p.put(b'second', source)
    copied = lambda: p.s3.copy_object(Bucket=p.bucket, Key=key, CopySource={'Bucket': p.bucket, 'Key': source}, CopySourceIfMatch=f'"{etag}"')  # noqa: E731
    return said(copied, 'the new one')


# Multipart uploads


@behaviour('Multipart uploads', 'parts that arrive in another order')
def parts_in_any_order(p: Probe) -> str:
    """parts are sent in parallel (`max_concurrency`)"""
    key, contents = p.key(), {1: b'a' * PART, 2: b'b' * PART, 3: b'c'}
    upload = p.s3.create_multipart_upload(Bucket=p.bucket, Key=key)['UploadId']
    etags = {number: p.s3.upload_part(Bucket=p.bucket, Key=key, UploadId=upload, PartNumber=number, Body=contents[number])['ETag'] for number in (3, 2, 1)}
    p.complete(key, (upload, [{'PartNumber': number, 'ETag': etags[number]} for number in sorted(etags)]))
    return yes(p.get(key) == b''.join(contents.values()))


@behaviour('Multipart uploads', 'the part 10,000, and the part 10,001')
def last_part(p: Probe) -> str:
    """large files have larger parts: never more than 10,000"""
    key = p.key()
    upload, _ = p.begin(key)

    def send(number: int) -> Any:
        return p.s3.upload_part(Bucket=p.bucket, Key=key, UploadId=upload, PartNumber=number, Body=b'x')

    try:
        return f'{said(lambda: send(10_000), "taken")}, {said(lambda: send(10_001), "taken")}'
    finally:
        p.s3.abort_multipart_upload(Bucket=p.bucket, Key=key, UploadId=upload)


@behaviour('Multipart uploads', 'a part of less than 5 MiB that is not the last')
def small_part(p: Probe) -> str:
    """parts have at least 5 MiB (`multipart_chunksize`)"""
    key = p.key()
    begun = p.begin(key, b'x', b'y')
    answer = said(lambda: p.complete(key, begun), 'taken')
    if answer != 'taken':
        p.s3.abort_multipart_upload(Bucket=p.bucket, Key=key, UploadId=begun[0])
    return answer


@behaviour('Multipart uploads', 'a part is sent again')
def part_again(p: Probe) -> str:
    """a part whose answer was lost"""
    key, content = p.key(), b'a' * PART
    upload, _ = p.begin(key, content)
    sent = p.s3.upload_part(Bucket=p.bucket, Key=key, UploadId=upload, PartNumber=1, Body=content)
    p.complete(key, (upload, [{'PartNumber': 1, 'ETag': sent['ETag']}]))
    return yes(p.get(key) == content)


@behaviour('Multipart uploads', 'completed again, when the first answer was lost')
def completed_again(p: Probe) -> str:
    """after a lost answer a look at the object tells whether it had succeeded"""
    key = p.key()
    begun = p.begin(key, b'content')
    p.complete(key, begun)
    return said(lambda: p.complete(key, begun))


@behaviour('Multipart uploads', 'uploads that are not completed are listed')
def uploads_listed(p: Probe) -> str:
    """`rucio s3 remove-bucket` ends them before it removes a bucket"""
    key = p.key()
    begun = p.begin(key, b'content')
    try:
        return yes(key in [each['Key'] for each in p.s3.list_multipart_uploads(Bucket=p.bucket).get('Uploads', [])])
    finally:
        p.s3.abort_multipart_upload(Bucket=p.bucket, Key=key, UploadId=begun[0])


@behaviour('Multipart uploads', 'ListMultipartUploads where there are none')
def no_uploads(p: Probe) -> str:
    """NoSuchUpload is taken for "none" """
    bucket = p.new_bucket()
    return said(lambda: p.s3.list_multipart_uploads(Bucket=bucket), 'empty')


@behaviour('Multipart uploads', 'AbortMultipartUpload, and once more')
def aborted_again(p: Probe) -> str:
    """an abort whose answer was lost is asked for again"""
    key = p.key()
    upload, _ = p.begin(key, b'content')
    return ', '.join(said(lambda: p.s3.abort_multipart_upload(Bucket=p.bucket, Key=key, UploadId=upload)) for _ in range(2))


@behaviour('Multipart uploads', 'no object is seen before it is completed')
def invisible_parts(p: Probe) -> str:
    """an upload that fails leaves no object"""
    key = p.key()
    upload, _ = p.begin(key, b'content')
    seen = said(lambda: p.s3.head_object(Bucket=p.bucket, Key=key)), p.listed(Prefix=key)
    p.s3.abort_multipart_upload(Bucket=p.bucket, Key=key, UploadId=upload)
    return yes(seen[0].startswith('404') and not seen[1])


# Deleting


@behaviour('Deleting', 'DELETE of a key that is not there')
def delete_missing(p: Probe) -> str:
    """a HEAD before it tells the reaper that the file was missing"""
    return said(lambda: p.s3.delete_object(Bucket=p.bucket, Key=p.key()), '204')


@behaviour('Deleting', 'DELETE in a bucket that is not there')
def delete_no_bucket(p: Probe) -> str:
    """the reaper backs off"""
    return said(lambda: p.s3.delete_object(Bucket=f'missing-{uuid4().hex[:8]}', Key='x'), '204')


@behaviour('Deleting', "DELETE with `If-Match` and another ETag than the object's")
def delete_if_match(p: Probe) -> str:
    """not used"""
    key = p.put()
    answer = p.send('DELETE', p.path(key), headers={'if-match': '"0123456789abcdef0123456789abcdef"'})
    return 'deleted' if said(lambda: p.get(key)) != 'yes' else str(answer.status)


@behaviour('Deleting', 'the last object of a folder: the bucket remains')
def bucket_remains(p: Probe) -> str:
    """a bucket that vanishes with its last object could not be told from one that was lost"""
    bucket = p.new_bucket()
    p.s3.put_object(Bucket=bucket, Key='a/b/c', Body=b'x')
    p.s3.delete_object(Bucket=bucket, Key='a/b/c')
    return yes(said(lambda: p.s3.head_bucket(Bucket=bucket)) == 'yes' and not p.listed(Bucket=bucket))


# Buckets


@behaviour('Buckets', 'DeleteBucket where there are objects')
def delete_full_bucket(p: Probe) -> str:
    """where it is removed with them, what others put there after the last look goes with the bucket"""
    bucket = p.new_bucket()
    p.s3.put_object(Bucket=bucket, Key='a', Body=b'x')
    return said(lambda: p.s3.delete_bucket(Bucket=bucket), 'removed with them')


@behaviour('Buckets', 'DeleteBucket where there is an unfinished upload')
def delete_bucket_with_upload(p: Probe) -> str:
    """as above"""
    bucket = p.new_bucket()
    upload = p.s3.create_multipart_upload(Bucket=bucket, Key='a')['UploadId']
    p.s3.upload_part(Bucket=bucket, Key='a', UploadId=upload, PartNumber=1, Body=b'x')
    return said(lambda: p.s3.delete_bucket(Bucket=bucket), 'removed with it')


@behaviour('Buckets', 'CreateBucket with a name that S3 does not allow (`Data_13TeV`)')
def odd_bucket(p: Probe) -> str:
    """scopes with such names get another bucket's name"""
    answer = p.send('PUT', f'/Data_13TeV{uuid4().hex[:6]}')
    return 'made' if answer.status == 200 else answer.said


@behaviour('Buckets', 'versioning: DELETE leaves a marker, and the older version')
def versioning(p: Probe) -> str:
    """buckets that `rucio s3 make-bucket` makes have none; docs/deletion.md has what happens where one has"""
    bucket = p.new_bucket()
    p.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={'Status': 'Enabled'})
    for content in (b'first', b'second'):
        p.s3.put_object(Bucket=bucket, Key='a', Body=content)
    p.s3.delete_object(Bucket=bucket, Key='a')
    found = p.s3.list_object_versions(Bucket=bucket)
    return yes(len(found.get('Versions', [])) == 2 and len(found.get('DeleteMarkers', [])) == 1 and not p.listed(Bucket=bucket))


@behaviour('Buckets', 'object lock')
def object_lock(p: Probe) -> str:
    """not used"""
    bucket = p.new_bucket(ObjectLockEnabledForBucket=True)
    return yes(p.s3.get_object_lock_configuration(Bucket=bucket)['ObjectLockConfiguration'].get('ObjectLockEnabled') == 'Enabled')


@behaviour('Buckets', 'tags')
def tags(p: Probe) -> str:
    """not used"""
    bucket = p.new_bucket()
    p.s3.put_bucket_tagging(Bucket=bucket, Tagging={'TagSet': [{'Key': 'a', 'Value': 'b'}]})
    return yes(p.s3.get_bucket_tagging(Bucket=bucket)['TagSet'] == [{'Key': 'a', 'Value': 'b'}])


@behaviour('Buckets', 'the lists of versions and of unfinished uploads have their root elements, also if they are empty')
def root_elements(p: Probe) -> str:
    """without them an answer is none: `remove-bucket` stops, as what is not listed may be there"""
    bucket = p.new_bucket()
    roots = {'versions': b'ListVersionsResult', 'uploads': b'ListMultipartUploadsResult'}
    found = {field: p.send('GET', f'/{bucket}?{field}=') for field in roots}
    lacking = [f'`?{field}`: {answer.status}' for field, answer in found.items() if roots[field] not in answer.body]
    return ', '.join(lacking) or 'yes'


@behaviour('Buckets', 'topics for events, by CreateTopic of SNS')
def topics(p: Probe) -> str:
    """`event_topics`: `rucio s3 make-bucket` subscribes each bucket where `events_url` is set"""
    sns = p.client('sns')
    return yes(sns.create_topic(Name=p.key(), Attributes={'push-endpoint': 'http://127.0.0.1:9/'})['TopicArn'].startswith('arn:'))


@behaviour('Buckets', 'HEAD of a bucket tells how full it is, and its quota')
def quota_headers(p: Probe) -> str:
    """where it does not, only `capacity` tells what is free"""
    answer = p.send('HEAD', f'/{p.bucket}')
    told = [word for word in ('bytes-used', 'quota') if any(word in name for name in answer.headers)]
    return ', '.join(f'`x-rgw-{word}...`' for word in told) or 'no'


# Who may


@behaviour('Who may', 'a wrong secret')
def wrong_secret(p: Probe) -> str:
    """uploads and the reaper say what is wrong; the reaper backs off"""
    return _status(p, keys=(p.server.access_key, 'wrong' * 8))


@behaviour('Who may', 'a key that nobody has')
def unknown_key(p: Probe) -> str:
    """as above"""
    return _status(p, keys=('nobody', 'wrong' * 8))


@behaviour('Who may', 'no key')
def no_key(p: Probe) -> str:
    """what is not public is not read"""
    return _status(p, keys=())


@behaviour('Who may', 'a clock that is an hour behind')
def clock(p: Probe) -> str:
    """errors name the clock where the storage does"""
    return _status(p, clock=-3600)


@behaviour('Who may', 'a signature for another region')
def other_region(p: Probe) -> str:
    """a wrong `region` shows on other storages only"""
    return _status(p, region='eu-nowhere-1')


@behaviour('Who may', 'a signed URL that has ended')
def ended_url(p: Probe) -> str:
    """`sign_url`, and `auth = remote`"""
    return _status(p, lifetime=60, clock=-3600)


@behaviour('Who may', 'a URL that is signed for GET, used for HEAD')
def other_method(p: Probe) -> str:
    """with signed URLs `exists` is a GET of one byte"""
    url = p.s3.generate_presigned_url('get_object', Params={'Bucket': p.bucket, 'Key': p.put()})
    path = url.partition('://')[2].partition('/')[2]
    return str(p.send('HEAD', f'/{path}', keys=()).status)


def _status(p: Probe, **how: Any) -> str:
    answer = p.send('GET', p.path(p.put()), **how)
    return 'reads' if answer.status == 200 else answer.said


@behaviour('Who may', 'the bucket in the host name (`bucket.localhost`)')
def virtual_host(p: Probe) -> str:
    """`addressing`; as it is started here"""
    key = p.put(b'content')
    answer = p.send('GET', f'/{key}', host=f'{p.bucket}.localhost:{p.server.port}')
    return yes(answer.body == b'content')


@behaviour('Who may', 'a bucket policy that lets everybody read')
def public_policy(p: Probe) -> str:
    """`rucio s3 share --public`"""
    bucket = p.new_bucket()
    p.s3.put_object(Bucket=bucket, Key='public/a', Body=b'content')
    p.s3.put_object(Bucket=bucket, Key='private', Body=b'secret')
    statement = {'Effect': 'Allow', 'Principal': '*', 'Action': ['s3:GetObject'], 'Resource': [f'arn:aws:s3:::{bucket}/public/*']}
    p.s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({'Version': '2012-10-17', 'Statement': [statement]}, separators=(',', ':')))
    public, private = (p.send('GET', f'/{bucket}/{key}', keys=()) for key in ('public/a', 'private'))
    if public.body != b'content':
        return 'taken, not heeded'
    return KEPT if private.status == 403 else 'reads all'


@behaviour('Who may', 'AssumeRole with a session policy for one bucket')
def session_policy(p: Probe) -> str:
    """`role_arn`: keys that the server vends are for that bucket"""
    mine, other = p.new_bucket(), p.new_bucket()
    for bucket in (mine, other):
        p.s3.put_object(Bucket=bucket, Key='a', Body=b'content')
    keys, token = _session_keys(p, f'arn:aws:s3:::{mine}/*')
    allowed, refused = (p.send('GET', f'/{bucket}/a', keys=keys, headers=token).status for bucket in (mine, other))
    if allowed != 200:
        return f'keys that do not work ({allowed})'
    return KEPT if refused == 403 else 'policy not heeded'


@behaviour('Who may', 'a session policy for `run1/*`, and `RUN1/file`')
def policy_capitals(p: Probe) -> str:
    """`policy_capitals`: where it is read, keys for `run1/` are vended only while there is no `RUN1/`"""
    bucket = p.new_bucket()
    for key in ('run1/file', 'RUN1/file'):
        p.s3.put_object(Bucket=bucket, Key=key, Body=b'content')
    keys, token = _session_keys(p, f'arn:aws:s3:::{bucket}/run1/*')
    mine, other = (p.send('GET', f'/{bucket}/{folder}/file', keys=keys, headers=token).status for folder in ('run1', 'RUN1'))
    if mine != 200:
        return f'keys that do not work ({mine})'
    return 'read' if other == 200 else str(other)


def _session_keys(p: Probe, resource: str) -> tuple[tuple[str, str], dict[str, str]]:
    """Keys that may read this, and the header with their token."""
    role = getattr(p.server, 'role_arn', 'arn:aws:iam::123456789012:role/RucioVending')
    statement = {'Effect': 'Allow', 'Action': ['s3:GetObject'], 'Resource': [resource]}
    policy = json.dumps({'Version': '2012-10-17', 'Statement': [statement]}, separators=(',', ':'))
    keys = p.client('sts').assume_role(RoleArn=role, RoleSessionName='behaviour', Policy=policy, DurationSeconds=900)['Credentials']
    return (keys['AccessKeyId'], keys['SecretAccessKey']), {'x-amz-security-token': keys['SessionToken']}


@behaviour('Who may', 'keys of AssumeRole end')
def keys_end(p: Probe) -> str:
    """`credentials_lifetime`"""
    role = getattr(p.server, 'role_arn', 'arn:aws:iam::123456789012:role/RucioVending')
    keys = p.client('sts').assume_role(RoleArn=role, RoleSessionName='behaviour', DurationSeconds=900)['Credentials']
    left = keys['Expiration'] - datetime.now(timezone.utc)
    return 'after 900 s' if timedelta(seconds=880) < left < timedelta(seconds=905) else f'after {left.total_seconds():.0f} s'
