// kafkajs as a client of the suite: started as `client.mjs MODE PLAN.json`, prints JSON lines as client_common.py says.

import { createRequire } from 'node:module'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

const require = createRequire(process.env.MILLRACE_INTEROP_DIR + '/node/')
const kafkajs = require('kafkajs')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = kafkajs
const lz4 = require('lz4-napi')
const zstd = require('@bokuweb/zstd-wasm')

const mode = process.argv[2]
const plan = JSON.parse(readFileSync(process.argv[3]))
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})

const kafka = new Kafka({ clientId: 'kafkajs', brokers: [plan.bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 5 } })
const emit = line => process.stdout.write(JSON.stringify(line) + '\n')
const encoded = data => (data === null || data === undefined ? null : Buffer.from(data).toString('base64'))
const decoded = text => (text === null ? null : Buffer.from(text, 'base64'))
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

async function step(name, work) {
  try {
    await work()
  } catch (error) {
    emit({ step: name, ok: false, error: String(error && error.stack || error) })
    return false
  }
  emit({ step: name, ok: true })
  return true
}

function equal(what, expected, got) {
  const [left, right] = [JSON.stringify(expected), JSON.stringify(got)]
  if (left !== right) throw new Error(`${what}: expected ${left}, got ${right}`)
}

async function until(what, condition, timeoutMs = 40000) {
  const deadline = Date.now() + timeoutMs
  for (;;) {
    const value = await condition()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms; last seen: ${JSON.stringify(value)}`)
    await pause(50)
  }
}

function records(job) {
  return JSON.parse(readFileSync(job.records)).map(one => {
    const headers = {}
    for (const [name, content] of one.headers) (headers[name] ??= []).push(decoded(content))
    return { key: decoded(one.key), value: decoded(one.value), headers, timestamp: String(one.timestamp), partition: 0 }
  })
}

async function produceOne(job) {
  const producer = kafka.producer({ idempotent: job.idempotent, createPartitioner: kafkajs.Partitioners.DefaultPartitioner })
  await producer.connect()
  let offset = 0
  const send = async messages => {
    const [answer] = await producer.send({ topic: job.topic, messages, acks: -1, compression: codecs[job.codec] })
    equal('base offset', String(offset), answer.baseOffset)
    offset += messages.length
  }
  // One call is one batch here, so the big records travel alone.
  let waiting = []
  for (const one of records(job)) {
    if (one.value && one.value.length > 100000) {
      if (waiting.length) await send(waiting)
      waiting = []
      await send([one])
    } else {
      waiting.push(one)
    }
  }
  await send(waiting)
  await producer.disconnect()
}

async function consumeAll() {
  const consumer = kafka.consumer({ groupId: plan.prefix + '-reader', maxWaitTimeInMs: 100 })
  const wanted = new Map(plan.jobs.map(job => [job.topic, job]))
  const counts = new Map(plan.jobs.map(job => [job.topic, 0]))
  const crash = []
  consumer.on(consumer.events.CRASH, event => crash.push(String(event.payload.error && event.payload.error.stack)))
  await consumer.connect()
  for (const job of plan.jobs) await consumer.subscribe({ topic: job.topic, fromBeginning: true })
  await consumer.run({
    eachMessage: async ({ topic, message }) => {
      if (counts.get(topic) >= wanted.get(topic).count) return
      counts.set(topic, counts.get(topic) + 1)
      const headers = Object.entries(message.headers || {}).flatMap(([name, content]) =>
        (Array.isArray(content) ? content : [content]).map(one => [name, encoded(one)]))
      emit({
        topic,
        record: {
          offset: Number(message.offset), key: encoded(message.key), size: message.value === null ? -1 : message.value.length,
          value: message.value === null ? null : createHash('sha256').update(message.value).digest('hex'),
          headers, timestamp: Number(message.timestamp),
        },
      })
    },
  })
  const deadline = Date.now() + 90000
  for (const job of plan.jobs) {
    await step(job.step, async () => {
      while (counts.get(job.topic) < job.count) {
        if (Date.now() > deadline || crash.length) throw new Error(`${counts.get(job.topic)} of ${job.count} records; ${crash.join('; ')}`)
        await pause(20)
      }
    })
  }
  await consumer.disconnect()
}

class Member {
  constructor() {
    this.seen = []
    this.partitions = []
    this.consumer = kafka.consumer({ groupId: plan.group, sessionTimeout: 10000, heartbeatInterval: 500, maxWaitTimeInMs: 200 })
    this.consumer.on(this.consumer.events.GROUP_JOIN, event => { this.partitions = event.payload.memberAssignment[plan.topic] || [] })
  }
  async start() {
    await this.consumer.connect()
    await this.consumer.subscribe({ topic: plan.topic, fromBeginning: true })
    await this.consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => { this.seen.push(`${partition}:${message.offset}`) },
    })
  }
  async leave() {
    await this.consumer.disconnect()
  }
}

async function group() {
  const half = plan.per_partition / 2
  const everything = [...Array(plan.partitions).keys()]
  const sorted = list => [...list].sort((a, b) => a - b)
  const all = member => JSON.stringify(sorted(member.partitions)) === JSON.stringify(everything)
  const first = new Member()
  const steps = [
    ['a member alone', async () => {
      await first.start()
      await until('the only member gets every partition', () => all(first))
      await until('it reads every record', () => new Set(first.seen).size === plan.partitions * plan.per_partition)
    }],
    ['commit', async () => {
      await first.consumer.commitOffsets(everything.map(partition => ({ topic: plan.topic, partition, offset: String(half) })))
    }],
    ['rebalance with a second member', async () => {
      const second = new Member()
      await second.start()
      await until('two members share the partitions', () =>
        first.partitions.length === second.partitions.length && JSON.stringify(sorted([...first.partitions, ...second.partitions])) === JSON.stringify(everything))
      await second.leave()
      await until('the first gets back what the second leaves', () => all(first))
      await first.leave()
    }],
    ['resume from the commit', async () => {
      const later = new Member()
      await later.start()
      const wanted = everything.flatMap(partition => [...Array(plan.per_partition - half).keys()].map(index => `${partition}:${half + index}`))
      await until('a later member reads from the commits on', () => wanted.every(one => later.seen.includes(one)))
      equal('what it reads', [...wanted].sort(), [...later.seen].sort())
      await later.leave()
    }],
  ]
  for (const [name, work] of steps) if (!(await step(name, work))) return
}

async function admin() {
  const client = kafka.admin()
  const topic = plan.prefix + '-admin'
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  const partitions = async () => (await client.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length
  const retention = async () => (await client.describeConfigs({ resources: [{ ...resource, configNames: ['retention.ms'] }] })).resources[0].configEntries[0].configValue
  const steps = [
    ['create a topic', async () => {
      await client.connect()
      await client.createTopics({ topics: [{ topic, numPartitions: 3, replicationFactor: 1, configEntries: [{ name: 'retention.ms', value: '3600000' }] }] })
      equal('listed', true, (await client.listTopics()).includes(topic))
      equal('partitions', 3, await partitions())
    }],
    ['add partitions', async () => {
      await client.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
      await until('five partitions', async () => (await partitions()) === 5)
    }],
    ['describe and alter configs', async () => {
      equal('retention.ms', '3600000', await retention())
      await client.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '7200000' }] }] })
      await until('retention.ms is changed', async () => (await retention()) === '7200000')
    }],
    ['describe the cluster', async () => equal('brokers', 1, (await client.describeCluster()).brokers.length)],
    ['list offsets', async () => {
      const offsets = await client.fetchTopicOffsets(plan.group_topic)
      equal('high offset', String(plan.per_partition), offsets.find(one => one.partition === 0).high)
    }],
    ['delete records', async () => {
      await client.deleteTopicRecords({ topic: plan.group_topic, partitions: [{ partition: 0, offset: '7' }] })
      const offsets = await client.fetchTopicOffsets(plan.group_topic)
      equal('low offset', '7', offsets.find(one => one.partition === 0).low)
    }],
    ['groups', async () => {
      equal('listed', true, (await client.listGroups()).groups.some(one => one.groupId === plan.group))
      equal('state', 'Empty', (await client.describeGroups([plan.group])).groups[0].state)
      const [committed] = await client.fetchOffsets({ groupId: plan.group, topics: [plan.group_topic] })
      equal('committed', String(plan.per_partition / 2), committed.partitions.find(one => one.partition === 0).offset)
      await client.deleteGroups([plan.group])
    }],
    ['delete the topic', async () => {
      await client.deleteTopics({ topics: [topic] })
      await until('the topic is gone', async () => !(await client.listTopics()).includes(topic))
      await client.disconnect()
    }],
  ]
  for (const [name, work] of steps) await step(name, work)
}

await zstd.init()
if (mode === 'produce') for (const job of plan.jobs) await step(job.step, () => produceOne(job))
else await { consume: consumeAll, group, admin }[mode]()
process.exit(0)
