//! Tests on a network of their own: addresses and names of the outside world, well-known ports, and nobody else there.
//!
//! A test runs itself again inside namespaces of the kernel's. Making them takes `unshare` and `ip`, and a machine that lets
//! one; where it does not, this is said on the terminal and nothing is tried.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use crate::harness::say_loudly;

/// Set inside.
const INSIDE: &str = "LIMEN_TEST_NAMESPACE";

/// Addresses and names become those of the folder `$0`, then the arguments are run.
const SCRIPT: &str = r#"
set -eu
ip link set lo up
while read -r address _; do
  case $address in 127.*) ;; *) ip address add "$address/32" dev lo 2>/dev/null || true ;; esac
done < "$0/hosts"
mount --bind "$0/hosts" /etc/hosts
mount --bind "$0/resolv.conf" /etc/resolv.conf
exec "$@"
"#;

/// Runs `body` on a network where each of these names has the address beside it, and listeners may take any of them. For other names
/// the test may answer, on port 53.
/// `test` is the path of the calling test, by which it is run again.
pub(crate) fn apart(test: &str, hosts: &[(&str, &str)], body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let Some(flags) = possible() else {
        return say_loudly(&format!(
            "NOT TRIED: {test} (this machine gives no namespaces by unshare and ip)"
        ));
    };
    let folder = tempfile::tempdir().unwrap();
    let lines: String = hosts.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
    fs::write(folder.path().join("hosts"), format!("127.0.0.1 localhost\n{lines}")).unwrap();
    let resolver = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
    fs::write(folder.path().join("resolv.conf"), resolver).unwrap();
    let output = Command::new("unshare")
        .args(flags)
        .args(["sh", "-c", SCRIPT])
        .arg(folder.path())
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{failed}");
    assert!(said.contains("1 passed"), "{test} is not the name of the test: {said}");
}

/// The flags of `unshare` that work here: as root without an own user, or else with one.
fn possible() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [&["--net", "--mount"], &["--user", "--map-root-user", "--net", "--mount"]];
    WAYS.into_iter().find(|flags| {
        Command::new("unshare")
            .args(*flags)
            .args(["sh", "-c", "ip link set lo up && mount --bind /etc/hosts /etc/hosts && mount --bind /etc/resolv.conf /etc/resolv.conf"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}
