// Kafka's own Java client as a client of the suite: started as `JavaClient MODE PLAN.json`, prints JSON lines as client_common.py says.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.File;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.*;

public class JavaClient {
    static final ObjectMapper JSON = new ObjectMapper();
    static JsonNode plan;

    interface Work { void run() throws Exception; }
    interface Condition { boolean holds() throws Exception; }

    static synchronized void emit(ObjectNode line) {
        System.out.println(line.toString());
    }

    static boolean step(String name, Work work) {
        ObjectNode line = JSON.createObjectNode().put("step", name);
        try {
            work.run();
            emit(line.put("ok", true));
            return true;
        } catch (Throwable error) {
            StringBuilder text = new StringBuilder(error.toString());
            for (Throwable cause = error.getCause(); cause != null; cause = cause.getCause()) text.append("; caused by ").append(cause);
            emit(line.put("ok", false).put("error", text.toString()));
            return false;
        }
    }

    static void equal(String what, Object expected, Object got) {
        if (!Objects.equals(expected, got)) throw new IllegalStateException(what + ": expected " + expected + ", got " + got);
    }

    static void until(String what, Condition condition) throws Exception {
        long deadline = System.nanoTime() + 40_000_000_000L;
        while (!condition.holds()) {
            if (System.nanoTime() > deadline) throw new IllegalStateException(what + ": not within 40 s");
            Thread.sleep(50);
        }
    }

    static byte[] decoded(JsonNode text) {
        return text.isNull() ? null : Base64.getDecoder().decode(text.asText());
    }

    static String encoded(byte[] data) {
        return data == null ? null : Base64.getEncoder().encodeToString(data);
    }

