"""One side of a comparison: a broker, a connection, what its ids stand for; and the table of cases. Knows no single case."""

import collections
import re
import socket
import time
import uuid

from harness import batch, wire

HASH = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
CASES = []
Case = collections.namedtuple("Case", "api name versions work")
ANSWER_TIMEOUT_S = 12

SERVED = {
    "ApiVersions": (0, 4), "Metadata": (0, 13), "Produce": (3, 13), "Fetch": (4, 18), "ListOffsets": (1, 11), "OffsetForLeaderEpoch": (2, 4),
    "InitProducerId": (0, 5), "CreateTopics": (2, 7), "DeleteTopics": (1, 6), "CreatePartitions": (0, 3), "DescribeConfigs": (1, 4),
    "AlterConfigs": (0, 2), "IncrementalAlterConfigs": (0, 1), "ListConfigResources": (0, 1), "DeleteRecords": (0, 2),
    "DescribeCluster": (0, 2), "DescribeTopicPartitions": (0, 0), "DescribeLogDirs": (1, 5), "DescribeProducers": (0, 0),
    "FindCoordinator": (0, 6), "JoinGroup": (0, 9), "SyncGroup": (0, 5), "Heartbeat": (0, 4), "LeaveGroup": (0, 5), "OffsetCommit": (2, 10),
    "OffsetFetch": (1, 10), "OffsetDelete": (0, 0), "DescribeGroups": (0, 6), "ListGroups": (0, 5), "DeleteGroups": (0, 2),
}


def case(api, name, first=None, last=None):
    """A case for every served version of an API, or for those from `first` to `last`."""
    low, high = SERVED[api]
    versions = range(max(low, first if first is not None else low), min(high, last if last is not None else high) + 1)

    def register(work):
        CASES.append(Case(api, name, list(versions), work))
        return work

    return register


def once(api, name):
    """A case that runs once; its version is None."""

    def register(work):
        CASES.append(Case(api, name, [None], work))
        return work

    return register


def simple(api, name, body, first=None, last=None):
    """A case of one request: body(side, version), or a dict."""
    case(api, name, first, last)(lambda side, version: side.ask(api, version, body(side, version) if callable(body) else body))


