//! Whether files are still what they were, without reading them.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often files are looked at while somebody waits for them.
const INTERVAL: Duration = Duration::from_secs(1);

/// Files and what they looked like. Through links, so that the swap of a volume is seen.
#[derive(Debug)]
pub(crate) struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            // Not the time of modification, which whoever copies a file may set back.
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl Stamps {
    /// As they are now.
    pub(crate) fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let stamp = |path: PathBuf| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        };
        Self(files.into_iter().map(stamp).collect())
    }

    /// Returns when one of them has come, gone or changed. Looks at them once a second: it is for the time
    /// after a failure, and a watch would need a thread.
    pub(crate) async fn changed(self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if self.0.iter().any(|(path, old)| Stamp::of(path) != *old) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    /// Time stands still while anybody has work to do, and jumps when everybody waits.
    #[tokio::test(start_paused = true)]
    async fn files_that_come_change_or_are_swapped_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let minute = Duration::from_secs(60);
        let stamps = || Stamps::of([path("token"), path("other")]);
        let noticed = async |stamps: Stamps| timeout(minute, stamps.changed()).await.is_ok();

        let before = stamps();
        fs::write(path("one"), "1").unwrap();
        symlink(path("one"), path("token")).unwrap();
        assert!(noticed(before).await, "it came");
        assert!(!noticed(stamps()).await, "nothing happened");

        let before = stamps();
        fs::write(path("two"), "2").unwrap();
        symlink(path("two"), path("new")).unwrap();
        fs::rename(path("new"), path("token")).unwrap();
        assert!(noticed(before).await, "the link leads elsewhere");

        let before = stamps();
        fs::remove_file(path("two")).unwrap();
        assert!(noticed(before).await, "it went");
    }
}
