// franz-go as a client of the suite: started as `client MODE PLAN.json`, prints JSON lines as client_common.py says.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type job struct {
	Step       string `json:"step"`
	Topic      string `json:"topic"`
	Codec      string `json:"codec"`
	Idempotent bool   `json:"idempotent"`
	Records    string `json:"records"`
	Count      int    `json:"count"`
}

type planned struct {
	Bootstrap    string `json:"bootstrap"`
	Prefix       string `json:"prefix"`
	Group        string `json:"group"`
	Topic        string `json:"topic"`
	GroupTopic   string `json:"group_topic"`
	Partitions   int    `json:"partitions"`
	PerPartition int    `json:"per_partition"`
	Jobs         []job  `json:"jobs"`
}

type record struct {
	Key       *string      `json:"key"`
	Value     *string      `json:"value"`
	Headers   [][2]*string `json:"headers"`
	Timestamp int64        `json:"timestamp"`
}

var plan planned

func emit(line map[string]any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func step(name string, work func() error) bool {
	if err := work(); err != nil {
		emit(map[string]any{"step": name, "ok": false, "error": err.Error()})
		return false
	}
	emit(map[string]any{"step": name, "ok": true})
	return true
}

func equal(what string, expected, got any) error {
	if !reflect.DeepEqual(expected, got) {
		return fmt.Errorf("%s: expected %v, got %v", what, expected, got)
	}
	return nil
}

func until(what string, condition func() bool) error {
	deadline := time.Now().Add(40 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within 40 s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func decoded(text *string) []byte {
	if text == nil {
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(*text)
	if err != nil {
		panic(err)
	}
	if data == nil {
		data = []byte{}
	}
	return data
}

func encoded(data []byte) any {
	if data == nil {
		return nil
	}
	return base64.StdEncoding.EncodeToString(data)
}

func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 60*time.Second)
}

func produce(one job) error {
	codec := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[one.Codec]
	options := []kgo.Opt{
		kgo.SeedBrokers(plan.Bootstrap), kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(20 * time.Millisecond),
	}
	if !one.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	content, err := os.ReadFile(one.Records)
	if err != nil {
		return err
	}
	var records []record
	if err := json.Unmarshal(content, &records); err != nil {
		return err
	}
	var sent []*kgo.Record
	for _, from := range records {
		to := &kgo.Record{Topic: one.Topic, Key: decoded(from.Key), Value: decoded(from.Value), Timestamp: time.UnixMilli(from.Timestamp)}
		for _, header := range from.Headers {
			to.Headers = append(to.Headers, kgo.RecordHeader{Key: *header[0], Value: decoded(header[1])})
		}
		sent = append(sent, to)
	}
	ctx, cancel := within()
	defer cancel()
	if err := client.ProduceSync(ctx, sent...).FirstErr(); err != nil {
		return err
	}
	for index, record := range sent {
		if record.Offset != int64(index) {
			return fmt.Errorf("record %d has offset %d", index, record.Offset)
		}
	}
	return nil
}

func consume(one job) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(plan.Bootstrap), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{one.Topic: {0: kgo.NewOffset().At(0)}}))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := within()
	defer cancel()
	for count := 0; count < one.Count; {
		fetches := client.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			return fmt.Errorf("%d of %d records, then %v", count, one.Count, errs)
		}
		fetches.EachRecord(func(got *kgo.Record) {
			count++
			headers := [][2]any{}
			for _, header := range got.Headers {
				headers = append(headers, [2]any{header.Key, encoded(header.Value)})
			}
			shown := map[string]any{
				"offset": got.Offset, "key": encoded(got.Key), "value": nil, "size": -1, "headers": headers, "timestamp": got.Timestamp.UnixMilli(),
			}
			if got.Value != nil {
				sum := sha256.Sum256(got.Value)
				shown["value"], shown["size"] = hex.EncodeToString(sum[:]), len(got.Value)
			}
			emit(map[string]any{"topic": one.Topic, "record": shown})
		})
	}
	return nil
}

type member struct {
	client     *kgo.Client
	lock       sync.Mutex
	partitions map[int32]bool
	seen       map[[2]int64]int
	failed     error
	done       chan struct{}
	stop       context.CancelFunc
}

