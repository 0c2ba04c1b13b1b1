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

"""S3 storages, on the server's side.

The modules beside the packages are used by all of them. The packages are, from the bottom up, ``auth``, ``buckets``,
``catalogue``, ``reconciler``, ``events`` and ``transfers``; each imports only from those before it in this list. The
functions here do not check permissions: the gateways do, with :mod:`.auth.access` and :mod:`.auth.objects`.

These parameters have the same meaning everywhere: ``storage`` is an S3 RSE with its settings; ``account`` or ``issuer``
the account that asks, ``vo`` its VO; ``scope`` and ``name`` a DID; ``rse`` the name of an RSE; ``bucket``, ``key`` and
``prefix`` an object or a part of a bucket; ``subtree`` a part of a bucket with the names of its files; ``write``
whether to create and delete, not only to read; ``session`` the session of the database.
"""
