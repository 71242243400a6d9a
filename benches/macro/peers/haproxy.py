"""HAProxy: a map from host and prefix to one of a backend for each host, which is what it has for many."""

import socket
from pathlib import Path

from peers.base import Peer

LOG = (
    'log-format "[%tr] \\"%HM %HU %HV\\" %ST %tsc %U %B %Ta %Tr \\"%[var(txn.xff)]\\" \\"%[var(txn.agent)]\\" \\"%ID\\" '
    '\\"%[var(txn.host)]\\" \\"%si:%sp\\" %b %bi:%bp %fi:%fp %ci:%cp %[ssl_fc_sni] %f"\n'
)


class HAProxy(Peer):
    name = "HAProxy"
    note = "one thread; its log goes to a file by one write a line, the one way that it has; a change is a map entry set at run time"

    def unable(self, work):
        return None

    def start(self, work, folder, port, upstream):
        log = folder / "access.log" if work.telemetry else None
        (folder / "haproxy.cfg").write_text(self.config(work, folder, port, upstream), encoding="utf-8")
        routes = (f"{work.host(n)}{work.path(p)} s{n}\n" for n in range(work.hosts) for p in range(work.prefixes))
        (folder / "routes.map").write_text("".join(routes), encoding="utf-8")
        (folder / "generations.map").write_text("".join(f"{work.host(n)} 0\n" for n in range(work.hosts)), encoding="utf-8")
        pem = folder / "cert.pem"
        pem.write_text(Path(self.certificate).read_text(encoding="ascii") + Path(self.key).read_text(encoding="ascii"), encoding="ascii")
        libraries = {"LD_LIBRARY_PATH": str(Path(self.binary).parent / "lib")}
        stdout = open(log, "wb") if log else None
        return self.launch([self.binary, "-db", "-f", folder / "haproxy.cfg"], folder, port, log, libraries, stdout)

    def config(self, work, folder, port, upstream):
        text = f"global\n  nbthread 1\n  maxconn 4096\n  stats socket {folder}/s mode 600 level admin\n  tune.ssl.default-dh-param 2048\n"
        if work.telemetry:
            text += "  log stdout format raw local0 info\n"
        mode = "tcp" if work.tcp else "http"
        text += f"defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  timeout tunnel 1h\n"
        text += "  option dontlognull\n" + ("" if work.tcp else "  http-reuse always\n")
        if work.telemetry:
            text += "  log global\n"
        bind = f"  bind 127.0.0.1:{port}"
        if work.tls:
            bind += f" ssl crt {folder}/cert.pem ssl-min-ver TLSv1.3 alpn {'h2,http/1.1' if work.h2 else 'http/1.1'}"
        elif work.h2:
            bind += " proto h2"
        text += f"frontend edge\n{bind}\n"
        if work.tcp:
            text += "  option tcplog\n" if work.telemetry else ""
            text += f"  default_backend s\nbackend s\n  server a 127.0.0.1:{upstream}\n"
            return text
        if work.telemetry:
            text += "  unique-id-format %[uuid()]\n  unique-id-header X-Request-Id\n  option forwardfor\n"
            text += f"  http-request set-header X-Forwarded-Proto {work.scheme}\n"
            text += "  http-request set-var(txn.xff) req.hdr(x-forwarded-for)\n  http-request set-var(txn.agent) req.hdr(user-agent)\n"
            text += "  http-request set-var(txn.host) req.hdr(host)\n  " + LOG
        if work.changing:
            text += f"  http-request set-var(txn.gen) req.hdr(host),lower,map_str({folder}/generations.map,0)\n"
            text += "  http-response set-header x-gen %[var(txn.gen)]\n"
        text += f"  use_backend %[base,map_beg({folder}/routes.map,none)]\n"
        text += "backend none\n  http-request deny deny_status 404\n"
        protocol = " proto h2" if work.grpc else ""
        for n in range(work.hosts):
            text += f"backend s{n}\n  server a 127.0.0.1:{upstream}{protocol}\n"
        return text

    def change(self, running, work, n, generation):
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(running.folder / "s"))
            control.sendall(f"set map {running.folder}/generations.map {work.host(n)} {generation}\n".encode())
            answer = control.recv(4096)
        if answer.strip():
            raise RuntimeError(f"HAProxy took no change: {answer!r}")
