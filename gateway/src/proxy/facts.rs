//! What the operators in header values stand for, for one request.
//!
//! Invariant: what is not known yet is nothing, never a guess: a request on its way up has no endpoint and no response
//! code. Nothing here is computed for rules whose values are all literal.

use super::{ctx::Ctx, edge};
use crate::{
    telemetry::{
        Flag,
        access_log::{number, socket, time},
    },
    tls::ClientCertificate,
};
use config_model::istio::virtual_service::GRPC_STATUS_NAMES;
use http::{HeaderMap, Version};
use routing::{
    action::headers::format::{Fact, Facts, Field, GrpcForm},
    cluster::Address,
};
use std::{
    fs,
    io::Write,
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
    time::SystemTime,
};

/// How far an exchange has come.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// The request is on its way up.
    Request,
    /// The upstream answered with this status.
    Response(u16),
    /// The gateway answers itself, with this status.
    Local(u16),
}

/// A request as a rule left it: what a response's values may read of it.
#[derive(Clone)]
pub(super) struct SentRequest {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) authority: String,
    pub(super) headers: HeaderMap,
}

/// One exchange.
pub(super) struct Exchange<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) stage: Stage,
    pub(super) scheme: &'static str,
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) path: &'a str,
    pub(super) authority: &'a str,
    /// Of the request, for a response.
    pub(super) headers: Option<&'a HeaderMap>,
}

impl<'a> Exchange<'a> {
    /// An exchange whose response is being made; the request is known if the rule's values read it.
    pub(super) fn responding(ctx: &'a Ctx, stage: Stage) -> Self {
        let sent = ctx.sent.as_deref();
        Self {
            ctx,
            stage,
            scheme: edge::scheme(ctx).as_str(),
            method: sent.map_or("", |sent| &sent.method),
            path: sent.map_or("", |sent| &sent.path),
            authority: sent.map_or("", |sent| &sent.authority),
            headers: sent.map(|sent| &sent.headers),
        }
    }