class External:
    """A broker that somebody else runs."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.host, self.port = host, int(port)

    def start(self):
        return 0.0

    def alive(self):
        return True

    def kill(self):
        pass

    def log_tail(self):
        return "(another's broker)"


class Side:
    def __init__(self, name, broker):
        self.name, self.broker = name, broker
        self.requests = 0
        self.connection = None
        self.topics = {}  # id -> name
        self.ids = {}  # name -> id

    def connect(self, client_id="suite"):
        return wire.Connection("127.0.0.1", self.broker.port, timeout_s=ANSWER_TIMEOUT_S, client_id=client_id)

    def ask(self, api, version, body, **how):
        """The answer, or a word for none: the connection was closed, or nothing came."""
        if self.connection is None:
            self.connection = self.connect()
        self.requests += 1
        try:
            return self.connection.request(api, version, body, **how)
        except wire.Closed:
            outcome = "closed"
        except socket.timeout:
            outcome = "no answer"
        except wire.Malformed as error:
            outcome = f"malformed answer: {error}"
        self.connection.close()
        self.connection = None
        return outcome

    def topic(self, name, partitions=1, **configs):
        """Makes a topic, once, and waits until it leads; its name."""
        if name in self.ids:
            return name
        wanted = [{"Name": key.replace("_", "."), "Value": str(value)} for key, value in configs.items()]
        answer = self.ask("CreateTopics", 7, {"Topics": [{"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1, "Configs": wanted}]})
        assert answer["Topics"][0]["ErrorCode"] == 0, f"cannot create {name}: {answer}"
        deadline = time.monotonic() + 20
        while True:
            (found,) = self.ask("Metadata", 12, {"Topics": [{"Name": name}], "AllowAutoTopicCreation": False})["Topics"]
            if found["ErrorCode"] == 0 and len(found["Partitions"]) == partitions and all(one["LeaderId"] >= 0 for one in found["Partitions"]):
                break
            assert time.monotonic() < deadline, f"{name} has no leader: {found}"
            time.sleep(0.02)
        self.ids[name] = found["TopicId"]
        self.topics[found["TopicId"]] = name
        self.settle(name, partitions)
        return name

    def settle(self, name, partitions):
        """Kafka answers Metadata a moment before the partition takes requests."""
        for _ in range(200):
            asked = [{"PartitionIndex": index, "Timestamp": -1} for index in range(partitions)]
            answer = self.ask("ListOffsets", 1, {"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": asked}]})
            if all(one["ErrorCode"] == 0 for one in answer["Topics"][0]["Partitions"]):
                return
            time.sleep(0.02)
        raise AssertionError(f"{name} never serves")

    def id(self, name):
        return self.ids.get(name, wire.NO_UUID)

    def learn(self, name):
        """Takes up the id of a topic that a case created; Kafka shows it a moment later."""
        for _ in range(50):
            (found,) = self.ask("Metadata", 12, {"Topics": [{"Name": name}], "AllowAutoTopicCreation": False})["Topics"]
            if found["ErrorCode"] == 0:
                self.ids[name], self.topics[found["TopicId"]] = found["TopicId"], name
                return
            time.sleep(0.02)

    def producer_id(self):
        """A new one; Kafka has none to give in its first moments."""
        for _ in range(200):
            answer = self.ask("InitProducerId", 4, {"TransactionalId": None, "TransactionTimeoutMs": 60000})
            if answer["ErrorCode"] == 0:
                return answer["ProducerId"]
            time.sleep(0.05)
        raise AssertionError(f"no producer id: {answer}")

    def produce(self, name, data, partition=0, version=9):
        answer = self.ask("Produce", version, {
            "Acks": -1, "TimeoutMs": 10000, "TopicData": [{"Name": name, "PartitionData": [{"Index": partition, "Records": data}]}],
        })
        one = answer["Responses"][0]["PartitionResponses"][0]
        assert one["ErrorCode"] == 0, f"cannot fill {name}: {one}"
        return one

    def filled(self, name, batches=3, records=4, partitions=1, **configs):
        """A topic with `batches` batches of `records` records in partition 0, a second apart; its name."""
        if name not in self.ids:
            self.topic(name, partitions, **configs)
            for index in range(batches):
                self.produce(name, batch.batch(
                    [batch.record(one, b"k%d" % one, b"v%d" % one, timestamp_delta=one * 10) for one in range(records)],
                    timestamp=batch.T0 + index * 1000, max_timestamp=batch.T0 + index * 1000 + (records - 1) * 10,
                ))
        return name

    # -- masking --

    def masked(self, value, key=None):
        if isinstance(value, dict):
            shown = {}
            for name, content in value.items():
                shown[name] = self._masked_field(name, content, value)
            return shown
        if isinstance(value, (list, tuple)):
            return sorted((self.masked(one) for one in value), key=_order)
        if isinstance(value, uuid.UUID):
            return "no id" if value == wire.NO_UUID else f"id of {self.topics.get(value, 'a topic')}"
        if isinstance(value, str):
            return HASH.sub("<uuid>", value).replace(str(self.broker.port), "<port>")
        return value

    def _masked_field(self, name, value, around):
        if name in ("Port",):
            return "port"
        if name in ("ClusterId",):
            return "cluster" if value else value
        if name in ("ProducerId", "LastTimestamp", "LogAppendTimeMs", "CurrentTxnStartOffset") and isinstance(value, int):
            return "set" if value >= 0 else value
        if name in ("SessionId", "SessionID"):
            return "session" if value else 0
        if name in ("FinalizedFeaturesEpoch", "TotalBytes", "UsableBytes", "PartitionSize", "Size"):
            return "number"
        if name in ("SupportedFeatures", "FinalizedFeatures"):
            return "features"
        if name == "ApiKeys":
            served = {wire.schemas().requests[api].api_key for api in SERVED}
            return [self.masked(one) for one in value if one["ApiKey"] in served]
        if name == "LogDir":
            return "directory"
        if name == "Documentation":
            return "text" if value else value
        if name == "Records" and isinstance(value, bytes):
            return [self.masked(one) for one in batch.headers_of(value)]
        if name == "Content" and isinstance(value, bytes):
            return value.hex()
        if name in ("Configs", "Synonyms") and isinstance(value, list) and all(isinstance(one, dict) and "Name" in one for one in value):
            # By name, so that a difference says which config.
            return {one["Name"]: self.masked(one) for one in value} if name == "Configs" else [self.masked(one) for one in value]
        return self.masked(value, name)


def _order(value):
    """Answers keep no order that means something, but for batches, which carry their offsets."""
    if isinstance(value, dict):
        for name in ("BaseOffset", "Name", "TopicName", "Topic", "GroupId", "Key", "MemberId", "PartitionIndex", "Partition", "Index", "NodeId", "BrokerId"):
            if name in value:
                return (0, str(value[name]).zfill(12), repr(value))
        return (1, "", repr(value))
    return (2, "", "")
