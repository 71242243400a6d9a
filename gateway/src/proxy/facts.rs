//! What the operators in header values stand for, for one request.
//!
//! Invariant: what is not known yet is nothing, never a guess: a request on its way up has no endpoint and no response
//! code. Nothing here is computed for rules whose values are all literal.

use super::{ctx::Ctx, edge};
use crate::telemetry::access_log::time;
use http::{HeaderMap, Version};
use routing::action::headers::format::{Fact, Facts, Field};
use std::{fs, io::Write, net::SocketAddr, sync::OnceLock, time::Instant};

/// How far an exchange has come.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// The request is on its way up.
    Request,
    /// The upstream answered with this status.
    Response(u16),
    /// The gateway answers itself; Envoy knows no status of such a reply yet.
    Local,
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
        // Writing to memory cannot fail.
        let _ = match part {
            Part::Whole => write!(out, "{address}"),
            Part::Ip => write!(out, "{}", address.ip()),
            Part::Port => write!(out, "{}", address.port()),
        };
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
        let (peer, local) = (connection.map(|c| c.peer), connection.map(|c| c.local));
        // Whom trusted proxies name has no port that we know (Envoy: 0).
        let named = ctx.forwarded.and_then(|forwarded| forwarded.client);
        let client = named.map(|ip| SocketAddr::new(ip, 0)).or(peer);
        // Writing to memory cannot fail.
        let _ = match fact {
            Fact::StartTime(pattern) => {
                let mut text = String::new();
                match pattern {
                    Some(pattern) => time::strftime(ctx.start_time, pattern, &mut text),
                    None => text.push_str(time::iso8601(ctx.start_time).as_str()),
                }
                out.write_all(text.as_bytes())
            }
            Fact::Protocol => out.write_all(match ctx.version {
                Version::HTTP_2 => b"HTTP/2",
                Version::HTTP_10 => b"HTTP/1.0",
                _ => b"HTTP/1.1",
            }),
            Fact::ResponseCode => match self.stage {
                Stage::Response(status) => write!(out, "{status}"),
                Stage::Request | Stage::Local => out.write_all(b"0"),
            },
            Fact::ResponseCodeDetails if !matches!(self.stage, Stage::Request) => {
                out.write_all(ctx.details.as_bytes())
            }
            Fact::ResponseFlags if ctx.flags.is_empty() => out.write_all(b"-"),
            Fact::ResponseFlags => write!(out, "{}", ctx.flags),
            Fact::RouteName => {
                let name = ctx.route.as_deref().and_then(|route| route.origin.name.as_deref());
                out.write_all(name.unwrap_or_default().as_bytes())
            }
            Fact::RequestedServerName => {
                out.write_all(connection.and_then(|c| c.sni.as_deref()).unwrap_or_default().as_bytes())
            }
            Fact::Hostname => out.write_all(hostname().as_bytes()),
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
            Fact::UpstreamHost if answered => match &ctx.upstream_host {
                Some(host) => write!(out, "{host}"),
                None => Ok(()),
            },
            Fact::UpstreamLocalAddress if answered => {
                return self.address(ctx.upstream_local, Part::Whole, out);
            }
            Fact::ResponseCodeDetails | Fact::UpstreamHost | Fact::UpstreamLocalAddress => Ok(()),
            Fact::UpstreamCluster => {
                out.write_all(ctx.cluster.as_deref().map_or("", |c| c.spec.name.as_str()).as_bytes())
            }
            Fact::UpstreamRequestAttemptCount => write!(out, "{}", ctx.attempt),
            Fact::Duration => write!(out, "{}", Instant::now().duration_since(ctx.started).as_millis()),
        };
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
