//! One line a request, in Istio's text or JSON format or one of the user's.
//!
//! Invariant: a request never waits for its line to be written: lines gather in memory, at most 8 MiB of
//! them, and what does not fit is counted and dropped. A thread of its own writes, because standard output may block
//! for as long as its reader likes; a line is out within a second.

pub mod format;
mod json;
mod operator;
mod rare;
pub mod records;
pub(crate) mod time;

pub use format::{Entry, Format, FormatError, More};
pub(crate) use operator::{number, socket};

use prometheus::IntCounter;
use std::{
    cell::RefCell,
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// Bytes of lines that may wait for the writer.
const BUFFERED: usize = 8 * 1024 * 1024;
/// How long lines gather before they are written together.
const COALESCE: Duration = Duration::from_millis(50);
/// Bytes that are written without waiting for more: few enough to stay in the cache of the core that fills them.
const FULL: usize = 32 * 1024;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(Arc<Path>),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Stdout => f.write_str("on standard output"),
            Target::Stderr => f.write_str("on standard error"),
            Target::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A format and the lines on their way to the writer; dropping it writes them and waits for that.
pub struct AccessLog {
    format: Format,
    pending: Arc<Pending>,
    writer: Option<JoinHandle<()>>,
    dropped: IntCounter,
}

/// What the requests and the writer share.
#[derive(Default)]
struct Pending {
    lines: Mutex<Lines>,
    wake: Condvar,
}

#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    /// The writer waits for the first line; while it writes or gathers, nobody need wake it.
    asleep: bool,
    closed: bool,
    /// The file is to be opened anew: it has been moved away.
    reopen: bool,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Whoever panicked left whole lines: one is appended at a time.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// Where a thread writes its line before it is appended to the others: formatting is outside the lock.
    static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
}

impl AccessLog {
    /// Opens the target and starts the writer. `dropped` counts lines that did not fit, or could not be written.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or no thread can be started.
    pub fn start(format: Format, target: &Target, dropped: IntCounter) -> io::Result<Self> {
        Self::begin(format, open(target)?, Some(target.clone()), dropped)
    }

    /// The same for a writer of the program's, which gets whole lines; those that it fails at are lost, and that is said.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn to_writer(format: Format, out: Box<dyn Write + Send>, dropped: IntCounter) -> io::Result<Self> {
        Self::begin(format, out, None, dropped)
    }

    fn begin(
        format: Format,
        out: Box<dyn Write + Send>,
        target: Option<Target>,
        dropped: IntCounter,
    ) -> io::Result<Self> {
        let pending = Arc::new(Pending::default());
        let (lines, lost) = (pending.clone(), dropped.clone());
        let writer = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_lines(&lines, target.as_ref(), out, &lost))?;
        Ok(Self { format, pending, writer: Some(writer), dropped })
    }

    /// Has the file opened anew, before the next line is written: whoever rotates logs has moved it away.
    pub fn reopen(&self) {
        self.pending.lock().reopen = true;
        self.pending.wake.notify_one();
    }

    /// Adds the line of one request.
    pub fn log(&self, entry: &Entry<'_>) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.format.write(entry, line);
            let mut lines = self.pending.lock();
            if lines.text.len() + line.len() > BUFFERED {
                self.dropped.inc();
                return;
            }
            let before = lines.text.len();
            lines.text.extend_from_slice(line);
            let full = before < FULL && lines.text.len() >= FULL;
            let wake = std::mem::take(&mut lines.asleep) || full;
            drop(lines);
            if wake {
                self.pending.wake.notify_one();
            }
        });
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.pending.lock().closed = true;
        self.pending.wake.notify_one();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the access log's writer panicked");
        }
    }
}

fn open(target: &Target) -> io::Result<Box<dyn Write + Send>> {
    Ok(match target {
        Target::Stdout => Box::new(io::stdout()),
        Target::Stderr => Box::new(io::stderr()),
        Target::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
    })
}

fn write_lines(
    pending: &Pending,
    target: Option<&Target>,
    mut out: Box<dyn Write + Send>,
    dropped: &IntCounter,
) {
    let mut broken = false;
    let mut batch = Vec::new();
    loop {
        let mut lines = pending.lock();
        while lines.text.is_empty() && !lines.reopen {
            if lines.closed {
                return;
            }
            lines.asleep = true;
            lines = pending.wake.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
        lines.asleep = false;
        std::mem::swap(&mut batch, &mut lines.text);
        let closed = lines.closed;
        let reopen = std::mem::take(&mut lines.reopen);
        drop(lines);
        if let (true, Some(target)) = (reopen, target) {
            match open(target) {
                Ok(new) => out = new,
                // What is open goes on being written.
                Err(error) => tracing::error!(%error, ?target, "the access log cannot be opened anew"),
            }
        }
        match out.write_all(&batch).and_then(|()| out.flush()) {
            Ok(()) => broken = false,
            Err(e) => {
                // Some of them may have been written.
                dropped.inc_by(memchr::memchr_iter(b'\n', &batch).count() as u64);
                // Said once until it works again: the log of the gateway must not fill up with the log of requests.
                if !broken {
                    let target = target.map(ToString::to_string).unwrap_or_default();
                    tracing::error!(error = %e, target, "the access log cannot be written; its lines are lost");
                }
                broken = true;
            }
        }
        batch.clear();
        // A burst's memory is not kept for ever; what is ordinary is.
        batch.shrink_to(2 * FULL);
        if !closed {
            // Lines gather meanwhile, and wake nobody: a thread switch costs a request more than its line does.
            let lines = pending.lock();
            let gathered = pending
                .wake
                .wait_timeout_while(lines, COALESCE, |lines| !lines.closed && lines.text.len() < FULL);
            drop(gathered.unwrap_or_else(PoisonError::into_inner));
        }
    }
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

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let target = Target::File(path.as_path().into());
        let log = AccessLog::start(Format::parse("%RESPONSE_CODE%").unwrap(), &target, dropped).unwrap();
        let headers = http::HeaderMap::new();
        let entry = |response_code| Entry { response_code, ..Entry::empty(&headers) };
        log.log(&entry(201));
        let patience = std::time::Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&path).unwrap().is_empty() {
            assert!(std::time::Instant::now() < patience);
            std::thread::yield_now();
        }
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        log.log(&entry(202));
        drop(log);
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "201\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "202\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let target = Target::File(Path::new("/dev/full").into());
        let log =
            AccessLog::start(Format::parse("%RESPONSE_CODE%").unwrap(), &target, dropped.clone()).unwrap();
        let headers = http::HeaderMap::new();
        for _ in 0..10 {
            log.log(&Entry::empty(&headers));
        }
        drop(log);
        assert_eq!(dropped.get(), 10);
    }

    #[test]
    fn what_the_writer_cannot_keep_up_with_is_dropped_and_counted() {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let format = Format::parse("%ROUTE_NAME%").unwrap();
        let stuck = AccessLog { format, pending: Arc::default(), writer: None, dropped: dropped.clone() };
        let headers = http::HeaderMap::new();
        let megabyte = "x".repeat(1024 * 1024);
        let entry = Entry { route_name: &megabyte, ..Entry::empty(&headers) };
        for _ in 0..10 {
            stuck.log(&entry);
        }
        assert_eq!(dropped.get(), 3);
        assert!(stuck.pending.lock().text.len() <= BUFFERED);
    }
}
