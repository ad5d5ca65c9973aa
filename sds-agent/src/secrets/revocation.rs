//! Revocation lists from a file: they go along with all roots.

use std::{error::Error, path::PathBuf, sync::Arc};

use ca_core::{
    RevocationLists,
    files::{FileSet, FollowError, FollowOptions, FollowedFiles, Snapshot},
};
use time::OffsetDateTime;

use super::Files;
use crate::clock;

/// As PEM; nothing while there is no file, which is the usual case.
pub(crate) type Lists = Option<Arc<str>>;

impl Files {
    /// Follows the lists in `path` for as long as the agent runs. A file that comes, changes or goes is followed; one
    /// that does not read changes nothing.
    pub(crate) async fn follow_revocation_lists(self, path: PathBuf) {
        let of = path.clone();
        let followed = match tokio::task::spawn_blocking(move || start(of)).await {
            Ok(Ok(followed)) => followed,
            Ok(Err(error)) => return self.no_lists(&path, &error),
            Err(error) => return self.no_lists(&path, &error),
        };
        let (mut changes, mut refusals) = (followed.subscribe(), followed.subscribe());
        loop {
            let lists = Lists::clone(&followed.current());
            self.revoke(lists, clock::now());
            let status = followed.status();
            if let Some(refusal) = status.last_refusal.as_ref().filter(|_| status.is_refused) {
                self.no_lists(&path, &*refusal.error);
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = refusals.refused() => {}
            }
        }
    }
}

fn start(path: PathBuf) -> Result<FollowedFiles<Lists>, FollowError> {
    let files = FileSet::new().optional(&path);
    let parse = move |files: &Snapshot, _: Option<&Lists>| read(files.get(&path), clock::now());
    FollowedFiles::start_with(None, files, FollowOptions::new(), parse)
}

/// What a file holds that is there or not.
///
/// # Errors
///
/// When it does not read, or a list in it is over.
pub(crate) fn read(
    file: Option<&[u8]>,
    now: OffsetDateTime,
) -> Result<Lists, Box<dyn Error + Send + Sync>> {
    // An empty file is how a list is withdrawn where files cannot be deleted.
    let Some(text) = file.filter(|text| !text.trim_ascii().is_empty()) else {
        return Ok(None);
    };
    let lists = RevocationLists::from_pem(text)?;
    // Envoy fails every connection below a list that is over.
    let over = lists
        .lists()
        .iter()
        .filter_map(ca_core::RevocationList::next_update);
    if let Some(end) = over.min().filter(|end| *end <= now) {
        let end = clock::show(end);
        return Err(format!("a list in it is over since {end}").into());
    }
    Ok(Some(lists.to_pem().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_and_an_empty_one_are_no_lists_and_junk_is_refused() {
        let now = clock::now();
        assert_eq!(read(None, now).unwrap(), None);
        assert_eq!(read(Some(b" \n"), now).unwrap(), None);
        assert!(read(Some(b"junk"), now).is_err());
    }
}
