//! Malformed requests as raw bytes over real sockets, with an upstream that writes down what it saw.
//!
//! Every case is followed by a request of an innocent client. If the gateway and the upstream read a message differently,
//! the upstream sees something else than was asked for, and the innocent gets an answer that is not its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::harness::*;

const CASES: &str = include_str!("corpus/requests.txt");
/// Where other proxies disagree: a name, and then the same columns.
const DIFFERENTIAL: &str = include_str!("corpus/differential.txt");

struct Case {
    line: usize,
    statuses: Vec<u16>,
    closed: bool,
    seen: Vec<String>,
    bytes: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let named = DIFFERENTIAL.lines().map(|line| line.split_once('\t').map_or("", |(_, columns)| columns));
    let all = CASES.lines().enumerate().chain(named.enumerate());
    let numbered = all.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let read = numbered.map(|(at, line)| {
        let mut columns = line.split('\t');
        let [answers, seen, raw] = std::array::from_fn(|_| columns.next().expect("three columns"));
        Case {
            line: at + 1,
            statuses: answers.trim_end_matches('x').split(',').map(|s| s.parse().unwrap()).collect(),
            closed: answers.ends_with('x'),
            seen: seen.split(';').filter(|s| *s != "-").map(str::to_owned).collect(),
            bytes: unescape(raw),
        }
    });
    read.collect()
}

pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&b, after)) = rest.split_first() {
        rest = after;
        match b {
            b'\\' => {
                let (&kind, after) = rest.split_first().unwrap();
                rest = after;
                out.push(match kind {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'x' => {
                        let (hex, after) = rest.split_at(2);
                        rest = after;
                        u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap()
                    }
                    other => other,
                });
            }
            b'{' if rest.contains(&b'*') && !rest.starts_with(b"}") => {
                let end = rest.iter().position(|b| *b == b'}').unwrap();
                let (inner, after) = rest.split_at(end);
                rest = &after[1..];
                let (what, times) = std::str::from_utf8(inner).unwrap().rsplit_once('*').unwrap();
                out.extend(unescape(what).repeat(times.parse().unwrap()));
            }
            b => out.push(b),
        }
    }
    out
}

/// Answers every whole request with its own target, and remembers it.
struct Recorder {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let record = record.clone();
                thread::spawn(move || answer(stream, &record));
            }
        });
        Recorder { port, seen }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn answer(stream: TcpStream, record: &Mutex<Vec<String>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let first = line(&mut reader)?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let field = line(&mut reader)?.to_ascii_lowercase();
            match field.split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().ok()?,
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                Some(_) => {}
                None => break,
            }
        }
        if chunked {
            loop {
                let size = usize::from_str_radix(&line(&mut reader)?, 16).ok()?;
                skip(&mut reader, size)?;
                line(&mut reader)?;
                if size == 0 {
                    break;
                }
                length += size;
            }
        } else {
            skip(&mut reader, length)?;
        }
        let mut words = first.split(' ');
        let (method, target) = (words.next()?, words.next()?.to_owned());
        record.lock().unwrap().push(format!("{method} {target} {length}"));
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", target.len()).ok()?;
        writer.write_all(if method == "HEAD" { b"" } else { target.as_bytes() }).ok()?;
    }
}

/// A line that ends as it must; anything else is taken down as it came.
fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok().filter(|count| *count > 0)?;
    let line = String::from_utf8_lossy(&line);
    Some(line.strip_suffix("\r\n").map_or(format!("bad line end: {line:?}"), str::to_owned))
}

fn skip(reader: &mut BufReader<TcpStream>, count: usize) -> Option<()> {
    reader.read_exact(&mut vec![0; count]).ok()
}

/// Sends a case; what is wrong with what became of it.
fn wrong(case: &Case, limen: &Limen, recorder: &Recorder) -> Result<(), String> {
    let mut client = Client::connect(limen.port).map_err(|e| e.to_string())?;
    // A refused client may be cut while it is still sending.
    let _ = client.send(&case.bytes);
    for wants in &case.statuses {
        let got = client.receive().map_err(|e| format!("no answer where {wants} should be: {e}"))?;
        if got.status != *wants {
            return Err(format!("{} where {wants} should be", got.status));
        }
        if *wants != 100 && got.header("server") != Some("istio-envoy") {
            return Err(format!("answered by {:?}", got.header("server")));
        }
    }
    if case.closed {
        if let Ok(more) = client.read_exact(1) {
            return Err(format!("not closed, but {more:?}"));
        }
    } else {
        let next = client.get("up.example.com", "/next").map_err(|e| format!("cannot go on: {e}"))?;
        if (next.status, next.body.as_str()) != (200, "/next") {
            return Err(format!("the next request got {} {:?}", next.status, next.body));
        }
    }
    let innocent = get(limen.port, "up.example.com", "/innocent").map_err(|e| e.to_string())?;
    if (innocent.status, innocent.body.as_str()) != (200, "/innocent") {
        return Err(format!("an innocent client got {} {:?}", innocent.status, innocent.body));
    }
    let mut wants = case.seen.clone();
    wants.extend((!case.closed).then(|| "GET /next 0".to_owned()));
    wants.push("GET /innocent 0".to_owned());
    let seen = recorder.take();
    if seen == wants { Ok(()) } else { Err(format!("the upstream saw {seen:?}")) }
}

#[test]
fn nothing_malformed_is_read_in_two_ways() {
    let recorder = Recorder::start();
    let config = [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[recorder.port])].concat();
    let limen = Limen::start(&[("all.yaml", &config)]);
    let cases = cases();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        if let Err(what) = wrong(case, &limen, &recorder) {
            let bytes = case.bytes.get(..200).unwrap_or(&case.bytes);
            failures.push(format!("line {}: {what}\n  {:?}", case.line, String::from_utf8_lossy(bytes)));
            recorder.take();
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));

    let final_ones = |case: &Case| case.statuses.iter().filter(|status| **status >= 200).count();
    let answers: usize = cases.iter().map(|case| final_ones(case) + 1 + usize::from(!case.closed)).sum();
    eventually("a line in the access log for every answer", || {
        (limen.access_log().lines().count() == answers).then_some(())
    });
}
