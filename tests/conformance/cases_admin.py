"""Topics, partitions, configs, the cluster, log directories."""

import time
import uuid

from sides import case, simple

UNKNOWN_ID = uuid.UUID("00000000-0000-0000-0000-0000deadbeef")


def wanted(name, partitions=1, replicas=1, assignments=(), configs=None):
    return {
        "Name": name, "NumPartitions": partitions, "ReplicationFactor": replicas,
        "Assignments": [{"PartitionIndex": index, "BrokerIds": list(brokers)} for index, brokers in assignments],
        "Configs": [{"Name": key, "Value": value} for key, value in (configs or {}).items()],
    }


def create(title, *topics, **more):
    @case("CreateTopics", title)
    def _(side, version):
        names = [{**one, "Name": one["Name"].replace("{v}", f"v{version}")} for one in topics]
        answer = side.ask("CreateTopics", version, {"Topics": names, "TimeoutMs": 10000, **more})
        if not more.get("ValidateOnly") and isinstance(answer, dict):
            for one in answer["Topics"]:
                if one["ErrorCode"] == 0:
                    side.learn(one["Name"])
        return answer


create("plain", wanted("create-plain-{v}"))
create("three partitions", wanted("create-three-{v}", 3))
create("default partitions and replicas", wanted("create-default-{v}", -1, -1))
create("validate only", wanted("create-validated-{v}"), ValidateOnly=True)
create("exists", wanted("create-plain-{v}"))
create("exists, validate only", wanted("create-plain-{v}"), ValidateOnly=True)
create("a name twice", wanted("create-twice-{v}"), wanted("create-twice-{v}"))
create("no partitions", wanted("create-none-{v}", 0))
create("minus two partitions", wanted("create-none-{v}", -2))
create("no replicas", wanted("create-none-{v}", 1, 0))
create("two replicas on one broker", wanted("create-none-{v}", 1, 2))
create("minus two replicas", wanted("create-none-{v}", 1, -2))
create("bad names", wanted("bad/name"), wanted(""), wanted("."), wanted(".."), wanted("x" * 250), wanted("päth"))
create("longest name", wanted("l" * 240 + "-{v}"))
create("names that collide", wanted("col.lide-{v}"), wanted("col_lide-{v}"))
create("a name with a dot", wanted("create.dot-{v}"))
create("a name that collides with one that is there", wanted("create_dot-{v}"))
create("assignment", wanted("create-assigned-{v}", -1, -1, [(0, [1]), (1, [1])]))
create("assignment to an unknown broker", wanted("create-none-{v}", -1, -1, [(0, [9])]))
create("assignment of one broker twice", wanted("create-none-{v}", -1, -1, [(0, [1, 1])]))
create("assignment with a gap", wanted("create-none-{v}", -1, -1, [(0, [1]), (2, [1])]))
create("assignment of a partition twice", wanted("create-none-{v}", -1, -1, [(0, [1]), (0, [1])]))
create("assignment without brokers", wanted("create-none-{v}", -1, -1, [(0, [])]))
create("assignment beside partitions", wanted("create-none-{v}", 1, -1, [(0, [1])]))
create("assignment beside replicas", wanted("create-none-{v}", -1, 1, [(0, [1])]))
create("configs", wanted("create-configs-{v}", configs={"retention.ms": "1000", "cleanup.policy": "compact,delete", "max.message.bytes": "5000"}))
create("unknown config", wanted("create-none-{v}", configs={"no.such.config": "1"}))
create("null config value", wanted("create-none-{v}", configs={"retention.ms": None}))
create("no topics")
create("the internal topic", wanted("__consumer_offsets_not"), wanted("__cluster_metadata"))
for key, value in (
    ("retention.ms", "x"), ("retention.ms", "-2"), ("cleanup.policy", "nothing"), ("cleanup.policy", ""), ("compression.type", "brotli"), ("segment.bytes", "13"),
    ("segment.bytes", "99999999999"), ("min.insync.replicas", "0"), ("max.message.bytes", "-1"), ("message.timestamp.type", "Never"), ("preallocate", "maybe"),
    ("min.cleanable.dirty.ratio", "1.5"), ("compression.gzip.level", "77"), ("compression.zstd.level", "99"), ("compression.lz4.level", "0"), ("segment.ms", "0"),
    ("flush.messages", "0"), ("index.interval.bytes", "-1"), ("message.timestamp.after.max.ms", "-1"), ("remote.storage.enable", "true"), ("local.retention.ms", "5"),
    ("unclean.leader.election.enable", "yes"), ("leader.replication.throttled.replicas", "a"), ("file.delete.delay.ms", "-1"), ("delete.retention.ms", " 5 "),
):
    create(f"config {key}={value}", wanted("create-config-{v}", configs={key: value}), ValidateOnly=True)


