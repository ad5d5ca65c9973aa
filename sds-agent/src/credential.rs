//! What proves to a CA who we are.

mod client_certificate;
mod token;
mod token_file;

pub(crate) use client_certificate::{ClientCertificate, ProvisionedFolder};
pub(crate) use token_file::{TokenError, TokenFile};
