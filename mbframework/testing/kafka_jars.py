"""Where a test's Apache Kafka comes from: the Java runtime, and the folder of jars, its command-line tools included.

Promise: the jars in the cache are complete or not there at all, also when several processes fetch them at once; and so
is the archive of loaded classes, with which a broker starts in half the time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from mbframework.testing.server import ServerError

KAFKA_VERSION = "4.1.0"

_NO_JARS = "no Kafka jars and no Maven to fetch them; run: apt-get install -y maven, or set KAFKA_HOME"
_NO_JAVA = "no Java runtime; run: apt-get install -y default-jre-headless maven"

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>mbframework.testing</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


#: The broker cannot be had, does not come up, or cannot do what was asked; the text says the next step.
BrokerError = ServerError


def obstacle() -> str | None:
    """None where a broker can be started here, else why not and the command that mends it."""
    if _find_java() is None:
        return _NO_JAVA
    home = os.environ.get("KAFKA_HOME")
    if home:
        return None if (Path(home) / "libs").is_dir() else f"KAFKA_HOME={home} has no folder libs; unset or mend it"
    return None if (_cache() / "libs").is_dir() or shutil.which("mvn") else _NO_JARS


def java() -> str:
    """The Java runtime: JAVA_HOME's, else the first on the path.

    :raises BrokerError: there is none.
    """
    found = _find_java()
    if found is None:
        raise BrokerError(_NO_JAVA)
    return found


def _find_java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").exists():
        return str(Path(home) / "bin" / "java")
    return shutil.which("java")


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    # Named for what the pom asks for: a folder that another one filled counts as complete.
    return Path(base) / "mbframework" / f"kafka-{KAFKA_VERSION}-tools"


def jars() -> Path:
    """Return the folder of Kafka's jars, fetching them with Maven where they are not there yet.

    :raises BrokerError: Maven is missing or failed; its last lines are in the text.
    """
    if home := os.environ.get("KAFKA_HOME"):
        return Path(home) / "libs"
    libs = _cache() / "libs"
    if libs.is_dir():
        return libs
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(_NO_JARS)
    _cache().mkdir(parents=True, exist_ok=True)
    with open(_cache() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if libs.is_dir():
            return libs
        with tempfile.TemporaryDirectory(dir=_cache(), prefix="fetching-") as folder:
            (Path(folder) / "pom.xml").write_text(_POM)
            command = [maven, "-q", "-B", "-f", f"{folder}/pom.xml", "dependency:copy-dependencies"]
            done = subprocess.run(
                [*command, f"-DoutputDirectory={folder}/libs"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise BrokerError(f"Maven did not fetch Kafka {KAFKA_VERSION}:\n{done.stdout[-2000:]}")
            os.rename(f"{folder}/libs", libs)
    return libs


def class_archive() -> Path:
    """Where the classes that a broker loads are kept as Java maps them into memory (class data sharing); it may not be
    there. It is named for the runtime and the jars, which another one would not fit.

    :raises BrokerError: as :func:`java` and :func:`jars`.
    """
    runtime, libs = Path(java()).resolve(), jars()
    made_for = f"{runtime}\n{runtime.stat().st_mtime_ns}\n{libs}"
    return _cache() / f"classes-{hashlib.sha256(made_for.encode()).hexdigest()[:16]}.jsa"
