"""aiokafka as a client of the suite."""

import asyncio
import sys

import client_common as common
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor


async def produce_one(plan, job):
    codec = None if job["codec"] == "none" else job["codec"]
    producer = AIOKafkaProducer(
        bootstrap_servers=plan["bootstrap"], compression_type=codec, enable_idempotence=job["idempotent"], acks="all", linger_ms=20,
    )
    await producer.start()
    try:
        futures = []
        for key, value, headers, timestamp in common.jobs_records(job):
            futures.append(await producer.send(job["topic"], value, key, partition=0, timestamp_ms=timestamp, headers=headers))
        results = await asyncio.wait_for(asyncio.gather(*futures), 60)
        common.equal("offsets", list(range(len(results))), [one.offset for one in results])
    finally:
        await producer.stop()


async def consume_one(plan, job):
    consumer = AIOKafkaConsumer(bootstrap_servers=plan["bootstrap"], enable_auto_commit=False)
    await consumer.start()
    try:
        partition = TopicPartition(job["topic"], 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        for count in range(job["count"]):
            try:
                one = await asyncio.wait_for(consumer.getone(), 30)
            except asyncio.TimeoutError:
                raise AssertionError(f"{count} of {job['count']} records, then none for 30 s") from None
            common.show_record(job["topic"], one.offset, one.key, one.value, one.headers, one.timestamp)
    finally:
        await consumer.stop()


class Member(common.Member):
    def __init__(self, plan):
        super().__init__()
        self.plan = plan

    def open(self):
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.open_async())

    async def open_async(self):
        self.consumer = AIOKafkaConsumer(
            self.plan["topic"], bootstrap_servers=self.plan["bootstrap"], group_id=self.plan["group"], enable_auto_commit=False,
            auto_offset_reset="earliest", session_timeout_ms=10000, heartbeat_interval_ms=500,
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
        )
        await self.consumer.start()

    def poll(self):
        batches = self.loop.run_until_complete(self.consumer.getmany(timeout_ms=100))
        return [(one.partition, one.offset) for records in batches.values() for one in records]

    def assigned(self):
        return {one.partition for one in self.consumer.assignment()}

    def commit(self, offsets):
        wanted = {TopicPartition(self.plan["topic"], partition): offset for partition, offset in offsets.items()}
        self.loop.run_until_complete(self.consumer.commit(wanted))

    def close(self):
        self.loop.run_until_complete(self.consumer.stop())


def admin(plan):
    loop = asyncio.new_event_loop()

    async def make():  # It asks for the running loop.
        return AIOKafkaAdminClient(bootstrap_servers=plan["bootstrap"])

    client = loop.run_until_complete(make())
    topic = plan["prefix"] + "-admin"

    def run(work):
        return loop.run_until_complete(asyncio.wait_for(work, 30))

    def create():
        run(client.start())
        run(client.create_topics([NewTopic(topic, 3, 1, topic_configs={"retention.ms": "3600000"})]))
        common.until("the topic is listed", lambda: topic in run(client.list_topics()))

    def describe():
        (found,) = run(client.describe_topics([topic]))
        common.equal("partitions", [0, 1, 2], sorted(one["partition"] for one in found["partitions"]))

    def partitions():
        run(client.create_partitions({topic: NewPartitions(5)}))
        common.until("five partitions", lambda: len(run(client.describe_topics([topic]))[0]["partitions"]) == 5)

    def configs():
        run(client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "7200000"})]))

        def retention():
            (answer,) = run(client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
            return {entry[0]: entry[1] for entry in answer.resources[0][4]}["retention.ms"]

        common.until("retention.ms is changed", lambda: retention() == "7200000")

    def groups():
        group = plan["group"]
        listed = [one[0] for one in run(client.list_consumer_groups())]
        assert group in listed, f"group {group} is not listed: {listed}"
        offsets = run(client.list_consumer_group_offsets(group))
        common.equal("committed", plan["per_partition"] // 2, offsets[TopicPartition(plan["group_topic"], 0)].offset)

    def delete():
        run(client.delete_topics([topic]))
        common.until("the topic is gone", lambda: topic not in run(client.list_topics()))
        run(client.close())

    for name, work in (
        ("create a topic", create), ("describe it", describe), ("add partitions", partitions), ("alter configs", configs),
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
            common.step(the_job["step"], lambda: asyncio.run(one_job(the_plan, the_job)))
