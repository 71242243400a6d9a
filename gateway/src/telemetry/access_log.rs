//! One line a request, in Istio's text or JSON format or one of the user's.
//!
//! Invariant: a request never waits for its line: it goes into a bounded queue, and what does not fit is counted and
//! dropped. A thread of its own writes, because standard output may block for as long as its reader likes; a line is
//! out within a second.

pub mod format;
mod operator;
mod time;

pub use format::{Entry, Format, FormatError};

use prometheus::IntCounter;
use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Lines that may wait for the writer.
const QUEUE: usize = 16 * 1024;
/// Longest time a written line waits to be flushed.
const FLUSH: Duration = Duration::from_millis(500);
/// How long lines gather before they are written together; the queue must hold what comes meanwhile.
const COALESCE: Duration = Duration::from_millis(10);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(Arc<Path>),
}

/// A format and the queue to its writer; dropping it writes what is queued and waits for that.
pub struct AccessLog {
    format: Format,
    queue: Option<SyncSender<String>>,
    writer: Option<JoinHandle<()>>,
    dropped: IntCounter,
}

impl AccessLog {
    /// Opens the target and starts the writer. `dropped` counts lines that did not fit in the queue.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or no thread can be started.
    pub fn start(format: Format, target: &Target, dropped: IntCounter) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match target {
            Target::Stdout => Box::new(io::stdout()),
            Target::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (queue, lines) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_lines(&lines, BufWriter::with_capacity(64 * 1024, out)))?;
        Ok(Self { format, queue: Some(queue), writer: Some(writer), dropped })
    }

    /// Queues the line of one request.
    pub fn log(&self, entry: &Entry<'_>) {
        let mut line = String::with_capacity(512);
        self.format.write(entry, &mut line);
        if self.queue.as_ref().is_some_and(|q| q.try_send(line).is_err()) {
            self.dropped.inc();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the access log's writer panicked");
        }
    }
}

fn write_lines(lines: &Receiver<String>, mut out: BufWriter<Box<dyn Write + Send>>) {
    let mut broken = false;
    let mut note = |result: io::Result<()>| match result {
        Ok(()) => broken = false,
        Err(e) => {
            // Said once until it works again: the log of the gateway must not fill up with the log of requests.
            if !broken {
                tracing::error!(error = %e, "the access log cannot be written");
            }
            broken = true;
        }
    };
    while let Ok(first) = lines.recv() {
        note(out.write_all(first.as_bytes()));
        let mut flushed = Instant::now();
        loop {
            // Asleep, not waiting on the queue: a request that logs then wakes nobody, which costs more than its line.
            thread::park_timeout(COALESCE);
            let mut quiet = true;
            while let Ok(line) = lines.try_recv() {
                note(out.write_all(line.as_bytes()));
                quiet = false;
            }
            if quiet {
                break;
            }
            if flushed.elapsed() >= FLUSH {
                note(out.flush());
                flushed = Instant::now();
            }
        }
        note(out.flush());
    }
    note(out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_reach_the_file_and_dropping_the_log_loses_none() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().join("access.log").into();
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let format = Format::parse("%RESPONSE_CODE% %ROUTE_NAME%").unwrap();
        let log = AccessLog::start(format, &Target::File(path.clone()), dropped.clone()).unwrap();
        let headers = http::HeaderMap::new();
        let entry = Entry { response_code: 204, ..Entry::empty(&headers) };
        for _ in 0..100 {
            log.log(&entry);
        }
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "204 -\n".repeat(100));
        assert_eq!(dropped.get(), 0);
    }
}