func join() (*member, error) {
	one := &member{partitions: map[int32]bool{}, seen: map[[2]int64]int{}, done: make(chan struct{})}
	set := func(value bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
			one.lock.Lock()
			defer one.lock.Unlock()
			for _, partition := range changed[plan.Topic] {
				if value {
					one.partitions[partition] = true
				} else {
					delete(one.partitions, partition)
				}
			}
		}
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(plan.Bootstrap), kgo.ConsumerGroup(plan.Group), kgo.ConsumeTopics(plan.Topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.OnPartitionsAssigned(set(true)), kgo.OnPartitionsRevoked(set(false)), kgo.OnPartitionsLost(set(false)),
	)
	if err != nil {
		return nil, err
	}
	one.client = client
	ctx, cancel := context.WithCancel(context.Background())
	one.stop = cancel
	go func() {
		defer close(one.done)
		for ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			one.lock.Lock()
			fetches.EachRecord(func(got *kgo.Record) { one.seen[[2]int64{int64(got.Partition), got.Offset}]++ })
			if errs := fetches.Errors(); len(errs) > 0 && ctx.Err() == nil {
				one.failed = errs[0].Err
			}
			one.lock.Unlock()
		}
	}()
	return one, nil
}

func (one *member) leave() error {
	one.stop()
	<-one.done
	one.client.Close()
	return one.failed
}

func (one *member) owned() []int32 {
	one.lock.Lock()
	defer one.lock.Unlock()
	owned := []int32{}
	for partition := range one.partitions {
		owned = append(owned, partition)
	}
	sort.Slice(owned, func(left, right int) bool { return owned[left] < owned[right] })
	return owned
}

func (one *member) count() int {
	one.lock.Lock()
	defer one.lock.Unlock()
	return len(one.seen)
}

func group() {
	half := int64(plan.PerPartition / 2)
	var first *member
	var err error
	steps := []struct {
		name string
		work func() error
	}{
		{"a member alone", func() error {
			if first, err = join(); err != nil {
				return err
			}
			if err := until("the only member gets every partition", func() bool { return len(first.owned()) == plan.Partitions }); err != nil {
				return err
			}
			return until("it reads every record", func() bool { return first.count() == plan.Partitions*plan.PerPartition })
		}},
		{"commit", func() error {
			offsets := map[int32]kgo.EpochOffset{}
			for partition := 0; partition < plan.Partitions; partition++ {
				offsets[int32(partition)] = kgo.EpochOffset{Epoch: -1, Offset: half}
			}
			ctx, cancel := within()
			defer cancel()
			var failed error
			first.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{plan.Topic: offsets},
				func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
					failed = err
					if err == nil && len(answer.Topics) == 1 {
						failed = kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode)
					}
				})
			return failed
		}},
		{"rebalance with a second member", func() error {
			second, err := join()
			if err != nil {
				return err
			}
			if err := until("two members share the partitions", func() bool {
				left, right := first.owned(), second.owned()
				return len(left) == len(right) && len(left)*2 == plan.Partitions
			}); err != nil {
				return fmt.Errorf("%w: %v and %v", err, first.owned(), second.owned())
			}
			if err := second.leave(); err != nil {
				return err
			}
			if err := until("the first gets back what the second leaves", func() bool { return len(first.owned()) == plan.Partitions }); err != nil {
				return err
			}
			return first.leave()
		}},
		{"resume from the commit", func() error {
			later, err := join()
			if err != nil {
				return err
			}
			want := plan.Partitions * (plan.PerPartition - int(half))
			if err := until("a later member reads from the commits on", func() bool { return later.count() >= want }); err != nil {
				return fmt.Errorf("%w: %d of %d records", err, later.count(), want)
			}
			later.lock.Lock()
			defer later.lock.Unlock()
			for where, times := range later.seen {
				if where[1] < half || times != 1 {
					return fmt.Errorf("partition %d offset %d is read %d times; the commit is %d", where[0], where[1], times, half)
				}
			}
			go later.leave()
			return nil
		}},
	}
	for _, one := range steps {
		if !step(one.name, one.work) {
			return
		}
	}
	time.Sleep(time.Second)
}

