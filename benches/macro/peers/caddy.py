"""Caddy: a route for each prefix, in its own JSON."""

import json

from peers.base import Peer


class Caddy(Peer):
    name = "Caddy"
    note = "GOMAXPROCS=1; logs in its own format (JSON), one write a line"

    def unable(self, work):
        if work.tcp:
            return "it carries no TCP without a plugin"
        if work.hosts > 1 or work.prefixes > 5 or work.changing:
            return "measured with one host only"
        return None

    def start(self, work, folder, port, upstream):
        log = folder / "access.log" if work.telemetry else None
        transport = {"protocol": "http", "keep_alive": {"enabled": True, "max_idle_conns_per_host": 256}}
        if work.grpc:
            transport["versions"] = ["h2c", "2"]
        proxy = {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{upstream}"}], "transport": transport}
        if log:
            proxy["headers"] = {"request": {"set": {"X-Request-Id": ["{http.request.uuid}"]}}}
        matchers = [[{"host": [work.host(0)], "path": [f"{work.path(p)}*"]}] for p in range(work.prefixes)]
        routes = [{"match": match, "handle": [proxy], "terminal": True} for match in matchers]
        routes.append({"handle": [{"handler": "static_response", "status_code": 404}]})
        protocols = ["h1", "h2"] if work.tls and work.h2 else ["h1", "h2c"] if work.h2 else ["h1"]
        server = {
            "listen": [f"127.0.0.1:{port}"],
            "routes": routes,
            "protocols": protocols,
            "automatic_https": {"disable": True},
        }
        apps = {"http": {"servers": {"edge": server}}}
        config = {"admin": {"disabled": True, "config": {"persist": False}}, "apps": apps}
        if log:
            server["logs"] = {"default_logger_name": "access"}
            writer = {"output": "file", "filename": str(log), "roll": False}
            access = {"writer": writer, "include": ["http.log.access.access"]}
            config["logging"] = {"logs": {"access": access, "default": {"exclude": ["http.log.access.access"], "level": "ERROR"}}}
        if work.tls:
            server["tls_connection_policies"] = [{"protocol_min": "tls1.3", "default_sni": "h0.example.com", "fallback_sni": "h0.example.com"}]
            apps["tls"] = {"certificates": {"load_files": [{"certificate": str(self.certificate), "key": str(self.key)}]}}
        (folder / "caddy.json").write_text(json.dumps(config), encoding="utf-8")
        command = [self.binary, "run", "--config", folder / "caddy.json"]
        home = {"GOMAXPROCS": "1", "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        return self.launch(command, folder, port, log, home)
