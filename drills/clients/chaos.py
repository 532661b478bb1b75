#!/usr/bin/env python3
"""Real Kafka clients while the leaders of a three-node cluster are killed in turn.

    chaos.py --drills target/debug/drills --seawall target/debug/seawall [--seconds 300] [--only NAME,..]

Each case is a producer of one library writing to a topic of its own, and a consumer group reading it. Every record has a
key and, per key, a number that counts from 0. Afterwards everything is read back with read_committed and compared:

    lost          acknowledged (or committed) and not there
    twice         there more than once
    out_of_order  a record of a key that is there behind a later one of the same key
    torn          a transaction of which some records are there, and some are not
    ack_gap_s     the longest time the producer went without an acknowledgement
    read_gap_s    the longest time the group went without a record

Prints one JSON object a case; exits with 1 if one of them has lost or doubled a record, left the order, or been stuck
for longer than 10 s.
"""

import argparse
import asyncio
import json
import multiprocessing as mp
import subprocess
import sys
import threading
import time
from collections import defaultdict

KEYS = 10
STUCK_MAX_S = 10.0
PARTITIONS = 3
TRANSACTION_SIZE = 10


class Account:
    """What a producer knows: numbers acknowledged by key, and the gaps between acknowledgements."""

    def __init__(self):
        self.acknowledged = defaultdict(list)
        self.errors = defaultdict(int)
        self.last = time.monotonic()
        self.gap = 0.0
        self.lock = threading.Lock()

    def ack(self, key, number):
        with self.lock:
            self.acknowledged[key].append(number)
            now = time.monotonic()
            self.gap = max(self.gap, now - self.last)
            self.last = now

    def error(self, what):
        with self.lock:
            self.errors[str(what)[:120]] += 1

    def end(self):
        """What comes after the last record is no gap."""
        with self.lock:
            self.gap, self.last = max(self.gap, time.monotonic() - self.last), float("inf")

    def result(self):
        return {
            "acknowledged": {key: sorted(numbers) for key, numbers in self.acknowledged.items()},
            "ack_gap_s": max(self.gap, time.monotonic() - self.last),
            "errors": dict(self.errors),
        }


def value(key, number, round_=None):
    return json.dumps({"__time": 1767225600000 + number, "key": key, "number": number, "round": round_}).encode()


def steps(stop, rate):
    """Key and number of one record after the other, `rate` a second, until told to stop."""
    numbers = defaultdict(int)
    begun, sent = time.monotonic(), 0
    while not stop.is_set():
        key = f"k{sent % KEYS}"
        yield key, numbers[key]
        numbers[key] += 1
        sent += 1
        ahead = begun + sent / rate - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)


# --- producers -------------------------------------------------------------------------------------------------------


