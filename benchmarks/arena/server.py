"""An arena and a PostgreSQL of a benchmark's own, that can be killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A cluster in a folder; root may not run one, so nobody does."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        self.bin = (found[-1] if found else Path(shutil.which("initdb") or "initdb")).parent
        self.user = "nobody" if os.geteuid() == 0 else None
        self.folder, self.port = folder, free_port()
        folder.mkdir(parents=True)
        if self.user:
            os.chown(folder, pwd.getpwnam(self.user).pw_uid, -1)
        init = [str(self.bin / "initdb"), "-D", f"{folder}/data", "-U", "camelid", "--auth=trust", "-E", "UTF8"]
        subprocess.run(init, user=self.user, cwd=folder, check=True, capture_output=True)
        self.url = f"postgresql://camelid@127.0.0.1:{self.port}/postgres"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, as often as it takes until the one before has let go."""
        flags = ["-p", str(self.port), "-k", str(self.folder), "-h", "127.0.0.1"]
        for _ in range(120):
            command = [str(self.bin / "postgres"), "-D", f"{self.folder}/data", *flags]
            self.process = subprocess.Popen(command, user=self.user, cwd=self.folder, stderr=subprocess.DEVNULL)
            ready = [str(self.bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            while self.process.poll() is None:
                if subprocess.run(ready, check=False).returncode == 0:
                    return
                time.sleep(0.2)
            time.sleep(0.5)
        raise SystemExit("PostgreSQL does not start")

    def kill(self) -> None:
        """As a power failure would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


class ArenaServer:
    """`camelid arena serve` on a port of its own."""

    def __init__(self, config: Path, database: str, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._command = [sys.executable, "-m", "camelid", "arena", "serve", "--config", str(config)]
        self._command += ["--database", database, "--port", str(self.port), "--shutdown-seconds", "2"]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it serves."""
        for _ in range(60):
            with self._log.open("ab") as log:
                self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
            while self.process.poll() is None:
                try:
                    with urlopen(f"{self.url}/health", timeout=2):
                        return
                except OSError:
                    time.sleep(0.2)
            time.sleep(1)  # its database may not be back yet
        raise SystemExit(f"the arena does not start; see {self._log}")

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)


def write_config(path: Path, models: list[str], extra: str = "", pace: str = "") -> Path:
    """An arena.toml without limits of people; `models` are bodies of [[models]] tables."""
    limits = "[limits]\nperson_hour = 0\nperson_day = 0\naddress_hour = 0\naddress_day = 0\nat_once = 0\n"
    tables = "".join(f"[[models]]\n{model}\n" for model in models)
    path.write_text(f"{extra}\n{limits}\n[pace]\n{pace}\n{tables}", encoding="utf-8")
    return path
