"""nginx: a server block for each host, a location for each prefix, an upstream with kept connections for each host."""

import os
import signal
from pathlib import Path

from peers.base import Peer, replace

MAIN = """worker_processes 1;
daemon off;
error_log {folder}/error.log crit;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
"""
LOG = (
    'log_format full \'[$time_iso8601] "$request" $status $request_length $bytes_sent $request_time $upstream_response_time '
    '"$http_x_forwarded_for" "$http_user_agent" "$request_id" "$host" "$upstream_addr" $server_addr:$server_port '
    "$remote_addr:$remote_port $ssl_server_name $proxy_host';\n"
)


class Nginx(Peer):
    name = "nginx"
    note = "one worker; its log is written in pieces of 64 KiB, within a second, as Envoy's and Limen's are; a change is a reload (HUP)"

    def unable(self, work):
        return None

    def start(self, work, folder, port, upstream):
        for scratch in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
            (folder / scratch).mkdir()
        log = folder / "access.log" if work.telemetry else None
        (folder / "nginx.conf").write_text(self.config(work, folder, port, upstream, log), encoding="utf-8")
        if work.changing:
            (folder / "hosts").mkdir()
            for n in range(work.hosts):
                (folder / "hosts" / f"{n}.conf").write_text(server(work, n, self.listen(work, port), 0), encoding="utf-8")
        return self.launch([self.binary, "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"], folder, port, log)

    def listen(self, work, port):
        return f"listen 127.0.0.1:{port}{' ssl' if work.tls else ''}{' http2' if work.h2 else ''};"

    def config(self, work, folder, port, upstream, log):
        text = MAIN.format(folder=folder)
        if work.tcp:
            access = f"log_format l '$remote_addr [$time_iso8601] $status $bytes_sent $bytes_received';\naccess_log {log} l;\n" if log else ""
            # Debian has it in a package of its own.
            module = Path(self.binary).parents[1] / "lib/nginx/modules/ngx_stream_module.so"
            load = f"load_module {module};\n" if module.exists() else ""
            return load + text + f"stream {{\n{access}server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{upstream}; }}\n}}\n"
        text += "http {\nkeepalive_requests 1000000000;\nkeepalive_time 24h;\nserver_names_hash_max_size 262144;\nserver_names_hash_bucket_size 128;\n"
        text += f"client_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\nfastcgi_temp_path {folder}/fastcgi;\n"
        text += f"uwsgi_temp_path {folder}/uwsgi;\nscgi_temp_path {folder}/scgi;\n"
        text += LOG + f"access_log {log} full buffer=64k flush=1s;\n" if log else "access_log off;\n"
        if work.tls:
            text += f"ssl_certificate {self.certificate};\nssl_certificate_key {self.key};\nssl_protocols TLSv1.3;\n"
        if work.h2:
            text += "http2_max_concurrent_streams 128;\n"
        text += "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }\n"
        text += "proxy_http_version 1.1;\nproxy_set_header Host $host;\n"
        if work.websocket:
            text += "proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection $connection_upgrade;\n"
        else:
            text += "proxy_set_header Connection '';\n"
        if work.telemetry:
            which = "grpc" if work.grpc else "proxy"
            text += f"{which}_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n{which}_set_header X-Forwarded-Proto $scheme;\n"
            text += f"{which}_set_header X-Request-Id $request_id;\n"
        for n in range(work.hosts):
            text += f"upstream s{n} {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; keepalive_time 24h; }}\n"
        listen = self.listen(work, port)
        # What no host is named for.
        text += f"server {{ {listen.replace(';', ' default_server;')} server_name _; return 404; }}\n"
        if work.changing:
            return text + f"include {folder}/hosts/*.conf;\n}}\n"
        return text + "".join(server(work, n, listen, None) for n in range(work.hosts)) + "}\n"

    def change(self, running, work, n, generation):
        replace(running.folder / "hosts" / f"{n}.conf", server(work, n, self.listen(work, running.port), generation))
        os.kill(running.pid, signal.SIGHUP)


def server(work, n, listen, generation):
    passing = f"{'grpc_pass grpc' if work.grpc else 'proxy_pass http'}://s{n};"
    header = f" add_header x-gen {generation};" if generation is not None else ""
    locations = "".join(f"location {work.path(p)} {{ {passing}{header} }}\n" for p in range(work.prefixes))
    return f"server {{ {listen} server_name {work.host(n)};\n{locations}location / {{ return 404; }}\n}}\n"
