//! A `limen run` process with its folder, an upstream that does as the path says, and a client that reads one
//! HTTP/1.1 response at a time.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A port that is free, and that nobody else is given before the gateway has it: none of those that the system hands out by itself,
/// to connections among others, and each only once in a process.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    const FIRST: u16 = 10_000;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let handed_out: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let count = usize::from(handed_out.saturating_sub(FIRST));
    assert!(count > 1000, "the system hands out ports from {handed_out} on, which leaves too few for tests");
    // Another process that runs tests begins elsewhere.
    let begin = std::process::id() as usize * 997;
    let free = (0..count).find_map(|_| {
        let nth = (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = FIRST + u16::try_from(nth).unwrap();
        TcpListener::bind(("0.0.0.0", port)).is_ok().then_some(port)
    });
    free.expect("a port that is free")
}

/// Asks until the answer is there.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "gave up waiting for {what}");
        thread::yield_now();
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// Where even a test whose output is kept is heard.
pub(crate) fn say_loudly(text: &str) {
    let _unheard = std::io::stderr().lock().write_all(format!("\n\n*** {text}\n\n").as_bytes());
}

/// One response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// A client connection that is kept.
pub(crate) struct Client<S = TcpStream> {
    stream: BufReader<S>,
}

impl Client {
    pub(crate) fn connect(port: u16) -> std::io::Result<Self> {
        connect(port).map(Self::over)
    }
}

/// A socket that waits no longer than a test does.
pub(crate) fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub(crate) fn get(&mut self, host: &str, path: &str) -> std::io::Result<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        self.receive()
    }

    pub(crate) fn read_exact(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    pub(crate) fn receive(&mut self) -> std::io::Result<Response> {
        let first = self.line()?;
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| std::io::Error::other(format!("not a status line: {first:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: String::new() };
        let mut body = Vec::new();
        if response.header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).map_err(std::io::Error::other)?;
                body.extend(self.read_exact(size)?);
                self.line()?;
                if size == 0 {
                    break;
                }
            }
        } else if status >= 200 && status != 204 && status != 304 {
            let length = response.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
            body = self.read_exact(length)?;
        }
        response.body = String::from_utf8_lossy(&body).into_owned();
        Ok(response)
    }
}

/// One request on a connection of its own.
pub(crate) fn get(port: u16, host: &str, path: &str) -> std::io::Result<Response> {
    Client::connect(port)?.get(host, path)
}

/// A server that does this with each connection, on a thread of its own.
pub(crate) fn listening(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    port
}

/// An HTTP/1.1 server on a thread per connection: `/slow` answers after a second, `/hung` never, `/ws` turns into an echo, `/head`
/// answers with the head that it got, all else with its name and the path it was asked for.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    pub(crate) slow_in_flight: Arc<AtomicUsize>,
}

impl Upstream {
    pub(crate) fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let slow_in_flight = Arc::new(AtomicUsize::new(0));
        let slow = slow_in_flight.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let slow = slow.clone();
                thread::spawn(move || serve(name, stream, &slow));
            }
        });
        Self { port, slow_in_flight }
    }
}

/// Reads a head; `None` when there is no other request.
pub(crate) fn request_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if head[before..].trim_end().is_empty() {
            return Some(head);
        }
    }
}

/// The first line of a head.
pub(crate) fn request_line(reader: &mut impl BufRead) -> Option<String> {
    let head = request_head(reader)?;
    head.lines().next().map(str::to_owned)
}

fn serve(name: &str, stream: TcpStream, slow: &AtomicUsize) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let head = request_head(&mut reader)?;
        let path = head.split(' ').nth(1)?.to_owned();
        if path == "/hung" {
            slow.fetch_add(1, Ordering::SeqCst);
            // Ends with the connection.
            reader.read_exact(&mut [0]).ok()?;
        }
        if path == "/ws" {
            writer
                .write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                )
                .ok()?;
            let mut buffer = [0; 1024];
            loop {
                let count = reader.read(&mut buffer).ok().filter(|n| *n > 0)?;
                writer.write_all(&buffer[..count]).ok()?;
            }
        }
        if path == "/slow" {
            slow.fetch_add(1, Ordering::SeqCst);
            thread::park_timeout(Duration::from_secs(1));
            slow.fetch_sub(1, Ordering::SeqCst);
        }
        let body = if path == "/head" { head } else { format!("{name} {path}") };
        writer
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
            .ok()?;
    }
}

/// The binary that is tried: the one built with the tests, unless `LIMEN_BIN` names another.
pub(crate) fn binary() -> OsString {
    std::env::var_os("LIMEN_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_limen").into())
}

/// A running gateway on its own folder.
pub(crate) struct Limen {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) admin: u16,
    pub(crate) status: u16,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) logs: tempfile::TempDir,
    arguments: Vec<OsString>,
}

