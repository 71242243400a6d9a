//! What an upstream gets of a request, and a client of a response, against a plain model of what the rules say.

use super::*;

const NAMES: [&str; 4] = ["x-a", "x-b", "x-c", "x-d"];

/// Header operations as a rule writes them.
#[derive(Default)]
struct Ops {
    remove: Vec<&'static str>,
    set: BTreeMap<&'static str, String>,
    add: BTreeMap<&'static str, String>,
}

impl Ops {
    fn random(random: &mut fastrand::Rng, tag: &str) -> Self {
        let mut ops = Self::default();
        for name in NAMES {
            if random.u8(..4) == 0 {
                ops.remove.push(name);
            }
            if random.u8(..3) == 0 {
                ops.set.insert(name, format!("set-{tag}"));
            }
            if random.u8(..3) == 0 {
                ops.add.insert(name, format!("add-{tag}"));
            }
        }
        ops
    }

    fn yaml(&self) -> String {
        let pairs = |map: &BTreeMap<&str, String>| {
            map.iter().map(|(k, v)| format!("{k}: {v}")).collect::<Vec<_>>().join(", ")
        };
        format!(
            "{{remove: [{}], set: {{{}}}, add: {{{}}}}}",
            self.remove.join(", "),
            pairs(&self.set),
            pairs(&self.add)
        )
    }

    /// The model: remove, then set, then add, each name's values in order.
    fn apply(&self, headers: &mut Vec<(String, String)>) {
        headers.retain(|(name, _)| !self.remove.contains(&&**name));
        for (name, value) in &self.set {
            headers.retain(|(other, _)| other != name);
            headers.push(((*name).to_owned(), value.clone()));
        }
        headers.extend(self.add.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    }
}

/// The headers of `text` that the operations are about, sorted by name.
fn of_interest(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_end().to_owned()))
        .filter(|(name, _)| NAMES.contains(&&**name))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Rule number `n`: operations on both ways, and a rewrite.
struct Case {
    request: Ops,
    response: Ops,
    rewrite: Option<&'static str>,
}

fn cases(random: &mut fastrand::Rng) -> Vec<Case> {
    let rewrites = [None, Some("/"), Some("/new"), Some("/new/")];
    (0..40)
        .map(|n| Case {
            request: Ops::random(random, &format!("q{n}")),
            response: Ops::random(random, &format!("r{n}")),
            rewrite: rewrites[n % rewrites.len()],
        })
        .collect()
}

