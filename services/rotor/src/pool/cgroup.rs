//! A control group for each worker: past the cap the kernel refuses memory at once, where the parent only looks now and then.
//!
//! They are used where the system has groups for memory and lets this process make some. With version 2 that is below the
//! process's own group (systemd's `Delegate=yes`, a container with a writable `/sys/fs/cgroup`); processes live in leaves only
//! there, so this one moves into a leaf first. With version 1 it is below its group of the memory controller. Everywhere else
//! the parent's look is all there is.

use std::io::Error;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What the groups of a rotor are called, before its process id.
const PREFIX: &str = "millrace-rotor-";

/// How often a group is tried to be removed: its last process may not be all gone.
const REMOVALS: u32 = 20;

/// The pause between two of them.
const PAUSE: Duration = Duration::from_millis(5);

/// Where this process makes groups.
#[derive(Debug)]
pub(super) struct Groups {
    place: PathBuf,
    version: Version,
    next: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoGroups {
    #[error("the system has no control groups for memory")]
    Absent,
    #[error("{0} cannot be used")]
    Refused(PathBuf, #[source] Error),
}

/// A group of one worker at a time. It is removed when it is dropped; its process must be gone by then.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    version: Version,
}

/// The groups of this process; looked for once. `None` where there are none, which was logged.
pub(super) fn groups() -> Option<&'static Groups> {
    static GROUPS: OnceLock<Option<Groups>> = OnceLock::new();
    let found = GROUPS.get_or_init(|| match Groups::find() {
        Ok(groups) => {
            let place = groups.place.display();
            tracing::info!(%place, version = ?groups.version, "workers have control groups");
            Some(groups)
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::info!(%error, cause, "workers have no control groups, their memory is looked at");
            None
        }
    });
    found.as_ref()
}

impl Groups {
    fn find() -> Result<Self, NoGroups> {
        let read = |path: &str| std::fs::read_to_string(path).map_err(|_| NoGroups::Absent);
        let (groups, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
        let (version, place) = place(&groups, &mounts).ok_or(NoGroups::Absent)?;
        let groups = Self {
            place,
            version,
            next: AtomicUsize::new(0),
        };
        groups.sweep();
        if version == Version::Two {
            groups.make_room()?;
        }
        // One for the trial: who may not make one is told so now.
        let trial = groups.create(u64::from(u32::MAX));
        drop(trial.map_err(|error| NoGroups::Refused(groups.place.clone(), error))?);
        Ok(groups)
    }

    /// Removes what rotors left that were killed.
    fn sweep(&self) {
        let entries = std::fs::read_dir(&self.place).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
                continue;
            };
            let pid = rest.split('-').next().unwrap_or(rest);
            if !Path::new("/proc").join(pid).exists() {
                // One with processes in it stays.
                drop(std::fs::remove_dir(entry.path()));
            }
        }
    }

    /// Has the kernel account for memory in groups below this one. It refuses while processes live in it.
    fn make_room(&self) -> Result<(), NoGroups> {
        let has = |file: &str| {
            let listed = std::fs::read_to_string(self.place.join(file)).unwrap_or_default();
            listed.split_ascii_whitespace().any(|name| name == "memory")
        };
        if !has("cgroup.controllers") {
            return Err(NoGroups::Absent);
        }
        if has("cgroup.subtree_control") {
            return Ok(());
        }
        let refused = |error| NoGroups::Refused(self.place.clone(), error);
        let pid = std::process::id().to_string();
        let leaf = self.place.join(format!("{PREFIX}{pid}"));
        std::fs::create_dir(&leaf).map_err(refused)?;
        let moved = std::fs::write(leaf.join("cgroup.procs"), &pid)
            .and_then(|()| std::fs::write(self.place.join("cgroup.subtree_control"), "+memory"));
        moved.map_err(|error| {
            // Others live here too, or it is not ours: back to where it was.
            drop(std::fs::write(self.place.join("cgroup.procs"), &pid));
            drop(std::fs::remove_dir(&leaf));
            refused(error)
        })
    }

    /// A group whose processes may hold so many bytes together.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn create(&self, bytes: u64) -> Result<Group, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self
            .place
            .join(format!("{PREFIX}{}-{number}", std::process::id()));
        std::fs::create_dir(&path)?;
        let group = Group {
            path,
            version: self.version,
        };
        let (limit, swap, swapped) = match self.version {
            Version::One => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", bytes),
            Version::Two => ("memory.max", "memory.swap.max", 0),
        };
        std::fs::write(group.path.join(limit), bytes.to_string())?;
        // Not every kernel accounts for swap.
        drop(std::fs::write(group.path.join(swap), swapped.to_string()));
        Ok(group)
    }
}

