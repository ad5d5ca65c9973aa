//! `Debug` for messages that hold keys, or pack messages that do: shapes and sizes, never contents.

use std::fmt;

use crate::generated::{
    Jwtsvid, ValidateJwtsvidRequest, X509svid,
    envoy::{
        config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            PrivateKeyProvider, private_key_provider::ConfigType,
        },
        service::discovery::v3::{DiscoveryResponse, Resource},
    },
    istio::v1::auth::CsrRequest,
};

impl fmt::Debug for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSource")
            .field("specifier", &self.specifier)
            .field("watched_directory", &self.watched_directory)
            .finish()
    }
}

impl fmt::Debug for Specifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filename(path) => f.debug_tuple("Filename").field(path).finish(),
            Self::InlineBytes(bytes) => write!(f, "InlineBytes({} bytes)", bytes.len()),
            Self::InlineString(text) => write!(f, "InlineString({} bytes)", text.len()),
            Self::EnvironmentVariable(name) => {
                f.debug_tuple("EnvironmentVariable").field(name).finish()
            }
        }
    }
}

impl fmt::Debug for TypedExtensionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedExtensionConfig")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PrivateKeyProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKeyProvider")
            .field("provider_name", &self.provider_name)
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ConfigType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::TypedConfig(config) = self;
        write!(
            f,
            "TypedConfig({}, {} bytes)",
            config.type_url,
            config.value.len()
        )
    }
}

impl fmt::Debug for DiscoveryResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoveryResponse")
            .field("version_info", &self.version_info)
            .field("type_url", &self.type_url)
            .field("nonce", &self.nonce)
            .field("resources", &self.resources.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for X509svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509svid")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Jwtsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwtsvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ValidateJwtsvidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateJwtsvidRequest")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CsrRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsrRequest")
            .field("csr_pem", &String::from_utf8_lossy(&self.csr_pem))
            .field("credential_type", &self.credential_type)
            .field("requested_ttl_minutes", &self.requested_ttl_minutes)
            .finish_non_exhaustive()
    }
}