def produce_confluent(bootstrap, topic, stop, out, rate):
    from confluent_kafka import Producer

    account = Account()
    producer = Producer({
        "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 5,
        "message.timeout.ms": 120000,
    })

    def delivered(error, message):
        if error:
            account.error(error)
        else:
            record = json.loads(message.value())
            account.ack(record["key"], record["number"])

    for key, number in steps(stop, rate):
        while True:
            try:
                producer.produce(topic, value(key, number), key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(60)
    if left:
        account.error(f"{left} records were not acknowledged within 60 s of the end")
    out.put(account.result())


def produce_confluent_transactional(bootstrap, topic, stop, out, rate):
    from confluent_kafka import KafkaException, Producer

    account = Account()

    def fresh():
        producer = Producer({
            "bootstrap.servers": bootstrap, "transactional.id": f"chaos-{topic}", "transaction.timeout.ms": 60000,
        })
        producer.init_transactions(60)
        return producer

    producer = fresh()
    numbers = defaultdict(int)
    size, round_ = TRANSACTION_SIZE, 0
    while not stop.is_set():
        batch = [(f"k{i % KEYS}", numbers[f"k{i % KEYS}"]) for i in range(size)]
        # Every third transaction is aborted on purpose: its records must never be seen, and their numbers are used again.
        wanted = round_ % 3 != 2
        round_ += 1
        try:
            producer.begin_transaction()
            for key, number in batch:
                producer.produce(topic, value(key, number if wanted else -1 - number, round_), key)
            if wanted:
                while True:
                    try:
                        producer.commit_transaction(30)
                        break
                    except KafkaException as error:
                        if not error.args[0].retriable():
                            raise
                        account.error(error)
                for key, number in batch:
                    account.ack(key, number)
                    numbers[key] = number + 1
            else:
                producer.abort_transaction(30)
        except KafkaException as error:
            account.error(error)
            if error.args[0].txn_requires_abort():
                try:
                    producer.abort_transaction(30)
                    continue
                except KafkaException as again:
                    account.error(again)
            producer = fresh()
        time.sleep(size / rate)
    out.put(account.result())


def transform(bootstrap, topic, account, is_over):
    """Reads the source and writes each record to the topic, exactly once, until the source is over and read."""
    from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

    def rewind(consumer):
        while True:
            try:
                places = consumer.committed(consumer.assignment(), 10)
                break
            except KafkaException as error:
                account.error(error)
        for place in places:
            consumer.seek(TopicPartition(place.topic, place.partition, max(place.offset, 0)))

    def begin():
        # The offsets go to the group's coordinator, and librdkafka looks for another one only when one of its connections comes
        # or goes (rd_kafka_coord_req_fsm; its issues 5456, 5511): after a kill that is when the killed node is back. By itself
        # it would try that node after up to 10 s only. Where the node that died was the only one it was connected to, it forgets
        # all of them to begin anew with the bootstrap servers, and waits for ever for the coordinator it has forgotten.
        producer = Producer({
            "bootstrap.servers": bootstrap, "transactional.id": f"chaos-{topic}", "reconnect.backoff.max.ms": 1000,
            "metadata.recovery.strategy": "none",
        })
        producer.init_transactions(60)
        consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": f"chaos-{topic}", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "isolation.level": "read_committed", "session.timeout.ms": 10000,
        })
        consumer.subscribe([f"{topic}-source"])
        return producer, consumer

    producer, consumer = begin()
    idle, round_ = 0, 0
    while idle < 3:
        messages = [message for message in consumer.consume(50, 1.0) if not message.error()]
        if not messages:
            idle += is_over()
            continue
        idle = 0
        round_ += 1
        try:
            producer.begin_transaction()
            for message in messages:
                producer.produce(topic, message.value(), message.key())
            places = consumer.position(consumer.assignment())
            producer.send_offsets_to_transaction(places, consumer.consumer_group_metadata(), 30)
            # Every fifth is aborted on purpose, and done again from where the group stands.
            if round_ % 5 == 0:
                producer.abort_transaction(30)
                rewind(consumer)
                continue
            while True:
                try:
                    producer.commit_transaction(30)
                    break
                except KafkaException as error:
                    if not error.args[0].retriable():
                        raise
                    account.error(error)
        except KafkaException as error:
            account.error(error)
            try:
                producer.abort_transaction(30)
            except KafkaException as again:
                account.error(again)
            consumer.close()
            producer, consumer = begin()
    consumer.close()


def produce_transform(bootstrap, topic, stop, out, rate):
    from confluent_kafka import Producer

    account = Account()
    over = threading.Event()
    worker = threading.Thread(target=transform, args=(bootstrap, topic, account, over.is_set), daemon=True)
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "message.timeout.ms": 120000})

    def delivered(error, message):
        if error:
            account.error(error)
        else:
            record = json.loads(message.value())
            account.ack(record["key"], record["number"])

    for key, number in steps(stop, rate):
        producer.produce(f"{topic}-source", value(key, number), key, on_delivery=delivered)
        producer.poll(0)
        if not worker.is_alive():
            worker.start()
    producer.flush(60)
    account.end()
    over.set()
    worker.join(120)
    if worker.is_alive():
        account.error("the source was not read to its end within 120 s")
    out.put(account.result())


def produce_kafka_python(bootstrap, topic, stop, out, rate):
    from kafka import KafkaProducer

    account = Account()
    producer = KafkaProducer(
        bootstrap_servers=bootstrap.split(","), acks="all", enable_idempotence=True, linger_ms=5,
        max_block_ms=60000, delivery_timeout_ms=120000, request_timeout_ms=15000,
    )
    for key, number in steps(stop, rate):
        try:
            future = producer.send(topic, value(key, number), key.encode())
            future.add_callback(lambda _, key=key, number=number: account.ack(key, number))
            future.add_errback(account.error)
        except Exception as error:  # noqa: BLE001: whatever the library raises is what is counted
            account.error(error)
    producer.flush(60)
    out.put(account.result())


