"""kafka-python as a client of the suite."""

import sys

import client_common as common
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import OffsetAndMetadata


def produce_one(plan, job):
    codec = None if job["codec"] == "none" else job["codec"]
    producer = KafkaProducer(
        bootstrap_servers=plan["bootstrap"], compression_type=codec, enable_idempotence=job["idempotent"], acks="all", linger_ms=20,
    )
    try:
        futures = [
            producer.send(job["topic"], value, key, headers=headers, partition=0, timestamp_ms=timestamp)
            for key, value, headers, timestamp in common.jobs_records(job)
        ]
        producer.flush(60)
        common.equal("offsets", list(range(len(futures))), [one.get(60).offset for one in futures])
    finally:
        producer.close()


def consume_one(plan, job):
    consumer = KafkaConsumer(bootstrap_servers=plan["bootstrap"], enable_auto_commit=False, consumer_timeout_ms=30000)
    try:
        partition = TopicPartition(job["topic"], 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        count = 0
        for one in consumer:
            common.show_record(job["topic"], one.offset, one.key, one.value, one.headers, one.timestamp)
            count += 1
            if count == job["count"]:
                return
        raise AssertionError(f"{count} of {job['count']} records, then none for 30 s")
    finally:
        consumer.close()


class Member(common.Member):
    def __init__(self, plan):
        super().__init__()
        self.plan = plan

    def open(self):
        self.consumer = KafkaConsumer(
            self.plan["topic"], bootstrap_servers=self.plan["bootstrap"], group_id=self.plan["group"], enable_auto_commit=False,
            auto_offset_reset="earliest", session_timeout_ms=10000, heartbeat_interval_ms=500,
            partition_assignment_strategy=[RangePartitionAssignor],
        )

    def poll(self):
        batches = self.consumer.poll(timeout_ms=100)
        return [(one.partition, one.offset) for records in batches.values() for one in records]

    def assigned(self):
        return {one.partition for one in self.consumer.assignment()}

    def commit(self, offsets):
        self.consumer.commit({TopicPartition(self.plan["topic"], partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()})

    def close(self):
        self.consumer.close()


def admin(plan):
    client = KafkaAdminClient(bootstrap_servers=plan["bootstrap"])
    topic = plan["prefix"] + "-admin"
    partition = TopicPartition(plan["group_topic"], 0)

    def offset(which):
        return client.list_partition_offsets({partition: which})[partition].offset

    def create():
        client.create_topics([NewTopic(name=topic, num_partitions=3, replication_factor=1, topic_configs={"retention.ms": "3600000"})])
        common.until("the topic is listed", lambda: topic in client.list_topics())

    def exists():
        try:
            client.create_topics([NewTopic(name=topic, num_partitions=3, replication_factor=1)])
        except Exception as error:
            common.equal("error of a second creation", "TopicAlreadyExistsError", type(error).__name__)
        else:
            raise AssertionError("a second creation of the topic is not refused")

    def describe():
        (found,) = client.describe_topics([topic])
        common.equal("partitions", 3, len(found["partitions"]))

    def partitions():
        client.create_partitions({topic: NewPartitions(5)})
        common.until("five partitions", lambda: len(client.describe_topics([topic])[0]["partitions"]) == 5)

    def configs():
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "7200000"})])
        common.until("retention.ms is changed", lambda: "7200000" in str(client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])))

    def cluster():
        assert "cluster_id" in str(client.describe_cluster()), str(client.describe_cluster())

    def offsets():
        from kafka.admin import OffsetSpec
        common.equal("latest offset", plan["per_partition"], offset(OffsetSpec.LATEST))
        common.equal("earliest offset", 0, offset(OffsetSpec.EARLIEST))

    def delete_records():
        client.delete_records({partition: 7})
        from kafka.admin import OffsetSpec
        common.equal("earliest offset", 7, offset(OffsetSpec.EARLIEST))

    def groups():
        group = plan["group"]
        assert group in str(client.list_groups()), f"group {group} is not listed: {client.list_groups()}"
        common.until("the group is empty", lambda: "Empty" in str(client.describe_groups([group])))
        committed = client.list_group_offsets({group: None})[group]
        common.equal("committed", plan["per_partition"] // 2, committed[partition].offset)
        client.delete_groups([group])

    def delete():
        client.delete_topics([topic])
        common.until("the topic is gone", lambda: topic not in client.list_topics())
        client.close()

    for name, work in (
        ("create a topic", create), ("create it again", exists), ("describe it", describe), ("add partitions", partitions),
        ("alter configs", configs), ("describe the cluster", cluster), ("list offsets", offsets), ("delete records", delete_records),
        ("groups", groups), ("delete the topic", delete),
    ):
        common.step(name, work)


if __name__ == "__main__":
    the_plan = common.plan()
    if sys.argv[1] == "group":
        common.group_scenario(the_plan, lambda: Member(the_plan))
    elif sys.argv[1] == "admin":
        admin(the_plan)
    else:
        one_job = {"produce": produce_one, "consume": consume_one}[sys.argv[1]]
        for the_job in the_plan["jobs"]:
            common.step(the_job["step"], lambda: one_job(the_plan, the_job))
