//! The end that an exchange is given: by the client's stream, or by a stand-in for the client's session.
//!
//! The engine has a time limit for each read, and none for an exchange; what it always watches meanwhile is the client. So
//! for the attempts of a route with a limit the stream of an HTTP/1 connection ends its reads and writes when the time is
//! up, which costs a request nothing but a store. The streams of an HTTP/2 connection are the engine's: there [`Timed`] stands in for the
//! client's session, passes everything on, and reports an end of its own. It stands in for that of a client who asks for
//! a tunnel, too, clock or not: see [`Timed::is_body_empty`].
//!
//! Invariant: the client's own session, with all the time it likes, is back with the engine before anything of ours is written
//! or logged. A tunnel has no end but its own.

use super::{
    clock::{Clock, End},
    ctx::Ctx,
};
use crate::listener::ConnectionInfo;
use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use pingora_core::protocols::{
    Digest,
    http::{
        HttpTask, ServerSession,
        custom::{CustomMessageWrite, server::Session as CustomSession},
    },
    l4::socket::SocketAddr,
};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use std::{
    future::Future,
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::time::{Sleep, sleep_until};

/// Begins to watch the time of one attempt. On HTTP/1 the client's stream does it; where there is none of ours, or the
/// connection has other requests too, the clock comes between the engine and the client.
pub(super) fn watch(session: &mut Session, ctx: &Ctx) {
    let (Some(clock), Some(attempt)) = (&ctx.clock, ctx.attempt_started) else { return };
    if let Some(connection) = by_stream(session, ctx) {
        connection.end_exchange_at(clock.end(attempt).map(|end| end.at));
    } else if !session.as_downstream().is_custom() {
        let client = mem::replace(&mut session.downstream_session, Box::new(nobody()));
        let timed = Timed { client, clock: clock.clone(), attempt, sleep: None, head_sent: false };
        *session.downstream_session = ServerSession::new_custom(Box::new(timed));
    }
}

/// The connection whose stream can end the exchange.
fn by_stream<'c>(session: &Session, ctx: &'c Ctx) -> Option<&'c ConnectionInfo> {
    ctx.connection.as_deref().filter(|_| !ctx.upgrade && session.as_http1().is_some())
}

/// Notes that the whole request has arrived.
pub(super) fn request_arrived(session: &Session, ctx: &Ctx) {
    let (Some(clock), Some(attempt)) = (&ctx.clock, ctx.attempt_started) else { return };
    if let Some(connection) = by_stream(session, ctx) {
        clock.request_arrived();
        connection.end_exchange_at(clock.end(attempt).map(|end| end.at));
    }
}

/// Notes that the response has begun: the attempt's own time no longer counts.
pub(super) fn response_begun(session: &Session, ctx: &Ctx) {
    let Some(clock) = &ctx.clock else { return };
    if let Some(connection) = by_stream(session, ctx) {
        connection.end_exchange_at(clock.end_of_route().map(|end| end.at));
    }
}

/// Gives the engine the client's own session back, and the exchange all the time it likes.
pub(super) fn unwatch(session: &mut Session, ctx: &Ctx) {
    let Some(clock) = &ctx.clock else { return };
    if let Some(connection) = &ctx.connection {
        connection.end_exchange_at(None);
    }
    if session.as_downstream().is_custom() {
        // The end of what stands there returns what it had borrowed.
        *session.downstream_session = nobody();
        if let Some(client) = clock.returned().take() {
            session.downstream_session = client;
        }
    }
}

/// A session that nobody asks for anything.
pub(super) fn nobody() -> ServerSession {
    ServerSession::new_custom(Box::new(()))
}

/// A client's session with an end.
struct Timed {
    client: Box<ServerSession>,
    clock: Arc<Clock>,
    attempt: Instant,
    /// Set where there was something to wait for.
    sleep: Option<Pin<Box<Sleep>>>,
    /// The engine turns to the body once the head is sent.
    head_sent: bool,
}

impl Drop for Timed {
    fn drop(&mut self) {
        *self.clock.returned() = Some(mem::replace(&mut self.client, Box::new(nobody())));
    }
}

impl Timed {
    /// What comes first: the work, or the end.
    async fn race<T>(
        end: End,
        sleep: &mut Option<Pin<Box<Sleep>>>,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let mut work = pin!(work);
        // What is done at once needs no timer.
        if let Poll::Ready(done) = futures::poll!(work.as_mut()) {
            return done;
        }
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(end.at.into())));
        if sleep.deadline().into_std() != end.at {
            sleep.as_mut().reset(end.at.into());
        }
        tokio::select! {
            biased;
            done = work => done,
            () = sleep => Err(end.cause.error()),
        }
    }

    /// Whether the response, or a tunnel in its place, has begun.
    fn begun(&self) -> bool {
        self.client.response_written().is_some_and(|r| !r.status.is_informational())
            || self.client.was_upgraded()
    }
}

#[async_trait]
impl CustomSession for Timed {
    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let end = match self.begun() {
            _ if self.client.was_upgraded() => None,
            true => self.clock.end_of_route(),
            false => self.clock.end(self.attempt),
        };
        match end {
            Some(end) => {
                Self::race(end, &mut self.sleep, self.client.read_body_or_idle(no_body_expected)).await
            }
            None => {
                let read = self.client.read_body_or_idle(no_body_expected).await;
                if self.client.is_body_done() {
                    self.clock.request_arrived();
                }
                read
            }
        }
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        match self.clock.end_of_route().filter(|_| !self.client.was_upgraded()) {
            Some(end) => Self::race(end, &mut self.sleep, self.client.response_duplex_vec(tasks)).await,
            None => self.client.response_duplex_vec(tasks).await,
        }
    }

    fn req_header(&self) -> &RequestHeader {
        self.client.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.client.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.client.read_request_body().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.client.drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, _end: bool) -> Result<()> {
        self.client.write_response_header(head).await
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, _end: bool) -> Result<()> {
        self.client.write_response_header_ref(head).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.client.write_response_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.client.write_response_trailers(trailers).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.client.get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.client.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.client.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.client.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.client.response_written()
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.client.shutdown().await;
    }

    fn is_body_done(&mut self) -> bool {
        self.client.is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.client.finish_body().await
    }

    /// The engine tells the upstream's side of the exchange at once that an empty body has ended. Where a 101 is read
    /// before that word, it is taken for the end of the tunnel, which is then closed as soon as it is open. So that of a
    /// tunnel is not said, but only once the head is out, whose framing depends on it.
    fn is_body_empty(&mut self) -> bool {
        !(self.head_sent && self.client.is_upgrade_req()) && self.client.is_body_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.client.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.client.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.client.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.client.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.client.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.client.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.client.to_h1_raw()
    }

    fn enable_retry_buffering(&mut self) {
        self.head_sent = true;
        self.client.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.client.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.client.get_retry_buffer()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }

    fn is_upgrade_req(&self) -> bool {
        self.client.is_upgrade_req()
    }

    fn was_upgraded(&self) -> bool {
        self.client.was_upgraded()
    }
}
