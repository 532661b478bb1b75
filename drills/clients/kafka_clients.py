"""Each client as its users write it: produce all lines to a topic, read them back with a consumer group."""

import asyncio
import shutil
import subprocess

PATIENCE_S = 60


def confluent_produce(bootstrap, topic, lines, codec, acks="all"):
    from confluent_kafka import Producer

    failed = []
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "acks": acks, "linger.ms": 20,
                         "enable.idempotence": acks == "all", "message.timeout.ms": PATIENCE_S * 1000})
    for line in lines:
        while True:
            try:
                producer.produce(topic, line, on_delivery=lambda error, _: failed.append(error) if error else None)
                break
            except BufferError:
                producer.poll(0.1)
    left = producer.flush(PATIENCE_S)
    assert left == 0 and not failed, f"{left} not sent, {len(failed)} failed: {failed[:1]}"


def confluent_consume(bootstrap, topic, group, expected):
    from confluent_kafka import Consumer

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    seen = []
    try:
        while len(seen) < expected:
            messages = consumer.consume(min(5000, expected - len(seen)), timeout=PATIENCE_S)
            if not messages:
                break
            for message in messages:
                assert not message.error(), message.error()
                seen.append(message.value())
        consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    return seen


def kafka_python_produce(bootstrap, topic, lines, codec, acks="all"):
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=None if codec == "none" else codec,
                             acks=acks, linger_ms=20)
    futures = [producer.send(topic, line) for line in lines]
    producer.flush(PATIENCE_S)
    for future in futures:
        future.get(timeout=PATIENCE_S)
    producer.close()


def kafka_python_consume(bootstrap, topic, group, expected):
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
                             consumer_timeout_ms=PATIENCE_S * 1000)
    seen = []
    for message in consumer:
        seen.append(message.value)
        if len(seen) >= expected:
            break
    consumer.commit()
    consumer.close()
    return seen


def aiokafka_produce(bootstrap, topic, lines, codec, acks="all"):
    from aiokafka import AIOKafkaProducer

    async def run():
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=None if codec == "none" else codec,
                                    acks=acks, linger_ms=20)
        await producer.start()
        try:
            waiting = [await producer.send(topic, line) for line in lines]
            await asyncio.gather(*waiting)
        finally:
            await producer.stop()

    asyncio.run(asyncio.wait_for(run(), 2 * PATIENCE_S))


def aiokafka_consume(bootstrap, topic, group, expected):
    from aiokafka import AIOKafkaConsumer

    async def run():
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest")
        await consumer.start()
        seen = []
        try:
            while len(seen) < expected:
                got = await consumer.getmany(timeout_ms=PATIENCE_S * 1000, max_records=5000)
                if not got:
                    break
                seen.extend(message.value for messages in got.values() for message in messages)
            await consumer.commit()
        finally:
            await consumer.stop()
        return seen

    return asyncio.run(asyncio.wait_for(run(), 4 * PATIENCE_S))


def kcat_produce(bootstrap, topic, lines, codec, acks="all"):
    subprocess.run(["kcat", "-P", "-b", bootstrap, "-t", topic, "-z", codec, "-X", f"acks={acks}"],
                   input=b"\n".join(lines) + b"\n", check=True, timeout=2 * PATIENCE_S)


def kcat_consume(bootstrap, topic, group, expected):
    command = ["kcat", "-b", bootstrap, "-q", "-c", str(expected), "-X", "auto.offset.reset=earliest", "-G", group, topic]
    done = subprocess.run(command, capture_output=True, check=True, timeout=2 * PATIENCE_S)
    return done.stdout.splitlines()


PRODUCERS = [("confluent", confluent_produce, codec) for codec in ("gzip", "snappy", "lz4", "zstd")] + [
    ("kafka-python", kafka_python_produce, "gzip"),
    ("aiokafka", aiokafka_produce, "gzip"),
    ("kcat", kcat_produce, "none"),
]
CONSUMERS = [
    ("confluent", confluent_consume),
    ("kafka-python", kafka_python_consume),
    ("aiokafka", aiokafka_consume),
    ("kcat", kcat_consume),
]


def available(name):
    return name != "kcat" or shutil.which("kcat") is not None