func admin() {
	client, err := kadm.NewOptClient(kgo.SeedBrokers(plan.Bootstrap))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	topic := plan.Prefix + "-admin"
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	count := func() int {
		topics, err := client.ListTopics(ctx, topic)
		if err != nil {
			return -1
		}
		return len(topics[topic].Partitions)
	}
	steps := []struct {
		name string
		work func() error
	}{
		{"create a topic", func() error {
			hour := "3600000"
			answer, err := client.CreateTopic(ctx, 3, 1, map[string]*string{"retention.ms": &hour}, topic)
			if err == nil {
				err = answer.Err
			}
			if err != nil {
				return err
			}
			return equal("partitions", 3, count())
		}},
		{"add partitions", func() error {
			if _, err := client.CreatePartitions(ctx, 2, topic); err != nil {
				return err
			}
			return until("five partitions", func() bool { return count() == 5 })
		}},
		{"describe and alter configs", func() error {
			read := func() string {
				answer, err := client.DescribeTopicConfigs(ctx, topic)
				if err != nil || len(answer) != 1 {
					return fmt.Sprint(err)
				}
				for _, config := range answer[0].Configs {
					if config.Key == "retention.ms" {
						return config.MaybeValue()
					}
				}
				return "no retention.ms"
			}
			if err := equal("retention.ms", "3600000", read()); err != nil {
				return err
			}
			hours := "7200000"
			answer, err := client.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &hours}}, topic)
			if err != nil {
				return err
			}
			if answer[0].Err != nil {
				return answer[0].Err
			}
			return until("retention.ms is changed", func() bool { return read() == hours })
		}},
		{"list offsets", func() error {
			ends, err := client.ListEndOffsets(ctx, plan.GroupTopic)
			if err != nil {
				return err
			}
			end, _ := ends.Lookup(plan.GroupTopic, 0)
			return equal("end offset", int64(plan.PerPartition), end.Offset)
		}},
		{"delete records", func() error {
			offsets := kadm.Offsets{}
			offsets.AddOffset(plan.GroupTopic, 0, 7, -1)
			answer, err := client.DeleteRecords(ctx, offsets)
			if err != nil {
				return err
			}
			got, _ := answer.Lookup(plan.GroupTopic, 0)
			if got.Err != nil {
				return got.Err
			}
			return equal("low watermark", int64(7), got.LowWatermark)
		}},
		{"describe log directories", func() error {
			answer, err := client.DescribeAllLogDirs(ctx, nil)
			if err != nil {
				return err
			}
			for _, directories := range answer {
				for _, directory := range directories {
					if directory.Err != nil {
						return directory.Err
					}
				}
			}
			return equal("brokers", 1, len(answer))
		}},
		{"groups", func() error {
			listed, err := client.ListGroups(ctx)
			if err != nil {
				return err
			}
			if _, found := listed[plan.Group]; !found {
				return fmt.Errorf("group %s is not listed: %v", plan.Group, listed.Groups())
			}
			offsets, err := client.FetchOffsets(ctx, plan.Group)
			if err != nil {
				return err
			}
			committed, _ := offsets.Lookup(plan.GroupTopic, 0)
			if err := equal("committed", int64(plan.PerPartition/2), committed.At); err != nil {
				return err
			}
			if err := until("the group is empty", func() bool {
				described, err := client.DescribeGroups(ctx, plan.Group)
				return err == nil && described[plan.Group].State == "Empty"
			}); err != nil {
				return err
			}
			_, err = client.DeleteGroup(ctx, plan.Group)
			return err
		}},
		{"delete the topic", func() error {
			if _, err := client.DeleteTopic(ctx, topic); err != nil {
				return err
			}
			return until("the topic is gone", func() bool { return count() == 0 })
		}},
	}
	for _, one := range steps {
		step(one.name, one.work)
	}
}

func main() {
	content, err := os.ReadFile(os.Args[2])
	if err == nil {
		err = json.Unmarshal(content, &plan)
	}
	if err != nil {
		panic(err)
	}
	switch os.Args[1] {
	case "produce":
		for _, one := range plan.Jobs {
			step(one.Step, func() error { return produce(one) })
		}
	case "consume":
		for _, one := range plan.Jobs {
			step(one.Step, func() error { return consume(one) })
		}
	case "group":
		group()
	case "admin":
		admin()
	}
}