def produce_aiokafka(bootstrap, topic, stop, out, rate):
    from aiokafka import AIOKafkaProducer

    account = Account()

    async def run():
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, enable_idempotence=True, acks="all", linger_ms=5, request_timeout_ms=15000,
        )
        await producer.start()
        numbers, begun, sent, waiting = defaultdict(int), time.monotonic(), 0, set()

        def done(future, key, number):
            waiting.discard(future)
            if future.cancelled() or future.exception():
                account.error(future.cancelled() or future.exception())
            else:
                account.ack(key, number)

        while not stop.is_set():
            key = f"k{sent % KEYS}"
            number = numbers[key]
            try:
                future = await producer.send(topic, value(key, number), key.encode())
            except Exception as error:  # noqa: BLE001
                account.error(error)
                await asyncio.sleep(0.1)
                continue
            waiting.add(future)
            future.add_done_callback(lambda future, key=key, number=number: done(future, key, number))
            numbers[key] += 1
            sent += 1
            await asyncio.sleep(max(0.0, begun + sent / rate - time.monotonic()))
        if waiting:
            await asyncio.wait(set(waiting), timeout=60)
        await asyncio.wait_for(producer.stop(), 30)

    asyncio.run(run())
    out.put(account.result())


# --- consumer groups: two members each -------------------------------------------------------------------------------


class Reading:
    """What a group saw: at least once each, the gap between records."""

    def __init__(self):
        self.seen = set()
        self.errors = defaultdict(int)
        self.last = time.monotonic()
        self.gap = 0.0
        self.again = 0

    def record(self, raw):
        record = json.loads(raw)
        now = time.monotonic()
        self.gap = max(self.gap, now - self.last)
        self.last = now
        place = (record["key"], record["number"])
        self.again += place in self.seen
        self.seen.add(place)

    def error(self, what):
        self.errors[str(what)[:120]] += 1

    def result(self):
        return {"seen": self.seen, "read_gap_s": self.gap, "again": self.again, "errors": dict(self.errors)}


def consume_confluent(bootstrap, topic, stop, out):
    from confluent_kafka import Consumer, KafkaException

    reading = Reading()
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": f"group-{topic}", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "session.timeout.ms": 10000, "isolation.level": "read_committed",
    })
    consumer.subscribe([topic])
    uncommitted = 0
    while not stop.is_set():
        message = consumer.poll(0.2)
        if message is None:
            continue
        if message.error():
            reading.error(message.error())
            continue
        reading.record(message.value())
        uncommitted += 1
        if uncommitted >= 100:
            try:
                consumer.commit(asynchronous=False)
                uncommitted = 0
            except KafkaException as error:
                reading.error(error)
    out.put(reading.result())
    consumer.close()


def consume_kafka_python(bootstrap, topic, stop, out):
    from kafka import KafkaConsumer
    from kafka.errors import KafkaError

    reading = Reading()
    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap.split(","), group_id=f"group-{topic}", auto_offset_reset="earliest",
        enable_auto_commit=False, session_timeout_ms=10000, heartbeat_interval_ms=2000, request_timeout_ms=15000,
        isolation_level="read_committed",
    )
    uncommitted = 0
    while not stop.is_set():
        try:
            for batch in consumer.poll(200).values():
                for message in batch:
                    reading.record(message.value)
                    uncommitted += 1
            if uncommitted >= 100:
                consumer.commit()
                uncommitted = 0
        except KafkaError as error:
            reading.error(repr(error))
            time.sleep(0.1)
    out.put(reading.result())
    consumer.close()


def consume_aiokafka(bootstrap, topic, stop, out):
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaError

    reading = Reading()

    async def run():
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=bootstrap, group_id=f"group-{topic}", auto_offset_reset="earliest",
            enable_auto_commit=False, session_timeout_ms=10000, heartbeat_interval_ms=2000, request_timeout_ms=15000,
            isolation_level="read_committed",
        )
        await consumer.start()
        uncommitted = 0
        while not stop.is_set():
            try:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    for message in batch:
                        reading.record(message.value)
                        uncommitted += 1
                if uncommitted >= 100:
                    await consumer.commit()
                    uncommitted = 0
            except KafkaError as error:
                reading.error(repr(error))
                await asyncio.sleep(0.1)
        out.put(reading.result())
        await asyncio.wait_for(consumer.stop(), 30)

    asyncio.run(run())


CASES = {
    "confluent": (produce_confluent, consume_confluent),
    "transactional": (produce_confluent_transactional, consume_confluent),
    "transform": (produce_transform, consume_confluent),
    "kafka-python": (produce_kafka_python, consume_kafka_python),
    "aiokafka": (produce_aiokafka, consume_aiokafka),
}


