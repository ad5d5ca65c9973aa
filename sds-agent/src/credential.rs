//! What proves to a CA who we are.

mod access_token;
mod client_certificate;
mod exchange;
mod metadata;
mod stamp;
mod token;
mod token_file;

use http::HeaderValue;

pub(crate) use access_token::{AccessToken, AccessTokenError};
pub(crate) use client_certificate::{ClientCertificate, ProvisionedFolder};
pub(crate) use exchange::exchange;
pub(crate) use metadata::from_metadata;
pub(crate) use stamp::Stamps;
pub(crate) use token_file::{TokenError, TokenFile};

/// A secret as the value of a header. **It must be printable ASCII**, as all our tokens are; else the header is empty.
pub(crate) fn header(secret: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(secret).unwrap_or(HeaderValue::from_static(""));
    // Keeps it out of `Debug`.
    value.set_sensitive(true);
    value
}
