//! What we show to the CA.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

/// The token in a file, as a header. **Read at each use**: whoever keeps it fresh replaces it long before it expires.
pub(super) fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, TokenError> {
    let text = Zeroizing::new(fs::read(path).map_err(|cause| TokenError::Read {
        path: path.into(),
        cause,
    })?);
    // Without the white space that editors and shells leave around it.
    let token = text.trim_ascii();
    if token.is_empty() {
        return Err(TokenError::Empty { path: path.into() });
    }
    let not_a_token = || TokenError::NotAToken { path: path.into() };
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(not_a_token());
    }
    let token = std::str::from_utf8(token).map_err(|_| not_a_token())?;
    let header = Zeroizing::new(format!("Bearer {token}"));
    let mut value = MetadataValue::try_from(header.as_str()).map_err(|_| not_a_token())?;
    // Keeps it out of `Debug` and out of HTTP/2's compression tables.
    value.set_sensitive(true);
    Ok(value)
}

/// Why there is no token. Nothing of its content is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file is missing or unreadable.
    #[error("token file {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// The file has nothing in it.
    #[error("token file {}: empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file has something else in it.
    #[error("token file {}: not one line of text", path.display())]
    NotAToken {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_anew_and_trimmed_and_its_errors_name_the_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(matches!(bearer(&path), Err(TokenError::Read { .. })));
        for (text, header) in [("one.two\n", "Bearer one.two"), (" three ", "Bearer three")] {
            fs::write(&path, text).unwrap();
            let value = bearer(&path).unwrap();
            assert_eq!(value.to_str().unwrap(), header);
            assert!(!format!("{value:?}").contains("one"), "{value:?}");
        }
        fs::write(&path, "\n").unwrap();
        assert!(matches!(bearer(&path), Err(TokenError::Empty { .. })));
        fs::write(&path, "secret words").unwrap();
        let text = bearer(&path).unwrap_err().to_string();
        assert!(
            text.contains("/token") && !text.contains("secret"),
            "{text}"
        );
    }
}
