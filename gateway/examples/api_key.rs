//! Lets in who shows an API key that a SQLite database knows, and tells the upstream whose it is.
//!
//! `cargo run -p gateway --features testing --example api_key -- KEYS.db FOLDER` serves the folder's configuration on port 8080 for the port 80 of
//! Gateways. The database has one table: `keys(digest BLOB PRIMARY KEY, caller TEXT NOT NULL)`, with the SHA-256 of each key.

use std::{error::Error, path::Path, sync::Arc, thread, time::Duration};

use boring::sha::sha256;
use gateway::{
    Gateway,
    policy::{Answer, Failure, Hooks, Phase, Policy, Reply, RequestView, UpstreamView, Verdict},
};
use http::{HeaderName, HeaderValue, StatusCode};
use rusqlite::{Connection, OptionalExtension as _};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const CALLER: HeaderName = HeaderName::from_static("x-caller");
/// How long a request waits for the database. Beyond it is refused: who cannot be judged is not let in.
const PATIENCE: Duration = Duration::from_secs(1);
/// Requests that may wait for the database; the next is refused at once.
const WAITING: usize = 1024;

/// The keys, on a thread that may block. Clones ask the same thread.
#[derive(Clone)]
struct Keys(mpsc::Sender<Question>);

struct Question {
    digest: [u8; 32],
    answer: oneshot::Sender<rusqlite::Result<Option<Arc<str>>>>,
}

impl Keys {
    fn open(path: &Path) -> Result<Keys, Box<dyn Error>> {
        let database = Connection::open(path)?;
        let (keys, mut questions) = mpsc::channel::<Question>(WAITING);
        thread::Builder::new().name("api-keys".to_owned()).spawn(move || {
            while let Some(Question { digest, answer }) = questions.blocking_recv() {
                // Who has gone meanwhile needs no answer.
                let _ = answer.send(caller(&database, &digest));
            }
        })?;
        Ok(Keys(keys))
    }

    async fn caller(&self, key: &[u8]) -> Result<Option<Arc<str>>, Failure> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Question { digest: sha256(key), answer })?;
        Ok(timeout(PATIENCE, answered).await???)
    }
}

fn caller(database: &Connection, digest: &[u8]) -> rusqlite::Result<Option<Arc<str>>> {
    let sql = "SELECT caller FROM keys WHERE digest = ?1";
    database.query_row(sql, [digest], |row| row.get(0)).optional()
}

struct ApiKey(Keys);

impl Policy for ApiKey {
    /// Whose key it was.
    type State = Option<Arc<str>>;
    const HOOKS: Hooks = Hooks::REQUEST.and(Hooks::UPSTREAM);

    async fn on_request(&self, caller: &mut Self::State, request: &mut RequestView<'_>) -> Answer {
        let Some(key) = request.headers().get(API_KEY).cloned() else {
            return Ok(Verdict::Respond(Reply::text(StatusCode::UNAUTHORIZED, "an API key is needed")));
        };
        // It is nobody else's business, upstreams included.
        request.remove_header(API_KEY)?;
        *caller = self.0.caller(key.as_bytes()).await?;
        Ok(match caller {
            Some(_) => Verdict::Continue,
            None => Verdict::Respond(Reply::text(StatusCode::FORBIDDEN, "this API key is not known")),
        })
    }

    fn on_upstream(&self, caller: &mut Self::State, attempt: &mut UpstreamView<'_>) -> Answer {
        // In place of whatever the client says of itself.
        let name = HeaderValue::from_str(caller.as_deref().unwrap_or_default())?;
        attempt.insert_header(CALLER, name)?;
        Ok(Verdict::Continue)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (Some(keys), Some(folder)) = (std::env::args_os().nth(1), std::env::args_os().nth(2)) else {
        return Err("usage: api_key KEYS.db FOLDER".into());
    };
    let policy = ApiKey(Keys::open(keys.as_ref())?);
    let policies = gateway::policy::Chain::new().then(policy);
    let gateway =
        Gateway::builder().folder(folder).port(80, 8080).policies(Phase::Authn, &policies).build()?;
    let _exit = gateway.run()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::testing::{Act, FORWARD, TestGateway, Upstream, config};
    use http::Request;

    /// A database with one key, `secret` of `alice`.
    fn database(folder: &tempfile::TempDir) -> (Keys, Connection) {
        let path = folder.path().join("keys.db");
        let database = Connection::open(&path).unwrap();
        database
            .execute_batch(
                "PRAGMA journal_mode = WAL; CREATE TABLE keys(digest BLOB PRIMARY KEY, caller TEXT NOT NULL)",
            )
            .unwrap();
        database.execute("INSERT INTO keys VALUES (?1, 'alice')", [sha256(b"secret")]).unwrap();
        (Keys::open(&path).unwrap(), database)
    }

    async fn status(gateway: &TestGateway, key: Option<&str>) -> u16 {
        let mut request = Request::get("http://a.example/").header("x-caller", "root");
        if let Some(key) = key {
            request = request.header(API_KEY, key);
        }
        gateway.send(request.body("").unwrap()).await.status.as_u16()
    }

    #[tokio::test]
    async fn only_a_known_key_lets_in_and_the_upstream_learns_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, database) = database(&folder);
        let upstream = Upstream::plays(&[Act::OK]).await;
        let yaml = config(FORWARD, &[upstream.address()], "HTTP");
        let gateway = TestGateway::with(&yaml, |gateway| gateway.policy(ApiKey(keys))).await;
        assert_eq!(status(&gateway, None).await, 401);
        assert_eq!(status(&gateway, Some("guess")).await, 403);
        assert!(upstream.seen().is_empty(), "nobody was let in");
        assert_eq!(status(&gateway, Some("secret")).await, 200);
        let seen = upstream.seen();
        assert_eq!((seen[0].header("x-caller"), seen[0].header("x-api-key")), (Some("alice"), None));

        database.execute("DELETE FROM keys", ()).unwrap();
        assert_eq!(status(&gateway, Some("secret")).await, 403, "a key that was taken back");
        database.execute_batch("DROP TABLE keys").unwrap();
        assert_eq!(status(&gateway, Some("secret")).await, 503, "without the store nobody is let in");
        assert!(gateway.log_line(" 503 ").await.contains("policy_failed{ApiKey}"));
        assert_eq!(upstream.seen().len(), 1);
    }
}
