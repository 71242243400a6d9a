//! One task for each part: find the kind, list it, watch it, and begin anew when that is the only way on.
//!
//! Invariant: between `Init` and `InitDone` objects are gathered aside and then take the place of the old ones at once. A task never
//! ends by itself, and waits longer after each failure, with jitter.
//!
//! What kube's watcher does, read in its source (kube-runtime 5.0, `watcher.rs`): pages of 500, bookmarks, going on from the last
//! version after a disconnect, a new list after an ERROR event with 410, a time limit on a stream that has gone silent. What it does not:
//! a watch that is refused at its start is asked for again with the same version, for ever. When that version has expired, or is of
//! another history of the cluster's store, this never ends; so after such a refusal the watcher is made anew, which lists.

use std::{pin::pin, sync::Arc, time::Duration};

use config_model::meta::Kind;
use futures::StreamExt as _;
use kube::{
    Api, Client,
    core::ApiResource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Config, DefaultBackoff, Error, Event},
    },
};
use tokio::time::sleep;

use super::{
    discovery::{Served, discover},
    item::Item,
    store::{Batch, Part, Store},
};

/// Refusals of a watch in a row, after which the list is read again.
const REFUSALS: u32 = 5;

/// Why a watcher was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
enum Ended {
    /// The kind is not served any more, it seems.
    Vanished,
    /// It has to list again.
    Desynchronized,
}

/// Follows one part until the task is aborted.
pub(super) async fn run(store: Arc<Store>, client: Client, part: Part, discover_every: Duration) {
    let mut backoff = DefaultBackoff::default();
    let longest = Duration::from_secs(30);
    loop {
        match discover(&client, part.kind()).await {
            Ok(Served::As(resource)) => {
                let ended = match part.kind() {
                    // Labels are all that is read of these, and they are many.
                    Kind::Pod | Kind::Namespace => watch::<true>(&store, &client, &part, &resource).await,
                    _ => watch::<false>(&store, &client, &part, &resource).await,
                };
                tracing::debug!(%part, ?ended, "the watch begins anew");
                sleep(backoff.next().unwrap_or(longest)).await;
            }
            Ok(Served::Absent) => {
                store.absent(&part);
                sleep(discover_every).await;
            }
            Err(error) => {
                store.trouble(&part, &error.to_string());
                sleep(backoff.next().unwrap_or(longest)).await;
            }
        }
    }
}

async fn watch<const METADATA: bool>(
    store: &Store,
    client: &Client,
    part: &Part,
    resource: &ApiResource,
) -> Ended {
    let (api, config): (Api<Item<METADATA>>, Config) = match part {
        Part::Kind(_) => (Api::all_with(client.clone(), resource), Config::default()),
        // One watch for one object, as the kubelet does it: the others of the namespace are not read.
        Part::Named(key) => (
            Api::namespaced_with(client.clone(), &key.namespace, resource),
            Config::default().fields(&format!("metadata.name={}", key.name)),
        ),
    };
    let mut events = pin!(kube::runtime::watcher(api, config).default_backoff());
    let (mut listed, mut refusals) = (Batch::default(), 0);
    let read = |item: Item<METADATA>| item.object.of_kind(&resource.api_version, &resource.kind);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                refusals = 0;
                match event {
                    Event::Init => listed = Batch::default(),
                    Event::InitApply(item) => store.add(part, &mut listed, read(item)),
                    Event::InitDone => store.replace(part, std::mem::take(&mut listed)),
                    Event::Apply(item) => store.apply(part, read(item)),
                    Event::Delete(item) => store.delete(part, &read(item)),
                }
            }
            Err(error) => {
                let status = status(&error);
                store.trouble(part, &error.to_string());
                match (&error, status) {
                    (Error::InitialListFailed(_) | Error::WatchStartFailed(_), Some(404)) => {
                        return Ended::Vanished;
                    }
                    (Error::WatchStartFailed(_), Some(410)) => return Ended::Desynchronized,
                    (Error::WatchStartFailed(_), Some(_)) => refusals += 1,
                    _ => {}
                }
                if refusals >= REFUSALS {
                    return Ended::Desynchronized;
                }
            }
        }
    }
    Ended::Desynchronized
}

/// The status with which the server refused.
fn status(error: &Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}
