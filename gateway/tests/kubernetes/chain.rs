//! The whole chain: YAML applied to the API server, a `limen run --kubernetes` process, and the traffic through it.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use tokio::task::block_in_place;

use crate::{
    double::{ALL, Double},
    harness::{GATEWAY, Upstream, binary, eventually, free_port, get, virtual_service},
};

/// A gateway that reads the API.
pub(crate) struct Limen {
    pub(crate) child: Child,
    pub(crate) port: u16,
    status: u16,
    metrics: u16,
    folder: tempfile::TempDir,
}

impl Limen {
    pub(crate) fn start(double: &Double, cache: &Path) -> Limen {
        Limen::start_as(double, cache, "{}", &[])
    }

    /// With these credentials (the user of a kubeconfig) and further arguments.
    pub(crate) fn start_as(double: &Double, cache: &Path, user: &str, more: &[&str]) -> Limen {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = double.kubeconfig(folder.path(), user);
        let [port, admin, status, metrics] = [free_port(), free_port(), free_port(), free_port()];
        let child = Command::new(binary())
            .env("KUBECONFIG", kubeconfig)
            .args(["run", "--kubernetes", "--bind", "127.0.0.1", "--port-map", &format!("80={port}")])
            .args(["--admin", &format!("127.0.0.1:{admin}"), "--status-addr", &format!("127.0.0.1:{status}")])
            .args(["--metrics-addr", &format!("127.0.0.1:{metrics}"), "--access-log", "off"])
            .arg("--cache-dir")
            .arg(cache)
            .args(more)
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("limen.log")).unwrap())
            .spawn()
            .unwrap();
        Limen { child, port, status, metrics, folder }
    }

    pub(crate) fn ready(&self) {
        let log = || fs::read_to_string(self.folder.path().join("limen.log")).unwrap_or_default();
        let is_ready =
            || get(self.status, "localhost", "/healthz/ready").is_ok_and(|answer| answer.status == 200);
        let begin = std::time::Instant::now();
        while !is_ready() {
            assert!(begin.elapsed() < crate::harness::PATIENCE, "not ready:\n{}", log());
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
    }

    pub(crate) fn answer(&self) -> Option<String> {
        get(self.port, "shop.example.com", "/").ok().map(|answer| answer.body)
    }

    pub(crate) fn answers(&self, body: &str) {
        eventually(body, || self.answer().filter(|answer| answer == body));
    }

    fn synchronized(&self, value: &str) {
        eventually("the gauge", || {
            let metrics = get(self.metrics, "localhost", "/stats/prometheus").ok()?.body;
            metrics.lines().any(|line| line == format!("limen_config_synchronized {value}")).then_some(())
        });
    }
}

impl Drop for Limen {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The Service's address answers nobody: traffic that arrives went to the pods.
pub(crate) const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec: {clusterIP: 240.0.0.1, clusterIPs: [240.0.0.1], selector: {app: shop}, ports: [{name: http, port: 80, targetPort: web}]}
";

/// Pods of one state behind the Service's port; the container port `web` has this number in them.
pub(crate) fn slice(name: &str, port: u16, conditions: &str) -> String {
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: default, labels: {{kubernetes.io/service-name: shop}}}}
addressType: IPv4
ports: [{{name: http, port: {port}, protocol: TCP}}]
endpoints:
- {{addresses: [127.0.0.1], conditions: {{{conditions}}}, zone: zone-a, targetRef: {{kind: Pod, name: {name}, namespace: default}}}}
"
    )
}

pub(crate) const READY: &str = "ready: true, serving: true, terminating: false";
const LEAVING: &str = "ready: false, serving: true, terminating: true";
const STARTING: &str = "ready: false, serving: false, terminating: false";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn yaml_becomes_traffic_that_follows_and_outlives_the_api() {
    let cache = tempfile::tempdir().unwrap();
    let [one, two, other] = ["one", "two", "other"].map(Upstream::start);
    let mut double = Double::start(ALL).await;
    double.apply(GATEWAY);
    double.apply(&virtual_service("shop", ""));
    double.apply(SERVICE);
    double.apply(&slice("one", one.port, READY));
    double.apply(&slice("leaving", other.port, LEAVING));
    double.apply(&slice("starting", other.port, STARTING));

    let limen = Limen::start(&double, cache.path());
    block_in_place(|| {
        limen.ready();
        limen.answers("one /");
        for _ in 0..20 {
            assert_eq!(limen.answer().as_deref(), Some("one /"), "pods that are not ready get nothing");
        }
        limen.synchronized("1");
    });

    double.apply(&slice("one", two.port, READY));
    block_in_place(|| limen.answers("two /"));
    let rewritten =
        virtual_service("shop", "").replace("    - route:", "    - rewrite: {uri: /moved}\n      route:");
    double.apply(&rewritten);
    block_in_place(|| limen.answers("two /moved"));

    let kept = cache.path().join("snapshot.jsonl");
    block_in_place(|| {
        eventually("the state on disk", || {
            fs::read_to_string(&kept).ok().filter(|text| text.contains("/moved"))
        });
    });
    double.stop().await;
    block_in_place(|| {
        limen.synchronized("0");
        for _ in 0..20 {
            assert_eq!(limen.answer().as_deref(), Some("two /moved"), "traffic flows while the API is away");
        }
    });
    drop(limen);

    let again = Limen::start(&double, cache.path());
    block_in_place(|| {
        again.ready();
        again.answers("two /moved");
        again.synchronized("0");
    });
    double.apply(&slice("one", one.port, READY));
    double.resume().await;
    block_in_place(|| {
        again.answers("one /moved");
        again.synchronized("1");
    });
}