# --- the judgement ---------------------------------------------------------------------------------------------------


def read_back(bootstrap, topic):
    """Key -> numbers in the order of their partition's log, committed ones only; and how many of each transaction."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "chaos-read-back", "enable.auto.commit": False,
        "isolation.level": "read_committed", "enable.partition.eof": True,
    })
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found, ended, patience = defaultdict(list), set(), time.monotonic() + 120
    rounds = defaultdict(int)
    while len(ended) < PARTITIONS:
        if time.monotonic() > patience:
            raise SystemExit(f"{topic}: reading back takes longer than 120 s; at the end of {sorted(ended)}")
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            if message.error().code() == -191:
                ended.add(message.partition())
            continue
        record = json.loads(message.value())
        found[record["key"]].append(record["number"])
        if record["round"] is not None:
            rounds[record["round"]] += 1
    consumer.close()
    return found, rounds


def judge(name, produced, groups, found, rounds):
    torn = sum(count != TRANSACTION_SIZE for count in rounds.values())
    lost = twice = disorder = invented = 0
    for key, numbers in produced["acknowledged"].items():
        lost += len(set(numbers) - set(found.get(key, [])))
    for numbers in found.values():
        twice += len(numbers) - len(set(numbers))
        invented += sum(number < 0 for number in numbers)
        highest = -1
        for number in numbers:
            disorder += number < highest
            highest = max(highest, number)
    seen = set().union(*(group["seen"] for group in groups))
    acknowledged = {(key, number) for key, numbers in produced["acknowledged"].items() for number in numbers}
    row = {
        "client": name,
        "acknowledged": len(acknowledged),
        "readable": sum(len(set(numbers)) for numbers in found.values()),
        "lost": lost,
        "twice": twice,
        "out_of_order": disorder,
        "torn": torn,
        "aborted_but_seen": invented,
        "group_missed": len(acknowledged - seen),
        "ack_gap_s": round(produced["ack_gap_s"], 2),
        "read_gap_s": round(max(group["read_gap_s"] for group in groups), 2),
        "producer_errors": produced["errors"],
        "consumer_errors": [group["errors"] for group in groups],
    }
    row["passed"] = (
        bool(acknowledged)
        and not (lost or twice or disorder or torn or invented or row["group_missed"])
        and row["ack_gap_s"] <= STUCK_MAX_S
        and row["read_gap_s"] <= STUCK_MAX_S
    )
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drills", required=True)
    parser.add_argument("--seawall", required=True)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--folder")
    args = parser.parse_args()
    names = args.only.split(",")
    command = [args.drills, "play", "--seawall", args.seawall, "--every", str(args.every), "--seconds", str(args.seconds)]
    for name in names:
        command += ["--topic", f"{name}:{PARTITIONS}"]
    if args.folder:
        command += ["--folder", args.folder, "--keep"]
    cluster = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        return play(args, names, cluster)
    finally:
        cluster.stdin.close()
        try:
            cluster.wait(30)
        except subprocess.TimeoutExpired:
            cluster.kill()


def play(args, names, cluster):
    line = cluster.stdout.readline()
    if not line:
        raise SystemExit("the cluster did not start")
    bootstrap = ",".join(json.loads(line)["bootstrap"])
    context = mp.get_context("spawn")
    stop_producers, stop_consumers = context.Event(), context.Event()
    running = []
    for name in names:
        produce, consume = CASES[name]
        produced, read = context.Queue(), context.Queue()
        processes = [context.Process(target=produce, args=(bootstrap, name, stop_producers, produced, args.rate))]
        processes += [context.Process(target=consume, args=(bootstrap, name, stop_consumers, read)) for _ in range(2)]
        for process in processes:
            process.daemon = True
            process.start()
        running.append((name, produced, read))
    time.sleep(5)
    cluster.stdin.write("go\n")
    cluster.stdin.flush()
    for line in cluster.stdout:
        print(line.strip(), file=sys.stderr, flush=True)
        if json.loads(line)["event"] == "over":
            break
    time.sleep(5)
    stop_producers.set()
    results = [(name, produced.get(timeout=200), read) for name, produced, read in running]
    # What was acknowledged last is still on its way to the groups.
    time.sleep(10)
    stop_consumers.set()
    passed = True
    for name, produced, read in results:
        groups = [read.get(timeout=60) for _ in range(2)]
        row = judge(name, produced, groups, *read_back(bootstrap, name))
        passed &= row["passed"]
        print(json.dumps(row), flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
