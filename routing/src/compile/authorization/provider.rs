//! Extension providers that can be asked (Istio: builder/extauthz.go, validation/agent/extensionprovider.go).

use super::super::registry::Registry;
use crate::{
    authz::provider::{HttpCheck, Names, Protocol, Provider},
    cluster::ClusterName,
};
use config_model::{
    mesh::{ExtAuthzBody, ExtAuthzHttp, MeshConfig},
    scalar::Duration,
};
use http::{HeaderName, HeaderValue};
use std::time;

/// Time for an answer, where none is given.
const TIMEOUT: time::Duration = time::Duration::from_secs(600);
/// What a request without an answer is answered with.
const FORBIDDEN: u16 = 403;
/// The statuses that Envoy can be told to answer with.
const STATUSES: &[u16] = &[
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307,
    308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422,
    423, 424, 426, 428, 429, 431, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

/// The providers of the mesh configuration.
pub(super) struct Providers<'a> {
    pub(super) mesh: &'a MeshConfig,
    pub(super) registry: &'a Registry,
}

impl Providers<'_> {
    /// The provider of that name, or why it cannot be asked.
    pub(super) fn find(&self, name: &str) -> Result<Provider, String> {
        let mut named = self.mesh.extension_providers.iter().filter(|provider| provider.name == name);
        let provider = named.next().ok_or("there is none of that name in the mesh configuration")?;
        if named.next().is_some() {
            return Err("there are several of that name".to_owned());
        }
        valid_name(name)?;
        if let Some(http) = &provider.envoy_ext_authz_http {
            no_body(http.include_request_body_in_check.as_ref())?;
            let (cluster, host) = self.locate(&http.service, http.port)?;
            return Ok(Provider {
                name: name.into(),
                cluster,
                host: host.into(),
                timeout: timeout(http.timeout),
                fail_open: http.fail_open,
                status_on_error: status(&http.status_on_error)?,
                protocol: Protocol::Http(Box::new(check(http)?)),
            });
        }
        let grpc = provider.envoy_ext_authz_grpc.as_ref();
        let grpc = grpc.ok_or("it is no provider of authorization (envoyExtAuthzHttp, envoyExtAuthzGrpc)")?;
        no_body(grpc.include_request_body_in_check.as_ref())?;
        let (cluster, host) = self.locate(&grpc.service, grpc.port)?;
        Ok(Provider {
            name: name.into(),
            cluster,
            host: host.into(),
            timeout: timeout(grpc.timeout),
            fail_open: grpc.fail_open,
            status_on_error: status(&grpc.status_on_error)?,
            protocol: Protocol::Grpc,
        })
    }

    fn locate(&self, service: &str, port: u32) -> Result<(ClusterName, String), String> {
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        let port = port.ok_or("port must be in the range 1..65535")?;
        let (namespace, host) = match service.split_once('/') {
            Some((namespace, host)) => (Some(namespace), host),
            None => (None, service),
        };
        if host.is_empty() {
            return Err("service must not be empty".to_owned());
        }
        let mut found: Vec<&str> = self.registry.namespaces_of(host).collect();
        found.retain(|known| namespace.is_none_or(|namespace| namespace == *known));
        found.dedup();
        match found.as_slice() {
            [_] => {}
            [] => return Err(format!("there is no service {service}")),
            several => {
                let several = several.join(", ");
                return Err(format!("{host} is in several namespaces ({several}): write NAMESPACE/HOST"));
            }
        }
        Ok((ClusterName::outbound(port, "", host), host.to_owned()))
    }
}

/// A label of DNS in lower case: names of rules are made of it.
fn valid_name(name: &str) -> Result<(), String> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if plain && name.len() <= 63 && !name.starts_with('-') && !name.ends_with('-') {
        Ok(())
    } else {
        Err("its name is no label of lower-case letters, digits and inner hyphens".to_owned())
    }
}

fn timeout(given: Option<Duration>) -> time::Duration {
    given.map_or(TIMEOUT, Duration::as_std)
}

fn status(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        _ if text.is_empty() => Ok(FORBIDDEN),
        Ok(status) if STATUSES.contains(&status) => Ok(status),
        _ => Err(format!("unsupported statusOnError {text:?}")),
    }
}

/// Nothing buffers a body before its request is routed; asking without it would let in what its body gives away.
fn no_body(body: Option<&ExtAuthzBody>) -> Result<(), String> {
    match body {
        None => Ok(()),
        Some(_) => Err("includeRequestBodyInCheck is not yet honoured".to_owned()),
    }
}

fn check(http: &ExtAuthzHttp) -> Result<HttpCheck, String> {
    if !http.path_prefix.is_empty() && !http.path_prefix.starts_with('/') {
        return Err(format!("pathPrefix must begin with `/`, found {:?}", http.path_prefix));
    }
    let sees = match http.include_request_headers_in_check.is_empty() {
        true => &http.include_headers_in_check,
        false => &http.include_request_headers_in_check,
    };
    for list in [
        sees,
        &http.headers_to_upstream_on_allow,
        &http.headers_to_downstream_on_deny,
        &http.headers_to_downstream_on_allow,
    ] {
        if list.iter().any(|name| name == "*") {
            return Err("a single wildcard (\"*\") is not supported: use a prefix or a suffix".to_owned());
        }
    }
    let mut adds = Vec::new();
    for (name, value) in &http.include_additional_headers_in_check {
        let header = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
        adds.push(header.ok_or_else(|| format!("{name:?} with its value is no header"))?);
    }
    Ok(HttpCheck {
        path_prefix: http.path_prefix.as_str().into(),
        sees: Names::new(sees),
        adds: adds.into(),
        to_upstream: Names::new(&http.headers_to_upstream_on_allow),
        to_client_on_deny: Names::new(&http.headers_to_downstream_on_deny),
        to_client_on_allow: Names::new(&http.headers_to_downstream_on_allow),
    })
}