impl Limen {
    /// Starts it on a folder with these files, and waits until it is ready.
    pub(crate) fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, &[])
    }

    /// The same, with no flag of ours that asks for a log.
    pub(crate) fn start_without_log(files: &[(&str, &str)], further: &[&str]) -> Self {
        Self::spawn_logging(Command::new(binary()), files, further, false).ready()
    }

    /// The same, with further arguments.
    pub(crate) fn start_with(files: &[(&str, &str)], further: &[&str]) -> Self {
        Self::spawn(files, further).ready()
    }

    fn ready(mut self) -> Self {
        let begin = Instant::now();
        while !get(self.status, "localhost", "/healthz/ready").is_ok_and(|answer| answer.status == 200) {
            let ended = self.child.try_wait().unwrap();
            let late = begin.elapsed() >= PATIENCE;
            assert!(ended.is_none() && !late, "not ready ({ended:?}): {}", self.process_log());
            thread::park_timeout(Duration::from_millis(20));
        }
        self
    }

    /// Starts it, whatever becomes of it; the status port answers soon.
    pub(crate) fn spawn(files: &[(&str, &str)], further: &[&str]) -> Self {
        Self::spawn_by(Command::new(binary()), files, further)
    }

    /// The same by a command that takes the arguments of `limen`, and becomes it.
    pub(crate) fn spawn_by(command: Command, files: &[(&str, &str)], further: &[&str]) -> Self {
        Self::spawn_logging(command, files, further, true)
    }

    fn spawn_logging(command: Command, files: &[(&str, &str)], further: &[&str], log: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let logs = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let [port, admin, status, metrics] = [free_port(), free_port(), free_port(), free_port()];
        // Unless a test has its own.
        let drain: &[&str] = if further.contains(&"--drain-time") { &[] } else { &["--drain-time", "15s"] };
        let mut arguments: Vec<OsString> = ["run", "--bind", "127.0.0.1", "--min-drain-time", "1s"]
            .iter()
            .chain(drain)
            .chain(further)
            .map(Into::into)
            .collect();
        arguments.extend(["--config".into(), folder.path().into()]);
        if log {
            arguments.extend(["--access-log-file".into(), logs.path().join("access.log").into()]);
        }
        arguments.extend(["--port-map".into(), format!("80={port}").into()]);
        for (flag, port) in [("--admin", admin), ("--status-addr", status), ("--metrics-addr", metrics)] {
            arguments.extend([flag.into(), format!("127.0.0.1:{port}").into()]);
        }
        let child = spawn(command, &arguments, &logs.path().join("limen.log"));
        Self { child, port, admin, status, folder, logs, arguments }
    }

    /// Starts another process with the same arguments and some more; its log is the file of that name.
    pub(crate) fn again(&self, log: &str, further: &[&str]) -> Child {
        let arguments: Vec<OsString> =
            self.arguments.iter().cloned().chain(further.iter().map(Into::into)).collect();
        spawn(Command::new(binary()), &arguments, &self.logs.path().join(log))
    }

    /// Replaces a file of the folder by a rename, as editors and ConfigMaps do.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let scratch = self.folder.path().join(format!(".{name}.new"));
        fs::write(&scratch, text).unwrap();
        fs::rename(&scratch, self.folder.path().join(name)).unwrap();
    }

    pub(crate) fn access_log(&self) -> String {
        read(&self.logs.path().join("access.log"))
    }

    pub(crate) fn process_log(&self) -> String {
        read(&self.logs.path().join("limen.log"))
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }
}

impl Drop for Limen {
    fn drop(&mut self) {
        // Ended by the test already, or ended here: either is fine.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(mut command: Command, arguments: &[OsString], log: &Path) -> Child {
    command.args(arguments).stdout(Stdio::null()).stderr(fs::File::create(log).unwrap()).spawn().unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

pub(crate) const GATEWAY: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
    - port: {number: 80, name: http, protocol: HTTP}
      hosts: ["*.example.com"]
"#;

/// A VirtualService `default/NAME` for `NAME.example.com` whose path prefix `/` goes to the service `NAME`.
pub(crate) fn virtual_service(name: &str, extra: &str) -> String {
    format!(
        r#"---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{name}.example.com]
  gateways: [istio-system/public]
  http:
    - route: [{{destination: {{host: {name}}}}}]
{extra}
"#
    )
}

/// A Service `default/NAME` with one port, and an EndpointSlice with the endpoints given.
pub(crate) fn service(name: &str, ports: &[u16]) -> String {
    let slices: String = ports
        .iter()
        .enumerate()
        .map(|(i, port)| {
            format!(
                r#"---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{i}, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: {port}, protocol: TCP}}]
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]
"#
            )
        })
        .collect();
    let none = format!(
        r#"---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-none, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: 80, protocol: TCP}}]
endpoints: []
"#
    );
    format!(
        r#"---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}
{slices}{none}"#
    )
}
