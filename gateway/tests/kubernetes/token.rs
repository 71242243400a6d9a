//! Credentials that are rotated while the gateway runs: what is followed goes on being followed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::task::block_in_place;

use crate::{
    chain::{Limen, READY, SERVICE, slice},
    double::{ALL, Double},
    harness::{GATEWAY, Upstream, virtual_service},
};

/// Puts a text in the place of a file's, as one.
fn replace(path: &Path, text: &str) {
    let partial = path.with_extension("partial");
    fs::write(&partial, text).unwrap();
    fs::rename(partial, path).unwrap();
}

/// What an exec plugin says whose token is to be asked for again at once.
fn credential(token: &str) -> String {
    format!(
        r#"{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {{"token": "{token}", "expirationTimestamp": "2020-01-01T00:00:00Z"}}}}"#
    )
}

/// Runs a gateway whose token comes out of a file, takes the token out of use, and looks whether a change is followed.
async fn a_token_is_rotated(
    user: impl Fn(&Path) -> String,
    text: impl Fn(&str) -> String,
    patience: Duration,
) {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file: PathBuf = folder.path().join("token");
    replace(&file, &text("one"));
    let [one, two] = ["one", "two"].map(Upstream::start);
    let double = Double::start(ALL).await;
    double.require_token("one");
    double.apply(GATEWAY);
    double.apply(&virtual_service("shop", ""));
    double.apply(SERVICE);
    double.apply(&slice("one", one.port, READY));
    let limen = Limen::start_as(&double, cache.path(), &user(&file), &[]);
    block_in_place(|| limen.answers("one /"));
    assert_eq!(double.unauthorized(), 0);

    replace(&file, &text("two"));
    double.require_token("two");
    // Watches that are open were let in with the old token.
    double.disconnect();
    double.apply(&slice("one", two.port, READY));
    block_in_place(|| {
        let begin = Instant::now();
        loop {
            match limen.answer().as_deref() {
                Some("two /") => break,
                Some("one /") => assert!(begin.elapsed() < patience, "the change is not followed"),
                other => panic!("traffic stopped: {other:?}"),
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_plugin_is_asked_for_again_when_it_is_due() {
    let user = |file: &Path| {
        format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: cat, args: ['{}'], interactiveMode: Never}}}}",
            file.display()
        )
    };
    a_token_is_rotated(user, credential, crate::harness::PATIENCE).await;
}

/// As the kubelet rotates the token of a pod.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes most of a minute: a file is read again 50 s after it was"]
async fn a_token_file_is_read_again() {
    let user = |file: &Path| format!("{{tokenFile: '{}'}}", file.display());
    a_token_is_rotated(user, str::to_owned, Duration::from_secs(120)).await;
}
