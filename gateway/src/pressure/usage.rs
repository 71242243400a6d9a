//! What the process uses, and what it may: from the kernel's files.
//!
//! Invariant: what cannot be read is no limit. Cheap enough for twenty times a second: a handful of small files.

use rustix::io::Errno;
use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Limits;

/// What is used of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// In use.
    pub used: u64,
    /// The limit.
    pub limit: u64,
}

impl Part {
    /// The used share, rounded down; 255 at most.
    #[must_use]
    pub fn percent(self) -> u8 {
        let percent = u128::from(self.used) * 100 / u128::from(self.limit.max(1));
        u8::try_from(percent).unwrap_or(u8::MAX)
    }
}

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory; `None`: there is no limit.
    pub memory: Option<Part>,
    /// File descriptors; `None`: there is no limit.
    pub files: Option<Part>,
}

/// Where usage is read.
pub trait UsageReader: Send {
    /// Looks now.
    fn read(&mut self, limits: &Limits) -> Usage;
}

/// Linux.
#[derive(Debug)]
pub struct System {
    root: PathBuf,
    groups: Vec<Group>,
    /// Of descriptors, as last read.
    most_files: Option<u64>,
}

/// A control group that may limit memory.
#[derive(Debug)]
struct Group {
    folder: PathBuf,
    names: &'static Names,
}

/// How a version of control groups calls its files.
#[derive(Debug)]
struct Names {
    limit: &'static str,
    used: &'static str,
    /// Of `memory.stat`: what the kernel gives back first.
    reclaimable: &'static str,
}

const V2: Names = Names { limit: "memory.max", used: "memory.current", reclaimable: "inactive_file" };
const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};

/// Version 1 has no word for "no limit", but a number that no machine reaches.
const UNLIMITED: u64 = 1 << 60;

impl System {
    /// This machine.
    #[must_use]
    pub fn new() -> System {
        System::at(Path::new("/"))
    }

