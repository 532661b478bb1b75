"""Apache Kafka under the produce bench's own load: brokers from the published jars, on this machine, then ours.

    python3 bench/compare/kafka.py --nodes 3 --seconds 20 --drills target/release/drills --seawall target/release/seawall

Needs a JDK and Maven (or --libs FOLDER with Kafka's jars). Brokers run in KRaft mode, each broker and controller in one, heap 1 GiB,
with their defaults, and again with flush.messages=1, which is what our acks=all means: on disk before it is acknowledged.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid

VERSION = "4.1.0"
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>seawall</groupId><artifactId>peer</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
</dependencies></project>"""


def fetch(folder):
    """The jars, from the Maven repository that this machine is set up for."""
    libs = folder / f"kafka-{VERSION}"
    if not any(libs.glob("kafka_2.13-*.jar")):
        libs.mkdir(parents=True, exist_ok=True)
        (folder / "pom.xml").write_text(POM.format(version=VERSION))
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={libs}"]
        subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
    return libs


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Brokers:
    def __init__(self, libs, folder, nodes, flush):
        self.processes, self.folder, self.nodes = [], folder, nodes
        self.ports = [(free_port(), free_port()) for _ in range(nodes)]
        cluster = str(uuid.uuid4()).replace("-", "")[:22]
        voters = ",".join(f"{at + 1}@127.0.0.1:{ports[1]}" for at, ports in enumerate(self.ports))
        java = ["java", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-cp", f"{libs}/*"]
        for at, (client, controller) in enumerate(self.ports):
            data = folder / f"kafka-{at + 1}"
            data.mkdir(parents=True)
            copies = min(3, nodes)
            settings = {
                "process.roles": "broker,controller", "node.id": at + 1, "controller.quorum.voters": voters,
                "listeners": f"PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}",
                "controller.listener.names": "CONTROLLER", "log.dirs": data / "log",
                "default.replication.factor": copies, "min.insync.replicas": (copies + 1) // 2,
                "offsets.topic.replication.factor": copies, "auto.create.topics.enable": "false",
            }
            if flush:
                settings["log.flush.interval.messages"] = 1
            path = data / "server.properties"
            path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
            format_command = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(path)]
            subprocess.run(format_command, check=True, stdout=subprocess.DEVNULL)
            log = open(data / "out.log", "w")
            self.processes.append(subprocess.Popen([*java, "kafka.Kafka", str(path)], stdout=log, stderr=log))
        deadline = time.monotonic() + 90
        for client, _ in self.ports:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", client), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise SystemExit(f"a broker does not answer; see {folder}")
                    time.sleep(0.2)
        time.sleep(10)

    def arguments(self):
        return ["--bootstrap", ",".join(f"127.0.0.1:{client}" for client, _ in self.ports),
                "--pids", ",".join(str(process.pid) for process in self.processes)]

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


def bench(arguments, options, name):
    command = [str(options.drills), "bench", "produce", "--seconds", str(options.seconds), "--format", "json", *arguments]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in out.splitlines():
        print(json.dumps({"who": name, "nodes": options.nodes, **json.loads(line)}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--drills", type=pathlib.Path, default=pathlib.Path("target/release/drills"))
    parser.add_argument("--seawall", type=pathlib.Path, default=pathlib.Path("target/release/seawall"))
    parser.add_argument("--libs", type=pathlib.Path, help="folder with Kafka's jars; else Maven fetches them")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("target/compare-kafka"))
    options = parser.parse_args()
    libs = (options.libs or fetch(options.cache)).resolve()
    print(f"load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    bench(["--seawall", str(options.seawall), "--nodes", str(options.nodes)], options, "seawall")
    for flush, name in [(False, "kafka"), (True, "kafka, flush.messages=1")]:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="seawall-compare-"))
        brokers = None
        try:
            brokers = Brokers(libs, folder, options.nodes, flush)
            bench(brokers.arguments(), options, name)
        finally:
            if brokers:
                brokers.stop()
            shutil.rmtree(folder, ignore_errors=True)
    print(f"load {os.getloadavg()[0]:.1f}", file=sys.stderr)


if __name__ == "__main__":
    main()
