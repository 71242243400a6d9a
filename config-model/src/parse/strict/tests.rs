//! Both ways of reading hold together, whatever is written.

use super::*;
use crate::parse::{Parsed, document::by_value};
use proptest::prelude::*;

const SAMPLES: [&str; 4] = [
    "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
  namespace: shop
  labels: {app: reviews, tier: '2'}
  annotations:
    a/b: \"1\"
spec:
  hosts: ['*.example.com', reviews]
  gateways: [istio-system/public]
  exportTo:
  - '.'
  http:
  - name: one
    match:
    - uri: {prefix: /a}
      method: {exact: GET}
      headers:
        x-user: {regex: 'a|b'}
        y: {}
      port: 80
    route:
    - destination: {host: reviews, subset: v1, port: {number: 9080}}
      weight: 75
      headers: {request: {set: {x: y}, remove: [z]}}
    - destination:
        host: reviews
      weight: \"25\"
    timeout: 1.5s
    retries: {attempts: 2, perTryTimeout: 1s, retryOn: 5xx}
    fault:
      delay: {fixedDelay: 1s, percentage: {value: 10}}
    corsPolicy: {allowOrigins: [{exact: a.com}], allowCredentials: true}
  - redirect: {uri: /x, derivePort: FROM_REQUEST_PORT}
",
    "apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer: {simple: LEAST_REQUEST}
    connectionPool: {tcp: {maxConnections: 10}, http: {http2MaxRequests: 100}}
    tls: {mode: SIMPLE, sni: a.com}
  subsets:
  - name: v1
    labels: {version: v1}
",
    "kind: ServiceEntry
metadata: {name: s, namespace: default, creationTimestamp: '2024-01-02T03:04:05Z'}
spec:
  endpoints: [{address: 127.0.0.1, ports: {http: 8080, web: 81}, labels: {a: b}}]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  location: MESH_INTERNAL
  hosts: [s.example]
apiVersion: networking.istio.io/v1alpha3
",
    "---
# A comment
apiVersion: \"networking.istio.io/v1\"
kind: VirtualService
metadata: {name: \"a\"}
spec:
  hosts:
    - a.com
  tcp:
    - match: [{port: 80}]
      route: [{destination: {host: a.com}}]
  tls:
    - match: [{sniHosts: [a.com], port: 443}]
      route: [{destination: {host: a.com}, weight: 1}]
",
];

/// What is put in the place of a word.
const WORDS: [&str; 26] = [
    "null",
    "~",
    "''",
    "1",
    "0x1F",
    "1.5",
    "1e3",
    "-1",
    "true",
    "\"1\"",
    "{}",
    "[]",
    "[a]",
    "{a: b}",
    "!x y",
    "!!str 1",
    "&a b",
    "*a",
    "name",
    "host",
    "unknown",
    "sourceSubnet",
    "spec",
    "|\n  x",
    "99999999999999999999999999",
    "<<: {a: b}",
];

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "./*-'\"_".contains(c)
}

/// Puts another word in the place of the one with this number.
fn with_word(text: &str, at: usize, word: &str) -> String {
    let mut words: Vec<(usize, usize)> = Vec::new();
    let mut begin = None;
    for (place, c) in text.char_indices() {
        match (begin, is_word(c)) {
            (None, true) => begin = Some(place),
            (Some(from), false) => {
                words.push((from, place));
                begin = None;
            }
            _ => {}
        }
    }
    let (from, to) = words[at % words.len()];
    format!("{}{word}{}", &text[..from], &text[to..])
}

fn with_line(text: &str, at: usize, change: impl Fn(&str) -> String) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let at = at % lines.len();
    let changed = lines
        .iter()
        .enumerate()
        .map(|(number, line)| if number == at { change(line) } else { format!("{line}\n") });
    changed.collect()
}

fn edited(text: &str, (kind, at, word): (u8, usize, usize)) -> String {
    match kind {
        0..=5 => with_word(text, at, WORDS[word % WORDS.len()]),
        6 => with_line(text, at, |line| format!("{line}\n{line}\n")),
        7 => with_line(text, at, |_| String::new()),
        8 => with_line(text, at, |line| {
            let depth = line.len() - line.trim_start().len();
            format!("{line}\n{}{}: x\n", " ".repeat(depth), WORDS[word % WORDS.len()])
        }),
        _ => {
            with_line(text, at, |line| format!("{}null\n", line.split_inclusive(": ").next().unwrap_or(line)))
        }
    }
}

fn both(text: &str) -> (Option<AnyResource>, Parsed) {
    let origin = Origin::new("a.yaml", 1, 1);
    let mut parsed = Parsed::default();
    by_value(text, 1, &origin, 7, &mut parsed);
    (read(text, &origin, 7), parsed)
}

#[test]
fn ordinary_documents_are_read_in_one_pass() {
    for sample in SAMPLES {
        let (fast, parsed) = both(sample);
        assert_eq!(parsed.diagnostics.len(), 0, "{:?}", parsed.diagnostics);
        assert_eq!(fast.as_ref(), parsed.resources.first(), "{sample}");
        assert!(fast.is_some(), "{sample}");
    }
}

#[test]
fn a_document_of_which_something_is_to_be_said_is_not() {
    let text = SAMPLES[0];
    for (old, new) in [
        ("name: one", "name: 1"),
        ("timeout: 1.5s", "timeout: null"),
        ("timeout: 1.5s", "timeuot: 1.5s"),
        ("timeout: 1.5s", "timeout: 1.5s\n    timeout: 1.5s"),
        ("labels: {app: reviews", "labels: {tier: reviews"),
        ("spec:", "status: {}\nspec:"),
        ("y: {}", "y: null"),
        ("port: 80", "port: 80\n      statPrefix: a"),
        ("v1\nkind", "v2\nkind"),
        ("networking", "security"),
        ("name: reviews\n", ""),
    ] {
        let text = text.replacen(old, new, 1);
        assert_eq!(both(&text).0, None, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_in_one_pass_is_what_values_give(
        sample in 0..SAMPLES.len(),
        edits in prop::collection::vec((0_u8..10, any::<usize>(), any::<usize>()), 1..4),
    ) {
        let text = edits.into_iter().fold(SAMPLES[sample].to_owned(), |text, edit| edited(&text, edit));
        let (fast, parsed) = both(&text);
        if let Some(fast) = fast {
            prop_assert_eq!(vec![fast], parsed.resources);
            prop_assert_eq!(parsed.diagnostics.len(), 0);
            prop_assert_eq!(parsed.failed.len() + parsed.ignored.len(), 0);
        }
    }
}