    /// A machine whose `/proc` and `/sys` lie in a folder.
    fn at(root: &Path) -> System {
        let of_process = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mut groups = Vec::new();
        for line in of_process.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let (mount, names) = match controllers {
                "" => (root.join("sys/fs/cgroup"), &V2),
                _ if controllers.split(',').any(|one| one == "memory") => {
                    (root.join("sys/fs/cgroup/memory"), &V1)
                }
                _ => continue,
            };
            // A limit of any group above counts too. In a container without a namespace of its own the path is the
            // machine's, and only the mount itself is ours.
            let own = mount.join(path.trim_start_matches('/'));
            let above = own.ancestors().take_while(|folder| folder.starts_with(&mount));
            groups.extend(above.map(|folder| Group { folder: folder.to_owned(), names }));
        }
        groups.retain(|group| group.folder.join(group.names.limit).exists());
        System { root: root.to_owned(), groups, most_files: None }
    }

    fn memory(&self, limit: Option<u64>) -> Option<Part> {
        let given = limit.and_then(|limit| Some(Part { used: self.resident()?, limit }));
        let groups = self.groups.iter().filter_map(Group::read);
        // A limit that was given takes the place of what the groups say.
        match limit {
            Some(_) => given,
            None => groups.max_by_key(|part| part.percent()),
        }
    }

    /// Bytes that the process has in memory.
    fn resident(&self) -> Option<u64> {
        let status = fs::read_to_string(self.root.join("proc/self/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    fn files(&mut self, limit: Option<u64>) -> Option<Part> {
        let given = || {
            let limits = fs::read_to_string(self.root.join("proc/self/limits")).ok()?;
            let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
            // "unlimited" is no number.
            line.split_whitespace().next()?.parse().ok()
        };
        // A process without any descriptor left cannot read its limit either, and must not take that for none.
        self.most_files = given().or(self.most_files);
        let limit = limit.or(self.most_files)?;
        let folder = self.root.join("proc/self/fd");
        // Since Linux 6.2 the folder's size is the number of descriptors; before, they have to be counted, which takes one.
        let used = match fs::metadata(&folder).map_or(0, |found| found.len()) {
            0 => match fs::read_dir(&folder) {
                Ok(found) => found.count() as u64,
                Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => limit,
                Err(_) => return None,
            },
            size => size,
        };
        Some(Part { used, limit })
    }
}

impl Default for System {
    fn default() -> System {
        System::new()
    }
}

impl UsageReader for System {
    fn read(&mut self, limits: &Limits) -> Usage {
        Usage { memory: self.memory(limits.memory), files: self.files(limits.files) }
    }
}

impl Group {
    fn read(&self) -> Option<Part> {
        let number = |name: &str| -> Option<u64> {
            fs::read_to_string(self.folder.join(name)).ok()?.trim().parse().ok()
        };
        // "max" is no number.
        let limit = number(self.names.limit).filter(|limit| *limit < UNLIMITED)?;
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let reclaimable = stat.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            (name == self.names.reclaimable).then(|| value.trim().parse::<u64>().ok())?
        });
        let used = number(self.names.used)?.saturating_sub(reclaimable.unwrap_or(0));
        Some(Part { used, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let system = System::at(folder.path());
        (folder, system)
    }

    #[test]
    fn the_tightest_group_counts_without_what_can_be_given_back() {
        let (_folder, mut system) = machine(&[
            ("proc/self/cgroup", "0::/pods/one\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/pods/memory.max", "1000\n"),
            ("sys/fs/cgroup/pods/memory.current", "900\n"),
            ("sys/fs/cgroup/pods/one/memory.max", "500\n"),
            ("sys/fs/cgroup/pods/one/memory.current", "480\n"),
            ("sys/fs/cgroup/pods/one/memory.stat", "anon 1\ninactive_file 200\n"),
        ]);
        let usage = system.read(&Limits::default());
        assert_eq!(usage.memory, Some(Part { used: 900, limit: 1000 }));
        assert_eq!(usage.files, None, "nothing to read is no limit");
    }

    #[test]
    fn version_1_and_a_path_of_the_machine() {
        let (_folder, mut system) = machine(&[
            ("proc/self/cgroup", "9:name=systemd:/\n4:memory,cpu:/docker/abc\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 500\n"),
        ]);
        assert_eq!(system.read(&Limits::default()).memory, Some(Part { used: 1000, limit: 2000 }));
        let (_folder, mut system) = machine(&[
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n"),
        ]);
        assert_eq!(system.read(&Limits::default()).memory, None);
    }

    #[test]
    fn a_limit_that_was_given_is_for_the_process_alone() {
        let (_folder, mut system) = machine(&[
            ("proc/self/status", "Name:\tlimen\nVmRSS:\t    40 kB\nThreads:\t3\n"),
            (
                "proc/self/limits",
                "Limit  Soft  Hard  Units\nMax open files            1024    4096   files\n",
            ),
            ("proc/self/fd/0", ""),
            ("proc/self/fd/1", ""),
        ]);
        let limits = Limits { memory: Some(81_920), files: Some(10), ..Limits::default() };
        let usage = system.read(&limits);
        assert_eq!(usage.memory.map(Part::percent), Some(50));
        assert_eq!(usage.files.map(|part| part.limit), Some(10));
        assert_eq!(system.read(&Limits::default()).files.map(|part| part.limit), Some(1024));
    }

    #[test]
    fn a_limit_that_cannot_be_read_any_more_holds() {
        let line = "Max open files            1024    4096   files\n";
        let (folder, mut system) = machine(&[("proc/self/limits", line), ("proc/self/fd/0", "")]);
        let limit = |system: &mut System| system.read(&Limits::default()).files.map(|part| part.limit);
        assert_eq!(limit(&mut system), Some(1024));
        fs::remove_file(folder.path().join("proc/self/limits")).unwrap();
        assert_eq!(limit(&mut system), Some(1024), "as where no descriptor is left to open it with");
    }

    #[test]
    fn this_machine_counts_descriptors() {
        let mut system = System::new();
        let files = |system: &mut System| system.read(&Limits::default()).files.map(|part| part.used);
        let Some(before) = files(&mut system) else { return };
        let open: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // Other tests of this process open and close theirs meanwhile.
        assert!(files(&mut system).unwrap() + 25 > before + open.len() as u64);
    }
}
