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

"""The SNS of a storage, in this process."""

import json
from typing import Any

from botocore.exceptions import ClientError

ARN = 'arn:aws:sns:default::'


class SNS:
    """
    A boto3 client of Ceph's SNS.

    :param shared: the topics, by name; one dictionary for all who reach them.
    :param refuses: by operation, or `all`: the status of a refusal, or what is raised.
    """

    def __init__(self, shared: dict[str, Any], refuses: dict[str, Any] | None = None) -> None:
        self.shared = shared
        self.refuses = refuses or {}
        self.asked: list[str] = []

    def _answer(self, call: str) -> None:
        self.asked.append(call)
        refusal = self.refuses.get(call, self.refuses.get('all'))
        if isinstance(refusal, Exception):
            raise refusal
        if refusal:
            raise ClientError({'Error': {'Code': 'X'}, 'ResponseMetadata': {'HTTPStatusCode': refusal}}, call)

    def create_topic(self, Name: str, Attributes: dict[str, str] | None = None) -> dict[str, str]:  # noqa: N803 - boto3's
        self._answer('create_topic')
        self.shared[Name] = dict(Attributes or {})
        return {'TopicArn': ARN + Name}

    def delete_topic(self, TopicArn: str) -> dict[str, Any]:  # noqa: N803 - boto3's
        self._answer('delete_topic')
        self.shared.pop(TopicArn.removeprefix(ARN), None)
        return {'ResponseMetadata': {'HTTPStatusCode': 200}}

    def list_topics(self) -> dict[str, Any]:
        self._answer('list_topics')
        return {'Topics': [{'TopicArn': ARN + name} for name in self.shared]}

    def get_topic_attributes(self, TopicArn: str) -> dict[str, Any]:  # noqa: N803 - boto3's
        self._answer('get_topic_attributes')
        found = self.shared[TopicArn.removeprefix(ARN)]
        place = json.dumps({'EndpointAddress': found.get('push-endpoint', '')})
        return {'Attributes': {'EndPoint': place, 'OpaqueData': found.get('OpaqueData', '')}}
