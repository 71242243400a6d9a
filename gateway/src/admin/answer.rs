//! What each admin endpoint answers.
//!
//! Invariant: no answer holds key material or the value of a Secret. GET changes nothing.

use std::net::IpAddr;

use bytes::Bytes;
use config_model::diagnostic::Diagnostics;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Admin, Readiness, Surface, dashboard};
use crate::{
    cli::VERSION,
    drain::DrainState,
    edge::PathPolicy,
    listener::BindFailure,
    pipeline::{Built, Synchronization},
    report::{
        explain,
        findings::Findings,
        question,
        table::{self, Table},
    },
};

type Reply = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
/// What Prometheus asks for (exposition format 0.0.4).
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers one request. The body of a request is never read: no endpoint takes one.
pub(super) fn answer<B>(admin: &Admin, surface: Surface, request: &Request<B>) -> Reply {
    let reading = *request.method() == Method::GET || *request.method() == Method::HEAD;
    let posting = *request.method() == Method::POST;
    if surface == Surface::Admin && !is_local_name(request) {
        // A page in a browser on this machine could otherwise turn the gateway by a name that resolves to it.
        return text(StatusCode::FORBIDDEN, "the Host header must be an address or localhost\n");
    }
    let query = request.uri().query().unwrap_or_default();
    match (surface, request.uri().path()) {
        (_, "/healthz/ready" | "/ready") if reading => ready(admin),
        (Surface::Metrics | Surface::Admin, "/stats/prometheus" | "/metrics") if reading => {
            let connections = i64::try_from(admin.listeners.connections()).unwrap_or(i64::MAX);
            admin.metrics.active_connections.set(connections);
            reply(StatusCode::OK, METRICS, admin.metrics.encode())
        }
        (Surface::Admin, path @ ("/logging" | "/drain" | "/quitquitquit")) => {
            if posting {
                turn(admin, path, query)
            } else {
                method_not_allowed("POST")
            }
        }
        (Surface::Admin, path) if reading => view(admin, path, query),
        (Surface::Admin, _) => method_not_allowed("GET"),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// The endpoints that change something.
fn turn(admin: &Admin, path: &str, query: &str) -> Reply {
    match path {
        "/drain" => {
            tracing::info!("drain asked for by POST /drain");
            admin.drain.start();
            text(StatusCode::OK, "OK\n")
        }
        "/quitquitquit" => {
            tracing::info!("end asked for by POST /quitquitquit");
            admin.drain.quit();
            text(StatusCode::OK, "OK\n")
        }
        _ => {
            let level = question::pairs(query).find(|(key, _)| key == "level");
            let Some((_, level)) = level else {
                return text(StatusCode::BAD_REQUEST, "give ?level=error|warn|info|debug|trace\n");
            };
            match admin.level.set(&level) {
                Ok(()) => text(StatusCode::OK, &format!("level: {level}\n")),
                Err(error) => text(StatusCode::BAD_REQUEST, &format!("{error}\n")),
            }
        }
    }
}

/// The endpoints that show something.
fn view(admin: &Admin, path: &str, query: &str) -> Reply {
    let built = admin.status.built();
    match path {
        "/" => reply(StatusCode::OK, HTML, dashboard::page(admin)),
        "/config_dump" => match built {
            Some(built) => config_dump(admin, &built, query),
            None => not_yet(),
        },
        "/clusters" => clusters(admin, query),
        "/listeners" => listeners(admin, query),
        "/certs" => certificates(admin),
        "/server_info" => server_info(admin),
        "/diagnostics" => {
            let resources = built.as_ref().map_or(0, |built| built.resources);
            let mut findings = Diagnostics::clone(&admin.status.findings());
            findings.extend(admin.listeners.failures().iter().map(BindFailure::diagnostic));
            json(&Findings::new(&findings, resources))
        }
        "/explain" => match (question::decode(query), built) {
            (Err(message), _) => text(StatusCode::BAD_REQUEST, &format!("{message}\n")),
            (Ok(_), None) => not_yet(),
            (Ok(ask), Some(built)) => match ask.question(&admin.port_map) {
                Ok(question) => json(&explain::answer(
                    &built.compiled,
                    &PathPolicy::of(built.validated.mesh()),
                    &question,
                )),
                Err(message) => text(StatusCode::BAD_REQUEST, &format!("{message}\n")),
            },
        },
        _ => text(StatusCode::NOT_FOUND, "not found; / lists what there is\n"),
    }
}

fn ready(admin: &Admin) -> Reply {
    match admin.readiness() {
        Readiness::Ready => text(StatusCode::OK, "ready\n"),
        Readiness::Starting(why) | Readiness::Broken(why) => {
            text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n"))
        }
        Readiness::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

fn config_dump(admin: &Admin, built: &Built, query: &str) -> Reply {
    let endpoints = || table::live_endpoints(&admin.snapshots.load().clusters);
    let secrets = built.validated.secrets();
    if let Some((_, name)) = question::pairs(query).find(|(key, _)| key == "table") {
        return match Table::ALL.into_iter().find(|table| table.name() == name) {
            Some(Table::Endpoints) => json(&endpoints()),
            Some(table) => json(&table.rows(&built.compiled, secrets)),
            None => text(StatusCode::BAD_REQUEST, "no such table\n"),
        };
    }
    let mut dump = table::dump(&built.compiled, secrets);
    dump.insert(Table::Endpoints.name().to_owned(), json!(endpoints()));
    dump.insert("generation".to_owned(), json!(built.generation));
    json(&dump)
}

/// Clusters with what only a running gateway knows: addresses that names resolved to, and load.
fn clusters(admin: &Admin, query: &str) -> Reply {
    let snapshot = admin.snapshots.load();
    let mut names: Vec<_> = snapshot.clusters.keys().collect();
    names.sort();
    let mut shown = Vec::new();
    for name in names {
        let Some(cluster) = snapshot.clusters.get(name) else { continue };
        let view = cluster.endpoints();
        let hosts: Vec<Value> = view
            .all
            .iter()
            .map(|state| {
                json!({
                    "address": state.endpoint.address.to_string(),
                    "health": format!("{:?}", state.endpoint.health).to_uppercase(),
                    "weight": state.endpoint.weight,
                    "rq_active": state.in_flight(),
                    "rq_total": state.attempts(),
                    "rq_error": state.failures(),
                    "ejected": state.record().is_ejected(),
                    "ejections": state.record().ejections(),
                })
            })
            .collect();
        shown.push(json!({"name": name.as_str(), "host_statuses": hosts}));
    }
    if wants_json(query) {
        return json(&json!({"cluster_statuses": shown}));
    }
    let mut lines = String::new();
    for cluster in &shown {
        let name = cluster.get("name").and_then(Value::as_str).unwrap_or_default();
        for host in cluster.get("host_statuses").and_then(Value::as_array).into_iter().flatten() {
            let address = host.get("address").and_then(Value::as_str).unwrap_or_default();
            for (key, value) in host.as_object().into_iter().flatten().filter(|(key, _)| *key != "address") {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_lowercase);
                lines.push_str(&format!("{name}::{address}::{key}::{value}\n"));
            }
        }
    }
    text(StatusCode::OK, &lines)
}

fn listeners(admin: &Admin, query: &str) -> Reply {
    let connections = admin.listeners.connections_by_listener();
    let bound = admin.listeners.bound();
    if !wants_json(query) {
        let lines: String = bound.iter().map(|(key, address)| format!("{key}::{address}\n")).collect();
        return text(StatusCode::OK, &lines);
    }
    let serving = bound.iter().map(|(key, address)| {
        json!({
            "name": key.to_string(),
            "local_address": address.to_string(),
            "connections": connections.get(key).copied().unwrap_or(0),
        })
    });
    let failed = admin.listeners.failures().into_iter().map(|failure| {
        json!({"name": failure.key.to_string(), "local_address": failure.address, "error": failure.reason})
    });
    json(&json!({"listener_statuses": serving.chain(failed).collect::<Vec<_>>()}))
}

fn certificates(admin: &Admin) -> Reply {
    let mut summaries = admin.snapshots.load().certificates.summaries();
    summaries.sort_by_key(|summary| format!("{:?}", summary.source));
    let shown: Vec<Value> = summaries
        .iter()
        .map(|summary| {
            json!({
                "source": table::certificate_name(&summary.source),
                "serial_number": summary.serial,
                "subject_alt_names": summary.names,
                "valid_from": summary.not_before,
                "expiration_time": summary.not_after,
                "chain_length": summary.chain_length,
            })
        })
        .collect();
    json(&json!({"certificates": shown}))
}

fn server_info(admin: &Admin) -> Reply {
    let built = admin.status.built();
    let state = match (admin.drain.state(), admin.readiness()) {
        (DrainState::Live, Readiness::Starting(_)) => "INITIALIZING",
        (DrainState::Live, _) => "LIVE",
        (DrainState::Draining | DrainState::Quitting, _) => "DRAINING",
    };
    let synchronized = admin.status.synchronization() == Synchronization::Current;
    json(&json!({
        "version": VERSION,
        "state": state,
        "uptime_current_epoch": format!("{}s", admin.started.elapsed().as_secs()),
        "uptime_all_epochs": format!("{}s", admin.started.elapsed().as_secs()),
        "config_generation": built.map(|built| built.generation),
        "config_synchronized": synchronized,
        "connections": admin.listeners.connections(),
    }))
}

fn wants_json(query: &str) -> bool {
    question::pairs(query).any(|(key, value)| key == "format" && value == "json")
}

/// Whether the request names us by address, or as localhost: what a rebound DNS name cannot do.
fn is_local_name<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let host = routing::host::without_port(host).trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

fn method_not_allowed(allowed: &'static str) -> Reply {
    let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, &format!("use {allowed}\n"));
    refusal.headers_mut().insert(header::ALLOW, http::HeaderValue::from_static(allowed));
    refusal
}

fn not_yet() -> Reply {
    text(StatusCode::SERVICE_UNAVAILABLE, "no configuration in force yet\n")
}

fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_vec_pretty(value) {
        Ok(body) => reply(StatusCode::OK, JSON, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: &str) -> Reply {
    reply(status, TEXT, body.to_owned())
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    reply
}