def delete_body(names=(), ids=()):
    return lambda side, version: {
        "TimeoutMs": 10000, "TopicNames": list(names),
        "Topics": [{"Name": name} for name in names] + [{"Name": None, "TopicId": one} for one in ids],
    }


@case("DeleteTopics", "one that is there, then again")
def _(side, version):
    name = side.topic(f"delete-v{version}", 2)
    first = side.ask("DeleteTopics", version, delete_body([name])(side, version))
    gone = None
    deadline = time.monotonic() + 10
    while gone != 3 and time.monotonic() < deadline:
        gone = side.ask("Metadata", 4, {"Topics": [{"Name": name}], "AllowAutoTopicCreation": False})["Topics"][0]["ErrorCode"]
    return [first, side.ask("DeleteTopics", version, delete_body([name])(side, version)), {"Name": "gone", "Code": gone}]


@case("DeleteTopics", "by id", first=6)
def _(side, version):
    name = side.topic(f"delete-id-v{version}")
    return side.ask("DeleteTopics", version, delete_body(ids=[side.id(name)])(side, version))


simple("DeleteTopics", "unknown", delete_body(["nowhere"]))
simple("DeleteTopics", "bad name", delete_body(["bad/name"]))
simple("DeleteTopics", "none", delete_body())
simple("DeleteTopics", "a name twice", delete_body(["nowhere", "nowhere"]))
simple("DeleteTopics", "unknown id", delete_body(ids=[UNKNOWN_ID]), first=6)
simple("DeleteTopics", "an id twice", delete_body(ids=[UNKNOWN_ID, UNKNOWN_ID]), first=6)
simple("DeleteTopics", "name and id", lambda side, version: {"TimeoutMs": 1000, "Topics": [{"Name": side.topic("meta", 3), "TopicId": side.id("meta")}]}, first=6)
simple("DeleteTopics", "neither name nor id", {"TimeoutMs": 1000, "Topics": [{"Name": None}]}, first=6)


@case("CreatePartitions", "every count")
def _(side, version):
    name = side.topic(f"partitions-v{version}", 2)
    results = {}
    steps = [(2, None), (1, None), (0, None), (-1, None), (3, [[9]]), (3, [[1], [1]]), (4, [[1]]), (3, [[1, 1]]), (3, [[]]), (3, None), (4, [[1]]), (5, None)]
    for index, (count, assignments) in enumerate(steps):
        for only in (True, False):
            asked = {"Name": name, "Count": count, "Assignments": None if assignments is None else [{"BrokerIds": one} for one in assignments]}
            results[f"{index:02} {count} {assignments} {only}"] = side.ask("CreatePartitions", version, {"Topics": [asked], "TimeoutMs": 10000, "ValidateOnly": only})
    time.sleep(0.2)
    (found,) = side.ask("Metadata", 4, {"Topics": [{"Name": name}], "AllowAutoTopicCreation": False})["Topics"]
    results["there"] = len(found["Partitions"])
    return results


simple("CreatePartitions", "unknown topic", {"Topics": [{"Name": "nowhere", "Count": 3, "Assignments": None}], "TimeoutMs": 1000})
simple("CreatePartitions", "a name twice", {"Topics": [{"Name": "meta", "Count": 9, "Assignments": None}, {"Name": "meta", "Count": 9, "Assignments": None}], "TimeoutMs": 1000})
simple("CreatePartitions", "none", {"Topics": [], "TimeoutMs": 1000})


# -- configs --

TOPIC, BROKER = 2, 4


