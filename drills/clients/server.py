"""One seawall process in a folder of its own: start, stop, ask over HTTP."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, pathlib.Path(folder)
        self.kafka_port, self.http_port, self.postgres_port = free_port(), free_port(), free_port()
        self.process = None

    @property
    def kafka(self):
        return f"127.0.0.1:{self.kafka_port}"

    @property
    def http(self):
        return f"http://127.0.0.1:{self.http_port}"

    def start(self, deadline_s=30):
        environment = dict(
            os.environ,
            SEAWALL_LISTEN_KAFKA=self.kafka,
            SEAWALL_LISTEN_HTTP=f"127.0.0.1:{self.http_port}",
            SEAWALL_LISTEN_POSTGRES=f"127.0.0.1:{self.postgres_port}",
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        log = open(self.folder / "server.log", "ab")
        self.process = subprocess.Popen(
            [self.binary, "serve", "--dev", "--data-dir", str(self.folder / "data")],
            env=environment, stdout=log, stderr=log,
        )
        started = time.monotonic()
        while time.monotonic() - started < deadline_s:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}; see {self.folder}/server.log")
            try:
                with urllib.request.urlopen(self.http + "/health/ready", timeout=1) as answer:
                    if answer.status == 200:
                        return time.monotonic() - started
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.05)
        raise RuntimeError(f"the server was not ready within {deadline_s} s")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
                raise RuntimeError("the server did not end within 20 s of SIGTERM")

    def post(self, path, body, timeout=60):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.http + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"POST {path}: {error.code} {error.read().decode(errors='replace')[:500]}") from None

    def sql(self, query, **more):
        return self.post("/druid/v2/sql", {"query": query, "resultFormat": "array", **more})

    def count(self, table):
        return self.sql(f'SELECT COUNT(*) FROM "{table}"')[0][0]

    def wait_count(self, table, expected, deadline_s=60):
        started, seen = time.monotonic(), None
        while time.monotonic() - started < deadline_s:
            seen = self.count(table)
            if seen >= expected:
                break
            time.sleep(0.2)
        return seen
