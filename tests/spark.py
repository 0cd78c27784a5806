"""A real Spark cluster for the tests: a master, two workers and a Thrift server, started once per test process.

Everything comes from the wheel `pyspark` and needs Java 17 or newer. All four listen on 127.0.0.1 only, on ports that
are free; their data lie in a temporary directory that is gone at the end, and they end with the process that started
them, however that ends. REKINDLE_TEST_SPARK_URL (`hive://127.0.0.1:10000/default?staging_dir=/tmp/staging`) takes a
cluster that runs already instead; the tests replace its schemas raw, staging, core, segments, sync and reports.
`python -m tests.spark` starts one and waits.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from include.warehouse.engine import SCHEMAS, Warehouse

URL_VARIABLE = "REKINDLE_TEST_SPARK_URL"
START_SECONDS = 180.0
_COMMON = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.scheduler.mode": "FAIR",
    "spark.sql.ui.retainedExecutions": "5",
    # No second file with sums beside each file.
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    # Its tables are those of this process; nothing is looked up in a database.
    "spark.sql.catalogImplementation": "in-memory",
}
# Statements over a few rows: no time for code generation, for a second look at a plan, or for more than one task.
_SMALL = {
    "spark.default.parallelism": "1",
    "spark.locality.wait": "0",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.autoBroadcastJoinThreshold": "-1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "1",
    "spark.sql.parquet.compression.codec": "uncompressed",
    "spark.shuffle.compress": "false",
    "spark.broadcast.compress": "false",
}
# Statements over millions: Spark's own ways, in as many parts as fit in its memory.
_LARGE = {"spark.sql.shuffle.partitions": "32"}
_LOGGING = """
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
"""
# Every new file costs a `chmod`, a process of its own: let that be a quick one.
_JVM = "-XX:+UseSerialGC -Xss4m -Djdk.lang.Process.launchMechanism=VFORK -Djava.io.tmpdir={folder}/tmp"


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class CannotStart(Exception):
    """Why there is no Spark on this machine."""


class SparkServer:
    """A running cluster: one catalogue, whose schemas a test has for itself."""

    def __init__(self, url: str) -> None:
        self.url = url

    def empty(self, *, with_tables: bool = True) -> Warehouse:
        """A warehouse where nothing has happened yet; what was there is dropped."""
        warehouse = Warehouse(self.url)
        with warehouse.session() as session:
            for schema in SCHEMAS:
                session.exec_driver_sql(f"drop schema if exists {schema} cascade")
        if with_tables:
            warehouse.ensure_tables()
        return warehouse


@contextmanager
def running_cluster(executor_mb: int | None = None) -> Iterator[SparkServer]:
    """The cluster of REKINDLE_TEST_SPARK_URL, else one of our own until the end; CannotStart says why not.

    With `executor_mb`, memory for each of the two workers, it is one for millions of rows.
    """
    given = os.environ.get(URL_VARIABLE)
    if given:
        yield SparkServer(given)
        return
    home, java = _spark_home(), _java()
    with ExitStack() as until_the_end:
        folder = Path(tempfile.mkdtemp(prefix="rekindle-spark-"))
        until_the_end.callback(shutil.rmtree, folder, ignore_errors=True)
        yield SparkServer(_start(home, java, folder, until_the_end, executor_mb))


def _spark_home() -> Path:
    # Not imported: Great Expectations would notice, and import all of it.
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise CannotStart("pyspark is not installed here")
    return Path(found.origin).parent


def _java() -> Path:
    """JAVA_HOME's Java, else the one on the path; 17 or newer."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    if found is None:
        raise CannotStart("there is no Java here for Spark; `make java` says how to get one")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < 17:
        raise CannotStart(f"Spark needs Java 17 or newer, and {found} is not; `make java` says how to get one")
    return Path(found).resolve()


def _start(home: Path, java: Path, folder: Path, until_the_end: ExitStack, executor_mb: int | None) -> str:
    for name in ("warehouse", "local", "work", "staging", "conf", "tmp"):
        (folder / name).mkdir()
    (folder / "conf" / "log4j2.properties").write_text(_LOGGING)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))},
        "JAVA_HOME": str(java.parent.parent),
        "SPARK_HOME": str(home),
        "SPARK_CONF_DIR": str(folder / "conf"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_HOSTNAME": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "SPARK_WORKER_DIR": str(folder / "work"),
        "SPARK_NO_DAEMONIZE": "1",
    }
    java_options = _JVM.format(folder=folder)
    small = {
        **environment,
        "SPARK_DAEMON_MEMORY": "160m",
        "SPARK_DAEMON_JAVA_OPTS": f"-XX:TieredStopAtLevel=1 {java_options}",
    }
    at, port = "127.0.0.1", _free_port()

    def run(name: str, arguments: list[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                arguments,
                cwd=folder,
                env=dict(variables),
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        until_the_end.callback(_end, process)
        return process

    def daemon(name: str, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        common = ["--host", at, "--webui-port", "0"]
        return run(name, [str(home / "bin/spark-class"), f"org.apache.spark.deploy.{kind}", *common, *arguments], small)

    worker_mb, driver_memory = (600, "1g") if executor_mb is None else (executor_mb, "3g")
    master = f"spark://{at}:{port}"
    running = [daemon("master", "master.Master", "--port", str(port))]
    _wait(running, folder, port)
    for number in (1, 2):
        running.append(
            daemon(
                f"worker{number}", "worker.Worker", "--port", "0", "--cores", "1", "--memory", f"{worker_mb}m", master
            )
        )
    door = _free_port()
    settings = {
        **_COMMON,
        **(_SMALL if executor_mb is None else _LARGE),
        "spark.driver.host": at,
        "spark.driver.bindAddress": at,
        "spark.executor.cores": "1",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.driver.extraJavaOptions": java_options,
        "spark.executor.extraJavaOptions": java_options,
    }
    running.append(
        run(
            "thrift",
            [
                str(home / "bin/spark-submit"),
                *("--class", "org.apache.spark.sql.hive.thriftserver.HiveThriftServer2"),
                *("--master", master, "--driver-memory", driver_memory, "--executor-memory", f"{worker_mb - 88}m"),
                *(word for name, value in settings.items() for word in ("--conf", f"{name}={value}")),
                "spark-internal",
                *("--hiveconf", f"hive.server2.thrift.port={door}"),
                *("--hiveconf", f"hive.server2.thrift.bind.host={at}"),
            ],
            environment,
        )
    )
    _wait(running, folder, door)
    return f"hive://{at}:{door}/default?staging_dir={folder / 'staging'}"


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent, also where that is killed; Linux knows how."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(running: list[subprocess.Popen[bytes]], folder: Path, port: int) -> None:
    """Until somebody listens, or one of the processes is gone."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if any(process.poll() is not None for process in running):
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    last = [f"{log.stem}: {log.read_text(errors='replace').strip()[-300:]}" for log in sorted(folder.glob("*.log"))]
    raise CannotStart("Spark does not start on this machine; " + " | ".join(last))


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and all it started: a worker starts an executor in a process of its own."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        try:
            member.terminate()
        except psutil.NoSuchProcess:
            continue
    _, left = psutil.wait_procs(family, timeout=5)
    for member in left:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(timeout=10)


def main() -> None:
    """Start a cluster and say where it is, until Ctrl-C."""
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, signal.default_int_handler)
    try:
        with running_cluster() as server:
            sys.stdout.write(f"export {URL_VARIABLE}='{server.url}'\n")
            sys.stdout.flush()
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
