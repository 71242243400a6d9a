//! Conditions on requests that are over: which of them are logged.
//!
//! Invariant: what is not there makes a comparison neither true nor false, as in CEL, and a request whose condition is not true is
//! not logged. Nothing of a request can make an evaluation fail otherwise.

use super::access_log::Entry;
use config_model::cel::{Attribute, Comparison, Expr, Refused, Side, Test};
use http::{HeaderMap, HeaderName, header};
use routing::{cluster::Address, matcher::Pattern};
use std::{borrow::Cow, net::SocketAddr};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A condition that can be evaluated.
#[derive(Clone, Debug)]
pub struct Condition {
    expr: Expr,
    /// Its regular expressions, by their texts.
    patterns: Vec<(String, Pattern)>,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.expr == other.expr
    }
}

enum Value<'v> {
    Bool(bool),
    Number(i64),
    Text(Cow<'v, str>),
    /// Nanoseconds.
    Duration(i64),
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// Why it cannot be evaluated.
    pub fn read(text: &str) -> Result<Self, String> {
        Self::compile(Expr::condition(text))
    }

    /// Reads an expression of any type, for its text.
    ///
    /// # Errors
    /// Why it cannot be evaluated.
    pub fn value(text: &str) -> Result<Self, String> {
        Self::compile(Expr::value(text))
    }

    fn compile(read: Result<Expr, Refused>) -> Result<Self, String> {
        let expr = read.map_err(|refused| refused.to_string())?;
        let mut patterns = Vec::new();
        collect(&expr, &mut patterns)?;
        Ok(Self { expr, patterns })
    }

    /// The text that it is whatever the request; `None`: it depends on one.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match &self.expr {
            Expr::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is of a request, as Envoy prints it; `None`: something that it needs is not there.
    #[must_use]
    pub fn text(&self, entry: &Entry<'_>) -> Option<String> {
        Some(match self.eval(&self.expr, entry)? {
            Value::Text(text) => text.into_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Duration(nanos) => printed(nanos),
        })
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, entry: &Entry<'_>) -> bool {
        matches!(self.eval(&self.expr, entry), Some(Value::Bool(true)))
    }

    fn eval<'v>(&'v self, expr: &'v Expr, e: &'v Entry<'_>) -> Option<Value<'v>> {
        Some(match expr {
            Expr::Bool(value) => Value::Bool(*value),
            Expr::Number(number) => Value::Number(*number),
            Expr::Text(text) => Value::Text(text.into()),
            Expr::Duration(nanos) => Value::Duration(*nanos),
            Expr::Attribute(attribute) => self::attribute(*attribute, e)?,
            Expr::Header(side, name) => Value::Text(self::header(e, *side, name)?),
            Expr::Has(of) => Value::Bool(self.eval(of, e).is_some()),
            Expr::Not(of) => Value::Bool(!self.truth(of, e)?),
            // One side that decides does so whatever the other is (CEL: "commutative and short-circuiting").
            Expr::And(a, b) => match (self.truth(a, e), self.truth(b, e)) {
                (Some(false), _) | (_, Some(false)) => Value::Bool(false),
                (a, b) => Value::Bool(a? && b?),
            },
            Expr::Or(a, b) => match (self.truth(a, e), self.truth(b, e)) {
                (Some(true), _) | (_, Some(true)) => Value::Bool(true),
                (a, b) => Value::Bool(a? || b?),
            },
            Expr::Compare(comparison, a, b) => {
                Value::Bool(compare(*comparison, &self.eval(a, e)?, &self.eval(b, e)?))
            }
            Expr::OneOf(of, members) => {
                let value = self.eval(of, e)?;
                let is =
                    |member| self.eval(member, e).is_some_and(|m| compare(Comparison::Equal, &value, &m));
                Value::Bool(members.iter().any(is))
            }
            Expr::Test(test, of, with) => {
                let (Value::Text(text), Value::Text(wanted)) = (self.eval(of, e)?, self.eval(with, e)?)
                else {
                    return None;
                };
                Value::Bool(self.test(*test, &text, &wanted)?)
            }
            Expr::If(condition, then, other) => {
                self.eval(if self.truth(condition, e)? { then } else { other }, e)?
            }
            Expr::Concat(a, b) => match (self.eval(a, e)?, self.eval(b, e)?) {
                (Value::Text(a), Value::Text(b)) => Value::Text((a.into_owned() + &b).into()),
                _ => return None,
            },
            Expr::ToText(of) => Value::Text(match self.eval(of, e)? {
                Value::Text(text) => text,
                Value::Bool(value) => value.to_string().into(),
                Value::Number(number) => number.to_string().into(),
                // CEL: seconds, with as many digits as it takes.
                Value::Duration(nanos) => {
                    format!("{}s", std::time::Duration::from_nanos(nanos.unsigned_abs()).as_secs_f64()).into()
                }
            }),
        })
    }

    fn truth(&self, expr: &Expr, e: &Entry<'_>) -> Option<bool> {
        match self.eval(expr, e)? {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    fn test(&self, test: Test, text: &str, wanted: &str) -> Option<bool> {
        Some(match test {
            Test::Contains => text.contains(wanted),
            Test::StartsWith => text.starts_with(wanted),
            Test::EndsWith => text.ends_with(wanted),
            Test::Matches => {
                let (_, pattern) = self.patterns.iter().find(|(known, _)| known == wanted)?;
                pattern.is_match(text.as_bytes())
            }
        })
    }
}

/// Compiles the regular expressions. They are looked for anywhere in a text, where those of rules are for the whole of it.
fn collect(expr: &Expr, patterns: &mut Vec<(String, Pattern)>) -> Result<(), String> {
    match expr {
        Expr::Test(Test::Matches, of, with) => {
            if let Expr::Text(text) = &**with {
                let anywhere = format!("(?s:.*)(?:{text})(?s:.*)");
                patterns.push((text.clone(), Pattern::new(&anywhere).map_err(|error| error.to_string())?));
            }
            collect(of, patterns)
        }
        Expr::Has(a) | Expr::Not(a) | Expr::ToText(a) => collect(a, patterns),
        Expr::And(a, b)
        | Expr::Or(a, b)
        | Expr::Compare(_, a, b)
        | Expr::Test(_, a, b)
        | Expr::Concat(a, b) => {
            collect(a, patterns)?;
            collect(b, patterns)
        }
        Expr::OneOf(a, members) => {
            collect(a, patterns)?;
            members.iter().try_for_each(|member| collect(member, patterns))
        }
        Expr::If(a, b, c) => [a, b, c].into_iter().try_for_each(|part| collect(part, patterns)),
        Expr::Bool(_)
        | Expr::Number(_)
        | Expr::Text(_)
        | Expr::Duration(_)
        | Expr::Attribute(_)
        | Expr::Header(..) => Ok(()),
    }
}

/// A duration as Envoy prints it (absl: FormatDuration): below a second in the largest unit that has a whole part.
fn printed(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let decimal = |unit: u64, name: &str| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", nanos / unit, nanos % unit);
        format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    let text = match nanos {
        0 => return "0".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(1_000, "us"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let seconds = nanos / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = std::time::Duration::from_nanos(nanos % 60_000_000_000);
            let mut text = String::new();
            if hours > 0 {
                text += &format!("{hours}h");
            }
            if minutes > 0 {
                text += &format!("{minutes}m");
            }
            if !rest.is_zero() {
                text += &format!("{}s", rest.as_secs_f64());
            }
            text
        }
    };
    format!("{sign}{text}")
}

fn compare(comparison: Comparison, a: &Value<'_>, b: &Value<'_>) -> bool {
    let order = match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) | (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        // Types were compared when it was read.
        _ => return false,
    };
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

fn header<'v>(e: &'v Entry<'_>, side: Side, name: &HeaderName) -> Option<Cow<'v, str>> {
    let map: &HeaderMap = match side {
        Side::Request => e.request,
        Side::Response => e.response?,
    };
    map.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
}

fn attribute<'v>(attribute: Attribute, e: &'v Entry<'_>) -> Option<Value<'v>> {
    let text = |text: &'v str| (!text.is_empty()).then_some(Value::Text(text.into()));
    let of_request = |name: &HeaderName| self::header(e, Side::Request, name).map(Value::Text);
    let whole = |address: Option<SocketAddr>| Some(Value::Text(address?.to_string().into()));
    let port = |address: Option<SocketAddr>| Some(Value::Number(address?.port().into()));
    let count = |n: u64| Some(Value::Number(i64::try_from(n).unwrap_or(i64::MAX)));
    let upstream = match e.upstream_host {
        Some(Address::Ip(address)) => Some(*address),
        _ => None,
    };
    match attribute {
        Attribute::RequestPath => text(e.path),
        Attribute::RequestUrlPath => text(e.path.split('?').next().unwrap_or_default()),
        Attribute::RequestQuery => e.path.split_once('?').map(|(_, query)| Value::Text(query.into())),
        Attribute::RequestHost => text(e.authority),
        Attribute::RequestScheme => text(e.more.scheme),
        Attribute::RequestMethod => text(e.method),
        Attribute::RequestReferer => of_request(&header::REFERER),
        Attribute::RequestUserAgent => of_request(&header::USER_AGENT),
        Attribute::RequestId => of_request(&REQUEST_ID),
        Attribute::RequestProtocol => text(e.protocol),
        Attribute::RequestDuration => {
            Some(Value::Duration(i64::try_from(e.duration.as_nanos()).unwrap_or(i64::MAX)))
        }
        Attribute::RequestSize => count(e.bytes_received),
        Attribute::ResponseCode => count(e.response_code.into()),
        Attribute::ResponseCodeDetails => text(e.details),
        Attribute::ResponseSize => count(e.bytes_sent),
        Attribute::ResponseGrpcStatus => Some(Value::Number(e.more.grpc_status?.into())),
        Attribute::ResponseDuration => count(u64::try_from(e.duration.as_millis()).unwrap_or(u64::MAX)),
        Attribute::ConnectionMtls => Some(Value::Bool(e.more.mtls)),
        Attribute::ConnectionServerName => text(e.server_name),
        Attribute::SourceAddress => whole(e.downstream_remote),
        Attribute::SourcePort => port(e.downstream_remote),
        Attribute::DestinationAddress => whole(e.downstream_local),
        Attribute::DestinationPort => port(e.downstream_local),
        Attribute::UpstreamAddress => Some(Value::Text(e.upstream_host?.to_string().into())),
        Attribute::UpstreamPort => port(upstream),
        Attribute::UpstreamFailure => text(e.transport_failure),
        Attribute::ClusterName => text(e.upstream_cluster),
        Attribute::RouteName => text(e.route_name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn conditions_hold_of_the_requests_that_they_are_about() {
        let request: HeaderMap = [(header::USER_AGENT, "probe/1"), (HeaderName::from_static("x-a"), "1")]
            .into_iter()
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect();
        let entry = Entry {
            method: "GET",
            path: "/shop/cart?id=1",
            authority: "a.example",
            response_code: 404,
            duration: Duration::from_millis(150),
            upstream_cluster: "BlackHoleCluster",
            downstream_local: Some(([10, 0, 0, 1], 8443).into()),
            ..Entry::empty(&request)
        };
        for (text, want) in [
            ("response.code >= 400", true),
            ("response.code >= 500", false),
            ("response.code in [404, 503] && request.method == 'GET'", true),
            ("response.duration > 100", true),
            ("request.duration > duration('200ms')", false),
            ("has(request.headers.referer)", false),
            ("'x-a' in request.headers", true),
            ("request.headers['x-a'] == '1'", true),
            ("!has(request.useragent) || !request.useragent.startsWith('probe')", false),
            ("request.url_path.matches('^/shop/[a-z]+$')", true),
            ("request.path.matches('id=')", true),
            ("request.path.endsWith('id=2') || xds.cluster_name == 'BlackHoleCluster'", true),
            ("connection.mtls", false),
            ("destination.port == 8443", true),
            ("response.code == 404 ? request.query == 'id=1' : false", true),
            ("string(response.code) + 'x' == '404x'", true),
            // What is not there decides nothing, unless the other side does.
            ("upstream.port == 80", false),
            ("!(upstream.port == 80)", false),
            ("upstream.port == 80 || response.code == 404", true),
            ("upstream.port == 80 && response.code == 200 || true", true),
        ] {
            assert_eq!(Condition::read(text).unwrap().holds(&entry), want, "{text}");
        }
        assert!(Condition::read("metadata.a == 1").is_err());
        for (text, want) in [
            ("request.method", Some("GET")),
            ("request.headers['x-a'] + '-' + string(response.code)", Some("1-404")),
            ("response.code", Some("404")),
            ("connection.mtls", Some("false")),
            ("request.duration", Some("150ms")),
            ("request.referer", None),
        ] {
            assert_eq!(Condition::value(text).unwrap().text(&entry).as_deref(), want, "{text}");
        }
        assert_eq!(Condition::value("'a'").unwrap().fixed(), Some("a"));
        assert!(Condition::value("request.method").unwrap().fixed().is_none());
        assert!(Condition::value("node.metadata['a']").is_err());
    }

    #[test]
    fn durations_are_printed_as_envoy_does() {
        for (nanos, want) in [
            (0, "0"),
            (7, "7ns"),
            (1_500, "1.5us"),
            (12_500_000, "12.5ms"),
            (1_250_000_000, "1.25s"),
            (3_723_000_000_000, "1h2m3s"),
            (3_600_000_000_000, "1h"),
            (-2_000_000, "-2ms"),
        ] {
            assert_eq!(printed(nanos), want);
        }
    }
}