/// Headers of a client: up to two of each name, and as they are written.
fn of_client(random: &mut fastrand::Rng) -> (Vec<(String, String)>, String) {
    let mut sent: Vec<(String, String)> = Vec::new();
    for name in NAMES {
        for i in 0..random.u8(..3) {
            sent.push((name.to_owned(), format!("client{i}")));
        }
    }
    let lines = sent.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    (sent, lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_and_rewrites_are_the_models() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let cases = cases(&mut random);
    let mut rules = String::new();
    for (n, case) in cases.iter().enumerate() {
        let rewrite = case.rewrite.map_or_else(String::new, |uri| format!("    rewrite: {{uri: {uri}}}\n"));
        rules.push_str(&format!(
            "  - match: [{{uri: {{prefix: /c{n}/}}}}]\n{rewrite}    headers: {{request: {}, response: {}}}
    route: [{{destination: {{host: up.example, port: {{number: 80}}}}}}]\n",
            case.request.yaml(),
            case.response.yaml()
        ));
    }
    const UP: Act =
        Act::Say("HTTP/1.1 200 OK\r\nx-a: up1\r\nx-a: up2\r\nx-b: up3\r\nContent-Length: 0\r\n\r\n");
    let up = plays(&[UP]).await;
    let gateway = gateway(&config(&rules, &[up.address], "HTTP")).await;
    for (n, case) in cases.iter().enumerate() {
        let (mut sent, lines) = of_client(&mut random);
        let path = ["", "x", "x/y?q=1", "%20?", "a//b"][random.usize(..5)];
        let ask = format!("GET /c{n}/{path} HTTP/1.1\r\nHost: a.example\r\n{lines}Connection: close\r\n\r\n");
        let (status, head, _) = gateway.send(&ask).await;
        assert_eq!(status, 200, "seed {seed}: {ask}");

        let got = up.got().pop().unwrap();
        case.request.apply(&mut sent);
        sent.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(of_interest(&got), sent, "seed {seed}, request of case {n}");
        let target = case.rewrite.map_or_else(|| format!("/c{n}/{path}"), |uri| format!("{uri}{path}"));
        assert_eq!(got.split(' ').nth(1), Some(&*target), "seed {seed}, case {n}");

        let mut back = [("x-a", "up1"), ("x-a", "up2"), ("x-b", "up3")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .to_vec();
        case.response.apply(&mut back);
        back.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(of_interest(&head), back, "seed {seed}, response of case {n}");
    }
}

/// A rule with two destinations, each with operations of its own, and who gives the authority.
struct Several {
    rule: Ops,
    own: [Ops; 2],
    of_rewrite: Option<&'static str>,
    of_rule: Option<&'static str>,
    of_destination: Option<&'static str>,
}

#[tokio::test(flavor = "multi_thread")]
async fn several_destinations_do_theirs_before_the_rule_does() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let cases: Vec<Several> = (0..24_usize)
        .map(|n| Several {
            rule: Ops::random(&mut random, &format!("r{n}")),
            own: [0, 1].map(|d| Ops::random(&mut random, &format!("d{n}-{d}"))),
            // A rule that gives two authorities is refused.
            of_rewrite: (n % 3 == 1).then_some("rewrite.example"),
            of_rule: (n % 3 == 2).then_some("rule.example"),
            of_destination: (n / 3 % 2 == 1).then_some("dest.example"),
        })
        .collect();
    let mut rules = String::new();
    for (n, case) in cases.iter().enumerate() {
        let rewrite =
            case.of_rewrite.map_or_else(String::new, |name| format!("    rewrite: {{authority: {name}}}\n"));
        let set = |ops: &Ops, more: &[(&'static str, &str)]| {
            let mut ops = Ops { remove: ops.remove.clone(), set: ops.set.clone(), add: ops.add.clone() };
            ops.set.extend(more.iter().map(|(name, value)| (*name, format!("'{value}'"))));
            ops.yaml()
        };
        let of_rule: Vec<_> = case.of_rule.iter().map(|name| ("host", *name)).collect();
        rules.push_str(&format!(
            "  - match: [{{uri: {{prefix: /c{n}/}}}}]\n{rewrite}    headers: {{request: {}}}\n    route:\n",
            set(&case.rule, &of_rule)
        ));
        for (own, tag) in case.own.iter().zip(["0", "1"]) {
            let mut more = vec![("x-chosen", tag)];
            more.extend(case.of_destination.iter().map(|name| ("host", *name)));
            rules.push_str(&format!(
                "    - {{destination: {{host: up.example, port: {{number: 80}}}}, weight: 1, headers: {{request: {}}}}}\n",
                set(own, &more)
            ));
        }
    }
    let up = plays(&[OK]).await;
    let gateway = gateway(&config(&rules, &[up.address], "HTTP")).await;
    for (n, case) in cases.iter().enumerate() {
        let (mut sent, lines) = of_client(&mut random);
        let ask = format!("GET /c{n}/ HTTP/1.1\r\nHost: a.example\r\n{lines}Connection: close\r\n\r\n");
        assert_eq!(gateway.send(&ask).await.0, 200, "seed {seed}: {ask}");
        let got = up.got().pop().unwrap().to_ascii_lowercase();
        let line = |name: &str| {
            let (_, rest) = got.split_once(&format!("\r\n{name}: "))?;
            Some(rest.split("\r\n").next().unwrap().to_owned())
        };
        let chosen: usize = line("x-chosen").unwrap().parse().unwrap();
        case.own[chosen].apply(&mut sent);
        case.rule.apply(&mut sent);
        sent.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(of_interest(&got), sent, "seed {seed}, case {n}");
        let of_rule = case.of_rewrite.or(case.of_rule);
        let host = of_rule.or(case.of_destination).unwrap_or("a.example");
        assert_eq!(line("host").as_deref(), Some(host), "seed {seed}, case {n}");
        // Asked of Envoy 1.40: only the rule's own rewrite leaves word, of what it found.
        let before = of_rule.map(|_| case.of_destination.unwrap_or("a.example"));
        assert_eq!(line("x-envoy-original-host").as_deref(), before, "seed {seed}, case {n}");
    }
}

/// How a rule changes the path: how it matches, what it says, and the model of it.
type Rewrite = (&'static str, &'static str, fn(&str) -> String);

const REWRITES: [Rewrite; 8] = [
    ("{exact: /exact}", "{uri: /whole}", |_| "/whole".to_owned()),
    ("{regex: '/regex/[a-z/]+'}", "{uri: /whole}", |_| "/whole".to_owned()),
    ("{prefix: /text}", "{uri: /t}", |path| path.replacen("/text", "/t", 1)),
    ("{prefix: /slash}", "{uri: /}", |path| path.replacen("/slash", "/", 1)),
    ("{prefix: /each}", "{uriRegexRewrite: {match: a, rewrite: bb}}", |path| path.replace('a', "bb")),
    (
        "{prefix: /order}",
        "{uriRegexRewrite: {match: '^/order/([^/]*)/(.*)$', rewrite: '/\\2/\\1'}}",
        |path| match path.strip_prefix("/order/").and_then(|rest| rest.split_once('/')) {
            Some((first, rest)) => format!("/{rest}/{first}"),
            None => path.to_owned(),
        },
    ),
    ("{prefix: /host}", "{authority: in.example}", str::to_owned),
    ("{prefix: /both}", "{uri: /b, authority: in.example}", |path| path.replacen("/both", "/b", 1)),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_rewrite_is_the_models() {
    let rules: String = REWRITES
        .iter()
        .map(|(matched, rewrite, _)| {
            format!(
                "  - match: [{{uri: {matched}}}]
    rewrite: {rewrite}
    route: [{{destination: {{host: up.example, port: {{number: 80}}}}}}]\n"
            )
        })
        .collect();
    let gateway = gateway(&config(&rules, &[echo().await], "HTTP")).await;
    for (path, rule) in [
        ("/exact", 0),
        ("/regex/a/b", 1),
        ("/text", 2),
        ("/text/a", 2),
        ("/textual", 2),
        ("/slash", 3),
        ("/slash/a", 3),
        ("/each/aba", 4),
        ("/each", 4),
        ("/order/1/2/3", 5),
        ("/order/1", 5),
        ("/host/a", 6),
        ("/both/a", 7),
    ] {
        for query in ["", "?", "?a=/each&b=%20"] {
            let (status, _, body) = gateway.get(&format!("{path}{query}")).await;
            assert_eq!(status, 200, "{path}");
            let (_, rewrite, model) = REWRITES[rule];
            let wants = model(path);
            assert!(body.starts_with(&format!("GET {wants}{query}\n")), "{wants}{query}: {body}");
            let word = format!("x-envoy-original-path: {path}{query}\n");
            assert_eq!(body.contains(&word), wants != path, "{path}{query}: {body}");
            let host = if rewrite.contains("in.example") { "in.example" } else { "a.example" };
            assert!(body.contains(&format!("\nhost: {host}\n")), "{body}");
        }
    }
}

/// A redirect as a rule writes it.
#[derive(Clone, Copy)]
struct Redirect {
    scheme: Option<&'static str>,
    authority: Option<&'static str>,
    port: Option<u16>,
    uri: Option<&'static str>,
    code: Option<u16>,
}

impl Redirect {
    fn yaml(self) -> String {
        let text = |name: &str, value: Option<String>| value.map(|value| format!("{name}: '{value}'"));
        let number = |name: &str, value: Option<u16>| value.map(|value| format!("{name}: {value}"));
        let fields = [
            text("scheme", self.scheme.map(str::to_owned)),
            text("authority", self.authority.map(str::to_owned)),
            text("uri", self.uri.map(str::to_owned)),
            number("port", self.port),
            number("redirectCode", self.code),
        ];
        fields.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// The model, of a request in the clear.
    fn location(self, host: &str, path: &str, query: &str) -> String {
        let scheme = self.scheme.unwrap_or("http");
        let port = self.port.filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
        let (name, own) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
        let target = match (self.authority, port, own) {
            (Some(authority), Some(port), _) => format!("{authority}:{port}"),
            (Some(authority), None, _) => authority.to_owned(),
            (None, Some(port), _) => format!("{name}:{port}"),
            (None, None, Some("80")) if scheme == "https" => name.to_owned(),
            (None, None, _) => host.to_owned(),
        };
        let path = self.uri.unwrap_or(path);
        let query = if path.contains('?') { "" } else { query };
        format!("{scheme}://{target}{path}{query}")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_redirect_is_the_models() {
    let mut redirects = Vec::new();
    for scheme in [None, Some("http"), Some("https")] {
        for authority in [None, Some("y.example")] {
            for port in [None, Some(80), Some(443), Some(8443)] {
                for uri in [None, Some("/new"), Some("/new?own=1")] {
                    let code =
                        [None, Some(301), Some(302), Some(303), Some(307), Some(308)][redirects.len() % 6];
                    redirects.push(Redirect { scheme, authority, port, uri, code });
                }
            }
        }
    }
    // One that says nothing is refused.
    redirects.retain(|r| r.scheme.is_some() || r.authority.is_some() || r.port.is_some() || r.uri.is_some());
    let rules: String = redirects
        .iter()
        .enumerate()
        .map(|(n, redirect)| {
            format!("  - match: [{{uri: {{prefix: /c{n}/}}}}]\n    redirect: {{{}}}\n", redirect.yaml())
        })
        .collect();
    let gateway = gateway(&config(&rules, &[nobody().await], "HTTP")).await;
    for (n, redirect) in redirects.iter().enumerate() {
        for host in ["a.example", "a.example:80", "a.example:8080"] {
            for query in ["", "?q=1&r"] {
                let path = format!("/c{n}/x%20y");
                let ask = format!("GET {path}{query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                let (status, head, body) = gateway.send(&ask).await;
                assert_eq!((status, &*body), (redirect.code.unwrap_or(301), ""), "{}", redirect.yaml());
                let wants = format!("\r\nlocation: {}\r\n", redirect.location(host, &path, query));
                assert!(head.contains(&wants), "{}: {wants:?} in {head}", redirect.yaml());
            }
        }
    }
}
