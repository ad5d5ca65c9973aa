//! Access tokens of the machine that we run on, as Google's metadata server gives them.

use bytes::Bytes;
use http::Request;

use super::{AccessToken, AccessTokenError};
use crate::transport;

const PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

/// What both sides must say, so that neither takes somebody else for the other.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");

/// A token for the machine's own account. In the clear: the server is part of the machine's network, and has no name
/// that a certificate could have. **The caller bounds the time.**
pub(crate) async fn from_metadata(host: &str, port: u16) -> Result<AccessToken, AccessTokenError> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = http::Uri::from_static(PATH);
    request
        .headers_mut()
        .insert(FLAVOR.0, http::HeaderValue::from_static(FLAVOR.1));
    let answer = transport::ask_in_the_clear(host, port, request).await?;
    let address = format!("{host}:{port}");
    // A proxy or a captive page would answer too.
    if answer
        .headers
        .get(FLAVOR.0)
        .is_none_or(|flavor| flavor != FLAVOR.1)
    {
        return Err(AccessTokenError::NotMetadata { address });
    }
    AccessToken::from_answer(&answer, &address)
}
