//! A DNS server that lies, fails, is silent, or says far too much.

use super::*;
use crate::namespace;
use gateway::testing::{Known, Names};
use std::{io::BufReader, io::Write, net::Ipv4Addr};

/// An entry whose endpoint is its name, on this port.
fn named(name: &str, port: u16) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{name}.test]
  resolution: DNS
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: {name}.test, ports: {{http: {port}}}}}]
"
    )
}

/// A server on every address of this machine's, which says on which it was asked.
fn everywhere() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut writer = stream.try_clone().ok()?;
                let at = stream.local_addr().ok()?.ip().to_string();
                let mut reader = BufReader::new(stream);
                loop {
                    request_head(&mut reader)?;
                    write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{at}", at.len()).ok()?;
                }
                #[allow(unreachable_code, reason = "the loop ends by `?`, and needs a type")]
                Some(())
            });
        }
    });
    port
}

#[test]
fn names_that_fail_keep_their_last_addresses() {
    namespace::apart("faults::names::names_that_fail_keep_their_last_addresses", &[], || {
        let runtime = Runtime::new().unwrap();
        let names = runtime.block_on(Names::on(([127, 0, 0, 1], 53).into())).unwrap();
        let port = everywhere();
        names.set("good.test", Known::At(vec![Ipv4Addr::LOCALHOST], 0));
        let to = |host: &str, name: &str| {
            virtual_service(host, "").replace(&format!("{{host: {host}}}"), &format!("{{host: {name}.test}}"))
        };
        let canary = Upstream::start("canary");
        let config = [
            GATEWAY.to_owned(),
            to("up", "good"),
            named("good", port),
            to("late", "late"),
            named("late", port),
            virtual_service("canary", ""),
            service("canary", &[canary.port]),
        ];
        let mut limen = Limen::start(&[("all.yaml", &config.concat())]);
        let mut singing = Canary::start(limen.port);
        let ask = |host: &str| get(limen.port, &format!("{host}.example.com"), "/").unwrap();
        assert_eq!((ask("up").status, ask("up").body.as_str()), (200, "127.0.0.1"));

        // Never known: 503, until it is.
        assert_eq!((ask("late").status, ask("late").body.as_str()), (503, "no healthy upstream"));
        names.set("late.test", Known::At(vec![Ipv4Addr::new(127, 0, 0, 9)], 60));
        eventually("the name that came late", || {
            Some(ask("late")).filter(|answer| (answer.status, &*answer.body) == (200, "127.0.0.9"))
        });

        // An answer for no time at all is asked for again each second, not at each request.
        let (begin, before) = (Instant::now(), names.asked("good.test"));
        while begin.elapsed() < Duration::from_secs(3) {
            assert_eq!(ask("up").status, 200);
        }
        let asked = names.asked("good.test") - before;
        assert!((2..=10).contains(&asked), "{asked} questions, of each family, in three seconds");

        // Whatever becomes of it, the last addresses serve.
        for (what, known) in
            [("NXDOMAIN", Known::Nothing), ("SERVFAIL", Known::Fails), ("silence", Known::Silence)]
        {
            let before = names.asked("good.test");
            names.set("good.test", known);
            eventually(what, || (names.asked("good.test") >= before + 2).then_some(()));
            let begin = Instant::now();
            assert_eq!(ask("up").status, 200, "{what}");
            assert!(begin.elapsed() < Duration::from_secs(2), "{what}: {:?}", begin.elapsed());
        }
        eventually("its line", || limen.process_log().contains("last addresses kept").then_some(()));
        eventually("its metric", || {
            let metrics = get(limen.admin, "localhost", "/stats/prometheus").ok()?.body;
            let failed = metrics.lines().find(|line| {
                line.starts_with("limen_dns_lookups_total")
                    && !line.contains("answered")
                    && !line.ends_with(" 0")
            });
            failed.map(|_| ())
        });

        // A thousand addresses, more than a datagram holds.
        let many: Vec<Ipv4Addr> =
            (0..1000_u16).map(|n| Ipv4Addr::new(127, 1, (n / 250) as u8, (n % 250 + 1) as u8)).collect();
        names.set("good.test", Known::At(many, 1));
        eventually("one of the thousand", || {
            Some(ask("up")).filter(|answer| answer.status == 200 && answer.body.starts_with("127.1."))
        });
        let spread: std::collections::BTreeSet<String> = (0..60).map(|_| ask("up").body).collect();
        assert!(spread.len() > 20, "{spread:?}");
        singing.end("names");
        assert!(limen.child.try_wait().unwrap().is_none(), "{}", limen.process_log());
    });
}