def describe(title, *resources, **more):
    simple("DescribeConfigs", title, lambda side, version: {
        "Resources": [{"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys} for kind, name, keys in resources], **more,
    })


@case("DescribeConfigs", "a topic")
def _(side, version):
    name = side.topic("config", 1, retention_ms=5000)
    asked = {"Resources": [{"ResourceType": TOPIC, "ResourceName": name, "ConfigurationKeys": None}]}
    return [side.ask("DescribeConfigs", version, {**asked, "IncludeSynonyms": synonyms, "IncludeDocumentation": synonyms}) for synonyms in (False, True)]


describe("some keys", (TOPIC, "config", ["retention.ms", "no.such", "cleanup.policy"]), IncludeSynonyms=True)
describe("no keys", (TOPIC, "config", []))
describe("unknown topic", (TOPIC, "nowhere", None))
describe("bad topic names", (TOPIC, "bad/name", None), (TOPIC, "", None))
describe("unknown kinds", (0, "x", None), (99, "x", None))
describe("another broker", (BROKER, "7", None))
describe("a broker that is no number", (BROKER, "one", None))
describe("nothing")
BROKER_KEYS = [
    "num.partitions", "default.replication.factor", "message.max.bytes", "log.retention.ms", "log.retention.hours", "auto.create.topics.enable",
    "compression.type", "offsets.topic.num.partitions", "group.initial.rebalance.delay.ms", "node.id", "connections.max.idle.ms", "log.cleanup.policy",
    "log.segment.bytes", "socket.request.max.bytes", "offset.metadata.max.bytes", "delete.topic.enable",
]
describe("this broker, some keys", (BROKER, "1", BROKER_KEYS))
describe("this broker, some keys with synonyms", (BROKER, "1", BROKER_KEYS), IncludeSynonyms=True)
describe("the cluster's defaults", (BROKER, "", ["message.max.bytes"]))


def alter(api, title, *changes, only=False):
    """Alters, then shows what is dynamic on the topic."""

    @case(api, title)
    def _(side, version):
        name = side.topic(f"{api}-{title}-v{version}".replace(" ", "-").replace(",", ""), 1, retention_ms=7000, cleanup_policy="delete")
        results = {}
        for index, change in enumerate(changes):
            resources = []
            for kind, target, entries in change:
                target = name if target == "it" else target
                if api == "AlterConfigs":
                    configs = [{"Name": key, "Value": value} for key, value in entries]
                else:
                    configs = [{"Name": key, "ConfigOperation": operation, "Value": value} for key, operation, value in entries]
                resources.append({"ResourceType": kind, "ResourceName": target, "Configs": configs})
            results[f"answer {index}"] = side.ask(api, version, {"Resources": resources, "ValidateOnly": only})
        time.sleep(0.1)
        described = side.ask("DescribeConfigs", 4, {"Resources": [{"ResourceType": TOPIC, "ResourceName": name, "ConfigurationKeys": None}]})
        results["now"] = [[one["Name"], one["Value"]] for one in described["Results"][0]["Configs"] if one["ConfigSource"] == 1]
        results["now"] = dict(results["now"])
        return results


SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
alter("AlterConfigs", "replaces all", [(TOPIC, "it", [("max.message.bytes", "3000")])])
alter("AlterConfigs", "to nothing", [(TOPIC, "it", [])])
alter("AlterConfigs", "validate only", [(TOPIC, "it", [("max.message.bytes", "3000")])], only=True)
alter("AlterConfigs", "mistakes", [(TOPIC, "it", [("max.message.bytes", "x")])], [(TOPIC, "it", [("no.such", "1")])], [(TOPIC, "it", [("retention.ms", None)])],
      [(TOPIC, "nowhere", [("retention.ms", "1")])], [(TOPIC, "", [("retention.ms", "1")])], [(99, "it", [])], [(BROKER, "1", [("node.id", "3")])], [(BROKER, "9", [("node.id", "3")])],
      [(TOPIC, "it", [("retention.ms", "1"), ("retention.ms", "2")])])
alter("AlterConfigs", "a resource twice", [(TOPIC, "it", [("retention.ms", "1")]), (TOPIC, "it", [("retention.ms", "2")])])
alter("IncrementalAlterConfigs", "set", [(TOPIC, "it", [("max.message.bytes", SET, "3000"), ("segment.bytes", SET, "2000000")])])
alter("IncrementalAlterConfigs", "delete", [(TOPIC, "it", [("retention.ms", DELETE, None), ("max.message.bytes", DELETE, None)])])
alter("IncrementalAlterConfigs", "lists", [(TOPIC, "it", [("cleanup.policy", APPEND, "compact")])], [(TOPIC, "it", [("cleanup.policy", SUBTRACT, "delete")])], [(TOPIC, "it", [("cleanup.policy", APPEND, "compact")])])
alter("IncrementalAlterConfigs", "validate only", [(TOPIC, "it", [("max.message.bytes", SET, "3000")])], only=True)
alter("IncrementalAlterConfigs", "mistakes", [(TOPIC, "it", [("max.message.bytes", SET, "x")])], [(TOPIC, "it", [("no.such", SET, "1")])], [(TOPIC, "it", [("retention.ms", SET, None)])],
      [(TOPIC, "it", [("retention.ms", APPEND, "1")])], [(TOPIC, "nowhere", [("retention.ms", SET, "1")])], [(TOPIC, "", [("retention.ms", SET, "1")])],
      [(99, "it", [])], [(BROKER, "1", [("node.id", SET, "3")])], [(BROKER, "9", [("node.id", SET, "3")])], [(TOPIC, "it", [("retention.ms", SET, "1"), ("retention.ms", SET, "2")])],
      [(TOPIC, "it", [])], [(TOPIC, "it", [("no.such", DELETE, None)])])
alter("IncrementalAlterConfigs", "an unknown operation", [(TOPIC, "it", [("retention.ms", 7, "1")])])
alter("IncrementalAlterConfigs", "a resource twice", [(TOPIC, "it", [("retention.ms", SET, "1")]), (TOPIC, "it", [("retention.ms", SET, "2")])])
alter("IncrementalAlterConfigs", "one good, one bad", [(TOPIC, "it", [("retention.ms", SET, "1")]), (TOPIC, "nowhere", [("retention.ms", SET, "2")])])

simple("ListConfigResources", "kinds nobody has", {"ResourceTypes": [16, 32]}, first=1)
simple("ListConfigResources", "an unknown kind", {"ResourceTypes": [99]}, first=1)
simple("ListConfigResources", "brokers", {"ResourceTypes": [4]}, first=1)
simple("ListConfigResources", "client metrics", {}, last=0)

# -- the cluster --

simple("DescribeCluster", "plain", {})
simple("DescribeCluster", "authorized operations", {"IncludeClusterAuthorizedOperations": True})
simple("DescribeCluster", "controllers", {"EndpointType": 2}, first=1)
simple("DescribeCluster", "an unknown endpoint type", {"EndpointType": 9}, first=1)
simple("DescribeCluster", "fenced brokers", {"IncludeFencedBrokers": True}, first=2)


def topic_partitions(title, names, limit=2000, cursor=None):
    simple("DescribeTopicPartitions", title, lambda side, version: {
        "Topics": [{"Name": name} for name in names], "ResponsePartitionLimit": limit, "Cursor": cursor,
    })


@case("DescribeTopicPartitions", "two topics")
def _(side, version):
    names = [side.topic("meta", 3), side.topic("config", 1, retention_ms=5000)]
    return side.ask("DescribeTopicPartitions", version, {"Topics": [{"Name": name} for name in names], "Cursor": None})


topic_partitions("unknown and bad names", ["nowhere", "bad/name", ".."])
topic_partitions("an empty name", [""])
topic_partitions("a name twice", ["meta", "meta"])
topic_partitions("a limit", ["meta"], limit=2)
topic_partitions("no limit", ["meta"], limit=0)
topic_partitions("a cursor", ["meta"], cursor={"TopicName": "meta", "PartitionIndex": 1})
topic_partitions("a cursor past it", ["config", "meta"], cursor={"TopicName": "d", "PartitionIndex": 0})
topic_partitions("a cursor with a negative partition", ["meta"], cursor={"TopicName": "meta", "PartitionIndex": -1})


def log_dirs(title, topics):
    simple("DescribeLogDirs", title, lambda side, version: {"Topics": None if topics is None else [{"Topic": name, "Partitions": partitions} for name, partitions in topics]})


@case("DescribeLogDirs", "one topic")
def _(side, version):
    return side.ask("DescribeLogDirs", version, {"Topics": [{"Topic": side.topic("meta", 3), "Partitions": [0, 2]}]})


log_dirs("unknown topic and partition", [("nowhere", [0]), ("meta", [9])])
log_dirs("no topics", [])
