"""The engine alone: `benches/examples/bare_proxy.rs`, which passes every request to one upstream and does nothing else."""

from peers.base import Peer


class Pingora(Peer):
    name = "bare Pingora"
    note = "no routing, no log, no headers: what the engine costs, not a peer that does the work"

    def unable(self, work):
        if work.tls or work.h2 or work.tcp:
            return "its example speaks plain HTTP/1 only"
        if work.hosts > 1 or work.prefixes > 5:
            return "it has no routes"
        return None

    def start(self, work, folder, port, upstream):
        return self.launch([self.binary, f"127.0.0.1:{port}", f"127.0.0.1:{upstream}"], folder, port)
