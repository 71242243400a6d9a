"""Limen, from a folder with a file for each host: VirtualService, ServiceEntry with one endpoint."""

import base64
from pathlib import Path

import machine
from peers.base import Peer, replace

GATEWAY = """apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
"""


class Limen(Peer):
    name = "Limen"
    note = "one worker thread; metrics cannot be turned off, so they are counted where the others are bare too"

    def unable(self, work):
        return None

    def start(self, work, folder, port, upstream):
        config = folder / "config"
        config.mkdir()
        (config / "gateway.yaml").write_text(self.gateway(work, port), encoding="utf-8")
        for n in range(work.hosts):
            (config / f"h{n}.yaml").write_text(host(work, n, port, upstream, 0), encoding="utf-8")
        admin, status, metrics = (machine.free_port() for _ in range(3))
        log = folder / "access.log" if work.telemetry else None
        command = [self.binary, "run", "--config", config, "--bind", "127.0.0.1", "--threads", 1, "--log-level", "warn"]
        command += ["--admin", f"127.0.0.1:{admin}", "--status-addr", f"127.0.0.1:{status}", "--metrics-addr", f"127.0.0.1:{metrics}"]
        command += ["--access-log", "text", "--access-log-file", log] if log else ["--access-log", "off"]
        running = self.launch(command, folder, port, log)
        running.state.update(config=config, upstream=upstream)
        return running

    def gateway(self, work, port):
        if work.tcp:
            return GATEWAY + f"    - {{port: {{number: {port}, name: tcp, protocol: TCP}}, hosts: ['*']}}\n"
        protocol = "HTTPS" if work.tls else "GRPC" if work.grpc else "HTTP2" if work.h2 else "HTTP"
        # wrk names the address that it connects to as the server, so one certificate is for all names, with each peer.
        hosts = "*" if work.tls else "*.example.com"
        text = GATEWAY + f"    - port: {{number: {port}, name: {protocol.lower()}, protocol: {protocol}}}\n      hosts: ['{hosts}']\n"
        if work.tls:
            text += "      tls: {mode: SIMPLE, minProtocolVersion: TLSV1_3, credentialName: cert}\n"
            files = {"tls.crt": self.certificate, "tls.key": self.key}
            data = ", ".join(f"{name}: {base64.b64encode(Path(file).read_bytes()).decode()}" for name, file in files.items())
            text += f"---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: cert, namespace: istio-system}}\ndata: {{{data}}}\n"
        return text

    def change(self, running, work, n, generation):
        text = host(work, n, running.port, running.state["upstream"], generation)
        replace(running.state["config"] / f"h{n}.yaml", text)


def host(work, n, port, upstream, generation):
    protocol = "TCP" if work.tcp else "GRPC" if work.grpc else "HTTP"
    to = f"route: [{{destination: {{host: s{n}.example, port: {{number: 80}}}}}}]"
    if work.tcp:
        rules = f"  tcp:\n    - match: [{{port: {port}}}]\n      {to}\n"
    else:
        headers = f"\n      headers: {{response: {{set: {{x-gen: '{generation}'}}}}}}" if work.changing else ""
        rules = "  http:\n" + "".join(
            f"    - match: [{{uri: {{prefix: {work.path(p)}}}}}]{headers}\n      {to}\n" for p in range(work.prefixes)
        )
    return f"""apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: vs-{n}, namespace: default}}
spec:
  hosts: ['{"*" if work.tcp else work.host(n)}']
  gateways: [istio-system/public]
{rules}---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: s{n}, namespace: default}}
spec:
  hosts: [s{n}.example]
  resolution: STATIC
  ports: [{{number: 80, name: {protocol.lower()}, protocol: {protocol}}}]
  endpoints: [{{address: 127.0.0.1, ports: {{{protocol.lower()}: {upstream}}}}}]
"""
