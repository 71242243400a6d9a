//! A memory limit of the kernel's: a gateway in a control group sheds before the kernel would kill it, and recovers.
//!
//! Making a group takes root and a machine that lets one; where there is none, this is said on the terminal and nothing is tried.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::harness::*;

/// Room for a debug build, and for what a client below can make it hold between two looks at usage.
const LIMIT: u64 = 256 << 20;

/// Below the limit of heads, so that each is held and none is refused.
const HEAD: usize = 900_000;

/// A control group of its own, removed at the end.
struct Group(PathBuf);

impl Group {
    /// # Errors
    /// Why there is none.
    fn make() -> Result<Group, String> {
        let mounts = fs::read_to_string("/proc/mounts").map_err(|error| error.to_string())?;
        let mounts: Vec<Vec<&str>> = mounts.lines().map(|line| line.split(' ').collect()).collect();
        let of_kind = |kind: &str, option: &str| {
            let fits = |mount: &&Vec<&str>| mount[2] == kind && mount[3].split(',').any(|one| one == option);
            mounts
                .iter()
                .find(fits)
                .map(|mount| Path::new(mount[1]).join(format!("limen-test-{}", std::process::id())))
        };
        let v2 = of_kind("cgroup2", "rw").filter(|group| {
            let controllers = group.with_file_name("cgroup.controllers");
            fs::read_to_string(controllers)
                .is_ok_and(|text| text.split_whitespace().any(|one| one == "memory"))
        });
        let (group, limit) = match (v2, of_kind("cgroup", "memory")) {
            (Some(group), _) => {
                let children = group.with_file_name("cgroup.subtree_control");
                fs::write(&children, "+memory")
                    .map_err(|error| format!("{}: {error}", children.display()))?;
                (group, "memory.max")
            }
            (None, Some(group)) => (group, "memory.limit_in_bytes"),
            (None, None) => return Err("no control groups with memory".to_owned()),
        };
        fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
        let group = Group(group);
        fs::write(group.0.join(limit), LIMIT.to_string()).map_err(|error| format!("{limit}: {error}"))?;
        Ok(group)
    }

    /// A command that puts itself there before it becomes `limen`.
    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        command.arg(self.0.join("cgroup.procs")).arg(binary());
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The process has been waited for; the kernel may still be busy with it.
        let _removed = (0..100).any(|_| {
            thread::park_timeout(Duration::from_millis(20));
            fs::remove_dir(&self.0).is_ok()
        });
    }
}

#[test]
fn a_process_in_a_group_with_little_memory_sheds_before_the_kernel_acts() {
    let group = match Group::make() {
        Ok(group) => group,
        Err(why) => {
            let this = "memory_limit::a_process_in_a_group_with_little_memory_sheds_before_the_kernel_acts";
            return say_loudly(&format!("NOT TRIED: {this} ({why})"));
        }
    };
    let up = Upstream::start("up");
    let config = [GATEWAY.to_owned(), virtual_service("up", ""), service("up", &[up.port])].concat();
    // Steps so wide that none is missed between two looks.
    let flags = [
        "--max-header-bytes=1000000",
        "--threads=2",
        "--shed-keepalive-at=60",
        "--shed-requests-at=75",
        "--shed-connections-at=90",
    ];
    let mut limen = Limen::spawn_by(group.command(), &[("all.yaml", &config)], &flags);
    eventually("readiness", || {
        get(limen.status, "localhost", "/healthz/ready").ok().filter(|r| r.status == 200)
    });
    let ask = || get(limen.port, "up.example.com", "/");
    assert_eq!(ask().unwrap().status, 200);

    // Heads that never end, until clients are told to go, then to come back later, and then nobody is let in.
    let mut held = Vec::new();
    let head = format!("GET / HTTP/1.1\r\nHost: up.example.com\r\nX: {}", "x".repeat(HEAD));
    let (mut reluctant, mut shed) = (false, false);
    loop {
        if held.len() * HEAD > 2 * usize::try_from(LIMIT).unwrap() {
            panic!("never full with {} heads: {}", held.len(), limen.process_log());
        }
        // Some 100 MB a second: a kernel's limit is hit between two looks by who is fast enough.
        thread::park_timeout(Duration::from_millis(10));
        let mut stream = connect(limen.port).unwrap_or_else(|e| panic!("{e}: {}", limen.process_log()));
        // Behind a listener that accepts nothing the kernel takes what fits into its buffers.
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        let _taken = stream.write_all(head.as_bytes());
        held.push(stream);
        if limen.process_log().contains("no connection is accepted") {
            break;
        }
        if let Some(response) = asked(limen.port) {
            match response.status {
                200 => reluctant |= response.header("connection") == Some("close"),
                503 => {
                    assert_eq!(response.header("retry-after"), Some("1"));
                    shed = true;
                }
                other => panic!("{other}"),
            }
        }
    }
    assert!(reluctant && shed, "{reluctant} {shed}: {}", limen.process_log());
    assert!(limen.child.try_wait().unwrap().is_none(), "killed: {}", limen.process_log());
    let log = limen.process_log();
    for step in ["clients are asked to go", "requests are answered 503", "no connection is accepted"] {
        assert!(log.contains(&format!("memory: {step}")), "{step}: {log}");
    }

    drop(held);
    eventually("enough again", || ask().ok().filter(|response| response.status == 200));
    eventually("its word", || limen.process_log().contains("memory: enough again").then_some(()));
    assert_eq!(get(limen.status, "localhost", "/healthz/ready").unwrap().status, 200);
    drop(limen);
    drop(group);
}

/// A request that does not wait long: nobody may be let in.
fn asked(port: u16) -> Option<Response> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    Client::over(stream).get("up.example.com", "/").ok()
}