impl Group {
    /// Takes a process in.
    ///
    /// # Errors
    /// The system refuses, or it is gone.
    pub(super) fn admit(&self, pid: u32) -> Result<(), Error> {
        std::fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// How many processes were killed in it for want of memory.
    pub(super) fn kills(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = std::fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..REMOVALS {
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// The directory of this process's group for memory, by `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn place(groups: &str, mounts: &str) -> Option<(Version, PathBuf)> {
    let lines = || {
        groups.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            Some((controllers, path))
        })
    };
    // Where version 1 has the controller, version 2 has not.
    let first = lines().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
    let (version, path) = match first {
        Some((_, path)) => (Version::One, path),
        None => (
            Version::Two,
            lines().find(|(controllers, _)| controllers.is_empty())?.1,
        ),
    };
    mounts.lines().find_map(|line| {
        let (before, behind) = line.split_once(" - ")?;
        let mut behind = behind.split(' ');
        let (kind, options) = (behind.next()?, behind.nth(1)?);
        let is_it = match version {
            Version::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
            Version::Two => kind == "cgroup2",
        };
        let mut before = before.split(' ').skip(3);
        let (root, mount) = (before.next()?, before.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        is_it.then(|| (version, Path::new(mount).join(below)))
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const SYSTEMD: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
    const FIRST: &str = "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const CONTAINER: &str =
        "612 605 0:30 /docker/ab12 /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory\n";

    fn found(groups: &str, mounts: &str) -> Option<(Version, String)> {
        let (version, path) = place(groups, mounts)?;
        Some((version, path.display().to_string()))
    }

    #[test]
    fn the_group_of_a_process_is_found_below_its_mount() {
        let service = found("0::/system.slice/rotor.service\n", SYSTEMD);
        let service = service.expect("a group");
        assert_eq!(
            service,
            (Version::Two, "/sys/fs/cgroup/system.slice/rotor.service".into())
        );
        let namespace = found("0::/\n", SYSTEMD).expect("a group");
        assert_eq!(namespace, (Version::Two, "/sys/fs/cgroup/".into()));
        let first = found("4:memory:/jobs/7\n3:cpuset:/\n0::/\n", FIRST).expect("a group");
        assert_eq!(first, (Version::One, "/sys/fs/cgroup/memory/jobs/7".into()));
        let inside = found("4:cpu,memory:/docker/ab12/x\n", CONTAINER).expect("a group");
        assert_eq!(inside, (Version::One, "/sys/fs/cgroup/memory/x".into()));
        assert_eq!(found("4:memory:/elsewhere\n", CONTAINER), None);
        assert_eq!(found("0::/\n", FIRST.lines().next().expect("a line")), None);
        assert_eq!(found("", SYSTEMD), None);
    }

    #[test]
    fn a_process_that_wants_more_than_its_group_has_is_killed_and_counted_and_nothing_is_left() {
        let Some(groups) = groups() else {
            // With version 1 whoever may make a directory has groups.
            let [groups, mounts] = ["cgroup", "mountinfo"]
                .map(|file| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default());
            if let Some((Version::One, place)) = place(&groups, &mounts) {
                std::fs::create_dir(place.join("millrace-trial"))
                    .expect_err("groups can be made, but were not found");
            }
            return;
        };
        let group = groups.create(32 << 20).expect("a group");
        let path = group.path.clone();
        // It waits for a line, so that it is admitted before it takes anything.
        let mut child = Command::new("sh")
            .args(["-c", "read line; head -c 300000000 /dev/zero | tail -c 200000000"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a shell");
        group.admit(child.id()).expect("admitted");
        assert_eq!(group.kills(), 0);
        drop(child.stdin.take());
        assert!(!child.wait().expect("it ends").success());
        assert_eq!(group.kills(), 1);
        drop(group);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_rotor_left_that_was_killed_is_removed_by_the_next() {
        let Some(groups) = groups() else { return };
        // No process has this id: it is above what the kernel gives.
        let left = groups.place.join(format!("{PREFIX}4294967295-0"));
        std::fs::create_dir(&left).expect("made");
        groups.sweep();
        assert!(!left.exists());
    }
}
