//! Following symbolic links by hand, so that every directory on the way is known.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// As many as Linux follows.
const MAX_LINKS: usize = 40;

/// Every name that had to be looked up, by the directory it was looked up in. A path can only come to mean another
/// file by a change of one of these names. The directories are free of links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lookups(BTreeMap<PathBuf, BTreeSet<OsString>>);

impl Lookups {
    /// Parents before their children.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Does it matter when something happens to `path`?
    pub(super) fn concern(&self, path: &Path) -> bool {
        self.0.contains_key(path)
            || match (path.parent(), path.file_name()) {
                (Some(directory), Some(name)) => {
                    self.0.get(directory).is_some_and(|n| n.contains(name))
                }
                _ => false,
            }
    }

    fn add(&mut self, directory: &Path, name: OsString) {
        if let Some(names) = self.0.get_mut(directory) {
            names.insert(name);
        } else {
            self.0
                .insert(directory.to_path_buf(), BTreeSet::from([name]));
        }
    }
}

/// Resolves several paths as of one moment: each link is read once. So all paths that lead through a link which is being
/// replaced (`..data`) lead to the same side of the replacement.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    /// `None`: not a link.
    links: BTreeMap<PathBuf, Option<PathBuf>>,
    lookups: Lookups,
}

impl Resolver {
    /// The path without links. Fails when there is nothing; what was looked up until then is remembered also then, for
    /// what is missing may appear.
    pub(super) fn resolve(&mut self, absolute: &Path) -> io::Result<PathBuf> {
        let mut resolved = PathBuf::new();
        let mut links = 0;
        // The steps to go, the next one last.
        let mut steps = Vec::new();
        push_steps(&mut steps, absolute);
        while let Some(step) = steps.pop() {
            let name = match step {
                Step::Restart(root) => {
                    resolved.push(root);
                    continue;
                }
                Step::Up => {
                    resolved.pop();
                    continue;
                }
                Step::Down(name) => name,
            };
            let candidate = resolved.join(&name);
            self.lookups.add(&resolved, name);
            match self.link(&candidate)? {
                None => resolved = candidate,
                Some(_) if links == MAX_LINKS => {
                    return Err(io::Error::other("too many levels of symbolic links"));
                }
                Some(target) => {
                    links += 1;
                    push_steps(&mut steps, &target);
                }
            }
        }
        Ok(resolved)
    }

    pub(super) fn into_lookups(self) -> Lookups {
        self.lookups
    }

    fn link(&mut self, path: &Path) -> io::Result<Option<PathBuf>> {
        if let Some(known) = self.links.get(path) {
            return Ok(known.clone());
        }
        let target = if path.symlink_metadata()?.is_symlink() {
            Some(path.read_link()?)
        } else {
            None
        };
        self.links.insert(path.to_path_buf(), target.clone());
        Ok(target)
    }
}

enum Step {
    Restart(OsString),
    Up,
    Down(OsString),
}

fn push_steps(steps: &mut Vec<Step>, path: &Path) {
    use std::path::Component;
    steps.extend(path.components().rev().filter_map(|c| match c {
        Component::Prefix(_) | Component::RootDir => {
            Some(Step::Restart(c.as_os_str().to_os_string()))
        }
        Component::CurDir => None,
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_os_string())),
    }));
}
