//! What each admin endpoint answers.
//!
//! Invariant: no answer holds key material or the value of a Secret. GET changes nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use config_model::diagnostic::Diagnostics;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

use super::{
    Admin, Readiness, Surface,
    access::{self, Verdict},
    dashboard::PAGE,
    envoy::{self, Node},
    graph, history, live,
};
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
    // Whether traffic should come here is no secret, and probes have no token.
    let open = matches!(request.uri().path(), "/healthz/ready" | "/ready") && reading;
    if surface == Surface::Admin && !open {
        let origin = if posting { access::judge_origin(request) } else { Verdict::Allow };
        for verdict in [admin.access.judge(request), origin] {
            if let Verdict::Refuse(status, why) = verdict {
                return refuse(status, why);
            }
        }
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
        "/" => page(),
        "/events" => {
            let mut events = reply(StatusCode::OK, "text/event-stream", Bytes::new());
            events.extensions_mut().insert(live::Endless);
            events
        }
        "/graph" => match built {
            Some(built) => json(&graph::graph(&built, &admin.snapshots.load().clusters)),
            None => not_yet(),
        },
        "/generations" => {
            history::note(admin);
            json(&json!({"generations": admin.history.told()}))
        }
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
    let eds = question::pairs(query).any(|(key, _)| key == "include_eds");
    let snapshot = admin.snapshots.load();
    let endpoints = eds.then_some(&*snapshot.clusters);
    json(&json!({"configs": envoy::configs(&built.compiled, secrets, built.generation, endpoints)}))
}

/// Clusters with what only a running gateway knows: addresses that names resolved to, and load.
fn clusters(admin: &Admin, query: &str) -> Reply {
    let snapshot = admin.snapshots.load();
    if wants_json(query) {
        return json(&envoy::cluster_statuses(&snapshot.clusters));
    }
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by_key(|cluster| cluster.spec.name.as_str().to_owned());
    let mut lines = String::new();
    for cluster in clusters {
        for state in &cluster.endpoints().all {
            let at = format!("{}::{}", cluster.spec.name, state.endpoint.address);
            let health = format!("{:?}", state.endpoint.health).to_lowercase();
            let ejected = state.record().is_ejected();
            for (key, value) in [
                ("health_flags", if ejected { "/failed_outlier_check" } else { &*health }),
                ("weight", &*state.endpoint.weight.to_string()),
                ("rq_active", &*state.in_flight().to_string()),
                ("rq_total", &*state.attempts().to_string()),
                ("rq_error", &*state.failures().to_string()),
                ("ejections", &*state.record().ejections().to_string()),
            ] {
                lines.push_str(&format!("{at}::{key}::{value}\n"));
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
            "local_address": envoy::bound_address(address),
            "connections": connections.get(key).copied().unwrap_or(0),
        })
    });
    let failed = admin
        .listeners
        .failures()
        .into_iter()
        .map(|failure| json!({"name": failure.key.to_string(), "error": format!("{}: {}", failure.address, failure.reason)}));
    json(&json!({"listener_statuses": serving.chain(failed).collect::<Vec<_>>()}))
}

fn certificates(admin: &Admin) -> Reply {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    json(&envoy::certificates(admin.snapshots.load().certificates.summaries(), now))
}

/// Envoy's name of the state.
pub(super) fn state(admin: &Admin) -> &'static str {
    match (admin.drain.state(), admin.readiness()) {
        (DrainState::Live, Readiness::Starting(_)) => "INITIALIZING",
        (DrainState::Live, _) => "LIVE",
        (DrainState::Draining | DrainState::Quitting, _) => "DRAINING",
    }
}

fn page() -> Reply {
    let mut page = reply(StatusCode::OK, HTML, PAGE.body.clone());
    if let Ok(policy) = http::HeaderValue::from_str(&PAGE.policy) {
        page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    page.headers_mut().insert(header::REFERRER_POLICY, http::HeaderValue::from_static("no-referrer"));
    page
}

fn server_info(admin: &Admin) -> Reply {
    let built = admin.status.built();
    let synchronized = admin.status.synchronization() == Synchronization::Current;
    json(&json!({
        "version": VERSION,
        "state": state(admin),
        "hot_restart_version": "disabled",
        "node": built.as_ref().map(|built| Node::of(built.compiled.identity()).json()),
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

fn refuse(status: StatusCode, why: &'static str) -> Reply {
    let mut refusal = text(status, why);
    if status == StatusCode::UNAUTHORIZED {
        // The second is what a browser can ask its user for.
        for challenge in ["Bearer", "Basic realm=\"limen\""] {
            let challenge = http::HeaderValue::from_static(challenge);
            refusal.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
        }
    }
    refusal
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
