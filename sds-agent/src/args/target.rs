//! Where certificates are asked for. The form of the address says what kind of CA it is, as far as it can.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::transport::{ServerAddress, ServerAddressError};

/// The address of a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaTarget {
    /// `host:port` or `https://host:port`.
    Server(ServerAddress),
    /// `projects/<project>/locations/<location>/caPools/<pool>`, as Google names its pools.
    Pool(CaPool),
    /// `file:<folder>`, where somebody exchanges requests for certificates by hand.
    Folder(PathBuf),
}

impl FromStr for CaTarget {
    type Err = CaTargetError;

    fn from_str(text: &str) -> Result<Self, CaTargetError> {
        if let Some(folder) = text.strip_prefix("file:") {
            let folder = folder.strip_prefix("//").unwrap_or(folder);
            return match folder {
                "" => Err(CaTargetError::Folder),
                folder => Ok(Self::Folder(folder.into())),
            };
        }
        if text.starts_with("projects/") {
            return CaPool::parse(text).map(Self::Pool);
        }
        Ok(Self::Server(text.parse()?))
    }
}

impl fmt::Display for CaTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(address) => address.fmt(f),
            Self::Pool(pool) => pool.fmt(f),
            Self::Folder(folder) => write!(f, "file:{}", folder.display()),
        }
    }
}

/// The full name of a pool of CAs at Google. It has nothing in it that means something in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaPool(String);

impl CaPool {
    fn parse(text: &str) -> Result<Self, CaTargetError> {
        let parts: Vec<_> = text.split('/').collect();
        let ["projects", project, "locations", location, "caPools", pool] = parts[..] else {
            return Err(CaTargetError::Pool);
        };
        let is_name = |part: &str| {
            let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-_.:".contains(&c);
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
        };
        if [project, location, pool].into_iter().all(is_name) {
            Ok(Self(text.to_owned()))
        } else {
            Err(CaTargetError::Pool)
        }
    }
}

impl fmt::Display for CaPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not the address of a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaTargetError {
    /// Not that of a server.
    #[error(transparent)]
    Server(#[from] ServerAddressError),
    /// Not that of a pool at Google.
    #[error("expected projects/<project>/locations/<location>/caPools/<pool>")]
    Pool,
    /// Nothing behind `file:`.
    #[error("expected file:<folder>")]
    Folder,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_an_address_tells_the_kind_of_ca() {
        let pool = "projects/example.com:p/locations/europe-west1/caPools/mesh";
        for (text, shown) in [
            ("https://ca:15012", "ca:15012"),
            (pool, pool),
            ("file:///var/drop", "file:/var/drop"),
            ("file:drop", "file:drop"),
        ] {
            let target: CaTarget = text.parse().unwrap();
            assert_eq!(target.to_string(), shown);
        }
        for (text, error) in [
            ("file:", CaTargetError::Folder),
            ("file://", CaTargetError::Folder),
            ("projects/p", CaTargetError::Pool),
            ("projects/p/locations/l/caPools/", CaTargetError::Pool),
            ("projects/p/locations/../caPools/a", CaTargetError::Pool),
            ("projects/p/locations/l/caPools/a?b", CaTargetError::Pool),
            ("projects/p/locations/l/caPools/a/b", CaTargetError::Pool),
            ("ca", CaTargetError::Server(ServerAddressError::NoPort)),
        ] {
            assert_eq!(text.parse::<CaTarget>(), Err(error), "{text}");
        }
    }
}
