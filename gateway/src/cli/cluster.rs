//! Reading a cluster once, for the commands that look and do not serve.
//!
//! Invariant: what is judged is whole, or the command fails; what could not be read of what resources name is told.

use std::time::Duration;

use tokio::time::timeout;

use super::{Exit, Output, load::Depth};
use crate::{
    settings::Settings,
    source::{
        Loaded, Source as _,
        kubernetes::{Cluster, Home, Kubernetes, unread},
    },
};

/// Trouble that lasts this long is not going to pass.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest cluster is read in so many times that.
const LONGEST: u32 = 24;

/// The state of the cluster that the service account or the kubeconfig names.
pub(super) fn load(settings: &Settings, depth: Depth, out: &mut Output<'_>) -> Result<Loaded, Exit> {
    let read = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))
        .and_then(|runtime| runtime.block_on(read(settings, depth, runtime.handle().clone())));
    match read {
        Ok((loaded, troubles)) => {
            for trouble in troubles {
                out.fail(&format!("judged as if it were not there: {trouble}"));
            }
            Ok(loaded)
        }
        Err(message) => {
            out.fail(&message);
            Err(Exit::Failed)
        }
    }
}

async fn read(
    settings: &Settings,
    depth: Depth,
    runtime: tokio::runtime::Handle,
) -> Result<(Loaded, Vec<String>), String> {
    let cluster = Cluster::infer().await.map_err(|error| error.to_string())?;
    let home = Home::of(settings);
    let mut source = Kubernetes::new(cluster.clone(), home.clone(), None, runtime);
    let mut loaded = None;
    for _ in 0..LONGEST {
        loaded = timeout(PATIENCE, source.next()).await.ok().flatten();
        if loaded.is_some() || !source.troubles().is_empty() {
            break;
        }
    }
    let troubles = source.troubles();
    let Some(mut loaded) = loaded else {
        let why = if troubles.is_empty() { "it takes too long".to_owned() } else { troubles.join("; ") };
        return Err(format!("{} cannot be read: {why}", source.describe()));
    };
    if depth == Depth::Unread {
        loaded.diagnostics.extend(unread(&cluster, &home).await);
    }
    Ok((loaded, troubles))
}
