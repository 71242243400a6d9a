"""Envoy as Istio sets its ingress gateway, as far as the upstream binary goes: Istio's own statistics filter is not in it.

What stands here follows what istiod sends to a gateway and the bootstrap of its proxies: the statistics that are kept, the
connection manager with its headers, the filters, the retry policy of a route, the circuit breakers of a cluster.
"""

import json

from peers.base import Peer, replace
from work import ISTIO_LOG

TYPE = "type.googleapis.com/"
HCM = f"{TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
FILTER = f"{TYPE}envoy.extensions.filters.http"
NO_LIMIT = 4294967295
# What Istio's bootstrap keeps of Envoy's own statistics.
KEPT = {
    "prefixes": ["reporter=", "cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm"],
    "suffixes": ["rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied", "downstream_cx_active"],
    "regexes": [r"^vhost\..*\.route\..*"],
}
RETRY = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": f"{TYPE}envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
    "host_selection_retry_max_attempts": "5",
}


class Envoy(Peer):
    name = "Envoy"
    note = (
        "one worker; as Istio sets it, but without Istio's statistics filter, which the upstream binary lacks: "
        "Istio's own build costs more than what is shown; a change is a new route configuration by file (RDS), as Istio sends it whole"
    )

    def unable(self, work):
        return None

    def start(self, work, folder, port, upstream):
        log = folder / "access.log" if work.telemetry else None
        (folder / "envoy.json").write_text(json.dumps(self.bootstrap(work, folder, port, upstream, log)), encoding="utf-8")
        state = {"routes": routes(work, {})}
        if work.changing:
            replace(folder / "rds.json", discovered(state["routes"]))
        command = [self.binary, "-c", folder / "envoy.json", "--concurrency", 1, "--log-level", "error"]
        command += ["--file-flush-interval-msec", 1000, "--disable-hot-restart"]
        running = self.launch(command, folder, port, log)
        running.state.update(state)
        return running

    def bootstrap(self, work, folder, port, upstream, log):
        listener = {
            "name": f"0.0.0.0_{port}",
            "address": address("127.0.0.1", port),
            "traffic_direction": "OUTBOUND",
            "filter_chains": [self.chain(work, folder, log)],
        }
        return {
            "node": {"id": "router~127.0.0.1~gateway.istio-system~istio-system.svc.cluster.local", "cluster": "gateway"},
            "stats_config": {
                "use_all_default_tags": False,
                "stats_matcher": {
                    "inclusion_list": {
                        "patterns": [{"prefix": prefix} for prefix in KEPT["prefixes"]]
                        + [{"suffix": suffix} for suffix in KEPT["suffixes"]]
                        + [{"safe_regex": {"regex": regex}} for regex in KEPT["regexes"]]
                    }
                },
            },
            "static_resources": {"listeners": [listener], "clusters": [cluster(work, n, upstream) for n in range(work.hosts)]},
        }

    def chain(self, work, folder, log):
        access = []
        if log:
            text = {"text_format_source": {"inline_string": ISTIO_LOG}}
            file = {"@type": f"{TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": str(log), "log_format": text}
            access = [{"name": "envoy.access_loggers.file", "typed_config": file}]
        if work.tcp:
            proxy = {
                "@type": f"{TYPE}envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": name(0),
                "cluster": name(0),
                "access_log": access,
            }
            return {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager(work, folder, access)}]}
        if work.tls:
            files = {"certificate_chain": {"filename": str(self.certificate)}, "private_key": {"filename": str(self.key)}}
            common = {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "alpn_protocols": ["h2", "http/1.1"] if work.h2 else ["http/1.1"],
                "tls_certificates": [files],
            }
            tls = {
                "@type": f"{TYPE}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": common,
                "require_client_certificate": False,
            }
            chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
        return chain

    def change(self, running, work, n, generation):
        running.state["routes"]["virtual_hosts"][n] = virtual_host(work, n, generation)
        replace(running.folder / "rds.json", discovered(running.state["routes"]))


