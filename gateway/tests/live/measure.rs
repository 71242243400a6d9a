//! What a process takes, told by the system, and how long something takes to come true.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::harness::{Client, PATIENCE};

/// Hosts of the configuration.
pub(crate) fn scale() -> usize {
    std::env::var("LIMEN_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// Time on a processor of all threads of a process so far.
pub(crate) fn cpu(id: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten();
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    });
    spent.sum()
}

/// Resident memory of a process, now and at its most, in MiB.
pub(crate) fn memory(id: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() / 1024
    };
    (line("VmRSS:"), line("VmHWM:"))
}

/// Asks every millisecond until the answer is this one; how long that took.
pub(crate) fn until(port: u16, host: &str, path: &str, body: &str) -> Duration {
    let begin = Instant::now();
    let mut client = Client::connect(port).ok();
    loop {
        let answer = client.as_mut().map(|client| client.get(host, path));
        match answer {
            Some(Ok(answer)) if answer.status == 200 && answer.body == body => return begin.elapsed(),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => client = Client::connect(port).ok(),
        }
        assert!(begin.elapsed() < PATIENCE, "gave up waiting for {body:?}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
