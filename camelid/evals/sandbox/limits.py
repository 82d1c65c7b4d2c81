"""What a program may use."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from camelid.options import Options


class Limits(Options):
    """Limits"""

    seconds: float = Field(10.0, gt=0, le=86400, description="By the clock, with its test, until all of it is ended.")
    cpu_seconds: int = Field(10, ge=1, le=86400, description="Of a processor, for each process.")
    memory_mb: int = Field(512, ge=1, le=1 << 24, description="MiB beyond the interpreter's own, of all processes.")
    processes: int = Field(16, ge=1, le=4096, description="With threads; basic has one process, and threads.")
    open_files: int = Field(64, ge=16, le=1024, description="File descriptors of a process.")
    file_mb: int = Field(16, ge=1, le=1 << 20, description="MiB of one file.")
    scratch_mb: int = Field(64, ge=1, le=1 << 20, description="MiB of its scratch folder, in memory; strict only.")
    output_kb: int = Field(1024, ge=1, le=1 << 20, description="KiB of its output, and of its error output.")

    def in_bytes(self) -> dict[str, Any]:
        """The same with bytes in place of MiB and KiB, as the warm interpreter has them."""
        words = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "processes": self.processes}
        words |= {"memory_bytes": self.memory_mb << 20, "file_bytes": self.file_mb << 20, "open_files": self.open_files}
        return words | {"scratch_bytes": self.scratch_mb << 20, "output_bytes": self.output_kb << 10}
