//! Malformed responses as raw bytes over real sockets: what a client sees of each, and that the next request is clean.
//!
//! Every case is followed by a request of an innocent client through the same cluster. What two readers could take for a different
//! number of bytes may cost its own client the answer, and nobody else.

use std::{
    collections::HashMap,
    io::{BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::{corpus::unescape, harness::*};

const CASES: &str = include_str!("corpus/responses.txt");

struct Case {
    line: usize,
    status: u16,
    /// The answer breaks off.
    cut: bool,
    flag: String,
    body: Option<Vec<u8>>,
    /// The upstream closes behind its bytes.
    closes: bool,
    /// There are bytes behind the end.
    poisons: bool,
    bytes: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let numbered = CASES.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let read = numbered.map(|(at, line)| {
        let mut columns = line.split('\t');
        let [answer, flag, body, raw] = std::array::from_fn(|_| columns.next().expect("four columns"));
        let (raw, closes) = raw.strip_suffix("<close>").map_or((raw, false), |raw| (raw, true));
        Case {
            line: at + 1,
            status: answer.trim_end_matches('x').parse().unwrap(),
            cut: answer.ends_with('x'),
            flag: flag.to_owned(),
            body: (body != "-").then(|| unescape(body)),
            closes,
            poisons: raw.contains("evil") || raw.ends_with(" and more"),
            bytes: unescape(raw),
        }
    });
    read.collect()
}

/// Answers `/LINE` with the case of that line, and everything else well. Remembers which case a connection carried last, and on
/// which of them another request came.
fn upstream(cases: &[Case]) -> (u16, Arc<Mutex<Vec<usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers: HashMap<String, (usize, Vec<u8>, bool)> = cases
        .iter()
        .map(|case| (format!("/{}", case.line), (case.line, case.bytes.clone(), case.closes)))
        .collect();
    let (answers, reused) = (Arc::new(answers), Arc::new(Mutex::new(Vec::new())));
    let noted = reused.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answers, noted) = (answers.clone(), noted.clone());
            thread::spawn(move || answer(stream, &answers, &noted));
        }
    });
    (port, reused)
}

fn answer(
    stream: TcpStream,
    answers: &HashMap<String, (usize, Vec<u8>, bool)>,
    reused: &Mutex<Vec<usize>>,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    let mut carried = None;
    loop {
        let first = request_line(&mut reader)?;
        reused.lock().unwrap().extend(carried.take());
        let path = first.split(' ').nth(1)?;
        match answers.get(path) {
            Some((line, bytes, closes)) => {
                carried = Some(*line);
                writer.write_all(bytes).ok()?;
                if *closes {
                    writer.shutdown(Shutdown::Both).ok()?;
                    return None;
                }
            }
            None => {
                write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).ok()?;
            }
        }
    }
}

/// Everything that a client gets on a connection of its own.
fn whole(port: u16, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nHost: up.example.com\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).unwrap();
    let mut all = Vec::new();
    let _ended_or_reset = stream.read_to_end(&mut all);
    all
}

/// The body of a response that is whole; `None` where it breaks off.
fn body_of(head: &str, mut rest: &[u8]) -> Option<Vec<u8>> {
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        let mut body = Vec::new();
        loop {
            let end = rest.windows(2).position(|two| two == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
            body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
            let after = rest.get(end + 2 + size..)?;
            rest = after.strip_prefix(b"\r\n")?;
            if size == 0 {
                return rest.is_empty().then_some(body);
            }
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(_) if head.starts_with("http/1.1 304") => Some(rest.to_vec()),
        Some(length) => (rest.len() == length.parse::<usize>().ok()?).then(|| rest.to_vec()),
        None => Some(rest.to_vec()),
    }
}

fn wrong(case: &Case, limen: &Limen) -> Result<(), String> {
    let path = format!("/{}", case.line);
    let all = whole(limen.port, &path);
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no answer")?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status: u16 = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no status")?;
    let body = body_of(&head, &all[end + 4..]);
    if (status, body.is_none()) != (case.status, case.cut) {
        return Err(format!("{status}{}", if body.is_none() { "x" } else { "" }));
    }
    if let (Some(wants), Some(got)) = (&case.body, &body)
        && wants != got
    {
        return Err(format!("body {:?}", String::from_utf8_lossy(got)));
    }
    let innocent = whole(limen.port, "/innocent");
    if !innocent.ends_with(b"\r\n\r\n/innocent") || !innocent.starts_with(b"HTTP/1.1 200 ") {
        return Err(format!("an innocent client got {:?}", String::from_utf8_lossy(&innocent)));
    }
    let line = eventually("the access-log line", || {
        limen.access_log().lines().find(|line| line.contains(&format!(" {path} "))).map(str::to_owned)
    });
    if !line.contains(&format!("\" {} {} ", case.status, case.flag)) {
        return Err(format!("logged as {line}"));
    }
    Ok(())
}

#[test]
fn nothing_that_an_upstream_says_reaches_anybody_else() {
    let cases = cases();
    assert!(cases.len() >= 80, "{} cases", cases.len());
    let (port, reused) = upstream(&cases);
    let config = [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[port])].concat();
    let limen = Limen::start(&[("all.yaml", &config)]);
    let mut failures = Vec::new();
    for case in &cases {
        reused.lock().unwrap().clear();
        let verdict = wrong(case, &limen).and_then(|()| {
            // What was not understood, or did not end where it said, carries no other request.
            let bad = case.status == 502 || case.cut || case.closes || case.poisons;
            let again = reused.lock().unwrap().contains(&case.line);
            if bad && again { Err("the connection was used again".to_owned()) } else { Ok(()) }
        });
        if let Err(what) = verdict {
            let bytes = case.bytes.get(..200).unwrap_or(&case.bytes);
            failures.push(format!("line {}: {what}\n  {:?}", case.line, String::from_utf8_lossy(bytes)));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}
