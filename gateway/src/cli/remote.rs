//! Asking the admin endpoints of a running gateway.
//!
//! Invariant: bounded in time and in size; whatever is wrong becomes one sentence.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::de::DeserializeOwned;

const DEADLINE: Duration = Duration::from_secs(10);
const LARGEST: usize = 256 << 20;

/// Fetches JSON. `admin` is `http://127.0.0.1:15000`, or the same without the scheme.
/// `token`: the file with the token that it asks for.
pub(super) fn get<T: DeserializeOwned>(
    admin: &str,
    token: Option<&Path>,
    path_and_query: &str,
) -> Result<T, String> {
    let credentials = token.map(bearer).transpose()?;
    let base = admin.trim_end_matches('/');
    let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
    if !base.starts_with("http://") {
        return Err(format!("{admin}: the admin endpoints speak plain HTTP"));
    }
    let uri: Uri = format!("{base}{path_and_query}").parse().map_err(|error| format!("{admin}: {error}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let (status, body) = runtime
        .block_on(async { tokio::time::timeout(DEADLINE, fetch(uri, credentials)).await })
        .map_err(|_| format!("{base}: no answer within {} s", DEADLINE.as_secs()))?
        .map_err(|error| format!("{base}: {error}"))?;
    if !status.is_success() {
        return Err(format!("{base}: {status}: {}", String::from_utf8_lossy(&body).trim()));
    }
    serde_json::from_slice(&body).map_err(|error| format!("{base}: not the answer of a gateway: {error}"))
}

async fn fetch(uri: Uri, credentials: Option<HeaderValue>) -> Result<(StatusCode, Bytes), String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let mut request = Request::get(uri).body(Empty::new()).map_err(|error| error.to_string())?;
    if let Some(credentials) = credentials {
        request.headers_mut().insert(header::AUTHORIZATION, credentials);
    }
    let response = client.request(request).await.map_err(|error| {
        // The cause ("connection refused") says more than the wrapper.
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    })?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), LARGEST).collect().await.map_err(|error| error.to_string())?;
    Ok((status, body.to_bytes()))
}

fn bearer(file: &Path) -> Result<HeaderValue, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let value = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
    let mut value = value.map_err(|_| format!("{}: no token can be this", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}