def manager(work, folder, access):
    """The connection manager; without telemetry as bare as it can be."""
    filters = [("envoy.filters.http.router", f"{FILTER}.router.v3.Router", {})]
    config = {
        "@type": HCM,
        "stat_prefix": "outbound_0.0.0.0_80",
        "use_remote_address": True,
        "access_log": access,
        "http_protocol_options": {},
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    if work.telemetry:
        grpc = {"emit_filter_state": True, "stats_for_all_methods": False}
        filters = [
            ("envoy.filters.http.grpc_stats", f"{FILTER}.grpc_stats.v3.FilterConfig", grpc),
            ("istio.fault", f"{FILTER}.fault.v3.HTTPFault", {}),
            ("envoy.filters.http.cors", f"{FILTER}.cors.v3.Cors", {}),
            *filters,
        ]
        config |= {
            "server_name": "istio-envoy",
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"subject": True, "cert": True, "dns": True, "uri": True},
            "normalize_path": True,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "request_id_extension": {
                "typed_config": {
                    "@type": f"{TYPE}envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                    "use_request_id_for_trace_sampling": True,
                }
            },
        }
    else:
        config |= {"generate_request_id": False, "skip_xff_append": True}
    config["http_filters"] = [{"name": name, "typed_config": {"@type": kind, **more}} for name, kind, more in filters]
    if work.changing:
        source = {"path_config_source": {"path": str(folder / "rds.json"), "watched_directory": {"path": str(folder)}}}
        config["rds"] = {"route_config_name": "http.80", "config_source": {**source, "resource_api_version": "V3"}}
    else:
        config["route_config"] = routes(work, {})
    return config


def routes(work, generations):
    hosts = [virtual_host(work, n, generations.get(n, 0)) for n in range(work.hosts)]
    return {"name": "http.80", "virtual_hosts": hosts, "validate_clusters": False, "max_direct_response_body_size_bytes": 1048576}


def discovered(configuration):
    resource = {"@type": f"{TYPE}envoy.config.route.v3.RouteConfiguration", **configuration}
    return json.dumps({"resources": [resource]})


def virtual_host(work, n, generation):
    rules = []
    for p in range(work.prefixes):
        action = {"cluster": name(n), "timeout": "0s"}
        if work.telemetry:
            action |= {"retry_policy": RETRY, "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}}
        rule = {"match": {"prefix": work.path(p), "case_sensitive": True}, "route": action}
        if work.telemetry:
            rule["decorator"] = {"operation": f"s{n}.example:80{work.path(p)}*"}
            config = f"/apis/networking.istio.io/v1/namespaces/default/virtual-service/vs-{n}"
            rule["metadata"] = {"filter_metadata": {"istio": {"config": config}}}
        if work.changing:
            header = {"header": {"key": "x-gen", "value": str(generation)}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            rule["response_headers_to_add"] = [header]
        rules.append(rule)
    host = {"name": f"{work.host(n)}:80", "domains": [work.host(n)], "routes": rules}
    if work.telemetry:
        host["include_request_attempt_count"] = True
    return host


def name(n):
    return f"outbound|80||s{n}.example"


def cluster(work, n, upstream):
    limits = {key: NO_LIMIT for key in ("max_connections", "max_pending_requests", "max_requests", "max_retries")}
    endpoint = {"endpoint": {"address": address("127.0.0.1", upstream)}, "load_balancing_weight": 1}
    one = {
        "name": name(n),
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{**limits, "track_remaining": True}]},
        "common_lb_config": {},
        "metadata": {"filter_metadata": {"istio": {"services": [{"host": f"s{n}.example", "name": f"s{n}", "namespace": "default"}]}}},
        "load_assignment": {"cluster_name": name(n), "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if work.grpc:
        options = {
            "@type": f"{TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        one["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    return one


def address(host, port):
    return {"socket_address": {"address": host, "port_value": port}}