    static Map<String, Object> settings(Object... pairs) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", plan.get("bootstrap").asText());
        for (int index = 0; index < pairs.length; index += 2) settings.put((String) pairs[index], pairs[index + 1]);
        return settings;
    }

    static void produce(JsonNode job) throws Exception {
        Map<String, Object> settings = settings(
            "compression.type", job.get("codec").asText(), "enable.idempotence", job.get("idempotent").asBoolean(), "acks", "all", "linger.ms", 20);
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode one : JSON.readTree(new File(job.get("records").asText()))) {
                var record = new ProducerRecord<byte[], byte[]>(
                    job.get("topic").asText(), 0, one.get("timestamp").asLong(), decoded(one.get("key")), decoded(one.get("value")));
                for (JsonNode header : one.get("headers")) record.headers().add(header.get(0).asText(), decoded(header.get(1)));
                sent.add(producer.send(record));
            }
            for (int index = 0; index < sent.size(); index++) equal("offset", (long) index, sent.get(index).get(60, TimeUnit.SECONDS).offset());
        }
    }

    static void consume(JsonNode job) throws Exception {
        String topic = job.get("topic").asText();
        try (var consumer = new KafkaConsumer<>(settings("enable.auto.commit", false), new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seek(partition, 0);
            int count = 0, wanted = job.get("count").asInt();
            long deadline = System.nanoTime() + 60_000_000_000L;
            while (count < wanted) {
                if (System.nanoTime() > deadline) throw new IllegalStateException(count + " of " + wanted + " records within 60 s");
                for (var one : consumer.poll(Duration.ofMillis(200))) {
                    count++;
                    ObjectNode shown = JSON.createObjectNode().put("offset", one.offset()).put("key", encoded(one.key())).put("timestamp", one.timestamp());
                    shown.put("size", one.value() == null ? -1 : one.value().length);
                    shown.put("value", one.value() == null ? null : HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(one.value())));
                    ArrayNode headers = shown.putArray("headers");
                    for (Header header : one.headers()) headers.addArray().add(header.key()).add(encoded(header.value()));
                    ObjectNode line = JSON.createObjectNode().put("topic", topic);
                    line.set("record", shown);
                    emit(line);
                }
            }
        }
    }

    static class Member implements Runnable {
        final Set<Integer> partitions = ConcurrentHashMap.newKeySet();
        final Queue<String> seen = new ConcurrentLinkedQueue<>();
        final AtomicReference<Throwable> failed = new AtomicReference<>();
        final CountDownLatch committed = new CountDownLatch(1);
        volatile Map<TopicPartition, OffsetAndMetadata> toCommit;
        volatile boolean leaving;
        final Thread thread = new Thread(this);

        Member() {
            thread.setDaemon(true);
            thread.start();
        }

        public void run() {
            Map<String, Object> settings = settings(
                "group.id", plan.get("group").asText(), "enable.auto.commit", false, "auto.offset.reset", "earliest", "session.timeout.ms", 10000,
                "heartbeat.interval.ms", 500, "partition.assignment.strategy", CooperativeStickyAssignor.class.getName());
            try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
                consumer.subscribe(List.of(plan.get("topic").asText()));
                while (!leaving) {
                    for (var one : consumer.poll(Duration.ofMillis(100))) seen.add(one.partition() + ":" + one.offset());
                    Set<Integer> now = new HashSet<>();
                    for (TopicPartition one : consumer.assignment()) now.add(one.partition());
                    partitions.retainAll(now);
                    partitions.addAll(now);
                    if (toCommit != null) {
                        consumer.commitSync(toCommit);
                        toCommit = null;
                        committed.countDown();
                    }
                }
            } catch (Throwable error) {
                failed.set(error);
            }
        }

        void check() {
            if (failed.get() != null) throw new IllegalStateException(failed.get());
        }

        void leave() throws Exception {
            leaving = true;
            thread.join(60_000);
            check();
        }
    }

    static void group() {
        int count = plan.get("partitions").asInt(), each = plan.get("per_partition").asInt(), half = each / 2;
        Member[] first = new Member[1];
        boolean going = step("a member alone", () -> {
            first[0] = new Member();
            until("the only member gets every partition", () -> { first[0].check(); return first[0].partitions.size() == count; });
            until("it reads every record", () -> { first[0].check(); return new HashSet<>(first[0].seen).size() == count * each; });
            equal("records read", count * each, first[0].seen.size());
        });
        going = going && step("commit", () -> {
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            for (int partition = 0; partition < count; partition++) {
                offsets.put(new TopicPartition(plan.get("topic").asText(), partition), new OffsetAndMetadata(half, "kept"));
            }
            first[0].toCommit = offsets;
            if (!first[0].committed.await(30, TimeUnit.SECONDS)) throw new IllegalStateException("no answer to a commit: " + first[0].failed.get());
        });
        going = going && step("rebalance with a second member", () -> {
            Member second = new Member();
            until("two members share the partitions", () -> {
                first[0].check();
                second.check();
                return first[0].partitions.size() * 2 == count && second.partitions.size() * 2 == count;
            });
            second.leave();
            until("the first gets back what the second leaves", () -> first[0].partitions.size() == count);
            first[0].leave();
        });
        if (going) step("resume from the commit", () -> {
            Member later = new Member();
            until("a later member reads from the commits on", () -> { later.check(); return later.seen.size() >= count * (each - half); });
            Set<String> wanted = new TreeSet<>();
            for (int partition = 0; partition < count; partition++) for (int offset = half; offset < each; offset++) wanted.add(partition + ":" + offset);
            equal("what it reads", wanted, new TreeSet<>(later.seen));
            later.leave();
        });
    }

    static void admin() {
        String topic = plan.get("prefix").asText() + "-admin", groupTopic = plan.get("group_topic").asText(), group = plan.get("group").asText();
        int each = plan.get("per_partition").asInt();
        TopicPartition zero = new TopicPartition(groupTopic, 0);
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (Admin client = Admin.create(settings())) {
            step("create a topic", () -> {
                client.createTopics(List.of(new NewTopic(topic, 3, (short) 1).configs(Map.of("retention.ms", "3600000")))).all().get();
                until("the topic is listed", () -> client.listTopics().names().get().contains(topic));
            });
            step("create it again", () -> {
                try {
                    client.createTopics(List.of(new NewTopic(topic, 3, (short) 1))).all().get();
                } catch (ExecutionException error) {
                    equal("error of a second creation", TopicExistsException.class, error.getCause().getClass());
                    return;
                }
                throw new IllegalStateException("a second creation of the topic is not refused");
            });
            step("describe it", () -> equal("partitions", 3, client.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size()));
            step("add partitions", () -> {
                client.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
                until("five partitions", () -> client.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == 5);
            });
            step("describe and alter configs", () -> {
                equal("retention.ms", "3600000", client.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.ms").value());
                var change = new AlterConfigOp(new ConfigEntry("retention.ms", "7200000"), AlterConfigOp.OpType.SET);
                client.incrementalAlterConfigs(Map.of(resource, List.of(change))).all().get();
                until("retention.ms is changed", () -> client.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.ms").value().equals("7200000"));
            });
            step("describe the cluster", () -> equal("nodes", 1, client.describeCluster().nodes().get().size()));
            step("list offsets", () -> {
                equal("latest", (long) each, client.listOffsets(Map.of(zero, OffsetSpec.latest())).partitionResult(zero).get().offset());
                equal("earliest", 0L, client.listOffsets(Map.of(zero, OffsetSpec.earliest())).partitionResult(zero).get().offset());
                client.listOffsets(Map.of(zero, OffsetSpec.maxTimestamp())).partitionResult(zero).get();
            });
            step("delete records", () ->
                equal("low watermark", 7L, client.deleteRecords(Map.of(zero, RecordsToDelete.beforeOffset(7))).lowWatermarks().get(zero).get().lowWatermark()));
            step("describe log directories and producers", () -> {
                client.describeLogDirs(List.of(1)).allDescriptions().get();
                client.describeProducers(List.of(zero)).all().get();
            });
            step("groups", () -> {
                boolean listed = client.listGroups(ListGroupsOptions.forConsumerGroups()).all().get().stream().anyMatch(one -> one.groupId().equals(group));
                equal("listed", true, listed);
                until("the group is empty", () -> client.describeConsumerGroups(List.of(group)).all().get().get(group).members().isEmpty());
                var committed = client.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(zero);
                equal("committed", (long) (each / 2), committed.offset());
                equal("metadata", "kept", committed.metadata());
                client.deleteConsumerGroupOffsets(group, Set.of(zero)).all().get();
                client.deleteConsumerGroups(List.of(group)).all().get();
            });
            step("delete the topic", () -> {
                client.deleteTopics(List.of(topic)).all().get();
                until("the topic is gone", () -> !client.listTopics().names().get().contains(topic));
            });
        }
    }

    public static void main(String[] arguments) throws Exception {
        plan = JSON.readTree(new File(arguments[1]));
        switch (arguments[0]) {
            case "produce" -> plan.get("jobs").forEach(job -> step(job.get("step").asText(), () -> produce(job)));
            case "consume" -> plan.get("jobs").forEach(job -> step(job.get("step").asText(), () -> consume(job)));
            case "group" -> group();
            case "admin" -> admin();
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        System.exit(0);
    }
}
