//! The memory that control groups leave this process, and the number of processes that the OOM killer has ended:
//! `cgroups(7)`, both versions.
//!
//! Owns: nothing. Runs in: any process. Where the files are missing, nothing counts as limited.

use std::fs;
use std::path::{Path, PathBuf};

/// Where control groups are mounted by convention.
const MOUNT: &str = "/sys/fs/cgroup";

/// The names of the files of one version.
struct FileNames {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`: pages of files, which the kernel can reclaim.
    files: [&'static str; 2],
    /// The file that counts processes ended by the OOM killer.
    kills: &'static str,
}

const V1: FileNames = FileNames {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    files: ["total_active_file", "total_inactive_file"],
    kills: "memory.oom_control",
};

const V2: FileNames = FileNames {
    limit: "memory.max",
    used: "memory.current",
    files: ["active_file", "inactive_file"],
    kills: "memory.events",
};

/// The number of processes that the kernel's OOM killer has ended so far, where it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OomKills {
    /// Of this process's control group, and of those below it.
    group: Option<u64>,
    /// Of the whole system.
    system: Option<u64>,
}

impl OomKills {
    pub(crate) fn now() -> Self {
        let read = |path: &Path| kills(&fs::read_to_string(path).ok()?);
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = groups.lines().filter_map(group).find_map(|(root, path, names)| {
            let own = root.join(path);
            // In a container the path may be that outside of it; then the root is the container's group.
            own.ancestors()
                .take_while(|group| group.starts_with(&root))
                .find_map(|group| read(&group.join(names.kills)))
        });
        Self { group, system: read(Path::new("/proc/vmstat")) }
    }

    /// Describes what has happened since `before`; `None` if nothing has.
    pub(crate) fn since(self, before: Self) -> Option<String> {
        let more = |now: Option<u64>, before: Option<u64>| now?.checked_sub(before?).filter(|more| *more > 0);
        let (count, of) = match more(self.group, before.group) {
            Some(count) => (count, "of this control group"),
            // Where the group is known, its own count is what matters.
            None if self.group.is_some() && before.group.is_some() => return None,
            None => (more(self.system, before.system)?, "of this system"),
        };
        let processes = if count == 1 { "process" } else { "processes" };
        Some(format!("the kernel's OOM killer has ended {count} {processes} {of} since this one was started"))
    }
}

/// Returns the count in a file of lines with a name and a number.
fn kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Returns how many bytes this process can still use before its control group, or one above it, runs out of memory and
/// the kernel kills a process.
pub(crate) fn memory_left() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().filter_map(|line| group(line).and_then(|(root, path, names)| least(&root, path, names))).min()
}

/// Parses a line of `/proc/self/cgroup`: where its groups are mounted, the group of this process, and its file names.
fn group(line: &str) -> Option<(PathBuf, &str, &'static FileNames)> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let path = path.trim_start_matches('/');
    if controllers.is_empty() {
        Some((MOUNT.into(), path, &V2))
    } else {
        let memory = controllers.split(',').any(|controller| controller == "memory");
        memory.then(|| (Path::new(MOUNT).join("memory"), path, &V1))
    }
}

/// Returns the least that a group, or one above it up to `root`, leaves. In a container the path may be that outside of it; then the
/// root is the container's group.
fn least(root: &Path, path: &str, names: &FileNames) -> Option<usize> {
    let read = |group: &Path, name: &str| fs::read_to_string(group.join(name)).ok();
    let own = root.join(path);
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    groups
        .filter_map(|group| {
            left(&read(group, names.limit)?, &read(group, names.used)?, &read(group, "memory.stat")?, names)
        })
        .min()
}

/// Returns what a group leaves; `None` if it limits nothing.
fn left(limit: &str, used: &str, stat: &str, names: &FileNames) -> Option<usize> {
    let limit: usize = limit.trim().parse().ok()?;
    let used: usize = used.trim().parse().ok()?;
    let value = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        if names.files.contains(&name) { value.trim().parse::<usize>().ok() } else { None }
    };
    let files: usize = stat.lines().filter_map(value).sum();
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_pages_count_as_free() {
        let stat = "anon 5000\nactive_file 100\ninactive_file 30\nactive_anon 700\n";
        assert_eq!(left("1000\n", "600\n", stat, &V2), Some(530));
        assert_eq!(left("1000\n", "1200\n", "", &V2), Some(0));
        assert_eq!(left("max\n", "600\n", stat, &V2), None);
        assert_eq!(left("1000\n", "600\n", "active_file 1\ntotal_active_file 20\n", &V1), Some(420));
    }

    #[test]
    fn group_is_parsed_in_both_versions() {
        let found = |line| group(line).map(|(root, path, names)| (root.display().to_string(), path, names.limit));
        assert_eq!(found("0::/a/b"), Some((MOUNT.to_owned(), "a/b", "memory.max")));
        assert_eq!(found("4:cpu,memory:/c"), Some((format!("{MOUNT}/memory"), "c", "memory.limit_in_bytes")));
        assert_eq!((found("3:cpuset:/"), found("")), (None, None));
    }

    #[test]
    fn oom_kills_are_counted_and_described() {
        assert_eq!(kills("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!((kills("oom_kill_disable 1\n"), kills("")), (None, None));
        let known = |group, system| OomKills { group, system };
        let told = |now: OomKills, before| now.since(before).unwrap_or_default();
        let text = told(known(Some(3), Some(9)), known(Some(2), Some(1)));
        assert_eq!(
            text,
            "the kernel's OOM killer has ended 1 process of this control group since this one was started"
        );
        assert_eq!(told(known(Some(3), Some(9)), known(Some(3), Some(1))), "", "elsewhere");
        let text = told(known(None, Some(9)), known(None, Some(7)));
        assert_eq!(text, "the kernel's OOM killer has ended 2 processes of this system since this one was started");
        assert_eq!(told(known(None, None), known(None, None)), "");
    }

    #[test]
    fn limits_of_parent_groups_count() {
        let root = std::env::temp_dir().join(format!("process-task-cgroup-{}", std::process::id()));
        let write = |group: &str, limit: &str| {
            let group = root.join(group);
            fs::create_dir_all(&group).unwrap();
            for (name, text) in [(V2.limit, limit), (V2.used, "10"), ("memory.stat", "")] {
                fs::write(group.join(name), text).unwrap();
            }
        };
        for (group, limit) in [("", "max"), ("a", "50"), ("a/b", "90")] {
            write(group, limit);
        }
        let found = ["", "a", "a/b", "elsewhere"].map(|path| least(&root, path, &V2));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, [None, Some(40), Some(40), None]);
    }
}
