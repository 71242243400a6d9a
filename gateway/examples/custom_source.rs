//! Configuration from a source of one's own: a list of sites, `HOST ADDRESS:PORT` a line, that becomes Istio's resources.
//!
//! `cargo run -p gateway --features testing --example custom_source -- SITES.txt` serves those sites on port 8080 and follows the file.

use std::{error::Error, fmt::Write as _, net::SocketAddr, path::PathBuf, time::Duration};

use async_trait::async_trait;
use gateway::{
    Gateway,
    source::{Health, Loaded, Source, fixed},
};

/// How often the list is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// A list of sites in a file.
struct Sites {
    path: PathBuf,
    /// What was given last.
    last: Option<Loaded>,
}

impl Sites {
    fn new(path: impl Into<PathBuf>) -> Sites {
        Sites { path: path.into(), last: None }
    }

    /// All that is known now: what the file says, or what it said last.
    async fn read(&self) -> Loaded {
        let text = tokio::fs::read_to_string(&self.path).await;
        match text.map_err(Into::into).and_then(|text| resources(&text)) {
            Ok(yaml) => fixed::read("sites", &yaml),
            Err(error) => {
                let last = self.last.clone().unwrap_or_default();
                if last.health != Health::Stale {
                    tracing::warn!(%error, path = %self.path.display(), "the list of sites cannot be read");
                }
                Loaded { health: Health::Stale, ..last }
            }
        }
    }
}

#[async_trait]
impl Source for Sites {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    async fn next(&mut self) -> Option<Loaded> {
        loop {
            // Nothing is lost when this is given up while it waits: `last` changes only with an answer.
            let loaded = self.read().await;
            if self.last.as_ref() != Some(&loaded) {
                self.last = Some(loaded.clone());
                return Some(loaded);
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// The list as Istio's resources.
fn resources(sites: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut yaml = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: sites, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
"
    .to_owned();
    for (number, line) in sites.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (host, address) = line.split_once(' ').ok_or("a line is HOST ADDRESS:PORT")?;
        let address: SocketAddr = address.trim().parse()?;
        let (ip, port) = (address.ip(), address.port());
        write!(
            yaml,
            "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: site-{number}, namespace: istio-system}}
spec:
  hosts: ['{host}']
  gateways: [sites]
  http: [{{route: [{{destination: {{host: site-{number}.internal, port: {{number: 80}}}}}}]}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: site-{number}, namespace: istio-system}}
spec:
  hosts: [site-{number}.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: '{ip}', ports: {{http: {port}}}}}]
"
        )?;
    }
    Ok(yaml)
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: custom_source SITES.txt")?;
    let gateway = Gateway::builder().source(Sites::new(path)).port(80, 8080).build()?;
    let _exit = gateway.run()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::testing::{Act, PATIENCE, TestGateway, Upstream};

    #[tokio::test]
    async fn the_list_is_followed_and_outlives_its_file() {
        let (shop, blog) = (Upstream::plays(&[Act::OK]).await, Upstream::plays(&[Act::OK]).await);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sites.txt");
        std::fs::write(&path, format!("shop.example {}\n", shop.address())).unwrap();
        let source = Sites::new(&path);
        let gateway = TestGateway::with("", |gateway| gateway.source(source)).await;
        assert_eq!(gateway.get("http://shop.example/").await.status, 200);
        assert_eq!(gateway.get("http://blog.example/").await.status, 404);

        let both = format!("shop.example {}\n\nblog.example {}\n", shop.address(), blog.address());
        std::fs::write(&path, both).unwrap();
        let followed = async { while gateway.get("http://blog.example/").await.status != 200 {} };
        tokio::time::timeout(PATIENCE, followed).await.unwrap();

        std::fs::remove_file(&path).unwrap();
        let stale = || gateway.metrics().contains("limen_config_synchronized 0").then_some(());
        gateway::testing::eventually("the loss to be noticed", stale).await;
        assert_eq!(gateway.get("http://blog.example/").await.status, 200, "what was known is served on");
    }
}
