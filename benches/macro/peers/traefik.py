"""Traefik: the file provider, a router for each prefix."""

import json

from peers.base import Peer


class Traefik(Peer):
    name = "Traefik"
    note = "GOMAXPROCS=1; it makes no request ids, and logs in its own format"

    def unable(self, work):
        if work.hosts > 1 or work.prefixes > 5 or work.changing:
            return "measured with one host only"
        return None

    def start(self, work, folder, port, upstream):
        log = folder / "access.log" if work.telemetry else None
        scheme = "h2c" if work.grpc else "http"
        if work.tcp:
            dynamic = {
                "tcp": {
                    "routers": {"r": {"rule": "HostSNI(`*`)", "service": "s", "entryPoints": ["edge"]}},
                    "services": {"s": {"loadBalancer": {"servers": [{"address": f"127.0.0.1:{upstream}"}]}}},
                }
            }
        else:
            rule = "Host(`{}`) && PathPrefix(`{}`)"
            routers = {
                f"r{p}": {"rule": rule.format(work.host(0), work.path(p)), "service": "s", "entryPoints": ["edge"]}
                for p in range(work.prefixes)
            }
            if work.tls:
                for router in routers.values():
                    router["tls"] = {}
            services = {"s": {"loadBalancer": {"servers": [{"url": f"{scheme}://127.0.0.1:{upstream}"}]}}}
            dynamic = {"http": {"routers": routers, "services": services}}
        if work.tls:
            alpn = ["h2", "http/1.1"] if work.h2 else ["http/1.1"]
            files = {"certFile": str(self.certificate), "keyFile": str(self.key)}
            dynamic["tls"] = {
                "stores": {"default": {"defaultCertificate": files}},
                "options": {"default": {"minVersion": "VersionTLS13", "alpnProtocols": alpn}},
            }
        # JSON is YAML.
        (folder / "dynamic.yml").write_text(json.dumps(dynamic), encoding="utf-8")
        command = [self.binary, f"--entrypoints.edge.address=127.0.0.1:{port}", f"--providers.file.filename={folder}/dynamic.yml"]
        command += ["--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=ERROR"]
        command += ["--serverstransport.maxidleconnsperhost=256"]
        if log:
            command += ["--accesslog=true", f"--accesslog.filepath={log}", "--accesslog.bufferingsize=64"]
        return self.launch(command, folder, port, log, {"GOMAXPROCS": "1"})
