//! Faults one at a time against the built binary, each held to the same rule.
//!
//! Invariant, of every scene: the process lives and panics at nothing; clients of another host (the canary) get 200 every time, and their
//! 99th percentile stays below twice what it was, or below [`NOTICED`] where tests share a machine; a line of the log and a metric name the
//! cause; what was broken is served again without a restart; and connections, threads and descriptors are as many as before.

pub(crate) mod clients;
mod configuration;
mod http2;
mod names;
mod process;
mod storm;
mod upstreams;

use gateway::testing::{FaultProxy, Upstream as Peer};
use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

use crate::harness::*;

/// What nobody would notice of tests that share two processors.
const NOTICED: Duration = Duration::from_millis(400);

/// A client of a host that nothing is wrong with, who asks again and again.
struct Canary {
    stop: Arc<AtomicBool>,
    /// How long each answer took; or what was wrong.
    took: Arc<Mutex<Result<Vec<Duration>, String>>>,
    asking: Option<thread::JoinHandle<()>>,
    /// How many of them were asked while all was well, and their 99th percentile.
    base: (usize, Duration),
}

fn percentile(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[(times.len() * 99).div_ceil(100) - 1]
}

impl Canary {
    fn start(port: u16) -> Canary {
        let (stop, took) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Ok(Vec::new()))));
        let (ended, noted) = (stop.clone(), took.clone());
        let asking = thread::spawn(move || {
            let mut kept = Client::connect(port).ok();
            while !ended.load(Ordering::SeqCst) {
                let begin = Instant::now();
                let answer = kept.as_mut().map(|client| client.get("canary.example.com", "/sings"));
                let wrong = match answer {
                    Some(Ok(answer)) if (answer.status, &*answer.body) == (200, "canary /sings") => None,
                    other => Some(format!("the canary got {other:?}")),
                };
                let mut noted = noted.lock().unwrap();
                match (&mut *noted, wrong) {
                    (Ok(times), None) => times.push(begin.elapsed()),
                    (all, Some(wrong)) => {
                        *all = Err(wrong);
                        return;
                    }
                    (Err(_), None) => return,
                }
                drop(noted);
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        let mut canary = Canary { stop, took, asking: Some(asking), base: (0, Duration::ZERO) };
        let times = canary.more(100);
        canary.base = (times.len(), percentile(&times));
        canary
    }

    /// All that it got once it has asked so often again.
    fn more(&self, times: usize) -> Vec<Duration> {
        let all = || self.took.lock().unwrap().clone().unwrap_or_else(|wrong| panic!("{wrong}"));
        let wants = all().len() + times;
        eventually("the canary", || Some(all()).filter(|took| took.len() >= wants))
    }

    /// It has been well all the time.
    fn end(&mut self, named: &str) {
        let all = self.more(20);
        self.stop.store(true, Ordering::SeqCst);
        self.asking.take().unwrap().join().unwrap();
        let (count, base) = self.base;
        let during = percentile(&all[count..]);
        assert!(during < (2 * base).max(NOTICED), "{named}: the canary waited {during:?}, before {base:?}");
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// A gateway, a canary, and the victim `up.example.com`, whose upstream is behind a proxy that breaks what passes.
struct Scene {
    limen: Limen,
    canary: Canary,
    proxy: FaultProxy,
    before: Footprint,
    _canary: Upstream,
    runtime: Runtime,
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Footprint {
    descriptors: usize,
    threads: usize,
}

impl Footprint {
    fn of(id: u32) -> Footprint {
        let count = |what: &str| fs::read_dir(format!("/proc/{id}/{what}")).unwrap().count();
        Footprint { descriptors: count("fd"), threads: count("task") }
    }
}

/// A DestinationRule for the service of that name.
fn destination_rule(name: &str, policy: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{host: {name}, trafficPolicy: {{{policy}}}}}\n"
    )
}

/// The process may hold so many more descriptors: connections of pools, and one that the system is about to close.
const SPARE: usize = 6;

impl Scene {
    /// One whose victim's rule has these lines, and with these documents besides; its upstream says what it was asked.
    fn start(rule: &str, more: &str) -> Scene {
        let runtime = Runtime::new().unwrap();
        let upstream = runtime.block_on(Peer::echo()).address();
        Scene::before(runtime, upstream, rule, more, &[])
    }

    /// The same before that upstream, and with further flags.
    fn before(runtime: Runtime, upstream: SocketAddr, rule: &str, more: &str, flags: &[&str]) -> Scene {
        let proxy = runtime.block_on(FaultProxy::before(upstream));
        let canary = Upstream::start("canary");
        let config = [
            GATEWAY.to_owned(),
            virtual_service("up", rule),
            service("up", &[proxy.address().port()]),
            virtual_service("canary", ""),
            service("canary", &[canary.port]),
            more.to_owned(),
        ];
        let limen = Limen::start_with(&[("all.yaml", &config.concat())], flags);
        let mut scene = Scene {
            canary: Canary::start(limen.port),
            before: Footprint { descriptors: 0, threads: 0 },
            limen,
            proxy,
            _canary: canary,
            runtime,
        };
        assert_eq!(scene.ask("/before").unwrap().status, 200);
        scene.before = Footprint::of(scene.limen.child.id());
        scene
    }

    fn ask(&self, path: &str) -> std::io::Result<Response> {
        get(self.limen.port, "up.example.com", path)
    }

    /// A request of the victim's: its status and flags, in the answer, in a line of the log and in a metric.
    fn fails(&self, path: &str, status: u16, flags: &str) {
        let answer = self.ask(path).unwrap();
        assert_eq!(answer.status, status, "{path}: {}", self.limen.access_log());
        self.named(path, status, flags);
    }

    /// That a line of the log and a metric name the cause.
    fn named(&self, path: &str, status: u16, flags: &str) {
        let line = eventually(&format!("the line of {path}"), || {
            let log = self.limen.access_log();
            log.lines().find(|line| line.contains(&format!(" {path} "))).map(str::to_owned)
        });
        assert!(line.contains(&format!("\" {status} {flags} ")), "{line}");
        eventually("the metric", || {
            let metrics = get(self.limen.admin, "localhost", "/stats/prometheus").ok()?.body;
            let flags = format!("response_flags=\"{flags}\"");
            let mut lines = metrics.lines().filter(|line| line.starts_with("istio_requests_total{"));
            lines.any(|line| line.contains(&flags)).then_some(())
        });
    }

    /// What a metric is, all of its series together.
    fn metric(&self, name: &str) -> f64 {
        let metrics = get(self.limen.admin, "localhost", "/stats/prometheus").unwrap().body;
        let named = metrics.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        named.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Nothing is wrong any more: it is served again, nobody else noticed, nothing is left over.
    fn heals(mut self) {
        self.proxy.set(gateway::testing::Fault::None);
        eventually("the victim to be served again", || {
            self.ask("/after").ok().filter(|answer| answer.status == 200)
        });
        self.ends();
    }

    fn ends(&mut self) {
        self.canary.end("at the end");
        let id = self.limen.child.id();
        eventually("what was held to be given back", || {
            let now = Footprint::of(id);
            (now.descriptors <= self.before.descriptors + SPARE && now.threads <= self.before.threads + 2)
                .then_some(())
        });
        assert!(self.limen.child.try_wait().unwrap().is_none(), "{}", self.limen.process_log());
        let log = self.limen.process_log();
        assert!(!log.contains("panicked"), "{log}");
    }
}
