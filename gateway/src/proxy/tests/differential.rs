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
        let mut sent: Vec<(String, String)> = Vec::new();
        for name in NAMES {
            for i in 0..random.u8(..3) {
                sent.push((name.to_owned(), format!("client{i}")));
            }
        }
        let lines: String = sent.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
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
