"""confluent-kafka (librdkafka) as a client of the suite."""

import sys

import client_common as common
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType,
)


def produce(plan):
    for job in plan["jobs"]:
        common.step(job["step"], lambda: produce_one(plan, job))


def produce_one(plan, job):
    producer = Producer({
        "bootstrap.servers": plan["bootstrap"], "compression.codec": job["codec"], "linger.ms": 20,
        "enable.idempotence": job["idempotent"], "acks": "all",
    })
    errors, offsets = [], []

    def delivered(error, message):
        errors.append(str(error)) if error else offsets.append(message.offset())

    for key, value, headers, timestamp in common.jobs_records(job):
        producer.produce(job["topic"], value, key, partition=0, headers=headers, timestamp=timestamp, on_delivery=delivered)
        producer.poll(0)
    common.equal("records left after flush", 0, producer.flush(60))
    common.equal("delivery errors", [], errors)
    common.equal("offsets", list(range(len(offsets))), sorted(offsets))


def consume(plan):
    for job in plan["jobs"]:
        common.step(job["step"], lambda: consume_one(plan, job))


def consume_one(plan, job):
    consumer = Consumer({"bootstrap.servers": plan["bootstrap"], "group.id": "unused", "enable.auto.commit": False, "check.crcs": True})
    consumer.assign([TopicPartition(job["topic"], 0, 0)])
    count = 0
    while count < job["count"]:
        message = consumer.poll(30)
        assert message is not None, f"{count} of {job['count']} records, then none for 30 s"
        assert message.error() is None, str(message.error())
        common.show_record(job["topic"], message.offset(), message.key(), message.value(), message.headers(), message.timestamp()[1])
        count += 1
    consumer.close()


class Member(common.Member):
    def __init__(self, plan):
        super().__init__()
        self.plan = plan

    def open(self):
        self.consumer = Consumer({
            "bootstrap.servers": self.plan["bootstrap"], "group.id": self.plan["group"], "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "session.timeout.ms": 10000, "heartbeat.interval.ms": 500,
            "partition.assignment.strategy": "cooperative-sticky",
        })
        self.consumer.subscribe([self.plan["topic"]])

    def poll(self):
        messages = self.consumer.consume(100, 0.1)
        for message in messages:
            assert message.error() is None, str(message.error())
        return [(message.partition(), message.offset()) for message in messages]

    def assigned(self):
        return {one.partition for one in self.consumer.assignment()}

    def commit(self, offsets):
        wanted = [TopicPartition(self.plan["topic"], partition, offset) for partition, offset in offsets.items()]
        for one in self.consumer.commit(offsets=wanted, asynchronous=False):
            assert one.error is None, str(one.error)

    def close(self):
        self.consumer.close()


def admin(plan):
    client = AdminClient({"bootstrap.servers": plan["bootstrap"]})
    topic = plan["prefix"] + "-admin"

    def one(futures):
        (future,) = futures.values()
        return future.result(30)

    def create():
        one(client.create_topics([NewTopic(topic, 3, 1, config={"retention.ms": "3600000"})]))
        common.until("the topic is listed", lambda: topic in client.list_topics(timeout=10).topics)
        common.equal("partitions", 3, len(client.list_topics(topic, timeout=10).topics[topic].partitions))

    def exists():
        try:
            one(client.create_topics([NewTopic(topic, 3, 1)]))
        except Exception as error:
            common.equal("error of a second creation", "TOPIC_ALREADY_EXISTS", error.args[0].name())
        else:
            raise AssertionError("a second creation of the topic is not refused")

    def describe():
        from confluent_kafka import TopicCollection
        description = one(client.describe_topics(TopicCollection([topic])))
        common.equal("partitions", [0, 1, 2], sorted(part.id for part in description.partitions))

    def partitions():
        one(client.create_partitions([NewPartitions(topic, 5)]))
        common.until("five partitions", lambda: len(client.list_topics(topic, timeout=10).topics[topic].partitions) == 5)

    def configs():
        resource = ConfigResource(ResourceType.TOPIC, topic)
        common.equal("retention.ms", "3600000", one(client.describe_configs([resource]))["retention.ms"].value)
        entry = ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)
        one(client.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]))
        common.until("retention.ms is changed", lambda: one(client.describe_configs([resource]))["retention.ms"].value == "7200000")

    def cluster():
        description = client.describe_cluster().result(30)
        common.equal("nodes", 1, len(description.nodes))
        assert description.cluster_id, "no cluster id"

    def offsets():
        wanted = {TopicPartition(plan["group_topic"], 0): OffsetSpec.latest()}
        common.equal("latest offset", plan["per_partition"], one(client.list_offsets(wanted)).offset)
        wanted = {TopicPartition(plan["group_topic"], 0): OffsetSpec.earliest()}
        common.equal("earliest offset", 0, one(client.list_offsets(wanted)).offset)

    def delete_records():
        result = one(client.delete_records([TopicPartition(plan["group_topic"], 0, 7)]))
        common.equal("low watermark", 7, result.low_watermark)

    def groups():
        group = plan["group"]
        listed = client.list_consumer_groups().result(30)
        assert group in [one.group_id for one in listed.valid], f"group {group} is not listed"
        common.until("the group is empty", lambda: one(client.describe_consumer_groups([group])).state.name == "EMPTY")
        result = one(client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
        common.equal("committed", plan["per_partition"] // 2, result.topic_partitions[0].offset)
        one(client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [TopicPartition(plan["group_topic"], 0, 9)])]))
        result = one(client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [TopicPartition(plan["group_topic"], 0)])]))
        common.equal("committed by hand", 9, result.topic_partitions[0].offset)
        one(client.delete_consumer_groups([group]))

    def delete():
        one(client.delete_topics([topic]))
        common.until("the topic is gone", lambda: topic not in client.list_topics(timeout=10).topics)

    for name, work in (
        ("create a topic", create), ("create it again", exists), ("describe it", describe), ("add partitions", partitions),
        ("describe and alter configs", configs), ("describe the cluster", cluster), ("list offsets", offsets),
        ("delete records", delete_records), ("groups", groups), ("delete the topic", delete),
    ):
        common.step(name, work)


if __name__ == "__main__":
    the_plan = common.plan()
    if sys.argv[1] == "group":
        common.group_scenario(the_plan, lambda: Member(the_plan))
    else:
        {"produce": produce, "consume": consume, "admin": admin}[sys.argv[1]](the_plan)
