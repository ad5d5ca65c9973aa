//! A bearer token in a file that somebody else keeps fresh.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::token;
use crate::clock;

/// The file. **Its content is read again at each use**: the kubelet replaces a projected token long
/// before it expires.
#[derive(Clone, Debug)]
pub(crate) struct TokenFile(PathBuf);

impl TokenFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Whether there is a token, at the start. One that has expired will do: somebody may be about to replace it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), but for that.
    pub(crate) fn check(&self, now: OffsetDateTime) -> Result<(), TokenError> {
        match self.read(now) {
            Ok(_) | Err(TokenError::Expired(..)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The token as it is now, without the white space that editors and shells leave around it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is empty, holds what cannot go into a header, or holds a token
    /// that has expired at `now`: a CA would refuse it, and say less clearly why.
    pub(crate) fn read(&self, now: OffsetDateTime) -> Result<Zeroizing<String>, TokenError> {
        // Blocking on purpose: the file lies in memory (a projected volume), and a hop to another
        // thread would cost more than the read.
        let text = fs::read(&self.0).map_err(|error| TokenError::Read(self.0.clone(), error))?;
        let text = Zeroizing::new(text);
        let token = text.trim_ascii();
        if token.is_empty() {
            return Err(TokenError::Empty(self.0.clone()));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::NotAToken(self.0.clone()));
        }
        let token: Zeroizing<String> =
            Zeroizing::new(token.iter().copied().map(char::from).collect());
        match token::expiry(&token) {
            Some(end) if end <= now => Err(TokenError::Expired(self.0.clone(), end)),
            _ => Ok(token),
        }
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file is missing or unreadable.
    #[error("cannot read the token file {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The file has nothing in it.
    #[error("the token file {} is empty", .0.display())]
    Empty(PathBuf),
    /// The file has something else in it.
    #[error("the token file {} does not hold one line of text", .0.display())]
    NotAToken(PathBuf),
    /// Whoever should replace it has not.
    #[error("the token in {} expired at {at}", .0.display(), at = clock::show(*.1))]
    Expired(PathBuf, OffsetDateTime),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_a_token_is_dropped_and_each_read_is_fresh() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let file = TokenFile::new(&path);
        assert!(matches!(file.read(clock::now()), Err(TokenError::Read(..))));
        fs::write(&path, "one.two.three\n").unwrap();
        assert_eq!(*file.read(clock::now()).unwrap(), "one.two.three");
        fs::write(&path, " four ").unwrap();
        assert_eq!(*file.read(clock::now()).unwrap(), "four");
        fs::write(&path, "\n").unwrap();
        assert!(matches!(file.read(clock::now()), Err(TokenError::Empty(_))));
        for wrong in ["two\nlines", "a\0b", "t\u{f6}ken"] {
            fs::write(&path, wrong).unwrap();
            assert!(
                matches!(file.read(clock::now()), Err(TokenError::NotAToken(_))),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn an_expired_token_is_not_shown_to_anybody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        // {"exp":1795262400}
        fs::write(&path, "e30.eyJleHAiOjE3OTUyNjI0MDB9.c2ln\n").unwrap();
        let end = OffsetDateTime::from_unix_timestamp(1_795_262_400).unwrap();
        let file = TokenFile::new(&path);
        assert!(file.read(end - time::Duration::SECOND).is_ok());
        let error = file.read(end).unwrap_err().to_string();
        assert!(
            error.ends_with("expired at 2026-11-21T12:00:00Z"),
            "{error}"
        );
    }

    #[test]
    fn errors_name_the_file_and_nothing_of_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "secret words").unwrap();
        let text = TokenFile::new(&path)
            .read(clock::now())
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("/token") && !text.contains("secret"),
            "{text}"
        );
    }
}
