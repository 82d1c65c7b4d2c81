"""What a person chooses about the server."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from camelid.options import Options

_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/\s?#*]+|[a-z][a-z0-9+.-]*://\*", re.IGNORECASE)
_HOST = re.compile(r"\*|\[[0-9a-f:.]+\]|[a-z0-9._-]+", re.IGNORECASE)
_ROOT = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_KEY = re.compile(r"[!-~]{8,}")


class ServeOptions(Options):
    """Server"""

    host: str = Field("127.0.0.1", description="Address to listen on; one that others can reach needs an API key.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    api_keys: tuple[str, ...] = Field((), description="A key that clients must bring; may be given several times.")
    cors_origins: tuple[str, ...] = Field((), description="A web page's origin that may call; may be given often.")
    allowed_hosts: tuple[str, ...] = Field((), description="A name that a proxy calls it by; may be given often.")
    root_path: str = Field("", description="Path under which a proxy serves it, as /llm.")
    open_to_all: bool = Field(False, description="Listen to others without a key; anyone who reaches it may use it.")
    lenient: bool = Field(False, description="Ignore unknown fields of requests, and name them in X-Camelid-Ignored.")
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="Largest body of a request.")
    max_waiting: int = Field(256, ge=0, description="Requests of a model that may wait for their turn; more get 429.")
    request_seconds: float = Field(600, gt=0, description="Longest time for a request.")
    shutdown_seconds: float = Field(30, ge=0, description="Time that running requests get to finish when it ends.")
    runs: Path | None = Field(None, description="Folder of training runs that the pages show; else ./runs.")
    results: Path | None = Field(None, description="Folder of evaluations that the pages show; else ./results.")
    data: Path | None = Field(None, description="Where the pages keep conversations; else serve.db in camelid's home.")
    database: str | None = Field(
        None, description="Keep them in a database instead: postgresql://USER@HOST/NAME, or sqlite:///FILE."
    )

    @field_validator("api_keys")
    @classmethod
    def _keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_KEY.fullmatch(key) for key in keys):
            raise ValueError("a key has at least 8 characters, all of them visible ASCII")
        return keys

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"wants an origin such as https://example.org, app://*, null or *, got {origin!r}")
        return tuple(origin.lower() for origin in origins)

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"wants a name without scheme and port, such as chat.example.org, got {host!r}")
        return tuple(host.lower() for host in hosts)

    @field_validator("root_path")
    @classmethod
    def _root(cls, path: str) -> str:
        path = path.rstrip("/")
        if not _ROOT.fullmatch(path):
            raise ValueError(f"wants a path such as /llm, got {path!r}")
        return path

    @field_validator("database")
    @classmethod
    def _one_place(cls, database: str | None, info: ValidationInfo) -> str | None:
        if database is not None and info.data.get("data") is not None:
            raise ValueError("data names a file already; give one of them")
        return database

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine and cannot be reached from another."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
