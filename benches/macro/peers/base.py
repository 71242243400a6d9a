"""What the harness asks of a peer."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import machine


@dataclass
class Running:
    """A peer at work: its process, the port that is asked, and what it needs for being changed."""

    process: object
    port: int
    folder: Path
    log: Path | None = None
    state: dict = field(default_factory=dict)

    @property
    def pid(self):
        return self.process.pid


class Peer:
    """One proxy. `binary` is where it lies."""

    name = ""
    # What it is told to do beside its configuration, or does not do; printed below the tables.
    note = ""

    def __init__(self, binary, certificate, key):
        self.binary, self.certificate, self.key = binary, certificate, key

    def unable(self, work):
        """Why it cannot do the work, or nothing."""
        raise NotImplementedError

    def start(self, work, folder, port, upstream):
        """Writes its configuration into the folder, starts it on the port, and does not wait."""
        raise NotImplementedError

    def change(self, running, work, n, generation):
        """Has host `n` answer with the header `x-gen: GENERATION` from now on."""
        raise NotImplementedError

    def launch(self, command, folder, port, log=None, env=None, stdout=None):
        process = machine.spawn(command, machine.PROXY, folder / f"{self.name}.out", env, stdout)
        return Running(process, port, folder, log)


def replace(path, text):
    """Writes a file so that a reader sees the old one or the new one."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