    fn address(&self, address: Option<SocketAddr>, part: Part, out: &mut Vec<u8>) {
        let Some(address) = address else { return };
        match (part, address.ip()) {
            (Part::Whole, _) => socket(address, out),
            (Part::Ip, IpAddr::V4(_)) => {
                socket(SocketAddr::new(address.ip(), 0), out);
                out.truncate(out.len() - ":0".len());
            }
            // Writing to memory cannot fail.
            (Part::Ip, ip) => drop(write!(out, "{ip}")),
            (Part::Port, _) => number(address.port().into(), out),
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Whole,
    Ip,
    Port,
}

impl Facts for Exchange<'_> {
    fn request(&self, field: &Field) -> Option<&[u8]> {
        let text = match field {
            Field::Method => self.method,
            Field::Scheme => self.scheme,
            Field::Authority => self.authority,
            Field::Path => self.path,
            Field::Header(name) => return self.headers?.get(name).map(http::HeaderValue::as_bytes),
        };
        Some(text.as_bytes())
    }

    fn fact(&self, fact: &Fact, out: &mut Vec<u8>) {
        let ctx = self.ctx;
        let connection = ctx.connection.as_deref();
        let shown = connection.and_then(|c| c.client.as_ref());
        let answered = matches!(self.stage, Stage::Response(_));
        // Envoy knows the endpoint of a request that it gives up, too.
        let tried = !matches!(self.stage, Stage::Request);
        let (peer, local) = (connection.map(|c| c.peer), connection.map(|c| c.local));
        // Whom trusted proxies name has no port that we know (Envoy: 0).
        let named = ctx.forwarded.and_then(|forwarded| forwarded.client);
        let client = named.map(|ip| SocketAddr::new(ip, 0)).or(peer);
        let remote = match &ctx.upstream_host {
            Some(Address::Ip(address)) => Some(*address),
            _ => None,
        };
        // Writing to memory cannot fail.
        let _ = match fact {
            Fact::StartTime(pattern) => return moment(ctx.start_time, pattern.as_deref(), out),
            Fact::EmitTime(pattern) => return moment(SystemTime::now(), pattern.as_deref(), out),
            Fact::Protocol => out.write_all(protocol(ctx.version).as_bytes()),
            Fact::UpstreamProtocol if answered => {
                out.write_all(ctx.upstream_version.map_or("", protocol).as_bytes())
            }
            Fact::ResponseCode => match self.stage {
                Stage::Response(status) => return number(status.into(), out),
                Stage::Request | Stage::Local(_) => out.write_all(b"0"),
            },
            Fact::Status => match self.stage {
                Stage::Response(status) | Stage::Local(status) => return number(status.into(), out),
                Stage::Request => Ok(()),
            },
            Fact::GrpcStatus(form) if ctx.grpc && tried => {
                out.write_all(grpc_status(ctx.grpc_status, *form).as_bytes())
            }
            Fact::BytesReceived => return number(ctx.received, out),
            Fact::ResponseCodeDetails if !matches!(self.stage, Stage::Request) => {
                out.write_all(ctx.details.as_bytes())
            }
            Fact::ResponseFlags | Fact::ResponseFlagsLong if ctx.flags.is_empty() => out.write_all(b"-"),
            Fact::ResponseFlagsLong => {
                out.write_all(ctx.flags.iter().map(Flag::long).collect::<Vec<_>>().join(",").as_bytes())
            }
            Fact::ResponseFlags => write!(out, "{}", ctx.flags),
            Fact::RouteName => {
                let name = ctx.route.as_deref().and_then(|route| route.origin.name.as_deref());
                out.write_all(name.unwrap_or_default().as_bytes())
            }
            Fact::RequestedServerName => {
                out.write_all(connection.and_then(|c| c.sni.as_deref()).unwrap_or_default().as_bytes())
            }
            Fact::Hostname => out.write_all(hostname().as_bytes()),
            Fact::UniqueId => out.write_all(edge::request_id().as_bytes()),
            Fact::DownstreamTlsVersion => {
                out.write_all(ctx.tls.as_deref().map_or("", |tls| &tls.version).as_bytes())
            }
            Fact::DownstreamTlsCipher => {
                out.write_all(ctx.tls.as_deref().map_or("", |tls| &tls.cipher).as_bytes())
            }
            Fact::DownstreamPeerIssuer => out.write_all(shown.map_or("", |client| &client.issuer).as_bytes()),
            Fact::DownstreamPeerSerial => out.write_all(shown.map_or("", |client| &client.serial).as_bytes()),
            Fact::DownstreamPeerFingerprint256 => out.write_all(part_of(shown, "Hash=", ';').as_bytes()),
            Fact::DownstreamPeerCert => out.write_all(part_of(shown, "Cert=\"", '"').as_bytes()),
            Fact::DownstreamRemoteAddress => return self.address(client, Part::Whole, out),
            Fact::DownstreamRemoteAddressWithoutPort => return self.address(client, Part::Ip, out),
            Fact::DownstreamRemotePort => return self.address(client, Part::Port, out),
            Fact::DownstreamDirectRemoteAddress => return self.address(peer, Part::Whole, out),
            Fact::DownstreamDirectRemoteAddressWithoutPort => return self.address(peer, Part::Ip, out),
            Fact::DownstreamDirectRemotePort => return self.address(peer, Part::Port, out),
            Fact::DownstreamLocalAddress => return self.address(local, Part::Whole, out),
            Fact::DownstreamLocalAddressWithoutPort => return self.address(local, Part::Ip, out),
            Fact::DownstreamLocalPort => return self.address(local, Part::Port, out),
            Fact::DownstreamPeerSubject => {
                out.write_all(shown.map_or("", |client| &client.subject).as_bytes())
            }
            Fact::DownstreamPeerUriSan => {
                out.write_all(shown.map_or_else(String::new, |client| client.uris.join(",")).as_bytes())
            }
            Fact::DownstreamPeerDnsSan => {
                out.write_all(shown.map_or_else(String::new, |client| client.dns.join(",")).as_bytes())
            }
            Fact::UpstreamHost if tried => match &ctx.upstream_host {
                Some(host) => write!(out, "{host}"),
                None => Ok(()),
            },
            Fact::UpstreamHostWithoutPort if tried => return self.address(remote, Part::Ip, out),
            Fact::UpstreamPort if tried => return self.address(remote, Part::Port, out),
            Fact::UpstreamLocalAddress if answered => {
                return self.address(ctx.upstream_local, Part::Whole, out);
            }
            Fact::UpstreamLocalAddressWithoutPort if answered => {
                return self.address(ctx.upstream_local, Part::Ip, out);
            }
            Fact::UpstreamLocalPort if answered => return self.address(ctx.upstream_local, Part::Port, out),
            Fact::UpstreamTransportFailureReason => {
                out.write_all(ctx.transport_failure.as_deref().unwrap_or_default().as_bytes())
            }
            Fact::UpstreamHostsAttempted if tried => listed(&ctx.tried, out, ToString::to_string),
            Fact::UpstreamHostsAttemptedWithoutPort if tried => listed(&ctx.tried, out, |host| match host {
                Address::Ip(address) => address.ip().to_string(),
                other => other.to_string(),
            }),
            Fact::UpstreamTlsVersion if answered => {
                out.write_all(ctx.upstream_tls.as_deref().map_or("", |tls| &tls.version).as_bytes())
            }
            Fact::UpstreamTlsCipher if answered => {
                out.write_all(ctx.upstream_tls.as_deref().map_or("", |tls| &tls.cipher).as_bytes())
            }
            Fact::ResponseCodeDetails
            | Fact::UpstreamProtocol
            | Fact::GrpcStatus(_)
            | Fact::UpstreamHost
            | Fact::UpstreamHostWithoutPort
            | Fact::UpstreamPort
            | Fact::UpstreamLocalAddress
            | Fact::UpstreamLocalAddressWithoutPort
            | Fact::UpstreamLocalPort
            | Fact::UpstreamHostsAttempted
            | Fact::UpstreamHostsAttemptedWithoutPort
            | Fact::UpstreamTlsVersion
            | Fact::UpstreamTlsCipher => Ok(()),
            Fact::ResponseDuration if !answered => Ok(()),
            Fact::UpstreamCluster => {
                out.write_all(ctx.cluster.as_deref().map_or("", |c| c.spec.name.as_str()).as_bytes())
            }
            Fact::ConnectionId => return number(connection.map_or(0, |connection| connection.id), out),
            Fact::UpstreamRequestAttemptCount => return number(ctx.attempt.into(), out),
            Fact::Duration | Fact::ResponseDuration => {
                let millis = u64::try_from(ctx.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                return number(millis, out);
            }
        };
    }
}

fn listed(hosts: &[Address], out: &mut Vec<u8>, shown: impl Fn(&Address) -> String) -> std::io::Result<()> {
    out.write_all(hosts.iter().map(shown).collect::<Vec<_>>().join(",").as_bytes())
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn moment(at: SystemTime, pattern: Option<&str>, out: &mut Vec<u8>) {
    let mut text = String::new();
    match pattern {
        Some(pattern) => time::strftime(at, pattern, &mut text),
        None => text.push_str(time::iso8601(at).as_str()),
    }
    out.extend_from_slice(text.as_bytes());
}

/// What stands between `begin` and `end` in what upstreams are told of a client's certificate.
fn part_of<'c>(client: Option<&'c ClientCertificate>, begin: &str, end: char) -> &'c str {
    let said = client.and_then(|client| client.forwarded.to_str().ok()).unwrap_or_default();
    let rest = said.split_once(begin).map_or("", |(_, rest)| rest);
    rest.split_once(end).map_or(rest, |(part, _)| part)
}

/// A gRPC status by name, where it has one.
fn grpc_status(status: Option<u8>, form: GrpcForm) -> String {
    let Some(status) = status else { return String::new() };
    let name = GRPC_STATUS_NAMES.get(usize::from(status));
    match (form, name) {
        (GrpcForm::Number, _) | (_, None) => status.to_string(),
        (GrpcForm::Camel, Some(&"OK")) => "OK".to_owned(),
        (GrpcForm::Snake, Some(name)) => (*name).to_owned(),
        (GrpcForm::Camel, Some(name)) => name
            .split('_')
            .map(|word| {
                let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
                first.to_owned() + &rest.to_ascii_lowercase()
            })
            .collect(),
    }
}

/// The name of this machine or pod.
fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let of_kernel = || fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        std::env::var("HOSTNAME").unwrap_or_else(|_| of_kernel()).trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_statuses_have_envoys_names() {
        for (status, form, want) in [
            (None, GrpcForm::Camel, ""),
            (Some(0), GrpcForm::Camel, "OK"),
            (Some(4), GrpcForm::Camel, "DeadlineExceeded"),
            (Some(4), GrpcForm::Snake, "DEADLINE_EXCEEDED"),
            (Some(14), GrpcForm::Number, "14"),
            (Some(99), GrpcForm::Camel, "99"),
        ] {
            assert_eq!(grpc_status(status, form), want);
        }
    }
}
